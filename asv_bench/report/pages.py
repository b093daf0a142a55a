"""Write docs/performance.md, accuracy.md, conformance.md, coming_from and pictures from results and docs/templates.

``python -m asv_bench.report.pages [--results results] [--docs docs]``
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from asv_bench.benchmarks import gammatone
from asv_bench.benchmarks.common import DTYPES
from asv_bench.limits import judged
from asv_bench.registry import MODULES
from asv_bench.report import differences
from asv_bench.report.tables import comparison_table, error, seconds, size, table, times, where
from asv_bench.staged.rows import last_run
from asv_bench.staged.rows import read as read_rows

SUPERLINEAR = 1.1  # exponent of the last decade from which growth wants a reason
NOISE = 4 << 20  # bytes, below which peak memory is that of the allocator's pools

Results = dict[str, Any]

# Sections of the page on conformance, and what their modules are compared with, where there is such a program.
LTFAT, AMT = "LTFAT 2.6 `{}`", "AMT 1.4.0 `{}`"
GROUPS = {
    "scales": ("audfiltbw", "fc2erb", "erb2fc", "f2erbrate", "erbrate2f"),
    "gammatone": ("GammatoneFilterbank", "Cochleagram"),
    "drnl": ("DRNLFilterbank", "FastDRNLFilterbank"),
    "ear": ("OuterMiddleEar",),
    "glasberg2002": ("MultiResolutionFFT", "ERBIntegration", "ExcitationPattern"),
    "moore2016": ("Moore2016Spectrum", "Moore2016ExcitationPattern"),
    "loudness": (
        "Moore2016SpecificLoudness",
        "AttackRelease",
        "BinauralInhibition",
        "Moore2016Loudness",
        "Glasberg2002SpecificLoudness",
        "Glasberg2002Loudness",
    ),
}
FUNCTIONS = {
    "audfiltbw": LTFAT.format("audfiltbw"),
    "fc2erb": LTFAT.format("freqtoaud"),
    "erb2fc": LTFAT.format("audtofreq"),
    "f2erbrate": AMT.format("fc2erb"),
    "erbrate2f": AMT.format("erb2fc"),
    "GammatoneFilterbank": AMT.format("gammatone"),
    "Cochleagram": AMT.format("gammatone"),
    "DRNLFilterbank": "AMT 1.6.0 `paulick2024_drnl`",
    "FastDRNLFilterbank": "AMT 1.6.0 `paulick2024_drnl`",
    "OuterMiddleEar": AMT.format("moore2016"),
    "Moore2016Spectrum": AMT.format("moore2016_spectrum"),
    "Moore2016ExcitationPattern": AMT.format("moore2016_excitationpattern"),
    "Moore2016SpecificLoudness": AMT.format("moore2016"),
    "AttackRelease": AMT.format("moore2016"),
    "BinauralInhibition": AMT.format("moore2016"),
    "Moore2016Loudness": AMT.format("moore2016"),
    "Glasberg2002SpecificLoudness": AMT.format("glasberg2002"),
}
# Where the tests ask for less in places; the page says why.
EXCEPT = {"Moore2016ExcitationPattern": "2e-06 in two channels"}
FORMS: dict[str, Callable[[float], str]] = {
    "dB": lambda value: f"{round(value, 1) + 0.0:.1f} dB",  # no -0.0
    "dB SPL": "{:.0f} dB SPL".format,
    "dB/dB": "{:.2f}".format,
    "Hz": "{:.0f} Hz".format,
    "samples": "{:.0f}".format,
    "times": "{:.2f}".format,
    "sone": "{:.3g} sone".format,
    "%": "{:.0f} %".format,
    "% of the peak": lambda value: f"{value:.2g} %" if value < 95 else "all",
}


def performance(results: Results) -> dict[str, Callable[[], str]]:
    """What docs/templates/performance.md asks for, by name."""
    cpu = results["cpu"]
    return {
        "machine": lambda: where(cpu),
        "comparison": lambda: comparison_table(results["compare-cpu"]),
        "comparison-cuda": lambda: (
            comparison_table(results["device"])
            if results.get("device", {}).get("results")
            else "On a GPU: not measured."
        ),
        "scipy": lambda: scipy_table(cpu, results["cpu-avx2"]),
        "limits": lambda: limits_table(cpu),
        "modules": lambda: modules_table(cpu),
        "construction": lambda: construction_table(cpu),
        "cochleagram": lambda: cochleagram_tables(cpu),
        "growth": lambda: growth_table(results["growth-cpu"]),
        "reasons": lambda: reasons(results["growth-cpu"]),
        "roofline": lambda: roofline(results["kernels"], results.get("device")),
        "registers": lambda: registers(results["kernels"]),
        "launches": lambda: launches(results["kernels"]),
        "kernels-origin": lambda: (
            f"triton {results['kernels']['triton']}, {results['kernels']['date'][:10]}, "
            f"commit {results['kernels']['commit']}"
        ),
        "gpu": lambda: gpu(results.get("device")),
        "asked": lambda: asked(results.get("device")),
    }


def accuracy(results: Results) -> dict[str, Callable[[], str]]:
    """What docs/templates/accuracy.md asks for, by name."""
    found = results["accuracy"]
    return {
        "machine": lambda: where(found),
        "modules": lambda: single_precision_of_modules(found),
        "gammatone": lambda: single_precision(found, "GammatoneFilterbank"),
        "drnl": lambda: single_precision(found, "DRNLFilterbank"),
    }


def conformance(results: Results) -> dict[str, Callable[[], str]]:
    """What docs/templates/conformance.md asks for, by name."""
    found = results["published"]
    parts = {
        "machine": lambda: where(found),
        "overview": lambda: overview(results["accuracy"]),
    }
    for group in GROUPS:
        parts[f"amt-{group}"] = partial(against_amt, results["accuracy"], group)
        parts[f"published-{group}"] = partial(against_publications, found, group)
    for group in dict.fromkeys(row["group"] for row in found["conventions"]):
        parts[f"convention-{group}"] = partial(convention, found, group)
    return parts


def limits_table(cpu: Results) -> str:
    rows = []
    for limit, value in judged(cpu["results"]):
        verdict = "" if value <= limit.most else "missed"
        rows.append([limit.work, f"{limit.most:.3g}", f"{value:.3g}", times(limit.most / value), verdict])
    return table(("figure", "at most", "measured", "margin", ""), rows)


def figure(cpu: Results, benchmark: str, *parameters: str) -> float | None:
    for row in cpu["results"]:
        if row["benchmark"] == benchmark and tuple(row["parameters"]) == parameters:
            return row["value"]
    return None


def scipy_table(*machines: Results) -> str:
    """How many times faster the gammatone is than scipy's cascades, by the instructions that were allowed."""
    rows = []
    for load, dtype in itertools.product(gammatone.CPU_LOADS, DTYPES):
        over = (
            figure(machine, f"gammatone.GammatoneAgainstScipy.track_time_over_{peer}", load, dtype)
            for peer in ("sosfilt", "lfilter")
            for machine in machines
        )
        rows.append([load, dtype, *("" if ratio is None else times(1 / ratio) for ratio in over)])
    return table(("signals x filters", "type", "sosfilt", "with AVX2", "lfilter", "with AVX2"), rows)


