r"""What a linear system does over a block of samples, a power of two of at least 2, by doubling.

For ``step`` (F, N, N), which is :math:`A - I`, ``b`` (F, N) and ``c`` (F, N): the columns :math:`A^k b` (F, N, L) and
rows :math:`c A^k` (F, L, N) for :math:`k < L`, and the powers :math:`A^1, A^2, A^4 \ldots A^L` (F, 1 + log2 L, N, N).

An operator, so that torch.compile sees one step where there are a hundred small ones: the chains of three filters and
their gradients take it minutes. It is plain torch on every device (:mod:`tamt.reference.doubling`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt.ops._register import aliases, register
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


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _double_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        operands = aliases(ctx.saved_tensors)
        outputs = reference.doubled_backward(*operands)
        return torch.autograd.grad(
            outputs, operands, grads, create_graph=again, allow_unused=True, materialize_grads=True
        )


doubled_backward = register(
    "doubled_backward",
    "(Tensor of_columns, Tensor of_rows, Tensor of_powers, Tensor columns, Tensor rows, Tensor powers) "
    "-> (Tensor, Tensor, Tensor)",
    _reference_backward,
    None,
    _fake_backward,
    _setup_backward,
    _double_backward,
)
doubled = register(
    "doubled",
    "(Tensor step, Tensor b, Tensor c, int samples) -> (Tensor, Tensor, Tensor)",
    reference.doubled,
    None,
    _fake,
    _setup,
    _backward,
)
