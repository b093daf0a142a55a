"""The dual-resonance nonlinear filter by FFT in plain torch. Definition and shapes: :mod:`tamt.ops.fft_drnl`.

Overlap-save (:mod:`tamt.shared.overlap_save`). The spectrum of a block of the signal serves all channels; each channel
then takes one inverse, one forward and one inverse transform. The backward pass is the transpose of every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.reference.broken_stick import broken_stick_, broken_stick_backward
from tamt.reference.broken_stick import definition as broken_stick_definition
from tamt.shared.nonfinite import fill_from_, finite, on_cpu
from tamt.shared.overlap_save import (
    SLICE,
    add_overlapping,
    block_spectra,
    fitting_spectra,
    grad_blocks,
    groups,
    mark_bad,
    next_past,
    split_bad,
)


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


def fft_drnl(
    x: Tensor, spectra: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`definition` in blocks."""
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
