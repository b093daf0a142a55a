"""NaN and infinity in a signal: nothing before them, and no other signal, changes; from there on nothing is finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import EllipsisType

import pytest
import torch
from helpers import assert_close, example_coef, example_operands, naive_iir
from torch import Tensor

import tamt
from tamt.design.sections import biquad_sections
from tamt.ops import broken_stick, drnl, drnl_frames, fft_drnl, fft_drnl_frames, filter_frames, iir, windowed_dft
from tamt.ops.recurrence import attack_release
from tamt.reference import fft_drnl as fft_reference
from tamt.reference import filter_frames as frames_reference
from tamt.reference import iir as iir_reference
from tamt.shared import hops

T = 20 * 64 + 10  # blocks that are scanned in groups, the last group and the last block being short
POSITIONS = [0, 30, 63, 64, 65, 700, 1279, 1285, T - 1]
VALUES = [math.nan, math.inf, -math.inf]
PLACES = [(t, VALUES[i % 3]) for i, t in enumerate(POSITIONS)] + [(64, math.nan), (700, math.inf), (700, -math.inf)]
KINDS = ["onepole", "biquad", "allpole", "modal"]
M = 40  # of impulse responses; transforms of 1024 samples, of which 985 are new
FFT_PLACES = [(t, VALUES[i % 3]) for i, t in enumerate([0, 39, 984, 985, 986, 1500, 2499])]
LOOKED_AT = [iir_reference, fft_reference, frames_reference]

Operator = Callable[..., tuple[Tensor, ...]]

kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture(params=[True, False], ids=["cpu", "other device"])
def readable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the references may look at their data, as they do on no other device than a CPU."""
    if not request.param:
        for module in LOOKED_AT:
            monkeypatch.setattr(module, "on_cpu", lambda x: False)
    return request.param


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and channels of a row, are worked on apart from each other."""
    monkeypatch.setattr(iir_reference, "PART", 2 * T)
    monkeypatch.setattr(iir_reference, "SLICE", T)


def spoilt(x: Tensor, at: tuple[int | EllipsisType, ...], value: float) -> Tensor:
    x = x.clone()
    x[at] = value
    return x


def check(outputs: tuple[Tensor, ...], clean: tuple[Tensor, ...], at: tuple[int, ...], exact: bool = True) -> None:
    """Output (B, F, T) and final states (B, ..., N), spoilt from the last of ``at`` on in a row or a channel of it."""
    y, *finals = outputs
    expected, *clean_finals = clean
    first = at[-1]
    touched = torch.zeros(y.shape[:2], dtype=torch.bool)
    touched[at[:-1]] = True
    assert torch.equal(y[~touched], expected[~touched])
    if exact:
        assert torch.equal(y[touched][:, :first], expected[touched][:, :first])
    else:  # rounding of transforms is relative to the peak of a block
        error = (y - expected)[touched][:, :first].abs().amax() if first else 0
        assert error <= 8 * torch.finfo(y.dtype).eps * expected[touched].abs().amax()
    assert y[touched][:, first:].isnan().all()
    for final, clean_final in zip(finals, clean_finals, strict=True):
        rows = touched if final.dim() == 3 else touched.any(1)
        assert torch.equal(final[~rows], clean_final[~rows])
        assert final[rows].isnan().any(-1).all()


def drnl_operands(dtype: torch.dtype = torch.float64, length: int = T, batch: int = 3) -> tuple[Tensor, ...]:
    cascades = [example_coef("modal", order, 3, seed) for seed, order in enumerate((3, 2, 4))]
    stick = torch.tensor([[1.0, 0.25, 0.25]], dtype=torch.float64).expand(3, 3)
    states = [0.1 * torch.randn(batch, 3, 2 * order, dtype=torch.float64) for order in (3, 2, 4)]
    return tuple(t.to(dtype) for t in (torch.randn(batch, length), *cascades, stick, *states))


def fft_operands(dtype: torch.dtype = torch.float64, length: int = 2500, batch: int = 3) -> tuple[Tensor, ...]:
    impulses = torch.exp(-3 * torch.arange(M) / M) * torch.randn(3, 3, M)
    stick = torch.tensor([[2.0, 0.7, 0.25], [0.5, 1.5, 0.4], [3.0, 1.0, 0.1]])
    past = torch.randn(batch, M - 1), torch.randn(batch, 3, M - 1)
    operands = torch.randn(batch, length), fft_drnl.ir_spectra(impulses.double()), stick, *past
    return tuple(t.to(dtype) for t in operands)


@kinds
@dtypes
@pytest.mark.parametrize("per_channel", [False, True])
def test_iir(kind: str, dtype: torch.dtype, per_channel: bool, readable: bool) -> None:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, 4, T, per_channel, batch=3))
    clean = iir.iir(x, coef, state, kind, 4)
    for t, value in PLACES:
        at, place = ((1, 2, t), (1, 2, t)) if per_channel else ((1, t), (1, 0, t))
        check(iir.iir(spoilt(x, place, value), coef, state, kind, 4), clean, at)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.usefixtures("small_parts")
def test_iir_in_parts(per_channel: bool) -> None:
    x, coef, state = example_operands("modal", 2, T, per_channel, batch=3)
    assert len(list(iir_reference.parts((3, 3, T)))) > 3
    clean = iir.iir(x, coef, state, "modal", 2)
    for t in (0, 64, 700, T - 1):
        at, place = ((1, 2, t), (1, 2, t)) if per_channel else ((1, t), (1, 0, t))
        check(iir.iir(spoilt(x, place, math.nan), coef, state, "modal", 2), clean, at)


@dtypes
def test_drnl(dtype: torch.dtype, readable: bool) -> None:
    x, *rest = drnl_operands(dtype)
    clean = drnl.drnl_rows(x, *rest)
    for t, value in PLACES:
        check(drnl.drnl_rows(spoilt(x, (1, t), value), *rest), clean, (1, t))


@pytest.mark.usefixtures("small_parts")
def test_drnl_in_parts() -> None:
    x, *rest = drnl_operands()
    clean = drnl.drnl_rows(x, *rest)
    for t in (0, 64, 700, T - 1):
        check(drnl.drnl_rows(spoilt(x, (1, t), math.nan), *rest), clean, (1, t))


def test_layouts() -> None:
    """Signals and states that do not lie side by side."""
    x, coef, state = example_operands("onepole", 2, T, False)
    rows, states = (
        x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        state.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    )
    clean = iir.iir(rows, coef, states, "onepole", 2)
    bad = rows.clone()
    bad[1, 0, 700] = math.nan
    assert bad.stride() == rows.stride()
    check(iir.iir(bad, coef, states, "onepole", 2), clean, (1, 700))


@dtypes
@pytest.mark.parametrize("slice_bytes", [fft_reference.SLICE, 1])
def test_fft_drnl(dtype: torch.dtype, slice_bytes: int, readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft_reference, "SLICE", slice_bytes)
    x, *rest = fft_operands(dtype)
    clean = fft_drnl.fft_drnl_rows(x, *rest)
    for t, value in FFT_PLACES:
        check(fft_drnl.fft_drnl_rows(spoilt(x, (1, t), value), *rest), clean, (1, t), exact=False)


HOP = 50
FRAMES: dict[str, tuple[Operator, Callable[[], tuple[Tensor, ...]]]] = {
    **{
        f"{kind}, {detector}": (
            lambda *operands, kind=kind, detector=detector: filter_frames.filter_frames_rows(
                *operands, kind, 2, HOP, detector
            ),
            lambda kind=kind: (lambda x, coef, state: (x[:, 0], coef, state))(
                *example_operands(kind, 2, T, False, batch=3)
            ),
        )
        for kind, detector in (
            ("onepole", "envelope"),
            ("allpole", "power"),
            ("modal", "halfwave"),
            ("biquad", "power"),
        )
    },
    "drnl": (lambda *operands: drnl_frames.drnl_frames_rows(*operands, HOP, "power"), drnl_operands),
    "fft": (
        lambda *operands: fft_drnl_frames.fft_drnl_frames_rows(*operands, HOP, "halfwave"),
        lambda: fft_operands(length=T),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_means_over_hops(name: str, in_chunks: bool, readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hop on that has the first such sample; one after the last whole hop has no part."""
    if in_chunks:
        monkeypatch.setattr(hops, "CHUNK", 2 * T)
        monkeypatch.setattr(frames_reference, "PIECE", 6400)
    operator, operands = FRAMES[name]
    x, *rest = operands()
    clean = operator(x, *rest)
    for t, value in PLACES:
        outputs = operator(spoilt(x, (1, t), value), *rest)
        if t < T // HOP * HOP:
            check(outputs, clean, (1, t // HOP), exact=name != "fft" and not in_chunks)
        else:
            assert all(torch.equal(a, e) for a, e in zip(outputs, clean, strict=True))


def test_broken_stick() -> None:
    v, stick = torch.randn(2, 3, 50), torch.tensor([[1.0, 0.25, 0.25]]).expand(3, 3)
    clean = broken_stick.broken_stick_rows(v, stick)
    for value in VALUES:
        w = broken_stick.broken_stick_rows(spoilt(v, (1, 2, 20), value), stick)
        assert (w != clean).nonzero().tolist() == [[1, 2, 20]]
        assert w[1, 2, 20].isnan()


@kinds
def test_a_state_that_is_not_finite(kind: str, readable: bool) -> None:
    x, coef, state = example_operands(kind, 2, 200, False)
    for length in (0, 1, 10, 64, 200):
        clean = iir.iir(x[..., :length], coef, state, kind, 2)
        for n, value in enumerate((math.nan, math.inf, -math.inf, math.nan)):
            check(iir.iir(x[..., :length], coef, spoilt(state, (1, 2, n), value), kind, 2), clean, (1, 2, 0))


def test_a_drnl_state_that_is_not_finite(readable: bool) -> None:
    *operands, one, two, three = drnl_operands(length=130)
    for bad in range(3):
        states = [spoilt(s, (1, 2, 1), math.nan) if i == bad else s for i, s in enumerate((one, two, three))]
        check(drnl.drnl_rows(*operands, *states), drnl.drnl_rows(*operands, one, two, three), (1, 2, 0))


@pytest.mark.parametrize("length", [0, 1, 10, M - 1, M, 1500])
def test_a_past_that_is_not_finite(length: int, readable: bool) -> None:
    x, spectra, stick, past_x, past_w = fft_operands(length=length)
    y, last_x, last_w = fft_drnl.fft_drnl_rows(x, spectra, stick, past_x, past_w)
    for value in VALUES:
        for i in (0, M - 2):
            given = x, spectra, stick, past_x, spoilt(past_w, (1, 2, i), value)
            one, x_one, w_one = fft_drnl.fft_drnl_rows(*given)
            if length:
                check((one, w_one), (y, last_w), (1, 2, 0))
            assert torch.equal(x_one, last_x)
            given = x, spectra, stick, spoilt(past_x, (1, i), value), past_w
            if length:
                check(fft_drnl.fft_drnl_rows(*given), (y, last_x, last_w), (1, 0))
            else:
                assert not fft_drnl.fft_drnl_rows(*given)[1][1].isfinite().all()


@kinds
@dtypes
def test_overflow(kind: str, dtype: torch.dtype) -> None:
    """Finite numbers too large for what the filter makes of them."""
    x, coef, state = (t.to(dtype) for t in example_operands(kind, 2, T, False, batch=3))
    columns = {"biquad": [0, 1, 2], "modal": [3, 4, 5]}.get(kind, [3, 4])
    coef[:, columns] *= 1e3
    clean = iir.iir(x, coef, state, kind, 2)
    for t in (0, 64, 100, 700, T - 1):
        y, final = iir.iir(spoilt(x, (1, 0, t), torch.finfo(dtype).max / 4), coef, state, kind, 2)
        for a, e in zip((y, final), clean, strict=True):
            assert torch.equal(a[[0, 2]], e[[0, 2]])
        if t:
            assert_close(y[1, :, :t], clean[0][1, :, :t], 20 * torch.finfo(dtype).eps)
        assert not y[1, :, t:].isfinite().all()
        following = t // 64 * 64 + 64
        assert not y[1, :, following:].isfinite().any(0).any() or final[1].isfinite().any()


@kinds
def test_unstable_filters(kind: str) -> None:
    """What overflows in the end has been right before."""
    x, coef, state = (t.float() for t in example_operands(kind, 1, T, False))
    if kind == "biquad":
        coef = biquad_sections(torch.tensor([[[0.3, 0.1, 0.2, 1, -1.5, 1.2**2]]] * 3)).sections.flatten(1)
    else:
        coef[:, 0] = -0.18
    y, final = iir.iir(x, coef, state, kind, 1)
    expected, _ = naive_iir(x.double()[..., :400], coef.double(), state.double(), kind, 1)
    assert_close(y[..., :400], expected, 1e-4, torch.float32)
    assert not final.isfinite().any()
    assert not y[..., 800:].isfinite().any()


@dtypes
@pytest.mark.parametrize("path", [0, 1, 2])
def test_overflow_in_a_drnl(dtype: torch.dtype, path: int) -> None:
    operands = list(drnl_operands(dtype))
    operands[1 + path] = operands[1 + path].clone()
    operands[1 + path][:, 3:6] *= 1e5
    operands[4] = torch.tensor([[1e3, 1e3, 1.0]], dtype=dtype).expand(3, 3)  # lets it through
    x, *rest = operands
    clean = drnl.drnl_rows(x, *rest)
    for t in (64, 100, 700, T - 1):
        outputs = drnl.drnl_rows(spoilt(x, (1, t), torch.finfo(dtype).max / 4), *rest)
        for a, e in zip(outputs, clean, strict=True):
            assert torch.equal(a[[0, 2]], e[[0, 2]])
        assert_close(outputs[0][1, :, :t], clean[0][1, :, :t], 100 * torch.finfo(dtype).eps)
        assert not outputs[0][1, :, t:].isfinite().all(-1).any()


def test_overflow_in_a_chunk_spoils_no_later_row() -> None:
    """An overflow, and a NaN in another row, at once."""
    x, coef, state = example_operands("biquad", 2, T, False, batch=3)
    coef[:, :3] *= 1e3
    x[0, 0, 300] = torch.finfo(x.dtype).max / 4
    clean = iir.iir(x, coef, state, "biquad", 2)
    check(
        tuple(t[1:] for t in iir.iir(spoilt(x, (1, 0, 700), math.nan), coef, state, "biquad", 2)),
        tuple(t[1:] for t in clean),
        (0, 700),
    )


OPERATORS: dict[str, tuple[Operator, Callable[[], tuple[Tensor, ...]], list[int]]] = {
    **{
        kind: (
            lambda *operands, kind=kind: iir.iir(*operands, kind, 2),
            lambda kind=kind: example_operands(kind, 2, 300, False),
            [0, 1, 2],
        )
        for kind in KINDS
    },
    "drnl": (drnl.drnl_rows, lambda: drnl_operands(length=300, batch=2), list(range(8))),
    "attack_release": (
        lambda x, attack, release, state: attack_release(x, attack, release, state=state),
        lambda: tuple(t.double() for t in (torch.randn(2, 3, 300), *torch.tensor([0.3, 0.1]), torch.randn(2, 3))),
        [0, 1, 2, 3],
    ),
    "fft": (fft_drnl.fft_drnl_rows, lambda: fft_operands(length=1200, batch=2), [0, 2, 3, 4]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients(name: str) -> None:
    """A loss of what came before has those of a clean signal; a loss that is NaN spoils its own row's alone."""
    operator, operands, inputs = OPERATORS[name]
    x, *rest = operands()
    weight = torch.randn(x.shape[0], 3, x.shape[-1], dtype=x.dtype)
    row_wise = {0, *range(3 if name != "drnl" else 5, 8)} - ({2} if name == "fft" else set())
    if name in KINDS:
        row_wise = {0, 2}

    def gradients(signal: Tensor, weight: Tensor, upto: tuple[int, int]) -> tuple[Tensor, ...]:
        given = [t.clone().requires_grad_(i in inputs) for i, t in enumerate((signal, *rest))]
        y = operator(*given)[0]
        loss = sum((row[:, :end] * w[:, :end]).square().sum() for row, w, end in zip(y, weight, upto, strict=True))
        return torch.autograd.grad(loss, [given[i] for i in inputs], allow_unused=True, materialize_grads=True)

    length = x.shape[-1]
    whole = gradients(x, weight, (length, length))
    for t, value in ((0, math.inf), (64, -math.inf), (150, math.nan), (length - 1, math.nan)):
        bad = spoilt(x, (1, ..., t), value)
        partly = gradients(x, weight, (length, t))
        for a, e in zip(gradients(bad, weight, (length, t)), partly, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-11 * e.abs().max().item())
        for i, a, e in zip(inputs, gradients(bad, weight, (length, length)), whole, strict=True):
            if i in row_wise:
                assert torch.equal(a[0], e[0])
            else:
                assert not a.isfinite().all(), "the loss is NaN"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learnable": True},
        {"hop_fraction": 0.3},
        {"window_lengths": [96, 60, 36], "freq_thresholds": [3000.0, 6000.0]},
        {"window_lengths": [512], "freq_thresholds": []},
    ],
)
def test_frames(options: dict) -> None:
    """A frame changes only if it holds the sample: of the longest window, or of the shorter ones that it averages."""
    module, x = tamt.MultiResolutionFFT(**options), torch.randn(3, 6000)
    clean, _ = module(x)
    longest = module.window_lengths[0]
    hop = module.hop_lengths[longest]
    for t, value in ((0, math.nan), (5, math.inf), (3000, math.nan), (5999, -math.inf)):
        psd, _ = module(spoilt(x, (1, t), value))
        assert torch.equal(psd[[0, 2]], clean[[0, 2]])
        distance = (hop * torch.arange(psd.shape[1]) - t).abs()
        # Shorter windows lie within a hop and a half of their own around the place, where the last of all may be alone.
        reach = max(longest / 2, hop / 2 + max(module.hop_lengths.values()))
        away = distance > reach
        assert away.any()
        assert torch.equal(psd[1, away], clean[1, away])
        assert not psd[1, distance.argmin()].isfinite().all()


def test_windowed_dft() -> None:
    x, bands, size, hop = torch.randn(2, 600), ((128, 3, 20), (64, 21, 40), (16, 41, 60)), 128, 32
    clean = windowed_dft.windowed_dft(x, bands, hop, size)
    for t, value in ((0, math.nan), (100, math.inf), (301, -math.inf), (575, math.nan)):
        out = windowed_dft.windowed_dft(spoilt(x, (1, t), value), bands, hop, size)
        assert torch.equal(out[0], clean[0])
        start = hop * torch.arange(out.shape[1])
        for length, first, last in bands:
            begin = start + (size - length) // 2
            holds = (begin <= t) & (t < begin + length)
            band = slice(first - 3, last - 2)
            assert torch.equal(out[1, ~holds, band], clean[1, ~holds, band])
            assert not out[1, holds, band].isfinite().any()


@pytest.mark.parametrize("learnable", [False, True])
def test_segments(learnable: bool) -> None:
    module = tamt.Moore2016Spectrum(segment_duration=4, max_components=200, learnable=learnable)
    audio = torch.randn(2, 2, 8000)
    clean = module(audio)
    for t, value in ((0, math.nan), (3000, math.inf), (6000, -math.inf)):
        out = module(spoilt(audio, (1, 0, t), value))
        start = module.hop * torch.arange(out[0].shape[1])
        holds = (start <= t) & (t < start + 2048)
        for side, (a, e) in enumerate(zip(out, clean, strict=True)):
            assert torch.equal(a[0], e[0])
            kept = ~holds if side < 2 else slice(None)
            assert torch.equal(a[1, kept], e[1, kept])
        assert not out[1][1][holds].isfinite().all(-1).any()


def test_rows_of_spectra_and_levels() -> None:
    """What has no time keeps to its row."""
    pattern, levels = tamt.ExcitationPattern(), 60 + 10 * torch.randn(200, 150)
    loudness = tamt.Moore2016ExcitationPattern()
    freqs = 100 + 9000 * torch.rand(5, 200).sort(-1).values
    erb, psd, bins = tamt.ERBIntegration(), torch.rand(5, 1025), torch.linspace(0, 16000, 1025)
    clean = pattern(levels), loudness(freqs, levels[:5, :1].expand(5, 200)), erb(psd, bins)
    for value in (math.nan, math.inf):
        spread = pattern(spoilt(levels, (100, 70), value))
        excited = loudness(freqs, spoilt(levels[:5, :1].expand(5, 200), (2, 70), value))
        for actual, expected, row in ((spread, clean[0], 100), (excited, clean[1], 2)):
            others = torch.arange(len(actual)) != row
            assert torch.equal(actual[others], expected[others])
            assert not actual[row].isfinite().any()
        out = erb(spoilt(psd, (2, 500), value), bins)
        assert torch.equal(out[[0, 1, 3, 4]], clean[2][[0, 1, 3, 4]])
        assert not out[2].isfinite().all()
