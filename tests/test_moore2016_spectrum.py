"""Moore2016Spectrum: AMT's numbers, levels, thresholds, lengths, learning, module habits, errors."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within
from torch import Tensor

from tamt.spectra.moore2016 import BIN, FS, LIMITS, WINDOWS, Moore2016Spectrum

GOLDEN = np.load(Path(__file__).parent / "data" / "moore2016_spectrum.npz")
CASES = ("harm", "diff", "click")
NAMES = ("freq_limits", "threshold_max_minus", "threshold_absolute")
SHORT = 2048 + 5 * 32


def golden_signal(case: str) -> Tensor:
    return torch.from_numpy(GOLDEN[f"{case}_signal"].T.copy())[None]


def noise(batch: int = 2, length: int = SHORT, level: float = 60, dtype: torch.dtype = torch.float64) -> Tensor:
    return 10 ** ((level - 90) / 20) * torch.randn(batch, 2, length, dtype=dtype)


def tone(hertz: float, length: int = 4096) -> Tensor:
    return torch.sin(2 * math.pi * hertz / FS * torch.arange(length, dtype=torch.float64)).expand(1, 2, -1)


def by_fft(module: Moore2016Spectrum, audio: Tensor) -> Tensor:
    """Intensities (B, 2, S, 960) by whole FFTs of each window, with AMT's rule for the bins."""
    frames = audio.unfold(-1, 2048, module.hop)[:, :, : (audio.shape[-1] - 2048) // module.hop]
    edges = GOLDEN["limiting_bin"].tolist()
    edges[-1] += 1
    parts = []
    for k, length in enumerate(WINDOWS):
        window = torch.zeros(2048, dtype=torch.float64)
        window[1024 - length // 2 : 1024 + length // 2] = torch.hann_window(length, periodic=False, dtype=torch.float64)
        magnitude = 2 * torch.fft.rfft(frames * window).abs() / 2048
        intensity = magnitude.square() * 10**0.332 * 2**k * 10 ** (module.db_max / 10)
        parts.append(intensity[..., edges[k] : edges[k + 1]])
    return torch.cat(parts, -1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-3)])
@pytest.mark.parametrize("max_components", [None, 960])
@pytest.mark.parametrize("case", CASES)
def test_amt(case: str, max_components: int | None, dtype: torch.dtype, tolerance: float) -> None:
    module = Moore2016Spectrum(
        db_max=float(GOLDEN[f"{case}_dBMax"]), dtype=dtype, max_components=max_components, joint_threshold=True
    )
    out = module(golden_signal(case))
    at = GOLDEN[f"{case}_start"] // 32
    assert (GOLDEN[f"{case}_start"] % 32 == 0).all()
    for ear in range(2):
        freqs, levels = (t[0, at].double().numpy() for t in out[2 * ear : 2 * ear + 2])
        assert ((freqs > 0).sum(-1) == GOLDEN[f"{case}_count"][:, ear]).all()
        for actual, expected, limit in ((freqs, GOLDEN[f"{case}_f"], 0), (levels, GOLDEN[f"{case}_L"], tolerance)):
            width = min(actual.shape[-1], expected.shape[-1])
            assert np.abs(actual[:, :width] - expected[:, ear, :width]).max() <= limit
            assert not actual[:, width:].any()
            assert not expected[:, ear, width:].any()


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_dense_is_the_lists(case: str, joint: bool, learnable: bool) -> None:
    """The same components at the same levels, and -inf where there is none, whatever the length of the lists."""
    arguments = {"learnable": learnable, "joint_threshold": joint, "dtype": torch.float64}
    db_max = float(GOLDEN[f"{case}_dBMax"])
    out = Moore2016Spectrum(db_max=db_max, **arguments)(golden_signal(case))
    freqs, *dense = Moore2016Spectrum(db_max=db_max, max_components=3, **arguments).dense(golden_signal(case))
    assert torch.equal(freqs, BIN * torch.arange(1, 1025 if learnable else 961).double())
    for levels, listed, listed_levels in zip(dense, out[::2], out[1::2], strict=True):
        rows = torch.full((*levels.shape[:-1], len(freqs) + 1), -math.inf, dtype=torch.float64)
        expected = rows.scatter_(-1, (listed / BIN).long(), listed_levels.detach())[..., 1:]
        assert torch.equal(levels.isfinite(), expected.isfinite())
        some = levels.isfinite()
        assert_within(levels.detach()[some], expected[some], 1e-11)


