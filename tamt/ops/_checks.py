"""Checks that the public functions of the operators share."""

from __future__ import annotations

from torch import Tensor


def check_same_kind(tensors: dict[str, Tensor], like: Tensor, owner: str) -> None:
    """A TypeError for the first of the named tensors that has not the type and device of ``like``, ``owner``'s own."""
    for name, tensor in tensors.items():
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise TypeError(
                f"{name} must have {owner} type and device, {like.dtype} on {like.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )
