"""The operations with Triton kernels, each named once, at its reference load: for the census and for measurements.

The loads are those of the benchmarks' GPUs, in float32. Operands are made on any device, ``meta`` included. What is not
said here is what an operator was registered with: its passes, their launchers and references, and what backward takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asv_bench.benchmarks.iir import sections
from asv_bench.benchmarks.windowed_dft import BANDS, HOP, SIZE
from tamt import DRNLFilterbank
from tamt.design.sections import biquad_sections
from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.ops._operator import operators
from tamt.ops.fft_drnl import fft_length, ir_spectra
from tamt.ops.windowed_dft import dft_tables

FS, CHANNELS, LENGTH = 44100, 50, 4 * 44100  # of the DRNL's loads
LEVEL = 0.01  # at which both branches of the broken stick are taken
Operands = tuple[Any, ...]


class Pass(NamedTuple):
    """Forward or backward."""

    launcher: Callable[..., Any]
    reference: Callable[..., Any]


@dataclass(frozen=True)
class Operation:
    """The operator ``tamt::operator`` at a load of so many ``rows``, whose operands are made on a device."""

    operator: str
    load: str
    rows: int
    operands: Callable[[int, str], Operands]
    limit: float = 1e-4  # error of float32 relative to float64, in the norm of each output
    priority: int = 99  # what is measured first, so that a cut-off takes the others

    @property
    def directions(self) -> tuple[str, ...]:
        """Those that have kernels."""
        launched = {name for name, operator in operators.items() if operator.launcher is not None}
        return tuple(direction for direction, name in self._operators.items() if name in launched)

    @property
    def _operators(self) -> dict[str, str]:
        return {"forward": self.operator, "backward": f"{self.operator}_backward"}

    def one_pass(self, direction: str) -> Pass:
        """Launcher and reference; imports triton."""
        registered = operators[self._operators[direction]]
        return Pass(registered.launched_function, registered.forward)

    def given(self, grads: list[Tensor], outputs: list[Tensor], operands: Operands) -> Operands:
        """What the backward pass takes, every gradient of it being needed."""
        forward, backward = (operators[name].signature for name in self._operators.values())
        prefix = "grad" if len(forward.results) == 1 else "grad_"
        suffixes = [""] if len(forward.results) == 1 else forward.results
        known = dict(zip((name for _, name in forward.arguments), operands, strict=True))
        known |= dict(zip(forward.results, outputs, strict=True))
        known |= {prefix + suffix: grad for suffix, grad in zip(suffixes, grads, strict=True)}
        return tuple(name.startswith("need_") or known[name] for _, name in backward.arguments)


def passes(operation: Operation, device: str, rows: int, launched: bool = True) -> Iterator[tuple[str, Pass, Operands]]:
    """Direction, functions and operands of forward and then backward, which needs what forward gave.

    That is by the kernels, or if it is not ``launched`` by the reference.
    """
    torch.manual_seed(0)
    operands = operation.operands(rows, device)
    functions = operation.one_pass("forward")
    yield "forward", functions, operands
    if "backward" in operation.directions:
        outputs = functions.launcher(*operands) if launched else functions.reference(*operands)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        grads = [torch.randn_like(t) for t in outputs]
        yield "backward", operation.one_pass("backward"), operation.given(grads, outputs, operands)


def tensors(tree: Any) -> list[Tensor]:
    """The tensors among operands or results, those without elements left out."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.numel()]


def noise(*shape: int, device: str) -> Tensor:
    return LEVEL * torch.randn(shape, device=device)


def filtering(
    coef: Callable[[], Tensor], kind: str, order: int, length: int, shared: bool, rows: int, device: str
) -> Operands:
    """Signal, coefficients and a state other than rest."""
    given = coef().float().to(device)
    channels = given.shape[0]
    signal = noise(rows, 1 if shared else channels, length, device=device)
    return signal, given, noise(rows, channels, 2 * order, device=device), kind, order


def cascade(order: int, feedback: bool, channels: int) -> Tensor:
    """One-pole cascades, a little faster than those of auditory filters where there is feedback."""
    decay = torch.linspace(0.01, 0.3, channels, dtype=torch.float64)
    cycles = torch.linspace(-0.4, -0.005, channels, dtype=torch.float64)
    high, gain = cycles.float().double(), (-torch.expm1(-decay)) ** order
    coef = torch.stack((decay, high, cycles - high, gain, torch.zeros_like(gain)), 1)
    weights = 0.02 * (-torch.expm1(-decay))[:, None, None] ** torch.arange(1, order + 1)[:, None].expand(-1, 2)
    return torch.cat((coef, weights.flatten(1)), 1) if feedback else coef


