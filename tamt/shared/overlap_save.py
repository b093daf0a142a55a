"""Overlap-save: a walk over a signal in blocks of ``N`` samples that begin with the ``M - 1`` before their new ones.

A filter of ``M`` samples, applied to a block by transforms of ``N``, is right in the block's ``hop = N - (M - 1)`` new
samples. Blocks are worked on in groups, consecutive blocks of some rows. The backward pass goes from the last group to
the first: what a group's gradient reaches before its own start it carries to the group before, and at the signal's
start that is the gradient of the history. So no temporary grows with the signal.

Blocks of signals (B, ..., T) are (R, G, ..., N), for R rows and G blocks of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import flush
from tamt.shared.nonfinite import fill_from_, filled_from, first_bad, silenced

SLICE = 4 << 20  # bytes of all blocks in work on a CPU: enough transforms per call, which has a price of its own
# Of temporaries on a GPU. A group has 6 launches and 4 transforms, 0.15 ms of the host, and is expected to take an H200
# 20 ps a sample: four times as long in 1 GiB, that is 128 MiB of each tensor.
BYTES = 1 << 30
TEMPORARIES = 8  # at most as many tensors of all blocks in work live at a time there, cuFFT's own included


class Group(NamedTuple):
    """Consecutive blocks of some rows, and the slices of channels in which they are worked on."""

    rows: slice
    start: int  # first new sample
    end: int
    lengths: list[int]  # new samples of each block: ``hop``, in a signal's last block perhaps fewer
    channels: list[slice]


def groups(shape: torch.Size, hop: int, size: int, samples: int) -> Iterator[list[Group]]:
    """For each slice of rows its groups, first to last, of about ``samples`` samples in work at a time.

    All channels of a block come before a second block, and all blocks before a second row.
    """
    batch, channels, length = shape
    transforms = max(1, samples // size)
    parts = -(-channels // transforms)
    per_part = -(-channels // max(1, parts))
    blocks = -(-length // hop)
    together = max(1, transforms // max(1, per_part))
    rows = max(1, together // max(1, blocks))
    slices = [slice(f, min(f + per_part, channels)) for f in range(0, channels, max(1, per_part))]
    for b in range(0, batch, rows):
        yield [
            Group(
                slice(b, min(b + rows, batch)),
                start,
                end := min(start + together * hop, length),
                [min(hop, end - t) for t in range(start, end, hop)],
                slices,
            )
            for start in range(0, length, together * hop)
        ]


def signal_blocks(x: Tensor, past: Tensor, group: Group, size: int) -> Tensor:
    """A group's blocks (R, G, ..., N) of the signal (B, ..., T) with ``past`` (B, ..., M - 1) before it."""
    memory = past.shape[-1]
    hop = size - memory
    known = x[group.rows, ..., max(0, group.start - memory) : group.end]
    signal = flush(torch.cat((past[group.rows, ..., group.start :], known), -1))
    missing = len(group.lengths) * hop - (group.end - group.start)
    return pad(signal, (0, missing)).unfold(-1, size, hop).movedim(-2, 1)


def block_spectra(x: Tensor, past: Tensor, group: Group, size: int) -> Tensor:
    """Spectra (R, G, ..., N/2+1) of :func:`signal_blocks`."""
    return torch.fft.rfft(signal_blocks(x, past, group, size))


def new_samples(grad_y: Tensor, group: Group, hop: int) -> Tensor:
    """New samples (R, G, ..., hop) of a group's blocks of the gradient (R, ..., T), zeros behind its last."""
    count = len(group.lengths)
    new = flush(grad_y[..., group.start : group.end])
    return pad(new, (0, count * hop - new.shape[-1])).unflatten(-1, (count, hop)).movedim(-2, 1)


def grad_blocks(grad_y: Tensor, group: Group, memory: int, size: int) -> Tensor:
    """:func:`new_samples` in their places: blocks (R, G, ..., N) that begin with zeros."""
    return pad(new_samples(grad_y, group, size - memory), (memory, 0))


