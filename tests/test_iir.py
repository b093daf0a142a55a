"""The IIR operator on its reference path: definition, gradients, blocks, numerics, torch.compile, errors."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import QUICK, Held, assert_close, example_coef, example_operands, naive_iir, saved_by_autograd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from tamt.design.butterworth import butterworth_lowpass
from tamt.ops import _operator
from tamt.ops import iir as ops
from tamt.reference import iir as reference
from tamt.shared.iir import KINDS

LENGTHS = (0, 1, 2, 63, 64, 65, 130, 1000)
kinds = pytest.mark.parametrize("kind", KINDS)
sharing = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per_channel"])


@kinds
@sharing
@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("length", LENGTHS)
def test_definition(kind: str, order: int, length: int, per_channel: bool) -> None:
    operands = example_operands(kind, order, length, per_channel)
    y, final = ops.iir(*operands, kind, order)
    expected, expected_final = naive_iir(*operands, kind, order)
    assert_close(y, expected, 1e-10)
    assert_close(final, expected_final, 1e-9)
    assert y.is_contiguous()
    assert final.is_contiguous()


def fan_out(kind: str, order: int, length: int, signals: int, channels: int = 4) -> list[torch.Tensor]:
    """Operands of which each signal goes through several filters."""
    x, coef, state = example_operands(kind, order, length, True, channels=channels)
    return [t.requires_grad_() for t in (x[:, :signals].clone(), coef, state)]


@kinds
@pytest.mark.parametrize("signals", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 63, 64, 150])
def test_fan_out(kind: str, signals: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients; channels worked on in parts that are no multiple of a signal's."""
    operands = fan_out(kind, 2, length, signals)
    results, expected = ops.iir(*operands, kind, 2), naive_iir(*operands, kind, 2)
    weights = [torch.randn_like(r) for r in results]
    gradients = [torch.autograd.grad(r, operands, weights) for r in (results, expected)]
    assert gradients[0][0].shape == (2, signals, length)
    for actual, right in zip((*results, *gradients[0]), (*expected, *gradients[1]), strict=True):
        assert_close(actual.detach(), right.detach(), 1e-9)
    monkeypatch.setattr(reference, "PART", 3 * length)
    monkeypatch.setattr(reference, "PART_BACKWARD", 8 * 3 * length)
    y, final = ops.iir(*operands, kind, 2)
    parted = torch.autograd.grad((y, final), operands, weights)
    assert_close(y.detach(), expected[0].detach(), 1e-9)
    for actual, *right in zip(parted, *gradients[1:], strict=True):
        assert_close(actual, sum(right), 1e-9)


@kinds
def test_gradients_of_a_fan_out(kind: str) -> None:
    operands = fan_out(kind, 1, 66, 2)

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ops.iir(*tensors, kind, 1)

    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.parametrize("signals", [1, 2, 4])
def test_fan_out_mapped(signals: int) -> None:
    x, coef, state = (t.detach() for t in fan_out("modal", 2, 100, signals))
    many = torch.randn(3, *x.shape, dtype=torch.float64)

    def output(x: torch.Tensor) -> torch.Tensor:
        return ops.iir(x, coef, state, "modal", 2)[0]

    assert_close(torch.vmap(output)(many), torch.stack([output(x) for x in many]), 1e-13)
    sections = coef.unflatten(1, (2, 6))
    y, last = ops.modal_cascade(many, sections, per_channel=True)
    assert y.shape == (3, 2, 4, 100)
    assert last.shape == (3, 2, 4, 4)
    for signal in range(signals):
        mine = slice(signal * 4 // signals, (signal + 1) * 4 // signals)
        alone, _ = ops.modal_cascade(many[:, :, signal], sections[mine])
        assert_close(y[:, :, mine], alone, 1e-13)


@kinds
@sharing
@pytest.mark.parametrize("length", [64, 150, 1000])
def test_float32_follows_float64(kind: str, length: int, per_channel: bool) -> None:
    operands = example_operands(kind, 4, length, per_channel)
    y, final = ops.iir(*(t.float() for t in operands), kind, 4)
    exact = [t.float().double() for t in operands]
    expected, expected_final = ops.iir(*exact, kind, 4)
    assert_close(y, expected, 2.5e-6, torch.float32)
    assert_close(final, expected_final, 1e-5, torch.float32)


@kinds
@sharing
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_gradients_against_the_definition(kind: str, length: int, per_channel: bool) -> None:
    operands = [t.requires_grad_() for t in example_operands(kind, 3, length, per_channel)]
    results = ops.iir(*operands, kind, 3)
    weights = [torch.randn_like(r) for r in results]
    actual = torch.autograd.grad(results, operands, weights)
    expected = torch.autograd.grad(naive_iir(*operands, kind, 3), operands, weights)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-8)


