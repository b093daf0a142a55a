"""IIR filters of many channels in plain torch: products over blocks of samples, and a scan of the blocks' states.

The operator, the meaning of its arguments and their shapes are in :mod:`tamt.ops.iir`, the derivation and its adjoint
in ``docs/engine.md``. Inside, signals are (B, 1, T) where all filters share one, else (B, F, T); in blocks (B, 1 or F,
K, L). States are (F, B, N), of all blocks (F, B, K, N).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import flush_channels
from tamt._memo import Store, bits
from tamt.reference import scan
from tamt.reference.blocks import iir_blocks, wide
from tamt.shared.iir import BLOCK, KINDS, Blocks, powers_in
from tamt.shared.iir_gradients import add_block_gradients, add_power_gradients, blocked, outer
from tamt.shared.nonfinite import fill_from_, filled_from, finite, first_bad, on_cpu

PART = 1 << 22  # output samples whose block states, a fraction of their number, are held together
PART_BACKWARD = 1 << 25  # bytes of output whose block states, and their gradients, the backward pass holds together
SLICE = 1 << 22  # bytes of output per pair of products: the second finds the first's result in the caches
KEPT = 128 << 20  # bytes of matrices kept for later calls; a bank of 50 DRNL filters in float64 takes 19 MiB


def definition(x: Tensor, blocks: Blocks, state: Tensor) -> tuple[Tensor, Tensor]:
    """The engine in its plainest form.

    Parameters
    ----------
    x : Tensor (B, S, T)
        Signals, of any length and whatever they hold; each goes through F / S filters.
    blocks : Blocks
        Matrices of the filters (:func:`tamt.reference.blocks.definition`).
    state : Tensor (B, F, N)
        State to begin with.

    Returns
    -------
    y : Tensor (B, F, T)
    state : Tensor (B, F, N)
        State at the end.
    """
    signal = x.repeat_interleave(state.shape[1] // max(1, x.shape[1]), 1)
    y, state = [signal[..., :0]], state.transpose(0, 1)
    for piece, length in pieces(x.shape[-1]):  # whole blocks, then one that is shorter
        block, u = blocks.over(length), signal[..., piece].unflatten(-1, (-1, length))
        # 1. What each block adds to the state at its end: Krylov vectors times its samples.
        ends = torch.einsum("bfkl,fnl->fbkn", u, block.input)
        # 2. The state at the start of each block: s <- A^L s + e, one block after the other.
        starts, state = scan.definition(ends, state, functools.reduce(torch.matmul, block.transitions.unbind(1)))
        # 3. Inside a block the Toeplitz matrix of the impulse response ...
        inside = torch.einsum("bfki,fij->bfkj", u, toeplitz(block.impulse))
        # 4. ... plus the response to the state at its start, by the observability rows.
        y.append((inside + torch.einsum("fbkn,fjn->bfkj", starts, block.output)).flatten(2))
    return torch.cat(y, 2), state.transpose(0, 1)


def pieces(length: int) -> Iterator[tuple[slice, int]]:
    """The samples that make whole blocks, and what is left over, each with the length of its blocks."""
    whole = length // BLOCK * BLOCK
    if whole:
        yield slice(whole), BLOCK
    if whole < length:
        yield slice(whole, length), length - whole


def toeplitz(impulse: Tensor) -> Tensor:
    """``[f, i, j] = impulse[f, j - i]`` for ``j >= i``, else 0: a row of inputs times this is a row of outputs."""
    length = impulse.shape[-1]
    return pad(impulse, (length - 1, 0)).unfold(-1, length, 1).flip(1)


class Plan(NamedTuple):
    """All matrices of a batch of filters, or of the ``channels`` of it that are to be worked on."""

    blocks: Blocks
    toeplitz: Tensor  # (F, L, L)
    tree: scan.Tree  # of all channels
    channels: slice = slice(None)

    def of(self, channels: slice) -> Plan:
        """The plan of some of the channels."""
        if channels == slice(0, len(self.toeplitz)):
            return self
        return Plan(self.blocks.of(channels), self.toeplitz[channels], self.tree, channels)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices."""
        return sum(matrix.nbytes for matrix in self.blocks) + self.toeplitz.nbytes + self.tree.nbytes


def make_plan(coef: Tensor, kind: str, order: int) -> Plan:
    """The plan of filters of :func:`tamt.ops.iir.iir`."""
    if not KINDS[kind].wide:
        blocks = exact = iir_blocks(coef, kind, order)
    else:
        exact = iir_blocks(coef.to(wide(coef)), kind, order)
        blocks = Blocks(*(flush_channels(matrix.to(coef.dtype)) for matrix in exact))
    return Plan(blocks, toeplitz(blocks.impulse), scan.Tree(exact.transitions[:, -1]))


