"""What the public functions of the operators share: checks, and leading dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def check_value(holds: bool | torch.SymBool, message: Callable[..., str]) -> None:
    """A ValueError with the message, unless it ``holds``.

    As ``torch._check_value``, whose first call imports sympy: only symbolic sizes, which come with it, go there.
    """
    if isinstance(holds, torch.SymBool):
        torch._check_value(holds, message)
    elif not holds:
        raise ValueError(message())


def check_same_kind(tensors: dict[str, Tensor], like: Tensor, owner: str) -> None:
    """A TypeError for the first of the named tensors that has not the type and device of ``like``, ``owner``'s own."""
    for name, tensor in tensors.items():
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise TypeError(
                f"{name} must have {owner} type and device, {like.dtype} on {like.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def as_rows(x: Tensor, kept: int = 1) -> Tensor:
    """``x`` with its leading dimensions as one, in front of the last ``kept``."""
    lead = x.dim() - kept
    if lead == 1:
        return x
    return x.flatten(0, lead - 1) if lead else x[None]


def with_lead(lead: torch.Size, results: Iterable[Tensor]) -> Iterable[Tensor]:
    """Results of rows (B, ...) with the leading dimensions of the signal in place of B."""
    return results if len(lead) == 1 else [result.reshape(*lead, *result.shape[1:]) for result in results]
