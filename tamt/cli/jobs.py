"""Work for files, one after another in this process or several at a time in others."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tamt_command.console import CommandError, reason
from tamt_command.drafts import no_drafts_left_by_signals, remove_drafts

from .sound import is_pipe
from .work import Outcome, Work, attempt

_PATIENCE = 10.0  # seconds that a process has to clear up

Prepare = Callable[[argparse.Namespace], Work]
Task = tuple[Path, str]


def outcomes(
    prepare: Prepare, arguments: argparse.Namespace, tasks: Sequence[Task], finished: Callable[[], Any]
) -> Generator[Outcome, None, None]:
    """What came of each file, in the order of the files; ``finished`` is called as each is done with, in any order."""
    # Other processes have no standard input, nor pipes of the shell.
    if min(arguments.jobs, len(tasks)) > 1 and not any(is_pipe(path) for path, _ in tasks):
        yield from _of_processes(prepare, arguments, tasks, finished)
    elif tasks:
        work = prepare(arguments)
        for path, name in tasks:
            outcome = attempt(work, path, name, arguments)
            finished()
            yield outcome


def _of_processes(
    prepare: Prepare, arguments: argparse.Namespace, tasks: Sequence[Task], finished: Callable[[], Any]
) -> Iterator[Outcome]:
    count = min(arguments.jobs, len(tasks))
    given = prepare, arguments, max(1, torch.get_num_threads() // count)
    waiting = deque(range(len(tasks)))
    found: dict[int, Outcome] = {}
    workers: dict[Any, BaseProcess] = {}  # by the connection to them
    started: set[Any] = set()
    busy: dict[Any, int] = {}  # the task they work on

    def start() -> None:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, *given), daemon=True)
        with _interrupts_held_back():
            process.start()
        there.close()  # so that its end is seen here
        workers[here] = process

    try:
        for _ in range(count):
            start()
        for wanted in range(len(tasks)):
            while wanted not in found:
                ready: Any
                for ready in wait(list(workers)):
                    index = busy.pop(ready, None)
                    try:
                        outcome = ready.recv()
                    except (EOFError, OSError):
                        how = _end_of(workers.pop(ready))
                        if ready not in started:
                            raise CommandError(
                                f"a process of --jobs ended as it started ({how}); a script that calls the command "
                                "as a function does so below if __name__ == '__main__'"
                            ) from None
                        outcome = Outcome(None, [], [], f"the process that worked on it ended ({how})", 0.0)
                        ready.close()
                        if waiting:
                            start()
                    started.add(ready)
                    if index is not None:
                        found[index] = outcome
                        finished()
                    if waiting and ready in workers:
                        busy[ready] = waiting.popleft()
                        with suppress(OSError):  # of one that has ended, as is seen in the next turn
                            ready.send(tasks[busy[ready]])
            yield found.pop(wanted)
    finally:
        for connection, process in workers.items():
            if connection in busy or connection not in started:
                process.terminate()
            connection.close()  # which ends those that wait
        for process in workers.values():
            process.join(_PATIENCE)
            process.kill()


def _end_of(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that a Ctrl-C at the terminal leaves alone: it is this process that ends, and they with it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It would let interrupts through as it starts, and with them to the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Any, prepare: Prepare, arguments: argparse.Namespace, threads: int) -> None:
    """Work on what the parent process sends, and say that it can send something, first and after every file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with no_drafts_left_by_signals(interrupt=False):
        try:
            work = prepare(arguments)
        except Exception as error:
            work = _that_fails(reason(error))
        with suppress(EOFError, OSError):  # the other end is closed: no more is wanted
            connection.send(None)
            while True:
                path, name = connection.recv()
                connection.send(attempt(work, path, name, arguments))


def _that_fails(problem: str) -> Work:
    def fail(*_: Any) -> Any:
        raise CommandError(problem)

    return Work((), fail)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    remove_drafts()
    os._exit(1)
