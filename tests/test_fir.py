"""FIR filters: numpy's convolution, gradients, blocks, streaming, NaN, numerics, torch.compile, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import QUICK, Steps, assert_close, checked, compiled_elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jvp, vmap

from tamt.ops import fir as ops
from tamt.reference import fir as reference
from tamt.shared.overlap_save import fft_length

M = 300
SIZE = fft_length(M)
HOP = SIZE - (M - 1)


def example(length: int, taps: int = 5, signals: int = 1, filters: int = 3, batch: int = 2) -> tuple[Tensor, ...]:
    """Operands of the operator: signals, decaying noise as taps, and a past other than silence, float64."""
    decay = torch.exp(-4 * torch.arange(taps, dtype=torch.float64) / taps)
    x = torch.randn(batch, signals, length, dtype=torch.float64)
    past = torch.randn(batch, signals, taps - 1, dtype=torch.float64)
    return x, decay * torch.randn(filters, taps, dtype=torch.float64), past


def differentiable(*operands: Tensor) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in operands]


def by_numpy(x: Tensor, taps: Tensor, past: Tensor) -> Tensor:
    """(B, F, T), one convolution after the other."""
    fan, memory = taps.shape[0] // x.shape[1], past.shape[2]
    signals = torch.cat((past, x), 2).numpy()
    rows = [
        [np.convolve(np.append(row[f // fan], 0), h)[memory : memory + x.shape[2]] for f, h in enumerate(taps.numpy())]
        for row in signals
    ]
    return torch.from_numpy(np.array(rows).reshape(x.shape[0], taps.shape[0], x.shape[2]))


@pytest.mark.parametrize("length", [0, 1, 2, M - 1, M, HOP - 1, HOP, HOP + 1, 3 * HOP + 7])
@pytest.mark.parametrize("taps", [1, 2, M])
@pytest.mark.parametrize(("signals", "filters"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_definition(length: int, taps: int, signals: int, filters: int) -> None:
    x, h, past = example(length, taps, signals, filters)
    y, last = ops.fir_rows(x, h, past)
    assert_close(y, by_numpy(x, h, past), 1e-12)
    assert torch.equal(last, torch.cat((past, x), 2)[..., length:])
    assert y.is_contiguous()


def test_filters_go_to_their_signals() -> None:
    x = torch.eye(2, dtype=torch.float64)
    taps = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    y, _ = ops.fir(x, taps, per_channel=True)
    assert_close(y, torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 4.0]], dtype=torch.float64), 1e-14)
    y, _ = ops.fir(x[0], taps)
    assert_close(y, taps * x[0], 1e-14)


@pytest.mark.parametrize(
    ("length", "taps", "signals", "filters", "batch"),
    [(0, 5, 1, 2, 2), (7, 1, 2, 4, 2), (90, 5, 3, 3, 2), (3 * HOP + 7, M, 1, 3, 2), (2 * HOP, M, 3, 6, 3)],
)
@pytest.mark.parametrize("transforms", [1, 3, 1000])
def test_every_gradient_against_the_definition(
    monkeypatch: pytest.MonkeyPatch, length: int, taps: int, signals: int, filters: int, batch: int, transforms: int
) -> None:
    """In slices of signals, of channels, of blocks, and of rows."""
    monkeypatch.setattr(reference, "SLICE", 8 * transforms * SIZE)
    inputs = differentiable(*example(length, taps, signals, filters, batch))
    results, expected = ops.fir_rows(*inputs), reference.definition(*inputs)
    for a, e in zip(results, expected, strict=True):
        assert_close(a.detach(), e.detach(), 1e-12)
    weights = [torch.randn_like(r) for r in results]
    wanted = torch.autograd.grad(expected, inputs, weights)
    for a, e in zip(torch.autograd.grad(results, inputs, weights), wanted, strict=True):
        assert_close(a, e, 1e-11)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1)])
def test_gradients_of_some_operands_alone(wanted: tuple[int, ...]) -> None:
    operands = example(50, signals=2, filters=4)
    every = differentiable(*operands)
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(operands)]
    targets = [every[i] for i in wanted]
    expected = torch.autograd.grad(ops.fir_rows(*every)[0].square().sum(), targets)
    actual = torch.autograd.grad(ops.fir_rows(*some)[0].square().sum(), [some[i] for i in wanted])
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-12)


@pytest.mark.parametrize(("length", "taps"), [(0, 5), (3, 5), (30, 5), (5, 1)])
@pytest.mark.parametrize(("signals", "filters"), [(1, 3), (2, 4)])
def test_gradcheck(length: int, taps: int, signals: int, filters: int) -> None:
    inputs = differentiable(*example(length, taps, signals, filters))
    assert torch.autograd.gradcheck(ops.fir_rows, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(ops.fir_rows, inputs, fast_mode=True)


@checked
def test_opcheck(checks: tuple[str, ...]) -> None:
    inputs = differentiable(*example(50, signals=2, filters=4))
    torch.library.opcheck(ops.fir_rows, inputs, test_utils=checks)
    weights = differentiable(*(torch.randn_like(r) for r in ops.fir_rows(*inputs)))
    torch.library.opcheck(ops.fir_backward, (*weights, *inputs, True, True), test_utils=checks)
    for needs in ((True, False), (False, True)):
        torch.library.opcheck(ops.fir_backward, (*weights, *inputs, *needs), test_utils=QUICK)


@compiled_elsewhere
@pytest.mark.parametrize("per_channel", [False, True])
def test_compile(per_channel: bool, backend: str) -> None:
    """One graph without breaks serves every length, forward and backward."""
    torch._dynamo.reset()
    taps = example(0, M, filters=4)[1].requires_grad_()

    def function(x: Tensor, taps: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return ops.fir(x, taps, state=state, per_channel=per_channel)

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    state = torch.randn(3, 2, M - 1, dtype=torch.float64)
    compiled(torch.randn(3, 2, 333, dtype=torch.float64, requires_grad=True), taps, state)[0].sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (M - 1, HOP, 2000, 65):
            x = torch.randn(3, 2, length, dtype=torch.float64, requires_grad=True)
            (y, _), (expected, _) = compiled(x, taps, state), function(x, taps, state)
            assert_close(y.detach(), expected.detach(), 1e-12)
            actual = torch.autograd.grad(y.square().sum(), (x, taps))
            for a, e in zip(actual, torch.autograd.grad(expected.square().sum(), (x, taps)), strict=True):
                assert_close(a, e, 1e-12)


def test_forward_mode_and_maps() -> None:
    operands = example(50, signals=2, filters=4)
    tangents = [torch.randn_like(t) for t in operands]
    (y, last), (dy, dlast) = jvp(ops.fir_rows, operands, tuple(tangents))
    along_x = ops.fir_rows(tangents[0], operands[1], tangents[2])
    assert_close(dy, along_x[0] + ops.fir_rows(operands[0], tangents[1], operands[2])[0], 1e-12)
    assert_close(dlast, along_x[1], 1e-12)
    stacked = [torch.stack((t, 2 * t, -t)) for t in operands]
    for mapped in ((0, None, 0), (None, 0, None), (0, 0, 0)):
        given = [s if d == 0 else t for s, t, d in zip(stacked, operands, mapped, strict=True)]
        results = vmap(ops.fir_rows, mapped)(*given)
        for n in range(3):
            alone = ops.fir_rows(*(t[n] if d == 0 else t for t, d in zip(given, mapped, strict=True)))
            for a, e in zip(results, alone, strict=True):
                assert_close(a[n], e, 1e-12)
    assert y.shape == (2, 4, 50)
    assert last.shape == (2, 2, 4)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 2500), max_size=5), taps=st.sampled_from([1, 2, 40, M]), per_channel=st.booleans())
def test_chunks_equal_one_shot(cuts: list[int], taps: int, per_channel: bool) -> None:
    torch.manual_seed(0)
    x, h, _ = example(2500, taps, 2, 4)
    whole, last = ops.fir(x, h, per_channel=per_channel)
    parts, state = [], None
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 2500], strict=True):
        y, state = ops.fir(x[..., start:end], h, state=state, per_channel=per_channel)
        parts.append(y)
    assert_close(torch.cat(parts, -1), whole, 1e-12)
    assert torch.equal(state, last)


def test_gradients_through_chunks() -> None:
    """What enters a chunk through the state leaves it to the chunk before."""
    x, taps, _ = differentiable(*example(2500, M))
    weights = torch.randn(2, 1, 3, 2500, dtype=torch.float64)
    expected = torch.autograd.grad(ops.fir(x, taps)[0], (x, taps), weights)
    parts, state = [], None
    for chunk in x.split((5, 1100, 30, 0, 1365), -1):
        y, state = ops.fir(chunk, taps, state=state)
        parts.append(y)
    for a, e in zip(torch.autograd.grad(torch.cat(parts, -1), (x, taps), weights), expected, strict=True):
        assert_close(a, e, 1e-11)


@pytest.fixture(params=[True, False], ids=["cpu", "other device"])
def readable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the reference may look at its data, as it does on no other device than a CPU."""
    if not request.param:
        monkeypatch.setattr(reference, "on_cpu", lambda x: False)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.usefixtures("readable")
