"""Spreading of excitation in plain torch. Definition and shapes: :mod:`tamt.ops.spreading`.

What source i gives to the channel d steps away is its power times ``q^d``, ``q`` the loss over one step: one product a
pair instead of an exponential. Both sides, lower then upper, go through every step together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamt.shared.spreading import BITS_PER_DB, LIMITS, MIN_SLOPE, neighbours

RANGE = 200.0  # dB on both sides of 0 in which powers need no reference
SLICE = 1 << 14  # levels, padding included, that take all the steps before the next: they stay in the cache


def definition(levels: Tensor, slopes: Tensor, erb_step: float) -> Tensor:
    """Spread levels (R, n) for ``slopes`` (5,), all terms of a band side by side."""
    nepers = math.log(10) / 10
    levels = levels.clamp_min(-1e30)
    n = levels.shape[1]
    terms = [levels]
    for upper, base, per_db in ((True, slopes[0], slopes[2]), (False, slopes[1], slopes[3])):
        slope = (base - per_db * (levels - slopes[4])).clamp_min(MIN_SLOPE)
        for d in range(1, neighbours(n, erb_step) + 1):
            loss = d * erb_step * slope
            term = (levels - loss).masked_fill(loss > LIMITS[levels.dtype], -math.inf)
            term = torch.nn.functional.pad(
                term[:, : n - d] if upper else term[:, d:], (d, 0) if upper else (0, d), value=-math.inf
            )
            terms.append(term)
    return torch.logsumexp(nepers * torch.stack(terms), 0) / nepers


class _Sources(NamedTuple):
    """One slice (R, n) of levels as sources; sides, lower then upper, come first."""

    above: Tensor  # level over level_ref
    reference: Tensor  # (R, 1), level of power 1
    power: Tensor
    slope: Tensor  # (2, R, n) before the clamp
    steps: int

    def losses(self, erb_step: float) -> Iterator[tuple[int, Tensor]]:
        """Steps d and the factors (2, R, n) over them, 0 beyond the limit."""
        one = self.slope.clamp_min(MIN_SLOPE).mul_(-BITS_PER_DB * erb_step).exp2_()
        loss = torch.ones_like(one)
        least = 10 ** (-LIMITS[one.dtype] / 10)
        for d in range(1, self.steps + 1):
            torch.threshold_(loss.mul_(one), least, 0.0)
            yield d, loss

    def shifted(self, padded: Tensor, d: int) -> Tensor:
        """Of (2, R, n + 2 steps), or of (R, n + 2 steps) for both sides, the targets (2, R, n) at step d."""
        width = padded.shape[-1]
        side = padded.stride(0) if padded.dim() == 3 else 0
        return padded.as_strided((2, *self.power.shape), (side + 2 * d, width, 1), self.steps - d)


def _sources(levels: Tensor, slopes: Tensor, erb_step: float) -> _Sources:
    least = torch.finfo(levels.dtype).min  # -inf is no power, but neither reference nor slope may be infinite
    peak = levels.amax(-1, keepdim=True).clamp_min(least)
    reference = peak - peak.clamp(-RANGE, RANGE)
    above = levels.clamp_min(least) - slopes[4]
    base, per_db = slopes[:4].view(2, 2, 1, 1).flip(1)
    power = (levels - reference).mul_(BITS_PER_DB).exp2_()
    return _Sources(above, reference, power, base - per_db * above, neighbours(levels.shape[1], erb_step))


def _slices(levels: Tensor, erb_step: float) -> Iterator[slice]:
    # A step takes microseconds: only many threads gain more by sharing it than they lose by waiting for each other.
    size = SLICE * max(1, torch.get_num_threads() // 2)
    count, n = levels.shape
    rows = max(1, size // (n + 2 * neighbours(n, erb_step)))
    for first in range(0, count, rows):
        yield slice(first, first + rows)


def spreading(levels: Tensor, slopes: Tensor, erb_step: float) -> Tensor:
    """Spread levels (R, n) for ``slopes`` (5,)."""
    out = torch.empty_like(levels, memory_format=torch.contiguous_format)
    reference = levels.new_empty(levels.shape[0], 1)
    for rows in _slices(levels, erb_step):
        sources = _sources(levels[rows].contiguous(), slopes, erb_step)
        steps, (count, n) = sources.steps, sources.power.shape
        spread = levels.new_zeros(2, count, n + 2 * steps)
        for d, loss in sources.losses(erb_step):
            sources.shifted(spread, d).addcmul_(loss, sources.power)
        torch.add(spread[..., steps : steps + n].sum(0), sources.power, out=out[rows])
        reference[rows] = sources.reference
    # As 10 log10, which unlike this would wake threads for a few thousand levels.
    torch.xlogy(10 / math.log(10), out, out=out).add_(reference)
    # The level of a band too faint for its power to be a number is its own.
    return torch.maximum(out, levels, out=out)


def spreading_backward(
    grad: Tensor, levels: Tensor, slopes: Tensor, out: Tensor, erb_step: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the levels and of ``slopes``. ``out`` is what :func:`spreading` gave for them."""
    grad_levels = torch.empty_like(levels, memory_format=torch.contiguous_format)
    grad_side = slopes.new_zeros(2, 2)  # base and per_db, lower then upper
    for rows in _slices(levels, erb_step):
        g = grad[rows]
        sources = _sources(levels[rows].contiguous(), slopes, erb_step)
        steps, (count, n) = sources.steps, g.shape
        total = (out[rows] - sources.reference).mul_(BITS_PER_DB).exp2_()
        alone = (total < 1e6 * torch.finfo(levels.dtype).tiny).to(levels.dtype)
        share = g * (1 - alone) / (total + alone)
        padded = share.new_zeros(count, n + 2 * steps)
        padded[:, steps : steps + n] = share
        spread, moment = torch.zeros_like(sources.slope), torch.zeros_like(sources.slope)
        for d, loss in sources.losses(erb_step):
            targets = sources.shifted(padded, d)
            spread.addcmul_(loss, targets)
            moment.addcmul_(loss, targets, value=d * erb_step)
        moment.mul_(sources.power).mul_((sources.slope >= MIN_SLOPE).to(levels.dtype))
        share.add_(spread.sum(0)).mul_(sources.power)
        share.addcmul_(moment[1], slopes[2]).addcmul_(moment[0], slopes[3])
        torch.addcmul(share, g, alone, out=grad_levels[rows])
        grad_side[0] -= moment.sum((1, 2))
        grad_side[1] += moment.mul_(sources.above).sum((1, 2))
    base, per_db = grad_side.flip(1)
    return grad_levels, torch.cat((base, per_db, (base @ slopes[2:4])[None]))
