"""Rows of the IIR engine for poles that have moved, in plain torch. Shapes: :mod:`tamt.ops.onepole_rows`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt.design.poles import MIN_DECAY, moved_pole


def onepole_rows(poles: Tensor, gains: Tensor, design: Tensor) -> Tensor:
    """Decay, frequency (high, low) and twice the gain (re, im) of each channel: (F, 5)."""
    decay, high, low = moved_pole(poles, design)
    least = design[:, 2].clamp(max=MIN_DECAY)  # a design may be closer to the circle
    return torch.cat((torch.stack((torch.where(decay < least, least, decay), high, low), 1), 2 * gains), 1)


def onepole_rows_backward(
    grad: Tensor, poles: Tensor, gains: Tensor, design: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Gradients of poles and gains.

    With :math:`\log p = -\mathrm{decay} + 2\pi i\,\mathrm{frequency}` the step of the pole is
    :math:`\mathrm{d}p / p`; a decay at its limit has no part in it.
    """
    eps = torch.finfo(poles.dtype).eps
    re, im = poles.unbind(1)
    re = torch.where(re.abs().maximum(im.abs()) < eps, re + 2 * eps, re)  # as in moved_pole
    free = rows[:, 0] > design[:, 2].clamp(max=MIN_DECAY)
    of_size = torch.where(free, grad[:, 0], 0.0)
    of_angle = grad[:, 2] / (2 * math.pi)
    norm = re * re + im * im
    of_poles = torch.stack((-of_size * re - of_angle * im, of_angle * re - of_size * im), 1) / norm[:, None]
    return of_poles, 2 * grad[:, 3:]
