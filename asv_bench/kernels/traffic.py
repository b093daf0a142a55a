"""The bytes a launch has to move, from the kernel's own code and the tensors it was given.

Which pointers a kernel loads through and stores through is read from its TTIR, Triton's first intermediate language. An
operand counts once if it is loaded and once if it is stored, however often programs touch it: that is what a cache as
large as the data would leave. Where a kernel reads part of an operand only, and outside of loops, the size of all
programs' tiles is the limit.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from typing import NamedTuple

from torch import Tensor

VALUE = re.compile(r"%[\w.$-]+(?:#\d+)?")
UNKNOWN = re.compile(r"\bcf\.|tt\.call|descriptor|make_tensor_ptr")


class Traffic(NamedTuple):
    """Bytes loaded from, and stored to, each operand of one launch."""

    loads: dict[str, int]
    stores: dict[str, int]

    def bytes(self) -> int:
        return sum(self.loads.values()) + sum(self.stores.values())


class Access(NamedTuple):
    """How many elements a program loads from, or stores to, each pointer argument; infinite inside of a loop."""

    loads: dict[int, float]
    stores: dict[int, float]


class _Region(NamedTuple):
    """What is between braces."""

    names: dict[str, int]  # of the values defined in it, each with a number of its own: regions reuse names
    yields: list[tuple[int, ...]]  # the values that get each operand of its ``scf.yield``
    loop: bool


def size_in_bytes(tensor: Tensor) -> int:
    """Of the distinct elements: an expanded dimension has one."""
    counts = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not n)
    return math.prod(counts) * tensor.element_size()


def traffic(ttir: str, operands: dict[str, Tensor], programs: int) -> Traffic:
    """Of a launch of ``programs`` programs; ``operands`` are the tensors among the kernel's arguments, in order."""
    access = accesses(ttir)

    def in_bytes(elements: dict[int, float]) -> dict[str, int]:
        named = {list(operands)[k]: n for k, n in sorted(elements.items())}
        return {
            name: int(min(size_in_bytes(operands[name]), programs * n * operands[name].element_size()))
            for name, n in named.items()
        }

    return Traffic(in_bytes(access.loads), in_bytes(access.stores))


@functools.cache
def accesses(ttir: str) -> Access:
    """Which pointer arguments, by position among them, the kernel's loads and stores come from."""
    if unknown := UNKNOWN.search(ttir):
        raise NotImplementedError(f"TTIR with {unknown[0]}")
    lines = [line.strip() for line in re.sub(r" loc\([^()]*\)", "", ttir).splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("tt.func public"))
    arguments = re.findall(r"(%\w+): !tt\.ptr", lines[start])
    origins = [frozenset([k]) for k in range(len(arguments))]
    # A loop gives what it yields to its own beginning, so the body is read until nothing is new.
    while True:
        before = list(origins)
        found, lost = _read(lines[start + 1 :], arguments, origins)
        if before == origins:
            if lost:
                raise NotImplementedError(f"a pointer of unknown origin in {lost[0]!r}")
            return found


def _read(lines: list[str], arguments: list[str], origins: list[frozenset[int]]) -> tuple[Access, list[str]]:
    """The accesses of a function's body, and those through pointers of unknown origin.

    ``origins`` are the arguments that each value may come from, as known.
    """
    found, lost = Access(defaultdict(float), defaultdict(float)), []
    regions = [_Region({name: k for k, name in enumerate(arguments)}, [], False)]
    count = len(arguments)

    def define(names: list[str], region: _Region, sources: list[frozenset[int]]) -> list[int]:
        nonlocal count
        numbers = list(range(count, count + len(names)))
        count += len(names)
        origins.extend([frozenset()] * (count - len(origins)))
        region.names.update(zip(names, numbers, strict=True))
        for number, source in zip(numbers, sources, strict=True):
            origins[number] |= source
        return numbers

    def origin(name: str) -> frozenset[int]:
        return next((origins[r.names[name]] for r in reversed(regions) if name in r.names), frozenset())

    for line in lines:
        left, equals, right = line.partition(" = ")
        defines = bool(equals) and VALUE.match(left) is not None
        operation, results = (right, _results(left)) if defines else (line, [])
        values = [origin(name) for name in VALUE.findall(operation)]
        if line.startswith(("} else", "} do")):  # a while loop's condition comes before its body
            regions[-1].names.clear()
        elif line.endswith("{"):
            outer = define(results, regions[-1], [frozenset()] * len(results))
            regions.append(_Region({}, [(number,) for number in outer], operation.startswith(("scf.for", "scf.while"))))
            if operation.startswith("scf.for"):
                carried = re.findall(r"(%[\w.$-]+) = (%[\w.$#-]+)", operation.partition("iter_args")[2])
                inner = define([name for name, _ in carried], regions[-1], [origin(first) for _, first in carried])
                regions[-1].yields[:] = zip(outer, inner, strict=True)
        elif line.startswith("}"):
            regions.pop()
            if not regions:
                break
        elif operation.startswith("scf.yield"):
            for numbers, value in zip(regions[-1].yields, values, strict=True):
                for number in numbers:
                    origins[number] |= value
        elif operation.startswith(("tt.load", "tt.store", "tt.atomic")):
            elements = math.inf if any(region.loop for region in regions) else _elements(operation)
            lost += [operation] * (not values[0])
            for k in values[0]:
                if not operation.startswith("tt.store"):
                    found.loads[k] += elements
                if not operation.startswith("tt.load"):
                    found.stores[k] += elements
            define(results, regions[-1], [frozenset()] * len(results))
        else:
            define(results, regions[-1], [frozenset().union(*values)] * len(results))
    return found, lost


def _results(left: str) -> list[str]:
    """``%a``, ``%a, %b`` or ``%a:3`` as the names by which the results are used."""
    name, _, count = left.partition(":")
    return [f"{name}#{k}" for k in range(int(count))] if count else name.split(", ")


def _elements(operation: str) -> int:
    shape = re.search(r"tensor<((?:\d+x)*)", operation.rpartition(" : ")[2])
    return math.prod(int(n) for n in shape[1].split("x") if n) if shape else 1
