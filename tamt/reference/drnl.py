"""Both paths of a DRNL filterbank in plain torch. The operator and the shapes are in :mod:`tamt.ops.drnl`.

The signal between the nonlinear path's two filters waits in the output's memory, and every slice of channels takes all
its steps while it is in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.reference.broken_stick import broken_stick_
from tamt.reference.iir import Plan, block_states, blocked, parts, pieces, plan, slices, write_slice


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
    one, two, three = (plan(coef, "modal", coef.shape[1] // 6) for coef in (linear, front, back))
    y = x.new_empty(x.shape[0], linear.shape[0], x.shape[-1])
    states = state_linear, state_front, state_back
    final_one, final_two, final_three = (torch.empty_like(s, memory_format=torch.contiguous_format) for s in states)
    for rows, channels in parts(y.shape):
        plans = one.of(channels), two.of(channels), three.of(channels)
        last = [s[rows, channels].transpose(0, 1) for s in states]
        for piece, length in pieces(x.shape[-1]):
            out = y[rows, channels, piece].unflatten(-1, (-1, length))
            last = write_piece(blocked(x[rows, piece], length), plans, stick[channels], last, out)
        for final, state in zip((final_one, final_two, final_three), last, strict=True):
            final[rows, channels] = state.transpose(0, 1)
    return y, final_one, final_two, final_three


def write_piece(
    signal: Tensor, plans: tuple[Plan, Plan, Plan], stick: Tensor, states: list[Tensor], out: Tensor
) -> list[Tensor]:
    """Filter blocks (B, 1, K, L) from ``states`` (F, B, N) to ``out`` (B, F, K, L): the states at the end."""
    one, two, three = plans
    length = out.shape[-1]
    starts, last_two = block_states(signal, states[1], two, length)
    for b, channels in slices(out):
        target = out[b, channels]
        write_slice(signal, starts, two, b, channels, target)
        broken_stick_(target.flatten(1), stick[channels])
    del starts  # the next two take its place
    starts_three, last_three = block_states(out, states[2], three, length)
    starts_one, last_one = block_states(signal, states[0], one, length)
    for b, channels in slices(out):
        target = torch.empty_like(out[b, channels])
        write_slice(out, starts_three, three, b, channels, target)
        write_slice(signal, starts_one, one, b, channels, target, add=True)
        out[b, channels] = target
    return [last_one, last_two, last_three]
