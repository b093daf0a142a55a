"""``biquad_cascade`` against ``scipy.signal.sosfilt`` on the designs people use, from 10 Hz at 192 kHz in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from helpers import assert_close
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfilt_zi
from torch import Tensor

from tamt.design.sections import biquad_sections
from tamt.ops.drnl import drnl
from tamt.ops.iir import biquad_cascade, modal_cascade, onepole_cascade
from tamt.reference import iir as reference

Array = NDArray[np.float64]
EPS = torch.finfo(torch.float32).eps
# The largest error of the designs below is 5 roundings, on the CPU with AVX2 or AVX-512 as without; a margin of 4.
ROUNDINGS = 20
LENGTH = 6000


def rbj(kind: str, hertz: float, fs: float, q: float) -> Array:
    """A section of R. Bristow-Johnson's cookbook, peaks and shelves of 6 dB."""
    a, w = 10 ** (6 / 40), 2 * math.pi * hertz / fs
    c, s = math.cos(w), math.sin(w) / (2 * q)
    up, down, root = a + 1, a - 1, 2 * math.sqrt(a) * s
    plain = [1 + s, -2 * c, 1 - s]
    numerator, denominator = {
        "low": ([(1 - c) / 2, 1 - c, (1 - c) / 2], plain),
        "high": ([(1 + c) / 2, -1 - c, (1 + c) / 2], plain),
        "band": ([s, 0, -s], plain),
        "notch": ([1, -2 * c, 1], plain),
        "all": (plain[::-1], plain),
        "peak": ([1 + s * a, -2 * c, 1 - s * a], [1 + s / a, -2 * c, 1 - s / a]),
        "low shelf": (
            [a * (up - down * c + root), 2 * a * (down - up * c), a * (up - down * c - root)],
            [up + down * c + root, -2 * (down + up * c), up + down * c - root],
        ),
        "high shelf": (
            [a * (up + down * c + root), -2 * a * (down + up * c), a * (up + down * c - root)],
            [up - down * c + root, 2 * (down - up * c), up - down * c - root],
        ),
    }[kind]
    return np.array([numerator + denominator]) / denominator[0]


def designs(fs: float) -> Iterator[Array]:
    """Sections (K, 6) from 10 Hz to 0.45 fs."""
    for hertz in (10, 60, 400, fs / 9, fs / 4, 0.45 * fs):
        for kind in ("low", "high", "band", "notch", "all", "peak", "low shelf", "high shelf"):
            for q in (0.5, 5, 30):
                yield rbj(kind, hertz, fs, q)
        for n in (1, 2, 3, 5, 8):
            yield butter(n, hertz, "low", fs=fs, output="sos")
            yield butter(n, hertz, "high", fs=fs, output="sos")
        for n in (1, 3):
            for width in (1.02, 1.122):
                yield butter(n, [hertz / width, min(hertz * width, 0.499 * fs)], "band", fs=fs, output="sos")


def banks(fs: float) -> Iterator[Array]:
    """The designs as banks (F, K, 6) in float32."""
    every = [sos.astype(np.float32) for sos in designs(fs)]
    for order in sorted({len(sos) for sos in every}):
        yield np.stack([sos for sos in every if len(sos) == order])


def filtered(bank: Array, x: Array) -> Array:
    return np.stack([sosfilt(sos, x) for sos in bank])


def errors(actual: Array, exact: Array) -> Array:
    """Of each channel, relative to its peak."""
    return np.abs(actual - exact).max(-1) / np.abs(exact).max(-1)


