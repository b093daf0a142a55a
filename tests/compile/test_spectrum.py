"""Every kernel of Moore2016Spectrum, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, Code, compiled
from tamt.spectra.moore2016 import FRAME, Moore2016Spectrum
from tamt.triton_kernels.compaction import compaction, compaction_backward
from tamt.triton_kernels.windowed_dft import windowed_dft, windowed_dft_backward

pytestmark = pytest.mark.usefixtures("compile_cache")

# The most registers per lane and bytes of shared memory per program.
PRODUCTS = {
    "windowed_dft_kernel": (240, 17 << 10),
    "windowed_dft_scale_kernel": (240, 17 << 10),
    "windowed_dft_adjoint_kernel": (128, 9 << 10),
}
COMPACTION = {"compaction_kernel": (255, 4 << 10), "compaction_backward_kernel": (128, 1 << 10)}
AMD_REGISTERS = 256  # of 512: two wavefronts can share a unit


def transform(rows: int, length: int, hop: int, learnable: bool) -> None:
    """Forward and backward of the windowed DFT on tensors without memory."""
    module = Moore2016Spectrum(learnable=learnable, device="meta")
    plan = *map(list, zip(*module._bands, strict=True)), hop, FRAME
    given = torch.empty(rows, length, device="meta"), module._tables, module._weight, *plan
    out = windowed_dft(*given)
    windowed_dft_backward(out, *given, True, learnable)


def check(codes: list[Code], budgets: dict[str, tuple[int, int]]) -> None:
    assert {code.name for code in codes} == set(budgets)
    for code in codes:
        registers, shared = budgets[code.name]
        assert code.spilled == 0, code
        assert code.registers <= (AMD_REGISTERS if code.target.startswith("gfx") else registers), code
        assert code.shared <= shared, code


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
    check(codes, PRODUCTS)


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
    check(codes, COMPACTION)


def test_sizes_of_one_compile() -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        transform(1, FRAME, 1, False)
    check(codes, PRODUCTS)
