"""What Triton's interpreter does not show: it runs programs one after the other, each as if it had a single lane.

Inside :func:`watched` the programs of a launch run in a random order, and new memory holds a NaN that marks it. A
launch ends with an AssertionError where a program loads or stores what another one stores, where it loads or stores
again what it has stored with no barrier between, where one store has two values for an element, and where it loads
what nobody has written; it stops where one reaches beyond its operands' memory. Atomic operations are not looked at.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

UNWRITTEN = {4: 0x7FD5AA55, 8: 0x7FFD5AA5AA55A55A}  # by size: bits of a NaN that no operation makes
MANY = 1 << 26  # numbers
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Access(NamedTuple):
    """Elements that a program loads or stores at once."""

    addresses: np.ndarray
    epoch: int  # counts barriers and programs


class Watch:
    """What the programs of a launch do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # The first and the last so many programs of a launch are all that run; what others leave unwritten is 0.
        self.few: int | None = None

    def marked(self, t: Tensor) -> Tensor:
        """``t`` filled with what marks memory as not written, if its numbers are floating or complex.

        Not if it has very many: of such a tensor the system has given no memory yet.
        """
        parts = torch.view_as_real(t) if t.is_complex() else t
        if parts.dtype in INTEGERS and parts.numel() < MANY:
            bits = UNWRITTEN[parts.element_size()] if self.few is None else 0
            parts.view(INTEGERS[parts.dtype]).fill_(bits)
        return t

    def begin(self, kernel: str, grid: tuple[int, ...], operands: Iterable[Any]) -> int:
        """A launch, of so many programs."""
        self.kernel = kernel
        self.grid = (*grid, 1, 1)[:3]
        count = math.prod(grid)
        every = self.few is None or count <= 2 * self.few
        self.order = [*range(count)] if every else [*range(self.few), *range(count - self.few, count)]
        self.random.shuffle(self.order)
        memory = [t.untyped_storage() for t in operands if isinstance(t, Tensor)]
        known = sorted({(m.data_ptr(), m.data_ptr() + m.nbytes()) for m in memory})
        self.starts, self.ends = np.array([(0, 0), *known], dtype=np.uint64).T
        self.programs: list[int] = []  # of each epoch
        self.loads: list[Access] = []
        self.stores: list[Access] = []
        self.earlier: list[int] = []  # stores before each load
        self.problems: set[str] = set()
        return len(self.order)

    def program(self) -> Iterable[int]:
        """The next one's place in the grid."""
        self.programs.append(self.order.pop())
        return map(int, np.unravel_index(self.programs[-1], self.grid))

    def barrier(self) -> None:
        self.programs.append(self.programs[-1])

    def access(self, pointers: Any, mask: Any) -> Access:
        """What an operation is about to load or store, which must be in the memory of an operand."""
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        inside = addresses < self.ends[np.searchsorted(self.starts, addresses, "right") - 1]
        assert inside.all(), f"{self.kernel}: a program reaches beyond its operands"
        return Access(addresses, len(self.programs) - 1)

    def load(self, pointers: Any, mask: Any) -> None:
        self.loads.append(self.access(pointers, mask))
        self.earlier.append(len(self.stores))

    def loaded(self, mask: Any, loaded: Any) -> None:
        """What it has loaded."""
        values = np.ascontiguousarray(loaded.data)[np.broadcast_to(mask.data, loaded.data.shape)]
        if values.dtype.kind == "f" and (values.view(f"u{values.itemsize}") == UNWRITTEN[values.itemsize]).any():
            self.problems.add("a program loads what nobody has written")

    def store(self, pointers: Any, mask: Any) -> None:
        self.stores.append(self.access(pointers, mask))

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
def watched(seed: int = 0) -> Iterator[Watch]:
    """Inside, launches are as told at the top of this file."""
    watch = Watch(seed)
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    call, barrier, idx, dim = executor.__call__, builder.create_barrier, builder.set_grid_idx, builder.set_grid_dim
    load, store = builder.create_masked_load, builder.create_masked_store
    new_empty, empty, empty_like = Tensor.new_empty, torch.empty, torch.empty_like

    def launched(self: Any, *args: Any, **options: Any) -> None:
        count = watch.begin(self.fn.__name__, self.grid, (*args, *options.values()))
        self.grid = (count,)
        call(self, *args, **options)
        watch.end()

    def with_load(self: Any, pointers: Any, mask: Any, other: Any, *options: Any) -> Any:
        watch.load(pointers, mask)
        loaded = load(self, pointers, mask, other, *options)
        watch.loaded(mask, loaded)
        return loaded

    def with_store(self: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        watch.store(pointers, mask)
        return store(self, pointers, value, mask, *options)

    with contextlib.ExitStack() as stack:
        for owner, name, instead in (
            (executor, "__call__", launched),
            (builder, "create_barrier", lambda self, *a: watch.barrier() or barrier(self, *a)),
            (builder, "set_grid_dim", lambda self, *grid: dim(self, *watch.grid)),
            (builder, "set_grid_idx", lambda self, *place: idx(self, *watch.program())),
            (builder, "create_masked_load", with_load),
            (builder, "create_masked_store", with_store),
            (Tensor, "new_empty", lambda *a, **k: watch.marked(new_empty(*a, **k))),
            (torch, "empty", lambda *a, **k: watch.marked(empty(*a, **k))),
            (torch, "empty_like", lambda *a, **k: watch.marked(empty_like(*a, **k))),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        yield watch
