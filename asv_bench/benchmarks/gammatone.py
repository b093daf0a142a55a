"""GammatoneFilterbank: forward, training step, memory, error, growth with length, and the time over scipy's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from tamt import GammatoneFilterbank
from tamt._learnable import Form

from .common import (
    DTYPES,
    Agreement,
    Load,
    by_sosfilt,
    cases,
    gammatone_biquads,
    golden,
    over,
    peak,
    peak_memory,
    ratio_of_times,
    relative_error,
    require,
    scipy_cascade,
    timing,
    tracked,
)

FS = 16000
CPU_LOADS = {"2 x 1 s x 30": (2, 1, 30), "1 x 10 s x 30": (1, 10, 30)}
GPU_LOADS = {"32 x 10 s x 64": (32, 10, 64), "1 x 600 s x 30": (1, 600, 30)}
MEMORY_LOADS = {"16 x 4 s x 64": (16, 4, 64)}
CASES = cases(CPU_LOADS, CPU_LOADS | GPU_LOADS)
PEAK = "of the channel's peak"


def filterbank(channels: int, dtype: str, device: str, learnable: Form = False) -> GammatoneFilterbank:
    fc = torch.tensor([100.0, 7800.0]).log().double()
    frequencies = torch.linspace(fc[0], fc[1], channels, dtype=torch.float64).exp()
    return GammatoneFilterbank(frequencies, FS, learnable=learnable, dtype=DTYPES[dtype], device=device)


def noise(batch: int, seconds: float, dtype: str, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, int(seconds * FS), generator=generator, dtype=torch.float64).to(device, DTYPES[dtype])


def cascade_of(filters: GammatoneFilterbank, x: torch.Tensor) -> partial:
    """The same filters by scipy, in the type of ``x``."""
    return partial(scipy_cascade, x.numpy(), filters.poles.numpy(), filters.gains.numpy(), filters.n)


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("gammatone")
    x = torch.from_numpy(data["x_noise"])
    for n in (2, 3, 4):
        bank = GammatoneFilterbank(data["fc"], float(data["fs"]), n, dtype=DTYPES[dtype])
        error = relative_error(bank(x), torch.from_numpy(data[f"n{n}_y_noise"]))
        asked = 1e-10 if dtype == "float64" else 2e-6
        yield Agreement("GammatoneFilterbank", f"AMT, order {n}, 100 Hz to 7 kHz", error, PEAK, asked)


class _Load(Load):
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")
    learnable: Form = False

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        batch, seconds, channels = {**CPU_LOADS, **GPU_LOADS, **MEMORY_LOADS}[load]
        self.x = noise(batch, seconds, dtype, self.device)
        self.filters = filterbank(channels, dtype, self.device, self.learnable)
        part = self.x[:1, : 2 * FS].double().cpu()
        self.expected = torch.from_numpy(cascade_of(filterbank(channels, "float64", "cpu"), part)())
        require(self.error(), 1e-11 if dtype == "float64" else 5e-6, f"gammatone {load} {dtype}")
        self.ready()

    def error(self) -> float:
        return relative_error(self.filters(self.x[:1, : 2 * FS]), self.expected)

    def result(self) -> torch.Tensor:
        return self.filters(self.x)

    def training_step(self) -> None:
        self.step(self.filters)

    def step(self, filters: GammatoneFilterbank) -> None:
        filters.zero_grad()
        filters(self.x).backward(*self.weights)
        with torch.no_grad():  # as an optimiser would: nothing kept for unchanged coefficients serves the next call
            filters.log_gain.add_(1e-7) if filters.learnable == "relative" else filters.gains.mul_(1 + 1e-7)


class Gammatone(_Load):
    time_forward = timing("forward")
    track_error = tracked("error", PEAK)
    track_peak_memory = peak("forward", "outputs")


class GammatoneTraining(_Load):
    """Forward, backward to the filters, and a change of the filters."""

    learnable = True

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")


class GammatoneRelative(_Load):
    """The training step of relative parameters: its time over that of poles and gains."""

    learnable = "relative"

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        super().setup(case, dtype)
        self.direct = self.filters.with_learnable(True)
        gains = self.direct.gains.detach().clone()
        self.training_step()
        self.direct_step()
        expected = (gains.conj() * self.direct.gains.grad).real  # along the gain
        require(relative_error(self.filters.log_gain.grad, expected), 1e-3, f"gradient of gammatone {case[1]} {dtype}")

    def direct_step(self) -> None:
        self.step(self.direct)

    track_relative_over_direct = over("direct_step", "training_step")


class GammatoneTrainingMemory(_Load):
    """Memory of a training step: of all of it with the mean square for a loss, and of the filters' backward pass."""

    params = (cases(MEMORY_LOADS, MEMORY_LOADS), list(DTYPES))
    learnable = True

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        super().setup(case, dtype)
        loss, gains = self.mean_square(), self.filters.gains
        # The loss is quadratic in the gains: its gradient along them is twice the loss.
        along = (gains.detach().conj() * gains.grad).real.sum()
        require((along / (2 * loss.detach()) - 1).abs().item(), 1e-4, f"gradient of gammatone {case[1]} {dtype}")

    def mean_square(self) -> torch.Tensor:
        self.filters.zero_grad()
        loss = self.result().square().mean()
        loss.backward()
        return loss

    def backward(self) -> float:
        """Peak beyond signal, output and the output's gradient, in outputs."""
        y, wanted = self.result(), list(self.filters.parameters())
        step = partial(torch.autograd.grad, y, wanted, self.weights, retain_graph=True)
        return peak_memory(step, self.device) / self.outputs()

    track_peak_memory_mean_square = peak("mean_square", "outputs")
    track_peak_memory_backward = tracked("backward", "outputs")


