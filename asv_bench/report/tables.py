"""Markdown tables of results, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as text too."""
    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(3, *(len(row[k]) for row in cells)) for k in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def seconds(value: float) -> str:
    """In the unit that suits, three digits."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def size(value: float | None) -> str:
    """Bytes in MiB."""
    return "" if value is None else f"{value / 2**20:.3g} MiB"


def times(value: float) -> str:
    """A ratio, two digits."""
    return f"{value:.1f}x" if value < 99.5 else f"{value:.0f}x"


def error(value: float | None) -> str:
    """Two digits; None is infinite."""
    return "infinite" if value is None else f"{value:.1e}"


def where(result: dict[str, Any]) -> str:
    """One line on the machine and the versions of a result file."""
    count = result["threads"] if result["device"] == "cpu" else None
    threads = "" if count is None else f", {count} thread{'s' * (count > 1)}"
    return f"{result['name']}{threads}, torch {result['torch']}, {result['date'][:10]}, commit {result['commit']}"


def comparison_table(result: dict[str, Any]) -> str:
    """Rows of tamt and its peers, operation by operation, and the peers that are absent.

    Those that compute another quantity have its name in place of an error.
    """
    rows, before = [], None
    narrow = {
        (row["operation"], row["load"]): row["limit"]
        for row in result["results"]
        if row["dtype"] == "float32" and "limit" in row
    }
    for row in result["results"]:
        if "absent" in row or "failed" in row:
            continue
        work = row["operation"], row["load"], row["dtype"]
        head = [f"{work[0]}: {work[1]}, {work[2]}" if work != before else ""]
        before = work
        if "ratio" in row:
            measured = [seconds(row["seconds"]), seconds(row["seconds"] / row["ratio"]), times(row["ratio"])]
        elif "seconds" in row:
            measured = [seconds(row["seconds"]), "", ""]
        elif row["dtype"] == "float64" and row["error"] is not None and row["error"] <= narrow.get(work[:2], 0):
            measured = ["float32's exactness, not timed", "", ""]
        else:
            measured = ["wrong result, not timed", "", ""]
        wrong = row.get("quantity") or f"{error(row['error'])} {row['unit']}"
        rows.append([*head, row["contender"], *measured, wrong, size(row["peak_bytes"])])
    columns = ("work", "by", "time", "tamt's", "times tamt's", "error, or another quantity", "peak memory")
    return "\n\n".join([where(result), table(columns, rows), *absentees(result)])


def absentees(result: dict[str, Any]) -> list[str]:
    """The list of peers, each with its version or why it is absent."""
    versions = result["peers"].items()
    listed = [f"{name} {version}" for name, version in versions if not version.startswith("absent")]
    absent = {name: version.removeprefix("absent: ") for name, version in versions if version.startswith("absent")}
    for row in result["results"]:
        if "absent" in row:
            absent.setdefault(row["contender"], row["absent"])
    reasons = "; ".join(f"{name} ({reason})" for name, reason in absent.items())
    return [f"Peers: {', '.join(listed)}."] * bool(listed) + [f"Absent: {reasons}."] * bool(absent)
