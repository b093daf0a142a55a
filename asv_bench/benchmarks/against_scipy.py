"""The spectra and the excitation patterns beside the same by numpy and scipy, on the CPU.

The filterbanks are compared with scipy in their own files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import fft
from scipy.special import logsumexp
from torch import Tensor

import tamt

from . import erb_integration, moore2016_spectrum, multi_resolution_fft, roex, spreading
from .common import DTYPES, Load, dense, difference_in_db, largest_difference, over, relative_error, require
from .windowed_dft import BANDS, SIZE

Array = np.ndarray


def multi_resolution(x: Tensor) -> Tensor:
    return torch.stack([multi_resolution_fft.by_scipy(row) for row in x])


def dense_components(audio: Array, hop: int, db_max: float) -> Tensor:
    """Levels (2, B, n_segments, 960) of the relevant components of either ear, NaN elsewhere."""
    frames = np.lib.stride_tricks.sliding_window_view(audio[..., :-hop], SIZE, -1)[..., ::hop, :]
    parts = []
    for k, (length, first, last) in enumerate(BANDS):
        around = (SIZE - length) // 2
        window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1)), around)
        magnitude = np.abs(fft.rfft(frames * window.astype(audio.dtype))[..., first : last + 1]) * (2 / SIZE)
        parts.append(magnitude**2 * audio.dtype.type(10 ** (0.332 + db_max / 10) * 2**k))
    intensity = np.concatenate(parts, -1)
    relevant = (intensity > intensity.max(-1, keepdims=True) * 1e-6) & (intensity > 1e-3)
    return torch.from_numpy(np.where(relevant, 10 * np.log10(intensity), np.nan)).transpose(0, 1)


def band_levels(psd: Array, table: Array) -> Array:
    return 10 * np.log10(np.maximum(psd @ table, 1e-12) / 20e-6**2)


def band_table(freqs: Tensor) -> Array:
    """(n_bins, 150): the bins of each band, times their distance, in the type of ``freqs``."""
    centres = tamt.ERBIntegration()._exact("centres", torch.float64)
    inside = (freqs.double() - centres[:, None]).abs() <= 24.673 * (4.368e-3 * centres[:, None] + 1) / 2
    return (inside.double() * (freqs[1] - freqs[0]).item()).T.to(freqs.dtype).contiguous().numpy()


def spread(levels: Array, step: float = 0.25) -> Array:
    """All pairs of bands at once, in the type of ``levels``."""
    bands = np.arange(levels.shape[-1], dtype=levels.dtype)
    distance = (bands - bands[:, None]) * levels.dtype.type(step)
    above = (levels - 60)[..., None]
    slope = np.where(distance >= 0, np.maximum(27 - 0.37 * above, 10), np.maximum(11 - 0.2 * above, 10))
    loss = slope * np.abs(distance)
    terms = np.where(loss > 50, -np.inf, levels[..., None] - loss) * levels.dtype.type(np.log(10) / 10)
    return logsumexp(terms, axis=-2) * levels.dtype.type(10 / np.log(10))


def excitation(freqs: Array, levels: Array, fc: Array, octaves: float = 4.0) -> Array:
    """All pairs of components, then of components and channels, frame by frame."""
    frames = zip(freqs, levels, strict=True)
    return np.stack([_excitation(f, level, fc.astype(f.dtype), 2**octaves) for f, level in frames])


def _excitation(f: Array, level: Array, fc: Array, ratio: float) -> Array:
    intensity = 10 ** (level / 10)

    def sharpness(f: Array) -> Array:
        return 4 * f / (24.673 * (0.004368 * f + 1))

    def weight(u: Array, one: Array, other: Array) -> Array:
        near = (one <= other * ratio) & (other <= one * ratio)
        return (1 + u) * np.exp(-u) * near

    one, other = f[None], f[:, None]
    per_erb = 10 * np.log10(intensity @ weight(np.abs(one - other) / other * sharpness(other), one, other))
    p, p1000 = sharpness(fc)[:, None], sharpness(f.dtype.type(1000))
    g = (f - fc[:, None]) / fc[:, None]
    slope = np.where(g >= 0, p, np.maximum(p * (1 - 0.35 / p1000 * (per_erb - 51)), 0.1))
    return 10 * np.log10(weight(np.abs(g) * slope, f, fc[:, None]) @ intensity + 1e-12)


def components_differ(actual: Sequence[Tensor], expected: Tensor) -> float:
    return difference_in_db(dense(actual), expected)


# tamt's call, that of numpy or scipy, and the difference of what they return.
Pair = tuple[Callable[[], Any], Callable[[], Any], Callable[[Any, Any], float]]


def multi_resolution_pair(dtype: str) -> Pair:
    x, module = multi_resolution_fft.noise(1, 1, dtype, "cpu"), tamt.MultiResolutionFFT()
    return lambda: module(x)[0], partial(multi_resolution, x), relative_error


def spectrum_pair(dtype: str) -> Pair:
    audio = moore2016_spectrum.noise(1, 1, dtype, "cpu")
    module = tamt.Moore2016Spectrum(dtype=DTYPES[dtype], max_components=960)
    peer = partial(dense_components, audio.numpy(), module.hop, module.db_max)
    return partial(module, audio), peer, components_differ


def bands_pair(dtype: str) -> Pair:
    psd, freqs = erb_integration.spectrum(8, 32, dtype, "cpu")
    peer = partial(band_levels, psd.numpy(), band_table(freqs))
    return partial(tamt.ERBIntegration(), psd, freqs), peer, largest_difference


def spreading_pair(dtype: str) -> Pair:
    levels = spreading.excitation((1, 100), dtype, "cpu")
    return partial(tamt.ExcitationPattern(), levels), partial(spread, levels.numpy()), largest_difference


def roex_pair(dtype: str) -> Pair:
    freqs, levels = roex.spectra(8, "any", "cpu", dtype)
    module = tamt.Moore2016ExcitationPattern(dtype=DTYPES[dtype])
    fc = tamt.Moore2016ExcitationPattern(dtype=torch.float64).fc_channels.numpy()
    return partial(module, freqs, levels), partial(excitation, freqs.numpy(), levels.numpy(), fc), largest_difference


# With the largest differences in float32 and float64.
MODULES = {
    "MultiResolutionFFT": (multi_resolution_pair, 1e-5, 1e-12),
    "Moore2016Spectrum": (spectrum_pair, 0.01, 1e-9),
    "ERBIntegration": (bands_pair, 1e-3, 1e-9),
    "ExcitationPattern": (spreading_pair, 1e-3, 1e-5),  # whose slopes are float32 parameters
    "Moore2016ExcitationPattern": (roex_pair, 1e-3, 1e-9),
}


class AgainstScipy(Load):
    """Time over that of numpy and scipy."""

    params = (list(MODULES), list(DTYPES))
    param_names = ("module", "dtype")

    def setup(self, module: str, dtype: str) -> None:
        build, single, double = MODULES[module]
        self.forward, self.peer, difference = build(dtype)
        limit = single if dtype == "float32" else double
        require(difference(self.forward(), self.peer()), limit, f"{module} and scipy, {dtype}")

    track_time_over_scipy = over("peer")