def modules_table(cpu: Results) -> str:
    rows = []
    for name, module in MODULES.items():
        for row in module.rows:
            for dtype in ("float32", "float64"):
                figures = module_figures(cpu, row.forward, row.training, row.parameters(dtype))
                rows.append([f"{name}, {row.load}", dtype, *figures])
    return table(("module, load", "type", "forward", "training step", "over forward", "error"), rows)


def module_figures(cpu: Results, forward: str, training: str, key: tuple[str, ...]) -> list[str]:
    columns = (
        (f"{forward}.time_forward", seconds),
        (f"{training}.time_training_step", seconds),
        (f"{training}.track_training_over_forward", times),
        (f"{forward}.track_error", error),
    )
    values = ((figure(cpu, name, *key), form) for name, form in columns)
    return ["" if value is None else form(value) for value, form in values]


def construction_table(cpu: Results) -> str:
    rows = []
    names = [row["parameters"][1] for row in cpu["results"] if row["benchmark"] == "modules.Compilation.track_graphs"]
    for name in names:
        built = (
            figure(cpu, "modules.Construction.time_construction", "cpu", name, kind) for kind in ("fixed", "learnable")
        )
        compiled = figure(cpu, "modules.Compilation.track_compile_time", "cpu", name)
        graphs = figure(cpu, "modules.Compilation.track_graphs", "cpu", name)
        cells = ["" if value is None else seconds(value) for value in (*built, compiled)]
        rows.append([name, *cells, f"{graphs:.0f}"])
    head = ("module", "construction", "learnable", "compilation", "graphs for five lengths")
    ratio = figure(cpu, "importing.Import.track_time_over_torch")
    text = f"`import tamt` takes {ratio:.2f} times as long as `import torch`.\n\n" if ratio is not None else ""
    return text + table(head, rows)