@kinds
@sharing
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1)])
def test_gradients_of_some_operands_alone(kind: str, per_channel: bool, wanted: tuple[int, ...]) -> None:
    operands = list(example_operands(kind, 2, 100, per_channel))
    every = [t.clone().requires_grad_() for t in operands]
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(operands)]
    expected = torch.autograd.grad(ops.iir(*every, kind, 2)[0].square().sum(), every)
    actual = torch.autograd.grad(ops.iir(*some, kind, 2)[0].square().sum(), [some[i] for i in wanted])
    for i, gradient in zip(wanted, actual, strict=True):
        assert_close(gradient, expected[i], 1e-12)


@kinds
@sharing
@pytest.mark.parametrize("length", [0, 5, 66])
def test_gradcheck(kind: str, length: int, per_channel: bool) -> None:
    operands = [t.requires_grad_() for t in example_operands(kind, 2, length, per_channel, batch=2, channels=2)]

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ops.iir(*tensors, kind, 2)

    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@kinds
def test_third_derivative(kind: str) -> None:
    x, coef, state = example_operands(kind, 1, 70, False, batch=1, channels=1)

    def derivative(scale: torch.Tensor, order: int) -> torch.Tensor:
        value = ops.iir(x, coef * (1 + scale * 1e-2), state, kind, 1)[0].square().sum()
        for _ in range(order):
            (value,) = torch.autograd.grad(value, scale, create_graph=True)
        return value

    at, step = torch.zeros((), dtype=torch.float64), 1e-4
    third = derivative(at.clone().requires_grad_(), 3)
    ends = [derivative((at + side * step).requires_grad_(), 2) for side in (1, -1)]
    assert third.item() == pytest.approx(((ends[0] - ends[1]) / (2 * step)).item(), rel=1e-4)


@kinds
@sharing
def test_opcheck(kind: str, per_channel: bool) -> None:
    operands = [t.requires_grad_() for t in example_operands(kind, 2, 70, per_channel)]
    torch.library.opcheck(ops.iir, (*operands, kind, 2), test_utils=QUICK)
    weights = [torch.randn_like(r).requires_grad_() for r in ops.iir(*operands, kind, 2)]
    for needs in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(ops.iir_backward, (*weights, *operands, kind, 2, *needs), test_utils=QUICK)


@pytest.mark.slow
def test_traced_operators() -> None:
    """The operators and their gradients as the compiler traces them are those of eager mode."""
    operands = [t.requires_grad_() for t in example_operands("onepole", 1, 70, False)]
    torch.library.opcheck(ops.iir, (*operands, "onepole", 1))
    weights = [torch.randn_like(r).requires_grad_() for r in ops.iir(*operands, "onepole", 1)]
    torch.library.opcheck(ops.iir_backward, (*weights, *operands, "onepole", 1, True, True))


