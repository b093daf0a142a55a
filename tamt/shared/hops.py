"""Means over hops of what a detector makes of a filterbank's output, without ever holding that output.

A hop of ``hop`` samples has the mean of what the detector gives for each: ``'power'`` the square, ``'halfwave'``
the positive half. ``'envelope'`` is half the squared magnitude of an analytic output: with its real and imaginary part
as two channels side by side, the mean of their powers.

An output is made in chunks of time, from the filters' states at their starts: forward from the first to the last;
backward from the last to the first, where every chunk is made again. So memory beyond operands and results grows with
the length only by the states at the chunks' starts.

On a GPU a chunk has to be long beside its launches. That of DRNL's backward pass has some 170 of them, 2 ms of the
host, and is expected to take an H200 40 ps a sample: 1.3 ms with 2^25 samples, 128 MiB of each signal between the
filters. Whole rows are taken together while they fit, as the states at their starts are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamt.shared.iir import analytic_rows, analytic_rows_vjp, analytic_states, analytic_states_vjp

DETECTORS = ("envelope", "power", "halfwave")
CHUNK = 1 << 21  # output samples in work together on a CPU
GPU_CHUNK = 1 << 25  # and elsewhere
GPU_PIECE = 8192  # samples of a row there: with fewer, lanes of the recursions' warps would have no superblock

States = tuple[Tensor, ...]


def detect(y: Tensor, detector: str) -> Tensor:
    """What the detector gives for each sample of an output; NaN for NaN."""
    return y.relu() if detector == "halfwave" else y.square()


def detect_(y: Tensor, detector: str) -> Tensor:
    """:func:`detect` in place."""
    return y.relu_() if detector == "halfwave" else y.square_()


def hop_means(values: Tensor, hop: int) -> Tensor:
    """Means (..., T // hop) over the whole hops of (..., T)."""
    count = values.shape[-1] // hop
    return values[..., : count * hop].unflatten(-1, (count, hop)).mean(-1)


def parts_together(means: Tensor) -> Tensor:
    """Envelopes (B, F, M) from the mean powers (B, 2 F, M) of real and imaginary parts."""
    return means.unflatten(1, (-1, 2)).mean(2)


def pull_back_parts(
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    grad_means: Tensor,
    grad_final: Tensor,
    coef: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of signal, state and coefficients for envelopes, from those for the powers of both parts.

    ``backward`` takes the gradients of means and final state, coefficients and state, and gives these three for powers;
    that of the coefficients is empty where it is not needed.
    """
    of_powers = (grad_means / 2).repeat_interleave(2, 1)
    of_both = torch.stack((grad_final, torch.zeros_like(grad_final)), 2).flatten(1, 2)
    grad_x, grad_state, grad_coef = backward(of_powers, of_both, analytic_rows(coef), analytic_states(state))
    return grad_x, analytic_states_vjp(grad_state), analytic_rows_vjp(grad_coef) if grad_coef.numel() else grad_coef


def spans(start: int, stop: int, hop: int) -> Iterator[tuple[slice, slice, int]]:
    """The samples from ``start`` to ``stop`` by the hops they belong to.

    A slice of samples, counted from ``start``, the slice of hops that have them, and how many each of these has.
    """
    at = start
    while at < stop:
        first, inside = divmod(at, hop)
        whole = 0 if inside else (stop - at) // hop
        count, length = (whole, hop) if whole else (1, min(hop - inside, stop - at))
        end = at + count * length
        yield slice(at - start, end - start), slice(first, first + count), length
        at = end


def add_to_hops(values: Tensor, start: int, hop: int, sums: Tensor) -> None:
    """Add values (..., n) of the samples from ``start`` on to the sums (..., M) of their hops."""
    for samples, hops, length in spans(start, start + values.shape[-1], hop):
        sums[..., hops] += values[..., samples].unflatten(-1, (-1, length)).sum(-1)


def pull_back_(y: Tensor, grad: Tensor, start: int, hop: int, detector: str) -> Tensor:
    """The output (..., n) from ``start`` on, which becomes its gradient, from that of the hops' means (..., M)."""
    if detector == "halfwave":
        torch.gt(y, 0, out=y)
    for samples, hops, length in spans(start, start + y.shape[-1], hop):
        y[..., samples].unflatten(-1, (-1, length)).mul_(grad[..., hops, None])
    return y.mul_((1 if detector == "halfwave" else 2) / hop)


class Sizes(NamedTuple):
    """How a walk cuts its work."""

    samples: int  # of output in work together
    unit: int = 64  # pieces of time are multiples of it, but for the last
    least: int | None = 1024  # samples of a piece: rather fewer rows at a time; None is all that the rows have


def chunk_sizes(x: Tensor) -> Sizes:
    """How to cut a walk on the device of a signal; pieces of time are those for recursive filters."""
    return Sizes(CHUNK) if x.device.type == "cpu" else Sizes(GPU_CHUNK, GPU_PIECE, None)


class Chunks:
    """A walk over outputs (B, F, T): some rows after others, and of these one piece of time after the other."""

    def __init__(self, batch: int, channels: int, length: int, sizes: Sizes) -> None:
        self.batch, self.length = batch, length
        least = length if sizes.least is None else min(length, sizes.least)
        self.together = max(1, sizes.samples // max(1, channels * least))
        width = max(1, channels * min(batch, self.together))
        self.step = max(1, sizes.samples // width // sizes.unit) * sizes.unit

    def rows(self) -> Iterator[slice]:
        """Rows in work together."""
        for first in range(0, self.batch, self.together):
            yield slice(first, min(first + self.together, self.batch))

    def times(self) -> list[slice]:
        """Their samples, chunk by chunk."""
        return [slice(t, min(t + self.step, self.length)) for t in range(0, self.length, self.step)]


def in_chunks(
    run: Callable[[Tensor, States], tuple[Tensor, States]],
    x: Tensor,
    states: States,
    channels: int,
    hop: int,
    detector: str,
    sizes: Sizes,
) -> tuple[Tensor, States]:
    """Means (B, F, T // hop) of the output that ``run`` makes of a chunk (R, n) from ``states``, and the final states.

    States are (B, ...), and ``run`` returns those after the chunk.
    """
    means = x.new_zeros(x.shape[0], channels, x.shape[1] // hop)
    finals = tuple(state.clone(memory_format=torch.contiguous_format) for state in states)
    chunks = Chunks(x.shape[0], channels, means.shape[2] * hop, sizes)
    for rows in chunks.rows():
        now = tuple(state[rows] for state in states)
        for time in chunks.times():
            y, now = run(x[rows, time], now)
            add_to_hops(detect_(y, detector), time.start, hop, means[rows])
        for final, state in zip(finals, now, strict=True):
            final[rows] = state
    return means.div_(hop), finals


def in_chunks_backward(
    advance: Callable[[Tensor, States], States],
    pull_back: Callable[[slice, slice, States, States], States],
    x: Tensor,
    states: States,
    grad_finals: States,
    chunks: Chunks,
) -> States:
    """Gradients of the first states from those of the last, chunk by chunk from the end.

    ``advance`` gives the states after a chunk (R, n) of the signal from those before it; ``pull_back`` is told rows and
    samples of a chunk, the states before it and the gradients of those after it, and gives the gradients of the former.
    """
    found = tuple(grad.clone(memory_format=torch.contiguous_format) for grad in grad_finals)
    times = chunks.times()
    for rows in chunks.rows():
        before = [tuple(state[rows] for state in states)]
        for time in times[:-1]:
            before.append(advance(x[rows, time], before[-1]))
        grads = tuple(grad[rows] for grad in grad_finals)
        for time in reversed(times):
            grads = pull_back(rows, time, before.pop(), grads)
        for whole, part in zip(found, grads, strict=True):
            whole[rows] = part
    return found
