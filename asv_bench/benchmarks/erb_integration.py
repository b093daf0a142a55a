"""ERBIntegration: forward, training step, memory, error, and the time over that of sums band by band."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tamt.excitation.erb_integration import ERBIntegration

from .common import (
    DTYPES,
    Agreement,
    Load,
    cases,
    largest_difference,
    over,
    peak,
    relative_error,
    require,
    timing,
    tracked,
)

CPU_LOADS = {"8 x 32": (8, 32), "8 x 1000": (8, 1000)}
GPU_LOADS = {"32 x 313": (32, 313)}
CASES = cases(CPU_LOADS, GPU_LOADS)
LIMITS = {"float64": 1e-12, "float32": 1e-6}
LEARNABLE_LIMIT = 0.05  # of the highest level in a frame: bins are cut
BINS = 1025


def spectrum(batch: int, frames: int, dtype: str, device: str) -> tuple[Tensor, Tensor]:
    """Of white noise, as a multi-resolution FFT gives it, and its frequencies."""
    generator = torch.Generator().manual_seed(0)
    psd = 1e-6 * (0.5 + torch.rand(batch, frames, BINS, generator=generator, dtype=torch.float64))
    freqs = torch.linspace(0, 16000, BINS, dtype=torch.float64)
    return psd.to(device, DTYPES[dtype]), freqs.to(device, DTYPES[dtype])


def band_by_band(psd: Tensor, freqs: Tensor, centres: Tensor, widths: Tensor) -> Tensor:
    """Levels in dB SPL by one mask and sum per band."""
    levels = torch.empty(*psd.shape[:-1], len(centres), dtype=psd.dtype, device=psd.device)
    for k, (centre, width) in enumerate(zip(centres, widths, strict=True)):
        power = psd[..., (freqs - centre).abs() <= width / 2].sum(-1) * (freqs[1] - freqs[0])
        levels[..., k] = 10 * torch.log10(power.clamp(min=1e-12) / 20e-6**2)
    return levels


def exact(psd: Tensor, freqs: Tensor) -> Tensor:
    """Levels in the default bands, in float64."""
    centres = ERBIntegration()._exact("centres", torch.float64)
    return band_by_band(psd.double().cpu(), freqs.double().cpu(), centres, widths(centres))


def widths(centres: Tensor) -> Tensor:
    return 24.673 * (4.368e-3 * centres + 1)


def conformance(dtype: str) -> Iterator[Agreement]:
    psd, freqs = spectrum(1, 32, dtype, "cpu")
    error = largest_difference(ERBIntegration()(psd, freqs), exact(psd, freqs))
    yield Agreement("ERBIntegration", "sums in float64, white noise", error, "dB")


class _Load(Load):
    params = (CASES, list(DTYPES), ["fixed", "learnable"])
    param_names = ("load", "dtype", "kind")

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        self.device, load = case
        self.psd, self.freqs = spectrum(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        self.module = ERBIntegration(learnable=kind == "learnable", device=self.device)
        self.expected = exact(self.psd[:1], self.freqs)
        limit = LIMITS[dtype] if kind == "fixed" else LEARNABLE_LIMIT
        require(self.error(), limit, f"ERB integration {kind} {load} {dtype}")

    def error(self) -> float:
        return relative_error(self.module(self.psd[:1], self.freqs), self.expected)

    def result(self) -> Tensor:
        return self.module(self.psd, self.freqs)

    def inputs(self) -> int:
        return self.psd.nbytes


class ERBBands(_Load):
    time_forward = timing("forward")
    track_error = tracked("error", "of the frame's peak")
    track_peak_memory = peak("forward", "inputs")


class ERBBandsTraining(_Load):
    """Forward and backward to the spectrum, and to bandwidth and weights where they are learnable."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        self.ready(self.psd.requires_grad_(), *self.module.parameters())

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")


class ERBBandsAgainstLoop(Load):
    """Time over that of one mask and sum per band, on 8 x 32 spectra, on the CPU."""

    params = (list(DTYPES),)
    param_names = ("dtype",)

    def setup(self, dtype: str) -> None:
        self.psd, self.freqs = spectrum(8, 32, dtype, "cpu")
        self.module = ERBIntegration()
        self.centres = self.module._exact("centres", self.psd.dtype)
        require(relative_error(self.loop(), self.result()), 1e-5, "loop")

    def result(self) -> Tensor:
        return self.module(self.psd, self.freqs)

    def loop(self) -> Tensor:
        return band_by_band(self.psd, self.freqs, self.centres, widths(self.centres))

    track_time_over_loop = over("loop")