@kinds
@sharing
@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_chunks_equal_one_shot(kind: str, per_channel: bool, cuts: list[int]) -> None:
    x, coef, state = example_operands(kind, 2, 300, per_channel)
    whole, final = ops.iir(x, coef, state, kind, 2)
    parts = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True):
        y, state = ops.iir(x[..., start:end], coef, state, kind, 2)
        parts.append(y)
    assert_close(torch.cat(parts, -1), whole, 1e-11)
    assert_close(state, final, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slow_poles(dtype: torch.dtype) -> None:
    """Poles of radius 0.9999 over two seconds: many levels of the scan, and float32 that keeps its digits."""
    decay = torch.full((3,), -math.log(0.9999), dtype=torch.float64)
    frequency = torch.tensor([0.001, 0.0321, 0.2345], dtype=torch.float64)
    high = frequency.to(dtype).double()
    gain = torch.stack((-torch.expm1(-decay), torch.zeros(3, dtype=torch.float64)), 1) ** 2
    x = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, _ = naive_iir(
        x[:, None, :9000],
        torch.cat((decay[:, None], frequency[:, None], 0 * decay[:, None], gain), 1),
        torch.zeros(1, 3, 4, dtype=torch.float64),
        "onepole",
        2,
    )
    y, _ = ops.onepole_cascade(
        x.to(dtype),
        decay.to(dtype),
        high.to(dtype),
        gain.to(dtype),
        2,
        frequency_low=(frequency - high).to(dtype),
    )
    assert_close(y[..., :9000], expected, 1e-10 if dtype == torch.float64 else 4e-5, dtype)


@kinds
@sharing
def test_layouts(kind: str, per_channel: bool) -> None:
    """Non-contiguous and expanded signals, states and gradients."""
    x, coef, state = example_operands(kind, 2, 130, per_channel)
    expected, _ = ops.iir(x, coef, state, kind, 2)
    doubled = x.repeat_interleave(2, -1)[..., ::2]
    assert_close(ops.iir(doubled, coef, state.mT.contiguous().mT, kind, 2)[0], expected, 1e-12)
    first = x[:1].expand_as(x).requires_grad_()
    y, _ = ops.iir(first, coef, state[:1].expand_as(state), kind, 2)
    assert_close(y[0], expected[0], 1e-12)
    weights = torch.ones(1, dtype=torch.float64).expand_as(y)
    (expanded,) = torch.autograd.grad(y, first, weights, retain_graph=True)
    (contiguous,) = torch.autograd.grad(y, first, weights.contiguous())
    assert_close(expanded, contiguous, 1e-12)


@kinds
@sharing
@pytest.mark.parametrize("samples", [1, 300, 1300])
def test_parts_are_one(kind: str, per_channel: bool, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block states of some rows and channels at a time."""
    operands = example_operands(kind, 2, 650, per_channel)
    expected = ops.iir(*operands, kind, 2)
    monkeypatch.setattr(reference, "PART", samples)
    for actual, wanted in zip(ops.iir(*operands, kind, 2), expected, strict=True):
        assert_close(actual, wanted, 1e-13)


@kinds
@sharing
@pytest.mark.parametrize("samples", [1, 300, 1300])
def test_parts_of_gradients_are_one(
    kind: str, per_channel: bool, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = [t.requires_grad_() for t in example_operands(kind, 2, 650, per_channel)]
    results = ops.iir(*operands, kind, 2)
    weights = [torch.randn_like(r) for r in results]
    expected = torch.autograd.grad(results, operands, weights, retain_graph=True)
    monkeypatch.setattr(reference, "PART_BACKWARD", 8 * samples)
    for actual, wanted in zip(torch.autograd.grad(results, operands, weights), expected, strict=True):
        assert_close(actual, wanted, 1e-11)


@kinds
@sharing
def test_training_holds_no_more_than_parts(kind: str, per_channel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd keeps the operands, and what the backward pass holds beyond its results does not grow with the batch."""
    monkeypatch.setattr(reference, "PART_BACKWARD", 8 * 4 * 1000)  # a row
    beyond = []
    for batch in (2, 2, 12):  # the first makes what is kept for the same coefficients
        operands = example_operands(kind, 4, 1000, per_channel, batch=batch, channels=4)
        weights = [torch.randn_like(r) for r in ops.iir(*operands, kind, 4)]
        with Held(*weights, *operands) as held:
            grad_x, grad_state, blocks = reference.iir_backward(*weights, *operands, kind, 4, True, True)
        beyond.append(held.most - sum(t.nbytes for t in (grad_x, grad_state, *blocks)))
    assert 0 < beyond[2] <= 1.02 * beyond[1]
    leaves = [t.requires_grad_() for t in operands]
    assert saved_by_autograd(lambda *t: ops.iir(*t, kind, 4), leaves) == []


@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)])
@kinds
@sharing
def test_nothing_to_do(kind: str, per_channel: bool, batch: int, channels: int) -> None:
    operands = example_operands(kind, 2, 100, per_channel, batch=batch, channels=channels)
    y, final = ops.iir(*(t.requires_grad_() for t in operands), kind, 2)
    assert y.shape == (batch, channels, 100)
    assert final.shape == operands[2].shape
    gradients = torch.autograd.grad(y.sum() + final.sum(), operands)
    assert all(torch.equal(g, torch.zeros_like(t)) for g, t in zip(gradients, operands, strict=True))


@pytest.mark.parametrize("length", [1, 2, 30])
def test_state_after_a_short_signal_of_explosive_sections(length: int) -> None:
    """What such filters would come to after a whole block is out of range, and has no part in it."""
    sos = torch.tensor([[[1.0, 0, 0, 1, -8, 0]]])
    _, state = ops.biquad_cascade(torch.ones(length), sos)
    assert_close(state, torch.tensor([[8 * sum(8.0**n for n in range(length)), 0]]), 1e-6, dtype=torch.float32)
    rows = torch.tensor([[-2.0, 0.1, 0, 1, 0]])
    _, found = ops.filtered(torch.ones(length), rows, "onepole", 1, None)
    _, exact = ops.filtered(torch.ones(length, dtype=torch.float64), rows.double(), "onepole", 1, None)
    assert_close(found, exact, 1e-5, dtype=torch.float32)


