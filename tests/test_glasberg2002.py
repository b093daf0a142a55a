"""ExcitationPattern: bands, slopes, learning, module habits, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import assert_close
from torch import Tensor

import tamt
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.ops import spreading as operator
from tamt.ops._operator import operators

SLOPES = ("upper_slope_base", "lower_slope_base", "upper_slope_per_db", "lower_slope_per_db")
NAMES = {*SLOPES, "level_ref", "fc_erb", "erb_centers"}


def pattern(**arguments: object) -> ExcitationPattern:
    """22 bands, half an ERB apart."""
    return ExcitationPattern(**{"f_min": 500.0, "f_max": 2000.0, "erb_step": 0.5, **arguments})


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (50 + 20 * torch.randn(*shape, dtype=torch.float64)).to(dtype)


def test_bands() -> None:
    module = ExcitationPattern()
    assert module.n_erb_bands == 150
    assert module.fc_erb.shape == module.erb_centers.shape == (150,)
    low = tamt.f2erbrate(50.0)
    assert_close(module.erb_centers, low + 0.25 * torch.arange(150), 1e-7)
    assert_close(module.fc_erb, tamt.erbrate2f(low + 0.25 * torch.arange(150).double()), 1e-7, torch.float32)
    assert module.fc_erb[-2] < 15000 <= module.fc_erb[-1]
    assert module.fc_erb[0].item() == pytest.approx(50)
    assert (module.fs, module.f_min, module.f_max, module.erb_step) == (32000, 50.0, 15000.0, 0.25)
    assert pattern().n_erb_bands == 22
    # A range of a whole number of steps has no band more for rounding's sake.
    f_max = float(tamt.erbrate2f(torch.tensor(tamt.f2erbrate(50.0) + 30, dtype=torch.float64)))
    assert ExcitationPattern(f_max=f_max, erb_step=0.1).n_erb_bands == 301
    assert ExcitationPattern(f_min=0, erb_step=100).n_erb_bands == 2


@pytest.mark.parametrize(
    ("level", "upper", "lower"),
    [(40, 34.4, 15.0), (60, 27.0, 11.0), (80, 19.6, 10.0), (100, 12.2, 10.0), (120, 10, 10)],
)
@pytest.mark.parametrize("learnable", [False, True])
def test_slopes(level: float, upper: float, lower: float, learnable: bool) -> None:
    slopes = ExcitationPattern(learnable=learnable).get_spreading_slopes(level)
    assert all(type(s) is float for s in slopes)
    assert slopes == pytest.approx((upper, lower), rel=1e-6)


@pytest.mark.parametrize("level", [40.0, 60.0, 80.0, 100.0])
def test_one_band_falls_off_by_its_slopes(level: float) -> None:
    module = ExcitationPattern()
    levels = torch.full((150,), -math.inf)
    levels[70] = level
    out = module(levels)
    upper, lower = module.get_spreading_slopes(level)
    distance = 0.25 * (torch.arange(150) - 70)
    loss = torch.where(distance >= 0, upper * distance, -lower * distance)
    expected = torch.where(loss <= 50, level - loss, -math.inf)
    torch.testing.assert_close(out, expected, rtol=0, atol=6e-5)
    assert out[70] == level


@pytest.mark.parametrize("name", SLOPES)
def test_learning_recovers_a_number(name: str) -> None:
    target, module = pattern(), pattern(learnable=True)
    levels = torch.linspace(30, 64, 22) + noise(8, 22) - 50
    wanted = target(levels)
    right = getattr(target, name).item()
    learnt = getattr(module, name)
    with torch.no_grad():
        learnt.mul_(1.2)
    optimiser = torch.optim.LBFGS([learnt], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = (module(levels) - wanted).square().mean()
        error.backward()
        return error

    before = loss().item()
    optimiser.step(loss)
    assert before > 1e-3
    assert loss().item() < 1e-6 * before
    assert learnt.item() == pytest.approx(right, rel=1e-3)


@pytest.mark.parametrize("learnable", [False, True])
def test_tensors(learnable: bool) -> None:
    module = pattern(learnable=learnable)
    assert set(module.state_dict()) == NAMES
    assert {name for name, _ in module.named_parameters()} == (set(SLOPES) if learnable else set())
    assert all(getattr(module, name).shape == () for name in (*SLOPES, "level_ref"))
    assert module.level_ref.item() == 60
    assert module.learnable is learnable


def test_level_ref_is_used() -> None:
    """A model with its reference 20 dB up treats levels as one without treats those 20 dB down."""
    module, moved, levels = pattern(), pattern(), noise(3, 22)
    moved.level_ref += 20
    assert_close(moved(levels + 20), module(levels) + 20, 1e-6)
    assert (moved(levels) - module(levels)).abs().max() > 0.1


def test_double_is_double() -> None:
    module, levels = pattern().double(), noise(2, 22, dtype=torch.float64)
    with torch.no_grad():
        module.upper_slope_per_db.fill_(0.37)
        module.lower_slope_per_db.fill_(0.2)
    numbers = [torch.tensor(v).double() for v in (27.0, 11.0, 0.0, 0.0, 60.0)]
    numbers[2] += 0.37
    numbers[3] += 0.2
    assert_close(module(levels), operator.spreading(levels, *numbers, 0.5), 1e-15)
    # The rounding of 0.37 to float32 is all that another module lacks.
    assert 0 < (pattern()(levels) - module(levels)).abs().max() < 1e-6


@pytest.mark.parametrize("level", [-200.0, -26.0206, 200.0])
def test_finite_gradients(level: float) -> None:
    module = ExcitationPattern(learnable=True)
    levels = torch.full((2, 150), level, requires_grad=True)
    out = module(levels)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (levels, *module.parameters()))


def test_one_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference serves the CPU, and a forward pass is one call of it."""
    calls = []
    original = operator.reference.spreading
    monkeypatch.setattr(operators["spreading"], "forward", lambda *a: calls.append(a) or original(*a))
    pattern()(noise(2, 3, 22))
    assert len(calls) == 1


