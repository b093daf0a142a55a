r"""Mean power or positive half of DRNL filters' outputs in every hop, without the outputs themselves.

The filters are those of :mod:`tamt.ops.drnl`, hops and detectors those of :mod:`tamt.ops.filter_frames`, which says
what becomes of samples that are not finite too; there is no ``'envelope'``, as a nonlinear filter has no analytic
output. The output is made chunk by chunk, by the operators of its stages; on CUDA the last kernel of a chunk adds up
what it would store.

The operator takes what that of :mod:`tamt.ops.drnl` takes, hop and detector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt.ops._register import Backward, backward_of, register
from tamt.ops.drnl import FILTERS, Operands, State, as_operands, check_operands, drnl_rows, pulled_back, with_lead
from tamt.ops.drnl import definition as filtered
from tamt.ops.filter_frames import check_hops
from tamt.shared.hops import Sizes, States, chunk_size, detect, hop_means, in_chunks, in_chunks_backward

SUMMED = (*FILTERS, "stick")  # operands whose gradients are sums over chunks


def drnl_frames(
    x: Tensor,
    linear: Tensor,
    front: Tensor,
    back: Tensor,
    stick: Tensor,
    hop: int,
    detector: str,
    *,
    state: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, State]:
    """Means over hops of what the detector gives for the outputs of all channels.

    Parameters
    ----------
    x, linear, front, back, stick, state
        As for :func:`tamt.ops.drnl.drnl`.
    hop : int
        Samples of a hop.
    detector : {'power', 'halfwave'}

    Returns
    -------
    means : Tensor (..., F, T // hop)
    state : tuple of three Tensor (..., F, 2 * K)
        States after the last whole hop.
    """
    lead, operands = as_operands(x, linear, front, back, stick, state)
    means, *finals = drnl_frames_rows(*operands, hop, detector)
    return with_lead(lead, means, finals)


def check_real_hops(hop: int, detector: str) -> None:
    """A hop and a detector of real outputs, or a ValueError."""
    check_hops(hop, detector)
    torch._check_value(
        detector != "envelope", lambda: "detector must be 'power' or 'halfwave' for nonlinear filters, got 'envelope'"
    )


def _check(*given: Any) -> None:
    *operands, hop, detector = given
    check_operands(*operands)
    check_real_hops(hop, detector)


def _definition(*given: Any) -> tuple[Tensor, ...]:
    x, *rest, hop, detector = given
    y, *finals = filtered(x[:, : x.shape[1] // hop * hop], *rest)
    return hop_means(detect(y, detector), hop), *finals


def _run(given: Operands, chunk: Tensor, states: States) -> tuple[Tensor, States]:
    """Output and final states of a chunk."""
    y, *finals = drnl_rows(chunk, given.linear, given.front, given.back, given.stick, *states)
    return y, tuple(finals)


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    *operands, hop, detector = arguments
    given = Operands(*operands)
    means, finals = in_chunks(
        lambda chunk, states: _run(given, chunk, states),
        given.x,
        given[5:],
        len(given.stick),
        hop,
        detector,
        Sizes(chunk_size(given.x)),
    )
    return means, *finals


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    grad, *rest = arguments
    grad_finals, operands, (hop, detector, *flags) = rest[:3], rest[3:11], rest[11:]
    given = Operands(*operands)
    needs = Operands._make((*flags, True, True, True))
    totals = {name: torch.zeros_like(getattr(given, name)) for name in SUMMED}

    def pull_back(grad_y: Tensor, after: States, chunk: Tensor, states: States) -> tuple[Tensor, States]:
        part = given._replace(x=chunk, **{f"state_{name}": s for name, s in zip(FILTERS, states, strict=True)})
        found = pulled_back(part, needs, grad_y, after)
        for name, total in totals.items():
            if getattr(needs, name):
                total.add_(getattr(found, name))
        return found.x, found[5:]

    grad_x, grad_states = in_chunks_backward(
        lambda chunk, states: _run(given, chunk, states),
        pull_back,
        grad,
        tuple(grad_finals),
        given.x,
        given[5:],
        hop,
        detector,
        needs.x,
        Sizes(chunk_size(given.x)),
    )
    none = grad.new_empty(0)
    return grad_x, *(t if getattr(needs, name) else none for name, t in totals.items()), *grad_states


drnl_frames_rows = register(
    "drnl_frames",
    "(Tensor x, Tensor linear, Tensor front, Tensor back, Tensor stick, Tensor state_linear, Tensor state_front, "
    "Tensor state_back, int hop, str detector) -> "
    "(Tensor means, Tensor final_linear, Tensor final_front, Tensor final_back)",
    definition=_definition,
    forward=_forward,
    launcher="drnl_frames:drnl_frames",
    backward=Backward(
        _backward,
        of="x linear front back stick state_linear state_front state_back",
        needs=("x", "linear", "front", "back", "stick"),
        silences="x state_linear state_front state_back",
    ),
    check=_check,
    shapes=lambda *given: (
        (given[0].shape[0], given[1].shape[0], given[0].shape[1] // given[8]),
        *(state.shape for state in given[5:8]),
    ),
    rows="x state_linear state_front state_back",
)
drnl_frames_backward = backward_of(drnl_frames_rows)
