"""GammatoneFilterbank: AMT's numbers, float32 accuracy, learning, streaming, torch.compile, module habits, errors."""

from __future__ import annotations

import copy
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close
from scipy.signal import freqz

import tamt
from tamt import GammatoneFilterbank

GOLDEN = np.load(Path(__file__).parent / "data" / "gammatone.npz")
FS = 16000
BOTH = ("sos", "poly")
both = pytest.mark.parametrize("implementation", BOTH)


def bank(implementation: str = "sos", **arguments: object) -> GammatoneFilterbank:
    return GammatoneFilterbank([150, 700, 3000], FS, **{"implementation": implementation, **arguments})


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("signal", ["impulse", "noise"])
def test_amt(n: int, signal: str) -> None:
    x, expected = torch.from_numpy(GOLDEN[f"x_{signal}"]), torch.from_numpy(GOLDEN[f"n{n}_y_{signal}"])
    filters = GammatoneFilterbank(GOLDEN["fc"], float(GOLDEN["fs"]), n, dtype=torch.float64)
    assert_close(filters(x), expected, 1e-10)
    assert_close(filters.poles[:, None], torch.from_numpy(GOLDEN[f"n{n}_pole"])[:, None], 1e-14)
    assert_close(filters.gains.real[:, None], torch.from_numpy(GOLDEN[f"n{n}_gain"])[:, None], 1e-12)
    single = GammatoneFilterbank(GOLDEN["fc"], float(GOLDEN["fs"]), n)
    assert_close(single(x), expected, 2e-6, torch.float32)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_poly_is_the_same_filter_where_its_poles_are_not_limited(n: int) -> None:
    x, wide = torch.from_numpy(GOLDEN["x_noise"]), GOLDEN["fc"] > 3000
    fc = GOLDEN["fc"][wide]
    filters = GammatoneFilterbank(fc, FS, n, dtype=torch.float64, implementation="poly")
    assert_close(filters(x), torch.from_numpy(GOLDEN[f"n{n}_y_noise"][wide]), 1e-10)
    assert_close(filters.a, torch.from_numpy(GOLDEN[f"n{n}_a"][wide]), 1e-12)


def test_poly_is_its_polynomials() -> None:
    """The limit on the poles and the unlimited gain, against a frequency response from ``b`` and ``a`` alone."""
    filters = GammatoneFilterbank([60, 300, 5000], FS, dtype=torch.float64, implementation="poly")
    f = np.linspace(0, FS / 2, 257)
    for b, a, response in zip(filters.b, filters.a, filters.frequency_response(f), strict=True):
        assert np.abs(np.roots(a.numpy())).max() < 0.9 + 1e-3
        forward = freqz(b.numpy(), a.numpy(), f, fs=FS)[1]
        mirrored = freqz(b.numpy(), a.numpy(), -f, fs=FS)[1]
        assert_close(response, torch.from_numpy(forward + mirrored.conj()), 1e-8)
    sos = GammatoneFilterbank([60, 300, 5000], FS, dtype=torch.float64)
    assert_close(filters.b, sos.gains[:, None], 1e-14)


@pytest.mark.parametrize("fs", [16000, 44100, 48000])
@pytest.mark.parametrize("learnable", [False, True])
@both
def test_float32_down_to_20_hz(fs: int, learnable: bool, implementation: str) -> None:
    fc = [20, 50, 100, 500, 1000, 4000]
    x = torch.randn(2 * fs, dtype=torch.float64)
    exact = GammatoneFilterbank(fc, fs, dtype=torch.float64, implementation=implementation)(x)
    single = GammatoneFilterbank(fc, fs, learnable=learnable, implementation=implementation)(x)
    assert_close(single.detach(), exact, 7e-6, torch.float32)


@both
def test_default_is_0_db_at_the_centre_frequency(implementation: str) -> None:
    """Up to the tail of the filter at the negative frequency, and the bandwidth is the ear's."""
    filters = GammatoneFilterbank([1000, 4000], FS, dtype=torch.float64)
    f = torch.linspace(0, FS / 2, 16001, dtype=torch.float64)
    power = filters.frequency_response(f).abs().square()
    assert filters.frequency_response(filters.fc).diagonal().abs().tolist() == pytest.approx([1, 1], abs=2e-4)
    bandwidth = power.sum(-1) * (f[1] - f[0]) / power.amax(-1)
    assert bandwidth.tolist() == pytest.approx(tamt.audfiltbw(filters.fc).tolist(), rel=0.02)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequency_response_is_the_spectrum_of_the_impulse_response(implementation: str, dtype: torch.dtype) -> None:
    filters = bank(implementation, dtype=dtype, learnable=True)
    spectrum = torch.fft.rfft(filters.impulse_response(FS))
    response = filters.frequency_response(torch.fft.rfftfreq(FS, 1 / FS, dtype=dtype))
    assert_close(response.detach(), spectrum.detach(), 1e-10 if dtype == torch.float64 else 1e-5)
    response.abs().sum().backward()
    assert all(torch.isfinite(torch.view_as_real(p.grad)).all() for p in filters.parameters())