def test_repr() -> None:
    assert repr(pattern()) == (
        "ExcitationPattern(22 bands, fs=32000, f_min=500.0, f_max=2000.0, erb_step=0.5, learnable=False, dtype=None)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": 0}, "fs must be a positive number of Hz, got 0"),
        ({"fs": math.inf}, "fs must be a positive number of Hz, got inf"),
        ({"fs": 16000}, "f_max must not exceed fs/2 = 8000 Hz, got 15000.0 Hz"),
        ({"f_min": -1.0}, "f_min and f_max must satisfy 0 <= f_min < f_max < inf, got -1.0 and 15000.0 Hz"),
        ({"f_min": 15000.0}, "f_min and f_max must satisfy 0 <= f_min < f_max < inf, got 15000.0 and 15000.0 Hz"),
        ({"f_max": math.nan}, "f_min and f_max must satisfy 0 <= f_min < f_max < inf, got 50.0 and nan Hz"),
        ({"erb_step": 0.0}, "erb_step must be positive and finite, got 0.0"),
        ({"erb_step": -0.25}, "erb_step must be positive and finite, got -0.25"),
        ({"erb_step": math.nan}, "erb_step must be positive and finite, got nan"),
    ],
)
def test_value_errors(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ExcitationPattern(**arguments)


def test_errors_of_the_call() -> None:
    module = ExcitationPattern()
    for shape in ((149,), (2, 151), (150, 2), ()):
        with pytest.raises(ValueError, match=re.escape(f"E must have shape (..., 150), got {shape}")):
            module(torch.zeros(shape))
    for level in (math.nan, -math.inf):
        with pytest.raises(ValueError, match=f"level_db must be finite, got {level}"):
            module.get_spreading_slopes(level)
