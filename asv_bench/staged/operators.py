"""Every operation at its reference load: checked, then timed as a whole and kernel by kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from asv_bench.kernels.machine_code import compiling, intercepted
from asv_bench.kernels.times import error, measured
from asv_bench.kernels.traffic import size_in_bytes
from asv_bench.operations import OPERATIONS, Operation, Pass, operations, passes, tensors

from .device import Device
from .rows import Rows

CHECKED_ROWS = 8
TINY = operations(most_samples=70, most_channels=2)
NAMES = tuple(sorted(OPERATIONS, key=lambda name: OPERATIONS[name].priority))


def operation(name: str, device: Device) -> Operation:
    return device.size(OPERATIONS, TINY)[name]


def measure(name: str, device: Device, rows: Rows, bandwidth: float) -> None:
    """Rows of one operation: its errors, the times of its passes, the times of their kernels."""
    one = operation(name, device)
    right = {direction: checked(name, device, rows, direction) for direction in one.directions}
    device.empty()
    with rows.guarded(f"{name}: operands"):
        for direction, functions, given in passes(one, device.name, device.size(one.rows, 1)):
            if right[direction]:
                with rows.guarded(f"{name} {direction}"):
                    timed(name, direction, partial(functions.launcher, *given), given, device, rows, bandwidth)
            device.empty()


def checked(name: str, device: Device, rows: Rows, wanted: str) -> bool:
    """Whether a pass is right at a few rows; if not, a row says so and nothing is timed."""
    one = operation(name, device)
    with rows.guarded(f"{name} {wanted} error"):
        found = error(*one_pass(one, wanted, device.name, device.size(CHECKED_ROWS, 1)))
        rows.add(f"{name} {wanted} error", error=found, limit=one.limit, right=found <= one.limit)
        return found <= one.limit
    return False


def timed(
    name: str, direction: str, call: Any, given: tuple[Any, ...], device: Device, rows: Rows, bandwidth: float
) -> None:
    what, of = f"{name} {direction}", {"operation": name, "direction": direction}
    least = sum(map(size_in_bytes, (*tensors(given), *tensors(call()))))
    seconds = device.seconds(call)
    figures = {"seconds": seconds, "bytes": least, "over_floor": seconds * bandwidth / least}
    rows.add(what, **of, **figures, launch_to_launch=device.launch_to_launch(call))
    with rows.guarded(f"{what} graph"):
        replay = device.graphed(call)
        rows.add(f"{what} graph", seconds=replay and device.seconds(replay))
        del replay
    if device.rehearse:
        return  # Triton's interpreter has no launches to look at
    for row in measured(call):
        floor = row["bytes"] and row["bytes"] / bandwidth
        rows.add(f"{what} kernel", **of, **row, share_of_floor=floor and floor / row["seconds"])


def compile_ahead(target: str, name: str, direction: str, count: int, *more: Any) -> None:
    """Fill Triton's cache with the kernels of a pass of ``count`` rows, without a device, so that many can do so."""
    functions, given = one_pass(OPERATIONS[name], direction, "meta", count)
    with compiling(target):
        functions.launcher(*given, *more)


def one_pass(one: Operation, wanted: str, device: str, count: int) -> tuple[Pass, tuple[Any, ...]]:
    """Functions and operands of one direction."""
    quiet = intercepted(lambda launch, run: None) if device == "meta" else contextlib.nullcontext()
    with quiet:
        return next((f, given) for direction, f, given in passes(one, device, count) if direction == wanted)


def ahead() -> Iterator[tuple[str, str, int]]:
    """What :func:`compile_ahead` is to be given, all operations' passes at both sizes that are run."""
    for name in NAMES:
        for direction in OPERATIONS[name].directions:
            for count in (CHECKED_ROWS, OPERATIONS[name].rows):
                yield name, direction, count
