"""Gradients of the block matrices of IIR filters (:class:`tamt.shared.iir.Blocks`), in plain torch on any device.

Over a block of ``L`` samples that begins with the state s, ``y = H x + C s`` and ``s_end = E x + A^L s``. With the
gradients of y and of s_end, those of the matrices are sums of outer products over blocks and batch rows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from tamt.shared.iir import BLOCK, Blocks, powers_in


def blocked(x: Tensor, length: int = BLOCK) -> Tensor:
    """(B, S, T) as blocks (B, S, K, L)."""
    return x.unflatten(-1, (x.shape[-1] // length, length))


def fanned(x: Tensor, filters: int) -> Tensor:
    """``x`` (S, ...) as (F, ...), S signals for as many filters each; a view where that is possible."""
    return x[:, None].expand(-1, filters // max(1, x.shape[0]), *x.shape[1:]).flatten(0, 1)


def diagonal_sums(matrix: Tensor) -> Tensor:
    """Of (F, L, L), along the diagonals ``j - i = 0 .. L-1``: the adjoint of making a Toeplitz matrix."""
    length = matrix.shape[-1]
    skewed = pad(matrix.flip(1), (0, length)).flatten(1)[:, : length * (2 * length - 1)]
    return skewed.unflatten(1, (length, 2 * length - 1)).sum(1)[:, length - 1 :]


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Sum of outer products over batch rows and blocks: (F, B, K, N) each, to (F, N, N)."""
    return left.flatten(1, 2).mT @ right.flatten(1, 2)


def add_block_gradients(total: Blocks, grad: Tensor, leaving: Tensor, signal: Tensor, starts: Tensor) -> None:
    """Gradients of all block matrices but the transitions, added to ``total``.

    ``grad`` (B, F, K, L) of the output and ``signal`` (B, S, K, L), ``leaving`` (F, B, K, N) of the states at the
    blocks' ends and ``starts`` (F, B, K, N), the states at their starts.
    """
    channels, length = grad.shape[1], grad.shape[-1]
    correlation = grad.new_zeros(channels, length, length)
    for b in range(grad.shape[0]):
        source = fanned(signal[b], channels)
        correlation.baddbmm_(source.mT, grad[b])
        total.output.add_((starts[:, b].mT @ grad[b]).mT)
        total.input.baddbmm_(leaving[:, b].mT, source)
    total.impulse.add_(diagonal_sums(correlation))


def add_power_gradients(total: Tensor, length: int, state: Tensor, leaving: Tensor, transitions: Tensor) -> Tensor:
    """Gradients of the powers of ``A`` of which a short block's ``A^length`` is made, added to ``total``.

    ``transitions`` (F, 7, N, N) are ``A^1, A^2, A^4 ... A^64`` and ``total`` has their shape, or no elements where no
    gradient is needed; ``state`` (F, B, N) is that at the block's start. Returns what ``leaving`` (F, B, N), the
    gradient of the state at its end, gives to that of ``state`` by this way: ``(A^length)^T leaving``.
    """
    powers = powers_in(length)
    visited = [state]
    for i in powers[:-1]:
        visited.append(visited[-1] @ transitions[:, i].mT)
    for i, before in zip(reversed(powers), reversed(visited), strict=True):
        if total.numel():
            total[:, i] += leaving.mT @ before
        leaving = leaving @ transitions[:, i]
    return leaving


def add_product_gradients(total: Tensor, length: int, grad: Tensor, transitions: Tensor) -> None:
    """Gradients of the powers of ``A`` from that of ``A^length`` (F, N, N), added to ``total``; shapes as above."""
    powers = powers_in(length)
    for i in powers:
        own = grad
        for j in powers:  # factors on the left of this one, and on its right
            if j < i:
                own = transitions[:, j].mT @ own
            elif j > i:
                own = own @ transitions[:, j].mT
        total[:, i] += own