class GammatoneOverWriting(_Load):
    """Time relative to writing the output once, the least a GPU must do."""

    learnable = True

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        if case[0] == "cpu":
            raise NotImplementedError("the memory limit is a GPU's measure")
        super().setup(case, dtype)
        self.writing = partial(self.forward().fill_, 1.0)

    track_forward_over_writing = over("writing")
    track_training_over_writing = over("writing", "training_step")


class GammatoneAgainstScipy(Load):
    """Time over those of scipy's cascades on the CPU: of four real sections a channel, and of four complex ones."""

    params = (list(CPU_LOADS), list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, load: str, dtype: str) -> None:
        batch, seconds, channels = CPU_LOADS[load]
        self.x = noise(batch, seconds, dtype, "cpu")
        self.filters = filterbank(channels, dtype, "cpu")
        exact = filterbank(channels, "float64", "cpu")
        self.lfilter = cascade_of(exact, self.x)
        self.sosfilt = partial(by_sosfilt, self.x.numpy(), gammatone_biquads(exact.poles, exact.gains).numpy())
        expected = torch.from_numpy(cascade_of(exact, self.x.double())())
        for peer in (self.lfilter, self.sosfilt):
            require(relative_error(torch.from_numpy(peer()), expected), 1e-3, "scipy")
        require(relative_error(self.result(), expected), 5e-6, "tamt")

    def result(self) -> torch.Tensor:
        return self.filters(self.x)

    # A call of few milliseconds on two threads is disturbed more often than a long one on one.
    track_time_over_sosfilt = over("sosfilt", rounds=40)
    track_time_over_lfilter = over("lfilter")


class GammatoneAccuracy(Load):
    """float32 against float64, two seconds of noise, largest difference relative to the channel's peak."""

    module, lowest = "GammatoneFilterbank", 20  # Hz
    params = ([16000, 44100, 48000], [20, 50, 100, 500, 1000, 4000])
    param_names = ("fs", "fc")

    def setup(self, fs: int, fc: int) -> None:
        self.x = torch.randn(2 * fs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        exact = GammatoneFilterbank([fc], fs, dtype=torch.float64)
        self.expected = torch.from_numpy(cascade_of(exact, self.x)())
        require(relative_error(exact(self.x), self.expected), 1e-10, "float64")
        self.filters = GammatoneFilterbank([fc], fs)

    def error(self) -> float:
        return relative_error(self.filters(self.x), self.expected)

    track_float32_error = tracked("error", PEAK)


class GammatoneGrowth(Load):
    """Time of 10 s over ten times that of 1 s, and memory of 8 x 10 s in outputs, on the CPU."""

    def setup(self) -> None:
        self.filters = filterbank(30, "float32", "cpu")
        self.short, self.long = noise(1, 1, "float32", "cpu"), noise(1, 10, "float32", "cpu")
        expected = cascade_of(filterbank(30, "float64", "cpu"), self.long.double())()
        require(relative_error(self.filters(self.long), torch.from_numpy(expected)), 5e-6, "gammatone 10 s")

    def growth(self) -> float:
        return ratio_of_times(partial(self.filters, self.short), partial(self.filters, self.long)) / 10

    def memory(self) -> float:
        x = noise(8, 10, "float32", "cpu")
        return peak_memory(partial(self.filters, x), "cpu") / (8 * 30 * x.shape[1] * 4)

    track_growth_with_length = tracked("growth", "x")
    track_peak_memory_8_x_10_s = tracked("memory", "outputs")