_plans: Store[Plan] = Store(KEPT)


def plan(coef: Tensor, kind: str, order: int) -> Plan:
    """The plan of these coefficients: on the CPU the one made before, if they have not changed by a bit."""
    if coef.device.type != "cpu":
        return make_plan(coef, kind, order)
    return _plans.get((*bits(coef), kind, order), lambda: make_plan(coef.clone(), kind, order))


def iir(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int) -> tuple[Tensor, Tensor]:
    """Filter ``x`` (B, S, T) from ``state`` (B, F, N): the output (B, F, T) and the final state."""
    matrices = plan(coef, kind, order)
    x, state = x.contiguous(), state.contiguous()  # what has another layout may round in another way
    y, final = x.new_empty(*state.shape[:2], x.shape[-1]), torch.empty_like(state)
    for rows, channels in parts(y.shape):
        signal = signals_of(x[rows], channels, len(coef))
        start = state[rows, channels].transpose(0, 1)
        (last,) = causal(Cascade(matrices.of(channels)), signal, [start], y[rows, channels])
        final[rows, channels] = last.transpose(0, 1)
    return y, final


def signals_of(x: Tensor, channels: slice, filters: int) -> Tensor:
    """Of ``x`` (B, S, T) those that some of the ``filters`` take: one that all share, or one for each."""
    signals = x.shape[1]
    if signals == 1:
        return x
    return x[:, channels] if signals == filters else x[:, _places(channels, filters, x)]


def _places(channels: slice, filters: int, x: Tensor) -> Tensor:
    """Of each of these channels the signal in ``x`` (B, S, T) that it takes, S a divisor of ``filters``."""
    return torch.arange(filters, device=x.device)[channels] // (filters // x.shape[1])


