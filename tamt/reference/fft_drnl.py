"""The dual-resonance nonlinear filter by FFT in plain torch. Definition and shapes: :mod:`tamt.ops.fft_drnl`.

Overlap-save, in blocks of ``N`` samples of which the first ``M - 1`` repeat the last ones of the block before. The
spectrum of a block of the signal serves all channels; each channel then takes one inverse, one forward and one inverse
transform. The backward pass is the transpose of every step, from the last block to the first: what a block's gradient
reaches before its own start is added to the block before, and at the signal's start it is the gradient of the history.
Only a slice of rows, blocks and channels is in work at a time, so no temporary grows with the signal.

A transform spreads a NaN over its block, earlier samples included, so blocks hold zeros from a row's first sample on
that is not finite, and NaN is written there afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import flush
from tamt.reference.broken_stick import broken_stick_, broken_stick_backward
from tamt.reference.broken_stick import definition as broken_stick_definition
from tamt.shared.nonfinite import fill_from_, filled_from, finite, first_bad, on_cpu, silenced

SLICE = 4 << 20  # bytes of all blocks in work: enough transforms per call, which has a price of its own


def definition(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, F, T) and final state (B, M-1), (B, F, M-1), by transforms of the whole signal."""
    memory, length = past_x.shape[1], x.shape[1]
    signal = torch.cat((past_x, x), 1)
    if past_w.shape[0] == 0 or past_w.shape[1] == 0:  # MKL transforms no empty batch; this one has its graph too
        return x[:, None] * stick[:, :1], signal[:, length:], past_w
    size = memory + max(1, length)
    responses = torch.fft.irfft(torch.view_as_complex(spectra.contiguous()))[..., : memory + 1]
    linear, front, back = torch.fft.rfft(responses, size + memory).unbind(0)

    def convolved(product: Tensor) -> Tensor:
        return torch.fft.irfft(product, size + memory)[..., memory : memory + length]

    shared = torch.fft.rfft(signal, size + memory)[:, None]
    w = torch.cat((past_w, broken_stick_definition(convolved(shared * front), stick)), 2)
    y = convolved(shared * linear + torch.fft.rfft(w, size + memory) * back)
    return y, signal[:, length:], w[..., length:]


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


def block_spectra(x: Tensor, past_x: Tensor, group: Group, size: int) -> Tensor:
    """Spectra (R, G, N/2+1) of a group's blocks of the signal, each begun by the ``M - 1`` samples before it."""
    memory = past_x.shape[1]
    hop = size - memory
    known = x[group.rows, max(0, group.start - memory) : group.end]
    signal = flush(torch.cat((past_x[group.rows, group.start :], known), 1))
    missing = len(group.lengths) * hop - (group.end - group.start)
    return torch.fft.rfft(pad(signal, (0, missing)).unfold(1, size, hop))


def next_past(past_x: Tensor, x: Tensor) -> Tensor:
    """The last ``M - 1`` samples of the signal and what was before it."""
    memory, length = past_x.shape[1], x.shape[1]
    kept = past_x[:, min(length, memory) :]
    return torch.cat((kept, x[:, max(0, length - memory) :]), 1)


def complex_spectra(spectra: Tensor) -> tuple[Tensor, ...]:
    """Linear, front and back spectra, each complex (F, N/2+1)."""
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
    """What is not finite in the operands, and the operands without it."""
    rows = first_bad(x).masked_fill((~past_x.isfinite()).any(1), 0)
    channels = rows[:, None].masked_fill((~past_w.isfinite()).any(2), 0)
    return Bad(rows, channels), filled_from(x, rows, 0), silenced(past_x), silenced(past_w)


def mark_bad(bad: Bad, length: int, last_x: Tensor, last_w: Tensor) -> None:
    """Write NaN to the final state of a signal of ``length`` samples."""
    before = length - last_x.shape[1]
    fill_from_(last_x, bad.rows - before, torch.nan)
    fill_from_(last_w, bad.channels - before, torch.nan)


