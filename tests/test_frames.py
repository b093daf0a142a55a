"""Frames and overlap-add, means and their adjoint: definition, adjointness, gradients, operator checks, errors."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from helpers import QUICK

from tamt.ops.frames import (
    _frames,
    _group_means,
    _moved_means,
    _moving_means,
    _overlap_add,
    _spread_means,
    frames,
    group_means,
    moving_means,
)

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
    torch.library.opcheck(_frames, (x, length, hop), test_utils=QUICK)
    torch.library.opcheck(_overlap_add, (y, samples, hop), test_utils=QUICK)
    assert torch.autograd.gradcheck(lambda x: frames(x, length, hop), x)
    assert torch.autograd.gradgradcheck(lambda x: frames(x, length, hop), x)
    other = torch.randn(2, samples, dtype=torch.float64)
    product = (_overlap_add(y, samples, hop) * other).sum()
    assert product.item() == pytest.approx((y * frames(other, length, hop)).sum().item(), rel=1e-12, abs=1e-12)


MEANS = [(9, 4, 2), (11, 4, 3), (13, 4, 3), (12, 3, 4), (1, 1, 1), (1, 5, 1), (4, 5, 2), (20, 4, 2)]


@pytest.mark.parametrize(("count", "size", "groups"), MEANS)
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_means(lead: tuple[int, ...], count: int, size: int, groups: int) -> None:
    x = torch.randn(*lead, count, 3, dtype=torch.float64, requires_grad=True)
    means = group_means(x, size, groups)
    limits = [m * size - size // 2 for m in range(groups + 1)]
    pairs = itertools.pairwise(limits)
    expected = torch.stack([x[..., max(low, 0) : high, :].mean(-2) for low, high in pairs], -2)
    torch.testing.assert_close(means, expected)
    torch.library.opcheck(_group_means, (x.reshape(-1, count, 3), size, groups), test_utils=QUICK)
    again = means.detach().reshape(-1, groups, 3).requires_grad_()
    torch.library.opcheck(_spread_means, (again, count, size), test_utils=QUICK)
    assert torch.autograd.gradcheck(lambda x: group_means(x, size, groups), x)
    assert torch.autograd.gradgradcheck(lambda x: group_means(x, size, groups), x)


@pytest.mark.parametrize(("count", "size"), [(9, 2), (9, 9), (9, 10), (0, 3), (30, 11), (1, 1)])
@pytest.mark.parametrize("lead", [(3,), (2, 3), (0, 3)])
def test_moving_means(lead: tuple[int, ...], count: int, size: int) -> None:
    x = torch.randn(*lead, count, dtype=torch.float64, requires_grad=True)
    means = moving_means(x, size)
    windows = [x[..., m : m + size].mean(-1) for m in range(count - size + 1)]
    expected = torch.stack(windows, -1) if windows else x[..., :0]
    torch.testing.assert_close(means, expected)
    if size == 1 or not x.numel():
        return
    torch.library.opcheck(_moving_means, (x, size), test_utils=QUICK)
    torch.library.opcheck(_moved_means, (means.detach().requires_grad_(), count, size), test_utils=QUICK)
    assert torch.autograd.gradcheck(lambda x: moving_means(x, size), x)
    assert torch.autograd.gradgradcheck(lambda x: moving_means(x, size), x)


def test_a_moving_mean_has_nothing_of_others() -> None:
    x = torch.ones(1, 8)
    x[0, 4] = float("nan")
    assert moving_means(x, 3).isnan().flatten().tolist() == [False, False, True, True, True, False]
    assert moving_means(x.t().contiguous().t(), 3).isnan().sum() == 3


def test_a_mean_has_nothing_of_other_groups() -> None:
    x = torch.ones(12, 1)
    x[5] = float("nan")
    assert group_means(x, 4, 3).isnan().flatten().tolist() == [False, True, False]


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=re.escape("x must have shape (..., M) and size be at least 1, got (9,) and 0")
    ):
        moving_means(torch.zeros(9), 0)
    with pytest.raises(ValueError, match=re.escape("must have shape (B, T) with T of at least length = 8, got (2, 7)")):
        frames(torch.zeros(2, 7), 8, 4)
    with pytest.raises(ValueError, match=re.escape("x must have shape (B, T)")):
        frames(torch.zeros(20), 8, 4)
    with pytest.raises(ValueError, match="length and hop must be at least 1, got 8 and 0"):
        frames(torch.zeros(2, 20), 8, 0)


@pytest.mark.slow  # every run traces them in modules
def test_traced_operators() -> None:
    x, rows = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 23), (2, 9, 3)))
    y, means = frames(x, 8, 2).detach().requires_grad_(), moving_means(x, 5).detach().requires_grad_()
    for operator, given in (
        (_frames, (x, 8, 2)),
        (_overlap_add, (y, 23, 2)),
        (_group_means, (rows, 4, 2)),
        (_spread_means, (group_means(rows, 4, 2).detach().requires_grad_(), 9, 4)),
        (_moving_means, (x, 5)),
        (_moved_means, (means, 23, 5)),
    ):
        torch.library.opcheck(operator, given)