def test_number_of_channels_and_tensors() -> None:
    filters = GammatoneFilterbank((100, 8000), FS, learnable=True)
    assert filters.num_channels == 30
    assert sum(p.numel() for p in filters.parameters()) == 60
    assert list(filters.state_dict()) == ["poles", "gains"]
    poly = GammatoneFilterbank((100, 8000), FS, implementation="poly", n=3)
    assert [(k, tuple(v.shape)) for k, v in poly.state_dict().items()] == [("b", (30, 1)), ("a", (30, 4))]
    assert not list(poly.parameters())
    assert (filters.fs, filters.n, filters.learnable, filters.dtype) == (FS, 4, True, torch.float32)
    assert filters.implementation == "sos"
    assert filters.betamul == pytest.approx(1.0186, abs=1e-4)
    assert_close(filters.fc[None], tamt.erbspacebw(100, 8000)[None], 1e-6)


@both
@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_number_of_channels_is_even_in_erb_as_that_of_a_drnl(implementation: str, count: int) -> None:
    filters = GammatoneFilterbank((100, 7000), FS, implementation=implementation, dtype=torch.float64, n_channels=count)
    assert filters.n_channels == filters.num_channels == count
    assert filters.fc.tolist() == tamt.DRNLFilterbank((100, 7000), FS, n_channels=count).fc.tolist()
    positions = tamt.fc2erb(filters.fc)
    ends = [tamt.fc2erb(100.0), tamt.fc2erb(7000.0)]
    np.testing.assert_allclose(positions, np.linspace(*ends, count), rtol=1e-12)
    listed = GammatoneFilterbank(filters.fc, FS, implementation=implementation, dtype=torch.float64)
    x = torch.randn(200, dtype=torch.float64)
    for twin in (listed, copy.deepcopy(filters), pickle.loads(pickle.dumps(filters)), filters.with_learnable(True)):
        assert torch.equal(twin(x), filters(x))
        assert torch.equal(twin.fc, filters.fc)


@pytest.mark.parametrize("fc", [[500.0, 1000], np.array([500, 1000]), torch.tensor([500, 1000])])
def test_kinds_of_centre_frequencies(fc: object) -> None:
    assert GammatoneFilterbank(fc, FS).fc.tolist() == [500, 1000]


def test_a_list_of_frequencies_keeps_its_digits() -> None:
    assert GammatoneFilterbank([138.6141], FS, dtype=torch.float64).fc.item() == 138.6141


@both
def test_learning_recovers_a_filter(implementation: str) -> None:
    """Poles (or denominators) pulled off their place find back from the output alone."""
    target = bank(implementation, dtype=torch.float64)
    filters = bank(implementation, dtype=torch.float64, learnable=True)
    with torch.no_grad():
        if implementation == "sos":
            learnt = filters.poles
            learnt *= torch.polar(torch.tensor(0.995).double(), torch.tensor(0.004).double())
        else:
            learnt = filters.a
            learnt[:, 1:] *= 1 + 1e-6
    x = torch.randn(4, 2000, dtype=torch.float64)
    wanted = target(x)
    optimiser = torch.optim.LBFGS([learnt], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        error = (filters(x) - wanted).square().sum((0, 2)) / wanted.square().sum((0, 2))
        error.sum().backward()
        return error.sum()

    before = loss().item()
    optimiser.step(loss)
    assert before > 1e-6
    assert loss().item() < 1e-3 * before


def test_pole_outside_the_unit_circle() -> None:
    filters = bank(learnable=True)
    with torch.no_grad():
        filters.poles *= 1.5
    x = torch.randn(500, requires_grad=True)
    y = filters(x)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert torch.isfinite(torch.view_as_real(filters.poles.grad)).all()
    assert torch.isfinite(x.grad).all()
    with torch.no_grad():
        angle = filters.poles.angle()
        filters.poles.copy_(torch.polar(torch.full_like(angle, math.exp(-1e-5)), angle))
    assert_close(filters(x).detach(), y.detach(), 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_narrow_filters_are_not_limited(dtype: torch.dtype) -> None:
    filters = GammatoneFilterbank([500.0], FS, n=1, betamul=1e-4, dtype=dtype)
    decay = 2 * math.pi * 1e-4 * tamt.audfiltbw(500.0) / FS
    f = torch.tensor([500 - decay * FS / (2 * math.pi), 500, 500 + decay * FS / (2 * math.pi)], dtype=torch.float64)
    response = filters.double().frequency_response(f).abs()
    assert (response / response[:, 1:2])[0].tolist() == pytest.approx([0.5**0.5, 1, 0.5**0.5], rel=1e-3)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "hertz", "fs"), [(9, 1000, 16000), (13, 20, 192000), (16, 20, 44100), (60, 4000, 16000)])
