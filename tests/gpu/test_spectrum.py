"""Moore2016Spectrum and its operators on a device: against the CPU, sizes only a device can hold, torch.compile."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from torch import Tensor

from tamt.ops.compaction import compaction
from tamt.ops.windowed_dft import windowed_dft
from tamt.spectra.moore2016 import Moore2016Spectrum

pytestmark = pytest.mark.gpu
BANDS = {
    "apart": [(2048, 1, 4), (512, 5, 79), (64, 80, 960)],
    "overlapping": [(1024, 1, 700), (64, 600, 1024)],
    "gap": [(128, 700, 900), (2048, 3, 5)],
}
both_types = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-11)])


@both_types
@pytest.mark.parametrize("hop", [32, 33, 640, 3000])
@pytest.mark.parametrize("bands", list(BANDS))
def test_windowed_dft(bands: str, hop: int, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(3, 12345, dtype=torch.float64)
    weight = 0.5 + torch.rand(sum(last - first + 1 for _, first, last in BANDS[bands]), dtype=torch.float64)
    given = [t.to("cuda", dtype).requires_grad_() for t in (x, weight)]
    exact = [t.to(dtype).double().requires_grad_() for t in (x, weight)]
    power = windowed_dft(given[0], BANDS[bands], hop, 2048, weight=given[1])
    expected = windowed_dft(exact[0], BANDS[bands], hop, 2048, weight=exact[1])
    assert_close(power.detach().cpu(), expected.detach(), tolerance, dtype)
    grad = torch.randn_like(power)
    wanted = torch.autograd.grad(expected, exact, grad.cpu().double())
    for a, e in zip(torch.autograd.grad(power, given, grad), wanted, strict=True):
        assert_close(a.cpu(), e, 3 * tolerance, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 100, 960, 1024, 3000])
def test_compaction(columns: int, dtype: torch.dtype) -> None:
    """Whole numbers, so that ties straddle the last place."""
    intensity = torch.randint(0, 50, (300, columns)).to(dtype)
    intensity[10, ::7], intensity[11, ::7] = float("nan"), float("inf")
    threshold = torch.randint(0, 40, (300,)).to(dtype)
    frequencies = torch.arange(1, columns + 1).to(dtype)
    for count in (1, columns // 3 + 1, columns, columns + 100):
        leaf, given = intensity.cuda().requires_grad_(), intensity.clone().requires_grad_()
        freqs, levels = compaction(leaf, frequencies.cuda(), threshold.cuda(), count)
        wanted, wanted_levels = compaction(given, frequencies, threshold, count)
        assert torch.equal(freqs.cpu(), wanted)
        torch.testing.assert_close(levels.detach().cpu(), wanted_levels.detach(), rtol=1e-6, atol=1e-5, equal_nan=True)
        gradients = [torch.autograd.grad(t.sum(), x)[0].cpu() for t, x in ((levels, leaf), (wanted_levels, given))]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=0, equal_nan=True)


@both_types
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("max_components", [None, 300])
def test_module(max_components: int | None, learnable: bool, joint: bool, dtype: torch.dtype, tolerance: float) -> None:
    audio = 0.1 * torch.randn(3, 2, 5000, dtype=torch.float64)
    arguments = {"max_components": max_components, "learnable": learnable, "joint_threshold": joint}
    module = Moore2016Spectrum(dtype=dtype, device="cuda", **arguments)
    exact = Moore2016Spectrum(dtype=torch.float64, **arguments)
    given, wide = audio.to("cuda", dtype).requires_grad_(), audio.to(dtype).double().requires_grad_()
    out, expected = module(given), exact(wide)
    # All components of all windows, with nothing left out: float32 has the faintest of them to 4e-4 on the CPU as well.
    faint = dtype == torch.float32 and learnable and max_components is None
    for a, e in zip(out, expected, strict=True):
        assert_close(a.detach().cpu(), e.detach(), 1e-3 if faint else 10 * tolerance, dtype)
    grads = [torch.randn_like(t) for t in out[1::2]]
    actual = torch.autograd.grad(out[1::2], [given, *module.parameters()], grads)
    wanted = torch.autograd.grad(expected[1::2], [wide, *exact.parameters()], [g.cpu().double() for g in grads])
    for a, e in zip(actual, wanted, strict=True):
        limit = 1e-2 if faint else 1e-3 if dtype == torch.float32 else 1e-8
        assert_close(a.cpu().reshape(1, -1), e.reshape(1, -1), limit, dtype)


@pytest.mark.parametrize("learnable", [False, True])
def test_dense(learnable: bool) -> None:
    """Levels on all bins against the CPU, -inf at the same ones but for a few at the threshold."""
    audio = 0.1 * torch.randn(3, 2, 5000, dtype=torch.float64)
    given, wide = audio.cuda().requires_grad_(), audio.clone().requires_grad_()
    levels, expected = (
        torch.stack(Moore2016Spectrum(dtype=torch.float64, device=x.device, learnable=learnable).dense(x)[1:])
        for x in (given, wide)
    )
    some = levels.isfinite().cpu() & expected.isfinite()
    assert (levels.isfinite().cpu() != expected.isfinite()).sum() <= 3
    assert (levels.cpu() - expected)[some].abs().max() < 1e-7
    weights = torch.randn_like(expected) * some
    for t in (levels, expected):
        assert torch.isfinite(torch.where(weights.to(t.device) == 0, 0.0, t)).all()
    actual, wanted = (
        torch.autograd.grad(torch.where(w == 0, 0.0, t), x, w)[0].cpu()
        for t, x, w in ((levels, given, weights.cuda()), (expected, wide, weights))
    )
    assert_close(actual.reshape(1, -1), wanted.reshape(1, -1), 1e-7)


def test_the_kernels_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamt.triton_kernels import compaction as second
    from tamt.triton_kernels import windowed_dft as first

    calls = []
    for engine, name in ((first, "windowed_dft"), (second, "compaction")):
        for function in (name, f"{name}_backward"):
            launcher = getattr(engine, function)
            monkeypatch.setattr(engine, function, lambda *a, f=launcher, n=function: calls.append(n) or f(*a))
    audio = torch.randn(1, 2, 3000, device="cuda", requires_grad=True)
    Moore2016Spectrum(max_components=100, device="cuda")(audio)[1].sum().backward()
    assert calls == ["windowed_dft", "compaction", "compaction_backward", "windowed_dft_backward"]


def test_nothing_is_read_back_and_same_bits_every_time() -> None:
    module = Moore2016Spectrum(max_components=200, device="cuda", learnable=True)
    audio = torch.randn(2, 2, 20000, device="cuda", requires_grad=True)

    def run() -> list[Tensor]:
        out = module(audio)
        return [*out, *torch.autograd.grad(out[1].sum() + out[3].sum(), [audio, *module.parameters()])]

    first = run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_intermediate_is_larger_than_the_dense_spectrum() -> None:
    module = Moore2016Spectrum(max_components=100, device="cuda")
    audio = torch.randn(8, 2, 320000, device="cuda", requires_grad=True)

    def peak(step: bool) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.set_grad_enabled(step):
            out = module(audio)
        if step:
            torch.autograd.grad(out[1].sum() + out[3].sum(), audio)
        return torch.cuda.max_memory_allocated() - before

    dense = 8 * 2 * ((320000 - 2048) // 32) * 960 * 4
    lists = 2 * dense * 100 // 960
    peak(True)
    assert peak(False) < 1.1 * dense + lists
    assert peak(True) < 2.4 * dense + 2 * lists


@pytest.mark.alone
def test_more_intensities_than_32_bits_count() -> None:
    """2.4e9 intensities; rows on both sides of 2^31 against the same rows alone."""
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GiB of free device memory")
    module = Moore2016Spectrum(max_components=10, device="cuda")
    audio = torch.randn(128, 2, 320000, device="cuda")
    out = module(audio)
    for row in (0, 98, 99, 127):
        for a, e in zip(module(audio[row : row + 1]), out, strict=True):
            assert torch.equal(a[0], e[row])


def test_compile() -> None:
    torch._dynamo.reset()
    module = Moore2016Spectrum(max_components=100, device="cuda")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    compiled(torch.randn(3, 2, 2500, device="cuda", requires_grad=True))[1].sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, length in ((2, 3333), (4, 10000)):
            audio = torch.randn(batch, 2, length, device="cuda", requires_grad=True)
            out, expected = compiled(audio), module(audio)
            for a, e in zip(out, expected, strict=True):
                assert_close(a.detach(), e.detach(), 1e-5)
            gradients = [torch.autograd.grad(t[1].sum() + t[3].sum(), audio)[0] for t in (out, expected)]
            assert_close(*gradients, 1e-4)