def put_new(new: Tensor, group: Group, y: Tensor) -> None:
    """New samples (R, G, ..., hop) of a group's blocks to their places in the output (R, ..., T)."""
    hop = new.shape[-1]
    whole = (group.end - group.start) // hop
    middle = group.start + whole * hop
    y[..., group.start : middle].unflatten(-1, (whole, hop)).copy_(new[:, :whole].movedim(1, -2))
    if middle < group.end:
        y[..., middle : group.end] = new[:, whole, ..., : group.end - middle]


def add_overlapping(blocks: Tensor, group: Group, grad_x: Tensor, carry: Tensor) -> None:
    """Write a group's part of ``grad_x`` (B, ..., T) from blocks (R, G, ..., N) of it, which reach over each other.

    ``carry`` (B, ..., M - 1), what the group after this one reaches here, becomes what this one reaches before itself.
    """
    memory, count, size = carry.shape[-1], blocks.shape[1], blocks.shape[-1]
    hop, length = size - memory, group.end - group.start
    blocks = blocks.movedim(1, -2)
    overlaps = -(-size // hop)
    total = blocks.new_zeros(*blocks.shape[:-2], (count + overlaps - 1) * hop)
    for i in range(0, overlaps * hop, hop):
        part = blocks[..., i : i + hop]
        total[..., i : i + count * hop].unflatten(-1, (count, hop))[..., : part.shape[-1]] += part
    total[..., length : length + memory] += carry[group.rows]
    carry[group.rows] = total[..., :memory]
    grad_x[group.rows, ..., group.start : group.end] = total[..., memory : memory + length]


def next_past(past: Tensor, x: Tensor) -> Tensor:
    """The last ``M - 1`` samples of the signal (B, ..., T) and what was before it."""
    memory, length = past.shape[-1], x.shape[-1]
    return torch.cat((past[..., min(length, memory) :], x[..., max(0, length - memory) :]), -1)


def fft_length(ir_length: int) -> int:
    """Length of the transforms for impulse responses of ``ir_length`` samples."""
    if ir_length < 1:
        raise ValueError(f"ir_length must be at least 1, got {ir_length}")
    return max(1024, 1 << (4 * ir_length - 1).bit_length())


def complex_spectra(spectra: Tensor) -> tuple[Tensor, ...]:
    """Real and imaginary parts (P, F, N/2+1, 2) as P complex spectra (F, N/2+1)."""
    return tuple(torch.view_as_complex(s.contiguous()) for s in spectra.unbind(0))


def fitting_spectra(spectra: Tensor, samples: int) -> tuple[int, tuple[Tensor, ...]]:
    """Length of the transforms for blocks of up to ``samples`` samples, history included, and their spectra.

    A short chunk takes transforms of half the length, a quarter and so on while it fits in: every second line of a
    spectrum is that of the same response in half as many samples.
    """
    size = whole = 2 * (spectra.shape[2] - 1)
    while size % 4 == 0 and size // 2 >= samples:
        size //= 2
    return size, tuple(s[:, :: whole // size] for s in complex_spectra(spectra))


class Bad(NamedTuple):
    """Where NaN is to be written: sample numbers, T where nowhere."""

    rows: Tensor  # (B,), from here on in the signal
    channels: Tensor  # (B, F), from here on in the output


def split_bad(x: Tensor, past_x: Tensor, past_w: Tensor) -> tuple[Bad, Tensor, Tensor, Tensor]:
    """What is not finite in the operands, and the operands without it.

    A transform spreads a NaN over its block, earlier samples included, so blocks hold zeros from a row's first sample
    on that is not finite, and NaN is written there afterwards.
    """
    rows = first_bad(x).masked_fill((~past_x.isfinite()).any(1), 0)
    channels = rows[:, None].masked_fill((~past_w.isfinite()).any(2), 0)
    return Bad(rows, channels), filled_from(x, rows, 0), silenced(past_x), silenced(past_w)


def mark_bad(bad: Bad, length: int, last_x: Tensor, last_w: Tensor) -> None:
    """Write NaN to the final state of a signal of ``length`` samples."""
    before = length - last_x.shape[1]
    fill_from_(last_x, bad.rows - before, torch.nan)
    fill_from_(last_w, bad.channels - before, torch.nan)
