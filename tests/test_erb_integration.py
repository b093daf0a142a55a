"""ERBIntegration: its definition, learning, tables kept, module habits, errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within

import tamt
from tamt.excitation.erb_integration import ERBIntegration
from tamt.spectra.multiresolution import MultiResolutionFFT

both = pytest.mark.parametrize("learnable", [False, True])
FREQS = torch.arange(1025, dtype=torch.float64) * 15.625
FLOOR = 10 * math.log10(1e-12 / 20e-6**2)


def spectrum(*lead: int, bins: int = 1025, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 1e-6 * (0.1 + torch.rand(*lead, bins, dtype=torch.float64)).to(dtype)


def small(**arguments: object) -> ERBIntegration:
    """Twelve bands on 40 bins."""
    return ERBIntegration(**{"fs": 2000, "f_min": 100.0, "f_max": 900.0, "erb_step": 1.0, **arguments})


SMALL_FREQS = torch.linspace(0, 1000, 41, dtype=torch.float64)


def by_loops(psd: np.ndarray, freqs: np.ndarray, module: ERBIntegration, scale: float = 1.0) -> np.ndarray:
    """Levels of the fixed module, with weights 1."""
    low, high = (21.366 * math.log10(4.368e-3 * f + 1) for f in (module.f_min, module.f_max))
    levels = []
    for k in range(math.ceil((high - low) / module.erb_step) + 1):
        centre = (10 ** ((low + k * module.erb_step) / 21.366) - 1) / 4.368e-3
        width = scale * 24.673 * (4.368 * centre / 1000 + 1)
        power = psd[..., np.abs(freqs - centre) <= width / 2].sum(-1) * (freqs[1] - freqs[0])
        levels.append(10 * np.log10(np.maximum(power, 1e-12) / 20e-6**2))
    return np.stack(levels, -1)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"erb_step": 0.5},
        {"f_min": 20.0, "f_max": 16000.0},
        {"f_min": 0.0, "f_max": 1000.0, "erb_step": 0.1},
        {"f_min": 100.0, "f_max": 101.0},
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.3, 3.0])
def test_definition(arguments: dict[str, float], scale: float) -> None:
    module, psd = ERBIntegration(**arguments), spectrum(2, 3)
    module.bandwidth_scale.fill_(scale)
    levels = module(psd, FREQS)
    expected = torch.from_numpy(by_loops(psd.numpy(), FREQS.numpy(), module, scale))
    assert levels.shape == (2, 3, module.n_erb_bands)
    assert_close(levels, expected, 1e-12)
    assert_close(module(psd.float(), FREQS.float()), expected, 1e-6, torch.float32)


def test_bands() -> None:
    module = ERBIntegration()
    assert module.n_erb_bands == 150
    centres = module.get_erb_frequencies()
    assert centres is module.fc_erb
    steps = tamt.f2erbrate(centres.double()).diff()
    assert_close(steps, torch.full((149,), 0.25, dtype=torch.float64), 2e-5)
    assert centres[0].item() == pytest.approx(50)
    assert centres[-2] < 15000 <= centres[-1]
    assert_close(module.get_erb_bandwidths(), 24.673 * (4.368 * centres / 1000 + 1), 1e-6)
    # A whole number of steps ends at f_max.
    whole = ERBIntegration(f_min=tamt.erbrate2f(2.0), f_max=tamt.erbrate2f(2.7), erb_step=0.1)
    assert whole.n_erb_bands == 8
    learnable = ERBIntegration(learnable=True)
    assert {name for name, _ in learnable.named_parameters()} == {"integration_weights", "bandwidth_scale"}
    assert sum(p.numel() for p in learnable.parameters()) == 151
    keys = {"integration_weights", "bandwidth_scale", "fc_erb"}
    assert set(module.state_dict()) == set(learnable.state_dict()) == keys


def overlaps(freqs: np.ndarray, module: ERBIntegration, scale: float) -> np.ndarray:
    """How much of each bin lies in each band: (n, n_bins)."""
    df = freqs[1] - freqs[0]
    centres = module._exact("centres", torch.float64).numpy()[:, None]
    half = scale * 24.673 * (4.368e-3 * centres + 1) / 2
    low, high = np.maximum(freqs - df / 2, centres - half), np.minimum(freqs + df / 2, centres + half)
    return np.maximum(high - low, 0) / df


@pytest.mark.parametrize("scale", [1.0, 0.13, 3.7, 0.05, 20.0])
def test_learnable_bands_cut_their_bins(scale: float) -> None:
    module, psd = ERBIntegration(learnable=True), spectrum(4)
    with torch.no_grad():
        module.bandwidth_scale.fill_(scale)
        module.integration_weights.copy_(torch.linspace(0.5, 2, 150))
    power = psd.numpy() @ overlaps(FREQS.numpy(), module, min(max(float(np.float32(scale)), 0.1), 10)).T * 15.625
    power *= module.integration_weights.detach().double().numpy()
    expected = torch.from_numpy(10 * np.log10(np.maximum(power, 1e-12) / 20e-6**2))
    assert_close(module(psd, FREQS).detach(), expected, 1e-7)
    single = module(psd.float(), FREQS.float()).detach()
    assert_close(single, expected, 5e-6, torch.float32)


def test_learnable_is_close_to_fixed_on_noise() -> None:
    psd, freqs = MultiResolutionFFT()(0.01 * torch.randn(4 * 32000))
    fixed, learnable = ERBIntegration(), ERBIntegration(learnable=True)
    difference = (learnable(psd.mean(1), freqs) - fixed(psd.mean(1), freqs)).abs()[0]
    assert difference.max() < 1.5
    assert difference[fixed.fc_erb > 1000].max() < 0.5


def test_white_noise_level() -> None:
    """A flat density S gives S ERB(f)."""
    module = ERBIntegration(learnable=True)
    levels = module(torch.full((1025,), 1e-7, dtype=torch.float64), FREQS).detach()
    inside = (module.fc_erb < 15000) & (module.fc_erb > 50)
    expected = 10 * torch.log10(1e-7 * module.get_erb_bandwidths().double() / 20e-6**2)
    assert_within(levels[inside], expected[inside], 1e-5)


def test_wider_and_heavier_bands_hold_more() -> None:
    module = small(learnable=True)
    module(spectrum(2, bins=41), SMALL_FREQS).sum().backward()
    assert all((p.grad > 0).all() for p in module.parameters())


def test_learning_recovers_bandwidth_and_weights() -> None:
    psd = spectrum(16, bins=41)
    target, module = small(learnable=True).double(), small(learnable=True).double()
    with torch.no_grad():
        target.bandwidth_scale.fill_(1.7)
        target.integration_weights.copy_(torch.linspace(0.7, 1.4, target.n_erb_bands))
    wanted = target(psd, SMALL_FREQS).detach()
    optimiser = torch.optim.LBFGS(module.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        error = (module(psd, SMALL_FREQS) - wanted).square().mean()
        error.backward()
        return error

    before = loss().item()
    optimiser.step(loss)
    assert before > 1
    assert loss().item() < 1e-6 * before
    assert module.bandwidth_scale.item() == pytest.approx(1.7, rel=1e-3)


@both
def test_silence(learnable: bool) -> None:
    module = ERBIntegration(learnable=learnable)
    psd = torch.zeros(2, 1025, requires_grad=True)
    levels = module(psd, FREQS)
    assert_close(levels.detach(), torch.full((2, 150), FLOOR), 1e-6)
    gradients = torch.autograd.grad(levels.sum(), (psd, *module.parameters()))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_kept_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed once for an unchanged grid, anew for another or a changed one, and for another bandwidth."""
    calls = []
    original = ERBIntegration._table
    monkeypatch.setattr(
        ERBIntegration, "_table", lambda self, *a, **options: calls.append(self) or original(self, *a, **options)
    )
    module, psd, freqs = ERBIntegration(), spectrum(2), FREQS.clone()
    first = module(psd, freqs)
    assert torch.equal(module(psd, freqs), first)
    assert len(calls) == 1
    freqs.mul_(2)
    doubled = module(psd, freqs)
    assert len(calls) == 2
    assert torch.equal(doubled, ERBIntegration()(psd, 2 * FREQS))
    module.bandwidth_scale.fill_(2)
    wider = module(psd, freqs)
    assert (wider > doubled).any()
    assert torch.equal(module.cpu()(psd, freqs), wider)
    moved = module.double()
    assert torch.equal(moved(psd, freqs), wider)
    with torch.inference_mode():
        assert torch.equal(moved(psd, freqs), wider)
        assert torch.equal(moved(psd, 2 * FREQS), wider)
    frozen = ERBIntegration(learnable=True).requires_grad_(False)
    before = frozen(psd, freqs)
    frozen.bandwidth_scale.mul_(1.5)
    assert (frozen(psd, freqs) > before).all()