def biquads(channels: int) -> Tensor:
    return biquad_sections(torch.from_numpy(sections()[:channels])).sections.flatten(1)


def drnl_cascade(path: int, channels: int) -> Tensor:
    """Sections of the linear path, or of the nonlinear one before or after the broken stick."""
    return DRNLFilterbank((250, 8000), FS, channels)._sections()[path].flatten(1)


A, B, C = 50.0, 0.5, 0.25  # of the broken stick


def stick(channels: int, device: str) -> Tensor:
    return torch.tensor([[A, B, C]]).repeat(channels, 1).to(device)


def stick_operands(channels: int, length: int, rows: int, device: str) -> Operands:
    """No sample lies so close to the knee that rounding decides on its side.

    One such sample of a million moves a gradient that sums over all by more than all that is rounded.
    """
    v, knee = noise(rows, channels, length, device=device), (A / B) ** (1 / (C - 1))
    return v.mul_(1 + 1e-3 * ((v.abs() / knee - 1).abs() < 1e-4)), stick(channels, device)


def framed(hop: int, detector: str, channels: int, length: int, rows: int, device: str) -> Operands:
    """Signal, gammatones, a state other than rest, and how to frame what they give."""
    coef, state = cascade(4, False, channels).float().to(device), noise(rows, channels, 8, device=device)
    return noise(rows, length, device=device), coef, state, "onepole", 4, hop, detector


