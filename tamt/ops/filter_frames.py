r"""Mean power, envelope or positive half of IIR filters' outputs in every hop, without the outputs themselves.

.. math:: P_m = \frac{1}{H} \sum_{t = m H}^{(m + 1) H - 1} D(y_t)

for the output y of each filter, and hops of H samples from the first on; what is left of the signal after the last
whole hop does not enter. D is the detector:

============== ======================================= ===============================================
``'power'``    :math:`y^2`
``'halfwave'`` :math:`\max(y, 0)`
``'envelope'`` :math:`|z|^2 / 2`, y = Re z              cascades of complex one-pole sections alone
============== ======================================= ===============================================

The filters are those of :mod:`tamt.ops.iir`, and so are their rows of coefficients and states. Memory beyond operands
and results does not grow with the length, but for a state per some thousand samples in the backward pass, which makes
the outputs again. From the hop on with the first sample that is NaN or infinite, means are NaN, and so is the final
state; from a state that is not finite all are.

For the operator the leading dimensions are one: ``x`` is (B, T), ``state`` (B, F, N).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.blocks import iir_blocks
from tamt.ops.iir import check_filters, check_order
from tamt.reference import filter_frames as reference
from tamt.shared.hops import DETECTORS
from tamt.shared.iir import KINDS, Blocks, analytic_rows, analytic_states

ANALYTIC = ("onepole", "allpole")  # kinds whose outputs are the real parts of complex ones


def filter_frames(
    x: Tensor, coef: Tensor, kind: str, order: int, hop: int, detector: str, *, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means over hops of what the detector gives for the outputs of all filters.

    Parameters
    ----------
    x : Tensor (..., T)
        Signal, float32 or float64; coefficients and state have the same type.
    coef : Tensor (F, P)
        Rows of coefficients, see :mod:`tamt.ops.iir`.
    kind : {'onepole', 'biquad', 'allpole', 'modal'}
    order : int
        Number of sections.
    hop : int
        Samples of a hop.
    detector : {'envelope', 'power', 'halfwave'}
    state : Tensor (..., F, N), optional
        State to continue from; rest if not given.

    Returns
    -------
    means : Tensor (..., F, T // hop)
    state : Tensor (..., F, N)
        State after the last whole hop.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, a ``hop`` or ``order`` below 1, a ``kind`` that does not
        have the ``detector``.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.filter_frames import filter_frames
    >>> row = torch.tensor([0.05, 0.1, 0.0, 1e-5, 0.0])  # decay, frequency (high, low), gain (re, im)
    >>> means, state = filter_frames(torch.randn(3, 1000), row.expand(5, 5), "onepole", 4, 160, "envelope")
    >>> means.shape, state.shape
    (torch.Size([3, 5, 6]), torch.Size([3, 5, 8]))
    """
    if x.dim() < 1:
        raise ValueError("x must have shape (..., T), got ()")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    check_hops(hop, detector)
    check_kind(kind, order, detector)
    lead, channels = x.shape[:-1], coef.shape[0]
    rows, numbers = as_rows(x), KINDS[kind].states(order)
    check_same_kind({"coefficients": coef}, x, "the signal's")
    if state is None:
        states = rows.new_zeros(rows.shape[0], channels, numbers)
    else:
        if state.shape != (*lead, channels, numbers):
            raise ValueError(f"state must have shape {(*lead, channels, numbers)}, got {tuple(state.shape)}")
        check_same_kind({"state": state}, x, "the signal's")
        states = as_rows(state, 2)
    means, final = with_lead(lead, filter_frames_rows(rows, coef, states, kind, order, hop, detector))
    return means, final


def check_hops(hop: int, detector: str) -> None:
    """A hop and a detector, or a ValueError."""
    check_value(hop >= 1, lambda: f"hop must be at least 1, got {hop}")
    check_value(detector in DETECTORS, lambda: f"detector must be one of {DETECTORS}, got {detector!r}")


def check_kind(kind: str, order: int, detector: str) -> None:
    """Filters that have the detector, or a ValueError."""
    kinds = ANALYTIC if detector == "envelope" else tuple(KINDS)
    check_value(kind in kinds, lambda: f"kind must be one of {kinds}, got {kind!r}")
    check_order(order)


def _check(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str) -> None:
    check_hops(hop, detector)
    check_kind(kind, order, detector)
    check_filters(coef, state, kind, order)
    check_value(
        x.dim() == 2 and x.shape[0] == state.shape[0],
        lambda: f"x must have shape ({state.shape[0]}, T), got {tuple(x.shape)}",
    )


def _definition(
    x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str
) -> tuple[Tensor, Tensor]:
    if detector == "envelope":
        coef, state = analytic_rows(coef), analytic_states(state)
    return reference.definition(x, Blocks(*iir_blocks(coef, kind, order)), state, hop, detector)


filter_frames_rows = register(
    "filter_frames",
    "(Tensor x, Tensor coef, Tensor state, str kind, int order, int hop, str detector) -> (Tensor means, Tensor final)",
    definition=_definition,
    forward=reference.filter_frames,
    launcher="filter_frames:filter_frames",
    backward=Backward(
        reference.filter_frames_backward,
        of="x state coef",
        launcher="filter_frames:filter_frames_backward",
        needs=("x", "coef"),
        silences="x state",
    ),
    check=_check,
    shapes=lambda x, coef, state, kind, order, hop, detector: (
        (*state.shape[:2], x.shape[1] // hop),
        state.shape,
    ),
    rows="x state",
)
filter_frames_backward = backward_of(filter_frames_rows)
