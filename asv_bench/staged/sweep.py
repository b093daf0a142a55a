"""Other sizes for kernels whose figure is missed: each is checked against the present one, then timed.

A trial changes three kinds of things: options of a kernel's launches by the kernel's name (warps, stages, constants on
which no grid depends), constants of modules in :mod:`tamt.triton_kernels` by ``"module.NAME"`` (those on which grids
depend), and the engine's ``Tiling``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from triton.runtime.jit import JITFunction

from asv_bench.kernels.machine_code import compiling
from asv_bench.kernels.times import difference, measured
from asv_bench.operations import OPERATIONS
from tamt.triton_kernels.filter_frames import Slices
from tamt.triton_kernels.iir import Tiling

from .device import Device
from .operators import one_pass, operation
from .rows import Rows

KERNELS = "tamt.triton_kernels"


class Trial(NamedTuple):
    """What is changed; nothing is the present configuration."""

    options: dict[str, Any] = {}  # of launches of the kernel
    constants: dict[str, Any] = {}  # of modules, by "module.NAME"
    tiling: Tiling | None = None

    def more(self) -> list[Tiling]:
        """What the launcher is given beside the operands."""
        return [self.tiling] if self.tiling else []

    def line(self) -> str:
        """To paste."""
        values = {**self.options, **self.constants} | ({"tiling": self.tiling} if self.tiling else {})
        return ", ".join(f"{name}={value}" for name, value in values.items()) or "as it is"


class Sweep(NamedTuple):
    """A kernel in a pass of an operation, the figures it decides, and what to try."""

    operation: str
    direction: str
    kernel: str
    figures: tuple[str, ...]
    trials: list[Trial]


def grid(**choices: tuple[Any, ...]) -> list[Trial]:
    """All combinations of options of a launch."""
    return [Trial(dict(zip(choices, values, strict=True))) for values in product(*choices.values())]


def constants(module: str, *choices: dict[str, Any]) -> list[Trial]:
    """Some combinations of constants of a module."""
    return [Trial(constants={f"{module}.{name}": value for name, value in choice.items()}) for choice in choices]


def tiles(rows: int, columns: int, step: int, warps: int, stages: int) -> dict[str, Any]:
    names = ("END_ROWS", "END_COLUMNS", "END_STEP", "END_WARPS", "END_STAGES")
    return dict(zip(names, (rows, columns, step, warps, stages), strict=True))


TILINGS = [Trial(tiling=Tiling(*sizes)) for sizes in ((128, 32), (320, 32), (512, 32), (512, 16), (1024, 16))]
GAMMATONE = ("gammatone 32 x 10 s x 64, forward",)
TRAINING = ("gammatone 32 x 10 s x 64, learnable, forward and backward",)
COCHLEAGRAM = ("cochleagram 32 x 10 s x 64, power, forward",)
COCHLEAGRAM_TRAINING = ("cochleagram 32 x 10 s x 64, power, learnable, forward and backward",)
DRNL = ("DRNL 32 x 4 s x 50 at 44.1 kHz, forward",)
SPECTRUM = ("Moore2016Spectrum, 16 stereo x 10 s",)
PATTERN = ("ExcitationPattern, 1000000 frames",)
ROEX = ("Moore2016ExcitationPattern, 16000 frames of 950",)
WARPS = (1, 2, 4, 8)
SWEEPS = {
    "tiling": Sweep("gammatone", "forward", "iir_forward_kernel", GAMMATONE, TILINGS),
    "forward": Sweep("gammatone", "forward", "iir_forward_kernel", GAMMATONE, grid(num_stages=(1, 2))),
    "end states": Sweep(
        "gammatone",
        "forward",
        "iir_end_state_kernel",
        GAMMATONE,
        constants(
            "iir.launch",
            tiles(64, 64, 32, 4, 1),
            tiles(64, 64, 32, 4, 2),
            tiles(64, 64, 64, 4, 2),
            tiles(128, 64, 32, 4, 2),
            tiles(64, 128, 32, 4, 2),
            tiles(128, 64, 32, 8, 2),
            tiles(128, 128, 32, 8, 2),
            tiles(64, 128, 32, 4, 3),
        ),
    ),
    "adjoint": Sweep("gammatone", "backward", "iir_adjoint_kernel", TRAINING, grid(num_stages=(1, 2))),
    "gradient": Sweep(
        "modal",
        "backward",
        "iir_gradient_kernel",
        (),
        constants(
            "iir.launch",
            {"GRADIENT_BQ": 16},
            {"GRADIENT_BQ": 16, "GRADIENT_WARPS": 8},
            {"GRADIENT_BQ": 32, "GRADIENT_WARPS": 8},
            {"GRADIENT_BQ": 32, "GRADIENT_STAGES": 2},
            {"GRADIENT_PROGRAMS": 2048},
        ),
    ),
    "scan": Sweep("gammatone", "forward", "iir_scan_kernel", GAMMATONE, grid(num_warps=WARPS)),
    "drnl front": Sweep("drnl", "forward", "drnl_front_kernel", DRNL, grid(STEP=(8, 16), num_stages=(1, 2, 3))),
    "drnl back": Sweep("drnl", "forward", "drnl_back_kernel", DRNL, grid(STEP=(8, 16), num_stages=(1, 2, 3))),
    "drnl frames": Sweep(
        "drnl cochleagram",
        "forward",
        "drnl_frames_kernel",
        (),
        constants(
            "drnl_frames",
            *({"CHUNK": megabytes << 20} for megabytes in (24, 64, 256, 512)),
            *({"CHUNK": 128 << 20, "SUPERBLOCK": superblock} for superblock in (128, 320)),
        ),
    ),
    "cochleagram": Sweep(
        "cochleagram",
        "forward",
        "filter_frames_kernel",
        COCHLEAGRAM,
        constants("filter_frames.forward", *({"STATES": megabytes << 20} for megabytes in (12, 48, 96))),
    ),
    "cochleagram backward": Sweep(
        "cochleagram",
        "backward",
        "filter_frames_adjoint_kernel",
        COCHLEAGRAM_TRAINING,
        constants(
            "filter_frames.backward",
            *({"SLICES": Slices(states=megabytes << 20)} for megabytes in (96, 192)),
            {"SLICES": Slices(superblock=256, memory=32 << 20)},
        ),
    ),
    "fft drnl": Sweep(
        "fft drnl",
        "forward",
        "fft_drnl",
        ("FastDRNL over the same composition of torch",),
        [Trial(constants={"fft_drnl.BYTES": megabytes << 20}) for megabytes in (256, 512, 2048, 4096)],
    ),
    "windowed dft": Sweep(
        "windowed dft",
        "forward",
        "windowed_dft_kernel",
        SPECTRUM,
        constants(
            "windowed_dft",
            {"STAGES": 2},
            {"TILES": {16: (64, 32), 32: (64, 32)}},
            {"TILES": {16: (64, 32), 32: (64, 32), 64: (64, 32)}},
            {"TILES": {16: (128, 32), 32: (128, 32), 64: (128, 32)}, "WARPS": 8},
        ),
    ),
    "windowed dft backward": Sweep(
        "windowed dft",
        "backward",
        "windowed_dft_adjoint_kernel",
        SPECTRUM,
        constants(
            "windowed_dft",
            {"ADJOINT_STAGES": 2},
            {"BLOCKS": 128},
            {"BLOCKS": 128, "ADJOINT_WARPS": 8},
            {"ADJOINT_DEPTH": 64},
            {"PARTS": 1 << 24},
            {"PARTS": 1 << 27},
        ),
    ),
    "compaction": Sweep(
        "compaction to 400",
        "forward",
        "compaction_kernel",
        SPECTRUM,
        constants("compaction", *({"WARPS": {torch.float32: warps, torch.float64: 2}} for warps in (2, 4))),
    ),
    "roex level": Sweep(
        "roex level",
        "forward",
        "roex_level_kernel",
        ROEX,
        constants(
            "roex",
            {"LEVEL_TILE": (64, 32), "LEVEL_WARPS": 1},
            {"LEVEL_TILE": (64, 32), "LEVEL_WARPS": 2},
            {"LEVEL_TILE": (64, 64), "LEVEL_WARPS": 4},
        ),
    ),
    "roex level backward": Sweep(
        "roex level",
        "backward",
        "roex_level_backward_kernel",
        ROEX,
        constants(
            "roex",
            {"LEVEL_BACKWARD_TILE": (32, 32)},
            {"LEVEL_BACKWARD_TILE": (32, 32), "LEVEL_BACKWARD_WARPS": 1},
            {"LEVEL_BACKWARD_TILE": (16, 32), "LEVEL_BACKWARD_WARPS": 1},
        ),
    ),
    "roex excitation": Sweep("roex excitation", "forward", "roex_excitation_kernel", ROEX, grid(num_warps=WARPS)),
    "spreading": Sweep(
        "spreading",
        "forward",
        "spreading_kernel",
        PATTERN,
        [Trial({"num_warps": w}, {"spreading.ROWS": r}) for w in (2, 4, 8) for r in (4, 8, 16)],
    ),
}


def wanted(rows: list[dict[str, Any]]) -> list[str]:
    """The sweeps of what missed its target or has no figure, in the table's order."""
    met = {row["what"] for row in rows if row.get("met")}
    return [name for name, sweep in SWEEPS.items() if not (sweep.figures and met.issuperset(sweep.figures))]


