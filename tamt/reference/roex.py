"""Roex excitation in plain torch. Definitions and shapes: :mod:`tamt.ops.roex`.

Pairs are weighted in blocks that stay in the cache, filters or channels as rows and components as columns. A block
holds exponents ``-u`` and their exponentials. Numbers below the smallest normal one take a CPU fifty times longer, so
exponents stop early enough for these not to come up, and what stopped there, pairs too far apart included, is 0.

A CPU, whose data can be looked at, takes the components in rising frequency: then those that a block can see at all
are neighbours, and most blocks have neither exponents to stop nor pairs to leave out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


def level_definition(f: Tensor, intensity: Tensor, ratio: float) -> Tensor:
    """Power sums (R, C) of the filters of all components at each component, all pairs at once."""
    d = f[:, None] - f[:, :, None]
    apart = (f[:, None] > f[:, :, None] * ratio) | (f[:, :, None] > f[:, None] * ratio)
    return (intensity[:, None] @ _weight(d.abs() * rate(f)[..., None], apart))[:, 0]


def excitation_definition(
    f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> Tensor:
    """Power sums (R, N) of the channels over all components, all pairs at once."""
    centre = fc[:, None]
    d = f[:, None] - centre
    lower = (steepness[:, None] * (p / fc)[:, None]).clamp_min(LEAST_SLOPE / centre)
    apart = (f[:, None] > centre * ratio) | (centre > f[:, None] * ratio)
    weight = _weight(d.abs() * torch.where(d < 0, lower, (p / fc)[:, None]), apart)
    return (weight @ intensity[..., None])[..., 0]


def rate(f: Tensor) -> Tensor:
    """Steepness ``p(f)/f = 4/ERB(f)`` of the filter at ``f``, per Hz."""
    return 4 / (ERB_AT_0 + ERB_SLOPE * f)


def _stop(dtype: torch.dtype, backward: bool) -> float:
    """Where exponents stop; earlier in the backward pass, with its small factors."""
    return (87.0 if dtype == torch.float32 else 700.0) * (0.8 if backward else 1)


def _steep(steepness: Tensor, p: Tensor, stop: float) -> bool:
    """Whether exponents of the channels' low-frequency sides may have to stop. Only a CPU is asked for its data."""
    if steepness.device.type != "cpu" or not steepness.numel() or not p.numel():
        return True
    return not bool(steepness.amax() * p.amax() < stop)


class _Block(NamedTuple):
    """Pairs (rows, outer, columns) that are weighted together."""

    rows: slice
    outer: slice  # filters or channels
    columns: slice  # components; those left out have no weight
    near: int  # columns before this one may be too far below
    far: bool  # whether some column may be too far above
    stop: int  # exponents of columns from this one on may have to stop
    buffers: list[Tensor]


