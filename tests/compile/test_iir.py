"""Every kernel a launcher starts, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import AMD, AMD_MODAL, AMD_SHORT, check, check_widths, names
from tamt.triton_kernels import drnl as drnl_launcher
from tamt.triton_kernels.broken_stick import broken_stick, broken_stick_backward
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.drnl_sections import drnl_sections
from tamt.triton_kernels.iir import iir_backward, iir_forward
from tamt.triton_kernels.iir import launch as engine
from tamt.triton_kernels.onepole_rows import onepole_rows, onepole_rows_backward

pytestmark = pytest.mark.usefixtures("compile_cache")

CASES = {
    "tuned": ("onepole", 4, torch.float32, True, 160000),
    "odd length": ("onepole", 4, torch.float32, True, 160001),
    "per channel": ("onepole", 4, torch.float32, False, 160000),
    "float64": ("onepole", 4, torch.float64, True, 160000),
    "biquad": ("biquad", 3, torch.float32, False, 160001),
    "biquad float64": ("biquad", 4, torch.float64, True, 160000),
    "allpole": ("allpole", 2, torch.float32, True, 160000),
    "modal": ("modal", 6, torch.float32, True, 160000),
    "modal odd length": ("modal", 7, torch.float32, True, 160001),
    "modal per channel": ("modal", 3, torch.float32, False, 160000),
    "modal float64": ("modal", 6, torch.float64, True, 160000),
    "modal float64 odd length": ("modal", 6, torch.float64, True, 160001),
}
PAULICK, JEPSEN = (6, 2, 3), (7, 3, 6)  # sections of the linear, the front and the back cascade
DRNL_CASES = {
    "paulick": (PAULICK, torch.float32, 160000),
    "jepsen": (JEPSEN, torch.float32, 160000),
    "jepsen odd length": (JEPSEN, torch.float32, 160001),
    "jepsen float64 odd length": (JEPSEN, torch.float64, 160001),
}
# Long cascades take a compiler half a minute: they are looked at where they fit with the least to spare.
SOME_TARGETS = {
    "modal": ("sm_80", "gfx942"),
    "modal odd length": ("sm_90",),
    "modal per channel": ("sm_90", "sm_100"),
    "modal float64": ("sm_90",),
    "modal float64 odd length": ("sm_80", "gfx942"),
    "jepsen": ("sm_100",),
    "jepsen odd length": ("sm_90", "gfx942"),
    "jepsen float64 odd length": ("sm_80", "sm_90"),
}


# Every kernel in one kind or another, for one target. The slow tests compile the rest, a quarter of an hour's work.
EVERY_RUN = ("tuned", "biquad", "modal per channel", "float64", "paulick", "jepsen odd length")


def on_targets(cases: Iterable[str]) -> list:
    pairs = [(target, case) for target in TARGETS for case in cases if target in SOME_TARGETS.get(case, TARGETS)]
    return some_slow(pairs, lambda target, case: target == "sm_90" and case in EVERY_RUN)


def launch(
    kind: str, order: int, dtype: torch.dtype, shared: bool, length: int, rows: int = 32, channels: int = 64
) -> None:
    """Forward and backward on tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    columns = {"onepole": 5, "biquad": 7 * order, "allpole": 5 + 2 * order, "modal": 6 * order}[kind]
    x = new(rows, 1 if shared else channels, length)
    coef, state, y = new(channels, columns), new(rows, channels, 2 * order), new(rows, channels, length)
    iir_forward(x, coef, state, kind, order)
    iir_backward(y, state, x, coef, state, kind, order, True, True)


def launch_drnl(orders: tuple[int, ...], dtype: torch.dtype, length: int, rows: int = 32, channels: int = 64) -> None:
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    cascades, states = (new(channels, 6 * k) for k in orders), (new(rows, channels, 2 * k) for k in orders)
    drnl(new(rows, length), *cascades, new(channels, 3), *states)


def launch_broken_stick(dtype: torch.dtype, length: int, rows: int = 32, channels: int = 64) -> None:
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    v, stick = new(rows, channels, length), new(channels, 3)
    broken_stick(v, stick)
    broken_stick_backward(v, v, stick)


