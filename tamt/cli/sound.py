"""Sound files, read piece by piece at the rate that is wanted."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tamt.spectra.moore2016 import FS as SPECTRUM_FS

from .console import CommandError, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

# Sampling rates in Hz. What a header says may be nonsense, and a second of sound then make an endless one.
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000
FFMPEG = "ffmpeg -i IN{} OUT.wav"


def native(path: Path) -> str | bytes:
    """Give a path to soundfile, whose own way to encode it fails where it is not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


@contextmanager
def opened(path: Path) -> Iterator[SoundFile]:
    """Open a sound file; a CommandError says what is wrong with it."""
    import soundfile

    if not path.exists():
        raise CommandError("there is no such file")
    if not path.is_file():
        raise CommandError("is not a file")
    # libsndfile would not say that it is the permission that lacks.
    path.open("rb").close()
    try:
        sound = soundfile.SoundFile(native(path))
    except TypeError as error:
        raise CommandError(
            "cannot be read as sound: raw samples without a header, which would say what they are; "
            f"ffmpeg -f s16le -ar RATE -ac CHANNELS -i IN{shown(path.suffix)} OUT.wav gives them one"
        ) from error
    except soundfile.SoundFileError as error:
        raise _unreadable(path, error) from error
    with sound:
        if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
            raise CommandError(
                f"has a sampling rate of {sound.samplerate} Hz; it has to be from {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
        try:
            yield sound
        except soundfile.SoundFileError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CommandError:
    # Without the prefix, which repeats the name.
    why = str(getattr(error, "error_string", error)).rstrip(".")
    kind, _ = mimetypes.guess_type(path.name)
    # Not for what its name says is a text or a picture.
    if kind and not kind.startswith(("audio/", "video/", "application/octet-stream")):
        return CommandError(f"cannot be read as sound: {why}")
    convert = FFMPEG.format(shown(path.suffix))
    return CommandError(f"cannot be read as sound: {why}; if it is sound of another kind, {convert} makes it WAV")


def _samples(sound: SoundFile, block: int) -> Iterator[NDArray]:
    """Read a file in blocks of shape (samples, channels), and refuse NaN and infinity."""
    start = 0
    while len(samples := sound.read(block, dtype="float32", always_2d=True)):
        wrong = np.argwhere(~np.isfinite(samples))
        if len(wrong):
            index, channel = wrong[0]
            value = samples[index, channel]
            raise CommandError(f"sample {start + index} of channel {channel + 1} is {value}; samples have to be finite")
        start += len(samples)
        yield samples


def resampled(sound: SoundFile, fs: float, length: int) -> Iterator[NDArray]:
    """Read a file at the rate `fs` in pieces (samples, channels) of some `length` samples or fewer."""
    pieces = _samples(sound, max(1, min(length, int(length * sound.samplerate / fs))))
    if fs == sound.samplerate:
        yield from pieces
        return
    import soxr

    resampler = soxr.ResampleStream(sound.samplerate, fs, sound.channels, dtype="float32")
    for piece in pieces:
        yield resampler.resample_chunk(piece)
    yield resampler.resample_chunk(np.empty((0, sound.channels), dtype=np.float32), last=True)


def blocks(pieces: Iterator[NDArray], length: int) -> Iterator[NDArray]:
    """Cut a sequence of pieces of any length into blocks of one length; the last has what is left."""
    rest = None
    for piece in pieces:
        rest = piece if rest is None else np.concatenate((rest, piece))
        while len(rest) >= length:
            yield rest[:length]
            rest = rest[length:]
    if rest is not None and len(rest):
        yield rest


def overlapping(
    sound: SoundFile, length: int, overlap: int, heard: Callable[[Iterator[NDArray]], Iterator[NDArray]]
) -> Iterator[tuple[int, NDArray, bool]]:
    """Cut a sound, at the rate of the spectra, into pieces of `length` samples of which neighbours share `overlap`.

    `heard` makes of the samples what is cut, as many of them. Gives each one's position and whether it is the last,
    which has what is left: at least `overlap` samples, if others came before.
    """
    start, rest = 0, np.empty((0, sound.channels), dtype=np.float32)
    for piece in heard(resampled(sound, SPECTRUM_FS, length)):
        rest = np.concatenate((rest, piece))
        while len(rest) >= length:
            yield start, rest[:length], False
            start, rest = start + length - overlap, rest[length - overlap :]
    yield start, rest, True
