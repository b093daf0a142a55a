"""The IIR engine's Triton kernels, run by Triton's interpreter, against a recursion sample by sample in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef, example_operands, naive_iir
from scipy.signal import butter, sosfilt

from tamt.design.sections import biquad_sections
from tamt.reference import iir as reference
from tamt.reference.blocks import definition as iir_blocks
from tamt.shared.iir import Blocks, block_shapes
from tamt.triton_kernels.iir import Tiling, iir_backward, iir_forward
from tamt.triton_kernels.iir import launch as engine

SMALL = Tiling(superblock=64, chunk=2, top=2, short=0)  # a second of signal goes through many levels
SHORT = Tiling(short=32)  # some signals of few samples are short, others are not
KINDS = ("onepole", "biquad", "allpole", "modal")


class Case(NamedTuple):
    x: Tensor
    coef: Tensor
    state: Tensor
    gy: Tensor
    gfinal: Tensor


def make_case(
    kind: str, order: int, dtype: torch.dtype, shared: bool, length: int, batch: int = 2, channels: int = 3
) -> Case:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, order, length, not shared, batch, channels))
    return Case(
        x,
        coef,
        state,
        torch.randn(batch, channels, length, dtype=dtype),
        torch.randn(batch, channels, 2 * order, dtype=dtype),
    )


def expected(case: Case, kind: str, order: int) -> dict[str, Tensor]:
    """Outputs and all gradients in float64, by autograd through the recursion."""
    x, coef, state = (t.double().requires_grad_() for t in case[:3])
    y, final = naive_iir(x, coef, state, kind, order)
    grads = torch.autograd.grad((y, final), (x, coef, state), (case.gy.double(), case.gfinal.double()))
    return dict(zip(("y", "final", "gx", "gcoef", "gstate"), (y, final, *grads), strict=True))


def check(actual: Tensor, wanted: Tensor, tolerance: float) -> None:
    """States and gradients as well as signals: every channel against its own peak."""
    assert_close(actual, wanted, tolerance, dtype=actual.dtype)


TOLERANCE = {
    ("onepole", torch.float32): 3e-6,
    ("allpole", torch.float32): 3e-6,
    ("biquad", torch.float32): 3e-6,
    ("modal", torch.float32): 3e-6,
    ("onepole", torch.float64): 1e-12,
    ("allpole", torch.float64): 1e-12,
    ("biquad", torch.float64): 1e-12,
    ("modal", torch.float64): 1e-12,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "length", "batch", "channels", "dtype", "shared"),
    [
        (1, 0, 2, 3, torch.float32, True),
        (1, 1, 1, 1, torch.float32, True),
        (2, 15, 3, 5, torch.float64, False),
        (3, 16, 1, 9, torch.float32, True),
        (4, 17, 2, 2, torch.float32, False),
        (2, 63, 1, 3, torch.float64, True),
        (4, 64, 1, 2, torch.float32, True),
        (8, 65, 1, 2, torch.float32, False),
        (5, 193, 1, 2, torch.float64, True),
        (1, 128, 2, 2, torch.float64, False),
    ],
)
def test_forward_and_every_gradient(
    kind: str, order: int, length: int, batch: int, channels: int, dtype: torch.dtype, shared: bool
) -> None:
    case = make_case(kind, order, dtype, shared, length, batch, channels)
    tolerance = TOLERANCE[kind, dtype]
    if length == 0:
        y, final = iir_forward(*case[:3], kind, order)
        assert y.shape == case.gy.shape
        assert torch.equal(final, case.state)
        gx, gstate, gcoef = iir_backward(case.gy, case.gfinal, *case[:3], kind, order, True, True)
        assert gx.shape == case.x.shape
        assert torch.equal(gstate, case.gfinal)
        assert gcoef.shape == case.coef.shape
        assert not gcoef.any()
        return
    wanted = expected(case, kind, order)
    y, final = iir_forward(*case[:3], kind, order, SMALL)
    check(y, wanted["y"], tolerance)
    check(final, wanted["final"], tolerance)
    gx, gstate, gcoef = iir_backward(case.gy, case.gfinal, *case[:3], kind, order, True, True, SMALL)
    check(gx, wanted["gx"], tolerance)
    check(gstate, wanted["gstate"], tolerance)
    # Columns (coefficients) differ in size by orders; each is held against its own largest value.
    assert_close(gcoef.t(), wanted["gcoef"].t(), 30 * tolerance, dtype)


@pytest.mark.parametrize(
    ("kind", "dtype", "signals", "channels", "length"),
    [
        ("onepole", torch.float32, 2, 4, 81),
        ("modal", torch.float32, 2, 6, 70),
        ("allpole", torch.float32, 3, 6, 65),
        ("onepole", torch.float64, 3, 27, 17),
        ("biquad", torch.float64, 2, 4, 70),
    ],
)
def test_several_filters_of_each_of_several_signals(
    kind: str, dtype: torch.dtype, signals: int, channels: int, length: int
) -> None:
    case = make_case(kind, 1, dtype, True, length, 2, channels)
    case = case._replace(x=torch.randn(2, signals, length, dtype=dtype))
    wanted = expected(case, kind, 1)
    for tiling in (SMALL, SHORT):
        y, final = iir_forward(*case[:3], kind, 1, tiling)
        check(y, wanted["y"], TOLERANCE[kind, dtype])
        check(final, wanted["final"], TOLERANCE[kind, dtype])
    gx, gstate, gcoef = iir_backward(case.gy, case.gfinal, *case[:3], kind, 1, True, True, SMALL)
    check(gx, wanted["gx"], TOLERANCE[kind, dtype])
    check(gstate, wanted["gstate"], TOLERANCE[kind, dtype])
    assert_close(gcoef.t(), wanted["gcoef"].t(), 30 * TOLERANCE[kind, dtype], dtype)


@pytest.mark.parametrize("length", [5, 150])
def test_onepole_gradient_without_gain_or_final_gradient(length: int) -> None:
    """Where the final state does not count it is not made again; a gain of 0 has a gradient like any other."""
    case = make_case("onepole", 2, torch.float64, True, length, 2, 2)
    coef = case.coef.clone()
    coef[0, 3:] = 0
    case = case._replace(coef=coef, gfinal=0 * case.gfinal)
    *_, gcoef = iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, False, True, SMALL)
    assert_close(gcoef.t(), expected(case, "onepole", 2)["gcoef"].t(), 1e-11)


@pytest.mark.parametrize(("kind", "shared"), [*zip(KINDS, [True, False, False, True], strict=True)])
def test_default_tiling(kind: str, shared: bool) -> None:
    case = make_case(kind, 4, torch.float32, shared, 600, 1, 2)
    y, final = iir_forward(*case[:3], kind, 4)
    wanted_y, wanted_final = reference.iir(*(t.double() for t in case[:3]), kind, 4)
    check(y, wanted_y, TOLERANCE[kind, torch.float32])
    check(final, wanted_final, TOLERANCE[kind, torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "length"), [*zip(KINDS, [1039, 31, 500, 64], strict=True), ("onepole", 16)])
def test_short_signals(kind: str, length: int, dtype: torch.dtype) -> None:
    """In one launch: the longest, one superblock, one that is not full, two full ones; with and without rest."""
    case = make_case(kind, 3, dtype, length % 2 == 0, length, 2, 2)
    y, final = iir_forward(*case[:3], kind, 3, SHORT)
    wanted_y, wanted_final = reference.iir(*(t.double() for t in case[:3]), kind, 3)
    check(y, wanted_y, TOLERANCE[kind, dtype])
    check(final, wanted_final, TOLERANCE[kind, dtype])


def test_which_signals_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    short = engine.short
    monkeypatch.setattr(engine, "short", lambda *a: taken.append(True) or short(*a))
    for length, few, expected in ((15, 4, 0), (16, 4, 1), (1039, 4, 1), (1040, 4, 0), (16, 3, 0)):
        monkeypatch.setattr(engine, "FEW", few)
        taken.clear()
        iir_forward(*make_case("onepole", 1, torch.float32, True, length, 2, 2)[:3], "onepole", 1, SHORT)
        assert len(taken) == expected, (length, few)


@pytest.mark.parametrize(("kind", "order"), [("modal", 2), ("biquad", 2), ("allpole", 3)])
def test_from_block_matrices_to_coefficients(kind: str, order: int) -> None:
    coef = example_coef(kind, order, 2)
    grads = Blocks(*(torch.randn(shape, dtype=torch.float64) for shape in block_shapes(2, 2 * order)))
    leaf = coef.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(iir_blocks(leaf, kind, order), leaf, tuple(grads))
    assert_close(engine.coefficient_gradient(coef, grads, kind, order).t(), wanted.t(), 1e-12)


def test_gradients_that_are_not_needed_are_empty() -> None:
    case = make_case("onepole", 2, torch.float32, True, 150)
    whole = iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, True, True, SMALL)
    for need in ((False, False), (True, False), (False, True)):
        part = iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, *need, SMALL)
        for needed, a, b in zip((need[0], True, need[1]), part, whole, strict=True):
            assert torch.equal(a, b) if needed else a.numel() == 0


def test_scan_of_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """70 superblocks in chunks of 4 of 4 of ... : four levels."""
    levels = []
    scan = engine.scan
    monkeypatch.setattr(engine, "scan", lambda *a, **k: levels.append(1) or scan(*a, **k))
    case = make_case("onepole", 2, torch.float64, True, 64 * 70 - 5, 1, 1)
    wanted, wanted_final = reference.iir(*case[:3], "onepole", 2)
    y, final = iir_forward(*case[:3], "onepole", 2, Tiling(64, 4, 4, short=0))
    assert len(levels) == 4
    check(y, wanted, 1e-12)
    check(final, wanted_final, 1e-12)
    gx, gstate, _ = reference.iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, True, False)
    got = iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, True, False, Tiling(64, 4, 4, short=0))
    check(got[0], gx, 1e-12)
    check(got[1], gstate, 1e-12)


@pytest.mark.slow  # every run has the cases of test_nan_causality.py here
@pytest.mark.parametrize("shared", [True, False])
def test_nan_stays_in_its_batch_row(shared: bool) -> None:
    case = make_case("onepole", 2, torch.float32, shared, 200, 3)
    clean = iir_forward(*case[:3], "onepole", 2, SMALL)
    spoilt = case.x.clone()
    spoilt[1, ..., 100] = float("nan")
    y, final = iir_forward(spoilt, *case[1:3], "onepole", 2, SMALL)
    for row in (0, 2):
        assert torch.equal(y[row], clean[0][row])
        assert torch.equal(final[row], clean[1][row])
    assert torch.equal(y[1, :, :100], clean[0][1, :, :100])
    assert torch.isnan(y[1, :, 100:]).all()
    gy = case.gy.clone()
    gy[1, :, 100] = float("nan")
    clean_gx = iir_backward(case.gy, case.gfinal, *case[:3], "onepole", 2, True, False, SMALL)[0]
    gx = iir_backward(gy, case.gfinal, *case[:3], "onepole", 2, True, False, SMALL)[0]
    assert torch.equal(gx[[0, 2]], clean_gx[[0, 2]])
    assert torch.equal(gx[1, ..., 101:], clean_gx[1, ..., 101:])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-11)])
def test_poles_close_to_the_circle(dtype: torch.dtype, tolerance: float) -> None:
    case = make_case("onepole", 2, dtype, True, 1000, 1, 2)
    coef = case.coef.clone()
    coef[:, 0] = 1e-4
    coef[:, 3:] = 1e-8
    case = case._replace(coef=coef, state=case.state * 0)
    wanted, _ = naive_iir(case.x.double(), case.coef.double(), case.state.double(), "onepole", 2)
    check(iir_forward(*case[:3], "onepole", 2)[0], wanted, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-11)])
def test_slow_modal_sections(dtype: torch.dtype, tolerance: float) -> None:
    """A gammatone of 250 Hz and a Butterworth low-pass at 44.1 kHz, twice each; the adjoint is as exact."""
    decay, cycles, root = 2 * math.pi * 65 / 44100, 258 / 44100, math.sqrt(2) * math.tan(math.pi * 258 / 44100)
    gammatone = torch.tensor([decay, cycles, 0, 2 * decay, 0, 0], dtype=torch.float64)
    low_pass = torch.tensor(
        [
            math.atanh(root / (1 + root**2 / 2)),
            math.atan2(root, 1 - root**2 / 2) / (2 * math.pi),
            0,
            -(root**3) / (1 + root**4 / 4),
            -2 * root / (1 + root**4 / 4),
            root**2 / 2 / (1 - root + root**2 / 2),
        ],
        dtype=torch.float64,
    )
    coef = torch.cat((gammatone, gammatone, low_pass, low_pass))[None].to(dtype)
    x, gy = torch.randn(1, 1, 1000, dtype=dtype), torch.randn(1, 1, 1000, dtype=dtype)
    state = torch.zeros(1, 1, 8, dtype=dtype)
    operands = [t.double() for t in (x, coef, state)]
    y, _ = iir_forward(x, coef, state, "modal", 4, SMALL)
    check(y, reference.iir(*operands, "modal", 4)[0], tolerance)
    gx, *_ = iir_backward(gy, state, x, coef, state, "modal", 4, True, False, SMALL)
    wanted, *_ = reference.iir_backward(gy.double(), state.double(), *operands, "modal", 4, True, False)
    check(gx, wanted, tolerance)


@pytest.mark.parametrize(
    ("band", "kind", "fs"),
    [([17.8, 22.4], "bandpass", 51200), (24, "lowpass", 48000), ([25577.6, 25582.2], "bandpass", 51200)],
)
def test_slow_biquads(band: float | list[float], kind: str, fs: float) -> None:
    """A third octave at 20 Hz, a low-pass, and the third octave mirrored: forward and adjoint, in float32."""
    sos = torch.from_numpy(butter(3 if kind == "bandpass" else 2, band, kind, fs=fs, output="sos")).float()
    coef = biquad_sections(sos[None]).sections.flatten(1)
    order = len(sos)
    x, gy = torch.randn(1, 1, 2000), torch.randn(1, 1, 2000)
    state = torch.zeros(1, 1, 2 * order)
    operands = [t.double() for t in (x, coef, state)]
    y, _ = iir_forward(x, coef, state, "biquad", order, SMALL)
    exact = torch.from_numpy(sosfilt(sos.double().numpy(), x.double().numpy()))
    check(y, exact, 5e-6)  # sosfilt in float32: 2e-3
    gx, *_ = iir_backward(gy, state, x, coef, state, "biquad", order, True, False, SMALL)
    wanted, *_ = reference.iir_backward(gy.double(), state.double(), *operands, "biquad", order, True, False)
    check(gx, wanted, 5e-6)


def test_chunked_is_one_shot() -> None:
    case = make_case("biquad", 2, torch.float64, True, 180, 1, 2)
    y, final = iir_forward(*case[:3], "biquad", 2, SMALL)
    state, parts = case.state, []
    for piece in case.x.split((1, 63, 16, 100), -1):
        part, state = iir_forward(piece, case.coef, state, "biquad", 2, SMALL)
        parts.append(part)
    check(torch.cat(parts, -1), y, 1e-12)
    check(state, final, 1e-12)


def test_any_strides() -> None:
    case = make_case("onepole", 1, torch.float32, False, 70)
    expanded = case.x[:, :1].expand(-1, 3, -1)
    transposed = case.x.transpose(0, 2).contiguous().transpose(0, 2)
    for x in (expanded, transposed, case.x.flip(-1)[..., ::2]):
        got = iir_forward(x, case.coef.t().contiguous().t(), case.state.mT.contiguous().mT, "onepole", 1, SMALL)
        wanted = iir_forward(x.contiguous(), case.coef, case.state, "onepole", 1, SMALL)
        assert all(torch.equal(a, b) and a.is_contiguous() for a, b in zip(got, wanted, strict=True))
    gy = torch.ones(()).expand(case.gy.shape)
    got = iir_backward(gy, case.gfinal, transposed, *case[1:3], "onepole", 1, True, True, SMALL)
    wanted = iir_backward(gy.contiguous(), case.gfinal, *case[:3], "onepole", 1, True, True, SMALL)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (2, 0)])
def test_no_rows_or_no_channels(batch: int, channels: int) -> None:
    case = make_case("biquad", 1, torch.float32, True, 20, batch, 2)
    x, coef, state, gy, gfinal = case
    coef, state, gy, gfinal = coef[:channels], state[:, :channels], gy[:, :channels], gfinal[:, :channels]
    y, final = iir_forward(x, coef, state, "biquad", 1)
    assert y.shape == (batch, channels, 20)
    assert final.shape == state.shape
    gx, gstate, *_ = iir_backward(gy, gfinal, x, coef, state, "biquad", 1, True, True)
    assert gx.shape == x.shape
    assert not gx.any()
    assert gstate.shape == state.shape


@pytest.mark.parametrize(("kind", "order"), [("comb", 1), ("onepole", 0), ("biquad", 9)])
def test_what_the_kernels_do_not_know(kind: str, order: int) -> None:
    with pytest.raises(ValueError, match=r"kind must be|order must be"):
        iir_forward(torch.zeros(1, 1, 4), torch.zeros(1, 5), torch.zeros(1, 1, 2), kind, order)
