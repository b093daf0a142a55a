"""Roex excitation on a device: kernels against the reference, the module, determinism, memory, many rows."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from torch import Tensor

from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.ops import roex as ops
from tamt.reference import roex as reference
from tamt.shared.roex import rate

pytestmark = pytest.mark.gpu
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])


def sounds(*shape: int) -> tuple[Tensor, Tensor]:
    """Components in no order over 60 dB, the second half of every other row padding; float64 on the CPU."""
    f = 20 + 14980 * torch.rand(*shape, dtype=torch.float64)
    f[..., ::2, shape[-1] // 2 + 1 :] = 0
    return f, 60 * torch.rand(*shape, dtype=torch.float64)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (2, 3, 960), (7, 1025)])
@pytest.mark.parametrize("limit", [1.0, 4.0, 10.0])
def test_against_the_cpu(shape: tuple[int, ...], limit: float, dtype: torch.dtype, tolerance: float) -> None:
    given = [t.requires_grad_() for t in sounds(*shape)]
    exact = Moore2016ExcitationPattern(spreading_limit_octaves=limit, learnable=True, dtype=torch.float64, device="cpu")
    module = Moore2016ExcitationPattern(spreading_limit_octaves=limit, learnable=True, dtype=dtype, device="cuda")
    moved = [t.detach().to("cuda", dtype).requires_grad_() for t in given]
    expected, out = exact(*given), module(*moved)
    assert out.dtype == dtype
    heard = expected > -60
    assert (out.cpu().double() - expected).abs()[heard].max() < tolerance
    weights = torch.rand_like(expected) * heard
    wanted = torch.autograd.grad(expected, [*given, exact.level_dep_factor], weights)
    actual = torch.autograd.grad(out, [*moved, module.level_dep_factor], weights.to("cuda", dtype))
    for a, w in zip(actual, wanted, strict=True):
        assert (a.cpu().double() - w).abs().max() <= 10 * tolerance * w.abs().max()


@dtypes
def test_shared_frequencies_against_the_cpu(dtype: torch.dtype, tolerance: float) -> None:
    freqs, levels = 15.625 * torch.arange(1, 961, dtype=torch.float64), 60 * torch.rand(5, 3, 960, dtype=torch.float64)
    levels[:, 1, 100:400] = -torch.inf
    exact, module = (
        Moore2016ExcitationPattern(learnable=True, dtype=t, device=device)
        for t, device in ((torch.float64, "cpu"), (dtype, "cuda"))
    )
    given, moved = levels.clone().requires_grad_(), levels.to("cuda", dtype).requires_grad_()
    expected, out = exact(freqs, given), module(freqs.to("cuda", dtype), moved)
    assert (out.cpu().double() - expected).abs().max() < tolerance
    weights = torch.rand_like(expected)
    wanted = torch.autograd.grad(expected, [given, exact.level_dep_factor], weights)
    actual = torch.autograd.grad(out, [moved, module.level_dep_factor], weights.to("cuda", dtype))
    for a, w in zip(actual, wanted, strict=True):
        assert (a.cpu().double() - w).abs().max() <= 10 * tolerance * w.abs().max()


@dtypes
def test_operators_against_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    f, level = sounds(3, 700)
    f, intensity = f.clamp_min(20), torch.where(f > 0, 10 ** (level / 10), 0.0)
    steepness = 1.5 * torch.rand_like(f) - 0.2
    fc = torch.logspace(1.7, 4.1, 150, dtype=torch.float64)
    p = fc * rate(fc)
    for ratio in (2.0, 16.0):
        here = [t.to(dtype) for t in (f, intensity, steepness, fc, p)]
        there = [t.cuda() for t in here]
        wide = [t.double() for t in here]
        assert_close(
            ops.roex_level_rows(*there[:2], ratio).cpu(), reference.power_per_erb(*wide[:2], ratio), tolerance, dtype
        )
        assert_close(
            ops.roex_excitation_rows(*there, ratio).cpu(), reference.excitation(*wide, ratio), tolerance, dtype
        )
        grad = torch.rand(3, 150, dtype=dtype)
        for a, w in zip(
            ops.roex_excitation_backward(grad.cuda(), *there, ratio),
            reference.excitation_backward(grad.double(), *wide, ratio),
            strict=True,
        ):
            assert_close(a.cpu(), w, 10 * tolerance, dtype)
        grad = torch.rand(3, 700, dtype=dtype) / wide[1].to(dtype).clamp_min(1)
        for a, w in zip(
            ops.roex_level_backward(grad.cuda(), *there[:2], ratio),
            reference.level_backward(grad.double(), *wide[:2], ratio),
            strict=True,
        ):
            assert_close(a.cpu(), w, 10 * tolerance, dtype)


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import roex as kernels

    calls = []
    for name in ("level", "level_backward", "excitation", "excitation_backward"):
        launcher = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, n=name, f=launcher: calls.append(n) or f(*a))
    given = [t.float().cuda().requires_grad_() for t in sounds(2, 50)]
    Moore2016ExcitationPattern(device="cuda")(*given).sum().backward()
    assert calls == ["level", "excitation", "excitation_backward", "level_backward"]


def test_no_pairs_in_memory_and_repeatable() -> None:
    module = Moore2016ExcitationPattern(learnable=True, device="cuda")
    given = [t.float().cuda().requires_grad_() for t in sounds(2000, 950)]
    size = given[0].numel() * 4

    def step() -> list[Tensor]:
        return list(torch.autograd.grad(module(*given).sum(), [*given, *module.parameters()]))

    first = step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    second = step()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 25 * size  # pairs with the channels alone would be 150
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.alone
def test_many_rows() -> None:
    """More components than 32 bits can count are as good as the last rows by themselves."""
    rows, count = 70_000_000, 32
    if torch.cuda.mem_get_info()[0] < 6 * rows * count * 4:
        pytest.skip("needs 54 GB of GPU memory")
    freqs = torch.full((rows, count), 1000.0, device="cuda")
    freqs[-3:] = 20 + 9000 * torch.rand(3, count, device="cuda")
    fc = torch.tensor([500.0, 2000], device="cuda")
    p = reference.rate(fc) * fc
    ones = torch.ones((), device="cuda")
    intensity = ones.expand(1, 1).repeat(rows, count)
    power = ops.roex_level_rows(freqs, intensity, 16.0)
    assert_close(power[-3:].cpu(), ops.roex_level_rows(freqs[-3:], intensity[-3:], 16.0).cpu(), 1e-6)
    del power
    excitation = ops.roex_excitation_rows(freqs, intensity, intensity, fc, p, 16.0)
    expected = ops.roex_excitation_rows(freqs[-3:], intensity[-3:], intensity[-3:], fc, p, 16.0)
    assert_close(excitation[-3:].cpu(), expected.cpu(), 1e-6)


def test_out_of_range_is_nan_in_its_row() -> None:
    freqs, levels = (t.float().cuda() for t in sounds(3, 50))
    freqs[1, 3] = 2e5
    out = Moore2016ExcitationPattern(device="cuda")(freqs, levels)
    assert torch.isnan(out).any(1).tolist() == [False, True, False]


def test_compile() -> None:
    torch._dynamo.reset()
    module = Moore2016ExcitationPattern(learnable=True, device="cuda")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    compiled(*(t.float().cuda().requires_grad_() for t in sounds(4, 30))).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((3, 11), (5, 200), (2, 960)):
            given = [t.float().cuda().requires_grad_() for t in sounds(*shape)]
            out, expected = compiled(*given), module(*given)
            assert (out - expected).abs().max() < 1e-4
            inputs = [*given, *module.parameters()]
            for a, e in zip(
                torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
            ):
                assert (a - e).abs().max() <= 1e-4 * e.abs().max()
