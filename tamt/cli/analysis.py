"""What is computed from a sound: cochleagrams, spectra, excitation patterns."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tamt.ear.outer_middle_ear import OuterMiddleEar
from tamt.excitation.erb_integration import ERBIntegration
from tamt.excitation.glasberg2002 import ExcitationPattern
from tamt.excitation.moore2016 import Moore2016ExcitationPattern
from tamt.filterbanks.cochleagram import Cochleagram
from tamt.spectra.moore2016 import FRAME as MOORE2016_FRAME
from tamt.spectra.moore2016 import FS as SPECTRUM_FS
from tamt.spectra.moore2016 import Moore2016Spectrum
from tamt.spectra.multiresolution import MultiResolutionFFT
from tamt_command.console import CommandError

from .calibration import factor
from .sound import blocks, opened, overlapping, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from soundfile import SoundFile

# Numbers of output or intermediate results held at once while a file is analysed: this bounds memory whatever the
# file's length.
_BLOCK_ELEMENTS = 4_000_000


class Design(NamedTuple):
    """A cochleagram for one sampling rate."""

    cochleagram: Cochleagram
    full_scale: float | Tensor = 1.0  # what a sample of 1 is to the filterbank; of each channel (C, 1)


class Analysis(NamedTuple):
    """What is kept of a sound: its cochleagram, and what is drawn of the sound itself."""

    fc: NDArray  # centre frequencies in Hz, (F,)
    times: NDArray  # middle of each frame in s, (M,)
    frames: NDArray  # those of the cochleagram, (C, F, M)
    low: NDArray  # lowest sample of the sound in each frame, (C, M)
    high: NDArray  # highest sample, likewise
    fs: float  # sampling rate in Hz
    source_fs: int  # sampling rate of the file in Hz
    cochleagram: Cochleagram
    seconds: float  # duration of the sound
    cut_off: int  # samples that a file that was cut off promised, else 0


class Spectra(NamedTuple):
    """What is kept of a sound: frames of a spectrum or of an excitation pattern."""

    arrays: dict[str, NDArray]  # as in the .npz file
    times: NDArray  # middle of each frame in s, (N,)
    hop: int  # samples from one frame to the next
    samples: int  # of the sound, at SPECTRUM_FS
    peak: float  # the largest magnitude of a sample of the sound


@torch.no_grad()
def analysis_of(
    path: Path,
    design: Callable[[SoundFile, float], Design],
    complain: Callable[[str], None],
    fs: float | None = None,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Take the cochleagram of a sound file, which is read block by block.

    `design` makes the cochleagram for a file and a sampling rate, and `fs` is the rate to resample to.
    """
    with opened(path, complain) as source:
        sound = source.sound
        fs = sound.samplerate if fs is None else fs
        cochleagram, full_scale = design(sound, fs)
        fc = cochleagram.bank._constant("fc")
        hop, length = cochleagram.hop_length, cochleagram.frame_length
        block = hop * max(1, _BLOCK_ELEMENTS // (len(fc) * sound.channels * hop))
        # One growing buffer each: many small arrays, kept between large ones that come and go, fragment memory.
        frames, low, high = bytearray(), bytearray(), bytearray()
        state = None
        samples = 0
        for piece in blocks(resampled(sound, fs, block), block):
            x = torch.from_numpy(piece.T.copy()).to(device)
            values, state = cochleagram.stream(full_scale * x, state)
            samples += len(piece)
            whole = len(piece) // hop
            hops = x[:, : whole * hop].unflatten(-1, (whole, hop))
            frames += packed(values)
            low += packed(hops.amin(-1))
            high += packed(hops.amax(-1))
        if samples < length:
            raise CommandError(
                f"holds {sound.frames} samples, which makes {samples} at {fs:g} Hz; a frame takes {length}"
            )
    analysis = Analysis(
        fc=fc.numpy(),
        times=cochleagram.times(1 + (samples - length) // hop).numpy(),
        frames=unpacked(frames, sound.channels, len(fc)),
        low=_of_frames(np.min, unpacked(low, sound.channels), length // hop),
        high=_of_frames(np.max, unpacked(high, sound.channels), length // hop),
        fs=fs,
        source_fs=sound.samplerate,
        cochleagram=cochleagram,
        seconds=samples / fs,
        cut_off=source.cut_off,
    )
    if not np.isfinite(analysis.frames).all():
        peak = max(-analysis.low.min(), analysis.high.max())
        raise CommandError(f"has samples as large as {peak:g}, too large for single precision; full scale is 1")
    return analysis


def packed(values: Tensor) -> bytes:
    """Values of frames, the last axis, frame by frame in float32."""
    return values.movedim(-1, 0).cpu().numpy().tobytes()


def unpacked(frames: bytearray, *shape: int) -> NDArray:
    """Values of all frames, of that shape each: (*shape, M)."""
    return np.ascontiguousarray(np.moveaxis(np.frombuffer(frames, dtype=np.float32).reshape(-1, *shape), 0, -1))


def _of_frames(reduce: Callable[..., NDArray], hops: NDArray, count: int) -> NDArray:
    """Extremes of frames of `count` hops each from those of hops, the last axis."""
    return reduce(np.lib.stride_tricks.sliding_window_view(hops, count, axis=-1), axis=-1)


class Heard:
    """Makes of the samples of a sound what is analysed of it: for an excitation pattern what the ear transmits.

    The delay of the ear's filter is taken off, so that every sample stays where it was.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = arguments.device
        field = arguments.field
        self.ear = OuterMiddleEar(SPECTRUM_FS, field, device=self.device) if field not in (None, "none") else None
        self.peak = 0.0  # the largest magnitude of a sample of the sound

    def __call__(self, pieces: Iterator[NDArray]) -> Iterator[NDArray]:
        """Of pieces (samples, channels) others, of as many samples in all."""
        watched = self._watched(pieces)
        return watched if self.ear is None else self._transmitted(watched, self.ear)

    def _watched(self, pieces: Iterator[NDArray]) -> Iterator[NDArray]:
        for piece in pieces:
            self.peak = max(self.peak, float(np.abs(piece).max(initial=0.0)))
            yield piece

    def _transmitted(self, pieces: Iterator[NDArray], ear: OuterMiddleEar) -> Iterator[NDArray]:
        state, early = None, ear.delay
        for piece in pieces:
            y, state = ear.stream(torch.from_numpy(piece.T.copy()).to(self.device), state)
            yield y[:, early:].T.cpu().numpy()
            early = max(0, early - len(piece))
        if state is not None:
            y, _ = ear.stream(state[0].new_zeros(len(state[0]), ear.delay), state)
            yield y[:, early:].T.cpu().numpy()


@torch.no_grad()
def multiresolution(sound: SoundFile, arguments: argparse.Namespace) -> Spectra:
    """Spectrum or excitation pattern of Glasberg and Moore's model (2002)."""
    fft = MultiResolutionFFT(SPECTRUM_FS, device=arguments.device)
    integration = ERBIntegration(SPECTRUM_FS, device=arguments.device)
    spreading = ExcitationPattern(SPECTRUM_FS, device=arguments.device)
    hop = fft.hop_lengths[fft.window_lengths[0]]
    # Six windows, whose frames overlap by half, make the signal twelve times as large.
    count = max(1, _BLOCK_ELEMENTS // (12 * hop * sound.channels))
    pressure = factor(arguments.full_scale.of(sound).pascal, arguments.device)
    psds, levels, heard = [], [], Heard(arguments)
    for start, piece, last in overlapping(sound, (count + 2) * hop, 2 * hop, heard):
        _expect_samples(start + len(piece), hop + 1, sound, arguments)
        x = torch.from_numpy(piece.T.copy()).to(arguments.device)
        psd, freqs = fft(pressure * x)
        # The longest window reaches one hop to either side. Where the piece ends but not the sound, frames closer to
        # the end than that saw a reflection: they are left to the neighbouring piece.
        psd = psd[:, 1 if start else 0 : None if last else count + 1]
        level = integration(psd, freqs)
        if arguments.spectrum:
            psds.append(psd.cpu().numpy())
        else:
            level = spreading(level)
        levels.append(level.cpu().numpy())
    arrays = {"levels": np.concatenate(levels, axis=1), "fc": integration.fc_erb.cpu().numpy()}
    if arguments.spectrum:
        arrays |= {"psd": np.concatenate(psds, axis=1), "freqs": freqs.cpu().numpy()}
    times = np.arange(arrays["levels"].shape[1]) * hop / SPECTRUM_FS
    return Spectra(arrays, times, hop, start + len(piece), heard.peak)


@torch.no_grad()
def moore2016(sound: SoundFile, arguments: argparse.Namespace) -> Spectra:
    """Spectrum or excitation pattern of the model of Moore et al. (2016)."""
    if sound.channels > 2:
        raise CommandError(
            f"has {sound.channels} channels, but {arguments.analysis} is for one or two: it has two ears"
        )
    full_scale = arguments.full_scale.of(sound)
    first = full_scale.levels[0].item()  # of other channels by what they are to the first
    spectrum = Moore2016Spectrum(SPECTRUM_FS, round(1000 * arguments.hop), first, device=arguments.device)
    scale = factor(full_scale.pascal / full_scale.pascal[0], arguments.device)
    pattern = Moore2016ExcitationPattern(device=arguments.device)
    hop = spectrum.hop
    # Per frame and ear 960 intensities, their levels, frequencies, and what it takes to choose among them.
    count = max(1, _BLOCK_ELEMENTS // (8 * 2 * 960))
    parts, heard = [], Heard(arguments)
    for start, piece, _ in overlapping(sound, count * hop + MOORE2016_FRAME, MOORE2016_FRAME, heard):
        _expect_samples(start + len(piece), MOORE2016_FRAME + hop, sound, arguments)
        x = torch.from_numpy(piece.T.copy()).to(arguments.device)
        # What is left of the sound may be too short for another frame.
        if len(piece) >= MOORE2016_FRAME + hop:
            freqs_left, levels_left, freqs_right, levels_right = spectrum((scale * x).expand(2, -1)[None])
            freqs = torch.cat((freqs_left, freqs_right))[: sound.channels]
            levels = torch.cat((levels_left, levels_right))[: sound.channels]
            part = (freqs, levels) if arguments.spectrum else (pattern(freqs, levels),)
            parts.append([values.cpu().numpy() for values in part])
    if arguments.spectrum:
        arrays = dict(zip(("freqs", "levels"), map(_joined, zip(*parts, strict=True)), strict=True))
    else:
        arrays = {"levels": np.concatenate([level for (level,) in parts], axis=1)}
        arrays["fc"] = pattern.fc_channels.cpu().numpy()
    times = (np.arange(arrays["levels"].shape[1]) * hop + MOORE2016_FRAME / 2) / SPECTRUM_FS
    return Spectra(arrays, times, hop, start + len(piece), heard.peak)


def _joined(parts: Sequence[NDArray]) -> NDArray:
    """Join lists (C, N, K) of different K along the frames; shorter ones get zeros at their ends."""
    width = max(part.shape[2] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, 0), (0, width - part.shape[2]))) for part in parts], axis=1)


def _expect_samples(samples: int, least: int, sound: SoundFile, arguments: argparse.Namespace) -> None:
    if samples < least:
        raise CommandError(
            f"holds {sound.frames} samples, which makes {samples} at {SPECTRUM_FS} Hz; {arguments.analysis} needs "
            f"{least} or more"
        )