class _Blocks:
    """The :class:`_Block` s of components ``f`` (R, C) and of filters or channels at ``centre``, (R, O) or (1, O).

    ``reach`` is how far above its centre each of these sees anything, ``count`` the number of temporaries that all
    blocks share; ``steep`` says that exponents may have to stop below the centre too. On a CPU ``f`` must be sorted.
    """

    def __init__(
        self, f: Tensor, centre: Tensor, reach: Tensor, ratio: float, count: int, *, steep: bool = False
    ) -> None:
        rows, inner = f.shape
        self.shape = rows, centre.shape[1], inner
        cells = max(1, BLOCK_BYTES // f.element_size())
        pieces = -(-self.shape[1] // max(1, cells // max(1, inner))) or 1
        self.outer = max(1, -(-self.shape[1] // pieces))
        self.rows = max(1, min(rows, cells // max(1, self.shape[1] * inner)))
        self.buffers = [f.new_empty(self.rows * self.outer * inner) for _ in range(count)]
        looked_at = f.device.type == "cpu" and f.numel() > 0 and centre.numel() > 0
        self.views = self._views(f, centre, centre + reach, ratio, steep) if looked_at else None

    def _views(self, f: Tensor, centre: Tensor, end: Tensor, ratio: float, steep: bool) -> list[list[list[int]]]:
        """What every row has for every piece of ``outer``: first and last column, ``near``, ``far`` and ``stop``."""

        def pieces(values: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
            parts = torch.stack([reduce(part, 1) for part in values.split(self.outer, 1)], 1)
            return parts.expand(f.shape[0], -1).contiguous()

        low, high = pieces(centre, torch.amin), pieces(centre, torch.amax)
        more = 1 + 8 * torch.finfo(f.dtype).eps  # rounding must leave nothing out
        first = torch.searchsorted(f, low / (ratio * more))
        near = torch.searchsorted(f, high / ratio * more)
        last = torch.searchsorted(f, torch.minimum(pieces(end, torch.amax), high * ratio) * more)
        far = pieces(end > centre * ratio, torch.amax) & (f[:, -1:] > low * ratio)
        stop = torch.searchsorted(f, pieces(end, torch.amin)) * (not steep)
        return torch.stack((first, last, near, far.long(), stop), -1).tolist()

    def __iter__(self) -> Iterator[_Block]:
        rows, outer, _ = self.shape
        for r in range(0, rows, self.rows):
            for piece, o in enumerate(range(0, outer, self.outer)):
                taken = min(self.rows, rows - r), min(self.outer, outer - o)
                first, last, near, far, stop = self._view(slice(r, r + taken[0]), piece)
                shape = *taken, last - first
                size = math.prod(shape)
                yield _Block(
                    slice(r, r + taken[0]),
                    slice(o, o + taken[1]),
                    slice(first, last),
                    max(0, near - first),
                    far,
                    max(0, stop - first),
                    [b[:size].view(shape) for b in self.buffers],
                )

    def _view(self, rows: slice, piece: int) -> tuple[int, int, int, bool, int]:
        if self.views is None:
            return 0, self.shape[2], self.shape[2], True, 0
        first, last, near, far, stop = zip(*(row[piece] for row in self.views[rows]), strict=True)
        return min(first), max(last), max(near), any(far), min(stop)


def _exp(v: Tensor, out: Tensor, stop: float) -> Tensor:
    """Exponentials of ``v``, which stops at ``-stop``."""
    torch.exp(v.clamp_min_(-stop), out=out)
    return torch.threshold_(out, math.exp(-stop) * (1 + 1e-5), 0)


def _seen(block: _Block, v: Tensor, e: Tensor, stop: float, row: Tensor, column: Tensor, ratio: float) -> None:
    """Exponentials ``e`` of ``v``, 0 for frequencies of a row and a column more than ``ratio`` apart."""
    if block.stop == 0:
        _exp(v, e, stop)
    elif block.stop >= v.shape[-1]:
        torch.exp(v, out=e)
    else:
        v[..., block.stop :].clamp_min_(-stop)
        torch.exp(v, out=e)
        torch.threshold_(e[..., block.stop :], math.exp(-stop) * (1 + 1e-5), 0)
    if block.near:
        e[..., : block.near].mul_(column[..., : block.near] * ratio >= row)
    if block.far:
        e.mul_(row * ratio >= column)


def _in_order(f: Tensor, *others: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """Components in rising frequency, for a CPU, and the places that they come from; elsewhere as they are."""
    if f.device.type != "cpu":
        return None, [f, *others]
    f, order = f.sort(1)
    return order, [f, *(t.gather(1, order) for t in others)]


def _put_back(order: Tensor | None, values: Tensor) -> Tensor:
    """Values of components where :func:`_in_order` took these from."""
    return values if order is None else torch.empty_like(values).scatter_(1, order, values)


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
    e = _exp(v, torch.empty_like(v), _stop(dtype, backward=True))
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
    order, (f, intensity) = _in_order(f, intensity)
    fall, stop = -rate(f), _stop(f.dtype, backward=False)
    for block in _Blocks(f, f, stop / -fall, ratio, 2):
        rows, filters, columns, (v, e) = block.rows, block.outer, block.columns, block.buffers
        row, column = f[rows, filters, None], f[rows, None, columns]
        torch.sub(row, column, out=v).abs_().mul_(fall[rows, filters, None])
        _seen(block, v, e, stop, row, column, ratio)
        power[rows, None, columns].baddbmm_(intensity[rows, None, filters], e.addcmul_(v, e, value=-1))
    return _put_back(order, power)


def level_backward(grad: Tensor, f: Tensor, intensity: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Gradients of frequencies and intensities."""
    index = _grid_index(f)
    if index is not None:
        return _level_backward_on_grid(grad, f, intensity, index, ratio)
    grad_f = torch.zeros_like(f, memory_format=torch.contiguous_format)
    grad_i = torch.zeros_like(f, memory_format=torch.contiguous_format)
    order, (f, intensity, grad) = _in_order(f, intensity, grad)
    q, stop = rate(f), _stop(f.dtype, backward=True)
    for block in _Blocks(f, f, stop / q, ratio, 3):
        rows, filters, columns, (d, v, e) = block.rows, block.outer, block.columns, block.buffers
        row, column, slope = f[rows, filters, None], f[rows, None, columns], q[rows, filters, None]
        torch.sub(column, row, out=d)
        torch.abs(d, out=v).mul_(-slope)
        _seen(block, v, e, stop, row, column, ratio)
        g, own = grad[rows, columns, None], intensity[rows, filters]
        torch.addcmul(e, v, e, value=-1, out=v)
        grad_i[rows, filters] = torch.bmm(v, g)[..., 0]
        e.mul_(d)
        scale = own * slope[..., 0].square()
        grad_f[rows, columns] -= g[..., 0] * torch.bmm(scale[:, None], e)[:, 0]
        towards = torch.bmm(e, g) + ERB_SLOPE / 4 * slope * torch.bmm(d.mul_(e), g)
        grad_f[rows, filters] += scale * towards[..., 0]
    return _put_back(order, grad_f), _put_back(order, grad_i)


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


def excitation(f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float) -> Tensor:
    """Power sums (R, N) of the channels over all components."""
    power = f.new_zeros(f.shape[0], fc.shape[0])
    _, (f, intensity, steepness) = _in_order(f, intensity, steepness)
    stop = _stop(f.dtype, backward=False)
    steep = _steep(steepness, p, stop)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for block in _Blocks(f, fc[None], (stop * fc / p)[None], ratio, 3, steep=steep):
        rows, channels, columns, (d, v, e) = block.rows, block.outer, block.columns, block.buffers
        _exponents(f[rows, None, columns], steepness[rows, None, columns], fc, upper, least, channels, d, v)
        # One of the two is at most 0, and which one depends on the side.
        torch.minimum(v.mul_(d), d.mul_(-upper[channels]), out=v)
        _seen(block, v, e, stop, fc[channels, None], f[rows, None, columns], ratio)
        power[rows, channels] = torch.bmm(e.addcmul_(v, e, value=-1), intensity[rows, columns, None])[..., 0]
    return power


def _exponents(
    f: Tensor,
    steepness: Tensor,
    fc: Tensor,
    upper: Tensor,
    least: Tensor,
    channels: slice,
    d: Tensor,
    slope: Tensor,
) -> None:
    """Distances ``f - fc`` in Hz, and the slopes of the channels' low-frequency sides per Hz."""
    torch.sub(f, fc[channels, None], out=d)
    torch.mul(steepness, upper[channels], out=slope)
    torch.maximum(slope, least[channels], out=slope)


def excitation_backward(
    grad: Tensor, f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of frequencies, intensities and steepnesses."""
    grad_f, grad_i, grad_s = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (f, f, f))
    order, (f, intensity, steepness) = _in_order(f, intensity, steepness)
    stop = _stop(f.dtype, backward=True)
    steep = _steep(steepness, p, stop)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for block in _Blocks(f, fc[None], (stop * fc / p)[None], ratio, 5, steep=steep):
        rows, channels, columns, (d, v, e, slope, below) = block.rows, block.outer, block.columns, block.buffers
        _exponents(f[rows, None, columns], steepness[rows, None, columns], fc, upper, least, channels, d, slope)
        torch.clamp_max(d, 0, out=below)
        d.sub_(below)
        a = upper[channels]
        torch.mul(slope, below, out=v).addcmul_(d, -a)
        _seen(block, v, e, stop, fc[channels, None], f[rows, None, columns], ratio)
        g, own = grad[rows, None, channels], intensity[rows, columns]
        torch.addcmul(e, v, e, value=-1, out=v)
        grad_i[rows, columns] += torch.bmm(g, v)[:, 0]
        # Along f the weight falls by slope^2 (f - fc) e; along the steepness s by -a slope (f - fc)^2 e, below fc only.
        torch.mul(slope, below, out=v)
        d.mul_(a.square()).addcmul_(slope, v).mul_(e)
        grad_f[rows, columns] -= own * torch.bmm(g, d)[:, 0]
        v.mul_(below).mul_(e)
        v.masked_fill_(slope <= least[channels], 0)
        grad_s[rows, columns] -= own * torch.bmm(g * a[:, 0], v)[:, 0]
    return _put_back(order, grad_f), _put_back(order, grad_i), _put_back(order, grad_s)


def _weight(u: Tensor, apart: Tensor) -> Tensor:
    return ((1 + u) * torch.exp(-u)).masked_fill(apart, 0)
