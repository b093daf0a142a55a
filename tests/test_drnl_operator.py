"""The operator behind DRNLFilterbank: definition, gradients, chunks, layouts, errors."""

from __future__ import annotations

import re

import pytest
import torch
from helpers import Held, assert_close, checked, example_coef, naive_iir, saved_by_autograd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tamt.ops import drnl as ops
from tamt.reference import drnl as own_reference
from tamt.reference import iir as reference

ORDERS = (3, 2, 4)


def example(
    length: int,
    batch: int = 2,
    channels: int = 3,
    dtype: torch.dtype = torch.float64,
    orders: tuple[int, ...] = ORDERS,
) -> list[Tensor]:
    """Operands with states other than rest, and sticks whose knee lies inside the signal's range."""
    x = torch.randn(batch, length, dtype=torch.float64)
    filters = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    spread = torch.rand(3, channels, dtype=torch.float64)
    stick = torch.stack((1 + spread[0], 0.2 + 0.1 * spread[1], 0.2 + 0.3 * spread[2]), 1)
    states = [0.1 * torch.randn(batch, channels, 2 * order, dtype=torch.float64) for order in orders]
    return [t.to(dtype) for t in (x, *filters, stick, *states)]


def naive(x: Tensor, linear: Tensor, front: Tensor, back: Tensor, stick: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """One filter after the other, sample by sample."""
    straight, first = naive_iir(x[:, None], linear, states[0], "modal", ORDERS[0])
    v, second = naive_iir(x[:, None], front, states[1], "modal", ORDERS[1])
    a, b, c = stick[..., None].unbind(1)
    w = v.sign() * torch.minimum(a * v.abs(), b * v.abs() ** c)
    bent, third = naive_iir(w, back, states[2], "modal", ORDERS[2])
    return straight + bent, first, second, third


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 500])
def test_definition(length: int) -> None:
    operands = example(length)
    results = ops.drnl_rows(*operands)
    expected = naive(*operands) if length else (results[0], *operands[5:])
    assert results[0].shape == (2, 3, length)
    for actual, wanted in zip(results, expected, strict=True):
        assert_close(actual, wanted, 1e-12)
        assert actual.is_contiguous()


def test_slices_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = example(300)
    expected = ops.drnl_rows(*operands)[0]
    monkeypatch.setattr(reference, "SLICE", 700)
    assert_close(ops.drnl_rows(*operands)[0], expected, 1e-14)


