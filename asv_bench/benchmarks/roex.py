"""Moore2016ExcitationPattern: forward, training, real time, memory, error, and a composition with all pairs in memory.

Frames are 1 ms apart. Their components lie on the grid of Moore2016Spectrum, or anywhere, or are all of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.reference.roex import excitation_definition, power_per_erb_definition

from .common import DEVICES, DTYPES, Agreement, Load, golden, largest_difference, over, peak, require, timing, tracked

COMPONENTS, STEP, BINS = 950, 15.625, 960
FRAMES = {"cpu": 100, "cuda": 16000}
KINDS = ["grid", "any"]
LIMITS = {"float32": 1e-4, "float64": 1e-9}  # dB


def spectra(frames: int, kind: str, device: str, dtype: str) -> tuple[Tensor, Tensor]:
    """Frequencies and levels of components that fill the spectrum, over 60 dB."""
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(frames, BINS, generator=generator)
    if kind == "grid":
        freqs = STEP * (1 + chance.argsort(1)[:, :COMPONENTS].sort(1).values).double()
    else:
        freqs = (STEP + (BINS - 1) * STEP * chance[:, :COMPONENTS].double()).sort(1).values
    levels = 60 * torch.rand(frames, COMPONENTS, generator=generator, dtype=torch.float64)
    return freqs.to(device, DTYPES[dtype]), levels.to(device, DTYPES[dtype])


def all_pairs(freqs: Tensor, levels: Tensor, module: Moore2016ExcitationPattern) -> Tensor:
    """By the definitions, with a tensor of all pairs for every step, in the type of ``freqs``."""
    ratio, intensity = 2.0**module.spreading_limit_octaves, 10 ** (levels / 10)
    level = 10 * torch.log10(power_per_erb_definition(freqs, intensity, ratio))
    steepness = 1 - module.level_dep_factor.to(freqs) / module.p1000 * (level - 51)
    channels = module.fc_channels.to(freqs), module.p_channels.to(freqs)
    return 10 * torch.log10(excitation_definition(freqs, intensity, steepness, *channels, ratio) + 1e-12)


def sliced(freqs: Tensor, levels: Tensor, module: Moore2016ExcitationPattern) -> Tensor:
    """:func:`all_pairs` of slices of frames that fit in memory."""
    size = {"cpu": 8, "cuda": 500}[freqs.device.type]
    slices = zip(freqs.split(size), levels.split(size), strict=True)
    return torch.cat([all_pairs(f, level, module) for f, level in slices])


def error_in_db(module: Moore2016ExcitationPattern, freqs: Tensor, levels: Tensor) -> float:
    """Largest difference to the definition in float64, over the first frames."""
    expected = all_pairs(freqs[:8].double(), levels[:8].double(), module)
    return largest_difference(module(freqs[:8], levels[:8]), expected)


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("moore2016_excitation")
    pattern = Moore2016ExcitationPattern(spreading_limit_octaves=10, dtype=DTYPES[dtype])
    f, levels, expected = (torch.from_numpy(data[name]) for name in ("f", "L", "E"))
    audible = expected > 0
    error = largest_difference(pattern(f.to(DTYPES[dtype]), levels.to(DTYPES[dtype]))[audible], expected[audible])
    asked = 1e-6 if dtype == "float64" else None
    against = f"AMT, {len(f)} spectra, where AMT reads above 0 dB"
    yield Agreement("Moore2016ExcitationPattern", against, error, "dB", asked)


class _Load(Load):
    params = (DEVICES, list(DTYPES), KINDS)
    param_names = ("device", "dtype", "frequencies")
    timeout = 600
    learnable = False

    def setup(self, device: str, dtype: str, kind: str) -> None:
        self.device, self.seconds = device, 1e-3 * FRAMES[device]
        self.freqs, self.levels = spectra(FRAMES[device], kind, device, dtype)
        self.module = Moore2016ExcitationPattern(learnable=self.learnable, dtype=DTYPES[dtype], device=device)
        require(self.error(), LIMITS[dtype], f"roex {device} {dtype} {kind}")

    def error(self) -> float:
        return error_in_db(self.module, self.freqs, self.levels)

    def result(self) -> Tensor:
        return self.module(self.freqs, self.levels)


class Roex(_Load):
    time_forward = timing("forward")
    track_time_over_real_time = tracked("real_time", "x")
    track_peak_memory = peak("forward", "MB")
    track_error = tracked("error", "dB")


class RoexTraining(_Load):
    """Forward and backward to frequencies, levels and the factor."""

    learnable = True

    def setup(self, device: str, dtype: str, kind: str) -> None:
        super().setup(device, dtype, kind)
        self.ready(self.freqs.requires_grad_(), self.levels.requires_grad_(), *self.module.parameters())

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory = peak("training_step", "MB")


class _Stereo(Load):
    """Both ears' intensities on all bins of Moore2016Spectrum, which the frames share."""

    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")
    learnable = False

    def setup(self, device: str, dtype: str) -> None:
        frames = {"cpu": 1000, "cuda": 16000}[device]
        self.device, self.seconds, generator = device, 1e-3 * frames, torch.Generator().manual_seed(0)
        self.freqs = STEP * torch.arange(1, BINS + 1, dtype=DTYPES[dtype], device=device)
        levels = 60 * torch.rand(2, frames, BINS, generator=generator, dtype=torch.float64)
        self.intensity = (10 ** (levels / 10)).to(device, DTYPES[dtype])
        self.module = Moore2016ExcitationPattern(learnable=self.learnable, dtype=DTYPES[dtype], device=device)
        require(self.error(), LIMITS[dtype], f"roex {device} {dtype} stereo")

    def result(self) -> Tensor:
        return self.module.excitation(self.freqs, self.intensity)

    def error(self) -> float:
        """Largest difference to the definition in float64, over the first frames."""
        levels = 10 * torch.log10(self.intensity[0, :8].double())
        expected = all_pairs(self.freqs.double().expand(levels.shape), levels, self.module)
        return largest_difference(10 * torch.log10(self.forward()[0, :8].double()), expected)


class RoexStereo(_Stereo):
    time_forward = timing("forward")
    track_time_over_real_time = tracked("real_time", "x")
    track_peak_memory = peak("forward", "MB")
    track_error = tracked("error", "dB")


class RoexStereoTraining(_Stereo):
    """Forward and backward to intensities and the factor."""

    learnable = True

    def setup(self, device: str, dtype: str) -> None:
        super().setup(device, dtype)
        self.ready(self.intensity.requires_grad_(), *self.module.parameters())

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory = peak("training_step", "MB")


class RoexAgainstAllPairs(_Load):
    """Time over that of the definition with tensors of all pairs, in slices of frames that fit in memory."""

    def setup(self, device: str, dtype: str, kind: str) -> None:
        super().setup(device, dtype, kind)
        self.freqs, self.levels = spectra({"cpu": 32, "cuda": 2000}[device], kind, device, dtype)

    def in_slices(self) -> Tensor:
        return sliced(self.freqs, self.levels, self.module)

    track_time_over_all_pairs = over("in_slices")
