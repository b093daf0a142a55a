"""Moore2016ExcitationPattern: AMT's numbers, spread of tones, learning, module habits, torch.compile, errors."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tamt
from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.ops import roex as operators
from tamt.reference import roex as reference

GOLDEN = np.load(Path(__file__).parent / "data" / "moore2016_excitation.npz")


def pattern(**arguments: object) -> Moore2016ExcitationPattern:
    """In float64 unless said otherwise."""
    return Moore2016ExcitationPattern(**{"dtype": torch.float64, **arguments})


def few(**arguments: object) -> Moore2016ExcitationPattern:
    """Twelve channels, quick to compute."""
    return pattern(**{"erb_lower": 3.0, "erb_upper": 36.0, "erb_step": 3.0, **arguments})


def sounds(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Components in no order, 20 to 90 dB, padding among them."""
    f = 50 * 200 ** torch.rand(*shape, dtype=torch.float64)
    f[..., 2::7] = 0
    return f.to(dtype), (20 + 70 * torch.rand(*shape, dtype=torch.float64)).to(dtype)


def tone(hertz: float, level: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([hertz], dtype=torch.float64), torch.tensor([level], dtype=torch.float64)


def amt(single: bool) -> tuple[Tensor, Tensor]:
    f, level = torch.from_numpy(GOLDEN["f"]), torch.from_numpy(GOLDEN["L"])
    return (f.float(), level.float()) if single else (f, level)


@pytest.mark.parametrize("recur", [True, False])
def test_amt(recur: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the matrix of frequencies that come up in many rows.

    AMT leaves out what a component passes on to more than five times its frequency; all but two of the channels do not
    notice.
    """
    if not recur:
        monkeypatch.setattr(reference, "_recurring", lambda f: None)
    error = np.abs(pattern(spreading_limit_octaves=10)(*amt(False)).numpy() - GOLDEN["E"])[GOLDEN["E"] > 0]
    assert error.size > 1000
    assert error.max() < 2e-6
    assert (error > 1e-6).sum() <= 2


def test_amt_of_shared_frequencies() -> None:
    """AMT's cases as levels on all their frequencies."""
    f, level = amt(False)
    shared = f[f > 0].unique()
    levels = torch.full((len(f), len(shared)), -math.inf, dtype=torch.float64)
    for case, count in enumerate(GOLDEN["count"]):
        levels[case, torch.searchsorted(shared, f[case, :count])] = level[case, :count]
    out = pattern(spreading_limit_octaves=10)(shared, levels)
    assert np.abs(out.numpy() - GOLDEN["E"])[GOLDEN["E"] > 0].max() < 2e-6


def test_amt_levels_per_erb() -> None:
    f, level = amt(False)
    for case, count in enumerate(GOLDEN["count"]):
        intensity = 10 ** (level[case : case + 1, :count] / 10)
        power = operators.roex_level_rows(f[case : case + 1, :count], intensity, 1024.0)
        assert np.abs(10 * np.log10(power[0].numpy()) - GOLDEN["X"][case, :count]).max() < 5e-4


def test_amt_channels() -> None:
    module = pattern()
    np.testing.assert_allclose(module.erb_channels.numpy(), GOLDEN["cam"], rtol=1e-14)
    np.testing.assert_allclose(module.fc_channels.numpy(), GOLDEN["fc"], rtol=1e-12)
    assert module.n_channels == 150
    assert module.p1000 == pytest.approx(30.2013, abs=1e-4)
    erb = 24.673 * (0.004368 * GOLDEN["fc"] + 1)
    np.testing.assert_allclose(module.p_channels.numpy(), 4 * GOLDEN["fc"] / erb, rtol=1e-12)


def test_float32() -> None:
    exact = pattern()(*amt(False))
    single = Moore2016ExcitationPattern()(*amt(True))
    assert single.dtype == torch.float32
    loud = exact > 0
    assert loud.sum() > 1000
    assert_within(single[loud], exact[loud], 1e-4)


def test_a_loud_tone_spreads_upwards() -> None:
    """AMT, 1 kHz at 90 dB: -21.8 dB re peak 4 Cam above, -73.7 dB below."""
    centre = tamt.f2erbrate(1000.0)
    module = pattern(erb_lower=centre - 4, erb_upper=centre + 4.1, erb_step=4, spreading_limit_octaves=10)
    below, peak, above = module(*tone(1000.0, 90.0)).tolist()
    assert peak == pytest.approx(90, abs=1e-9)
    assert above - peak == pytest.approx(-21.8, abs=0.05)
    assert below - peak == pytest.approx(-73.7, abs=0.1)


def test_a_tone_is_seen_at_its_own_level() -> None:
    for hertz in (100.0, 1000, 8000):
        erb = tamt.f2erbrate(hertz)
        module = pattern(erb_lower=erb, erb_upper=erb + 1)
        assert module.fc_channels[0].item() == pytest.approx(hertz)
        for level in (0.0, 40, 100):
            assert module(*tone(module.fc_channels[0].item(), level))[0].item() == pytest.approx(level, abs=1e-9)


def test_monotone_in_level() -> None:
    freqs, levels = sounds(30)
    levels = levels + 10 * torch.arange(-3, 4, dtype=torch.float64)[:, None]
    out = pattern()(freqs.expand(7, 30), levels)
    assert (out.diff(dim=0) > 0).all()


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.1, 20))
def test_more_of_one_component_is_never_less(seed: int, step: float) -> None:
    torch.manual_seed(seed)
    freqs, levels = sounds(9)
    louder = levels.clone()
    louder[seed % 9] += step
    module = few()
    assert (module(freqs, louder) >= module(freqs, levels) - 1e-9).all()


