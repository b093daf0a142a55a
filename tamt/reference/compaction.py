"""Compaction in plain torch. Definition and shapes: :mod:`tamt.ops.compaction`.

Every component has a slot in its row, 1, 2 ... for those that stay and 0 for all others; slot 0 is dropped in the end.

Which stay is found by arithmetic on integers: on a CPU that takes a fifth of the time of comparisons of floating
numbers and of what follows on their booleans. Masks are therefore integers too, -1 for true and 0 for false.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

SLICE = 1 << 19  # bytes of components taken at a time, so that they stay in the cache
LEVEL_SLOPE = 10 / math.log(10)  # of 10 log10 I over ln I
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
INFINITY = {torch.int32: 0x7F8 << 20, torch.int64: 0x7FF << 52}  # its bits


def definition(
    intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int, limited: bool
) -> tuple[None, Tensor]:
    """Levels (R, count) of what is relevant in ``intensity`` (R, F); their frequencies are constants."""
    slot = slots(kept(intensity.detach(), threshold, count, limited))
    place = torch.zeros(slot.shape[0], slot.shape[1] + 1, dtype=torch.int64, device=slot.device)
    place = place.scatter(1, slot, torch.arange(slot.shape[1], device=slot.device).expand(slot.shape))
    columns = min(count, slot.shape[1])
    taken = torch.arange(1, columns + 1, device=slot.device) <= slot.amax(1, keepdim=True)
    values = intensity.gather(1, place[:, 1 : columns + 1])
    levels = 10 * torch.log10(torch.where(taken, values, torch.ones_like(values)))
    return None, torch.nn.functional.pad(levels, (0, count - columns))


def _ordered(values: Tensor) -> Tensor:
    """The bits of numbers that are not negative: integers in the same order, infinity and then NaN above all others."""
    return values.abs().view(INTEGERS[values.dtype])


def _less(low: Tensor, high: Tensor) -> Tensor:
    """Mask of ``low < high`` for integers of at least -1, whose differences fit."""
    return torch.sub(low, high).bitwise_right_shift_(8 * high.element_size() - 1)


def _strongest(key: Tensor, keep: Tensor, count: int) -> Tensor:
    """``keep`` with at most ``count`` components a row: the strongest, of equal ones those of lower index."""
    rank = key.clamp_max(INFINITY[key.dtype]) & keep  # NaN is as strong as infinity
    last = rank.topk(count, sorted=False).values.amin(-1, keepdim=True)
    stronger = _less(last, rank)
    equal = _less(last - 1, rank).bitwise_and_(keep).sub_(stronger)
    places = count + stronger.sum(-1, keepdim=True, dtype=key.dtype)
    # Both sides of this comparison are counts below 0.
    first = _less(-1 - places, equal.cumsum(-1, dtype=key.dtype))
    return stronger.add_(first.bitwise_and_(equal))


def relevant(intensity: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Mask (R, F) of the components of ``intensity`` (R, F) above ``threshold`` (R,), and their :func:`_ordered` bits.

    NaN is above any threshold, and everything is above NaN.
    """
    key = _ordered(intensity)
    limit = _ordered(threshold).masked_fill_(threshold.isnan(), -1)
    return _less(limit[:, None], key), key


def kept(intensity: Tensor, threshold: Tensor, count: int, limited: bool) -> Tensor:
    """Mask (R, F) of the components of ``intensity`` (R, F) that stay in rows of ``count``."""
    keep, key = relevant(intensity, threshold)
    return _strongest(key, keep, count) if limited else keep


def slots(keep: Tensor) -> Tensor:
    """Slots (R, F) of the components that a mask keeps."""
    return keep.cumsum(-1, dtype=keep.dtype).mul_(keep).to(torch.int64)


def fullest(intensity: Tensor, threshold: Tensor) -> Tensor:
    """How many components () the fullest row of ``intensity`` (R, F) keeps, R > 0."""
    if intensity.device.type != "cpu" or torch.compiler.is_compiling():
        return -relevant(intensity, threshold)[0].sum(-1).amin()
    counts = [relevant(intensity[r], threshold[r])[0].sum(-1).amin() for r in _slices(intensity)]
    return -torch.stack(counts).amin()


def _slices(intensity: Tensor) -> Iterator[slice]:
    rows = max(1, SLICE // max(1, intensity.shape[1] * intensity.element_size()))
    return (slice(first, first + rows) for first in range(0, intensity.shape[0], rows))


def compaction(
    intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int, limited: bool
) -> tuple[Tensor, Tensor]:
    """Frequencies and levels (R, count) of what is relevant in ``intensity`` (R, F)."""
    columns = min(count, intensity.shape[1])
    shape = intensity.shape[0], count
    freqs, levels = (intensity.new_empty(shape) for _ in range(2))
    for out in (freqs, levels):
        out[:, columns:] = 0
    for r in _slices(intensity):
        slot = slots(kept(intensity[r], threshold[r], count, limited))
        row = intensity.new_zeros(slot.shape[0], intensity.shape[1] + 1)
        freqs[r, :columns] = row.scatter_(1, slot, frequencies.expand(slot.shape))[:, 1 : columns + 1]
        row.fill_(1)  # 0 dB
        levels[r, :columns] = row.scatter_(1, slot, intensity[r])[:, 1 : columns + 1].log10_().mul_(10)
    return freqs, levels


def compaction_backward(
    grad: Tensor, intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int, limited: bool
) -> Tensor:
    """Gradient of ``intensity`` from that of the levels (R, count)."""
    grad_intensity = torch.empty_like(intensity, memory_format=torch.contiguous_format)
    columns = min(count, intensity.shape[1])
    for r in _slices(intensity):
        keep = kept(intensity[r], threshold[r], count, limited)
        row = grad.new_zeros(keep.shape[0], columns + 1)
        torch.mul(grad[r, :columns], LEVEL_SLOPE, out=row[:, 1:])
        # What is left out has no gradient, whatever its intensity: 1 in its place, as neither 0 nor NaN may divide.
        divisor = _ordered(intensity[r]).bitwise_and_(keep).view(intensity.dtype).add_(keep + 1)
        torch.div(row.gather(1, slots(keep)), divisor, out=grad_intensity[r])
    return grad_intensity
