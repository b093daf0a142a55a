"""Windowed DFTs in plain torch. Definition and shapes: :mod:`tamt.ops.windowed_dft`.

A window is symmetric and so are the DFT's cosines and sines about the middle of the frame: samples at equal distances
from the middle go into the products as their sum and their difference, which halves the work. One pair of framed
signals, as long as half the longest window, serves all bands: a shorter window is its first columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tamt.shared.windowed_dft import layout, n_frames, slices

# Samples of overlapping frames taken at a time: few enough to stay in a processor's cache with their products;
# elsewhere more, so that launches take little of the time.
SLICE, SLICE_OF_A_DEVICE = 1 << 19, 1 << 24


def definition(
    x: Tensor,
    tables: Tensor,
    weight: Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
) -> Tensor:
    """Weighted powers (R, S, F) of ``x`` (R, N), all frames at once."""
    half, frames = max(lengths) // 2, n_frames(x.shape[1], size, hop)
    even, odd = _even_and_odd(x, half, hop, size, slice(0, frames))
    total = x.new_zeros(x.shape[0], frames, max(last) - min(first) + 1)
    for band in layout(lengths, first, last):
        cosine, sine = band.tables(tables)
        power = (even[..., : band.half] @ cosine).square() + (odd[..., : band.half] @ sine).square()
        outside = (band.bins.start, total.shape[-1] - band.bins.stop)
        total = total + torch.nn.functional.pad(power * weight[band.weights], outside)
    return total


def _slices(x: Tensor, frames: int, half: int, samples: int | None) -> Iterator[tuple[slice, slice]]:
    """Rows and frames of ``x`` of about so many ``samples``, or of as many as its device should take at a time."""
    return slices(x.shape[0], frames, half, samples or (SLICE if x.device.type == "cpu" else SLICE_OF_A_DEVICE))


def _even_and_odd(x: Tensor, half: int, hop: int, size: int, frames: slice) -> tuple[Tensor, Tensor]:
    """Sums and differences of samples at equal distances from the middle of the frames, (rows, frames, half) each."""
    begin, end = frames.start * hop + size // 2, (frames.stop - 1) * hop + size // 2
    right = x[:, begin : end + half].unfold(1, half, hop)
    left = x[:, begin - half : end].unfold(1, half, hop).flip(-1)
    return right + left, right - left


def windowed_dft(
    x: Tensor,
    tables: Tensor,
    weight: Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
    samples: int | None = None,
) -> Tensor:
    """Weighted powers (R, S, F) of ``x`` (R, N), at most about ``samples`` framed samples at a time."""
    bands, half = layout(lengths, first, last), max(lengths) // 2
    frames = n_frames(x.shape[1], size, hop)
    out = x.new_zeros(x.shape[0], frames, max(last) - min(first) + 1)
    for r, s in _slices(x, frames, half, samples):
        even, odd = (t.flatten(0, 1) for t in _even_and_odd(x[r], half, hop, size, s))
        for band in bands:
            cosine, sine = band.tables(tables)
            power = torch.mm(even[:, : band.half], cosine).square_()
            im = torch.mm(odd[:, : band.half], sine)
            target = out[r, s, band.bins]
            target.addcmul_(power.addcmul_(im, im).view(target.shape), weight[band.weights])
    return out


def windowed_dft_backward(
    grad: Tensor,
    x: Tensor,
    tables: Tensor,
    weight: Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
    need_x: bool,
    need_weight: bool,
    samples: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``weight``, empty where they are not needed."""
    bands, half = layout(lengths, first, last), max(lengths) // 2
    grad_x = x.new_zeros(x.shape if need_x else 0)
    grad_weight = weight.new_zeros(weight.shape if need_weight else 0)
    for r, s in _slices(x, grad.shape[1], half, samples):
        framed = _even_and_odd(x[r], half, hop, size, s)
        even, odd = (t.flatten(0, 1) for t in framed)
        grad_even, grad_odd = torch.zeros_like(even), torch.zeros_like(odd)
        for band in bands:
            cosine, sine = band.tables(tables)
            re, im = even[:, : band.half] @ cosine, odd[:, : band.half] @ sine
            g = grad[r, s, band.bins].reshape(re.shape)
            if need_weight:
                grad_weight[band.weights] += torch.addcmul(re * re, im, im).mul_(g).sum(0)
            if need_x:
                g = g * (2 * weight[band.weights])
                grad_even[:, : band.half].addmm_(re.mul_(g), cosine.mT)
                grad_odd[:, : band.half].addmm_(im.mul_(g), sine.mT)
        if need_x:
            right = (grad_even + grad_odd).view_as(framed[0])
            left = grad_even.sub_(grad_odd).view_as(framed[0])
            middle = s.start * hop + size // 2  # of the first frame
            after, before = _overlap_add(right, hop, forward=True), _overlap_add(left, hop, forward=False)
            target = grad_x[r, middle : middle + after.shape[1]]
            target += after[:, : target.shape[1]]
            end = middle + (right.shape[1] - 1) * hop
            target = grad_x[r, max(0, end - before.shape[1]) : end]
            target += before[:, before.shape[1] - target.shape[1] :]
    return grad_x, grad_weight


def _overlap_add(frames: Tensor, hop: int, *, forward: bool) -> Tensor:
    """Frames (R, M, K) laid ``hop`` samples apart and added: to the right of their places, or mirrored to the left.

    To the right, the result begins where the first frame does; to the left, it ends where the last one does. At the
    other end there are less than ``hop`` zeros.
    """
    rows, count, length = frames.shape
    shifts = -(-length // hop)
    out = frames.new_zeros(rows, count + shifts - 1, hop)
    for j in range(shifts):
        part = frames[..., j * hop : (j + 1) * hop]
        first = j if forward else shifts - 1 - j
        out[:, first : first + count, : part.shape[-1]] += part
    return (out if forward else out.flip(-1)).flatten(1)
