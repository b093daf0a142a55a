"""Smoothing with attack and release: a loop and AMT as the truth, blocks, gradients, NaN, streams, errors."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import QUICK, Held, assert_close, assert_within, compiled_elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tamt
from tamt.ops import recurrence as ops
from tamt.ops.recurrence import attack_release
from tamt.reference import recurrence as reference

GOLDEN = np.load(Path(__file__).parent / "data" / "attack_release.npz")
PAIRS = [(0.045, 0.033), (0.01, 0.00133), (0.02, 0.3), (1.0, 0.1), (0.2, 0.2), (1.0, 1.0)]
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-14}
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
pairs = pytest.mark.parametrize(("attack", "release"), PAIRS, ids=str)


@pytest.fixture(params=[True, False], ids=["cpu", "other device"])
def readable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the reference may look at its data, as it does on no other device than a CPU."""
    if not request.param:
        monkeypatch.setattr(reference, "on_cpu", lambda x: False)
    return request.param


def loop(x: Tensor, attack: float, release: float, state: Tensor) -> np.ndarray:
    """One number after the other, of x (B, T, C) in float64."""
    y = np.empty(x.shape)
    for b, c in np.ndindex(x.shape[0], x.shape[2]):
        last = float(state[b, c])
        for t, value in enumerate(x[b, :, c].tolist()):
            last += (attack if value > last else release) * (value - last)
            y[b, t, c] = last
    return y


def operands(
    *shape: int, attack: float = 0.1, release: float = 0.03, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Signals that are quiet for a while in the middle, constants, and a state other than rest."""
    x = torch.randn(shape, dtype=torch.float64)
    third = shape[1] // 3
    x[:, third : 2 * third] *= 1e-6
    state = torch.randn(shape[0], shape[2], dtype=torch.float64)
    given = x, torch.tensor(attack), torch.tensor(release), state
    return tuple(t.to(dtype) for t in given)


def leaves(*shape: int, **options: Any) -> list[Tensor]:
    return [t.requires_grad_() for t in operands(*shape, **options)]


@both_types
@pytest.mark.parametrize(
    "shape", [(0, 5, 2), (2, 0, 3), (2, 5, 0), (1, 1, 1), (2, 65, 3), (1, 901, 1), (20, 100, 7)], ids=str
)
@pytest.mark.parametrize(("attack", "release"), PAIRS[:3:2], ids=str)
def test_definition(shape: tuple[int, ...], attack: float, release: float, dtype: torch.dtype, readable: bool) -> None:
    x, a, r, state = operands(*shape, attack=attack, release=release, dtype=dtype)
    expected = torch.from_numpy(loop(x, a.item(), r.item(), state))
    for function in (ops.attack_release_rows, reference.definition):
        y, last = function(x, a, r, state)
        assert (y.shape, last.shape, y.dtype, last.dtype) == (x.shape, state.shape, dtype, dtype)
        assert_within(y, expected, TOLERANCE[dtype])
        assert torch.equal(last, y[:, -1] if shape[1] else state)
    assert y.is_contiguous()


def kinds_of_signal(frames: int) -> Tensor:
    """(frames, 8): noises, their like of slow and fast, steps, sparse pulses, ramps, silence."""
    noise = torch.randn(frames, 3, dtype=torch.float64)
    noise[:, 0] = noise[:, 0].square()
    noise[:, 2] = noise[:, 2].cumsum(0)
    t = torch.arange(frames, dtype=torch.float64)
    pulses = (torch.rand(frames) < 0.01).double()
    return torch.stack((*noise.unbind(1), pulses, t, -t, 1e6 * (t > frames / 2), 0 * t), 1)


@pairs
@both_types
@pytest.mark.parametrize("lanes", [None, 1 << 8])
def test_blocks_are_one(
    attack: float, release: float, dtype: torch.dtype, lanes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many blocks, of those that forget where they began, and of few, each gives what frame by frame gives."""
    if lanes:
        monkeypatch.setattr(reference, "LANES", lanes)
    x = kinds_of_signal(3001).to(dtype)[None]
    a, r, state = x.new_tensor(attack), x.new_tensor(release), 3 * torch.randn(1, 8, dtype=dtype)
    memory = reference._memory(x, attack, release)
    assert reference._blocks(x, memory)[0] > reference.LEAST_BLOCKS
    y, last = ops.attack_release_rows(x, a, r, state)
    expected = reference._plain(*(t.double() for t in (x, a, r, state)))
    assert_close(y.mT, expected.mT, TOLERANCE[dtype], dtype)
    assert torch.equal(last, y[:, -1])


def test_what_the_blocks_are() -> None:
    """Many for few lanes, longer ones where these forget, one for many lanes."""
    few, many, most = (torch.empty(1, 10000, n) for n in (2, 300, 5000))
    assert reference._blocks(few, 10000) == (100, 100)
    assert reference._blocks(many, 10000) == (54, 186)
    assert reference._blocks(many, 500) == (20, 500)
    assert reference._blocks(most, 500) == (1, 10000)


@given(st.data())
@settings(max_examples=25)
def test_any_signal(data: st.DataObject) -> None:
    """Any length, constants and numbers of one row, against the loop."""
    frames = data.draw(st.integers(1, 300))
    constants = st.floats(1e-4, 1)
    attack, release = data.draw(constants), data.draw(constants)
    seed, smooth = data.draw(st.integers(0, 1000)), data.draw(st.integers(1, 50))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, frames + smooth - 1, 2, generator=generator, dtype=torch.float64).exp()
    x = x.unfold(1, smooth, 1).mean(-1)
    a, r, state = x.new_tensor(attack), x.new_tensor(release), x.new_zeros(1, 2)
    y, _ = ops.attack_release_rows(x, a, r, state)
    assert_close(y.mT, torch.from_numpy(loop(x, attack, release, state)).mT, 1e-13)


