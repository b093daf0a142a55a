"""Compaction in plain torch. Definition and shapes: :mod:`tamt.ops.compaction`.

Every component has a slot in its row, 1, 2 ... for those that stay and 0 for all others; slot 0 is dropped in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

SLICE = 1 << 17  # components taken at a time, so that they stay in the cache
LEVEL_SLOPE = 10 / math.log(10)  # of 10 log10 I over ln I


def _strongest(intensity: Tensor, keep: Tensor, count: int) -> Tensor:
    """``keep`` with at most ``count`` components a row: the strongest, of equal ones those of lower index."""
    infinity = math.inf
    rank = intensity.nan_to_num(nan=infinity, posinf=infinity).masked_fill(~keep, -infinity)
    last = rank.topk(count, sorted=False).values.amin(-1, keepdim=True)
    stronger = rank > last
    equal = (rank == last) & keep
    return stronger | (equal & (equal.cumsum(-1) <= count - stronger.sum(-1, keepdim=True)))


def slots(intensity: Tensor, threshold: Tensor, count: int, limited: bool) -> Tensor:
    """Slots (R, F) of the components of ``intensity`` (R, F) in rows of ``count``."""
    keep = ~(intensity <= threshold[:, None])  # NaN stays
    if limited:
        keep = _strongest(intensity, keep, count)
    return keep.cumsum(-1).mul_(keep.to(torch.int64))


def _slices(intensity: Tensor) -> Iterator[slice]:
    rows = max(1, SLICE // max(1, intensity.shape[1]))
    return (slice(first, first + rows) for first in range(0, intensity.shape[0], rows))


def compaction(
    intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int, limited: bool
) -> tuple[Tensor, Tensor]:
    """Frequencies and levels (R, count) of what is relevant in ``intensity`` (R, F)."""
    freqs = intensity.new_zeros(intensity.shape[0], count)
    levels = torch.zeros_like(freqs)
    columns = min(count, intensity.shape[1])
    for r in _slices(intensity):
        slot = slots(intensity[r], threshold[r], count, limited)
        row = intensity.new_zeros(slot.shape[0], intensity.shape[1] + 1)
        freqs[r, :columns] = row.scatter_(1, slot, frequencies.expand(slot.shape))[:, 1 : columns + 1]
        row.fill_(1)  # 0 dB
        levels[r, :columns] = row.scatter_(1, slot, intensity[r])[:, 1 : columns + 1].log10_().mul_(10)
    return freqs, levels


def compaction_backward(grad: Tensor, intensity: Tensor, threshold: Tensor, count: int, limited: bool) -> Tensor:
    """Gradient of ``intensity`` from that of the levels (R, count)."""
    grad_intensity = torch.empty_like(intensity, memory_format=torch.contiguous_format)
    columns = min(count, intensity.shape[1])
    for r in _slices(intensity):
        slot = slots(intensity[r], threshold[r], count, limited)
        row = grad.new_zeros(slot.shape[0], columns + 1)
        torch.mul(grad[r, :columns], LEVEL_SLOPE, out=row[:, 1:])
        # What is left out has no gradient, whatever its intensity; 0 among it must not divide.
        divisor = intensity[r].masked_fill(slot == 0, 1)
        torch.div(row.gather(1, slot), divisor, out=grad_intensity[r])
    return grad_intensity


def compaction_differentiable(intensity: Tensor, threshold: Tensor, count: int, limited: bool) -> Tensor:
    """The levels of :func:`compaction` for autograd."""
    slot = slots(intensity.detach(), threshold, count, limited)
    place = torch.zeros(slot.shape[0], slot.shape[1] + 1, dtype=torch.int64, device=slot.device)
    place.scatter_(1, slot, torch.arange(slot.shape[1], device=slot.device).expand(slot.shape))
    columns = min(count, slot.shape[1])
    taken = torch.arange(1, columns + 1, device=slot.device) <= slot.amax(1, keepdim=True)
    kept = intensity.gather(1, place[:, 1 : columns + 1])
    levels = 10 * torch.log10(torch.where(taken, kept, torch.ones_like(kept)))
    return torch.nn.functional.pad(levels, (0, count - columns))
