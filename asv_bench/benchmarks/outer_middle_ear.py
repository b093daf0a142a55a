"""Outer and middle ear: time, error and memory; the time over that of scipy's overlap-add."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.signal import oaconvolve
from torch import Tensor
from torch.nn.functional import pad

from tamt import OuterMiddleEar

from .common import (
    DTYPES,
    Agreement,
    Load,
    cases,
    golden,
    over,
    peak,
    relative_error,
    require,
    timing,
    tracked,
)

FS = 32000
LOADS = {"stereo 1 s": (2, 1), "stereo 60 s": (2, 60), "32 x 10 s": (32, 10)}
CASES = cases(["stereo 1 s", "stereo 60 s"], ["32 x 10 s"])
PEAK = "of the channel's peak"
LIMITS = {"float64": 1e-12, "float32": 2e-6}  # of the error relative to a signal's peak


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("ear")
    for field in ("free", "diffuse", "eardrum"):
        error = relative_error(OuterMiddleEar(FS, field, DTYPES[dtype]).taps, torch.from_numpy(data[f"fir_{field}"]))
        asked = 1e-14 if dtype == "float64" else 1e-7
        yield Agreement("OuterMiddleEar", f"the authors' taps, {field}", error, "of the taps' peak", asked)
    ear = OuterMiddleEar(FS, dtype=DTYPES[dtype])
    full = ear(pad(torch.from_numpy(data["noise_x"]), (0, 2 * ear.delay)))
    error = relative_error(full[:, 1024:-1024:4], torch.from_numpy(data["noise_filt"]))
    yield Agreement("OuterMiddleEar", "AMT, noise", error, PEAK, 1e-13 if dtype == "float64" else 2e-6)


class _Load(Load):
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        signals, seconds = LOADS[load]
        self.seconds = seconds  # those of the signals, which run at once
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(signals, seconds * FS, generator=generator).to(DTYPES[dtype])
        self.ear = OuterMiddleEar(FS, dtype=DTYPES[dtype], device=self.device)
        self.expected = torch.from_numpy(by_scipy(x.double().numpy(), OuterMiddleEar(FS, dtype=torch.float64).taps))
        self.x = x.to(self.device).requires_grad_()
        require(self.error(), LIMITS[dtype], f"outer and middle ear, {load}, {dtype}")
        self.ready(self.x)

    def error(self) -> float:
        return relative_error(self.forward(), self.expected)

    def result(self) -> Tensor:
        return self.ear(self.x)


class Ear(_Load):
    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_error = tracked("error", PEAK)
    track_time_over_real_time = tracked("real_time", "x")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory = peak("forward", "outputs")


class EarAgainstScipy(_Load):
    """Time over that of overlap-add, on the CPU."""

    params = (cases(["stereo 1 s", "stereo 60 s"], []), list(DTYPES))

    def scipy(self) -> np.ndarray:
        return by_scipy(self.x.detach().numpy(), self.ear.taps)

    track_time_over_scipy = over("scipy")


def by_scipy(x: np.ndarray, taps: Tensor) -> np.ndarray:
    return oaconvolve(x, taps.numpy()[None], axes=-1)[..., : x.shape[-1]]
