"""The spreading operator: definition, extreme levels, silence, gradients, slices, torch.compile, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import assert_close, assert_within, checked, compiled_elsewhere
from torch import Tensor

from tamt.ops import spreading as ops
from tamt.ops.spreading import spreading
from tamt.reference import spreading as reference

NUMBERS = (27.0, 11.0, 0.37, 0.2, 60.0)
TOLERANCE = {torch.float32: 1.5e-4, torch.float64: 1e-12}  # dB
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def numbers(dtype: torch.dtype = torch.float64, values: tuple[float, ...] = NUMBERS) -> list[Tensor]:
    return [torch.tensor(v, dtype=dtype) for v in values]


def random_levels(*shape: int, low: float = 0, high: float = 110, dtype: torch.dtype = torch.float64) -> Tensor:
    return (low + (high - low) * torch.rand(*shape, dtype=torch.float64)).to(dtype)


def definition(levels: Tensor, values: list[Tensor], erb_step: float) -> Tensor:
    """One pair of bands after the other, in Python's floats."""
    upper_base, lower_base, upper_per_db, lower_per_db, level_ref = (v.item() for v in values)
    rows = []
    for row in levels.reshape(-1, levels.shape[-1]).tolist():
        power = [0.0] * len(row)
        for i, level in enumerate(row):
            above = level - level_ref
            for j in range(len(row)):
                base, per_db = (upper_base, upper_per_db) if j >= i else (lower_base, lower_per_db)
                loss = max(base - per_db * above, 10) * abs(j - i) * erb_step
                if loss <= 50:
                    power[j] += 10 ** ((level - loss) / 10)
        rows.append([10 * math.log10(p) if p else -math.inf for p in power])
    return torch.tensor(rows, dtype=torch.float64).reshape(levels.shape)


def composition(levels: Tensor, slopes: Tensor, erb_step: float) -> Tensor:
    """All pairs of bands at once, for autograd."""
    n = levels.shape[-1]
    distance = erb_step * (torch.arange(n) - torch.arange(n)[:, None])
    above = (levels - slopes[4])[..., None]
    upper = (slopes[0] - slopes[2] * above).clamp_min(10)
    lower = (slopes[1] - slopes[3] * above).clamp_min(10)
    loss = torch.where(distance >= 0, upper, lower) * distance.abs()
    terms = (levels[..., None] - loss).masked_fill(loss > 50, -math.inf)
    return torch.logsumexp(terms * (math.log(10) / 10), -2) * (10 / math.log(10))


@both_types
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize(
    ("n", "erb_step"), [(1, 0.25), (2, 0.25), (30, 0.25), (45, 0.1), (20, 0.3), (16, 1.0), (7, 4.9), (5, 6.0)]
)
def test_definition(lead: tuple[int, ...], n: int, erb_step: float, dtype: torch.dtype) -> None:
    levels = random_levels(*lead, n, dtype=dtype)
    out = spreading(levels, *numbers(dtype), erb_step)
    expected = definition(levels, numbers(dtype), erb_step)
    assert out.dtype == dtype
    assert out.shape == levels.shape
    assert_within(out, expected, TOLERANCE[dtype])


@both_types
@pytest.mark.parametrize("values", [(40.0, 25, 0.0, 0.0, 50), (15, 30, -0.1, 0.5, 40), (5, 5, 0.1, 0.1, 0)])
def test_other_slopes(values: tuple[float, ...], dtype: torch.dtype) -> None:
    levels = random_levels(3, 40, low=-50, dtype=dtype)
    expected = definition(levels, numbers(dtype, values), 0.25)
    assert_within(spreading(levels, *numbers(dtype, values), 0.25), expected, TOLERANCE[dtype])


@both_types
def test_from_minus_200_to_200_db(dtype: torch.dtype) -> None:
    alternating = torch.tensor([-200.0, 200] * 25)
    steps = torch.tensor([-200.0] * 25 + [200.0] * 25)
    fixed = torch.stack((alternating, steps, steps.flip(0), -steps.abs(), steps.abs())).to(dtype)
    levels = torch.cat((fixed, random_levels(10, 50, low=-200, high=200, dtype=dtype)))
    out = spreading(levels, *numbers(dtype), 0.25)
    expected = definition(levels, numbers(dtype), 0.25)
    assert expected.amin() < -199
    assert expected.amax() > 200
    assert_within(out, expected, TOLERANCE[dtype])


