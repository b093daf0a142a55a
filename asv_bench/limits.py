"""What the project asks of its figures on two CPU cores, and where a result leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asv_bench.registry import MODULES, Limit

LIMITS = tuple(limit for module in MODULES.values() for limit in module.limits)


def judged(rows: list[dict[str, Any]]) -> Iterator[tuple[Limit, float]]:
    """Every limit of which the results have a figure, with the largest one."""
    for limit in LIMITS:
        found = [
            row["value"]
            for row in rows
            if row["benchmark"] == limit.benchmark and all(holds(row["parameters"], p) for p in limit.parameters)
        ]
        if found:
            yield limit, max(found)


def holds(parameters: list[str], wanted: str) -> bool:
    """Whether one of them is, or is a pair of a device and a load with, the wanted one."""
    return any(p == wanted or (p.startswith("(") and wanted in p) for p in parameters)
