"""MultiResolutionFFT and ERBIntegration on a device: against the CPU, torch.compile, bad spectra."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close

from tamt.excitation.erb_integration import ERBIntegration
from tamt.spectra.multiresolution import MultiResolutionFFT

pytestmark = pytest.mark.gpu
both = pytest.mark.parametrize("learnable", [False, True])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hop_fraction", [0.5, 0.3])
def test_against_the_cpu(learnable: bool, dtype: torch.dtype, hop_fraction: float) -> None:
    analysis = MultiResolutionFFT(hop_fraction=hop_fraction, learnable=learnable)
    integration = ERBIntegration(learnable=learnable)
    x = 0.01 * torch.randn(3, 20001, dtype=torch.float64)
    results = []
    for device, kind in (("cpu", torch.float64), ("cuda", dtype)):
        analysis, integration = analysis.to(device), integration.to(device)
        signal = x.to(device, kind).requires_grad_()
        psd, freqs = analysis(signal)
        levels = integration(psd, freqs)
        assert psd.device.type == freqs.device.type == levels.device.type == device
        assert psd.dtype == freqs.dtype == levels.dtype == kind
        inputs = [signal, *analysis.parameters(), *integration.parameters()]
        results.append((psd, levels, torch.autograd.grad(levels.sum(), inputs)))
    (psd, levels, gradients), (psd_there, levels_there, gradients_there) = results
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    assert_close(psd_there.detach().cpu(), psd.detach(), tolerance, dtype)
    assert_close(levels_there.detach().cpu(), levels.detach(), tolerance, dtype)
    for actual, expected in zip(gradients_there, gradients, strict=True):
        limit = 1e-3 if torch.float32 in (dtype, expected.dtype) else 1e-9
        error = (actual.cpu() - expected).abs().max() / expected.abs().max()
        assert error < limit


@both
def test_deterministic(learnable: bool) -> None:
    analysis, integration = MultiResolutionFFT(learnable=learnable).cuda(), ERBIntegration(learnable=learnable).cuda()
    x = torch.randn(2, 20000, device="cuda", requires_grad=True)
    inputs = [x, *analysis.parameters(), *integration.parameters()]
    first, second = (torch.autograd.grad(integration(*analysis(x)).sum(), inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@both
def test_compile(learnable: bool) -> None:
    torch._dynamo.reset()
    analysis, integration = MultiResolutionFFT(learnable=learnable).cuda(), ERBIntegration(learnable=learnable).cuda()

    def chain(x: torch.Tensor) -> torch.Tensor:
        return integration(*analysis(x))

    compiled = torch.compile(chain, fullgraph=True, dynamic=True)
    compiled(torch.randn(2, 3333, device="cuda", requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (2048, 4097, 10000):
            x = torch.randn(3, length, device="cuda", requires_grad=True)
            levels, expected = compiled(x), chain(x)
            assert_close(levels.detach(), expected.detach(), 1e-5)
            inputs = [x, *analysis.parameters(), *integration.parameters()]
            for a, e in zip(
                torch.autograd.grad(levels.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
            ):
                assert (a - e).abs().max() < 1e-3 * e.abs().max()


@both
def test_bad_spectra_have_no_level(learnable: bool) -> None:
    """Nothing is read back, and the device lives on."""
    module = ERBIntegration(learnable=learnable).cuda()
    psd, freqs = torch.rand(4, 1025, device="cuda"), torch.arange(1025, device="cuda") * 15.625
    clean = module(psd, freqs)
    psd[2, 500] = -1
    levels = module(psd, freqs)
    assert levels[2].isnan().all()
    assert torch.equal(levels[[0, 1, 3]], clean[[0, 1, 3]])
    assert module(psd, freqs**2).isnan().all()
