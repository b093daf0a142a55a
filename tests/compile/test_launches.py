"""How much every operation launches, which is what a short signal, or a chunk, costs on the host."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from asv_bench.kernels.host import SMALL, calls, cost, launches, standing_in_for_cuda
from asv_bench.operations import OPERATIONS, Operation
from compile.budgets import LAUNCHES
from tamt.ops._operator import operators
from tamt.ops.iir import iir


def check(operation: Operation, rows: int, *budgets: tuple[int, int]) -> None:
    with standing_in_for_cuda():
        for (direction, call), (kernels, others) in zip(calls(operation, rows), budgets, strict=True):
            found = launches(call)
            assert found.kernels.total() == kernels, (direction, found)
            assert found.torch <= others, (direction, found)


def test_every_operation_has_a_budget() -> None:
    assert list(LAUNCHES) == list(OPERATIONS)


def test_small_loads() -> None:
    for name, most in LAUNCHES.items():
        check(SMALL[name], 1, most.small_forward, most.small_backward)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_reference_loads(name: str) -> None:
    check(OPERATIONS[name], OPERATIONS[name].rows, LAUNCHES[name].forward, LAUNCHES[name].backward)


def test_nothing_stands_in_afterwards() -> None:
    """An operator on ``meta`` tensors launches inside, and only there."""
    operands = SMALL["gammatone"].operands(1, "meta")
    with standing_in_for_cuda():
        assert launches(lambda: iir(*operands)).kernels == {"iir_design_kernel": 1, "iir_short_kernel": 1}
    y, _ = iir(*operands)  # would look for a driver
    assert y.shape == (1, 30, 16000)


def test_the_time_of_a_call_has_parts() -> None:
    with standing_in_for_cuda():
        (_, forward), _ = calls(SMALL["spreading"], 1)
        spent = cost(forward)
    assert spent.all > 0
    assert spent.torch > 0


def test_operands_are_checked_before_a_launch() -> None:
    x, coef, state, *kind = SMALL["gammatone"].operands(1, "meta")
    with standing_in_for_cuda(), torch.no_grad():
        for wrong in ((x, coef[:, :4], state), (x, coef, state[..., :6]), (x[:, :, :, None], coef, state)):
            with pytest.raises(ValueError, match="must have shape"):
                operators["iir"].on_cuda(*wrong, *kind)
