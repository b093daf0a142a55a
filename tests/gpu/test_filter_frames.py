"""Means over hops on a device: the kernels against the definition, what runs, how much memory, and long signals."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, example_operands
from torch import Tensor

from tamt.ops.filter_frames import _definition as definition
from tamt.ops.filter_frames import filter_frames, filter_frames_rows
from tamt.reference import filter_frames as reference

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def operands(
    kind: str, order: int, length: int, dtype: torch.dtype, batch: int = 2, channels: int = 9
) -> tuple[Tensor, Tensor, Tensor]:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, order, length, False, batch, channels))
    return x[:, 0], coef, state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("hop", "length"), [(1, 77), (7, 5000), (16, 4096), (160, 5000), (441, 5001), (2560, 6000)])
@pytest.mark.parametrize(
    ("kind", "detector"),
    [
        ("onepole", "power"),
        ("onepole", "envelope"),
        ("allpole", "envelope"),
        ("allpole", "halfwave"),
        ("biquad", "power"),
        ("modal", "halfwave"),
    ],
)
def test_against_the_definition(kind: str, detector: str, hop: int, length: int, dtype: torch.dtype) -> None:
    given = operands(kind, 4, length, dtype)
    wide = [t.double().requires_grad_() for t in given]
    wanted = definition(*wide, kind, 4, hop, detector)
    weights = [torch.randn_like(t) for t in wanted]
    wanted_grads = torch.autograd.grad(wanted, wide, weights)
    leaves = [t.cuda().requires_grad_() for t in given]
    found = filter_frames_rows(*leaves, kind, 4, hop, detector)
    grads = torch.autograd.grad(found, leaves, [w.to(dtype).cuda() for w in weights])
    tolerance = TOLERANCE[dtype]
    for actual, expected in zip((*found, grads[0], grads[2]), (*wanted, wanted_grads[0], wanted_grads[2]), strict=True):
        assert_close(actual.detach().cpu(), expected.detach(), tolerance, dtype=dtype)
    assert_close(grads[1].cpu().mT, wanted_grads[1].mT, 100 * tolerance, dtype=dtype)


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import filter_frames as engine

    calls = []
    forward, backward = engine.filter_frames, engine.filter_frames_backward
    monkeypatch.setattr(engine, "filter_frames", lambda *a: calls.append("forward") or forward(*a))
    monkeypatch.setattr(engine, "filter_frames_backward", lambda *a: calls.append("backward") or backward(*a))
    x, coef, state = (t.cuda() for t in operands("onepole", 2, 1000, torch.float32))
    means, _ = filter_frames(x, coef.requires_grad_(), "onepole", 2, 160, "power", state=state)
    means.sum().backward()
    assert calls == ["forward", "backward"]


@pytest.mark.parametrize("detector", ["power", "envelope", "halfwave"])
@pytest.mark.parametrize("hop", [16, 160, 441])
def test_gradients_of_onepole_cascades_take_the_adjoint_through_the_cache(
    hop: int, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamt.triton_kernels.filter_frames import backward

    calls = []
    pull_back = backward.pull_sums_back
    monkeypatch.setattr(backward, "pull_sums_back", lambda *a: calls.append("pulled") or pull_back(*a))
    x, coef, state = (t.cuda() for t in operands("onepole", 4, 10 * hop, torch.float32))
    means, _ = filter_frames(x, coef.requires_grad_(), "onepole", 4, hop, detector, state=state)
    means.sum().backward()
    assert calls


def test_same_bits_every_time() -> None:
    given = [t.cuda() for t in operands("onepole", 4, 50001, torch.float32, 3, 30)]
    runs = []
    for _ in range(3):
        leaves = [t.clone().requires_grad_() for t in given]
        means, final = filter_frames_rows(*leaves, "onepole", 4, 441, "envelope")
        runs.append((means, final, *torch.autograd.grad(means.sum() + final.sum(), leaves)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.alone
def test_memory() -> None:
    """Beside operands and results, of a load whose outputs are 1.3 GB; twice as much for one of twice the length."""
    x, coef, state = (t.cuda() for t in operands("onepole", 4, 160000, torch.float32, 32, 64))
    for rows in (x, x.repeat(1, 2)):
        leaves = rows, coef.clone().requires_grad_(), state
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        means, _ = filter_frames_rows(*leaves, "onepole", 4, 160, "power")
        result = means.nbytes + state.nbytes
        assert torch.cuda.max_memory_allocated() - before - result < 32 << 20
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.grad(means.sum(), leaves[1])
        # Of the gradients only those of means, expanded, and what silences the signal depend on the length.
        assert torch.cuda.max_memory_allocated() - before - 2 * result - rows.nbytes < 96 << 20


@pytest.mark.parametrize("hop", [160, 441])
def test_ten_minutes(hop: int) -> None:
    """A single signal, in parts of time."""
    from tamt.triton_kernels import filter_frames as engine

    given = operands("onepole", 4, 600 * 16000, torch.float32, 1, 2)
    wanted, wanted_final = reference.filter_frames(*(t.double() for t in given), "onepole", 4, hop, "power")
    means, final = engine.filter_frames(*(t.cuda() for t in given), "onepole", 4, hop, "power", most=1 << 20)
    assert_close(means.cpu(), wanted, 1e-5, dtype=torch.float32)
    assert_close(final.cpu(), wanted_final, 1e-5, dtype=torch.float32)


@pytest.mark.alone
def test_more_outputs_than_32_bits_count() -> None:
    """2.3e9 outputs; the rows on both sides of 2^31 against the same rows alone."""
    x, coef, state = (t.cuda() for t in operands("onepole", 2, 500000, torch.float32, 72, 64))
    means, final = filter_frames_rows(x, coef, state, "onepole", 2, 1000, "power")
    for row in (0, 67, 68, 71):
        alone, alone_final = filter_frames_rows(
            x[row : row + 1], coef, state[row : row + 1], "onepole", 2, 1000, "power"
        )
        assert torch.equal(means[row], alone[0])
        assert torch.equal(final[row], alone_final[0])
