"""Files that are written under another name until they are complete."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")

_drafts: set[Path] = set()
_progress: list[Callable[[], str]] = []  # what there is to say of it, the latest last


@contextmanager
def replacing(*targets: Path) -> Iterator[list[Path]]:
    """Give names to write to; the files take the targets' places once all are complete, and vanish if one fails."""
    drafts = [target.with_name(f".{secrets.token_hex(6)}.part") for target in targets]
    _drafts.update(drafts)
    try:
        yield drafts
        for draft, target in zip(drafts, targets, strict=True):
            os.replace(draft, target)
    finally:
        _remove(drafts)
        _drafts.difference_update(drafts)


def remove_drafts() -> None:
    """Remove what is being written, as a process does before it ends."""
    _remove(list(_drafts))


def _remove(drafts: Sequence[Path]) -> None:
    for draft in drafts:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def told_at_interrupts(progress: Callable[[], str]) -> Iterator[None]:
    """While this lasts, the line that an interrupt leaves says how far the command came."""
    _progress.append(progress)
    try:
        yield
    finally:
        _progress.remove(progress)


def _say_interrupted() -> None:
    line = ", ".join(["tamt: interrupted", *(progress() for progress in _progress[-1:])])
    # Past the stream, which may be in the middle of a write; and at a terminal the line of a progress bar is not over.
    with suppress(OSError, ValueError, AttributeError):
        number = sys.stderr.fileno()
        os.write(number, f"{chr(10) * os.isatty(number)}{line}\n".encode())


@contextmanager
def no_drafts_left_by_signals(interrupt: bool) -> Iterator[None]:
    """While this lasts, signals that end the process take its drafts with them, and `interrupt` says if SIGINT is one.

    The process then ends by the signal, as it would have without this. It would not do to raise an exception: what
    comes while a callback or a finalizer runs is lost.
    """

    def end(number: int, _: Any) -> None:
        remove_drafts()
        if number == signal.SIGINT:
            _say_interrupted()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # One that is ignored, as SIGHUP is under nohup, stays so.
        ending = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
        if interrupt and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            ending.append(signal.SIGINT)
        before = {number: signal.signal(number, end) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
