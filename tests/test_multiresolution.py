"""MultiResolutionFFT: its definition, levels in pascal, alignment in time, learning, module habits, errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from helpers import assert_close
from scipy import signal

from tamt.excitation.erb_integration import ERBIntegration
from tamt.spectra.multiresolution import DENSE_BINS, MultiResolutionFFT
from tamt.spl import full_scale_pascal, pascal2spl

FS = 32000
LENGTHS = [2048, 1024, 512, 256, 128, 64]
THRESHOLDS = [500.0, 1000.0, 2000.0, 4000.0, 8000.0]
HOP = 1024
both = pytest.mark.parametrize("learnable", [False, True])
# The first window of the small analysis is transformed by factors where it is learnable, the others by one table.
SMALL = {"fs": 64, "window_lengths": [128, 32, 12], "freq_thresholds": [7.0, 19.0]}


def small(**arguments: object) -> MultiResolutionFFT:
    return MultiResolutionFFT(**{**SMALL, **arguments})


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


def by_loops(
    x: np.ndarray, fs: float, lengths: list[int], thresholds: list[float], hop_fraction: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Spectra (K, B, n_frames, n_bins) of all windows on the common grid, and the window in charge of each bin."""
    longest, hop_longest = lengths[0], int(lengths[0] * hop_fraction)
    freqs = np.arange(longest // 2 + 1) * fs / longest
    n_frames = 1 + x.shape[1] // hop_longest
    spectra = []
    for length in lengths:
        hop = int(length * hop_fraction)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        padded = np.pad(x, ((0, 0), (length // 2, length - length // 2)), mode="reflect")
        starts = range(0, x.shape[1] + 1, hop)
        power = np.stack([np.abs(np.fft.rfft(padded[:, s : s + length] * window)) ** 2 for s in starts], 1)
        power *= 2 / (fs * (window**2).sum())
        power[..., 0] /= 2
        if length % 2 == 0:
            power[..., -1] /= 2
        own = np.arange(length // 2 + 1) * fs / length
        frames = np.empty((x.shape[0], n_frames, len(freqs)))
        for m in range(n_frames):
            low, high = (m - 0.5) * hop_longest, (m + 0.5) * hop_longest
            mean = power[:, [j for j, s in enumerate(starts) if low <= s < high] or [-1]].mean(1)
            frames[:, m] = [np.interp(freqs, own, row) for row in mean]
        spectra.append(frames)
    return np.stack(spectra), np.searchsorted(thresholds, freqs, side="right")


CASES = {
    "default": {},
    "three quarters overlapped": {"hop_fraction": 0.25},
    "hops that do not divide": {"hop_fraction": 0.3},
    "hops without overlap": {"hop_fraction": 1.0},
    "lengths that do not divide": {"window_lengths": [1000, 300, 77], "freq_thresholds": [3000.0, 9000.0]},
    "odd lengths": {"window_lengths": [501, 250, 33], "freq_thresholds": [4000.0, 9000.0]},
    "a prime length": {"window_lengths": [211]},
    "a group without frames": {"window_lengths": [64, 47], "hop_fraction": 1.0, "freq_thresholds": [7000.0]},
    "many bins of two windows": {"window_lengths": [512, 256], "freq_thresholds": [6000.0]},
    "a low sampling rate": {"fs": 8000},
    "a window without a band": {"window_lengths": [512, 128, 64], "freq_thresholds": [1001.0, 1002.0]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("samples", [1920, 4096])
def test_definition(case: str, samples: int) -> None:
    arguments = CASES[case]
    analysis = MultiResolutionFFT(**arguments)
    x = noise(2, samples)
    lengths = arguments.get("window_lengths", LENGTHS)
    thresholds = arguments.get("freq_thresholds", THRESHOLDS[: len(lengths) - 1])
    fs = arguments.get("fs", FS)
    spectra, window_of = by_loops(x.numpy(), fs, lengths, thresholds, arguments.get("hop_fraction", 0.5))
    expected = torch.from_numpy(np.take_along_axis(spectra, window_of[None, None, None], 0)[0])
    psd, freqs = analysis(x)
    assert_close(psd, expected, 1e-13)
    assert_close(psd.mT.contiguous(), expected.mT.contiguous(), 1e-11)  # quiet bins too
    assert_close(freqs, torch.arange(lengths[0] // 2 + 1, dtype=torch.float64) * fs / lengths[0], 4e-15)
    map_freqs, indices = analysis.get_window_selection_map()
    assert indices.dtype == torch.long
    assert indices.tolist() == window_of.tolist()
    assert_close(map_freqs, freqs, 1e-7, torch.float32)


@both
def test_float32(learnable: bool) -> None:
    x = noise(2, 8000).float()
    analysis = MultiResolutionFFT(learnable=learnable)
    exact = analysis(x.double())[0].detach()
    psd, freqs = analysis(x)
    assert freqs.dtype == torch.float32
    assert_close(psd.detach(), exact, 5e-6, torch.float32)
    # A bin far below its frame's peak carries the rounding of what cancels there.
    assert_close(psd.detach().mT.contiguous(), exact.mT.contiguous(), 1e-5, torch.float32)


@pytest.mark.parametrize("length", LENGTHS)
def test_one_window_is_welchs_method(length: int) -> None:
    x = noise(16 * length)
    psd, freqs = MultiResolutionFFT(FS, [length])(x)
    arguments = {"fs": FS, "window": "hann", "nperseg": length, "noverlap": length // 2, "detrend": False}
    expected_freqs, expected = signal.welch(x.numpy(), **arguments)
    assert_close(psd[0, 1:-1].mean(0), torch.from_numpy(expected), 1e-12)
    assert_close(freqs, torch.from_numpy(expected_freqs), 1e-15)
    _, _, frames = signal.spectrogram(x.numpy(), **arguments)
    assert_close(psd[0, 1:-1], torch.from_numpy(frames.T.copy()), 1e-12)


TONES = [100.0, 200, 350, 700, 760, 1300, 1500, 2700, 3000, 5300, 6000, 10000, 12000]


@pytest.mark.parametrize("level", [20.0, 60.0, 100.0])
def test_level_of_tones(level: float) -> None:
    """All bins together hold a tone's level, one ERB band up to 2 dB less of it."""
    t = torch.arange(FS, dtype=torch.float64) / FS
    hertz = torch.tensor(TONES, dtype=torch.float64)
    tones = full_scale_pascal(level) * torch.sin(2 * math.pi * hertz[:, None] * t + 0.3)
    psd, freqs = MultiResolutionFFT()(tones)
    psd = psd[:, 2:-2]
    levels = pascal2spl((psd.sum(-1) * freqs[1]).sqrt())
    assert (levels - level).abs().max() < 0.1
    integration = ERBIntegration()
    bands = integration(psd, freqs).amax(-1)
    assert (bands <= levels).all()
    assert (bands > level - 2).all()
    nearest = (integration.get_erb_frequencies() - hertz[:, None]).abs().argmin(-1)
    peaks = integration(psd.mean(1), freqs).argmax(-1)
    assert (peaks - nearest).abs().max() <= 3


def test_white_noise_integrates_to_its_mean_square() -> None:
    x = 0.02 * noise(4, 4 * FS, dtype=torch.float32)
    psd, freqs = MultiResolutionFFT()(x)
    total = (psd.double().sum(-1) * freqs[1]).mean()
    assert total == pytest.approx(x.double().square().mean().item(), rel=0.01)


def band_power(x: torch.Tensor) -> torch.Tensor:
    """Power (B, n_frames, 6) of the six windows' bands."""
    analysis = MultiResolutionFFT()
    _, window_of = analysis.get_window_selection_map()
    psd, _ = analysis(x)
    return torch.stack([psd[..., window_of == k].sum(-1) for k in range(6)], -1)


def test_a_click_shows_in_the_same_frame_of_all_bands() -> None:
    offsets = torch.arange(-512, 512, 32)
    x = torch.zeros(len(offsets), 16 * HOP, dtype=torch.float64)
    x[torch.arange(len(offsets)), 7 * HOP + offsets] = 1
    power = band_power(x)
    # Frame 7 takes the second window's frames at -512 and 0 samples: up to the middle between 0 and 512 it has more.
    assert (power[(offsets > -512) & (offsets < 256)].argmax(1) == 7).all()
    assert (power[:, 7] > 0).all()
    # More than the reach of the longest window away nothing is left of it.
    assert not power[:, [4, 5, 9, 10]].any()


def test_every_sample_counts() -> None:
    """The squared windows add up to between half and all of their peak: no frame is left out or taken twice."""
    samples = 8 * HOP + 500
    positions = torch.arange(0, samples, 61)
    clicks = torch.zeros(len(positions), samples, dtype=torch.float64)
    clicks[torch.arange(len(positions)), positions] = 1
    power = band_power(clicks).sum(1)
    inner = power[(positions >= HOP) & (positions < 7 * HOP)]
    assert (inner > 0.45 * inner.amax(0)).all()
    assert (inner.amax(0) < 2.2 * inner.median(0).values).all()
    assert (power > 0).all()


def test_shapes_and_attributes() -> None:
    analysis = MultiResolutionFFT()
    psd, freqs = analysis(noise(3, FS))
    assert psd.shape == (3, 32, 1025)
    assert freqs.shape == (1025,)
    assert freqs[[0, -1]].tolist() == [0, 16000]
    assert analysis(noise(FS))[0].shape == (1, 32, 1025)
    assert analysis(noise(0, FS))[0].shape == (0, 32, 1025)
    assert analysis.window_lengths == LENGTHS
    assert analysis.hop_lengths == {length: length // 2 for length in LENGTHS}
    assert analysis.window_power == {length: pytest.approx(0.375 * length) for length in LENGTHS}
    assert analysis.freq_thresholds.tolist() == THRESHOLDS
    for length in LENGTHS:
        assert torch.equal(
            getattr(analysis, f"window_{length}"), torch.hann_window(length, dtype=torch.float64).float()
        )
    learnable = MultiResolutionFFT(learnable=True)
    keys = {"freq_thresholds", *(f"window_{length}" for length in LENGTHS)}
    assert set(analysis.state_dict()) == set(learnable.state_dict()) == keys
    assert [name for name, _ in learnable.named_parameters()] == ["freq_thresholds"]
    assert not list(analysis.parameters())
    other = MultiResolutionFFT(window_lengths=[64, 1024, 256])
    assert other.window_lengths == [1024, 256, 64]
    assert other.freq_thresholds.tolist() == [500, 1000]
    assert MultiResolutionFFT(freq_thresholds=[8000, 4000, 2000, 1000, 500]).freq_thresholds.tolist() == THRESHOLDS


@both
def test_windows_fade_over_one_bin_of_the_shorter(learnable: bool) -> None:
    x = noise(2, 5000)
    spectra, window_of = (torch.from_numpy(a) for a in by_loops(x.numpy(), FS, LENGTHS, THRESHOLDS))
    psd, freqs = MultiResolutionFFT(learnable=learnable)(x)
    expected = spectra.gather(0, window_of.expand(1, *psd.shape))[0]
    away = torch.ones(len(freqs), dtype=torch.bool)
    for k, threshold in enumerate(THRESHOLDS):
        away &= (freqs - threshold).abs() >= 0.5 * FS / LENGTHS[k + 1]
    assert (~away).sum() == 57
    assert_close(psd[..., away], expected[..., away], 1e-12)
    if learnable:
        for k, threshold in enumerate(THRESHOLDS):
            at = int((freqs == threshold).nonzero())
            assert_close(psd[..., at], spectra[k : k + 2, ..., at].mean(0), 1e-12)
        between = (spectra[window_of, :, :, torch.arange(1025)] - psd.permute(2, 0, 1)).abs() > 0
        assert between.any(-1).any(-1)[~away].all()


def test_weights_sum_to_one() -> None:
    """On spectra that are one, all mixtures are one, whatever the order and the distance of the thresholds."""
    analysis = MultiResolutionFFT(learnable=True)
    parts, freqs = [torch.ones(1, 1, 1025, dtype=torch.float64)] * 6, torch.arange(1025).double() * FS / 2048
    with torch.no_grad():
        for thresholds in (THRESHOLDS, [510.0, 500, 490, 505, 400], [-100.0, 9000, 17000, 8700, 8900]):
            analysis.freq_thresholds.copy_(torch.tensor(thresholds))
            assert_close(analysis._mixed(parts, freqs), parts[0], 1e-14)


def test_thresholds_are_used_sorted() -> None:
    x = noise(1, 3000)
    analysis = MultiResolutionFFT(learnable=True)
    expected = analysis(x)[0]
    gradient = torch.autograd.grad(expected.square().sum(), analysis.freq_thresholds)[0]
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        analysis.freq_thresholds.copy_(analysis.freq_thresholds[order])
    psd = analysis(x)[0]
    assert torch.equal(psd, expected)
    assert torch.equal(torch.autograd.grad(psd.square().sum(), analysis.freq_thresholds)[0], gradient[order])
    assert analysis.get_window_selection_map()[1].diff().min() == 0


def test_gradients_of_thresholds_against_finite_differences() -> None:
    analysis = MultiResolutionFFT(learnable=True).double()
    x = noise(1, 3000)
    with torch.no_grad():
        analysis.freq_thresholds.copy_(torch.tensor([497.0, 1003, 2010, 4050, 7900]))
    weights = torch.randn(1, 3, 1025, dtype=torch.float64)

    def loss(thresholds: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(analysis, {"freq_thresholds": thresholds}, (x,))[0] * weights).sum()

    start = analysis.freq_thresholds.detach()
    gradient = torch.autograd.grad(loss(analysis.freq_thresholds), analysis.freq_thresholds)[0]
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = 1e-4
        slope = ((loss(start + step) - loss(start - step)) / 2e-4).item()
        assert abs(slope) > 1e-8
        assert gradient[k].item() == pytest.approx(slope, rel=1e-6)


def test_learning_recovers_thresholds() -> None:
    x = noise(2, 2100)
    wanted = MultiResolutionFFT(learnable=True)(x)[0].detach()
    analysis = MultiResolutionFFT(learnable=True).double()
    scale = torch.tensor([31.25, 62.5, 125, 250, 500])  # bins of the shorter windows
    offset = torch.tensor([0.3, -0.3, 0.25, -0.4, 0.35], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([offset], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        thresholds = torch.tensor(THRESHOLDS) + scale * offset
        psd = torch.func.functional_call(analysis, {"freq_thresholds": thresholds}, (x,))[0]
        error = (psd - wanted).square().sum() / wanted.square().sum()
        error.backward()
        return error

    before = loss().item()
    optimiser.step(loss)
    assert before > 1e-4
    assert loss().item() < 1e-6 * before
    assert offset.abs().max() < 1e-3


def test_the_fixed_module_follows_loaded_thresholds() -> None:
    learnt, fixed, x = small(learnable=True), small(), noise(300)
    before = fixed(x)[0]
    with torch.no_grad():
        learnt.freq_thresholds.copy_(torch.tensor([25.0, 11.0]))
    fixed.load_state_dict(learnt.state_dict())
    assert torch.equal(fixed(x)[0], small(freq_thresholds=[11.0, 25.0])(x)[0])
    assert not torch.equal(fixed(x)[0], before)
    indices = fixed.get_window_selection_map()[1]
    assert torch.equal(indices, learnt.get_window_selection_map()[1])
    wrapped = torch.nn.Sequential(small())
    wrapped.load_state_dict({f"0.{name}": tensor for name, tensor in learnt.state_dict().items()})
    assert torch.equal(wrapped(x)[0], fixed(x)[0])
    learnt.load_state_dict(small().state_dict())
    assert learnt.freq_thresholds.tolist() == [7, 19]


def test_both_transforms_are_in_use() -> None:
    """Few bins come from one table, many from the factored transform, and they agree."""
    assert all(band.dense for band in MultiResolutionFFT().bands)
    assert [band.dense for band in MultiResolutionFFT(learnable=True).bands] == [False] * 5 + [True]
    assert [band.dense for band in small(learnable=True).bands] == [False, True, True]
    assert 17 < DENSE_BINS < 65


def test_repr() -> None:
    lines = repr(MultiResolutionFFT(window_lengths=[2048, 512])).splitlines()
    assert "fs=32000, hop_fraction=0.5, learnable=False" in lines[1]
    assert "2048 samples, 0.0 ... 484.4 Hz" in lines[3]
    assert "512 samples, 500.0 ... 16000.0 Hz" in lines[4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": 0}, "fs must be a positive number of Hz, got 0"),
        ({"fs": math.nan}, "fs must be a positive number of Hz, got nan"),
        ({"hop_fraction": 0}, "hop_fraction must lie in (0, 1], got 0"),
        ({"hop_fraction": 1.01}, "hop_fraction must lie in (0, 1], got 1.01"),
        ({"hop_fraction": math.nan}, "hop_fraction must lie in (0, 1], got nan"),
        ({"hop_fraction": 0.01}, "hop_fraction must be at least 1/64 for a window of 64 samples, got 0.01"),
        ({"window_lengths": []}, "window_lengths must hold at least one length and none twice, got []"),
        ({"window_lengths": [64, 32, 64]}, "window_lengths must hold at least one length and none twice, got [64, 32"),
        ({"window_lengths": [64, 0]}, "window_lengths must be integers of at least 1, got 0"),
        ({"window_lengths": [64, -32]}, "window_lengths must be integers of at least 1, got -32"),
        ({"window_lengths": [64.5]}, "window_lengths must be integers of at least 1, got 64.5"),
        ({"window_lengths": [True, 64]}, "window_lengths must be integers of at least 1, got True"),
        (
            {"window_lengths": list(range(64, 71))},
            "freq_thresholds must be given for more than 6 windows, got 7 windows",
        ),
        ({"freq_thresholds": [500.0]}, "freq_thresholds must have shape (5,) for 6 windows, got (1,)"),
        (
            {"window_lengths": [64, 32], "freq_thresholds": [0.0]},
            "freq_thresholds must lie in (0, fs/2) = (0, 16000) Hz, got 0",
        ),
        (
            {"window_lengths": [64, 32, 16], "freq_thresholds": [100.0, 16000]},
            "freq_thresholds must lie in (0, fs/2) = (0, 16000) Hz, got 16000",
        ),
        (
            {"window_lengths": [64, 32], "freq_thresholds": [math.nan]},
            "freq_thresholds must lie in (0, fs/2) = (0, 16000) Hz, got nan",
        ),
    ],
)
def test_value_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiResolutionFFT(**arguments)


@pytest.mark.parametrize(("length", "least"), [(64, 33), (65, 34)])
def test_short_signals(length: int, least: int) -> None:
    analysis = MultiResolutionFFT(window_lengths=[length])
    assert analysis(noise(2, least))[0].shape == (2, 1 + least // (length // 2), length // 2 + 1)
    message = f"the signal must have at least {least} samples, more than half the longest window of {length}, got "
    for samples in (0, least - 1):
        with pytest.raises(ValueError, match=re.escape(f"{message}{samples}")):
            analysis(noise(2, samples))


def test_wrong_signals() -> None:
    with pytest.raises(ValueError, match=re.escape("the signal must have shape (B, T) or (T,), got (1, 2, 300)")):
        small()(noise(1, 2, 300))
