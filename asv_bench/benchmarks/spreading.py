"""ExcitationPattern: forward, training step, memory, error, growth with the frames, and the time over plain torch's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.reference.spreading import definition

from .common import (
    DEVICES,
    DTYPES,
    Agreement,
    Load,
    best_times,
    cases,
    largest_difference,
    over,
    peak,
    require,
    timing,
    tracked,
)

CPU_LOADS = {"2 x 32": (2, 32), "16 x 1000": (16, 1000)}
GPU_LOADS = {"2000": (2000,), "1000000": (1000000,)}
LOADS = CPU_LOADS | GPU_LOADS
CASES = cases(CPU_LOADS, GPU_LOADS)
CHECKED = 50  # frames that are compared with the definition
LIMITS = {"float64": 1e-9, "float32": 5e-5}  # dB


def excitation(frames: tuple[int, ...], dtype: str, device: str) -> Tensor:
    """Levels from 0 to 100 dB, so that slopes of both kinds occur."""
    levels = 100 * torch.rand(*frames, 150, generator=torch.Generator().manual_seed(0))
    return levels.to(device, DTYPES[dtype])


def exact(levels: Tensor) -> Tensor:
    """Spread levels of the default pattern by the definition, in float64."""
    pattern = ExcitationPattern()
    names = ("upper_slope_base", "lower_slope_base", "upper_slope_per_db", "lower_slope_per_db", "level_ref")
    slopes = torch.stack([getattr(pattern, name) for name in names]).double()
    wide = levels.detach().double().cpu()
    return definition(wide.flatten(0, -2), slopes, pattern.erb_step).reshape(levels.shape)


def composition(levels: Tensor, pattern: ExcitationPattern) -> Tensor:
    """What a few lines of torch do: all pairs of bands of all frames at once."""
    to = partial(torch.Tensor.to, dtype=levels.dtype)
    distance = to(pattern.erb_step * (torch.arange(150) - torch.arange(150)[:, None])).to(levels.device)
    above = (levels - to(pattern.level_ref))[..., None]
    upper = (to(pattern.upper_slope_base) - to(pattern.upper_slope_per_db) * above).clamp_min(10)
    lower = (to(pattern.lower_slope_base) - to(pattern.lower_slope_per_db) * above).clamp_min(10)
    loss = torch.where(distance >= 0, upper, lower) * distance.abs()
    terms = (levels[..., None] - loss).masked_fill(loss > 50, -math.inf)
    return torch.logsumexp(terms * (math.log(10) / 10), -2) * (10 / math.log(10))


def conformance(dtype: str) -> Iterator[Agreement]:
    levels = excitation((1, 50), dtype, "cpu")
    error = largest_difference(ExcitationPattern()(levels), exact(levels))
    yield Agreement("ExcitationPattern", "all pairs in float64, 0 to 100 dB", error, "dB")


class _Load(Load):
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")
    timeout = 600
    learnable = False

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.levels = excitation(LOADS[load], dtype, self.device)
        self.pattern = ExcitationPattern(learnable=self.learnable, device=self.device)
        self.expected = exact(self.levels.flatten(0, -2)[-CHECKED:])
        require(self.error(), LIMITS[dtype], f"spreading {case} {dtype}")
        self.levels.requires_grad_(self.learnable)
        self.ready(self.levels, *self.pattern.parameters())

    def error(self) -> float:
        return largest_difference(self.forward().flatten(0, -2)[-CHECKED:], self.expected)

    def result(self) -> Tensor:
        return self.pattern(self.levels)

    def inputs(self) -> int:
        if self.levels.numel() < 1 << 20:
            raise NotImplementedError("pages and caches would be measured")
        return self.levels.nbytes


class Spreading(_Load):
    time_forward = timing("forward")
    track_error = tracked("error", "dB")
    track_peak_memory = peak("forward", "inputs")


class SpreadingTraining(_Load):
    """Forward and backward to the levels and the slopes."""

    learnable = True

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory = peak("training_step", "inputs")


class SpreadingGrowth(Load):
    """Time of four times as many frames, divided by four: 1 where time is proportional to the frames."""

    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")
    timeout = 600

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        few, many = ((4, 1000), (16, 1000)) if device == "cpu" else ((250000,), (1000000,))
        self.few, self.many = excitation(few, dtype, device), excitation(many, dtype, device)
        self.pattern = ExcitationPattern(device=device)
        found = self.pattern(self.many).flatten(0, -2)[-CHECKED:]
        error = largest_difference(found, exact(self.many.flatten(0, -2)[-CHECKED:]))
        require(error, LIMITS[dtype], f"spreading {device} {dtype}")

    def growth(self) -> float:
        few, many = best_times(*(partial(self.pattern, x) for x in (self.few, self.many)), device=self.device)
        return many / few / 4

    track_growth = tracked("growth", "x")


class SpreadingAgainstComposition(Load):
    """Time over that of :func:`composition`."""

    params = (
        [("cpu", "2 x 32"), ("cpu", "1 x 1000"), *([("cuda", "2000")] if "cuda" in DEVICES else [])],
        list(DTYPES),
    )
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.levels = excitation({**LOADS, "1 x 1000": (1, 1000)}[load], dtype, self.device)
        self.pattern = ExcitationPattern(device=self.device)
        for function in (self.result, self.composed):
            require(largest_difference(function(), exact(self.levels)), LIMITS[dtype], f"{case} {dtype}")

    def result(self) -> Tensor:
        return self.pattern(self.levels)

    def composed(self) -> Tensor:
        return composition(self.levels, self.pattern)

    track_time_over_composition = over("composed")
