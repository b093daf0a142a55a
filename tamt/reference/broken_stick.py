"""The broken stick of DRNL filters in plain torch. Definition and shapes: :mod:`tamt.ops.broken_stick`.

``NL(v) = v min(a, b |v|^(c-1))``: one power, and the slope at 0 is ``a`` by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SLICE = 1 << 17  # samples that take all the steps before the next, so that they stay in the cache


def definition(v: Tensor, stick: Tensor) -> Tensor:
    """``NL(v)`` for ``v`` (..., F, T) and ``stick`` (F, 3), columns a, b, c.

    In its derivatives no branch that is not taken meets an infinity.
    """
    a, b, c = stick[..., None].unbind(1)
    with torch.no_grad():
        linear = b * torch.exp(_log_magnitude(v) * (c - 1)) >= a
    magnitude = torch.where(linear, torch.ones_like(v), v.abs())
    return v * torch.where(linear, a, b * torch.exp(torch.log(magnitude) * (c - 1)))


def _slices(v: Tensor) -> Iterator[tuple[int, slice]]:
    """Batch rows, and channels of (B, F, T) taken together."""
    channels = max(1, SLICE // max(1, v.shape[-1]))
    for b in range(v.shape[0]):
        for f in range(0, v.shape[1], channels):
            yield b, slice(f, f + channels)


def _log_magnitude(v: Tensor) -> Tensor:
    return v.abs().clamp_min_(torch.finfo(v.dtype).tiny).log_()


def broken_stick_(v: Tensor, stick: Tensor) -> Tensor:
    """In place and in one go, for ``v`` (..., F, T) that fits the cache and ``stick`` (F, 3)."""
    a, b, c = stick[..., None].unbind(1)
    slope = _log_magnitude(v).mul_(c - 1).exp_().mul_(b)
    return v.mul_(torch.minimum(slope, a, out=slope))


def broken_stick(v: Tensor, stick: Tensor) -> Tensor:
    """``NL(v)`` for ``v`` (B, F, T) and ``stick`` (F, 3), columns a, b, c."""
    w = torch.clone(v, memory_format=torch.contiguous_format)
    for b, channels in _slices(v):
        broken_stick_(w[b, channels], stick[channels])
    return w


def broken_stick_backward(grad: Tensor, v: Tensor, stick: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``v`` and ``stick``: on the knee, and at 0, those of the linear branch."""
    grad_v = torch.empty_like(v, memory_format=torch.contiguous_format)
    grad_stick = torch.zeros_like(stick)
    for row, channels in _slices(v):
        a, b, c = stick[channels, :, None].unbind(1)
        u, g = v[row, channels], grad[row, channels]
        log = _log_magnitude(u)
        power = (log * (c - 1)).exp_()
        linear = power * b >= a
        power.masked_fill_(linear, 0)
        torch.where(linear, a, power * (b * c), out=grad_v[row, channels])
        grad_v[row, channels] *= g
        weight = g * u
        power *= weight
        grad_stick[channels, 0] += weight.masked_fill_(~linear, 0).sum(-1)
        grad_stick[channels, 1] += power.sum(-1)
        grad_stick[channels, 2] += b[:, 0] * power.mul_(log).sum(-1)
    return grad_v, grad_stick