@contextlib.contextmanager
def changed(sweep: Sweep, trial: Trial) -> Iterator[None]:
    """Inside, the kernel is launched with the trial's options, and modules have its constants."""
    run = JITFunction.run

    def instead(self: JITFunction, *args: Any, **options: Any) -> Any:
        return run(self, *args, **options | (trial.options if self.fn.__name__ == sweep.kernel else {}))

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(JITFunction, "run", instead))
        for name, value in trial.constants.items():
            module, constant = name.rsplit(".", 1)
            stack.enter_context(patch.object(importlib.import_module(f"{KERNELS}.{module}"), constant, value))
        yield


def compile_ahead(target: str, name: str, k: int) -> None:
    """The kernels of trial ``k`` into Triton's cache; see :mod:`asv_bench.staged.ahead`."""
    sweep = SWEEPS[name]
    trial = sweep.trials[k]
    one = OPERATIONS[sweep.operation]
    functions, given = one_pass(one, sweep.direction, "meta", one.rows)
    with compiling(target), changed(sweep, trial):
        functions.launcher(*given, *trial.more())


def run(name: str, device: Device, rows: Rows) -> None:
    """A row for every trial, the present configuration first, and one for the best."""
    sweep = SWEEPS[name]
    one = operation(sweep.operation, device)
    functions, given = one_pass(one, sweep.direction, device.name, device.size(one.rows, 1))
    present, times = None, {}
    for trial in [Trial(), *sweep.trials[: device.size(None, 2)]]:
        call = partial(functions.launcher, *given, *trial.more())
        with rows.guarded(f"{name}: {trial.line()}"), changed(sweep, trial):
            results = call()
            present = results if present is None else present
            wrong = difference(results, present)
            del results
            if wrong > one.limit:
                rows.add(f"{name}: {trial.line()}", error=wrong, right=False)
                continue
            seconds = device.seconds(call)
            kernels = [] if device.rehearse else [r for r in measured(call, rounds=3) if r["kernel"] == sweep.kernel]
            alone = sum(r["seconds"] * r["launches"] for r in kernels)
            times[trial.line()] = seconds
            wall = device.wall(call, 3)  # which is longer where launches take longer than their work
            rows.add(f"{name}: {trial.line()}", seconds=seconds, wall=wall, kernel=alone or None, error=wrong)
    if times:
        best = min(times, key=times.__getitem__)
        rows.add(
            f"{name}: best", paste=f"{sweep.kernel}: {best}", seconds=times[best], present=times.get(Trial().line())
        )
