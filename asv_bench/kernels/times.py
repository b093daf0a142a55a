"""Seconds and bytes of every launch of a kernel on the GPU."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from asv_bench.kernels.machine_code import Launch, intercepted
from asv_bench.kernels.traffic import traffic
from asv_bench.operations import Pass, tensors

ROUNDS = 8
ASLEEP = 1 << 26  # clock cycles, some 40 ms: all launches are queued before the first one runs


class Timed(NamedTuple):
    """A launch, its seconds between two events, and the bytes it has to move, where those are known."""

    launch: Launch
    seconds: float
    bytes: int | None


def measured(call: Callable[[], Any], cuda: Any = torch.cuda, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """A row for every kernel and grid that ``call`` launches: as in the census, with seconds."""
    sizes: dict[str, int | None] = {}
    return summary([launch_times(call, sizes, cuda) for _ in range(rounds + 1)][1:])  # the first one compiles


def error(functions: Pass, given: tuple[Any, ...]) -> float:
    """Largest difference of an output from the reference's in float64, relative to that one's norm."""
    wide = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.double, given)
    return difference(functions.launcher(*given), functions.reference(*wide))


def difference(actual: Any, expected: Any) -> float:
    """Largest difference of a tensor from the one expected, relative to that one's norm."""

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        off = (a - b).norm()
        return 0.0 if off == 0 else torch.nan_to_num(off / b.norm(), nan=torch.inf).item()

    return max(relative(a, b) for a, b in zip(tensors(actual), tensors(expected), strict=True))


def launch_times(call: Callable[[], Any], sizes: dict[str, int | None], cuda: Any = torch.cuda) -> list[Timed]:
    """What ``call`` launches, in order. ``sizes`` keeps the bytes, which are computed once for a kernel and grid."""
    launches = []

    def record(launch: Launch, run: Callable[[], Any]) -> Any:
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        kernel = run()
        end.record()
        short = launch._replace(operands={})
        key = str(short)
        if key not in sizes:
            sizes[key] = moved(launch, kernel)
        launches.append((short, start, end, sizes[key]))
        return kernel

    cuda.synchronize()
    cuda._sleep(ASLEEP)
    with intercepted(record):
        call()
    cuda.synchronize()
    return [Timed(launch, 1e-3 * start.elapsed_time(end), size) for launch, start, end, size in launches]


def moved(launch: Launch, kernel: Any) -> int | None:
    """Bytes of operands, each counted once, by the code of the kernel that ran."""
    try:
        return traffic(kernel.asm["ttir"], launch.operands, launch.programs()).bytes()
    except NotImplementedError:  # code that asv_bench.kernels.traffic does not read
        return None


def summary(rounds: list[list[Timed]]) -> list[dict[str, Any]]:
    """Median over the rounds of the mean over equal launches of a round."""
    rows: dict[str, dict[str, Any]] = {}
    seconds = defaultdict(list)
    for launches in rounds:
        times = defaultdict(list)
        for launch, time, size in launches:
            times[str(launch)].append(time)
            what = {"kernel": launch.kernel, "constants": launch.constants, "programs": launch.programs()}
            rows.setdefault(str(launch), what | {"bytes": size})
        for key, found in times.items():
            seconds[key].append(statistics.mean(found))
            rows[key]["launches"] = len(found)
    return [row | {"seconds": statistics.median(seconds[key])} for key, row in rows.items()]
