"""The spreading's Triton kernels, run by Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, assert_within

from tamt.reference import spreading as reference
from tamt.triton_kernels import spreading as engine

# The interpreter computes with numpy, which warns of log2(0) and of inf - inf.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SLOPES = [27.0, 11.0, 0.37, 0.2, 60.0]
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-12}  # dB


def operands(rows: int, n: int, dtype: torch.dtype, low: float = 0, high: float = 110) -> tuple[Tensor, Tensor]:
    """Levels on which both sides' slopes are clamped here and not there, exactly those that ``dtype`` has."""
    levels = (low + (high - low) * torch.rand(rows, n, dtype=torch.float64)).to(dtype)
    return levels, torch.tensor(SLOPES, dtype=dtype)


def check_against_reference(levels: Tensor, slopes: Tensor, erb_step: float) -> None:
    tolerance = TOLERANCE[levels.dtype]
    wide = levels.double(), slopes.double()
    expected = reference.spreading(*wide, erb_step)
    actual = engine.spreading(levels, slopes, erb_step)
    assert actual.dtype == levels.dtype
    assert_within(actual, expected, tolerance)
    weights = torch.randn_like(levels)
    wanted = reference.spreading_backward(weights.double(), wide[0], wide[1], expected, erb_step)
    given = engine.spreading_backward(weights, levels, slopes, actual, erb_step)
    # Some are differences of large sums, hence against the largest of all rows.
    assert_close(given[0].flatten(), wanted[0].flatten(), tolerance, levels.dtype)
    assert_within(given[1], wanted[1], 3 * tolerance * wanted[1].abs().amax())
    assert given[1].dtype == levels.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "n", "erb_step"),
    [(1, 1, 0.25), (3, 2, 0.25), (1, 40, 0.1), (9, 150, 0.25), (17, 63, 0.3), (2, 1030, 0.25), (8, 64, 4.9), (5, 7, 6)],
)
def test_forward_and_every_gradient(rows: int, n: int, erb_step: float, dtype: torch.dtype) -> None:
    check_against_reference(*operands(rows, n, dtype), erb_step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes(dtype: torch.dtype) -> None:
    check_against_reference(*operands(4, 60, dtype, -200, 200), 0.25)
    neighbours = torch.tensor([[-200.0, 200.0] * 20, [200.0, *[-200.0] * 39], [-200.0] * 40, [200.0] * 40])
    check_against_reference(neighbours.to(dtype), operands(1, 1, dtype)[1], 0.25)


def test_bands_too_faint_for_float32_keep_their_levels() -> None:
    levels, slopes = torch.full((1, 60), -1000.0), torch.tensor(SLOPES)
    levels[0, 20] = 200
    check_against_reference(levels, slopes, 0.25)
    assert engine.spreading(levels, slopes, 0.25)[0, 41:].tolist() == [-1000] * 19


@pytest.mark.parametrize("per_db", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_power(dtype: torch.dtype, per_db: float) -> None:
    """-inf is a band without power: it gives nothing and takes what it is given."""
    levels, slopes = operands(3, 50, dtype)
    slopes[2:4] = per_db
    levels[0] = -math.inf
    levels[1, ::3] = -math.inf
    levels[2, 10:] = -math.inf
    expected = reference.spreading(levels.double(), slopes.double(), 0.25)
    actual = engine.spreading(levels, slopes, 0.25)
    silent = expected == -math.inf
    assert silent[0].all()
    assert silent[2].any()
    assert torch.equal(actual == -math.inf, silent)
    assert_within(actual[~silent], expected[~silent], TOLERANCE[dtype])
    weights = torch.randn_like(levels)
    wanted = reference.spreading_backward(weights.double(), levels.double(), slopes.double(), expected, 0.25)
    for a, e in zip(engine.spreading_backward(weights, levels, slopes, actual, 0.25), wanted, strict=True):
        assert_close(a.flatten(), e.flatten(), 2 * TOLERANCE[dtype], dtype)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_a_number_stays_in_its_row(value: float) -> None:
    levels, slopes = operands(3, 150, torch.float32)
    clean = engine.spreading(levels, slopes, 0.25)
    levels[1, 70] = value
    actual = engine.spreading(levels, slopes, 0.25)
    assert torch.equal(actual[::2], clean[::2])
    assert actual[1].isnan().all()
    grad, _ = engine.spreading_backward(torch.ones_like(actual), levels, slopes, actual, 0.25)
    assert torch.isfinite(grad[::2]).all()


def test_any_strides() -> None:
    levels, slopes = operands(5, 20, torch.float64)
    weights = torch.randn_like(levels)
    out = engine.spreading(levels, slopes, 0.25)
    wanted = out, *engine.spreading_backward(weights, levels, slopes, out, 0.25)
    levels, weights, slopes = (
        levels.t().contiguous().t(),
        weights.t().contiguous().t(),
        slopes.repeat_interleave(2)[::2],
    )
    actual = engine.spreading(levels, slopes, 0.25)
    found = actual, *engine.spreading_backward(weights, levels, slopes, actual.t().contiguous().t(), 0.25)
    for a, e in zip(found, wanted, strict=True):
        assert torch.equal(a, e)


def test_no_rows() -> None:
    levels, slopes = operands(0, 150, torch.float32)
    out = engine.spreading(levels, slopes, 0.25)
    assert out.shape == (0, 150)
    grad, of_slopes = engine.spreading_backward(out, levels, slopes, out, 0.25)
    assert grad.shape == (0, 150)
    assert of_slopes.tolist() == [0] * 5