@both_types
@pytest.mark.parametrize("level", [-3000.0, -1000, 1000, 3000])
def test_a_row_may_lie_anywhere(level: float, dtype: torch.dtype) -> None:
    """Between slopes that do not depend on the level, only differences count."""
    values = numbers(dtype, (20.0, 15, 0, 0, 0))
    levels = random_levels(2, 30).round().to(dtype)
    expected = definition(levels, values, 0.25) + level
    assert_within(spreading(levels + level, *values, 0.25), expected, 6 * TOLERANCE[dtype])


def test_many_neighbours() -> None:
    """500 on each side: a float32 factor for every step, and still no audible rounding."""
    levels = random_levels(2, 1200, dtype=torch.float32)
    levels[1] = -math.inf
    levels[1, 600] = 110
    exact = spreading(levels.double(), *numbers(), 0.01)
    out = spreading(levels, *(v.float() for v in numbers()), 0.01)
    heard = exact > -math.inf
    assert heard.sum() == 1200 + 1001
    assert torch.equal(out > -math.inf, heard)
    assert_within(out[heard], exact[heard], 1e-4)


@both_types
def test_bands_too_faint_for_float32_keep_their_levels(dtype: torch.dtype) -> None:
    levels = torch.full((1, 60), -1000.0, dtype=dtype)
    levels[0, 20] = 200
    levels.requires_grad_()
    out = spreading(levels, *numbers(dtype), 0.25)
    assert out[0, 41:].tolist() == pytest.approx([-1000] * 19, abs=1e-9)
    assert (out[0, :41] > 150 - 1e-4).all()
    (gradient,) = torch.autograd.grad(out.sum(), levels)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 41:].tolist() == pytest.approx([1] * 19, abs=1e-9)


def test_one_band() -> None:
    """Straight flanks, cut at 50 dB; the last that is not cut has lost exactly 50 dB."""
    levels = torch.full((1, 61), -math.inf, dtype=torch.float64)
    levels[0, 30] = 60
    out = spreading(levels, *numbers(), 0.25)[0]
    distance = 0.25 * (torch.arange(61).double() - 30)
    upper, lower = 60 - 27 * distance, 60 + 11 * distance
    expected = torch.where(distance >= 0, upper, lower)
    expected[expected < 10] = -math.inf
    assert (out > -math.inf).sum() == 18 + 1 + 7
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    levels[0, 30] = 110  # both slopes 10 dB/ERB: 20 steps on each side
    loud = spreading(levels, *numbers(), 0.25)[0]
    assert (loud > -math.inf).nonzero().flatten().tolist() == list(range(10, 51))
    torch.testing.assert_close(loud[[10, 50]], torch.tensor([60.0, 60]).double(), rtol=0, atol=1e-12)


def test_powers_add() -> None:
    """Two bands far apart give the sum of what each alone gives."""
    one, two = torch.full((2, 100), -math.inf, dtype=torch.float64)
    one[30], two[45] = 70, 90
    apart, also = spreading(torch.stack((one, two)), *numbers(), 0.25)
    together = spreading(torch.maximum(one, two), *numbers(), 0.25)
    sum_of_powers = 10 ** (apart / 10) + 10 ** (also / 10)
    assert ((apart > -math.inf) & (also > -math.inf)).any()
    torch.testing.assert_close(10 ** (together / 10), sum_of_powers, rtol=1e-12, atol=0)


@both_types
def test_monotone_in_level(dtype: torch.dtype) -> None:
    """A louder band lowers no other one, and no band is fainter than its own level."""
    levels = random_levels(20, 60, low=-100, high=120, dtype=dtype)
    values = numbers(dtype)
    out = spreading(levels, *values, 0.25)
    louder = levels.clone()
    louder[:, 30] += 7
    rounding = TOLERANCE[dtype]
    after = spreading(louder, *values, 0.25)
    assert (after >= out - rounding).all()
    assert (after > out + 1e-3).any()
    assert (out >= levels).all()


