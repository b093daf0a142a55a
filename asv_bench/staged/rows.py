"""The result file: a JSON object a line, written the moment it is known, by any of several processes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TAIL = 1500  # characters of a traceback


class Rows:
    """Appends rows of one stage to a file and prints a line for each."""

    def __init__(self, path: Path, stage: int) -> None:
        self.path, self.stage = path, stage

    def add(self, what: str, **values: Any) -> None:
        row = {"stage": self.stage, "what": what} | _finite(values)
        line = json.dumps(row, default=str) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:  # one write a line, which other processes do not divide
            # A run that was cut off may have left half a line.
            whole = not file.tell() or os.pread(file.fileno(), 1, file.tell() - 1) == b"\n"
            file.write((line if whole else "\n" + line).encode())
        print(_told(row), flush=True)

    @contextlib.contextmanager
    def guarded(self, what: str, **values: Any) -> Iterator[None]:
        """Inside, an exception becomes a row."""
        try:
            yield
        except Exception as error:
            self.failed(what, error, **values)

    def failed(self, what: str, error: Exception, **values: Any) -> None:
        trace = "".join(traceback.format_exception(error))
        self.add(what, **values, failed=f"{type(error).__name__}: {str(error)[:500]}", traceback=trace[-TAIL:])

    @contextlib.contextmanager
    def item(self, what: str) -> Iterator[None]:
        """A part of a stage: a row when it begins and one when it is over, whatever became of it."""
        start = time.monotonic()
        self.add(what, begun=True)
        with self.guarded(what):
            yield
        self.add(what, done=True, spent=round(time.monotonic() - start, 2))


def read(path: Path) -> list[dict[str, Any]]:
    """All rows that are whole."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict)]


def last_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several runs in one file the newest rows of each stage: those after the stage's last beginning."""
    starts = {row["stage"]: k for k, row in enumerate(rows) if row["what"] == "stage" and "budget" in row}
    return [row for k, row in enumerate(rows) if k >= starts.get(row["stage"], 0)]


def _finite(value: Any) -> Any:
    """JSON has no infinite numbers."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _told(row: dict[str, Any]) -> str:
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(row.items())[2:])
    return f"[{row['stage']}] {row['what']}: " + ", ".join(shown).replace("\n", " | ")
