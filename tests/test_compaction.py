"""Compaction: a plain loop over rows, ties, full and empty rows, gradients, torch.compile, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import QUICK, assert_close, checked, compiled_elsewhere
from torch import Tensor

from tamt.ops import compaction as ops
from tamt.ops.compaction import compaction
from tamt.reference import compaction as reference


def by_loop(intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int) -> tuple[list, list]:
    """Definition, component by component."""
    all_freqs, all_levels = [], []
    for row, limit in zip(intensity.tolist(), threshold.tolist(), strict=True):
        kept = [i for i, value in enumerate(row) if not value <= limit]
        strongest = sorted(kept, key=lambda i: (-math.inf if math.isnan(row[i]) else -row[i], i))[:count]
        kept = sorted(strongest)
        freqs = [frequencies[i].item() for i in kept]
        levels = [10 * math.log10(row[i]) if row[i] > 0 else -math.inf if row[i] == 0 else math.nan for i in kept]
        all_freqs.append(freqs + [0.0] * (count - len(kept)))
        all_levels.append(levels + [0.0] * (count - len(kept)))
    return all_freqs, all_levels


def operands(rows: int, columns: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Intensities over six decades, rows from empty to full."""
    intensity = 10 ** (6 * torch.rand(rows, columns, dtype=dtype) - 2)
    threshold = 10 ** torch.linspace(5, -3, rows, dtype=dtype)
    return intensity, 100 * torch.arange(1, columns + 1, dtype=dtype), threshold


def check(intensity: Tensor, frequencies: Tensor, threshold: Tensor, count: int) -> None:
    freqs, levels = compaction(intensity, frequencies, threshold, count)
    expected, expected_levels = by_loop(intensity, frequencies, threshold, count)
    assert freqs.dtype == levels.dtype == intensity.dtype
    assert freqs.tolist() == expected
    tolerance = 1e-12 if intensity.dtype == torch.float64 else 2e-5
    wanted = torch.tensor(expected_levels, dtype=intensity.dtype).reshape(levels.shape)
    torch.testing.assert_close(levels, wanted, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 2, 64, 300])
@pytest.mark.parametrize("count", [1, 2, 17, 63, 64, 65, 1000])
def test_against_a_loop(columns: int, count: int, dtype: torch.dtype) -> None:
    given = operands(9, columns, dtype)
    kept = (given[0] > given[2][:, None]).sum(-1)
    assert kept[0] == 0
    assert kept[-1] == columns
    check(*given, count)


@pytest.mark.parametrize("count", [1, 3, 10, 29, 30])
def test_ties(count: int) -> None:
    """Of equal components those of lower index stay; infinity and NaN are the strongest, and equal."""
    intensity = torch.randint(0, 4, (60, 30)).double()
    intensity[40:50, ::4] = math.inf
    intensity[45:55, 1::5] = math.nan
    threshold = torch.randint(0, 3, (60,)).double()
    threshold[50:52] = math.nan
    frequencies = torch.arange(1.0, 31).double()
    freqs, levels = compaction(intensity, frequencies, threshold, count)
    expected, _ = by_loop(intensity, frequencies, threshold, count)
    assert freqs.tolist() == expected
    index = (freqs.long() - 1).clamp_min(0)
    kept = torch.where(freqs > 0, intensity.gather(1, index), 1.0)
    torch.testing.assert_close(levels, 10 * torch.log10(kept), rtol=1e-15, atol=0, equal_nan=True)


