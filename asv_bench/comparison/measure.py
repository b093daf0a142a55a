"""One piece of work that several libraries can do: their errors, their times in turn, their memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from asv_bench.benchmarks.common import peak_memory, timed

from .peers import Absent

SECONDS_PER_PAIR = 1.0


# What a contender is: it makes ready and returns the call to be timed, or raises Absent.
Contender = Callable[[], Callable[[], Any]]


class Other(NamedTuple):
    """A contender that computes another quantity, for the same purpose: it has a time, but no error."""

    quantity: str
    contender: Contender


@dataclass(frozen=True)
class Work:
    """A load, what comes out in float64, and who computes it; ``error`` compares what a call returns with that."""

    load: str
    expected: Any
    error: Callable[[Any, Any], float]
    limit: float  # beyond this a result is another one than was asked for, and its time is no figure
    unit: str  # of error and limit
    tamt: Contender
    peers: dict[str, Contender] = field(default_factory=dict)
    others: dict[str, Other] = field(default_factory=dict)


WORKS: dict[str, Callable[[str, str], Work]] = {}  # by what is done, in the words of the tables


def work(name: str) -> Callable[[Callable[[str, str], Work]], Callable[[str, str], Work]]:
    """Enter a function, of a device and a type, among the works that are compared."""

    def enter(build: Callable[[str, str], Work]) -> Callable[[str, str], Work]:
        WORKS[name] = build
        return build

    return enter


def compared(work: Work, device: str) -> Iterator[dict[str, Any]]:
    """A row for tamt, then one per peer: error, memory, and where the error allows it the time beside tamt's.

    Those of another quantity say so in place of the error.
    """
    ours = work.tamt()
    row, seconds = _checked("tamt", ours, work, device)
    if row["error"] is None or row["error"] > work.limit:
        raise RuntimeError(f"tamt, {work.load}: error {row['error']} {work.unit} exceeds {work.limit:.0e}")
    yield row | {"seconds": min(timed(ours, device) for _ in range(_rounds(seconds)))}
    named = {name: Other("", set_up) for name, set_up in work.peers.items()} | work.others
    for name, (quantity, set_up) in named.items():
        try:
            peer = set_up()
        except Absent as reason:
            yield {"contender": name, "absent": str(reason)}
            continue
        row, other = _checked(name, peer, work, device, quantity)
        if quantity or (row["error"] is not None and row["error"] <= work.limit):
            pairs = [(timed(ours, device), timed(peer, device)) for _ in range(_rounds(seconds + other))]
            mine, theirs = (min(column) for column in zip(*pairs, strict=True))
            row |= {"seconds": theirs, "tamt_seconds": mine, "ratio": theirs / mine}
        yield row


def _checked(
    name: str, call: Callable[[], Any], work: Work, device: str, quantity: str = ""
) -> tuple[dict[str, Any], float]:
    """Error (None where it is infinite) and memory of a contender, and about how long a call takes."""
    found = call()
    error = math.inf if quantity else work.error(found, work.expected)
    seconds = timed(call, device)
    peak = peak_bytes(call, device)
    row = {"contender": name, "error": error if math.isfinite(error) else None, "peak_bytes": peak}
    row |= {"quantity": quantity} if quantity else {}
    return row, seconds


def peak_bytes(call: Callable[[], Any], device: str) -> int | None:
    """Peak memory of a call, None where it cannot be read."""
    try:
        return peak_memory(call, device)
    except NotImplementedError:
        return None


def without_gradient(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """The call of ``function`` that keeps nothing for a backward pass."""

    def call() -> Any:
        with torch.no_grad():
            return function(*args)

    return call


def _rounds(seconds: float) -> int:
    return max(2, min(25, int(SECONDS_PER_PAIR / seconds)))
