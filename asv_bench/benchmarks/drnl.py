"""Both DRNL filterbanks: forward, training step, memory, error, and the time over that of the same chain by scipy."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from scipy.signal import sosfilt
from torch import Tensor

from tamt import DRNLFilterbank, FastDRNLFilterbank

from .common import (
    DEVICES,
    DTYPES,
    best_times,
    modal_as_biquads,
    peak_memory,
    ratio_of_times,
    relative_error,
    require,
    timed,
)

FS, FLOW, FHIGH, LEVEL = 44100, 250, 8000, 1e-3
KINDS = {"drnl": DRNLFilterbank, "fast-drnl": FastDRNLFilterbank}
CPU_LOADS = {"1 x 1 s": (1, 1), "8 x 1 s": (8, 1)}
GPU_LOADS = {"32 x 4 s": (32, 4)}
CASES = [(device, load) for device in DEVICES for load in (CPU_LOADS if device == "cpu" else GPU_LOADS)]
LIMITS = {"float64": 1e-9, "float32": 2e-5}
FAST_LIMIT = 3e-4


def noise(batch: int, seconds: float, dtype: str, device: str) -> Tensor:
    x = torch.randn(batch, int(seconds * FS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (LEVEL * x).to(device, DTYPES[dtype])


def filterbank(kind: str, dtype: str, device: str, learnable: bool = False) -> DRNLFilterbank:
    return KINDS[kind]((FLOW, FHIGH), FS, learnable=learnable, dtype=DTYPES[dtype], device=device)


def scipy_drnl(x: np.ndarray, linear: np.ndarray, front: np.ndarray, back: np.ndarray, stick: np.ndarray) -> np.ndarray:
    """The chain channel by channel with ``sosfilt``, in the type of ``x``: (B, F, T)."""
    outputs = []
    for one, two, three, (a, b, c) in zip(linear, front, back, stick, strict=True):
        v = sosfilt(two, x)
        magnitude = np.abs(v)
        w = np.sign(v) * np.minimum(a * magnitude, b * magnitude**c)
        outputs.append(sosfilt(one, x) + sosfilt(three, w))
    return np.stack(outputs, -2)


def by_scipy(x: Tensor) -> partial:
    """:func:`scipy_drnl` of the default filterbank, in the type of ``x``."""
    bank = filterbank("drnl", "float64", "cpu")
    filters, stick = bank._sections(), bank._stick()
    wide = x.cpu().numpy()
    coefficients = [modal_as_biquads(sections).astype(wide.dtype) for sections in filters]
    return partial(scipy_drnl, wide, *coefficients, stick.numpy().astype(wide.dtype))


class _Load:
    params = (CASES, list(DTYPES), list(KINDS))
    param_names = ("load", "dtype", "kind")
    timeout = 600
    learnable = False

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        self.device, load = case
        self.x = noise(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        self.filters = filterbank(kind, dtype, self.device, self.learnable)
        self.expected = torch.from_numpy(by_scipy(self.x[:1, :FS].double())())
        require(self.error(), LIMITS[dtype] if kind == "drnl" else FAST_LIMIT, f"{kind} {load} {dtype}")
        self.weights = torch.randn_like(self.forward()) if self.learnable else None

    def error(self) -> float:
        return relative_error(self.filters(self.x[:1, :FS]), self.expected)

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.filters(self.x)

    def training_step(self) -> None:
        self.filters.zero_grad()
        self.filters(self.x).backward(self.weights)
        with torch.no_grad():  # as an optimiser would: nothing kept for unchanged coefficients serves the next call
            for parameter in self.filters.parameters():
                parameter.mul_(1 + 1e-7)


class DRNL(_Load):
    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def track_error(self, *_: object) -> float:
        return self.error()

    track_error.unit = "of the channel's peak"

    def track_peak_memory(self, *_: object) -> float:
        output = self.x.shape[0] * self.filters.num_channels * self.x.shape[1] * self.x.element_size()
        return peak_memory(self.forward, self.device) / output

    track_peak_memory.unit = "outputs"


class DRNLTraining(_Load):
    """Forward, backward to all parameters, and a change of them; the forward pass compared with is a fixed bank's."""

    learnable = True

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        self.fixed = filterbank(kind, dtype, self.device)

    def forward_of_fixed(self) -> Tensor:
        with torch.no_grad():
            return self.fixed(self.x)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_training_over_forward(self, *_: object) -> float:
        return ratio_of_times(self.forward_of_fixed, self.training_step, self.device)

    track_training_over_forward.unit = "x"


