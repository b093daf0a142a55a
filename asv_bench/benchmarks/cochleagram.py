"""Cochleagrams: forward, training step, memory, error, growth with length, and the time over the composition of torch.

The composition filters, squares and averages: what one does with a filterbank alone, for which all of its output is
held, and in training several of the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tamt import Cochleagram, DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank

from .common import (
    DTYPES,
    Agreement,
    Load,
    cases,
    golden,
    modal_as_biquads,
    over,
    peak_memory,
    ratio_of_times,
    relative_error,
    require,
    scipy_analytic,
    timing,
    tracked,
)
from .drnl import LEVEL, scipy_drnl
from .gammatone import filterbank as gammatone
from .gammatone import noise

FS, HOP, CHANNELS = 16000, 160, 64
DETECTORS = ["power", "envelope", "halfwave"]
CPU_LOADS = {"2 x 1 s": (2, 1), "8 x 10 s": (8, 10)}
GPU_LOADS = {"32 x 10 s": (32, 10)}
CASES = cases(CPU_LOADS, GPU_LOADS)
COMPOSED = cases(
    ["gammatone, 2 x 1 s", "gammatone, 8 x 10 s", "drnl, 8 x 1 s", "fast-drnl, 8 x 1 s"], ["gammatone, 32 x 10 s"]
)
PART = 2 * FS  # samples that are held against the definition
PEAK = "of the channel's peak"
LIMITS = {  # of the means' error, by bank and type
    "gammatone": {"float64": 1e-11, "float32": 1e-5},
    "drnl": {"float64": 1e-9, "float32": 4e-5},
    "fast-drnl": {"float64": 6e-4, "float32": 6e-4},
}


def filterbank(kind: str, dtype: str, device: str, learnable: bool = False) -> nn.Module:
    if kind == "gammatone":
        return gammatone(CHANNELS, dtype, device, learnable)
    build = {"drnl": DRNLFilterbank, "fast-drnl": FastDRNLFilterbank}[kind]
    return build((100, 7000), FS, CHANNELS, learnable=learnable, dtype=DTYPES[dtype], device=device)


def signals(kind: str, batch: int, seconds: float, dtype: str, device: str) -> Tensor:
    x = noise(batch, seconds, dtype, device)
    return x if kind == "gammatone" else LEVEL * x


def means_of(y: np.ndarray | Tensor, detector: str, hop: int = HOP) -> Tensor:
    """Means over hops of outputs (..., F, T), which are analytic ones for ``'envelope'``."""
    y = torch.as_tensor(y)[..., : y.shape[-1] // hop * hop].unflatten(-1, (-1, hop))
    if detector == "halfwave":
        return y.relu().mean(-1)
    return y.abs().square().mean(-1) / (2 if detector == "envelope" else 1)


def definition(kind: str, x: Tensor, detector: str) -> Tensor:
    """Means in float64 from the outputs that scipy gives for the same filters."""
    bank, wide = filterbank(kind, "float64", "cpu"), x.double().cpu().numpy()
    if kind == "gammatone":
        z = scipy_analytic(wide, bank.poles.numpy(), bank.gains.numpy(), bank.n)
        return means_of(z if detector == "envelope" else z.real, detector)
    exact = DRNLFilterbank((100, 7000), FS, CHANNELS)
    sections = (modal_as_biquads(path) for path in exact._sections())
    return means_of(scipy_drnl(wide, *sections, exact._stick().numpy()), detector)


def composed(bank: nn.Module, x: Tensor, detector: str = "power") -> Tensor:
    """The composition, by calls of torch."""
    return means_of(bank.analytic(x) if detector == "envelope" else bank(x), detector)


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("gammatone")
    x, fs = torch.from_numpy(data["x_noise"]), float(data["fs"])
    for detector in ("power", "halfwave"):
        bank = GammatoneFilterbank(data["fc"], fs, dtype=DTYPES[dtype])
        hop = int(fs // 100)
        error = relative_error(
            Cochleagram(bank, hop, detector=detector)(x), means_of(data["n4_y_noise"], detector, hop)
        )
        asked = 1e-10 if dtype == "float64" else 2e-6
        yield Agreement("Cochleagram", f"AMT, {detector} over 10 ms of its gammatone", error, PEAK, asked)


class _Load(Load):
    params = (CASES, list(DTYPES), DETECTORS)
    param_names = ("load", "dtype", "detector")
    learnable = False

    def setup(self, case: tuple[str, str], dtype: str, detector: str) -> None:
        self.device, load = case
        self.made("gammatone", *{**CPU_LOADS, **GPU_LOADS}[load], dtype, detector)

    def made(self, kind: str, batch: int, seconds: float, dtype: str, detector: str) -> None:
        """A cochleagram of a bank and its signals, held against the definition."""
        self.x = signals(kind, batch, seconds, dtype, self.device)
        self.bank = filterbank(kind, dtype, self.device, self.learnable)
        self.module = Cochleagram(self.bank, HOP, detector=detector)
        self.expected = definition(kind, self.x[:1, :PART], detector)
        require(self.error(), LIMITS[kind][dtype], f"cochleagram of {kind}, {dtype}, {detector}")
        self.ready()

    def error(self) -> float:
        return relative_error(self.module(self.x[:1, :PART]), self.expected)

    def result(self) -> Tensor:
        return self.module(self.x)

    def training_step(self) -> None:
        self.step_of(self.module)

    def step_of(self, function: nn.Module | partial) -> None:
        self.bank.zero_grad()
        function(self.x).backward(*self.weights)
        with torch.no_grad():  # as an optimiser would: nothing kept for unchanged coefficients serves the next call
            for parameter in self.bank.parameters():
                parameter.mul_(1 - 1e-7)


class Frames(_Load):
    def beside_the_result(self) -> float:
        return (peak_memory(self.forward, self.device) - self.outputs()) / 2**20

    time_forward = timing("forward")
    track_error = tracked("error", PEAK)
    track_peak_memory = tracked("beside_the_result", "MiB")


class FramesTraining(_Load):
    """Forward, backward to the filters, and a change of the filters."""

    params = (CASES, list(DTYPES), ["power", "envelope"])
    learnable = True

    def setup(self, case: tuple[str, str], dtype: str, detector: str) -> None:
        if (case[1], dtype) == ("8 x 10 s", "float64"):
            raise NotImplementedError("it takes a minute")
        super().setup(case, dtype, detector)

    def made(self, kind: str, batch: int, seconds: float, dtype: str, detector: str) -> None:
        super().made(kind, batch, seconds, dtype, detector)
        exact = filterbank(kind, "float64", "cpu", learnable=True)
        part, own = self.x[:1, :FS].double().cpu(), self.weights[0][:1, :, : FS // HOP]
        wanted = torch.autograd.grad(composed(exact, part, detector), list(exact.parameters()), own.double().cpu())
        given = list(self.bank.parameters())
        found = torch.autograd.grad(self.module(self.x[:1, :FS]), given, own)
        for a, e in zip(found, wanted, strict=True):
            error = ((a.cpu() - e).abs().max() / e.abs().max()).item()
            require(error, 1e-9 if dtype == "float64" else 1e-3, f"gradients of {kind}, {dtype}, {detector}")

    def beside_gradients(self) -> float:
        self.training_step()  # gradients of parameters stay
        return peak_memory(self.training_step, self.device) / 2**20

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory_of_training_step = tracked("beside_gradients", "MiB")


class EnvelopeOverPower(_Load):
    """Time of the envelope, of complex outputs, over that of the power, of real ones."""

    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        super().setup(case, dtype, "envelope")
        self.other = Cochleagram(self.bank, HOP, detector="power")

    def power(self) -> Tensor:
        with torch.no_grad():
            return self.other(self.x)

    track_envelope_over_power = over("power")


class AgainstComposition(_Load):
    """Time over that of the composition, power in float32."""

    params = (COMPOSED,)
    param_names = ("load",)

    def setup(self, case: tuple[str, str]) -> None:
        self.device, load = case
        kind, size = load.split(", ")
        batch, seconds = (int(n) for n in size.removesuffix(" s").split(" x "))
        self.made(kind, batch, seconds, "float32", "power")
        self.peer = partial(composed, self.bank)
        error = relative_error(self.composition()[:1, :, : PART // HOP], self.expected)
        require(error, LIMITS[kind]["float32"], f"composition of {kind}")

    def composition(self) -> Tensor:
        with torch.no_grad():
            return self.peer(self.x)

    track_time_over_composition = over("composition")


class TrainingAgainstComposition(AgainstComposition):
    """Forward, backward to all parameters, and a change of them, over the same of the composition."""

    learnable = True

    def composed_step(self) -> None:
        self.step_of(self.peer)

    track_training_over_composition = over("composed_step", "training_step")


class FramesGrowth(Load):
    """Time of so many seconds over as many times that of one, on the CPU: power in float32, one signal."""

    params = ([100, 1000],)
    param_names = ("seconds",)

    def setup(self, seconds: int) -> None:
        self.seconds = seconds
        self.module = Cochleagram(filterbank("gammatone", "float32", "cpu"), HOP, detector="power")
        self.short, self.long = (signals("gammatone", 1, s, "float32", "cpu") for s in (1, seconds))
        expected = definition("gammatone", self.long[:, :PART], "power")
        with torch.no_grad():
            found = self.module(self.long)
        require(relative_error(found[..., : PART // HOP], expected), LIMITS["gammatone"]["float32"], "cochleagram")
        # The end, from which no filter remembers further back than a second.
        tail = definition("gammatone", self.long[:, -PART:], "power")[..., FS // HOP :]
        require(relative_error(found[..., -tail.shape[-1] :], tail), LIMITS["gammatone"]["float32"], "its end")

    def growth(self) -> float:
        with torch.no_grad():
            short, long = partial(self.module, self.short), partial(self.module, self.long)
            return ratio_of_times(short, long) / self.seconds

    track_growth_with_length = tracked("growth", "x")
