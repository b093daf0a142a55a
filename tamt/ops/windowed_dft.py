r"""Powers of DFT bins seen through windows of different lengths in one frame, only the wanted bins of each window.

.. math::

    I[s, k] = \sum_b w_b[k] \Bigl| \sum_n h_b[n]\, x[s\,\mathrm{hop} + n]\, e^{-2\pi i k n / \mathrm{size}} \Bigr|^2

over the bands b that hold bin k; :math:`h_b` is a symmetric Hann window in the middle of the frame of ``size`` samples.
This equals FFTs of the zero-padded windowed frames, but as matrix products with tables of cosines and sines: few bins
of short windows cost less than whole FFTs, and no complex numbers are needed.

For the operator ``x`` is (R, N) and the bands are lists of lengths, first and last bins. ``tables`` are those of
:func:`dft_tables`, and ``weight`` holds the weights of all bands one after the other. On CUDA it runs on Triton kernels
in float32; in float64 it is composed of cuBLAS's products over slices, as Triton's are slow there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import windowed_dft as reference
from tamt.shared import windowed_dft as layouts

Bands = Sequence[tuple[int, int, int]]


def windowed_dft(
    x: Tensor, bands: Bands, hop: int, size: int, *, weight: Tensor | None = None, tables: Tensor | None = None
) -> Tensor:
    r"""Powers of some bins of every frame, each through the windows of the bands that hold it.

    Parameters
    ----------
    x : Tensor (..., N)
        Signal of at least ``size`` samples, float32 or float64.
    bands : sequence of (length, first, last)
        Length of a window in samples, an even number up to ``size``, and its first and last bin (included) in
        [0, size/2].
    hop : int
        Samples from one frame to the next.
    size : int
        Samples of a frame, an even number.
    weight : Tensor (W,), optional
        Weights of the bands' bins, one band after the other, of ``x``'s type; 1 if not given. Bins of several bands are
        weighted sums.
    tables : Tensor, optional
        ``dft_tables(bands, size)`` of ``x``'s type, to be kept between calls; made here if not given.

    Returns
    -------
    Tensor (..., S, F)
        Powers in the S = (N - size)//hop + 1 frames of the F bins from the first of all bands to the last; 0 where no
        band holds a bin.

    Raises
    ------
    ValueError
        Bands outside of the frame, an odd ``size``, a ``hop`` below 1, a signal shorter than a frame, weights or tables
        of other bands.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    Gradients reach ``x`` and ``weight``. Memory beside the result is a few MB on the CPU whatever the length.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.windowed_dft import windowed_dft
    >>> bands = [(512, 2, 31), (128, 32, 128)]  # bins 2 to 31 by a long window, 32 to 128 by a short one
    >>> windowed_dft(torch.randn(3, 4000), bands, hop=160, size=512).shape
    torch.Size([3, 22, 127])
    """
    _check_bands(bands, hop, size)
    if x.dim() < 1 or x.shape[-1] < size:
        raise ValueError(f"x must have shape (..., N) with N >= {size}, got {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if tables is None:
        tables = dft_tables(bands, size, dtype=x.dtype, device=x.device)
    if weight is None:
        weight = x.new_ones(sum(last - first + 1 for _, first, last in bands))
    check_same_kind({"tables": tables, "weight": weight}, x, "x's")
    lengths, first, last = ([int(n) for n in column] for column in zip(*bands, strict=True))
    power = windowed_dft_rows(as_rows(x), tables.detach(), weight, lengths, first, last, hop, size)
    (found,) = with_lead(x.shape[:-1], [power])
    return found


def dft_tables(
    bands: Bands, size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    r"""Tables of :func:`windowed_dft`: windowed cosines and sines of each band, made in float64.

    Row d of a band holds :math:`h \cos\theta` (and then :math:`h \sin\theta`) of its bins at the distance d + 1/2 from
    the middle of the frame, :math:`\theta = 2\pi k (d + 1/2) / \mathrm{size}`. The phase is exact: the integer
    ``k (2 d + 1)`` is reduced first.

    Parameters
    ----------
    bands, size
        As for :func:`windowed_dft`.
    dtype : torch.dtype
        Type of the signal that they are for, float32 or float64.
    device : torch.device, optional
        Where they are made, by default torch's.

    Returns
    -------
    Tensor (P,)
        The tables of all bands, one after the other.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.windowed_dft import dft_tables, windowed_dft
    >>> bands = [(512, 2, 31), (128, 32, 128)]
    >>> tables = dft_tables(bands, 512)  # made once
    >>> windowed_dft(torch.randn(4000), bands, hop=160, size=512, tables=tables).shape
    torch.Size([22, 127])
    """
    _check_bands(bands, 1, size)
    parts = []
    with torch.device("cpu"):
        turn = torch.arange(2 * size, dtype=torch.float64) * (math.pi / size)
        cosine, sine = turn.cos(), turn.sin()
        for band, (length, first, last) in zip(
            layouts.layout(*map(list, zip(*bands, strict=True))), bands, strict=True
        ):
            distance = torch.arange(band.half)[:, None]
            window = 0.5 - 0.5 * torch.cos(2 * math.pi / (length - 1) * (band.half + distance).double())
            phase = (2 * distance + 1) * torch.arange(first, last + 1) % (2 * size)
            table = torch.zeros(2, band.half, band.pitch, dtype=torch.float64)
            table[0, :, : band.n_bins] = window * cosine[phase]
            table[1, :, : band.n_bins] = window * sine[phase]
            parts.append(table.flatten().to(dtype))
        return torch.cat(parts).to(device or torch.get_default_device())


def _check_bands(bands: Bands, hop: int, size: int) -> None:
    if size < 2 or size % 2:
        raise ValueError(f"size must be an even number of at least 2, got {size}")
    if hop < 1:
        raise ValueError(f"hop must be at least 1, got {hop}")
    if len(bands) == 0:
        raise ValueError("bands must hold at least one (length, first, last)")
    for length, first, last in bands:
        if length % 2 or not (2 <= length <= size and 0 <= first <= last <= size // 2):
            raise ValueError(
                f"bands must be (length, first, last) with an even length in [2, {size}] and "
                f"0 <= first <= last <= {size // 2}, got {(length, first, last)}"
            )


def _check(
    x: Tensor,
    tables: Tensor,
    weight: Tensor,
    lengths: list[int],
    first: list[int],
    last: list[int],
    hop: int,
    size: int,
) -> None:
    _check_bands(list(zip(lengths, first, last, strict=True)), hop, size)
    end = layouts.layout(lengths, first, last)[-1]
    check_value(
        x.dim() == 2 and x.shape[1] >= size,
        lambda: f"x must have shape (R, N) with N >= {size}, got {tuple(x.shape)}",
    )
    check_value(
        weight.shape == (end.weights.stop,),
        lambda: f"weight must have shape ({end.weights.stop},), got {tuple(weight.shape)}",
    )
    count = end.offset + 2 * end.half * end.pitch
    check_value(
        tables.shape == (count,) and tables.is_contiguous(),
        lambda: f"tables must be contiguous and have shape ({count},), got {tuple(tables.shape)}",
    )


windowed_dft_rows = register(
    "windowed_dft",
    "(Tensor x, Tensor tables, Tensor weight, int[] lengths, int[] first, int[] last, int hop, int size) -> Tensor",
    definition=reference.definition,
    forward=reference.windowed_dft,
    launcher="windowed_dft:windowed_dft",
    launched=(torch.float32,),  # libraries multiply in float64 with units that Triton does not use
    backward=Backward(
        reference.windowed_dft_backward,
        of="x weight",
        constants="tables",
        launcher="windowed_dft:windowed_dft_backward",
        needs=("x", "weight"),
    ),
    check=_check,
    shapes=lambda x, tables, weight, lengths, first, last, hop, size: (
        x.shape[0],
        layouts.n_frames(x.shape[1], size, hop),
        max(last) - min(first) + 1,
    ),
    rows="x",
)
windowed_dft_backward = backward_of(windowed_dft_rows)
