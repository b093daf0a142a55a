"""Comparison with peers, growth, limits, and the pages made of results: that they say what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tamt
from asv_bench import growth, published
from asv_bench.benchmarks import cochleagram, gammatone
from asv_bench.benchmarks.common import DTYPES, by_sosfilt, gammatone_biquads, scipy_cascade
from asv_bench.comparison import excitation, filters, measure, peers
from asv_bench.cpu import beyond_limits, figures
from asv_bench.limits import LIMITS, holds, judged
from asv_bench.microbench import test_operators as microbench
from asv_bench.operations import OPERATIONS
from asv_bench.registry import MODULES, Limit
from asv_bench.report import pages, tables
from tamt.ops._operator import operators

ROOT = Path(__file__).parent.parent
RESULTS = pages.read(ROOT / "results")


def work(ours: float, **theirs: Any) -> measure.Work:
    """Every contender returns one number; the right one is 1."""

    def returning(value: float) -> measure.Contender:
        return lambda: lambda: value * torch.ones(10000).sum().item() / 10000  # long enough for any clock to see

    contenders = {name: value if callable(value) else returning(value) for name, value in theirs.items()}
    return measure.Work("one", 1.0, lambda a, e: abs(a - e), 0.1, "of it", returning(ours), contenders)


def test_each_peer_is_checked_then_timed_beside_tamt() -> None:
    ours, good = measure.compared(work(1.0, good=1.05), "cpu")
    assert ours["contender"] == "tamt"
    assert ours["seconds"] > 0
    assert good["error"] == pytest.approx(0.05)
    assert good["ratio"] == pytest.approx(good["seconds"] / good["tamt_seconds"])


@pytest.mark.parametrize("wrong", [1.2, math.inf, math.nan])
def test_a_wrong_peer_is_not_timed(wrong: float) -> None:
    _, row = measure.compared(work(1.0, wrong=wrong), "cpu")
    assert not {"seconds", "ratio"} & set(row)
    assert row["error"] is None or row["error"] == pytest.approx(0.2)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_an_absent_peer_is_named_with_the_reason() -> None:
    def absent() -> Any:
        raise peers.Absent("it is not installed")

    _, row = measure.compared(
        measure.Work("one", 1.0, lambda a, e: 0.0, 0.1, "", lambda: lambda: 1, {"x": absent}), "cpu"
    )
    assert row == {"contender": "x", "absent": "it is not installed"}
    with pytest.raises(peers.Absent, match="nosuchlibrary is not installed"):
        peers.library("nosuchlibrary")


def test_another_quantity_is_timed_and_named() -> None:
    mel = measure.Other("mel bands", lambda: lambda: time.sleep(1e-3))
    _, row = measure.compared(dataclasses.replace(work(1.0), others={"mel": mel}), "cpu")
    assert row["quantity"] == "mel bands"
    assert row["error"] is None
    assert row["ratio"] == pytest.approx(row["seconds"] / row["tamt_seconds"])
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_nothing_is_measured_where_tamt_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="exceeds"):
        list(measure.compared(work(1.2, good=1.0), "cpu"))


def test_a_library_that_fails_to_import_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brokenlibrary.py").write_text("raise OSError('libcudart is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(peers.Absent, match="libcudart is missing"):
        peers.library("brokenlibrary")


def test_torch_amt_is_compared_where_it_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its name and import path stands tamt, which has the same arguments."""
    for name, module in (
        ("torch_amt", types.ModuleType("torch_amt")),
        ("torch_amt.common", types.ModuleType("torch_amt.common")),
        ("torch_amt.common.filterbanks", import_module("tamt.common.filterbanks")),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    for build in (excitation.erb_integration, filters.gammatone):
        built = build("cpu", "float64")
        output = built.peers["torch_amt"]()()
        assert built.error(output, built.expected) <= built.limit


def test_gammatone_as_biquads() -> None:
    bank = tamt.GammatoneFilterbank([60, 500, 3000], 16000, dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((1, 3000))
    expected = scipy_cascade(x, bank.poles.numpy(), bank.gains.numpy(), 4)
    actual = by_sosfilt(x, gammatone_biquads(bank.poles, bank.gains).numpy())
    assert np.abs(actual - expected).max() < 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("build", [filters.gammatone_training, filters.biquads_training])
def test_gradients_are_held_against_difference_quotients(build: Any) -> None:
    built = build("cpu", "float64")
    step = built.tamt()
    first = step()
    assert built.error(first, built.expected) < 1e-4
    assert not torch.equal(step(), first), "the filters change with every step"


def test_table() -> None:
    assert tables.table(("a", "bb"), [["1", "2"], ["long", ""]]).splitlines() == [
        "| a    | bb  |",
        "| ---- | --- |",
        "| 1    | 2   |",
        "| long |     |",
    ]
    assert [tables.seconds(s) for s in (2.0, 0.0123, 4.56e-5)] == ["2 s", "12.3 ms", "45.6 us"]


def test_comparison_table_names_what_is_absent() -> None:
    head = {"operation": "sum", "load": "one", "dtype": "float32", "unit": "dB", "limit": 0.1}
    result = {
        "name": "a machine", "device": "cpu", "threads": 2, "torch": "2", "date": "2026-01-01T", "commit": "c",
        "peers": {"scipy": "1.0", "torch_amt": "absent: torch_amt is not installed"},
        "results": [
            head | {"contender": "tamt", "seconds": 1e-3, "error": 0.0, "peak_bytes": 1 << 20},
            head | {"contender": "slow", "seconds": 2e-3, "ratio": 2.0, "error": 0.01, "peak_bytes": None},
            head | {"contender": "mel", "quantity": "mel bands", "seconds": 3e-3, "ratio": 3.0, "peak_bytes": None},
            head | {"contender": "wrong", "error": None, "peak_bytes": None},
            head | {"contender": "lfilter", "absent": "no loop"},
            head | {"contender": "coarse", "dtype": "float64", "limit": 1e-6, "error": 0.05, "peak_bytes": None},
        ],
    }  # fmt: skip
    text = tables.comparison_table(result)
    assert "a machine, 2 threads" in text
    assert re.search(r"slow +\| 2 ms +\| 1 ms +\| 2.0x +\| 1.0e-02 dB", text)
    assert re.search(r"wrong +\| wrong result, not timed +\| +\| +\| infinite dB", text)
    assert re.search(r"coarse +\| float32's exactness, not timed +\| +\| +\| 5.0e-02 dB", text)
    assert re.search(r"mel +\| 3 ms +\| 1 ms +\| 3.0x +\| mel bands +\|", text)
    assert "Peers: scipy 1.0." in text
    assert "Absent: torch_amt (torch_amt is not installed); lfilter (no loop)." in text


@pytest.mark.parametrize("dtype", DTYPES)
def test_cochleagrams_agree_with_amt(dtype: str) -> None:
    for agreement in cochleagram.conformance(dtype):
        assert agreement.error <= agreement.asked, agreement


def test_growth_is_measured_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "STEPS", [1, 2, 4])
    monkeypatch.setattr(growth, "SECONDS_PER_POINT", 0.01)
    rows = list(growth.points("ERBIntegration", "channels", "cpu"))
    assert [row["size"] for row in rows] == [5, 10, 20]
    assert all(row["seconds"] > 0 for row in rows)
    module = MODULES["ERBIntegration"]
    strict = dataclasses.replace(module, growth=dataclasses.replace(module.growth, limit=0.0))
    monkeypatch.setitem(MODULES, "ERBIntegration", strict)
    with pytest.raises(RuntimeError, match="not measured"):
        list(growth.points("ERBIntegration", "channels", "cpu"))


@pytest.mark.parametrize("module", ["ERBIntegration", "ExcitationPattern"])
@pytest.mark.parametrize("channels", [5, 16, 500])
def test_growth_builds_as_many_bands_as_it_says(module: str, channels: int) -> None:
    call = growth.call_of(module, {"length": 2, "batch": 1, "channels": channels}, torch.float32, "cpu")
    assert call().shape[-1] == channels


def test_superlinear_growth_wants_a_reason() -> None:
    points = [
        {"module": "M", "axis": "length", "size": n, "seconds": 1e-6 * n**2, "peak_bytes": None}
        for n in (1, 10, 30, 100)
    ]
    assert pages.exponent(points, "seconds") == pytest.approx(2)
    assert pages.superlinear({"results": points}) == [("M", "length", "time")]
    with pytest.raises(ValueError, match="time of M over length"):
        pages.reasons({"results": points})


def test_limits() -> None:
    rows = [
        {"benchmark": "b", "parameters": ["('cpu', '2 x 1 s')", "float32"], "value": 3.0},
        {"benchmark": "b", "parameters": ["('cpu', '2 x 1 s')", "float64"], "value": 5.0},
        {"benchmark": "c", "parameters": [], "value": 9.0},
    ]
    assert holds(rows[0]["parameters"], "2 x 1 s")
    assert not holds(["fast-drnl"], "drnl")
    found = [(v, limit.most) for limit, v in judged(rows)]
    assert found == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "asv_bench.limits.LIMITS", (Limit("w", "b", ("2 x 1 s",), 4.0), Limit("v", "b", ("float32",), 4.0))
        )
        assert [value for _, value in judged(rows)] == [5.0, 3.0]
        assert beyond_limits(rows) == ["beyond its limit of 4: 5, w"]
        assert beyond_limits([rows[1] | {"value": math.nan}])[0].endswith("4: nan, w")


