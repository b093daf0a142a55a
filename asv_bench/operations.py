"""The operations with Triton kernels at their reference loads: one table for the census and for measurements.

The loads are those of the benchmarks' GPUs, in float32. Operands are made on any device, ``meta`` included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asv_bench.benchmarks.iir import sections
from asv_bench.benchmarks.windowed_dft import BANDS, HOP, SIZE
from tamt import DRNLFilterbank
from tamt.design.sections import biquad_sections
from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.ops.fft_drnl import fft_length, ir_spectra
from tamt.ops.windowed_dft import dft_tables
from tamt.reference import broken_stick, compaction, drnl, fft_drnl, iir, roex, spreading, windowed_dft
from tamt.triton_kernels import broken_stick as broken_stick_kernels
from tamt.triton_kernels import compaction as compaction_kernels
from tamt.triton_kernels import drnl as drnl_kernels
from tamt.triton_kernels import fft_drnl as fft_drnl_kernels
from tamt.triton_kernels import iir as iir_kernels
from tamt.triton_kernels import roex as roex_kernels
from tamt.triton_kernels import spreading as spreading_kernels
from tamt.triton_kernels import windowed_dft as windowed_dft_kernels

FS, CHANNELS, LENGTH = 44100, 50, 4 * 44100  # of the DRNL's loads
LEVEL = 0.01  # at which both branches of the broken stick are taken
Operands = tuple[Any, ...]


class Pass(NamedTuple):
    """Forward or backward."""

    launcher: Callable[..., Any]
    reference: Callable[..., Any]


class Operation(NamedTuple):
    load: str
    rows: int
    operands: Callable[[int, str], Operands]  # of so many rows, on a device
    forward: Pass
    backward: Pass | None = None
    # Operands of backward, from the gradients of the outputs, the outputs and the operands of forward.
    given: Callable[[list[Tensor], list[Tensor], Operands], Operands] = lambda grads, outputs, operands: (
        *grads,
        *operands,
    )
    limit: float = 1e-4  # error of float32 relative to float64, in the norm of each output


def passes(operation: Operation, device: str, rows: int) -> Iterator[tuple[str, Pass, Operands]]:
    """Direction, functions and operands of forward and then backward, which needs what forward gave."""
    torch.manual_seed(0)
    operands = operation.operands(rows, device)
    yield "forward", operation.forward, operands
    if operation.backward:
        outputs = tensors(operation.forward.launcher(*operands))
        yield "backward", operation.backward, operation.given([torch.randn_like(t) for t in outputs], outputs, operands)


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


def iir_operation(
    load: str,
    coef: Callable[[], Tensor],
    kind: str,
    order: int,
    rows: int,
    length: int,
    shared: bool = True,
) -> Operation:
    return Operation(
        load,
        rows,
        partial(filtering, coef, kind, order, length, shared),
        Pass(iir_kernels.iir_forward, iir.iir),
        Pass(iir_kernels.iir_backward, iir.iir_backward),
        lambda grads, _, operands: (*grads, *operands, True, True),
    )


A, B, C = 50.0, 0.5, 0.25  # of the broken stick


def stick(channels: int, device: str) -> Tensor:
    return torch.tensor([[A, B, C]]).repeat(channels, 1).to(device)


def stick_operands(channels: int, length: int, rows: int, device: str) -> Operands:
    """No sample lies so close to the knee that rounding decides on its side.

    One such sample of a million moves a gradient that sums over all by more than all that is rounded.
    """
    v, knee = noise(rows, channels, length, device=device), (A / B) ** (1 / (C - 1))
    return v.mul_(1 + 1e-3 * ((v.abs() / knee - 1).abs() < 1e-4)), stick(channels, device)


def drnl_operands(channels: int, length: int, rows: int, device: str) -> Operands:
    filters = [drnl_cascade(path, channels).float().to(device) for path in range(3)]
    states = [noise(rows, channels, coef.shape[1] // 3, device=device) for coef in filters]
    return noise(rows, length, device=device), *filters, stick(channels, device), *states


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


ROEX = "16000 frames of 950 components"
DRNL_LOAD = f"32 x 4 s at {FS} Hz, {CHANNELS} channels"
PER_CHANNEL = f"{DRNL_LOAD}, a signal each"


def operations(most_samples: int = 320000, most_channels: int = 64) -> dict[str, Operation]:
    """The table, which a rehearsal wants with short signals and few channels."""
    channels, length = min(most_channels, CHANNELS), min(most_samples, LENGTH)
    gammatones = min(most_channels, 64)
    return {
        "gammatone": iir_operation(
            "32 x 10 s at 16000 Hz, 64 channels",
            partial(cascade, 4, False, gammatones),
            "onepole",
            4,
            32,
            min(most_samples, 160000),
        ),
        "allpole": iir_operation(DRNL_LOAD, partial(cascade, 4, True, channels), "allpole", 4, 32, length),
        "biquads": iir_operation(DRNL_LOAD, partial(biquads, channels), "biquad", 4, 32, length),
        "modal": iir_operation(DRNL_LOAD, partial(drnl_cascade, 0, channels), "modal", 6, 32, length),
        "modal per channel": iir_operation(
            PER_CHANNEL, partial(drnl_cascade, 2, channels), "modal", 3, 32, length, shared=False
        ),
        "broken stick": Operation(
            PER_CHANNEL,
            32,
            partial(stick_operands, channels, length),
            Pass(broken_stick_kernels.broken_stick, broken_stick.broken_stick),
            Pass(broken_stick_kernels.broken_stick_backward, broken_stick.broken_stick_backward),
        ),
        # Its backward is made of those of modal cascades and the broken stick.
        "drnl": Operation(DRNL_LOAD, 32, partial(drnl_operands, channels, length), Pass(drnl_kernels.drnl, drnl.drnl)),
        "fft drnl": Operation(
            f"{DRNL_LOAD}, impulse responses of 4096",
            32,
            partial(fft_drnl_operands, channels, length),
            Pass(fft_drnl_kernels.fft_drnl, fft_drnl.fft_drnl),
            Pass(fft_drnl_kernels.fft_drnl_backward, fft_drnl.fft_drnl_backward),
            lambda grads, _, operands: (*grads, *operands, True),
            # Rounding may put a sample on the other side of the knee, where its gradient is another one.
            5e-2,
        ),
        "windowed dft": Operation(
            f"32 x 10 s at 32000 Hz, a frame per {HOP} samples",
            32,
            partial(windowed_dft_operands, max(SIZE + HOP, min(most_samples, 320000))),
            Pass(windowed_dft_kernels.windowed_dft, windowed_dft.windowed_dft),
            Pass(windowed_dft_kernels.windowed_dft_backward, windowed_dft.windowed_dft_backward),
            lambda grads, _, operands: (*grads, *operands, True, True),
        ),
        **{
            f"compaction to {count}": Operation(
                f"300000 frames of 960 components, room for {count}",
                300000,
                partial(compaction_operands, count),
                Pass(compaction_kernels.compaction, compaction.compaction),
                Pass(compaction_kernels.compaction_backward, compaction.compaction_backward),
                lambda grads, _, operands: (grads[1], *operands),
            )
            for count in (960, 400)
        },
        "spreading": Operation(
            "1000000 frames of 150 channels",
            1000000,
            spreading_operands,
            Pass(spreading_kernels.spreading, spreading.spreading),
            Pass(spreading_kernels.spreading_backward, spreading.spreading_backward),
            lambda grads, outputs, operands: (*grads, *operands[:2], *outputs, *operands[2:]),
        ),
        "roex level": Operation(
            ROEX,
            16000,
            lambda rows, device: (*spectrum(rows, device), math.inf),
            Pass(roex_kernels.power_per_erb, roex.power_per_erb),
            Pass(roex_kernels.power_per_erb_backward, roex.power_per_erb_backward),
        ),
        "roex excitation": Operation(
            f"{ROEX}, 150 channels",
            16000,
            excitation_operands,
            Pass(roex_kernels.excitation, roex.excitation),
            Pass(roex_kernels.excitation_backward, roex.excitation_backward),
        ),
    }


OPERATIONS = operations()
