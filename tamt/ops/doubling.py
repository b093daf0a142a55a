r"""What a linear system does over a block of samples, a power of two of at least 2, by doubling.

For ``step`` (F, N, N), which is :math:`A - I`, ``b`` (F, N) and ``c`` (F, N): the columns :math:`A^k b` (F, N, L) and
rows :math:`c A^k` (F, L, N) for :math:`k < L`, and the powers :math:`A^1, A^2, A^4 \ldots A^L` (F, 1 + log2 L, N, N).

An operator, so that torch.compile sees one step where there are a hundred small ones: the chains of three filters and
their gradients take it minutes. It is plain torch on every device (:mod:`tamt.reference.doubling`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tamt.ops._register import register
from tamt.reference import doubling as reference


def _fake(step: Tensor, b: Tensor, c: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    channels, states = b.shape
    return (
        step.new_empty(channels, states, samples),
        step.new_empty(channels, samples, states),
        step.new_empty(channels, samples.bit_length(), states, states),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *doubled_backward(*grads, *ctx.saved_tensors), None


def _reference_backward(*operands: Tensor) -> tuple[Tensor, ...]:
    return tuple(grad.contiguous() for grad in reference.doubled_backward(*operands))


def _fake_backward(
    of_columns: Tensor, of_rows: Tensor, of_powers: Tensor, columns: Tensor, rows: Tensor, powers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    channels, states = columns.shape[:2]
    of_b, of_c = columns.new_empty(channels, states), columns.new_empty(channels, states)
    return columns.new_empty(channels, states, states), of_b, of_c


doubled_backward = register(
    "doubled_backward",
    "(Tensor of_columns, Tensor of_rows, Tensor of_powers, Tensor columns, Tensor rows, Tensor powers) "
    "-> (Tensor, Tensor, Tensor)",
    _reference_backward,
    None,
    _fake_backward,
    reference.doubled_backward,
    linear=("of_columns", "of_rows", "of_powers"),
    rows=("of_columns", "of_rows", "of_powers", "columns", "rows", "powers"),
)
doubled = register(
    "doubled",
    "(Tensor step, Tensor b, Tensor c, int samples) -> (Tensor, Tensor, Tensor)",
    reference.doubled,
    None,
    _fake,
    reference.doubled,
    setup_context=_setup,
    backward=_backward,
    rows=("step", "b", "c"),
)