def cochleagram_tables(cpu: Results) -> str:
    """Time and memory of each detector, then what is gained over filtering first and averaging then, by bank."""
    case, rows = "('cpu', '8 x 10 s')", []
    for detector in ("power", "envelope", "halfwave"):
        columns = (
            ("Frames.time_forward", seconds),
            ("Frames.track_peak_memory", mebibytes),
            ("FramesTraining.time_training_step", seconds),
            ("FramesTraining.track_peak_memory_of_training_step", mebibytes),
            ("Frames.track_error", error),
        )
        values = ((figure(cpu, f"cochleagram.{name}", case, "float32", detector), form) for name, form in columns)
        rows.append([f"`'{detector}'`", *("" if value is None else form(value) for value, form in values)])
    names = ("forward", "peak memory", "training step", "peak memory", "error")
    over = ("AgainstComposition.track_time", "TrainingAgainstComposition.track_training")
    banks = []
    for row in cpu["results"]:
        if row["benchmark"] == f"cochleagram.{over[0]}_over_composition":
            found = (figure(cpu, f"cochleagram.{name}_over_composition", *row["parameters"]) for name in over)
            cells = ["" if ratio is None else times(1 / ratio) for ratio in found]
            banks.append([ast.literal_eval(row["parameters"][0])[1], *cells])
    growth = ((n, figure(cpu, "cochleagram.FramesGrowth.track_growth_with_length", str(n))) for n in (100, 1000))
    said = [f"{n} s of one signal take {value:.2f} times as long as {n} times 1 s." for n, value in growth if value]
    head = ("bank, load", "forward, times faster", "training step, times faster")
    return "\n\n".join([table(("detector", *names), rows), table(head, banks), " ".join(said)])


def mebibytes(value: float) -> str:
    return size(value * 2**20)


def axes(growth: Results) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in growth["results"]:
        if "failed" in row:
            continue
        found[row["module"], row["axis"]].append(row)
    return found


def exponent(rows: list[dict[str, Any]], what: str) -> float | None:
    """Of the last decade, where 1 is proportional; None for memory that is not above the allocator's noise."""
    before, last = rows[-3], rows[-1]
    if what == "peak_bytes" and (last[what] is None or last[what] < NOISE or before[what] < 1):
        return None
    return math.log10(last[what] / before[what]) / math.log10(last["size"] / before["size"])


def growth_table(growth: Results) -> str:
    rows = []
    for (module, axis), points in axes(growth).items():
        last = points[-1]
        grown = [exponent(points, what) for what in ("seconds", "peak_bytes")]
        cells = ["" if value is None else f"{value:.2f}" for value in grown]
        span = f"{points[0]['size']} to {last['size']}"
        rows.append([module, axis, span, seconds(last["seconds"]), cells[0], size(last["peak_bytes"]), cells[1]])
    return table(("module", "over", "sizes", "time", "exponent", "peak memory", "exponent"), rows)