@pytest.mark.parametrize("samples", [1, 700, 1000])
def test_parts_are_one(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One channel of one row, two channels, and all channels of a row at a time."""
    operands = example(300)
    expected = ops.drnl_rows(*operands)
    monkeypatch.setattr(reference, "PART", samples)
    for actual, wanted in zip(ops.drnl_rows(*operands), expected, strict=True):
        assert_close(actual, wanted, 1e-13)


@pytest.mark.parametrize("samples", [1, 700, 1000])
def test_parts_of_gradients_are_one(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    operands = [t.requires_grad_() for t in example(300)]
    results = ops.drnl_rows(*operands)
    weights = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(results, operands, weights, retain_graph=True)
    monkeypatch.setattr(own_reference, "PART_BACKWARD", 8 * samples)
    for actual, wanted in zip(torch.autograd.grad(results, operands, weights), expected, strict=True):
        assert_close(actual, wanted, 1e-11)


def test_training_holds_no_more_than_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd keeps the operands, and what the backward pass holds beyond its results does not grow with the batch."""
    monkeypatch.setattr(own_reference, "PART_BACKWARD", 8 * 3 * 1000)  # a row
    beyond = []
    for batch in (2, 2, 12):  # the first makes what is kept for the same coefficients
        operands = example(1000, batch)
        weights = [torch.randn_like(r) for r in ops.drnl_rows(*operands)]
        with Held(*weights, *operands) as held:
            gradients = own_reference.drnl_backward(*weights, *operands, *[True] * 8)
        beyond.append(held.most - sum(g.nbytes for g in gradients))
    assert 0 < beyond[2] <= 1.02 * beyond[1]
    assert saved_by_autograd(ops.drnl_rows, [t.requires_grad_() for t in operands]) == []


def test_other_devices_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the operators of the single steps, as kernels do them, and in one go."""
    operands = [t.requires_grad_() for t in example(150)]
    results = ops.drnl_rows(*operands)
    weights = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(results, operands, weights, retain_graph=True)
    monkeypatch.setattr(ops, "on_cpu", lambda x: False)
    for actual, wanted in zip(torch.autograd.grad(results, operands, weights), expected, strict=True):
        assert_close(actual, wanted, 1e-11)


@pytest.mark.parametrize("length", [1, 63, 64, 150])
def test_gradients_against_the_definition(length: int) -> None:
    operands = [t.requires_grad_() for t in example(length)]
    results = ops.drnl_rows(*operands)
    weights = [torch.randn_like(r) for r in results]
    actual = torch.autograd.grad(results, operands, weights)
    for a, e in zip(actual, torch.autograd.grad(naive(*operands), operands, weights), strict=True):
        assert_close(a, e, 1e-9)


@pytest.mark.parametrize("wanted", [[i] for i in range(8)] + [[0, 1], [1, 3], [2, 4]])
def test_gradients_of_some_operands_alone(wanted: list[int]) -> None:
    operands = example(100)
    every = [t.clone().requires_grad_() for t in operands]
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(operands)]
    expected = torch.autograd.grad(ops.drnl_rows(*every)[0].square().sum(), every)
    actual = torch.autograd.grad(ops.drnl_rows(*some)[0].square().sum(), [some[i] for i in wanted])
    for i, gradient in zip(wanted, actual, strict=True):
        assert_close(gradient, expected[i], 1e-12)


@pytest.mark.parametrize("length", [0, 66])
def test_gradcheck(length: int) -> None:
    operands = [t.requires_grad_() for t in example(length, 1, 1, orders=(2, 1, 1))]
    assert torch.autograd.gradcheck(ops.drnl_rows, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(ops.drnl_rows, operands, fast_mode=True)


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    torch.library.opcheck(ops.drnl_rows, [t.requires_grad_() for t in example(70)], test_utils=checks)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_chunks_equal_one_shot(cuts: list[int]) -> None:
    x, *filters, first, second, third = example(300)
    whole, *final = ops.drnl_rows(x, *filters, first, second, third)
    states, parts = (first, second, third), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        y, *states = ops.drnl_rows(x[:, start:end], *filters, *states)
        parts.append(y)
    assert_close(torch.cat(parts, -1), whole, 1e-12)
    for actual, wanted in zip(states, final, strict=True):
        assert_close(actual, wanted, 1e-12)


def test_float32_follows_float64() -> None:
    single = example(2000, dtype=torch.float32)
    (y, *states), (expected, *wanted) = ops.drnl_rows(*single), ops.drnl_rows(*(t.double() for t in single))
    assert_close(y, expected, 3e-6, torch.float32)
    for state, final in zip(states, wanted, strict=True):  # which may be small at the moment the signal ends
        assert_close(state, final, 2e-5, torch.float32)


@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)])
def test_nothing_to_do(batch: int, channels: int) -> None:
    operands = [t.requires_grad_() for t in example(100, batch, channels)]
    y, *states = ops.drnl_rows(*operands)
    assert y.shape == (batch, channels, 100)
    gradients = torch.autograd.grad(y.sum() + sum(s.sum() for s in states), operands)
    assert all(torch.equal(g, torch.zeros_like(t)) for g, t in zip(gradients, operands, strict=True))


def test_leading_dimensions_and_layouts() -> None:
    _, *filters, stick = example(0)[:5]
    sections = [f.unflatten(1, (-1, 6)) for f in filters]
    x = torch.randn(2, 4, 100, dtype=torch.float64)
    y, states = ops.drnl(x, *sections, stick)
    assert y.shape == (2, 4, 3, 100)
    assert [s.shape for s in states] == [(2, 4, 3, 2 * order) for order in ORDERS]
    one, states = ops.drnl(x[1, 2].repeat_interleave(2)[::2], *sections, stick)
    assert_close(one, y[1, 2], 1e-13)
    assert [s.shape for s in states] == [(3, 2 * order) for order in ORDERS]


def test_errors() -> None:
    x, *filters, stick = example(20)[:5]
    linear, front, back = (f.unflatten(1, (-1, 6)) for f in filters)
    with pytest.raises(ValueError, match=re.escape("x must have shape (..., T), got ()")):
        ops.drnl(x[0, 0], linear, front, back, stick)
    with pytest.raises(TypeError, match=re.escape("x must be float32 or float64, got torch.float16")):
        ops.drnl(x.half(), linear, front, back, stick)
    with pytest.raises(ValueError, match=re.escape("front must have shape (F, K, 6) with K >= 1, got (3, 12)")):
        ops.drnl(x, linear, filters[1], back, stick)
    with pytest.raises(ValueError, match=re.escape("back must have shape (3, 6 K), got (2, 24)")):
        ops.drnl(x, linear, front, back[:2], stick, state=None)
    with pytest.raises(ValueError, match=re.escape("stick must have shape (3, 3), got (3, 2)")):
        ops.drnl(x, linear, front, back, stick[:, :2])
    with pytest.raises(TypeError, match="stick must have the signal's type and device"):
        ops.drnl(x, linear, front, back, stick.float())
    with pytest.raises(ValueError, match="state must have the shapes"):
        ops.drnl(x, linear, front, back, stick, state=(x, x, x))