@pytest.mark.parametrize(("target", "case"), on_targets(CASES))
def test_machine_code(target: str, case: str) -> None:
    with compiled(target) as codes:
        launch(*CASES[case])
    found = {code.name for code in codes}
    tails = {"iir_forward_tail_kernel", "iir_adjoint_tail_kernel"}
    single = CASES[case][2] == torch.float32
    one_pole = CASES[case][0] == "onepole"
    gradients = {"iir_gradient_kernel", "iir_onepole_gradient_kernel", "iir_blocks_vjp_kernel"}
    assert found >= names("iir") - tails - gradients - {"iir_end_state_kernel", "iir_short_kernel"}
    assert ("iir_gradient_kernel" in found) == (single and not one_pole)
    assert ("iir_onepole_gradient_kernel" in found) == one_pole
    assert ("iir_blocks_vjp_kernel" in found) != one_pole
    assert ("iir_end_state_kernel" in found) == (CASES[case][3] and single)
    assert (tails <= found) == (CASES[case][4] % 16 > 0)
    for code in codes:
        many = CASES[case][0] == "modal" or case == "odd length"
        check(code, tuned=case == "tuned", amd=AMD_MODAL if many else AMD)
        if case == "tuned":
            check_widths(code)


@pytest.mark.parametrize(
    ("target", "kind", "dtype"),
    some_slow(
        itertools.product(TARGETS, ["onepole", "biquad", "allpole", "modal"], [torch.float32, torch.float64]),
        lambda target, kind, _: (target, kind) == ("sm_90", "onepole"),
    ),
)
def test_machine_code_of_short_signals(target: str, kind: str, dtype: torch.dtype) -> None:
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    columns = {"onepole": 5, "biquad": 28, "allpole": 13, "modal": 24}[kind]
    with compiled(target) as codes:
        iir_forward(new(2, 1, 16000), new(30, columns), new(2, 30, 8), kind, 4)
    assert [code.name for code in codes] == ["iir_design_kernel", "iir_short_kernel"]
    for code in codes:
        check(code, amd=AMD_SHORT)


@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target == "sm_90"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_machine_code_of_the_rows_of_gammatones(target: str, dtype: torch.dtype) -> None:
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    with compiled(target) as codes:
        rows = onepole_rows(new(64, 2), new(64, 2), new(64, 5))
        onepole_rows_backward(rows, new(64, 2), new(64, 2), new(64, 5), rows)
    assert [code.name for code in codes] == ["onepole_rows_kernel", "onepole_rows_backward_kernel"]
    for code in codes:
        check(code)


@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target == "sm_90"))
def test_machine_code_of_the_sections_of_drnl(target: str) -> None:
    parameters = [torch.empty(50, device="meta")] * 7
    with compiled(target) as codes:
        for orders in ([2, 4, 2, 1], [3, 4, 3, 3]):
            drnl_sections(*parameters, 44100.0, orders)
    assert [code.name for code in codes] == ["drnl_sections_kernel"] * 2
    for code in codes:
        check(code)


class _Unlaunched:
    """In a kernel's place where that kernel is looked at by other tests."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **options: None


@pytest.mark.parametrize(("target", "case"), on_targets(DRNL_CASES))
def test_machine_code_of_drnl(target: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "iir_design_kernel", _Unlaunched())
    monkeypatch.setattr(drnl_launcher, "enter", lambda run: run)
    monkeypatch.setattr(drnl_launcher, "scanned", lambda run, ends: run)
    with compiled(target) as codes:
        launch_drnl(*DRNL_CASES[case])
    found = {code.name for code in codes}
    assert found >= {"drnl_front_kernel", "drnl_back_kernel"}
    assert ("drnl_tail_kernel" in found) == (DRNL_CASES[case][2] % 16 > 0)
    for code in codes:
        check(code, tuned=case == "paulick", amd=AMD_MODAL)
        if case == "paulick":
            check_widths(code)


@pytest.mark.parametrize(
    ("dtype", "length"), [(torch.float32, 160000), (torch.float32, 160001), (torch.float64, 160001)]
)
@pytest.mark.parametrize("target", some_slow(TARGETS, lambda target: target in ("sm_90", "gfx942")))
def test_machine_code_of_the_broken_stick(target: str, dtype: torch.dtype, length: int) -> None:
    with compiled(target) as codes:
        launch_broken_stick(dtype, length)
    assert {code.name for code in codes} == {"broken_stick_kernel", "broken_stick_backward_kernel"}
    for code in codes:
        check(code)
        if length % 16 == 0:
            check_widths(code)


@pytest.mark.parametrize(
    ("shared", "length"), some_slow(itertools.product([True, False], [1, 16, 17, 300]), lambda shared, n: n == 1)
)
def test_sizes_of_one_compile(shared: bool, length: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch("biquad", 1, torch.float32, shared, length, rows=1, channels=1)
    for code in codes:
        check(code)


@pytest.mark.parametrize("length", some_slow([1, 16, 17, 300], lambda n: n == 1))
def test_sizes_of_one_compile_for_drnl(length: int) -> None:
    with compiled("sm_90") as codes:
        launch_drnl((1, 1, 1), torch.float32, length, rows=1, channels=1)
        launch_broken_stick(torch.float32, length, rows=1, channels=1)
    for code in codes:
        check(code)