def test_a_sample_that_is_not_finite(value: float, dtype: torch.dtype) -> None:
    """NaN from there on in its own signal's channels, in the state too; nothing before, and no other signal."""
    x, taps, past = (t.to(dtype) for t in example(2 * HOP, M, 2, 4))
    clean, state = ops.fir_rows(x, taps, past)
    for at in (0, M, HOP - 1, HOP, 2 * HOP - 1):
        bad = x.clone()
        bad[1, 0, at] = value
        y, last = ops.fir_rows(bad, taps, past)
        others = [(0, slice(None)), (1, slice(2, 4))]
        assert all(torch.equal(y[i], clean[i]) for i in others)
        assert y[1, :2, at:].isnan().all()
        if at:
            quiet = 8 * torch.finfo(dtype).eps * clean.abs().max()
            assert (y[1, :2, :at] - clean[1, :2, :at]).abs().max() <= quiet
        assert torch.equal(last[0], state[0])
        assert torch.equal(last[1, 1], state[1, 1])
        assert last[1, 0, max(0, at - (2 * HOP - (M - 1))) :].isnan().all()
        following, _ = ops.fir_rows(x[..., :7], taps, last)
        assert following[1, :2].isnan().all()
        assert following[0].isfinite().all()


@pytest.mark.parametrize("length", [0, 1, 10, M, 2000])
@pytest.mark.usefixtures("readable")
def test_a_state_that_is_not_finite(length: int) -> None:
    x, taps, past = example(length, M, 2, 4)
    clean, _ = ops.fir_rows(x, taps, past)
    past[1, 1, -1] = math.nan
    y, last = ops.fir_rows(x, taps, past)
    assert torch.equal(y[0], clean[0])
    assert torch.equal(y[1, :2], clean[1, :2])
    assert y[1, 2:].isnan().all()
    assert last[1, 1].isnan().any()
    assert last[0].isfinite().all()


