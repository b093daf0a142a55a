r"""What a linear system does over a block of samples, a power of two of at least 2, by doubling.

For ``step`` (F, N, N), which is :math:`A - I`, ``b`` (F, N) and ``c`` (F, N): the columns :math:`A^k b` (F, N, L) and
rows :math:`c A^k` (F, L, N) for :math:`k < L`, and the powers :math:`A^1, A^2, A^4 \ldots A^L` (F, 1 + log2 L, N, N).

An operator, so that torch.compile sees one step where there are a hundred small ones: the chains of three filters and
their gradients take it minutes. It is plain torch on every device (:mod:`tamt.reference.doubling`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tamt.ops._register import Backward, backward_of, register
from tamt.reference import doubling as reference


def _shapes(step: Tensor, b: Tensor, c: Tensor, samples: int) -> list[tuple[int, ...]]:
    channels, states = b.shape
    return [
        (channels, states, samples),
        (channels, samples, states),
        (channels, samples.bit_length(), states, states),
    ]


def _backward(*operands: Any) -> tuple[Tensor, ...]:
    grads, results = operands[:3], operands[6:9]
    return tuple(grad.contiguous() for grad in reference.doubled_backward(*grads, *results))


doubled = register(
    "doubled",
    "(Tensor step, Tensor b, Tensor c, int samples) -> (Tensor columns, Tensor rows, Tensor powers)",
    definition=reference.doubled,
    forward=reference.doubled,
    shapes=_shapes,
    backward=Backward(_backward, of="step b c", keeps="columns rows powers"),
    rows="step b c",
)
doubled_backward = backward_of(doubled)
