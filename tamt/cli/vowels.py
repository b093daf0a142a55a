"""The sound of the demonstration: a synthetic sequence of vowels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Vowels by their first three formants in Hz, averages of men's voices: Peterson and Barney, J. Acoust. Soc. Am. 24,
# 175-184, 1952. The higher ones, here the same for all vowels, lie a kilohertz apart as in a tube of 17 cm.
_FORMANTS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_HIGH_FORMANTS = tuple(range(3500, 11000, 1000))
_FORMANT_BANDWIDTHS = (60, 90, 130, *(0.05 * hertz for hertz in _HIGH_FORMANTS))
# Syllables: seconds of silence before, seconds of sound, the vowels it glides through, and the pitch in Hz likewise.
_SYLLABLES = (
    (0.10, 0.65, "ai", (105, 145, 120)),
    (0.15, 0.85, "uae", (120, 165, 110)),
    (0.25, 0.60, "iu", (190, 130)),
    (0.12, 0.75, "oia", (125, 150, 85)),
)


def vowel_sequence(fs: int) -> NDArray:
    """Synthesise voiced vowels: harmonics of a gliding pitch, shaped by resonances that move."""
    parts = []
    for silence, duration, vowels, pitch in _SYLLABLES:
        parts += [np.zeros(round(silence * fs)), _syllable(round(duration * fs), fs, vowels, pitch)]
    sound = np.concatenate([*parts, np.zeros(round(0.15 * fs))])
    return 0.5 * sound / np.abs(sound).max()


def _syllable(samples: int, fs: int, vowels: str, pitch: tuple[int, ...]) -> NDArray:
    f0 = _glide(np.array(pitch, dtype=float), samples)
    formants = [
        _glide(np.array(track, dtype=float), samples) for track in zip(*(_FORMANTS[v] for v in vowels), strict=True)
    ]
    formants += [np.full(samples, float(hertz)) for hertz in _HIGH_FORMANTS]
    phase = 2 * np.pi * np.cumsum(f0) / fs
    sound = np.zeros(samples)
    for harmonic in range(1, int(0.5 * fs / f0.min()) + 1):
        f = harmonic * f0
        # The source of a pressed voice, with the radiation from the mouth, falls by some 4 dB per octave.
        amplitude = np.where(f < 0.5 * fs, harmonic**-0.7, 0.0).astype(complex)
        for centre, bandwidth in zip(formants, _FORMANT_BANDWIDTHS, strict=True):
            amplitude *= centre**2 / (centre**2 - f**2 + 1j * bandwidth * f)
        sound += (amplitude * np.exp(1j * harmonic * phase)).real
    rise, fall = round(0.04 * fs), round(0.09 * fs)
    envelope = np.ones(samples)
    envelope[:rise] = 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    envelope[-fall:] = 0.5 + 0.5 * np.cos(np.pi * np.arange(fall) / fall)
    return envelope * sound


def _glide(values: NDArray, samples: int) -> NDArray:
    """Pass through the values at equal times, at rest at each of them."""
    position = np.linspace(0, len(values) - 1, samples)
    index = np.minimum(position.astype(int), len(values) - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (position - index))
    return values[index] * (1 - share) + values[index + 1] * share
