"""Both paths of a DRNL filterbank in plain torch. The operator and the shapes are in :mod:`tamt.ops.drnl`.

The signal between the nonlinear path's two filters waits in the output's memory, and every slice of channels takes all
its steps while it is in the cache. The backward pass makes the signals between the filters again, of some rows and
channels at a time: kept, they would take two more outputs' memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tamt.reference.blocks import iir_blocks_vjp
from tamt.reference.broken_stick import broken_stick, broken_stick_, broken_stick_backward
from tamt.reference.iir import (
    Cascade,
    Plan,
    block_states,
    cascade_backward,
    causal,
    parts,
    plan,
    respond,
    slices,
    write,
)
from tamt.shared.iir import KINDS
from tamt.shared.nonfinite import fill_from_, first_bad

PART_BACKWARD = 1 << 24  # bytes of output whose signals between the filters, and their gradients, are held together


def drnl(
    x: Tensor,
    linear: Tensor,
    front: Tensor,
    back: Tensor,
    stick: Tensor,
    state_linear: Tensor,
    state_front: Tensor,
    state_back: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``linear(x) + back(NL(front(x)))``: the output (B, F, T) and the final states of the three cascades."""
    plans = _plans(linear, front, back)
    y = x.new_empty(x.shape[0], linear.shape[0], x.shape[-1])
    x, *states = (t.contiguous() for t in (x[:, None], state_linear, state_front, state_back))
    final_linear, final_front, final_back = finals = [torch.empty_like(s) for s in states]
    for rows, channels in parts(y.shape):
        of_linear, of_front, of_back = (matrices.of(channels) for matrices in plans)
        filters = Filters(of_linear, of_front, of_back, stick[channels])
        starts = [s[rows, channels].transpose(0, 1) for s in states]
        last = causal(filters, x[rows], starts, y[rows, channels])
        for final, state in zip(finals, last, strict=True):
            final[rows, channels] = state.transpose(0, 1)
    return y, final_linear, final_front, final_back


class Filters(NamedTuple):
    """Both paths of some channels, a :class:`tamt.reference.iir.Filter`."""

    linear: Plan
    front: Plan
    back: Plan
    stick: Tensor

    def __call__(self, x: Tensor, states: list[Tensor], out: Tensor, *, stepwise: bool) -> list[Tensor]:
        """See :class:`tamt.reference.iir.Filter`."""
        of_linear, of_front, of_back = states
        starts, last_front = block_states(x, of_front, self.front, stepwise)
        for part in slices(out):
            target = part.of_output(out)
            write(part.of_signal(x), part.of_states(starts), self.front.of(part.channels), target)
            broken_stick_(target, self.stick[part.channels])
        del starts  # the next two take its place
        if stepwise:  # the second filter must not meet what the first one let overflow
            first = first_bad(out)
            fill_from_(out, first, 0)
        starts_back, last_back = block_states(out, of_back, self.back, stepwise)
        starts_linear, last_linear = block_states(x, of_linear, self.linear, stepwise)
        for part in slices(out):
            bent, target = part.of_signal(out), part.of_output(out)
            room = torch.empty_like(bent)
            back, linear = self.back.of(part.channels), self.linear.of(part.channels)
            respond(bent, part.of_states(starts_back), back, room)
            respond(part.of_signal(x), part.of_states(starts_linear), linear, room, add=True)
            target.copy_(room.flatten(1)[:, : target.shape[1]])
        if stepwise:
            fill_from_(out, first, torch.nan)
            last_back = last_back.masked_fill((first < out.shape[-1]).t()[..., None], torch.nan)
        return [last_linear, last_front, last_back]


def drnl_backward(
    grad_y: Tensor,
    grad_linear: Tensor,
    grad_front: Tensor,
    grad_back: Tensor,
    x: Tensor,
    linear: Tensor,
    front: Tensor,
    back: Tensor,
    stick: Tensor,
    state_linear: Tensor,
    state_front: Tensor,
    state_back: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    """Gradients of the operands of :func:`drnl`, empty where a flag of ``needs`` says that it is not needed."""
    coefs, states = (linear, front, back), (state_linear, state_front, state_back)
    grad_finals = grad_linear, grad_front, grad_back
    need_x, *need_coefs, need_stick = needs[:5]
    need_states = needs[5:]
    need_v = need_x or need_coefs[1] or need_stick or need_states[1]
    need_straight = need_x or need_coefs[0] or need_states[0]
    plans, x = _plans(*coefs), x.contiguous()
    totals = [matrices.blocks.totals(need) for matrices, need in zip(plans, need_coefs, strict=True)]
    grad_x, grad_stick = torch.zeros_like(x), torch.zeros_like(stick)
    grad_states = [torch.zeros_like(s, memory_format=torch.contiguous_format) for s in states]

    def pull_back(
        cascade: int, place: tuple[slice, slice], grad: Tensor, signal: Tensor, target: Tensor | None
    ) -> None:
        """Gradients of one of the three, of which that of its signal goes to ``target``."""
        channels = place[1]
        grad_states[cascade][place] = cascade_backward(
            grad,
            grad_finals[cascade][place],
            signal,
            plans[cascade].of(channels),
            states[cascade][place],
            target,
            need_coefs[cascade],
            totals[cascade].of(channels),
        )

    for place in parts(grad_y.shape, PART_BACKWARD // grad_y.element_size()):
        rows, channels = place
        grad, signal, bend = grad_y[place], x[rows, None], stick[channels]
        v = torch.empty_like(grad, memory_format=torch.contiguous_format)
        causal(Cascade(plans[1].of(channels)), signal, [state_front[place].transpose(0, 1)], v)
        grad_w = torch.empty_like(v) if need_v else None
        pull_back(2, place, grad, broken_stick(v, bend), grad_w)
        of_signal = torch.empty_like(signal) if need_x else None
        if grad_w is not None:
            grad_v, of_stick = broken_stick_backward(grad_w, v, bend)
            del v, grad_w  # only the gradient of v goes on
            grad_stick[channels] += of_stick
            pull_back(1, place, grad_v, signal, of_signal)
            del grad_v
            if of_signal is not None:
                grad_x[rows] += of_signal[:, 0]
        if need_straight:
            pull_back(0, place, grad, signal, of_signal)
            if of_signal is not None:
                grad_x[rows] += of_signal[:, 0]
    grad_coefs = [
        iir_blocks_vjp(total, coef, "modal", KINDS["modal"].order(coef)) if need else coef
        for total, coef, need in zip(totals, coefs, need_coefs, strict=True)
    ]
    found = (grad_x, *grad_coefs, grad_stick, *grad_states)
    return tuple(grad if need else grad.new_empty(0) for grad, need in zip(found, needs, strict=True))


def _plans(*coefs: Tensor) -> list[Plan]:
    return [plan(coef, "modal", KINDS["modal"].order(coef)) for coef in coefs]
