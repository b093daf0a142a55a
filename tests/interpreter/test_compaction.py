"""The compaction's Triton kernels, run by Triton's interpreter, against the reference, bit for bit in what is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from tamt.reference import compaction as reference
from tamt.triton_kernels import compaction as engine

# numpy, which the interpreter computes with, warns of the logarithms of what is left out.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")


def check(intensity: Tensor, threshold: Tensor, count: int) -> tuple[Tensor, Tensor]:
    frequencies = 15.625 * torch.arange(1, intensity.shape[1] + 1, dtype=intensity.dtype)
    limited = count < intensity.shape[1]
    freqs, levels = engine.compaction(intensity, frequencies, threshold, count, limited)
    wanted, wanted_levels = reference.compaction(intensity, frequencies, threshold, count, limited)
    assert torch.equal(freqs, wanted)
    tolerance = 2e-7 if intensity.dtype == torch.float32 else 1e-15  # of levels up to some 100 dB, and as many dB
    torch.testing.assert_close(levels, wanted_levels, rtol=tolerance, atol=100 * tolerance, equal_nan=True)
    grad = torch.randn(levels.shape, dtype=levels.dtype)
    actual = engine.compaction_backward(grad, intensity, frequencies, threshold, count, limited)
    expected = reference.compaction_backward(grad, intensity, frequencies, threshold, count, limited)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0, equal_nan=True)
    return freqs, levels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns"), [(5, 1), (3, 31), (4, 33), (3, 960)])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_against_the_reference(rows: int, columns: int, share: float, dtype: torch.dtype) -> None:
    intensity = 10 ** (6 * torch.rand(rows, columns, dtype=dtype))
    threshold = torch.quantile(intensity.double(), share, -1).to(dtype)
    if share == 0:
        threshold.zero_()
    for count in (7, columns // 2 + 1, columns, columns + 5):
        freqs, _ = check(intensity, threshold, count)
        expected = torch.minimum((intensity > threshold[:, None]).sum(-1), torch.tensor(count))
        assert torch.equal((freqs > 0).sum(-1), expected)


def test_very_many_and_few() -> None:
    intensity = 10 ** (6 * torch.rand(3, 33))
    threshold = torch.quantile(intensity, 0.4, -1)
    for count in (1, 169):
        check(intensity, threshold, count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_and_extremes(dtype: torch.dtype) -> None:
    """Few different values, so that ties straddle the last place; infinities and NaN among them."""
    intensity = torch.randint(0, 4, (12, 50)).to(dtype)
    intensity[1, ::7] = float("inf")
    intensity[2, ::5] = float("nan")
    intensity[3, ::5], intensity[3, 1::5] = float("nan"), float("inf")
    intensity[4] = 0
    intensity[5] = torch.finfo(dtype).max
    intensity[6] = torch.finfo(dtype).tiny * 32
    threshold = torch.zeros(12, dtype=dtype)
    threshold[7:10], threshold[8] = 1, float("nan")
    for count in (1, 25, 49):
        check(intensity, threshold, count)


def test_any_strides() -> None:
    intensity, threshold = torch.rand(6, 40), torch.full((1,), 0.3).expand(6)
    expected = check(intensity, threshold.contiguous(), 20)
    strided = intensity.t().contiguous().t()
    for a, e in zip(check(strided, threshold, 20), expected, strict=True):
        assert torch.equal(a, e)
    grad, frequencies = torch.ones(()).expand(6, 20), torch.arange(1.0, 41)
    wanted = engine.compaction_backward(grad.contiguous(), intensity, frequencies, threshold.contiguous(), 20, True)
    assert torch.equal(engine.compaction_backward(grad, strided, frequencies, threshold, 20, True), wanted)


def test_rows_that_are_known_to_have_room() -> None:
    """As many columns as the fullest row needs: without a search the result is the same."""
    intensity, threshold, frequencies = torch.rand(6, 40), torch.full((6,), 0.3), torch.arange(1.0, 41)
    count = int((intensity > 0.3).sum(-1).max())
    assert count < 40
    expected = engine.compaction(intensity, frequencies, threshold, count, True)
    for a, e in zip(engine.compaction(intensity, frequencies, threshold, count, False), expected, strict=True):
        assert torch.equal(a, e)


def test_no_rows() -> None:
    freqs, levels = check(torch.zeros(0, 10), torch.zeros(0), 4)
    assert freqs.shape == levels.shape == (0, 4)