@pytest.mark.parametrize("version", ["", "2016"])
def test_long_term_loudness_of_amt(version: str) -> None:
    module = tamt.AttackRelease(0.01, 0.0005 if version else 0.00133, dtype=torch.float64)
    for case in ("am", "noise"):
        ears = [e for e in "LR" if f"{case}_STL_{e}" in GOLDEN]
        given, wanted = (
            torch.stack([torch.from_numpy(GOLDEN[f"{case}_{name}{version}_{e}"]) for e in ears])
            for name in ("STL", "LTL")
        )
        assert_close(module(given), wanted, 1e-12)
        assert_close(module.float()(given), wanted, 1e-5, torch.float32)
        module = module.double()
        module.load_state_dict(
            tamt.AttackRelease(0.01, 0.0005 if version else 0.00133, dtype=torch.float64).state_dict()
        )


def test_short_term_specific_loudness_of_amt() -> None:
    """Time before channels."""
    module = tamt.AttackRelease(0.045, 0.033, dim=-2, dtype=torch.float64)
    for ear in "LR":
        given, wanted = (torch.from_numpy(GOLDEN[f"click_{name}_{ear}"]) for name in "NS")
        assert_close(module(given)[GOLDEN["click_frames"]].mT, wanted.mT, 1e-12)


def test_constants_of_other_frames() -> None:
    """A steady input is met by one step of 4 ms where four of 1 ms meet it."""
    x = torch.ones(40, dtype=torch.float64)
    fine, _ = attack_release(x, 0.045, 0.033)
    coarse = tamt.AttackRelease(0.045, 0.033, hop=4, dtype=torch.float64)(x[::4])
    assert_close(coarse, fine[3::4], 1e-14)
    at_once = tamt.AttackRelease(1, 0.5, hop=4, learnable=True)
    y = at_once(torch.tensor([1.0, 0.0]))
    assert y.tolist() == [1, 0.0625]
    y.sum().backward()
    assert at_once.attack.grad.isfinite()
    with torch.no_grad():
        at_once.attack.fill_(1.5)
    with pytest.raises(ValueError, match=re.escape("attack must lie in (0, 1], got 1.5")):
        at_once(x.float())
    with pytest.raises(ValueError, match="hop must be a positive number of steps, got 0"):
        tamt.AttackRelease(0.1, 0.1, hop=0)


@pytest.mark.parametrize("shape", [(2, 40, 3), (3, 1, 2), (1, 500, 1)], ids=str)
@pytest.mark.parametrize(("attack", "release"), [(0.1, 0.03), (0.02, 0.5), (0.01, 0.001)], ids=str)
def test_gradients(shape: tuple[int, ...], attack: float, release: float, readable: bool) -> None:
    """Of both results, to all operands, against autograd through the recursion frame by frame."""
    given = leaves(*shape, attack=attack, release=release)
    results = ops.attack_release_rows(*given)
    plain = reference._plain(*given)
    weights = [torch.randn_like(t) for t in results]
    wanted = torch.autograd.grad((plain, plain[:, -1]), given, weights)
    for a, e in zip(torch.autograd.grad(results, given, weights), wanted, strict=True):
        assert_close(a.flatten(), e.flatten(), 1e-11)
    single = [t.detach().float().requires_grad_() for t in given]
    found = torch.autograd.grad(ops.attack_release_rows(*single), single, [w.float() for w in weights])
    exact = [t.detach().double().requires_grad_() for t in single]
    plain = reference._plain(*exact)
    for a, e in zip(
        found, torch.autograd.grad((plain, plain[:, -1]), exact, [w.float().double() for w in weights]), strict=True
    ):
        assert_within(a, e, 5e-5 * max(e.abs().max().item(), 1))