def test_every_limit_has_a_figure() -> None:
    assert [limit for limit, _ in judged(RESULTS["cpu"]["results"])] == list(LIMITS)


def test_pages_are_those_of_the_committed_results(tmp_path: Path) -> None:
    """`make docs` would change nothing."""
    pages.write(RESULTS, ROOT / "docs" / "templates", tmp_path)
    for page in pages.PAGES:
        assert (tmp_path / f"{page}.md").read_text() == (ROOT / "docs" / f"{page}.md").read_text()
        for picture in re.findall(r"\]\((images/\S+)\)", (tmp_path / f"{page}.md").read_text()):
            assert (ROOT / "docs" / picture).stat().st_size > 10000


def test_every_name_of_torch_amt_has_its_counterpart() -> None:
    """In the table of the page, where tamt's names are tamt's."""
    page = (ROOT / "docs" / "coming_from" / "torch_amt.md").read_text()
    page = page[page.index("## Every name") : page.index("## Where the numbers differ")]
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    assert set(table) == set(RESULTS["torch_amt"]["public"])
    for counterpart in table.values():
        for name in re.findall(r"`(?:tamt\.)?([A-Z]\w+|\w*erb\w*)`", counterpart):
            assert hasattr(tamt, name), name


def test_published_values_and_conventions_are_as_the_page_says() -> None:
    """All of them computed anew."""
    now, written = published.found(), RESULTS["published"]
    for name, column in (("published", "tamt"), ("conventions", "value")):
        assert len(now[name]) == len(written[name])
        for row, page in zip(now[name], written[name], strict=True):
            assert {**row, column: None} == {**page, column: None}
            assert row[column] == pytest.approx(page[column], rel=2e-3, abs=2e-3), row
    for row in written["published"]:
        off = abs(row["tamt"] - row["published"])
        assert off < (0.05 if row["unit"] == "dB" else 0.02 * row["published"]), row


