"""The windowed DFT: FFTs of zero-padded frames, slices, gradients, torch.compile, layouts, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import QUICK, assert_close, checked, compiled_elsewhere
from torch import Tensor

from tamt.ops import windowed_dft as ops
from tamt.ops.windowed_dft import dft_tables, windowed_dft
from tamt.reference import windowed_dft as reference
from tamt.shared import windowed_dft as layouts

APART = [(64, 1, 3), (32, 4, 10), (16, 11, 32)]
OVERLAPPING = [(32, 5, 5), (64, 2, 20), (2, 10, 32)]
GAP = [(16, 25, 32), (48, 0, 3)]
bands_given = pytest.mark.parametrize("bands", [APART, OVERLAPPING, GAP])


def by_fft(x: Tensor, bands: list[tuple[int, int, int]], hop: int, size: int, weight: Tensor) -> Tensor:
    """Definition: windowed frames, zeros around them, whole FFTs."""
    frames = x.unfold(-1, size, hop)
    low, high = min(first for _, first, _ in bands), max(last for _, _, last in bands)
    total = x.new_zeros(*frames.shape[:-1], high - low + 1)
    for (length, first, last), w in zip(
        bands, weight.split([last - first + 1 for _, first, last in bands]), strict=True
    ):
        window = torch.zeros(size, dtype=x.dtype)
        start = (size - length) // 2
        window[start : start + length] = torch.hann_window(length, periodic=False, dtype=x.dtype)
        power = torch.fft.rfft(frames * window).abs().square()
        total[..., first - low : last - low + 1] += w * power[..., first : last + 1]
    return total


def weights(bands: list[tuple[int, int, int]]) -> Tensor:
    return 0.5 + torch.rand(sum(last - first + 1 for _, first, last in bands), dtype=torch.float64)


def rows(bands: list[tuple[int, int, int]], x: Tensor, weight: Tensor, hop: int, size: int) -> tuple:
    """Arguments of the operator."""
    tables = dft_tables(bands, size, dtype=x.dtype)
    return x, tables, weight, *map(list, zip(*bands, strict=True)), hop, size


@bands_given
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("length", "hop"), [(64, 8), (65, 1), (200, 7), (500, 100)])
def test_against_ffts(bands: list[tuple[int, int, int]], lead: tuple[int, ...], length: int, hop: int) -> None:
    x, weight = torch.randn(*lead, length, dtype=torch.float64), weights(bands)
    power = windowed_dft(x, bands, hop, 64, weight=weight)
    expected = by_fft(x, bands, hop, 64, weight)
    assert power.shape == expected.shape
    assert (power - expected).abs().max() <= 1e-12 * expected.max()
    single = windowed_dft(x.float(), bands, hop, 64, weight=weight.float())
    assert_close(single, expected, 4e-6, torch.float32)


def test_long_frames() -> None:
    """Phases are exact also where k n is large."""
    bands = [(2048, 0, 1024)]
    x = torch.randn(2, 2048 + 3 * 32, dtype=torch.float64)
    x += 100 * torch.sin(2 * math.pi * 0.49 * torch.arange(x.shape[1]))
    power = windowed_dft(x, bands, 32, 2048)
    expected = by_fft(x, bands, 32, 2048, torch.ones(1025, dtype=torch.float64))
    assert (power - expected).abs().max() <= 1e-12 * expected.max()
    bins = (power - expected).abs().amax((0, 1)) / expected.amax((0, 1))
    assert bins.max() < 1e-9


def test_bins_of_no_band_are_zero() -> None:
    power = windowed_dft(torch.randn(200), GAP, 8, 64)
    assert not power[:, 4:25].any()
    assert (power[:, :4] > 0).all()
    assert (power[:, 25:] > 0).all()


@bands_given
@pytest.mark.parametrize("samples", [1, 200, 1000])
def test_slices_are_one(bands: list[tuple[int, int, int]], samples: int) -> None:
    x, weight = torch.randn(5, 150, dtype=torch.float64), weights(bands)
    given = rows(bands, x, weight, 7, 64)
    whole = reference.windowed_dft(*given)
    assert len(list(layouts.slices(*whole.shape[:2], 32, samples))) > 1
    assert_close(reference.windowed_dft(*given, samples), whole, 1e-13)
    grad = torch.randn_like(whole)
    expected = reference.windowed_dft_backward(grad, *given, True, True)
    actual = reference.windowed_dft_backward(grad, *given, True, True, samples)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-12)


@bands_given
@pytest.mark.parametrize(("length", "hop"), [(64, 8), (200, 7), (500, 100), (300, 61)])
def test_gradients(bands: list[tuple[int, int, int]], length: int, hop: int) -> None:
    """By autograd through the FFTs."""
    x = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    weight = weights(bands).requires_grad_()
    expected = by_fft(x, bands, hop, 64, weight)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, weight), grad)
    actual = torch.autograd.grad(windowed_dft(x, bands, hop, 64, weight=weight), (x, weight), grad)
    for a, e in zip(actual, wanted, strict=True):
        assert_close(a, e, 1e-11)
    (alone,) = torch.autograd.grad(windowed_dft(x, bands, hop, 64, weight=weight.detach()), x, grad)
    assert torch.equal(alone, actual[0])
    (alone,) = torch.autograd.grad(windowed_dft(x.detach(), bands, hop, 64, weight=weight), weight, grad)
    assert torch.equal(alone, actual[1])


def test_gradcheck() -> None:
    bands = [(8, 1, 3), (4, 3, 4)]
    x = torch.randn(2, 15, dtype=torch.float64, requires_grad=True)
    weight = weights(bands).requires_grad_()

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return windowed_dft(x, bands, 3, 8, weight=weight)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(lambda x: function(x, weight.detach()), (x,))


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    x, weight = torch.randn(2, 100, dtype=torch.float64), weights(APART)
    given = rows(APART, x.requires_grad_(), weight.requires_grad_(), 8, 64)
    torch.library.opcheck(ops.windowed_dft_rows, given, test_utils=checks)
    grad = torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(ops.windowed_dft_backward, (grad, *given, True, True), test_utils=checks)
    torch.library.opcheck(ops.windowed_dft_backward, (grad, *given, True, False), test_utils=QUICK)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    torch._dynamo.reset()
    tables, weight = dft_tables(APART, 64, dtype=torch.float64), weights(APART).requires_grad_()

    def function(x: Tensor) -> Tensor:
        return windowed_dft(x, APART, 8, 64, weight=weight, tables=tables)

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    compiled(torch.randn(3, 100, dtype=torch.float64, requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((2, 128), (5, 300), (4, 77)):
            x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
            y, expected = compiled(x), function(x)
            assert_close(y.detach(), expected.detach(), 1e-13)
            grad = torch.randn_like(y)
            for a, e in zip(
                torch.autograd.grad(y, (x, weight), grad), torch.autograd.grad(expected, (x, weight), grad), strict=True
            ):
                assert_close(a, e, 1e-12)


def test_nan_stays_in_its_row() -> None:
    x = torch.randn(3, 200, requires_grad=True)
    spoilt = x.detach().clone()
    spoilt[1, 100] = math.nan
    power, clean = windowed_dft(spoilt.requires_grad_(), APART, 8, 64), windowed_dft(x, APART, 8, 64)
    assert power[1].isnan().any()
    assert torch.equal(power[::2], clean[::2])
    (gradient,) = torch.autograd.grad(power.sum(), spoilt)
    assert torch.isfinite(gradient[::2]).all()


def test_layouts() -> None:
    x, weight = torch.randn(2, 3, 200), weights(APART).float()
    expected = windowed_dft(x, APART, 8, 64, weight=weight)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert_close(windowed_dft(strided, APART, 8, 64, weight=weight.repeat_interleave(2)[::2]), expected, 1e-6)
    shared = x[:1].expand(2, 3, 200).requires_grad_()
    power = windowed_dft(shared, APART, 8, 64, weight=weight)
    assert power.is_contiguous()
    (gradient,) = torch.autograd.grad(power, shared, torch.ones(()).expand_as(power))
    assert_close(gradient[0], gradient[1], 1e-6)
    assert windowed_dft(x[:0], APART, 8, 64).shape == (0, 3, 18, 32)


def test_autocast() -> None:
    x = torch.randn(2, 200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        power = windowed_dft(x, APART, 8, 64)
    assert torch.equal(power, windowed_dft(x, APART, 8, 64))


def test_float32_needs_neither_float64_nor_complex(mps_safe: type) -> None:
    x, weight = torch.randn(2, 200, requires_grad=True), weights(APART).float().requires_grad_()
    tables = dft_tables(APART, 64)
    with mps_safe():
        torch.autograd.grad(windowed_dft(x, APART, 8, 64, weight=weight, tables=tables).sum(), (x, weight))


def test_errors() -> None:
    x = torch.randn(2, 100)
    with pytest.raises(ValueError, match=re.escape("x must have shape (..., N) with N >= 64, got (2, 63)")):
        windowed_dft(x[:, :63], APART, 8, 64)
    with pytest.raises(TypeError, match=re.escape("x must be float32 or float64, got torch.int64")):
        windowed_dft(x.long(), APART, 8, 64)
    with pytest.raises(TypeError, match="weight must have x's type and device"):
        windowed_dft(x, APART, 8, 64, weight=weights(APART))
    with pytest.raises(TypeError, match="tables must have x's type and device"):
        windowed_dft(x, APART, 8, 64, tables=dft_tables(APART, 64, dtype=torch.float64))
    with pytest.raises(ValueError, match=re.escape("weight must have shape (32,), got (31,)")):
        windowed_dft(x, APART, 8, 64, weight=torch.ones(31))
    with pytest.raises(ValueError, match=re.escape("tables must be contiguous and have shape (2048,), got (2000,)")):
        windowed_dft(x, APART, 8, 64, tables=dft_tables([(64, 1, 32)], 64)[:2000])
    with pytest.raises(ValueError, match="hop must be at least 1, got 0"):
        windowed_dft(x, APART, 0, 64)
    with pytest.raises(ValueError, match="size must be an even number of at least 2, got 63"):
        windowed_dft(x, APART, 8, 63)
    with pytest.raises(ValueError, match="bands must hold at least one"):
        windowed_dft(x, [], 8, 64)
    for band in ((65, 1, 2), (66, 1, 2), (0, 1, 2), (64, -1, 2), (64, 3, 2), (64, 1, 33)):
        with pytest.raises(ValueError, match=re.escape("bands must be (length, first, last) with an even length")):
            windowed_dft(x, [band], 8, 64)