def test_gradients_of_blocks_that_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block being much shorter than its memory."""
    monkeypatch.setattr(reference, "LANES", 200)
    given = leaves(1, 2754, 12, attack=0.4, release=0.1)
    memory = reference._memory(given[0], 0.4, 0.1)
    count, length = reference._blocks(given[0], memory)
    assert count > reference.LEAST_BLOCKS
    assert length == memory
    assert 2754 - (count - 1) * length == 10
    results = ops.attack_release_rows(*given)
    weights = [torch.randn_like(results[0]), 100 * torch.randn_like(results[1])]
    plain = reference._plain(*given)
    wanted = torch.autograd.grad((plain, plain[:, -1]), given, weights)
    for a, e in zip(torch.autograd.grad(results, given, weights), wanted, strict=True):
        assert_close(a.flatten(), e.flatten(), 1e-11)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2, 3), (0, 3)], ids=str)
def test_only_what_is_needed(wanted: tuple[int, ...]) -> None:
    everything = leaves(2, 30, 2)
    expected = torch.autograd.grad(ops.attack_release_rows(*everything)[0].square().sum(), everything)
    some = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(everything)]
    y, _ = ops.attack_release_rows(*some)
    for i, g in zip(wanted, torch.autograd.grad(y.square().sum(), [some[i] for i in wanted]), strict=True):
        assert_close(g.flatten(), expected[i].flatten(), 1e-14)


def test_gradcheck() -> None:
    given = leaves(2, 5, 2)
    assert torch.autograd.gradcheck(ops.attack_release_rows, given)
    assert torch.autograd.gradgradcheck(ops.attack_release_rows, given)


@both_types
@pytest.mark.parametrize(
    ("place", "value"), [(0, math.nan), (30, math.inf), (64, -math.inf), (250, math.nan), (399, math.inf)]
)
def test_what_is_not_finite(place: int, value: float, dtype: torch.dtype, readable: bool) -> None:
    """Nothing before it and no other channel changes, nor gradients of what came before; from there on all is NaN."""
    x, a, r, state = operands(3, 400, 2, dtype=dtype)
    bad = x.clone()
    bad[1, place, 0] = value
    found, weights = [], torch.randn_like(x)
    weights[1, place:, 0] = 0
    for signal in (x, bad):
        given = [t.clone().requires_grad_() for t in (signal, a, r, state)]
        y, last = ops.attack_release_rows(*given)
        found.append((y.detach(), last.detach(), torch.autograd.grad(y, given, weights)))
    (clean, clean_last, expected), (y, last, gradients) = found
    assert torch.equal(y[1, :place, 0], clean[1, :place, 0])
    assert y[1, place:, 0].isnan().all()
    assert last[1, 0].isnan()
    y[1, :, 0] = clean[1, :, 0]
    last[1, 0] = clean_last[1, 0]
    assert torch.equal(y, clean)
    assert torch.equal(last, clean_last)
    for g, e in zip(gradients, expected, strict=True):
        assert_close(g.flatten(), e.flatten(), 1e-5 if dtype == torch.float32 else 1e-12)


def test_a_state_that_is_not_finite(readable: bool) -> None:
    x, a, r, state = operands(2, 200, 2)
    clean, _ = ops.attack_release_rows(x, a, r, state)
    for value in (math.nan, math.inf, -math.inf):
        bad = state.clone()
        bad[1, 0] = value
        y, last = ops.attack_release_rows(x, a, r, bad)
        assert y[1, :, 0].isnan().all()
        assert last[1, 0].isnan()
        y[1, :, 0] = clean[1, :, 0]
        assert torch.equal(y, clean)


@pytest.mark.parametrize("lanes", [reference.LANES, 1])
def test_what_fades_out_does_not_end_among_subnormal_numbers(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With which processors are slow; the gradient, which fades backwards, neither."""
    monkeypatch.setattr(reference, "LANES", lanes)
    x, a, r, state = (t.requires_grad_() for t in operands(1, 2000, 4, attack=0.1, release=0.2, dtype=torch.float32))
    with torch.no_grad():
        x[:, 100:] = 0
    y, last = ops.attack_release_rows(x, a, r, state)
    (of_x,) = torch.autograd.grad(last.sum(), x)
    for decayed in (y.detach(), of_x):
        subnormal = (decayed != 0) & (decayed.abs() < torch.finfo(torch.float32).tiny)
        assert subnormal.sum(1).max() <= 2 * reference.FLUSHED
        assert decayed.any()
        assert (decayed == 0).any()


