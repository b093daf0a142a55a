"""What there is to do for a file, and what came of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tamt_command.console import reason

from .files import expect_own


class Done(NamedTuple):
    """What came of a file."""

    seconds: float  # of sound
    remark: str = ""
    summary: tuple[float, ...] = ()  # its line in a table


class Work(NamedTuple):
    """What there is to do for every file."""

    kinds: tuple[str, ...]  # of results: the endings of their names
    # Of the file, its results and a function to complain to.
    do: Callable[[Path, list[Path], Callable[[str], None]], Done]


class Outcome(NamedTuple):
    """What there is to say of a file."""

    done: Done | None
    results: list[Path]
    complaints: list[str]
    problem: str  # where it is not done
    duration: float  # seconds it took


def attempt(work: Work, path: Path, name: str, arguments: argparse.Namespace) -> Outcome:
    """Do the work for a file whose results have a name."""
    results = [arguments.out / f"{name}.{kind}" for kind in work.kinds]
    complaints: list[str] = []
    done, problem, start = None, "", time.perf_counter()
    try:
        if not arguments.overwrite:
            expect_own(results, path)
        done = work.do(path, results, complaints.append)
    # Whatever it is, it is this file's, and the others can go on.
    except Exception as error:
        problem = reason(error)
    return Outcome(done, results, complaints, problem, time.perf_counter() - start)
