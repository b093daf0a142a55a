"""The three filters of a dual-resonance nonlinear filterbank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tamt.design.butterworth import butterworth_lowpass
from tamt.design.gammatone import classic_gammatone
from tamt.design.rows import ModalSection

TAIL = 1e-5  # that may be cut off; errors of the output are up to 30 times as large
AMPLIFIED = 30

DRNLSections = tuple[Tensor, Tensor, Tensor]  # of the linear path, and of the nonlinear path's first and second filter


def drnl_sections(
    cf_lin: Tensor,
    bw_lin: Tensor,
    lp_lin: Tensor,
    g: Tensor,
    cf_nlin: Tensor,
    bw_nlin: Tensor,
    lp_nlin: Tensor,
    *,
    fs: float,
    orders: Sequence[int],
) -> DRNLSections:
    """Sections of the three filters of a dual-resonance nonlinear filterbank.

    Parameters
    ----------
    cf_lin, bw_lin, lp_lin, g : Tensor (F,)
        Centre frequency, bandwidth and low-pass cut-off in Hz, and gain of the linear path.
    cf_nlin, bw_nlin, lp_nlin : Tensor (F,)
        The same of the nonlinear path.
    fs : float
        Sampling rate in Hz.
    orders : four int
        Order of the gammatone and number of low-passes of the linear path, then of the nonlinear path.

    Returns
    -------
    linear, front, back : Tensor (F, K, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`; ``front`` comes before the broken stick, ``back`` after it.
    """
    order_lin, lowpasses_lin, order_nlin, lowpasses_nlin = orders
    gammatone = classic_gammatone(cf_lin, bw_lin, fs, order_lin)
    first = ModalSection(*gammatone[:, 0].unbind(-1))
    first = first._replace(gain_re=g * first.gain_re, gain_im=g * first.gain_im, direct=g * first.direct)
    lowpasses = butterworth_lowpass(lp_lin, fs, lowpasses_lin)
    linear = torch.cat((torch.stack(first, -1)[:, None], gammatone[:, 1:], lowpasses), 1)
    front = classic_gammatone(cf_nlin, bw_nlin, fs, order_nlin)
    back = torch.cat((front, butterworth_lowpass(lp_nlin, fs, lowpasses_nlin)), 1)
    return linear, front, back


def tail_of_gammatone(reach: float, order: int) -> float:
    r"""Part of the integral of :math:`t^{n-1} e^{-t}` beyond ``reach``, :math:`e^{-t} \sum_{k<n} t^k / k!`."""
    return math.exp(-reach) * _series(reach, order)


def ir_length_for(bandwidth: float, fs: float, order: int, tail: float = TAIL) -> int:
    """Samples after which no more than ``tail`` of a gammatone's impulse response is left: its envelope's integral.

    The low-passes of a DRNL's paths, at the gammatones' centre frequencies, decay much faster.
    """
    reach = 0.0
    for _ in range(40):  # a contraction, by 0.1 a step near its end
        reach = math.log(_series(reach, order) / tail)
    return math.ceil(reach * fs / (2 * math.pi * bandwidth))


def _series(reach: float, order: int) -> float:
    return sum(reach**k / math.factorial(k) for k in range(order))