class DRNLOverWriting(_Load):
    """Time relative to writing the output once, the least a GPU must do."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        if case[0] == "cpu":
            raise NotImplementedError("the memory limit is a GPU's measure")
        super().setup(case, dtype, kind)
        self.writing = partial(self.forward().fill_, 1.0)

    def track_forward_over_writing(self, *_: object) -> float:
        return ratio_of_times(self.writing, self.forward, self.device)

    track_forward_over_writing.unit = "x"


class DRNLAgainstScipy:
    """Time over that of the chain by ``scipy.signal.sosfilt``, channel by channel, on the CPU."""

    params = (list(CPU_LOADS), list(DTYPES), list(KINDS))
    param_names = ("load", "dtype", "kind")
    timeout = 600

    def setup(self, load: str, dtype: str, kind: str) -> None:
        self.x = noise(*CPU_LOADS[load], dtype, "cpu")
        self.filters = filterbank(kind, dtype, "cpu")
        self.peer = by_scipy(self.x)
        expected = torch.from_numpy(by_scipy(self.x.double())())
        require(relative_error(torch.from_numpy(self.peer()), expected), 1e-2, "scipy")
        require(relative_error(self.filters(self.x), expected), LIMITS[dtype] if kind == "drnl" else FAST_LIMIT, kind)

    def track_time_over_scipy(self, *_: object) -> float:
        return ratio_of_times(self.peer, partial(self.filters, self.x))

    track_time_over_scipy.unit = "x"


class DRNLDesign:
    """From 8F parameters to the sections of all filters, and to their block matrices (the CPU's share of a forward)."""

    params = (list(DTYPES),)
    param_names = ("dtype",)

    def setup(self, dtype: str) -> None:
        self.filters = filterbank("drnl", dtype, "cpu", learnable=True)
        self.fixed = filterbank("drnl", dtype, "cpu")
        self.x = noise(1, 0.01, dtype, "cpu")
        require(relative_error(self.filters(self.x), self.fixed(self.x)), 1e-12, "learnable")

    def time_design(self, *_: object) -> None:
        with torch.no_grad():
            self.filters.g.mul_(1 + 1e-7)
        self.filters(self.x)

    def time_kept(self, *_: object) -> None:
        self.fixed(self.x)

    def track_design_beside_forward(self, *_: object) -> float:
        """What a forward of changed filters takes more than one of kept filters."""
        kept, design = best_times(self.time_kept, self.time_design)
        return design - kept

    track_design_beside_forward.unit = "s"


class DRNLAccuracy:
    """float32 against float64, two seconds of noise, largest difference relative to the channel's peak."""

    params = ([16000, 44100, 48000], [250, 500, 1000, 4000])
    param_names = ("fs", "fc")

    def setup(self, fs: int, fc: int) -> None:
        x = torch.randn(2 * fs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.x = (LEVEL * x).float()
        exact = DRNLFilterbank([fc], fs)
        filters, stick = exact._sections(), exact._stick()
        expected = scipy_drnl(self.x.double().numpy(), *(modal_as_biquads(s) for s in filters), stick.numpy())
        self.expected = torch.from_numpy(expected)
        require(relative_error(exact(self.x), self.expected), 1e-9, "float64")
        self.filters = DRNLFilterbank([fc], fs, dtype=torch.float32)

    def track_float32_error(self, *_: object) -> float:
        return relative_error(self.filters(self.x), self.expected)

    track_float32_error.unit = "of the channel's peak"
