"""Test and measure on a GPU, in stages of which a cut-off at any moment leaves what is known by then.

``python3 -m asv_bench.gpu [--stages 0,1,2] [--out FILE] [--budget 480] [--commit HASH] [--rehearse]``

0. the GPU, versions, commit, clocks, copy bandwidth
1. smoke: every operator, forward and backward, against the reference
2. times of every operation and its kernels, and of the modules of which something is asked
3. the other tests marked ``gpu``, at last those that want the device for themselves
4. other sizes for the kernels whose figure was missed
5. tamt beside its peers, growth over length, batch and channels

Each stage runs in processes of its own. It may take its share of the time that is left, and is stopped then; what it
has not done is a row too. ``--rehearse`` runs everything at tiny sizes in Triton's interpreter, without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from asv_bench.staged import work
from asv_bench.staged.rows import Rows, read

SHARES = {0: 25, 1: 90, 2: 130, 3: 170, 4: 60, 5: 60}  # seconds of 8 minutes, about; what is left over is passed on
WORKERS = 14
ALONE = 40  # seconds of stage 3 for the tests that run by themselves
AHEAD = 0.4  # of the time of a stage, at most, to compile in many processes before it
TESTS = Path("tests")


class Run(NamedTuple):
    """One call of this script."""

    out: Path
    commit: str
    rehearse: bool

    def options(self, stage: int) -> list[str]:
        commit = ["--commit", self.commit] if self.commit else []
        return ["--stage", str(stage), "--out", str(self.out), *commit, *["--rehearse"] * self.rehearse]

    def process(self, arguments: Sequence[str], seconds: float) -> int | None:
        """Exit status of a process of Python, or None if the time was over: then it and all it started are ended."""
        if seconds <= 0:
            return None
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))}
        if self.rehearse:
            variables["TRITON_INTERPRET"] = "1"
        process = subprocess.Popen([sys.executable, *arguments], env=variables, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.end(process)

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """All that the process has started goes with it, also where it has ended by itself: it would hold the GPU."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)

    def rows(self, stage: int) -> list[dict[str, Any]]:
        """Those of a stage, of this run."""
        found = [row for row in read(self.out) if row["stage"] == stage]
        starts = [k for k, row in enumerate(found) if row["what"] == "stage" and "budget" in row]
        return found[starts[-1] :] if starts else []


def items(run: Run, stage: int, end: float) -> None:
    """A stage of items, by one process after the other: another one goes on where one has died."""
    rows = Rows(run.out, stage)
    left = work.items(stage, run.out, run.rehearse)
    if stage in (2, 4) and left and not run.rehearse:
        run.process(ahead(stage, left), AHEAD * (end - time.monotonic()))
    while left:
        status = run.process(["-m", "asv_bench.staged.work", *run.options(stage), *left], end - time.monotonic())
        begun = [row["what"] for row in run.rows(stage) if "begun" in row]
        done = {row["what"] for row in run.rows(stage) if "done" in row}
        for name in left:
            if name in begun and name not in done:
                over = "the time was over" if status is None else f"the process ended with status {status}"
                rows.add(name, undone=over)
        rest = [name for name in left if name not in begun]
        if status is None or rest == left:
            for name in rest:
                rows.add(name, undone="not begun" if status is None else f"its process ended with status {status}")
            return
        left = rest


def ahead(stage: int, names: Sequence[str]) -> list[str]:
    major, minor = torch.cuda.get_device_capability()
    options = ["--target", f"sm_{major}{minor}", "--workers", str(WORKERS), "--stage", str(stage)]
    return ["-m", "asv_bench.staged.ahead", *options, *names]


