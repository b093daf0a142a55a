"""``tamt analyze``: write cochleagrams and spectra of sound files as numbers and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tamt.filterbanks.cochleagram import Cochleagram
from tamt.filterbanks.drnl import DRNLFilterbank
from tamt.filterbanks.fast_drnl import FastDRNLFilterbank
from tamt.filterbanks.gammatone import GammatoneFilterbank
from tamt.spectra.moore2016 import FS as SPECTRUM_FS
from tamt.spl import stapes_velocity
from tamt_command.console import ArgumentsError, CommandError, require, shown
from tamt_command.drafts import replacing
from tamt_command.options import FILTERBANKS, HEARD, frequency_range, samples_of

from .. import plot
from .analysis import Design, analysis_of, moore2016, multiresolution
from .batch import each_file
from .calibration import factor, full_scale_of, scalar
from .files import source_of
from .sound import opened
from .work import Done, Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from soundfile import SoundFile

KINDS: dict[str, type[GammatoneFilterbank] | type[DRNLFilterbank]] = {
    "drnl": DRNLFilterbank,
    "fast-drnl": FastDRNLFilterbank,
    "gammatone": GammatoneFilterbank,
}

# A picture of more sound channels than this would be too tall to look at.
_MOST_PANELS = 4


def analyze_files(arguments: argparse.Namespace) -> int:
    """Analyse every file, say what came of it, and give the exit status: 1 if anything could not be analysed."""
    require("soundfile", "soxr", "tqdm", *(["matplotlib"] if arguments.plot else []))
    levels = arguments.calibration is not None or arguments.full_scale_db is not None
    arguments.full_scale = full_scale_of(arguments) if levels else None
    if arguments.analysis in FILTERBANKS and arguments.fs is not None:
        _bank(arguments, arguments.fs)  # which may be refused, whatever the files are
    status, _ = each_file(arguments, _prepare)
    return status


def _prepare(arguments: argparse.Namespace) -> Work:
    analyze_file = _filter_file if arguments.analysis in FILTERBANKS else _spectra_file

    def do(path: Path, results: list[Path], complain: Callable[[str], None]) -> Done:
        return Done(*analyze_file(path, results, arguments, complain))

    return Work(("npz", "png") if arguments.plot else ("npz",), do)


def _filter_file(
    path: Path, results: list[Path], arguments: argparse.Namespace, complain: Callable[[str], None]
) -> tuple[float, str]:
    """Write the cochleagram of a sound file, and give its duration in seconds and a remark."""
    velocity, title = FILTERBANKS[arguments.analysis].takes_velocity, f"{shown(path.name)}: {arguments.analysis}"
    own: dict[str, Any] = {}
    full_scale = np.ones(1)
    compression = None if arguments.compression == "none" else arguments.compression
    scale: dict[str, Any] = {"detector": arguments.detector, "compression": compression, "floor": arguments.floor}
    if velocity:
        own = {"subject": arguments.subject, "model": arguments.model}
        title += f" ({arguments.subject}, {arguments.model}), full scale {arguments.full_scale.text}"
        full_scale = np.array([stapes_velocity(level) for level in arguments.full_scale.levels.tolist()])

    def design(sound: SoundFile, fs: float) -> Design:
        if velocity:
            arguments.full_scale.of(sound)
        cochleagram = Cochleagram(_bank(arguments, fs), *samples_of(arguments, fs), **scale)
        return Design(cochleagram, factor(full_scale, arguments.device))

    analysis = analysis_of(path, design, complain, arguments.fs, arguments.device)
    title += f", {arguments.channels} filters, {analysis.fs:g} Hz{_drawn_channels(len(analysis.frames))}"
    draw = partial(
        plot.cochleagram,
        analysis.frames[:_MOST_PANELS],
        analysis.times,
        analysis.fc,
        **scale,
        waveform=(analysis.low[:_MOST_PANELS], analysis.high[:_MOST_PANELS]),
        title=title,
        reference="1 m/s" if velocity else "full scale",
    )
    arrays = {
        "fc": analysis.fc,
        "times": analysis.times,
        "frames": analysis.frames,
        "detector": arguments.detector,
        "compression": str(arguments.compression),
        "floor": arguments.floor,
        "hop": analysis.cochleagram.hop_length,
        "frame_length": analysis.cochleagram.frame_length,
        "fs": analysis.fs,
        "source_fs": analysis.source_fs,
        **source_of(path, results, analysis.cut_off),
        "filterbank": arguments.analysis,
        "full_scale": scalar(full_scale),
        **own,
    }
    _write(results, arrays, draw)
    return analysis.seconds, _remark(analysis.source_fs, analysis.fs, arguments)


def _bank(arguments: argparse.Namespace, fs: float) -> GammatoneFilterbank | DRNLFilterbank:
    """The filterbank for a sampling rate; an ArgumentsError if the options do not suit it."""
    given: dict[str, Any] = {"n_channels": arguments.channels, "dtype": torch.float32, "device": arguments.device}
    if FILTERBANKS[arguments.analysis].takes_velocity:
        given |= {"subject": arguments.subject, "model": arguments.model}
    if KINDS[arguments.analysis] is FastDRNLFilterbank:
        given["ir_length"] = None  # as many as --flow needs
    try:
        return KINDS[arguments.analysis](frequency_range(arguments, fs), fs, **given)
    except ValueError as error:
        raise ArgumentsError(f"{error}; --fhigh sets the highest") from error


def _spectra_file(
    path: Path, results: list[Path], arguments: argparse.Namespace, complain: Callable[[str], None]
) -> tuple[float, str]:
    """Write the spectrum or excitation pattern of a sound file, and give its duration in seconds and a remark."""
    with opened(path, complain) as source:
        sound = source.sound
        moore = "moore2016" in (arguments.spectrum, arguments.excitation)
        found = (moore2016 if moore else multiresolution)(sound, arguments)
        source_fs = sound.samplerate
    levels = found.arrays["levels"]
    if not np.isfinite(levels).all():
        raise CommandError(f"has samples as large as {found.peak:g}, too large for single precision; full scale is 1")

    if arguments.spectrum:
        kind, name = "spectrum", "Moore2016Spectrum" if moore else "MultiResolutionFFT, ERBIntegration"
    else:
        kind, name = "excitation", f"excitation ({arguments.excitation}, {HEARD[arguments.field]})"
    title = f"{shown(path.name)}: {name}, full scale {arguments.full_scale.text}{_drawn_channels(len(levels))}"
    if arguments.spectrum and moore:
        draw = partial(plot.components, found.arrays["freqs"], levels, found.times, title=title)
    else:
        label = "Band level (dB SPL)" if arguments.spectrum else "Excitation level (dB SPL)"
        fc, drawn = found.arrays["fc"], levels[:_MOST_PANELS]
        draw = partial(plot.level_map, drawn, found.times, fc, title=title, label=label)
    arrays = {
        **found.arrays,
        "times": found.times,
        "hop": found.hop,
        "full_scale_db": scalar(arguments.full_scale.levels),
        "fs": SPECTRUM_FS,
        "source_fs": source_fs,
        **source_of(path, results, source.cut_off),
        kind: arguments.spectrum or arguments.excitation,
        **({"field": arguments.field} if arguments.excitation else {}),
    }
    _write(results, arrays, draw)
    return found.samples / SPECTRUM_FS, _remark(source_fs, SPECTRUM_FS, arguments)


def _remark(source_fs: int, fs: float, arguments: argparse.Namespace) -> str:
    """What was assumed of a file and done to it; nothing of one that was filtered as it is."""
    resampling = [] if source_fs == fs else [f"resampled from {source_fs} to {fs:g} Hz"]
    return ", ".join(resampling + ([f"full scale {arguments.full_scale.text}"] if arguments.full_scale else []))


def _drawn_channels(channels: int) -> str:
    return f" (channels 1 to {_MOST_PANELS} of {channels})" if channels > _MOST_PANELS else ""


def _write(results: list[Path], arrays: dict[str, Any], draw: Callable[[], Figure]) -> None:
    with replacing(*results) as drafts:
        with drafts[0].open("wb") as file:
            np.savez_compressed(file, **arrays)
        if len(drafts) > 1:
            draw().savefig(drafts[1], format="png")
