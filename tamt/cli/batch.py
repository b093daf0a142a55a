"""Files one after another: a progress bar, what came of each, and an exit status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .console import reason, say, shown
from .files import inputs, is_one_file, result_names


class Done(NamedTuple):
    """What came of a file."""

    seconds: float  # of sound
    results: Sequence[Path]
    remark: str = ""


def each_file(arguments: Sequence[Path], work: Callable[[Path, str], Done], calibration: Path | None = None) -> int:
    """Do the work for every sound file that the arguments stand for, and say what came of it.

    ``work`` takes a file and the name of its results. The recording of a calibrator among other files is left out. The
    exit status is 1 if anything could not be analysed.
    """
    from tqdm import tqdm

    files, problems, notes = inputs(arguments)
    if calibration is not None and len(files) > 1:
        for path in [path for path in files if is_one_file(path, calibration)]:
            files.remove(path)
            notes.append((path, "left out, as it is the recording of --calibration"))
    for path, problem in [*problems, *notes]:
        say(f"tamt: {shown(path)}: {problem}", error=True)
    failed = len(problems)
    for path, name in zip(progress(files, unit="file"), result_names(files), strict=True):
        try:
            start = time.perf_counter()
            done = work(path, name)
            duration = time.perf_counter() - start
        # Whatever it is, it is this file's, and the others can go on.
        except Exception as error:
            failed += 1
            complain(path, reason(error))
        else:
            took = f"{done.seconds:.2f} s of sound in {duration:.2f} s{done.remark and f', {done.remark}'}"
            say(f"{shown(path)}: {took}: {', '.join(map(shown, done.results))}", write=tqdm.write)
    if failed:
        say(f"tamt: {failed} of {len(files) + len(problems)} inputs could not be analysed", error=True)
    return 1 if failed else 0


def complain(path: Path, problem: str) -> None:
    """Say what is wrong with a file, above the progress bars."""
    from tqdm import tqdm

    say(f"tamt: {shown(path)}: {problem}", error=True, write=tqdm.write)


def progress(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A progress bar of tqdm, which nobody sees but at a terminal."""
    from tqdm import tqdm

    return tqdm(items, disable=sys.stderr is None or not sys.stderr.isatty(), **options)
