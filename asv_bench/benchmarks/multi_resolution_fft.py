"""MultiResolutionFFT: forward, training step, real time, memory, error, and the time over six ``torch.stft``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from tamt.spectra.multiresolution import MultiResolutionFFT

from .common import DTYPES, Agreement, Load, cases, over, peak, relative_error, require, timing, tracked

FS = 32000
CPU_LOADS = {"8 x 1 s": (8, 1), "1 x 30 s": (1, 30)}
GPU_LOADS = {"32 x 10 s": (32, 10)}
CASES = cases(CPU_LOADS, GPU_LOADS)
FRAME_PEAK = "of the frame's peak"
LIMITS = {"float64": 1e-12, "float32": 2e-6}


def noise(batch: int, seconds: float, dtype: str, device: str) -> Tensor:
    x = torch.randn(batch, int(seconds * FS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(device, DTYPES[dtype])


def by_scipy(x: Tensor) -> Tensor:
    """The default analysis of a signal (T,) by ``scipy.signal``, in float64: (n_frames, n_bins)."""
    lengths, edges = (2048, 1024, 512, 256, 128, 64), (0, 500, 1000, 2000, 4000, 8000, np.inf)
    freqs = np.arange(1025) * FS / 2048
    n_frames = 1 + len(x) // 1024
    psd = np.empty((n_frames, 1025))
    for length, low, high in zip(lengths, edges[:-1], edges[1:], strict=True):
        padded = np.pad(x.double().cpu().numpy(), length // 2, mode="reflect")
        own, _, power = signal.spectrogram(padded, FS, "hann", length, length // 2, detrend=False)
        centres = np.arange(power.shape[1]) * (length // 2)
        wanted = (freqs >= low) & (freqs < high)
        for m in range(n_frames):
            near = (centres >= 1024 * m - 512) & (centres < 1024 * m + 512)
            psd[m, wanted] = np.interp(freqs[wanted], own, power[:, near].mean(1))
    return torch.from_numpy(psd)


def conformance(dtype: str) -> Iterator[Agreement]:
    x = noise(1, 1, "float64", "cpu")
    error = relative_error(MultiResolutionFFT()(x.to(DTYPES[dtype]))[0][0], by_scipy(x[0]))
    yield Agreement("MultiResolutionFFT", "scipy.signal, white noise", error, FRAME_PEAK)


class _Load(Load):
    params = (CASES, list(DTYPES), ["fixed", "learnable"])
    param_names = ("load", "dtype", "kind")

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        self.device, load = case
        batch, duration = {**CPU_LOADS, **GPU_LOADS}[load]
        self.seconds = batch * duration
        self.x = noise(batch, duration, dtype, self.device)
        self.fixed = MultiResolutionFFT(FS, device=self.device)
        self.analysis = MultiResolutionFFT(FS, learnable=kind == "learnable", device=self.device)
        # Far from a threshold both kinds are one.
        self.away = torch.ones(1025, dtype=torch.bool)
        for k, threshold in enumerate(self.fixed.freq_thresholds.tolist()):
            self.away &= (torch.arange(1025) * FS / 2048 - threshold).abs() > 32 << k
        self.expected = by_scipy(self.x[0, :FS])[:-1]
        require(self.error(), LIMITS[dtype], f"{kind} {load} {dtype}")
        self.ready()

    def error(self) -> float:
        psd = self.analysis(self.x[:1, :FS])[0][0, :-1].cpu()
        return relative_error(psd[:, self.away], self.expected[:, self.away])

    def result(self) -> Tensor:
        return self.analysis(self.x)[0]


class MultiResolution(_Load):
    time_forward = timing("forward")
    track_time_over_real_time = tracked("real_time", "x")
    track_error = tracked("error", FRAME_PEAK)
    track_peak_memory = peak("forward", "outputs")


class MultiResolutionTraining(_Load):
    """Forward and backward to the signal, and to the thresholds where they are learnable."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        self.ready(self.x.requires_grad_(), *self.analysis.parameters())

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")


class MultiResolutionAgainstSTFT(_Load):
    """Time over that of six ``torch.stft`` without powers, averages and interpolation."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        lengths = self.fixed.window_lengths
        self.windows = [torch.hann_window(length, dtype=self.x.dtype, device=self.device) for length in lengths]
        spectrum = self.stft(self.x[:1, :FS], self.windows[0])[0, :32].cpu()
        power = (2 * spectrum.abs().square() / (FS * self.windows[0].square().sum().cpu())).T
        require(relative_error(power[:-1, 1:].contiguous(), self.expected[:, 1:32]), 1e-4, "torch.stft")

    @staticmethod
    def stft(x: Tensor, window: Tensor) -> Tensor:
        return torch.stft(x, len(window), len(window) // 2, window=window, return_complex=True)

    def six_stft(self) -> None:
        for window in self.windows:
            self.stft(self.x, window)

    track_time_over_stft = over("six_stft")
