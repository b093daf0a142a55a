"""Seconds of every launch of a kernel on the GPU, at the loads that :mod:`asv_bench.kernels` compiles it for."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from asv_bench.benchmarks.common import require
from asv_bench.machine_code import Launch, intercepted
from asv_bench.operations import OPERATIONS, Pass, passes, tensors

ROUNDS = 20
CHECKED_ROWS = 8
ASLEEP = 1 << 26  # clock cycles, some 40 ms: all launches are queued before the first one runs


def measured(only: str = "") -> Iterator[dict[str, Any]]:
    """A row for every kernel and grid: as in the census, but for one device, and seconds instead of what it moves."""
    for name, operation in OPERATIONS.items():
        if only not in name:
            continue
        for direction, functions, given in passes(operation, "cuda", CHECKED_ROWS):
            require(error(functions, given), operation.limit, f"{name} {direction}")
        for direction, functions, given in passes(operation, "cuda", operation.rows):
            rounds = [launch_times(partial(functions.launcher, *given)) for _ in range(ROUNDS + 1)]
            for row in summary(rounds[1:]):
                print(f"{name} {direction} {row['kernel']}: {row['seconds']:.4g} s", flush=True)
                yield {"operation": name, "direction": direction} | row


def error(functions: Pass, given: tuple[Any, ...]) -> float:
    """Largest difference of an output from the reference's in float64, relative to that one's norm."""
    wide = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.double, given)
    pairs = zip(tensors(functions.launcher(*given)), tensors(functions.reference(*wide)), strict=True)
    return max(torch.nan_to_num((a - b).norm() / b.norm(), nan=torch.inf).item() for a, b in pairs)


def launch_times(call: Callable[[], Any], cuda: Any = torch.cuda) -> list[tuple[Launch, float]]:
    """What ``call`` launches, in order, each with its seconds between two events."""
    launches = []

    def record(launch: Launch, run: Callable[[], Any]) -> None:
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        launches.append((launch._replace(operands={}), start, end))

    cuda.synchronize()
    cuda._sleep(ASLEEP)
    with intercepted(record):
        call()
    cuda.synchronize()
    return [(launch, 1e-3 * start.elapsed_time(end)) for launch, start, end in launches]


def summary(rounds: list[list[tuple[Launch, float]]]) -> list[dict[str, Any]]:
    """Median over the rounds of the mean over equal launches of a round."""
    rows: dict[str, dict[str, Any]] = {}
    seconds = defaultdict(list)
    for launches in rounds:
        times = defaultdict(list)
        for launch, time in launches:
            times[str(launch)].append(time)
            what = {"kernel": launch.kernel, "constants": launch.constants, "programs": launch.programs()}
            rows.setdefault(str(launch), what)
        for key, found in times.items():
            seconds[key].append(statistics.mean(found))
            rows[key]["launches"] = len(found)
    return [row | {"seconds": statistics.median(seconds[key])} for key, row in rows.items()]
