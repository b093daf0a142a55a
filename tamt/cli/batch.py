"""Files one after another, or several at a time: a progress bar, what came of each, and an exit status."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tamt_command.console import counted, say, shown
from tamt_command.drafts import told_at_interrupts

from .files import inputs, is_one_file, made_folder, result_names
from .jobs import outcomes
from .work import Done, Work


def each_file(
    arguments: argparse.Namespace, prepare: Callable[[argparse.Namespace], Work]
) -> tuple[int, list[tuple[Path, Done]]]:
    """Do the work for every sound file that the arguments stand for, and say what came of it.

    The recording of a calibrator among other files is left out. The first result is the exit status, 1 if anything
    could not be analysed, the second what is done. ``prepare`` has to be fit for pickling.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is one of processes, which outlives what a signal ends
    files, problems, notes = inputs(arguments.files)
    if arguments.calibration is not None and len(files) > 1:
        for path in [path for path in files if is_one_file(path, arguments.calibration)]:
            files.remove(path)
            notes.append((path, "left out, as it is the recording of --calibration"))
    if files:
        made_folder(arguments.out)
    for path, problem in [*problems, *notes]:
        say(f"tamt: {shown(path)}: {problem}", error=True)
    failed, finished = len(problems), []
    tasks = list(zip(files, result_names(files), strict=True))
    with ExitStack() as stack:
        bar, ended = stack.enter_context(progress(total=len(tasks), unit="file")), 0

        def count() -> None:
            nonlocal ended
            ended += 1
            bar.update()

        stack.enter_context(told_at_interrupts(lambda: f"{ended} of {counted(len(tasks), 'file')} done"))
        found = stack.enter_context(closing(outcomes(prepare, arguments, tasks, count)))
        for (path, _), outcome in zip(tasks, found, strict=True):
            for complaint in outcome.complaints:
                complain(path, complaint)
            if outcome.done is None:
                failed += 1
                complain(path, outcome.problem)
                continue
            finished.append((path, outcome.done))
            remark = outcome.done.remark and f", {outcome.done.remark}"
            took = f"{outcome.done.seconds:.2f} s of sound in {outcome.duration:.2f} s{remark}"
            say(f"{shown(path)}: {took}: {', '.join(map(shown, outcome.results))}", write=tqdm.write)
    if failed:
        say(f"tamt: {failed} of {len(files) + len(problems)} inputs could not be analysed", error=True)
    return (1 if failed else 0), finished


def complain(path: Path, problem: str) -> None:
    """Say what is wrong with a file, above the progress bars."""
    from tqdm import tqdm

    say(f"tamt: {shown(path)}: {problem}", error=True, write=tqdm.write)


class _NoBar:
    """In place of a progress bar of a process of --jobs, whose locks would outlive it."""

    n = 0

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: float = 1) -> None:
        pass


def progress(**options: Any) -> Any:
    """A progress bar of tqdm, which nobody sees but at a terminal."""
    if multiprocessing.parent_process() is not None:
        return _NoBar()
    from tqdm import tqdm

    return tqdm(disable=sys.stderr is None or not sys.stderr.isatty(), **options)
