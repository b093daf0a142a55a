"""Roex excitation in plain torch. Definitions and shapes: :mod:`tamt.ops.roex`.

Pairs are weighted in tiles that stay in the cache, filters or channels as rows and components as columns. A tile
holds exponents ``-u`` and their exponentials. Numbers below the smallest normal one take a CPU fifty times longer, so
exponents stop early enough for these not to come up, and what stopped there, pairs too far apart included, is 0.

A CPU, whose data can be looked at, takes the components in rising frequency: then those that a tile can see at all
are neighbours, and most tiles have neither exponents to stop nor pairs to leave out.

Weights that do not depend on level are those of all rows that have the same frequencies: one matrix. So are those of
power per ERB, and of the high-frequency sides of the channels, where all rows share their frequencies, or few
frequencies come up again and again. Low-frequency sides then are sums of Gaussians of the steepness, a few dozen more
matrices (:mod:`tamt.reference.roex_gaussians`). Rows or channels with steepnesses out of the ordinary, and few rows,
have exponentials of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamt._memo import Store, bits
from tamt.reference.roex_gaussians import Gaussians
from tamt.shared.roex import (
    ERB_PER_HZ,
    HIGHEST,
    LEAST_SLOPE,
    REFERENCE_LEVEL,
    apart,
    audible,
    last_exponent,
    level_per_erb,
    power_weights,
    rate,
    weight,
)

TILE_BYTES = 1 << 19  # of one temporary of a tile
SLICE = 256  # rows that go through a matrix at a time
KEPT_BYTES = 1 << 26  # of matrices between calls
SAMPLE = 8  # rows that are looked at for frequencies that come up again
ROWS = 512  # of shared frequencies at a time
FEWEST = 64  # rows for which matrices of Gaussians are made
CHANNELS = 16  # of a tile of components with shared frequencies, at most: more leave out too many pairs


def power_per_erb_definition(f: Tensor, intensity: Tensor, ratio: float) -> Tensor:
    """Power sums (R, C) of the filters of all components at each component, all pairs at once."""
    row, column = f[:, :, None], f[:, None]
    return (intensity[:, None] @ weight((column - row).abs() * rate(row), apart(row, column, ratio)))[:, 0]


def excitation_definition(
    f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> Tensor:
    """Power sums (R, N) of the channels over all components, all pairs at once."""
    centre, column = fc[:, None], f[:, None]
    d = column - centre
    lower = (steepness[:, None] * (p / fc)[:, None]).clamp_min(LEAST_SLOPE / centre)
    weights = weight(d.abs() * torch.where(d < 0, lower, (p / fc)[:, None]), apart(centre, column, ratio))
    return (weights @ intensity[..., None])[..., 0]


def shared_definition(
    f: Tensor, intensity: Tensor, weights: Tensor, factor: Tensor, fc: Tensor, p: Tensor, p1000: float, ratio: float
) -> Tensor:
    """Power sums (R, N) of the channels over components of frequencies (C,), all pairs at once."""
    heard = audible(f)
    valid = heard & (intensity < math.inf)
    unknown = (~valid & ~(f <= 0)).any(1, keepdim=True)
    f, intensity = torch.where(heard, f, HIGHEST), torch.where(valid, intensity, 0.0)
    steepness = 1 - factor / p1000 * (level_per_erb(intensity @ weights) - REFERENCE_LEVEL)
    power = excitation_definition(f.expand(intensity.shape), intensity, steepness, fc, p, ratio)
    return power.masked_fill(unknown, math.nan)


def _steep(steepness: Tensor, p: Tensor, most: float) -> bool:
    """Whether exponents of the channels' low-frequency sides may have to stop. Only a CPU is asked for its data."""
    if steepness.device.type != "cpu" or not steepness.numel() or not p.numel():
        return True
    return not bool(steepness.amax() * p.amax() < most)


class _Tile(NamedTuple):
    """Pairs (rows, outer, columns) that are weighted together."""

    rows: slice
    outer: slice  # filters or channels
    columns: slice  # components; those left out have no weight
    near: int  # columns before this one may be too far below
    far: bool  # whether some column may be too far above
    stop: int  # exponents of columns from this one on may have to stop
    buffers: list[Tensor]


