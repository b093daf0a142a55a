"""Signals of 2^31 samples, in Triton's interpreter: the first and last programs of each launch, at the right places.

The memory is virtual: what no program touches is never given.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef

from interpreter.nets import Watch
from tamt.triton_kernels.broken_stick import broken_stick, broken_stick_backward
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.iir import iir_backward, iir_forward

pytestmark = pytest.mark.slow
STICK = torch.tensor([[3.0, 2.0, 0.5]])
AROUND = pytest.mark.parametrize("length", [2**31 - 100, 2**31 + 205, 2**31 + 48])
ACTIVE = 16 * 7  # samples before a tail that are not silent


@pytest.fixture(autouse=True)
def _few(watch: Watch) -> None:
    watch.few = 2


def silence(length: int) -> Tensor:
    return torch.from_numpy(np.zeros((1, 1, length), np.float32))


def loud_at_the_end(length: int) -> tuple[Tensor, Tensor]:
    """A signal, and alone the part of it that is not silent, which begins with a trip."""
    x = silence(length)
    end = x[..., -ACTIVE - length % 16 :]
    end.normal_()
    return x, end.clone()


@AROUND
def test_broken_stick(length: int) -> None:
    v, end = loud_at_the_end(length)
    n = end.shape[2]
    assert torch.equal(broken_stick(v, STICK)[..., -n:], broken_stick(end, STICK))
    assert torch.equal(broken_stick_backward(v, v, STICK)[0][..., -n:], broken_stick_backward(end, end, STICK)[0])


@AROUND
def test_filters(length: int) -> None:
    x, end = loud_at_the_end(length)
    n, coef, state = end.shape[2], example_coef("onepole", 1, 1).float(), torch.zeros(1, 1, 2)
    y, final = iir_forward(x, coef, state, "onepole", 1)
    alone, alone_final = iir_forward(end, coef, state, "onepole", 1)
    assert_close(y[..., -n:], alone, 1e-6)
    assert_close(final, alone_final, 1e-6)
    gfinal = torch.randn(1, 1, 2)
    gx, *_ = iir_backward(x, gfinal, x, coef, state, "onepole", 1, True, False)
    alone, *_ = iir_backward(end, gfinal, end, coef, state, "onepole", 1, True, False)
    assert_close(gx[..., -n:], alone, 1e-6)


def test_drnl() -> None:
    x, end = loud_at_the_end(2**31 + 205)
    given = [example_coef("modal", 1, 1, seed).float() for seed in range(3)] + [STICK] + [torch.zeros(1, 1, 2)] * 3
    y, *finals = drnl(x[:, 0], *given)
    alone, *alone_finals = drnl(end[:, 0], *given)
    assert_close(y[..., -end.shape[2] :], alone, 1e-5)
    for final, wanted in zip(finals, alone_finals, strict=True):
        assert_close(final, wanted, 1e-5)
