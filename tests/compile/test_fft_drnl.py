"""Every kernel of the FFT-DRNL, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import check, names
from tamt.triton_kernels.fft_drnl import fft_drnl, fft_drnl_backward, fft_drnl_frames

pytestmark = pytest.mark.usefixtures("compile_cache")


def launch(
    dtype: torch.dtype, rows: int, channels: int, length: int, memory: int, size: int, period: int = 441
) -> None:
    """Forward, backward and means over hops of ``period`` on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    spectra, stick, past_w = new(3, channels, size // 2 + 1, 2), new(channels, 3), new(rows, channels, memory)
    given = new(rows, length), spectra, stick, new(rows, memory), past_w
    fft_drnl(*given)
    fft_drnl_frames(*given, period, "power")
    fft_drnl_backward(new(rows, channels, length), given[3], past_w, *given, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target == "sm_90"))
def test_machine_code(target: str, dtype: torch.dtype) -> None:
    with compiled(target) as codes:
        launch(dtype, 32, 50, 176400, 4095, 16384)
    assert {code.name for code in codes} == names("fft_drnl")
    for code in codes:
        check(code, double=dtype == torch.float64)


@pytest.mark.parametrize(
    ("rows", "channels", "length", "memory", "size"), [(1, 1, 1, 0, 4), (1, 1, 5, 1, 4), (2, 1, 3, 4095, 16384)]
)
def test_sizes_of_one_compile(rows: int, channels: int, length: int, memory: int, size: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch(torch.float32, rows, channels, length, memory, size, 1)
    assert codes
    assert all(code.spilled == 0 for code in codes)
