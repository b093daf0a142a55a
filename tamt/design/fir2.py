"""FIR filters of a given amplitude response, by frequency sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fir2(order: int, frequencies: Tensor, amplitudes: Tensor) -> Tensor:
    r"""Linear-phase FIR filter by frequency sampling and a Hamming window: MATLAB's ``fir2``.

    With n = ``order`` + 1 taps and P the least power of two that is at least n (512 for n < 1024), the response stands
    on a grid of P + 1 values :math:`H_k`, from 0 to fs/2. A segment between two break points covers grid values from
    the one after the end of the segment before to number :math:`\lfloor f_i (P + 1) \rfloor`, counted from 1, and goes
    in a straight line from the first break point's amplitude at its first value to the second's at its last; a segment
    of one value has the first break point's amplitude. Then

    .. math:: h_m = \Bigl(0.54 - 0.46 \cos\frac{2\pi m}{n - 1}\Bigr)\, \frac{1}{2P} \sum_{k=-P}^{P-1} H_{|k|}
        \, e^{2\pi i k (m - \mathrm{order}/2) / 2P}

    Parameters
    ----------
    order : int
        Order of the filter, at least 1; its delay is half of it, in samples.
    frequencies : Tensor (K,)
        Break points in units of fs/2: rising, from 0 to 1.
    amplitudes : Tensor (K,)
        Linear amplitudes there. Gradients reach them.

    Returns
    -------
    Tensor (order + 1,)
        Taps.

    Notes
    -----
    Octave's ``fir2`` interpolates between the break points at every grid value instead. Its filters differ from these,
    for an ear's sound transmission by some per cent.
    """
    taps = order + 1
    size = 512 if taps < 1024 else 1 << order.bit_length()
    exact = frequencies.dtype
    ends = torch.floor(frequencies * (size + 1)).long()  # of a segment, which is empty where two are alike
    number = torch.arange(1, size + 2, device=ends.device)
    right = torch.bucketize(number, ends[1:]) + 1
    first, last = ends[right - 1] + 1, ends[right]
    share = (number - first).to(exact) / (last - first).clamp(min=1).to(exact)
    response = share * amplitudes[right] + (1 - share) * amplitudes[right - 1]
    # The angle in MATLAB's own roundings, of up to 1e-12, by which published taps are met to 1e-16.
    delay = torch.polar(torch.ones_like(response), -math.pi * order / 2 * (number - 1).to(exact) / size)
    window = torch.hamming_window(taps, periodic=False, dtype=exact, device=ends.device)
    return torch.fft.irfft(response * delay, 2 * size)[:taps] * window
