"""The scan of block states, and its adjoint, against the loop."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close

from tamt.reference import scan


@pytest.mark.parametrize("states", [2, 8, 80])
@pytest.mark.parametrize("count", [0, 1, 8, 9, 33, 300])
def test_the_tree_is_the_loop(states: int, count: int) -> None:
    """One step, groups, groups of groups; forward for some of the channels too."""
    transition = 0.9 * torch.linalg.qr(torch.randn(3, states, states, dtype=torch.float64))[0]
    ends = torch.randn(3, 2, count, states, dtype=torch.float64, requires_grad=True)
    state = torch.randn(3, 2, states, dtype=torch.float64, requires_grad=True)
    tree, some = scan.Tree(transition), slice(1, 3)
    wanted = scan.definition(ends, state, transition)
    for actual, expected in zip(scan.scan(ends, state, tree), wanted, strict=True):
        assert_close(actual.detach(), expected.detach(), 1e-12)
    for actual, expected in zip(scan.scan(ends[some], state[some], tree, some), wanted, strict=True):
        assert_close(actual.detach(), expected[some].detach(), 1e-12)
    weights = [torch.randn_like(result) for result in wanted]
    gradients = torch.autograd.grad(wanted, (ends, state), weights)
    for actual, expected in zip(scan.adjoint(*weights, tree), gradients, strict=True):
        assert_close(actual, expected, 1e-12)
