"""``tamt loudness``: the loudness of sound files over time, in sone and phon."""

from __future__ import annotations

import argparse
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tamt.loudness.glasberg2002 import Glasberg2002Loudness
from tamt.loudness.level import sone2phon
from tamt.loudness.meter import LOUDEST
from tamt.loudness.moore2016 import Moore2016Loudness
from tamt.loudness.specific_loudness import CHANNELS, channels
from tamt.spl import calibrate, full_scale_pascal, pascal2spl

from .. import plot
from .analysis import packed, unpacked
from .batch import Done, complain, each_file, progress
from .console import CommandError, counted, require, say, shown
from .files import made_folder, replacing
from .options import HEARD, whole_milliseconds
from .sound import blocks, opened, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

LOUDNESS_MODELS = {"moore2016": Moore2016Loudness, "glasberg2002": Glasberg2002Loudness}
MOST_EARS = {"moore2016": 2, "glasberg2002": 1}  # channels of a sound
FIELDS = tuple(field for field in HEARD if field != "none")
CALIBRATOR_DB = 94.0
LONGEST_HOP = 0.064  # seconds, the length of a frame

# Samples of a channel at a time, at the rate of the models: some seconds, of which a progress bar can tell.
_BLOCK = 1 << 17
_ROWS = 1 << 16  # of a table at a time
_COLUMNS = 2000  # of a picture

LOUDNESS_NOTES = f"""\
A file does not know how loud it was. Either --full-scale-db says it, or --calibration names the recording of a sound
calibrator, made by the same microphone and gain, whose tone alone is in it; --calibration-db is the level of the tone.
A recording of one channel is for all channels of the files, another one for files of as many channels, each by its own.
What it says of full scale is printed, with a warning where it is no steady sine. Among the files it is left out.

The models are moore2016 (tamt.Moore2016Loudness, the one of ISO 532-3) and glasberg2002 (tamt.Glasberg2002Loudness).
moore2016 takes a file of two channels as the sound at the left and the right ear, and one of one channel as what both
ears hear. glasberg2002 takes one channel, which both ears hear. Of files with more --channel chooses one.
  --field free     the sound where the head would be, in front of its source
  --field diffuse  the sound where the head would be, from everywhere
  --field eardrum  the sound at the eardrum, or of earphones that are flat there
Files of other rates than 32 kHz are resampled. Nothing behind the end of a file is heard: loudness decays for a second
or two, which takes silence at its end to be seen. The edges of a sound that was cut from a longer one are clicks to the
models, and raise the peak: that of a steady tone by 0.5 % at a --hop of 0.001, by 4 % at 0.01. Give such a sound ramps
of 20 ms, or take N5, on which edges have little effect.

A folder stands for the sound files in it and in all folders below it. Each sound file NAME.EXT gives NAME.csv, NAME.npz
and NAME.png; where several are called NAME, see tamt analyze --help. A table in the end has of the long-term loudness
of each file the peak, N5, which it exceeds during 5 % of the time, and the mean; in phon these are loudness levels, of
tones of 1 kHz that are as loud. The .csv file has a line for each of S frames: its middle in seconds, and short-term
and long-term loudness in sone and in phon. The .npz file holds, for E ears (1 if both hear the same):
  times              (S,)         middle of each frame in seconds
  short_term, long_term (S,)      loudness in sone
  short_term_ears, long_term_ears (E, S) of moore2016: what each ear contributes
  specific           (E, K, 150)  instantaneous specific loudness in sone/Cam: means over as many frames as leave at
                                  most {2 * _COLUMNS}, of which a picture of any length can be drawn
  specific_times     (K,)         middle of these frames in seconds
  fc                 (150,)       frequencies of the channels of specific loudness in Hz
  peak, n5, mean     ()           of long_term, in sone
  hop                ()           samples from one frame to the next
  fs, source_fs      ()           sampling rate of the model and of the file in Hz
  full_scale_pascal  (E,)         pressure in Pa that a sample of 1 was taken for
  source, model, field            name of the sound file, and what the options gave
The sound goes through the model piece by piece. What stays in memory is loudness over time: of an hour of two ears,
with a frame per millisecond, 86 MB, and copies of it as it is written.
"""


class _Loudness(NamedTuple):
    """What is kept of a sound."""

    curves: dict[str, NDArray]  # loudness over time (S,) or (E, S), as in the .npz file
    specific: NDArray  # (E, K, 150), of some frames together
    specific_times: NDArray  # (K,)
    pascal: NDArray  # of a sample of 1, (E,)
    samples: int  # at the rate of the model
    source_fs: int
    peak: float  # the largest magnitude of the sound in Pa


