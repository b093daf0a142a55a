"""Both paths of a DRNL filterbank in plain torch. The operator and the shapes are in :mod:`tamt.ops.drnl`.

The signal between the nonlinear path's two filters waits in the output's memory, and every slice of channels takes all
its steps while it is in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tamt.reference.broken_stick import broken_stick_
from tamt.reference.iir import Plan, block_states, causal, parts, pieces, plan, slices, write_slice
from tamt.shared.iir import KINDS
from tamt.shared.iir_gradients import blocked
from tamt.shared.nonfinite import fill_from_, first_bad


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
    plans = [plan(coef, "modal", KINDS["modal"].order(coef)) for coef in (linear, front, back)]
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
        for piece, length in pieces(x.shape[-1]):
            target = out[..., piece].unflatten(-1, (-1, length))
            states = self.write_piece(blocked(x[..., piece], length), states, target, stepwise)
        return states

    def write_piece(self, signal: Tensor, states: list[Tensor], out: Tensor, stepwise: bool) -> list[Tensor]:
        """Filter blocks (B, 1, K, L) from ``states`` to ``out`` (B, F, K, L): the states at the end."""
        length, (of_linear, of_front, of_back) = out.shape[-1], states
        starts, last_front = block_states(signal, of_front, self.front, length, stepwise)
        for b, channels in slices(out):
            target = out[b, channels]
            write_slice(signal, starts, self.front, b, channels, target)
            broken_stick_(target.flatten(1), self.stick[channels])
        del starts  # the next two take its place
        if stepwise:  # the second filter must not meet what the first one let overflow
            samples = out.view(*out.shape[:2], -1)
            first = first_bad(samples)
            fill_from_(samples, first, 0)
        starts_back, last_back = block_states(out, of_back, self.back, length, stepwise)
        starts_linear, last_linear = block_states(signal, of_linear, self.linear, length, stepwise)
        for b, channels in slices(out):
            target = torch.empty_like(out[b, channels])
            write_slice(out, starts_back, self.back, b, channels, target)
            write_slice(signal, starts_linear, self.linear, b, channels, target, add=True)
            out[b, channels] = target
        if stepwise:
            fill_from_(samples, first, torch.nan)
            last_back = last_back.masked_fill((first < samples.shape[-1]).t()[..., None], torch.nan)
        return [last_linear, last_front, last_back]
