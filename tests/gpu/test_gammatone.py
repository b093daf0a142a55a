"""GammatoneFilterbank on a device: against the CPU, accuracy in float32, torch.compile, streaming."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close

from tamt import GammatoneFilterbank

pytestmark = pytest.mark.gpu
FS = 16000
both = pytest.mark.parametrize("implementation", ["sos", "poly"])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_cpu(implementation: str, dtype: torch.dtype) -> None:
    arguments = {"learnable": True, "implementation": implementation}
    exact = GammatoneFilterbank((100, 7800), FS, dtype=torch.float64, **arguments)
    filters = GammatoneFilterbank((100, 7800), FS, dtype=dtype, device="cuda", **arguments)
    x = torch.randn(3, 5003, dtype=torch.float64)
    y = filters(x.cuda())
    assert_close(y.detach().cpu(), exact(x).detach(), 5e-6 if dtype == torch.float32 else 1e-10, dtype)
    weights = torch.randn(y.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(y, list(filters.parameters()), weights.to("cuda", dtype))
    expected = torch.autograd.grad(exact(x), list(exact.parameters()), weights)
    for actual, wanted in zip(gradients, expected, strict=True):
        difference = (actual.cpu().to(wanted.dtype) - wanted).abs() / wanted.abs()
        assert difference.max() < (1e-3 if dtype == torch.float32 else 1e-8)


@pytest.mark.parametrize("fs", [16000, 44100, 48000])
def test_float32_down_to_20_hz(fs: int) -> None:
    fc = [20, 50, 100, 500, 1000, 4000]
    x = torch.randn(2 * fs, dtype=torch.float64)
    expected = GammatoneFilterbank(fc, fs, dtype=torch.float64)(x)
    y = GammatoneFilterbank(fc, fs, device="cuda")(x.cuda())
    assert_close(y.cpu(), expected, 5e-6, torch.float32)


@both
def test_compile(implementation: str) -> None:
    torch._dynamo.reset()
    filters = GammatoneFilterbank((100, 7800), FS, learnable=True, implementation=implementation, device="cuda")
    compiled = torch.compile(filters, fullgraph=True, dynamic=True)
    compiled(torch.randn(2, 333, device="cuda", requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (64, 1000, 4097):
            x = torch.randn(2, length, device="cuda", requires_grad=True)
            y, expected = compiled(x), filters(x)
            assert_close(y.detach(), expected.detach(), 5e-6)
            inputs = [x, *filters.parameters()]
            for a, e in zip(
                torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
            ):
                assert_close(a, e, 1e-4)


def test_stream() -> None:
    filters, state, parts = GammatoneFilterbank((100, 7800), FS, device="cuda"), None, []
    x = torch.randn(2, 3000, device="cuda")
    for chunk in x.split(701, -1):
        y, state = filters.stream(chunk, state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), filters(x), 5e-6)


def test_a_state_of_another_device() -> None:
    filters = GammatoneFilterbank([500.0], FS)
    with pytest.raises(TypeError, match="coefficients must have the signal's type and device"):
        filters(torch.zeros(10, device="cuda"))
