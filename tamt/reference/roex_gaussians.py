r"""Low-frequency sides of roex filters over components that all rows share, by matrix products, on a CPU.

A pair of channel n and component i has the weight :math:`(1 + u) e^{-u}` with :math:`u = s_i U_{ni}`: the steepness
:math:`s_i` is another in every row, and :math:`U_{ni} = (p_n/f^c_n) (f^c_n - f_i)` in none. Gaussians at whole numbers
k, the nodes, add up to exponentials: with :math:`t = s/h` and :math:`a = h U`, for every a,

.. math:: \sum_k e^{-(t - k)^2/2\sigma^2} e^{-a k} = \sqrt{2\pi}\, \sigma\, e^{a^2 \sigma^2/2}\, e^{-a t}
          (1 + O(e^{-2\pi^2\sigma^2})),

and the derivative of this along a gives the factor u. So the weight is :math:`\sum_k g_k(t_i) B_{kni}` with

.. math:: g_k(t) = e^{-(t - k)^2/2\sigma^2}, \qquad
          B_{kni} = \frac{1 + a (k + a \sigma^2)}{\sqrt{2\pi}\, \sigma}\, e^{-a k - a^2\sigma^2/2},

and the sums over components are products of matrices that stay, with :math:`I_i\, g_k(t_i)`: an exponential for each
component and node, not for each pair. The terms of a weight are all positive but for few small ones: faint channels
have the relative accuracy of loud ones, 1e-5 in float32 and 1e-12 in float64.

Nodes of a group share a middle m: :math:`(t - k)^2 = (t - m)^2 - 2 (k - m)(t - m) + (k - m)^2`, of which the last is in
the matrix. Exponents stop where no product with an entry of a matrix is below the smallest normal number, which would
take a CPU a hundred times longer; excitation that small is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamt.shared.roex import LEAST_SLOPE, apart

LEAST, MOST = 0.15, 7.0  # steepness, of 124 dB per ERB and of silence for the factor 0.35
COMMON = 1.95  # steepness of -30 dB per ERB: where nodes are set for
LARGEST = 64.0  # exponent of a pair for a steepness of 1
FAR = 60.0  # exponent beyond which a pair has no weight
COMPONENTS = 64  # that share their nodes
GROUP = 9  # nodes


class _Width(NamedTuple):
    """Of the Gaussians of a type: how wide they are, how far they count, and what is too small to count."""

    sigma: float
    reach: float  # in nodes
    tiny: float


WIDTHS = {torch.float32: _Width(0.85, 5.0 * 0.85, 1e-19), torch.float64: _Width(1.3, 8.5 * 1.3, 1e-150)}


class _Group(NamedTuple):
    """Nodes next to each other."""

    middle: int
    first: int
    steps: Tensor  # (k - middle)/sigma^2 of its nodes, (K,)
    matrix: Tensor  # (n, K c) of n channels and c components


class _Part(NamedTuple):
    """Neighbouring components, and the channels that see them from above."""

    columns: slice
    channels: slice
    reach: float  # how far below t nodes count
    groups: list[_Group]


class Gaussians:
    """Matrices of the low-frequency sides of channels ``fc``, ``p`` (N,) for frequencies ``f`` (C,) in rising order.

    Intensities and steepnesses are (C, R) here, and not negative.
    """

    def __init__(self, f: Tensor, fc: Tensor, p: Tensor, ratio: float) -> None:
        self.width = WIDTHS[f.dtype]
        self.count = fc.shape[0]
        below = (f < fc[:, None]) & ~apart(fc[:, None], f, ratio)
        fall = (p.double() / fc.double())[:, None] * (fc.double()[:, None] - f.double())
        largest = float(fall[below].max()) if bool(below.any()) else 0.0
        self.fits = largest <= LARGEST and (not p.numel() or LEAST * float(p.min()) > LEAST_SLOPE)
        self.spacing = math.sqrt((COMMON - LEAST) / (self.width.sigma**2 * max(largest, 1.0)))
        self.parts: list[_Part] = []
        if self.fits:
            for first in range(0, f.shape[0], COMPONENTS):
                self._add(slice(first, min(first + COMPONENTS, f.shape[0])), below, fall * self.spacing, f.dtype)

    @property
    def nbytes(self) -> int:
        """Of the matrices."""
        return sum(group.matrix.nbytes for part in self.parts for group in part.groups)

    def _add(self, columns: slice, below: Tensor, rates: Tensor, dtype: torch.dtype) -> None:
        """The part of some components, of ``rates`` a (N, C), unless no channel sees these."""
        seen = below[:, columns].any(1).nonzero()
        if not seen.numel():
            return
        sigma, reach, tiny = self.width
        channels = slice(int(seen[0]), int(seen[-1]) + 1)
        below = below[channels, columns]
        a = rates[channels, columns].where(below, 0)
        shift = sigma**2 * a
        low, high = LEAST / self.spacing, MOST / self.spacing
        nodes = range(math.floor(low - float(shift.max()) - reach), math.ceil(high + reach) + 1)
        starts = [nodes[0], *range(0, nodes[-1] + 1, GROUP)]
        groups = []
        for first, end in zip(starts, [*starts[1:], nodes[-1] + 1], strict=True):
            middle = 0 if first < 0 else first + GROUP // 2
            k = torch.arange(first, end, dtype=torch.float64, device=a.device)[:, None, None]
            scale = torch.exp(-(a * k + a * shift / 2 + (k - middle).square() / (2 * sigma**2)))
            matrix = (1 + a * (k + shift)) * scale / (math.sqrt(2 * math.pi) * sigma)
            # The least t that this node counts for, of those there are.
            least = (k + shift - reach).clamp_min(low)
            matrix.masked_fill_(~below | (least > high) | (least > k + shift + reach) | (least * a > FAR), 0)
            matrix.masked_fill_(matrix.abs() < tiny, 0)
            some = matrix.flatten(1).any(1).nonzero()
            if some.numel():
                taken = slice(int(some[0]), int(some[-1]) + 1)
                steps = ((k[taken] - middle) / sigma**2).flatten().to(dtype)
                matrix = matrix[taken].to(dtype).transpose(0, 1).flatten(1).contiguous()
                groups.append(_Group(middle, first + taken.start, steps, matrix))
        self.parts.append(_Part(columns, channels, float(shift.max()) + reach, groups))

    def fitting(self, intensity: Tensor, steepness: Tensor) -> Tensor:
        """Whether the steepnesses of a row are ones that there are nodes for (R,)."""
        return (steepness.amin(0) >= LEAST) & (steepness.amax(0) <= MOST) & (intensity.amin(0) >= 0)

    def sums(self, intensity: Tensor, steepness: Tensor) -> Tensor:
        """Power sums (N, R) of the channels over the components below them. Changes ``steepness``."""
        tiny = self.width.tiny
        sums = intensity.new_zeros(self.count, intensity.shape[1])
        t, log = steepness.mul_(1 / self.spacing), intensity.clamp_min(tiny**1.5).log_()
        work, heard = _Work(self, t), intensity.amax(1).tolist()
        for part in self.parts:
            if not any(heard[part.columns]):
                continue
            for group, nodes in work.groups(part):
                g = work.exponentials(group, nodes, t[part.columns], log[part.columns], tiny)
                sums[part.channels].addmm_(group.matrix[:, nodes], g.flatten(0, 1))
        # What exponents that stopped leave where there is nothing.
        return torch.threshold_(sums, 1e4 * tiny, 0)

    def gradients(self, grad: Tensor, intensity: Tensor, steepness: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (C, R) of intensities and steepnesses, given those of the sums (N, R). Changes ``steepness``."""
        sigma, _, tiny = self.width
        grad_i, grad_s = torch.zeros_like(intensity), torch.zeros_like(intensity)
        if not self.parts:
            return grad_i, grad_s
        # In proportion to each row's largest, so that products are normal numbers too.
        largest = grad.abs().amax(0).clamp_min_(torch.finfo(grad.dtype).tiny)
        grad, t = grad / largest, steepness.mul_(1 / self.spacing)
        work = _Work(self, t)
        for part in self.parts:
            at, g = t[part.columns], grad[part.channels]
            for group, nodes in work.groups(part):
                e = work.exponentials(group, nodes, at, None, tiny ** (2 / 3))
                received = work.spare[: e.numel()].view(-1, at.shape[1])
                e.mul_(torch.mm(group.matrix[:, nodes].t(), g, out=received).view_as(e))
                steps = group.steps[nodes.start // at.shape[0] : nodes.stop // at.shape[0]]
                total, moment = (torch.stack((torch.ones_like(steps), steps)) @ e.flatten(1)).view(2, *at.shape)
                grad_i[part.columns] += total
                grad_s[part.columns] += moment.addcmul_(work.d[: at.shape[0]], total, value=-1 / sigma**2)
        return grad_i.mul_(largest), grad_s.mul_(intensity).mul_(largest / self.spacing)


class _Work:
    """Temporaries of a walk over the parts for some rows, and the nodes that count for their t (C, R)."""

    def __init__(self, gaussians: Gaussians, t: Tensor) -> None:
        rows = t.shape[1]
        most = max((g.steps.shape[0] for part in gaussians.parts for g in part.groups), default=0)
        self.width = gaussians.width
        self.low, self.high = t.amin(1).tolist(), t.amax(1).tolist()
        self.d, self.start = t.new_empty(COMPONENTS, rows), t.new_empty(COMPONENTS, rows)
        self.terms, self.spare = (t.new_empty(most * COMPONENTS * rows) for _ in range(2))

    def groups(self, part: _Part) -> Iterator[tuple[_Group, slice]]:
        """Groups of nodes with some that count, and the columns of their matrix that belong to these."""
        count = part.columns.stop - part.columns.start
        first = math.floor(min(self.low[part.columns]) - part.reach)
        last = math.ceil(max(self.high[part.columns]) + self.width.reach)
        for group in part.groups:
            start = max(0, first - group.first)
            stop = min(last + 1 - group.first, group.steps.shape[0])
            if start < stop:
                yield group, slice(start * count, stop * count)

    def exponentials(self, group: _Group, nodes: slice, t: Tensor, log: Tensor | None, tiny: float) -> Tensor:
        """``exp(log) g_k(t)`` (K, c, R) of some nodes, but for what is in their matrix."""
        count = t.shape[0]
        steps = group.steps[nodes.start // count : nodes.stop // count, None, None]
        d, start = torch.sub(t, group.middle, out=self.d[:count]), self.start[:count]
        spread = -1 / (2 * self.width.sigma**2)
        if log is None:
            torch.mul(d, d, out=start).mul_(spread)
        else:
            torch.addcmul(log, d, d, value=spread, out=start)
        v = self.terms[: steps.shape[0] * d.numel()].view(steps.shape[0], *d.shape)
        return torch.addcmul(start, steps, d, out=v).clamp_min_(math.log(tiny)).exp_()
