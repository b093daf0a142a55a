"""The operator that makes block matrices by doubling: definition, gradients, torch's own checks."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from torch import Tensor

from tamt.ops import doubling as ops


def example(channels: int = 2, states: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """``A - I``, ``b`` and ``c`` of systems that decay slowly."""
    a = 0.9 * torch.linalg.qr(torch.randn(channels, states, states, dtype=torch.float64))[0]
    b, c = torch.randn(2, channels, states, dtype=torch.float64)
    return a - torch.eye(states, dtype=torch.float64), b, c


@pytest.mark.parametrize("samples", [2, 16, 64])
def test_definition(samples: int) -> None:
    step, b, c = example()
    columns, rows, powers = ops.doubled(step, b, c, samples)
    a = step + torch.eye(3, dtype=torch.float64)
    every = torch.stack([torch.linalg.matrix_power(a, k) for k in range(samples + 1)])
    assert_close(columns, torch.einsum("kfij,fj->fik", every[:-1], b), 1e-13)
    assert_close(rows, torch.einsum("fi,kfij->fkj", c, every[:-1]), 1e-13)
    exponents = [2**i for i in range(samples.bit_length())]
    assert_close(powers, every[exponents].transpose(0, 1), 1e-13)


@pytest.mark.parametrize("samples", [2, 16])
def test_gradcheck(samples: int) -> None:
    operands = [t.requires_grad_() for t in example()]
    assert torch.autograd.gradcheck(lambda *t: ops.doubled(*t, samples), operands)
    assert torch.autograd.gradgradcheck(lambda *t: ops.doubled(*t, samples), operands)


def test_opcheck() -> None:
    operands = [t.requires_grad_() for t in example()]
    torch.library.opcheck(ops.doubled, (*operands, 16))
    results = [t.detach().requires_grad_() for t in ops.doubled(*operands, 16)]
    torch.library.opcheck(ops.doubled_backward, (*(torch.randn_like(t) for t in results), *operands, *results, 16))
