"""How loud files were: by a number, or by the recording of a calibrator."""

from __future__ import annotations

import argparse
import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tamt.spl import calibrate, full_scale_pascal, pascal2spl
from tamt_command.console import ArgumentsError, CommandError, counted, say, shown
from tamt_command.options import CALIBRATOR_DB

from .sound import opened, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

_BLOCK = 1 << 17  # samples of the recording at a time


class FullScale(NamedTuple):
    """What full scale is: one number for all channels of a file, or one for each."""

    pascal: NDArray  # pressure of a sample of 1 in Pa, (1,) or (C,)
    levels: NDArray  # of a full-scale sine in dB SPL, likewise
    text: str  # these levels

    def of(self, sound: SoundFile) -> FullScale:
        """The same; a CommandError if it is not for as many channels as a sound has."""
        if len(self.pascal) not in (1, sound.channels):
            raise CommandError(
                f"has {counted(sound.channels, 'channel')}, but the recording of --calibration has "
                f"{len(self.pascal)}; one is for all files, and any other number for files of as many channels"
            )
        return self


def full_scale_of(arguments: argparse.Namespace) -> FullScale:
    """What the options say of it; what a recording says is printed, and one that says nothing an ArgumentsError."""
    if arguments.calibration is None:
        level = arguments.full_scale_db
        return FullScale(np.array([full_scale_pascal(level)]), np.array([level]), f"{level:g} dB SPL")
    level = CALIBRATOR_DB if arguments.calibration_db is None else arguments.calibration_db
    doubts: list[str] = []
    try:
        with opened(arguments.calibration, doubts.append) as source:
            pieces = list(resampled(source.sound, source.sound.samplerate, _BLOCK))
        if not pieces:
            raise CommandError("holds no samples")
        recording = torch.from_numpy(np.concatenate(pieces).T.astype(np.float64))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pascal = calibrate(recording, level)[:, 0].numpy()
    except (CommandError, ValueError, OSError) as error:
        raise ArgumentsError(f"{shown(arguments.calibration)} (--calibration): {error}") from error
    for doubt in [*doubts, *(str(warning.message) for warning in caught)]:
        say(f"tamt: {shown(arguments.calibration)} (--calibration): {doubt}", error=True)
    levels = np.array([pascal2spl(peak / math.sqrt(2)) for peak in pascal])
    for channel, found in enumerate(levels, 1):
        place = f" in channel {channel}" if len(levels) > 1 else ""
        say(f"calibration: a full-scale sine is {found:.1f} dB SPL{place}")
    return FullScale(pascal, levels, f"{', '.join(f'{found:.1f}' for found in levels)} dB SPL")


def factor(values: NDArray, device: torch.device) -> float | Tensor:
    """What to multiply the channels of a sound (C, T) by: a number, or one of each channel (C, 1)."""
    return values.item() if len(values) == 1 else torch.tensor(values, dtype=torch.float32, device=device)[:, None]


def scalar(values: NDArray) -> float | NDArray:
    """A number for all channels as such, and those of each as they are."""
    return values.item() if len(values) == 1 else values
