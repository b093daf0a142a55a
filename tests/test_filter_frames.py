"""Means over hops of filters' outputs: definition, gradients by both roads, pieces, memory, NaN, errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from helpers import QUICK, Steps, assert_close, checked, compiled_elsewhere, example_coef, example_operands, naive_iir
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tamt
from tamt.ops import filter_frames as ops
from tamt.ops.iir import filtered
from tamt.reference import filter_frames as reference
from tamt.shared import hops
from tamt.shared.iir import KINDS, analytic_rows, analytic_rows_vjp, analytic_states, analytic_states_vjp

EVERY = [(kind, detector) for kind in KINDS for detector in ("power", "halfwave")]
EVERY += [(kind, "envelope") for kind in ops.ANALYTIC]

every = pytest.mark.parametrize(("kind", "detector"), EVERY)
detectors = pytest.mark.parametrize("detector", hops.DETECTORS)


def example(kind: str, length: int, order: int = 3, batch: int = 2, channels: int = 3) -> list[Tensor]:
    x, coef, state = example_operands(kind, order, length, False, batch, channels)
    return [x[:, 0], coef, state]


def naive(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str) -> tuple:
    """Sample by sample; an analytic output is that of the filter and of one with its gain turned by -90 degrees."""
    count = x.shape[1] // hop
    x = x[:, None, : count * hop]
    y, final = naive_iir(x, coef, state, kind, order)
    if detector == "envelope":
        turned = torch.cat((coef[:, :3], coef[:, 4:5], -coef[:, 3:4], coef[:, 5:]), 1)
        re, im = state.unflatten(-1, (order, 2)).unbind(-1)
        other, _ = naive_iir(x, turned, torch.stack((im, -re), -1).flatten(-2), kind, order)
        values = (y.square() + other.square()) / 2
    else:
        values = y.square() if detector == "power" else y.clamp(min=0)
    return values.unflatten(-1, (count, hop)).mean(-1), final


def composed(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int, hop: int, detector: str) -> tuple:
    """From the outputs of the filters' own operator."""
    count = x.shape[1] // hop
    if detector == "envelope":
        coef, state = analytic_rows(coef), analytic_states(state)
    y, final = filtered(x[:, : count * hop], coef, kind, order, state)
    values = y.clamp(min=0) if detector == "halfwave" else y.square()
    if detector == "envelope":
        values, final = values.unflatten(1, (-1, 2)).mean(2), final[:, ::2]
    return values.unflatten(-1, (count, hop)).mean(-1), final


@every
@pytest.mark.parametrize(("length", "hop"), [(350, 160), (100, 7), (65, 1), (64, 64), (130, 130), (63, 64), (0, 5)])
def test_definition(kind: str, detector: str, length: int, hop: int) -> None:
    operands = example(kind, length)
    means, final = ops.filter_frames_rows(*operands, kind, 3, hop, detector)
    assert means.shape == (2, 3, length // hop)
    assert means.is_contiguous()
    assert final.is_contiguous()
    expected = naive(*operands, kind, 3, hop, detector) if length >= hop else (means, operands[2])
    for actual, wanted in zip((means, final), expected, strict=True):
        assert_close(actual, wanted, 1e-12)


@every
def test_float32(kind: str, detector: str) -> None:
    operands = example(kind, 3000)
    expected = composed(*operands, kind, 3, 441, detector)
    found = ops.filter_frames_rows(*(t.float() for t in operands), kind, 3, 441, detector)
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted, 2e-5, dtype=torch.float32)


@detectors
def test_a_long_hop_keeps_the_digits_of_its_sum(detector: str) -> None:
    operands = example("onepole", 400_000, batch=1)
    exact, _ = ops.filter_frames_rows(*operands, "onepole", 3, 400_000, detector)
    found, _ = ops.filter_frames_rows(*(t.float() for t in operands), "onepole", 3, 400_000, detector)
    assert_close(found, exact, 2e-6, dtype=torch.float32)


