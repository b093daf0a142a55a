"""Butterworth low-passes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt.design.rows import ModalSection


def butterworth_lowpass(cutoff: Tensor, fs: float, n: int) -> Tensor:
    r"""Sections of a second-order Butterworth low-pass applied ``n`` times.

    The bilinear transform with :math:`W = \tan(\pi f_c/f_s)` takes the analogue pole to :math:`p = (1 + s)/(1 - s)`,
    :math:`s = W e^{3 i \pi/4}`; partial fractions of the biquad give
    :math:`g = -2\sqrt 2\,W (W^2 + i)/(1 + W^4)` and :math:`d = W^2/(1 - \sqrt 2\,W + W^2)`.

    Parameters
    ----------
    cutoff : Tensor (F,)
        Cut-off frequencies in Hz, limited to 0.9999 of the Nyquist frequency.
    fs : float
        Sampling rate in Hz.
    n : int
        How many times.

    Returns
    -------
    Tensor (F, n, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`.
    """
    w = torch.tan(math.pi * cutoff.clamp(max=0.9999 * fs / 2) / fs)
    twice, square = math.sqrt(2) * w, w * w
    decay = torch.atanh(twice / (1 + square))
    cycles = torch.atan2(twice, 1 - square) / (2 * math.pi)
    scale = -2 * twice / (1 + square * square)
    section = ModalSection(decay, cycles, torch.zeros_like(w), scale * square, scale, square / (1 - twice + square))
    return torch.stack(section, -1)[:, None].expand(-1, n, -1)
