"""The arguments of the command, and how it ends."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
from contextlib import suppress
from pathlib import Path

import torch

from tamt.filterbanks.cochleagram import FLOORS
from tamt.filterbanks.drnl import MODELS, SUBJECTS

from .. import __version__
from ..ops import backend
from .analyze import analyze_files
from .console import CommandError, OutputError, reason, say
from .demo import run_demo
from .files import no_drafts_left_by_signals
from .loudness import CALIBRATOR_DB, FIELDS, LONGEST_HOP, LOUDNESS_MODELS, LOUDNESS_NOTES, loudness_of_files
from .options import DETECTORS, EXCITATIONS, FILTERBANKS, HEARD, NOTES, SPECTRA
from .sound import HIGHEST_RATE, LOWEST_RATE

# More would only take memory: these are 250 per ERB.
_MOST_CHANNELS = 10_000


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
        Exit status: 0, or 1 if something could not be done, or 141 if nobody reads the output any more. Wrong arguments
        exit with status 2.
    """
    try:
        try:
            arguments = _parser().parse_args(argv)
            with no_drafts_left_by_signals(interrupt=argv is None):
                return arguments.command(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tamt", description="Auditory filterbanks and loudness: demonstration and sound analysis."
    )
    parser.add_argument("--version", action="version", version=f"tamt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="filter a synthetic vowel sequence and draw pictures of it",
        description="Synthesise a sequence of vowels, write it as a WAV file, filter it and draw pictures of it.",
    )
    demo.add_argument("--out", type=Path, default=Path("tamt-demo"), metavar="DIR", help="folder (default: tamt-demo)")
    demo.set_defaults(command=run_demo)

    analyze = commands.add_parser(
        "analyze",
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
    option("--subject", choices=SUBJECTS, help="of a DRNL: hearing normal or without the active part (default: NH)")
    option("--model", choices=tuple(MODELS), help="of a DRNL: orders of its filters (default: paulick2024)")
    option(
        "--full-scale-db",
        type=_sound_level,
        metavar="DB",
        help="for all but gammatone: dB SPL of a full-scale sine, 0 to 200, see below (default: 100)",
    )
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
        help=f"likewise number, at most {_MOST_CHANNELS}, even in ERB (default: 64, of a DRNL 50)",
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
    analyze.set_defaults(command=analyze_files)

    loudness = commands.add_parser(
        "loudness",
        help="write the loudness of sound files over time, in sone and phon",
        description="Find short-term and long-term loudness of sound files by a model of hearing, and write them as\n"
        "numbers and as a picture.",
        epilog=LOUDNESS_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files_and_device(loudness)
    option = loudness.add_argument
    calibration = loudness.add_mutually_exclusive_group(required=True).add_argument
    calibration("--full-scale-db", type=_sound_level, metavar="DB", help="dB SPL of a full-scale sine, 0 to 200")
    calibration("--calibration", type=_input, metavar="FILE", help="recording of a calibrator's tone, see below")
    option(
        "--calibration-db",
        type=_sound_level,
        metavar="DB",
        help=f"level of that tone in dB SPL, 0 to 200 (default: {CALIBRATOR_DB:g})",
    )
    option("--model", choices=tuple(LOUDNESS_MODELS), default="moore2016", help="see below (default: moore2016)")
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
    loudness.set_defaults(command=loudness_of_files)

    info = commands.add_parser(
        "info", help="print versions and devices", description="Print versions, devices and the backend of each device."
    )
    info.set_defaults(command=_info)
    return parser


def _add_files_and_device(parser: argparse.ArgumentParser) -> None:
    """Add what the commands that go through sound files have in common."""
    option = parser.add_argument
    option(
        "files",
        nargs="+",
        type=_input,
        metavar="FILE",
        help="sound file of any kind that soundfile reads, or folder, for the sound files in and below it",
    )
    option("--out", type=Path, required=True, metavar="DIR", help="folder for the results; made if there is none")
    option("--no-plot", dest="plot", action="store_false", help="no pictures, which take time")
    option("--device", type=_device, default=torch.device("cpu"), help="torch device, such as cuda (default: cpu)")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
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
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be none, db, log or a number greater than 0 and less than 1")
    return value


def _floor(text: str) -> float:
    value = _positive(text)
    if not FLOORS[0] <= value <= FLOORS[1]:
        raise argparse.ArgumentTypeError(f"{text!r} has to be from {FLOORS[0]:g} to {FLOORS[1]:g}")
    return value


def _sound_level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 200.0:
        raise argparse.ArgumentTypeError(f"{text!r} has to be a level from 0 to 200 dB SPL")
    return value


def _count(text: str) -> int:
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= _MOST_CHANNELS):
        raise argparse.ArgumentTypeError(f"{text!r} has to be a whole number from 1 to {_MOST_CHANNELS}")
    return int(text)


def _input(text: str) -> Path:
    # An empty path is the working folder: a variable that is not set would mean everything in it.
    if not text:
        raise argparse.ArgumentTypeError("a name must not be empty")
    return Path(text)


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        # There are devices that hold no data.
        torch.zeros(1, device=device).tolist()
    except Exception as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {reason(error)}") from error
    return device


def _info(arguments: argparse.Namespace) -> int:
    say(f"{'tamt':<12}{__version__}\n{'python':<12}{platform.python_version()}, {platform.platform()}")
    say(f"{'torch':<12}{torch.__version__}")  # with the build, of which the package's metadata need not tell
    for package in ("triton", "numpy", "scipy", "soundfile", "soxr", "matplotlib"):
        say(f"{package:<12}{_version(package) or 'not installed'}")
    served = {"triton": "Triton kernels", "reference": "reference (plain torch)"}
    say(f"\ncpu         {served[backend('cpu')]}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        say(f"{f'cuda:{index}':<12}{served[backend('cuda')]}, {torch.cuda.get_device_name(index)}")
    if torch.backends.mps.is_available():
        say(f"mps         {served[backend('mps')]}")
    return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
