"""The broken stick between two filters: forward, training step, error, and the time over that of plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops.broken_stick import broken_stick
from tamt.reference.broken_stick import definition

from .common import DEVICES, DTYPES, Load, over, relative_error, require, timing, tracked

CHANNELS, LOADS = 50, {"cpu": (1, 44100), "cuda": (32, 4 * 44100)}  # rows, samples
LIMITS = {"float64": 1e-12, "float32": 1e-5}
STICK = (50.0, 0.5, 0.25)


def compressed(v: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The least of the two branches, as one writes it."""
    magnitude = v.abs()
    return torch.sign(v) * torch.minimum(a * magnitude, b * magnitude**c)


class BrokenStick(Load):
    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        rows, samples = LOADS[device]
        generator = torch.Generator().manual_seed(0)
        # Half of the samples lie above the knee.
        v = 10 ** (torch.randn(rows, CHANNELS, samples, generator=generator) - 2.67)
        self.v = (v * torch.randn(v.shape, generator=generator).sign()).to(device, DTYPES[dtype]).requires_grad_()
        stick = torch.tensor(STICK, device=device, dtype=DTYPES[dtype])[:, None]
        self.stick = [row.clone().requires_grad_() for row in stick.expand(3, CHANNELS)]
        require(self.error(), LIMITS[dtype], f"broken stick {device} {dtype}")
        self.ready(self.v, *self.stick)

    def error(self) -> float:
        part = self.v[:1].detach().double().cpu()
        return relative_error(self.forward()[:1], definition(part, torch.tensor([STICK]).double()))

    def result(self) -> Tensor:
        return broken_stick(self.v, *self.stick)

    def plain(self) -> Tensor:
        with torch.no_grad():
            return compressed(self.v, *(row[:, None] for row in self.stick))

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", "of the channel's peak")
    track_time_over_plain_torch = over("plain")
