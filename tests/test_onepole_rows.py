"""Rows of gammatones: the poles that they stand for, their gradients of both orders, limits, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import rows_of_poles
from torch import Tensor

from tamt.design.poles import MIN_DECAY
from tamt.ops.onepole_rows import onepole_rows


def poles_of(rows: Tensor) -> Tensor:
    return torch.polar(torch.exp(-rows[:, 0]), 2 * math.pi * (rows[:, 1] + rows[:, 2]))


def test_rows_stand_for_the_poles() -> None:
    poles, gains, design = rows_of_poles(torch.float64)
    given = torch.view_as_complex(poles)
    rows = onepole_rows(poles, gains, design)
    inside = given.abs() < 1
    assert (inside.sum(), (~inside).sum()) == (22, 3)
    assert (poles_of(rows) - given)[inside].abs().max() < 1e-15
    outside = poles_of(rows)[~inside]
    assert (outside / given[~inside]).angle().abs().max() < 1e-14
    assert torch.allclose(-outside.abs().log(), torch.tensor(MIN_DECAY, dtype=torch.float64), rtol=1e-9)
    assert torch.equal(rows[:, 3:], 2 * gains)


def test_gradients() -> None:
    poles, gains, design = rows_of_poles(torch.float64)
    size = poles.square().sum(1)
    free = (size > 0) & (size < 0.99)  # elsewhere differences of outputs are none of gradients
    given = poles[free].requires_grad_(), gains[free].requires_grad_()
    assert torch.autograd.gradcheck(lambda *p: onepole_rows(*p, design[free]), given)
    assert torch.autograd.gradgradcheck(lambda *p: onepole_rows(*p, design[free]), given)


def test_a_pole_outside_learns_its_angle_alone() -> None:
    poles, gains, design = rows_of_poles(torch.float64)
    outside = poles.square().sum(1) > 1
    leaf = poles[outside].clone().requires_grad_()
    rows = onepole_rows(leaf, gains[outside], design[outside])
    (of_decay,) = torch.autograd.grad(rows[:, 0].sum(), leaf, retain_graph=True)
    (of_angle,) = torch.autograd.grad(rows[:, 2].sum(), leaf)
    assert not of_decay.any()
    assert of_angle.any(1).all()


def test_errors() -> None:
    poles, gains, design = rows_of_poles(torch.float32)
    with pytest.raises(ValueError, match=re.escape("must have the shapes (F, 2), (F, 2) and (F, 5), got (24, 2)")):
        onepole_rows(poles[1:], gains, design)