@detectors
@pytest.mark.parametrize(("slice_bytes", "piece"), [(1, 3200), (3200, 4800), (1 << 20, 1)])
def test_slices_and_pieces_are_one(
    detector: str, slice_bytes: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = example("onepole", 500, batch=3)
    expected = ops.filter_frames_rows(*operands, "onepole", 3, 90, detector)
    monkeypatch.setattr(reference, "SLICE", slice_bytes)
    monkeypatch.setattr(reference, "PIECE", piece)
    for actual, wanted in zip(ops.filter_frames_rows(*operands, "onepole", 3, 90, detector), expected, strict=True):
        assert_close(actual, wanted, 1e-12)


# Hops of blocks of 40, 64, 63 and 16 samples, and hops that have none or no use for them.
HOPS = [160, 64, 441, 16, 1, 7, 67, 600]


@every
@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize("chunk", [None, 300])
def test_gradients(kind: str, detector: str, hop: int, chunk: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By blocks without outputs and from outputs, of all samples together and in chunks."""
    blocks = detector != "halfwave" and kind != "biquad" and hop in HOPS[:4] + HOPS[-1:]
    assert bool(reference.block_of(hop, kind, detector)) == blocks
    if chunk:
        monkeypatch.setattr(hops, "CHUNK", chunk)
    operands = [t.requires_grad_() for t in example(kind, 600)]
    results = ops.filter_frames_rows(*operands, kind, 3, hop, detector)
    weights = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(composed(*operands, kind, 3, hop, detector), operands, weights)
    for actual, wanted in zip(torch.autograd.grad(results, operands, weights), expected, strict=True):
        assert_close(actual, wanted, 1e-9)


@detectors
@pytest.mark.parametrize("hop", [160, 7])
@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2], [1, 2]])
def test_gradients_of_some_operands_alone(detector: str, hop: int, wanted: list[int]) -> None:
    operands = example("allpole", 400)
    all_of_them = [t.clone().requires_grad_() for t in operands]
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(operands)]

    def loss(given: list[Tensor]) -> Tensor:
        means, final = ops.filter_frames_rows(*given, "allpole", 3, hop, detector)
        return means.sqrt().sum() + final.square().sum()

    expected = torch.autograd.grad(loss(all_of_them), all_of_them)
    for i, actual in zip(wanted, torch.autograd.grad(loss(some), [some[i] for i in wanted]), strict=True):
        assert_close(actual, expected[i], 1e-12)


@detectors
@pytest.mark.parametrize("hop", [16, 9])
def test_gradcheck(detector: str, hop: int) -> None:
    """A half wave has a knee at 0, from which the outputs have to stay away."""
    x, coef, state = example("onepole", 33, 1, batch=1, channels=2)
    x = x + (30 if detector == "halfwave" else 0)
    operands = [t.requires_grad_() for t in (x, coef, state)]

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        return ops.filter_frames_rows(*given, "onepole", 1, hop, detector)

    assert torch.autograd.gradcheck(function, operands, atol=1e-5)
    assert torch.autograd.gradgradcheck(function, operands, atol=1e-5)


@pytest.mark.parametrize("detector", ["power", "envelope"])
def test_float32_gradients_beside_a_loud_tone(detector: str) -> None:
    """Of channels far from all of the signal's power, where what comes through is little beside samples and states."""
    x = torch.sin(2 * math.pi * 5000 / 44100 * torch.arange(22000, dtype=torch.float64))[None]
    weight = torch.rand(1, 4, 55, dtype=torch.float64)

    def gradient(dtype: torch.dtype) -> Tensor:
        options = {"learnable": True, "dtype": dtype, "implementation": "poly"}
        bank = tamt.GammatoneFilterbank([20.0, 100.0, 300.0, 1000.0], 44100, **options)
        means = tamt.Cochleagram(bank, 400, detector=detector)(x)
        means = means / means.detach().amax((0, 2), keepdim=True)
        return torch.view_as_real(torch.autograd.grad((means * weight.to(dtype)).sum(), bank.a)[0]).flatten(1)

    assert_close(gradient(torch.float32), gradient(torch.float64), 1e-4, dtype=torch.float32)


@settings(max_examples=60)
@given(
    st.sampled_from(EVERY),
    st.integers(1, 400),
    st.integers(0, 700),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_any_size(case: tuple[str, str], hop: int, length: int, order: int, batch: int, channels: int) -> None:
    kind, detector = case
    operands = example(kind, length, order, batch, channels)
    expected = composed(*operands, kind, order, hop, detector)
    found = ops.filter_frames_rows(*operands, kind, order, hop, detector)
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted, 1e-10)


@every
def test_a_stream_of_hops(kind: str, detector: str) -> None:
    x, coef, state = example(kind, 700)
    expected, last = ops.filter_frames(x, coef, kind, 3, 35, detector, state=state)
    parts, now = [], state
    for chunk in x.split([35, 280, 0, 105, 280], 1):
        means, now = ops.filter_frames(chunk, coef, kind, 3, 35, detector, state=now)
        parts.append(means)
    assert_close(torch.cat(parts, 2), expected, 1e-12)
    assert_close(now, last, 1e-12)


@pytest.mark.parametrize("kind", ops.ANALYTIC)
def test_analytic_filters(kind: str) -> None:
    """Rows and states of both parts; their gradients are adjoint to them."""
    coef, state = example_coef(kind, 3, 4), torch.randn(2, 4, 6, dtype=torch.float64)
    rows, states = analytic_rows(coef), analytic_states(state)
    assert torch.equal(rows[::2], coef)
    assert torch.equal(states[:, ::2], state)
    grad_rows, grad_states = torch.randn_like(rows), torch.randn_like(states)
    assert_close((analytic_rows_vjp(grad_rows) * coef).sum(), (grad_rows * rows).sum(), 1e-12)
    assert_close((analytic_states_vjp(grad_states) * state).sum(), (grad_states * states).sum(), 1e-12)


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    operands = [t.requires_grad_() for t in example("onepole", 40, 1, channels=1)]
    inputs = (*operands, "onepole", 1, 16, "power")
    torch.library.opcheck(ops.filter_frames_rows, inputs, test_utils=checks)
    weights = [torch.randn_like(r) for r in ops.filter_frames_rows(*inputs)]
    for needs in itertools.product((True, False), repeat=2):
        torch.library.opcheck(ops.filter_frames_backward, (*weights, *inputs, *needs), test_utils=QUICK)


@compiled_elsewhere
def test_one_graph_for_all_lengths(backend: str) -> None:
    _, coef, _ = example("onepole", 0)

    def function(x: Tensor, coef: Tensor) -> Tensor:
        return ops.filter_frames(x, coef, "onepole", 3, 40, "envelope")[0]

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    with torch.compiler.set_stance("default"):
        for batch, length in ((2, 200), (3, 399), (2, 1000)):
            x, rows = torch.randn(batch, length, dtype=torch.float64), coef.clone().requires_grad_()
            actual, expected = compiled(x, rows), function(x, rows)
            assert_close(actual, expected, 1e-12)
            assert_close(torch.autograd.grad(actual.sum(), rows)[0], torch.autograd.grad(expected.sum(), rows)[0], 1e-9)
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled(torch.randn(4, 731, dtype=torch.float64), coef.clone().requires_grad_())


@detectors
@pytest.mark.parametrize("hop", [160, 7])
def test_memory_does_not_grow_with_the_length(detector: str, hop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither forward nor backward makes a tensor of the output's size."""
    monkeypatch.setattr(reference, "PIECE", 1 << 17)
    monkeypatch.setattr(reference, "SLICE", 1 << 14)
    monkeypatch.setattr(hops, "CHUNK", 1 << 12)
    largest = []
    for length in (12_000, 48_000):
        x, coef, state = (t.requires_grad_() for t in example("onepole", length, batch=1, channels=8))
        with Steps() as steps:
            means, _ = ops.filter_frames_rows(x, coef, state, "onepole", 3, hop, detector)
            grads = torch.autograd.grad(means.sum(), (x, coef, state))
        output = 8 * length * 8
        sizes = [t.untyped_storage().nbytes() for t in steps.made]
        lasting = {means.nbytes, 2 * means.nbytes, x.nbytes, *(g.nbytes for g in grads)}
        largest.append(max(size for size in sizes if size not in lasting))
    assert largest[1] <= min(1.1 * largest[0], output / 2)


@detectors
def test_silence(detector: str) -> None:
    x, coef, state = (
        t.requires_grad_() for t in (torch.zeros(2, 400), *(t.float() for t in example("onepole", 0)[1:]))
    )
    means, final = ops.filter_frames_rows(x, coef, torch.zeros_like(state), "onepole", 3, 40, detector)
    assert not means.any()
    assert not final.any()
    for grad in torch.autograd.grad(means.sum(), (x, coef)):
        assert not grad.any()


def test_layouts() -> None:
    """Non-contiguous and expanded operands and gradients."""
    x, coef, state = example("onepole", 200)
    expected = ops.filter_frames_rows(x, coef, state, "onepole", 3, 40, "power")
    strided = x.t().contiguous().t(), coef.t().contiguous().t(), state.mT.contiguous().mT
    for actual, wanted in zip(ops.filter_frames_rows(*strided, "onepole", 3, 40, "power"), expected, strict=True):
        assert_close(actual, wanted, 1e-14)
        assert actual.is_contiguous()
    for detector, hop in (("power", 40), ("halfwave", 40), ("envelope", 7)):
        same = x[:1].expand_as(x).requires_grad_()
        means, _ = ops.filter_frames_rows(same, coef, state[:1].expand_as(state), "onepole", 3, hop, detector)
        ones = torch.ones((), dtype=torch.float64).expand_as(means)
        (expanded,) = torch.autograd.grad(means, same, ones, retain_graph=True)
        (contiguous,) = torch.autograd.grad(means, same, ones.contiguous())
        assert torch.equal(expanded, contiguous)


def test_results_are_memory_of_their_own() -> None:
    x, coef, state = example("onepole", 0)
    _, final = ops.filter_frames_rows(x, coef, state, "onepole", 3, 40, "power")
    final.fill_(1)
    assert not (state == 1).any()


@detectors
@pytest.mark.parametrize("hop", [16, 7])
@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)])
def test_no_rows_and_no_channels(detector: str, hop: int, batch: int, channels: int) -> None:
    operands = [t.requires_grad_() for t in example("onepole", 50, 3, batch, channels)]
    means, _ = ops.filter_frames_rows(*operands, "onepole", 3, hop, detector)
    assert means.shape == (batch, channels, 50 // hop)
    for grad, of in zip(torch.autograd.grad(means.sum(), operands), operands, strict=True):
        assert grad.shape == of.shape
        assert not grad.any()


def test_leading_dimensions() -> None:
    coef = example_coef("onepole", 3, 5)
    x = torch.randn(2, 4, 3, 100, dtype=torch.float64)
    means, state = ops.filter_frames(x, coef, "onepole", 3, 20, "power")
    assert means.shape == (2, 4, 3, 5, 5)
    assert state.shape == (2, 4, 3, 5, 6)
    one, state = ops.filter_frames(x[1, 2, 0], coef, "onepole", 3, 20, "power")
    assert one.shape == (5, 5)
    assert state.shape == (5, 6)
    assert_close(one, means[1, 2, 0], 1e-12)


@detectors
def test_float32_needs_neither_float64_nor_complex(
    detector: str, mps_safe: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "on_cpu", lambda x: False)
    for hop in (40, 7):
        operands = [t.float().requires_grad_() for t in example("onepole", 200)]
        with mps_safe():
            means, _ = ops.filter_frames_rows(*operands, "onepole", 3, hop, detector)
            torch.autograd.grad(means.sum(), operands)


ROWS = torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.filter_frames(torch.zeros(()), ROWS, "onepole", 3, 4, "power"),
            r"x must have shape \(..., T\), got \(\)",
        ),
        (lambda: ops.filter_frames(torch.zeros(9), ROWS, "onepole", 3, 0, "power"), "hop must be at least 1, got 0"),
        (
            lambda: ops.filter_frames(torch.zeros(9), ROWS, "onepole", 3, 4, "peak"),
            r"detector must be one of \('envelope', 'power', 'halfwave'\), got 'peak'",
        ),
        (
            lambda: ops.filter_frames(torch.zeros(9), torch.zeros(4, 18), "modal", 3, 4, "envelope"),
            r"kind must be one of \('onepole', 'allpole'\), got 'modal'",
        ),
        (
            lambda: ops.filter_frames(torch.zeros(9), ROWS, "fir", 3, 4, "power"),
            r"kind must be one of \('onepole', 'biquad', 'allpole', 'modal'\), got 'fir'",
        ),
        (lambda: ops.filter_frames(torch.zeros(9), ROWS, "onepole", 0, 4, "power"), "order must be at least 1, got 0"),
        (
            lambda: ops.filter_frames(torch.zeros(9), ROWS, "allpole", 3, 4, "power"),
            r"coef must have shape \(F, 11\), got \(4, 5\)",
        ),
        (
            lambda: ops.filter_frames(torch.zeros(9), ROWS, "onepole", 3, 4, "power", state=torch.zeros(4, 5)),
            r"state must have shape \(4, 6\), got \(4, 5\)",
        ),
        (
            lambda: ops.filter_frames_rows(torch.zeros(1, 1, 9), ROWS, torch.zeros(1, 4, 6), "onepole", 3, 4, "power"),
            r"x must have shape \(1, T\), got \(1, 1, 9\)",
        ),
    ],
)
def test_value_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_type_errors() -> None:
    with pytest.raises(TypeError, match=r"x must be float32 or float64, got torch\.float16"):
        ops.filter_frames(torch.zeros(9, dtype=torch.float16), ROWS, "onepole", 3, 4, "power")
    with pytest.raises(TypeError, match=r"coefficients must have the signal's type and device, torch\.float64 on cpu"):
        ops.filter_frames(torch.zeros(9, dtype=torch.float64), ROWS, "onepole", 3, 4, "power")
