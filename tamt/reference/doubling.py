"""Responses of a linear system over a block, by doubling, and their adjoint. Shapes: :mod:`tamt.ops.doubling`."""

from __future__ import annotations

import torch
from torch import Tensor


def doubled(step: Tensor, b: Tensor, c: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """``A^k b``, ``c A^k`` and ``A^1, A^2, A^4 ..``: the first squares are taken of ``A - I``.

    Rounding ``A`` itself takes digits of slow poles.
    """
    columns, rows = b[:, :, None], c[:, None, :]
    identity = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    powers = [step + identity]
    while columns.shape[2] < samples:
        columns = torch.cat((columns, powers[-1] @ columns), 2)
        rows = torch.cat((rows, rows @ powers[-1]), 1)
        if columns.shape[2] <= 8:
            step = torch.baddbmm(step, step, step, beta=2)
            powers.append(step + identity)
        else:
            powers.append(powers[-1] @ powers[-1])
    return columns, rows, torch.stack(powers, 1)


def doubled_backward(
    of_columns: Tensor, of_rows: Tensor, of_powers: Tensor, columns: Tensor, rows: Tensor, powers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``step``, ``b`` and ``c`` from those of the results, and the results; the doublings in reverse."""
    of_power = of_powers[:, -1]
    for i in reversed(range(powers.shape[1] - 1)):
        half, power = 2**i, powers[:, i]
        added, transposed = of_columns[:, :, half:], power.mT
        of_power = torch.baddbmm(of_powers[:, i] + of_power @ transposed, transposed, of_power)
        of_power = torch.baddbmm(of_power, added, columns[:, :, :half].mT)
        of_columns = torch.baddbmm(of_columns[:, :, :half], transposed, added)
        added = of_rows[:, half:]
        of_power = torch.baddbmm(of_power, rows[:, :half].mT, added)
        of_rows = torch.baddbmm(of_rows[:, :half], added, transposed)
    return of_power, of_columns[:, :, 0], of_rows[:, 0]