def loudness_of_files(arguments: argparse.Namespace) -> int:
    """Find the loudness of every file, say what came of it, and give the exit status: 1 if one could not be had."""
    require("soundfile", "soxr", "tqdm", *(["matplotlib"] if arguments.plot else []))
    if arguments.calibration_db is not None and arguments.calibration is None:
        raise CommandError("--calibration-db does nothing without --calibration, the recording of a calibrator's tone")
    hop = whole_milliseconds(arguments.hop, "tamt loudness")
    model = LOUDNESS_MODELS[arguments.model](field=arguments.field, hop=hop, device=arguments.device)
    pascal = _pascal(arguments)
    out = made_folder(arguments.out)
    rows: list[tuple[str, list[float]]] = []

    def work(path: Path, name: str) -> Done:
        results = [out / f"{name}.{kind}" for kind in ("csv", "npz", "png")[: 3 if arguments.plot else 2]]
        found = _loudness_of(path, model, pascal, arguments)
        if found.peak > LOUDEST:
            level = f"{found.peak:.3g} Pa, a peak level of {pascal2spl(found.peak):.0f} dB SPL"
            told = "--full-scale-db" if arguments.calibration is None else "--calibration"
            complain(path, f"has a peak of {level}, by {told}, which is more than sound has")
        rows.append((shown(path), _write(path, results, found, model, arguments)))
        remark = "" if found.source_fs == model.fs else f"resampled from {found.source_fs} to {model.fs} Hz"
        return Done(found.samples / model.fs, results, remark)

    status = each_file(arguments.files, work, arguments.calibration)
    if rows:
        say(_table(rows, arguments.model))
    return status


def _pascal(arguments: argparse.Namespace) -> NDArray:
    """Pressure in Pa that a sample of 1 stands for: one number for all channels of a file, or one for each."""
    if arguments.calibration is None:
        return np.array([full_scale_pascal(arguments.full_scale_db)])
    level = CALIBRATOR_DB if arguments.calibration_db is None else arguments.calibration_db
    try:
        with opened(arguments.calibration) as sound:
            pieces = list(resampled(sound, sound.samplerate, _BLOCK))
        if not pieces:
            raise CommandError("holds no samples")
        recording = torch.from_numpy(np.concatenate(pieces).T.astype(np.float64))
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            pascal = calibrate(recording, level)[:, 0].numpy()
    except (CommandError, ValueError, OSError) as error:
        raise CommandError(f"{shown(arguments.calibration)} (--calibration): {error}") from error
    for doubt in doubts:
        say(f"tamt: {shown(arguments.calibration)} (--calibration): {doubt.message}", error=True)
    for channel, peak in enumerate(pascal, 1):
        place = f" in channel {channel}" if len(pascal) > 1 else ""
        say(f"calibration: a full-scale sine is {pascal2spl(peak / math.sqrt(2)):.1f} dB SPL{place}")
    return pascal


