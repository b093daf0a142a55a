"""What the command says, and what it needs to be able to run."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """Something that the user can put right; the message says what."""


class ArgumentsError(CommandError):
    """Arguments that are wrong, whatever the sound files hold; the command ends before the first of them."""


class OutputError(Exception):
    """Standard output or error takes nothing more; the cause says why."""


def say(text: str, *, end: str = "\n", error: bool = False, write: Callable[..., Any] = print) -> None:
    """Write to standard output or error, at once and with escapes for what its encoding lacks; else an OutputError."""
    stream = sys.stderr if error else sys.stdout
    if stream is None:  # closed by the caller
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        write(text.encode(encoding, "backslashreplace").decode(encoding), end=end, file=stream)
        stream.flush()
    except OSError as problem:
        # Python tries once more as it ends, and complains.
        with suppress(OSError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), stream.fileno())
        raise OutputError(problem.strerror) from problem


def shown(name: Path | str) -> str:
    """Give a name as one line: bytes that are not UTF-8, control characters and line ends as escapes."""
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(name))


def counted(count: int, noun: str) -> str:
    """A number of things in words, of one or more."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's stand-in for a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def reason(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, CommandError):
        return str(error)
    text = textwrap.shorten(shown(" ".join(str(error).split())), 300, placeholder=" ...")
    if isinstance(error, OSError):
        return text
    if isinstance(error, MemoryError):
        return f"there is not enough memory{text and f': {text}'}"
    return f"{type(error).__name__}{text and f': {text}'}"


def require(*modules: str) -> None:
    """Raise a CommandError where one of them cannot be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        # soundfile raises OSError where the library libsndfile is missing.
        except (ImportError, OSError) as error:
            raise CommandError(f"{module} cannot be used ({error}); pip install 'tamt[audio,plot]'") from error
