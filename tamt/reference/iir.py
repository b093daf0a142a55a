"""IIR filters of many channels in plain torch: block products, and a multi-level scan of the block states.

Time is cut into blocks of ``BLOCK`` samples. Inside a block the filter is a Toeplitz matrix; what a block hands to the
next is a state of a few numbers, and those are scanned in groups, groups of groups and so on, each level a few matrix
products over all rows and channels at once. A last, shorter block takes what is left over. The matrices make a
:class:`Plan`, which is kept for the next call with the same coefficients. The operator, the meaning of its arguments
and their shapes are in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import flush, flush_channels
from tamt._memo import Store, bits
from tamt.reference.blocks import iir_blocks
from tamt.shared.iir import BLOCK, Blocks
from tamt.shared.iir_gradients import add_block_gradients, add_power_gradients, blocked, outer, powers_in
from tamt.shared.nonfinite import fill_from_, filled_from, finite, first_bad, on_cpu

GROUP_STATES = 64  # numbers of state in a group of the scan
STEPS = 8  # so many states, or fewer, are cheaper to scan one by one than the matrices of a level are to make
PART = 1 << 22  # output samples whose block states, a fraction of their number, are held together
SLICE = 1 << 17  # output samples per pair of products, so that the second finds the first's result in the cache
KEPT = 128 << 20  # bytes of matrices kept for later calls; a bank of 50 DRNL filters in float64 takes 19 MiB


def definition(x: Tensor, blocks: Blocks, state: Tensor) -> tuple[Tensor, Tensor]:
    """Filter ``x`` (B, T) or (B, F, T) from ``state`` (B, F, N) by block matrices: the output and the final state."""
    whole = x.shape[-1] // BLOCK * BLOCK
    signal = blocked(x[..., :whole])
    starts, last = _scan(_block_ends(signal, blocks), state.transpose(0, 1), Levels(blocks.transitions[:, -1]))
    y = _outputs(signal, starts, blocks)
    if whole < x.shape[-1]:
        rest = _shortened(blocks, x.shape[-1] - whole)
        signal = blocked(x[..., whole:], x.shape[-1] - whole)
        y = torch.cat((y, _outputs(signal, last[:, :, None], rest)), 2)
        last = advance(last, rest.transitions)[-1] + _block_ends(signal, rest)[:, :, 0]
    return y, last.transpose(0, 1)


class Level(NamedTuple):
    """One level of the scan ``s_{k+1} = A s_k + e_k``: matrices for groups of ``group`` steps; states are rows here."""

    group: int
    step: Tensor  # A^T
    carry: Tensor  # (F, N, G N): what the state before a group adds to each state of it
    over_group: Tensor  # A^G
    band: Tensor  # (F, G N, (G + 1) N): what e_i adds to state j > i of its group, and to the state after the group

    def of(self, channels: slice) -> Level:
        """The same level for some of the channels."""
        return Level(self.group, *(matrix[channels] for matrix in self[1:]))


def make_level(transition: Tensor, group: int) -> Level:
    """The level that takes ``group`` steps of ``transition`` (F, N, N) at once."""
    size = transition.shape[-1]
    step = strip = transition.mT  # powers of A^T side by side, (F, N, k N)
    while strip.shape[2] < group * size:
        strip = torch.cat((strip, strip[..., -size:] @ strip), 2)
    identity = torch.eye(size, dtype=strip.dtype, device=strip.device).expand_as(transition)
    strip = flush(torch.cat((identity, strip), 2)[..., : (group + 1) * size])
    carry = strip[..., : group * size]
    late = pad(carry, (group * size, 0))
    rows = [late[..., start * size : (start + group + 1) * size] for start in reversed(range(group))]
    return Level(group, step, carry, strip[..., group * size :].mT, torch.stack(rows, 1).flatten(1, 2))


class Levels:
    """The levels of a scan, made as far up as they are needed."""

    def __init__(self, transition: Tensor) -> None:
        self.transition = transition
        self.made: list[Level] = []
        self.lock = threading.Lock()

    def at(self, depth: int, count: int) -> Level:
        """The level that scans ``count`` steps, or groups of them, ``depth`` levels up."""
        group = min(max(2, GROUP_STATES // self.transition.shape[-1]), count)
        with self.lock:
            # A group that has become too small was the only one of its level: nothing above hangs on it.
            if depth == len(self.made) or self.made[depth].group < group:
                self.made[depth:] = [make_level(self.transition_at(depth), group)]
            return self.made[depth]

    def transition_at(self, depth: int) -> Tensor:
        """What takes one step ``depth`` levels up."""
        return self.made[depth - 1].over_group if depth else self.transition

    @property
    def nbytes(self) -> int:
        """Bytes of the levels made so far."""
        return sum(matrix.nbytes for level in self.made for matrix in level[1:])


class Plan(NamedTuple):
    """All matrices of a batch of filters, or of the ``channels`` of it that are to be worked on."""

    blocks: Blocks
    own: Tensor  # (F, L, L): Toeplitz matrix of the impulse response
    levels: Levels  # of all channels
    channels: slice = slice(None)

    def of(self, channels: slice) -> Plan:
        """The plan of some of the channels."""
        return Plan(Blocks(*(matrix[channels] for matrix in self.blocks)), self.own[channels], self.levels, channels)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices."""
        return sum(matrix.nbytes for matrix in self.blocks) + self.own.nbytes + self.levels.nbytes