def test_gradients_of_what_came_before_a_bad_sample() -> None:
    x, taps, past = example(90, signals=2, filters=4)

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        inputs = differentiable(x, taps, past)
        return torch.autograd.grad(ops.fir_rows(*inputs)[0][..., :40].square().sum(), inputs)

    bad = x.clone()
    bad[1, 0, 40] = math.nan
    for a, e in zip(gradients(bad), gradients(x), strict=True):
        assert_close(a, e, 1e-12)


def test_silence() -> None:
    x, taps, past = differentiable(*example(2 * HOP, M))
    y, last = ops.fir_rows(x * 0, taps, past * 0)
    assert not y.any()
    assert not last.any()
    assert not torch.autograd.grad(y.sum(), taps)[0].any()


@pytest.mark.parametrize("taps", [1, 16, 4097])
def test_float32_follows_float64(taps: int) -> None:
    operands = [t.float() for t in example(40000, taps)]
    inputs, exact = differentiable(*operands), differentiable(*(t.double() for t in operands))
    results, expected = ops.fir_rows(*inputs), ops.fir_rows(*exact)
    for a, e in zip(results, expected, strict=True):
        assert_close(a.detach(), e.detach(), 2e-6, torch.float32)
    weights = [torch.randn_like(r) for r in results]
    wanted = torch.autograd.grad(expected, exact, [w.double() for w in weights])
    for a, e in zip(torch.autograd.grad(results, inputs, weights), wanted, strict=True):
        assert_close(a, e, 5e-6, torch.float32)


