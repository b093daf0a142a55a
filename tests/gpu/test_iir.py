"""The IIR engine on a device: the Triton kernels against the reference, and sizes only a device can hold."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, example_operands

from tamt.ops.iir import iir
from tamt.reference import iir as reference
from tamt.reference.blocks import definition as iir_blocks

pytestmark = pytest.mark.gpu
KINDS = ("onepole", "biquad", "allpole", "modal")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000, 4096, 100003])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_reference(kind: str, length: int, per_channel: bool, dtype: torch.dtype) -> None:
    order = 4
    operands = [t.to(dtype) for t in example_operands(kind, order, length, per_channel, batch=2, channels=9)]
    inputs = [t.cuda().requires_grad_() for t in operands]
    y, final = iir(*inputs, kind, order)
    gy, gfinal = torch.randn_like(y), torch.randn_like(final)
    grads = torch.autograd.grad((y, final), inputs, (gy, gfinal))
    wide = [t.double() for t in operands]
    wanted = reference.iir(*wide, kind, order)
    gx, gstate, blocks = reference.iir_backward(
        gy.cpu().double(), gfinal.cpu().double(), *wide, kind, order, True, True
    )
    leaf = wide[1].requires_grad_()
    gcoef = torch.autograd.grad(iir_blocks(leaf, kind, order), leaf, tuple(blocks))[0]
    tolerance = TOLERANCE[dtype]
    for actual, expected in zip((y, final, grads[0], grads[2]), (*wanted, gx, gstate), strict=True):
        assert_close(actual.detach().cpu(), expected, tolerance, dtype=dtype)
    error = (grads[1].cpu().double() - gcoef).abs().amax(0) / gcoef.abs().amax(0)
    assert error.max() <= 100 * tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_several_filters_of_each_of_several_signals(kind: str) -> None:
    """As a signal for each filter, and its gradient is the sum of theirs."""
    _, coef, state = (t.float().cuda() for t in example_operands(kind, 4, 0, False, batch=2, channels=9))
    x = torch.randn(2, 3, 1003, device="cuda")
    results = []
    for signals in (x, x.repeat_interleave(3, 1)):
        inputs = [t.clone().requires_grad_() for t in (signals, coef, state)]
        y, final = iir(*inputs, kind, 4)
        of_x, *others = torch.autograd.grad(y.square().sum() + final.sum(), inputs)
        results.append((y, final, of_x.unflatten(1, (3, -1)).sum(2), *others))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual.detach(), expected.detach(), 1e-4, dtype=torch.float32)


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import iir as engine

    calls = []
    launcher = engine.iir_forward
    monkeypatch.setattr(engine, "iir_forward", lambda *a: calls.append(a) or launcher(*a))
    x, coef, state = (t.cuda() for t in example_operands("onepole", 2, 100, False))
    iir(x, coef, state, "onepole", 2)
    assert len(calls) == 1


def test_same_bits_every_time() -> None:
    x, coef, state = (t.float().cuda() for t in example_operands("onepole", 4, 50001, False, batch=3, channels=30))
    runs = []
    for _ in range(3):
        inputs = [t.clone().requires_grad_() for t in (x, coef, state)]
        y, final = iir(*inputs, "onepole", 4)
        runs.append((y, final, *torch.autograd.grad(y.square().sum() + final.sum(), inputs)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_ten_minutes() -> None:
    """A single signal of 37500 superblocks: a scan of three levels."""
    x, coef, state = (t.float().cuda() for t in example_operands("onepole", 4, 600 * 16000, False, batch=1, channels=2))
    y, final = iir(x, coef, state, "onepole", 4)
    wanted, wanted_final = reference.iir(*(t.double() for t in (x, coef, state)), "onepole", 4)
    assert_close(y, wanted, 1e-5, dtype=torch.float32)
    assert_close(final, wanted_final, 1e-5, dtype=torch.float32)


@pytest.mark.alone
def test_more_outputs_than_32_bits_count() -> None:
    """2.3e9 outputs; the rows on both sides of 2^31 against the same rows alone."""
    batch, channels, length = 72, 64, 500000
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free device memory")
    x, coef, state = (t.float().cuda() for t in example_operands("onepole", 2, length, False, batch, channels))
    y, final = iir(x, coef, state, "onepole", 2)
    assert y.numel() > 1 << 31
    for row in (0, 67, 68, 71):
        alone, alone_final = iir(x[row : row + 1], coef, state[row : row + 1], "onepole", 2)
        assert torch.equal(y[row], alone[0])
        assert torch.equal(final[row], alone_final[0])
