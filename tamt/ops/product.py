"""Matrix products that keep the precision of their operands.

``torch.set_float32_matmul_precision`` and autocast let others be made in TF32 or bfloat16, also in compiled graphs:
levels tens of dB below the largest would drown. cuBLAS and oneMKL do the work; there is nothing for a kernel to win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import register


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in float32 or float64, whatever the global switches say.

    Parameters
    ----------
    a : Tensor (..., K) or, with three dimensions of ``b``, (B, M, K)
        float32 or float64.
    b : Tensor (K, N) or (B, K, N)
        Of ``a``'s type.

    Returns
    -------
    Tensor (..., N) or (B, M, N)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        ``a`` that is neither float32 nor float64, ``b`` of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.product import product
    >>> product(torch.ones(3, 7, 4), torch.ones(4, 2)).shape
    torch.Size([3, 7, 2])
    """
    if a.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"a must be float32 or float64, got {a.dtype}")
    check_same_kind({"b": b}, a, "a's")
    fits = a.dim() >= 1 and a.shape[-1] == b.shape[-2] if b.dim() == 2 else b.dim() == 3 == a.dim()
    if not fits:
        raise ValueError(
            f"a and b must have the shapes (..., K) and (K, N), or (B, M, K) and (B, K, N), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    if b.dim() == 3:
        return _products(a, b)
    (found,) = with_lead(a.shape[:-1], [_product(as_rows(a), b)])
    return found


def _check(a: Tensor, b: Tensor) -> None:
    check_value(
        a.dim() == b.dim() and a.dim() in (2, 3) and a.shape[-1] == b.shape[-2] and a.shape[:-2] == b.shape[:-2],
        lambda: f"a and b must have the shapes (B, M, K) and (B, K, N), got {tuple(a.shape)} and {tuple(b.shape)}",
    )


def _backward(operator: Callable[..., Tensor], ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    need_a, need_b = ctx.needs_input_grad
    return operator(grad, b.mT) if need_a else None, operator(a.mT, grad) if need_b else None


def _registered(name: str, rows: str) -> Callable[..., Tensor]:
    operator: Callable[..., Tensor] = register(
        name,
        "(Tensor a, Tensor b) -> Tensor",
        definition=torch.matmul,
        forward=lambda a, b: torch.matmul(a, b).contiguous(),
        backward=lambda *args: _backward(operator, *args),
        check=_check,
        shapes=lambda a, b: (*a.shape[:-1], b.shape[-1]),
        rows=rows,
    )
    return operator


_product = _registered("product", "a")
_products = _registered("products", "a b")
