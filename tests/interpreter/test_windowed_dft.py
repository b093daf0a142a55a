"""The windowed DFT's Triton kernels, run by Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close

from tamt.ops.windowed_dft import dft_tables
from tamt.reference import windowed_dft as reference
from tamt.triton_kernels import windowed_dft as engine

APART = [(128, 1, 3), (64, 4, 20), (32, 21, 64)]
OVERLAPPING = [(128, 2, 30), (32, 10, 64), (64, 60, 61)]
GAP = [(32, 40, 64), (128, 1, 3)]


def operands(
    bands: list[tuple[int, int, int]], rows: int, length: int, dtype: torch.dtype, size: int = 128
) -> tuple[Tensor, Tensor, Tensor, list[int], list[int], list[int]]:
    weight = 0.5 + torch.rand(sum(last - first + 1 for _, first, last in bands))
    tables = dft_tables(bands, size, dtype=dtype)
    return torch.randn(rows, length).to(dtype), tables, weight.to(dtype), *map(list, zip(*bands, strict=True))


def check(given: tuple, hop: int, size: int, tolerance: float = 3e-6) -> None:
    """The spectrum and both gradients; every bin, and every part of the signal, against its own peak."""
    wide = [t.double().requires_grad_() if isinstance(t, Tensor) else t for t in given]
    expected = reference.definition(*wide, hop, size)
    actual = engine.windowed_dft(*given, hop, size)
    by_bin = (t.permute(2, 0, 1).flatten(1) for t in (actual, expected.detach()))
    assert_close(*by_bin, tolerance, given[0].dtype)
    grad = torch.randn(actual.shape, dtype=actual.dtype)
    of_x, of_weight = torch.autograd.grad(expected, (wide[0], wide[2]), grad.double())
    for need_x, need_weight in ((True, True), (True, False), (False, True)):
        got_x, got_weight = engine.windowed_dft_backward(grad, *given, hop, size, need_x, need_weight)
        if need_x:
            assert_close(got_x, of_x, tolerance, grad.dtype)
        if need_weight:
            assert_close(got_weight, of_weight, tolerance, grad.dtype)
        assert bool(got_x.numel()) == need_x
        assert bool(got_weight.numel()) == need_weight


@pytest.mark.parametrize("bands", [APART, OVERLAPPING, GAP])
@pytest.mark.parametrize(
    ("rows", "length", "hop"), [(2, 128, 32), (1, 131, 3), (2, 300, 32), (1, 340, 5), (2, 900, 96), (1, 2500, 200)]
)
def test_forward_and_every_gradient(bands: list[tuple[int, int, int]], rows: int, length: int, hop: int) -> None:
    check(operands(bands, rows, length, torch.float32), hop, 128)


def test_more_frames_and_bins_than_a_tile() -> None:
    check(operands([(64, 1, 100), (256, 101, 128)], 2, 256 + 32 * 70, torch.float32, 256), 32, 256)


def test_slices_of_z_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands(OVERLAPPING, 3, 400, torch.float32)
    grad = torch.randn(3, 17, 63)
    expected = engine.windowed_dft_backward(grad, *given, 17, 128, True, True)
    for scratch in (400, 3000):
        monkeypatch.setattr(engine, "PARTS", scratch)
        for a, e in zip(engine.windowed_dft_backward(grad, *given, 17, 128, True, True), expected, strict=True):
            assert_close(a, e, 1e-6)


def test_nan_stays_in_its_row() -> None:
    given = operands(APART, 3, 300, torch.float32)
    clean = engine.windowed_dft(*given, 32, 128)
    given[0][1, 100] = float("nan")
    spoilt = engine.windowed_dft(*given, 32, 128)
    assert spoilt[1].isnan().any()
    assert torch.equal(spoilt[::2], clean[::2])
    grad_x, _ = engine.windowed_dft_backward(clean, *given, 32, 128, True, False)
    assert torch.isfinite(grad_x[::2]).all()


def test_any_strides() -> None:
    x, tables, weight, *plan = operands(APART, 2, 300, torch.float32)
    strided = x.t().contiguous().t(), tables, weight.repeat_interleave(2)[::2], *plan
    assert torch.equal(engine.windowed_dft(*strided, 32, 128), engine.windowed_dft(x, tables, weight, *plan, 32, 128))
    grad = torch.ones(()).expand(2, 6, 64)
    expected = engine.windowed_dft_backward(grad.contiguous(), x, tables, weight, *plan, 32, 128, True, True)
    for a, e in zip(engine.windowed_dft_backward(grad, *strided, 32, 128, True, True), expected, strict=True):
        assert torch.equal(a, e)


def test_no_rows() -> None:
    given = operands(APART, 0, 300, torch.float32)
    out = engine.windowed_dft(*given, 32, 128)
    assert out.shape == (0, 6, 64)
    grad_x, grad_weight = engine.windowed_dft_backward(out, *given, 32, 128, True, True)
    assert grad_x.shape == (0, 300)
    assert not grad_weight.any()
