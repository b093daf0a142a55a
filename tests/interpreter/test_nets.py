"""The nets of :mod:`interpreter.nets` find planted faults, and let what is right pass."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from interpreter.nets import Watch

WIDTH = 4


@triton.jit
def copy(p_in, p_out, from_program, to_program, WIDTH: tl.constexpr):
    """Each program copies WIDTH numbers, from_program and to_program times further than the one before."""
    program, lane = tl.program_id(0), tl.arange(0, WIDTH)
    b_in = tl.load(p_in + program * from_program + lane)
    tl.store(p_out + program * to_program + lane, b_in)


@triton.jit
def mirror(p_memory, p_out, BARRIER: tl.constexpr, WIDTH: tl.constexpr):
    """What a lane has stored another loads."""
    lane = tl.arange(0, WIDTH)
    tl.store(p_memory + lane, lane)
    if BARRIER:
        tl.debug_barrier()
    tl.store(p_out + lane, tl.load(p_memory + (WIDTH - 1 - lane)))


@triton.jit
def overwrite(p_out, BARRIER: tl.constexpr, WIDTH: tl.constexpr):
    """Two stores to the same elements."""
    lane = tl.arange(0, WIDTH)
    tl.store(p_out + lane, lane)
    if BARRIER:
        tl.debug_barrier()
    tl.store(p_out + (WIDTH - 1 - lane), lane)


@triton.jit
def fold(p_out, WIDTH: tl.constexpr):
    """One store with two values for an element."""
    tl.store(p_out + tl.arange(0, WIDTH) // 2, tl.arange(0, WIDTH))


@triton.jit
def enumerate_turns(p_turns, p_out):
    """The programs count who comes when, which is a race."""
    turn = tl.load(p_turns)
    tl.store(p_out + tl.program_id(0), turn)
    tl.store(p_turns, turn + 1)


def test_programs_apart_are_right() -> None:
    given = torch.arange(12.0)
    out = given.new_empty(12)
    copy[(3,)](given, out, WIDTH, WIDTH, WIDTH=WIDTH)
    assert torch.equal(out, given)
    copy[(3,)](given, given, WIDTH, WIDTH, WIDTH=WIDTH)  # in place


def test_programs_that_store_the_same() -> None:
    with pytest.raises(AssertionError, match="copy: two programs store the same element"):
        copy[(3,)](torch.zeros(12), torch.zeros(12), 0, 1, WIDTH=WIDTH)


@pytest.mark.parametrize("step", [WIDTH, 0])
def test_a_program_that_loads_what_another_stores(step: int) -> None:
    """What the next one loads, or what all of them do."""
    memory = torch.zeros(16)
    with pytest.raises(AssertionError, match="copy: a program loads what another stores"):
        copy[(3,)](memory, memory[step:], step, WIDTH, WIDTH=WIDTH)


def test_memory_that_is_no_operand() -> None:
    given, out = torch.zeros(8), torch.zeros(8)
    for operands, steps in (((given, out), (WIDTH, 100)), ((given, out), (-1, WIDTH)), ((given, out[1:]), (0, WIDTH))):
        with pytest.raises(InterpreterError, match="copy: a program reaches beyond its operands"):
            copy[(2,)](*operands, *steps, WIDTH=WIDTH)


def test_memory_that_nobody_has_written() -> None:
    for dtype in (torch.float32, torch.float64):
        for new in (torch.zeros(0).new_empty(8, dtype=dtype), torch.empty_like(torch.zeros(8, dtype=dtype))):
            assert new.isnan().all()
            with pytest.raises(AssertionError, match="copy: a program loads what nobody has written"):
                copy[(2,)](new, torch.zeros(8, dtype=dtype), WIDTH, WIDTH, WIDTH=WIDTH)
            new[:4] = float("nan")  # as any other
            copy[(1,)](new, torch.zeros(8, dtype=dtype), WIDTH, WIDTH, WIDTH=WIDTH)
    assert torch.view_as_real(torch.empty_like(torch.zeros(3, dtype=torch.complex64))).isnan().all()


def test_lanes_that_do_not_wait() -> None:
    memory, out = torch.zeros(WIDTH), torch.zeros(WIDTH)
    mirror[(1,)](memory, out, BARRIER=True, WIDTH=WIDTH)
    assert torch.equal(out, torch.tensor([3.0, 2.0, 1.0, 0.0]))
    with pytest.raises(AssertionError, match="mirror: a program loads what it has stored with no barrier between"):
        mirror[(1,)](memory, out, BARRIER=False, WIDTH=WIDTH)
    overwrite[(1,)](out, BARRIER=True, WIDTH=WIDTH)
    with pytest.raises(AssertionError, match="overwrite: a program stores an element twice with no barrier between"):
        overwrite[(1,)](out, BARRIER=False, WIDTH=WIDTH)
    with pytest.raises(AssertionError, match="fold: a program stores an element twice with no barrier between"):
        fold[(1,)](out, WIDTH=WIDTH)


def test_programs_run_in_another_order() -> None:
    turns, out = torch.zeros(1), torch.zeros(9)
    with pytest.raises(AssertionError, match="enumerate_turns: a program loads what another stores, two programs"):
        enumerate_turns[(9,)](turns, out)
    assert sorted(out.tolist()) == list(range(9))
    assert out.tolist() != list(range(9))


def test_the_first_and_the_last_programs(watch: Watch) -> None:
    out = torch.zeros(9 * WIDTH)
    watch.few = 2
    copy[(9,)](torch.ones(WIDTH), out, 0, WIDTH, WIDTH=WIDTH)
    assert out.view(9, WIDTH).any(1).nonzero().flatten().tolist() == [0, 1, 7, 8]
