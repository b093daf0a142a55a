"""What the public functions of the operators share: checks, and leading dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def check_same_kind(tensors: dict[str, Tensor], like: Tensor, owner: str) -> None:
    """A TypeError for the first of the named tensors that has not the type and device of ``like``, ``owner``'s own."""
    for name, tensor in tensors.items():
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise TypeError(
                f"{name} must have {owner} type and device, {like.dtype} on {like.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def with_lead(lead: torch.Size, results: Iterable[Tensor]) -> Iterator[Tensor]:
    """Results of rows (B, ...) with the leading dimensions of the signal in place of B."""
    return (result.reshape(*lead, *result.shape[1:]) for result in results)