class _Tiles:
    """The :class:`_Tile` s of components ``f`` (R, C) and of filters or channels at ``centre``, (R, O) or (1, O).

    ``reach`` is how far above its centre each of these sees anything, ``count`` the number of temporaries that all
    tiles share; ``steep`` says that exponents may have to stop below the centre too. On a CPU ``f`` must be sorted.
    """

    def __init__(
        self, f: Tensor, centre: Tensor, reach: Tensor, ratio: float, count: int, *, steep: bool = False
    ) -> None:
        rows, inner = f.shape
        self.shape = rows, centre.shape[1], inner
        cells = max(1, TILE_BYTES // f.element_size())
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
        f = f.contiguous()  # or torch warns of a copy
        first = torch.searchsorted(f, low / (ratio * more))
        near = torch.searchsorted(f, high / ratio * more)
        last = torch.searchsorted(f, torch.minimum(pieces(end, torch.amax), high * ratio) * more)
        far = pieces(end > centre * ratio, torch.amax) & (f[:, -1:] > low * ratio)
        stop = torch.searchsorted(f, pieces(end, torch.amin)) * (not steep)
        return torch.stack((first, last, near, far.long(), stop), -1).tolist()

    def __iter__(self) -> Iterator[_Tile]:
        rows, outer, _ = self.shape
        for r in range(0, rows, self.rows):
            for piece, o in enumerate(range(0, outer, self.outer)):
                taken = min(self.rows, rows - r), min(self.outer, outer - o)
                first, last, near, far, stop = self._view(slice(r, r + taken[0]), piece)
                shape = *taken, last - first
                size = math.prod(shape)
                yield _Tile(
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


def _exp(v: Tensor, out: Tensor, most: float) -> Tensor:
    """Exponentials of ``v``, which stops at ``-most``."""
    torch.exp(v.clamp_min_(-most), out=out)
    return torch.threshold_(out, math.exp(-most) * (1 + 1e-5), 0)


def _seen(tile: _Tile, v: Tensor, e: Tensor, most: float, row: Tensor, column: Tensor, ratio: float) -> None:
    """Exponentials ``e`` of ``v``, 0 for frequencies of a row and a column more than ``ratio`` apart."""
    if tile.stop == 0:
        _exp(v, e, most)
    elif tile.stop >= v.shape[-1]:
        torch.exp(v, out=e)
    else:
        v[..., tile.stop :].clamp_min_(-most)
        torch.exp(v, out=e)
        torch.threshold_(e[..., tile.stop :], math.exp(-most) * (1 + 1e-5), 0)
    if tile.near:
        e[..., : tile.near].mul_(column[..., : tile.near] * ratio >= row)
    if tile.far:
        e.mul_(row * ratio >= column)


def _in_order(f: Tensor, *others: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """Components in rising frequency, for a CPU, and the places that they come from; None where that is as they are."""
    if f.device.type != "cpu":
        return None, [f, *others]
    if bool((f[:, 1:] >= f[:, :-1]).all()):
        return None, [f.contiguous(), *others]
    f, order = f.sort(1)
    return order, [f, *(t.gather(1, order) for t in others)]


def _put_back(order: Tensor | None, values: Tensor) -> Tensor:
    """Values of components where :func:`_in_order` took these from."""
    return values if order is None else torch.empty_like(values).scatter_(1, order, values)


class _Recurring(NamedTuple):
    """Few frequencies that the components of many rows have."""

    f: Tensor  # (U,), rising
    place: Tensor  # of each component, (R, C)

    def spread(self, values: Tensor, rows: slice) -> Tensor:
        """Values (R, C) of some rows, added up at their frequencies."""
        place = self.place[rows]
        return values.new_zeros(place.shape[0], self.f.shape[0]).scatter_add_(1, place, values[rows])

    def placed(self, values: Tensor) -> Tensor:
        """Values (R, C) of which those of a row at the same frequency are the same, 0 where a row has none."""
        return values.new_zeros(values.shape[0], self.f.shape[0]).scatter_(1, self.place, values)

    def slices(self) -> Iterator[slice]:
        """Some rows at a time."""
        return (slice(r, r + SLICE) for r in range(0, self.place.shape[0], SLICE))


def _recurring(f: Tensor) -> _Recurring | None:
    """Frequencies that come up so often that a matrix of their pairs is worth it. Only a CPU is asked for its data."""
    rows, count = f.shape
    # The matrix takes a few times what its pairs take in a tile, and a product with it a tenth of what its rows take.
    most = int(count * min(4.0, math.sqrt(rows) / 2))
    if f.device.type != "cpu" or most < count or not f.numel():
        return None
    distinct = f[:: -(-rows // SAMPLE)].unique()
    if distinct.shape[0] > most:
        return None
    f = f.contiguous()
    place = torch.searchsorted(distinct, f).clamp_max_(distinct.shape[0] - 1)
    new = f[distinct[place] != f]
    if new.numel():
        distinct = torch.cat((distinct, new)).unique()
        if distinct.shape[0] > most:
            return None
        place = torch.searchsorted(distinct, f)
    return _Recurring(distinct, place)


class _Weights(NamedTuple):
    """What is kept of the matrices of frequencies."""

    matrices: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(matrix.nbytes for matrix in self.matrices)


class _Shared(NamedTuple):
    """Matrices of channels and components whose frequencies all rows share."""

    gaussians: Gaussians
    upper: Tensor  # weights (N, C) of components that are not below the channels

    @property
    def nbytes(self) -> int:
        return self.gaussians.nbytes + self.upper.nbytes


_KEPT: Store[_Weights] = Store(KEPT_BYTES)
_SHARED: Store[_Shared] = Store(KEPT_BYTES)


def _weights(f: Tensor, ratio: float) -> Tensor:
    """:func:`power_weights` of recurring frequencies."""
    key = "weights", ratio, *bits(f)
    return _KEPT.get(key, lambda: _Weights((power_weights(f, ratio),))).matrices[0]


def _slopes(f: Tensor, ratio: float) -> tuple[Tensor, ...]:
    """Derivatives of :func:`power_weights` to the frequency of the filter, in rows, and to that of the component."""

    def compute() -> _Weights:
        row, q = f[:, None], rate(f)[:, None]
        d = f - row
        u = d.abs() * q
        left_out = apart(row, f, ratio) | (u > last_exponent(f.dtype, small=True))
        fall = (d * q.square() * torch.exp(-u)).masked_fill_(left_out, 0)
        return _Weights((fall * (1 + ERB_PER_HZ / 4 * q * d), -fall))

    return _KEPT.get(("slopes", ratio, *bits(f)), compute).matrices


def power_per_erb(f: Tensor, intensity: Tensor, ratio: float) -> Tensor:
    """Power sums (R, C) of the filters of all components at each component."""
    power = torch.zeros_like(f, memory_format=torch.contiguous_format)
    recurring = _recurring(f)
    if recurring is not None:
        weights = _weights(recurring.f, ratio)
        for rows in recurring.slices():
            torch.gather(recurring.spread(intensity, rows) @ weights, 1, recurring.place[rows], out=power[rows])
        return power
    order, (f, intensity) = _in_order(f, intensity)
    fall, most = -rate(f), last_exponent(f.dtype, small=False)
    for tile in _Tiles(f, f, most / -fall, ratio, 2):
        rows, filters, columns, (v, e) = tile.rows, tile.outer, tile.columns, tile.buffers
        row, column = f[rows, filters, None], f[rows, None, columns]
        torch.sub(row, column, out=v).abs_().mul_(fall[rows, filters, None])
        _seen(tile, v, e, most, row, column, ratio)
        power[rows, None, columns].baddbmm_(intensity[rows, None, filters], e.addcmul_(v, e, value=-1))
    return _put_back(order, power)


def power_per_erb_backward(grad: Tensor, f: Tensor, intensity: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Gradients of frequencies and intensities."""
    grad_f = torch.zeros_like(f, memory_format=torch.contiguous_format)
    grad_i = torch.zeros_like(f, memory_format=torch.contiguous_format)
    recurring = _recurring(f)
    if recurring is not None:
        weights, (of_filter, of_component) = _weights(recurring.f, ratio), _slopes(recurring.f, ratio)
        for rows in recurring.slices():
            at, g = recurring.place[rows], recurring.spread(grad, rows)
            torch.gather(g @ weights.t(), 1, at, out=grad_i[rows])
            torch.gather(g @ of_filter.t(), 1, at, out=grad_f[rows]).mul_(intensity[rows])
            received = recurring.spread(intensity, rows) @ of_component
            grad_f[rows].addcmul_(grad[rows], torch.gather(received, 1, at))
        return grad_f, grad_i
    order, (f, intensity, grad) = _in_order(f, intensity, grad)
    q, most = rate(f), last_exponent(f.dtype, small=True)
    for tile in _Tiles(f, f, most / q, ratio, 3):
        rows, filters, columns, (d, v, e) = tile.rows, tile.outer, tile.columns, tile.buffers
        row, column, slope = f[rows, filters, None], f[rows, None, columns], q[rows, filters, None]
        torch.sub(column, row, out=d)
        torch.abs(d, out=v).mul_(-slope)
        _seen(tile, v, e, most, row, column, ratio)
        g, own = grad[rows, columns, None], intensity[rows, filters]
        torch.addcmul(e, v, e, value=-1, out=v)
        grad_i[rows, filters] = torch.bmm(v, g)[..., 0]
        e.mul_(d)
        scale = own * slope[..., 0].square()
        grad_f[rows, columns] -= g[..., 0] * torch.bmm(scale[:, None], e)[:, 0]
        towards = torch.bmm(e, g) + ERB_PER_HZ / 4 * slope * torch.bmm(d.mul_(e), g)
        grad_f[rows, filters] += scale * towards[..., 0]
    return _put_back(order, grad_f), _put_back(order, grad_i)


def excitation(f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float) -> Tensor:
    """Power sums (R, N) of the channels over all components."""
    if _shared(f):
        return _excitation_of_shared(f[0], intensity, steepness, fc, p, ratio)
    recurring = _recurring_alike(f, steepness)
    if recurring is not None:
        spread = recurring.spread(intensity, slice(None)), recurring.placed(steepness)
        return _excitation_of_shared(recurring.f, *spread, fc, p, ratio)
    power = f.new_zeros(f.shape[0], fc.shape[0])
    _, (f, intensity, steepness) = _in_order(f, intensity, steepness)
    most = last_exponent(f.dtype, small=False)
    steep = _steep(steepness, p, most)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for tile in _Tiles(f, fc[None], (most * fc / p)[None], ratio, 3, steep=steep):
        rows, channels, columns, (d, v, e) = tile.rows, tile.outer, tile.columns, tile.buffers
        _exponents(f[rows, None, columns], steepness[rows, None, columns], fc, upper, least, channels, d, v)
        # One of the two is at most 0, and which one depends on the side.
        torch.minimum(v.mul_(d), d.mul_(-upper[channels]), out=v)
        _seen(tile, v, e, most, fc[channels, None], f[rows, None, columns], ratio)
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
    if _shared(f):
        of_f, of_i, of_s = _backward_of_shared(grad, f[0], steepness, fc, p, ratio)
        return of_f.mul_(intensity), of_i, of_s.mul_(intensity)
    recurring = _recurring_alike(f, steepness)
    if recurring is not None:
        found = _backward_of_shared(grad, recurring.f, recurring.placed(steepness), fc, p, ratio)
        of_f, of_i, of_s = (t.gather(1, recurring.place) for t in found)
        return of_f.mul_(intensity), of_i, of_s.mul_(intensity)
    grad_f, grad_i, grad_s = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (f, f, f))
    order, (f, intensity, steepness) = _in_order(f, intensity, steepness)
    most = last_exponent(f.dtype, small=True)
    steep = _steep(steepness, p, most)
    upper, least = (p / fc)[:, None], (LEAST_SLOPE / fc)[:, None]
    for tile in _Tiles(f, fc[None], (most * fc / p)[None], ratio, 5, steep=steep):
        rows, channels, columns, (d, v, e, slope, below) = tile.rows, tile.outer, tile.columns, tile.buffers
        _exponents(f[rows, None, columns], steepness[rows, None, columns], fc, upper, least, channels, d, slope)
        torch.clamp_max(d, 0, out=below)
        d.sub_(below)
        a = upper[channels]
        torch.mul(slope, below, out=v).addcmul_(d, -a)
        _seen(tile, v, e, most, fc[channels, None], f[rows, None, columns], ratio)
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


def _recurring_alike(f: Tensor, steepness: Tensor) -> _Recurring | None:
    """:func:`_recurring` where components of a row at the same frequency have the same steepness."""
    recurring = _recurring(f)
    if recurring is None or recurring.f.shape[0] > 2 * f.shape[1]:
        return None
    return recurring if torch.equal(recurring.placed(steepness).gather(1, recurring.place), steepness) else None


def _shared(f: Tensor) -> bool:
    """Whether the rows are one row, given as many, whose data may be looked at."""
    return f.device.type == "cpu" and f.shape[0] > 1 and f.shape[1] > 0 and f.stride(0) == 0


class _Pairs(NamedTuple):
    """Pairs (rows, channels, columns) of channels and components below them."""

    rows: slice
    channels: slice
    columns: slice  # components
    v: Tensor  # exponents
    e: Tensor  # their exponentials, 0 for pairs that do not count
    spare: Tensor


class _Below:
    """Channels and the components below them within ``ratio``, of sorted frequencies (C,) that all rows share."""

    def __init__(self, f: Tensor, fc: Tensor, p: Tensor, ratio: float) -> None:
        centre = fc[:, None]
        self.p, self.ratio = p, ratio
        self.f, self.centres = f, fc.tolist()
        distance = f - centre
        self.inside = (distance < 0) & ~apart(centre, f, ratio)
        self.distance = distance.masked_fill_(~self.inside, 0)  # in Hz (N, C)
        self.fall = self.distance * (p[:, None] / centre)  # exponents for a steepness of 1
        self.least = self.distance * (LEAST_SLOPE / centre)  # and for the least slope

    def __call__(self, steepness: Tensor, most: float) -> Iterator[_Pairs]:
        """All pairs of rows with ``steepness`` (R, C), exponents not below ``-most``."""
        rows, steep = steepness.shape[0], _steep(steepness, self.p, most)
        cells = TILE_BYTES // self.f.element_size()
        mean = int(self.inside.sum()) // max(1, len(self.centres))
        step = max(1, min(CHANNELS, cells // max(1, rows * mean)))
        buffers = [self.f.new_empty(max(cells, step * self.f.shape[0])) for _ in range(3)]
        for n, (first, near, top, last) in zip(range(0, len(self.centres), step), self._views(step), strict=True):
            channels, columns = slice(n, n + step), slice(first, last)
            fall, least, inside = (t[channels, columns] for t in (self.fall, self.least, self.inside))
            taken = buffers[0].numel() // max(1, fall.numel())
            for r in range(0, rows if fall.numel() else 0, taken):
                some = slice(r, min(r + taken, rows))
                shape = some.stop - r, *fall.shape
                v, e, spare = (b[: math.prod(shape)].view(shape) for b in buffers)
                torch.mul(steepness[some, None, columns], fall, out=v)
                torch.minimum(v, least, out=v)
                if steep:
                    _exp(v, e, most)
                else:
                    torch.exp(v, out=e)
                for edge in (slice(0, near - first), slice(max(0, top - first), last - first)):
                    e[..., edge].mul_(inside[:, edge])
                yield _Pairs(some, channels, columns, v, e, spare)

    def _views(self, step: int) -> list[list[int]]:
        """For ``step`` channels at a time: first column, those between which all pairs count, and the last."""
        groups = [self.centres[n : n + step] for n in range(0, len(self.centres), step)]
        more = 1 + 8 * torch.finfo(self.f.dtype).eps  # rounding must leave nothing out
        ends = [(min(c) / (self.ratio * more), max(c) / self.ratio * more, min(c), max(c)) for c in groups]
        found: list[list[int]] = torch.searchsorted(self.f, self.f.new_tensor(ends).reshape(-1, 4)).tolist()
        return found


def _above(f: Tensor, fc: Tensor, p: Tensor, ratio: float, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes per Hz (N, 1), exponents and their exponentials (N, C) of components that are not below the channels."""
    centre = fc[:, None]
    slope = p[:, None] / centre
    d = f - centre
    v = d.mul(-slope)
    e = _exp(v, torch.empty_like(v), most).masked_fill_(apart(centre, f, ratio) | (d < 0), 0)
    return slope, v, e


def _matrices(f: Tensor, fc: Tensor, p: Tensor, ratio: float, rows: int) -> _Shared | None:
    """Those of rising frequencies (C,), if that many rows are worth them. Only a CPU is asked for its data."""
    if f.device.type != "cpu" or rows < FEWEST or not f.numel():
        return None

    def compute() -> _Shared:
        _, v, e = _above(f, fc, p, ratio, last_exponent(f.dtype, small=False))
        return _Shared(Gaussians(f, fc, p, ratio), e.addcmul_(v, e, value=-1))

    found = _SHARED.get((ratio, *bits(f, fc, p)), compute)
    return found if found.gaussians.fits else None


def _excitation_of_shared(
    f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> Tensor:
    """:func:`excitation` of components whose frequencies (C,) are those of all rows."""
    _, (f, intensity, steepness) = _shared_in_order(f, intensity, steepness)
    matrices = _matrices(f, fc, p, ratio, intensity.shape[0])
    if matrices is None:
        return _sums_of_pairs(f, intensity, steepness, fc, p, ratio)
    power = intensity.new_empty(intensity.shape[0], fc.shape[0])
    for rows in _blocks(intensity.shape[0]):
        own, steep = (t[rows].t().clone(memory_format=torch.contiguous_format) for t in (intensity, steepness))
        power[rows] = _sums_of_block(matrices, f, own, steep, fc, p, ratio)
    return power


def _sums_of_block(
    matrices: _Shared, f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> Tensor:
    """Power sums (R, N) for intensities and steepnesses (C, R). Changes the steepnesses."""
    gaussians = matrices.gaussians
    steepness.masked_fill_(intensity == 0, 1)  # of no account
    fit = gaussians.fitting(intensity, steepness)
    if bool(fit.all()):
        return gaussians.sums(intensity, steepness).addmm_(matrices.upper, intensity).t()
    power = intensity.new_empty(fit.shape[0], fc.shape[0])
    power[~fit] = _sums_of_pairs(f, intensity[:, ~fit].t(), steepness[:, ~fit].t(), fc, p, ratio)
    if bool(fit.any()):
        own = intensity[:, fit]
        power[fit] = gaussians.sums(own, steepness[:, fit]).addmm_(matrices.upper, own).t()
    return power


def _sums_of_pairs(f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float) -> Tensor:
    """:func:`_excitation_of_shared` by the exponentials of all pairs, frequencies in rising order."""
    most = last_exponent(f.dtype, small=False)
    _, v, e = _above(f, fc, p, ratio, most)
    power = intensity @ e.addcmul_(v, e, value=-1).t()
    for rows, channels, columns, v, e, _ in _Below(f, fc, p, ratio)(steepness, most):
        sums = torch.bmm(e.addcmul_(v, e, value=-1), intensity[rows, columns, None])
        power[rows, channels] += sums[..., 0]
    return power


class _Components:
    """Components of frequencies ``f`` (C,) that all rows share, with the matrix of their power per ERB.

    On a CPU they are in rising order; padding stands above all others.
    """

    def __init__(self, f: Tensor, weights: Tensor) -> None:
        heard = audible(f)
        self.order, self.weights = None, weights
        self.broken = (~heard & ~(f <= 0)).any()
        self.f = torch.where(heard, f, HIGHEST)
        if f.device.type == "cpu":
            self.order, (self.f,) = _shared_in_order(self.f)
        if self.order is not None:
            heard, self.weights = heard[self.order], weights[self.order][:, self.order]
        self.padding = ~heard[:, None]
        self.full = f.device.type == "cpu" and bool(heard.all())

    def block(self, intensity: Tensor) -> tuple[Tensor, Tensor]:
        """Intensities (C, R) of some rows (R, C), and rows (R,) whose results are not known, 0 here."""
        rows = intensity if self.order is None else intensity[:, self.order]
        own = rows.t().clone(memory_format=torch.contiguous_format)
        if not self.full:
            own.masked_fill_(self.padding, 0)
        unknown = ~(own.amax(0) < math.inf) | self.broken
        if own.device.type != "cpu" or bool(unknown.any()):
            own.masked_fill_(unknown, 0)
        return own, unknown

    def power(self, intensity: Tensor) -> Tensor:
        """Power per ERB (C, R)."""
        return self.weights.t() @ intensity

    def put_back(self, values: Tensor, dim: int) -> Tensor:
        """Values of components where they come from."""
        return values if self.order is None else torch.empty_like(values).index_copy_(dim, self.order, values)


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(r, min(r + ROWS, rows)) for r in range(0, rows, ROWS))


def shared_excitation(
    f: Tensor, intensity: Tensor, weights: Tensor, factor: Tensor, fc: Tensor, p: Tensor, p1000: float, ratio: float
) -> Tensor:
    """Power sums (R, N) of the channels over components of frequencies (C,)."""
    power = intensity.new_zeros(intensity.shape[0], fc.shape[0])
    if not intensity.numel():
        return power
    components = _Components(f, weights)
    f = components.f
    matrices = _matrices(f, fc, p, ratio, intensity.shape[0])
    for rows in _blocks(intensity.shape[0]):
        own, unknown = components.block(intensity[rows])
        steepness = _steepness(level_per_erb(components.power(own)), factor, p1000)
        if matrices is None:
            found = excitation(f.expand(own.shape[::-1]), own.t(), steepness.t(), fc, p, ratio)
        else:
            found = _sums_of_block(matrices, f, own, steepness, fc, p, ratio)
        power[rows] = found.masked_fill_(unknown[:, None], math.nan)
    return power


def _steepness(level: Tensor, factor: Tensor, p1000: float) -> Tensor:
    """Of a level per ERB, which becomes it."""
    return level.sub_(REFERENCE_LEVEL).mul_(-factor / p1000).add_(1)


def shared_excitation_backward(
    grad: Tensor,
    f: Tensor,
    intensity: Tensor,
    weights: Tensor,
    factor: Tensor,
    fc: Tensor,
    p: Tensor,
    p1000: float,
    ratio: float,
    need_f: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of frequencies, intensities, weights and the factor; of the first and third if needed."""
    grad_f, grad_w = (torch.zeros_like(t) if need_f else t.new_zeros(0) for t in (f, weights))
    grad_i, grad_factor = intensity.new_zeros(intensity.shape), torch.zeros_like(factor)
    if not intensity.numel():
        return grad_f, grad_i, grad_w, grad_factor
    components = _Components(f, weights)
    f = components.f
    matrices = None if need_f else _matrices(f, fc, p, ratio, intensity.shape[0])
    for rows in _blocks(intensity.shape[0]):
        own, unknown = components.block(intensity[rows])
        g = grad[rows].masked_fill(unknown[:, None], 0)
        power = components.power(own)
        level = level_per_erb(power)
        steepness = _steepness(level.clone(), factor, p1000)
        if matrices is None:
            of_f, of_i, of_s = excitation_backward(g, f.expand(own.shape[::-1]), own.t(), steepness.t(), fc, p, ratio)
            of_i, of_s = of_i.t(), of_s.t()
            if need_f:
                grad_f += of_f.sum(0)
        else:
            of_i, of_s = _gradients_of_block(matrices, g, f, own, steepness, fc, p, ratio)
        grad_factor -= level.sub_(REFERENCE_LEVEL).mul_(of_s).sum() / p1000
        of_power = of_s.mul(-10 / math.log(10) * factor / p1000).div_(power)
        of_power.masked_fill_(power < torch.finfo(torch.float32).tiny, 0)  # the level of silence does not change
        if need_f:
            grad_w.addmm_(own, of_power.t())
        of_i = torch.addmm(of_i, components.weights, of_power).masked_fill_(components.padding, 0)
        grad_i[rows] = components.put_back(of_i, 0).t()
    if need_f:
        grad_f = components.put_back(grad_f.masked_fill_(components.padding[:, 0], 0), 0)
        grad_w = components.put_back(components.put_back(grad_w, 0), 1)
    return grad_f, grad_i, grad_w, grad_factor


def _gradients_of_block(
    matrices: _Shared,
    grad: Tensor,
    f: Tensor,
    intensity: Tensor,
    steepness: Tensor,
    fc: Tensor,
    p: Tensor,
    ratio: float,
) -> tuple[Tensor, Tensor]:
    """Gradients (C, R) of intensities and steepnesses (C, R), given those of power sums (R, N).

    Changes the steepnesses.
    """
    fit = matrices.gaussians.fitting(intensity, steepness)

    def of_fitting(grad: Tensor, intensity: Tensor, steepness: Tensor) -> tuple[Tensor, Tensor]:
        g = grad.t().contiguous()
        of_i, of_s = matrices.gaussians.gradients(g, intensity, steepness)
        return of_i.addmm_(matrices.upper.t(), g), of_s

    if bool(fit.all()):
        return of_fitting(grad, intensity, steepness)
    grad_i, grad_s = torch.empty_like(intensity), torch.empty_like(intensity)
    _, of_i, of_s = _backward_of_shared(grad[~fit], f, steepness[:, ~fit].t(), fc, p, ratio)
    grad_i[:, ~fit], grad_s[:, ~fit] = of_i.t(), of_s.t() * intensity[:, ~fit]
    if bool(fit.any()):
        grad_i[:, fit], grad_s[:, fit] = of_fitting(grad[fit], intensity[:, fit], steepness[:, fit])
    return grad_i, grad_s


def _backward_of_shared(
    grad: Tensor, f: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`excitation_backward` likewise, those of frequencies, each row's own, and of steepnesses per intensity."""
    order, (f, steepness) = _shared_in_order(f, steepness)
    most = last_exponent(f.dtype, small=True)
    slope, v, e = _above(f, fc, p, ratio, most)
    grad_i = grad @ torch.addcmul(e, v, e, value=-1)
    # Along f the weight changes by slope v e above the channel, by -(v/d) v e below it.
    grad_f = grad @ v.mul_(e).mul_(slope)
    grad_s = torch.zeros_like(grad_f)
    below = _Below(f, fc, p, ratio)
    inverse = below.distance.clamp_max(-torch.finfo(f.dtype).tiny).reciprocal()
    for rows, channels, columns, v, e, ve in below(steepness, most):
        g = grad[rows, None, channels]
        torch.mul(v, e, out=ve)
        grad_i[rows, columns] += torch.bmm(g, e.sub_(ve))[:, 0]
        torch.mul(v, ve, out=e).mul_(inverse[channels, columns])
        grad_f[rows, columns] -= torch.bmm(g, e)[:, 0]
        # Along the steepness by -v e times the exponent for a steepness of 1, where the slope is not the least.
        ve.masked_fill_(v >= below.least[channels, columns], 0).mul_(below.fall[channels, columns])
        grad_s[rows, columns] -= torch.bmm(g, ve)[:, 0]
    return _shared_back(order, grad_f), _shared_back(order, grad_i), _shared_back(order, grad_s)


def _shared_in_order(f: Tensor, *rows: Tensor) -> tuple[Tensor | None, list[Tensor]]:
    """:func:`_in_order` of components with frequencies ``f`` (C,) in all rows."""
    if bool((f[1:] >= f[:-1]).all()):
        return None, [f.contiguous(), *rows]
    f, order = f.sort()
    return order, [f, *(t[:, order] for t in rows)]


def _shared_back(order: Tensor | None, values: Tensor) -> Tensor:
    return values if order is None else torch.empty_like(values).index_copy_(1, order, values)
