"""Moore2016Spectrum: forward, training step, memory, error, and the time over that of whole FFTs and sorts."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt import Moore2016Spectrum

from .common import DEVICES, DTYPES, best_times, dense, difference_in_db, peak_memory, ratio_of_times, require, timed
from .compaction import by_sort
from .windowed_dft import by_fft

FS = 32000
CPU_LOADS = {"stereo 1 s": (1, 1)}
GPU_LOADS = {"16 x stereo 10 s": (16, 10)}
CASES = [(device, load) for device in DEVICES for load in (CPU_LOADS if device == "cpu" else GPU_LOADS)]
LIMITS = {"float64": 1e-9, "float32": 2e-3}  # dB, 60 dB below the frame's peak


def noise(batch: int, seconds: int, dtype: str, device: str) -> Tensor:
    """At about 60 dB in each ear, falling by 12 dB per octave above 1 kHz."""
    x = torch.randn(batch, 2, seconds * FS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = torch.fft.rfftfreq(seconds * FS, 1 / FS, dtype=torch.float64)
    pink = torch.fft.irfft(torch.fft.rfft(x) / (1 + (f / 1000) ** 2), seconds * FS)
    return (0.02 * pink).to(device, DTYPES[dtype])


def composed(module: Moore2016Spectrum, audio: Tensor) -> tuple[Tensor, ...]:
    """The same by six FFTs of frames that are written out, and by sorts."""
    ears = audio[..., : audio.shape[-1] - module.hop].transpose(0, 1)
    intensity = by_fft(ears, list(module._bands), module.hop) * module._weight
    threshold = (intensity.amax(-1) * 10 ** (-module.threshold_max_minus / 10)).clamp_min(1e-3)
    lists = by_sort(intensity.flatten(0, -2), module._frequencies, threshold.flatten(), module.max_components)
    freqs, levels = (t.reshape(*intensity.shape[:-1], -1) for t in lists)
    return freqs[0], levels[0], freqs[1], levels[1]


class _Load:
    params = (CASES, list(DTYPES), [None, 960, 400])
    param_names = ("load", "dtype", "max_components")
    timeout = 600

    def setup(self, case: tuple[str, str], dtype: str, max_components: int | None) -> None:
        self.device, load = case
        self.seconds = {**CPU_LOADS, **GPU_LOADS}[load]
        self.audio = noise(*self.seconds, dtype, self.device).requires_grad_()
        self.module = Moore2016Spectrum(dtype=DTYPES[dtype], max_components=max_components, device=self.device)
        require(self.error(), LIMITS[dtype], f"Moore2016Spectrum {load} {dtype}, dB")
        self.weights = [torch.randn_like(t) for t in self.forward()[1::2]]

    def error(self) -> float:
        """Largest difference in dB from the composition in float64."""
        part = self.audio.detach()[:1, :, : FS // 2]
        exact = Moore2016Spectrum(dtype=torch.float64, max_components=self.module.max_components)
        return difference_in_db(dense(self.module(part)), dense(composed(exact, part.double().cpu())))

    def forward(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.module(self.audio)

    def training_step(self) -> None:
        torch.autograd.grad(self.module(self.audio)[1::2], self.audio, self.weights)


class Spectrum(_Load):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_training_over_forward(self, *_: object) -> float:
        return ratio_of_times(self.forward, self.training_step, self.device)

    track_training_over_forward.unit = "x"

    def track_time_over_real_time(self, *_: object) -> float:
        batch, seconds = self.seconds
        return best_times(self.forward, device=self.device)[0] / (batch * seconds)

    track_time_over_real_time.unit = "x"

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "dB"

    def track_peak_memory(self, *_: object) -> float:
        """Beside the lists."""
        return (peak_memory(self.forward, self.device) - 4 * self.weights[0].nbytes) / 2**20

    track_peak_memory.unit = "MiB"


class SpectrumAgainstComposition(_Load):
    """Time over that of six FFTs of zero-padded frames and two sorts. On a GPU a part of the load."""

    def composition(self) -> None:
        with torch.no_grad():
            composed(self.module, self.part)

    def forward_of_part(self) -> None:
        with torch.no_grad():
            self.module(self.part)

    def track_time_over_composition(self, *_: object) -> float:
        self.part = self.audio[:1]
        return ratio_of_times(self.composition, self.forward_of_part, self.device)

    track_time_over_composition.unit = "x"


class LearnableSpectrum:
    """All bins of all windows, gradients to the signal and to the 14 numbers."""

    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")
    timeout = 600

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.audio = noise(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device).requires_grad_()
        self.module = Moore2016Spectrum(dtype=DTYPES[dtype], max_components=960, learnable=True, device=self.device)
        exact = Moore2016Spectrum(dtype=torch.float64, max_components=960, learnable=True)
        part = self.audio.detach()[:1, :, :4000]
        actual, expected = self.module(part)[1], exact(part.double().cpu())[1]
        # The lists go down to 70 dB below the peak, and the smooth threshold doubles differences there.
        require((actual.cpu() - expected).abs().max().item(), 5 * LIMITS[dtype], f"learnable {load} {dtype}, dB")
        self.weights = [torch.randn_like(t) for t in self.forward()[1::2]]

    def forward(self) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.module(self.audio)

    def training_step(self) -> None:
        torch.autograd.grad(self.module(self.audio)[1::2], [self.audio, *self.module.parameters()], self.weights)

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_peak_memory_of_training_step(self, *_: object) -> float:
        return peak_memory(self.training_step, self.device) / 2**20

    track_peak_memory_of_training_step.unit = "MiB"
