"""The front ends of two loudness models, from sound to excitation: forward, training step, real time, error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tamt

from .common import DEVICES, Load, over, relative_error, require, timing, tracked

FS = 32000
LOADS = {"cpu": (1, 1), "cuda": (16, 10)}  # batch, seconds


class Glasberg2002(nn.Module):
    """Sound of both ears (B, 2, T) as one batch of signals in pascal."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.spectrum = tamt.MultiResolutionFFT(FS)
        self.bands, self.spread = tamt.ERBIntegration(FS), tamt.ExcitationPattern(FS)

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(self.bands(*self.spectrum(x.to(self.dtype).flatten(0, 1))))


class Moore2016(nn.Module):
    """Sound of both ears (B, 2, T), a frame every 10 ms."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.spectrum = tamt.Moore2016Spectrum(FS, 10, dtype=dtype, max_components=960, joint_threshold=True)
        self.pattern = tamt.Moore2016ExcitationPattern(dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        left_freqs, left_levels, right_freqs, right_levels = self.spectrum(x)
        return torch.stack((self.pattern(left_freqs, left_levels), self.pattern(right_freqs, right_levels)))


class DenseMoore2016(Moore2016):
    """The same on all bins of the spectrum, without lists."""

    def forward(self, x: Tensor) -> Tensor:
        freqs, left_levels, right_levels = self.spectrum.dense(x)
        return torch.stack((self.pattern(freqs, left_levels), self.pattern(freqs, right_levels)))


KINDS = {"glasberg2002": Glasberg2002, "moore2016": Moore2016, "moore2016 dense": DenseMoore2016}


class FrontEnds(Load):
    params = (DEVICES, list(KINDS))
    param_names = ("device", "model")

    def setup(self, device: str, model: str) -> None:
        self.device = device
        batch, duration = LOADS[device]
        self.seconds = batch * duration
        generator = torch.Generator().manual_seed(0)
        self.x = (1e-2 * torch.randn(batch, 2, duration * FS, generator=generator)).to(device).requires_grad_()
        self.module = KINDS[model](torch.float32).to(device)
        part = self.x.detach()[:1, :, :FS]
        expected = KINDS[model](torch.float64)(part.cpu().double())
        require(relative_error(self.module(part), expected), 1e-5, f"{model} {device}")
        self.ready(self.x)

    def result(self) -> Tensor:
        return self.module(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_time_over_real_time = tracked("real_time", "x")
    track_training_over_forward = over("forward", "training_step")
