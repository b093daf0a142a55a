r"""Mean power or positive half of DRNL filters' outputs in every hop, without the outputs themselves.

The filters are those of :mod:`tamt.ops.drnl`, hops and detectors those of :mod:`tamt.ops.filter_frames`, which says
what becomes of samples that are not finite too; there is no ``'envelope'``, as a nonlinear filter has no analytic
output. The output is made chunk by chunk, by the operators of its stages; on CUDA the last kernel of a chunk adds up
what it would store.

The operator takes what that of :mod:`tamt.ops.drnl` takes, hop and detector.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tamt.ops._checks import check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.drnl import (
    FILTERS,
    Operands,
    State,
    as_operands,
    between,
    check_operands,
    drnl_rows,
    pulled_back,
)
from tamt.ops.drnl import definition as filtered
from tamt.ops.filter_frames import check_hops
from tamt.ops.iir import iir
from tamt.shared.hops import (
    Chunks,
    States,
    chunk_sizes,
    detect,
    hop_means,
    in_chunks,
    in_chunks_backward,
    pull_back_,
)

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

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, a ``hop`` below 1, another ``detector``.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.drnl_frames import drnl_frames
    >>> sections = torch.tensor([0.05, 0.1, 0.0, 0.1, 0.0, 0.0]).expand(5, 2, 6)
    >>> stick = torch.tensor([10.0, 1.0, 0.25]).expand(5, 3)
    >>> means, state = drnl_frames(torch.randn(3, 1000), sections, sections, sections, stick, 160, "power")
    >>> means.shape
    torch.Size([3, 5, 6])
    """
    lead, operands = as_operands(x, linear, front, back, stick, state)
    means, *finals = with_lead(lead, drnl_frames_rows(*operands, hop, detector))
    return means, (finals[0], finals[1], finals[2])


def check_real_hops(hop: int, detector: str) -> None:
    """A hop and a detector of real outputs, or a ValueError."""
    check_hops(hop, detector)
    check_value(
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
        partial(_run, given), given.x, given[5:], len(given.stick), hop, detector, chunk_sizes(given.x)
    )
    return means, *finals


def _backward(grad_means: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    grad_finals, operands, (hop, detector, *flags) = arguments[:3], arguments[3:11], arguments[11:]
    given, needs = Operands(*operands), Operands._make((*flags, True, True, True))
    grad_x = torch.zeros_like(given.x) if needs.x else given.x.new_empty(0)
    totals = {name: torch.zeros_like(getattr(given, name)) for name in SUMMED if getattr(needs, name)}

    def advance(chunk: Tensor, states: States) -> States:
        return _run(given, chunk, states)[1]

    def pull_back(rows: slice, time: slice, states: States, grads: States) -> States:
        before = {f"state_{name}": state for name, state in zip(FILTERS, states, strict=True)}
        part = given._replace(x=given.x[rows, time], **before)
        v, w = between(part)
        y, _ = iir(w, *part.cascade("back"))
        y += iir(part.x[:, None], *part.cascade("linear"))[0]
        grad_y = pull_back_(y, grad_means[rows], time.start, hop, detector)
        found = pulled_back(part, needs, v, w, grad_y, grads)
        for name, total in totals.items():
            total.add_(getattr(found, name))
        if needs.x:
            grad_x[rows, time] = found.x
        return found[5:]

    chunks = Chunks(len(given.x), len(given.stick), grad_means.shape[2] * hop, chunk_sizes(given.x))
    grad_states = in_chunks_backward(advance, pull_back, given.x, given[5:], grad_finals, chunks)
    return grad_x, *(totals.get(name, grad_x.new_empty(0)) for name in SUMMED), *grad_states


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
