"""The arguments of the command, and how it ends."""

from __future__ import annotations

import argparse
import importlib
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .console import ArgumentsError, CommandError, OutputError, reason, say, shown
from .drafts import no_drafts_left_by_signals
from .info import devices, version
from .notes import LOUDNESS_NOTES, NOTES
from .options import (
    CALIBRATOR_DB,
    DETECTORS,
    DRNL_MODELS,
    DRNL_SUBJECTS,
    EXCITATIONS,
    FIELDS,
    FILTERBANKS,
    FLOORS,
    FULL_SCALE_DB,
    HEARD,
    HIGHEST_RATE,
    LONGEST_HOP,
    LOUDNESS_MODELS,
    LOWEST_RATE,
    MOST_CHANNELS,
    MOST_JOBS,
    SPECTRA,
    settle,
    settle_loudness,
)

if TYPE_CHECKING:
    import torch


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process. The process is then taken to be the command's own, and an
        interrupt (SIGINT) ends it without a traceback.

    Returns
    -------
    int
        Exit status: 0, or 1 if something could not be done, or 141 if nobody reads the output any more. Arguments that
        are wrong whatever the files hold exit with status 2.
    """
    try:
        try:
            arguments = _parser().parse_args(argv)
            with no_drafts_left_by_signals(interrupt=argv is None):
                return _run(arguments)
        except (CommandError, OSError) as error:
            say(f"tamt: {reason(error)}", error=True)
            return 1
        finally:
            say("", end="")
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return 128 + 13  # as if by SIGPIPE, which Python ignores
        with suppress(OutputError):
            say(f"tamt: the output cannot be written: {error}", error=True)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    """Import what does the work, torch with it, once there is something to do for it."""
    module, _, function = arguments.command.partition(":")
    refuse = vars(arguments).pop("refuse")
    try:
        if "settle" in arguments:
            vars(arguments).pop("settle")(arguments)
        if "device" in arguments:
            arguments.device = _device(arguments.device)
        return getattr(importlib.import_module(module), function)(arguments)
    except ArgumentsError as error:
        return refuse(str(error))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have one line of usage before them, in place of one for every few options."""

    short = " COMMAND [options]"

    def error(self, message: str) -> NoReturn:
        self.exit(
            2, f"usage: {self.prog}{self.short}; {self.prog} --help has all\n{self.prog}: error: {shown(message)}\n"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tamt", description="Auditory filterbanks and loudness: demonstration and sound analysis.")
    parser.add_argument("--version", action="version", version=f"tamt {version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = _add_command(
        commands,
        "demo",
        "tamt.cli.demo:run_demo",
        " [options]",
        help="filter a synthetic vowel sequence and draw pictures of it",
        description="Synthesise a sequence of vowels, write it as a WAV file, filter it and draw pictures of it.",
    )
    demo.add_argument("--out", type=_path, default=Path("tamt-demo"), metavar="DIR", help="folder (default: tamt-demo)")
    _add_overwrite(demo, "pictures and a sound that are there already, and not this demonstration's")

    analyze = _add_command(
        commands,
        "analyze",
        "tamt.cli.analyze:analyze_files",
        " FILES --out DIR [options]",
        help="write cochleagrams of sound files as numbers and pictures",
        description="Take the cochleagrams of sound files, or their spectra or excitation patterns, and write them as\n"
        "numbers and as a picture.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files_and_device(analyze)
    option = analyze.add_argument
    # No default here: argparse would then let it pass beside one of the others.
    kind = analyze.add_mutually_exclusive_group().add_argument
    kind("--filterbank", choices=sorted(FILTERBANKS), help="default: gammatone")
    kind("--spectrum", choices=SPECTRA, help="the spectrum of a loudness model instead, see below")
    kind(
        "--excitation",
        choices=EXCITATIONS,
        help="an excitation pattern instead: moore2016 is that of the model, with a spreading limit of 4 octaves, "
        "glasberg2002 a rule of its own, see below",
    )
    option(
        "--subject", choices=DRNL_SUBJECTS, help="of a DRNL: hearing normal or without the active part (default: NH)"
    )
    option("--model", choices=DRNL_MODELS, help="of a DRNL: orders of its filters (default: paulick2024)")
    _add_levels(analyze, "for all but gammatone: ", f", see below (default: {FULL_SCALE_DB:g})", required=False)
    option(
        "--field", choices=HEARD, help="of an excitation: where the sound was before the ear, see below (default: free)"
    )
    option(
        "--fs",
        type=_rate,
        metavar="HZ",
        help=f"of a filterbank: resample to this rate, {LOWEST_RATE} to {HIGHEST_RATE} (default: the file's own)",
    )
    option("--flow", type=_positive, metavar="HZ", help="of a filterbank: lowest centre (default: 80, of a DRNL 250)")
    option(
        "--fhigh",
        type=_positive,
        metavar="HZ",
        help="likewise highest (default: 8000, or 0.45 times the rate if lower)",
    )
    option(
        "--channels",
        type=_count,
        metavar="N",
        help=f"likewise number, at most {MOST_CHANNELS}, even in ERB (default: 64, of a DRNL 50)",
    )
    option(
        "--hop",
        type=_seconds,
        metavar="S",
        help="of a filterbank or moore2016: seconds from one frame to the next, at most 1 (default: 0.01)",
    )
    option(
        "--frame",
        type=_seconds,
        metavar="S",
        help="of a filterbank: seconds of a frame, a multiple of --hop, at most 1 (default: --hop)",
    )
    option(
        "--detector",
        choices=DETECTORS,
        help="likewise what a frame is the mean of, see below (default: envelope, of a DRNL power)",
    )
    option(
        "--compression",
        type=_compression,
        metavar="{none,db,log,NUMBER}",
        help="likewise what is made of the mean; a number in (0, 1) is an exponent, see below (default: none)",
    )
    option(
        "--floor",
        type=_floor,
        metavar="P",
        help="of a compression: the least mean that it knows, greater than 0 (default: 1e-10)",
    )
    analyze.set_defaults(settle=settle)

    loudness = _add_command(
        commands,
        "loudness",
        "tamt.cli.loudness:loudness_of_files",
        " FILES --out DIR (--full-scale-db DB | --calibration FILE) [options]",
        help="write the loudness of sound files over time, in sone and phon",
        description="Find short-term and long-term loudness of sound files by a model of hearing, and write them as\n"
        "numbers and as a picture.",
        epilog=LOUDNESS_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files_and_device(loudness)
    option = loudness.add_argument
    _add_levels(loudness, "", "", required=True)
    option("--model", choices=LOUDNESS_MODELS, default="moore2016", help="see below (default: moore2016)")
    option("--field", choices=FIELDS, default="free", help="where the sound was, see below (default: free)")
    option("--channel", type=_count, metavar="N", help="hear channel N of every file, 1 is the first, with both ears")
    option(
        "--hop",
        type=_hop_of_loudness,
        default=0.001,
        metavar="S",
        help=f"seconds from one frame to the next, whole milliseconds up to {LONGEST_HOP:g} (default: 0.001, as the "
        "models have it; 0.01 has a tenth of the frames)",
    )
    loudness.set_defaults(settle=settle_loudness)

    _add_command(
        commands,
        "info",
        "tamt_command.info:print_info",
        "",
        help="print versions and devices",
        description="Print versions, devices and the backend of each device.",
    )
    return parser


def _add_command(
    commands: argparse._SubParsersAction[_Parser], name: str, function: str, short: str, **texts: Any
) -> _Parser:
    """Add a command that calls a function, by ``"module:name"``; ``short`` is its usage in an error."""
    parser = commands.add_parser(name, **texts)
    parser.short = short
    parser.set_defaults(command=function, refuse=parser.error)
    return parser


def _add_files_and_device(parser: argparse.ArgumentParser) -> None:
    """Add what the commands that go through sound files have in common."""
    option = parser.add_argument
    option(
        "files",
        nargs="+",
        type=_input,
        metavar="FILE",
        help="sound file of any kind that soundfile reads, or folder, for the sound files in and below it; - is "
        "standard input",
    )
    option("--out", type=_path, required=True, metavar="DIR", help="folder for the results; made if there is none")
    option("--no-plot", dest="plot", action="store_false", help="no pictures, which take time")
    option("--device", default="cpu", help="torch device, such as cuda (default: cpu)")
    option(
        "--jobs",
        type=_jobs,
        default=1,
        metavar="N",
        help=f"processes that work on a file each, 1 to {MOST_JOBS}; they share torch's threads, and pay for many "
        "files on a machine with many cores (default: 1)",
    )
    _add_overwrite(parser, "results of another file")


def _add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}; an error otherwise")


def _add_levels(parser: argparse.ArgumentParser, of: str, note: str, required: bool) -> None:
    """Add the options that say how loud files were."""
    one = parser.add_mutually_exclusive_group(required=required).add_argument
    one("--full-scale-db", type=_sound_level, metavar="DB", help=f"{of}dB SPL of a full-scale sine, 0 to 200{note}")
    one("--calibration", type=_path, metavar="FILE", help="recording of a calibrator's tone instead, see below")
    parser.add_argument(
        "--calibration-db",
        type=_sound_level,
        metavar="DB",
        help=f"level of that tone in dB SPL, 0 to 200 (default: {CALIBRATOR_DB:g})",
    )


def _number(text: str) -> float:
    """Not a number, which is in no range, for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a finite number greater than 0")
    return value


def _rate(text: str) -> float:
    value = _positive(text)
    if not LOWEST_RATE <= value <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} has to be from {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    return value


def _seconds(text: str, most: float = 1.0) -> float:
    value = _positive(text)
    if value > most:
        raise argparse.ArgumentTypeError(f"{text!r} has to be at most {most:g} seconds")
    return value


def _hop_of_loudness(text: str) -> float:
    return _seconds(text, LONGEST_HOP)


def _compression(text: str) -> str | float:
    if text in ("none", "db", "log"):
        return text
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be none, db, log or a number greater than 0 and less than 1")
    return value


def _floor(text: str) -> float:
    value = _positive(text)
    if not FLOORS[0] <= value <= FLOORS[1]:
        raise argparse.ArgumentTypeError(f"{text!r} has to be from {FLOORS[0]:g} to {FLOORS[1]:g}")
    return value


def _sound_level(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= 200.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a level from 0 to 200 dB SPL")
    return value


def _count(text: str, most: int = MOST_CHANNELS) -> int:
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} has to be a whole number from 1 to {most}")
    return int(text)


def _jobs(text: str) -> int:
    return _count(text, MOST_JOBS)


def _path(text: str) -> Path:
    # An empty path is the working folder: a variable that is not set would mean everything in it.
    if not text:
        raise argparse.ArgumentTypeError("a name must not be empty")
    return Path(text)


def _input(text: str) -> Path:
    return _path("/dev/stdin" if text == "-" else text)


def _device(text: str) -> torch.device:
    import torch

    try:
        device = torch.device(text)
        # There are devices that hold no data.
        torch.zeros(1, device=device).tolist()
    except Exception as error:
        there = devices()
        # What torch says of the others is about itself.
        why = f" ({reason(error)})" if text in (*there, "cuda") and len(there) > 1 else ""
        raise ArgumentsError(
            f"argument --device: {text!r} cannot be used{why}; this machine has {', '.join(there)}"
        ) from error
    return device
