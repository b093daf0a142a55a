"""The spreading on a device: against the CPU, gradients, extremes, huge batches, torch.compile, which backend ran."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import assert_close

from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.ops import spreading as operator
from tamt.ops._operator import operators

pytestmark = pytest.mark.gpu
SLOPES = [27.0, 11.0, 0.37, 0.2, 60.0]
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-11}  # dB
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@both_types
@pytest.mark.parametrize(("rows", "n", "erb_step"), [(1, 1, 0.25), (1001, 150, 0.25), (64, 1024, 0.1), (3, 2000, 0.01)])
@pytest.mark.parametrize(("low", "high"), [(0, 110), (-200, 200)])
def test_against_the_reference(rows: int, n: int, erb_step: float, low: float, high: float, dtype: torch.dtype) -> None:
    levels = (low + (high - low) * torch.rand(rows, n)).to(dtype)
    wide = levels.double().requires_grad_(), torch.tensor(SLOPES).to(dtype).double().requires_grad_()
    given = [t.detach().to("cuda", dtype).requires_grad_() for t in wide]
    expected, out = (operator.spreading_rows(*t, erb_step) for t in (wide, given))
    assert out.dtype == dtype
    tolerance = TOLERANCE[dtype] * (2 if erb_step < 0.1 else 1)
    assert (out.cpu() - expected).abs().max() <= tolerance
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, wide, weights)
    for a, e in zip(torch.autograd.grad(out, given, weights.to(out)), wanted, strict=True):
        assert_close(a.cpu().flatten(), e.flatten(), 3 * tolerance, dtype)


def test_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import spreading as engine

    calls = []
    original = engine.spreading
    monkeypatch.setattr(engine, "spreading", lambda *a: calls.append(a) or original(*a))
    monkeypatch.setattr(operators["spreading"], "forward", lambda *a: pytest.fail("the reference ran"))
    ExcitationPattern(device="cuda")(torch.zeros(3, 150, device="cuda"))
    assert len(calls) == 1


@both_types
def test_no_power_and_not_a_number(dtype: torch.dtype) -> None:
    levels = 60 + 10 * torch.randn(20, 150, dtype=dtype)
    levels[3] = -math.inf
    levels[5, ::40] = -math.inf
    module = ExcitationPattern(learnable=True)
    expected = module(levels.double())
    given = levels.cuda().requires_grad_()
    out = module.cuda()(given)
    assert torch.equal(out.cpu() == -math.inf, expected == -math.inf)
    heard = expected > -math.inf
    assert (out.cpu() - expected)[heard].abs().max() <= TOLERANCE[dtype]
    gradients = torch.autograd.grad(out[out > -math.inf].sum(), (given, *module.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)
    with torch.no_grad():
        given[7, 3], given[9, 140] = math.nan, math.inf
        spoilt = module(given)
    others = [i for i in range(20) if i not in (7, 9)]
    assert torch.equal(spoilt[others], out[others])
    assert spoilt[[7, 9]].isnan().all()


@pytest.mark.alone
def test_a_huge_batch_is_its_parts() -> None:
    """More than 2^31 levels: offsets of 64 bits."""
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("needs 20 GB")
    module = ExcitationPattern(device="cuda")
    rows = (1 << 31) // 150 + 1000
    levels = torch.randn(1000, 150, device="cuda").mul_(30)
    huge = levels.repeat(rows // 1000 + 1, 1)
    assert huge.numel() > 1 << 31
    assert torch.equal(module(huge)[-1000:], module(levels))


def test_gradients_are_the_same_every_time() -> None:
    module = ExcitationPattern(learnable=True, device="cuda")
    levels = torch.randn(5000, 150, device="cuda").mul_(30).requires_grad_()
    weights = torch.randn_like(levels)
    runs = [torch.autograd.grad(module(levels), (levels, *module.parameters()), weights) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_compile() -> None:
    torch._dynamo.reset()
    module = ExcitationPattern(learnable=True, device="cuda")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    compiled(torch.zeros(2, 3, 150, device="cuda", requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lead in ((3, 4), (5, 2), (2, 100)):
            levels = (50 + 20 * torch.randn(*lead, 150, device="cuda")).requires_grad_()
            inputs = [levels, *module.parameters()]
            out, expected = compiled(levels), module(levels)
            assert_close(out.detach(), expected.detach(), 1e-6)
            wanted = torch.autograd.grad(expected.sum(), inputs)
            for a, e in zip(torch.autograd.grad(out.sum(), inputs), wanted, strict=True):
                assert_close(a.flatten(), e.flatten(), 1e-5)
