"""Moore2016ExcitationPattern: forward, training, real time, memory, error, and a composition with all pairs in memory.

Frames are 1 ms apart. Their components lie on the grid of Moore2016Spectrum, or anywhere.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from tamt.excitation.moore2016 import Moore2016ExcitationPattern

from .common import DEVICES, best_times, peak_memory, ratio_of_times, require, timed

COMPONENTS, STEP, BINS = 950, 15.625, 960
FRAMES = {"cpu": 100, "cuda": 16000}
KINDS = ["grid", "any"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
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
    """The definition, with a tensor of all pairs for every step, in the type of ``freqs``."""
    fc, p = module.fc_channels.to(freqs), module.p_channels.to(freqs)
    ratio = 2.0**module.spreading_limit_octaves
    intensity = 10 ** (levels / 10)

    def weight(u: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return ((1 + u) * torch.exp(-u)).masked_fill((one > other * ratio) | (other > one * ratio), 0)

    one, other = freqs[:, None], freqs[:, :, None]
    u = (one - other).abs() * 4 / (24.673 * (0.004368 * other + 1))
    level = 10 * torch.log10(torch.einsum("rij,ri->rj", weight(u, one, other), intensity))
    slope = p[:, None] * (1 - module.level_dep_factor.to(freqs) / module.p1000 * (level - 51))[:, None]
    g = (one - fc[:, None]) / fc[:, None]
    u = g.abs() * torch.where(g >= 0, p[:, None], slope.clamp_min(0.1))
    return 10 * torch.log10(torch.einsum("rni,ri->rn", weight(u, one, fc[:, None]), intensity) + 1e-12)


def error_in_db(module: Moore2016ExcitationPattern, freqs: Tensor, levels: Tensor) -> float:
    """Largest difference to the definition in float64, over the first frames."""
    expected = all_pairs(freqs[:8].double(), levels[:8].double(), module)
    difference = (module(freqs[:8], levels[:8]).detach().double() - expected).abs()
    return torch.nan_to_num(difference, nan=math.inf).max().item()


class _Load:
    params = (DEVICES, list(DTYPES), KINDS)
    param_names = ("device", "dtype", "frequencies")
    timeout = 600
    learnable = False

    def setup(self, device: str, dtype: str, kind: str) -> None:
        self.device = device
        self.freqs, self.levels = spectra(FRAMES[device], kind, device, dtype)
        self.module = Moore2016ExcitationPattern(learnable=self.learnable, dtype=DTYPES[dtype], device=device)
        self.error = error_in_db(self.module, self.freqs, self.levels)
        require(self.error, LIMITS[dtype], f"roex {device} {dtype} {kind}")

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.module(self.freqs, self.levels)


class Roex(_Load):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def track_time_over_real_time(self, *_: object) -> float:
        return best_times(self.forward, device=self.device, rounds=7)[0] / (1e-3 * len(self.freqs))

    track_time_over_real_time.unit = "x"

    def track_peak_memory(self, *_: object) -> float:
        return peak_memory(self.forward, self.device) / 1e6

    track_peak_memory.unit = "MB"

    def track_error(self, *_: object) -> float:
        return self.error

    track_error.unit = "dB"


class RoexTraining(_Load):
    """Forward and backward to frequencies, levels and the factor."""

    learnable = True

    def setup(self, device: str, dtype: str, kind: str) -> None:
        super().setup(device, dtype, kind)
        self.given = [self.freqs.requires_grad_(), self.levels.requires_grad_(), *self.module.parameters()]
        self.weights = torch.randn_like(self.forward())

    def training_step(self) -> None:
        torch.autograd.grad(self.module(self.freqs, self.levels), self.given, self.weights)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_training_over_forward(self, *_: object) -> float:
        return ratio_of_times(self.forward, self.training_step, self.device)

    track_training_over_forward.unit = "x"

    def track_peak_memory(self, *_: object) -> float:
        return peak_memory(self.training_step, self.device) / 1e6

    track_peak_memory.unit = "MB"


class RoexAgainstAllPairs:
    """Time over that of the definition with tensors of all pairs, in slices of frames that fit in memory."""

    params = (DEVICES, list(DTYPES), KINDS)
    param_names = ("device", "dtype", "frequencies")
    timeout = 600

    def setup(self, device: str, dtype: str, kind: str) -> None:
        self.device = device
        frames = {"cpu": 32, "cuda": 2000}[device]
        self.freqs, self.levels = spectra(frames, kind, device, dtype)
        self.module = Moore2016ExcitationPattern(dtype=DTYPES[dtype], device=device)
        require(error_in_db(self.module, self.freqs, self.levels), LIMITS[dtype], f"roex {device} {dtype} {kind}")

    def in_slices(self) -> list[Tensor]:
        size = {"cpu": 8, "cuda": 500}[self.device]
        slices = zip(self.freqs.split(size), self.levels.split(size), strict=True)
        return [all_pairs(freqs, levels, self.module) for freqs, levels in slices]

    def track_time_over_all_pairs(self, *_: object) -> float:
        return ratio_of_times(self.in_slices, partial(self.module, self.freqs, self.levels), self.device)

    track_time_over_all_pairs.unit = "x"
