"""Arithmetic that torch lacks: complex numbers as pairs, unevaluated sums, zeros for denormal numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import hardshrink


def split_sum(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``value`` (float64) as an unevaluated sum ``high + low`` of two tensors of ``dtype``."""
    high = value.to(dtype)
    return high, (value - high.to(value.dtype)).to(dtype)


def complex_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers given as real and imaginary part in the last dimension (2)."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack((a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re), -1)


def complex_divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient of complex numbers given as real and imaginary part in the last dimension (2)."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    norm = b_re * b_re + b_im * b_im
    return torch.stack((a_re * b_re + a_im * b_im, a_im * b_re - a_re * b_im), -1) / norm[..., None]


def complex_conjugate(a: Tensor) -> Tensor:
    """Conjugate of complex numbers given as real and imaginary part in the last dimension (2)."""
    re, im = a.unbind(-1)
    return torch.stack((re, -im), -1)


def flush(matrix: Tensor, least: Tensor | None = None) -> Tensor:
    """Zero for what has decayed beyond any use: processors take many times longer over denormal numbers.

    That is what is not above ``least``, by default so small that products of it vanish. Gradients do not pass there.
    """
    if least is None:
        return hardshrink(matrix, torch.finfo(matrix.dtype).tiny ** 0.8)
    return torch.where(matrix.abs() <= least, 0.0, matrix)


def flush_channels(matrix: Tensor) -> Tensor:
    """:func:`flush` for matrices (F, ...), each channel's relative to its largest entry where that is below 1."""
    tiny = torch.finfo(matrix.dtype).tiny
    largest = matrix.abs().flatten(1).amax(1)
    return flush(matrix, (largest.clamp(max=1) * tiny**0.8).clamp(min=tiny).view(-1, *[1] * (matrix.dim() - 1)))