def fft_drnl(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, F, T), and the last ``M - 1`` samples of the signal and of the compressed signal."""
    if x.shape[1] == 0 or (on_cpu(x) and finite(x, past_x, past_w)):
        return overlap_save(x, spectra, stick, past_x, past_w)
    bad, x, past_x, past_w = split_bad(x, past_x, past_w)
    y, last_x, last_w = overlap_save(x, spectra, stick, past_x, past_w)
    mark_bad(bad, x.shape[1], last_x, last_w)
    return fill_from_(y, bad.channels, torch.nan), last_x, last_w


def overlap_save(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`fft_drnl` of finite signals."""
    memory = past_x.shape[1]
    size, (linear, front, back) = fitting_spectra(spectra, memory + max(1, x.shape[1]))
    y = x.new_empty(x.shape[0], spectra.shape[1], x.shape[1])
    last_w = past_w.clone(memory_format=torch.contiguous_format)
    for row_groups in groups(y.shape, size - memory, size, SLICE // x.element_size()):
        for group in row_groups:
            shared = block_spectra(x, past_x, group, size)[:, :, None]
            for part in group.channels:
                w = torch.fft.irfft(shared * front[part], size)
                history = last_w[group.rows, part]
                for block, new in zip(w.unbind(1), group.lengths, strict=True):
                    block[..., :memory] = history
                    broken_stick_(block[..., memory : memory + new], stick[part])
                    block[..., memory + new :] = 0  # not compressed, it would raise the rounding of what is
                    history = block[..., new : new + memory]
                last_w[group.rows, part] = history
                product = torch.fft.rfft(w).mul_(back[part]).addcmul_(shared, linear[part])
                target, at = y[group.rows, part], group.start
                for block, new in zip(torch.fft.irfft(product, size).unbind(1), group.lengths, strict=True):
                    target[..., at : at + new] = block[..., memory : memory + new]
                    at += new
    return y, next_past(past_x, x), last_w


def fft_drnl_backward(
    grad_y: Tensor,
    grad_last_x: Tensor,
    grad_last_w: Tensor,
    x: Tensor,
    spectra: Tensor,
    stick: Tensor,
    past_x: Tensor,
    past_w: Tensor,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``stick``, ``past_x`` and ``past_w``; without ``need_x`` those of signals are empty."""
    memory = past_x.shape[1]
    size, (linear, front, back) = fitting_spectra(spectra, memory + max(1, x.shape[1]))
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_stick = torch.zeros_like(stick, memory_format=torch.contiguous_format)
    # Gradients of the M - 1 samples before what is done so far; in the end, of the history.
    carry_x = grad_last_x.clone(memory_format=torch.contiguous_format)
    carry_w = grad_last_w.clone(memory_format=torch.contiguous_format)
    for row_groups in groups(grad_y.shape, size - memory, size, SLICE // x.element_size()):
        for group in reversed(row_groups):
            shared = block_spectra(x, past_x, group, size)[:, :, None]
            # Conjugates throughout, as torch would make a copy of a conjugated factor.
            total = torch.zeros_like(shared[:, :, 0])
            for part in group.channels:
                v = torch.fft.irfft(shared * front[part], size)
                g = grad_blocks(grad_y[group.rows, part], group, memory, size)
                from_y = torch.fft.rfft(g).conj_physical_()
                w = torch.fft.irfft((from_y * back[part]).conj_physical_(), size)
                carry = carry_w[group.rows, part]
                for i, new in reversed(list(enumerate(group.lengths))):
                    block, inside = w[:, i], slice(memory, memory + new)
                    block[..., new : new + memory] += carry
                    carry.copy_(block[..., :memory])
                    grad_v, of_stick = broken_stick_backward(block[..., inside], v[:, i, :, inside], stick[part])
                    grad_stick[part] += of_stick
                    block[..., inside] = grad_v
                    block[..., :memory] = 0
                    block[..., memory + new :] = 0
                if need_x:
                    from_v = torch.fft.rfft(w).conj_physical_()
                    total += from_v.mul_(front[part]).addcmul_(from_y, linear[part]).sum(2)
            if need_x:
                add_overlapping(torch.fft.irfft(total.conj_physical_(), size), group, grad_x, carry_x)
    if not need_x:
        return x.new_empty(0), grad_stick, x.new_empty(0), carry_w
    return grad_x, grad_stick, carry_x, carry_w


def grad_blocks(grad_y: Tensor, group: Group, memory: int, size: int) -> Tensor:
    """A group's blocks (R, G, C, N) of the output's gradient (R, C, T): new samples in their places, zeros around."""
    blocks = grad_y.new_zeros(grad_y.shape[0], len(group.lengths), grad_y.shape[1], size)
    at = group.start
    for block, new in zip(blocks.unbind(1), group.lengths, strict=True):
        block[..., memory : memory + new] = flush(grad_y[..., at : at + new])
        at += new
    return blocks


def add_overlapping(blocks: Tensor, group: Group, grad_x: Tensor, carry_x: Tensor) -> None:
    """Write a group's part of ``grad_x`` from its blocks (R, G, N), and the ``carry_x`` for the group before."""
    memory, end = carry_x.shape[1], group.end
    carry = carry_x[group.rows]
    for block, new in reversed(list(zip(blocks.unbind(1), group.lengths, strict=True))):
        block[:, new : new + memory] += carry
        carry.copy_(block[:, :memory])
        grad_x[group.rows, end - new : end] = block[:, memory : memory + new]
        end -= new