def test_components_far_apart_add_up() -> None:
    """As powers; the level of one does not reach the slopes of the other."""
    module = pattern(spreading_limit_octaves=10)
    low, high = tone(100.0, 70), tone(8000.0, 60)
    both = module(torch.cat((low[0], high[0])), torch.cat((low[1], high[1])))
    apart = [10 ** (module(*one) / 10) for one in (low, high)]
    assert (both - 10 * torch.log10(apart[0] + apart[1])).abs().max() < 1e-6
    close = module(*(torch.cat((a, b)) for a, b in zip(low, tone(110.0, 70), strict=True)))
    alone = 10 ** (module(*tone(100.0, 70)) / 10) + 10 ** (module(*tone(110.0, 70)) / 10)
    assert (close - 10 * torch.log10(alone)).abs().max() > 0.5


@pytest.mark.parametrize("factor", [-0.5, 0.0, 0.35, 1.0, 1.5])
def test_level_dependence(factor: float) -> None:
    """Clamped to [0, 1]; without it the pattern of a tone moves as a whole."""
    module = few(learnable=True)
    with torch.no_grad():
        module.level_dep_factor.fill_(factor)
    soft, loud = module(*tone(1000.0, 50)), module(*tone(1000.0, 90))
    clamped = few()
    clamped.level_dep_factor.fill_(min(max(factor, 0), 1))
    assert torch.equal(loud, clamped(*tone(1000.0, 90)))
    heard = soft > -60
    assert heard.sum() > 3
    assert ((loud - soft - 40).abs()[heard].max() < 1e-6) == (factor <= 0)


def test_learning_recovers_the_factor() -> None:
    target, module = few(), few(learnable=True)
    target.level_dep_factor.fill_(0.27)
    freqs, levels = sounds(8, 12)
    wanted = target(freqs, levels)
    optimiser = torch.optim.LBFGS(module.parameters(), lr=0.5, max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = (module(freqs, levels) - wanted).square().mean()
        error.backward()
        return error

    assert loss() > 1
    optimiser.step(loss)
    assert module.level_dep_factor.item() == pytest.approx(0.27, abs=1e-4)


def test_gradcheck() -> None:
    module = few(learnable=True)
    freqs = torch.tensor([[300.0, 480, 1000, 0, 4100], [700, 0, 0, 650, 90]], dtype=torch.float64)
    levels = torch.tensor([[60.0, 75, 50, 10, 40], [85, 0, 0, 70, 66]], dtype=torch.float64, requires_grad=True)
    factor = module.level_dep_factor.detach().clone().requires_grad_()

    def function(scale: Tensor, levels: Tensor, factor: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"level_dep_factor": factor}, (freqs * scale, levels))

    operands = torch.ones_like(freqs).requires_grad_(), levels, factor
    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


