"""Every roex kernel, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import check, names
from tamt.triton_kernels.roex import excitation, excitation_backward, power_per_erb, power_per_erb_backward

pytestmark = pytest.mark.usefixtures("compile_cache")


def launch(dtype: torch.dtype, rows: int, components: int, channels: int) -> None:
    """Forward and backward on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    f, fc = new(rows, components), new(channels)
    power_per_erb(f, f, 16.0)
    power_per_erb_backward(f, f, f, 16.0)
    excitation(f, f, f, fc, fc, 16.0)
    excitation_backward(new(rows, channels), f, f, f, fc, fc, 16.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target == "sm_90"))
def test_machine_code(target: str, dtype: torch.dtype) -> None:
    with compiled(target) as codes:
        launch(dtype, 16000, 950, 150)
    assert {code.name for code in codes} == names("roex")
    for code in codes:
        check(code, double=dtype == torch.float64)


@pytest.mark.parametrize(
    ("rows", "components", "channels"),
    some_slow([(1, 1, 1), (1, 960, 160), (3, 1, 150), (3, 40, 1)], lambda *sizes: sizes == (1, 1, 1)),
)
def test_sizes_of_one_compile(rows: int, components: int, channels: int) -> None:
    """Triton makes a constant of every argument that is 1, and knows which ones 16 divides."""
    with compiled("sm_90") as codes:
        launch(torch.float32, rows, components, channels)
    assert {code.name for code in codes} == names("roex")
    assert all(code.spilled == 0 for code in codes)
