"""The IIR operator: every kind of section, signals shared by the channels and one per channel."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.signal import butter, sosfilt

from tamt import DRNLFilterbank
from tamt.ops import iir as ops

from .common import DEVICES, DTYPES, modal_as_biquads, peak_memory, ratio_of_times, relative_error, require, timed

FS, CHANNELS = 44100, 50
THIRDS = 20 * 2 ** (np.arange(12) / 3)
LOADS = {"cpu": (1, 1), "cuda": (32, 4)}  # batch, seconds


def sections() -> np.ndarray:
    """Four Butterworth low-passes a channel, cut-off frequencies 400 to 8000 Hz: (F, 4, 6)."""
    lowpass = [butter(2, f, fs=FS, output="sos") for f in np.geomspace(400, 8000, CHANNELS)]
    return np.stack([np.repeat(s, 4, 0) for s in lowpass])


class _Biquads:
    params = (DEVICES, list(DTYPES), ["shared", "per channel"])
    param_names = ("device", "dtype", "signal")

    def setup(self, device: str, dtype: str, signal: str) -> None:
        self.device, self.per_channel = device, signal == "per channel"
        batch, seconds = LOADS[device]
        shape = (batch, CHANNELS, seconds * FS) if self.per_channel else (batch, seconds * FS)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.x = x.to(device, DTYPES[dtype])
        self.sos = torch.from_numpy(sections()).to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 5e-6, f"biquads {device} {dtype} {signal}")
        self.weights = torch.randn_like(self.forward())

    def error(self) -> float:
        # Of the filters with these coefficients: what rounding does to them in float32 is not the operator's doing.
        x, sos = self.x[:1].double().cpu().numpy(), self.sos.detach().double().cpu().numpy()
        y, _ = ops.biquad_cascade(self.x[:1], self.sos, per_channel=self.per_channel)
        return relative_error(y, torch.from_numpy(np.stack(self.by_scipy(x, sos), 1)))

    def by_scipy(self, x: np.ndarray, sos: np.ndarray) -> list[np.ndarray]:
        return [sosfilt(s, x[:, f] if self.per_channel else x) for f, s in enumerate(sos)]

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            return ops.biquad_cascade(self.x, self.sos, per_channel=self.per_channel)[0]

    def training_step(self) -> None:
        y, _ = ops.biquad_cascade(self.x, self.sos, per_channel=self.per_channel)
        torch.autograd.grad(y, self.sos, self.weights)


class Biquads(_Biquads):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the channel's peak"

    def track_peak_memory(self, *_: object) -> float:
        output = self.forward()
        return peak_memory(self.forward, self.device) / (output.numel() * output.element_size())

    track_peak_memory.unit = "outputs"


class BiquadsAgainstScipy(_Biquads):
    """Time over that of ``scipy.signal.sosfilt``, channel by channel, on the CPU."""

    params = (["cpu"], list(DTYPES), ["shared", "per channel"])

    def track_time_over_scipy(self, *_: object) -> float:
        x = self.x.numpy()
        return ratio_of_times(partial(self.by_scipy, x, sections().astype(x.dtype)), self.forward)

    track_time_over_scipy.unit = "x"


class OnepoleCascade:
    """Orders of a cascade, and the feedback that stands for an expanded polynomial."""

    params = (DEVICES, [1, 2, 4], ["plain", "feedback"])
    param_names = ("device", "order", "kind")

    def setup(self, device: str, order: int, kind: str) -> None:
        self.device, self.order = device, order
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

    def forward(self) -> torch.Tensor:
        return self.filter(self.x, *self.coefficients)[0]

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)


class ModalCascade:
    """DRNL's filters: the linear path on a signal shared by the channels, the last one of the other path on its own."""

    params = (DEVICES, list(DTYPES), ["linear path, shared", "back, per channel"])
    param_names = ("device", "dtype", "filter")

    def setup(self, device: str, dtype: str, path: str) -> None:
        self.device, self.per_channel = device, path.startswith("back")
        batch, seconds = LOADS[device]
        exact = DRNLFilterbank((250, 8000), FS, CHANNELS)._sections()[2 if self.per_channel else 0]
        shape = (batch, CHANNELS, seconds * FS) if self.per_channel else (batch, seconds * FS)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.sos = modal_as_biquads(exact)
        self.x = x.to(device, DTYPES[dtype])
        self.sections = exact.to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 1e-5, f"{path} {device} {dtype}")
        self.weights = torch.randn_like(self.forward())

    def error(self) -> float:
        y, _ = ops.modal_cascade(self.x[:1], self.sections, per_channel=self.per_channel)
        x = self.x[:1].double().cpu().numpy()
        return relative_error(y, torch.from_numpy(np.stack(self.by_scipy(x, self.sos), 1)))

    def by_scipy(self, x: np.ndarray, sos: np.ndarray) -> list[np.ndarray]:
        return [sosfilt(s, x[:, f] if self.per_channel else x) for f, s in enumerate(sos)]

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            return ops.modal_cascade(self.x, self.sections, per_channel=self.per_channel)[0]

    def training_step(self) -> None:
        y, _ = ops.modal_cascade(self.x, self.sections, per_channel=self.per_channel)
        torch.autograd.grad(y, self.sections, self.weights)

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the channel's peak"

    def track_time_over_scipy(self, device: str, *_: object) -> float:
        if device != "cpu":
            raise NotImplementedError("scipy runs on the CPU")
        x = self.x.numpy()
        return ratio_of_times(partial(self.by_scipy, x, self.sos.astype(x.dtype)), self.forward)

    track_time_over_scipy.unit = "x"


class LowBiquads(_Biquads):
    """Third octaves from 20 Hz at 51.2 kHz, where float32 takes three digits from transposed direct form."""

    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device, self.per_channel = device, False
        batch, seconds = LOADS[device]
        x = torch.randn(batch, seconds * 51200, generator=torch.Generator().manual_seed(0))
        bands = [butter(3, [f / 2 ** (1 / 6), f * 2 ** (1 / 6)], "band", fs=51200, output="sos") for f in THIRDS]
        self.x = x.to(device, DTYPES[dtype])
        self.sos = torch.from_numpy(np.stack(bands)).float().to(device, DTYPES[dtype]).requires_grad_()
        require(self.error(), 1e-10 if dtype == "float64" else 5e-6, f"low biquads {device} {dtype}")
        self.weights = torch.randn_like(self.forward())

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the channel's peak"