def noise(length: int = LENGTH, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No float64 in the engine, as on MPS."""
    monkeypatch.setattr(reference, "wide", lambda tensor: tensor.dtype)
    reference._plans.clear()
    yield
    reference._plans.clear()


@pytest.mark.parametrize("fs", [8000, 44100, 192000])
def test_designs_in_float32(fs: float) -> None:
    """As exact as float32 allows, and never worse than ``sosfilt`` in it."""
    x = noise()
    for bank in banks(fs):
        exact = filtered(bank.astype(float), x.astype(float))
        actual = errors(biquad_cascade(torch.from_numpy(x), torch.from_numpy(bank))[0].numpy(), exact)
        assert actual.max() <= ROUNDINGS * EPS
        assert (actual <= np.maximum(errors(filtered(bank, x), exact), ROUNDINGS / 4 * EPS)).all()


REPORTED = {
    "Butterworth low-pass, 60 Hz": butter(2, 60, fs=44100, output="sos"),
    "high-pass of BS.1770, 38 Hz at 48 kHz": np.array([[1, -2, 1, 1, -1.99004745483398, 0.99007225036621]]),
    "Butterworth band-pass, 90 to 110 Hz": butter(4, [90, 110], "band", fs=44100, output="sos"),
}


@pytest.mark.parametrize("sos", REPORTED.values(), ids=REPORTED)
def test_low_filters_over_two_seconds(sos: Array) -> None:
    """A fiftieth of the error of ``sosfilt`` in float32, which is 6e-5 to 3e-4 of the peak, or less."""
    x, rounded = noise(2 * 44100), sos.astype(np.float32)
    exact = sosfilt(rounded.astype(float), x.astype(float))
    y, _ = biquad_cascade(torch.from_numpy(x), torch.from_numpy(rounded)[None])
    error, of_scipy = errors(y[0].numpy(), exact), errors(sosfilt(rounded, x), exact)
    assert error <= ROUNDINGS / 2 * EPS
    assert error <= of_scipy / 50


@pytest.mark.parametrize("fs", [8000, 44100, 192000])
def test_designs_in_float64(fs: float) -> None:
    """Both lose what double precision loses: transposed direct form up to 1e-10."""
    x = noise().astype(float)
    for bank in banks(fs):
        y, _ = biquad_cascade(torch.from_numpy(x), torch.from_numpy(bank).double())
        assert errors(y.numpy(), filtered(bank.astype(float), x)).max() <= 4e-10


@pytest.mark.usefixtures("_narrow")
@pytest.mark.parametrize("fs", [8000, 44100, 192000])
def test_designs_without_float64(fs: float) -> None:
    """What rounding takes from powers of the transition there is in proportion to how long a filter rings."""
    x = noise()
    for bank in banks(fs):
        exact = filtered(bank.astype(float), x.astype(float))
        radius = np.array([max(np.abs(np.roots(section[3:])).max() for section in sos) for sos in bank.astype(float)])
        ringing = 1 / np.maximum(1 - radius, 1 / LENGTH)
        y, _ = biquad_cascade(torch.from_numpy(x), torch.from_numpy(bank))
        assert (errors(y.numpy(), exact) <= EPS * (ROUNDINGS + ringing)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_are_scipys(dtype: torch.dtype) -> None:
    """From ``zi`` of scipy to its ``zf``, each section's two delays."""
    x = noise()
    for bank in banks(44100):
        for sos in bank[:: max(1, len(bank) // 12)]:
            start = sosfilt_zi(sos.astype(float)).astype(np.float32)
            exact, end = sosfilt(sos.astype(float), x.astype(float), zi=start.astype(float))
            operands = [torch.from_numpy(t).to(dtype) for t in (x, sos[None], start.reshape(1, -1))]
            y, state = biquad_cascade(*operands[:2], state=operands[2])
            tolerance = ROUNDINGS * EPS if dtype == torch.float32 else 1e-10
            assert errors(y[0].numpy(), exact) <= tolerance
            assert errors(state[0].numpy(), end.ravel()) <= 10 * tolerance  # one instant, not a peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 6, 64), (37, 100), (1000, 64, 1)])
def test_chunks_are_one_shot(dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Each chunk rounds the two delays, which ``sosfilt`` does with every sample: a tenth of its error."""
    x = noise(3000)
    for bank in banks(44100):
        exact = filtered(bank.astype(float), x.astype(float))
        sos, signal, state, parts = torch.from_numpy(bank).to(dtype), torch.from_numpy(x).to(dtype), None, []
        start = 0
        while start < len(x):
            for size in sizes:
                y, state = biquad_cascade(signal[start : start + size], sos, state=state)
                parts.append(y)
                start += size
        actual = errors(torch.cat(parts, 1).numpy(), exact)
        if dtype == torch.float64:
            assert actual.max() <= 4e-10
        else:
            assert (actual <= ROUNDINGS * EPS + errors(filtered(bank, x), exact)).all()


SPECIAL = {
    "double pole": [0.01, 0, 0, 1, -1.96, 0.98**2],
    "nearly double pole": [0.01, 0, 0, 1, -1.96, 0.98**2 + 1e-12],
    "double pole at 1/2": [0.1, 0.2, 0.1, 1, -1, 0.25],
    "double pole at -0.9": [0.1, 0.2, 0.1, 1, 1.8, 0.81],
    "real poles": [0.1, 0.2, 0.1, 1, -1.5, 0.53],
    "real poles on both sides": [0.1, 0.2, -0.1, 1, 0.03, -0.86],
    "no poles": [0.4, 0.3, 0.2, 1, 0, 0],
    "one pole": [0.1, 0.1, 0, 1, -0.99, 0],
    "a delay": [0, 0, 1, 1, 0, 0],
    "integrator": [0.1, 0, 0, 1, -1, 0],
    "two integrators": [1e-3, 0, 0, 1, -2, 1],
    "oscillator": [0.1, 0, 0, 1, -1.9, 1],
    "unstable": [0.1, 0.2, 0.1, 1, -2.02, 1.03],
    "unstable real": [0.1, 0, 0, 1, -1.05, 0.04],
    "scaled": [0.3, 0.6, 0.3, 3, -5.4, 2.46],
    "negative a0": [0.3, 0.6, 0.3, -2, 3.7, -1.8],
    "silent": [0, 0, 0, 1, -1.8, 0.82],
}
special = pytest.mark.parametrize("section", SPECIAL.values(), ids=SPECIAL)


def recursion(x: Tensor, sos: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Transposed direct form II, sample by sample: one channel, ``sos`` (K, 6), ``state`` (2K,)."""
    z, outputs = list(state.unbind(-1)), []
    for u in x.unbind(-1):
        for k, section in enumerate(sos / sos[:, 3:4]):
            b0, b1, b2, _, a1, a2 = section.unbind(-1)
            y = b0 * u + z[2 * k]
            z[2 * k], z[2 * k + 1] = b1 * u - a1 * y + z[2 * k + 1], b2 * u - a2 * y
            u = y
        outputs.append(u)
    return torch.stack(outputs, -1), torch.stack(z, -1)


@special
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_sections(section: list[float], dtype: torch.dtype) -> None:
    """Values and gradients where poles coincide, are real, on or outside the circle, or are not there at all."""
    sos = torch.tensor([[section, [0.5, 0.1, 0, 1, -0.3, 0.1]]], dtype=dtype)
    x = torch.from_numpy(noise(300)).to(dtype)
    state = torch.tensor([[0.3, -0.2, 0.1, 0.2]], dtype=dtype)
    operands = [t.requires_grad_() for t in (x, sos, state)]
    results = biquad_cascade(x, sos, state=state)
    exact = [t.detach().double().requires_grad_() for t in operands]
    expected = [t[None] for t in recursion(exact[0], exact[1][0], exact[2][0])]
    weights = [torch.from_numpy(noise(t.shape[-1], 1)).to(dtype) for t in results]
    gradients = torch.autograd.grad(results, operands, [w.expand_as(t) for w, t in zip(weights, results, strict=True)])
    wanted = torch.autograd.grad(
        expected, exact, [w.double().expand_as(t) for w, t in zip(weights, expected, strict=True)]
    )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    for actual, right in zip((*results, *gradients), (*expected, *wanted), strict=True):
        assert_close(actual.flatten(), right.flatten(), tolerance, dtype)


def samples_before(bad: Array) -> int:
    """How many come before the first that is bad."""
    return int(bad.argmax()) if bad.any() else len(bad)


def assert_grows_out_of_range(y: Array, exact: Array, count: int, tolerance: float) -> None:
    """As ``exact``, relative to the peak so far, up to about the sample ``count``, and from then on not finite."""
    finite = samples_before(~np.isfinite(y))
    assert count - 4 <= finite <= count + max(4, count // 20)
    assert not np.isfinite(y[finite:]).any()
    known = min(finite, count)
    peak = np.maximum.accumulate(np.abs(exact[:known]))
    assert (np.abs(y[:known] - exact[:known]) <= tolerance * peak).all()


EXPLOSIVE = {
    "double pole at 4.9": [1, 0, 0, 1, -9.8, 4.9**2],
    "complex poles at 4.9": [0.1, 0.2, 0.1, 1, -9.8 * math.cos(1), 4.9**2],
    "poles at 4.9 and -0.5": [1, 0.2, 0, 1, -4.4, -2.45],
    "pole at 50": [1, 0, 0, 1, -50, 0],
    "poles at 1.5": [1, 0, 0, 1, -3 * math.cos(0.3), 2.25],
}


@pytest.mark.parametrize("section", EXPLOSIVE.values(), ids=EXPLOSIVE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-11)])
def test_explosive_sections(section: list[float], dtype: type, tolerance: float) -> None:
    """What leaves the range of the type does so where it does in ``sosfilt``, and spoils nothing before."""
    x = noise(1000).astype(dtype)
    for sos in ([section], [section, [0.5, 0.1, 0, 1, -0.3, 0.1]]):
        rounded = np.array(sos, dtype)
        count = samples_before(~np.isfinite(sosfilt(rounded, x)))
        y, _ = biquad_cascade(torch.from_numpy(x), torch.from_numpy(rounded)[None])
        exact = sosfilt(rounded.astype(float), x.astype(float))
        if count < len(x):
            assert_grows_out_of_range(y[0].numpy(), exact, count, tolerance)
        else:
            assert errors(y[0].numpy(), exact) <= tolerance


def explosive_modal(x: Tensor, row: Tensor) -> Tensor:
    return modal_cascade(x, row[None, None])[0][0]


def explosive_onepole(x: Tensor, row: Tensor) -> Tensor:
    return onepole_cascade(x, row[:1], row[1:2], row[None, 3:5], 4)[0][0]


def explosive_drnl(x: Tensor, row: Tensor) -> Tensor:
    steady, stick = row.clone(), row.new_tensor([[10.0, 1.0, 0.25]])
    steady[0] = 0.05
    return drnl(x, *(t[None, None] for t in (steady, steady, row)), stick)[0][0]


@pytest.mark.parametrize("function", [explosive_modal, explosive_onepole, explosive_drnl])
def test_explosive_sections_of_other_kinds(function: Callable[..., Tensor]) -> None:
    """In float32 as in float64, up to where the range of float32 ends."""
    x = torch.from_numpy(noise(400))
    row = torch.tensor([-math.log(4.9), 0.16, 0.0, 0.3, 0.1, 0.2])
    exact, y = function(x.double(), row.double()).numpy(), function(x, row).numpy()
    count = samples_before(np.abs(exact) > np.finfo(np.float32).max)
    assert_grows_out_of_range(y, exact, count, 1e-4)


@pytest.mark.parametrize("name", ["double pole", "nearly double pole", "real poles", "no poles", "two integrators"])
def test_second_derivatives_of_special_sections(name: str) -> None:
    sos = torch.tensor([[SPECIAL[name]]], dtype=torch.float64, requires_grad=True)
    x, state = torch.from_numpy(noise(20)).double(), torch.tensor([[0.3, -0.2]], dtype=torch.float64)

    def function(sos: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return biquad_cascade(x, sos, state=state)

    assert torch.autograd.gradgradcheck(function, (sos, state.requires_grad_()), atol=1e-4, fast_mode=True)


def test_gradients_in_float32() -> None:
    """Of low filters, whose gradients are huge: each as exact as its bank's outputs are."""
    x, weights = noise(4000), noise(4000, 1)
    for bank in banks(44100):
        found = []
        for dtype in (torch.float32, torch.float64):
            operands = [torch.from_numpy(t).to(dtype).requires_grad_() for t in (x, bank)]
            y, _ = biquad_cascade(*operands)
            # The gradient of a signal that channels share is a sum: one channel's share of it must not hide another's.
            peaks = y.detach().abs().amax(-1, keepdim=True)
            found.append(torch.autograd.grad((y / peaks * torch.from_numpy(weights).to(dtype)).sum(), operands))
        (gx, gsos), (gx_exact, gsos_exact) = found
        assert_close(gx, gx_exact, ROUNDINGS * EPS, torch.float32)
        assert_close(gsos.flatten(1), gsos_exact.flatten(1), 4 * ROUNDINGS * EPS, torch.float32)


def test_sections_that_scale() -> None:
    """Gains of 1e-35 and 1e33, one after the other; what is left is a filter of 0 dB, for quiet signals too."""
    sos = np.repeat(butter(2, 0.1, output="sos"), 2, 0).astype(np.float32)
    sos[0, :3] *= np.float32(1e-35)
    sos[1, :3] *= np.float32(1e33)
    for level in (1, 1e-3):
        x = level * noise()
        y, _ = biquad_cascade(torch.from_numpy(x), torch.from_numpy(sos)[None])
        assert errors(y.double().numpy()[0], sosfilt(sos.astype(float), x.astype(float))) <= ROUNDINGS * EPS


def test_the_form_is_the_biquad() -> None:
    """Delays to states and back; both polynomials from the powers of ``z - r``."""
    for bank in banks(44100):
        sos = torch.from_numpy(bank).double()
        biquads = biquad_sections(sos)
        delays = torch.randn(2, len(bank), 2 * bank.shape[1], dtype=torch.float64)
        assert_close(biquads.delays(biquads.states(delays)), delays, 1e-9)
        direct, e1, e2, omega, k, a, r = biquads.sections.unbind(-1)
        assert set(r.unique().tolist()) <= {-1, 0, 1}
        denominator = torch.stack((torch.ones_like(a), a - 2 * r, omega * k - a * r + r * r), -1)
        assert_close(denominator.flatten(), sos[..., 3:].flatten(), 1e-15)
        n1, n0 = e1 + a * direct, omega * (e2 + k * direct) + a * e1
        numerator = torch.stack((direct, n1 - 2 * r * direct, n0 - n1 * r + r * r * direct), -1)
        factor = biquads.scale / torch.cat((torch.ones_like(direct[:, :1]), biquads.scale[:, :-1]), 1)
        assert_close(numerator.flatten(), (factor[..., None] * sos[..., :3]).flatten(), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "order"), [(1, 1), (3, 2)])
def test_compiled_gradients(channels: int, order: int) -> None:
    sos = torch.from_numpy(np.repeat(rbj("peak", 200, 44100, 3)[None], order, 1)).float()
    sos = (sos * torch.linspace(1, 1.0001, channels)[:, None, None]).requires_grad_()
    x, state = torch.from_numpy(noise(150)), torch.zeros(channels, 2 * order, requires_grad=True)

    def loss(sos: Tensor, state: Tensor) -> Tensor:
        y, last = biquad_cascade(x, sos, state=state)
        return y.square().sum() + last.square().sum()

    compiled = torch.compile(loss, fullgraph=True)
    expected = torch.autograd.grad(loss(sos, state), (sos, state))
    actual = torch.autograd.grad(compiled(sos, state), (sos, state))
    for a, e in zip(actual, expected, strict=True):
        assert_close(a.flatten(), e.flatten(), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_default_type_does_not_matter(dtype: torch.dtype) -> None:
    sos = torch.tensor([[[0.2, 0.1, 0.0, 1.0, -1.999, 0.9991]], [[1.0, 0.0, 0.0, 1.0, 0.2, 0.1]]])
    x = torch.randn(100)
    expected = biquad_cascade(x, sos)
    torch.set_default_dtype(dtype)
    try:
        found = biquad_cascade(x, sos)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
