"""The spreading's kernels, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import check, names
from tamt.triton_kernels.spreading import spreading, spreading_backward

pytestmark = pytest.mark.usefixtures("compile_cache")


def launch(dtype: torch.dtype, rows: int, n: int) -> None:
    """Forward and backward on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    levels, slopes = new(rows, n), new(5)
    spreading(levels, slopes, 0.25)
    spreading_backward(levels, levels, slopes, levels, 0.25)


@pytest.mark.parametrize("n", [150, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target in ("sm_90", "gfx942")))
def test_machine_code(target: str, dtype: torch.dtype, n: int) -> None:
    with compiled(target) as codes:
        launch(dtype, 2000, n)
    assert {code.name for code in codes} == names("spreading")
    for code in codes:
        check(code, double=dtype == torch.float64)


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (1, 2), (3, 1), (16, 16)])
def test_sizes_of_one_compile(rows: int, n: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch(torch.float32, rows, n)
    assert {code.name for code in codes} == names("spreading")
    assert all(code.spilled == 0 for code in codes)
