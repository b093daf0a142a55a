"""What modules without a ``dtype`` argument share: they compute in the type of their input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tamt.coefficients import split_sum

Self = TypeVar("Self", bound="ExactBuffers")


def computing_type(x: Any) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if getattr(x, "dtype", None) == torch.float64 else torch.float32


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products inside keep the type of their operands."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class ExactBuffers(nn.Module):
    """A module with constants that serve float32 and float64 alike.

    A constant is held as the sum of two float32 buffers: its upper half is the constant in float32, so that neither a
    device without float64 nor a float32 forward pass meets a float64 tensor, and the sum has 48 bits. Conversions of
    the module to another floating type pass the constants by.
    """

    def __init__(self) -> None:
        super().__init__()
        self._constants: list[str] = []

    def register_exact(self, name: str, value: Tensor, device: torch.device) -> None:
        """Keep ``value`` (float64)."""
        for half, tensor in zip(("high", "low"), split_sum(value, torch.float32), strict=True):
            self.register_buffer(f"_{name}_{half}", tensor.to(torch.float32).to(device), persistent=False)
            self._constants.append(f"_{name}_{half}")

    def exact(self, name: str, dtype: torch.dtype) -> Tensor:
        """The constant in a computing type."""
        high: Tensor = getattr(self, f"_{name}_high")
        return high if dtype == torch.float32 else high.to(dtype) + getattr(self, f"_{name}_low").to(dtype)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: self._buffers[name] for name in self._constants}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            after = self._buffers[name]
            assert tensor is not None
            assert after is not None
            if after.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(after.device)
        return self
