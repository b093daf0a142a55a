"""Run the benchmarks on the CPU without asv, and write one result file.

``python -m asv_bench.cpu --out FILE [--only NAME] [--judge]``
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import itertools
import pkgutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asv_bench import benchmarks, environment
from asv_bench.benchmarks.common import timed
from asv_bench.limits import judged


def figures() -> Iterator[tuple[str, type, list[str]]]:
    """Name, class and methods of all benchmarks, file by file."""
    for _, stem, _ in pkgutil.iter_modules(benchmarks.__path__):
        module = importlib.import_module(f"{benchmarks.__name__}.{stem}")
        for name, benchmark in inspect.getmembers(module, inspect.isclass):
            if not name.startswith("_") and benchmark.__module__ == module.__name__:
                methods = [m for m in dir(benchmark) if m.startswith(("time", "track_")) and m != "timeout"]
                yield f"{stem}.{name}", benchmark, methods


def combinations(benchmark: type) -> Iterator[tuple[Any, ...]]:
    """Those for the CPU: the first parameter is no other device, nor a pair that begins with one."""
    for combination in itertools.product(*getattr(benchmark, "params", ())):
        first = combination[0] if combination else "cpu"
        if (first[0] if isinstance(first, tuple) else first) != "cuda":
            yield combination


def measure(instance: Any, method: str, combination: tuple[Any, ...]) -> tuple[float, str]:
    function = getattr(instance, method)
    if method.startswith("track_"):
        return function(*combination), getattr(function, "unit", "")
    function(*combination)
    return statistics.median(timed(lambda: function(*combination), "cpu") for _ in range(10)), "s"


def run(only: str) -> Iterator[dict[str, Any]]:
    for name, benchmark, methods in figures():
        for combination in combinations(benchmark) if only in name else ():
            for method in methods:
                if method.startswith("timeraw"):  # asv's alone
                    continue
                instance = benchmark()
                try:
                    instance.setup(*combination)
                    value, unit = measure(instance, method, combination)
                except NotImplementedError:
                    continue
                row = {"benchmark": f"{name}.{method}", "parameters": [str(c) for c in combination]}
                print(f"{row['benchmark']} {combination}: {value:.4g} {unit}", flush=True)
                yield row | {"value": value, "unit": unit}


def beyond_limits(rows: list[dict[str, Any]]) -> list[str]:
    """What to say of every figure that leaves its limit."""
    found = ((limit, value) for limit, value in judged(rows) if not value <= limit.most)
    return [f"beyond its limit of {limit.most:.3g}: {value:.3g}, {limit.work}" for limit, value in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--only", default="", help="part of a benchmark's name")
    parser.add_argument("--judge", action="store_true", help="exit with 1 where a figure leaves its limit")
    arguments = parser.parse_args()
    result = environment.describe("cpu") | {"results": list(run(arguments.only))}
    environment.write(result, arguments.out)
    if arguments.judge:
        beyond = beyond_limits(result["results"])
        print(*beyond, sep="\n")
        sys.exit(len(beyond) > 0)


if __name__ == "__main__":
    main()
