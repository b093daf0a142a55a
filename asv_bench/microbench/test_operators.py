"""Micro-benchmarks of the operators: forward and training step of every case of the asv suite, by pytest-benchmark.

``make microbench``, or with options of one's own ``pytest -c asv_bench/microbench/pytest.ini -k iir --benchmark-...``
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tamt.ops
from asv_bench.benchmarks.common import synchronize
from asv_bench.cpu import figures

OPERATORS = {path.stem for path in Path(*tamt.ops.__path__).glob("[!_]*.py")}
METHODS = {"time_forward": "forward", "time_training_step": "training_step"}


def cases() -> Iterator[Any]:
    """Of the classes in the files that are named as an operation."""
    for name, benchmark, methods in figures():
        stem, _, kind = name.partition(".")
        timed = [METHODS[method] for method in methods if method in METHODS and stem in OPERATORS]
        for combination, method in itertools.product(itertools.product(*getattr(benchmark, "params", ())), timed):
            values = [v for c in combination for v in (c if isinstance(c, tuple) else (c,))]
            label = "-".join(map(str, (stem, kind, method, *values)))
            yield pytest.param(benchmark, combination, method, stem, id=label)


@pytest.mark.parametrize(("case", "combination", "method", "stem"), list(cases()))
def test_operator(benchmark: Any, case: type, combination: tuple[Any, ...], method: str, stem: str) -> None:
    instance = case()
    try:
        instance.setup(*combination)  # which checks the numbers
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    benchmark.group = f"{stem} {method}"
    call = getattr(instance, method)

    def finished() -> None:
        call()
        synchronize(instance.device)

    benchmark.pedantic(finished, rounds=10, warmup_rounds=2)
