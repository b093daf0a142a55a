"""GammatoneFilterbank: AMT's numbers, float32 accuracy, learning, streaming, torch.compile, module habits, errors."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, compiled_by, compiled_elsewhere, in_a_process_group
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("fc", [[500.0, 1000], np.array([500, 1000]), torch.tensor([500, 1000])])
def test_kinds_of_centre_frequencies(fc: object) -> None:
    assert GammatoneFilterbank(fc, FS).fc.tolist() == [500, 1000]


def test_a_list_of_frequencies_keeps_its_digits() -> None:
    assert GammatoneFilterbank([138.6141], FS, dtype=torch.float64).fc.item() == 138.6141


@both
def test_default_device(implementation: str) -> None:
    with torch.device("meta"):
        filters = bank(implementation)
        assert filters(torch.empty(100)).is_meta
    assert all(t.is_meta for t in filters.buffers())
    assert "3 channels 150.0 ... 3000.0 Hz" in repr(filters)


@both
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
def test_shapes(implementation: str, lead: tuple[int, ...]) -> None:
    x = torch.randn(*lead, 200)
    y = bank(implementation)(x)
    assert y.shape == (*lead, 3, 200)
    for index in np.ndindex(*lead):
        assert_close(y[index], bank(implementation)(x[index]), 1e-6)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1000])
def test_lengths(length: int) -> None:
    x = torch.randn(1000)
    assert_close(bank()(x[:length]), bank()(x)[:, :length].contiguous(), 1e-5)


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_computing_type(given: torch.dtype, dtype: torch.dtype) -> None:
    x = torch.randn(100).to(given)
    y = bank(dtype=dtype)(x)
    assert torch.equal(y, bank(dtype=dtype)(x.to(dtype)))
    assert y.dtype == dtype


def test_autocast() -> None:
    x = torch.randn(2, 500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bank()(x), bank()(x).float())
        y = bank()(x)
    assert torch.equal(y, bank()(x))


@both
def test_gradcheck(implementation: str) -> None:
    filters = bank(implementation, dtype=torch.float64, learnable=True)
    names = [name for name, _ in filters.named_parameters()]
    x = torch.randn(2, 70, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        parameters = {name: torch.view_as_complex(t) for name, t in zip(names, tensors, strict=True)}
        return torch.func.functional_call(filters, parameters, (x,))

    tensors = [torch.view_as_real(p.detach()).clone().requires_grad_() for p in filters.parameters()]
    # An expanded denominator reacts so strongly that finite differences want a small step.
    settings = {"eps": 1e-8, "atol": 1e-3, "rtol": 1e-3} if implementation == "poly" else {}
    assert torch.autograd.gradcheck(function, (x, *tensors), fast_mode=True, **settings)
    if implementation == "sos":
        assert torch.autograd.gradgradcheck(function, (x, *tensors), fast_mode=True)


@both
def test_silence(implementation: str) -> None:
    filters = bank(implementation, learnable=True)
    x = torch.zeros(2, 300, requires_grad=True)
    y = filters(x)
    assert torch.equal(y, torch.zeros(2, 3, 300))
    y.square().sum().backward()
    for gradient in (x.grad, *(torch.view_as_real(p.grad) for p in filters.parameters())):
        assert torch.equal(gradient, torch.zeros_like(gradient))


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


@settings(max_examples=20)
@given(implementation=st.sampled_from(BOTH), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_stream(implementation: str, cuts: list[int]) -> None:
    filters, x = bank(implementation, dtype=torch.float64), torch.randn(2, 400, dtype=torch.float64)
    state, parts = None, []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 400], strict=True):
        y, state = filters.stream(x[:, start:end], state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), filters(x), 1e-12)


def test_stream_state() -> None:
    filters, x = bank(), torch.randn(2, 200)
    _, state = filters.stream(x[:, :90])
    assert isinstance(state, tuple)
    assert [s.shape for s in state] == [(2, 3, 8)]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    y, _ = filters.stream(x[:, 90:], torch.load(file))
    assert_close(y, filters(x)[..., 90:], 6e-6)
    with pytest.raises(ValueError, match=re.escape("state must have shape (3, 8), got (2, 3, 8)")):
        filters.stream(x[0], state)
    with pytest.raises(TypeError, match="state must have the signal's type and device"):
        filters.stream(x, (state[0].double(),))
    with pytest.raises(TypeError, match="state must be a tuple of one tensor, as stream returns it, got Tensor"):
        filters.stream(x, state[0])


@compiled_by("implementation, learnable", [("sos", True)], [("sos", False), ("poly", True), ("poly", False)])
def test_compile(implementation: str, learnable: bool, backend: str) -> None:
    """One graph without breaks serves every length, forward and backward."""
    torch._dynamo.reset()
    filters = bank(implementation, learnable=learnable)
    compiled = torch.compile(filters, backend=backend, fullgraph=True, dynamic=True)
    x = torch.randn(2, 333, requires_grad=True)
    compiled(x).sum().backward()
    filters.zero_grad()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (64, 100, 1000, 65):
            x = torch.randn(2, length, requires_grad=True)
            y, expected = compiled(x), filters(x)
            assert_close(y.detach(), expected.detach(), 1e-6)
            inputs = [x, *filters.parameters()]
            weights = torch.randn_like(y)
            actual = torch.autograd.grad(y, inputs, weights)
            for a, e in zip(actual, torch.autograd.grad(expected, inputs, weights), strict=True):
                assert_close(a, e, 1e-5)


@compiled_elsewhere
def test_compile_stream(backend: str) -> None:
    torch._dynamo.reset()
    filters, x, state, parts = bank(), torch.randn(2, 400), None, []
    compiled = torch.compile(filters.stream, backend=backend, fullgraph=True, dynamic=True)
    for start in range(0, 400, 100):
        y, state = compiled(x[:, start : start + 100], state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), filters(x), 1e-6)


@both
def test_everything_stays_on_its_device(implementation: str) -> None:
    """On tensors without memory: nothing is made elsewhere, nothing is read back, forward and backward."""
    filters = bank(implementation, learnable=True, device="meta")
    assert all(t.is_meta for t in (*filters.state_dict().values(), filters.fc))
    x = torch.empty(2, 300, device="meta", requires_grad=True)
    y, (state,) = filters.stream(x)
    assert y.is_meta
    assert y.shape == (2, 3, 300)
    gradients = torch.autograd.grad(y.sum() + state.sum(), (x, *filters.parameters()))
    assert [g.shape for g in gradients] == [x.shape, *(p.shape for p in filters.parameters())]


@both
def test_export(implementation: str) -> None:
    filters = bank(implementation)
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("time", min=2, max=1 << 20)}}
    program = torch.export.export(filters, (torch.randn(2, 500),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 777)
    assert torch.equal(program(x), filters(x))


@both
def test_float32_needs_neither_float64_nor_complex(implementation: str, mps_safe: type) -> None:
    """Complex parameters are only read as pairs of real numbers."""
    filters, x = bank(implementation, learnable=True), torch.randn(2, 200, requires_grad=True)
    with mps_safe():
        y = filters(x)
    with mps_safe():
        torch.autograd.grad(y.sum(), x)


def test_layouts() -> None:
    x = torch.randn(100, 4)
    assert_close(bank()(x.t()), bank()(x.t().contiguous()), 1e-6)
    assert_close(bank()(x[:, 0].expand(3, 100)), bank()(x[:, 0].repeat(3, 1)), 1e-6)


@both
@pytest.mark.parametrize("learnable", [False, True])
def test_copies(implementation: str, learnable: bool) -> None:
    filters, x = bank(implementation, learnable=learnable), torch.randn(300)
    expected = filters(x).detach()
    for twin in (copy.deepcopy(filters), pickle.loads(pickle.dumps(filters))):
        assert torch.equal(twin(x), expected)
    other = bank(implementation, learnable=not learnable)
    with torch.no_grad():
        for tensor in filters.state_dict().values():
            tensor *= 1.001
    other.load_state_dict(filters.state_dict())
    assert torch.equal(other(x), filters(x))
    assert not torch.equal(other(x), expected)


@both
def test_fixed_filters_follow_their_tensors(implementation: str) -> None:
    """What is kept between calls gives way to edits in place, to loading and to another device or type."""
    filters, x = bank(implementation), torch.randn(300)
    first = filters(x)
    gains = filters.gains if implementation == "sos" else filters.b
    gains *= 2
    assert_close(filters(x), 2 * first, 1e-6)
    other = bank(implementation)
    other(x)
    other.load_state_dict(filters.state_dict())
    assert torch.equal(other(x), filters(x))
    twin = copy.deepcopy(filters)
    (twin.gains if implementation == "sos" else twin.b).zero_()
    assert not twin(x).any()
    assert_close(filters(x), 2 * first, 1e-6)
    with torch.inference_mode():
        assert_close(bank(implementation)(x), first, 1e-6)


@both
def test_double(implementation: str) -> None:
    x = torch.randn(300, dtype=torch.float64)
    exact = bank(implementation, dtype=torch.float64)(x)
    for widened in (bank(implementation).double(), bank(implementation).to(torch.float64)):
        assert widened.dtype == torch.float64
        assert all(t.dtype == torch.complex128 for t in widened.state_dict().values())
        assert_close(widened(x), exact, 2e-6)
    narrowed = bank(implementation, dtype=torch.float64).float()
    assert_close(narrowed(x), exact, 3e-6, torch.float32)
    with pytest.raises(TypeError, match=re.escape("dtype must be torch.float32 or torch.float64, got torch.float16")):
        bank(implementation).half()


def test_learnt_poles_move_with_double() -> None:
    filters, x = bank(learnable=True), torch.randn(300)
    with torch.no_grad():
        filters.poles *= 0.99
    expected = filters(x).detach()
    assert_close(filters.double()(x).detach(), expected, 2e-5, torch.float64)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    def body() -> None:
        filters = bank(learnable=True)
        wrapped = torch.nn.parallel.DistributedDataParallel(filters)
        x = torch.randn(2, 200)
        y = wrapped(x)
        assert_close(y.detach(), filters(x).detach(), 1e-6)
        y.square().sum().backward()
        assert torch.view_as_real(filters.poles.grad).abs().sum() > 0

    in_a_process_group(tmp_path, body)


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
        ({"fc": (1.0, 2.0, 3.0)}, "fc as a tuple must be (flow, fhigh), got (1.0, 2.0, 3.0)"),
        ({"fc": (1000, 100)}, "flow"),
        ({"fc": (100, 9000)}, "fc must lie in (0, fs/2] = (0, 8000] Hz, got 8029.16"),
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
    with pytest.raises(TypeError, match=re.escape("dtype must be torch.float32 or torch.float64, got torch.float16")):
        bank(dtype=torch.float16)
    with pytest.raises(TypeError, match=re.escape("fc must hold real numbers, got torch.complex64")):
        GammatoneFilterbank(torch.tensor([100j]), FS)
    with pytest.raises(TypeError, match=re.escape("the signal must be of a floating type, got torch.int64")):
        bank()(torch.arange(10))
    with pytest.raises(TypeError, match=re.escape("the signal must be of a floating type, got torch.complex64")):
        bank()(torch.zeros(10, dtype=torch.complex64))
    with pytest.raises(TypeError, match=re.escape("the signal must be a torch.Tensor, got ndarray")):
        bank()(np.zeros(10))
    with pytest.raises(ValueError, match=re.escape("the signal must have shape (..., T), got ()")):
        bank()(torch.tensor(1.0))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        bank().impulse_response(0)
    with pytest.raises(ValueError, match=re.escape("f must have shape (K,), got (1, 2)")):
        bank().frequency_response([[1.0, 2.0]])