def drnl_operands(channels: int, length: int, rows: int, device: str) -> Operands:
    filters = [drnl_cascade(path, channels).float().to(device) for path in range(3)]
    states = [noise(rows, channels, coef.shape[1] // 3, device=device) for coef in filters]
    return noise(rows, length, device=device), *filters, stick(channels, device), *states


def drnl_framed(hop: int, detector: str, channels: int, length: int, rows: int, device: str) -> Operands:
    return *drnl_operands(channels, length, rows, device), hop, detector


def fft_drnl_operands(channels: int, length: int, rows: int, device: str) -> Operands:
    memory = 4095
    time = torch.arange(memory + 1)
    impulses = torch.exp(-time / 400) * torch.cos(time * torch.linspace(0.03, 1, channels)[:, None])
    spectra = ir_spectra((impulses / fft_length(1)).expand(3, -1, -1)).to(device)
    past = noise(rows, memory, device=device), noise(rows, channels, memory, device=device)
    return noise(rows, length, device=device), spectra, stick(channels, device), *past


def windowed_dft_operands(length: int, rows: int, device: str) -> Operands:
    lengths, first, last = (list(column) for column in zip(*BANDS, strict=True))
    weight = torch.ones(sum(b - a + 1 for a, b in zip(first, last, strict=True)), device=device)
    signal, tables = noise(rows, length, device=device), dft_tables(BANDS, SIZE, device=device)
    return signal, tables, weight, lengths, first, last, HOP, SIZE


def compaction_operands(count: int, rows: int, device: str) -> Operands:
    """Nine tenths of the components are relevant."""
    intensity = 10 ** (6 * torch.rand(rows, 960, device=device) - 3)
    frequencies = 15.625 * torch.arange(1.0, 961, device=device)
    return intensity, frequencies, torch.full((rows,), 10**-2.4, device=device), count, count < 960


def spectrum(rows: int, device: str) -> tuple[Tensor, Tensor]:
    """Frequencies in Hz, in order, and intensities over 60 dB."""
    freqs = 15.625 + 14984 * torch.rand(rows, 950, device=device)
    return freqs.sort(1).values, 10 ** (6 * torch.rand(rows, 950, device=device))


def excitation_operands(rows: int, device: str) -> Operands:
    module = Moore2016ExcitationPattern()
    channels = module.fc_channels.float().to(device), module.p_channels.float().to(device)
    freqs, intensity = spectrum(rows, device)
    return freqs, intensity, 0.2 + torch.rand(rows, 950, device=device), *channels, math.inf


def spreading_operands(rows: int, device: str) -> Operands:
    slopes = torch.tensor([27.0, 11.0, 0.37, 0.2, 60.0]).to(device)
    return 100 * torch.rand(rows, 150, device=device), slopes, 0.25


def attack_release_operands(frames: int, rows: int, device: str) -> Operands:
    """Specific loudness of noise, a frame a millisecond, by the constants of short-term loudness."""
    constants = torch.tensor(0.045, device=device), torch.tensor(0.033, device=device)
    return torch.rand(rows, frames, 150, device=device), *constants, torch.rand(rows, 150, device=device)


ROEX = "16000 frames of 950 components"
DRNL_LOAD = f"32 x 4 s at {FS} Hz, {CHANNELS} channels"
PER_CHANNEL = f"{DRNL_LOAD}, a signal each"


def operations(most_samples: int = 320000, most_channels: int = 64) -> dict[str, Operation]:
    """The table, which a rehearsal wants with short signals and few channels."""
    channels, length = min(most_channels, CHANNELS), min(most_samples, LENGTH)
    gammatones = min(most_channels, 64)

    def iir(load: str, coef: Callable[[], Tensor], kind: str, order: int, **more: Any) -> Operation:
        options = {"length": length, "shared": True, "priority": 99} | more
        operands = partial(filtering, coef, kind, order, options["length"], options["shared"])
        return Operation("iir", load, 32, operands, priority=options["priority"])

    def compacted(count: int) -> Operation:
        load = f"300000 frames of 960 components, room for {count}"
        return Operation("compaction", load, 300000, partial(compaction_operands, count))

    def fitting(hop: int) -> int:
        return min(hop, most_samples // 3)  # a short signal has hops, too, and samples after the last

    def cochleagram(hop: int, detector: str, priority: int) -> Operation:
        load = f"32 x 10 s at 16000 Hz, {gammatones} channels, hop {hop}, {detector}"
        operands = partial(framed, fitting(hop), detector, gammatones, min(most_samples, 160000))
        return Operation("filter_frames", load, 32, operands, priority=priority)

    return {
        "gammatone": iir(
            "32 x 10 s at 16000 Hz, 64 channels",
            partial(cascade, 4, False, gammatones),
            "onepole",
            4,
            length=min(most_samples, 160000),
            priority=1,
        ),
        "cochleagram": cochleagram(160, "power", 1),
        "cochleagram of envelopes": cochleagram(441, "envelope", 8),
        "allpole": iir(DRNL_LOAD, partial(cascade, 4, True, channels), "allpole", 4),
        "biquads": iir(DRNL_LOAD, partial(biquads, channels), "biquad", 4),
        "modal": iir(DRNL_LOAD, partial(drnl_cascade, 0, channels), "modal", 6),
        "modal per channel": iir(PER_CHANNEL, partial(drnl_cascade, 2, channels), "modal", 3, shared=False),
        "broken stick": Operation("broken_stick", PER_CHANNEL, 32, partial(stick_operands, channels, length)),
        "drnl": Operation("drnl", DRNL_LOAD, 32, partial(drnl_operands, channels, length), priority=2),
        "drnl cochleagram": Operation(
            "drnl_frames",
            f"{DRNL_LOAD}, hop 441, power",
            32,
            partial(drnl_framed, fitting(441), "power", channels, length),
            priority=2,
        ),
        "fft drnl": Operation(
            "fft_drnl",
            f"{DRNL_LOAD}, impulse responses of 4096",
            32,
            partial(fft_drnl_operands, channels, length),
            # Rounding may put a sample on the other side of the knee, where its gradient is another one.
            limit=5e-2,
            priority=3,
        ),
        "fft drnl cochleagram": Operation(
            "fft_drnl_frames",
            f"{DRNL_LOAD}, impulse responses of 4096, hop 441, power",
            32,
            lambda rows, device: (*fft_drnl_operands(channels, length, rows, device), fitting(441), "power"),
            limit=5e-2,
            priority=8,
        ),
        "windowed dft": Operation(
            "windowed_dft",
            f"32 x 10 s at 32000 Hz, a frame per {HOP} samples",
            32,
            partial(windowed_dft_operands, max(SIZE + HOP, min(most_samples, 320000))),
            priority=7,
        ),
        "compaction to 960": compacted(960),
        "compaction to 400": compacted(400),
        "spreading": Operation("spreading", "1000000 frames of 150 channels", 1000000, spreading_operands, priority=4),
        "attack and release": Operation(
            "attack_release",
            "32 x 10 s of 150 channels, a frame per millisecond",
            32,
            partial(attack_release_operands, min(most_samples, 10000)),
            priority=5,
        ),
        "roex level": Operation(
            "roex_level", ROEX, 16000, lambda rows, device: (*spectrum(rows, device), math.inf), priority=6
        ),
        "roex excitation": Operation(
            "roex_excitation", f"{ROEX}, 150 channels", 16000, excitation_operands, priority=5
        ),
    }


OPERATIONS = operations()
