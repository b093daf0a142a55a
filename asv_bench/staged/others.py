"""tamt beside its peers, and growth over length, batch and channels, an operation or an axis at a time."""

from __future__ import annotations

from asv_bench import growth
from asv_bench.comparison.measure import WORKS
from asv_bench.comparison.peers import versions
from asv_bench.comparison.run import rows_of
from asv_bench.registry import MODULES

from .device import Device
from .rows import Rows

REHEARSED = ["peers", "compare, ERB bands, float32", "growth, ERBIntegration, channels"]


def items() -> list[str]:
    """The peers that are here, comparison in float32, growth, comparison in float64."""
    compared = [[f"compare, {name}, {dtype}" for name in WORKS] for dtype in ("float32", "float64")]
    grown = [f"growth, {name}, {axis}" for name, module in MODULES.items() for axis in module.growth.start]
    return ["peers", *compared[0], *grown, *compared[1]]


def run(name: str, device: Device, rows: Rows) -> None:
    if name == "peers":
        rows.add("peers", peers=versions())
    elif name.startswith("compare"):
        operation, dtype = name.removeprefix("compare, ").rsplit(", ", 1)
        for row in rows_of(operation, dtype, device.name):
            rows.add("compare", **row)
    else:
        module, axis = name.removeprefix("growth, ").rsplit(", ", 1)
        for row in growth.points(module, axis, device.name):
            rows.add("growth", **row)
