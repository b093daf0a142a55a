"""Poles that are learnt: they keep the digits of their design and stay inside the unit circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt._arithmetic import complex_conjugate, complex_divide, complex_multiply, split_sum

MIN_DECAY = 1e-5  # nepers per sample: learnt poles stay this far inside the unit circle


def moved_pole(pole: Tensor, design: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Decay and frequency of poles that have moved from where they were designed.

    ``log p = log p0 + log(1 + (p - p0)/p0)``: a pole at its design value keeps the digits of the design, though its
    real and imaginary part are rounded to float32; so does a step away from it. A pole that is further away than half
    of ``|p0|`` is taken as it is. One at 0, which has no logarithm, is moved by a rounding error: the gradients of what
    a filter does are right there.

    Parameters
    ----------
    pole : Tensor (F, 2)
        Real and imaginary part of ``p``.
    design : Tensor (F, 5)
        Real and imaginary part of ``p0``, its decay, and its frequency as high + low.

    Returns
    -------
    decay, frequency, frequency_low : Tensor (F,)
    """
    re0, im0, decay0, f_high, f_low = design.unbind(-1)
    origin = torch.stack((re0, im0), 1)
    ratio = complex_divide(pole - origin, origin)
    far = (ratio.detach().square().sum(1) > 0.25)[:, None]
    re, im = torch.where(far, 0.0, ratio).unbind(1)
    near = torch.stack((torch.log1p(re * (2 + re) + im * im), torch.atan2(im, 1 + re)), 1)
    least = torch.finfo(pole.dtype).eps
    re, im = torch.where(far, pole, torch.ones_like(pole)).unbind(1)
    re = torch.where(re.abs().maximum(im.abs()) < least, re + 2 * least, re)
    other = torch.stack((torch.log(re * re + im * im), torch.atan2(im, re)), 1)
    (near_size, near_angle), (other_size, other_angle) = near.unbind(1), other.unbind(1)
    far = far[:, 0]
    decay = torch.where(far, -0.5 * other_size, decay0 - 0.5 * near_size)
    low = torch.where(far, other_angle / (2 * math.pi), f_low + near_angle / (2 * math.pi))
    return decay, torch.where(far, 0.0, f_high), low


def pole_design(pole: Tensor, decay: Tensor, frequency: Tensor) -> Tensor:
    """Where poles (F,), which may be rounded, were designed, in float64: (F, 4), to be :func:`split_design`."""
    return torch.stack((*torch.view_as_real(pole).double().unbind(-1), decay, frequency), 1)


def split_design(design: Tensor, dtype: torch.dtype) -> Tensor:
    """The ``design`` (F, 5) of :func:`moved_pole` in a computing type, from :func:`pole_design`."""
    return torch.cat((design[:, :3].to(dtype), torch.stack(split_sum(design[:, 3], dtype), 1)), 1)


def stable_denominator(a: Tensor, limit: float = 0.98) -> Tensor:
    """Denominators (F, n, 2), ``a_1 .. a_n`` as real and imaginary parts, with all roots inside the unit circle.

    Stable ones pass unchanged. Of the others the reflection coefficients (Schur-Cohn recursion) of magnitude 1 or more
    are limited to ``limit``, which moves the roots inside.
    """
    lower, reflections = a, []
    stable = torch.ones_like(a[:, :1, :1], dtype=torch.bool)
    for _ in range(a.shape[1]):
        reflection = lower[:, -1:]
        square = reflection.square().sum(-1, keepdim=True)
        outside = square >= 0.9999  # float32 cannot tell closer to 1; a 12-fold root at 0.9 is still inside
        stable = stable & ~outside
        inside = torch.where(outside, limit, torch.ones_like(square))
        reflection = reflection * torch.rsqrt(square.clamp(min=1)) * inside
        reflections.append(reflection)
        head = lower[:, :-1]
        remainder = 1 - reflection.square().sum(-1, keepdim=True)
        lower = (head - complex_multiply(reflection, complex_conjugate(head.flip(1)))) / remainder
    for reflection in reversed(reflections):
        lower = torch.cat((lower + complex_multiply(reflection, complex_conjugate(lower.flip(1))), reflection), 1)
    return torch.where(stable, a, lower)
