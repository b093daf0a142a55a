"""The broken stick: definition, both branches' gradients, the knee, silence, torch.compile, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import assert_close, assert_within, checked, compiled_elsewhere
from torch import Tensor

from tamt.ops import broken_stick as ops
from tamt.ops.broken_stick import broken_stick
from tamt.reference import broken_stick as reference


def operands(
    *lead: int, length: int = 200, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signals over nine decades around the knee, and sticks of three channels."""
    sign = torch.randn(*lead, 3, length, dtype=torch.float64).sign()
    v = sign * 10 ** (9 * torch.rand(*lead, 3, length, dtype=torch.float64) - 8)
    a, b, c = ([2e4, 300, 3], [0.1, 0.5, 1], [0.25, 0.4, 0.9])
    return v.to(dtype), *(torch.tensor(p, dtype=dtype) for p in (a, b, c))


def definition(v: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    a, b, c = (p[:, None] for p in (a, b, c))
    return v.sign() * torch.minimum(a * v.abs(), b * v.abs() ** c)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
def test_definition(lead: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    given = operands(*lead, dtype=dtype)
    expected = definition(*(t.double() for t in given))
    w = broken_stick(*given)
    assert w.dtype == dtype
    assert w.shape == expected.shape
    assert_within(w, expected, tolerance * expected.abs())
    linear = given[1][:, None] * given[0].abs() <= expected.abs() * (1 + 1e-6)
    assert linear.any()
    assert not linear.all()


def test_slices_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [t.requires_grad_() for t in operands(2)]
    whole = broken_stick(*given)
    weights = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, given, weights)
    monkeypatch.setattr(reference, "SLICE", 400)
    sliced = broken_stick(*given)
    assert torch.equal(sliced, whole)
    for actual, wanted in zip(torch.autograd.grad(sliced, given, weights), expected, strict=True):
        assert_close(actual[None], wanted[None], 1e-13)


def test_gradients() -> None:
    given = [t.requires_grad_() for t in operands(2)]
    weights = torch.randn(2, 3, 200, dtype=torch.float64)
    actual = torch.autograd.grad(broken_stick(*given), given, weights)
    expected = torch.autograd.grad(definition(*given), given, weights)
    for a, e in zip(actual, expected, strict=True):
        assert_within(a, e, 1e-11 * e.abs())


def test_gradcheck() -> None:
    v = torch.tensor([[-2.0, -0.3, -1e-2, 1e-2, 0.4, 3]], dtype=torch.float64).expand(2, 2, 6)
    parameters = [[1.5, 2], [0.8, 0.4], [0.3, 0.6]]
    given = [v.clone().requires_grad_(), *(torch.tensor(p).double().requires_grad_() for p in parameters)]
    assert torch.autograd.gradcheck(broken_stick, given)
    assert torch.autograd.gradgradcheck(broken_stick, given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_silence_and_knee(dtype: torch.dtype) -> None:
    """The slope is ``a`` in both, and nothing is infinite, also in second derivatives."""
    a, b, c = (torch.tensor([p], dtype=dtype, requires_grad=True) for p in (4.0, 2.0, 0.5))
    knee = (2 / 4) ** 2
    v = torch.tensor([[0.0, knee, -knee, torch.finfo(dtype).tiny / 4]], dtype=dtype, requires_grad=True)
    w = broken_stick(v, a, b, c)
    assert w.tolist() == [[0, 4 * knee, -4 * knee, torch.finfo(dtype).tiny]]
    of_v, *of_stick = torch.autograd.grad(w.sum(), (v, a, b, c), create_graph=True)
    assert of_v.tolist() == [[4] * 4]
    assert all(torch.isfinite(g).all() for g in of_stick)
    second = torch.autograd.grad(of_v.sum() + sum(of_stick), (v, a, b, c))
    assert all(torch.isfinite(g).all() for g in second)


def test_a_stick_without_a_linear_part_or_without_any() -> None:
    v = torch.tensor([[-4.0, 0, 4]], dtype=torch.float64, requires_grad=True)
    zero, one, half = (torch.tensor([p], dtype=torch.float64) for p in (0.0, 1.0, 0.5))
    silent = broken_stick(v, zero, one, half)
    assert torch.equal(silent, torch.zeros_like(silent))
    assert broken_stick(v, one, zero, half).tolist() == [[0, 0, 0]]
    assert broken_stick(v, one, one, one).tolist() == [[-4, 0, 4]]
    (gradient,) = torch.autograd.grad(broken_stick(v, one, zero, half).sum(), v)
    assert torch.isfinite(gradient).all()


def test_nan_stays_in_its_row() -> None:
    v, a, b, c = operands(3)
    clean = broken_stick(v, a, b, c)
    v[1, 0, 7] = math.nan
    w = broken_stick(v, a, b, c)
    assert torch.isnan(w[1, 0, 7])
    assert torch.isnan(w).sum() == 1
    assert torch.equal(w[::2], clean[::2])


def test_nothing_to_do() -> None:
    for shape in ((2, 3, 0), (0, 3, 5)):
        given = [t.requires_grad_() for t in (torch.zeros(shape).double(), *operands()[1:])]
        w = broken_stick(*given)
        assert w.shape == shape
        assert all(not g.any() for g in torch.autograd.grad(w.sum(), given))


def test_layouts() -> None:
    v, a, b, c = operands(2)
    strided = v.repeat_interleave(2, -1)[..., ::2]
    assert torch.equal(broken_stick(strided, a, b, c), broken_stick(v, a, b, c))
    shared = v[:1].expand(2, 3, 200).requires_grad_()
    w = broken_stick(shared, a, b, c)
    assert w.is_contiguous()
    (gradient,) = torch.autograd.grad(w, shared, torch.ones(()).double().expand_as(w))
    assert_close(gradient[0], gradient[1], 1e-15)


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    v, a, b, c = operands(2)
    stick = torch.stack((a, b, c), 1).requires_grad_()
    torch.library.opcheck(ops.broken_stick_rows, (v.requires_grad_(), stick), test_utils=checks)
    grad = torch.randn_like(v).requires_grad_()
    torch.library.opcheck(ops.broken_stick_backward, (grad, v, stick), test_utils=checks)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(broken_stick, backend=backend, fullgraph=True, dynamic=True)
    compiled(*(t.requires_grad_() for t in operands(2, length=30))).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (64, 100):
            given = [t.requires_grad_() for t in operands(2, length=length)]
            actual = torch.autograd.grad(compiled(*given).square().sum(), given)
            for a, e in zip(actual, torch.autograd.grad(broken_stick(*given).square().sum(), given), strict=True):
                assert_close(a, e, 1e-12)


def test_float32_needs_neither_float64_nor_complex(mps_safe: type) -> None:
    given = [t.requires_grad_() for t in operands(2, dtype=torch.float32)]
    with mps_safe():
        torch.autograd.grad(broken_stick(*given).sum(), given)


def test_errors() -> None:
    v, a, b, c = operands(2)
    with pytest.raises(ValueError, match=re.escape("a, b and c must have the same shape (F,), got (3,), (2,), (3,)")):
        broken_stick(v, a, b[:2], c)
    with pytest.raises(ValueError, match=re.escape("v must have shape (..., 3, T), got (200,)")):
        broken_stick(v[0, 0], a, b, c)
    with pytest.raises(TypeError, match=re.escape("v must be float32 or float64, got torch.float16")):
        broken_stick(v.half(), a, b, c)
    with pytest.raises(TypeError, match="a, b and c must have v's type and device"):
        broken_stick(v, a.float(), b.float(), c.float())
    with pytest.raises(ValueError, match=re.escape("v and stick must have the shapes (B, F, T) and (F, 3)")):
        ops.broken_stick_rows(v, torch.ones(3, 2).double())
