"""What the commands can do, the limits of their options, and the options of each analysis.

What is the library's stands here a second time, as importing the library takes seconds; ``tests/test_cli.py`` holds
these to it.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from .console import ArgumentsError

SPECTRA = ("multires", "moore2016")
EXCITATIONS = ("glasberg2002", "moore2016")
# What --field can name, in a picture's words: the fields of tamt.OuterMiddleEar, and no ear at all.
HEARD = {"free": "free field", "diffuse": "diffuse field", "eardrum": "at the eardrum", "none": "no ear"}
FIELDS = tuple(field for field in HEARD if field != "none")
LOUDNESS_MODELS = ("moore2016", "glasberg2002")
DRNL_SUBJECTS = ("NH", "HIx")
DRNL_MODELS = ("paulick2024", "jepsen2008")
DETECTORS = ("envelope", "power", "halfwave")
FLOORS = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # positive numbers of single precision

# Sampling rates in Hz. What a header says may be nonsense, and a second of sound then make an endless one.
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000
MOST_CHANNELS = 10_000  # more would only take memory: these are 250 per ERB
MOST_JOBS = 256
HIGHEST_CENTRE = 8000.0  # of filters in Hz by default, where the rate allows it
FULL_SCALE_DB = 100.0  # dB SPL of a full-scale sine, of analyses
CALIBRATOR_DB = 94.0
LONGEST_HOP = 0.064  # of loudness in seconds, the length of a frame
MOST_COLUMNS = 4000  # of specific loudness


class Filterbank(NamedTuple):
    """What ``--filterbank`` can name."""

    flow: float  # default of --flow in Hz
    channels: int  # default of --channels
    takes_velocity: bool  # of the stapes in m/s, and has the options of a DRNL; else sound, full scale being 1
    detectors: tuple[str, ...]  # the first is the default


FILTERBANKS = {
    "drnl": Filterbank(250.0, 50, True, DETECTORS[1:]),
    "fast-drnl": Filterbank(250.0, 50, True, DETECTORS[1:]),
    "gammatone": Filterbank(80.0, 64, False, DETECTORS),
}


# How loud a file was; --calibration leaves no place for the default of --full-scale-db.
_LEVELS = {"full_scale_db": FULL_SCALE_DB, "calibration": None, "calibration_db": None}


def _options() -> dict[str, dict[str, Any]]:
    """What ``tamt analyze`` can do, the options that it has for each, and their defaults."""
    options: dict[str, dict[str, Any]] = {}
    for name, chosen in sorted(FILTERBANKS.items()):
        options[name] = {
            "flow": chosen.flow,
            "fhigh": None,
            "channels": chosen.channels,
            "fs": None,
            "hop": 0.01,
            "frame": None,
            "detector": chosen.detectors[0],
            "compression": "none",
            "floor": 1e-10,
        }
        if chosen.takes_velocity:
            options[name] |= {"subject": "NH", "model": "paulick2024", **_LEVELS}
    for kind, names in (("--spectrum", SPECTRA), ("--excitation", EXCITATIONS)):
        for name in names:
            options[f"{kind} {name}"] = dict(_LEVELS)
            if name == "moore2016":
                options[f"{kind} {name}"]["hop"] = 0.01
            if kind == "--excitation":
                options[f"{kind} {name}"]["field"] = "free"
    return options


_OPTIONS = _options()


def settle(arguments: argparse.Namespace) -> None:
    """Say in ``arguments.analysis`` what to do, put in its defaults, and refuse options that it does not have."""
    if arguments.spectrum:
        arguments.analysis = f"--spectrum {arguments.spectrum}"
    elif arguments.excitation:
        arguments.analysis = f"--excitation {arguments.excitation}"
    else:
        arguments.analysis = arguments.filterbank or "gammatone"
    floor_given = arguments.floor is not None
    calibrated = arguments.calibration is not None
    own = _OPTIONS[arguments.analysis]
    for name in dict.fromkeys(name for options in _OPTIONS.values() for name in options):
        if getattr(arguments, name) is None:
            setattr(arguments, name, own.get(name))
        elif name not in own:
            *most, last = (analysis for analysis, options in _OPTIONS.items() if name in options)
            raise ArgumentsError(
                f"--{name.replace('_', '-')} is for {', '.join(most)} and {last}, not for {arguments.analysis}"
            )
    if calibrated:
        arguments.full_scale_db = None
    check_calibration(arguments)
    if arguments.analysis in FILTERBANKS:
        _settle_filters(arguments)
        if floor_given and arguments.compression == "none":
            raise ArgumentsError("--floor does nothing without a --compression of db, log or a number")
    elif arguments.hop is not None:
        whole_milliseconds(arguments.hop, arguments.analysis)


def settle_loudness(arguments: argparse.Namespace) -> None:
    """Refuse options of ``tamt loudness`` that do not go together."""
    check_calibration(arguments)
    whole_milliseconds(arguments.hop, "tamt loudness")


def frequency_range(arguments: argparse.Namespace, fs: float) -> tuple[float, float]:
    """Lowest and highest centre frequency; an ArgumentsError if they do not suit the sampling rate."""
    flow, fhigh = arguments.flow, arguments.fhigh
    if fhigh is None:
        fhigh = min(HIGHEST_CENTRE, 0.45 * fs)
        if flow >= fhigh:
            raise ArgumentsError(
                f"--flow is {flow:g} Hz, but the highest centre is {fhigh:g} Hz by default at a sampling rate of "
                f"{fs:.7g} Hz; --fhigh sets another, up to {fs / 2:g} Hz"
            )
    elif flow >= fhigh:
        least = f"{flow:g} Hz{_by_default(arguments, 'flow')}"
        raise ArgumentsError(f"--fhigh is {fhigh:g} Hz, but has to be greater than --flow, {least}")
    elif fhigh > fs / 2:
        raise ArgumentsError(
            f"--fhigh is {fhigh:g} Hz, but has to be at most {fs / 2:g} Hz, half of a sampling rate of {fs:.7g} Hz"
        )
    return flow, fhigh


def samples_of(arguments: argparse.Namespace, fs: float) -> tuple[int, int]:
    """Samples of a hop and of a frame, which are given in seconds; an ArgumentsError for a hop of none."""
    length = round(arguments.hop * fs)
    if length < 1:
        raise ArgumentsError(f"hops of {arguments.hop:g} s (--hop) are shorter than a sample at {fs:g} Hz")
    return length, length * round(arguments.frame / arguments.hop)


def _by_default(arguments: argparse.Namespace, name: str) -> str:
    """What to say of a value that nobody need have given."""
    return " by default" if getattr(arguments, name) == _OPTIONS[arguments.analysis][name] else ""


def check_calibration(arguments: argparse.Namespace) -> None:
    """Refuse the level of a recording that there is not."""
    if arguments.calibration_db is not None and arguments.calibration is None:
        raise ArgumentsError(
            "--calibration-db does nothing without --calibration, the recording of a calibrator's tone"
        )


def whole_milliseconds(hop: float, analysis: str) -> int:
    """Milliseconds of a hop that was given in seconds; an ArgumentsError if they are not whole ones."""
    milliseconds = 1000 * hop
    if round(milliseconds) < 1 or abs(milliseconds - round(milliseconds)) > 1e-6:
        raise ArgumentsError(
            f"--hop is {hop:g} s, but has to be a whole number of milliseconds for {analysis}, as 0.001 or 0.002 s"
        )
    return round(milliseconds)


def _settle_filters(arguments: argparse.Namespace) -> None:
    """Refuse options of a filterbank that do not go together, and put in the length of a frame."""
    fs = HIGHEST_RATE if arguments.fs is None else arguments.fs
    frequency_range(arguments, fs)
    arguments.frame = arguments.hop if arguments.frame is None else arguments.frame
    hops = arguments.frame / arguments.hop
    if round(hops) < 1 or abs(hops - round(hops)) > 1e-6 * hops:
        hop = f"{arguments.hop:g} s{_by_default(arguments, 'hop')}"
        raise ArgumentsError(f"--frame is {arguments.frame:g} s, but has to be a multiple of --hop, {hop}")
    samples_of(arguments, fs)
    known = FILTERBANKS[arguments.analysis].detectors
    if arguments.detector not in known:
        raise ArgumentsError(
            f"--detector {arguments.detector} is not for {arguments.analysis}, whose filters have no analytic output: "
            f"{' or '.join(known)}"
        )