def test_high_orders(n: int, hertz: float, fs: float, implementation: str, dtype: torch.dtype) -> None:
    """Gains down to the smallest number there is: output, state and gradients, for quiet signals as for loud ones."""
    filters = GammatoneFilterbank([hertz], fs, n, dtype=dtype, implementation=implementation, learnable=True)
    pole, k = GammatoneFilterbank([hertz], fs, 1, filters.betamul, dtype=torch.float64).poles[0], np.arange(8000)
    decay, gain = -math.log(abs(pole)), -math.expm1(math.log(abs(pole)))
    if implementation == "poly":
        decay = max(decay, -math.log(0.9))
    binomial = np.array([math.lgamma(n + m) - math.lgamma(n) - math.lgamma(m + 1) for m in k])
    envelope = 2 * np.exp(n * math.log(gain) + binomial - decay * k)
    expected = torch.from_numpy(envelope * np.cos(2 * math.pi * hertz / fs * k))[None]
    tolerance = 2e-5 if dtype == torch.float32 else 4e-10
    smallest = torch.finfo(dtype).tiny
    for level in (1, 1e-4):
        if level * expected.abs().max() < 1e6 * smallest:
            continue  # 'poly' is that quiet
        x = torch.zeros(len(k), dtype=dtype)
        x[0] = level
        y = filters(x)
        assert_close(y.detach(), level * expected, tolerance, dtype)
        head, state = filters.stream(x[:3000])
        tail, _ = filters.stream(x[3000:], state)
        assert_close(torch.cat((head, tail), 1).detach(), level * expected, tolerance, dtype)
    f = torch.linspace(0.9, 1.1, 5, dtype=torch.float64) * hertz
    exact = GammatoneFilterbank([hertz], fs, n, dtype=torch.float64, implementation=implementation)
    response = filters.frequency_response(f).detach()
    assert_close(response, exact.frequency_response(f), 10 * n * torch.finfo(dtype).eps + 1e-6, response.dtype)
    if implementation == "poly" and n > 20:
        return  # what a step of a coefficient does is out of float32's range
    exact = GammatoneFilterbank([hertz], fs, n, dtype=torch.float64, implementation=implementation, learnable=True)
    x, found = torch.randn(2000, dtype=dtype), []
    for module in (filters, exact):
        y = module(x.to(module.dtype))
        name = "poles" if implementation == "sos" else "a"
        found += torch.autograd.grad((y / y.detach().abs().max()).square().sum(), getattr(module, name))
    gradient, wanted = (torch.view_as_real(g).flatten() for g in found)
    assert_close(gradient, wanted, 5e-3 if dtype == torch.float32 else 1e-8, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pole", [0, 1e-30, 1e-9 + 1e-9j, 1e-3j, -0.2 + 0.1j])
def test_a_pole_at_0(pole: complex, dtype: torch.dtype) -> None:
    """``y = 2 Re(g x)``, and gradients that let it go elsewhere: those of the recursion with that pole."""
    filters = bank(learnable=True, dtype=dtype)
    with torch.no_grad():
        filters.poles[1] = pole
    x, weights = torch.randn(2, 200, dtype=dtype)
    y = filters(x)
    (gradient,) = torch.autograd.grad(y[1] @ weights, filters.poles)
    leaf = torch.tensor(pole, dtype=torch.complex128, requires_grad=True)
    expected, states = [], [torch.zeros((), dtype=torch.complex128)] * 4
    for sample in x.double():
        v = 2 * filters.gains[1].detach() * sample
        for j, state in enumerate(states):
            states[j] = v = leaf * state + v
        expected.append(v.real)
    wanted = torch.stack(expected)
    (right,) = torch.autograd.grad(wanted @ weights.double(), leaf)
    eps = torch.finfo(dtype).eps
    assert_close(y[1].detach(), wanted.detach(), 40 * eps, dtype)
    assert abs(gradient[1] - right) <= 400 * eps * abs(right)
    assert torch.isfinite(torch.view_as_real(gradient)).all()


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("leading", [0, 1e-42])
def test_a_polynomial_without_a_leading_coefficient(learnable: bool, leading: float) -> None:
    filters = bank("poly", learnable=learnable)
    with torch.no_grad():
        filters.a[1, 0] = leading
    with pytest.raises(ValueError, match=r"a\[:, 0\] must not be 0.*in channel 1"):
        filters(torch.randn(100))
    with torch.no_grad():
        filters.a[1] = math.nan  # whoever has that knows
    assert filters(torch.randn(100)).isnan().any(1).tolist() == [False, True, False]


def test_unstable_polynomial() -> None:
    filters = bank("poly", learnable=True)
    with torch.no_grad():
        filters.a[:, 1:] *= 1.5
    y = filters(torch.randn(2000))
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert torch.isfinite(torch.view_as_real(filters.a.grad)).all()


def test_learnt_poles_move_with_double() -> None:
    filters, x = bank(learnable=True), torch.randn(300)
    with torch.no_grad():
        filters.poles *= 0.99
    expected = filters(x).detach()
    assert_close(filters.double()(x).detach(), expected, 2e-5, torch.float64)


def test_shapes_of_states() -> None:
    x = torch.randn(2, 90)
    assert [s.shape for s in bank().stream(x)[1]] == [(2, 3, 8)]
    with pytest.raises(ValueError, match=re.escape("state must have shape (3, 8), got (2, 3, 8)")):
        bank().stream(x[0], bank().stream(x)[1])


def test_repr() -> None:
    assert repr(bank()) == (
        "GammatoneFilterbank(3 channels 150.0 ... 3000.0 Hz, fs=16000, n=4, betamul=1.0186, learnable=False, "
        "dtype=torch.float32, implementation='sos')"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fs": 0}, "fs must be a positive number of Hz, got 0"),
        ({"fs": -8000}, "fs must be a positive number of Hz, got -8000"),
        ({"fs": math.nan}, "fs must be a positive number of Hz, got nan"),
        ({"fc": [0.0, 100]}, "fc must lie in (0, fs/2] = (0, 8000] Hz, got 0"),
        ({"fc": [100.0, 8001]}, "fc must lie in (0, fs/2] = (0, 8000] Hz, got 8001"),
        ({"fc": [math.nan]}, "fc must lie in (0, fs/2] = (0, 8000] Hz, got nan"),
        ({"fc": []}, "fc must hold at least one frequency and have shape (F,), got (0,)"),
        ({"fc": [[100.0]]}, "fc must hold at least one frequency and have shape (F,), got (1, 1)"),
        (
            {"fc": 100, "fs": 7500},
            "got the number 100; one frequency is a list, [fc], and a range a tuple, (flow, fhigh)",
        ),
        ({"fc": (1.0, 2.0, 3.0)}, "fc as a tuple must be (flow, fhigh), got (1.0, 2.0, 3.0)"),
        ({"fc": (1000, 100)}, "flow"),
        *(
            ({"fc": ends, "n_channels": n}, f"fc must lie in (0, fs/2] = (0, 8000] Hz, got {wrong}")
            for ends, wrong in (((-1, 8000), -1), ((100, math.nan), "nan"), ((100, 9000), 9000))
            for n in (None, 40)
        ),
        *(
            ({"fc": (100, 7000), "n_channels": n}, f"n_channels must be an integer of at least 1, got {n!r}")
            for n in (0, 2.5, "8", True)
        ),
        ({"fc": (100, 200, 300), "n_channels": 3}, "fc as a tuple must be (flow, fhigh), got (100, 200, 300)"),
        *(
            ({"fc": fc, "n_channels": 2}, "must not be given with a list of frequencies, got n_channels=2 and fc of")
            for fc in ([100.0, 200.0], np.array([100.0, 200.0]), torch.tensor([100.0, 200.0]))
        ),
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"n": 2.5}, "n must be an integer of at least 1, got 2.5"),
        ({"betamul": 0}, "betamul must be positive, got 0"),
        ({"n": 16, "fc": [20.0], "fs": 192000}, "n must be at most 13 for fc = 20 Hz at this fs and betamul, got 16"),
        ({"n": 60, "betamul": 5, "fc": [7000.0], "implementation": "poly"}, "n must be at most 40 for implementation"),
        ({"implementation": "fir"}, "implementation must be 'sos' or 'poly', got 'fir'"),
    ],
)
def test_value_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GammatoneFilterbank(**{"fc": [100.0], "fs": FS, **arguments})


def test_type_errors() -> None:
    with pytest.raises(TypeError, match=re.escape("fc must hold real numbers, got torch.complex64")):
        GammatoneFilterbank(torch.tensor([100j]), FS)
    with pytest.raises(ValueError, match=re.escape("the signal must have shape (..., T), got ()")):
        bank()(torch.tensor(1.0))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        bank().impulse_response(0)
    with pytest.raises(ValueError, match=re.escape("f must have shape (K,), got (1, 2)")):
        bank().frequency_response([[1.0, 2.0]])
