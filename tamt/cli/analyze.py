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
from tamt.filterbanks.fast_drnl import FastDRNLFilterbank
from tamt.spectra.moore2016 import FS as SPECTRUM_FS
from tamt.spl import stapes_velocity

from .. import plot
from .analysis import Design, analysis_of, centre_frequencies, moore2016, multiresolution, samples_of
from .batch import Done, each_file
from .console import CommandError, require, shown
from .files import made_folder, replacing
from .options import FILTERBANKS, HEARD, settle
from .sound import opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A picture of more sound channels than this would be too tall to look at.
_MOST_PANELS = 4


def analyze_files(arguments: argparse.Namespace) -> int:
    """Analyse every file, say what came of it, and give the exit status: 1 if anything could not be analysed."""
    require("soundfile", "soxr", "tqdm", *(["matplotlib"] if arguments.plot else []))
    settle(arguments)
    analyze_file = _filter_file if arguments.analysis in FILTERBANKS else _spectra_file
    out = made_folder(arguments.out)

    def work(path: Path, name: str) -> Done:
        npz, png = out / f"{name}.npz", out / f"{name}.png" if arguments.plot else None
        seconds, remark = analyze_file(path, npz, png, arguments)
        return Done(seconds, [result for result in (npz, png) if result], remark)

    return each_file(arguments.files, work)


def _filter_file(path: Path, npz: Path, png: Path | None, arguments: argparse.Namespace) -> tuple[float, str]:
    """Write the cochleagram of a sound file, and give its duration in seconds and a remark."""
    chosen, title = FILTERBANKS[arguments.analysis], f"{shown(path.name)}: {arguments.analysis}"
    own: dict[str, Any] = {}
    full_scale = 1.0
    compression = None if arguments.compression == "none" else arguments.compression
    scale: dict[str, Any] = {"detector": arguments.detector, "compression": compression, "floor": arguments.floor}
    if chosen.takes_velocity:
        own = {"subject": arguments.subject, "model": arguments.model}
        title += f" ({arguments.subject}, {arguments.model}), full scale {arguments.full_scale_db:g} dB SPL"
        full_scale = stapes_velocity(arguments.full_scale_db)
    if chosen.kind is FastDRNLFilterbank:
        own["ir_length"] = None  # as many as --flow needs

    def design(fs: float) -> Design:
        fc = centre_frequencies(arguments.flow, arguments.fhigh, arguments.channels, fs)
        try:
            bank = chosen.kind(fc, fs, dtype=torch.float32, device=arguments.device, **own)
        except ValueError as error:
            raise CommandError(f"{error}; --fhigh sets the highest") from error
        hop, frame = samples_of(arguments.hop, arguments.frame, fs)
        return Design(fc, Cochleagram(bank, hop, frame, **scale), full_scale)

    analysis = analysis_of(path, design, arguments.fs, arguments.device)
    title += f", {arguments.channels} filters, {analysis.fs:g} Hz{_drawn_channels(len(analysis.frames))}"
    draw = partial(
        plot.cochleagram,
        analysis.frames[:_MOST_PANELS],
        analysis.times,
        analysis.fc,
        **scale,
        waveform=(analysis.low[:_MOST_PANELS], analysis.high[:_MOST_PANELS]),
        title=title,
        reference="1 m/s" if chosen.takes_velocity else "full scale",
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
        "source": path.name,
        "filterbank": arguments.analysis,
        "full_scale": full_scale,
        **own,
    }
    _write(npz, png, arrays, draw)
    return analysis.seconds, _remark(analysis.source_fs, analysis.fs, arguments.full_scale_db)


def _spectra_file(path: Path, npz: Path, png: Path | None, arguments: argparse.Namespace) -> tuple[float, str]:
    """Write the spectrum or excitation pattern of a sound file, and give its duration in seconds and a remark."""
    with opened(path) as sound:
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
    full_scale = arguments.full_scale_db
    title = f"{shown(path.name)}: {name}, full scale {full_scale:g} dB SPL{_drawn_channels(len(levels))}"
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
        "full_scale_db": full_scale,
        "fs": SPECTRUM_FS,
        "source_fs": source_fs,
        "source": path.name,
        kind: arguments.spectrum or arguments.excitation,
        **({"field": arguments.field} if arguments.excitation else {}),
    }
    _write(npz, png, arrays, draw)
    return found.samples / SPECTRUM_FS, _remark(source_fs, SPECTRUM_FS, full_scale)


def _remark(source_fs: int, fs: float, full_scale_db: float | None) -> str:
    """What was assumed of a file and done to it; nothing of one that was filtered as it is."""
    resampling = [] if source_fs == fs else [f"resampled from {source_fs} to {fs:g} Hz"]
    return ", ".join(resampling + ([] if full_scale_db is None else [f"full scale {full_scale_db:g} dB SPL"]))


def _drawn_channels(channels: int) -> str:
    return f" (channels 1 to {_MOST_PANELS} of {channels})" if channels > _MOST_PANELS else ""


def _write(npz: Path, png: Path | None, arrays: dict[str, Any], draw: Callable[[], Figure]) -> None:
    with replacing(npz, *([png] if png else [])) as drafts:
        with drafts[0].open("wb") as file:
            np.savez_compressed(file, **arrays)
        if png:
            draw().savefig(drafts[1], format="png")
