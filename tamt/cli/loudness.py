"""``tamt loudness``: the loudness of sound files over time, in sone and phon."""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from tamt.spl import pascal2spl
from tamt_command.console import CommandError, require, say, shown
from tamt_command.drafts import replacing
from tamt_command.options import HEARD, MOST_COLUMNS, whole_milliseconds

from .. import plot
from .analysis import packed, unpacked
from .batch import each_file, progress
from .calibration import full_scale_of
from .files import source_of
from .sound import blocks, opened, resampled
from .work import Done, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

LOUDNESS_MODELS = {"moore2016": Moore2016Loudness, "glasberg2002": Glasberg2002Loudness}
MOST_EARS = {"moore2016": 2, "glasberg2002": 1}  # channels of a sound

# Samples of a channel at a time, at the rate of the models: some seconds, of which a progress bar can tell.
_BLOCK = 1 << 17
_ROWS = 1 << 16  # of a table at a time
_COLUMNS = MOST_COLUMNS // 2  # of a picture


class _Loudness(NamedTuple):
    """What is kept of a sound."""

    curves: dict[str, NDArray]  # loudness over time (S,) or (E, S), as in the .npz file
    specific: NDArray  # (E, K, 150), of some frames together
    specific_times: NDArray  # (K,)
    pascal: NDArray  # of a sample of 1, (E,)
    samples: int  # at the rate of the model
    source_fs: int
    peak: float  # the largest magnitude of the sound in Pa
    cut_off: int  # samples that a file that was cut off promised, else 0


def loudness_of_files(arguments: argparse.Namespace) -> int:
    """Find the loudness of every file, say what came of it, and give the exit status: 1 if one could not be had."""
    require("soundfile", "soxr", "tqdm", *(["matplotlib"] if arguments.plot else []))
    arguments.full_scale = full_scale_of(arguments)
    status, finished = each_file(arguments, _prepare)
    if finished:
        say(_table([(shown(path), done.summary) for path, done in finished], arguments.model))
    return status


def _prepare(arguments: argparse.Namespace) -> Work:
    hop = whole_milliseconds(arguments.hop, "tamt loudness")
    model = LOUDNESS_MODELS[arguments.model](field=arguments.field, hop=hop, device=arguments.device)

    def do(path: Path, results: list[Path], complain: Callable[[str], None]) -> Done:
        found = _loudness_of(path, model, arguments, complain)
        if found.peak > LOUDEST:
            level = f"{found.peak:.3g} Pa, a peak level of {pascal2spl(found.peak):.0f} dB SPL"
            told = "--full-scale-db" if arguments.calibration is None else "--calibration"
            complain(f"has a peak of {level}, by {told}, which is more than sound has")
        summary = _write(path, results, found, model, arguments)
        remark = "" if found.source_fs == model.fs else f"resampled from {found.source_fs} to {model.fs} Hz"
        return Done(found.samples / model.fs, remark, summary)

    return Work(("csv", "npz", "png") if arguments.plot else ("csv", "npz"), do)


@torch.no_grad()
def _loudness_of(
    path: Path,
    model: Moore2016Loudness | Glasberg2002Loudness,
    arguments: argparse.Namespace,
    complain: Callable[[str], None],
) -> _Loudness:
    """Take the loudness of a sound file, which is read block by block."""
    with opened(path, complain) as source:
        sound = source.sound
        chosen = _chosen_channels(sound, arguments)
        factors = np.broadcast_to(arguments.full_scale.of(sound).pascal, sound.channels)[chosen]
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
    return _Loudness(arrays, *columns.means(), factors, samples, source_fs, peak, source.cut_off)


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
) -> tuple[float, ...]:
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
        **source_of(path, results, found.cut_off),
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
    return tuple(float(value) for value in summary)


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


def _table(rows: Sequence[tuple[str, tuple[float, ...]]], model: str) -> str:
    """Peak, N5 and mean of the long-term loudness of files in sone, and these as loudness levels in phon."""
    width = max(len("long-term loudness"), *(len(name) for name, _ in rows))
    lines = [f"{'long-term loudness':<{width}}  {'peak':^15}  {'N5':^15}  {'mean':^15}"]
    lines.append(f"{'':<{width}}" + f"  {'sone':>8} {'phon':>6}" * 3)
    for name, summary in rows:
        cells = "".join(f"  {sone:>8.4g} {sone2phon(sone, model):>6.1f}" for sone in summary)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(line.rstrip() for line in lines)