def superlinear(growth: Results) -> list[tuple[str, str, str]]:
    """Axes on which time or memory grows faster than in proportion."""
    found = []
    for (module, axis), points in axes(growth).items():
        for name, what in (("time", "seconds"), ("memory", "peak_bytes")):
            grown = exponent(points, what)
            if grown is not None and grown > SUPERLINEAR:
                found.append((module, axis, name))
    return found


def reasons(growth: Results) -> str:
    """Why each of them does, or an error where nobody has said so."""
    lines = []
    for module, axis, what in superlinear(growth):
        known = MODULES[module].growth.reasons if module in MODULES else {}
        if (axis, what) not in known:
            raise ValueError(
                f"{what} of {module} over {axis} grows faster than in proportion, and no reason is registered"
            )
        lines.append(f"- `{module}`, {what} over {axis}: {known[axis, what]}")
    return "\n".join(lines)


def roofline(kernels: Results, device: Results | None) -> str:
    """What each launch must move, the least time that takes, and the time measured where a GPU's results exist."""
    measured = {kernel_key(row): row["seconds"] for row in (device or {}).get("kernels", ())}
    rows = []
    for row in kernels["kernels"]:
        if row["target"] != "sm_90":
            continue
        found = measured.get(kernel_key(row))
        rows.append(
            [
                f"{row['operation']}, {row['direction']}",
                f"`{row['kernel']}`" + (f" x {row['launches']}" if row["launches"] > 1 else ""),
                f"{row['programs']}",
                f"{row['bytes'] / 1e6:.4g} MB",
                seconds(row["floor, s"]),
                "not measured" if found is None else f"{seconds(found)}, {times(found / row['floor, s'])}",
            ]
        )
    return table(("operation", "kernel", "programs", "moves", "floor", "measured"), rows)


def launches(kernels: Results) -> str:
    """How much each pass of an operation launches: kernels + operations of torch."""
    rows = [
        [
            f"{row['operation']}, {row['direction']}",
            *(f"{row[load]['kernels']} + {row[load]['torch']}" for load in ("reference", "small")),
        ]
        for row in kernels["launches"]
    ]
    return table(("operation", "reference load", "small load"), rows)


def kernel_key(row: dict[str, Any]) -> str:
    return json.dumps([row[k] for k in ("operation", "direction", "kernel", "constants", "programs")], sort_keys=True)


def registers(kernels: Results) -> str:
    """Registers, code and memory of every kernel, target by target."""
    targets = list(dict.fromkeys(row["target"] for row in kernels["kernels"]))
    found: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in kernels["kernels"]:
        found[row["operation"], row["direction"], row["kernel"]][row["target"]].append(row)
    rows = []
    for (operation, direction, kernel), by_target in found.items():
        cells = [worst(by_target.get(target, [])) for target in targets]
        rows.append([f"{operation}, {direction}", f"`{kernel}`", *cells])
    return table(("operation", "kernel", *targets), rows)


