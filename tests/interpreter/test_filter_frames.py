"""Means over hops of filters' outputs, by the Triton kernels in Triton's interpreter, against the definition."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_operands

from tamt.ops.filter_frames import _definition as definition
from tamt.triton_kernels import filter_frames as engine
from tamt.triton_kernels.filter_frames import Slices, backward, filter_frames, filter_frames_backward, forward
from tamt.triton_kernels.iir import Tiling

SMALL = Tiling(superblock=64, chunk=2, top=2, short=0)  # a few hundred samples go through many levels
SLICES = Slices(SMALL, 256, 32, 3000, 8192)
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


class Case(NamedTuple):
    x: Tensor
    coef: Tensor
    state: Tensor


def make_case(kind: str, order: int, length: int, dtype: torch.dtype, batch: int = 2, channels: int = 2) -> Case:
    x, coef, state = (t.to(dtype) for t in example_operands(kind, order, length, False, batch, channels))
    return Case(x[:, 0], coef, state)


def check_forward(case: Case, *given: object, tiling: Tiling | None = SMALL, most: int = engine.STATES) -> None:
    means, final = filter_frames(*case, *given, tiling, most)
    for actual, wanted in zip((means, final), definition(*(t.double() for t in case), *given), strict=True):
        assert actual.is_contiguous()
        assert_close(actual, wanted, TOLERANCE[actual.dtype], dtype=actual.dtype)


@pytest.mark.parametrize(
    ("kind", "order", "hop", "length", "detector", "dtype"),
    [
        ("onepole", 2, 441, 1000, "envelope", torch.float32),  # a hop has many superblocks, and two a part of one
        ("modal", 2, 16, 150, "power", torch.float32),
        ("biquad", 2, 7, 170, "halfwave", torch.float64),
        ("onepole", 4, 32, 200, "power", torch.float64),
        ("allpole", 2, 128, 300, "envelope", torch.float64),  # a hop is some superblocks
        ("modal", 1, 41, 250, "halfwave", torch.float64),
        ("onepole", 1, 160, 350, "halfwave", torch.float32),
        ("biquad", 1, 100, 700, "power", torch.float32),
        ("onepole", 2, 1, 70, "power", torch.float32),
        ("allpole", 1, 5, 15, "power", torch.float32),  # no trip
        ("onepole", 8, 17, 100, "envelope", torch.float32),
        ("allpole", 3, 10, 330, "envelope", torch.float32),
    ],
)
def test_means(kind: str, order: int, hop: int, length: int, detector: str, dtype: torch.dtype) -> None:
    check_forward(make_case(kind, order, length, dtype), kind, order, hop, detector)


@pytest.mark.parametrize(("hop", "most"), [(7, 300), (160, 300), (32, 600)])
def test_a_signal_in_parts(hop: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows, or of time."""
    parts = []
    one_part = forward.one_part
    monkeypatch.setattr(forward, "one_part", lambda *a: parts.append(a) or one_part(*a))
    check_forward(make_case("onepole", 1, 500, torch.float64), "onepole", 1, hop, "power", most=most)
    assert len(parts) > 1


@pytest.mark.parametrize(("hop", "length"), [(160, 1000), (441, 500)])
def test_default_tiling(hop: int, length: int) -> None:
    check_forward(make_case("onepole", 4, length, torch.float32, 1, 2), "onepole", 4, hop, "power", tiling=None)


@pytest.mark.parametrize(
    ("hop", "superblock"),
    [(160, 320), (240, 480), (512, 512), (16, 320), (320, 320), (4096, 256), (16000, 320), (441, 256), (1, 256)],
)
def test_superblocks_fit_hops(hop: int, superblock: int) -> None:
    assert engine.tiling_for(hop).superblock == superblock
    assert engine.ends_together(hop, superblock) == (hop not in (441, 1))


@pytest.mark.parametrize("hop", [20, 21])
def test_no_hop(hop: int) -> None:
    case = make_case("biquad", 1, 19, torch.float32)
    means, final = filter_frames(*case, "biquad", 1, hop, "power", SMALL)
    assert means.shape == (2, 2, 0)
    assert torch.equal(final, case.state)
    grads = filter_frames_backward(means, final, *case, "biquad", 1, hop, "power", True, True, SLICES)
    assert [g.any().item() for g in grads] == [False, True, False]
    assert torch.equal(grads[1], final)


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (2, 0)])
def test_no_rows_or_no_channels(batch: int, channels: int) -> None:
    x, coef, state = make_case("biquad", 1, 40, torch.float32, batch)
    case = x, coef[:channels], state[:, :channels]
    means, final = filter_frames(*case, "biquad", 1, 7, "power")
    assert means.shape == (batch, channels, 5)
    assert final.shape == case[2].shape
    grads = filter_frames_backward(means, final, *case, "biquad", 1, 7, "power", True, True)
    assert [g.shape for g in grads] == [x.shape, case[2].shape, case[1].shape]
    assert not grads[0].any()


