"""Filter design: poles that keep their digits, denominators that stay stable, feedback that stands for a polynomial."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import assert_close

from tamt.coefficients import (
    Kept,
    complex_divide,
    complex_multiply,
    expanded_denominator,
    feedback_map,
    flush,
    gammatone_betamul,
    moved_pole,
    pole_design,
    stable_denominator,
)


def test_betamul() -> None:
    assert gammatone_betamul(4) == pytest.approx(1.0186, abs=1e-4)
    assert gammatone_betamul(1) == pytest.approx(1 / math.pi)


def test_complex_arithmetic() -> None:
    a, b = torch.randn(2, 5, 3, dtype=torch.complex128)
    for function, expected in ((complex_multiply, a * b), (complex_divide, a / b)):
        assert_close(function(torch.view_as_real(a), torch.view_as_real(b)), torch.view_as_real(expected), 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pole_at_its_design_keeps_its_digits(dtype: torch.dtype) -> None:
    decay = torch.tensor([1e-4, 3.6e-3, 0.3], dtype=torch.float64)
    frequency = torch.tensor([-4e-4, 0.123456789, -0.49], dtype=torch.float64)
    pole, design = pole_design(decay, frequency, dtype)
    again, high, low = moved_pole(torch.view_as_real(pole), design)
    assert_close(again.double()[:, None], decay[:, None], torch.finfo(dtype).eps)
    assert (high.double() + low.double() - frequency).abs().max() < 1e-9 * torch.finfo(dtype).eps / 1e-16 * 1e-1


def test_moved_pole_is_the_pole() -> None:
    decay, frequency = torch.rand(20, dtype=torch.float64), torch.rand(20, dtype=torch.float64) - 0.5
    pole, design = pole_design(decay, frequency, torch.float64)
    other = pole * torch.polar(0.3 + torch.rand(20, dtype=torch.float64), 6 * torch.rand(20, dtype=torch.float64))
    decay, high, low = moved_pole(torch.view_as_real(other), design)
    rebuilt = torch.polar(torch.exp(-decay), 2 * math.pi * (high + low))
    assert_close(torch.view_as_real(rebuilt), torch.view_as_real(other), 1e-13)
    leaf = torch.view_as_real(other).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: moved_pole(p, design), leaf)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_expanded_denominator(n: int) -> None:
    pole = torch.polar(torch.tensor([0.9, 0.5], dtype=torch.float64), torch.tensor([0.3, -2.0], dtype=torch.float64))
    expected = torch.from_numpy(np.stack([np.poly([complex(p)] * n) for p in pole]))
    assert_close(expanded_denominator(pole, n), expected, 1e-13)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_feedback_stands_for_the_polynomial(n: int) -> None:
    pole = torch.polar(torch.tensor([0.9, 0.6], dtype=torch.float64), torch.tensor([0.3, -2.0], dtype=torch.float64))
    step = torch.randn(2, n, dtype=torch.complex128)
    feedback = (feedback_map(pole, n) @ step[:, :, None])[..., 0]
    for f in range(2):
        q = np.array([1, -complex(pole[f])])
        total = np.zeros(n + 1, dtype=complex)
        for k in range(1, n + 1):
            part = complex(feedback[f, k - 1]) * np.polynomial.polynomial.polypow(q, n - k)
            total[1 : 1 + len(part)] += part
        assert_close(torch.from_numpy(total[1:]), step[f], 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stable_denominator(dtype: torch.dtype) -> None:
    def pairs(roots: list[complex]) -> torch.Tensor:
        row = torch.from_numpy(np.poly(roots)[1:].astype(complex))
        return torch.view_as_real(row)[None].to(dtype)

    inside = pairs([0.9 + 0.1j, 0.5, -0.3j, 0.9 + 0.1j])
    assert torch.equal(stable_denominator(inside), inside)
    for roots in ([1.2, 0.5], [0.8 + 0.9j, 0.1, 1.0], [3j], [2, 2j, -2, 0.1]):
        outside = pairs(roots).requires_grad_()
        limited = stable_denominator(outside)
        row = torch.view_as_complex(limited[0].detach().double()).numpy()
        assert np.abs(np.roots(np.r_[1, row])).max() < 1
        (gradient,) = torch.autograd.grad(limited.square().sum(), outside)
        assert torch.isfinite(gradient).all()


def test_flush_leaves_what_matters() -> None:
    values = torch.tensor([1.0, -1e-20, 1e-37, -3e-40, 0.0])
    assert flush(values).tolist() == [*values[:2].tolist(), 0, 0, 0]
    flushed = flush(values.requires_grad_())
    (gradient,) = torch.autograd.grad(flushed.sum(), values)
    assert gradient.tolist() == [1] * 5


def test_kept() -> None:
    kept: Kept[torch.Tensor] = Kept()
    a, b = torch.ones(2), torch.ones(2)
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return a + b

    assert kept.get((a, b), compute) is kept.get((a, b), compute)
    assert len(calls) == 1
    a[0] = 5
    assert kept.get((a, b), compute).tolist() == [6, 2]
    kept.get((a, b.clone()), compute)
    assert len(calls) == 3
    a.requires_grad_()
    assert kept.get((a, b), compute).requires_grad
    assert kept.get((a, b), compute) is not kept.get((a, b), compute)
    with torch.inference_mode():
        c = torch.ones(2)
    assert kept.get((c, b), lambda: c + b) is not kept.get((c, b), lambda: c + b)