def tests(run: Run, stage: int, end: float) -> None:
    """A stage of tests, by many processes at once; stage 3 has some that run alone after these."""
    left = end - time.monotonic()
    if stage == 1:
        pytest(run, stage, [str(TESTS / "gpu" / "test_smoke.py")], "smoke", WORKERS, left)
        return
    files = [str(path) for path in sorted((TESTS / "gpu").glob("test_*.py"))]
    pytest(run, stage, files, "gpu and not smoke and not alone and not slow", WORKERS, left - min(ALONE, left / 3))
    pytest(run, stage, files, "alone and not slow", 0, end - time.monotonic())


def pytest(run: Run, stage: int, files: Sequence[str], marks: str, workers: int, seconds: float) -> None:
    options = ["-p", "asv_bench.staged.outcomes", "--rows", str(run.out), "--stage", str(stage)]
    spread = ["-n", str(min(workers, os.cpu_count() or 1)), "--dist", "worksteal"] if workers else []
    quick = ["-k", "tiny and float32"] if run.rehearse and stage == 1 else []
    quiet = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    before = len(run.rows(stage))
    status = run.process(["-m", "pytest", *files, "-m", marks, *options, *spread, *quick, *quiet], seconds)
    found = run.rows(stage)[before:]
    known = {name for row in found for name in row.get("tests", ())}
    undone = sorted(known - {row["what"] for row in found if "outcome" in row})
    rows = Rows(run.out, stage)
    count = {
        outcome: sum(row.get("outcome") == outcome for row in found) for outcome in ("passed", "failed", "skipped")
    }
    rows.add(f"tests, {marks}", **count, undone=undone, status="the time was over" if status is None else status)


def stage_of(run: Run, stage: int, end: float) -> None:
    rows = Rows(run.out, stage)
    start = time.monotonic()
    rows.add("stage", budget=round(end - start), commit=run.commit)
    with rows.guarded("stage"):
        (tests if stage in (1, 3) else items)(run, stage, end)
    rows.add("stage", spent=round(time.monotonic() - start, 1))


def card(name: str) -> str:
    """``h200`` of ``NVIDIA H200``, ``a100`` of ``NVIDIA A100-SXM4-80GB``."""
    model = re.search(r"\b[A-Z]+\d+\w*", name)
    return (model[0] if model else re.sub(r"\W+", "-", name)).lower()


def wrong(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What has to be looked at: failures, wrong results, figures that are not met, what was not done."""
    found = []
    for row in rows:
        if "failed" in row and not isinstance(row["failed"], int):
            found.append(f"failed: {row['what']}: {row['failed']}")
        elif row.get("outcome") == "failed":
            found.append(f"failed: {row['what']}")
        elif row.get("right") is False:
            found.append(f"wrong: {row['what']}, {row['error']}")
        elif row.get("met") is False:
            found.append(f"missed: {row['what']}, {row['value']:.4g} {row['unit']}, asked {row['limit']:.4g}")
        elif row.get("undone"):
            found.append(f"undone: {row['what']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", default=",".join(map(str, SHARES)), help="which, in this order")
    parser.add_argument("--out", type=Path, help="result file, which is appended to; default results/gpu-CARD.jsonl")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all stages")
    parser.add_argument("--commit", default="", help="of the checkout, where there is no git")
    parser.add_argument("--rehearse", action="store_true", help="tiny, in Triton's interpreter, on the CPU")
    arguments = parser.parse_args()
    if not arguments.rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device here; --rehearse runs the stages in Triton's interpreter")
    default = (
        Path(tempfile.mkdtemp()) / "rehearsal.jsonl"
        if arguments.rehearse
        else Path(f"results/gpu-{card(torch.cuda.get_device_name())}.jsonl")
    )
    run = Run(arguments.out or default, arguments.commit, arguments.rehearse)
    stages = [int(stage) for stage in arguments.stages.split(",")]
    end = time.monotonic() + arguments.budget
    found: list[str] = []
    for k, stage in enumerate(stages):
        now = time.monotonic()
        share = SHARES[stage] / sum(SHARES[s] for s in stages[k:])
        stage_of(run, stage, now + share * (end - now))
        found += wrong(run.rows(stage))
    print(*found, f"written to {run.out}", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
