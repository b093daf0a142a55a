"""The FFT-DRNL operator: time, error and memory, and the time over that of plain torch on the whole signal."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy.signal import fftconvolve

from tamt.ops import fft_drnl as ops

from .broken_stick import STICK, compressed
from .common import DEVICES, DTYPES, Load, over, peak_memory, relative_error, require, timing, tracked

FS, CHANNELS, IR_LENGTH = 44100, 50, 4096
LOADS = {"cpu": (1, 0.5), "cuda": (32, 4)}  # batch, seconds
LIMITS = {"float64": 1e-11, "float32": 1e-5}
# In float32 rounding may put a sample on the other side of the knee, where its gradient is another one.
GRADIENT_LIMITS = {"float64": 1e-9, "float32": 5e-2}


def impulses() -> torch.Tensor:
    """Gammatones of 250 to 8000 Hz for every path, the second one of order 4: (3, F, M)."""
    fc = torch.from_numpy(np.geomspace(250, 8000, CHANNELS))[:, None]
    time = torch.arange(IR_LENGTH, dtype=torch.float64) / FS
    damping = 2 * math.pi * (24.7 + fc / 9.265)
    tones = [time**order * torch.exp(-damping * time) * torch.cos(2 * math.pi * fc * time) for order in (1, 1, 3)]
    return torch.stack([tone / torch.fft.rfft(tone).abs().amax(-1, keepdim=True) for tone in tones])


def by_scipy(x: np.ndarray, responses: np.ndarray, stick: np.ndarray) -> np.ndarray:
    """(F, T) from (T,), by convolution of the whole signal."""
    linear, front, back = responses
    v = fftconvolve(x[None], front, axes=-1)[:, : len(x)]
    a, b, c = stick.T[..., None]
    w = np.sign(v) * np.minimum(a * np.abs(v), b * np.abs(v) ** c)
    return (fftconvolve(x[None], linear, axes=-1) + fftconvolve(w, back, axes=-1))[:, : len(x)]


class _Load(Load):
    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        if device == "cuda" and dtype == "float64":
            raise NotImplementedError("a GPU's load is in float32")
        self.device, self.responses = device, impulses()
        batch, seconds = LOADS[device]
        generator = torch.Generator().manual_seed(0)
        # A level at which both branches of the broken stick are taken.
        x = 0.01 * torch.randn(batch, int(seconds * FS), generator=generator, dtype=torch.float64)
        stick = torch.tensor([STICK], dtype=torch.float64).expand(CHANNELS, 3)
        self.expected = torch.from_numpy(by_scipy(x[0].numpy(), self.responses.numpy(), stick.numpy()))
        self.x, self.stick = x.to(device, DTYPES[dtype]), stick.to(device, DTYPES[dtype], copy=True).requires_grad_()
        self.spectra = ops.ir_spectra(self.responses).to(device, DTYPES[dtype])
        self.seconds = batch * seconds
        require(self.error(), LIMITS[dtype], f"fft_drnl {device} {dtype}")
        self.ready(self.stick)

    def error(self) -> float:
        return relative_error(self.forward()[0], self.expected)

    def result(self) -> torch.Tensor:
        return ops.fft_drnl(self.x, self.spectra, self.stick, IR_LENGTH)[0]


class FftDrnl(_Load):
    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", "of the channel's peak")
    track_time_over_real_time = tracked("real_time", "x")
    track_training_over_forward = over("forward", "training_step")


class FftDrnlAgainstPlainTorch(_Load):
    """Time over that of transforms of the whole signal and elementwise torch operations."""

    def setup(self, device: str, dtype: str) -> None:
        super().setup(device, dtype)
        self.size = 1 << (self.x.shape[-1] + IR_LENGTH - 2).bit_length()
        self.whole = torch.fft.rfft(self.responses, self.size).to(device, self.spectra.dtype.to_complex())
        require(relative_error(self.plain()[0], self.expected), LIMITS[dtype], f"plain torch {device} {dtype}")
        (mine,) = torch.autograd.grad(self.result(), self.stick, self.weights)
        (other,) = torch.autograd.grad(self.plain(), self.stick, self.weights)
        require(relative_error(mine.T, other.T), GRADIENT_LIMITS[dtype], f"gradients {device} {dtype}")

    def plain(self) -> torch.Tensor:
        linear, front, back = self.whole
        length = self.x.shape[-1]
        shared = torch.fft.rfft(self.x, self.size)[:, None]
        v = torch.fft.irfft(shared * front, self.size)[..., :length]
        w = compressed(v, *self.stick[..., None].unbind(1))
        product = shared * linear + torch.fft.rfft(w, self.size) * back
        return torch.fft.irfft(product, self.size)[..., :length]

    def plain_forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self.plain()

    def plain_training_step(self) -> None:
        torch.autograd.grad(self.plain(), self.stick, self.weights)

    track_time_over_plain_torch = over("plain_forward")
    track_training_over_plain_torch = over("plain_training_step", "training_step")


class FftDrnlGrowth(Load):
    """Memory beyond the output of 60 s over that of 10 s, one row in float32."""

    params = (DEVICES,)
    param_names = ("device",)

    def setup(self, device: str) -> None:
        self.device = device
        self.x = 0.01 * torch.randn(60 * FS, generator=torch.Generator().manual_seed(0)).to(device)
        self.stick = torch.tensor([STICK], device=device).expand(CHANNELS, 3)
        responses = impulses()
        self.spectra = ops.ir_spectra(responses).float().to(device)
        part = self.x[:FS]
        expected = by_scipy(part.double().cpu().numpy(), responses.numpy(), self.stick.double().cpu().numpy())
        require(relative_error(self.of(1), torch.from_numpy(expected)), LIMITS["float32"], f"fft_drnl {device}")

    def of(self, seconds: int) -> torch.Tensor:
        return ops.fft_drnl(self.x[: seconds * FS], self.spectra, self.stick, IR_LENGTH)[0]

    def beyond_the_output(self, seconds: int) -> float:
        return peak_memory(partial(self.of, seconds), self.device) - seconds * FS * CHANNELS * 4

    def growth(self) -> float:
        return self.beyond_the_output(60) / self.beyond_the_output(10)

    track_memory_60_s_over_10_s = tracked("growth", "x")
