"""Which files the command reads and writes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from tamt_command.console import ArgumentsError, CommandError, counted, shown

from .sound import FFMPEG, is_pipe

# What the files of a format are called, by soundfile's name of the format. MATLAB's are left out, as those that are
# sound are few, and raw samples, which soundfile cannot read by themselves.
_EXTENSIONS = {
    "AIFF": (".aif", ".aifc", ".aiff"),
    "AU": (".au", ".snd"),
    "AVR": (".avr",),
    "CAF": (".caf",),
    "FLAC": (".flac",),
    "HTK": (".htk",),
    "IRCAM": (".sf",),
    "MP3": (".mp1", ".mp2", ".mp3"),
    "MPC2K": (".snd",),
    "NIST": (".nist", ".sph"),
    "OGG": (".oga", ".ogg", ".opus"),
    "PAF": (".paf",),
    "PVF": (".pvf",),
    "RF64": (".rf64",),
    "SD2": (".sd2",),
    "SDS": (".sds",),
    "SVX": (".8svx", ".svx"),
    "VOC": (".voc",),
    "W64": (".w64",),
    "WAV": (".wav", ".wave"),
    "WVE": (".wve",),
    "XI": (".xi",),
}
# Sound that soundfile does not read: a folder's are not passed over in silence.
_FOREIGN = {".3gp", ".aac", ".ac3", ".amr", ".ape", ".dsf", ".m4a", ".m4b", ".mka", ".mpc", ".ra", ".wma", ".wv"}
# Bytes of the longest file name that common file systems allow.
_LONGEST_NAME = 255


class Inputs(NamedTuple):
    """What the arguments of the command stand for."""

    files: list[Path]  # sound files, each once
    problems: list[tuple[Path, str]]  # arguments and folders of which nothing can be had, and why
    notes: list[tuple[Path, str]]  # what else there is to say of a folder


def inputs(arguments: Sequence[Path]) -> Inputs:
    """Replace folders by the sound files in and below them, in sorted order, and leave out what is given twice."""
    files: list[Path] = []
    problems: list[tuple[Path, str]] = []
    notes: list[tuple[Path, str]] = []
    for path in arguments:
        if not os.path.isdir(path):
            files.append(path)
            continue
        unreadable: list[OSError] = []
        names = sorted(_visible_files(path, unreadable))
        problems += [(Path(error.filename), str(error.strerror)) for error in unreadable]
        extensions = sound_extensions()
        # A pipe in it would wait for somebody to write.
        found = [name for name in names if name.suffix.lower() in extensions and not is_pipe(name)]
        files += found
        foreign = Counter(name.suffix.lower() for name in names if name.suffix.lower() in _FOREIGN)
        others = f"{', '.join(sorted(foreign))} (soundfile does not read it; {FFMPEG.format('.m4a')} makes it WAV)"
        if not found and not unreadable:
            there = f", but there is {others}" if foreign else ""
            known = ", ".join(sorted(extensions))
            problems.append((path, f"there is no sound file in this folder{there}; their names end in {known}"))
        elif foreign:
            notes.append((path, f"left out {counted(foreign.total(), 'file')} of {others}"))
    return Inputs(_distinct(files), problems, notes)


def sound_extensions() -> set[str]:
    """What the names of files end in that soundfile reads, in small letters."""
    import soundfile

    return {extension for format_ in soundfile.available_formats() for extension in _EXTENSIONS.get(format_, ())}


def _visible_files(folder: Path, unreadable: list[OSError]) -> Iterator[Path]:
    """Find the files in a folder and below it, but for hidden ones; links to folders could go in circles."""
    for below, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(below, name) for name in names if not name.startswith("."))


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Leave out a file that is given again, by another way or, where the file system allows that, in other case."""
    distinct: list[Path] = []
    alike: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        located = whereabouts(path)
        others = alike[_folded(str(located))]
        if not any(other == located or is_one_file(other, located) for other in others):
            others.append(located)
            distinct.append(path)
    return distinct


