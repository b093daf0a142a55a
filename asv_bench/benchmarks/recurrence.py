"""AttackRelease: forward, training step, memory, error, growth with the frames, and the time over a loop's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tamt.loudness.attack_release import AttackRelease as Module
from tamt.reference.recurrence import definition

from .common import (
    DTYPES,
    Agreement,
    Load,
    best_times,
    cases,
    golden,
    over,
    peak,
    relative_error,
    require,
    timing,
    tracked,
)

# Shapes and where time is: ears, milliseconds and channels of short-term loudness, and ears of long-term loudness.
CPU_LOADS = {
    "2 x 10000 x 150": ((2, 10000, 150), 1),
    "300 x 10000": ((300, 10000), 1),
    "2 x 1000 x 150": ((2, 1000, 150), 1),
    "2 x 1000": ((2, 1000), 1),
}
GPU_LOADS = {"32 x 10000 x 150": ((32, 10000, 150), 1), "32 x 10000": ((32, 10000), 1)}
LOADS = CPU_LOADS | GPU_LOADS
CASES = cases(CPU_LOADS, GPU_LOADS)
CONSTANTS = {"fast": (0.045, 0.033), "slow": (0.01, 0.00133)}  # of short-term and of long-term loudness
CHECKED = 4  # rows and channels that are compared with the definition
LIMITS = {"float64": 1e-12, "float32": 2e-5}


def noise(load: str, dtype: str, device: str) -> Tensor:
    """Exponential noise, as powers are: every frame may rise or fall."""
    shape, _ = LOADS[load]
    signal = torch.empty(shape, dtype=torch.float64)
    return signal.exponential_(generator=torch.Generator().manual_seed(0)).to(device, DTYPES[dtype])


def some(signals: Tensor) -> Tensor:
    """A few channels of a few rows: (rows, frames, channels)."""
    lanes = signals if signals.dim() == 3 else signals[..., None]
    return lanes[-CHECKED:, :, -CHECKED:]


def exact(signals: Tensor, constants: tuple[float, float]) -> Tensor:
    """The definition of :func:`some` of them in float64."""
    given = some(signals.detach()).double().cpu()
    attack, release = (torch.tensor(c, dtype=signals.dtype).double() for c in constants)
    return definition(given, attack, release, given.new_zeros(given[:, 0].shape))[0]


def frame_by_frame(signals: Tensor, constants: tuple[float, float]) -> Tensor:
    """What a few lines of torch do, of time along the second dimension."""
    attack, release = (signals.new_tensor(constant) for constant in constants)
    state = torch.zeros_like(signals[:, 0])
    frames = []
    for value in signals.unbind(1):
        state = state + torch.where(value > state, attack, release) * (value - state)
        frames.append(state)
    return torch.stack(frames, 1)


def conformance(dtype: str) -> Iterator[Agreement]:
    data = golden("attack_release")
    given, expected = (torch.from_numpy(data[f"am_{name}_L"]) for name in ("STL", "LTL"))
    module = Module(*CONSTANTS["slow"], dtype=DTYPES[dtype])
    error = relative_error(module(given), expected)
    yield Agreement("AttackRelease", "AMT, long-term loudness of a modulated tone", error, "of the peak")


class _Load(Load):
    params = (CASES, list(DTYPES), list(CONSTANTS))
    param_names = ("load", "dtype", "constants")
    learnable = False

    def setup(self, case: tuple[str, str], dtype: str, constants: str) -> None:
        self.device, load = case
        self.signals = noise(load, dtype, self.device)
        options = {"learnable": self.learnable, "dtype": DTYPES[dtype], "device": self.device}
        self.module = Module(*CONSTANTS[constants], LOADS[load][1], **options)
        self.expected = exact(self.signals, CONSTANTS[constants])
        require(self.error(), LIMITS[dtype], f"attack and release {case} {dtype} {constants}")
        self.signals.requires_grad_(self.learnable)
        self.ready(self.signals, *self.module.parameters())

    def error(self) -> float:
        return relative_error(some(self.forward()).mT, self.expected.mT)

    def result(self) -> Tensor:
        return self.module(self.signals)

    def inputs(self) -> int:
        if self.signals.numel() < 1 << 20:
            raise NotImplementedError("pages and caches would be measured")
        return self.signals.nbytes


class AttackRelease(_Load):
    time_forward = timing("forward")
    track_error = tracked("error", "of the peak")
    track_peak_memory = peak("forward", "inputs")


class AttackReleaseTraining(_Load):
    """Forward and backward to the signals and the constants."""

    learnable = True

    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_peak_memory = peak("training_step", "inputs")


class AttackReleaseGrowth(Load):
    """Time of four times as many frames, divided by four: 1 where time is proportional to the frames."""

    params = (["cpu"], list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        self.many = noise("2 x 10000 x 150", dtype, device)
        self.module = Module(*CONSTANTS["fast"], 1, dtype=DTYPES[dtype])
        error = relative_error(some(self.module(self.many)).mT, exact(self.many, CONSTANTS["fast"]).mT)
        require(error, LIMITS[dtype], f"attack and release {dtype}")

    def growth(self) -> float:
        few, many = best_times(*(partial(self.module, x) for x in (self.many[:, :2500], self.many)))
        return many / few / 4

    track_growth = tracked("growth", "x")


class AttackReleaseAgainstALoop(Load):
    """Time over that of :func:`frame_by_frame`."""

    params = ([("cpu", "2 x 1000 x 150"), ("cpu", "2 x 1000")], list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.signals = noise(load, dtype, self.device)
        self.module = Module(*CONSTANTS["fast"], 1, dtype=DTYPES[dtype])
        expected = exact(self.signals, CONSTANTS["fast"])
        for function in (self.result, self.looped):
            require(relative_error(some(function()).mT, expected.mT), LIMITS[dtype], f"{case} {dtype}")

    def result(self) -> Tensor:
        return self.module(self.signals)

    def looped(self) -> Tensor:
        return frame_by_frame(self.signals, CONSTANTS["fast"])

    track_time_over_loop = over("looped")
