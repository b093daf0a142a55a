r"""Dual-resonance nonlinear filters: a linear path, and a path with the broken stick between two filters.

.. math:: y = \mathrm{linear}(x) + \mathrm{back}(\mathrm{NL}(\mathrm{front}(x)))

The three filters are cascades of :func:`tamt.ops.iir.modal_cascade`, NL is that of :mod:`tamt.ops.broken_stick`. The
operator takes ``x`` (B, T), coefficient rows (F, 6K), ``stick`` (F, 3) and states (B, F, 2K) of each cascade. Forward
makes all steps in one go; backward is made of the operators of the single steps, which differentiate again. NaN and
infinity do what they do in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt.ops._checks import check_same_kind
from tamt.ops._register import register
from tamt.ops.broken_stick import broken_stick_backward, broken_stick_rows
from tamt.ops.iir import check_sections, iir, iir_backward
from tamt.reference import drnl as reference
from tamt.shared.nonfinite import silenced

State = tuple[Tensor, Tensor, Tensor]


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
    """
    if x.dim() < 1:
        raise ValueError("x must have shape (..., T), got ()")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    filters = {"linear": linear, "front": front, "back": back}
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
    rows = x.flatten(0, -2) if lead else x[None]
    states = [s.flatten(0, -3) if lead else s[None] for s in state]
    y, *last = drnl_rows(rows, *(sections.flatten(1) for sections in filters.values()), stick, *states)
    one, two, three = (s.reshape(shape) for s, shape in zip(last, shapes, strict=True))
    return y.reshape(*lead, channels, x.shape[-1]), (one, two, three)


def _order(coef: Tensor) -> int:
    return coef.shape[1] // 6


def _check(
    x: Tensor,
    linear: Tensor,
    front: Tensor,
    back: Tensor,
    stick: Tensor,
    state_linear: Tensor,
    state_front: Tensor,
    state_back: Tensor,
) -> None:
    torch._check_value(x.dim() == 2, lambda: f"x must have shape (B, T), got {tuple(x.shape)}")
    channels = linear.shape[0]
    for name, coef, state in (
        ("linear", linear, state_linear),
        ("front", front, state_front),
        ("back", back, state_back),
    ):
        torch._check_value(
            coef.dim() == 2 and coef.shape[0] == channels and coef.shape[1] % 6 == 0 and coef.shape[1] > 0,
            lambda name=name, coef=coef: f"{name} must have shape ({channels}, 6 K), got {tuple(coef.shape)}",
        )
        expected = (x.shape[0], channels, 2 * _order(coef))
        torch._check_value(
            state.shape == expected,
            lambda name=name, state=state, expected=expected: (
                f"the state of {name} must have shape {expected}, got {tuple(state.shape)}"
            ),
        )
    torch._check_value(
        stick.shape == (channels, 3), lambda: f"stick must have shape ({channels}, 3), got {tuple(stick.shape)}"
    )


def _definition(
    x: Tensor,
    linear: Tensor,
    front: Tensor,
    back: Tensor,
    stick: Tensor,
    state_linear: Tensor,
    state_front: Tensor,
    state_back: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one, last_one = iir(x, linear, state_linear, "modal", _order(linear))
    v, last_two = iir(x, front, state_front, "modal", _order(front))
    two, last_three = iir(broken_stick_rows(v, stick), back, state_back, "modal", _order(back))
    return one + two, last_one, last_two, last_three


def _backward(ctx: Any, grad_y: Tensor, *grad_last: Tensor) -> tuple[Tensor | None, ...]:
    x, linear, front, back, stick, *states = ctx.saved_tensors
    # What is not finite has no part in a loss of the samples before it.
    x, state_linear, state_front, state_back = (silenced(t) for t in (x, *states))
    need_x, need_linear, need_front, need_back, need_stick, need_one, need_two, need_three = ctx.needs_input_grad
    grads: dict[str, Tensor | None] = {}

    def pull_back(
        name: str, grad: Tensor, grad_final: Tensor, signal: Tensor, coef: Tensor, state: Tensor, needs: list[bool]
    ) -> Tensor:
        """Gradient of a cascade's signal; those of its coefficients and state go to ``grads``."""
        form = "modal", _order(coef)
        of_signal, of_state, of_coef = iir_backward(grad, grad_final, signal, coef, state, *form, *needs[:2])
        grads[name] = of_coef if needs[1] else None
        grads[f"state {name}"] = of_state if needs[2] else None
        return of_signal

    # The signals between the filters are made again: keeping them would take two more outputs' memory.
    v, _ = iir(x, front, state_front, "modal", _order(front))
    w = broken_stick_rows(v, stick)
    of_v = need_x or need_front or need_stick or need_two
    grad_w = pull_back("back", grad_y, grad_last[2], w, back, state_back, [of_v, need_back, need_three])
    of_x = []
    if of_v:
        grad_v, grads["stick"] = broken_stick_backward(grad_w, v, stick)
        needs = [need_x, need_front, need_two]
        of_x.append(pull_back("front", grad_v, grad_last[1], x, front, state_front, needs))
    if need_x or need_linear or need_one:
        needs = [need_x, need_linear, need_one]
        of_x.append(pull_back("linear", grad_y, grad_last[0], x, linear, state_linear, needs))
    return (
        of_x[0] + of_x[1] if need_x else None,
        *(grads.get(name) for name in ("linear", "front", "back")),
        grads["stick"] if need_stick else None,
        *(grads.get(f"state {name}") for name in ("linear", "front", "back")),
    )


drnl_rows = register(
    "drnl",
    "(Tensor x, Tensor linear, Tensor front, Tensor back, Tensor stick, Tensor state_linear, Tensor state_front, "
    "Tensor state_back) -> (Tensor y, Tensor final_linear, Tensor final_front, Tensor final_back)",
    definition=_definition,
    forward=reference.drnl,
    launcher="drnl:drnl",
    backward=_backward,
    check=_check,
    shapes=lambda x, linear, *rest: ((x.shape[0], linear.shape[0], x.shape[1]), *(s.shape for s in rest[-3:])),
    rows="x state_linear state_front state_back",
)
