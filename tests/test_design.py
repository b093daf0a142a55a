"""Filter design: poles that keep their digits, denominators that stay stable, feedback that stands for a polynomial."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, freqz

from tamt._arithmetic import complex_divide, complex_multiply
from tamt.design.butterworth import butterworth_lowpass
from tamt.design.gammatone import classic_gammatone, expanded_denominator, feedback_map, gammatone_betamul
from tamt.design.poles import moved_pole, pole_design, split_design, stable_denominator
from tamt.design.sections import modal_response
from tamt.design.specific_loudness import _A, _ALPHA, _ALPHA_GAINS, _GAINS, GLASBERG2002, _cubic
from tamt.scales import audfiltbw


def test_betamul() -> None:
    assert gammatone_betamul(4) == pytest.approx(1.0186, abs=1e-4)
    assert gammatone_betamul(1) == pytest.approx(1 / math.pi)
    assert gammatone_betamul(1000) == pytest.approx(math.sqrt(999 / math.pi), rel=1e-3)  # by Stirling


def test_complex_arithmetic() -> None:
    a, b = torch.randn(2, 5, 3, dtype=torch.complex128)
    for function, expected in ((complex_multiply, a * b), (complex_divide, a / b)):
        assert_close(function(torch.view_as_real(a), torch.view_as_real(b)), torch.view_as_real(expected), 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pole_at_its_design_keeps_its_digits(dtype: torch.dtype) -> None:
    decay = torch.tensor([1e-4, 3.6e-3, 0.3], dtype=torch.float64)
    frequency = torch.tensor([-4e-4, 0.123456789, -0.49], dtype=torch.float64)
    pole = torch.polar(torch.exp(-decay), 2 * math.pi * frequency).to(dtype.to_complex())
    design = split_design(pole_design(pole, decay, frequency), dtype)
    again, high, low = moved_pole(torch.view_as_real(pole), design)
    assert_close(again.double()[:, None], decay[:, None], torch.finfo(dtype).eps)
    assert (high.double() + low.double() - frequency).abs().max() < 1e-9 * torch.finfo(dtype).eps / 1e-16 * 1e-1


def test_moved_pole_is_the_pole() -> None:
    decay, frequency = torch.rand(20, dtype=torch.float64), torch.rand(20, dtype=torch.float64) - 0.5
    pole = torch.polar(torch.exp(-decay), 2 * math.pi * frequency)
    design = split_design(pole_design(pole, decay, frequency), torch.float64)
    other = pole * torch.polar(0.3 + torch.rand(20, dtype=torch.float64), 6 * torch.rand(20, dtype=torch.float64))
    decay, high, low = moved_pole(torch.view_as_real(other), design)
    rebuilt = torch.polar(torch.exp(-decay), 2 * math.pi * (high + low))
    assert_close(torch.view_as_real(rebuilt), torch.view_as_real(other), 1e-13)
    leaf = torch.view_as_real(other).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: moved_pole(p, design), leaf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pole", [0, 1e-30, 1e-4, -1e-3 + 2e-3j, 0.2j, -0.7, 0.95])
def test_a_pole_far_from_its_design(pole: complex, dtype: torch.dtype) -> None:
    """As exact as its numbers, down to 0, where its gradient is that of the pole itself."""
    decay, frequency = torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.05], dtype=torch.float64)
    origin = torch.polar(torch.exp(-decay), 2 * math.pi * frequency).to(dtype.to_complex())
    design = split_design(pole_design(origin, decay, frequency), dtype)
    leaf = torch.tensor([[complex(pole).real, complex(pole).imag]], dtype=dtype, requires_grad=True)
    decay, high, low = moved_pole(leaf, design)
    angle = 2 * math.pi * (high + low)
    rebuilt = torch.stack((torch.exp(-decay) * torch.cos(angle), torch.exp(-decay) * torch.sin(angle)), 1)
    eps = torch.finfo(dtype).eps
    assert (rebuilt - leaf).abs().max() <= 4 * eps
    for i in range(2):
        (gradient,) = torch.autograd.grad(rebuilt[0, i], leaf, retain_graph=True)
        assert (gradient - torch.eye(2, dtype=dtype)[i]).abs().max() <= 32 * eps


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
        assert torch.isfinite(gradient[:4]).all()


@pytest.mark.parametrize("n", [2, 3])
def test_classic_gammatone_is_amts(n: int) -> None:
    golden = np.load(Path(__file__).parent / "data" / "gammatone.npz")
    fs, fc = float(golden["classic_fs"]), torch.from_numpy(golden["classic_fc"])
    sections = classic_gammatone(fc, gammatone_betamul(n) * audfiltbw(fc), fs, n)
    assert sections.shape == (6, n, 6)
    decay, frequency, low, gain, other, direct = sections.unbind(-1)
    assert not any(t.any() for t in (low, other, direct))
    pole = torch.polar(torch.exp(-decay), 2 * math.pi * frequency).numpy()
    for f in range(6):
        zeros, poles = pole[f].real, np.concatenate((pole[f], pole[f].conj()))
        assert_close(
            torch.from_numpy(gain[f].prod().item() * np.poly(zeros)),
            torch.from_numpy(golden[f"classic_n{n}_b"][f]),
            1e-9,
        )
        assert_close(torch.from_numpy(np.poly(poles).real), torch.from_numpy(golden[f"classic_n{n}_a"][f]), 1e-13)


def test_classic_gammatone_is_0_db_at_its_centre() -> None:
    fc = torch.tensor([20.0, 1000, 11000, 21900], dtype=torch.float64)
    sections = classic_gammatone(fc, fc / 5, 44100, 3)
    assert modal_response(sections, fc / 44100).diagonal().abs().tolist() == pytest.approx([1] * 4, abs=1e-12)
    single = classic_gammatone(fc.float(), fc.float() / 5, 44100, 3)
    assert_within(single, sections, 1e-6 * sections.abs())


@pytest.mark.parametrize("n", [1, 4])
def test_butterworth_lowpass_is_scipys(n: int) -> None:
    cutoff = torch.tensor([20.0, 400, 9000, 21000], dtype=torch.float64)
    f = np.linspace(1, 22000, 200)
    response = modal_response(butterworth_lowpass(cutoff, 44100, n), torch.from_numpy(f) / 44100)
    for hertz, own in zip(cutoff.tolist(), response, strict=True):
        expected = freqz(*butter(2, hertz, fs=44100), f, fs=44100)[1] ** n
        assert_close(own, torch.from_numpy(expected), 1e-9)
    limit = butterworth_lowpass(torch.tensor([22050.0, 30000], dtype=torch.float64), 44100, n)
    assert torch.equal(limit[0], limit[1])
    assert torch.isfinite(limit).all()
    single = butterworth_lowpass(cutoff.float(), 44100, n)
    assert_within(single, butterworth_lowpass(cutoff, 44100, n), 5e-6 * single.abs())


def test_design_gradients() -> None:
    fc, bandwidth = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([250.0, 4000], [70.0, 500]))
    scaled = {"eps": 1e-3, "atol": 1e-9, "rtol": 1e-5}
    assert torch.autograd.gradcheck(lambda f, b: classic_gammatone(f, b, 16000, 2), (fc, bandwidth), **scaled)
    assert torch.autograd.gradcheck(lambda f: butterworth_lowpass(f, 16000, 2), (fc,), **scaled)


def test_a_bandwidth_that_would_not_decay_is_limited() -> None:
    bandwidth = torch.tensor([-10.0, 0, 1e-9, 10, math.nan], dtype=torch.float64, requires_grad=True)
    decay = classic_gammatone(torch.full((5,), 500.0, dtype=torch.float64), bandwidth, 16000, 1)[:, 0, 0]
    assert decay[:4].tolist() == pytest.approx([1e-5, 1e-5, 1e-5, 2 * math.pi * 10 / 16000])
    assert torch.isnan(decay[4])
    (gradient,) = torch.autograd.grad(decay[:4].sum(), bandwidth)
    assert torch.isfinite(gradient[:4]).all()


def test_interpolation_of_the_loudness_tables_is_that_of_scipy() -> None:
    """Within and beyond tables that rise, fall, turn and stay."""
    rng = np.random.default_rng(0)
    tables = [(_GAINS, _A), (_ALPHA_GAINS, _ALPHA), (GLASBERG2002.frequencies, GLASBERG2002.thresholds)]
    tables += [(rng.uniform(0.1, 3, n).cumsum(), rng.integers(-2, 3, n)) for n in (3, 4, 5, 9) for _ in range(25)]
    for x, y in tables:
        at = np.linspace(x[0] - 1, x[-1] + 1, 500)
        exact = PchipInterpolator(x, y, extrapolate=True)(at)
        np.testing.assert_allclose(_cubic(x, y, at), exact, rtol=0, atol=1e-13 * np.abs(exact).max())
