r"""Dual-resonance nonlinear filters: a linear path, and a path with the broken stick between two filters.

.. math:: y = \mathrm{linear}(x) + \mathrm{back}(\mathrm{NL}(\mathrm{front}(x)))

The three filters are cascades of :func:`tamt.ops.iir.modal_cascade`, NL is that of :mod:`tamt.ops.broken_stick`. The
operator takes ``x`` (B, T), coefficient rows (F, 6K), ``stick`` (F, 3) and states (B, F, 2K) of each cascade. Forward
makes all steps in one go; so does backward on the CPU, some rows and channels at a time, and elsewhere it is made of
the operators of the single steps. NaN and infinity do what they do in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.broken_stick import broken_stick_backward, broken_stick_rows
from tamt.ops.iir import check_sections, iir, iir_backward
from tamt.reference import drnl as reference
from tamt.shared.iir import KINDS
from tamt.shared.nonfinite import on_cpu

State = tuple[Tensor, Tensor, Tensor]
FILTERS = ("linear", "front", "back")
MODAL = KINDS["modal"]


def drnl(
    x: Tensor, linear: Tensor, front: Tensor, back: Tensor, stick: Tensor, *, state: tuple[Tensor, ...] | None = None
) -> tuple[Tensor, State]:
    """Filter a signal by both paths of every channel.

    Parameters
    ----------
    x : Tensor (..., T)
        Signal, float32 or float64; everything else has the same type.
    linear, front, back : Tensor (F, K, 6)
        Sections of the linear path and of the nonlinear path's first and second filter, as in
        :func:`tamt.ops.iir.modal_cascade`; each has its own K.
    stick : Tensor (F, 3)
        The broken stick's a, b, c of each channel.
    state : tuple of three Tensor (..., F, 2 * K), optional
        States of the three filters to continue from; rest if not given.

    Returns
    -------
    y : Tensor (..., F, T)
    state : tuple of three Tensor (..., F, 2 * K)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.drnl import drnl
    >>> sections = torch.tensor([0.05, 0.1, 0.0, 0.1, 0.0, 0.0]).expand(5, 2, 6)
    >>> stick = torch.tensor([10.0, 1.0, 0.25]).expand(5, 3)
    >>> y, state = drnl(torch.randn(3, 1000), sections, sections, sections, stick)
    >>> y.shape, [part.shape[-1] for part in state]
    (torch.Size([3, 5, 1000]), [4, 4, 4])
    """
    lead, operands = as_operands(x, linear, front, back, stick, state)
    y, *finals = with_lead(lead, drnl_rows(*operands))
    return y, (finals[0], finals[1], finals[2])


class Operands(NamedTuple):
    """What the operator takes; also one flag, or one gradient, for each."""

    x: Any
    linear: Any
    front: Any
    back: Any
    stick: Any
    state_linear: Any
    state_front: Any
    state_back: Any

    def cascade(self, name: str) -> tuple[Tensor, Tensor, str, int]:
        """What :func:`tamt.ops.iir.iir` takes of a filter beside its signal."""
        coef = getattr(self, name)
        return coef, getattr(self, f"state_{name}"), "modal", MODAL.order(coef)


def as_operands(
    x: Tensor, linear: Tensor, front: Tensor, back: Tensor, stick: Tensor, state: tuple[Tensor, ...] | None
) -> tuple[torch.Size, Operands]:
    """Leading dimensions of the signal, and what the operator takes, from checked arguments of :func:`drnl`."""
    if x.dim() < 1:
        raise ValueError("x must have shape (..., T), got ()")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    filters = dict(zip(FILTERS, (linear, front, back), strict=True))
    for name, sections in filters.items():
        check_sections(name, sections)
    lead, channels = x.shape[:-1], linear.shape[0]
    shapes = [(*lead, channels, 2 * sections.shape[1]) for sections in filters.values()]
    if state is None:
        state = tuple(x.new_zeros(shape) for shape in shapes)
    if [tuple(s.shape) for s in state] != shapes:
        raise ValueError(f"state must have the shapes {shapes}, got {[tuple(s.shape) for s in state]}")
    given = {**filters, "stick": stick, **{f"state[{i}]": s for i, s in enumerate(state)}}
    check_same_kind(given, x, "the signal's")
    coef = [sections.flatten(1) for sections in filters.values()]
    return lead, Operands._make((as_rows(x), *coef, stick, *(as_rows(s, 2) for s in state)))


def check_operands(*operands: Tensor) -> None:
    """Operands that belong together, or a ValueError."""
    given = Operands(*operands)
    check_value(given.x.dim() == 2, lambda: f"x must have shape (B, T), got {tuple(given.x.shape)}")
    channels = given.linear.shape[0]
    for name in FILTERS:
        coef = getattr(given, name)
        columns = len(MODAL.of_section)
        check_value(
            coef.dim() == 2 and coef.shape[0] == channels and coef.shape[1] % columns == 0 and coef.shape[1] > 0,
            lambda name=name, coef=coef: f"{name} must have shape ({channels}, 6 K), got {tuple(coef.shape)}",
        )
        state, expected = getattr(given, f"state_{name}"), (given.x.shape[0], channels, MODAL.states(MODAL.order(coef)))
        check_value(
            state.shape == expected,
            lambda name=name, state=state, expected=expected: (
                f"the state of {name} must have shape {expected}, got {tuple(state.shape)}"
            ),
        )
    check_value(
        given.stick.shape == (channels, 3),
        lambda: f"stick must have shape ({channels}, 3), got {tuple(given.stick.shape)}",
    )


def definition(*operands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and final states, step by step."""
    given = Operands(*operands)
    straight, last_linear = iir(given.x[:, None], *given.cascade("linear"))
    v, last_front = iir(given.x[:, None], *given.cascade("front"))
    bent, last_back = iir(broken_stick_rows(v, given.stick), *given.cascade("back"))
    return straight + bent, last_linear, last_front, last_back


