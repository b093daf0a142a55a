"""FIR filters: time, error and memory; the time over that of scipy's overlap-add and of torch's direct convolution."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.signal import oaconvolve
from torch import Tensor
from torch.nn.functional import conv1d, pad

from tamt.ops import fir as ops

from .common import DEVICES, DTYPES, Load, over, peak_memory, relative_error, require, timing, tracked

FS = 32000
CASES = {"ear": (4097, 2), "short": (64, 1)}  # taps, signals with a filter each
LOADS = {"cpu": (1, 10), "cuda": (32, 60)}  # batch, seconds
LIMITS = {"float64": 1e-12, "float32": 1e-5}


def by_scipy(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """(..., F, T), each signal by its own filter."""
    return oaconvolve(x, taps.reshape(*[1] * (x.ndim - taps.ndim), *taps.shape), axes=-1)[..., : x.shape[-1]]


def direct(x: Tensor, taps: Tensor) -> Tensor:
    return conv1d(pad(x, (taps.shape[1] - 1, 0)), taps.flip(-1)[:, None], groups=taps.shape[0])


class _Load(Load):
    params = (DEVICES, list(DTYPES), list(CASES))
    param_names = ("device", "dtype", "filter")

    def setup(self, device: str, dtype: str, case: str) -> None:
        if device == "cuda" and dtype == "float64":
            raise NotImplementedError("a GPU's load is in float32")
        (length, signals), (batch, seconds) = CASES[case], LOADS[device]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, signals, seconds * FS, generator=generator, dtype=torch.float64)
        decay = torch.exp(-6 * torch.arange(length, dtype=torch.float64) / length)
        taps = decay * torch.randn(signals, length, generator=generator, dtype=torch.float64)
        self.device, self.seconds = device, batch * signals * seconds
        self.expected = torch.from_numpy(by_scipy(x[0].numpy(), taps.numpy()))
        self.x = x.to(device, DTYPES[dtype]).requires_grad_()
        self.taps = taps.to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), LIMITS[dtype], f"fir {device} {dtype} {case}")
        self.ready(self.x, self.taps)

    def error(self) -> float:
        return relative_error(self.forward()[0], self.expected)

    def result(self) -> Tensor:
        return ops.fir(self.x, self.taps, per_channel=True)[0]


class Fir(_Load):
    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", "of the channel's peak")
    track_time_over_real_time = tracked("real_time", "x")
    track_training_over_forward = over("forward", "training_step")


class FirAgainstScipy(_Load):
    """Time over that of overlap-add, on the CPU."""

    params = (["cpu"], list(DTYPES), list(CASES))

    def scipy(self) -> np.ndarray:
        return by_scipy(self.x.detach().numpy(), self.taps.detach().numpy())

    track_time_over_scipy = over("scipy")


class FirAgainstDirectConvolution(_Load):
    """Time over that of torch's ``conv1d``; on the CPU the long filter has a quarter of a second, for want of time."""

    params = (DEVICES, ["float32"], list(CASES))

    def setup(self, device: str, dtype: str, case: str) -> None:
        super().setup(device, dtype, case)
        if (device, case) == ("cpu", "ear"):
            self.x = self.x.detach()[..., : FS // 4].clone().requires_grad_()
            self.ready(self.x, self.taps)
        with torch.backends.cudnn.flags(allow_tf32=False):
            found = torch.autograd.grad(direct(self.x, self.taps), self.wanted, self.weights)
        own = torch.autograd.grad(self.smooth(), self.wanted, self.weights)
        for name, a, e in zip(("signal", "taps"), own, found, strict=True):
            require(relative_error(a, e), 10 * LIMITS[dtype], f"gradient of the {name} {device} {case}")

    def direct_forward(self) -> Tensor:
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            return direct(self.x, self.taps)

    def direct_training_step(self) -> None:
        with torch.backends.cudnn.flags(allow_tf32=False):
            torch.autograd.grad(direct(self.x, self.taps), self.wanted, self.weights)

    track_time_over_conv1d = over("direct_forward")
    track_training_over_conv1d = over("direct_training_step", "training_step")


class FirGrowth(Load):
    """Memory beyond the output of 240 s over that of 60 s, stereo, in float32, by the long filter."""

    params = (DEVICES,)
    param_names = ("device",)

    def setup(self, device: str) -> None:
        self.device = device
        generator = torch.Generator().manual_seed(0)
        length, signals = CASES["ear"]
        self.x = torch.randn(signals, 240 * FS, generator=generator).to(device)
        self.taps = torch.randn(signals, length, generator=generator).to(device)
        part = by_scipy(self.x[:, :FS].double().cpu().numpy(), self.taps.double().cpu().numpy())
        require(relative_error(self.of(1), torch.from_numpy(part)), LIMITS["float32"], f"fir {device}")

    def of(self, seconds: int) -> Tensor:
        return ops.fir(self.x[:, : seconds * FS], self.taps, per_channel=True)[0]

    def beyond_the_output(self, seconds: int) -> float:
        return peak_memory(partial(self.of, seconds), self.device) - seconds * FS * self.x.shape[0] * 4

    def growth(self) -> float:
        return self.beyond_the_output(240) / self.beyond_the_output(60)

    track_memory_240_s_over_60_s = tracked("growth", "x")
