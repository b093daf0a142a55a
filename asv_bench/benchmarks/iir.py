"""The IIR operator: every kind of section, signals shared by the channels and one per channel."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.signal import butter, sosfilt

from tamt import DRNLFilterbank
from tamt.ops import iir as ops

from .common import DEVICES, DTYPES, Load, modal_as_biquads, over, peak, relative_error, require, timing, tracked

FS, CHANNELS = 44100, 50
PEAK = "of the channel's peak"
THIRDS = 20 * 2 ** (np.arange(12) / 3)
LOADS = {"cpu": (1, 1), "cuda": (32, 4)}  # batch, seconds


def sections() -> np.ndarray:
    """Four Butterworth low-passes a channel, cut-off frequencies 400 to 8000 Hz: (F, 4, 6)."""
    lowpass = [butter(2, f, fs=FS, output="sos") for f in np.geomspace(400, 8000, CHANNELS)]
    return np.stack([np.repeat(s, 4, 0) for s in lowpass])


class _Cascade(Load):
    """On a signal shared by the channels or on one per channel; ``sos`` are the sections of scipy, the truth."""

    per_channel = False
    param_names = ("device", "dtype", "signal")

    def noise(self, device: str, dtype: str, fs: int = FS) -> torch.Tensor:
        batch, seconds = LOADS[device]
        shape = (batch, CHANNELS, seconds * fs) if self.per_channel else (batch, seconds * fs)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return x.to(device, DTYPES[dtype])

    def error(self) -> float:
        x, sos = self.x[:1].double().cpu().numpy(), self.exact_sos()
        return relative_error(self.filtered(self.x[:1]), torch.from_numpy(np.stack(self.by_scipy(x, sos), 1)))

    def by_scipy(self, x: np.ndarray, sos: np.ndarray) -> list[np.ndarray]:
        return [sosfilt(s, x[:, f] if self.per_channel else x) for f, s in enumerate(sos)]

    def scipy(self) -> list[np.ndarray]:
        x = self.x.numpy()
        return self.by_scipy(x, self.peer_sos().astype(x.dtype))

    def result(self) -> torch.Tensor:
        return self.filtered(self.x)


class _Biquads(_Cascade):
    params = (DEVICES, list(DTYPES), ["shared", "per channel"])

    def setup(self, device: str, dtype: str, signal: str) -> None:
        self.device, self.per_channel = device, signal == "per channel"
        self.x = self.noise(device, dtype)
        self.sos = torch.from_numpy(sections()).to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 5e-6, f"biquads {device} {dtype} {signal}")
        self.ready(self.sos)

    def exact_sos(self) -> np.ndarray:
        """Those with these coefficients: what rounding does to them in float32 is not the operator's doing."""
        return self.sos.detach().double().cpu().numpy()

    def peer_sos(self) -> np.ndarray:
        return sections()

    def filtered(self, x: torch.Tensor) -> torch.Tensor:
        return ops.biquad_cascade(x, self.sos, per_channel=self.per_channel)[0]


class Biquads(_Biquads):
    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", PEAK)
    track_peak_memory = peak("forward", "outputs")


class BiquadsAgainstScipy(_Biquads):
    """Time over that of ``scipy.signal.sosfilt``, channel by channel, on the CPU."""

    params = (["cpu"], list(DTYPES), ["shared", "per channel"])

    track_time_over_scipy = over("scipy")


class OnepoleCascade(Load):
    """Orders of a cascade, and the feedback that stands for an expanded polynomial."""

    params = (DEVICES, [1, 2, 4], ["plain", "feedback"])
    param_names = ("device", "order", "kind")

    def setup(self, device: str, order: int, kind: str) -> None:
        self.device = device
        batch, seconds = LOADS[device]
        self.x = torch.randn(batch, seconds * FS, device=device)
        decay = torch.linspace(0.01, 0.3, CHANNELS, device=device)
        frequency = torch.linspace(0.005, 0.4, CHANNELS, device=device)
        gain = torch.stack((-torch.expm1(-decay), torch.zeros_like(decay)), 1) ** order
        feedback = None
        if kind == "feedback":
            scale = 0.02 * (-torch.expm1(-decay))[:, None] ** torch.arange(1, order + 1, device=device)
            feedback = torch.stack((scale, scale), -1)
        self.filter = partial(ops.onepole_cascade, order=order, feedback=feedback)
        self.coefficients = (decay, frequency, gain)
        exact = None if feedback is None else feedback.double()
        expected, _ = ops.onepole_cascade(
            self.x[:1].double(), *(c.double() for c in self.coefficients), order, feedback=exact
        )
        require(relative_error(self.forward()[:1], expected), 1e-5, f"cascade {device} {order} {kind}")

    def result(self) -> torch.Tensor:
        return self.filter(self.x, *self.coefficients)[0]

    time_forward = timing("forward")


class ModalCascade(_Cascade):
    """DRNL's filters: the linear path on a signal shared by the channels, the last one of the other path on its own."""

    params = (DEVICES, list(DTYPES), ["linear path, shared", "back, per channel"])
    param_names = ("device", "dtype", "filter")

    def setup(self, device: str, dtype: str, path: str) -> None:
        self.device, self.per_channel = device, path.startswith("back")
        exact = DRNLFilterbank((250, 8000), FS, CHANNELS)._sections()[2 if self.per_channel else 0]
        self.sos = modal_as_biquads(exact)
        self.x = self.noise(device, dtype)
        self.sections = exact.to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 1e-5, f"{path} {device} {dtype}")
        self.ready(self.sections)

    def exact_sos(self) -> np.ndarray:
        return self.sos

    def peer_sos(self) -> np.ndarray:
        if self.device != "cpu":
            raise NotImplementedError("scipy runs on the CPU")
        return self.sos

    def filtered(self, x: torch.Tensor) -> torch.Tensor:
        return ops.modal_cascade(x, self.sections, per_channel=self.per_channel)[0]

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", PEAK)
    track_time_over_scipy = over("scipy")


class LowBiquads(_Biquads):
    """Third octaves from 20 Hz at 51.2 kHz, where float32 takes three digits from transposed direct form."""

    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device, self.x = device, self.noise(device, dtype, 51200)
        bands = [butter(3, [f / 2 ** (1 / 6), f * 2 ** (1 / 6)], "band", fs=51200, output="sos") for f in THIRDS]
        self.sos = torch.from_numpy(np.stack(bands)).float().to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 5e-6, f"low biquads {device} {dtype}")
        self.ready(self.sos)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", PEAK)