def test_biquad_cascade_is_sosfilt() -> None:
    sos = torch.from_numpy(np.stack([butter(6, f, output="sos") for f in (0.1, 0.3, 0.6, 0.8)]))
    x = torch.randn(2, 500, dtype=torch.float64)
    y, _ = ops.biquad_cascade(x, 2.5 * sos)
    for f in range(4):
        assert_close(y[:, f], torch.from_numpy(sosfilt(sos[f].numpy(), x.numpy())), 1e-11)


@pytest.mark.parametrize("hertz", [50, 400, 5000, 21000])
def test_modal_cascade_is_sosfilt(hertz: float) -> None:
    """A Butterworth low-pass as modal sections, in float32 as exact as its input."""
    sections = butterworth_lowpass(torch.tensor([hertz], dtype=torch.float64), 44100, 3)
    x = torch.randn(2, 5000, dtype=torch.float64)
    expected = torch.from_numpy(sosfilt(np.repeat(butter(2, hertz, fs=44100, output="sos"), 3, 0), x.numpy()))[:, None]
    assert_close(ops.modal_cascade(x, sections)[0], expected, 1e-9)
    own, _ = ops.modal_cascade(x[:, None], sections, per_channel=True)
    assert_close(own, expected, 1e-9)
    assert_close(ops.modal_cascade(x.float(), sections.float())[0], expected, 6e-6, torch.float32)


def test_leading_dimensions() -> None:
    sos = torch.tensor([[[1.0, 0, 0, 1, -0.5, 0]]] * 3, dtype=torch.float64)
    x = torch.randn(2, 4, 100, dtype=torch.float64)
    y, state = ops.biquad_cascade(x, sos)
    assert y.shape == (2, 4, 3, 100)
    assert state.shape == (2, 4, 3, 2)
    one, state = ops.biquad_cascade(x[0, 0], sos)
    assert one.shape == (3, 100)
    assert state.shape == (3, 2)
    assert_close(one, y[0, 0], 1e-12)
    own, _ = ops.biquad_cascade(y, sos, per_channel=True)
    assert own.shape == y.shape


