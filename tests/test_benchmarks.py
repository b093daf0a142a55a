"""The benchmarks run without asv, check what they measure, and end in a result file."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from gpu import test_smoke

from asv_bench.benchmarks.common import relative_error, require
from tamt.ops._operator import operators

ROOT = Path(__file__).parent.parent


def test_a_run_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "results" / "cpu.json"
    script = (
        "import sys, runpy; sys.modules['asv'] = sys.modules['asv_runner'] = None; sys.argv.pop(0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "asv_bench/cpu.py",
        "--only",
        "LowBiquads",
    ]
    run = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    assert {"date", "commit", "torch", "name", "device", "results"} <= set(result)
    rows = {(row["benchmark"], *row["parameters"]): row for row in result["results"]}
    units = {"time_forward": "s", "time_training_step": "s", "track_error": "of the channel's peak"}
    assert set(rows) == set(product((f"iir.LowBiquads.{name}" for name in units), ["cpu"], ["float32", "float64"]))
    assert all(row["value"] > 0 and row["unit"] == units[name.split(".")[-1]] for (name, *_), row in rows.items())


def test_a_wrong_result_is_not_measured() -> None:
    assert relative_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, float("nan")]])) == float("inf")
    with pytest.raises(RuntimeError, match="not measured"):
        require(float("inf"), 1e-6, "filter")


def test_every_operator_is_smoke_tested() -> None:
    """Backward operators as the backward of theirs; the filters' spectra are plain torch, with tests of their own."""
    tried = {name.split()[0] for name in test_smoke.CASES}
    forward = {name for name in operators if not name.endswith("_backward")}
    assert forward - tried == {"filter_spectra"}
