"""Blocks of the IIR engine: what a filter does over so many samples, as matrices."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

BLOCK = 64  # samples per block, a power of two


class Blocks(NamedTuple):
    """A linear system with ``N`` states, seen over a block of ``L = BLOCK`` samples.

    ``y[t] = sum_{i<=t} impulse[t-i] x[i] + output[t] . s`` and ``s_end = A^L s + sum_k input[:, k] x[k]``. A block of
    ``r < L`` samples has the first ``r`` entries of ``impulse`` and ``output``, the last ``r`` columns of ``input``,
    and ``A^r``, a product of powers of two.
    """

    impulse: Tensor  # (F, L)
    output: Tensor  # (F, L, N)
    input: Tensor  # (F, N, L)
    transitions: Tensor  # (F, 1 + log2 L, N, N): A^1, A^2, A^4 ... A^L


def block_shapes(channels: int, states: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the four matrices of :class:`Blocks`."""
    return (
        (channels, BLOCK),
        (channels, BLOCK, states),
        (channels, states, BLOCK),
        (channels, BLOCK.bit_length(), states, states),
    )
