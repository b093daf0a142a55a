"""The broken stick between two filters: forward, training step, error, and the time over that of plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops.broken_stick import broken_stick

from .common import DEVICES, DTYPES, ratio_of_times, relative_error, require, timed
from .fft_drnl import compressed

CHANNELS, LOADS = 50, {"cpu": (1, 44100), "cuda": (32, 4 * 44100)}  # rows, samples
LIMITS = {"float64": 1e-12, "float32": 1e-5}


class BrokenStick:
    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        rows, samples = LOADS[device]
        generator = torch.Generator().manual_seed(0)
        # Half of the samples lie above the knee.
        v = 10 ** (torch.randn(rows, CHANNELS, samples, generator=generator) - 2.67)
        self.v = (v * torch.randn(v.shape, generator=generator).sign()).to(device, DTYPES[dtype]).requires_grad_()
        stick = torch.tensor([50.0, 0.5, 0.25], device=device, dtype=DTYPES[dtype])[:, None]
        self.stick = [row.clone().requires_grad_() for row in stick.expand(3, CHANNELS)]
        require(self.error(), LIMITS[dtype], f"broken stick {device} {dtype}")
        self.weights = torch.randn_like(self.forward())

    def error(self) -> float:
        part = self.v[:1].detach().double().cpu()
        return relative_error(self.forward()[:1], compressed(part, *torch.tensor([50.0, 0.5, 0.25]).double()))

    def forward(self) -> Tensor:
        with torch.no_grad():
            return broken_stick(self.v, *self.stick)

    def plain(self) -> Tensor:
        with torch.no_grad():
            return compressed(self.v, *(row[:, None] for row in self.stick))

    def training_step(self) -> None:
        torch.autograd.grad(broken_stick(self.v, *self.stick), (self.v, *self.stick), self.weights)

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the channel's peak"

    def track_time_over_plain_torch(self, *_: object) -> float:
        return ratio_of_times(self.plain, self.forward, self.device)

    track_time_over_plain_torch.unit = "x"
