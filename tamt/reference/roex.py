"""Roex excitation in plain torch. Definitions and shapes: :mod:`tamt.ops.roex`.

Pairs are weighted in blocks that stay in the cache, filters or channels as rows and components as columns. A block
holds exponents ``-u`` and their exponentials. Numbers below the smallest normal one take a CPU fifty times longer, so
exponents stop early enough for these not to come up, and what stopped there, pairs too far apart included, is 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 19  # of one temporary of a block
SLICE = 256  # rows that go through the matrices of the grid at a time

# Moore2016Spectrum's components lie on a grid: there the weights of all pairs are one matrix.
GRID_STEP = 15.625  # Hz
GRID_BINS = 960
GRID_LEAST = 160  # components; the matrix takes longer than the pairs of fewer

ERB_AT_0, ERB_SLOPE = 24.673, 24.673 * 0.004368  # ERB in Hz, and Hz per Hz
LEAST_SLOPE = 0.1  # of a filter's low-frequency side
_OUTSIDE = 2.0**70  # makes of the smallest difference in frequency an exponent below any


def rate(f: Tensor) -> Tensor:
    """Steepness ``p(f)/f = 4/ERB(f)`` of the filter at ``f``, per Hz."""
    return 4 / (ERB_AT_0 + ERB_SLOPE * f)


def _exp(v: Tensor, out: Tensor, backward: bool) -> Tensor:
    """Exponentials of ``v``, which stops at -87 in float32; earlier in the backward pass, with its small factors."""
    least = (-87.0 if v.dtype == torch.float32 else -700.0) * (0.8 if backward else 1)
    torch.exp(v.clamp_min_(least), out=out)
    return torch.threshold_(out, math.exp(least) * (1 + 1e-5), 0)


def _within(low: Tensor, high: Tensor, ratio: float) -> bool:
    """Whether no pair can be too far apart. Only a CPU is asked for its data."""
    if low.device.type != "cpu" or not low.numel() or not high.numel():
        return False
    lows, highs = low.aminmax(), high.aminmax()
    return bool((highs.max <= lows.min * ratio) & (lows.max <= highs.min * ratio))


class _Blocks:
    """Blocks of (rows, outer, inner) pairs, and ``count`` temporaries that all of them share."""

    def __init__(self, like: Tensor, rows: int, outer: int, inner: int, count: int) -> None:
        cells = max(1, BLOCK_BYTES // like.element_size())
        self.shape = rows, outer, inner
        pieces = -(-outer // max(1, cells // max(1, inner))) or 1
        self.outer = max(1, -(-outer // pieces))
        self.rows = max(1, min(rows, cells // max(1, outer * inner)))
        self.buffers = [like.new_empty(self.rows * self.outer * inner) for _ in range(count)]

    def __iter__(self) -> Iterator[tuple[slice, slice, list[Tensor]]]:
        rows, outer, inner = self.shape
        for r in range(0, rows, self.rows):
            for o in range(0, outer, self.outer):
                shape = min(self.rows, rows - r), min(self.outer, outer - o), inner
                size = shape[0] * shape[1] * inner
                yield slice(r, r + shape[0]), slice(o, o + shape[1]), [b[:size].view(shape) for b in self.buffers]


def _exclude(v: Tensor, row: Tensor, column: Tensor, ratio: float, scratch: Tensor) -> None:
    """An exponent below all others where frequencies of a row and a column are more than ``ratio`` apart."""
    for one, other in ((row, column), (column, row)):
        torch.minimum(v, torch.sub(one * (ratio * _OUTSIDE), other * _OUTSIDE, out=scratch), out=v)


def _grid_index(f: Tensor) -> Tensor | None:
    """Places on the grid of components that all lie on it. Only a CPU is asked for its data."""
    if f.device.type != "cpu" or f.shape[1] < GRID_LEAST or not f.numel():
        return None
    place = f / GRID_STEP
    index = place.round()
    if bool((place == index).all()) and bool((index >= 1).all()) and bool((index <= GRID_BINS).all()):
        return index.long() - 1
    return None


@functools.lru_cache(maxsize=4)
def _grid_weights(dtype: torch.dtype, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """``W[i, j]`` of the filter at i and the component at j, its derivative to f_i, and that to f_j."""
    f = GRID_STEP * torch.arange(1, GRID_BINS + 1, dtype=dtype, device="cpu")
    q = rate(f)[:, None]
    d = f - f[:, None]
    v = -q * d.abs()
    e = _exp(v, torch.empty_like(v), backward=True)
    e.masked_fill_((f > f[:, None] * ratio) | (f[:, None] > f * ratio), 0)
    fall = d * e * q.square()
    return (1 - v) * e, fall * (1 + ERB_SLOPE / 4 * q * d), -fall


def level(f: Tensor, intensity: Tensor, ratio: float) -> Tensor:
    """Power sums (R, C) of the filters of all components at each component."""
    power = torch.zeros_like(f, memory_format=torch.contiguous_format)
    index = _grid_index(f)
    if index is not None:
        weights = _grid_weights(f.dtype, ratio)[0]
        for rows in _row_slices(f):
            torch.gather(_on_grid(intensity[rows], index[rows]) @ weights, 1, index[rows], out=power[rows])
        return power
    q, within = rate(f), _within(f, f, ratio)
    for rows, filters, (v, e) in _Blocks(f, f.shape[0], f.shape[1], f.shape[1], 2):
        row, column = f[rows, filters, None], f[rows, None]
        torch.sub(row, column, out=v).abs_().mul_(-q[rows, filters, None])
        if not within:
            _exclude(v, row, column, ratio, e)
        _exp(v, e, backward=False)
        power[rows, None].baddbmm_(intensity[rows, None, filters], e.addcmul_(v, e, value=-1))
    return power


def level_backward(grad: Tensor, f: Tensor, intensity: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Gradients of frequencies and intensities."""
    index = _grid_index(f)
    if index is not None:
        return _level_backward_on_grid(grad, f, intensity, index, ratio)
    grad_f = torch.zeros_like(f, memory_format=torch.contiguous_format)
    grad_i = torch.zeros_like(f, memory_format=torch.contiguous_format)
    q, within = rate(f), _within(f, f, ratio)
    for rows, filters, (d, v, e) in _Blocks(f, f.shape[0], f.shape[1], f.shape[1], 3):
        row, column, slope = f[rows, filters, None], f[rows, None], q[rows, filters, None]
        torch.sub(column, row, out=d)
        torch.abs(d, out=v).mul_(-slope)
        if not within:
            _exclude(v, row, column, ratio, e)
        _exp(v, e, backward=True)
        g, own = grad[rows, :, None], intensity[rows, filters]
        torch.addcmul(e, v, e, value=-1, out=v)
        grad_i[rows, filters] = torch.bmm(v, g)[..., 0]
        e.mul_(d)
        scale = own * slope[..., 0].square()
        grad_f[rows] -= grad[rows] * torch.bmm(scale[:, None], e)[:, 0]
        towards = torch.bmm(e, g) + ERB_SLOPE / 4 * slope * torch.bmm(d.mul_(e), g)
        grad_f[rows, filters] += scale * towards[..., 0]
    return grad_f, grad_i