@torch.no_grad()
def _loudness_of(
    path: Path,
    model: Moore2016Loudness | Glasberg2002Loudness,
    pascal: NDArray,
    arguments: argparse.Namespace,
) -> _Loudness:
    """Take the loudness of a sound file, which is read block by block."""
    with opened(path) as sound:
        chosen = _chosen_channels(sound, arguments)
        if len(pascal) not in (1, sound.channels):
            raise CommandError(
                f"has {counted(sound.channels, 'channel')}, but the recording of --calibration has {len(pascal)}; one "
                "is for all files, and any other number for files of as many channels"
            )
        factors = np.broadcast_to(pascal, sound.channels)[chosen]
        scale = torch.tensor(factors[:, None], dtype=model.dtype, device=arguments.device)
        curves: defaultdict[str, bytearray] = defaultdict(bytearray)
        columns, state, samples, peak = _Columns(model.hop / 1000, len(chosen)), None, 0, 0.0

        def hear(x: Tensor) -> None:
            nonlocal state
            with warnings.catch_warnings():
                # A peak above all sound in pascal is said once for a file.
                warnings.filterwarnings("ignore", "the sound must be in pascal")
                found, state = model.stream(x if isinstance(model, Moore2016Loudness) else x[0], state)
            for name, values in found._asdict().items():
                if name.startswith(("short_term", "long_term")):
                    curves[name] += packed(values)
            columns.add(found.specific.reshape(len(x), -1, CHANNELS).cpu().numpy())

        with progress(total=round(sound.frames / sound.samplerate), unit="s", leave=False) as bar:
            for piece in blocks(resampled(sound, model.fs, _BLOCK), _BLOCK):
                x = scale * torch.from_numpy(piece[:, chosen].T.copy()).to(arguments.device)
                hear(x)
                samples += len(piece)
                peak = max(peak, float(x.abs().max()))
                bar.update(round(samples / model.fs) - bar.n)
        if not samples:
            raise CommandError(f"holds {sound.frames} samples, which makes {samples} at {model.fs} Hz")
        hear(x.new_zeros(len(x), model.latency))
        source_fs = sound.samplerate
    shapes = {name: (len(chosen),) if name.endswith("ears") else () for name in curves}
    arrays = {name: unpacked(values, *shapes[name]) for name, values in curves.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CommandError(f"has a peak of {peak:.3g} Pa, too large for single precision")
    return _Loudness(arrays, *columns.means(), factors, samples, source_fs, peak)


def _chosen_channels(sound: SoundFile, arguments: argparse.Namespace) -> list[int]:
    """Channels of a file that the model hears."""
    count, most = sound.channels, MOST_EARS[arguments.model]
    if arguments.channel is not None:
        if arguments.channel > count:
            raise CommandError(f"has no channel {arguments.channel} (--channel), but {count}")
        return [arguments.channel - 1]
    if count > most:
        takes = (
            "one or two, of two ears" if most == 2 else "one, which both ears hear; moore2016 takes those of two ears"
        )
        raise CommandError(f"has {count} channels, but {arguments.model} is for {takes}; --channel chooses one")
    return list(range(count))


class _Columns:
    """Means of values over so many frames each that few columns are left, however many frames there will be."""

    def __init__(self, hop: float, ears: int) -> None:
        self.hop = hop  # seconds
        self.frames = 1  # of a column
        self.count = 0  # frames so far
        self.sums = np.zeros((ears, 2 * _COLUMNS, CHANNELS))

    def add(self, values: NDArray) -> None:
        """Take the next frames (E, S, 150)."""
        end = self.count + values.shape[1]
        while end > 2 * _COLUMNS * self.frames:
            self.sums[:, :_COLUMNS] = self.sums[:, ::2] + self.sums[:, 1::2]
            self.sums[:, _COLUMNS:] = 0
            self.frames *= 2
        if end > self.count:
            place = np.arange(self.count, end) // self.frames
            first = np.flatnonzero(np.diff(place, prepend=-1))
            self.sums[:, place[first]] += np.add.reduceat(values, first, axis=1, dtype=np.float64)
        self.count = end

    def means(self) -> tuple[NDArray, NDArray]:
        """Means (E, K, 150) in float32, and the middles (K,) of their frames in seconds."""
        starts = np.arange(0, self.count, self.frames)
        counts = np.diff(np.append(starts, self.count))
        means = self.sums[:, : len(starts)] / counts[:, None]
        return means.astype(np.float32), self.hop * (starts + (counts - 1) / 2)


def _write(
    path: Path,
    results: Sequence[Path],
    found: _Loudness,
    model: Moore2016Loudness | Glasberg2002Loudness,
    arguments: argparse.Namespace,
) -> list[float]:
    """Write the results of a file, and give peak, N5 and mean of its long-term loudness in sone."""
    long_term = found.curves["long_term"].astype(np.float64)
    peak, n5, mean = summary = [long_term.max(), np.quantile(long_term, 0.95), long_term.mean()]
    times, fc = model.times(len(long_term)).numpy(), channels().numpy()
    arrays: dict[str, Any] = {
        "times": times,
        **found.curves,
        "specific": found.specific,
        "specific_times": found.specific_times,
        "fc": fc,
        "peak": peak,
        "n5": n5,
        "mean": mean,
        "hop": model.hop * model.fs // 1000,
        "fs": model.fs,
        "source_fs": found.source_fs,
        "full_scale_pascal": found.pascal,
        "source": path.name,
        "model": arguments.model,
        "field": arguments.field,
    }
    with replacing(*results) as drafts:
        _write_table(drafts[0], times, found.curves, arguments.model)
        with drafts[1].open("wb") as file:
            np.savez_compressed(file, **arrays)
        if arguments.plot:
            plot.loudness(
                found.curves["short_term"],
                found.curves["long_term"],
                times,
                found.specific,
                fc,
                found.specific_times,
                title=f"{shown(path.name)}: {arguments.model}, {HEARD[arguments.field]}; long-term loudness "
                f"{peak:.3g} sone at most, {n5:.3g} exceeded during 5 % of the time, {mean:.3g} in the mean",
            ).savefig(drafts[2], format="png")
    return [float(value) for value in summary]


def _write_table(draft: Path, times: NDArray, curves: dict[str, NDArray], model: str) -> None:
    """Write the lines of a .csv file."""
    with draft.open("w", encoding="ascii", newline="\n") as file:
        file.write("time_s,short_term_sone,long_term_sone,short_term_phon,long_term_phon\n")
        for start in range(0, len(times), _ROWS):
            some = slice(start, start + _ROWS)
            sone = [torch.from_numpy(curves[name][some]) for name in ("short_term", "long_term")]
            levels = [sone2phon(loudness, model) for loudness in sone]
            np.savetxt(
                file, np.column_stack((times[some], *sone, *levels)), ("%.3f", "%.6g", "%.6g", "%.2f", "%.2f"), ","
            )


def _table(rows: Sequence[tuple[str, list[float]]], model: str) -> str:
    """Peak, N5 and mean of the long-term loudness of files in sone, and these as loudness levels in phon."""
    width = max(len("long-term loudness"), *(len(name) for name, _ in rows))
    lines = [f"{'long-term loudness':<{width}}  {'peak':^15}  {'N5':^15}  {'mean':^15}"]
    lines.append(f"{'':<{width}}" + f"  {'sone':>8} {'phon':>6}" * 3)
    for name, summary in rows:
        cells = "".join(f"  {sone:>8.4g} {sone2phon(sone, model):>6.1f}" for sone in summary)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(line.rstrip() for line in lines)