def test_shared_frequencies() -> None:
    """The same as when each row is given them; they may change, in place as well, and so may the limit."""
    freqs, levels = sounds(20)[0], sounds(2, 3, 20)[1]
    levels[..., ::3] = -math.inf
    module = few()
    for _ in range(2):
        out = module(freqs, levels)
        assert out.shape == (2, 3, 12)
        assert_within(out, module(freqs.expand(2, 3, 20), levels), 1e-9)
        freqs *= 1.1
        module.spreading_limit_octaves = 1.0
    for lead in ((0,), (2, 0), (1,)):
        assert module(freqs, levels.new_zeros(*lead, 20)).shape == (*lead, 12)
    assert (module(freqs[:0], levels[..., :0]) == -120).all()
    with pytest.raises(ValueError, match=re.escape("freqs must not exceed 100000 Hz, got 2e+06 Hz")):
        module(torch.full_like(freqs, 2e6), levels)


def test_slices_are_one() -> None:
    freqs, levels = sounds(40, 60)
    module = pattern()
    whole = module(freqs, levels)
    parts = [module(f, level) for f, level in zip(freqs.split(7), levels.split(7), strict=True)]
    assert_close(torch.cat(parts), whole, 1e-13)


@pytest.mark.parametrize("shared", [False, True])
def test_excitation_is_the_level(shared: bool) -> None:
    """As a ratio, of intensities, without the floor; of frequencies in rows and of those that rows share."""
    freqs, levels = sounds(2, 3, 20)
    freqs, module = freqs[0, 0] if shared else freqs, few(learnable=True)
    intensity = 10 ** (levels / 10)
    expected = 10 ** (module(freqs, levels).detach() / 10) - 1e-12
    out = module.excitation(freqs, intensity)
    assert out.shape == (2, 3, 12)
    some = expected > 1e-3
    assert_within(out.detach()[some] / expected[some], torch.ones_like(expected[some]), 1e-11)
    faint = module.excitation(freqs, 1e-20 * intensity)
    assert (faint[expected > 1] > 0).all()
    assert (faint <= 1e-20 * out * (1 + 1e-12)).all()  # filters are steepest at low levels


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_excitation_at_silence(dtype: torch.dtype, shared: bool) -> None:
    """Exactly 0 without components; the slope of a channel along an intensity is the weight of its filter there."""
    module = few(dtype=dtype, learnable=True)
    freqs = torch.tensor([0.0, 200, 1000, 3000], dtype=dtype)
    intensity = torch.zeros(3, 4, dtype=dtype)
    intensity[2, 2], intensity[:, 0] = 1e6, math.nan  # padding may hold anything
    intensity.requires_grad_()
    out = module.excitation(freqs if shared else freqs.expand(3, 4), intensity)
    assert not out[:2].any()
    assert (out[2] > 0).any()
    gradient, of_factor = torch.autograd.grad(out.sum(), (intensity, module.level_dep_factor))
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(of_factor)
    assert not gradient[:, 0].any()
    # The high-frequency sides of the filters, of which a component at 3 kHz sees those of the channels below.
    fc, p = module.fc_channels.double(), module.p_channels.double()
    below = fc <= 3000
    u = (p * (3000 - fc) / fc)[below]
    wanted = ((1 + u) * torch.exp(-u))[fc[below] >= 3000 / 16].sum()
    assert gradient[0, 3] >= wanted * (1 - 1e-5)
    assert gradient[0, 3] <= wanted + (~below).sum()