def _level_backward_on_grid(
    grad: Tensor, f: Tensor, intensity: Tensor, index: Tensor, ratio: float
) -> tuple[Tensor, Tensor]:
    grad_f = torch.empty_like(f, memory_format=torch.contiguous_format)
    grad_i = torch.empty_like(f, memory_format=torch.contiguous_format)
    weights, of_filter, of_component = _grid_weights(f.dtype, ratio)
    for rows in _row_slices(f):
        at = index[rows]
        g = _on_grid(grad[rows], at)
        torch.gather(g @ weights.t(), 1, at, out=grad_i[rows])
        torch.gather(g @ of_filter.t(), 1, at, out=grad_f[rows]).mul_(intensity[rows])
        received = _on_grid(intensity[rows], at) @ of_component
        grad_f[rows].addcmul_(grad[rows], torch.gather(received, 1, at))
    return grad_f, grad_i


def _row_slices(f: Tensor) -> Iterator[slice]:
    return (slice(r, r + SLICE) for r in range(0, f.shape[0], SLICE))


def _on_grid(values: Tensor, index: Tensor) -> Tensor:
    return values.new_zeros(values.shape[0], GRID_BINS).scatter_add_(1, index, values)


def level_differentiable(f: Tensor, intensity: Tensor, ratio: float) -> Tensor:
    """:func:`level` for autograd."""
    d = f[:, None] - f[:, :, None]
    apart = (f[:, None] > f[:, :, None] * ratio) | (f[:, :, None] > f[:, None] * ratio)
    return (intensity[:, None] @ _weight(d.abs() * rate(f)[..., None], apart))[:, 0]


