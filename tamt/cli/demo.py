"""``tamt demo``: filter a synthetic vowel sequence and draw pictures of it."""

from __future__ import annotations

import argparse
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

from .. import plot
from ..scales import erbspacebw
from ..spl import STAPES_LEVEL, stapes_velocity
from .analysis import Design, analysis_of, centre_frequencies
from .console import CommandError, reason, require, say, shown
from .files import made_folder, replacing
from .sound import native
from .vowels import vowel_sequence


def run_demo(arguments: argparse.Namespace) -> int:
    """Write the sound and the pictures, and say where they are and how fast the filters were."""
    require("soundfile", "matplotlib")
    import soundfile

    out = made_folder(arguments.out)
    fs = 16000
    vowels = vowel_sequence(fs)
    fc = centre_frequencies(80.0, 7000.0, 96, fs)
    hop = round(0.004 * fs)
    gammatone = Design(fc, Cochleagram(GammatoneFilterbank(fc, fs), hop), 1.0)
    fc = centre_frequencies(250.0, 7000.0, 96, fs)
    # As loud as people talk: the vowels' root mean square is that of a sine of 65 dB SPL.
    full_scale = stapes_velocity(65.0) / math.sqrt(2 * np.square(vowels).mean())
    bank = DRNLFilterbank(fc, fs, dtype=torch.float32)
    drnl = Design(fc, Cochleagram(bank, hop, detector="power"), full_scale)

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
        few = GammatoneFilterbank(erbspacebw(80, 6500), fs)
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
        signal = torch.from_numpy(design.full_scale * vowels).float()
        took = _time_of(partial(design.cochleagram.bank, signal))
        say(
            f"{'speed':<16}{duration:.2f} s of sound through {len(design.fc)} {name} filters in {1e3 * took:.1f} ms: "
            f"{duration / took:.1f} times faster than real time"
        )
    return 0


def _draw_demo(wav: Path, design: Design, picture: Path, title: str, reference: str) -> None:
    analysis = analysis_of(wav, lambda rate: design)
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