def test_gradients() -> None:
    levels = random_levels(4, 60, low=-60, high=120).requires_grad_()
    slopes = torch.tensor(NUMBERS).double().requires_grad_()
    weights = torch.randn_like(levels)
    actual = torch.autograd.grad(ops.spreading_rows(levels, slopes, 0.25), (levels, slopes), weights)
    expected = torch.autograd.grad(composition(levels, slopes, 0.25), (levels, slopes), weights)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a.flatten(), e.flatten(), 1e-12)
    assert (expected[1] != 0).all()
    single = [t.detach().float().requires_grad_() for t in (levels, slopes)]
    rough = torch.autograd.grad(ops.spreading_rows(*single, 0.25), single, weights.float())
    for a, e in zip(rough, expected, strict=True):
        assert_close(a.flatten(), e.flatten(), 2e-5, torch.float32)


def test_no_gradient_of_a_clamped_slope() -> None:
    values = [v.requires_grad_() for v in numbers()]
    levels = torch.full((1, 20), 80.0, dtype=torch.float64)
    gradients = torch.autograd.grad(spreading(levels, *values, 0.25).sum(), values)
    assert gradients[1].item() == gradients[3].item() == 0
    assert gradients[0].item() < 0 < gradients[2].item()


def test_gradcheck() -> None:
    levels = torch.tensor([[70.0, 20, 58, 93, 61, 30], [-150, -140, 130, 110, 95, 55]]).double().requires_grad_()
    values = [v.requires_grad_() for v in numbers()]

    def function(levels: Tensor, *values: Tensor) -> Tensor:
        return spreading(levels, *values, 0.4)

    assert torch.autograd.gradcheck(function, (levels, *values))
    assert torch.autograd.gradgradcheck(function, (levels, *values))


@both_types
@pytest.mark.parametrize("level", [-math.inf, -3000.0, -200, 0, 200, 3000])
def test_flat_rows_have_finite_gradients(level: float, dtype: torch.dtype) -> None:
    levels = torch.full((2, 50), level, dtype=dtype, requires_grad=True)
    values = [v.requires_grad_() for v in numbers(dtype)]
    out = spreading(levels, *values, 0.25)
    of_levels, *of_values = torch.autograd.grad(out.sum(), (levels, *values), create_graph=True)
    # The slopes take and give what they change: a decibel more everywhere is at least a decibel more in every band.
    assert (of_levels.sum() >= 100 * (1 - 1e-6)).item()
    assert all(torch.isfinite(g).all() for g in (of_levels, *of_values))
    second = torch.autograd.grad(of_levels.square().sum() + sum(of_values), (levels, *values))
    assert all(torch.isfinite(g).all() for g in second)


@both_types
@pytest.mark.parametrize("per_db", [0.0, 0.3])
def test_no_power(dtype: torch.dtype, per_db: float) -> None:
    """A band of -inf dB gives nothing and takes what it is given; alone it stays what it is."""
    levels = random_levels(3, 40, dtype=dtype)
    levels[0] = -math.inf
    levels[1, ::2] = -math.inf
    levels[2, 5:] = -math.inf
    values = numbers(dtype, (27.0, 11, per_db, per_db, 60))
    faint = levels.double().clamp_min(-3000)
    expected = definition(faint, values, 0.25)
    levels.requires_grad_()
    out = spreading(levels, *values, 0.25)
    silent = expected < -2000
    assert torch.equal(out == -math.inf, silent)
    assert silent[0].all()
    assert silent[2].any()
    assert_within(out[~silent], expected[~silent], TOLERANCE[dtype])
    (gradient,) = torch.autograd.grad(out[~silent].sum(), levels)
    assert torch.isfinite(gradient).all()
    assert not gradient[levels == -math.inf].any()
    assert gradient[1, 1::2].min() > 0


@both_types
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_a_number_stays_in_its_row(value: float, dtype: torch.dtype) -> None:
    levels = random_levels(3, 150, dtype=dtype)
    clean = spreading(levels, *numbers(dtype), 0.25)
    levels[1, 70] = value
    levels.requires_grad_()
    out = spreading(levels, *numbers(dtype), 0.25)
    assert torch.equal(out[::2], clean[::2])
    assert torch.isnan(out[1]).all()
    (gradient,) = torch.autograd.grad(out.sum(), levels)
    assert torch.isfinite(gradient[::2]).all()


@both_types
def test_a_slope_that_is_not_a_number_shows(dtype: torch.dtype) -> None:
    values = numbers(dtype)
    values[0] = torch.tensor(math.nan, dtype=dtype)
    out = spreading(random_levels(1, 10, dtype=dtype), *values, 0.25)
    assert torch.isnan(out[0, 1:]).all()


