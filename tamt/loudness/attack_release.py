"""The recursion of short-term and long-term loudness."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt._learnable import Form, Learnable


class AttackRelease(Learnable):
    """A recursion with one coefficient where its input is above its last result, and another where it is not."""

    COMPUTES_IN = torch.float32

    attack: Tensor
    release: Tensor

    def __init__(
        self,
        attack: float,
        release: float,
        dim: int = -1,
        learnable: Form = False,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(learnable, device, dtype)
        self.dim = dim
        numbers = {"attack": attack, "release": release}
        self.register_state({name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()})

    def forward(self, x: Tensor) -> Tensor:
        """All of a signal, from rest."""
        return self.stream(x)[0]

    def stream(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next chunk of a signal."""
        steps = x.to(self._held_type).unbind(self.dim)
        y = x.new_zeros([n for i, n in enumerate(x.shape) if i != self.dim % x.dim()]) if state is None else state[0]
        found = []
        for step in steps:
            y = y + torch.where(step > y, self.attack, self.release) * (step - y)
            found.append(y)
        return torch.stack(found, self.dim) if found else x, (y,)