def test_autocast_does_not_reach_inside() -> None:
    x, coef, state = (t.float() for t in example_operands("onepole", 4, 300, False))
    expected, _ = ops.iir(x, coef, state, "onepole", 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = ops.iir(x, coef, state, "onepole", 4)
    assert torch.equal(y, expected)


def test_reference_serves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = reference.plan
    monkeypatch.setattr(reference, "plan", lambda *args: calls.append(args) or original(*args))
    ops.iir(*example_operands("onepole", 1, 10, False), "onepole", 1)
    assert len(calls) == 1


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton where there is CUDA and triton; the reference for everything else."""
    backend = _operator.backend.__wrapped__
    monkeypatch.setattr(_operator.importlib.util, "find_spec", lambda name: object())
    assert [backend(device) for device in ("cpu", "mps", "cuda")] == ["reference", "reference", "triton"]
    monkeypatch.setattr(_operator.importlib.util, "find_spec", lambda name: None)
    assert backend("cuda") == "reference"


@pytest.mark.parametrize("order", [2, 40])
def test_plans_serve_any_length_in_any_order_and_many_threads(order: int) -> None:
    """Short signals make small scan levels, long ones make them grow; states too many for a group of the usual size."""
    x, coef, state = example_operands("onepole", order, 64 * 40, False)
    coef[:, 0] += 1
    lengths = [70, 64 * 40, 64 * 3, 64 * 9, 64 * 40, 130] * 3
    expected = {n: naive_iir(x[..., :n], coef, state, "onepole", order)[0] for n in set(lengths)}
    reference._plans.clear()
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda n: ops.iir(x[..., :n], coef, state, "onepole", order)[0], lengths))
    for n, y in zip(lengths, results, strict=True):
        assert_close(y, expected[n], 1e-9)


def test_plans_are_kept_by_value() -> None:
    x, coef, state = example_operands("onepole", 1, 100, False)
    first, _ = ops.iir(x, coef, state, "onepole", 1)
    kept = reference.plan(coef, "onepole", 1)
    assert reference.plan(coef.clone(), "onepole", 1) is kept
    assert reference.plan(coef.float(), "onepole", 1) is not kept
    coef[0, 3] += 1
    assert reference.plan(coef, "onepole", 1) is not kept
    changed, _ = ops.iir(x, coef, state, "onepole", 1)
    assert not torch.equal(changed[:, 0], first[:, 0])
    assert torch.equal(changed[:, 1:], first[:, 1:])


def test_plans_made_in_inference_mode_serve_training() -> None:
    reference._plans.clear()
    x, coef, state = example_operands("onepole", 1, 100, False)
    with torch.inference_mode():
        expected, _ = ops.iir(x, coef, state, "onepole", 1)
    y, _ = ops.iir(x.requires_grad_(), coef.requires_grad_(), state, "onepole", 1)
    y.sum().backward()
    assert torch.equal(y, expected)


def test_float32_needs_neither_float64_nor_complex(mps_safe: object) -> None:
    for kind in KINDS:
        x, coef, state = (t.float().requires_grad_() for t in example_operands(kind, 2, 130, False))
        with mps_safe():
            y, _ = ops.iir(x, coef, state, kind, 2)
            y.square().sum().backward()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, v: ops.onepole_cascade(x, v[None], v, v, 1), r"decay must have shape \(F,\), got \(1, 3\)"),
        (lambda x, v: ops.onepole_cascade(x, v, v, v, 1), r"gain must have shape \(3, 2\), got \(3,\)"),
        (lambda x, v: ops.onepole_cascade(x, v, v, v[:, None].expand(3, 2), 0), "order must be at least 1, got 0"),
        (lambda x, v: ops.biquad_cascade(x, v), r"sos must have shape \(F, K, 6\)"),
        (lambda x, v: ops.biquad_cascade(x, torch.ones(3, 1, 6), per_channel=True), "an S that divides 3, got"),
        (
            lambda x, v: ops.iir(x, torch.ones(3, 5), torch.zeros(2, 3, 2), "onepole", 1),
            r"x must have shape \(B, S, T\)",
        ),
        (lambda x, v: ops.modal_cascade(x, torch.ones(3, 6)), r"sections must have shape \(F, K, 6\) with K >= 1"),
        (
            lambda x, v: ops.biquad_cascade(x, torch.ones(3, 1, 6), state=torch.zeros(3, 2)),
            r"state must have shape \(2, 3, 2\), got \(3, 2\)",
        ),
        (lambda x, v: ops.iir(x[:, None], torch.ones(3, 5), torch.zeros(2, 3, 2), "comb", 1), "kind must be one of"),
        (
            lambda x, v: ops.iir(x[:, None], torch.ones(3, 4), torch.zeros(2, 3, 2), "onepole", 1),
            r"coef must have shape \(F, 5\)",
        ),
    ],
)
def test_value_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 10), torch.ones(3))


def test_type_errors() -> None:
    sos = torch.ones(3, 1, 6)
    with pytest.raises(TypeError, match=r"x must be float32 or float64, got torch\.float16"):
        ops.biquad_cascade(torch.zeros(10, dtype=torch.float16), sos)
    with pytest.raises(TypeError, match="coefficients must have the signal's type"):
        ops.biquad_cascade(torch.zeros(10, dtype=torch.float64), sos)


@pytest.mark.parametrize("with_feedback", [False, True])
def test_complex_output(with_feedback: bool) -> None:
    """The last state itself, of which the real part is the output; its state goes on in either way."""
    coef = example_coef("allpole" if with_feedback else "onepole", 3, 4)
    decay, frequency, low, *gain = coef[:, :5].unbind(1)
    feedback = coef[:, 5:].unflatten(1, (3, 2)) if with_feedback else None
    x = torch.randn(2, 150, dtype=torch.float64)

    def run(
        x: torch.Tensor, output: str, state: torch.Tensor | None = None, per_channel: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.onepole_cascade(
            x,
            decay,
            frequency,
            torch.stack(gain, 1),
            3,
            frequency_low=low,
            feedback=feedback,
            state=state,
            per_channel=per_channel,
            output=output,
        )

    y, final = run(x, "real")
    z, last = run(x, "complex")
    assert z.dtype == torch.complex128
    assert_close(z.real, y, 1e-12)
    assert_close(last, final, 1e-12)
    assert_close(torch.view_as_real(z[..., -1]), final[..., -2:], 1e-10)
    first, half = run(x[:, :70], "complex")
    second, whole = run(x[:, 70:], "complex", half)
    assert_close(torch.cat((first, second), -1), z, 1e-12)
    assert_close(whole, final, 1e-12)
    own, _ = run(x[:, None].expand(-1, 2, -1), "complex", per_channel=True)
    assert_close(own, z, 1e-12)
    with pytest.raises(ValueError, match="output must be 'real' or 'complex', got 'power'"):
        run(x, "power")
