"""ExcitationPattern: forward, training step, memory, error, growth with the frames, and the time over plain torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tamt.excitation.glasberg2002 import ExcitationPattern

from .common import DEVICES, DTYPES, best_times, peak_memory, ratio_of_times, require, timed

CPU_LOADS = {"2 x 32": (2, 32), "16 x 1000": (16, 1000)}
GPU_LOADS = {"2000": (2000,), "1000000": (1000000,)}
LOADS = CPU_LOADS | GPU_LOADS
CASES = [(device, load) for device in DEVICES for load in (CPU_LOADS if device == "cpu" else GPU_LOADS)]
CHECKED = 50  # frames that are compared with the definition
LIMITS = {"float64": 1e-9, "float32": 5e-5}  # dB


def excitation(frames: tuple[int, ...], dtype: str, device: str) -> Tensor:
    """Levels from 0 to 100 dB, so that slopes of both kinds occur."""
    levels = 100 * torch.rand(*frames, 150, generator=torch.Generator().manual_seed(0))
    return levels.to(device, DTYPES[dtype])


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


class _Load:
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")
    timeout = 600
    learnable = False

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.levels = excitation(LOADS[load], dtype, self.device)
        self.pattern = ExcitationPattern(learnable=self.learnable, device=self.device)
        with torch.no_grad():
            checked = self.levels.flatten(0, -2)[-CHECKED:]
            self.expected = composition(checked.double(), self.pattern)
        require(self.error(), LIMITS[dtype], f"spreading {case} {dtype}")
        self.levels.requires_grad_(self.learnable)
        self.weights = torch.randn_like(self.levels)

    def error(self) -> float:
        difference = self.forward().flatten(0, -2)[-CHECKED:].double() - self.expected
        return torch.nan_to_num(difference.abs(), nan=math.inf).max().item()

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.pattern(self.levels)

    def training_step(self) -> None:
        torch.autograd.grad(self.pattern(self.levels), (self.levels, *self.pattern.parameters()), self.weights)

    def peak_in_inputs(self, function: Callable[[], object]) -> float:
        if self.levels.numel() < 1 << 20:
            raise NotImplementedError("pages and caches would be measured")
        return peak_memory(function, self.device) / (self.levels.numel() * self.levels.element_size())


class Spreading(_Load):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "dB"

    def track_peak_memory(self, *_: object) -> float:
        return self.peak_in_inputs(self.forward)

    track_peak_memory.unit = "inputs"


class SpreadingTraining(_Load):
    """Forward and backward to the levels and the slopes."""

    learnable = True

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_training_over_forward(self, *_: object) -> float:
        return ratio_of_times(self.forward, self.training_step, self.device)

    track_training_over_forward.unit = "x"

    def track_peak_memory(self, *_: object) -> float:
        return self.peak_in_inputs(self.training_step)

    track_peak_memory.unit = "inputs"


class SpreadingGrowth:
    """Time of four times as many frames, divided by four: 1 where time is proportional to the frames."""

    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")
    timeout = 600

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        few, many = ((4, 1000), (16, 1000)) if device == "cpu" else ((250000,), (1000000,))
        self.few, self.many = excitation(few, dtype, device), excitation(many, dtype, device)
        self.pattern = ExcitationPattern(device=device)
        checked = self.many.flatten(0, -2)[-CHECKED:]
        difference = self.pattern(self.many).flatten(0, -2)[-CHECKED:] - composition(checked.double(), self.pattern)
        require(difference.abs().max().item(), LIMITS[dtype], f"spreading {device} {dtype}")

    def track_growth(self, *_: object) -> float:
        few, many = best_times(*(partial(self.pattern, x) for x in (self.few, self.many)), device=self.device)
        return many / few / 4

    track_growth.unit = "x"


class SpreadingAgainstComposition:
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
        expected = composition(self.levels.double(), self.pattern)
        for function in (self.pattern, partial(composition, pattern=self.pattern)):
            error = (function(self.levels) - expected).abs().max().item()
            require(error, LIMITS[dtype], f"{case} {dtype}")

    def track_time_over_composition(self, *_: object) -> float:
        forward, peer = partial(self.pattern, self.levels), partial(composition, self.levels, self.pattern)
        return ratio_of_times(peer, forward, self.device)

    track_time_over_composition.unit = "x"
