"""DRNL filters' means over hops on a device: the kernels against the definition, what runs, and how much memory."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, example_coef
from torch import Tensor

from tamt.ops.drnl_frames import _definition as definition
from tamt.ops.drnl_frames import drnl_frames, drnl_frames_rows
from tamt.ops.fft_drnl import ir_spectra
from tamt.ops.fft_drnl_frames import _definition as fft_definition
from tamt.ops.fft_drnl_frames import fft_drnl_frames_rows

pytestmark = pytest.mark.gpu
ORDERS = {"paulick2024": (6, 2, 3), "jepsen2008": (7, 3, 6)}  # sections of the linear, the front and the back cascade
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def operands(orders: tuple[int, ...], length: int, batch: int, channels: int) -> list[Tensor]:
    """Signal, linear, front, back, stick and states other than rest, with samples on both sides of the knee."""
    cascades = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    stick = torch.tensor([[1.0, 0.25, 0.25]]).repeat(channels, 1)
    states = [0.1 * torch.randn(batch, channels, 2 * order) for order in orders]
    return [t.double() for t in (torch.randn(batch, length), *cascades, stick, *states)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("hop", "length"), [(1, 77), (7, 5000), (16, 4096), (160, 5000), (441, 50001), (48000, 50001)])
@pytest.mark.parametrize("detector", ["power", "halfwave"])
@pytest.mark.parametrize("model", ORDERS)
def test_against_the_definition(model: str, detector: str, hop: int, length: int, dtype: torch.dtype) -> None:
    """In one chunk, and in many."""
    from tamt.triton_kernels import drnl_frames as engine

    given = [t.to(dtype) for t in operands(ORDERS[model], length, 3, 9)]
    wanted = definition(*(t.double() for t in given), hop, detector)
    for most in (engine.CHUNK, 100000):
        found = engine.drnl_frames(*(t.cuda() for t in given), hop, detector, most=most)
        for actual, expected in zip(found, wanted, strict=True):
            assert_close(actual.cpu(), expected, TOLERANCE[dtype], dtype=dtype)


def test_gradients() -> None:
    """In float64, as rounding moves samples to the other side of the knee."""
    given = operands(ORDERS["paulick2024"], 3000, 2, 5)
    wide = [t.clone().requires_grad_() for t in given]
    wanted = definition(*wide, 441, "power")
    weights = [torch.randn_like(t) for t in wanted]
    leaves = [t.cuda().requires_grad_() for t in given]
    found = torch.autograd.grad(drnl_frames_rows(*leaves, 441, "power"), leaves, [w.cuda() for w in weights])
    for actual, expected in zip(found, torch.autograd.grad(wanted, wide, weights), strict=True):
        assert (actual.cpu() - expected).norm() <= 1e-8 * expected.norm()


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import drnl_frames as engine

    calls = []
    launcher = engine.drnl_frames
    monkeypatch.setattr(engine, "drnl_frames", lambda *a: calls.append(a) or launcher(*a))
    x, linear, front, back, stick, *states = (t.cuda() for t in operands((2, 1, 2), 1000, 2, 3))
    sections = (t.unflatten(1, (-1, 6)) for t in (linear, front, back))
    drnl_frames(x, *sections, stick, 100, "power", state=tuple(states))
    assert len(calls) == 1


def test_same_bits_every_time() -> None:
    given = [t.float().cuda() for t in operands(ORDERS["paulick2024"], 100001, 8, 30)]
    first = drnl_frames_rows(*given, 441, "power")
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, drnl_frames_rows(*given, 441, "power"), strict=True))


def test_memory() -> None:
    """Beside operands and results, for outputs of 1.1 GB: w, the states of its superblocks, and rests."""
    given = [t.float().cuda() for t in operands(ORDERS["paulick2024"], 4 * 44100, 32, 50)]
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = drnl_frames_rows(*given, 441, "power")
    assert torch.cuda.max_memory_allocated() - before - sum(t.nbytes for t in found) < 48 << 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("hop", "length"), [(1, 77), (160, 5000), (441, 50001), (48000, 50001)])
def test_by_fft(hop: int, length: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import fft_drnl as engine

    calls = []
    launcher = engine.fft_drnl_frames
    monkeypatch.setattr(engine, "fft_drnl_frames", lambda *a: calls.append(a) or launcher(*a))
    decay = torch.exp(-6 * torch.arange(300) / 300)
    impulses = decay * torch.randn(3, 5, 300)
    spectra = ir_spectra((impulses / impulses.norm(dim=-1, keepdim=True)).double())
    stick = torch.tensor([2.0, 0.7, 0.25]) * (0.5 + torch.rand(5, 3))
    given = torch.randn(2, length), spectra, stick, torch.randn(2, 299), torch.randn(2, 5, 299)
    given = [t.to(dtype) for t in given]
    wanted = fft_definition(*(t.double() for t in given), hop, "power")
    found = fft_drnl_frames_rows(*(t.cuda() for t in given), hop, "power")
    for actual, expected in zip(found, wanted, strict=True):
        assert_close(actual.cpu(), expected, TOLERANCE[dtype], dtype=dtype)
    assert len(calls) == 1
