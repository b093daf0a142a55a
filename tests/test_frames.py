"""Frames and overlap-add: definition, adjointness, gradients, operator checks, errors."""

from __future__ import annotations

import re

import pytest
import torch

from tamt.ops.frames import _frames, _overlap_add, frames

CASES = [(20, 8, 4), (23, 8, 4), (23, 8, 2), (23, 8, 8), (23, 8, 3), (23, 8, 11), (8, 8, 4), (9, 1, 1)]
cases = pytest.mark.parametrize(("samples", "length", "hop"), CASES)


@cases
def test_definition(samples: int, length: int, hop: int) -> None:
    x = torch.randn(2, samples)
    y = frames(x, length, hop)
    expected = torch.stack([x[:, start : start + length] for start in range(0, samples - length + 1, hop)], 1)
    assert torch.equal(y, expected)
    assert y.is_contiguous()
    columns = torch.stack((x, x)).mT.contiguous().mT[1]
    assert torch.equal(frames(columns, length, hop), expected)


@cases
def test_operators(samples: int, length: int, hop: int) -> None:
    x = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    y = frames(x, length, hop).detach().requires_grad_()
    torch.library.opcheck(_frames, (x, length, hop))
    torch.library.opcheck(_overlap_add, (y, samples, hop))
    assert torch.autograd.gradcheck(lambda x: frames(x, length, hop), x)
    assert torch.autograd.gradgradcheck(lambda x: frames(x, length, hop), x)
    other = torch.randn(2, samples, dtype=torch.float64)
    product = (_overlap_add(y, samples, hop) * other).sum()
    assert product.item() == pytest.approx((y * frames(other, length, hop)).sum().item(), rel=1e-12, abs=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match=re.escape("must have shape (B, T) with T of at least length = 8, got (2, 7)")):
        frames(torch.zeros(2, 7), 8, 4)
    with pytest.raises(ValueError, match=re.escape("x must have shape (B, T)")):
        frames(torch.zeros(20), 8, 4)
    with pytest.raises(ValueError, match="length and hop must be at least 1, got 8 and 0"):
        frames(torch.zeros(2, 20), 8, 0)
