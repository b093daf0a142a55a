"""Both DRNL filterbanks: forward, training step, memory, error, and the time over that of the same chain by scipy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import torch
from scipy.signal import sosfilt
from torch import Tensor

from tamt import DRNLFilterbank, FastDRNLFilterbank

from .common import (
    DTYPES,
    Agreement,
    Load,
    best_times,
    cases,
    golden,
    modal_as_biquads,
    over,
    peak,
    relative_error,
    require,
    timing,
    tracked,
)

FS, FLOW, FHIGH, LEVEL = 44100, 250, 8000, 1e-3
KINDS = {"drnl": DRNLFilterbank, "fast-drnl": FastDRNLFilterbank}
CPU_LOADS = {"1 x 1 s": (1, 1), "8 x 1 s": (8, 1)}
GPU_LOADS = {"32 x 4 s": (32, 4)}
CASES = cases(CPU_LOADS, GPU_LOADS)
PEAK = "of the channel's peak"
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


def conformance(dtype: str) -> Iterator[Agreement]:
    sounds = [("drnl", "NH", "noise"), ("drnl_hix", "HIx", "noise"), *(("drnl_tone", s, "tone") for s in ("NH", "HIx"))]
    for kind, (file, subject, sound), model in product(KINDS.values(), sounds, ("paulick2024", "jepsen2008")):
        data = golden(file)
        bank = kind(data["cf"], float(data["fs"]), subject=subject, model=model, dtype=DTYPES[dtype])
        y = bank(torch.from_numpy(data["x"])).transpose(0, 1).double().numpy()
        expected, own = (data[f"{what}_{subject}_{model}"] for what in ("y", "roundoff"))
        # AMT's own rounding is stored beside its output: what is left is tamt's.
        beyond = np.abs(y - expected).max(-1) / np.abs(expected).max(-1) - own
        against = f"AMT, {model}, {subject}, {sound} at 4 levels, beyond AMT's own rounding"
        asked = 1e-9 if kind is DRNLFilterbank and dtype == "float64" else None
        yield Agreement(kind.__name__, against, max(0.0, beyond.max()), PEAK, asked)


class _Load(Load):
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
        self.ready()

    def error(self) -> float:
        return relative_error(self.filters(self.x[:1, :FS]), self.expected)

    def result(self) -> Tensor:
        return self.filters(self.x)

    def training_step(self) -> None:
        self.filters.zero_grad()
        self.filters(self.x).backward(*self.weights)
        with torch.no_grad():  # as an optimiser would: nothing kept for unchanged coefficients serves the next call
            for parameter in self.filters.parameters():
                parameter.mul_(1 + 1e-7)


class DRNL(_Load):
    time_forward = timing("forward")
    track_error = tracked("error", PEAK)
    track_peak_memory = peak("forward", "outputs")


class DRNLTraining(_Load):
    """Forward, backward to all parameters, and a change of them; the forward pass compared with is a fixed bank's."""

    learnable = True

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        super().setup(case, dtype, kind)
        self.fixed = filterbank(kind, dtype, self.device)

    def forward_of_fixed(self) -> Tensor:
        with torch.no_grad():
            return self.fixed(self.x)

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward_of_fixed", "training_step")


class DRNLOverWriting(_Load):
    """Time relative to writing the output once, the least a GPU must do."""

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        if case[0] == "cpu":
            raise NotImplementedError("the memory limit is a GPU's measure")
        super().setup(case, dtype, kind)
        self.writing = partial(self.forward().fill_, 1.0)

    track_forward_over_writing = over("writing")


class DRNLAgainstScipy(Load):
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
        require(relative_error(self.result(), expected), LIMITS[dtype] if kind == "drnl" else FAST_LIMIT, kind)

    def result(self) -> Tensor:
        return self.filters(self.x)

    track_time_over_scipy = over("peer")


class DRNLDesign(Load):
    """From 8F parameters to the sections of all filters, and to their block matrices (the CPU's share of a forward)."""

    params = (list(DTYPES),)
    param_names = ("dtype",)

    def setup(self, dtype: str) -> None:
        self.filters = filterbank("drnl", dtype, "cpu", learnable=True)
        self.fixed = filterbank("drnl", dtype, "cpu")
        self.x = noise(1, 0.01, dtype, "cpu")
        require(relative_error(self.filters(self.x), self.fixed(self.x)), 1e-12, "learnable")

    def design(self) -> None:
        with torch.no_grad():
            self.filters.g.mul_(1 + 1e-7)
        self.filters(self.x)

    def kept(self) -> None:
        self.fixed(self.x)

    def beside_forward(self) -> float:
        """What a forward of changed filters takes more than one of kept filters."""
        kept, design = best_times(self.kept, self.design)
        return design - kept

    time_design = timing("design")
    time_kept = timing("kept")
    track_design_beside_forward = tracked("beside_forward", "s")


class DRNLAccuracy(Load):
    """float32 against float64, two seconds of noise, largest difference relative to the channel's peak."""

    module, lowest = "DRNLFilterbank", 100  # Hz
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

    def error(self) -> float:
        return relative_error(self.filters(self.x), self.expected)

    track_float32_error = tracked("error", PEAK)
