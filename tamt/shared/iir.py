"""What the IIR engine's filters are: kinds, and their matrices of blocks of samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tamt.design.rows import BiquadSection, Feedback, ModalSection, OnepoleRow

BLOCK = 64  # samples per block, a power of two


class Kind(NamedTuple):
    """A kind of filter: the columns of its rows of coefficients, ``common`` ones before those ``of_section``."""

    name: str
    common: tuple[str, ...]
    of_section: tuple[str, ...]
    wide: bool = False  # whether block matrices need float64

    def columns(self, order: int) -> int:
        """Length of a row of ``order`` sections."""
        return len(self.common) + order * len(self.of_section)

    def order(self, coef: Tensor) -> int:
        """Sections of rows (F, P); for kinds whose columns tell it."""
        return (coef.shape[1] - len(self.common)) // len(self.of_section)

    def states(self, order: int) -> int:
        """Numbers of state of ``order`` sections."""
        return 2 * order

    def sections(self, coef: Tensor) -> tuple[Tensor, ...]:
        """Rows (F, P) as the columns of their sections, (F, order) each."""
        return coef[:, len(self.common) :].unflatten(1, (-1, len(self.of_section))).unbind(-1)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("onepole", OnepoleRow._fields, ()),
        Kind("biquad", (), BiquadSection._fields, wide=True),
        Kind("allpole", OnepoleRow._fields, Feedback._fields),
        Kind("modal", (), ModalSection._fields),
    )
}


class Blocks(NamedTuple):
    """A linear system with ``N`` states, ``s' = A s + b x``, ``y = c s + d x``, seen over a block of ``L`` samples.

    ``y[t] = sum_{i<=t} impulse[t-i] x[i] + output[t] . s`` and ``s_end = A^L s + sum_k input[:, k] x[k]``.
    """

    impulse: Tensor  # (F, L): d, c b, c A b, ...
    output: Tensor  # (F, L, N): observability rows c, c A, c A^2, ...
    input: Tensor  # (F, N, L): Krylov vectors, that of the last sample last: ... A^2 b, A b, b
    transitions: Tensor  # (F, 1 + log2 L, N, N): A^1, A^2, A^4 ... A^L

    def over(self, length: int) -> Blocks:
        """The matrices over ``length <= L`` samples, of the transitions those whose product is ``A^length``."""
        return Blocks(
            self.impulse[:, :length],
            self.output[:, :length],
            self.input[:, :, self.input.shape[2] - length :],
            self.transitions[:, powers_in(length)],
        )

    def of(self, channels: slice) -> Blocks:
        """The matrices of some of the channels, as views."""
        return Blocks(*(matrix[channels] for matrix in self))

    def totals(self, needed: bool = True) -> Blocks:
        """Zeros to which gradients of the matrices are added; empty tensors where they are not needed."""
        return Blocks(*(m.new_zeros(m.shape) if needed else m.new_empty(0) for m in self))


def powers_in(length: int) -> list[int]:
    """Which of ``A^1, A^2, A^4 ... A^BLOCK`` have ``A^length`` for their product."""
    return [i for i in range(BLOCK.bit_length()) if length >> i & 1]


def block_shapes(channels: int, states: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the four matrices of :class:`Blocks`."""
    return (
        (channels, BLOCK),
        (channels, BLOCK, states),
        (channels, states, BLOCK),
        (channels, BLOCK.bit_length(), states, states),
    )


def analytic_rows(coef: Tensor) -> Tensor:
    """Rows (2 F, P) for real and imaginary part, one after the other, of the last state of one-pole sections (F, P).

    The imaginary part is the real part of a filter whose gain, and so every state, is turned by -90 degrees.
    """
    decay, (re, im), rest = coef[:, :3], coef[:, 3:5].unbind(1), coef[:, 5:]
    turned = torch.cat((decay, im[:, None], -re[:, None], rest), 1)
    return torch.stack((coef, turned), 1).flatten(0, 1)


def analytic_rows_vjp(grad: Tensor) -> Tensor:
    """Gradient of (F, P) from that of :func:`analytic_rows`."""
    straight, turned = grad.unflatten(0, (-1, 2)).unbind(1)
    gain = torch.stack((-turned[:, 4], turned[:, 3]), 1)
    return straight + torch.cat((turned[:, :3], gain, turned[:, 5:]), 1)


def analytic_states(state: Tensor) -> Tensor:
    """States (..., 2 F, N) of these filters from those of (..., F, N); of them, the even ones are the latter."""
    re, im = state.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((im, -re), -1).flatten(-2)
    return torch.stack((state, turned), -2).flatten(-3, -2)


def analytic_states_vjp(grad: Tensor) -> Tensor:
    """Gradient of (..., F, N) from that of :func:`analytic_states`."""
    straight, turned = grad.unflatten(-2, (-1, 2)).unbind(-2)
    re, im = turned.unflatten(-1, (-1, 2)).unbind(-1)
    return straight + torch.stack((-im, re), -1).flatten(-2)