def parts(shape: Sequence[int], samples: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Batch rows and channels of an output (B, F, T) in work together, ``PART`` samples or so many: channels first."""
    batch, channels, length = shape
    together = max(1, (PART if samples is None else samples) // max(1, length))
    width = -(-channels // max(1, -(-channels // together)))  # parts of about equal size
    rows = max(1, together // max(1, channels))
    for b in range(0, batch, rows):
        for f in range(0, channels, max(1, width)):
            yield slice(b, min(b + rows, batch)), slice(f, min(f + width, channels))


class Filter(Protocol):
    """Filters signals to ``out`` (B, F, T), from states to those at the end.

    ``stepwise`` scans blocks one by one: a number that overflows reaches nothing before its own block.
    """

    def __call__(self, x: Tensor, states: list[Tensor], out: Tensor, *, stepwise: bool) -> list[Tensor]:
        """Write ``out``, return the states at the end."""
        ...


class Cascade(NamedTuple):
    """The :class:`Filter` with the matrices of a plan."""

    matrices: Plan

    def __call__(self, x: Tensor, states: list[Tensor], out: Tensor, *, stepwise: bool) -> list[Tensor]:
        """See :class:`Filter`."""
        starts, last = block_states(x, states[0], self.matrices, stepwise)
        for part in slices(out):
            matrices = self.matrices.of(part.channels)
            write(part.of_signal(x), part.of_states(starts), matrices, part.of_output(out))
        return [last]


def causal(run: Filter, x: Tensor, states: list[Tensor], out: Tensor) -> list[Tensor]:
    """The final states and ``out`` of a filter, of which no sample depends on what comes after it.

    From the first sample on that is NaN or infinite, output and final state are NaN; from a state that is not finite,
    all of the output is. On a CPU, numbers that overflow inside do not reach earlier output either.
    """
    if on_cpu(x):
        last = run(x, states, out, stepwise=False)
        if finite(*last):
            return last
    first = first_bad(x)
    x = filled_from(x, first, 0)
    spoilt = torch.stack([(~state.isfinite()).any(-1) for state in states]).any(0)  # (F, B)
    first = first.masked_fill(spoilt.t(), 0)
    states = [state.clone().masked_fill_(spoilt[..., None], 0) for state in states]
    last = run(x, states, out, stepwise=False)
    if on_cpu(x) and not finite(*last):
        overflown = torch.stack([(~state.isfinite()).any(-1) for state in last]).any(0)
        again = torch.empty_like(out)
        last_again = run(x, states, again, stepwise=True)
        out.copy_(torch.where(overflown.t()[..., None], again, out))
        last = [torch.where(overflown[..., None], new, old) for new, old in zip(last_again, last, strict=True)]
    fill_from_(out, first, torch.nan)
    ended = (spoilt | (first < x.shape[-1]).t())[..., None]
    return [state.masked_fill(ended, torch.nan) for state in last]


def block_states(x: Tensor, state: Tensor, matrices: Plan, stepwise: bool = False) -> tuple[Tensor, Tensor]:
    """States (F, B, K, N) at the starts of the blocks of ``x`` (B, S, T), the last maybe short, and that at the end."""
    whole, rest = divmod(x.shape[-1], BLOCK)
    ends = _end_states(blocked(x[..., : whole * BLOCK]), matrices.blocks.input)
    if stepwise:
        starts, last = scan.definition(ends, state, matrices.blocks.transitions[:, -1])
    else:
        starts, last = scan.scan(ends, state, matrices.tree, matrices.channels)
    if rest:
        starts = torch.cat((starts, last[:, :, None]), 2)
        for i in powers_in(rest):
            last = torch.bmm(last, matrices.blocks.transitions[:, i].mT)
        ending = blocked(x[..., whole * BLOCK :], rest)
        last = last + _end_states(ending, matrices.blocks.input[..., -rest:])[:, :, 0]
    return starts, last


def _end_states(signal: Tensor, krylov: Tensor) -> Tensor:
    """What each block adds to the state at its end, by Krylov vectors (F, N, L)."""
    if signal.shape[1] == 1:
        ends = signal[:, 0] @ krylov.flatten(0, 1).t()
        return ends.unflatten(-1, krylov.shape[:2]).permute(2, 0, 1, 3)
    return _times(signal, krylov.mT)


def _times(signal: Tensor, matrices: Tensor) -> Tensor:
    """Blocks (B, F, K, L) times matrices (F, L, N): (F, B, K, N), without copies of either per batch row."""
    products = [row @ matrices for row in signal]
    return (
        torch.stack(products, 1) if products else signal.new_zeros(len(matrices), 0, signal.shape[2], matrices.shape[2])
    )


class Slice(NamedTuple):
    """What is worked on together of an output (B, F, T): some channels of a row, of long ones a part of the blocks."""

    row: int
    channels: slice
    blocks: slice

    def of_signal(self, x: Tensor) -> Tensor:
        """Of ``x`` (B, 1 or F, T) the blocks (1 or C, K, L), with zeros behind the end of the signal."""
        signals = x[self.row] if x.shape[1] == 1 else x[self.row, self.channels]
        samples = signals[:, self.time]
        missing = -samples.shape[-1] % BLOCK
        return (pad(samples, (0, missing)) if missing else samples).unflatten(-1, (-1, BLOCK))

    def of_states(self, starts: Tensor) -> Tensor:
        """Of states (F, B, K, N) those (C, K, N) at the starts of the blocks."""
        return starts[self.channels, self.row, self.blocks]

    def of_output(self, y: Tensor) -> Tensor:
        """Of an output (B, F, T) the samples (C, n)."""
        return y[self.row, self.channels, self.time]

    @property
    def time(self) -> slice:
        """The samples of the blocks, and perhaps some that are missing at the end."""
        return slice(self.blocks.start * BLOCK, self.blocks.stop * BLOCK)


def slices(out: Tensor) -> Iterator[Slice]:
    """Those of an output."""
    (batch, filters, samples), block = out.shape, BLOCK * out.element_size()
    count = -(-samples // BLOCK)
    width, span = max(1, SLICE // max(1, count * block)), max(1, SLICE // block)
    for b in range(batch):
        for first in range(0, filters, width):
            for start in range(0, count, span):
                channels, blocks = slice(first, min(first + width, filters)), slice(start, min(start + span, count))
                yield Slice(b, channels, blocks)


def respond(samples: Tensor, starts: Tensor, matrices: Plan, out: Tensor, add: bool = False) -> None:
    """``out`` (C, K, L), or what is added to it: the response to samples (1 or C, K, L) and to states (C, K, N)."""
    torch.baddbmm(out, samples.expand_as(out), matrices.toeplitz, beta=int(add), out=out)
    out.baddbmm_(starts, matrices.blocks.output.mT)


def write(samples: Tensor, starts: Tensor, matrices: Plan, out: Tensor) -> None:
    """:func:`respond`, to ``out`` (C, T)."""
    shape = (len(out), *samples.shape[1:])
    if out.is_contiguous() and out.shape[1] % BLOCK == 0:
        respond(samples, starts, matrices, out.view(shape))
    else:  # a product costs more in such a layout than a copy
        room = out.new_empty(shape)
        respond(samples, starts, matrices, room)
        out.copy_(room.flatten(1)[:, : out.shape[1]])


def iir_backward(
    grad_y: Tensor,
    grad_final: Tensor,
    x: Tensor,
    coef: Tensor,
    state: Tensor,
    kind: str,
    order: int,
    need_x: bool,
    need_coef: bool,
) -> tuple[Tensor, Tensor, Blocks]:
    """Gradients to ``x``, ``state`` and the block matrices; those that are not needed are returned empty."""
    matrices = plan(coef, kind, order)
    signals, filters = x.shape[1], len(coef)
    grad_blocks = matrices.blocks.totals(need_coef)
    grad_x = x.new_empty(0) if not need_x else x.new_empty(x.shape) if signals == filters else x.new_zeros(x.shape)
    grad_state = torch.empty_like(state, memory_format=torch.contiguous_format)
    for rows, channels in parts(grad_y.shape, PART_BACKWARD // grad_y.element_size()):
        signal = signals_of(x[rows], channels, filters)
        own = signals == filters or (signals == 1 and channels == slice(0, filters))
        target = (
            None if not need_x else signals_of(grad_x[rows], channels, filters) if own else torch.empty_like(signal)
        )
        last, start = grad_final[rows, channels], state[rows, channels]
        grad_state[rows, channels] = cascade_backward(
            grad_y[rows, channels],
            last,
            signal,
            matrices.of(channels),
            start,
            target,
            need_coef,
            grad_blocks.of(channels),
        )
        if target is not None and not own:
            _add_of_filters(target, grad_x[rows], channels, filters)
    return grad_x, grad_state, grad_blocks


def _add_of_filters(gradient: Tensor, total: Tensor, channels: slice, filters: int) -> None:
    """Add what some of the ``filters`` give to the gradients ``total`` (B, S, T) of the signals that they take."""
    if total.shape[1] == 1:
        total += gradient
    else:
        total.index_add_(1, _places(channels, filters, total), gradient)


def cascade_backward(
    grad_y: Tensor,
    grad_final: Tensor,
    x: Tensor,
    matrices: Plan,
    state: Tensor,
    grad_x: Tensor | None,
    need_coef: bool,
    grad_blocks: Blocks,
) -> Tensor:
    """Gradient to ``state`` (B, F, N); that to ``x`` (B, 1 or F, T) is written to ``grad_x``.

    Those to the block matrices are added to ``grad_blocks`` where ``need_coef``.

    The adjoint is the same kind of system run backwards in time: ``m_k = (A^L)^T m_{k+1} + C^T grad_y_k`` between
    blocks, ``grad_x_k = H^T grad_y_k + E^T m_{k+1}`` inside. Gradients of the block matrices are sums of outer products
    over all blocks.
    """
    cut = list(pieces(x.shape[-1]))
    if need_coef:
        starts, _ = block_states(x, state.transpose(0, 1), matrices)
        begun_at = starts.split([x[..., piece].shape[-1] // length for piece, length in cut], 2)
    adjoint = grad_final.transpose(0, 1)  # of the state at the end of what is done
    for i, (piece, length) in reversed(list(enumerate(cut))):
        block, grad = matrices.blocks.over(length), blocked(grad_y[..., piece], length)
        begun = begun_at[i] if need_coef else adjoint[:, :, None]
        observed = _times(grad, block.output)
        if length == BLOCK:
            leaving, adjoint = scan.adjoint(observed, adjoint, matrices.tree, matrices.channels)
            if need_coef:
                grad_blocks.transitions[:, -1] += outer(leaving, begun)
        else:
            leaving = adjoint[:, :, None]
            adjoint = observed[:, :, 0] + add_power_gradients(
                grad_blocks.transitions, length, begun[:, :, 0], adjoint, matrices.blocks.transitions
            )
        if grad_x is not None:
            own = matrices.toeplitz[:, :length, :length]
            _write_signal_gradient(grad, leaving, own, block.input, grad_x[..., piece])
        if need_coef:
            add_block_gradients(grad_blocks.over(length), grad, leaving, blocked(x[..., piece], length), begun)
    return adjoint.transpose(0, 1)


def _write_signal_gradient(grad: Tensor, leaving: Tensor, own: Tensor, krylov: Tensor, out: Tensor) -> None:
    """``out`` (B, 1 or F, T), from gradients of the output and of the states at the blocks' ends."""
    own = own.mT
    if out.shape[1] == 1:  # shared by the channels: the sum over channels is part of the product
        own, krylov = own.flatten(0, 1), krylov.flatten(0, 1)
        for b in range(out.shape[0]):
            row = grad[b].transpose(0, 1).flatten(1) @ own
            row.addmm_(leaving[:, b].transpose(0, 1).flatten(1), krylov)
            out[b, 0] = row.flatten()
    else:
        for b in range(out.shape[0]):
            out[b] = torch.baddbmm(grad[b] @ own, leaving[:, b], krylov).flatten(1)
