"""Gradients of a function from those of its results, by autograd, without what ``torch.autograd.grad`` imports.

That imports sympy, half a second, to compare the shapes of gradients that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Loss(torch.autograd.Function):
    """A zero whose gradients to ``results`` are ``grads``."""

    @staticmethod
    def forward(ctx: Any, count: int, *results_and_grads: Tensor) -> Tensor:
        ctx.grads = results_and_grads[count:]
        return results_and_grads[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.grads, *[None] * len(ctx.grads))


def gradients(results: Sequence[Tensor], leaves: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of real ``leaves``, from ``grads`` of the ``results`` that were computed from them; zeros for others.

    Within ``torch.enable_grad``; they cannot be differentiated again.
    """
    loss = _Loss.apply(len(results), *results, *grads)
    return torch.autograd.grad(loss, leaves, materialize_grads=True)
