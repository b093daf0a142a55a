"""Run the benchmarks on a machine without asv and write one result file.

``PYTHONPATH=. python3 asv_bench/run_device.py --out FILE [--device cuda] [--only NAME] [--judge]``
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asv_bench import environment
from asv_bench.benchmarks.common import timed
from asv_bench.limits import judged

MODULES = (
    "importing",
    "modules",
    "broken_stick",
    "iir",
    "gammatone",
    "fft_drnl",
    "fir",
    "drnl",
    "windowed_dft",
    "compaction",
    "multi_resolution_fft",
    "moore2016_spectrum",
    "erb_integration",
    "spreading",
    "roex",
    "front_ends",
    "against_scipy",
)


def combinations(benchmark: type) -> Iterator[tuple[Any, ...]]:
    yield from itertools.product(*getattr(benchmark, "params", ()))


def on_device(combination: tuple[Any, ...], device: str) -> bool:
    """Whether a combination belongs to the device: its first parameter is the device, or a pair that begins with it."""
    if not combination:
        return device == "cpu"
    first = combination[0][0] if isinstance(combination[0], tuple) else combination[0]
    return first == device if first in ("cpu", "cuda") else device == "cpu"


def measure(instance: Any, method: str, combination: tuple[Any, ...], device: str) -> tuple[float, str]:
    function = getattr(instance, method)
    if method.startswith("track_"):
        return function(*combination), getattr(function, "unit", "")
    function(*combination)
    return statistics.median(timed(lambda: function(*combination), device) for _ in range(10)), "s"


def run(device: str, only: str) -> Iterator[dict[str, Any]]:
    for stem in MODULES:
        module = importlib.import_module(f"asv_bench.benchmarks.{stem}")
        for name, benchmark in inspect.getmembers(module, inspect.isclass):
            if name.startswith("_") or benchmark.__module__ != module.__name__ or only not in f"{stem}.{name}":
                continue
            for combination in combinations(benchmark):
                if not on_device(combination, device):
                    continue
                for method in dir(benchmark):
                    if not method.startswith(("time_", "track_")):
                        continue
                    instance = benchmark()
                    try:
                        instance.setup(*combination)
                        value, unit = measure(instance, method, combination, device)
                    except NotImplementedError:
                        continue
                    row = {"benchmark": f"{stem}.{name}.{method}", "parameters": [str(c) for c in combination]}
                    print(f"{row['benchmark']} {combination}: {value:.4g} {unit}", flush=True)
                    yield row | {"value": value, "unit": unit}


def beyond_limits(rows: list[dict[str, Any]]) -> list[str]:
    """What to say of every figure that leaves its limit."""
    found = ((limit, value) for limit, value in judged(rows) if not value <= limit.most)
    return [f"beyond its limit of {limit.most:.3g}: {value:.3g}, {limit.work}" for limit, value in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", default="", help="part of a benchmark's, or of a kernel operation's, name")
    parser.add_argument("--judge", action="store_true", help="exit with 1 where a figure on the CPU leaves its limit")
    arguments = parser.parse_args()
    environment.require(parser, arguments.device)
    result = environment.describe(arguments.device) | {"results": list(run(arguments.device, arguments.only))}
    environment.write(result, arguments.out)
    if arguments.judge and arguments.device == "cpu":  # what is asked of a GPU depends on its bandwidth
        beyond = beyond_limits(result["results"])
        print(*beyond, sep="\n")
        sys.exit(len(beyond) > 0)


if __name__ == "__main__":
    main()
