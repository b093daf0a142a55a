"""Mean power, envelope or positive half of IIR filters' outputs over hops. Shapes: :mod:`tamt.ops.filter_frames`.

Forward, blocks of samples with the states before them are multiplied by one matrix per channel (the Toeplitz matrix and
the observability rows of :mod:`tamt.reference.iir`, for the envelope of both parts side by side), and what the detector
makes of a slice is added up while it is in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._memo import Store, bits
from tamt.reference import scan
from tamt.reference.blocks import iir_blocks_vjp
from tamt.reference.iir import block_states, cascade_backward, iir, plan
from tamt.reference.iir import definition as filtered
from tamt.shared.hops import (
    Chunks,
    Sizes,
    States,
    add_to_hops,
    chunk_sizes,
    detect,
    detect_,
    hop_means,
    in_chunks,
    in_chunks_backward,
    parts_together,
    pull_back_,
    pull_back_parts,
)
from tamt.shared.iir import (
    BLOCK,
    KINDS,
    Blocks,
    analytic_rows,
    analytic_rows_vjp,
    analytic_states,
)
from tamt.shared.iir_gradients import add_product_gradients, blocked, diagonal_sums
from tamt.shared.nonfinite import fill_from_, filled_from, finite, first_bad, on_cpu

SLICE = 1 << 20  # bytes of the output of a product, few enough to be in the cache when they are added up
PIECE = 1 << 26  # bytes of the output whose block states, a fraction of it, are held together
LEAST_BLOCK = 16  # samples of the blocks of a backward pass without outputs; shorter ones take longer than outputs do
PRODUCTS = 256  # blocks whose products of samples are in the cache together
BLOCK_STATES = 1 << 20  # bytes of the states of all blocks that are in work together there
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
    x, state = x[:, : x.shape[1] // hop * hop].contiguous(), state.contiguous()
    if not on_cpu(x):
        return _from_outputs(x, coef, state, kind, order, hop, detector)
    means, final = _in_slices(x, coef, state, kind, order, hop, detector)
    if finite(final):
        return means, final
    # Again without what is not finite, as in tamt.reference.iir.causal.
    spoilt = (~state.isfinite()).any(2)  # (B, F)
    first = first_bad(x)
    x, state = filled_from(x, first, 0), state.masked_fill(spoilt[..., None], 0)
    first = first[:, None].masked_fill(spoilt, 0)
    means, final = _in_slices(x, coef, state, kind, order, hop, detector)
    if not finite(final):
        rows = ~final.isfinite().all(2).all(1)  # that overflow
        means[rows], final[rows] = _from_outputs(x[rows], coef, state[rows], kind, order, hop, detector)
    ended = (spoilt | (first < x.shape[1]))[..., None]
    return fill_from_(means, first // hop, torch.nan), final.masked_fill(ended, torch.nan)


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

    means, (final,) = in_chunks(run, x, (state,), len(coef), hop, detector, chunk_sizes(x))
    return (parts_together(means), final[:, ::2].clone()) if detector == "envelope" else (means, final)


class Responses(NamedTuple):
    """Matrices of the output of a block: of one real output per channel, or of two."""

    matrix: Tensor  # (F, N + L, outputs, L): from the states before a block, and from its samples

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.matrix.nbytes


_responses: Store[Responses] = Store(KEPT)


def responses_of(coef: Tensor, kind: str, order: int, envelope: bool) -> Responses:
    """Those of coefficients: on the CPU the ones made before, if they have not changed by a bit."""
    if not on_cpu(coef):
        return _make_responses(coef, kind, order, envelope)
    return _responses.get(
        (*bits(coef), kind, order, envelope), lambda: _make_responses(coef.clone(), kind, order, envelope)
    )


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
    responses = responses_of(coef, kind, order, envelope)
    batch, channels, _ = state.shape
    means = x.new_zeros(batch, channels, x.shape[1] // hop)
    final = torch.empty_like(state)
    piece_length = max(1, PIECE // (max(1, channels) * BLOCK * x.element_size())) * BLOCK
    rows = max(1, piece_length // max(1, x.shape[1]))
    for first in range(0, batch, rows):
        part = slice(first, first + rows)
        now, sums = state[part].transpose(0, 1), means[part].transpose(0, 1)
        for start in range(0, x.shape[1], piece_length):
            signal = x[part, None, start : start + piece_length]
            starts, now = block_states(signal, now, matrices)
            for chosen, values in _detected(signal, starts, responses, detector):
                add_to_hops(values, start, hop, sums[chosen])
        final[part] = now.transpose(0, 1)
    return means.div_(2 * hop if envelope else hop), final


def _detected(x: Tensor, starts: Tensor, responses: Responses, detector: str) -> Iterator[tuple[slice, Tensor]]:
    """What the detector gives for ``x`` (R, 1, T) and states (F, R, K, N): some channels, and values (C, R, T)."""
    (channels, rows, count, states), samples = starts.shape, x.shape[-1]
    blocks = pad(x, (0, count * BLOCK - samples)).view(rows * count, BLOCK)  # of all rows in one product
    width = max(1, min(channels, SLICE // max(1, blocks.nbytes)))
    given = x.new_empty(width, len(blocks), states + BLOCK)
    given[..., states:] = blocks
    outputs = responses.matrix.shape[2]
    room = x.new_empty(width, len(blocks), outputs * BLOCK)
    for first in range(0, channels, width):
        chosen = slice(first, min(first + width, channels))
        size = chosen.stop - first
        given[:size, :, :states] = starts[chosen].flatten(1, 2)
        product = torch.bmm(given[:size], responses.matrix[chosen].flatten(2), out=room[:size])
        values = detect_(product, detector)
        if outputs == 2:
            values = values[..., :BLOCK] + values[..., BLOCK:]
        yield chosen, values.view(size, rows, -1)[..., :samples]


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
    block = block_of(hop, kind, detector)
    if block and on_cpu(x):  # which has float64
        return quadratic_backward(
            grad_means, grad_final, x, coef, state, kind, order, hop, detector, need_x, need_coef, block
        )
    if detector == "envelope":

        def of_powers(*given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            grad_means, grad_final, coef, state = given
            return outputs_backward(
                grad_means, grad_final, x, coef, state, kind, order, hop, "power", need_x, need_coef
            )

        return pull_back_parts(of_powers, grad_means, grad_final, coef, state)
    return outputs_backward(grad_means, grad_final, x, coef, state, kind, order, hop, detector, need_x, need_coef)


def outputs_backward(
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
    """Backward pass for power and positive half from outputs, which are made again."""
    matrices = plan(coef, kind, order)
    total = matrices.blocks.totals(need_coef)
    grad_x = torch.zeros_like(x) if need_x else x.new_empty(0)

    def advance(chunk: Tensor, states: States) -> States:
        _, now = block_states(chunk[:, None], states[0].transpose(0, 1), matrices)
        return (now.transpose(0, 1),)

    def pull_back(rows: slice, time: slice, states: States, grads: States) -> States:
        (before,), (after,), signal = states, grads, x[rows, None, time]
        y, _ = iir(signal, coef, before, kind, order)
        grad_y = pull_back_(y, grad_means[rows], time.start, hop, detector)
        of_x = grad_x[rows, None, time] if need_x else None
        return (cascade_backward(grad_y, after, signal, matrices, before, of_x, need_coef, total),)

    chunks = Chunks(len(x), len(coef), grad_means.shape[2] * hop, chunk_sizes(x))
    (grad_state,) = in_chunks_backward(advance, pull_back, x, (state,), (grad_final,), chunks)
    return grad_x, grad_state, iir_blocks_vjp(total, coef, kind, order) if need_coef else coef.new_empty(0)


def block_of(hop: int, kind: str, detector: str) -> int:
    """Samples of the blocks that :func:`quadratic_backward` cuts hops into; 0 where it does not apply or pay."""
    if detector == "halfwave" or KINDS[kind].wide:
        return 0
    longest = next(length for length in range(min(hop, BLOCK), 0, -1) if hop % length == 0)
    return longest if longest >= LEAST_BLOCK else 0


class Forms(NamedTuple):
    """The power of the output over a block as a quadratic form of its samples x and of the state s before it.

    ``power = x' xx x + 2 s' sx x + s' ss s``, from ``W = [C, H]``, the response to both, as ``W' W``; of an envelope
    both parts' together.
    """

    response: Tensor  # W, (F, parts, L, N + L)
    xx: Tensor  # (F, L, L)
    sx: Tensor  # (F, N, L)
    ss: Tensor  # (F, N, N)

    @classmethod
    def of(cls, responses: Responses, length: int) -> Forms:
        """Of blocks of so many samples."""
        states = responses.matrix.shape[1] - BLOCK
        w = responses.matrix[:, : states + length, :, :length].permute(0, 2, 3, 1).double()
        whole = w.flatten(1, 2).mT @ w.flatten(1, 2)
        return cls(w, whole[:, states:, states:], whole[:, :states, states:], whole[:, :states, :states])


def quadratic_backward(
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
    length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward pass for power and envelope without outputs, in blocks of ``length`` samples, a divisor of the hop.

    With ``v = (s, x)`` of a block and g the gradient of its power, ``2 g W' W v`` is that of v, and ``W sum(2 g v v')``
    that of W. The sum over blocks of ``2 g x x'`` is one product for all channels, as they share x. These products are
    in float64: where little of v comes through W, what remains of them is little too.
    """
    envelope = detector == "envelope"
    responses = responses_of(coef, kind, order, envelope)
    forms = Forms.of(responses, length)
    blocks = plan(coef, kind, order).blocks
    factors = blocks.over(length).transitions
    tree = scan.Tree(functools.reduce(torch.matmul, factors.unbind(1)))
    krylov = blocks.over(length).input  # (F, N, L)
    channels, states = krylov.shape[:2]
    grad_power = grad_means.double() / (hop if envelope else hop / 2)  # twice that of the sum over a hop of |W v|^2
    grad_x = torch.zeros_like(x) if need_x else x.new_empty(0)
    sums = Forms(forms.response, *(torch.zeros_like(form) for form in forms[1:]))
    # Products of samples are symmetric: of some rows at a time those from the diagonal on.
    high = -(-length // 4)
    strips = [forms.xx.new_zeros(channels, min(high, length - row), length - row) for row in range(0, length, high)]
    grad_krylov, grad_over = torch.zeros_like(krylov), torch.zeros_like(factors[:, 0])

    def starts_of(samples: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        """States (F, R, K, N) before blocks (R K, L), and after the last ones."""
        rows = now.shape[1]
        ends = (samples @ krylov.flatten(0, 1).t()).view(rows, len(samples) // max(1, rows), channels, states)
        return scan.scan(ends.permute(2, 0, 1, 3), now, tree)

    def advance(chunk: Tensor, before: States) -> States:
        _, after = starts_of(blocked(chunk, length).flatten(0, 1), before[0].transpose(0, 1))
        return (after.transpose(0, 1),)

    def pull_back(rows: slice, time: slice, before: States, after: States) -> States:
        samples = blocked(x[rows, time], length).flatten(0, 1)  # (R K, L)
        starts, _ = starts_of(samples, before[0].transpose(0, 1))
        shape, starts = starts.shape, starts.flatten(1, 2)  # (F, R K, N)
        hops = torch.arange(time.start, time.stop, length, device=x.device) // hop
        grad = grad_power[rows].index_select(2, hops).transpose(0, 1).flatten(1)[..., None]  # (F, R K, 1)
        exact, entering = samples.double(), starts.double()
        weighted = grad * entering
        observed = (exact @ forms.sx.flatten(0, 1).t()).unflatten(1, (channels, states)).transpose(0, 1)
        observed = torch.bmm(weighted, forms.ss).addcmul_(observed, grad).to(x.dtype)
        leaving, grad_now = scan.adjoint(observed.view(shape), after[0].transpose(0, 1), tree)
        leaving = leaving.flatten(1, 2)
        if need_coef:
            for first in range(0, len(exact), PRODUCTS):
                some, own = exact[first : first + PRODUCTS], grad[:, first : first + PRODUCTS, 0]
                for row, strip in zip(range(0, length, high), strips, strict=True):
                    products = some[:, row : row + high, None] * some[:, None, row:]
                    strip.flatten(1).addmm_(own, products.flatten(1))
            shared = exact.expand(channels, -1, -1)
            sums.sx.baddbmm_(weighted.mT, shared)
            sums.ss.baddbmm_(weighted.mT, entering)
            grad_krylov.baddbmm_(leaving.mT, samples.expand(channels, -1, -1))
            grad_over.baddbmm_(leaving.mT, starts)
        if need_x:
            forms_of_blocks = (grad[..., 0].t() @ forms.xx.flatten(1)).view(-1, length, length)
            found = torch.bmm(forms_of_blocks, exact[..., None])[..., 0]
            found += weighted.transpose(0, 1).flatten(1) @ forms.sx.flatten(0, 1)
            found += leaving.transpose(0, 1).flatten(1) @ krylov.flatten(0, 1)
            grad_x[rows, time] = found.view(-1, time.stop - time.start).to(x.dtype)
        return (grad_now.transpose(0, 1),)

    together = BLOCK_STATES // (states * x.element_size())  # blocks of channels
    sizes = Sizes(min(2 * chunk_sizes(x).samples, together * length), unit=8 * length)
    chunks = Chunks(len(x), len(coef), grad_means.shape[2] * hop, sizes)
    (grad_state,) = in_chunks_backward(advance, pull_back, x, (state,), (grad_final,), chunks)
    if not need_coef:
        return grad_x, grad_state, coef.new_empty(0)
    w = forms.response
    of_states, of_samples = w.split((states, length), -1)
    grad_output = of_states @ sums.ss[:, None] + of_samples @ sums.sx.mT[:, None]
    for row, strip in zip(range(0, length, high), strips, strict=True):
        sums.xx[:, row:, row : row + high] = strip.mT
        sums.xx[:, row : row + high, row:] = strip
    grad_inside = (of_states @ sums.sx[:, None] + of_samples @ sums.xx[:, None]).mT
    total = plan(analytic_rows(coef) if envelope else coef, kind, order).blocks.totals()
    parts = total.over(length)
    parts.impulse.copy_(diagonal_sums(grad_inside.flatten(0, 1)))
    if envelope:
        re, im = grad_output[:, 1].unflatten(-1, (-1, 2)).unbind(-1)
        grad_output = torch.stack((grad_output[:, 0], torch.stack((im, -re), -1).flatten(-2)), 1)
    parts.output.copy_(grad_output.flatten(0, 1))
    own = Blocks(*(matrix[::2] for matrix in total)) if envelope else total
    own.over(length).input.copy_(grad_krylov)
    add_product_gradients(own.transitions, length, grad_over, blocks.transitions)
    grad_coef = iir_blocks_vjp(total, analytic_rows(coef) if envelope else coef, kind, order)
    return grad_x, grad_state, analytic_rows_vjp(grad_coef) if envelope else grad_coef
