"""Forward mode, ``torch.func`` and ``torch.vmap`` through every operator and every module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import modules
import pytest
import torch
from helpers import example_coef, example_operands
from test_drnl_operator import example as drnl_example
from test_fft_drnl import example_operands as fft_drnl_operands
from test_fir import example as fir_example
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

from tamt.ops import (
    blocks,
    broken_stick,
    compaction,
    drnl,
    drnl_frames,
    fft_drnl,
    fft_drnl_frames,
    filter_frames,
    fir,
    frames,
    iir,
    recurrence,
    roex,
    spreading,
    windowed_dft,
)
from tamt.ops._register import register

ROOT = Path(__file__).parents[1]
Function = Callable[..., Any]
Case = tuple[Function, list[Tensor]]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def after(function: Function, *parameters: Any) -> Function:
    """``function`` of tensors alone."""
    return lambda *tensors: function(*tensors, *parameters)


def of_iir(kind: str, order: int = 2, length: int = 70, per_channel: bool = False) -> Case:
    return after(iir.iir, kind, order), list(example_operands(kind, order, length, per_channel, channels=2))


def of_iir_backward(kind: str, needs: tuple[bool, bool] = (True, True), per_channel: bool = False) -> Case:
    function, operands = of_iir(kind, length=66, per_channel=per_channel)
    cotangents = [random(*r.shape) for r in function(*operands)]

    def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(r for r in iir.iir_backward(*tensors, kind, 2, *needs) if r.numel())

    return backward, [*cotangents, *operands]


def of_filter_frames(detector: str, hop: int = 16, needs: tuple[bool, bool] | None = None) -> Case:
    x, coef, state = example_operands("onepole", 2, 50, False, channels=2)
    operands, parameters = [x[:, 0], coef, state], ("onepole", 2, hop, detector)
    if needs is None:
        return after(filter_frames.filter_frames_rows, *parameters), operands
    cotangents = [random(*r.shape) for r in filter_frames.filter_frames_rows(*operands, *parameters)]

    def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(r for r in filter_frames.filter_frames_backward(*tensors, *parameters, *needs) if r.numel())

    return backward, [*cotangents, *operands]


def of_drnl_backward() -> Case:
    operands = drnl_example(40, channels=2, orders=(1, 1, 1))
    cotangents = [random(*r.shape) for r in drnl.drnl_rows(*operands)]
    return after(drnl.drnl_backward, *[True] * 8), [*cotangents, *operands]


def of_drnl_frames(backward: bool) -> Case:
    operands = drnl_example(40, channels=2, orders=(1, 1, 1))
    if not backward:
        return after(drnl_frames.drnl_frames_rows, 16, "power"), operands
    cotangents = [random(*r.shape) for r in drnl_frames.drnl_frames_rows(*operands, 16, "power")]
    return after(drnl_frames.drnl_frames_backward, 16, "power", *[True] * 5), [*cotangents, *operands]


def of_fft_drnl_frames(backward: bool) -> Case:
    x, spectra, stick, *past = fft_drnl_operands(4, 16, 20, channels=2)
    if not backward:
        rows = fft_drnl_frames.fft_drnl_frames_rows
        return lambda x, stick, *past: rows(x, spectra, stick, *past, 8, "power"), [x, stick, *past]
    rows = fft_drnl_frames.fft_drnl_frames_backward
    results = fft_drnl_frames.fft_drnl_frames_rows(x, spectra, stick, *past, 8, "power")
    grads = [random(*r.shape) for r in results]
    return (
        lambda g, h, k, x, stick, *past: rows(g, h, k, x, spectra, stick, *past, 8, "power", True),
        [*grads, x, stick, *past],
    )


def of_windowed_dft(backward: bool) -> Case:
    bands = [(16, 1, 3), (8, 3, 6)]
    tables = windowed_dft.dft_tables(bands, 16, dtype=torch.float64)
    plan = *map(list, zip(*bands, strict=True)), 5, 16
    x, weight = random(2, 30), 0.5 + random(7).abs()
    if not backward:
        return lambda x, weight: windowed_dft.windowed_dft_rows(x, tables, weight, *plan), [x, weight]
    rows = windowed_dft.windowed_dft_backward
    return lambda g, x, weight: rows(g, x, tables, weight, *plan, True, True), [random(2, 3, 6), x, weight]


def of_compaction(backward: bool, count: int = 3) -> Case:
    intensity, frequencies = random(2, 6).exp(), torch.arange(6, dtype=torch.float64)
    limits = torch.tensor([0.1, 1.0], dtype=torch.float64)
    if backward:
        rows = compaction.compaction_backward
        return lambda g, x: rows(g, x, frequencies, limits, count, count < 6), [random(2, count), intensity]
    rows = compaction.compaction_rows
    return lambda intensity: rows(intensity, frequencies, limits, count, count < 6)[1], [intensity]


def of_roex(name: str) -> Case:
    f, intensity, steepness = 500 + 3000 * random(2, 4).sigmoid(), random(2, 4).exp(), 1 + 0.2 * random(2, 4).tanh()
    fc = torch.tensor([600.0, 1000.0, 1800.0], dtype=torch.float64)
    grads = {"level": random(2, 4), "excitation": random(2, 3)}
    shared = [f[0], intensity, 0.3 * random(4, 4).exp(), random().sigmoid()]
    rest = fc, fc / 30, 30.2, 8.0

    def shared_backward(*tensors: Tensor) -> tuple[Tensor, ...]:
        *found, of_factor = roex.roex_shared_backward(*tensors, *rest, True)
        return *found, of_factor[None]

    return {
        "level": (after(roex.roex_level_rows, 8.0), [f, intensity]),
        "level_backward": (after(roex.roex_level_backward, 8.0), [grads["level"], f, intensity]),
        "excitation": (after(roex.roex_excitation_rows, fc, fc / 30, 8.0), [f, intensity, steepness]),
        "excitation_backward": (
            after(roex.roex_excitation_backward, fc, fc / 30, 8.0),
            [grads["excitation"], f, intensity, steepness],
        ),
        "shared": (after(roex.roex_shared_rows, *rest), shared),
        "shared_backward": (shared_backward, [grads["excitation"], *shared]),
    }[name]


def of_spreading(backward: bool) -> Case:
    levels = 50 + 10 * random(2, 9)
    slopes = torch.tensor([27.0, 24.0, 0.4, 0.1, 51.0], dtype=torch.float64)
    if not backward:
        return after(spreading.spreading_rows, 0.5), [levels, slopes]

    def gradients(g: Tensor, levels: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        out = spreading.spreading_rows(levels, slopes, 0.5)
        return spreading.spreading_backward(g, levels, slopes, out, 0.5)

    return gradients, [random(2, 9), levels, slopes]


def of_fft_drnl(backward: bool) -> Case:
    x, spectra, stick, *past = fft_drnl_operands(4, 16, 20, channels=2)
    if not backward:
        rows = fft_drnl.fft_drnl_rows
        return lambda x, stick, *past: rows(x, spectra, stick, *past), [x, stick, *past]
    rows = fft_drnl.fft_drnl_backward
    grads = [random(*r.shape) for r in fft_drnl.fft_drnl_rows(x, spectra, stick, *past)]
    return lambda g, h, k, x, stick, *past: rows(g, h, k, x, spectra, stick, *past, True), [*grads, x, stick, *past]


def of_fir(backward: bool, needs: tuple[bool, bool] = (True, True)) -> Case:
    operands = list(fir_example(20, taps=4, signals=2, filters=4))
    if not backward:
        return fir.fir_rows, operands
    grads = [random(*r.shape) for r in fir.fir_rows(*operands)]
    return lambda *t: tuple(r for r in fir.fir_backward(*t, *needs) if r.numel()), [*grads, *operands]


def of_blocks(backward: bool) -> Case:
    coef = example_coef("modal", 1, 2)
    if not backward:
        return after(blocks.iir_blocks, "modal", 1), [coef]
    results = blocks.iir_blocks(coef, "modal", 1)
    return after(blocks.iir_blocks_backward, "modal", 1), [*(random(*r.shape) for r in results), coef]


def of_broken_stick(backward: bool) -> Case:
    v, stick = random(2, 3, 4), 0.2 + torch.rand(3, 3, dtype=torch.float64)
    if backward:
        return broken_stick.broken_stick_backward, [random(2, 3, 4), v, stick]
    return broken_stick.broken_stick_rows, [v, stick]


def of_attack_release(backward: bool, needs: tuple[bool, bool] = (True, True)) -> Case:
    constants = [torch.tensor(constant, dtype=torch.float64) for constant in (0.3, 0.1)]
    operands = [random(2, 9, 3), *constants, random(2, 3)]
    if not backward:
        return recurrence.attack_release_rows, operands
    grads = [random(2, 9, 3), random(2, 3)]

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        y, _ = recurrence.attack_release_rows(*tensors[2:])
        found = recurrence.attack_release_backward(*tensors, y, *needs)
        return tuple(r.reshape(r.shape or (1,)) for r in found if r.numel())

    return gradients, [*grads, *operands]


CASES: dict[str, Callable[[], Case]] = {
    **{f"iir-{kind}": lambda kind=kind: of_iir(kind) for kind in iir.KINDS},
    "iir-per_channel": lambda: of_iir("onepole", per_channel=True),
    "iir-long": lambda: of_iir("biquad", order=1, length=64 * 40 + 3),
    **{f"iir_backward-{kind}": lambda kind=kind: of_iir_backward(kind) for kind in iir.KINDS},
    "iir_backward-per_channel": lambda: of_iir_backward("modal", per_channel=True),
    "iir_backward-x": lambda: of_iir_backward("onepole", (True, False)),
    "iir_backward-coef": lambda: of_iir_backward("onepole", (False, True)),
    "drnl": lambda: (drnl.drnl_rows, drnl_example(66, channels=2, orders=(1, 1, 1))),
    "drnl_backward": of_drnl_backward,
    "drnl_frames": lambda: of_drnl_frames(False),
    "drnl_frames_backward": lambda: of_drnl_frames(True),
    "fft_drnl_frames": lambda: of_fft_drnl_frames(False),
    "fft_drnl_frames_backward": lambda: of_fft_drnl_frames(True),
    **{f"filter_frames-{name}": lambda name=name: of_filter_frames(name) for name in filter_frames.DETECTORS},
    "filter_frames_backward": lambda: of_filter_frames("envelope", needs=(True, True)),
    "filter_frames_backward-outputs": lambda: of_filter_frames("power", 9, (True, True)),
    "filter_frames_backward-x": lambda: of_filter_frames("power", needs=(True, False)),
    "filter_frames_backward-coef": lambda: of_filter_frames("power", needs=(False, True)),
    "broken_stick": lambda: of_broken_stick(False),
    "broken_stick_backward": lambda: of_broken_stick(True),
    "fft_drnl": lambda: of_fft_drnl(False),
    "fft_drnl_backward": lambda: of_fft_drnl(True),
    "fir": lambda: of_fir(False),
    "fir_backward": lambda: of_fir(True),
    "fir_backward-x": lambda: of_fir(True, (True, False)),
    "fir_backward-taps": lambda: of_fir(True, (False, True)),
    "iir_blocks": lambda: of_blocks(False),
    "iir_blocks_backward": lambda: of_blocks(True),
    "compaction": lambda: of_compaction(False),
    "compaction-all": lambda: of_compaction(False, 8),
    "compaction_backward": lambda: of_compaction(True),
    **{
        f"roex_{name}": lambda name=name: of_roex(name)
        for name in ("level", "level_backward", "excitation", "excitation_backward", "shared", "shared_backward")
    },
    "attack_release": lambda: of_attack_release(False),
    "attack_release_backward": lambda: of_attack_release(True),
    "attack_release_backward-x": lambda: of_attack_release(True, (True, False)),
    "attack_release_backward-constants": lambda: of_attack_release(True, (False, True)),
    "spreading": lambda: of_spreading(False),
    "spreading_backward": lambda: of_spreading(True),
    "windowed_dft": lambda: of_windowed_dft(False),
    "windowed_dft_backward": lambda: of_windowed_dft(True),
    "frames": lambda: (after(frames._frames, 6, 3), [random(2, 17)]),
    "frames-uneven": lambda: (after(frames._frames, 5, 3), [random(2, 17)]),
    "overlap_add": lambda: (after(frames._overlap_add, 17, 3), [random(2, 4, 6)]),
    "overlap_add-uneven": lambda: (after(frames._overlap_add, 17, 3), [random(2, 5, 5)]),
    "group_means": lambda: (after(frames._group_means, 4, 3), [random(2, 11, 3)]),
    "moving_means": lambda: (after(frames._moving_means, 3), [random(2, 3, 7)]),
    "moved_means": lambda: (after(frames._moved_means, 7, 3), [random(2, 3, 5)]),
    "spread_means": lambda: (after(frames._spread_means, 11, 4), [random(2, 3, 3)]),
}
operators = pytest.mark.parametrize("name", CASES)


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def assert_same(actual: Any, expected: Any, rtol: float = 1e-8, atol: float = 1e-10) -> None:
    """Of each tensor the largest difference, relative to the largest magnitude."""
    for a, e in zip(as_tuple(actual), as_tuple(expected), strict=True):
        assert a.shape == e.shape
        if e.numel():
            torch.testing.assert_close(a, e, rtol=0, atol=rtol * e.abs().max().item() + atol)


def difference(function: Function, at: Sequence[Tensor], along: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Central differences of fourth order, of steps that hardly ever meet a knee."""
    h = 1e-6

    def moved(steps: int) -> tuple[Tensor, ...]:
        return as_tuple(function(*(t + steps * h * v for t, v in zip(at, along, strict=True))))

    every = zip(moved(2), moved(1), moved(-1), moved(-2), strict=True)
    return tuple((8 * (b - c) - (a - d)) / (12 * h) for a, b, c, d in every)


