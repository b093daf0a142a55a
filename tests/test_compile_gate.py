"""Every kernel a launcher starts, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from compile_gate import TARGETS, Code, compiled

from tamt.triton_kernels.iir import iir_backward, iir_forward

# The most registers per lane and bytes of shared memory per program. Register counts where aligned float32 signals
# leave them are 64 to 128; signals whose length is not a multiple of 16, and float64, take more.
BUDGETS = {
    "iir_design_kernel": (128, 0),
    "iir_end_state_kernel": (240, 50 << 10),
    "iir_scan_kernel": (80, 4 << 10),
    "iir_power_kernel": (168, 8 << 10),
    "iir_forward_kernel": (208, 8 << 10),
    "iir_forward_tail_kernel": (96, 8 << 10),
    "iir_adjoint_kernel": (255, 16 << 10),
    "iir_adjoint_tail_kernel": (96, 16 << 10),
    "iir_gradient_kernel": (255, 36 << 10),
}
# The load everything is tuned for, a 4-fold one-pole cascade in float32 with a length divisible by 16.
TUNED = {"iir_end_state_kernel": 168, "iir_forward_kernel": 72, "iir_adjoint_kernel": 160}
AMD_REGISTERS = 256  # of 512: two wavefronts can share a unit. Coefficients are in them too, see iir_sections.vary.
SINE_STACK = 48  # bytes: float64 sine keeps a table for huge arguments there

CASES = {
    "tuned": ("onepole", 4, torch.float32, True, 160000),
    "odd length": ("onepole", 4, torch.float32, True, 160001),
    "per channel": ("onepole", 4, torch.float32, False, 160000),
    "float64": ("onepole", 4, torch.float64, True, 160000),
    "biquad": ("biquad", 3, torch.float32, False, 160001),
    "biquad float64": ("biquad", 4, torch.float64, True, 160000),
    "allpole": ("allpole", 2, torch.float32, True, 160000),
}


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not changed since the last run is not compiled again."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path(tempfile.gettempdir()) / "tamt-compile-gate"))


def launch(
    kind: str, order: int, dtype: torch.dtype, shared: bool, length: int, rows: int = 32, channels: int = 64
) -> None:
    """Forward and backward on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    columns = {"onepole": 5, "biquad": 5 * order, "allpole": 5 + 2 * order}[kind]
    x = new(rows, length) if shared else new(rows, channels, length)
    coef, state, y = new(channels, columns), new(rows, channels, 2 * order), new(rows, channels, length)
    iir_forward(x, coef, state, kind, order)
    iir_backward(y, state, x, coef, state, kind, order, True, True)


def check_budget(code: Code) -> None:
    registers, shared = BUDGETS[code.name]
    assert code.spilled == 0, code
    assert code.registers <= (AMD_REGISTERS if code.target.startswith("gfx") else registers), code
    assert code.shared <= shared, code
    # An empty stack frame of 8 bytes is ptxas's way of rounding.
    assert code.stack <= (SINE_STACK if code.name == "iir_design_kernel" else 8), code


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_machine_code(target: str, case: str) -> None:
    with compiled(target) as codes:
        launch(*CASES[case])
    names = {code.name for code in codes}
    tails = {"iir_forward_tail_kernel", "iir_adjoint_tail_kernel"}
    single = CASES[case][2] == torch.float32
    assert names >= set(BUDGETS) - tails - {"iir_end_state_kernel", "iir_gradient_kernel"}
    assert ("iir_gradient_kernel" in names) == single
    assert ("iir_end_state_kernel" in names) == (CASES[case][3] and single)
    assert (tails <= names) == (CASES[case][4] % 16 > 0)
    for code in codes:
        check_budget(code)
    if case == "tuned" and target.startswith("sm"):
        for code in codes:
            assert code.registers <= TUNED.get(code.name, 255), code
            if code.name == "iir_forward_kernel":
                # Four loads of the signal and four stores of the output a trip, all of 128 bits. The other loads are of
                # single coefficients, once.
                assert code.accesses()["wide_loads"] >= 4, code.accesses()
                assert code.accesses()["stores"] == code.accesses()["wide_stores"], code.accesses()


@pytest.mark.parametrize("length", [1, 16, 17, 300])
@pytest.mark.parametrize("shared", [True, False])
def test_sizes_of_one_compile(shared: bool, length: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch("biquad", 1, torch.float32, shared, length, rows=1, channels=1)
    for code in codes:
        check_budget(code)