def test_any_strides() -> None:
    x, coef, state = make_case("onepole", 1, 80, torch.float32)
    wanted = filter_frames(x, coef, state, "onepole", 1, 9, "power", SMALL)
    other = x.mT.contiguous().mT, coef.mT.contiguous().mT, state.mT.contiguous().mT
    for actual, expected in zip(filter_frames(*other, "onepole", 1, 9, "power", SMALL), wanted, strict=True):
        assert torch.equal(actual, expected)


def test_gradients_of_any_strides() -> None:
    """Dense ones whose dimensions are in another order, as of means that were permuted, are taken as they are."""
    case = make_case("onepole", 1, 80, torch.float32)
    grads = tuple(torch.randn_like(t) for t in filter_frames(*case, "onepole", 1, 16, "power", SMALL))
    other = tuple(grad.permute(2, 0, 1).contiguous().permute(1, 2, 0) for grad in grads)
    wanted, found = (filter_frames_backward(*g, *case, "onepole", 1, 16, "power", True, True) for g in (grads, other))
    for actual, expected in zip(found, wanted, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("kind", "order", "hop", "length", "detector", "dtype"),
    [
        ("onepole", 2, 37, 130, "power", torch.float32),
        ("onepole", 1, 16, 100, "power", torch.float32),
        ("onepole", 1, 160, 200, "halfwave", torch.float32),
        ("onepole", 2, 16, 100, "envelope", torch.float32),
        ("onepole", 1, 160, 330, "envelope", torch.float32),
        ("onepole", 1, 441, 450, "envelope", torch.float32),  # a tail after the last trip, in slices
        ("onepole", 1, 7, 50, "envelope", torch.float64),
        ("allpole", 1, 100, 110, "envelope", torch.float64),
        ("modal", 1, 41, 100, "halfwave", torch.float64),
        ("biquad", 1, 7, 81, "power", torch.float32),
    ],
)
def test_gradients(kind: str, order: int, hop: int, length: int, detector: str, dtype: torch.dtype) -> None:
    """Of means and final state, against autograd through the definition; slices are shorter than some hops."""
    case = make_case(kind, order, length, dtype)
    leaves = [t.double().requires_grad_() for t in case]
    results = definition(*leaves, kind, order, hop, detector)
    weights = [torch.randn_like(t).to(dtype) for t in results]
    wanted = torch.autograd.grad(results, leaves, [w.double() for w in weights])
    grad_x, grad_state, grad_coef = filter_frames_backward(
        *weights, *case, kind, order, hop, detector, True, True, SLICES
    )
    assert_close(grad_x, wanted[0], TOLERANCE[dtype], dtype=dtype)
    assert_close(grad_state, wanted[2], TOLERANCE[dtype], dtype=dtype)
    # Columns (coefficients) differ in size by orders; each is held against its own largest value.
    assert_close(grad_coef.mT, wanted[1].mT, 30 * TOLERANCE[dtype], dtype=dtype)


def test_what_stays_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-pole cascades in float32, hops of at least a trip, of envelopes with at most 4 sections."""
    calls = []
    for name in ("onepole_backward", "sliced_backward"):
        monkeypatch.setattr(backward, name, lambda *a, name=name: calls.append(name) or a[:3])

    def kept(kind: str, order: int, hop: int, detector: str, dtype: torch.dtype = torch.float32) -> bool:
        calls.clear()
        weights = torch.zeros(2, 2, 40 // hop, dtype=dtype), torch.zeros(2, 2, 2 * order, dtype=dtype)
        filter_frames_backward(*weights, *make_case(kind, order, 40, dtype), kind, order, hop, detector, False, True)
        return calls == ["onepole_backward"]

    assert all(kept("onepole", 4, 16, detector) for detector in ("power", "halfwave", "envelope"))
    assert kept("onepole", 5, 16, "power")
    assert not kept("onepole", 5, 16, "envelope")
    assert not kept("onepole", 4, 15, "envelope")
    assert not kept("onepole", 4, 16, "envelope", torch.float64)
    assert not kept("allpole", 4, 16, "envelope")


def test_gradients_that_are_not_needed_are_empty() -> None:
    case = make_case("onepole", 1, 70, torch.float32)
    weights = torch.randn(2, 2, 10), torch.randn(2, 2, 2)
    whole = filter_frames_backward(*weights, *case, "onepole", 1, 7, "power", True, True, SLICES)
    for need in ((False, False), (True, False), (False, True)):
        part = filter_frames_backward(*weights, *case, "onepole", 1, 7, "power", *need, SLICES)
        for needed, a, b in zip((need[0], True, need[1]), part, whole, strict=True):
            assert torch.equal(a, b) if needed else a.numel() == 0


def test_states_of_parts_of_time_are_not_overwritten_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs run in any order: none may write the final state to where another has still to read the first one."""
    module = importlib.import_module(filter_frames.__module__)
    one_part, parts = module.one_part, []

    def watched(run: Any, means: Tensor, final: Tensor, *given: object) -> None:
        parts.append((run.state.untyped_storage().data_ptr(), final.untyped_storage().data_ptr()))
        one_part(run, means, final, *given)

    monkeypatch.setattr(module, "one_part", watched)
    case = make_case("onepole", 1, 500, torch.float64)
    check_forward(case, "onepole", 1, 16, "power", most=200)
    assert len(parts) > 2
    assert all(read != written for read, written in parts)