@both
def test_what_a_graph_cannot_refuse_has_no_level(learnable: bool) -> None:
    torch._dynamo.reset()
    module, psd = small(learnable=learnable), spectrum(2, 3, bins=41)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.isfinite(compiled(psd, SMALL_FREQS)).all()
    assert compiled(-psd, SMALL_FREQS).isnan().all()
    assert compiled(psd, SMALL_FREQS**2).isnan().all()


def test_repr() -> None:
    assert repr(ERBIntegration()) == (
        "ERBIntegration(150 bands, fs=32000, f_min=50.0, f_max=15000.0, erb_step=0.25, learnable=False, dtype=None)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": -1}, "fs must be a positive number of Hz, got -1"),
        ({"erb_step": 0}, "erb_step must be positive and finite, got 0"),
        ({"erb_step": math.nan}, "erb_step must be positive and finite, got nan"),
        ({"f_min": 1000, "f_max": 100}, "must satisfy 0 <= f_min < f_max < inf, got 1000 and 100 Hz"),
        ({"f_min": 100, "f_max": 100}, "must satisfy 0 <= f_min < f_max < inf, got 100 and 100 Hz"),
        ({"f_min": -1}, "must satisfy 0 <= f_min < f_max < inf, got -1 and 15000.0 Hz"),
        ({"f_max": math.inf}, "must satisfy 0 <= f_min < f_max < inf, got 50.0 and inf Hz"),
    ],
)
def test_value_errors(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ERBIntegration(**arguments)


def test_wrong_spectra() -> None:
    module = ERBIntegration()
    shapes = "psd must have shape (..., n_bins) for freqs of shape (n_bins,), got (2, 1024) and (1025,)"
    with pytest.raises(ValueError, match=re.escape(shapes)):
        module(spectrum(2, bins=1024), FREQS)
    with pytest.raises(ValueError, match=re.escape("psd must have shape (..., n_bins)")):
        module(torch.tensor(1.0), FREQS)
    with pytest.raises(ValueError, match=re.escape("freqs must have shape (n_bins,) with at least 2 bins, got (1, ")):
        module(spectrum(2), FREQS[None])
    with pytest.raises(ValueError, match=re.escape("freqs must have shape (n_bins,) with at least 2 bins, got (1,)")):
        module(spectrum(2, bins=1), FREQS[:1])
    for freqs in (FREQS.flip(0), FREQS**2, torch.zeros(1025), torch.full((1025,), math.nan)):
        with pytest.raises(ValueError, match="freqs must be evenly spaced and rising, got steps from "):
            module(spectrum(2), freqs)
    negative = spectrum(2)
    negative[1, 7] = -3
    with pytest.raises(ValueError, match="psd must not be negative, got -3"):
        module(negative, FREQS)
