"""The broken stick's Triton kernels, run by Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, assert_within

from tamt.reference import broken_stick as reference
from tamt.triton_kernels import broken_stick as kernels
from tamt.triton_kernels.broken_stick import broken_stick, broken_stick_backward

STICK = ((1.0, 0.1, 0.25), (1e4, 0.1, 0.25), (0.0, 0.5, 0.25), (2.0, 0.3, 1.0))
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows take several tiles and chunks."""
    monkeypatch.setattr(kernels, "TILE", 64)
    monkeypatch.setattr(kernels, "CHUNK", 128)


def operands(length: int, dtype: torch.dtype, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Signals over ten orders of magnitude with silence among them, sticks, and a gradient."""
    generator = torch.Generator().manual_seed(length)
    shape = (batch, len(STICK), length)
    v = torch.randn(shape, generator=generator, dtype=torch.float64)
    v *= 10 ** (-10 * torch.rand(shape, generator=generator, dtype=torch.float64))
    v[..., 3::7] = 0
    grad = torch.randn(shape, generator=generator, dtype=torch.float64)
    return v.to(dtype), torch.tensor(STICK, dtype=dtype), grad.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0, 1, 16, 63, 64, 257])
def test_against_the_reference(length: int, dtype: torch.dtype) -> None:
    v, stick, grad = operands(length, dtype)
    tolerance = TOLERANCE[dtype]
    wide = [t.double() for t in (grad, v, stick)]
    wanted = reference.broken_stick(*wide[1:])
    w = broken_stick(v, stick)
    assert w.dtype == dtype
    assert w.shape == v.shape
    assert_within(w, wanted, tolerance * wanted.abs())  # sample by sample: every order of magnitude
    grad_v, grad_stick = broken_stick_backward(grad, v, stick)
    wanted_v, wanted_stick = reference.broken_stick_backward(*wide)
    assert grad_v.dtype == dtype
    assert_within(grad_v, wanted_v, tolerance * wanted_v.abs())
    assert_close(grad_stick.t(), wanted_stick.t(), tolerance, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_the_knee_and_at_zero_the_branch_is_linear(dtype: torch.dtype) -> None:
    v = torch.tensor([[[1.0, -1.0, 0.0, -0.0]]], dtype=dtype)
    stick = torch.tensor([[2.0, 2.0, 0.25]], dtype=dtype)
    grad = torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]], dtype=dtype)
    assert torch.equal(broken_stick(v, stick), 2 * v)
    grad_v, grad_stick = broken_stick_backward(grad, v, stick)
    assert torch.equal(grad_v, 2 * grad)
    assert torch.equal(grad_stick, torch.tensor([[-9.0, 0.0, 0.0]], dtype=dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")
def test_what_is_infinite_meets_no_zero() -> None:
    """``|v|^(c-1)`` overflows at 0 and below c = 0."""
    stick = torch.tensor([[3.0, 0.5, -0.5]])
    v = torch.tensor([[[0.0, 1e-30, 4.0]]])
    assert torch.allclose(broken_stick(v, stick), torch.tensor([[[0.0, 3e-30, 0.25]]]), atol=0)
    grad_v, grad_stick = broken_stick_backward(torch.ones_like(v), v, stick)
    assert torch.allclose(grad_v, torch.tensor([[[3.0, 3.0, -0.5 * 0.5 * 4.0**-1.5]]]))
    assert torch.allclose(grad_stick, torch.tensor([[1e-30, 0.5, 0.25 * math.log(4.0)]]), atol=0)


def test_nan_stays_where_it_is() -> None:
    v, stick, grad = operands(200, torch.float32)
    clean, (clean_v, clean_stick) = broken_stick(v, stick), broken_stick_backward(grad, v, stick)
    v[1, 2, 100] = float("nan")
    m_spoilt = torch.isnan(v)
    w = broken_stick(v, stick)
    assert torch.equal(torch.isnan(w), m_spoilt)
    assert torch.equal(w[~m_spoilt], clean[~m_spoilt])
    grad_v, grad_stick = broken_stick_backward(grad, v, stick)
    assert torch.equal(torch.isnan(grad_v), m_spoilt)
    assert torch.equal(grad_v[~m_spoilt], clean_v[~m_spoilt])
    rows = torch.tensor([0, 1, 3])
    assert torch.equal(grad_stick[rows], clean_stick[rows])
    for column in range(3):
        spoilt = stick.clone()
        spoilt[0, column] = float("nan")
        w = broken_stick(v, spoilt)
        assert torch.isnan(w[:, 0]).all()
        assert not torch.isnan(w[:, 1]).any()


def test_any_strides() -> None:
    v, stick, _ = operands(100, torch.float32)
    grad = torch.ones(()).expand(v.shape)
    wanted = broken_stick(v, stick), *broken_stick_backward(grad.contiguous(), v, stick)
    for same in (v.transpose(0, 2).contiguous().transpose(0, 2), v.flip(-1).flip(-1)):
        columns = stick.t().contiguous().t()
        got = broken_stick(same, columns), *broken_stick_backward(grad, same, columns)
        assert all(torch.equal(a, b) and a.is_contiguous() for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (2, 0)])
def test_no_rows_or_no_channels(batch: int, channels: int) -> None:
    v, stick = torch.zeros(batch, channels, 20), torch.ones(channels, 3)
    assert broken_stick(v, stick).shape == v.shape
    grad_v, grad_stick = broken_stick_backward(v, v, stick)
    assert grad_v.shape == v.shape
    assert grad_stick.shape == stick.shape
    assert not grad_stick.any()
