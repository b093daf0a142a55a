"""ERBIntegration: forward, training step, memory, error, and the time over that of sums band by band."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.excitation.erb_integration import ERBIntegration

from .common import DEVICES, DTYPES, peak_memory, ratio_of_times, relative_error, require, timed

CPU_LOADS = {"8 x 32": (8, 32), "8 x 1000": (8, 1000)}
GPU_LOADS = {"32 x 313": (32, 313)}
CASES = [(device, load) for device in DEVICES for load in (CPU_LOADS if device == "cpu" else GPU_LOADS)]
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


class _Load:
    params = (CASES, list(DTYPES), ["fixed", "learnable"])
    param_names = ("load", "dtype", "kind")
    timeout = 300

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        self.device, load = case
        self.psd, self.freqs = spectrum(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        self.module = ERBIntegration(learnable=kind == "learnable", device=self.device)
        part, freqs = self.psd[:1].double().cpu(), self.freqs.double().cpu()
        centres = ERBIntegration().exact("centres", torch.float64)
        self.expected = band_by_band(part, freqs, centres, 24.673 * (4.368e-3 * centres + 1))
        limit = LIMITS[dtype] if kind == "fixed" else LEARNABLE_LIMIT
        require(self.error(), limit, f"ERB integration {kind} {load} {dtype}")
        self.weights = torch.randn_like(self.forward())

    def error(self) -> float:
        return relative_error(self.module(self.psd[:1], self.freqs), self.expected)

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.module(self.psd, self.freqs)


class ERBBands(_Load):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the frame's peak"

    def track_peak_memory(self, *_: object) -> float:
        return peak_memory(self.forward, self.device) / self.psd.nbytes

    track_peak_memory.unit = "inputs"


class ERBBandsTraining(_Load):
    """Forward and backward to the spectrum, and to bandwidth and weights where they are learnable."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        self.inputs = [self.psd.clone().requires_grad_(), *self.module.parameters()]

    def training_step(self) -> None:
        torch.autograd.grad(self.module(self.inputs[0], self.freqs), self.inputs, self.weights)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_training_over_forward(self, *_: object) -> float:
        return ratio_of_times(self.forward, self.training_step, self.device)

    track_training_over_forward.unit = "x"


class ERBBandsAgainstLoop:
    """Time over that of one mask and sum per band, on 8 x 32 spectra, on the CPU."""

    params = (list(DTYPES),)
    param_names = ("dtype",)

    def setup(self, dtype: str) -> None:
        self.psd, self.freqs = spectrum(8, 32, dtype, "cpu")
        self.module = ERBIntegration()
        self.centres = self.module.exact("centres", self.psd.dtype)
        self.widths = 24.673 * (4.368e-3 * self.centres + 1)
        require(relative_error(self.loop(), self.module(self.psd, self.freqs)), 1e-5, "loop")

    def loop(self) -> Tensor:
        return band_by_band(self.psd, self.freqs, self.centres, self.widths)

    def forward(self) -> Tensor:
        return self.module(self.psd, self.freqs)

    def track_time_over_loop(self, *_: object) -> float:
        return ratio_of_times(self.loop, self.forward)

    track_time_over_loop.unit = "x"