def worst(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    row = max(rows, key=lambda row: row["registers"])
    spilled = f", {row['spilled']} spilled" if row["spilled"] else ""
    shared = f", {row['shared, bytes'] / 1024:.3g} KiB" if row["shared, bytes"] else ""
    return f"{row['registers']} / {row['instructions']}{shared}{spilled}"


def gpu(device: Results | None) -> str:
    if device is None:
        return "No GPU result is committed: not measured."
    note = f" {device['note']}" if "note" in device else ""
    return f"Measured on {where(device)}, copy bandwidth {device['copy bandwidth, bytes/s'] / 1e12:.3g} TB/s.{note}"


def asked(device: Results | None) -> str:
    """What is asked of a GPU and what it gives, then each operation's time over the least its memory allows."""
    if device is None:
        return "On a GPU: not measured."
    figures = []
    for row in device["figures"]:
        form = seconds if row["unit"] == "s" else lambda value: f"{value:.3g}"
        limit = "" if row["limit"] is None else ("at least " if row["least"] else "at most ") + form(row["limit"])
        verdict = "" if row.get("met", True) else "missed"
        figures.append([row["what"], "" if row["unit"] == "s" else row["unit"], limit, form(row["value"]), verdict])
    calls = [
        [row["what"], seconds(row["seconds"]), times(row["over_floor"]), seconds(row["launch_to_launch"])]
        for row in device["calls"]
    ]
    outcomes = device["tests"]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return "\n\n".join(
        [
            f"Tests marked `gpu`: {counts}." if any(outcomes.values()) else "Tests marked `gpu`: not run.",
            errors(device),
            table(("figure", "unit", "asked", "measured", ""), figures),
            table(("operation", "time", "over its floor", "launch to launch"), calls),
        ]
    )


def errors(device: Results) -> str:
    """How many passes of operations were right in float32 at a few rows, and which was furthest from its limit."""
    checked = device["errors"]
    right = sum(row["right"] for row in checked)
    worst = max(checked, key=lambda row: row["error"] / row["limit"], default=None)
    return f"Passes of operations that are right, held against float64 on the reference: {right} of {len(checked)}" + (
        f"; the furthest from float64 is {worst['what'].removesuffix(' error')}, {error(worst['error'])} where "
        f"{error(worst['limit'])} is allowed."
        if worst
        else "."
    )


def staged(rows: list[dict[str, Any]]) -> Results | None:
    """A result of the file that ``make gpu`` appends to: the last run of each stage."""
    rows = last_run(rows)
    of = {row["what"]: row for row in rows if row["stage"] == 0}
    if not {"device", "copy"} <= set(of):
        return None
    calls = [row for row in rows if row["stage"] == 2 and "seconds" in row and "operation" in row]
    outcomes = [row["outcome"] for row in rows if "outcome" in row]
    peers = [row["peers"] for row in rows if "peers" in row]
    return of["device"] | {
        "copy bandwidth, bytes/s": of["copy"]["bytes_per_s"],
        "kernels": [row for row in calls if "kernel" in row],
        "calls": [row for row in calls if "kernel" not in row],
        "figures": [row for row in rows if row["stage"] == 2 and "value" in row],
        "errors": [row for row in rows if row["stage"] == 2 and row["what"].endswith(" error") and "right" in row],
        "tests": {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")},
        "peers": peers[-1] if peers else {},
        "results": [row for row in rows if row["what"] == "compare" and "contender" in row],
    }


def basis(module: str, rows: list[dict[str, Any]]) -> str:
    """What the numbers of a module are held to."""
    against = [row["against"] for row in rows if row["module"] == module]
    if any(text.startswith(("AMT", "the authors")) for text in against):
        return FUNCTIONS[module]
    return "an independent program" if any("program" in text for text in against) else "its own formula"


def difference(row: dict[str, Any]) -> str:
    """The page says once what others than those in dB are relative to."""
    return error(row["error"]) + (" dB" if row["unit"] == "dB" else "")


def overview(found: Results) -> str:
    rows = [row for row in found["conformance"] if row["dtype"] == "float64"]
    cells = []
    for module in dict.fromkeys(name for group in GROUPS.values() for name in group):
        own = [row for row in rows if row["module"] == module]
        worst = max(own, key=lambda row: row["error"])
        cells.append([f"`{module}`", basis(module, rows), difference(worst)])
    return table(("module", "held to", "difference"), cells)


def against_amt(found: Results, group: str) -> str:
    rows = [row for row in found["conformance"] if row["dtype"] == "float64" and row["module"] in GROUPS[group]]
    cells = []
    for row in rows:
        asked = "" if row["asked"] is None else f"{row['asked']:.0e}"
        if row["module"] in EXCEPT:
            asked += f", {EXCEPT[row['module']]}"
        against = row["against"].removesuffix(", beyond AMT's own rounding")  # which the page says too
        cells.append([f"`{row['module']}`", against, difference(row), asked])
    return table(("module", "against", "difference", "asked"), cells)


def against_publications(found: Results, group: str) -> str:
    cells = []
    for row in found["published"]:
        if row["group"] != group:
            continue
        wanted, value, unit = row["published"], row["tamt"], row["unit"]
        gap, off = (value - wanted, "dB") if unit == "dB" else (100 * (value / wanted - 1), "%")
        given = (f"{number:.2f}" if unit == "dB" else f"{number:.4g}" for number in (wanted, value))
        cells.append([f"`{row['module']}`: {row['quantity']}", row["source"], *(f"{n} {unit}".strip() for n in given)])
        cells[-1].append(f"{round(gap, 2) + 0.0:+.2f} {off}")  # no -0.00
    return table(("quantity", "source", "published", "tamt", "difference"), cells)


def convention(found: Results, group: str) -> str:
    """A list of figures, or a table of them where they are of several things."""
    rows = [row for row in found["conventions"] if row["group"] == group]
    figures = {(row["of"], row["quantity"]): FORMS[row["unit"]](row["value"]) for row in rows}
    things, quantities = (list(dict.fromkeys(row[name] for row in rows)) for name in ("of", "quantity"))
    if len(things) == 1:
        return table((things[0], "figure"), [[quantity, figures[things[0], quantity]] for quantity in quantities])
    if len(things) < len(quantities) and group not in ("skirts", "limit"):
        cells = [[quantity, *(figures.get((thing, quantity), "") for thing in things)] for quantity in quantities]
        return table(("", *things), cells)
    return table(("", *quantities), [[of, *(figures.get((of, what), "") for what in quantities)] for of in things])


def single_precision_of_modules(found: Results) -> str:
    """Errors of float32 beside the same numbers that float64 is held to."""
    rows = [row for row in found["conformance"] if row["dtype"] == "float32"]
    cells = [[f"`{row['module']}`", row["against"], error(row["error"]), row["unit"]] for row in rows]
    return table(("module", "against", "float32", "unit"), cells)


def single_precision(found: Results, module: str) -> str:
    rows = [row for row in found["single precision"] if row["module"] == module]
    centres = list(dict.fromkeys(row["fc"] for row in rows))
    rates = list(dict.fromkeys(row["fs"] for row in rows))
    errors = {(row["fs"], row["fc"]): error(row["error"]) for row in rows}
    cells = ([f"{fs / 1000:g} kHz", *[errors.get((fs, fc), "") for fc in centres]] for fs in rates)
    return table(("sampling rate", *[f"{fc:g} Hz" for fc in centres]), cells)


def filled(template: str, parts: dict[str, Callable[[], str]]) -> str:
    """The template with every ``{{name}}`` in place of what it stands for."""
    return re.sub(r"\{\{([\w-]+)\}\}", lambda match: parts[match[1]](), template)


PAGES = {"performance": performance, "accuracy": accuracy, "conformance": conformance} | differences.PAGES


def read(folder: Path) -> Results:
    """All result files by their stem; the newest one of a GPU as "device"."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    devices = [device for path in folder.glob("gpu-*.jsonl") if (device := staged(read_rows(path)))]
    return found | ({"device": max(devices, key=lambda device: device["date"])} if devices else {})


def write(results: Results, templates: Path, docs: Path) -> None:
    """All pages."""
    for name, parts in PAGES.items():
        text = filled((templates / f"{name}.md").read_text(), parts(results))
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / f"{name}.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    results = read(arguments.results)
    write(results, arguments.docs / "templates", arguments.docs)
    from asv_bench.report import plots

    images = arguments.docs / "images"
    plots.plot_comparison(results["compare-cpu"], images / "comparison.png")
    plots.plot_growth(axes(results["growth-cpu"]), images / "growth.png")
    plots.plot_single_precision(results["accuracy"]["single precision"], images / "single_precision.png")


if __name__ == "__main__":
    main()