def test_as_long_as_the_fullest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing searches for the strongest where there is room for all."""
    monkeypatch.setattr(reference, "_strongest", None)
    intensity, frequencies, threshold = operands(6, 50)
    intensity, threshold = intensity.reshape(2, 3, 50), threshold.reshape(2, 3)
    longest = int((intensity > threshold[..., None]).sum(-1).max())
    freqs, levels = compaction(intensity, frequencies, threshold)
    assert freqs.shape == levels.shape == (2, 3, longest)
    wide = compaction(intensity, frequencies, threshold, 50)
    assert torch.equal(freqs, wide[0][..., :longest])
    assert torch.equal(levels, wide[1][..., :longest])
    assert compaction(intensity, frequencies, threshold + 1e9)[0].tolist() == [[[0]] * 3] * 2
    assert compaction(intensity[:0], frequencies, threshold[:0])[0].shape == (0, 3, 1)


@pytest.mark.parametrize("count", [1, 20, 64, 70])
def test_slices_are_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands(11, 64)
    grad = torch.randn(11, count, dtype=torch.float64)
    room = count, count < 64
    whole = reference.compaction(*given, *room)
    gradient = reference.compaction_backward(grad, *given, *room)
    monkeypatch.setattr(reference, "SLICE", 1600)
    for a, e in zip(reference.compaction(*given, *room), whole, strict=True):
        assert torch.equal(a, e)
    assert torch.equal(reference.compaction_backward(grad, *given, *room), gradient)


@pytest.mark.parametrize("count", [1, 20, 64, 70])
def test_gradient(count: int) -> None:
    """``10 / (ln 10 I)`` at what is kept, 0 elsewhere."""
    intensity, frequencies, threshold = operands(7, 64)
    intensity[2, :5] = 0
    intensity.requires_grad_()
    freqs, levels = compaction(intensity, frequencies, threshold, count)
    assert not freqs.requires_grad
    grad = torch.randn_like(levels)
    (gradient,) = torch.autograd.grad(levels, intensity, grad)
    expected = torch.zeros(7, 65, dtype=torch.float64)
    expected.scatter_(1, (freqs / 100).long(), grad)
    kept = expected[:, 1:] != 0
    assert kept.any()
    expected = torch.where(kept, expected[:, 1:] * 10 / math.log(10) / intensity.detach(), torch.zeros(()).double())
    torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("count", [3, 8, 10])
def test_gradcheck(count: int) -> None:
    intensity = (1 + torch.randperm(24).double()).reshape(3, 8).requires_grad_()
    frequencies, threshold = torch.arange(1.0, 9).double(), torch.tensor([8.5, 2.5, 100], dtype=torch.float64)

    def levels(intensity: Tensor) -> Tensor:
        return compaction(intensity, frequencies, threshold, count)[1]

    assert levels(intensity).count_nonzero() > 0
    assert torch.autograd.gradcheck(levels, (intensity,))
    assert torch.autograd.gradgradcheck(levels, (intensity,))


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    intensity, frequencies, threshold = operands(5, 30)
    intensity.requires_grad_()
    for count, limited in ((7, True), (30, False), (40, False)):
        given = intensity, frequencies, threshold, count, limited
        torch.library.opcheck(ops.compaction_rows, given, test_utils=checks if limited else QUICK)
        grad = torch.randn(5, count, dtype=torch.float64, requires_grad=True)
        given = grad, intensity, frequencies, threshold, count, limited
        torch.library.opcheck(ops.compaction_backward, given, test_utils=checks if limited else QUICK)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    torch._dynamo.reset()
    frequencies = operands(1, 30)[1]

    def function(intensity: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        return compaction(intensity, frequencies, threshold, 12)

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    intensity, _, threshold = operands(4, 30)
    compiled(intensity.requires_grad_(), threshold)[1].sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (3, 20):
            intensity, _, threshold = operands(rows, 30)
            intensity.requires_grad_()
            actual, expected = compiled(intensity, threshold), function(intensity, threshold)
            assert torch.equal(actual[0], expected[0])
            assert_close(actual[1].detach(), expected[1].detach(), 1e-15)
            gradients = [torch.autograd.grad(levels.square().sum(), intensity)[0] for _, levels in (actual, expected)]
            assert_close(*gradients, 1e-13)


def test_nothing_is_read_back_with_a_given_length() -> None:
    """Tensors without values cannot be read."""
    intensity, frequencies, threshold = (t.to("meta") for t in operands(5, 30))
    freqs, levels = compaction(intensity.requires_grad_(), frequencies, threshold, 12)
    assert freqs.shape == levels.shape == (5, 12)
    assert torch.autograd.grad(levels.sum(), intensity)[0].shape == (5, 30)


def test_layouts() -> None:
    intensity, frequencies, threshold = operands(6, 30)
    expected = compaction(intensity, frequencies, threshold, 12)
    strided = intensity.t().contiguous().t().requires_grad_()
    actual = compaction(strided, frequencies.repeat_interleave(2)[::2], threshold.repeat_interleave(2)[::2], 12)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)
        assert a.is_contiguous()
    gradient = torch.autograd.grad(actual[1], strided, torch.ones(()).double().expand(6, 12))[0]
    leaf = intensity.requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(compaction(leaf, frequencies, threshold, 12)[1].sum(), leaf)[0])
    alone = compaction(intensity[5], frequencies, threshold[5], 12)
    assert torch.equal(alone[0], expected[0][5])


def test_float32_needs_neither_float64_nor_complex(mps_safe: type) -> None:
    intensity, frequencies, threshold = operands(5, 30, torch.float32)
    with mps_safe():
        for count in (7, 40):
            levels = compaction(intensity.requires_grad_(), frequencies, threshold, count)[1]
            torch.autograd.grad(levels.sum(), intensity)


def test_errors() -> None:
    intensity, frequencies, threshold = operands(5, 30)
    with pytest.raises(ValueError, match=re.escape("intensity must have shape (..., F) with F >= 1, got (5, 0)")):
        compaction(intensity[:, :0], frequencies[:0], threshold)
    with pytest.raises(ValueError, match=re.escape("frequencies must have shape (30,), got (29,)")):
        compaction(intensity, frequencies[1:], threshold)
    with pytest.raises(ValueError, match=re.escape("threshold must have shape (5,), got ()")):
        compaction(intensity, frequencies, threshold[0])
    with pytest.raises(TypeError, match="threshold must have intensity's type and device"):
        compaction(intensity, frequencies, threshold.float())
    with pytest.raises(TypeError, match=re.escape("intensity must be float32 or float64, got torch.float16")):
        compaction(intensity.half(), frequencies.half(), threshold.half())
    with pytest.raises(ValueError, match="max_components must be at least 1, got 0"):
        compaction(intensity, frequencies, threshold, 0)
    with pytest.raises(ValueError, match=re.escape("intensity and threshold must have the shapes (R, F) and (R,)")):
        ops.compaction_rows(intensity, frequencies, threshold[1:], 3, True)
    with pytest.raises(ValueError, match=re.escape("frequencies must have shape (30,), got (29,)")):
        ops.compaction_rows(intensity, frequencies[1:], threshold, 3, True)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        ops.compaction_rows(intensity, frequencies, threshold, 0, True)