@pytest.mark.parametrize("learnable", [False, True])
def test_gradcheck_of_dense(learnable: bool) -> None:
    """To the relevant components, which a small step does not change."""
    module = Moore2016Spectrum(learnable=learnable, dtype=torch.float64)
    values = [getattr(module, name).detach() for name in NAMES]

    def function(audio: Tensor, *offsets: Tensor) -> Tensor:
        named = {name: v + o for name, v, o in zip(NAMES, values, offsets, strict=False)}
        twin = copy.copy(module)
        twin.forward = twin.dense
        levels = torch.stack(torch.func.functional_call(twin, named, (0.03 * audio,))[1:])
        return torch.where(levels.isfinite(), levels, 0.0)

    given = [torch.randn(1, 2, 2048 + 40, dtype=torch.float64, requires_grad=True)]
    if learnable:
        given += [torch.zeros_like(v).requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, given, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_intensities_are_the_levels(learnable: bool, dtype: torch.dtype, tolerance: float) -> None:
    """Relative to those of dense, weights of smooth thresholds included; 0 where a component is not relevant."""
    module = Moore2016Spectrum(learnable=learnable, joint_threshold=True, dtype=dtype)
    audio = torch.cat((golden_signal("harm"), noise(1, 3680), torch.zeros(1, 2, 3680, dtype=torch.float64)))
    freqs, intensity = module.intensities(audio.to(dtype))
    grid, *levels = module.dense(audio.to(dtype))
    assert torch.equal(freqs, grid)
    assert intensity.shape == (2, 3, 51, len(freqs))
    expected = 10 ** (torch.stack(levels).detach() / 10)
    assert torch.equal(intensity > 0, expected > 0)
    assert 0.1 < (intensity > 0).double().mean() < 0.9
    heard = expected > 0
    assert_within(intensity.detach()[heard] / expected[heard], torch.ones_like(expected[heard]), tolerance)


@pytest.mark.parametrize("learnable", [False, True])
def test_gradcheck_of_intensities(learnable: bool) -> None:
    module = Moore2016Spectrum(learnable=learnable, dtype=torch.float64)
    values = [getattr(module, name).detach() for name in NAMES]

    def function(audio: Tensor, *offsets: Tensor) -> Tensor:
        named = {name: v + o for name, v, o in zip(NAMES, values, offsets, strict=False)}
        twin = copy.copy(module)
        twin.forward = lambda audio: twin.intensities(audio)[1]
        return torch.func.functional_call(twin, named, (0.03 * audio,)).log1p()

    given = [torch.randn(1, 2, 2048 + 40, dtype=torch.float64, requires_grad=True)]
    if learnable:
        given += [torch.zeros_like(v).requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, given, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("learnable", [False, True])
def test_intensities_of_silence_nan_and_nothing(learnable: bool) -> None:
    module = Moore2016Spectrum(learnable=learnable)
    audio = noise(4, dtype=torch.float32)
    clean = module.intensities(audio)[1]
    audio[0] = 0
    audio[2, 0, 1100] = math.nan
    intensity = module.intensities(audio.requires_grad_())[1]
    assert not intensity[:, 0].any()
    assert intensity[0, 2].isnan().any()
    assert torch.equal(intensity[:, 1::2], clean[:, 1::2])
    assert torch.equal(intensity[1, 2], clean[1, 2])
    total = module.intensities(audio[:2])[1].sum()
    gradients = torch.autograd.grad(total, (audio, *module.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert not gradients[0][0].any()
    assert gradients[0][1].any()
    assert module.intensities(audio[:0])[1].shape == (2, 0, 5, clean.shape[-1])


@pytest.mark.parametrize("learnable", [False, True])
def test_dense_of_silence_nan_and_nothing(learnable: bool) -> None:
    module = Moore2016Spectrum(learnable=learnable)
    audio = noise(4, dtype=torch.float32)
    clean = module.dense(audio)
    audio[0] = 0
    audio[2, 0, 1100] = math.nan
    freqs, left, right = module.dense(audio.requires_grad_())
    assert (left[0] == -math.inf).all()
    assert left[2].isnan().any()
    for levels, expected in ((left[1::2], clean[1][1::2]), (right[1:], clean[2][1:])):
        assert torch.equal(levels, expected)
    (gradient,) = torch.autograd.grad(torch.where(left > 0, left, 0.0).sum(), audio)
    assert torch.isfinite(gradient[[0, 1, 3]]).all()
    assert not gradient[0].any()
    left = module.dense(audio[:2])[1]
    gradients = torch.autograd.grad(torch.where(left > -math.inf, left, 0.0).sum(), (audio, *module.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert [t.shape for t in module.dense(audio[:0])[1:]] == [(0, 5, len(freqs))] * 2


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_threshold_of_each_ear_or_of_both(case: str, joint: bool) -> None:
    audio = golden_signal(case)
    module = Moore2016Spectrum(dtype=torch.float64, max_components=960, joint_threshold=joint)
    intensity = by_fft(module, audio)
    peak = intensity.amax(-1, keepdim=True)
    if joint:
        peak = peak.amax(1, keepdim=True)
    keep = (intensity > 1e-6 * peak) & (intensity > 1e-3)
    out = module(audio)
    for ear in range(2):
        freqs, levels = out[2 * ear : 2 * ear + 2]
        assert torch.equal((freqs > 0).sum(-1), keep[:, ear].sum(-1))
        for s in range(freqs.shape[1]):
            kept = keep[0, ear, s]
            expected = BIN * (1 + kept.nonzero()[:, 0])
            assert torch.equal(freqs[0, s, : len(expected)], expected.double())
            wanted = 10 * torch.log10(intensity[0, ear, s, kept])
            torch.testing.assert_close(levels[0, s, : len(expected)], wanted, rtol=0, atol=1e-8)
    if case == "diff":  # the golden note: 960 components of the right ear stay under its own threshold
        counts = (out[2] > 0).sum(-1)[0, GOLDEN["diff_start"] // 32].tolist()
        assert (counts == [960, 960, 960, 960, 959, 960]) != joint


def test_level_of_a_tone() -> None:
    """Integrated over its main lobe a tone of amplitude 1 has db_max dB, whatever the window that sees it."""
    for db_max in (93.98, 60.0):
        module = Moore2016Spectrum(db_max=db_max, dtype=torch.float64)
        for hertz in (250, 800, 1800, 3200, 8000):
            freqs, levels, *_ = module(tone(hertz))
            assert freqs[0, 0, levels[0, 0].argmax()] == pytest.approx(hertz, abs=BIN)
            total = 10 * torch.log10((10 ** (levels[0, 0] / 10))[freqs[0, 0] > 0].sum())
            k = sum(hertz > high for _, high in LIMITS)
            # The sum over bins of |X|^2 / 2048 is the energy under the window, 3/8 of its length.
            expected = db_max + 10 * math.log10(4 / 2048 * 3 / 8 * WINDOWS[k] / 4 * 10**0.332 * 2**k)
            assert total.item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("duration", "length", "segments"), [(2, 16000, 218), (1, 32000, 936), (1, 2080, 1), (7, 4000, 8)]
)
def test_segments(duration: int, length: int, segments: int) -> None:
    module = Moore2016Spectrum(segment_duration=duration, max_components=20)
    assert module.hop == 32 * duration
    out = module(noise(1, length))
    assert all(t.shape == (1, segments, 20) for t in out)


def test_frames_are_a_hop_apart() -> None:
    audio = noise(1, 4000)
    fine, coarse = (Moore2016Spectrum(segment_duration=d, max_components=960, dtype=torch.float64) for d in (1, 3))
    for a, e in zip(coarse(audio), fine(audio), strict=True):
        assert_close(a, e[:, : 3 * a.shape[1] : 3].contiguous(), 1e-10)


@pytest.mark.parametrize("length", [2048 + 31, 2047, 0])
def test_too_short(length: int) -> None:
    with pytest.raises(ValueError, match=f"audio must have at least 2080 samples, got {length}"):
        Moore2016Spectrum()(noise(1, length))
    with pytest.raises(ValueError, match=f"audio must have at least 2112 samples, got {length}"):
        Moore2016Spectrum(segment_duration=2)(noise(1, length))


def test_both_ears_and_all_rows_share_the_length() -> None:
    audio = torch.cat((golden_signal("diff"), golden_signal("click")))
    out = Moore2016Spectrum(joint_threshold=True)(audio)
    longest = max(int((t > 0).sum(-1).max()) for t in out[::2])
    assert all(t.shape[-1] == longest for t in out)
    alone = Moore2016Spectrum(joint_threshold=True)(audio[:1])
    for a, e, tolerance in zip(alone, out, (0, 3e-3) * 2, strict=True):  # Hz, dB
        assert_within(a[0], e[0, :, : a.shape[-1]], tolerance)


def test_the_strongest_are_kept() -> None:
    audio = noise()
    full = Moore2016Spectrum(dtype=torch.float64, max_components=960)(audio)
    short = Moore2016Spectrum(dtype=torch.float64, max_components=100)(audio)
    for ear in (0, 2):
        assert (short[ear].diff() > 0).all()
        strongest, index = full[ear + 1].topk(100)
        order = index.sort(-1).indices
        assert torch.equal(short[ear + 1], strongest.gather(-1, order))
        assert torch.equal(short[ear], full[ear].gather(-1, index.gather(-1, order)))
    padded = Moore2016Spectrum(dtype=torch.float64, max_components=1500)(audio)
    for a, e in zip(padded, full, strict=True):
        assert torch.equal(a[..., :960], e)
        assert not a[..., 960:].any()


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence(learnable: bool, joint: bool, dtype: torch.dtype) -> None:
    for max_components in (None, 50):
        module = Moore2016Spectrum(
            learnable=learnable, joint_threshold=joint, dtype=dtype, max_components=max_components
        )
        audio = torch.zeros(2, 2, SHORT, dtype=dtype, requires_grad=True)
        out = module(audio)
        assert all(t.shape == (2, 5, max_components or 1) for t in out)
        assert not any(t.any() for t in out)
        gradients = torch.autograd.grad(out[1].sum() + out[3].sum(), (audio, *module.parameters()))
        assert all(not g.any() for g in gradients)
    # Next to a signal, and where only one ear hears one.
    audio = torch.cat((noise(1, dtype=dtype), torch.zeros(1, 2, SHORT, dtype=dtype)))
    audio[0, 1] = 0
    out = module(audio.requires_grad_())
    assert (out[0][0] > 0).any()
    assert not out[2].any()
    assert not out[0][1].any()
    gradients = torch.autograd.grad(out[1].sum() + out[3].sum(), (audio, *module.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("learnable", [False, True])
def test_float32(learnable: bool) -> None:
    audio = noise(1, 4096)
    single, exact = (
        Moore2016Spectrum(max_components=960, learnable=learnable, dtype=dtype)(audio)
        for dtype in (torch.float32, torch.float64)
    )
    for a, e in zip(single, exact, strict=True):
        assert_close(a.detach(), e.detach(), 2e-5, torch.float32)


@pytest.mark.parametrize(("learnable", "joint"), [(False, True)])
def test_gradcheck(learnable: bool, joint: bool) -> None:
    """Along random directions; the lists are short, so that the search for the strongest is in it."""
    module = Moore2016Spectrum(learnable=learnable, joint_threshold=joint, dtype=torch.float64, max_components=40)
    values = [getattr(module, name).detach() for name in NAMES]

    def function(audio: Tensor, *offsets: Tensor) -> Tensor:
        named = {name: v + o for name, v, o in zip(NAMES, values, offsets, strict=False)}
        out = torch.func.functional_call(module, named, (0.03 * audio,))
        return torch.cat((out[1], out[3]))

    given = [torch.randn(1, 2, 2048 + 40, dtype=torch.float64, requires_grad=True)]
    if learnable:
        given += [torch.zeros_like(v).requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, given, fast_mode=True, atol=1e-4)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True, atol=1e-3)


def test_all_14_numbers_against_finite_differences() -> None:
    module, length = Moore2016Spectrum(learnable=True, dtype=torch.float64, max_components=1024), 2112
    # A valley between 5 and 13 kHz crosses both thresholds.
    decibel = -9 * (4 - (torch.linspace(0, 16, length // 2 + 1, dtype=torch.float64) - 9).abs()).clamp_min(0).mul(2)
    audio = torch.fft.irfft(torch.fft.rfft(noise(1, length)) * 10 ** (decibel / 20), length)
    with torch.no_grad():
        module.threshold_absolute.fill_(module(audio)[1].max() - 60)
        freqs = module(audio)[0]
    weights = torch.randn(1, 2, 1024, dtype=torch.float64)

    def loss() -> Tensor:
        out = module(audio)
        assert torch.equal(out[0], freqs)
        return (weights * (out[1] + out[3])).sum()

    loss().backward()
    checked = 0
    for name in NAMES:
        parameter = getattr(module, name)
        for index in np.ndindex(*parameter.shape):
            ends, step = [], 1e-5
            with torch.no_grad():
                before = parameter[index].clone()
                for sign in (1, -1):
                    parameter[index] = before + sign * step
                    ends.append(loss().item())
                parameter[index] = before
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope) > 1e-8, (name, index)
            assert parameter.grad[index].item() == pytest.approx(slope, rel=1e-3), (name, index)
            checked += 1
    assert checked == 14


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_learnable_keeps_the_levels(case: str, joint: bool) -> None:
    """More than 10 dB above the thresholds and two bin spacings away from the limits, within 0.01 dB."""
    audio = golden_signal(case)
    fixed, smooth = (
        Moore2016Spectrum(dtype=torch.float64, max_components=1024, joint_threshold=joint, learnable=learnable)(audio)
        for learnable in (False, True)
    )
    f = BIN * torch.arange(1025)
    away = torch.ones(1025, dtype=torch.bool)
    for k, (low, high) in enumerate(LIMITS):
        away &= (f - low).abs() > 2 * FS / WINDOWS[k]
        away &= (f - high).abs() > 2 * FS / WINDOWS[min(k + 1, 5)]
    peak = torch.stack((fixed[1].amax(-1), fixed[3].amax(-1)))
    if joint:
        peak = peak.amax(0).expand(2, -1, -1)
    compared = 0
    for ear in range(2):
        dense = []
        for freqs, levels in (fixed[2 * ear : 2 * ear + 2], smooth[2 * ear : 2 * ear + 2]):
            rows = torch.full((1, levels.shape[1], 1025), -math.inf, dtype=torch.float64)
            dense.append(rows.scatter_(-1, (freqs / BIN).long(), levels.detach())[..., 1:])
        over = (dense[0] > (peak[ear] - 50)[..., None]) & (dense[0] > -20) & away[1:]
        assert (dense[0] - dense[1])[over].abs().max() <= 0.01 if over.any() else not fixed[2 * ear].any()
        compared += int(over.sum())
    assert compared > 1000


def test_learnable_weights() -> None:
    module = Moore2016Spectrum(learnable=True, dtype=torch.float64)
    weights = module._band_weights().detach()
    assert weights.shape == (6, 1024)
    f = BIN * torch.arange(1, 1025)
    inside = (f > 50) & (f < 14000)
    assert_close(weights.sum(0)[inside], torch.ones(int(inside.sum())).double(), 1e-14)
    assert ((weights >= 0) & (weights <= 1)).all()
    for k, (low, high) in enumerate(LIMITS):
        # Where the limit lies in its bin decides whether that bin has more or less than 1/2; its neighbours are clear.
        first, last = int(low // BIN), int(high // BIN)
        assert weights[k, first] > 0.5
        assert first == 1 or weights[k, first - 2] < 0.5
        assert weights[k, last - 2] > 0.5
        assert weights[k, last] < 0.5
    with torch.no_grad():
        module.freq_limits[2] = torch.tensor([2000.0, 300])  # the wrong way round
    assert (module._band_weights() >= 0).all()
    assert not module._band_weights()[2].any()


def test_learning_recovers_a_threshold_and_a_limit() -> None:
    audio = noise(1, 2112, level=20)
    target = Moore2016Spectrum(dtype=torch.float64, learnable=True, max_components=1024)
    module = copy.deepcopy(target)
    with torch.no_grad():
        module.threshold_absolute += 2
        module.freq_limits[4, 1] += 40
        module.freq_limits[5, 0] += 40
        target.threshold_absolute.fill_(0)
        module.threshold_absolute.fill_(2)
    scale = torch.tensor(100.0, dtype=torch.float64)

    def power(spectrum: Moore2016Spectrum) -> Tensor:
        freqs, levels, *_ = spectrum(audio)
        dense = torch.zeros(*levels.shape[:2], 1025, dtype=torch.float64)
        return dense.scatter(-1, (freqs / BIN).long(), 10 ** (levels / 20))[..., 1:]

    wanted = power(target).detach()
    offset = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    start = {name: getattr(module, name).detach().clone() for name in NAMES}
    optimiser = torch.optim.LBFGS([offset], max_iter=12, line_search_fn="strong_wolfe")

    class Shifted(torch.nn.Module):
        def forward(self, _: Tensor) -> tuple:
            move = torch.zeros(6, 2, dtype=torch.float64)
            move[4, 1] = move[5, 0] = 1
            named = {
                "freq_limits": start["freq_limits"] + scale * offset[0] * move,
                "threshold_max_minus": start["threshold_max_minus"],
                "threshold_absolute": start["threshold_absolute"] + offset[1],
            }
            return torch.func.functional_call(module, named, (audio,))

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = (power(Shifted()) - wanted).square().sum()
        error.backward()
        return error

    before = loss().item()
    optimiser.step(loss)
    assert loss().item() < 1e-4 * before
    assert (scale * offset[0]).item() == pytest.approx(-40, abs=1)
    assert offset[1].item() == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize("learnable", [False, True])
def test_float32_needs_neither_float64_nor_complex(learnable: bool, mps_safe: type) -> None:
    """With lists as long as a call needs, and without lists."""
    module = Moore2016Spectrum(learnable=learnable)
    audio = noise(1, dtype=torch.float32).requires_grad_()
    with mps_safe():
        levels = module.dense(audio)[1]
        torch.autograd.grad(torch.where(levels > 0, levels, 0.0).sum(), [audio, *module.parameters()])
        out = module(audio)
        torch.autograd.grad(out[1].sum() + out[3].sum(), [audio, *module.parameters()])


def test_no_rows() -> None:
    for max_components in (None, 7):
        out = Moore2016Spectrum(max_components=max_components)(noise(0))
        assert all(t.shape == (0, 5, max_components or 1) for t in out)


@pytest.mark.parametrize("learnable", [False, True])
def test_names_and_numbers(learnable: bool) -> None:
    module = Moore2016Spectrum(learnable=learnable, max_components=960)
    assert set(module.state_dict()) == set(NAMES)
    assert [name for name, _ in module.named_parameters()] == (list(NAMES) if learnable else [])
    assert sum(p.numel() for p in module.parameters()) == 14 * learnable
    assert module.freq_limits.tolist() == [list(pair) for pair in LIMITS]
    assert module.freq_limits.shape == (6, 2)
    assert (module.threshold_max_minus.item(), module.threshold_absolute.item()) == (60, -30)
    assert (module.fs, module.segment_duration, module.db_max, module.learnable) == (FS, 1, 93.98, learnable)
    audio = noise(1, dtype=torch.float32)
    expected = module(audio)
    with torch.no_grad():
        module.threshold_absolute += 70
    assert (module(audio)[0] > 0).sum() < (expected[0] > 0).sum()


def test_loaded_limits_are_used() -> None:
    """What a learnable module has learnt serves a fixed one."""
    learnt, audio = Moore2016Spectrum(learnable=True, dtype=torch.float64), noise(1)
    with torch.no_grad():
        learnt.freq_limits[5, 1] = 12000
        learnt.freq_limits[3:5] = torch.tensor([[1250, 2000], [2000, 4050.0]])
    fixed = Moore2016Spectrum(max_components=960)
    fixed.load_state_dict(learnt.state_dict())
    assert fixed._bands[3:] == ((256, 80, 127), (128, 128, 258), (64, 259, 768))
    freqs, levels, *_ = fixed(audio)
    assert freqs.max() == 12000
    smooth = learnt(audio)
    there = smooth[0][0, 0] == 3000
    assert levels[0, 0, freqs[0, 0] == 3000].item() == pytest.approx(smooth[1][0, 0, there].item(), abs=0.01)
    with torch.no_grad():
        learnt.freq_limits[:, 1] = 0
    with pytest.raises(ValueError, match="freq_limits must leave at least one window a bin"):
        fixed.load_state_dict(learnt.state_dict())


def test_windows_may_overlap_or_leave_gaps() -> None:
    state = Moore2016Spectrum().state_dict()
    module = Moore2016Spectrum(max_components=1024, dtype=torch.float64)
    audio = noise(1)
    plain = module(audio)
    state["freq_limits"][1] = torch.tensor([80, 400])
    state["freq_limits"][4] = torch.tensor([1250, 4050])
    module.load_state_dict(state)
    freqs, levels, *_ = module(audio)
    assert not ((freqs > 390) & (freqs < 500)).any()
    both = levels[freqs == 2000].mean() - plain[1][plain[0] == 2000].mean()
    assert both > 0.5
    assert torch.equal(levels[freqs == 3000], plain[1][plain[0] == 3000])


def test_repr() -> None:
    assert repr(Moore2016Spectrum(max_components=100, segment_duration=2)) == (
        "Moore2016Spectrum(fs=32000, segment_duration=2, db_max=93.98, learnable=False, dtype=torch.float32, "
        "max_components=100, joint_threshold=False)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": 44100}, "fs must be 32000 Hz, got 44100"),
        ({"fs": math.nan}, "fs must be 32000 Hz, got nan"),
        ({"segment_duration": 0}, "segment_duration must be an integer of at least 1, got 0"),
        ({"segment_duration": 1.5}, "segment_duration must be an integer of at least 1, got 1.5"),
        ({"segment_duration": True}, "segment_duration must be an integer of at least 1, got True"),
        ({"max_components": 0}, "max_components must be an integer of at least 1, got 0"),
        ({"max_components": -3}, "max_components must be an integer of at least 1, got -3"),
        ({"db_max": math.inf}, "db_max must be a finite level in dB, got inf"),
    ],
)
def test_value_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Moore2016Spectrum(**arguments)


def test_wrong_shapes() -> None:
    module = Moore2016Spectrum()
    for shape in ((2, SHORT), (1, 1, SHORT), (1, 3, SHORT), (1, 1, 2, SHORT), (SHORT,)):
        with pytest.raises(ValueError, match=re.escape(f"audio must have shape (B, 2, N), got {shape}")):
            module(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_limits_that_are_none(value: float) -> None:
    module = Moore2016Spectrum()
    module.freq_limits[0, 0] = value
    with pytest.raises(ValueError, match="freq_limits must be finite"):
        module(torch.zeros(1, 2, 2080))
