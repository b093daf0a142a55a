"""What docs/templates/coming_from asks for: tamt beside the programs that people come from, in figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from asv_bench.report.tables import error, seconds, table, times, where

Results = dict[str, Any]
Parts = dict[str, Callable[[], str]]


def torch_amt(results: Results) -> Parts:
    found = results["torch_amt"]
    topics = dict.fromkeys(row["topic"] for row in found["results"])
    return {
        "machine": lambda: f"torch_amt {found['torch_amt']}; {where(found)}",
        "speed": lambda: speed(results["compare-cpu"], "torch_amt"),
        "state-dicts": lambda: state_dicts(found),
    } | {topic: (lambda topic=topic: differences(found, topic)) for topic in topics}


def amt(results: Results) -> Parts:
    found = results["accuracy"]
    modules = dict.fromkeys(row["module"] for row in found["conformance"])
    return {"machine": lambda: where(found)} | {
        module: (lambda module=module: agreement(found, module)) for module in modules
    }


def mel(results: Results) -> Parts:
    found = results["compare-cpu"]
    return {"machine": lambda: where(found), "speed": lambda: features(found)}


def brian2hears(results: Results) -> Parts:
    found = results["brian2hears"]
    return {
        "machine": lambda: f"brian2hears {found['brian2hears']} on brian2 {found['brian2']}; {where(found)}",
        "gains": lambda: gains(found),
        "speed": lambda: speed_of_hears(found),
    }


# By the name of the page and its template.
PAGES: dict[str, Callable[[Results], Parts]] = {
    "coming_from/torch_amt": torch_amt,
    "coming_from/amt": amt,
    "coming_from/mel": mel,
    "coming_from/brian2hears": brian2hears,
}


def number(value: float | None, unit: str, wanted: bool) -> str:
    """Without its unit; an error, for which no value is wanted, as a power of ten where it is small."""
    if value is None:
        return ""
    if not unit.startswith("of ") and (abs(value) >= 1000 or (value == round(value) and abs(value) >= 1)):
        return f"{value:.0f}"
    if unit.startswith("of ") or (not wanted and abs(value) < 0.01):
        return error(value) if value else "0"
    return f"{value:.4g}" if unit == "sone" else f"{round(value, 1) + 0.0:.1f}" if "dB" in unit else f"{value:.3g}"


def differences(found: Results, topic: str) -> str:
    rows = [row for row in found["results"] if row["topic"] == topic]
    known = any(row["right"] is not None for row in rows)
    cells = []
    for row in rows:
        values = [row["torch_amt"], row["tamt"], row["right"]]
        if row["what"].startswith("time "):
            shown = [times(values[0]), "1x", ""]
        else:
            shown = [number(value, row["unit"], values[2] is not None) for value in values]
        label = ", ".join(part for part in (row["what"], row["unit"]) if part)
        cells.append([label, *shown[: 3 if known else 2]])
    return table(("", "torch_amt", "tamt", "should be")[: 4 if known else 3], cells)


def state_dicts(found: Results) -> str:
    names = ("torch_amt", "tamt")
    rows = (
        [f"`{row['module']}`", *(", ".join(f"`{key}`" for key in row[name]) for name in names)]
        for row in found["state dicts"]
        if any(row[name] for name in names)
    )
    return table(("module", "in torch_amt alone", "in tamt alone"), rows)


def speed(found: Results, peer: str) -> str:
    rows = []
    for row in found["results"]:
        if row.get("contender") != peer:
            continue
        if "absent" in row:
            ratio, wrong = "not measured", row["absent"]
        else:
            ratio = times(row["ratio"]) if "ratio" in row else "not timed"
            wrong = "not comparable" if row["error"] is None else f"{error(row['error'])} {row['unit']}"
        rows.append([f"{row['operation']}: {row['load']}", row["dtype"], ratio, wrong])
    return table(("work", "type", "time over tamt's", "error of torch_amt"), rows)


def agreement(found: Results, module: str) -> str:
    """The largest error of a module in float64."""
    rows = [row for row in found["conformance"] if row["module"] == module and row["dtype"] == "float64"]
    worst = max(rows, key=lambda row: row["error"])
    return f"{error(worst['error'])} {worst['unit']}" if worst["error"] else "exact"


def features(found: Results) -> str:
    rows = []
    for row in found["results"]:
        if row["operation"] == "cochleagram" and row["contender"] != "tamt" and "ratio" in row:
            what = row.get("quantity") or "the same quantity"
            rows.append([f"`{row['contender']}`" if "." in row["contender"] else row["contender"], what, row["dtype"]])
            rows[-1].append(times(row["ratio"]))
    return table(("", "computes", "type", "time over that of `Cochleagram`"), rows)


def gains(found: Results) -> str:
    rows = []
    for row in found["results"]:
        if row["what"] == "gain":
            shifts = (theirs - ours for theirs, ours in zip(row["brian2hears"], row["tamt"], strict=True))
            rows.append(
                [f"`{row['filter']}`", f"{row['fc']:g} Hz", *(f"{round(shift, 2) + 0.0:+.2f}" for shift in shifts)]
            )
            steps = row["steps"]
    return table(("filter", "at", *(f"{step:+d} ERB" if step else "centre" for step in steps)), rows)


def speed_of_hears(found: Results) -> str:
    def rows() -> Iterator[list[str]]:
        for row in found["results"]:
            if row["what"] == "time":
                both = row["brian2hears"], row["tamt"]
                yield [row["load"], row["dtype"], *map(seconds, both), times(both[0] / both[1])]

    return table(("load", "tamt's type", "brian2hears, float64", "tamt", "ratio"), rows())