def test_conventions_are_what_the_text_says_of_them() -> None:
    figures: dict[str, dict[tuple[str, str], float]] = {}
    for row in RESULTS["published"]["conventions"]:
        figures.setdefault(row["group"], {})[row["of"], row["quantity"]] = row["value"]
    skirts = figures["skirts"]
    for level in (60, 80, 100):  # opposite to each other
        names = "ExcitationPattern", "Moore2016ExcitationPattern"
        document, moore = (f"`{name}`, tone, {level} dB" for name in names)
        assert skirts[document, "-4 ERB"] > skirts[document, "+4 ERB"]
        assert skirts[moore, "-4 ERB"] < skirts[moore, "+4 ERB"] - 20
    assert figures["limit"]["4 octaves", "excitation at 1643 Hz"] == pytest.approx(-120)
    assert figures["limit"]["10 octaves", "excitation at 1643 Hz"] == pytest.approx(78.3, abs=0.1)
    spread, drnl = (" ".join(kind.__doc__.split()) for kind in (tamt.ExcitationPattern, tamt.DRNLFilterbank))
    said = re.search(r"there is (\d+) dB less at 4 ERB below and (\d+) dB less at 4 ERB above", spread)
    tone = "`ExcitationPattern`, tone, 80 dB"
    assert [-int(less) for less in said.groups()] == [round(skirts[tone, f"{side}4 ERB"]) for side in "-+"]
    said = re.search(r"at 4 kHz with a slope of (-[\d.]+) dB/dB at (\d+) dB SPL", drnl)
    fall = [figures["io"]["jepsen2008", f"4000 Hz, {what}"] for what in ("least slope", "at a level of")]
    assert [float(number) for number in said.groups()] == pytest.approx(fall, abs=0.005)
    assert all(value > 0 for (model, what), value in figures["io"].items() if model == "paulick2024")
    power = {what: value for (_, what), value in figures["spectrum"].items()}
    assert power["white noise, 32 s, mean"] == pytest.approx(1, abs=0.01)
    assert power["tone of 1 kHz"] == pytest.approx(0.916, abs=2e-3)
    assert all(1.25 < value < 1.55 for (_, what), value in figures["front"].items() if "noise" in what)
    assert all(figures["gain"][rate, "0.5 fs"] == pytest.approx(6.02, abs=0.01) for rate in ("16 kHz", "44.1 kHz"))
    said = re.search(r"gain in dB( +-?[\d.]+)+", tamt.GammatoneFilterbank.__doc__)
    table = [value for (rate, where), value in figures["gain"].items() if rate == "16 kHz" and where.endswith("fs")]
    assert [float(value) for value in said[0].split()[3:]] == pytest.approx(table[1:], abs=0.051)
    assert figures["poly"]["16 kHz", "1000 Hz, gain"] == pytest.approx(-22.9, abs=0.1)