def test_float32_makes_no_wide_tensors() -> None:
    inputs = differentiable(*(t.float() for t in example(2 * HOP, M)))
    with Steps() as steps:
        torch.autograd.grad(ops.fir_rows(*inputs)[0].square().sum(), inputs)
    assert {t.dtype for t in steps.made} >= {torch.float32, torch.complex64}
    assert not any(t.dtype in (torch.float64, torch.complex128) for t in steps.made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transforms_meet_no_denormal_numbers(dtype: torch.dtype) -> None:
    """A decayed tail is taken as silence: transforms of denormal numbers take ten times longer."""
    x, taps, past = (t.to(dtype) for t in example(50))
    tiny = torch.finfo(dtype).tiny
    y, last = ops.fir_rows(0.1 * tiny * x, taps, 0 * past)
    assert not y.any()
    assert torch.equal(last, 0.1 * tiny * x[..., -4:])
    found = ops.fir_backward(0.1 * tiny * torch.randn_like(y), 0 * past, x, taps, past, True, True)
    assert not any(g.any() for g in found)


def test_memory_does_not_grow_with_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SLICE", 8 * SIZE * 8)

    def largest(length: int) -> int:
        """Bytes of the largest temporary of forward and backward."""
        x, taps, past = differentiable(*example(length, M))
        with Steps() as steps:
            y, _ = ops.fir_rows(x, taps, past)
            torch.autograd.grad(y, (x, taps), torch.ones_like(y))
        assert len(steps.results) == 5
        return steps.largest_temporary(x, y)

    short = largest(20 * HOP)
    assert short >= 6 * SIZE * 8  # two blocks of three channels
    assert largest(100 * HOP + 5) == short


def test_layouts() -> None:
    """Non-contiguous and expanded operands and gradients."""
    x, taps, past = example(50, signals=2, filters=4)
    expected = ops.fir_rows(x, taps, past)
    strided = x.repeat_interleave(2, -1)[..., ::2], taps.t().contiguous().t(), past.mT.contiguous().mT
    for a, e in zip(ops.fir_rows(*strided), expected, strict=True):
        assert_close(a, e, 1e-14)
        assert a.is_contiguous()
    first = x[:1].expand_as(x).requires_grad_()
    y, _ = ops.fir_rows(first, taps, past[:1].expand_as(past))
    assert_close(y[1].detach(), expected[0][0], 1e-14)
    ones = torch.ones((), dtype=torch.float64).expand_as(y)
    (expanded,) = torch.autograd.grad(y, first, ones, retain_graph=True)
    (contiguous,) = torch.autograd.grad(y, first, ones.contiguous())
    assert torch.equal(expanded, contiguous)


def test_results_are_memory_of_their_own() -> None:
    x, taps, past = example(0)
    for result in ops.fir_rows(x, taps, past):
        result.fill_(1)
    assert not (past == 1).any()


def test_no_rows() -> None:
    inputs = differentiable(*example(50, batch=0))
    y, last = ops.fir_rows(*inputs)
    assert y.shape == (0, 3, 50)
    assert last.shape == (0, 1, 4)
    assert not torch.autograd.grad(y.sum(), inputs[1])[0].any()


def test_blocks_share_a_signal_evenly() -> None:
    """No transform is longer than need be: what the first block leaves is not a full second one, of a few samples."""
    for length in (1, 100, HOP - 1, HOP, HOP + 1, 2 * HOP, 2 * HOP + 40, 9 * HOP + 1):
        blocks, size = -(-length // HOP), reference.fitting_length(M, length)
        assert blocks * (size - (M - 1)) >= length
        assert size <= SIZE
        assert size - (M - 1) - length / blocks <= size / 4


def test_leading_dimensions() -> None:
    taps = example(0, 5, filters=6)[1]
    x = torch.randn(2, 4, 3, 100, dtype=torch.float64)
    y, state = ops.fir(x, taps)
    assert y.shape == (2, 4, 3, 6, 100)
    assert state.shape == (2, 4, 3, 4)
    one, state = ops.fir(x[1, 2, 0], taps)
    assert one.shape == (6, 100)
    assert state.shape == (4,)
    assert_close(one, y[1, 2, 0], 1e-12)
    own, state = ops.fir(x, taps, per_channel=True)
    assert own.shape == (2, 4, 6, 100)
    assert state.shape == (2, 4, 3, 4)
    assert_close(own[1, 2, 2:4], y[1, 2, 1, 2:4], 1e-12)
    empty, state = ops.fir(x[:, :0], taps, per_channel=True)
    assert empty.shape == (2, 0, 6, 100)
    assert state.shape == (2, 0, 3, 4)


def test_autocast_does_not_reach_inside() -> None:
    inputs = differentiable(*(t.float() for t in example(50)))

    def every_order() -> list[Tensor]:
        y = ops.fir_rows(*inputs)[0]
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return [y, *first, *torch.autograd.grad(first[0].square().sum(), inputs)]

    expected = every_order()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for a, e in zip(every_order(), expected, strict=True):
            assert_close(a.detach(), e.detach(), 1e-5)


TAPS = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.fir(torch.zeros(()), TAPS), r"x must have shape \(..., T\), got \(\)"),
        (lambda: ops.fir(torch.zeros(9), TAPS, per_channel=True), r"x must have shape \(..., S, T\), got \(9,\)"),
        (lambda: ops.fir(torch.zeros(9), TAPS[0]), r"taps must have shape \(F, M\) with F, M >= 1, got \(3,\)"),
        (lambda: ops.fir(torch.zeros(9), TAPS[:, :0]), r"taps must have shape \(F, M\).*got \(4, 0\)"),
        (lambda: ops.fir(torch.zeros(9), TAPS[:0]), r"taps must have shape \(F, M\).*got \(0, 3\)"),
        (
            lambda: ops.fir(torch.zeros(3, 9), TAPS, per_channel=True),
            "taps must hold as many filters for each of the 3 signals, got 4 in all",
        ),
        (
            lambda: ops.fir(torch.zeros(0, 9), TAPS, per_channel=True),
            "taps must hold as many filters for each of the 0 signals, got 4 in all",
        ),
        (
            lambda: ops.fir(torch.zeros(2, 9), TAPS, state=torch.zeros(2, 3)),
            r"state must have shape \(2, 2\), got \(2, 3\)",
        ),
        (
            lambda: ops.fir_rows(torch.zeros(1, 3, 9), TAPS, torch.zeros(1, 3, 2)),
            r"x and taps must have the shapes \(B, S, T\) and \(F, M\) with F a multiple of S, got \(1, 3, 9\)",
        ),
        (
            lambda: ops.fir_rows(torch.zeros(1, 2, 9), TAPS, torch.zeros(1, 2, 3)),
            r"past must have shape \(1, 2, 2\), got \(1, 2, 3\)",
        ),
    ],
)
def test_value_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_type_errors() -> None:
    with pytest.raises(TypeError, match=r"x must be float32 or float64, got torch\.float16"):
        ops.fir(torch.zeros(9, dtype=torch.float16), TAPS)
    with pytest.raises(TypeError, match=r"taps must have the signal's type and device, torch\.float64 on cpu"):
        ops.fir(torch.zeros(9, dtype=torch.float64), TAPS)
    with pytest.raises(TypeError, match=r"state must have the signal's type.*got torch\.float64 on cpu"):
        ops.fir(torch.zeros(9), TAPS, state=torch.zeros(2, dtype=torch.float64))
