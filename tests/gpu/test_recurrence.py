"""Attack and release on a device: against the CPU, gradients, huge offsets, torch.compile, which backend ran."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import assert_close

from tamt import AttackRelease
from tamt.ops import recurrence as ops
from tamt.ops._operator import operators

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13}
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@both_types
@pytest.mark.parametrize("shape", [(4, 10000, 150), (300, 1003, 1), (7, 33, 3), (2, 1, 40)], ids=str)
@pytest.mark.parametrize("constants", [(0.045, 0.033), (0.01, 0.00133), (0.02, 0.3)], ids=str)
def test_against_the_reference(shape: tuple[int, ...], constants: tuple[float, float], dtype: torch.dtype) -> None:
    given = torch.randn(shape).exp(), *torch.tensor(constants), torch.randn(shape[0], shape[2])
    there = [t.to("cuda", dtype).requires_grad_() for t in given]
    here = [t.to(dtype).double().requires_grad_() for t in given]
    results, expected = ops.attack_release_rows(*there), ops.attack_release_rows(*here)
    weights = [torch.randn_like(t) for t in expected]
    for actual, e in zip(results, expected, strict=True):
        assert_close(actual.detach().cpu().flatten(), e.detach().flatten(), TOLERANCE[dtype], dtype)
    found = torch.autograd.grad(results, there, [w.to(r) for w, r in zip(weights, results, strict=True)])
    for actual, e in zip(found, torch.autograd.grad(expected, here, weights), strict=True):
        assert_close(actual.cpu().flatten(), e.flatten(), 100 * TOLERANCE[dtype], dtype)


def test_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import recurrence as kernels

    calls = []
    original = kernels.attack_release
    monkeypatch.setattr(kernels, "attack_release", lambda *a: calls.append(a) or original(*a))
    monkeypatch.setattr(operators["attack_release"], "forward", lambda *a: pytest.fail("the reference ran"))
    AttackRelease(0.1, 0.03, device="cuda")(torch.zeros(3, 150, device="cuda"))
    assert len(calls) == 1


def test_what_is_not_finite() -> None:
    x = torch.randn(3, 500, 40, device="cuda")
    module = AttackRelease(0.1, 0.03, dim=1, device="cuda")
    clean = module(x)
    for place, value in ((0, math.nan), (77, math.inf), (499, -math.inf)):
        bad = x.clone()
        bad[1, place, 5] = value
        y = module(bad)
        assert y[1, place:, 5].isnan().all()
        y[1, place:, 5] = clean[1, place:, 5]
        assert torch.equal(y, clean)


@pytest.mark.alone
def test_a_huge_batch_is_its_parts() -> None:
    """More than 2^31 values: offsets of 64 bits."""
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GB")
    module = AttackRelease(0.1, 0.03, dim=1, device="cuda")
    x = torch.randn(10, 1000, 150, device="cuda")
    huge = x.repeat((1 << 31) // x.numel() + 1, 1, 1)
    assert huge.numel() > 1 << 31
    assert torch.equal(module(huge)[-10:], module(x))


def test_gradients_are_the_same_every_time() -> None:
    module = AttackRelease(0.1, 0.03, dim=1, learnable=True, device="cuda")
    x = torch.randn(4, 2000, 150, device="cuda").requires_grad_()
    weights = torch.randn_like(x)
    runs = [torch.autograd.grad(module(x), (x, *module.parameters()), weights) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_compile() -> None:
    torch._dynamo.reset()
    module = AttackRelease(0.1, 0.03, learnable=True, device="cuda")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    compiled(torch.zeros(2, 3, 150, device="cuda", requires_grad=True)).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((3, 4, 70), (5, 2, 301)):
            x = torch.randn(shape, device="cuda").requires_grad_()
            inputs = [x, *module.parameters()]
            out, expected = compiled(x), module(x)
            assert_close(out.detach(), expected.detach(), 1e-6)
            wanted = torch.autograd.grad(expected.sum(), inputs)
            for a, e in zip(torch.autograd.grad(out.sum(), inputs), wanted, strict=True):
                assert_close(a.flatten(), e.flatten(), 1e-5)
