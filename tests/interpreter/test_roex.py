"""The roex kernels, run by Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_within

from tamt.reference import roex as reference
from tamt.scales import roex_slope
from tamt.shared.roex import rate
from tamt.triton_kernels import roex as kernels

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def operands(rows: int, components: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Frequencies in no order, intensities over 80 dB, some of them padding, slopes on both sides of the clamp."""
    f = 10 ** (1.2 + 3 * torch.rand(rows, components)).to(dtype)
    intensity = 10 ** (8 * torch.rand(rows, components)).to(dtype)
    steepness = (1.5 * torch.rand(rows, components) - 0.2).to(dtype)
    for row in range(rows):
        end = components - row * components // (2 * rows)
        f[row, end:], intensity[row, end:], steepness[row, end:] = 1000, 0, 1
    fc = torch.logspace(1.7, 4.1, channels, dtype=dtype)
    return f, intensity, steepness, fc, roex_slope(fc)


def assert_near(actual: Tensor, expected: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
    """Within the tolerance relative to the sum of the magnitudes of what was added up."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert_within(actual, expected, TOLERANCE[dtype] * scale + 1e-30)


SHAPES = [(1, 1, 1), (2, 3, 2), (3, 33, 5), (1, 64, 32), (2, 65, 33), (1, 130, 70)]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
shapes = pytest.mark.parametrize(("rows", "components", "channels"), SHAPES)
ratios = pytest.mark.parametrize("ratio", [2.0, 2.0**60])


@dtypes
@shapes
@ratios
def test_level(rows: int, components: int, channels: int, ratio: float, dtype: torch.dtype) -> None:
    f, intensity, *_ = operands(rows, components, channels, dtype)
    exact = f.double().requires_grad_(), intensity.double().requires_grad_()
    expected = reference.power_per_erb_definition(*exact, ratio)
    assert_near(kernels.power_per_erb(f, intensity, ratio), expected.detach(), expected.detach(), dtype)
    grad = torch.randn(rows, components, dtype=dtype)
    actual = kernels.power_per_erb_backward(grad, f, intensity, ratio)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    sizes = reference.power_per_erb_backward(grad.double().abs(), *(t.detach() for t in exact), ratio)
    assert_near(actual[1], wanted[1], sizes[1], dtype)
    steepness = rate(exact[0].detach())
    reach = steepness * (intensity * sizes[1] + grad.abs() * expected.detach())
    assert_near(actual[0], wanted[0], reach.detach(), dtype)


@dtypes
@shapes
@ratios
def test_excitation(rows: int, components: int, channels: int, ratio: float, dtype: torch.dtype) -> None:
    f, intensity, steepness, fc, p = operands(rows, components, channels, dtype)
    exact = [t.double().requires_grad_() for t in (f, intensity, steepness)]
    channel = fc.double(), p.double()
    expected = reference.excitation_definition(*exact, *channel, ratio)
    actual = kernels.excitation(f, intensity, steepness, fc, p, ratio)
    assert_near(actual, expected.detach(), expected.detach(), dtype)
    grad = torch.randn(rows, channels, dtype=dtype)
    actual = kernels.excitation_backward(grad, f, intensity, steepness, fc, p, ratio)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    exact = [t.detach() for t in exact]
    of_f, of_i, of_s = reference.excitation_backward(grad.double().abs(), *exact, *channel, ratio)
    # No more than twice the highest slope times the weights, and the sum along the steepness has one sign.
    reach = (p / fc).max().double() * torch.maximum(steepness.double().amax(), torch.ones(())) * intensity * of_i
    assert (of_f.abs() <= 2 * reach + 1e-30).all()
    for a, w, scale in zip(actual, wanted, (2 * reach, of_i, of_s.abs()), strict=True):
        assert_near(a, w, scale, dtype)


@dtypes
def test_silence(dtype: torch.dtype) -> None:
    f, intensity, steepness, fc, p = operands(2, 40, 7, dtype)
    nothing = torch.zeros_like(intensity)
    assert not kernels.power_per_erb(f, nothing, 16.0).any()
    assert not kernels.excitation(f, nothing, steepness, fc, p, 16.0).any()
    # The gradients of the intensities do not depend on the intensities.
    grad = torch.rand(2, 40, dtype=dtype)
    ends = [kernels.power_per_erb_backward(grad, f, i, 16.0)[1] for i in (intensity, nothing)]
    assert torch.equal(*ends)
    of_f, of_i, of_s = kernels.excitation_backward(torch.rand(2, 7, dtype=dtype), f, nothing, steepness, fc, p, 16.0)
    assert not of_f.any()
    assert of_i.min() > 0
    assert not of_s.any()


@dtypes
def test_layouts(dtype: torch.dtype) -> None:
    f, intensity, steepness, fc, p = operands(2, 40, 7, dtype)
    strided = [t.repeat_interleave(2, -1)[..., ::2] for t in (f, intensity, steepness, fc, p)]
    assert not strided[0].is_contiguous()
    assert torch.equal(kernels.power_per_erb(*strided[:2], 16.0), kernels.power_per_erb(f, intensity, 16.0))
    given = f, intensity, steepness, fc, p
    assert torch.equal(kernels.excitation(*strided, 16.0), kernels.excitation(*given, 16.0))
    ones = torch.ones((), dtype=dtype).expand(2, 40), torch.ones((), dtype=dtype).expand(2, 7)
    for actual, expected in (
        (
            kernels.power_per_erb_backward(ones[0], *strided[:2], 16.0),
            kernels.power_per_erb_backward(ones[0].clone(), *given[:2], 16.0),
        ),
        (
            kernels.excitation_backward(ones[1], *strided, 16.0),
            kernels.excitation_backward(ones[1].clone(), *given, 16.0),
        ),
    ):
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_nothing_to_do() -> None:
    f, _, _, fc, p = operands(2, 40, 7, torch.float32)
    empty = f[:, :0]
    assert kernels.power_per_erb(empty, empty, 16.0).shape == (2, 0)
    assert torch.equal(kernels.excitation(empty, empty, empty, fc, p, 16.0), torch.zeros(2, 7))
    assert all(g.shape == (2, 0) for g in kernels.power_per_erb_backward(empty, empty, empty, 16.0))
    gradients = kernels.excitation_backward(torch.ones(0, 7), f[:0], f[:0], f[:0], fc, p, 16.0)
    assert [g.shape for g in gradients] == [(0, 40)] * 3
