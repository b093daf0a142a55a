"""``tamt demo``: filter a synthetic vowel sequence and draw pictures of it."""

from __future__ import annotations

import argparse
import filecmp
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tamt.filterbanks.cochleagram import Cochleagram
from tamt.filterbanks.drnl import DRNLFilterbank
from tamt.filterbanks.gammatone import GammatoneFilterbank
from tamt_command.console import CommandError, reason, require, say, shown
from tamt_command.drafts import replacing

from .. import plot
from ..spl import STAPES_LEVEL, stapes_velocity
from .analysis import Design, analysis_of
from .files import made_folder
from .sound import native
from .vowels import vowel_sequence


def run_demo(arguments: argparse.Namespace) -> int:
    """Write the sound and the pictures, and say where they are and how fast the filters were."""
    require("soundfile", "matplotlib")
    import soundfile

    out = made_folder(arguments.out)
    fs = 16000
    vowels = vowel_sequence(fs)
    hop = round(0.004 * fs)
    gammatone = Design(Cochleagram(GammatoneFilterbank((80, 7000), fs, n_channels=96), hop))
    # As loud as people talk: the vowels' root mean square is that of a sine of 65 dB SPL.
    full_scale = stapes_velocity(65.0) / math.sqrt(2 * np.square(vowels).mean())
    compressive = DRNLFilterbank((250, 7000), fs, n_channels=96, dtype=torch.float32)
    drnl = Design(Cochleagram(compressive, hop, detector="power"), full_scale)

    results = {
        "sound": out / "vowels.wav",
        "filters": out / "filters.png",
        "cochleagram": out / "cochleagram.png",
        "DRNL": out / "drnl_cochleagram.png",
        "DRNL levels": out / "drnl_io.png",
    }
    with replacing(*results.values()) as (wav, responses, gammatone_picture, drnl_picture, curves):
        try:
            soundfile.write(native(wav), vowels, fs, format="WAV", subtype="PCM_16")
        except soundfile.SoundFileError as error:
            raise CommandError(f"{shown(results['sound'])} cannot be written: {reason(error)}") from error
        there = [path for path in results.values() if path.exists()]
        if there and not arguments.overwrite and not _alike(wav, results["sound"]):
            raise CommandError(
                f"{shown(there[0])} is there already, and not of this demonstration; --overwrite replaces it, and "
                "--out names another folder"
            )
        few = GammatoneFilterbank((80, 6500), fs)
        frequencies = torch.logspace(math.log10(40.0), math.log10(fs / 2), 2000)
        plot.filter_responses(
            frequencies,
            few.frequency_response(frequencies),
            few.fc,
            title=f"{few.num_channels} gammatone filters, one per ERB",
        ).savefig(responses, format="png")
        title = "A sequence of vowels through 96 gammatone filters"
        _draw_demo(wav, gammatone, gammatone_picture, title, "full scale")
        _draw_demo(wav, drnl, drnl_picture, "The same vowels at 65 dB SPL through 96 DRNL filters", "1 m/s")
        four = DRNLFilterbank([500.0, 1000.0, 2000.0, 4000.0], 44100)
        levels = torch.arange(0.0, 121.0, 2.0) + STAPES_LEVEL  # dB SPL in dB re 1 m/s
        plot.io_functions(
            levels, four.io_function(levels), four.fc, title="Four DRNL filters, each for tones at its own frequency"
        ).savefig(curves, format="png")

    for name, path in results.items():
        say(f"{name:<16}{shown(path)}")
    duration = len(vowels) / fs
    for name, design in {"gammatone": gammatone, "DRNL": drnl}.items():
        signal = design.full_scale * torch.from_numpy(vowels).float()
        bank = design.cochleagram.bank
        took = _time_of(partial(bank, signal))
        say(
            f"{'speed':<16}{duration:.2f} s of sound through {bank.num_channels} {name} filters in "
            f"{1e3 * took:.1f} ms: {duration / took:.1f} times faster than real time"
        )
    return 0


def _alike(path: Path, other: Path) -> bool:
    """Whether two files hold the same; of the sound it says that what is beside it is a demonstration's."""
    return other.exists() and filecmp.cmp(path, other, shallow=False)


def _draw_demo(wav: Path, design: Design, picture: Path, title: str, reference: str) -> None:
    analysis = analysis_of(wav, lambda sound, rate: design, lambda complaint: None)
    plot.cochleagram(
        analysis.frames[0],
        analysis.times,
        analysis.fc,
        design.cochleagram.detector,
        waveform=(analysis.low, analysis.high),
        title=title,
        reference=reference,
    ).savefig(picture, format="png")


@torch.no_grad()
def _time_of(work: Callable[[], Any], repetitions: int = 3) -> float:
    """Give the seconds that the fastest of a few calls took; one call before them warms up."""
    work()
    durations = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)
