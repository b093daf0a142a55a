"""Block matrices of the IIR engine's filters, their operator, and the zeros for what has decayed."""

from __future__ import annotations

import pytest
import torch
from helpers import QUICK, assert_close, example_coef, naive_iir

from tamt._arithmetic import flush
from tamt.ops.blocks import iir_blocks, iir_blocks_backward
from tamt.ops.iir import iir
from tamt.reference import blocks as reference
from tamt.shared.iir import BLOCK, KINDS

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_definition(kind: str) -> None:
    """Impulse response, free response and state transition, each against the recursion."""
    order, channels = 3, 2
    coef = example_coef(kind, order, channels)
    blocks = reference.definition(coef, kind, order)
    impulse = torch.zeros(1, 1, BLOCK, dtype=torch.float64)
    impulse[..., 0] = 1
    rest = torch.zeros(1, channels, 2 * order, dtype=torch.float64)
    y, final = naive_iir(impulse, coef, rest, kind, order)
    assert_close(blocks.impulse, y[0], 1e-9)
    assert_close(blocks.input[:, :, 0], final[0], 1e-9)
    for n in range(2 * order):
        unit = torch.zeros_like(rest)
        unit[..., n] = 1
        for i in range(BLOCK.bit_length()):
            _, final = naive_iir(torch.zeros(1, 1, 2**i, dtype=torch.float64), coef, unit, kind, order)
            assert_close(blocks.transitions[:, i, :, n], final[0], 1e-8)
        y, _ = naive_iir(torch.zeros(1, 1, BLOCK, dtype=torch.float64), coef, unit, kind, order)
        assert_close(blocks.output[:, :, n], y[0], 1e-8)


@kinds
@pytest.mark.parametrize("order", [1, 3, 10])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-5), (torch.float64, 1e-12)])
def test_operator_is_the_definition(kind: str, order: int, dtype: torch.dtype, tolerance: float) -> None:
    """Each channel's matrices and the gradients of its coefficients, which for one-pole cascades are a closed form."""
    coef = example_coef(kind, order, 3).to(dtype)
    given, exact = coef.clone().requires_grad_(), coef.double().requires_grad_()
    found, wanted = iir_blocks(given, kind, order), reference.definition(exact, kind, order)
    weights = [torch.randn_like(matrix) for matrix in wanted]
    gradient = torch.autograd.grad(found, given, [w.to(dtype) for w in weights])[0]
    expected = torch.autograd.grad(wanted, exact, weights)[0]
    for actual, right in zip(found, wanted, strict=True):
        assert actual.is_contiguous()
        assert_close(actual.flatten(1), right.flatten(1), tolerance, dtype)
    assert_close(gradient, expected, 10 * tolerance, dtype)


@kinds
def test_gradcheck(kind: str) -> None:
    coef = example_coef(kind, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda coef: iir_blocks(coef, kind, 2), coef, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda coef: iir_blocks(coef, kind, 2), coef, fast_mode=True)


@kinds
def test_opcheck(kind: str) -> None:
    coef = example_coef(kind, 2, 2).requires_grad_()
    torch.library.opcheck(iir_blocks, (coef, kind, 2), test_utils=QUICK)
    grads = [torch.randn_like(matrix).requires_grad_() for matrix in iir_blocks(coef, kind, 2)]
    torch.library.opcheck(iir_blocks_backward, (*grads, coef, kind, 2), test_utils=QUICK)


def test_quiet_filters_are_flushed_less() -> None:
    """What decayed is judged by the channel's largest entry, so that a filter of little gain is not silence."""
    coef = example_coef("onepole", 4, 2).float()
    coef[1, 3:] *= 1e-29
    plain, quiet = (iir_blocks(c, "onepole", 4)[0] for c in (coef, coef.double()))
    assert_close(plain, quiet, 1e-6, torch.float32)
    x, rest = torch.zeros(1, 1, 500), torch.zeros(1, 2, 8)
    x[..., 0] = 1
    exact, _ = iir(x.double(), coef.double(), rest.double(), "onepole", 4)
    assert_close(iir(x, coef, rest, "onepole", 4)[0], exact, 1e-6, torch.float32)


def test_flush_leaves_what_matters() -> None:
    values = torch.tensor([1.0, -1e-20, 1e-37, -3e-40, 0.0])
    assert flush(values).tolist() == [*values[:2].tolist(), 0, 0, 0]