def excitation(f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float) -> Tensor:
    """Power sums (R, N) of the channels over all components."""
    power = f.new_zeros(f.shape[0], fc.shape[0])
    within = _within(f, fc, ratio)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for rows, channels, (d, v, e) in _Blocks(f, f.shape[0], fc.shape[0], f.shape[1], 3):
        _exponents(f, steepness, fc, upper, least, rows, channels, d, v)
        # One of the two is at most 0, and which one depends on the side.
        torch.minimum(v.mul_(d), d.mul_(-upper[channels]), out=v)
        if not within:
            _exclude(v, fc[channels, None], f[rows, None], ratio, e)
        _exp(v, e, backward=False)
        power[rows, channels] = torch.bmm(e.addcmul_(v, e, value=-1), intensity[rows, :, None])[..., 0]
    return power


def _exponents(
    f: Tensor,
    steepness: Tensor,
    fc: Tensor,
    upper: Tensor,
    least: Tensor,
    rows: slice,
    channels: slice,
    d: Tensor,
    slope: Tensor,
) -> None:
    """Distances ``f - fc`` in Hz, and the slopes of the channels' low-frequency sides per Hz."""
    torch.sub(f[rows, None], fc[channels, None], out=d)
    torch.mul(steepness[rows, None], upper[channels], out=slope)
    torch.maximum(slope, least[channels], out=slope)


def excitation_backward(
    grad: Tensor, f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of frequencies, intensities and steepnesses."""
    grad_f, grad_i, grad_s = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (f, f, f))
    within = _within(f, fc, ratio)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for rows, channels, (d, v, e, slope, below) in _Blocks(f, f.shape[0], fc.shape[0], f.shape[1], 5):
        _exponents(f, steepness, fc, upper, least, rows, channels, d, slope)
        torch.clamp_max(d, 0, out=below)
        d.sub_(below)
        a = upper[channels]
        torch.mul(slope, below, out=v).addcmul_(d, -a)
        if not within:
            _exclude(v, fc[channels, None], f[rows, None], ratio, e)
        _exp(v, e, backward=True)
        g, own = grad[rows, None, channels], intensity[rows]
        torch.addcmul(e, v, e, value=-1, out=v)
        grad_i[rows, None] += torch.bmm(g, v)
        # Along f the weight falls by slope^2 (f - fc) e; along the steepness s by -a slope (f - fc)^2 e, below fc only.
        torch.mul(slope, below, out=v)
        d.mul_(a.square()).addcmul_(slope, v).mul_(e)
        grad_f[rows] -= own * torch.bmm(g, d)[:, 0]
        v.mul_(below).mul_(e)
        v.masked_fill_(slope <= least[channels], 0)
        grad_s[rows] -= own * torch.bmm(g * a[:, 0], v)[:, 0]
    return grad_f, grad_i, grad_s


def excitation_differentiable(
    f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> Tensor:
    """:func:`excitation` for autograd."""
    centre = fc[:, None]
    d = f[:, None] - centre
    lower = (steepness[:, None] * (p / fc)[:, None]).clamp_min(LEAST_SLOPE / centre)
    apart = (f[:, None] > centre * ratio) | (centre > f[:, None] * ratio)
    weight = _weight(d.abs() * torch.where(d < 0, lower, (p / fc)[:, None]), apart)
    return (weight @ intensity[..., None])[..., 0]


def _weight(u: Tensor, apart: Tensor) -> Tensor:
    return ((1 + u) * torch.exp(-u)).masked_fill(apart, 0)
