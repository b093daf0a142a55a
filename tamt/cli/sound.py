"""Sound files, read piece by piece at the rate that is wanted."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tamt.spectra.moore2016 import FS as SPECTRUM_FS
from tamt_command.console import CommandError, shown
from tamt_command.options import HIGHEST_RATE, LOWEST_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

FFMPEG = "ffmpeg -i IN{} OUT.wav"

# What libsndfile notes where a header promises more bytes of samples, or samples, than there are.
_CUT_BYTES = re.compile(r"^ *(data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_SAMPLES = re.compile(r"frame count \d+ does not match value from 'ds64' chunk of (\d+)")
# Numbers of bytes that mean as many as there are, in headers that were written before the sound: those of ffmpeg, sox
# and arecord, into a pipe. They are rounded to whole samples and may count what stands before the sound.
_UNKNOWN_BYTES = (0x7F00_0000, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF)
_UNKNOWN_WITHIN = 0x1000
_BYTES = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "ULAW": 1,
    "ALAW": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
}
_MOST_WITHOUT_SOUND = 10_000  # bytes of a file that need no word
# The length of an MP3 file may be an estimate.
_ESTIMATED = 0.99


def native(path: Path) -> str | bytes:
    """Give a path to soundfile, whose own way to encode it fails where it is not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def is_pipe(path: Path) -> bool:
    """Whether it is a pipe, as standard input and what a shell makes of ``<(...)`` may be."""
    with suppress(OSError):
        return path.is_fifo()
    return False


@dataclass
class Source:
    """A sound file that is open."""

    sound: SoundFile
    cut_off: int = 0  # samples that one that was cut off promised; of some formats known when it has been read


@contextmanager
def opened(path: Path, complain: Callable[[str], None]) -> Iterator[Source]:
    """Open a sound file; a CommandError says what is wrong with it, a complaint that it was cut off."""
    import soundfile

    with ExitStack() as stack:
        file = stack.enter_context(_seekable(path))
        source = Source(stack.enter_context(_sound(path, file)))
        if source.sound.frames == 0 and (place := _unfinished(file)):
            source.sound = stack.enter_context(_sound(path, _Unending(file, place)))
            complain(
                f"was not closed by what wrote it: its header says that it holds no sound, but {source.sound.frames} "
                "samples are behind it, and these are used"
            )
        elif source.sound.frames == 0 and (size := file.seek(0, os.SEEK_END)) > _MOST_WITHOUT_SOUND:
            complain(f"has {size} bytes, but its header says that there is no sound in them")
        sound = source.sound
        if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
            raise CommandError(
                f"has a sampling rate of {sound.samplerate} Hz; it has to be from {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
        promised, about = _promised(sound)
        if promised > sound.frames:
            source.cut_off = promised
            complain(_cut_off(sound.frames, promised, about))
        try:
            yield source
            if promised <= sound.frames and sound.tell() < _ESTIMATED * sound.frames:
                source.cut_off = sound.frames
                complain(_cut_off(sound.tell(), sound.frames, "about "))
        except soundfile.SoundFileError as error:
            raise _unreadable(path, error) from error


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or a copy of what comes through a pipe, as headers are not read in one go."""
    if not path.exists():
        raise CommandError("there is no such file")
    pipe = is_pipe(path)
    if not (pipe or path.is_file()):
        raise CommandError("is neither a file nor a pipe")
    with path.open("rb") as given, TemporaryFile() if pipe else nullcontext(given) as file:
        if pipe:
            shutil.copyfileobj(given, file)
        if not file.seek(0, os.SEEK_END):
            raise CommandError(f"is empty: {'nothing came through the pipe' if pipe else 'a file of 0 bytes'}")
        file.seek(0)
        yield file


def _sound(path: Path, file: BinaryIO | _Unending) -> SoundFile:
    import soundfile

    try:
        # By its name where it has one, which tells of formats without a mark of their own.
        return soundfile.SoundFile(file if is_pipe(path) or isinstance(file, _Unending) else native(path))
    except TypeError as error:
        raise CommandError(
            "cannot be read as sound: raw samples without a header, which would say what they are; "
            f"ffmpeg -f s16le -ar RATE -ac CHANNELS -i IN{shown(path.suffix)} OUT.wav gives them one"
        ) from error
    except soundfile.SoundFileError as error:
        raise _unreadable(path, error) from error


def _unfinished(file: BinaryIO) -> int:
    """Where a WAV header says that there are 0 bytes of sound although there are more, as before a recorder ends; or 0.

    Behind an empty sound there may be other chunks, to the end of the file.
    """
    size, place, empty = file.seek(0, os.SEEK_END), 12, 0
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if empty and not all(32 <= character < 127 for character in name):
            return empty
        if name == b"data" and length == 0:
            empty = place + 4
        place += 8 + length + length % 2
    return empty if empty and place not in (size, size + 1) else 0


class _Unending(io.RawIOBase):
    """A WAV file whose header says that its sound goes on to the end."""

    def __init__(self, file: BinaryIO, place: int) -> None:
        self.file, self.place = file, place
        file.seek(0)

    def readinto(self, buffer: Any) -> int:
        start = self.file.tell()
        content = bytearray(self.file.read(len(buffer)))
        for index in range(max(self.place, start), min(self.place + 4, start + len(content))):
            content[index - start] = 0xFF
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _promised(sound: SoundFile) -> tuple[int, str]:
    """Samples that the header of a file says are there, and whether that is so to a block of compressed ones."""
    log = sound.extra_info
    if found := _CUT_SAMPLES.search(log):
        return int(found[1]), "the "
    found = _CUT_BYTES.search(log)
    if not found or any(abs(int(found[2]) - unknown) <= _UNKNOWN_WITHIN for unknown in _UNKNOWN_BYTES):
        return sound.frames, "the "
    # Of AIFF, 8 bytes stand before the samples.
    promised, there = (int(size) - 8 * (found[1] == "SSND") for size in found.groups()[1:])
    if sound.subtype in _BYTES:
        return promised // (sound.channels * _BYTES[sound.subtype]), "the "
    return promised * sound.frames // max(1, there), "about "


def _cut_off(there: int, promised: int, about: str) -> str:
    promise = f"{about}{promised} samples that its header says are there"
    return f"was cut off: {there} of {promise}, and only these are used"


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
