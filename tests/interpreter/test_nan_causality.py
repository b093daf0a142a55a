"""NaN and infinity in a signal, in Triton's interpreter: nothing before them, and no other signal, changes.

The rows of a batch are one signal, whole in the first and spoilt at another place in each of the others.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef, example_operands

from tamt.ops.fft_drnl_frames import _forward as frames_by_fft
from tamt.reference import drnl as drnl_reference
from tamt.reference import fft_drnl as fft_reference
from tamt.reference import filter_frames as frames_reference
from tamt.reference import iir as iir_reference
from tamt.shared.hops import detect, hop_means
from tamt.triton_kernels import fft_drnl as fft_engine
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.drnl_frames import drnl_frames
from tamt.triton_kernels.filter_frames import filter_frames
from tamt.triton_kernels.iir import Tiling, iir_forward

SMALL = Tiling(superblock=64, chunk=2, top=2, short=0)  # two levels, as of seconds of signal
SHORT = Tiling(short=32)
T = 2 * 64 + 16 + 7  # the last superblock is short, and seven samples go through the tail's kernel
PLACES = [(64, math.inf), (130, math.nan), (T - 1, -math.inf)]
ROWS = 1 + len(PLACES)
KINDS = ["onepole", "biquad", "allpole", "modal"]

# NumPy, which the interpreter runs on, warns of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def spoilt_rows(x: Tensor) -> Tensor:
    """(ROWS, T), or (ROWS, F, T) with the last channel spoilt, from (T,) or (F, T)."""
    rows = x.expand(ROWS, *x.shape).clone()
    for row, (t, value) in zip(rows[1:], PLACES, strict=True):
        row.view(-1, T)[-1, t] = value
    return rows


def check(outputs: tuple[Tensor, ...], reference: tuple[Tensor, ...], spoilt: slice = slice(None)) -> None:
    """Output (ROWS, F, T) and final states: ``spoilt`` channels as they should be, the others whole."""
    y, *finals = outputs
    assert_close(y[:1], reference[0][:1], 1e-5)
    for y_row, expected, *states in zip(y[1:], reference[0][1:], *(f[1:] for f in finals), strict=True):
        assert torch.equal(y_row.isfinite(), expected.isfinite())
        assert torch.equal(y_row[y_row.isfinite()], y[0][y_row.isfinite()])
        for state, whole in zip(states, finals, strict=True):
            left = torch.ones(len(state), dtype=torch.bool)
            left[spoilt] = False
            assert torch.equal(state[left], whole[0][left])
            assert not state[spoilt].isfinite().any()


@pytest.mark.parametrize(
    ("kind", "dtype", "per_channel"),
    [
        *((kind, torch.float32, False) for kind in KINDS),
        ("biquad", torch.float32, True),
        ("modal", torch.float64, True),
    ],
)
def test_iir(kind: str, dtype: torch.dtype, per_channel: bool) -> None:
    channels = 2 if per_channel else 1
    x, coef, state = (t.to(dtype) for t in example_operands(kind, 2, T, per_channel, batch=1, channels=channels))
    given = spoilt_rows(x[0]), coef, state.expand(ROWS, -1, -1), kind, 2
    for tiling in (SMALL, SHORT):
        check(iir_forward(*given, tiling), iir_reference.iir(*given), slice(1, None) if per_channel else slice(None))


@pytest.mark.parametrize(
    ("kind", "hop", "detector", "dtype"),
    [
        ("onepole", 16, "halfwave", torch.float32),
        ("modal", 9, "power", torch.float64),
        ("allpole", 70, "envelope", torch.float32),
        ("biquad", 21, "halfwave", torch.float32),
    ],
)
def test_filter_frames(kind: str, hop: int, detector: str, dtype: torch.dtype) -> None:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, 2, T, False, batch=1, channels=2))
    x = spoilt_rows(x[0, 0])
    x[3, T - 1], x[3, T // hop * hop - 1] = 0, -math.inf  # what is left after the last whole hop does not enter
    means, final = filter_frames(x, coef, state.expand(ROWS, -1, -1), kind, 2, hop, detector, SMALL)
    wanted, _ = frames_reference.filter_frames(x[:1], coef, state, kind, 2, hop, detector)
    assert_close(means[:1], wanted, 1e-5)
    assert final[0].isfinite().all()
    for row, (t, _) in zip(range(1, ROWS), (*PLACES[:2], (T // hop * hop - 1, None)), strict=True):
        assert torch.equal(means[row, :, : t // hop], means[0, :, : t // hop])
        assert means[row, :, t // hop :].isnan().all()
        assert not final[row].isfinite().any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_not_finite(kind: str) -> None:
    x, coef, state = example_operands(kind, 2, 23, False, batch=1, channels=1)
    states = state.repeat(5, 1, 1)
    states[torch.arange(1, 5), 0, torch.arange(4)] = math.nan
    y, final = iir_forward(x.expand(5, -1, -1), coef, states, kind, 2, SMALL)
    assert y[0].isfinite().all()
    assert final[0].isfinite().all()
    assert not y[1:, :, 1:].isfinite().any()
    assert not final[1:].isfinite().all(-1).any()


def test_overflow() -> None:
    """A finite number too large for what the filter makes of it."""
    x, coef, state = example_operands("biquad", 2, T, False, channels=1)
    coef[:, :3] *= 1e3
    x[1] = x[0]
    x[1, 0, 100] = torch.finfo(x.dtype).max / 4
    y, _ = iir_forward(x, coef, state[:1].expand(2, -1, -1), "biquad", 2, SMALL)
    assert y[0].isfinite().all()
    assert torch.equal(y[1, :, :100], y[0, :, :100])
    assert not y[1, :, 100:].isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drnl(dtype: torch.dtype) -> None:
    cascades = [example_coef("modal", order, 1, seed) for seed, order in enumerate((2, 1, 2))]
    states = [(0.1 * torch.randn(1, 2 * order)).expand(ROWS, -1, -1) for order in (2, 1, 2)]
    operands = spoilt_rows(torch.randn(T)), *cascades, torch.tensor([[1.0, 0.25, 0.25]]), *states
    operands = tuple(t.to(dtype) for t in operands)
    check(drnl(*operands, SMALL), drnl_reference.drnl(*operands))


@pytest.mark.parametrize(
    ("hop", "detector", "dtype"),
    [
        (21, "halfwave", torch.float32),  # the last are in the tail
        (9, "power", torch.float64),
        (16, "halfwave", torch.float32),
        (70, "power", torch.float32),
    ],
)
def test_drnl_frames(hop: int, detector: str, dtype: torch.dtype) -> None:
    """In chunks of a superblock of all rows."""
    cascades = [example_coef("modal", 1, 1, seed) for seed in range(3)]
    states = [(0.1 * torch.randn(1, 2)).expand(ROWS, -1, -1) for _ in range(3)]
    x = spoilt_rows(torch.randn(T))
    last = T // hop * hop - 1
    x[3, T - 1], x[3, last] = 0, -math.inf  # what is left after the last whole hop does not enter
    operands = x, *cascades, torch.tensor([[1.0, 0.25, 0.25]]), *states
    operands = tuple(t.to(dtype) for t in operands)
    means, *finals = drnl_frames(*operands, hop, detector, SMALL, ROWS * 64 * dtype.itemsize)
    y, *_ = drnl_reference.drnl(operands[0][:1, : last + 1], *operands[1:5], *(s[:1] for s in operands[5:]))
    assert_close(means[:1], hop_means(detect(y, detector), hop), 1e-5)
    for row, t in zip(range(1, ROWS), (PLACES[0][0], PLACES[1][0], last), strict=True):
        assert torch.equal(means[row, :, : t // hop], means[0, :, : t // hop])
        assert means[row, :, t // hop :].isnan().all()
        assert not any(final[row].isfinite().any() for final in finals)
    assert all(final[0].isfinite().all() for final in finals)


@pytest.mark.parametrize("transforms", [2, 100])
def test_fft_drnl(transforms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reference, be the blocks in one group or each in its own."""
    memory, channels = 4, 2
    impulses = torch.exp(-0.5 * torch.arange(memory + 1)) * torch.randn(3, channels, memory + 1)
    spectra = torch.view_as_real(torch.fft.rfft(impulses.double(), 16))
    stick = torch.tensor([[2.0, 0.7, 0.25], [0.5, 1.5, 0.4]])
    past_x, past_w = torch.randn(8, memory), torch.randn(8, channels, memory)
    x = torch.randn(8, 50)
    places = [(0, math.inf), (11, math.nan), (12, -math.inf), (30, math.nan), (49, math.inf)]
    for row, (t, value) in enumerate(places, 1):
        x[row, t] = value
    past_x[6, 0], past_w[7, 1, memory - 1] = math.nan, math.inf
    operands = [t.double() for t in (x, spectra, stick, past_x, past_w)]
    monkeypatch.setattr(fft_engine, "BYTES", transforms * 16 * 8 * fft_engine.TEMPORARIES)
    assert (len(fft_engine.plan(past_w.new_empty(8, channels, 50).double(), 16, memory)) == 1) == (transforms == 100)
    for actual, expected in zip(fft_engine.fft_drnl(*operands), fft_reference.fft_drnl(*operands), strict=True):
        assert expected.isnan().any()
        assert torch.equal(actual.isnan(), expected.isnan())
        assert_close(actual.nan_to_num(0), expected.nan_to_num(0), 1e-12)
    for actual, expected in zip(
        fft_engine.fft_drnl_frames(*operands, 6, "power"), frames_by_fft(*operands, 6, "power"), strict=True
    ):
        assert torch.equal(actual.isnan(), expected.isnan())
        assert_close(actual.nan_to_num(0), expected.nan_to_num(0), 1e-12)
