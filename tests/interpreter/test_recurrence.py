"""The kernels of attack and release, run by Triton's interpreter, against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close

from tamt.reference import recurrence as reference
from tamt.triton_kernels import recurrence as kernels

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13}
# NumPy, which the interpreter runs on, warns of what is not finite.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short signals take several groups."""
    monkeypatch.setattr(kernels, "STEPS", 8)
    monkeypatch.setattr(kernels, "BACK_STEPS", 4)


def operands(*shape: int, constants: tuple[float, float], dtype: torch.dtype) -> tuple[Tensor, ...]:
    given = torch.randn(shape), *torch.tensor(constants), torch.randn(shape[0], shape[2])
    return tuple(t.to(dtype) for t in given)


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.double() for t in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "constants"),
    [
        ((2, 43, 20), (0.1, 0.03)),
        ((35, 17, 1), (0.02, 0.3)),
        ((3, 16, 3), (1.0, 0.2)),
        ((1, 9, 33), (0.2, 0.2)),
        ((2, 1, 16), (0.3, 0.1)),
        ((2, 0, 3), (0.3, 0.1)),
        ((0, 5, 3), (0.3, 0.1)),
    ],
    ids=str,
)
def test_against_the_reference(shape: tuple[int, ...], constants: tuple[float, float], dtype: torch.dtype) -> None:
    given = operands(*shape, constants=constants, dtype=dtype)
    y, last = kernels.attack_release(*given)
    expected = reference.attack_release(*wide(*given))
    for actual, e in zip((y, last), expected, strict=True):
        assert actual.is_contiguous()
        assert_close(actual.flatten(), e.flatten(), TOLERANCE[dtype], dtype)
    grads = torch.randn_like(y), torch.randn_like(last)
    wanted = reference.attack_release_backward(*wide(*grads, *given), expected[0], True, True)
    for needs in ((True, True), (True, False), (False, True)):
        found = kernels.attack_release_backward(*grads, *given, y, *needs)
        for i, (actual, e) in enumerate(zip(found, wanted, strict=True)):
            if needs[i in (1, 2)]:
                assert actual.shape == e.shape
                assert_close(actual.flatten(), e.flatten(), 10 * TOLERANCE[dtype], dtype)
            else:
                assert actual.shape == (0,)


@pytest.mark.parametrize("channels", [1, 17])
def test_what_is_not_finite(channels: int) -> None:
    """From there on all of its channel is NaN, and nothing else; nor has it a part in a loss of what came before."""
    x, *rest = operands(3, 30, channels, constants=(0.1, 0.03), dtype=torch.float32)
    clean, clean_last = kernels.attack_release(x, *rest)
    grad, grad_last = torch.randn_like(x), torch.zeros(3, channels)
    for place, value in ((0, math.nan), (13, math.inf), (29, -math.inf)):
        bad, g = x.clone(), grad.clone()
        bad[1, place, 0], g[1, place:, 0] = value, 0
        y, last = kernels.attack_release(bad, *rest)
        assert y[1, place:, 0].isnan().all()
        assert last[1, 0].isnan()
        found = kernels.attack_release_backward(g, grad_last, bad, *rest, y, True, True)
        wanted = kernels.attack_release_backward(g, grad_last, x, *rest, clean, True, True)
        for a, e in zip(found, wanted, strict=True):
            assert_close(a.flatten(), e.flatten(), 1e-5)
        y[1, place:, 0], last[1, 0] = clean[1, place:, 0], clean_last[1, 0]
        assert torch.equal(y, clean)
        assert torch.equal(last, clean_last)
