"""Spectra: one window's density, the multi-resolution spectrum, the components of Moore et al."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.signal import spectrogram
from torch import Tensor

from asv_bench.benchmarks import against_scipy
from asv_bench.benchmarks import moore2016_spectrum as moore_bench
from asv_bench.benchmarks import multi_resolution_fft as multi_bench
from asv_bench.benchmarks.common import DTYPES, dense, difference_in_db, relative_error
from tamt import Moore2016Spectrum, MultiResolutionFFT

from .filters import on_cpu
from .measure import Work, without_gradient, work
from .peers import Absent, library, torch_amt

LIMITS = {"float32": 1e-3, "float64": 1e-9}
FRAME_PEAK = "of the frame's peak"
FS, LENGTH, HOP = multi_bench.FS, 2048, 1024
LENGTHS, EDGES = (2048, 1024, 512, 256, 128, 64), (0, 500, 1000, 2000, 4000, 8000, FS)


def density(power: Tensor, window: Tensor) -> Tensor:
    """Power (B, n_bins, n_frames) of a windowed DFT as one-sided density (B, n_frames, n_bins)."""
    psd = power.mT * (2 / (FS * window.square().sum()))
    psd[..., 0] /= 2
    psd[..., -1] /= 2
    return psd


def spectrum(x: Tensor, window: Tensor) -> Tensor:
    return torch.stft(x, len(window), len(window) // 2, window=window, return_complex=True).abs().square()


@work("PSD, one window")
def one_window(device: str, dtype: str) -> Work:
    """Spectral density by one Hann window of 2048 samples."""
    x = multi_bench.noise(8, 1, dtype, device)
    module = MultiResolutionFFT(FS, window_lengths=[LENGTH], device=device)
    window = torch.hann_window(LENGTH, dtype=DTYPES[dtype], device=device)

    def by_scipy(x: np.ndarray) -> Tensor:
        padded = np.pad(x, ((0, 0), (HOP, HOP)), mode="reflect")
        return torch.from_numpy(spectrogram(padded, FS, "hann", LENGTH, HOP, detrend=False)[2]).mT

    def torchaudio() -> Callable[[], Tensor]:
        transforms = library("torchaudio", "transforms")
        peer = transforms.Spectrogram(LENGTH, hop_length=HOP, power=2).to(device, DTYPES[dtype])
        return without_gradient(lambda: density(peer(x), window))

    def nnaudio() -> Callable[[], Tensor]:
        peer = library("nnAudio", "features").STFT(
            LENGTH, hop_length=HOP, sr=FS, output_format="Magnitude", verbose=False
        )
        peer = peer.to(device, DTYPES[dtype])
        return without_gradient(lambda: density(peer(x).square(), window))

    def diffsptk() -> Callable[[], Tensor]:
        options = {"mode": "reflect", "window": "hanning", "norm": "none", "symmetric": False, "eps": 0}
        peer = library("diffsptk").STFT(LENGTH, HOP, LENGTH, **options, dtype=DTYPES[dtype]).to(device)
        return without_gradient(lambda: density(peer(x).mT, window))

    return Work(
        "8 x 1 s at 32 kHz",
        by_scipy(x.double().cpu().numpy()),
        relative_error,
        LIMITS[dtype],
        FRAME_PEAK,
        lambda: without_gradient(lambda: module(x)[0]),
        on_cpu(device, {"scipy.signal.spectrogram": lambda: partial(by_scipy, x.numpy())})
        | {
            "torch.stft": lambda: without_gradient(lambda: density(spectrum(x, window), window)),
            "torchaudio.transforms.Spectrogram": torchaudio,
            "nnAudio.features.STFT": nnaudio,
            "diffsptk.STFT": diffsptk,
        },
    )


def composed(x: Tensor, windows: list[Tensor]) -> Tensor:
    """The multi-resolution spectrum by one ``torch.stft`` a window, averages over frames, interpolation over bins."""
    frames = 1 + x.shape[1] // HOP
    parts = []
    for window, low, high in zip(windows, EDGES[:-1], EDGES[1:], strict=True):
        length = len(window)
        psd = density(spectrum(x, window), window)
        ratio = LENGTH // length  # frames of this window a frame of the longest, and bins of the longest a bin of it
        half = ratio // 2
        near = torch.nn.functional.pad(psd, (0, 0, half, ratio))[:, : frames * ratio].unflatten(1, (-1, ratio))
        counts = torch.nn.functional.pad(psd.new_ones(psd.shape[1]), (half, ratio))[: frames * ratio]
        mean = near.sum(2) / counts.unflatten(0, (-1, ratio)).sum(1)[:, None]
        bins = torch.arange(LENGTH // 2 + 1, device=x.device)
        bins = bins[(bins * FS / LENGTH >= low) & (bins * FS / LENGTH < high)]
        below = (bins // ratio).clamp(max=mean.shape[2] - 2)
        part = (bins - below * ratio).to(psd.dtype) / ratio
        parts.append(torch.lerp(mean[..., below], mean[..., below + 1], part))
    return torch.cat(parts, -1)


@work("multi-resolution PSD")
def multi_resolution(device: str, dtype: str) -> Work:
    """Six windows, aligned in time, joined in frequency."""
    x = multi_bench.noise(8, 1, dtype, device)
    module = MultiResolutionFFT(FS, device=device)
    windows = [torch.hann_window(length, dtype=DTYPES[dtype], device=device) for length in LENGTHS]

    def amt() -> Callable[[], Tensor]:
        if dtype != "float32":
            raise Absent("its MultiResolutionFFT takes float32 alone")
        peer = torch_amt("MultiResolutionFFT", FS, device=device)
        return without_gradient(lambda: peer(x)[0])

    return Work(
        "8 x 1 s at 32 kHz",
        against_scipy.multi_resolution(x),
        relative_error,
        LIMITS[dtype],
        FRAME_PEAK,
        lambda: without_gradient(lambda: module(x)[0]),
        on_cpu(
            device,
            {"scipy.signal.spectrogram": lambda: partial(against_scipy.multi_resolution, x)}
            if dtype == "float64"
            else {},
        )
        | {"torch.stft": lambda: without_gradient(composed, x, windows), "torch_amt": amt},
    )


@work("components of Moore et al.")
def moore2016(device: str, dtype: str) -> Work:
    """Relevant components of both ears, a frame per millisecond."""
    audio = moore_bench.noise(1, 1, dtype, device)
    module = Moore2016Spectrum(dtype=DTYPES[dtype], max_components=960, device=device)
    exact = Moore2016Spectrum(dtype=torch.float64, max_components=960)

    def amt() -> Callable[[], Any]:
        return without_gradient(torch_amt("Moore2016Spectrum", FS, dtype=DTYPES[dtype], device=device), audio)

    def by_scipy() -> Callable[[], Any]:
        return partial(against_scipy.dense_components, audio.numpy(), module.hop, module.db_max)

    return Work(
        "stereo 1 s at 32 kHz",
        dense(moore_bench.composed(exact, audio.double().cpu())),
        lambda actual, expected: difference_in_db(actual if isinstance(actual, Tensor) else dense(actual), expected),
        {"float32": 0.05, "float64": 1e-6}[dtype],
        "dB",
        lambda: without_gradient(module, audio),
        on_cpu(device, {"scipy.fft": by_scipy})
        | {
            "torch.fft and torch.sort": lambda: without_gradient(moore_bench.composed, module, audio),
            "torch_amt": amt,
        },
    )
