"""Micro-benchmarks of the operators: forward and training step of every case of the asv suite, by pytest-benchmark.

``make microbench``, or with options of one's own ``pytest -c asv_bench/microbench/pytest.ini -k iir --benchmark-...``
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from asv_bench.benchmarks import broken_stick, compaction, fft_drnl, fir, iir, roex, spreading, windowed_dft
from asv_bench.benchmarks.common import synchronize

# Per stem, the classes of the asv suite whose cases are those of the operator.
OPERATORS = {
    "iir": (iir.Biquads, iir.ModalCascade, iir.OnepoleCascade),
    "broken_stick": (broken_stick.BrokenStick,),
    "fft_drnl": (fft_drnl.FftDrnl,),
    "fir": (fir.Fir,),
    "windowed_dft": (windowed_dft.WindowedDFT,),
    "compaction": (compaction.Compaction,),
    "spreading": (spreading.Spreading, spreading.SpreadingTraining),
    "roex": (roex.Roex, roex.RoexTraining),
}
METHODS = {"time_forward": "forward", "time_training_step": "training_step"}


def cases() -> Iterator[Any]:
    for stem, benchmarks in OPERATORS.items():
        for benchmark in benchmarks:
            for combination in itertools.product(*benchmark.params):
                for timed, method in METHODS.items():
                    if hasattr(benchmark, timed):
                        values = [v for c in combination for v in (c if isinstance(c, tuple) else (c,))]
                        label = "-".join(map(str, (stem, benchmark.__name__, method, *values)))
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
