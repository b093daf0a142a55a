"""Both DRNL filterbanks on a device: against the CPU, gradients, accuracy in float32, torch.compile, streaming."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close

from tamt import DRNLFilterbank, FastDRNLFilterbank

pytestmark = pytest.mark.gpu
FS = 44100
both = pytest.mark.parametrize("kind", [DRNLFilterbank, FastDRNLFilterbank])
models = pytest.mark.parametrize("model", ["paulick2024", "jepsen2008"])


@both
@models
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_cpu(kind: type, model: str, dtype: torch.dtype) -> None:
    arguments = {"n_channels": 20, "model": model, "learnable": True}
    exact = kind((250, 8000), FS, **arguments)
    filters = kind((250, 8000), FS, dtype=dtype, device="cuda", **arguments)
    x = torch.randn(3, 5003).double() * torch.logspace(-7, -1, 3).double()[:, None]
    y = filters(x.cuda())
    assert_close(y.detach().cpu(), exact(x).detach(), 2e-5 if dtype == torch.float32 else 1e-9, dtype)
    weights = torch.randn(y.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(y, list(filters.parameters()), weights.to("cuda", dtype))
    expected = torch.autograd.grad(exact(x), list(exact.parameters()), weights)
    for actual, wanted in zip(gradients, expected, strict=True):
        difference = (actual.cpu().double() - wanted).abs() / wanted.abs().amax()
        assert difference.max() < (1e-3 if dtype == torch.float32 else 1e-7)


@both
@pytest.mark.parametrize("level", [1e-7, 1e-4, 1e-1])
def test_float32(kind: type, level: float) -> None:
    fc = [250.0, 500, 1000, 2000, 4000, 8000]
    x = (level * torch.randn(2 * FS, dtype=torch.float64)).float()
    y = kind(fc, FS, dtype=torch.float32, device="cuda")(x.cuda())
    assert_close(y.cpu(), kind(fc, FS)(x), 2e-5, torch.float32)


@both
def test_compile(kind: type) -> None:
    torch._dynamo.reset()
    filters = kind((250, 8000), FS, 8, learnable=True, dtype=torch.float32, device="cuda")
    compiled = torch.compile(filters, fullgraph=True, dynamic=True)
    compiled(1e-3 * torch.randn(2, 333, device="cuda", requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (64, 1000, 4097):
            x = (1e-3 * torch.randn(2, length, device="cuda")).requires_grad_()
            y, expected = compiled(x), filters(x)
            assert_close(y.detach(), expected.detach(), 5e-6)
            inputs = [x, *filters.parameters()]
            for a, e in zip(
                torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
            ):
                assert_close(a, e, 1e-4)


@both
def test_stream(kind: type) -> None:
    filters, state, parts = kind((250, 8000), FS, 8, dtype=torch.float32, device="cuda"), None, []
    x = 1e-3 * torch.randn(2, 9000, device="cuda")
    for chunk in x.split(1701, -1):
        y, state = filters.stream(chunk, state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), filters(x), 5e-6)


@both
def test_silence(kind: type) -> None:
    filters = kind((250, 8000), FS, 8, learnable=True, dtype=torch.float32, device="cuda")
    x = torch.zeros(2, 1000, device="cuda", requires_grad=True)
    y = filters(x)
    assert not y.any()
    y.sum().backward()
    assert all(torch.isfinite(g).all() for g in (x.grad, *(p.grad for p in filters.parameters())))


def test_memory_of_fast_drnl_is_that_of_a_block() -> None:
    filters = FastDRNLFilterbank((250, 8000), FS, dtype=torch.float32, device="cuda")
    peaks = []
    for seconds in (10, 60):
        x = 1e-3 * torch.randn(seconds * FS, device="cuda")
        filters(x[:FS])
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        y = filters(x)
        peaks.append(torch.cuda.max_memory_allocated() - before - y.numel() * 4)
        del y
    assert peaks[1] <= 1.2 * peaks[0]