def make_plan(coef: Tensor, kind: str, order: int) -> Plan:
    """The plan of filters of :func:`tamt.ops.iir.iir`."""
    exact = iir_blocks(coef.to(wide(coef)) if kind == "biquad" else coef, kind, order)
    blocks = exact if kind != "biquad" else Blocks(*(flush_channels(matrix.to(coef.dtype)) for matrix in exact))
    return Plan(blocks, toeplitz(blocks.impulse), Levels(exact.transitions[:, -1]))


def wide(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it.

    Rounded to float32, a block's transition moves poles by 1e-9 each sample, which is much to narrow bands: biquads
    keep theirs in float64, and scan in it. Where that is missing, a band narrower than 1e-4 fs is good to 4 digits.
    """
    return tensor.dtype if tensor.device.type == "mps" else torch.float64


_plans: Store[Plan] = Store(KEPT)


def plan(coef: Tensor, kind: str, order: int) -> Plan:
    """The plan of these coefficients: on the CPU the one made before, if they have not changed by a bit."""
    if coef.device.type != "cpu":
        return make_plan(coef, kind, order)
    return _plans.get((*bits(coef), kind, order), lambda: make_plan(coef.clone(), kind, order))


def iir(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int) -> tuple[Tensor, Tensor]:
    """Filter ``x`` (B, T) or (B, F, T) from ``state`` (B, F, N): the output (B, F, T) and the final state."""
    matrices = plan(coef, kind, order)
    x, state = x.contiguous(), state.contiguous()  # what has another layout may round in another way
    y, final = x.new_empty(*state.shape[:2], x.shape[-1]), torch.empty_like(state)
    for rows, channels in parts(y.shape):
        source = x[rows] if x.dim() == 2 else x[rows, channels]
        start, out = state[rows, channels].transpose(0, 1), y[rows, channels]
        (last,) = causal(Cascade(matrices.of(channels)), source, [start], out)
        final[rows, channels] = last.transpose(0, 1)
    return y, final


class Filter(Protocol):
    """Filters ``x`` (B, T) or (B, F, T) to ``out`` (B, F, T), from states (F, B, N) to those at the end.

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
        (last,) = states
        for piece, length in pieces(x.shape[-1]):
            signal = blocked(x[..., piece], length)
            starts, last = block_states(signal, last, self.matrices, length, stepwise)
            write_output(signal, starts, self.matrices, out[..., piece].unflatten(-1, (-1, length)))
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
    first = (first if first.dim() == 2 else first[:, None]).masked_fill(spoilt.t(), 0)
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


def pieces(length: int) -> Iterator[tuple[slice, int]]:
    """The samples that make whole blocks, and what is left over, each with the length of its blocks."""
    whole = length // BLOCK * BLOCK
    if whole:
        yield slice(whole), BLOCK
    if whole < length:
        yield slice(whole, length), length - whole


def parts(shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Batch rows and channels of an output (B, F, T) whose block states are in work together: all channels first."""
    batch, channels, length = shape
    together = max(1, PART // max(1, length))
    width = -(-channels // max(1, -(-channels // together)))  # parts of about equal size
    rows = max(1, together // max(1, channels))
    for b in range(0, batch, rows):
        for f in range(0, channels, max(1, width)):
            yield slice(b, min(b + rows, batch)), slice(f, min(f + width, channels))


def slices(out: Tensor) -> Iterator[tuple[int, slice]]:
    """Batch rows, and channels of (B, F, K, L) taken together."""
    channels = max(1, SLICE // max(1, out.shape[-2] * out.shape[-1]))
    for b in range(out.shape[0]):
        for f in range(0, out.shape[1], channels):
            yield b, slice(f, f + channels)


def block_states(signal: Tensor, state: Tensor, matrices: Plan, length: int, stepwise: bool) -> tuple[Tensor, Tensor]:
    """States (F, B, K, N) at the starts of the blocks of a piece, from ``state`` (F, B, N), and the one at its end."""
    if length == BLOCK:
        ends = _block_ends(signal, matrices.blocks)
        if stepwise:
            return _scan_stepwise(ends, state, matrices.blocks.transitions[:, -1])
        return _scan(ends, state, matrices.levels, matrices.channels)
    rest = _shortened(matrices.blocks, length)
    return state[:, :, None], advance(state, rest.transitions)[-1] + _block_ends(signal, rest)[:, :, 0]


def write_output(signal: Tensor, starts: Tensor, matrices: Plan, out: Tensor, add: bool = False) -> None:
    """Output of a piece, to ``out`` (B, F, K, L) or added to it: Toeplitz products and responses to the states."""
    for b, channels in slices(out):
        write_slice(signal, starts, matrices, b, channels, out[b, channels], add)


def write_slice(
    signal: Tensor, starts: Tensor, matrices: Plan, b: int, channels: slice, out: Tensor, add: bool = False
) -> None:
    """:func:`write_output` for some channels of one batch row, to ``out`` (C, K, L)."""
    length = out.shape[-1]
    source = signal[b].expand_as(out) if signal.shape[1] == 1 else signal[b, channels]
    torch.baddbmm(out, source, matrices.own[channels, :length, :length], beta=int(add), out=out)
    out.baddbmm_(starts[channels, b], matrices.blocks.output[channels, :length].mT)


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
    """Gradients to ``x``, ``state`` and the block matrices; those that are not needed are returned empty.

    The adjoint is the same kind of system run backwards in time: ``m_k = (A^L)^T m_{k+1} + C^T grad_y_k`` between
    blocks, ``grad_x_k = H^T grad_y_k + B^T m_{k+1}`` inside. Gradients of the block matrices are sums of outer products
    over all blocks.
    """
    matrices = plan(coef, kind, order)
    blocks = matrices.blocks
    whole = x.shape[-1] // BLOCK * BLOCK
    signal, grad = blocked(x[..., :whole]), blocked(grad_y[..., :whole])
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if need_x else x.new_empty(0)
    grad_blocks = Blocks(*(m.new_zeros(m.shape) if need_coef else x.new_empty(0) for m in blocks))
    starts = last = state.transpose(0, 1)
    if need_coef:
        starts, last = _scan(_block_ends(signal, blocks), last, matrices.levels)
    adjoint = grad_final.transpose(0, 1)  # of the state at the end of what is done
    if whole < x.shape[-1]:
        adjoint = tail_backward(
            grad_y[..., whole:], adjoint, x[..., whole:], last, blocks, grad_x[..., whole:], grad_blocks
        )
    leaving, adjoint = _scan_backward(_pulled_back(grad, blocks), adjoint, matrices.levels)
    if need_x:
        _write_signal_gradient(grad, leaving, matrices.own, blocks.input, grad_x[..., :whole])
    if need_coef:
        add_block_gradients(grad_blocks, grad, leaving, signal, starts)
        grad_blocks.transitions[:, -1] += outer(leaving, starts)
    return grad_x, adjoint.transpose(0, 1).clone(memory_format=torch.contiguous_format), grad_blocks


def tail_backward(
    grad_y: Tensor, adjoint: Tensor, x: Tensor, state: Tensor, blocks: Blocks, grad_x: Tensor, grad_blocks: Blocks
) -> Tensor:
    """Backward of the last, short block: returns the adjoint (F, B, N) of ``state`` (F, B, N), the state it began with.

    ``adjoint`` belongs to the final state. ``grad_x`` is written and ``grad_blocks`` added to, unless they are empty.
    """
    length = x.shape[-1]
    rest = _shortened(blocks, length)
    grad, signal = blocked(grad_y, length), blocked(x, length)
    if grad_x.numel():
        _write_signal_gradient(grad, adjoint[:, :, None], toeplitz(rest.impulse), rest.input, grad_x)
    if grad_blocks.impulse.numel():
        add_block_gradients(_shortened(grad_blocks, length), grad, adjoint[:, :, None], signal, state[:, :, None])
    adjoint = add_power_gradients(grad_blocks.transitions, length, state, adjoint, blocks.transitions)
    return adjoint + _pulled_back(grad, rest)[:, :, 0]


def _shortened(blocks: Blocks, length: int) -> Blocks:
    """Matrices of a block of ``length < BLOCK`` samples, with only those powers of ``A`` whose product is needed."""
    return Blocks(
        blocks.impulse[:, :length],
        blocks.output[:, :length],
        blocks.input[:, :, BLOCK - length :],
        blocks.transitions[:, powers_in(length)],
    )


def advance(state: Tensor, transitions: Tensor) -> list[Tensor]:
    """``state`` (F, B, N), then what is left of it after each of ``transitions`` (F, I, N, N) in turn."""
    states = [state]
    for transition in transitions.unbind(1):
        states.append(states[-1] @ transition.mT)
    return states


def toeplitz(impulse: Tensor) -> Tensor:
    """``[f, i, j] = impulse[f, j - i]`` for ``j >= i``, else 0: a row of inputs times this is a row of outputs."""
    length = impulse.shape[-1]
    return pad(impulse, (length - 1, 0)).unfold(-1, length, 1).flip(1)


def _block_ends(signal: Tensor, blocks: Blocks) -> Tensor:
    """What each block adds to the state at its end: (F, B, K, N)."""
    if signal.shape[1] == 1:
        ends = signal[:, 0] @ blocks.input.flatten(0, 1).t()
        return ends.unflatten(-1, blocks.input.shape[:2]).permute(2, 0, 1, 3)
    return _row_by_row(signal, blocks.input.mT)


def _scan(
    ends: Tensor, state: Tensor, levels: Levels, of: slice = slice(None), depth: int = 0
) -> tuple[Tensor, Tensor]:
    """``s_{k+1} = A s_k + e_k`` from ``s_0 = state`` (F, B, N): all states ``s_k`` (F, B, K, N), and the last one.

    ``of`` are the channels that the first dimension stands for.
    """
    channels, batch, count, size = ends.shape
    if ends.numel() == 0:
        return ends, state
    if ends.dtype != levels.transition.dtype:
        states, last = _scan(ends.to(levels.transition.dtype), state.to(levels.transition.dtype), levels, of)
        return states.to(ends.dtype), last.to(ends.dtype)
    if count <= STEPS:
        return _scan_stepwise(ends, state, levels.transition_at(depth)[of])
    level = levels.at(depth, count).of(of)
    groups = -(-count // level.group)
    if groups == 1:
        inside = torch.bmm(ends.reshape(channels, batch, -1), level.band[:, : count * size, : count * size])
        states = torch.baddbmm(inside, state, level.carry[..., : count * size])
    else:
        width = level.group * size
        padded = pad(ends, (0, 0, 0, groups * level.group - count)).reshape(channels, batch * groups, width)
        inside = torch.bmm(padded, level.band)
        first, _ = _scan(inside[..., width:].unflatten(1, (batch, groups)), state, levels, of, depth + 1)
        states = torch.baddbmm(inside[..., :width], first.reshape(channels, batch * groups, size), level.carry)
    states = states.reshape(channels, batch, -1, size)[:, :, :count]
    return states, torch.baddbmm(ends[:, :, -1], states[:, :, -1], level.step)


def _scan_stepwise(ends: Tensor, state: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`_scan`, one step after the other."""
    step, visited = transition.mT, [state]
    for end in ends.unbind(2):
        visited.append(torch.baddbmm(end, visited[-1], step))
    return torch.stack(visited[:-1], 2), visited[-1]


def _scan_backward(grad_states: Tensor, grad_last: Tensor, levels: Levels, depth: int = 0) -> tuple[Tensor, Tensor]:
    """Adjoint of :func:`_scan`, step by step from its end: gradients of ``ends`` (F, B, K, N) and of ``state``.

    The gradient of what a block adds to the state at its end is that of this state itself.
    """
    channels, batch, count, size = grad_states.shape
    if grad_states.numel() == 0:
        return grad_states, grad_last
    if grad_states.dtype != levels.transition.dtype:
        wide_states, wide_last = (grad.to(levels.transition.dtype) for grad in (grad_states, grad_last))
        ends, state = _scan_backward(wide_states, wide_last, levels)
        return ends.to(grad_states.dtype), state.to(grad_last.dtype)
    if count <= STEPS:
        transition, adjoints = levels.transition_at(depth), [grad_last]
        for grad in reversed(grad_states.unbind(2)):
            adjoints.append(torch.baddbmm(grad, adjoints[-1], transition))
        return torch.stack(adjoints[-2::-1], 2), adjoints[-1]
    level = levels.at(depth, count)
    groups = -(-count // level.group)
    grad_states = grad_states.clone(memory_format=torch.contiguous_format)
    grad_states[:, :, -1] += grad_last @ level.step.mT
    if groups == 1:
        flat = grad_states.reshape(channels, batch, -1)
        grad_ends = torch.bmm(flat, level.band[:, : count * size, : count * size].mT)
        grad_state = torch.bmm(flat, level.carry[..., : count * size].mT)
    else:
        width = level.group * size
        padded = pad(grad_states, (0, 0, 0, groups * level.group - count)).reshape(channels, batch * groups, width)
        first = torch.bmm(padded, level.carry.mT).unflatten(1, (batch, groups))
        group_ends, grad_state = _scan_backward(first, torch.zeros_like(grad_last), levels, depth + 1)
        whole = torch.cat((padded, group_ends.reshape(channels, batch * groups, size)), 2)
        grad_ends = torch.bmm(whole, level.band.mT)
    grad_ends = grad_ends.reshape(channels, batch, -1, size)[:, :, :count]
    grad_ends[:, :, -1] += grad_last
    return grad_ends, grad_state


def _outputs(signal: Tensor, starts: Tensor, blocks: Blocks) -> Tensor:
    """(B, F, K L): Toeplitz product of each block plus the response to the state at its start."""
    own = torch.einsum("bfki,fij->bfkj", signal.expand(-1, starts.shape[0], -1, -1), toeplitz(blocks.impulse))
    return (own + torch.einsum("fbkn,fjn->bfkj", starts, blocks.output)).flatten(2)


def _pulled_back(grad: Tensor, blocks: Blocks) -> Tensor:
    """``C^T grad_y`` of each block: (F, B, K, N)."""
    return _row_by_row(grad, blocks.output)


def _row_by_row(signal: Tensor, matrices: Tensor) -> Tensor:
    """Blocks (B, F, K, L) times matrices (F, L, N): (F, B, K, N), without copies of either per batch row."""
    products = [row @ matrices for row in signal]
    return (
        torch.stack(products, 1) if products else signal.new_zeros(len(matrices), 0, signal.shape[2], matrices.shape[2])
    )


def _write_signal_gradient(grad: Tensor, leaving: Tensor, own: Tensor, ends: Tensor, out: Tensor) -> None:
    """``out`` (B, T) or (B, F, T): adjoint of :func:`_block_ends` and :func:`_outputs` in the signal."""
    own = own.mT
    if out.dim() == 2:  # shared by the channels: the sum over channels is part of the product
        own, ends = own.flatten(0, 1), ends.flatten(0, 1)
        for b in range(out.shape[0]):
            row = grad[b].transpose(0, 1).flatten(1) @ own
            row.addmm_(leaving[:, b].transpose(0, 1).flatten(1), ends)
            out[b] = row.flatten()
    else:
        for b in range(out.shape[0]):
            out[b] = torch.baddbmm(grad[b] @ own, leaving[:, b], ends).flatten(1)
