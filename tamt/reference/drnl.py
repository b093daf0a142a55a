"""Both paths of a DRNL filterbank in plain torch. The operator and the shapes are in :mod:`tamt.ops.drnl`.

The signal between the nonlinear path's two filters waits in the output's memory, and every slice of channels takes all
its steps while it is in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.reference.broken_stick import broken_stick_
from tamt.reference.iir import block_states, blocked, pieces, plan, slices, write_output


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
    last_one, last_two, last_three = (s.transpose(0, 1) for s in (state_linear, state_front, state_back))
    for piece, length in pieces(x.shape[-1]):
        signal, out = blocked(x[..., piece], length), y[..., piece].unflatten(-1, (-1, length))
        starts_one, last_one = block_states(signal, last_one, one, length)
        starts_two, last_two = block_states(signal, last_two, two, length)
        for b, channels in slices(out):
            target = out[b, channels]
            write_output(signal, starts_two, two, b, channels, target)
            broken_stick_(target.flatten(1), stick[channels])
        starts_three, last_three = block_states(out, last_three, three, length)
        for b, channels in slices(out):
            target = torch.empty_like(out[b, channels])
            write_output(out, starts_three, three, b, channels, target)
            write_output(signal, starts_one, one, b, channels, target, add=True)
            out[b, channels] = target
    return y, _by_row(last_one), _by_row(last_two), _by_row(last_three)


def _by_row(state: Tensor) -> Tensor:
    return state.transpose(0, 1).clone(memory_format=torch.contiguous_format)
