"""NaN and infinity in a signal, in Triton's interpreter: nothing before them, and no other signal, changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef, example_operands

from tamt.ops.fft_drnl import ir_spectra
from tamt.reference import fft_drnl as fft_reference
from tamt.reference import iir as iir_reference
from tamt.triton_kernels import fft_drnl as fft_engine
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.iir import Tiling, iir_forward

SMALL = Tiling(superblock=64, chunk=2, top=2)  # many levels, as of a second of signal
T = 5 * 64 + 23  # superblocks in chunks of two, a short one at the end, and a tail of 7 samples
PLACES = [(0, math.inf), (63, math.nan), (64, -math.inf), (200, math.nan), (320, math.inf), (T - 1, math.nan)]
KINDS = ["onepole", "biquad", "allpole", "modal"]

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def spoilt(x: Tensor, at: tuple[int, ...], value: float) -> Tensor:
    x = x.clone()
    x[at] = value
    return x


def check(outputs: tuple[Tensor, ...], clean: tuple[Tensor, ...], at: tuple[int, ...]) -> None:
    """Output (B, F, T) and final states (B, F, N), of which one row, or channel of it, is spoilt from ``at[-1]`` on."""
    y, *finals = outputs
    expected, *clean_finals = clean
    touched = torch.zeros(y.shape[:2], dtype=torch.bool)
    touched[at[:-1]] = True
    assert torch.equal(y[~touched], expected[~touched])
    assert torch.equal(y[touched][:, : at[-1]], expected[touched][:, : at[-1]])
    assert not y[touched][:, at[-1] :].isfinite().any()
    for final, clean_final in zip(finals, clean_finals, strict=True):
        assert torch.equal(final[~touched], clean_final[~touched])
        assert not final[touched].isfinite().any()


@pytest.mark.parametrize("kind", KINDS)
@dtypes
@pytest.mark.parametrize("per_channel", [False, True])
def test_iir(kind: str, dtype: torch.dtype, per_channel: bool) -> None:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, 2, T, per_channel))
    clean = iir_forward(x, coef, state, kind, 2, SMALL)
    for t, value in PLACES:
        at = (1, 2, t) if per_channel else (1, t)
        outputs = iir_forward(spoilt(x, at, value), coef, state, kind, 2, SMALL)
        check(outputs, clean, at)
        assert torch.equal(
            outputs[0].isfinite(), iir_reference.iir(spoilt(x, at, value), coef, state, kind, 2)[0].isfinite()
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_not_finite(kind: str) -> None:
    x, coef, state = example_operands(kind, 2, T, False)
    clean = iir_forward(x, coef, state, kind, 2, SMALL)
    for n in range(4):
        y, final = iir_forward(x, coef, spoilt(state, (1, 2, n), math.nan), kind, 2, SMALL)
        check((y[..., 1:], final), (clean[0][..., 1:], clean[1]), (1, 2, 0))


def test_overflow() -> None:
    """Finite numbers too large for what the filter makes of them."""
    x, coef, state = example_operands("biquad", 2, T, False)
    coef[:, :3] *= 1e3
    clean = iir_forward(x, coef, state, "biquad", 2, SMALL)
    for t in (64, 200, T - 1):
        y, final = iir_forward(spoilt(x, (1, t), torch.finfo(x.dtype).max / 4), coef, state, "biquad", 2, SMALL)
        assert torch.equal(y[0], clean[0][0])
        assert torch.equal(final[0], clean[1][0])
        assert torch.equal(y[1, :, :t], clean[0][1, :, :t])
        assert not y[1, :, t:].isfinite().all()


@dtypes
def test_drnl(dtype: torch.dtype) -> None:
    cascades = [example_coef("modal", order, 3, seed) for seed, order in enumerate((2, 1, 2))]
    stick = torch.tensor([[1.0, 0.25, 0.25]]).expand(3, 3)
    states = [0.1 * torch.randn(2, 3, 2 * order) for order in (2, 1, 2)]
    x, *rest = (t.to(dtype) for t in (torch.randn(2, T), *cascades, stick, *states))
    clean = drnl(x, *rest, SMALL)
    for t, value in PLACES:
        check(drnl(spoilt(x, (1, t), value), *rest, SMALL), clean, (1, t))


@pytest.mark.parametrize("transforms", [1, 100])
def test_fft_drnl(transforms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reference, be the blocks in one group or each in its own."""
    memory = 20
    impulses = torch.exp(-3 * torch.arange(memory + 1) / (memory + 1)) * torch.randn(3, 3, memory + 1)
    stick = torch.tensor([[2.0, 0.7, 0.25], [0.5, 1.5, 0.4], [3.0, 1.0, 0.1]])
    past = torch.randn(2, memory), torch.randn(2, 3, memory)
    operands = [t.double() for t in (torch.randn(2, 2200), ir_spectra(impulses.double()), stick, *past)]
    monkeypatch.setattr(fft_engine, "BYTES", transforms * 1024 * 8 * fft_engine.TEMPORARIES)
    assert (len(fft_engine.plan(torch.empty(2, 3, 2200).double(), 1024, memory)) > 1) == (transforms == 1)
    places = [(0, (1, t), value) for t, value in ((0, math.inf), (1003, math.nan), (1004, -math.inf), (2199, math.nan))]
    for operand, at, value in [*places, (3, (1, 0), math.nan), (4, (1, 2, memory - 1), math.inf)]:
        given = list(operands)
        given[operand] = spoilt(given[operand], at, value)
        for actual, expected in zip(fft_engine.fft_drnl(*given), fft_reference.fft_drnl(*given), strict=True):
            assert torch.equal(actual.isnan(), expected.isnan())
            assert_close(actual.nan_to_num(0), expected.nan_to_num(0), 1e-12)
