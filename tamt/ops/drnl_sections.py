"""From the parameters of a DRNL's channels to the sections of its three filters, in one launch where there are kernels.

As operations of torch these are more than a hundred, which is most of the time that a GPU needs for a short signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tamt.design.drnl import DRNLSections
from tamt.design.drnl import drnl_sections as reference
from tamt.ops._checks import check_value
from tamt.ops._register import register

NAMES = ("cf_lin", "bw_lin", "lp_lin", "g", "cf_nlin", "bw_nlin", "lp_nlin")


def drnl_sections(*parameters: Tensor, fs: float, orders: Sequence[int]) -> DRNLSections:
    """Sections of the linear path and of both filters of the nonlinear path of a :class:`tamt.DRNLFilterbank`.

    A gammatone of order n is n equal sections of 0 dB at its centre frequency, a low-pass one of second order
    (Butterworth). The gain g is in the first section of the linear path.

    Parameters
    ----------
    *parameters : seven Tensor (F,)
        Centre frequency, bandwidth and low-pass cut-off in Hz, and gain of the linear path; then the first three of the
        nonlinear path.
    fs : float
        Sampling rate in Hz.
    orders : four int
        Order of the gammatone and number of low-passes of the linear path, then of the nonlinear path.

    Returns
    -------
    linear, front, back : Tensor (F, K, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`, each filter with its own K; ``front`` comes before the broken
        stick, ``back`` after it.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.

    Examples
    --------
    >>> import torch, tamt
    >>> from tamt.ops.drnl_sections import drnl_sections
    >>> bank = tamt.DRNLFilterbank([500.0, 4000.0], fs=16000)
    >>> names = ("CF_lin", "BW_lin", "LP_lin_cutoff", "g", "CF_nlin", "BW_nlin", "LP_nlin_cutoff")
    >>> sections = drnl_sections(*[getattr(bank, name) for name in names], fs=16000, orders=(2, 4, 2, 1))
    >>> [tuple(part.shape) for part in sections]
    [(2, 6, 6), (2, 2, 6), (2, 3, 6)]
    """
    linear, front, back = _drnl_sections(*parameters, float(fs), list(orders))
    return linear, front, back


def _check(*parameters: Tensor) -> None:
    check_value(
        all(p.dim() == 1 and p.shape == parameters[0].shape for p in parameters),
        lambda: f"{', '.join(NAMES)} must have the same shape (F,), got {[tuple(p.shape) for p in parameters]}",
    )


def _shapes(*given: Any) -> list[tuple[int, ...]]:
    *parameters, _, (gammatones, lowpasses, others, last) = given
    return [(parameters[0].shape[0], k, 6) for k in (gammatones + lowpasses, others, others + last)]


def _definition(*given: Any) -> DRNLSections:
    *parameters, fs, orders = given
    return reference(*parameters, fs=fs, orders=orders)


_drnl_sections = register(
    "drnl_sections",
    f"({', '.join(f'Tensor {name}' for name in NAMES)}, float fs, int[] orders) -> "
    "(Tensor linear, Tensor front, Tensor back)",
    definition=_definition,
    forward=lambda *given: tuple(sections.contiguous() for sections in _definition(*given)),
    launcher="drnl_sections:drnl_sections",
    check=lambda *given: _check(*given[:-2]),
    shapes=_shapes,
    rows=" ".join(NAMES),
)