def test_slices_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, slopes = random_levels(7, 50).requires_grad_(), torch.tensor(NUMBERS).double().requires_grad_()
    weights = torch.randn_like(levels)
    whole = ops.spreading_rows(levels, slopes, 0.25)
    expected = torch.autograd.grad(whole, (levels, slopes), weights)
    monkeypatch.setattr(reference, "SLICE", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    sliced = ops.spreading_rows(levels, slopes, 0.25)
    assert_close(sliced, whole, 1e-14)
    for a, e in zip(torch.autograd.grad(sliced, (levels, slopes), weights), expected, strict=True):
        assert_close(a, e, 1e-13)


def test_nothing_to_do() -> None:
    for shape in ((0, 150), (2, 0, 3)):
        levels = torch.zeros(shape).double().requires_grad_()
        values = [v.requires_grad_() for v in numbers()]
        out = spreading(levels, *values, 0.25)
        assert out.shape == shape
        of_levels, *of_values = torch.autograd.grad(out.sum(), (levels, *values))
        assert of_levels.shape == shape
        assert [g.item() for g in of_values] == [0] * 5


def test_layouts() -> None:
    levels = random_levels(30, 4)
    values = numbers()
    out = spreading(levels.t(), *values, 0.25)
    assert out.is_contiguous()
    assert_close(out, spreading(levels.t().contiguous(), *values, 0.25), 1e-14)
    shared = levels[:, 0].expand(3, 30).requires_grad_()
    out = spreading(shared, *values, 0.25)
    (gradient,) = torch.autograd.grad(out, shared, torch.ones(()).double().expand_as(out))
    assert_close(gradient[0], gradient[2], 1e-14)
    assert gradient[0].abs().max() > 1


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    levels, slopes = random_levels(2, 7).requires_grad_(), torch.tensor(NUMBERS).double().requires_grad_()
    torch.library.opcheck(ops.spreading_rows, (levels, slopes, 0.25), test_utils=checks)
    out = ops.spreading_rows(levels, slopes, 0.25).detach()
    given = torch.randn_like(out).requires_grad_(), levels, slopes, out, 0.25
    torch.library.opcheck(ops.spreading_backward, given, test_utils=checks)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(spreading, backend=backend, fullgraph=True, dynamic=True)
    values = [v.requires_grad_() for v in numbers()]
    compiled(random_levels(3, 20).requires_grad_(), *values, 0.25).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows, n in ((2, 30), (9, 17), (5, 64)):
            inputs = [random_levels(rows, n).requires_grad_(), *values]
            out, expected = compiled(*inputs, 0.25), spreading(*inputs, 0.25)
            assert torch.equal(out, expected)
            wanted = torch.autograd.grad(expected.square().sum(), inputs)
            for a, e in zip(torch.autograd.grad(out.square().sum(), inputs), wanted, strict=True):
                assert_close(a[None], e[None], 1e-12)


def test_float32_needs_neither_float64_nor_complex(mps_safe: type) -> None:
    levels = random_levels(2, 30, dtype=torch.float32).requires_grad_()
    inputs = [levels, *(v.requires_grad_() for v in numbers(torch.float32))]
    with mps_safe():
        first = torch.autograd.grad(spreading(*inputs, 0.25).sum(), inputs, create_graph=True)
        torch.autograd.grad(first[0].square().sum(), inputs)


def test_errors() -> None:
    levels, values = random_levels(2, 30), numbers()
    with pytest.raises(
        ValueError, match=re.escape("the slopes' numbers and level_ref must have shape (), got (2,), ()")
    ):
        spreading(levels, values[0].expand(2), *values[1:], 0.25)
    for wrong in (levels[0, 0], levels[:, :0]):
        message = f"levels must have shape (..., n) with at least one band, got {tuple(wrong.shape)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            spreading(wrong, *values, 0.25)
    with pytest.raises(TypeError, match=re.escape("levels must be float32 or float64, got torch.float16")):
        spreading(levels.half(), *values, 0.25)
    message = "must have the levels' type and device, torch.float32 on cpu, got torch.float64"
    with pytest.raises(TypeError, match=re.escape(message)):
        spreading(levels.float(), *values, 0.25)
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"erb_step must be greater than 0, got {step}"):
            spreading(levels, *values, step)
    with pytest.raises(ValueError, match=re.escape("levels and slopes must have the shapes (R, n > 0) and (5,)")):
        ops.spreading_rows(levels, torch.ones(4).double(), 0.25)