@both_types
def test_silence(dtype: torch.dtype) -> None:
    given = [t.requires_grad_() for t in operands(2, 100, 3, dtype=dtype)]
    with torch.no_grad():
        given[0].zero_()
        given[3].zero_()
    y, last = ops.attack_release_rows(*given)
    assert not y.any()
    gradients = torch.autograd.grad(y.sum() + last.sum(), given)
    assert all(g.isfinite().all() for g in gradients)
    assert gradients[0].all()


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_dimensions(dim: int) -> None:
    x = torch.randn(5, 40, 3, dtype=torch.float64)
    state = torch.randn(x.movedim(dim, 0).shape[1:], dtype=torch.float64)
    y, last = attack_release(x, 0.3, 0.1, state=state, dim=dim)
    rows = x.movedim(dim, -1).reshape(-1, x.shape[dim])
    expected, wanted = attack_release(rows, 0.3, 0.1, state=state.flatten())
    assert_close(y.movedim(dim, -1).reshape(rows.shape), expected, 1e-14)
    assert_close(last.flatten(), wanted, 1e-14)
    assert y.is_contiguous()
    assert torch.equal(tamt.AttackRelease(0.3, 0.1, dim, dtype=torch.float64).stream(x, (state,))[0], y)


def test_layouts() -> None:
    x, a, r, state = operands(6, 100, 5)
    expected = ops.attack_release_rows(x, a, r, state)
    for strided in (
        x.mT.contiguous().mT,
        x.repeat_interleave(2, 1)[:, ::2],
        x.transpose(0, 2).contiguous().transpose(0, 2),
    ):
        for actual, e in zip(ops.attack_release_rows(strided, a, r, state.t().contiguous().t()), expected, strict=True):
            assert actual.is_contiguous()
            assert torch.equal(actual, e)
    given = leaves(6, 100, 5)
    y, _ = ops.attack_release_rows(*given)
    one = torch.ones((), dtype=torch.float64)
    expanded = torch.autograd.grad(y, given, one.expand_as(y), retain_graph=True)
    for g, e in zip(expanded, torch.autograd.grad(y.sum(), given), strict=True):
        assert torch.equal(g, e)


def test_streams_in_chunks_of_any_length() -> None:
    """Time in the middle, which the modules' own tests do not have."""
    module, x = tamt.AttackRelease(0.1, 0.02, dim=1, dtype=torch.float64), operands(2, 400, 3)[0]
    state, parts = None, []
    for chunk in x.split([1, 99, 0, 200, 100], 1):
        y, state = module.stream(chunk, state)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file)
        parts.append(y)
    assert_close(torch.cat(parts, 1).mT, module(x).mT, 1e-14)
    assert torch.equal(module.stream(x[:, :0], state)[1][0], state[0])


def test_opcheck() -> None:
    given = leaves(2, 7, 3)
    torch.library.opcheck(ops.attack_release_rows, given, test_utils=QUICK)
    y, last = (t.detach() for t in ops.attack_release_rows(*given))
    backward = (torch.randn_like(y), torch.randn_like(last), *(t.detach() for t in given), y, True, True)
    torch.library.opcheck(ops.attack_release_backward, backward, test_utils=QUICK)


@compiled_elsewhere
def test_compile(backend: str) -> None:
    torch._dynamo.reset()
    _, a, r, _ = leaves(1, 1, 1)

    def function(x: Tensor, a: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return attack_release(x, a, r, dim=1)

    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=True)
    compiled(operands(3, 20, 4)[0].requires_grad_(), a, r)[0].sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((2, 30, 5), (9, 170, 3)):
            inputs = [operands(*shape)[0].requires_grad_(), a, r]
            found = []
            for one in (compiled, function):
                y, last = one(*inputs)
                found.append((y, *torch.autograd.grad(y.square().sum() + last.sum(), inputs)))
            for actual, expected in zip(*found, strict=True):
                assert_close(actual.flatten(), expected.flatten(), 1e-12)


