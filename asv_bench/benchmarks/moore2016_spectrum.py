"""Moore2016Spectrum: forward, training step, memory, error, and the time over that of whole FFTs and sorts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tamt import Moore2016Spectrum

from .common import (
    DTYPES,
    Agreement,
    Load,
    cases,
    difference_of_lists,
    golden,
    over,
    peak,
    peak_memory,
    require,
    timing,
    tracked,
)
from .compaction import by_sort
from .windowed_dft import by_fft

FS = 32000
CPU_LOADS = {"stereo 1 s": (1, 1)}
GPU_LOADS = {"16 x stereo 10 s": (16, 10)}
CASES = cases(CPU_LOADS, GPU_LOADS)
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


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("moore2016_spectrum")
    for case, name in (("harm", "harmonic complex"), ("diff", "ears that differ"), ("click", "click")):
        options = {"max_components": 960, "joint_threshold": True}
        module = Moore2016Spectrum(db_max=float(data[f"{case}_dBMax"]), dtype=DTYPES[dtype], **options)
        lists = module(torch.from_numpy(data[f"{case}_signal"].T.copy())[None])
        found = [t[:, data[f"{case}_start"] // module.hop] for t in lists]
        theirs = [torch.from_numpy(data[f"{case}_{what}"][None, :, ear]) for ear in range(2) for what in ("f", "L")]
        asked = 1e-6 if dtype == "float64" else None
        yield Agreement("Moore2016Spectrum", f"AMT, {name}", difference_of_lists(found, theirs), "dB", asked)


class _Load(Load):
    params = (CASES, list(DTYPES), [None, 960, 400])
    param_names = ("load", "dtype", "max_components")
    timeout = 600

    def setup(self, case: tuple[str, str], dtype: str, max_components: int | None) -> None:
        self.device, load = case
        batch, duration = {**CPU_LOADS, **GPU_LOADS}[load]
        self.seconds = batch * duration
        self.audio = noise(batch, duration, dtype, self.device).requires_grad_()
        self.module = Moore2016Spectrum(dtype=DTYPES[dtype], max_components=max_components, device=self.device)
        require(self.error(), LIMITS[dtype], f"Moore2016Spectrum {load} {dtype}, dB")
        self.ready(self.audio)

    def error(self) -> float:
        """Largest difference in dB from the composition in float64."""
        part = self.audio.detach()[:1, :, : FS // 2]
        exact = Moore2016Spectrum(dtype=torch.float64, max_components=self.module.max_components)
        return difference_of_lists(self.module(part), composed(exact, part.double().cpu()))

    def result(self) -> tuple[Tensor, ...]:
        return self.module(self.audio)

    def smooth(self) -> tuple[Tensor, ...]:
        return self.result()[1::2]


class Spectrum(_Load):
    def beside_the_lists(self) -> float:
        return (peak_memory(self.forward, self.device) - 2 * self.outputs()) / 2**20

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_time_over_real_time = tracked("real_time", "x")
    track_error = tracked("error", "dB")
    track_peak_memory = tracked("beside_the_lists", "MiB")


class SpectrumAgainstComposition(_Load):
    """Time over that of six FFTs of zero-padded frames and two sorts. On a GPU a part of the load."""

    def setup(self, case: tuple[str, str], dtype: str, max_components: int | None) -> None:
        super().setup(case, dtype, max_components)
        self.audio = self.audio[:1]

    def composition(self) -> None:
        with torch.no_grad():
            composed(self.module, self.audio)

    track_time_over_composition = over("composition")


class LearnableSpectrum(_Load):
    """All bins of all windows, gradients to the signal and to the 14 numbers."""

    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.audio = noise(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device).requires_grad_()
        self.module = Moore2016Spectrum(dtype=DTYPES[dtype], max_components=960, learnable=True, device=self.device)
        exact = Moore2016Spectrum(dtype=torch.float64, max_components=960, learnable=True)
        part = self.audio.detach()[:1, :, :4000]
        actual, expected = self.module(part)[1], exact(part.double().cpu())[1]
        # The lists go down to 70 dB below the peak, and the smooth threshold doubles differences there.
        require((actual.cpu() - expected).abs().max().item(), 5 * LIMITS[dtype], f"learnable {load} {dtype}, dB")
        self.ready(self.audio, *self.module.parameters())

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_peak_memory_of_training_step = peak("training_step", "MiB")
