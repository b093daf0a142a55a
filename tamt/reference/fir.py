"""FIR filters in plain torch. Definition and shapes: :mod:`tamt.ops.fir`.

Overlap-save (:mod:`tamt.shared.overlap_save`) for filters of any length. On CPUs transforms are no slower than a direct
convolution already for a few taps, and several times faster in the backward pass; only the forward pass of many filters
of fewer than 64 taps on one signal is faster direct.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tamt.shared.nonfinite import fill_from_, filled_from, finite, first_bad, on_cpu, silenced
from tamt.shared.overlap_save import (
    BYTES,
    SLICE,
    TEMPORARIES,
    add_overlapping,
    block_spectra,
    fft_length,
    grad_blocks,
    groups,
    next_past,
    put_new,
)


def definition(x: Tensor, taps: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, F, T) and the last ``M - 1`` samples (B, S, M-1) of the signals, by transforms of whole signals."""
    memory, length = past.shape[2], x.shape[2]
    signal = torch.cat((past, x), 2)
    filters = taps.unflatten(0, (x.shape[1], taps.shape[0] // x.shape[1]))
    if x.shape[0] == 0:  # MKL transforms no empty batch; this one has its graph too
        return (x[:, :, None] * filters[..., :1]).flatten(1, 2), signal[..., length:]
    size = memory + max(1, length)
    product = torch.fft.rfft(signal, size)[:, :, None] * torch.fft.rfft(filters, size)
    y = torch.fft.irfft(product, size)[..., memory : memory + length]
    return y.flatten(1, 2), signal[..., length:]


def fir(x: Tensor, taps: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`definition` in blocks."""
    length, memory = x.shape[-1], past.shape[-1]
    if length == 0 or (on_cpu(x) and finite(x, past)):
        return overlap_save(x, taps, past), next_past(past, x)
    first = first_bad(x).masked_fill((~past.isfinite()).any(-1), 0)
    x, past = filled_from(x, first, 0), silenced(past)
    y, last = overlap_save(x, taps, past), next_past(past, x)
    fill_from_(last, first - (length - memory), torch.nan)
    of_channels = first[..., None].expand(*first.shape, taps.shape[0] // x.shape[1]).flatten(1)
    return fill_from_(y, of_channels, torch.nan), last


def overlap_save(x: Tensor, taps: Tensor, past: Tensor) -> Tensor:
    """Output of finite signals."""
    y = x.new_empty(x.shape[0], taps.shape[0], x.shape[2])
    memory, size, samples = past.shape[2], fitting_length(taps.shape[1], x.shape[2]), in_work(x)
    for signals, channels in fans(x.shape[1], taps.shape[0], samples // size):
        responses, target = torch.fft.rfft(taps[channels], size), y[:, channels]
        for row_groups in groups(target.shape, size - memory, size, samples):
            for group in row_groups:
                seen = block_spectra(x[:, signals], past[:, signals], group, size)
                for part in group.channels:
                    product = seen[:, :, :, None] * by_signal(responses[part], seen.shape[2])
                    new = torch.fft.irfft(product, size)[..., memory:].flatten(2, 3)
                    put_new(new, group, target[group.rows, part])
    return y


def fir_backward(
    grad_y: Tensor, grad_last: Tensor, x: Tensor, taps: Tensor, past: Tensor, need_x: bool, need_taps: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``taps`` and ``past``; empty where they are not needed, ``past`` going with ``x``."""
    grad_x = x.new_empty(x.shape if need_x else (0,))
    grad_taps = taps.new_empty(taps.shape if need_taps else (0,))
    carry = grad_last.clone(memory_format=torch.contiguous_format)
    memory, size, samples = past.shape[2], fitting_length(taps.shape[1], x.shape[2]), in_work(x)
    for signals, channels in fans(x.shape[1], taps.shape[0], samples // size):
        responses, grad = torch.fft.rfft(taps[channels], size), grad_y[:, channels]
        count = signals.stop - signals.start
        correlation = torch.zeros_like(responses)
        for row_groups in groups(grad.shape, size - memory, size, samples):
            for group in reversed(row_groups):
                # Conjugates throughout, as torch would make a copy of a conjugated factor.
                seen = block_spectra(x[:, signals], past[:, signals], group, size) if need_taps else None
                reached = None
                for part in group.channels:
                    given = torch.fft.rfft(grad_blocks(grad[group.rows, part], group, memory, size))
                    given = by_signal(given.conj_physical_(), count)
                    if need_x:
                        products = (given * by_signal(responses[part], count)).sum(3)
                        reached = products if reached is None else reached.add_(products)
                    if seen is not None:
                        correlation[part] += given.mul_(seen[:, :, :, None]).sum((0, 1)).flatten(0, 1)
                if reached is not None:
                    blocks = torch.fft.irfft(reached.conj_physical_(), size)
                    add_overlapping(blocks, group, grad_x[:, signals], carry[:, signals])
        if need_taps:
            grad_taps[channels] = torch.fft.irfft(correlation.conj_physical_(), size)[:, : memory + 1]
    return grad_x, grad_taps, carry if need_x else x.new_empty(0)


def fitting_length(taps: int, length: int) -> int:
    """Length of the transforms: that of long signals, or less where as many blocks are enough for a shorter one."""
    longest = fft_length(taps)
    blocks = -(-max(1, length) // (longest - (taps - 1)))
    needed = taps - 1 - (-max(1, length) // blocks)
    step = 1 << max(1, needed.bit_length() - 3)
    return min(longest, -(-needed // step) * step)


def in_work(x: Tensor) -> int:
    """Samples of all blocks in work at a time."""
    return (SLICE if on_cpu(x) else BYTES // TEMPORARIES) // x.element_size()


def fans(signals: int, channels: int, blocks: int) -> Iterator[tuple[slice, slice]]:
    """Signals taken together, and their channels: about so many ``blocks``, or one signal and all its channels."""
    fan = channels // signals
    together = max(1, blocks // fan)
    for first in range(0, signals, together):
        end = min(first + together, signals)
        yield slice(first, end), slice(first * fan, end * fan)


def by_signal(channels: Tensor, signals: int) -> Tensor:
    """Spectra (..., C, K) as (..., S, C / S, K) for S signals."""
    return channels.unflatten(-2, (signals, channels.shape[-2] // signals))