def test_every_module_is_on_the_page_of_conformance() -> None:
    rows = RESULTS["accuracy"]["conformance"]
    listed = [name for group in pages.GROUPS.values() for name in group]
    assert set(listed) == {row["module"] for row in rows}
    assert set(MODULES) <= set(listed)
    own = {name for name in listed if pages.basis(name, rows) == "its own formula"}
    assert own == set(pages.GROUPS["glasberg2002"]), "these are named in the README and in the template"
    for row in rows:
        known = row["module"] == "Moore2016ExcitationPattern"  # the template says why
        assert row["asked"] is None or row["error"] <= (2e-6 if known and row["dtype"] == "float64" else row["asked"])


def test_the_readme_has_figures_of_the_result_files() -> None:
    text = (ROOT / "README.md").read_text()
    worst: dict[tuple[str, str], float] = {}
    for row in RESULTS["accuracy"]["conformance"]:
        key = row["module"], row["dtype"]
        worst[key] = max(row["error"], worst.get(key, 0.0))
    rows = re.findall(r"^\| `(\w+)`([^|]*)\|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    bounds = {name: cells for name, _, *cells in rows if (name, "float64") in worst}
    assert set(bounds) >= {"Moore2016Spectrum", "Moore2016ExcitationPattern", "OuterMiddleEar", "Moore2016Loudness"}
    for name, cells in bounds.items():
        for dtype, cell in zip(("float64", "float32"), cells, strict=True):
            said = [float(number) for number in re.findall(r"\d(?:\.\d)?e-\d+", cell)]
            if said and "DRNL" not in name:  # of these it has channels from 250 Hz up, and says the rest below
                assert worst[name, dtype] <= max(said) < 2.5 * worst[name, dtype], name
    for said, benchmark, *parameters in (
        ("950 components of `Moore2016Spectrum`", "roex.Roex.time_forward", "cpu", "float32", "grid"),
        ("at any frequencies", "roex.Roex.time_forward", "cpu", "float32", "any"),
        ("`Moore2016Loudness`, stereo 1 s, a frame per millisecond", "loudness.Loudness.time_forward",
         "('cpu', 'stereo 1 s')", "float32", "moore2016", "1"),
    ):  # fmt: skip
        line = next(line for line in text.splitlines() if line.startswith("|") and said in line)
        assert f"| {tables.seconds(pages.figure(RESULTS['cpu'], benchmark, *parameters))}" in line


def test_the_readme_has_the_ratios_to_scipy() -> None:
    section = (ROOT / "README.md").read_text().split("| 30 channels at 16 kHz |")[1].split("\n\n")[0]
    lines = [line.split("|")[1:-1] for line in section.splitlines() if "faster than" in line or "AVX2" in line]
    one, ten = gammatone.CPU_LOADS
    rows = [("cpu", one, "sosfilt"), ("cpu-avx2", one, "sosfilt"), ("cpu", one, "lfilter")]
    rows += [("cpu", ten, "sosfilt"), ("cpu-avx2", ten, "sosfilt")]
    for (_, *cells), (result, load, peer) in zip(lines, rows, strict=True):
        for cell, dtype in zip(cells, DTYPES, strict=True):
            over = pages.figure(RESULTS[result], f"gammatone.GammatoneAgainstScipy.track_time_over_{peer}", load, dtype)
            assert over is not None
            assert float(cell) == pytest.approx(1 / over, rel=0.04)


def test_no_figure_of_a_gpu_without_its_result_file() -> None:
    kernels = RESULTS["kernels"]
    assert "not measured" in pages.gpu(None)
    assert pages.asked(None) == "On a GPU: not measured."
    assert all("not measured" in line for line in pages.roofline(kernels, None).splitlines()[2:])
    first = next(row for row in kernels["kernels"] if row["target"] == "sm_90")
    device = {"kernels": [first | {"seconds": 3 * first["floor, s"]}]}
    assert pages.roofline(kernels, device).count("3.0x") == 1


@pytest.mark.slow  # every run imports and tries the benchmarks without asv
def test_asv_check() -> None:
    pytest.importorskip("asv")
    command = [sys.executable, "-m", "asv", "check", "--python=same"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_figure_of_the_asv_suite_has_one_threshold() -> None:
    thresholds = json.loads((ROOT / "asv.conf.json").read_text())["regressions_thresholds"]
    names = [f"{name}.{method}" for name, _, methods in figures() for method in methods]
    assert len(names) > 100
    for name in names:
        assert sum(bool(re.match(pattern, name)) for pattern in thresholds) == 1, name


def test_micro_benchmarks_cover_every_operator() -> None:
    stems = {case.id.partition("-")[0] for case in microbench.cases()}
    kernels = {operators[operation.operator].launcher.partition(":")[0] for operation in OPERATIONS.values()}
    assert kernels <= stems


@pytest.mark.slow
def test_micro_benchmarks_are_collected() -> None:
    pytest.importorskip("pytest_benchmark")
    folder = ROOT / "asv_bench" / "microbench"
    command = [sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), str(folder), "--collect-only", "-q"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(re.findall(r"\[(\w+)-", run.stdout)) == {case.id.partition("-")[0] for case in microbench.cases()}


def test_the_compiler_of_the_kernels_is_that_of_the_constraints() -> None:
    assert f"triton<={RESULTS['kernels']['triton']}" in (ROOT / "constraints.txt").read_text().splitlines()
