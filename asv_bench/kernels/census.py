"""Every kernel at its reference load, compiled for four GPUs without one: resources, code, bytes moved, launches.

``python -m asv_bench.kernels.census --out FILE [--only NAME]``
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import triton

from asv_bench.environment import origin, write
from asv_bench.kernels.host import launch_rows, report
from asv_bench.kernels.machine_code import TARGETS, Code, Launch, compiled, intercepted
from asv_bench.kernels.traffic import size_in_bytes, traffic
from asv_bench.operations import OPERATIONS, passes, tensors

BANDWIDTH = 4.3e12  # bytes/s of a copy, read and written, on an H200


def moving(size: int) -> dict[str, Any]:
    return {"bytes": size, "floor, s": float(f"{size / BANDWIDTH:.4g}")}


def operation_rows(name: str) -> Iterator[dict[str, Any]]:
    """Least traffic of forward and backward: operands read once, results written once."""
    operation = OPERATIONS[name]
    with intercepted(lambda launch, run: None):
        for direction, functions, given in passes(operation, "meta", operation.rows):
            size = sum(map(size_in_bytes, (*tensors(given), *tensors(functions.launcher(*given)))))
            yield {"operation": name, "direction": direction, "load": operation.load, **moving(size)}


def kernel_rows(name: str, target: str) -> list[dict[str, Any]]:
    """A row for every kernel, grid and traffic, with the number of such launches."""
    found = []
    operation = OPERATIONS[name]
    launches: list[tuple[Launch, Code]] = []
    with compiled(target, lambda *launch: launches.append(launch)):
        for direction, functions, given in passes(operation, "meta", operation.rows):
            launches.clear()
            functions.launcher(*given)
            rows: dict[str, dict[str, Any]] = {}
            for launch, code in launches:
                moved = traffic(code.kernel.asm["ttir"], launch.operands, launch.programs())
                key = json.dumps([launch.kernel, launch.constants, launch.grid, *moved])
                if key not in rows:
                    rows[key] = {
                        "operation": name,
                        "direction": direction,
                        "kernel": launch.kernel,
                        "target": target,
                        "constants": launch.constants,
                        "programs": launch.programs(),
                        "launches": 0,
                        **resources(code),
                        **moving(moved.bytes()),
                        "loads": list(moved.loads),
                        "stores": list(moved.stores),
                    }
                rows[key]["launches"] += 1
            found += rows.values()
    return found


@functools.cache
def resources(code: Code) -> dict[str, int]:
    found = code.accesses()
    return {
        "warps": code.kernel.metadata.num_warps,
        "registers": code.registers,
        "spilled": code.spilled,
        "stack": code.stack,
        "shared, bytes": code.shared,
        "instructions": code.instructions(),
        "wide loads": found["wide_loads"],
        "narrow loads": found["loads"] - found["wide_loads"],
        "wide stores": found["wide_stores"],
        "narrow stores": found["stores"] - found["wide_stores"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--only", default="", help="part of an operation's name")
    arguments = parser.parse_args()
    names = [name for name in OPERATIONS if arguments.only in name]
    jobs = [(name, target) for name in names for target in TARGETS]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        kernels = list(pool.map(kernel_rows, *zip(*jobs, strict=True)))
    result = origin() | {
        "triton": triton.__version__,
        "assumed bandwidth, bytes/s": BANDWIDTH,
        "operations": [row for name in names for row in operation_rows(name)],
        "launches": [row for name in names for row in launch_rows(name)],
        "kernels": [row for rows in kernels for row in rows],
    }
    write(result, arguments.out)
    for line in report(arguments.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
