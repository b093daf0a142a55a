"""Mean power, envelope or positive half of IIR filters' outputs over hops. Shapes: :mod:`tamt.ops.filter_frames`.

Forward, blocks of samples with the states before them are multiplied by one matrix per channel (the Toeplitz matrix and
the observability rows of :mod:`tamt.reference.iir`, for the envelope of both parts side by side), and what the detector
makes of a slice is added up while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamt._memo import Store, bits
from tamt.reference.blocks import iir_blocks_vjp
from tamt.reference.iir import block_states, cascade_backward, iir, pieces, plan
from tamt.reference.iir import definition as filtered
from tamt.shared.hops import (
    Sizes,
    States,
    add_to_hops,
    chunk_size,
    detect,
    detect_,
    hop_means,
    in_chunks,
    in_chunks_backward,
    parts_together,
)
from tamt.shared.iir import (
    BLOCK,
    Blocks,
    analytic_rows,
    analytic_rows_vjp,
    analytic_states,
    analytic_states_vjp,
)
from tamt.shared.iir_gradients import blocked
from tamt.shared.nonfinite import finite, on_cpu

SLICE = 1 << 18  # output samples of a product, few enough to be in the cache when they are added up
PIECE = 1 << 18  # samples of the signal whose block states are held together
KEPT = 32 << 20  # bytes of matrices kept for later calls


def definition(x: Tensor, blocks: Blocks, state: Tensor, hop: int, detector: str) -> tuple[Tensor, Tensor]:
    """Means (B, F, T // hop) and final state, from the filters' matrices; of envelopes from those of both parts."""
    y, final = filtered(x[:, None, : x.shape[1] // hop * hop], blocks, state)
    means = hop_means(detect(y, detector), hop)
    return (parts_together(means), final[:, ::2]) if detector == "envelope" else (means, final)


def filter_frames(
    x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str
) -> tuple[Tensor, Tensor]:
    """:func:`definition` for coefficients (F, P)."""
    x = x[:, : x.shape[1] // hop * hop].contiguous()
    if on_cpu(x):
        means, final = _in_slices(x, coef, state.contiguous(), kind, order, hop, detector)
        if not finite(final):  # those rows alone: what another row gives does not depend on them
            bad = ~final.isfinite().all(2).all(1)
            means[bad], final[bad] = _from_outputs(x[bad], coef, state[bad], kind, order, hop, detector)
        return means, final
    return _from_outputs(x, coef, state, kind, order, hop, detector)


def _from_outputs(
    x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str
) -> tuple[Tensor, Tensor]:
    """From outputs in chunks, which are NaN where they have to be."""
    if detector == "envelope":
        coef, state = analytic_rows(coef), analytic_states(state)

    def run(chunk: Tensor, states: States) -> tuple[Tensor, States]:
        (before,) = states
        y, final = iir(chunk[:, None], coef, before, kind, order)
        return y, (final,)

    means, (final,) = in_chunks(run, x, (state,), len(coef), hop, detector, Sizes(chunk_size(x)))
    return (parts_together(means), final[:, ::2].clone()) if detector == "envelope" else (means, final)


class Responses(NamedTuple):
    """Matrices of the output of a block: of one real output per channel, or of two."""

    matrix: Tensor  # (F, N + L, outputs, L): from the states before a block, and from its samples

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.matrix.nbytes

    def over(self, channels: slice, length: int) -> Tensor:
        """Those of some channels over ``length <= L`` samples, (C, N + length, outputs * length)."""
        rows = self.matrix.shape[1] - BLOCK + length
        return self.matrix[channels, :rows, :, :length].flatten(2)


_responses: Store[Responses] = Store(KEPT)


def _make_responses(coef: Tensor, kind: str, order: int, envelope: bool) -> Responses:
    matrices = plan(analytic_rows(coef) if envelope else coef, kind, order)
    observed = matrices.blocks.output.mT
    if envelope:
        # The imaginary part's filter has states turned by -90 degrees; here both start from the same ones.
        re, im = observed.unflatten(0, (-1, 2))[:, 1].unflatten(1, (-1, 2)).unbind(2)
        turned = torch.stack((-im, re), 2).flatten(1, 2)
        observed = torch.stack((observed[::2], turned), 2)
    else:
        observed = observed[:, :, None]
    inside = matrices.toeplitz.unflatten(0, (-1, observed.shape[2])).transpose(1, 2)
    return Responses(torch.cat((observed, inside), 1))


def _in_slices(
    x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str
) -> tuple[Tensor, Tensor]:
    """Of finite signals on the CPU."""
    envelope = detector == "envelope"
    matrices = plan(coef, kind, order)
    key = (*bits(coef), kind, order, envelope)
    responses = _responses.get(key, lambda: _make_responses(coef.clone(), kind, order, envelope))
    batch, channels, _ = state.shape
    means = x.new_zeros(batch, channels, x.shape[1] // hop)
    final = torch.empty_like(state)
    rows = max(1, PIECE // max(1, x.shape[1]))
    for first in range(0, batch, rows):
        part = slice(first, first + rows)
        now, sums = state[part].transpose(0, 1), means[part].transpose(0, 1)
        for start in range(0, x.shape[1], PIECE):
            signal = x[part, None, start : start + PIECE]
            for piece, length in pieces(signal.shape[-1]):
                blocks = blocked(signal[..., piece], length)
                starts, now = block_states(blocks, now, matrices, length)
                for chosen, values in _detected(blocks[:, 0], starts, responses, detector):
                    add_to_hops(values, start + (piece.start or 0), hop, sums[chosen])
        final[part] = now.transpose(0, 1)
    return means.div_(2 * hop if envelope else hop), final


def _detected(blocks: Tensor, starts: Tensor, responses: Responses, detector: str) -> Iterator[tuple[slice, Tensor]]:
    """What the detector gives for blocks (R, K, L), from states (F, R, K, N): some channels, and values (C, R, K L)."""
    rows, count, length = blocks.shape
    channels, states = starts.shape[0], starts.shape[-1]
    width = max(1, min(channels, SLICE // max(1, blocks.numel())))
    given = blocks.new_empty(width, rows * count, states + length)
    given[..., states:] = blocks.flatten(0, 1)
    outputs = responses.matrix.shape[2]
    room = blocks.new_empty(width, rows * count, outputs * length)
    for first in range(0, channels, width):
        chosen = slice(first, min(first + width, channels))
        size = chosen.stop - first
        given[:size, :, :states] = starts[chosen].flatten(1, 2)
        values = detect_(torch.bmm(given[:size], responses.over(chosen, length), out=room[:size]), detector)
        if outputs == 2:
            values = values[..., :length] + values[..., length:]
        yield chosen, values.view(size, rows, count * length)


def filter_frames_backward(
    grad_means: Tensor,
    grad_final: Tensor,
    x: Tensor,
    coef: Tensor,
    state: Tensor,
    kind: str,
    order: int,
    hop: int,
    detector: str,
    need_x: bool,
    need_coef: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of signal, state and coefficients; those of signal and coefficients are empty where not needed."""
    envelope = detector == "envelope"
    if envelope:
        coef, state = analytic_rows(coef), analytic_states(state)
        grad_means = (grad_means / 2).repeat_interleave(2, 1)
        grad_final = torch.stack((grad_final, torch.zeros_like(grad_final)), 2).flatten(1, 2)
    matrices = plan(coef, kind, order)
    total = Blocks(*(m.new_zeros(m.shape) if need_coef else m.new_empty(0) for m in matrices.blocks))

    def run(chunk: Tensor, states: States) -> tuple[Tensor, States]:
        (before,) = states
        y, final = iir(chunk[:, None], coef, before, kind, order)
        return y, (final,)

    def pull_back(grad_y: Tensor, grads: States, chunk: Tensor, states: States) -> tuple[Tensor, States]:
        (after,), (before,) = grads, states
        of_x, of_state = cascade_backward(grad_y, after, chunk[:, None], matrices, before, need_x, need_coef, total)
        return of_x.flatten(1) if need_x else of_x, (of_state,)

    grad_x, (grad_state,) = in_chunks_backward(
        run, pull_back, grad_means, (grad_final,), x, (state,), hop, detector, need_x, Sizes(chunk_size(x))
    )
    grad_coef = iir_blocks_vjp(total, coef, kind, order) if need_coef else coef.new_empty(0)
    if envelope:
        grad_state = analytic_states_vjp(grad_state)
        grad_coef = analytic_rows_vjp(grad_coef) if need_coef else grad_coef
    return grad_x, grad_state, grad_coef