def test_float32_needs_neither_float64_nor_complex(mps_safe: type, readable: bool) -> None:
    given = [t.requires_grad_() for t in operands(2, 100, 2, dtype=torch.float32)]
    with mps_safe():
        y, _ = attack_release(given[0], 0.1, 0.2, dim=1)
        first = torch.autograd.grad(ops.attack_release_rows(*given)[0].sum() + y.sum(), given, create_graph=True)
        torch.autograd.grad(first[0].square().sum(), given)


def test_autocast() -> None:
    x, a, r, _ = operands(2, 100, 2, dtype=torch.float32)
    expected = attack_release(x, a, r, dim=1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attack_release(x, a, r, dim=1)[0], expected)


def test_memory() -> None:
    """Beside signal and result, a few times as much at most, forward and backward."""
    x, a, r, state = (t.float().requires_grad_() for t in operands(2, 4000, 150))
    with Held(x, a, r, state) as held, torch.no_grad():
        reference.attack_release(x, a, r, state)
    assert held.most < 3.5 * x.nbytes
    with torch.no_grad():
        y, last = reference.attack_release(x, a, r, state)
        with Held(x, a, r, state, y) as held:
            reference.attack_release_backward(y, last, x, a, r, state, y, True, True)
    assert held.most < 7 * x.nbytes


@pytest.mark.parametrize("constant", [0.0, 1.5, -0.5])
def test_constants_that_cannot_be_checked(constant: float) -> None:
    """The operator itself does not refuse what makes no low-pass, and gives what frame by frame gives."""
    x, a, _, state = operands(2, 200, 2, attack=0.01)
    r = torch.tensor(constant, dtype=torch.float64)
    y, _ = ops.attack_release_rows(x, a, r, state)
    assert torch.equal(y, reference._plain(x, a, r, state))
    given = [t.clone().requires_grad_() for t in (x, a, r, state)]
    wanted = torch.autograd.grad(reference._plain(*given).sum(), given)
    for g, e in zip(torch.autograd.grad(ops.attack_release_rows(*given)[0].sum(), given), wanted, strict=True):
        assert_close(g.flatten(), e.flatten(), 1e-12)


def test_errors() -> None:
    x = torch.zeros(2, 5)
    with pytest.raises(ValueError, match=re.escape("x must have shape (..., T, ...), got ()")):
        attack_release(x[0, 0], 0.1, 0.1)
    with pytest.raises(TypeError, match=re.escape("x must be float32 or float64, got torch.int64")):
        attack_release(x.long(), 0.1, 0.1)
    for wrong in (0.0, -0.1, 1.001, math.nan):
        for name, pair in (("attack", (wrong, 0.1)), ("release", (0.1, torch.tensor(wrong)))):
            with pytest.raises(ValueError, match=re.escape(f"{name} must lie in (0, 1], got {wrong:g}")):
                attack_release(x, *pair)
            with pytest.raises(ValueError, match=re.escape(f"{name} must lie in (0, 1], got {wrong}")):
                tamt.AttackRelease(*(float(constant) if constant == 0.1 else wrong for constant in pair))
    with pytest.raises(ValueError, match=re.escape("attack must have shape (), got (1,)")):
        attack_release(x, torch.full((1,), 0.1), 0.1)
    with pytest.raises(TypeError, match=re.escape("release must have x's type and device, torch.float32 on cpu, got")):
        attack_release(x, 0.1, torch.tensor(0.1).double())
    with pytest.raises(ValueError, match=re.escape("state must have shape (2,), got (5,)")):
        attack_release(x, 0.1, 0.1, state=torch.zeros(5))
    with pytest.raises(TypeError, match=re.escape("state must have x's type and device, torch.float32 on cpu, got")):
        attack_release(x, 0.1, 0.1, state=torch.zeros(2).double())
    for dim in (2, -3):
        with pytest.raises(ValueError, match=re.escape(f"dim must lie in [-2, 2) for (2, 5), got {dim}")):
            attack_release(x, 0.1, 0.1, dim=dim)
    message = "x, attack, release and state must have the shapes (B, T, C), (), () and (B, C), got (2, 5)"
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.attack_release_rows(x, torch.tensor(0.1), torch.tensor(0.1), x)
