"""The FFT-DRNL on a device: the Triton kernels against the reference, and sizes only a device can hold."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from torch import Tensor

from tamt.ops.fft_drnl import fft_drnl_rows, ir_spectra
from tamt.reference import fft_drnl as reference

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def example_operands(ir_length: int, length: int, batch: int, channels: int) -> tuple[Tensor, ...]:
    """Operands of the operator with a past other than silence, float64 on the CPU."""
    decay = torch.exp(-6 * torch.arange(ir_length, dtype=torch.float64) / ir_length)
    impulses = decay * torch.randn(3, channels, ir_length, dtype=torch.float64)
    spectra = ir_spectra(impulses / impulses.norm(dim=-1, keepdim=True))
    stick = torch.tensor([2.0, 0.7, 0.25], dtype=torch.float64) * (0.5 + torch.rand(channels, 3, dtype=torch.float64))
    x, past_x = torch.randn(batch, length), torch.randn(batch, ir_length - 1)
    past_w = torch.randn(batch, channels, ir_length - 1)
    return x.double(), spectra, stick, past_x.double(), past_w.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("ir_length", "length"),
    [(1, 100), (5, 1), (5, 3000), (300, 0), (300, 100), (300, 1749), (4096, 12288), (4096, 50001)],
)
def test_against_the_reference(ir_length: int, length: int, dtype: torch.dtype) -> None:
    operands = [t.to(dtype) for t in example_operands(ir_length, length, batch=2, channels=9)]
    inputs = [t.cuda().requires_grad_(i != 1) for i, t in enumerate(operands)]
    results = fft_drnl_rows(*inputs)
    weights = [torch.randn_like(r) for r in results]
    grads = torch.autograd.grad(results, [t for t in inputs if t.requires_grad], weights)
    wide = [t.double() for t in operands]
    wanted = *reference.fft_drnl(*wide), *reference.fft_drnl_backward(*(w.cpu().double() for w in weights), *wide, True)
    for actual, expected in zip(results, wanted[:3], strict=True):
        assert_close(actual.detach().cpu(), expected, TOLERANCE[dtype], dtype=dtype)
    for actual, expected in zip(grads, wanted[3:], strict=True):
        if dtype == torch.float64:
            assert_close(actual.cpu(), expected, 10 * TOLERANCE[dtype])
        else:
            # Rounding may put a sample on the other side of the knee, where its gradient is another one.
            assert actual.dtype == dtype
            assert (actual.cpu() - expected).norm() <= 3e-3 * expected.norm()


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import fft_drnl as engine

    calls = []
    launcher = engine.fft_drnl
    monkeypatch.setattr(engine, "fft_drnl", lambda *a: calls.append(a) or launcher(*a))
    fft_drnl_rows(*(t.cuda() for t in example_operands(5, 100, 1, 2)))
    assert len(calls) == 1


def test_same_bits_every_time() -> None:
    operands = [t.float().cuda() for t in example_operands(300, 50001, batch=3, channels=30)]
    runs = []
    for _ in range(3):
        inputs = [t.clone().requires_grad_(i != 1) for i, t in enumerate(operands)]
        results = fft_drnl_rows(*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        runs.append((*results, *torch.autograd.grad(sum(r.square().sum() for r in results), wanted)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_double_backward() -> None:
    x, spectra, *rest = (t.cuda() for t in example_operands(5, 40, 1, 2))
    inputs = [t.requires_grad_() for t in (x, *rest)]
    assert torch.autograd.gradgradcheck(lambda x, *r: fft_drnl_rows(x, spectra, *r), inputs, fast_mode=True)


def test_memory_does_not_grow_with_the_signal() -> None:
    def beyond_the_output(seconds: int) -> int:
        x, *rest = (t.float().cuda() for t in example_operands(4096, 44100 * seconds, 1, 50))
        fft_drnl_rows(x, *rest)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        y, _, _ = fft_drnl_rows(x, *rest)
        return torch.cuda.max_memory_allocated() - before - y.nbytes

    assert beyond_the_output(60) <= 1.2 * beyond_the_output(10)


@pytest.mark.alone
def test_more_outputs_than_32_bits_count() -> None:
    """2.3e9 outputs; the rows on both sides of 2^31 against the same rows alone."""
    batch, channels, length = 72, 64, 500000
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free device memory")
    x, spectra, stick, past_x, past_w = (t.float().cuda() for t in example_operands(300, length, batch, channels))
    y, _, last_w = fft_drnl_rows(x, spectra, stick, past_x, past_w)
    assert y.numel() > 1 << 31
    for row in (0, 67, 68, 71):
        one = slice(row, row + 1)
        alone, _, alone_w = fft_drnl_rows(x[one], spectra, stick, past_x[one], past_w[one])
        assert_close(y[one], alone, 1e-5)
        assert_close(last_w[one], alone_w, 1e-5)