def test_excitation_keeps_nan_in_its_row() -> None:
    freqs, levels = sounds(3, 20)
    intensity, module = 10 ** (levels / 10), few()
    for hertz in (freqs, freqs[0]):
        clean = module.excitation(hertz, intensity)
        for wrong in (math.nan, math.inf):
            broken = intensity.clone()
            broken[1, 3] = wrong
            out = module.excitation(hertz, broken)
            assert torch.isnan(out[1]).all()
            assert torch.equal(out[::2], clean[::2])
    with pytest.raises(ValueError, match=re.escape("freqs and intensity must have the same shape (..., C), or the")):
        module.excitation(freqs, intensity[:, 1:])
    with pytest.raises(TypeError, match="intensity"):
        module.excitation(freqs, intensity.long())


@pytest.mark.parametrize("shared", [False, True])
def test_gradcheck_of_excitation(shared: bool) -> None:
    module = few(learnable=True)
    freqs = torch.tensor([[300.0, 480, 1000, 0, 4100], [700, 0, 0, 650, 90]], dtype=torch.float64)
    freqs = freqs[0] if shared else freqs
    logs = torch.tensor([[2.0, 7.5, 5, 1, 4], [8.5, 0, 3, 7, 6.6]], dtype=torch.float64, requires_grad=True)
    factor = module.level_dep_factor.detach().clone().requires_grad_()

    def function(scale: Tensor, logs: Tensor, factor: Tensor) -> Tensor:
        twin = copy.copy(module)
        twin.forward = twin.excitation
        named = {"level_dep_factor": factor}
        return torch.func.functional_call(twin, named, (freqs * scale, 10**logs)).log1p()

    operands = torch.ones_like(freqs).requires_grad_(), logs, factor
    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


def test_silence() -> None:
    for dtype in (torch.float32, torch.float64):
        module = few(dtype=dtype, learnable=True)
        freqs = torch.zeros(2, 5, dtype=dtype, requires_grad=True)
        levels = torch.zeros(2, 5, dtype=dtype, requires_grad=True)
        out = module(freqs, levels)
        torch.testing.assert_close(out.detach(), torch.full((2, 12), -120, dtype=dtype))
        out.sum().backward()
        assert not freqs.grad.any()
        assert not levels.grad.any()
        assert module.level_dep_factor.grad == 0


def test_nan_stays_in_its_row() -> None:
    freqs, levels = sounds(3, 20)
    module = few()
    clean = module(freqs, levels)
    levels[1, 3] = math.nan
    out = module(freqs, levels)
    assert torch.isnan(out[1]).all()
    assert torch.equal(out[::2], clean[::2])
    shared = module(freqs[0], levels)
    assert torch.isnan(shared[1]).all()
    assert torch.isfinite(shared[::2]).all()
    levels[1, 2] = levels[1, 3] = 0
    freqs[1, 3], levels[1, 2] = 0, math.nan  # padding may hold anything
    assert torch.isfinite(module(freqs, levels)).all()


@pytest.mark.parametrize("learnable", [False, True])
def test_compile_of_shared_frequencies(learnable: bool) -> None:
    """One graph for every number of rows, forward and backward."""
    torch._dynamo.reset()
    module = few(learnable=learnable)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    freqs = sounds(30)[0]
    compiled(freqs, sounds(2, 3, 30)[1].requires_grad_()).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        levels = sounds(4, 5, 30)[1]
        levels[..., ::4] = -math.inf
        inputs = levels.requires_grad_(), *module.parameters()
        outs = compiled(freqs, levels), module(freqs, levels)
        assert_close(outs[0].detach(), outs[1].detach(), 1e-12)
        weights = torch.randn_like(outs[0])
        for a, e in zip(*(torch.autograd.grad(out, inputs, weights) for out in outs), strict=True):
            assert_within(a, e, 1e-9 * e.abs().max())


def test_export_of_shared_frequencies() -> None:
    """Any number of rows, also as many as there are components."""
    pattern, freqs = tamt.Moore2016ExcitationPattern(), torch.linspace(50, 3000, 60)
    levels = 50 + 10 * torch.randn(3, 60)
    rows = {0: torch.export.Dim("rows")}
    exported = torch.export.export(pattern, (freqs, levels), dynamic_shapes=(None, rows)).module()
    for count in (2, 60, 61):
        levels = 50 + 10 * torch.randn(count, 60)
        assert_within(exported(freqs, levels), pattern(freqs, levels), 1e-4)