def is_one_file(path: Path, other: Path) -> bool:
    """Whether two names lead to the same file."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


def whereabouts(path: Path) -> Path:
    """Where a file is, whatever way leads to its folder; a link to a file is a file of its own."""
    return Path(os.path.realpath(path.parent), path.name)


def _folded(name: str) -> str:
    """Make names alike that a file system may take for one: macOS and Windows do not tell case apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def result_names(paths: Sequence[Path]) -> list[str]:
    """Give each of several files the name of its results, whatever their order.

    It is the file's stem; where that is not its alone, the name, then the name behind those of as many folders as it
    takes. What no folder tells apart gets a checksum of where it is.
    """
    located = [whereabouts(path) for path in paths]
    depths = [0] * len(paths)
    while True:
        names = [_result_name(path, depth) for path, depth in zip(located, depths, strict=True)]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            groups[_folded(name)].append(index)
        clashing = [group for group in groups.values() if len(group) > 1]
        if not clashing:
            return names
        for group in clashing:
            least = min(depths[index] for index in group)
            for index in group:
                depths[index] += depths[index] == least


def _result_name(path: Path, depth: int) -> str:
    checksum = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    # The first part is the root or, on Windows, a drive.
    if depth >= len(path.parts):
        return _shortened(path.name, f"-{checksum}", must=True)
    return _shortened("-".join(path.parts[-depth:]) if depth else path.stem, f"-{checksum}")


def _shortened(name: str, ending: str, must: bool = False) -> str:
    """Keep a name, or as much of it as leaves room for an ending if it is too long for a file system."""
    most = _LONGEST_NAME - len(".npz")
    if not must and len(os.fsencode(name)) <= most:
        return name
    while len(os.fsencode(name + ending)) > most:
        name = name[:-1]
    return name + ending


def source_of(path: Path, results: Sequence[Path], cut_off: int) -> dict[str, Any]:
    """What results say of the file that they are of: its path as given, where that is, and what it lacks.

    And which files are its results: those too that an earlier run made and this one does not, a picture say.
    """
    names = {result.name for result in results}
    with suppress(*_UNKNOWN):
        source, earlier = _written(_archive(results))
        if _is_source(source, path):
            names |= {name for name in earlier if os.path.lexists(results[0].with_name(name))}
    return {
        "source": os.fspath(path),
        "source_path": os.fspath(whereabouts(path)),
        "cut_off": cut_off,
        "results": sorted(names),
    }


def expect_own(results: Sequence[Path], path: Path) -> None:
    """A CommandError if results, an .npz file among them, would take the place of what is not of this sound file."""
    there, npz = [result for result in results if os.path.lexists(result)], _archive(results)
    if not there:
        return
    try:
        if is_pipe(path):
            raise ValueError("sound from a pipe has no name")
        source, own = _written(npz)
    except _UNKNOWN as error:
        raise CommandError(
            f"{shown(there[0])} is there already, and nothing says that it is a result of this file; --overwrite "
            "replaces it"
        ) from error
    if not _is_source(source, path):
        gone = "" if os.path.lexists(source) else ", which is no longer there"
        raise CommandError(
            f"{shown(npz)} is a result of another file, {shown(source)}{gone}; --overwrite replaces it, and another "
            "--out keeps both"
        )
    for result in there:
        if result.name not in own:
            raise CommandError(f"{shown(result)} is there already, and not by {shown(npz)}; --overwrite replaces it")


# What comes of asking a file whose results it is with, that is no .npz, damaged, or from somewhere else.
_UNKNOWN = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, AttributeError, TypeError)


def _archive(results: Sequence[Path]) -> Path:
    (npz,) = (result for result in results if result.suffix == ".npz")
    return npz


def _written(npz: Path) -> tuple[Path, set[str]]:
    """The sound file that an .npz file is of, and the names of all its results."""
    with np.load(npz) as file:
        return Path(str(file["source_path"])), set(file["results"].tolist())


def _is_source(source: Path, path: Path) -> bool:
    return source == whereabouts(path) or is_one_file(source, path)


def made_folder(path: Path) -> Path:
    """Make a folder for results if there is none; an ArgumentsError if that cannot be, or nothing be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentsError(f"the folder {shown(path)} (--out) cannot be made: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ArgumentsError(f"the folder {shown(path)} (--out) cannot be written to: {error.strerror}") from error
    return path
