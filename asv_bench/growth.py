"""Time and memory of every module over length, batch and channels, three decades each.

``python -m asv_bench.growth --out results/growth-cpu.json [--only NAME]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from asv_bench import environment
from asv_bench.benchmarks.common import require, timed
from asv_bench.comparison.measure import peak_bytes, without_gradient
from asv_bench.registry import MODULES

STEPS = [10 ** (k / 2) for k in range(7)]  # three decades
SECONDS_PER_POINT = 0.5


def call_of(name: str, sizes: Mapping[str, int], dtype: torch.dtype, device: str) -> Callable[[], Any]:
    """The call of a module of these sizes."""
    growth = MODULES[name].growth
    module = MODULES[name].build(device=device, dtype=dtype, **growth.options(sizes["channels"]))
    given = [t.to(device, dtype) for t in growth.given(sizes["length"], sizes["batch"], sizes["channels"])]
    return without_gradient(module, *given)


def points(name: str, axis: str, device: str) -> Iterator[dict[str, Any]]:
    """One axis of one module, with its numbers checked against float64 at both ends."""
    growth = MODULES[name].growth
    for step in STEPS:
        size = round(growth.start[axis] * step)
        sizes = growth.base | {axis: size}
        call = call_of(name, sizes, torch.float32, device)
        if step in (STEPS[0], STEPS[-1]):
            expected = call_of(name, sizes, torch.float64, "cpu")()
            require(growth.error(call(), expected), growth.limit, f"{name}, {axis} {size}")
            del expected
        once = timed(call, device)
        rounds = max(3, min(20, int(SECONDS_PER_POINT / once)))
        seconds = min(timed(call, device) for _ in range(rounds))
        yield {"module": name, "axis": axis, "size": size, "seconds": seconds, "peak_bytes": peak_bytes(call, device)}


def rows(only: str) -> Iterator[dict[str, Any]]:
    """Of all axes of all modules; where one fails, its last row says so."""
    for name, module in MODULES.items():
        for axis in module.growth.start if only in name else ():
            try:
                for row in points(name, axis, "cpu"):
                    print(f"{name}, {axis} {row['size']}: {row['seconds']:.3g} s", file=sys.stderr, flush=True)
                    yield row
            except Exception as error:
                yield {"module": name, "axis": axis, "failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--only", default="", help="part of a module's name")
    arguments = parser.parse_args()
    result = environment.describe("cpu") | {"results": []}
    environment.write_all(result, rows(arguments.only), arguments.out)


if __name__ == "__main__":
    main()