def test_a_changed_limit_is_followed() -> None:
    freqs, levels = torch.linspace(50, 3000, 40), 50 + 10 * torch.randn(9, 40)
    pattern = tamt.Moore2016ExcitationPattern()
    pattern(freqs, levels)
    pattern.spreading_limit_octaves = 0.5
    expected = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=0.5)(freqs, levels)
    assert torch.equal(pattern(freqs, levels), expected)


@pytest.mark.parametrize("count", [30, 200])
def test_float32_needs_neither_float64_nor_complex(count: int, mps_safe: type) -> None:
    module = few(learnable=True, dtype=torch.float32)
    freqs = (15.625 * torch.arange(1.0, count + 1)).requires_grad_()
    levels = (60 * torch.rand(count)).requires_grad_()
    with mps_safe():
        out = module(freqs, levels)
    with mps_safe():
        torch.autograd.grad(out.sum(), (freqs, levels, *module.parameters()))


def test_channels_and_repr() -> None:
    module = Moore2016ExcitationPattern(2.0, 3.0, 0.4)
    assert module.erb_channels.tolist() == pytest.approx([2, 2.4, 2.8])
    assert module.n_channels == 3
    assert Moore2016ExcitationPattern(1.0, 1.3, 0.1).n_channels == 4
    assert Moore2016ExcitationPattern(1.0, 2.0, 5.0).n_channels == 1
    assert "3 channels 2 ... 3 ERB in steps of 0.4, spreading_limit_octaves=4" in repr(module)
    assert not module.learnable
    assert module.level_dep_factor.item() == pytest.approx(0.35)


def test_limit_of_spreading() -> None:
    loud = tone(1000.0, 100)
    near, far = pattern(spreading_limit_octaves=1), pattern(spreading_limit_octaves=math.inf)
    octaves = torch.log2(near.fc_channels / 1000).abs()
    out = near(*loud)
    assert_close(out[octaves < 1], far(*loud)[octaves < 1], 1e-12)
    assert (out[octaves > 1] + 120).abs().max() < 1e-6
    assert (far(*loud)[octaves > 1] > -100).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"erb_lower": 39.0}, "0 < erb_lower < erb_upper, got 39.0 and 39.0"),
        ({"erb_lower": 0.0}, "0 < erb_lower < erb_upper, got 0.0 and 39.0"),
        ({"erb_upper": math.nan}, "0 < erb_lower < erb_upper, got 1.75 and nan"),
        ({"erb_upper": math.inf}, "0 < erb_lower < erb_upper, got 1.75 and inf"),
        ({"erb_step": 0}, "erb_step must be a positive number, got 0"),
        ({"erb_step": -0.25}, "erb_step must be a positive number, got -0.25"),
        ({"spreading_limit_octaves": 0}, "spreading_limit_octaves must be positive, got 0"),
        ({"spreading_limit_octaves": math.nan}, "spreading_limit_octaves must be positive, got nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Moore2016ExcitationPattern(**arguments)


def test_what_a_graph_cannot_refuse_is_nan() -> None:
    torch._dynamo.reset()
    freqs, levels = sounds(4, 3, 20)
    freqs[1, 0, 4] = 1e6
    wrong = torch.isnan(torch.compile(few(), backend="eager", fullgraph=True)(freqs, levels)).any(-1)
    assert wrong.nonzero().tolist() == [[1, 0]]


def test_wrong_components() -> None:
    module, (freqs, levels) = few(), sounds(5)
    with pytest.raises(ValueError, match=re.escape("(C,) and (..., C), got (5,) and (4,)")):
        module(freqs, levels[1:])
    with pytest.raises(ValueError, match=re.escape("freqs must not exceed 100000 Hz, got 2e+06 Hz")):
        module(torch.full_like(freqs, 2e6), levels)
