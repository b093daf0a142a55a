"""The FFT-DRNL operator on its reference path: definition, gradients, blocks, numerics, torch.compile, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import QUICK, Steps, assert_close, checked, compiled_elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from torch import Tensor
from torch.nn.functional import conv1d, pad

from tamt.ops import fft_drnl as ops
from tamt.ops._operator import operators
from tamt.reference import fft_drnl as reference
from tamt.shared.overlap_save import fitting_spectra

M = 40
SIZE = ops.fft_length(M)
HOP = SIZE - (M - 1)
STICK = ((2.0, 0.7, 0.25), (0.5, 1.5, 0.4), (3.0, 1.0, 0.1))


def example_impulses(memory: int, channels: int = 3) -> Tensor:
    """Decaying noise (3, F, memory + 1)."""
    decay = torch.exp(-4 * torch.arange(memory + 1, dtype=torch.float64) / (memory + 1))
    return decay * torch.randn(3, 3, memory + 1, dtype=torch.float64)[:, :channels]


def example_operands(memory: int, size: int, length: int, batch: int = 2, channels: int = 3) -> tuple[Tensor, ...]:
    """Operands of the operator: signal, spectra, stick and a past other than silence, float64."""
    spectra = torch.view_as_real(torch.fft.rfft(example_impulses(memory), size))[:, :channels]
    x, past_x = torch.randn(batch, length, dtype=torch.float64), torch.randn(batch, memory, dtype=torch.float64)
    stick = torch.tensor(STICK, dtype=torch.float64)[:channels]
    return x, spectra.clone(), stick, past_x, torch.randn(batch, channels, memory, dtype=torch.float64)


def differentiable(operands: tuple[Tensor, ...]) -> list[Tensor]:
    """All operands but the spectra, as leaves of the graph."""
    return [operand.requires_grad_() for i, operand in enumerate(operands) if i != 1]


def broken_stick(v: Tensor, stick: Tensor) -> Tensor:
    a, b, c = stick[..., None].unbind(1)
    return torch.where(b * v.abs() ** c < a * v.abs(), v.sign() * b * v.abs() ** c, a * v)


def naive(x: Tensor, impulses: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor) -> tuple[Tensor, ...]:
    """The definition by direct convolution; autograd differentiates it."""
    channels, length = impulses.shape[1], x.shape[1]
    linear, front, back = impulses.flip(-1)[:, :, None]
    signal = torch.cat((past_x, x), 1)
    w = torch.cat((past_w, broken_stick(conv1d(signal[:, None], front), stick)), 2)
    y = conv1d(signal[:, None], linear) + conv1d(w, back, groups=channels)
    return y, signal[:, length:], w[..., length:]


@pytest.mark.parametrize("length", [0, 1, M - 2, M - 1, M, M + 1, HOP - 1, HOP, HOP + 1, 3 * HOP + 7])
def test_definition(length: int) -> None:
    impulses, x = example_impulses(M - 1), torch.randn(2, length, dtype=torch.float64)
    stick = torch.tensor(STICK, dtype=torch.float64)
    y, (last_x, last_w) = ops.fft_drnl(x, ops.ir_spectra(impulses), stick, M)
    padded = pad(x, (M - 1, 0))
    for f, (linear, front, back) in enumerate(impulses.unbind(1)):
        v = torch.from_numpy(lfilter(front.numpy(), [1.0], padded.numpy()))
        w = broken_stick(v, stick[f : f + 1])
        expected = lfilter(linear.numpy(), [1.0], padded.numpy()) + lfilter(back.numpy(), [1.0], w.numpy())
        assert_close(y[:, f], torch.from_numpy(expected)[:, M - 1 :], 1e-12)
        assert_close(last_w[:, f], w[:, length:], 1e-12)
    assert torch.equal(last_x, padded[:, length:])
    assert y.is_contiguous()


def test_a_loud_sound_that_ends_within_a_block() -> None:
    """What rings on after it, not yet compressed, must not raise the rounding of what is."""
    impulses = example_impulses(M - 1)
    impulses[0] = 0
    x, stick = 1e8 * torch.randn(1, 200, dtype=torch.float64), torch.tensor(STICK, dtype=torch.float64)
    y, _ = ops.fft_drnl(x, ops.ir_spectra(impulses), stick, M)
    silence = torch.zeros(1, M - 1, dtype=torch.float64), torch.zeros(1, 3, M - 1, dtype=torch.float64)
    assert_close(y, naive(x, impulses, stick, *silence)[0], 1e-12)


@pytest.mark.parametrize(
    ("memory", "size", "length", "batch", "channels"),
    [
        (4, 16, 1, 1, 1),
        (4, 16, 3, 2, 3),
        (4, 16, 50, 2, 3),
        (32, 128, 300, 1, 2),
        (32, 40, 70, 2, 3),  # a hop of a quarter of the memory
        (0, 4, 11, 2, 3),
        (255, 1024, 2000, 1, 3),
    ],
)
@pytest.mark.parametrize("transforms", [1, 3, 1000])
def test_forward_and_gradients_against_the_definition(
    monkeypatch: pytest.MonkeyPatch, memory: int, size: int, length: int, batch: int, channels: int, transforms: int
) -> None:
    """From a past other than silence; in slices of channels, of blocks, and of rows."""
    monkeypatch.setattr(reference, "SLICE", 8 * transforms * size)
    operands = example_operands(memory, size, length, batch, channels)
    impulses = torch.fft.irfft(torch.view_as_complex(operands[1]), size)[..., : memory + 1]
    inputs = differentiable(operands)
    results, expected = ops.fft_drnl_rows(*operands), naive(operands[0], impulses, *operands[2:])
    for a, e in zip(results, expected, strict=True):
        assert_close(a.detach(), e.detach(), 1e-12)
    weights = [torch.randn_like(r) for r in results]
    gradients = torch.autograd.grad(expected, inputs, weights, allow_unused=True, materialize_grads=True)
    for a, e in zip(torch.autograd.grad(results, inputs, weights), gradients, strict=True):
        assert_close(a, e, 1e-11)


def test_float32_follows_float64() -> None:
    operands = [t.float() for t in example_operands(255, 1024, 3000)]
    wide = [t.double() for t in operands]
    inputs, exact = differentiable(operands), differentiable(wide)
    results, expected = ops.fft_drnl_rows(*operands), ops.fft_drnl_rows(*wide)
    # Compression makes the rounding of v at its zeros large against the peak of w.
    for a, e, tolerance in zip(results, expected, (5e-6, 0, 2.5e-5), strict=True):
        assert_close(a.detach(), e.detach(), tolerance, torch.float32)
    weights = [torch.randn_like(r) for r in results]
    gradients = torch.autograd.grad(expected, exact, [w.double() for w in weights])
    for a, e in zip(torch.autograd.grad(results, inputs, weights), gradients, strict=True):
        assert_close(a, e, 5e-6, torch.float32)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 2500), max_size=5))
def test_chunks_equal_one_shot(cuts: list[int]) -> None:
    torch.manual_seed(0)
    spectra, stick = ops.ir_spectra(example_impulses(M - 1)), torch.tensor(STICK, dtype=torch.float64)
    x = torch.randn(2, 2500, dtype=torch.float64)
    whole, last = ops.fft_drnl(x, spectra, stick, M)
    parts, state = [], None
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 2500], strict=True):
        y, state = ops.fft_drnl(x[:, start:end], spectra, stick, M, state=state)
        parts.append(y)
    assert_close(torch.cat(parts, -1), whole, 1e-12)
    for a, e in zip(state, last, strict=True):
        assert_close(a, e, 1e-12)


@pytest.mark.parametrize(
    ("samples", "size"),
    [(1, 2), (2, 2), (64, 64), (65, 128), (SIZE // 2, SIZE // 2), (SIZE // 2 + 1, SIZE), (5000, SIZE)],
)
def test_transforms_no_longer_than_a_short_chunk_needs(samples: int, size: int) -> None:
    impulses = example_impulses(min(samples, M) - 1)
    fitted, spectra = fitting_spectra(torch.view_as_real(torch.fft.rfft(impulses, SIZE)), samples)
    assert fitted == size
    assert_close(torch.stack(spectra), torch.fft.rfft(impulses, size), 1e-13)


def test_gradients_through_chunks() -> None:
    """What enters a chunk through the state leaves it to the chunk before."""
    spectra, stick = ops.ir_spectra(example_impulses(M - 1)), torch.tensor(STICK, dtype=torch.float64).requires_grad_()
    x = torch.randn(1, 1500, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 3, 1500, dtype=torch.float64)
    expected = torch.autograd.grad(ops.fft_drnl(x, spectra, stick, M)[0], (x, stick), weights)
    parts, state = [], None
    for chunk in x.split((5, 1100, 30, 0, 365), -1):
        y, state = ops.fft_drnl(chunk, spectra, stick, M, state=state)
        parts.append(y)
    for a, e in zip(torch.autograd.grad(torch.cat(parts, -1), (x, stick), weights), expected, strict=True):
        assert_close(a, e, 1e-11)


@pytest.mark.parametrize(("memory", "size", "length"), [(4, 16, 0), (4, 16, 2), (4, 16, 30), (0, 4, 5)])
def test_gradcheck(memory: int, size: int, length: int) -> None:
    x, spectra, stick, past_x, past_w = example_operands(memory, size, length, channels=2)
    inputs = [t.requires_grad_() for t in (x, stick, past_x, past_w)]

    def function(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return ops.fft_drnl_rows(x, spectra, *rest)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("wanted", [(0,), (2,), (3,), (4,), (0, 2)])
def test_gradients_of_some_operands_alone(wanted: tuple[int, ...]) -> None:
    operands = example_operands(4, 16, 50)
    every = [t.clone().requires_grad_(i != 1) for i, t in enumerate(operands)]
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(operands)]
    targets = [every[i] for i in wanted]
    expected = torch.autograd.grad(ops.fft_drnl_rows(*every)[0].square().sum(), targets, create_graph=True)
    actual = torch.autograd.grad(
        ops.fft_drnl_rows(*some)[0].square().sum(), [some[i] for i in wanted], create_graph=True
    )
    for a, e in zip(actual, expected, strict=True):
        assert_close(a.detach(), e.detach(), 1e-12)
    second = torch.autograd.grad(sum(g.square().sum() for g in actual), [some[i] for i in wanted])
    for a, e in zip(second, torch.autograd.grad(sum(g.square().sum() for g in expected), targets), strict=True):
        assert_close(a, e, 1e-12)


def test_silence_and_knee() -> None:
    """Gradients of the linear branch. With c = 1 and a = b every sample lies on the knee."""
    x, spectra, _, past_x, past_w = example_operands(4, 16, 30)
    silence = x * 0, spectra, torch.tensor([[1.5, 0.1, 0.25]] * 3, dtype=torch.float64), past_x * 0, past_w * 0
    knee = x, spectra, torch.tensor([[1.5, 1.5, 1.0]] * 3, dtype=torch.float64), past_x, past_w
    linear = x, spectra, torch.tensor([[1.5, 1e9, 1.0]] * 3, dtype=torch.float64), past_x, past_w
    weights = torch.randn(2, 3, 30, dtype=torch.float64)

    def gradients(operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs = differentiable(operands)
        return torch.autograd.grad(ops.fft_drnl_rows(*operands)[0], inputs, weights)

    expected = gradients(linear)
    assert expected[1][:, 0].abs().min() > 0.1
    for a, e in zip(gradients(knee), expected, strict=True):
        assert torch.equal(a, e)
    grad_x, grad_stick, grad_past_x, grad_past_w = gradients(silence)
    assert torch.equal(grad_x, expected[0])
    assert torch.equal(grad_past_x, expected[2])
    assert torch.equal(grad_past_w, expected[3])
    assert not grad_stick.any()


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    x, spectra, stick, past_x, past_w = example_operands(4, 16, 50)
    operands = *(x.requires_grad_(), spectra, stick.requires_grad_()), past_x.requires_grad_(), past_w.requires_grad_()
    torch.library.opcheck(ops.fft_drnl_rows, operands, test_utils=checks)
    weights = [torch.randn_like(r).requires_grad_() for r in ops.fft_drnl_rows(*operands)]
    torch.library.opcheck(ops.fft_drnl_backward, (*weights, *operands, True), test_utils=checks)
    torch.library.opcheck(ops.fft_drnl_backward, (*weights, *operands, False), test_utils=QUICK)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    """One graph without breaks serves every length, forward and backward."""
    torch._dynamo.reset()
    spectra, stick = ops.ir_spectra(example_impulses(M - 1)), torch.tensor(STICK, dtype=torch.float64).requires_grad_()

    def function(x: Tensor, stick: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        return ops.fft_drnl(x, spectra, stick, M, state=state)

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    state = torch.randn(2, M - 1, dtype=torch.float64), torch.randn(2, 3, M - 1, dtype=torch.float64)
    compiled(torch.randn(2, 333, dtype=torch.float64, requires_grad=True), stick, state)[0].sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (M - 1, HOP, 2000, 65):
            x = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
            (y, _), (expected, _) = compiled(x, stick, state), function(x, stick, state)
            assert_close(y.detach(), expected.detach(), 1e-12)
            actual = torch.autograd.grad(y.square().sum(), (x, stick))
            for a, e in zip(actual, torch.autograd.grad(expected.square().sum(), (x, stick)), strict=True):
                assert_close(a, e, 1e-12)


def test_layouts() -> None:
    """Non-contiguous and expanded operands and gradients."""
    x, spectra, stick, past_x, past_w = example_operands(4, 16, 50)
    expected = ops.fft_drnl_rows(x, spectra, stick, past_x, past_w)
    strided = (
        x.repeat_interleave(2, -1)[:, ::2],
        spectra.transpose(0, 2).contiguous().transpose(0, 2),
        stick.t().contiguous().t(),
        past_x.t().contiguous().t(),
        past_w.mT.contiguous().mT,
    )
    for a, e in zip(ops.fft_drnl_rows(*strided), expected, strict=True):
        assert torch.equal(a, e)
        assert a.is_contiguous()
    first = x[:1].expand_as(x).requires_grad_()
    y, _, _ = ops.fft_drnl_rows(first, spectra, stick, past_x[:1].expand_as(past_x), past_w[:1].expand_as(past_w))
    assert_close(y[1].detach(), expected[0][0], 1e-12)
    ones = torch.ones((), dtype=torch.float64).expand_as(y)
    (expanded,) = torch.autograd.grad(y, first, ones, retain_graph=True)
    (contiguous,) = torch.autograd.grad(y, first, ones.contiguous())
    assert torch.equal(expanded, contiguous)


def test_results_are_memory_of_their_own() -> None:
    operands = example_operands(4, 16, 0)
    for result in ops.fft_drnl_rows(*operands):
        result.fill_(1)
    assert not any((operands[i] == 1).any() for i in (3, 4))


@pytest.mark.parametrize(("batch", "channels"), [(0, 3), (2, 0)])
def test_nothing_to_do(batch: int, channels: int) -> None:
    operands = example_operands(4, 16, 50, batch, channels)
    inputs = differentiable(operands)
    y, last_x, last_w = ops.fft_drnl_rows(*operands)
    assert y.shape == (batch, channels, 50)
    assert torch.equal(last_x, operands[0][:, -4:])
    assert last_w.shape == operands[4].shape
    gradients = torch.autograd.grad(y.sum() + last_w.sum(), inputs, create_graph=True)
    assert all(torch.equal(g, torch.zeros_like(t)) for g, t in zip(gradients, inputs, strict=True))
    second = torch.autograd.grad(sum(g.sum() for g in gradients), inputs, allow_unused=True)
    assert not any(g.any() for g in second if g is not None)


def test_leading_dimensions() -> None:
    spectra, stick = ops.ir_spectra(example_impulses(M - 1)), torch.tensor(STICK, dtype=torch.float64)
    x = torch.randn(2, 4, 100, dtype=torch.float64)
    y, state = ops.fft_drnl(x, spectra, stick, M)
    assert y.shape == (2, 4, 3, 100)
    assert [tuple(s.shape) for s in state] == [(2, 4, M - 1), (2, 4, 3, M - 1)]
    one, state = ops.fft_drnl(x[0, 0], spectra, stick, M)
    assert one.shape == (3, 100)
    assert [tuple(s.shape) for s in state] == [(M - 1,), (3, M - 1)]
    assert_close(one, y[0, 0], 1e-12)


@pytest.mark.parametrize(
    ("ir_length", "size"), [(1, 1024), (256, 1024), (257, 2048), (4095, 16384), (4096, 16384), (4097, 32768)]
)
def test_fft_length(ir_length: int, size: int) -> None:
    assert ops.fft_length(ir_length) == size


def test_memory_does_not_grow_with_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SLICE", 8 * SIZE * 8)
    spectra, stick = ops.ir_spectra(example_impulses(M - 1)), torch.tensor(STICK, dtype=torch.float64)

    def largest(length: int) -> int:
        """Bytes of the largest temporary of forward and backward."""
        x = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
        with Steps() as steps:
            y, _ = ops.fft_drnl(x, spectra, stick, M)
            torch.autograd.grad(y, x, torch.ones_like(y))
        assert len(steps.results) == 7
        return steps.largest_temporary(x, y, spectra)

    short = largest(20 * HOP)
    assert short >= 6 * SIZE * 8  # two blocks of three channels
    assert largest(100 * HOP + 5) == short


def test_float32_makes_no_wide_tensors() -> None:
    x, spectra, stick, past_x, past_w = (t.float() for t in example_operands(4, 16, 50))
    with Steps() as steps:
        results = ops.fft_drnl_rows(x.requires_grad_(), spectra, stick.requires_grad_(), past_x, past_w)
        torch.autograd.grad(results[0].square().sum(), (x, stick))
    assert {t.dtype for t in steps.made} >= {torch.float32, torch.complex64}
    assert not any(t.dtype in (torch.float64, torch.complex128) for t in steps.made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transforms_meet_no_denormal_numbers(dtype: torch.dtype) -> None:
    """A decayed tail is taken as silence: transforms of denormal numbers take ten times longer."""
    x, spectra, stick, past_x, past_w = (t.to(dtype) for t in example_operands(4, 16, 50))
    tiny = torch.finfo(dtype).tiny
    y, last_x, _ = ops.fft_drnl_rows(0.1 * tiny * x, spectra, stick, 0 * past_x, 0 * past_w)
    assert not y.any()
    assert torch.equal(last_x, 0.1 * tiny * x[:, -4:])
    weights = 0.1 * tiny * torch.randn_like(y), 0 * past_x, 0 * past_w
    assert not any(g.any() for g in ops.fft_drnl_backward(*weights, x, spectra, stick, past_x, past_w, True))


def test_autocast_does_not_reach_inside() -> None:
    operands = [t.float() for t in example_operands(4, 16, 50)]
    expected = ops.fft_drnl_rows(*operands)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for a, e in zip(ops.fft_drnl_rows(*operands), expected, strict=True):
            assert torch.equal(a, e)


def test_reference_serves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = reference.fft_drnl
    monkeypatch.setattr(operators["fft_drnl"], "forward", lambda *args: calls.append(args) or original(*args))
    ops.fft_drnl_rows(*example_operands(4, 16, 10))
    assert len(calls) == 1


SPECTRA = torch.zeros(3, 2, 513, 2)
STICKS = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.fft_length(0), "ir_length must be at least 1, got 0"),
        (lambda: ops.ir_spectra(torch.zeros(2, 3, 4)), r"impulses must have shape \(3, F, M\).*got \(2, 3, 4\)"),
        (lambda: ops.ir_spectra(torch.zeros(3, 0, 4)), r"impulses must have shape \(3, F, M\).*got \(3, 0, 4\)"),
        (lambda: ops.fft_drnl(torch.zeros(9), SPECTRA, STICKS, 0), "ir_length must be at least 1, got 0"),
        (
            lambda: ops.fft_drnl(torch.zeros(9), SPECTRA, STICKS, 300),
            r"spectra must have shape \(3, F, 1025, 2\) for ir_length 300, got \(3, 2, 513, 2\)",
        ),
        (
            lambda: ops.fft_drnl(torch.zeros(9), SPECTRA.clone().requires_grad_(), STICKS, 4),
            "spectra must not require gradients",
        ),
        (lambda: ops.fft_drnl(torch.zeros(()), SPECTRA, STICKS, 4), r"x must have shape \(..., T\), got \(\)"),
        (
            lambda: ops.fft_drnl(torch.zeros(9), SPECTRA, torch.ones(3, 2), 4),
            r"stick must have shape \(2, 3\), got \(3, 2\)",
        ),
        (
            lambda: ops.fft_drnl(torch.zeros(9), SPECTRA, STICKS, 4, state=(torch.zeros(4), torch.zeros(2, 3))),
            r"state\[0\] must have shape \(3,\), got \(4,\)",
        ),
        (
            lambda: ops.fft_drnl(torch.zeros(1, 9), SPECTRA, STICKS, 4, state=(torch.zeros(1, 3), torch.zeros(2, 3))),
            r"state\[1\] must have shape \(1, 2, 3\), got \(2, 3\)",
        ),
        (
            lambda: ops.fft_drnl_rows(torch.zeros(1, 9), SPECTRA[0], STICKS, torch.zeros(1, 3), torch.zeros(1, 2, 3)),
            r"spectra must have shape \(3, F, N/2\+1, 2\)",
        ),
        (
            lambda: ops.fft_drnl_rows(torch.zeros(1, 9), SPECTRA, STICKS[:1], torch.zeros(1, 3), torch.zeros(1, 2, 3)),
            r"stick must have shape \(2, 3\), got \(1, 3\)",
        ),
        (
            lambda: ops.fft_drnl_rows(torch.zeros(2, 9), SPECTRA, STICKS, torch.zeros(1, 3), torch.zeros(2, 2, 3)),
            r"x and past_x must have the shapes \(B, T\) and \(B, M-1\), got \(2, 9\), \(1, 3\)",
        ),
        (
            lambda: ops.fft_drnl_rows(torch.zeros(1, 9), SPECTRA, STICKS, torch.zeros(1, 3), torch.zeros(1, 2, 4)),
            r"past_w must have shape \(1, 2, 3\), got \(1, 2, 4\)",
        ),
        (
            lambda: ops.fft_drnl_rows(
                torch.zeros(1, 9), SPECTRA, STICKS, torch.zeros(1, 1024), torch.zeros(1, 2, 1024)
            ),
            "transforms of 1024 samples are too short for a past of 1024",
        ),
    ],
)
def test_value_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_type_errors() -> None:
    with pytest.raises(TypeError, match=r"x must be float32 or float64, got torch\.float16"):
        ops.fft_drnl(torch.zeros(9, dtype=torch.float16), SPECTRA, STICKS, 4)
    with pytest.raises(TypeError, match=r"spectra must have the signal's type and device, torch\.float64 on cpu"):
        ops.fft_drnl(torch.zeros(9, dtype=torch.float64), SPECTRA, STICKS, 4)
    with pytest.raises(TypeError, match=r"stick must have the signal's type.*got torch\.float64 on cpu"):
        ops.fft_drnl(torch.zeros(9), SPECTRA, STICKS.double(), 4)
