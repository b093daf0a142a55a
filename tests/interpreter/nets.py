"""What Triton's interpreter does not show: it runs programs one after the other, each as if it had a single lane.

Inside :func:`watched` the programs of a launch run in a random order, and new memory holds a NaN that marks it. A
launch ends with an AssertionError where a program loads or stores what another one stores, where it loads or stores
again what it has stored with no barrier between, where one store has two values for an element, and where it loads
what nobody has written. Atomic operations are not looked at.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

UNWRITTEN = {4: 0x7FD5AA55, 8: 0x7FFD5AA5AA55A55A}  # by size: bits of a NaN that no operation makes
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def marked(t: Tensor) -> Tensor:
    """``t`` filled with what marks memory as not written, if its numbers are floating or complex."""
    parts = torch.view_as_real(t) if t.is_complex() else t
    if parts.dtype in INTEGERS:
        parts.view(INTEGERS[parts.dtype]).fill_(UNWRITTEN[parts.element_size()])
    return t


class Access(NamedTuple):
    """Elements that a program loads or stores at once."""

    addresses: np.ndarray
    epoch: int  # counts barriers and programs


class Watch:
    """What the programs of a launch do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.begin("")

    def begin(self, kernel: str) -> None:
        """A launch."""
        self.kernel = kernel
        self.order: list[tuple[int, int, int]] = []
        self.programs: list[int] = []  # of each epoch
        self.loads: list[Access] = []
        self.stores: list[Access] = []
        self.earlier: list[int] = []  # stores before each load
        self.problems: set[str] = set()

    def shuffle(self, *grid: int) -> None:
        """Chooses the order of the programs."""
        self.order = list(np.ndindex(*grid))
        self.random.shuffle(self.order)
        self.grid = grid

    def program(self, *place: int) -> tuple[int, int, int]:
        """Which program runs when it would be this one's turn."""
        turn = int(np.ravel_multi_index(place, self.grid))
        self.programs.append(turn)
        return self.order[turn]

    def barrier(self) -> None:
        self.programs.append(self.programs[-1])

    def load(self, pointers: Any, mask: Any, loaded: Any) -> None:
        m = np.broadcast_to(mask.data, pointers.data.shape)
        self.loads.append(Access(pointers.data[m], len(self.programs) - 1))
        self.earlier.append(len(self.stores))
        values = np.ascontiguousarray(loaded.data)[m]
        if values.dtype.kind == "f" and (values.view(f"u{values.itemsize}") == UNWRITTEN[values.itemsize]).any():
            self.problems.add("a program loads what nobody has written")

    def store(self, pointers: Any, mask: Any) -> None:
        m = np.broadcast_to(mask.data, pointers.data.shape)
        self.stores.append(Access(pointers.data[m], len(self.programs) - 1))

    def end(self) -> None:
        """An AssertionError where something was wrong."""
        self.compare()
        assert not self.problems, f"{self.kernel}: {', '.join(sorted(self.problems))}"

    def compare(self) -> None:
        """Looks for what programs or lanes do to the same elements."""
        if not self.stores:
            return
        programs = np.array(self.programs)
        stored, at, epochs = flattened(self.stores)
        order = np.lexsort((at, stored))
        stored, at, epochs = stored[order], at[order], epochs[order]
        again = np.flatnonzero(stored[1:] == stored[:-1])
        if (programs[epochs[again]] != programs[epochs[again + 1]]).any():
            self.problems.add("two programs store the same element")
        if (epochs[again] == epochs[again + 1]).any():
            self.problems.add("a program stores an element twice with no barrier between")
        if not self.loads:
            return
        loaded, at_load, epochs_of_loads = flattened(self.loads)
        before = np.array(self.earlier)[at_load]  # stores before it
        first, end = np.searchsorted(stored, loaded), np.searchsorted(stored, loaded, "right")
        touched = first < end
        loaded, before, epochs_of_loads = loaded[touched], before[touched], epochs_of_loads[touched]
        first, end = first[touched], end[touched]
        if (programs[epochs[first]] != programs[epochs_of_loads]).any():
            self.problems.add("a program loads what another stores")
        # Of the stores of an element, the last before the load.
        rank = lambda index, turn: index.astype(np.int64) * (len(self.stores) + 1) + turn  # noqa: E731
        group = np.cumsum(np.concatenate(([0], stored[1:] != stored[:-1])))
        last = np.searchsorted(rank(group, at), rank(group[first], before)) - 1
        found = last >= first
        if (epochs[last[found]] == epochs_of_loads[found]).any():
            self.problems.add("a program loads what it has stored with no barrier between")


def flattened(accesses: list[Access]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses, numbers of the accesses, and epochs of all elements."""
    counts = [len(access.addresses) for access in accesses]
    number = np.repeat(np.arange(len(accesses)), counts)
    epochs = np.array([access.epoch for access in accesses])
    return np.concatenate([access.addresses for access in accesses]), number, epochs[number]


@contextlib.contextmanager
def watched(seed: int = 0) -> Iterator[None]:
    """Inside, launches are as told at the top of this file."""
    watch = Watch(seed)
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    call, barrier, idx, dim = executor.__call__, builder.create_barrier, builder.set_grid_idx, builder.set_grid_dim
    load, store = builder.create_masked_load, builder.create_masked_store
    new_empty, empty, empty_like = Tensor.new_empty, torch.empty, torch.empty_like

    def launched(self: Any, *args: Any, **options: Any) -> None:
        watch.begin(self.fn.__name__)
        call(self, *args, **options)
        watch.end()

    def with_dim(self: Any, *grid: int) -> None:
        dim(self, *grid)
        watch.shuffle(*grid)

    def with_load(self: Any, pointers: Any, mask: Any, other: Any, *options: Any) -> Any:
        loaded = load(self, pointers, mask, other, *options)
        watch.load(pointers, mask, loaded)
        return loaded

    def with_store(self: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        watch.store(pointers, mask)
        return store(self, pointers, value, mask, *options)

    with contextlib.ExitStack() as stack:
        for owner, name, instead in (
            (executor, "__call__", launched),
            (builder, "create_barrier", lambda self, *a: watch.barrier() or barrier(self, *a)),
            (builder, "set_grid_dim", with_dim),
            (builder, "set_grid_idx", lambda self, *place: idx(self, *watch.program(*place))),
            (builder, "create_masked_load", with_load),
            (builder, "create_masked_store", with_store),
            (Tensor, "new_empty", lambda *a, **k: marked(new_empty(*a, **k))),
            (torch, "empty", lambda *a, **k: marked(empty(*a, **k))),
            (torch, "empty_like", lambda *a, **k: marked(empty_like(*a, **k))),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        yield
