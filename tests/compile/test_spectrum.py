"""Every kernel of Moore2016Spectrum, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, Code, compiled
from compile.budgets import check, names
from tamt.spectra.moore2016 import FRAME, Moore2016Spectrum
from tamt.triton_kernels.compaction import compaction, compaction_backward
from tamt.triton_kernels.windowed_dft import windowed_dft, windowed_dft_backward

pytestmark = pytest.mark.usefixtures("compile_cache")


def transform(rows: int, length: int, hop: int, learnable: bool) -> None:
    """Forward and backward of the windowed DFT on tensors without memory."""
    module = Moore2016Spectrum(learnable=learnable, device="meta")
    plan = *map(list, zip(*module._bands, strict=True)), hop, FRAME
    given = torch.empty(rows, length, device="meta"), module._tables, module._weight, *plan
    out = windowed_dft(*given)
    windowed_dft_backward(out, *given, True, learnable)


def check_all(codes: list[Code], kernels: str) -> None:
    assert {code.name for code in codes} == names(kernels)
    for code in codes:
        check(code)


# An odd length, and sums over overlapping bands, take the most registers; the common case is compiled for one target.
@pytest.mark.parametrize(
    ("target", "length", "learnable"),
    some_slow(
        [("sm_90", 320000, False), *((target, 320001, True) for target in TARGETS)],
        lambda target, length, learnable: target == "sm_90" and learnable,
    ),
)
def test_windowed_dft(target: str, length: int, learnable: bool) -> None:
    with compiled(target) as codes:
        transform(32, length, 32, learnable)
    check_all(codes, "windowed_dft")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("target", "count"),
    some_slow([("sm_90", 960), *((target, 400) for target in TARGETS)], lambda target, count: target == "sm_90"),
)
def test_compaction(target: str, count: int, dtype: torch.dtype) -> None:
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    with compiled(target) as codes:
        compaction(new(30000, 960), new(960), new(30000), count, count < 960)
        compaction_backward(new(30000, count), new(30000, 960), new(960), new(30000), count, count < 960)
    check_all(codes, "compaction")


def test_sizes_of_one_compile() -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        transform(1, FRAME, 1, False)
    check_all(codes, "windowed_dft")