def between(given: Operands) -> tuple[Tensor, Tensor]:
    """Signals (B, F, T) of the nonlinear path before and after the broken stick."""
    v, _ = iir(given.x[:, None], *given.cascade("front"))
    return v, broken_stick_rows(v, given.stick)


def pulled_back(
    given: Operands, needs: Operands, v: Tensor, w: Tensor, grad_y: Tensor, grad_finals: Sequence[Tensor]
) -> Operands:
    """Gradients of the operands, in operators that differentiate again; None where it is not needed.

    v and w are what :func:`between` gives.
    """
    grad_states = dict(zip(FILTERS, grad_finals, strict=True))
    grads: dict[str, Any] = dict.fromkeys(Operands._fields)

    def pull_back(name: str, grad: Tensor, signal: Tensor, need_signal: bool) -> Tensor:
        """Gradient of a cascade's signal; those of its coefficients and state go to ``grads``."""
        flags = need_signal, getattr(needs, name)
        of_signal, grads[f"state_{name}"], grads[name] = iir_backward(
            grad, grad_states[name], signal, *given.cascade(name), *flags
        )
        return of_signal

    need_v = needs.x or needs.front or needs.stick or needs.state_front
    grad_w = pull_back("back", grad_y, w, need_v)
    if need_v:
        grad_v, grads["stick"] = broken_stick_backward(grad_w, v, given.stick)
        of_front = pull_back("front", grad_v, given.x[:, None], needs.x)
    if needs.x or needs.linear or needs.state_linear:
        of_linear = pull_back("linear", grad_y, given.x[:, None], needs.x)
    if needs.x:
        grads["x"] = (of_front + of_linear)[:, 0]
    return Operands(*(grad if need else None for grad, need in zip(grads.values(), needs, strict=True)))


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    if on_cpu(arguments[0]):
        return reference.drnl_backward(*arguments)
    (grad_y, *grad_finals), given, needs = arguments[:4], Operands(*arguments[4:12]), Operands(*arguments[12:])
    # The signals between the filters are made again: keeping them would take two more outputs' memory.
    found = pulled_back(given, needs, *between(given), grad_y, grad_finals)
    return tuple(grad_y.new_empty(0) if grad is None else grad for grad in found)


drnl_rows = register(
    "drnl",
    "(Tensor x, Tensor linear, Tensor front, Tensor back, Tensor stick, Tensor state_linear, Tensor state_front, "
    "Tensor state_back) -> (Tensor y, Tensor final_linear, Tensor final_front, Tensor final_back)",
    definition=definition,
    forward=reference.drnl,
    launcher="drnl:drnl",
    backward=Backward(
        _backward,
        of=" ".join(Operands._fields),
        needs=Operands._fields,
        silences="x state_linear state_front state_back",
    ),
    check=check_operands,
    shapes=lambda x, linear, *rest: ((x.shape[0], linear.shape[0], x.shape[1]), *(s.shape for s in rest[-3:])),
    rows="x state_linear state_front state_back",
)
drnl_backward = backward_of(drnl_rows)
