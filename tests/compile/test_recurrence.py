"""The kernels of attack and release, compiled for four GPUs without one: no spills, registers in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import check, names
from tamt.triton_kernels.recurrence import attack_release, attack_release_backward

pytestmark = pytest.mark.usefixtures("compile_cache")


def launch(dtype: torch.dtype, rows: int, frames: int, channels: int) -> None:
    """Forward and backward on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    x, state, constant = new(rows, frames, channels), new(rows, channels), new(())
    attack_release(x, constant, constant, state)
    attack_release_backward(x, state, x, constant, constant, state, x, True, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target in ("sm_90", "gfx942")))
def test_machine_code(target: str, dtype: torch.dtype) -> None:
    with compiled(target) as codes:
        launch(dtype, 32, 10000, 150)
    assert {code.name for code in codes} == names("attack_release")
    for code in codes:
        check(code, double=dtype == torch.float64)


@pytest.mark.parametrize(("rows", "frames", "channels"), [(1, 1, 1), (1, 2, 1), (2, 1, 150), (16, 16, 16)])
def test_sizes_of_one_compile(rows: int, frames: int, channels: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch(torch.float32, rows, frames, channels)
    assert {code.name for code in codes} == names("attack_release")
    assert all(code.spilled == 0 for code in codes)
