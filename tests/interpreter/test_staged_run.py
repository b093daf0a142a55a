"""The staged run of a GPU, rehearsed: its first stage and an operation and a figure of the third."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("triton")

from asv_bench import gpu
from asv_bench.operations import OPERATIONS
from asv_bench.report import pages
from asv_bench.staged import sweep, work
from asv_bench.staged.asked import FIGURES
from asv_bench.staged.rows import Rows, read


def test_a_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu-none.jsonl"
    out.write_text('{"stage": 0, "what": "cut o')
    run = gpu.Run(out, "abc", rehearse=True)
    chosen = {0: ["describe"], 2: ["spreading", "ExcitationPattern, 1000000 frames", "no such operation"]}
    monkeypatch.setattr(work, "items", lambda stage, path, rehearse: chosen[stage])
    for stage in chosen:
        gpu.stage_of(run, stage, gpu.time.monotonic() + 600)
    rows = read(out)
    whats = [row["what"] for row in rows]
    assert {"device", "copy", "fill", "spreading forward", "spreading backward"} <= set(whats)
    assert next(row for row in rows if row["what"] == "device")["commit"] == "abc"
    assert any("KeyError" in row.get("failed", "") for row in rows)
    assert sum("done" in row for row in rows) == 4
    assert not any("undone" in row for row in rows)
    device = pages.read(tmp_path)["device"]
    assert [row["what"] for row in device["calls"]] == ["spreading forward", "spreading backward"]
    assert "ExcitationPattern, 1000000 frames" in pages.asked(device)


def test_a_stage_whose_time_is_over_says_what_it_has_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gpu.Run(tmp_path / "rows.jsonl", "", rehearse=True)
    monkeypatch.setattr(work, "items", lambda stage, path, rehearse: ["spreading", "gammatone"])
    gpu.stage_of(run, 2, gpu.time.monotonic())
    assert [row["what"] for row in run.rows(2) if "undone" in row] == ["spreading", "gammatone"]


def test_what_a_process_leaves_is_ended(tmp_path: Path) -> None:
    written = tmp_path / "child"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(written)!r}, "w").write(str(child.pid))
"""
    assert gpu.Run(tmp_path / "rows.jsonl", "", rehearse=True).process(["-c", code], 60) == 0
    state = Path(f"/proc/{written.read_text()}/stat")
    for _ in range(100):  # it may take a moment, and remain as a zombie
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child of a process that has ended is still there")


def test_what_a_sweep_names_exists() -> None:
    for name, one in sweep.SWEEPS.items():
        assert one.operation in OPERATIONS, name
        assert set(one.figures) <= set(FIGURES), name
        for trial in one.trials:
            for constant in trial.constants:
                module, attribute = constant.rsplit(".", 1)
                assert hasattr(import_module(f"{sweep.KERNELS}.{module}"), attribute), constant


def test_half_a_line_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Rows(path, 1).add("one", value=float("inf"))
    with path.open("a") as file:
        file.write('{"stage": 1, "wh')
    Rows(path, 1).add("two")
    assert [row["what"] for row in read(path)] == ["one", "two"]
    assert gpu.wrong([{"what": "x", "failed": "y"}, {"what": "z", "right": False, "error": 1.0}]) == [
        "failed: x: y",
        "wrong: z, 1.0",
    ]
    assert [gpu.card(name) for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")] == [
        "h200",
        "h100",
        "a100",
    ]
