"""Filters of the roex excitation: what its operation, its reference and its kernels share."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.scales import ERB_AT_0, ERB_GROWTH

HIGHEST = 1e5  # Hz
LEAST_SLOPE = 0.1  # of a filter's low-frequency side
REFERENCE_LEVEL = 51.0  # dB per ERB, where both sides of a filter are equally steep
ERB_PER_HZ = ERB_AT_0 * ERB_GROWTH


def rate(f: Tensor) -> Tensor:
    """Steepness ``p(f)/f = 4/ERB(f)`` of the filter at ``f``, per Hz. The values are not looked at."""
    return 4 / (ERB_AT_0 + ERB_PER_HZ * f)


def last_exponent(dtype: torch.dtype, *, small: bool) -> float:
    """Where exponents stop, so that no power is below the smallest normal number; earlier beside small factors."""
    return (87.0 if dtype == torch.float32 else 700.0) * (0.8 if small else 1)


def audible(f: Tensor) -> Tensor:
    """Whether frequencies are those of components, not of padding."""
    return (f > 0) & (f <= HIGHEST)


def level_per_erb(power: Tensor) -> Tensor:
    """In dB, of silence that of the smallest normal number in float32, which has no gradient."""
    return 10 * torch.log10(power.clamp_min(torch.finfo(torch.float32).tiny))


def apart(row: Tensor, column: Tensor, ratio: float) -> Tensor:
    """Whether one frequency is more than ``ratio`` times the other."""
    return (column > row * ratio) | (row > column * ratio)


def weight(u: Tensor, left_out: Tensor) -> Tensor:
    """``(1 + u) exp(-u)``, 0 for pairs that are left out."""
    return ((1 + u) * torch.exp(-u)).masked_fill(left_out, 0)


def power_weights(f: Tensor, ratio: float) -> Tensor:
    """``W[j, i]`` (F, F) of the filter at component j for component i: ``intensity @ W`` is the power per ERB."""
    row = f[:, None]
    u = (f - row).abs() * rate(row)
    return weight(u, apart(row, f, ratio) | (u > last_exponent(f.dtype, small=True)))


def octaves_as_ratio(limit: float) -> float:
    """Ratio of frequencies ``limit`` octaves apart; none is as good as 60, and float32 can hold that."""
    return 2.0 ** min(limit, 60.0)