def directions(operands: Sequence[Tensor]) -> list[Tensor]:
    """In proportion to what they change, as not every number may change its sign."""
    return [random(*t.shape) * t for t in operands]


def dual(function: Function, at: Sequence[Tensor], along: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Tangents by ``torch.autograd.forward_ad``."""
    with forward_ad.dual_level():
        duals = [t if v is None else forward_ad.make_dual(t, v) for t, v in zip(at, along, strict=True)]
        return tangents_of(as_tuple(function(*duals)))


def tangents_of(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found = [forward_ad.unpack_dual(r) for r in results]
    return tuple(torch.zeros_like(r.primal) if r.tangent is None else r.tangent for r in found)


def loss(function: Function, at: Sequence[Tensor]) -> Function:
    """A number that is not linear in the results, which it takes relative to their size at some operands."""
    weights = [random(*r.shape) / (1e-3 + r.abs().max()) if r.numel() else r for r in as_tuple(function(*at))]

    def total(*operands: Tensor) -> Tensor:
        pairs = zip(as_tuple(function(*operands)), weights, strict=True)
        return sum((w * r + (w * r).square()).sum() for r, w in pairs)

    return total


def check_tangents(function: Function, operands: list[Tensor], tolerance: float = 1e-7) -> None:
    """Against differences, gradients and the older interface, for all operands and for each alone."""
    along = directions(operands)
    results, tangents = jvp(function, tuple(operands), tuple(along))
    assert_same(results, function(*operands), 1e-12)
    assert_same(tangents, difference(function, operands, along), tolerance)
    assert any(t.abs().max() > 0 for t in as_tuple(tangents))
    assert_same(dual(function, operands, along), tangents, 1e-12)
    weights = [random(*r.shape) for r in as_tuple(results)]
    cotangents = vjp(function, *operands)[1](weights[0] if isinstance(results, Tensor) else tuple(weights))
    forward = sum((w * t).sum() for w, t in zip(weights, as_tuple(tangents), strict=True))
    reverse = sum((g * v).sum() for g, v in zip(cotangents, along, strict=True))
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-9)
    alone = [dual(function, operands, [v if i == j else None for j, v in enumerate(along)]) for i in range(len(along))]
    assert_same([sum(parts) for parts in zip(*alone, strict=True)], tangents, 1e-9)


def check_second_order(function: Function, operands: list[Tensor], tolerance: float = 1e-6) -> None:
    """Products with the Hessian by all ways to nest the modes, and plain double backward."""
    total = loss(function, operands)
    every, along = tuple(range(len(operands))), directions(operands)
    gradient = grad(total, every)
    leaves = [t.clone().requires_grad_() for t in operands]
    assert_same(gradient(*operands), torch.autograd.grad(total(*leaves), leaves), 1e-12)
    product = jvp(gradient, tuple(operands), tuple(along))[1]
    assert_same(product, difference(gradient, operands, along), tolerance)

    def slope(*at: Tensor) -> Tensor:
        return jvp(total, at, tuple(along))[1]

    assert_same(grad(slope, every)(*operands), product)
    assert_same(vjp(gradient, *operands)[1](tuple(along)), product)
    first = torch.autograd.grad(total(*leaves), leaves, create_graph=True)
    inner = sum((g * v).sum() for g, v in zip(first, along, strict=True))
    assert_same(torch.autograd.grad(inner, leaves, allow_unused=True, materialize_grads=True), product)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, v) for t, v in zip(leaves, along, strict=True)]
        found = torch.autograd.grad(total(*duals), duals)
        assert_same(tangents_of(found), product)


@operators
def test_tangents(name: str) -> None:
    check_tangents(*CASES[name]())


@operators
def test_second_order(name: str) -> None:
    check_second_order(*CASES[name]())


@operators
def test_jacobians(name: str) -> None:
    """Forward mode maps the operator over tangents, reverse mode over gradients."""
    function, operands = CASES[name]()
    shapes = [r.shape for r in as_tuple(function(*operands))]
    mixed = [random(2, *shape) for shape in shapes]
    steps = [random(2, *t.shape) for t in operands]

    def few(s: Tensor) -> Tensor:
        moved = [t + 1e-3 * torch.tensordot(s, v, 1) for t, v in zip(operands, steps, strict=True)]
        results = zip(mixed, as_tuple(function(*moved)), strict=True)
        return sum((w * r).flatten(1).sum(1) for w, r in results)

    s = torch.zeros(2, dtype=torch.float64)
    assert_same(jacfwd(few)(s), jacrev(few)(s))


@operators
def test_maps(name: str) -> None:
    """Over each operand alone, over all, of the gradient, and over nothing."""
    function, operands = CASES[name]()
    total = loss(function, operands)
    every = tuple(range(len(operands)))
    stacked = [torch.stack([t, t + 0.01 * random(*t.shape), t], -1) for t in operands]

    def check(mapped: set[int]) -> None:
        dims = tuple(-1 if i in mapped else None for i in every)
        given = [stacked[i] if i in mapped else t for i, t in enumerate(operands)]
        sets = [[t[..., n] if i in mapped else t for i, t in enumerate(given)] for n in range(3)]
        for one in (function, grad(total, every)):
            expected = [torch.stack(r) for r in zip(*(as_tuple(one(*ts)) for ts in sets), strict=True)]
            assert_same(vmap(one, dims)(*given), expected, 1e-11)

    for i in every:
        check({i})
    check(set(every))
    none = as_tuple(vmap(function, -1)(*(t[..., :0] for t in stacked)))
    assert [r.shape for r in none] == [(0, *r.shape) for r in as_tuple(function(*operands))]


def test_maps_within_maps() -> None:
    function, (x, coef, state) = of_iir("onepole")
    nested = vmap(vmap(function, (0, None, None)), (None, 0, None))
    xs, coefs = torch.stack([x, 2 * x, -x]), torch.stack([coef, coef + 0.01])
    y, last = nested(xs, coefs, state)
    for i, c in enumerate(coefs):
        for j, signal in enumerate(xs):
            assert_same((y[i, j], last[i, j]), function(signal, c, state), 1e-11)


def test_third_order() -> None:
    function, operands = of_broken_stick(False)
    total = loss(function, operands)

    def curvature(mode: Function) -> Tensor:
        v, stick = operands
        inner = lambda v, stick: grad(total)(v, stick).square().sum()  # noqa: E731
        return mode(grad(inner, 1), argnums=1)(v, stick)

    assert_same(curvature(jacfwd), curvature(jacrev))


def test_an_operator_without_a_definition_is_refused() -> None:
    with pytest.raises(ValueError, match="tamt::nothing needs a definition"):
        register("nothing", "(Tensor x) -> Tensor", definition=None, forward=torch.clone, shapes=lambda x: x.shape)


def test_constants_have_no_tangents() -> None:
    """Thresholds, frequencies and the frequencies that stay: in both modes."""
    intensity, limits = random(2, 6).exp(), torch.full((2,), 0.5, dtype=torch.float64)
    frequencies = torch.arange(6, dtype=torch.float64)
    one = [torch.ones_like(t) for t in (intensity, frequencies, limits)]
    freqs, levels = dual(compaction.compaction, (intensity, frequencies, limits), (*one[:1], None, None))
    assert not freqs.any()
    assert levels.any()
    assert not any(t.any() for t in dual(compaction.compaction, (intensity, frequencies, limits), (None, *one[1:])))


def module_case(case: modules.Case) -> tuple[Function, list[Tensor], dict[str, Tensor]]:
    """What a module computes from its parameters, complex ones as pairs, and signals; and both."""
    module, inputs = wide(case)
    given = {key: p.detach().clone() for key, p in module.named_parameters()}
    pairs = {key for key, p in given.items() if p.is_complex()}
    parameters = {key: torch.view_as_real(p) if key in pairs else p for key, p in given.items()}
    signals = [t for t in inputs if t.dim() > 1]
    constants = inputs[len(signals) :]
    smooth = [y.requires_grad for y in as_tuple(module(*modules.leaves(inputs)))]

    def function(values: dict[str, Tensor], *signals: Tensor) -> tuple[Tensor, ...]:
        values = {key: torch.view_as_complex(v) if key in pairs else v for key, v in values.items()}
        results = as_tuple(functional_call(module, values, (*signals, *constants)))
        return tuple(y for y, kept in zip(results, smooth, strict=True) if kept)

    return function, signals, parameters


def wide(case: modules.Case) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    """A learnable module in float64, and inputs."""
    return case.make(learnable=True, dtype=torch.float64).double(), case.inputs(dtype=torch.float64)


@modules.cases
def test_modules_forward_mode(case: modules.Case) -> None:
    """Tangents of signals and parameters: against differences and against gradients, by both interfaces."""
    function, signals, parameters = module_case(case)
    check_tangents(lambda *given: function(parameters, *given), signals)
    if parameters:
        keys = list(parameters)

        def of_parameters(*values: Tensor) -> tuple[Tensor, ...]:
            return function(dict(zip(keys, values, strict=True)), *signals)

        check_tangents(of_parameters, list(parameters.values()))


@modules.cases
def test_modules_second_order(case: modules.Case) -> None:
    function, signals, parameters = module_case(case)
    keys = list(parameters)

    def everything(*given: Tensor) -> tuple[Tensor, ...]:
        values = given[len(signals) :]
        return function(dict(zip(keys, values, strict=True)), *given[: len(signals)])

    check_second_order(everything, [*signals, *parameters.values()])


@modules.cases
def test_modules_jacobians(case: modules.Case) -> None:
    function, signals, parameters = module_case(case)
    steps = [random(2, *t.shape) * t.abs().mean() for t in signals]
    weights = [random(2, *r.shape) for r in function(parameters, *signals)]

    def few(s: Tensor) -> Tensor:
        moved = [t + 1e-3 * torch.tensordot(s, v, 1) for t, v in zip(signals, steps, strict=True)]
        pairs = zip(weights, function(parameters, *moved), strict=True)
        return sum((w * r).flatten(1).sum(1) for w, r in pairs)

    s = torch.zeros(2, dtype=torch.float64)
    assert_same(jacfwd(few)(s), jacrev(few)(s))


@modules.cases
def test_modules_map(case: modules.Case) -> None:
    """Over signals, and per-sample gradients of parameters and signals."""
    function, signals, parameters = module_case(case)
    batch = [torch.stack([t, t.flip(0), 0.9 * t]) for t in signals]
    single = [function(parameters, *one) for one in zip(*batch, strict=True)]
    expected = [torch.stack(same) for same in zip(*single, strict=True)]
    assert_same(vmap(lambda *given: function(parameters, *given))(*batch), expected)

    def total(values: dict[str, Tensor], *given: Tensor) -> Tensor:
        return sum(r.square().sum() for r in function(values, *given))

    wanted = tuple(range(1 + len(signals)))
    gradients = grad(total, wanted)
    given = vmap(gradients, (None,) + (0,) * len(signals))(parameters, *batch)
    for n, one in enumerate(zip(*batch, strict=True)):
        of_parameters, *of_signals = gradients(parameters, *one)
        assert_same([given[0][key][n] for key in parameters], [of_parameters[key] for key in parameters])
        assert_same([g[n] for g in given[1:]], of_signals)


@modules.cases
def test_modules_as_users_call_them(case: modules.Case) -> None:
    """The same object in transform after transform: what one left behind does not show in the next."""
    module, signals = wide(case)
    expected = as_tuple(module(*signals))
    number = lambda *given: sum(r.square().sum() for r in as_tuple(module(*given)))  # noqa: E731
    x = signals[0].clone().requires_grad_()
    plain = torch.autograd.grad(number(x, *signals[1:]), x)[0]
    for _ in range(2):
        assert_same(grad(number)(*signals), plain, 1e-11)
        jvp(lambda s: module(s, *signals[1:]), (signals[0],), (random(*signals[0].shape),))
        assert_same(module(*signals), expected, 1e-12)


COMPILED = {
    "grad": lambda f: grad(lambda x: f(x).square().sum()),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).square().sum())),
}


@pytest.mark.parametrize("transform", COMPILED)
def test_compiled_transforms(transform: str) -> None:
    """Whole graphs with the transform inside."""
    torch._dynamo.reset()
    _, coef, state = example_operands("onepole", 2, 70, False, batch=1, channels=2)

    def filtered(x: Tensor) -> Tensor:
        return iir.iir(x[None, None], coef, state, "onepole", 2)[0].tanh()

    x = random(3, 70) if transform == "vmap(grad)" else random(70)
    function = COMPILED[transform](filtered)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert_same(compiled(x), function(x), 1e-11)


def test_forward_mode_inside_and_around_a_compiled_function() -> None:
    """Where tracing hides the level of forward mode from Python."""
    torch._dynamo.reset()
    _, coef, state = example_operands("onepole", 2, 70, False, batch=1, channels=2)
    x = random(1, 1, 70)

    def filtered(x: Tensor) -> Tensor:
        return iir.iir(x, coef, state, "onepole", 2)[0].tanh()

    def tangent(x: Tensor) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(filtered(forward_ad.make_dual(x, x.cos()))).tangent

    expected = tangent(x)
    assert_same(torch.compile(tangent, backend="aot_eager")(x), expected, 1e-12)
    assert_same(dual(torch.compile(filtered, backend="aot_eager"), [x], [x.cos()]), expected, 1e-12)


def test_the_compiler_sees_operators_as_one_step_or_not_at_all() -> None:
    """Where it gives a function up and follows the calls inside, an operator's own must not be compiled."""
    torch._dynamo.reset()
    x, coef, state = example_operands("onepole", 2, 70, False)
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def given_up(x: Tensor) -> Tensor:
        try:
            sys._getframe()  # beyond the compiler, and no place for a break
            return iir.iir(x, coef, state, "onepole", 2)[0]
        finally:
            pass

    compiled = torch.compile(given_up, backend=keep)
    for signal in (x, x.clone().requires_grad_()):
        assert_same(compiled(signal), given_up(signal), 0)
    assert not graphs


FIRST_CALLS = """
import sys, torch
before = set(sys.modules)
from asv_bench.registry import MODULES
from tamt.ops.fir import fir
from tamt.ops.iir import biquad_cascade, onepole_cascade

def run(function, *operands):
    def flat(results):
        return [results] if isinstance(results, torch.Tensor) else [tensor for each in results for tensor in flat(each)]
    real = [t for t in flat(function(*operands)) if t.requires_grad and t.is_floating_point()]
    if real:
        sum(t.sum() for t in real).backward()

for module in MODULES.values():
    for learnable in (True, "relative") if module.learnable else (False,):
        for dtype in (torch.float32, torch.float64) if module.typed else (torch.float32,):
            built, given = module.build(learnable, dtype=dtype, small=True), module.inputs(1)
            run(built, *given)
            with torch.no_grad():
                run(built, *given)
    with torch.autocast("cpu", torch.bfloat16):
        run(built, *(t.requires_grad_() if t.is_floating_point() else t for t in given))
    if module.streams:
        run(built.stream, *given)

x, sos, two = torch.ones(9), torch.tensor([[[1.0, 0, 0, 1, 0.5, 0.1]]]), torch.full((2,), 0.1)
run(biquad_cascade, x.requires_grad_(), sos.requires_grad_())
run(lambda *operands: fir(*operands), x, sos[0, :, :3])
run(lambda c: onepole_cascade(x, two, two, c[:, 0], 2, feedback=c), torch.full((2, 2, 2), 0.1, requires_grad=True))
print({"sympy", "scipy", "torch._dynamo", "torch._inductor", "triton"} & sys.modules.keys() - before)
"""


def test_first_calls_import_nothing_slow() -> None:
    """Not the compiler, nor sympy, which torch takes to compare shapes: they would take seconds of a first call."""
    done = subprocess.run([sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "set()\n"
