"""The roex operators: definition, gradients, tiles, matrices of shared frequencies, padding, limits, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from helpers import QUICK, assert_close, assert_within, checked
from torch import Tensor

from tamt.ops import roex as ops
from tamt.ops.roex import roex
from tamt.reference import roex as reference
from tamt.scales import roex_slope
from tamt.shared.roex import LEAST_SLOPE

P1000 = roex_slope(1000.0)


def channels(count: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    fc = torch.logspace(1.8, 4.1, count, dtype=torch.float64)
    return fc.to(dtype), roex_slope(fc).to(dtype)


def components(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Frequencies from 20 Hz to 16 kHz in no order, levels from -10 to 90 dB, some of them padding."""
    f = 20 * 800 ** torch.rand(*shape, dtype=torch.float64)
    level = 100 * torch.rand(*shape, dtype=torch.float64) - 10
    f[..., 2::7] = 0
    return f.to(dtype), level.to(dtype)


def rows(count: int, length: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """What the operators take: frequencies, intensities and steepnesses on both sides of the clamp."""
    f, level = components(count, length, dtype=dtype)
    steepness = (1.5 * torch.rand(count, length, dtype=torch.float64) - 0.2).to(dtype)
    return torch.where(f > 0, f, 1000.0), torch.where(f > 0, 10 ** (level / 10), 0.0), steepness


def recurring(count: int, length: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Components of few frequencies that come up in many rows, some of a row twice."""
    f = (12.5 * torch.randint(1, length + length // 2, (count, length))).to(dtype)
    return f, (10 ** (8 * torch.rand(count, length, dtype=torch.float64))).to(dtype)


def by_loops(freqs: list[float], levels: list[float], fc: list[float], factor: float, limit: float) -> list[float]:
    """The definition of one row, number by number."""
    erb = lambda f: 24.673 * (4.368 * f / 1000 + 1)  # noqa: E731
    p = lambda f: 4 * f / erb(f)  # noqa: E731
    weight = lambda p, g: (1 + p * abs(g)) * math.exp(-p * abs(g))  # noqa: E731
    near = lambda f, g: abs(math.log2(f / g)) <= limit  # noqa: E731
    given = [(f, 10 ** (level / 10)) for f, level in zip(freqs, levels, strict=True) if f > 0]
    per_erb = [
        10 * math.log10(sum(weight(p(f), (at - f) / f) * power for f, power in given if near(f, at))) for at, _ in given
    ]
    output = []
    for centre in fc:
        total = 1e-12
        for (f, power), level in zip(given, per_erb, strict=True):
            low = max(p(centre) - factor * p(centre) / p(1000) * (level - 51), 0.1)
            if near(f, centre):
                total += weight(p(centre) if f >= centre else low, (f - centre) / centre) * power
        output.append(10 * math.log10(total))
    return output


@pytest.mark.parametrize("limit", [0.5, 4, 10, math.inf])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_definition(limit: float, dtype: torch.dtype, tolerance: float) -> None:
    freqs, levels = components(2, 3, 40, dtype=dtype)
    levels[0, 0] += 90  # beyond the least slope
    fc, p = channels(dtype=dtype)
    out = roex(freqs, levels, fc, p, torch.tensor(0.35, dtype=dtype), P1000, limit)
    assert out.shape == (2, 3, 12)
    assert out.dtype == dtype
    for i in range(2):
        for j in range(3):
            expected = by_loops(freqs[i, j].tolist(), levels[i, j].tolist(), fc.tolist(), 0.35, limit)
            assert_within(out[i, j], torch.tensor(expected, dtype=torch.float64), tolerance)


@pytest.mark.parametrize("ratio", [1.5, 16.0, 2.0**60])
def test_operators_and_their_gradients(ratio: float) -> None:
    f, intensity, steepness = (t.requires_grad_() for t in rows(3, 30))
    fc, p = channels()
    lists = (
        (ops.roex_level_rows(f, intensity, ratio), reference.power_per_erb_definition(f, intensity, ratio)),
        (
            ops.roex_excitation_rows(f, intensity, steepness, fc, p, ratio),
            reference.excitation_definition(f, intensity, steepness, fc, p, ratio),
        ),
    )
    for (actual, expected), given in zip(lists, ([f, intensity], [f, intensity, steepness]), strict=True):
        assert_close(actual.detach(), expected.detach(), 1e-12)
        weights = torch.randn_like(expected)
        for a, e in zip(
            torch.autograd.grad(actual, given, weights), torch.autograd.grad(expected, given, weights), strict=True
        ):
            assert_close(a, e, 1e-11)


def test_the_clamp_of_the_slope_is_met_in_these_tests() -> None:
    _, _, steepness = rows(3, 30)
    _, p = channels()
    clamped = steepness[..., None] * p < LEAST_SLOPE
    assert 0.05 < clamped.double().mean() < 0.5


@pytest.mark.parametrize("size", [1, 400, 3000, 1 << 20])
def test_tiles_are_one(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    f, intensity, steepness = rows(3, 23)
    fc, p = channels()
    grad = torch.randn(3, 23, dtype=torch.float64), torch.randn(3, 12, dtype=torch.float64)

    def everything() -> list[Tensor]:
        return [
            reference.power_per_erb(f, intensity, 16.0),
            *reference.power_per_erb_backward(grad[0], f, intensity, 16.0),
            reference.excitation(f, intensity, steepness, fc, p, 16.0),
            *reference.excitation_backward(grad[1], f, intensity, steepness, fc, p, 16.0),
        ]

    whole = everything()
    monkeypatch.setattr(reference, "TILE_BYTES", size)
    tiles = reference._Tiles(f.sort(1).values, f.sort(1).values, f, 16.0, 1)
    assert len(list(tiles)) == {1: 69, 400: 36, 3000: 6, 1 << 20: 1}[size]
    for actual, expected in zip(everything(), whole, strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("size", [400, 1 << 20])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("ratio", [1.1, 16.0, 2.0**60])
def test_what_a_tile_need_not_look_at(
    ratio: float, dtype: torch.dtype, tolerance: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one tile whose components lie apart, in no order, some of them equal or exactly at the limit."""
    monkeypatch.setattr(reference, "TILE_BYTES", size)
    low, high = 2 + 60 * torch.rand(30).double(), 14000 + 1000 * torch.rand(30).double()
    spread = 20 * 800 ** torch.rand(30).double()
    spread[3:8] = spread[9] = 500.0
    spread[20:25] = 500.0 * 16
    f = torch.stack((low, high, spread, torch.cat((low[::2], high[::2]))[torch.randperm(30)])).to(dtype)
    intensity, steepness = 10 ** (6 * torch.rand(4, 30)).to(dtype), (4 * torch.rand(4, 30) - 0.2).to(dtype)
    fc, p = channels(dtype=dtype)
    wide = [t.double().clone().requires_grad_() for t in (f, intensity, steepness)]
    expected = (
        reference.power_per_erb_definition(*wide[:2], ratio),
        reference.excitation_definition(*wide, fc.double(), p.double(), ratio),
    )
    actual = reference.power_per_erb(f, intensity, ratio), reference.excitation(f, intensity, steepness, fc, p, ratio)
    grad = [torch.rand_like(t) for t in actual]
    gradients = (
        *reference.power_per_erb_backward(grad[0], f, intensity, ratio),
        *reference.excitation_backward(grad[1], f, intensity, steepness, fc, p, ratio),
    )
    wanted = [
        g
        for out, given, to in zip(expected, (wide[:2], wide), grad, strict=True)
        for g in torch.autograd.grad(out, given, to.double())
    ]
    for a, e in zip((*actual, *gradients), (*expected, *wanted), strict=True):
        assert_close(a, e.detach(), tolerance, dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("ratio", [16.0, 2.0**60])
def test_recurring_frequencies_are_pairs(
    dtype: torch.dtype, tolerance: float, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One matrix and pairs agree, forward and backward; not where a row has a frequency at two steepnesses."""
    f, intensity = recurring(20, 60, dtype)
    f[11, :5] = torch.tensor([7.0, 3.5, 15015.625, 90, 7])  # that no other row has
    grad = torch.rand(20, 60, dtype=dtype)
    found = reference._recurring(f)
    assert found is not None
    assert torch.equal(found.f[found.place], f)
    assert torch.equal(found.f, f.unique())
    monkeypatch.setattr(reference, "SLICE", 7)

    fc, p = channels(dtype=dtype)
    unlike = (1.5 * torch.rand(20, 60) - 0.2).to(dtype)
    alike = (f / 600).cos()
    assert reference._recurring_alike(f, alike) is not None
    assert reference._recurring_alike(f, unlike) is None

    def everything() -> list[Tensor]:
        results = [reference.power_per_erb(f, intensity, ratio)]
        results += reference.power_per_erb_backward(grad, f, intensity, ratio)
        for steepness in (alike, unlike):
            given = f, intensity, steepness, fc, p, ratio
            results += [reference.excitation(*given), *reference.excitation_backward(grad[:, :12], *given)]
        return results

    by_matrix = everything()
    monkeypatch.setattr(reference, "_recurring", lambda f: None)
    for actual, expected in zip(by_matrix, everything(), strict=True):
        assert_close(actual, expected, tolerance)


def test_what_does_not_recur() -> None:
    """Too many frequencies for the rows there are, in all rows or in one that the first look misses."""
    f, _ = recurring(40, 60)
    assert reference._recurring(f) is not None
    assert reference._recurring(f[:3]) is None
    assert reference._recurring(f[:, :0]) is None
    assert reference._recurring(torch.rand(40, 60)) is None
    f[1::2] = torch.rand(20, 60)
    assert reference._recurring(f) is None


def shared(count: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`rows`, of frequencies that all rows share, in no order."""
    f, _ = components(length, dtype=dtype)
    _, intensity, steepness = rows(count, length, dtype)
    return torch.where(f > 0, f, 1000.0).expand(count, -1), intensity, steepness


@pytest.mark.parametrize("size", [1, 3000, 1 << 20])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("ratio", [1.1, 16.0, 2.0**60])
def test_shared_frequencies_are_pairs(
    ratio: float, dtype: torch.dtype, tolerance: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to the definition, and not only where exponents stay small or channels rise."""
    monkeypatch.setattr(reference, "TILE_BYTES", size)
    for order, factor in ((slice(None), 1), (torch.randperm(12), 40)):
        f, intensity, steepness = shared(5, 40, dtype)
        fc, p = (t[order] for t in channels(dtype=dtype))
        fc[3] = f[0, 3]
        steepness = factor * steepness
        given = f, intensity, steepness
        assert reference._shared(f)
        wide = [t.double().clone().requires_grad_() for t in given]
        expected = reference.excitation_definition(*wide, fc.double(), p.double(), ratio)
        grad = torch.rand_like(expected)
        wanted = torch.autograd.grad(expected, wide, grad)
        actual = reference.excitation(*given, fc, p, ratio)
        gradients = reference.excitation_backward(grad.to(dtype), *given, fc, p, ratio)
        for a, e in zip((actual, *gradients), (expected, *wanted), strict=True):
            assert_close(a, e.detach(), tolerance, dtype)
        assert reference.excitation(*given, fc[:0], p[:0], ratio).shape == (5, 0)


@pytest.mark.parametrize("lead", [(7,), (2, 3), (1,), (0,)])
def test_shared_and_given_to_each_row(lead: tuple[int, ...]) -> None:
    """The same excitation and gradients, padding, silence and NaN among the components."""
    freqs, _ = components(40)
    _, levels = components(*lead, 40)
    levels[..., 3:9] = -math.inf
    if lead == (7,):
        levels[2, 7] = math.nan
        levels[3, 2] = math.nan  # padding
        levels[4, 11] = math.inf
        levels[5] = -math.inf
    fc, p = channels()
    given = freqs.requires_grad_(), levels.requires_grad_(), torch.tensor(0.35).double().requires_grad_()
    one = roex(*given[:2], fc, p, given[2], P1000, 4)
    each = roex(freqs.expand(levels.shape), levels, fc, p, given[2], P1000, 4)
    assert one.shape == (*lead, 12)
    torch.testing.assert_close(one, each, rtol=0, atol=1e-9, equal_nan=True)
    weights = torch.randn_like(one)
    if lead == (7,):
        assert one.isnan().all(1).tolist() == one.isnan().any(1).tolist() == [i in (2, 4) for i in range(7)]
        weights[2] = weights[4] = 0
    wanted = torch.autograd.grad(torch.where(weights == 0, 0, each), given, weights)
    for a, e in zip(torch.autograd.grad(torch.where(weights == 0, 0, one), given, weights), wanted, strict=True):
        assert torch.isfinite(a).all()
        assert_close(a.reshape(1, -1), e.reshape(1, -1), 1e-11)


def grid(rows: int, step: float) -> tuple[Tensor, Tensor]:
    """Bins up to 15 kHz: levels from -20 to 110 dB as noise of another level in every row, and as single tones."""
    f = step * torch.arange(1, int(15000 / step) + 1, dtype=torch.float64)
    level = -20 + 110 * torch.rand(rows, 1).double() + 20 * torch.rand(rows, len(f)).double()
    tones = torch.rand(rows // 2, len(f)).argsort(1)[:, :2]
    level[::2] = torch.full_like(level[::2], -math.inf).scatter_(1, tones, level[::2].gather(1, tones))
    return f, 10 ** (level / 10)


@pytest.mark.parametrize(("dtype", "tolerance", "faint"), [(torch.float32, 2e-5, 1e-14), (torch.float64, 1e-12, 1e-20)])
def test_sums_of_gaussians_are_exponentials(
    dtype: torch.dtype, tolerance: float, faint: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excitation in every channel relative to itself, gradients relative to the largest of a row."""
    f, intensity = grid(72, 31.25)
    centre = (10 ** ((1.75 + 0.25 * torch.arange(150, dtype=torch.float64)) / 21.366) - 1) / 0.004368
    f, fc, p = f.to(dtype), centre.to(dtype), roex_slope(centre).to(dtype)
    weights, factor = ops.roex_weights(f.double(), 10).to(dtype), torch.tensor(0.35, dtype=dtype)
    intensity = intensity.to(dtype)
    grad = torch.rand(72, 150, dtype=dtype)
    wide = [t.double() for t in (f, intensity, weights, factor, fc, p)]
    expected = reference.shared_definition(*wide, P1000, 1024.0)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "_sums_of_pairs", None)
        patch.setattr(reference, "_backward_of_shared", None)
        given = intensity.clone().requires_grad_(), factor.clone().requires_grad_()
        out = ops.roex_shared_rows(f, given[0], weights, given[1], fc, p, P1000, 1024.0)
        gradients = torch.autograd.grad(out, given, grad)
    error = (out.detach().double() - expected).abs()
    assert 0.05 < (expected < 1e-9).double().mean() < 0.5
    assert (error <= tolerance * expected + faint).all()

    given = wide[1].requires_grad_(), wide[3].requires_grad_()
    monkeypatch.setattr(reference, "FEWEST", 1000)
    pairs = ops.roex_shared_rows(wide[0], given[0], *wide[2:3], given[1], *wide[4:], P1000, 1024.0)
    assert_close(pairs.detach(), expected, 1e-12)
    of_i, of_factor = torch.autograd.grad(pairs, given, grad.double())
    assert_within(gradients[1], of_factor, tolerance * of_factor.abs())
    heard = intensity > 0
    largest = of_i.abs().amax(1, keepdim=True)
    assert ((gradients[0] - of_i).abs() / largest)[heard].max() < tolerance
    # What is silent far from all sound has a steepness of which float32 has few digits: noise alone.
    assert ((gradients[0] - of_i).abs() / largest)[1::2].max() < tolerance


def test_rows_of_which_some_are_pairs() -> None:
    """Out of range of the Gaussians, of NaN and inf, silent, padded, in no order: as if rows had their frequencies."""
    freqs, _ = components(40)
    _, levels = components(3, 70, 40)
    levels[0, 3] = 160 + torch.rand(40)
    levels[1, 5] = -math.inf
    levels[1, 6:8] -= 800
    levels[2, 7, 8], levels[2, 8, 10], levels[2, 9, 2] = math.nan, math.inf, math.nan
    fc, p = channels()
    known = torch.ones(3, 70, 1, dtype=torch.bool)
    known[2, 7:9] = False
    weights = torch.where(known, torch.randn(3, 70, 12).double(), 0.0)
    results = []
    for f in (freqs, freqs.expand(levels.shape)):
        given = [t.detach().clone().requires_grad_() for t in (levels, torch.tensor(0.35).double(), f)]
        out = roex(given[2], given[0], fc, p, given[1], P1000, 4)
        assert torch.equal(out.isnan().all(-1), ~known[..., 0])
        assert torch.equal(out.isnan().any(-1), ~known[..., 0])
        results.append((out.detach()[known[..., 0]], *torch.autograd.grad(out, given, weights)))
        given[2].requires_grad_(False)
        out = roex(given[2], given[0], fc, p, given[1], P1000, 4)
        results[-1] += torch.autograd.grad(out, given[:2], weights)
    one, each = results
    assert_within(one[0], each[0], 1e-9)
    assert not one[1][..., 2::7].any()
    for a, e in zip(one[1:], (*each[1:3], each[3].sum((0, 1)), *each[4:]), strict=True):
        assert_close(a.reshape(1, -1), e.reshape(1, -1), 1e-9)


@pytest.mark.parametrize("count", [1, 70])
def test_shared_operator_takes_what_is_there(count: int) -> None:
    """Channels or components that are none, slopes that leave no Gaussians, frequencies that are none."""
    f, intensity = grid(count + count % 2, 500.0)
    f, intensity = f, intensity[:count]
    fc, p = channels()
    weights, factor = ops.roex_weights(f, 4), torch.tensor(0.35, dtype=torch.float64)
    for slope in (p / 100, 40 * p, p):
        given = f, intensity, weights, factor, fc, slope, P1000, 16.0
        assert_close(ops.roex_shared_rows(*given), reference.shared_definition(*given), 1e-11)
    assert ops.roex_shared_rows(f, intensity, weights, factor, fc[:0], p[:0], P1000, 16.0).shape == (count, 0)
    assert not ops.roex_shared_rows(f[:0], intensity[:, :0], weights[:0, :0], factor, fc, p, P1000, 16.0).any()
    for wrong in (math.nan, 2e5):
        f[3] = wrong
        assert ops.roex_shared_rows(f, intensity, weights, factor, fc, p, P1000, 16.0).isnan().all()
    with pytest.raises(ValueError, match=re.escape("the shapes (C,), (R, C), (C, C) and (), got (30,), (")):
        ops.roex_shared_rows(f, intensity[:, 1:], weights, factor, fc, p, P1000, 16.0)


def test_frequencies_of_a_row_that_is_read() -> None:
    """Weights that were made before are used, and padding has none that matter."""
    freqs, _ = components(40)
    _, levels = components(3, 40)
    fc, p = channels()
    factor = torch.tensor(0.35, dtype=torch.float64)
    weights = ops.roex_weights(freqs, 4)
    assert_close(weights.diagonal(), torch.ones(40, dtype=torch.float64), 1e-14)
    out = roex(freqs, levels, fc, p, factor, P1000, 4)
    assert torch.equal(roex(freqs, levels, fc, p, factor, P1000, 4, weights=weights), out)
    assert not torch.equal(roex(freqs, levels, fc, p, factor, P1000, 4, weights=0.5 * weights), out)


@pytest.mark.parametrize("shared", [False, True])
def test_gradcheck(shared: bool) -> None:
    """Away from clamps and from coincident frequencies; padding included."""
    freqs = torch.tensor([[300.0, 480, 1000, 0, 4100], [700, 0, 0, 650, 90]], dtype=torch.float64)
    levels = torch.tensor([[60.0, 75, 50, 10, 40], [85, 0, 0, 70, 66]], dtype=torch.float64)
    fc, p = channels(6)
    if shared:
        freqs = freqs[0]
        levels[1, 2] = -math.inf
    factor = torch.tensor(0.35, dtype=torch.float64, requires_grad=True)

    def function(scale: Tensor, levels: Tensor, factor: Tensor) -> Tensor:
        return roex(freqs * scale, levels, fc, p, factor, P1000, 4)

    given = torch.ones_like(freqs).requires_grad_(), levels.requires_grad_(), factor
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_of_padding_silence_and_coincidence(dtype: torch.dtype) -> None:
    fc, p = channels(dtype=dtype)
    factor = torch.tensor(0.35, dtype=dtype, requires_grad=True)
    freqs = torch.tensor([[0.0] * 4, [1000, 1000, float(fc[5]), -3], [1000, 2000, 0, 0]], dtype=dtype)
    levels = torch.tensor([[0.0] * 4, [60, 60, -200, math.nan], [-math.inf, -math.inf, 0, 0]], dtype=dtype)
    freqs.requires_grad_()
    levels.requires_grad_()
    out = roex(freqs, levels, fc, p, factor, P1000, 4)
    silent = torch.full((12,), -120.0, dtype=dtype)
    torch.testing.assert_close(out[0].detach(), silent)
    torch.testing.assert_close(out[2].detach(), silent)
    of_f, of_l, of_factor = torch.autograd.grad(out[:2].sum(), (freqs, levels, factor))
    assert torch.isfinite(of_f).all()
    assert torch.isfinite(of_l).all()
    assert torch.isfinite(of_factor)
    assert not of_f[0].any()
    assert of_f[1, 3] == of_l[1, 3] == 0
    assert of_f[1, 0] == of_f[1, 1] != 0
    assert of_l[1, 0] == of_l[1, 1] > 0


def test_extreme_levels() -> None:
    """From -200 to 200 dB in float32: within 1e-4 dB of float64, gradients finite."""
    freqs = torch.tensor([[100.0, 400, 2000, 9000], [100.0, 400, 2000, 9000], [100.0, 400, 2000, 9000]])
    levels = torch.tensor([[200.0, 199, 180, 200], [-200, -150, -190, -170], [0, 150, -200, 60]])
    fc, p = channels(40)
    exact = roex(freqs.double(), levels.double(), fc, p, torch.tensor(0.35).double(), P1000, 4)
    given = [freqs.requires_grad_(), levels.requires_grad_(), torch.tensor(0.35, requires_grad=True)]
    out = roex(*given[:2], fc.float(), p.float(), given[2], P1000, 4)
    assert_within(out, exact, 1e-4)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), given))


def test_float32() -> None:
    """950 components over 60 dB: 1e-4 dB, and gradients to 1e-4 of their greatest."""
    freqs = 15 + 14985 * torch.rand(4, 950)
    levels = 60 * torch.rand(4, 950)
    wide, outs, grads = torch.float64, [], []
    weights = torch.randn(4, 12)
    for dtype in (torch.float32, wide):
        fc, p = channels(dtype=dtype)
        given = [t.detach().to(dtype).requires_grad_() for t in (freqs, levels, torch.tensor(0.35))]
        outs.append(roex(*given[:2], fc, p, given[2], P1000, 4))
        grads.append(torch.autograd.grad(outs[-1], given, weights.to(dtype)))
    assert_within(*outs, 1e-4)
    for single, exact in zip(*grads, strict=True):
        assert_within(single, exact, 1e-4 * exact.abs().max())


def test_beyond_the_limit() -> None:
    """Exactly four octaves count; more do not, in either stage, and pass no gradient on."""
    fc = torch.tensor([4000.0], dtype=torch.float64)
    p, factor = roex_slope(fc), torch.tensor(0.35, dtype=torch.float64)
    loud = torch.tensor([120.0], dtype=torch.float64)
    assert roex(torch.tensor([250.0]).double(), loud, fc, p, factor, P1000, 4).item() > 50
    assert roex(torch.tensor([249.99]).double(), loud, fc, p, factor, P1000, 4).item() == -120
    f = torch.tensor([[100.0, 1601]], dtype=torch.float64, requires_grad=True)
    intensity = torch.tensor([[1e10, 1e10]], dtype=torch.float64)
    power = ops.roex_level_rows(f, intensity, 16.0)
    assert torch.equal(power, intensity)
    assert not torch.autograd.grad(power.sum(), f)[0].any()
    assert not torch.equal(ops.roex_level_rows(f, intensity, 17.0), intensity)


def test_order_and_padding_do_not_matter() -> None:
    freqs, levels = components(2, 40)
    fc, p = channels()
    factor = torch.tensor(0.35, dtype=torch.float64)
    out = roex(freqs, levels, fc, p, factor, P1000, 4)
    order = torch.randperm(40)
    assert_close(roex(freqs[:, order], levels[:, order], fc, p, factor, P1000, 4), out, 1e-12)
    for padding in (0.0, -5.0, -math.inf):
        more = [torch.nn.functional.pad(t, (3, 30), value=v) for t, v in ((freqs, padding), (levels, math.nan))]
        assert_close(roex(*more, fc, p, factor, P1000, 4), out, 1e-12)


def test_rows_are_independent() -> None:
    freqs, levels = components(5, 40)
    fc, p = channels()
    factor = torch.tensor(0.35, dtype=torch.float64)
    whole = roex(freqs, levels, fc, p, factor, P1000, 4)
    parts = torch.cat([roex(freqs[i], levels[i], fc, p, factor, P1000, 4)[None] for i in range(5)])
    assert_close(parts, whole, 1e-13)
    for wrong in (math.nan, math.inf):
        levels[3, 0], freqs[3, 0] = wrong, 500.0
        out = roex(freqs, levels, fc, p, factor, P1000, 4)
        assert torch.isnan(out[3]).all()
        assert torch.equal(out[[0, 1, 2, 4]], whole[[0, 1, 2, 4]])
    levels[3, 0], freqs[3, 0] = 50, math.nan
    assert torch.equal(torch.isnan(roex(freqs, levels, fc, p, factor, P1000, 4)).any(1), torch.arange(5) == 3)


@pytest.mark.parametrize("lead", [(), (0,), (2, 0), (2,)])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_nothing_or_little_to_do(lead: tuple[int, ...], count: int) -> None:
    fc, p = channels()
    given = [torch.full((*lead, count), v, dtype=torch.float64, requires_grad=True) for v in (500.0, 60)]
    factor = torch.tensor(0.35, dtype=torch.float64, requires_grad=True)
    out = roex(*given, fc, p, factor, P1000, 4)
    assert out.shape == (*lead, 12)
    if not count:
        assert torch.equal(out, torch.full_like(out, -120))
    gradients = torch.autograd.grad(out.sum(), [*given, factor])
    assert all(g.shape == t.shape and torch.isfinite(g).all() for g, t in zip(gradients, [*given, factor], strict=True))
    assert roex(*given, fc[:0], p[:0], factor, P1000, 4).shape == (*lead, 0)


def test_layouts() -> None:
    f, intensity, steepness = rows(2, 30)
    fc, p = channels()
    strided = [t.repeat_interleave(2, -1)[..., ::2] for t in (f, intensity, steepness, fc, p)]
    power = ops.roex_level_rows(*strided[:2], 16.0)
    assert power.is_contiguous()
    assert_close(power, ops.roex_level_rows(f, intensity, 16.0), 1e-13)
    assert_close(
        ops.roex_excitation_rows(*strided, 16.0), ops.roex_excitation_rows(f, intensity, steepness, fc, p, 16.0), 1e-13
    )
    one = torch.ones((), dtype=torch.float64)
    for actual, expected in zip(
        ops.roex_excitation_backward(one.expand(2, 12), *strided, 16.0),
        ops.roex_excitation_backward(torch.ones(2, 12).double(), f, intensity, steepness, fc, p, 16.0),
        strict=True,
    ):
        assert actual.is_contiguous()
        assert_close(actual, expected, 1e-12)


@checked
@pytest.mark.parametrize("again", [False, True])
def test_opcheck(again: bool, checks: tuple[str, ...]) -> None:
    count, length = (8, 5) if again else (2, 6)
    f, intensity, steepness = (t.requires_grad_() for t in rows(count, length))
    if again:
        f, intensity = (t.requires_grad_() for t in recurring(count, length))
    fc, p = channels()
    factor = torch.tensor(0.35, dtype=torch.float64, requires_grad=True)
    level_grad = torch.randn(count, length, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(count, 12, dtype=torch.float64, requires_grad=True)
    for operator, given in (
        (ops.roex_level_rows, (f, intensity, 16.0)),
        (ops.roex_excitation_rows, (f, intensity, steepness, fc, p, 16.0)),
        (ops.roex_shared_rows, (f[0], intensity, ops.roex_weights(f[0]), factor, fc, p, P1000, 16.0)),
        (
            ops.roex_shared_backward,
            (grad, f[0], intensity, ops.roex_weights(f[0]), factor, fc, p, P1000, 16.0, again),
        ),
        (ops.roex_level_backward, (level_grad, f, intensity, 16.0)),
        (ops.roex_excitation_backward, (grad, f, intensity, steepness, fc, p, 16.0)),
    ):
        torch.library.opcheck(
            operator, given, test_utils=QUICK if again or operator == ops.roex_shared_backward else checks
        )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("count", [2, 20])
def test_float32_needs_neither_float64_nor_complex(count: int, shared: bool, mps_safe: type) -> None:
    freqs, intensity = recurring(count, 50, torch.float32)
    freqs = freqs[0] if shared else freqs
    given = [freqs.requires_grad_(), intensity.log10().requires_grad_(), torch.tensor(0.35, requires_grad=True)]
    fc, p = channels(dtype=torch.float32)
    reference._KEPT.clear()
    with mps_safe():
        torch.autograd.grad(roex(*given[:2], fc, p, given[2], P1000, 4).sum(), given)


def test_errors() -> None:
    freqs, levels = components(2, 5)
    fc, p = channels()
    factor = torch.tensor(0.35, dtype=torch.float64)
    message = "must have the same shape (..., C), or the shapes (C,) and (..., C), got (2, 5) and (5,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        roex(freqs, levels[0], fc, p, factor, P1000)
    with pytest.raises(ValueError, match=re.escape("(C,) and (..., C), got () and ()")):
        roex(freqs[0, 0], levels[0, 0], fc, p, factor, P1000)
    with pytest.raises(ValueError, match=re.escape("fc and p must have the same shape (N,), got (12,) and (11,)")):
        roex(freqs, levels, fc, p[1:], factor, P1000)
    with pytest.raises(TypeError, match=re.escape("freqs must be float32 or float64, got torch.float16")):
        roex(freqs.half(), levels, fc, p, factor, P1000)
    with pytest.raises(TypeError, match=re.escape("p must have freqs's type and device, torch.float64 on cpu, got")):
        roex(freqs, levels, fc, p.float(), factor, P1000)
    with pytest.raises(ValueError, match="limit must be a positive number of octaves, got nan"):
        roex(freqs, levels, fc, p, factor, P1000, math.nan)
    for high in (100001.0, math.inf):
        freqs[1, 2] = high
        with pytest.raises(ValueError, match=re.escape("freqs must not exceed 100000 Hz, got")):
            roex(freqs, levels, fc, p, factor, P1000)
    f, intensity, steepness = rows(2, 5)
    with pytest.raises(ValueError, match=re.escape("f and intensity must have the same shape (R, C), got (2, 5)")):
        ops.roex_level_rows(f, intensity[:, 1:], 16.0)
    with pytest.raises(ValueError, match=re.escape("steepness must have the shape (2, 5), got (2, 4)")):
        ops.roex_excitation_rows(f, intensity, steepness[:, 1:], fc, p, 16.0)
    with pytest.raises(ValueError, match=re.escape("fc and p must have the same shape (N,), got (12,) and (11,)")):
        ops.roex_excitation_rows(f, intensity, steepness, fc, p[1:], 16.0)
