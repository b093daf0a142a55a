"""Loudness of time-varying sound in both ears: ISO 532-3 by phonometry, and the authors' model in Python.

The latter is the file ``tvl2018.py`` of github.com/MalcolmSlaney/LoudnessModel, of which there is no package: it is
compared where Python finds it, its folder in ``PYTHONPATH`` say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.signal import convolve
from torch import Tensor

from asv_bench.benchmarks.common import DTYPES
from tamt import Moore2016Loudness
from tamt.loudness.front_ends import DB_MAX, FS
from tamt.spl import REFERENCE_PRESSURE

from .filters import on_cpu
from .measure import Work, without_gradient, work
from .peers import library

LIMIT = 0.02  # the standard's tables are rounded, and its frames and bins are others than the authors'
CUT = 1024  # samples of the ear filter's response before and behind the sound that count no more


def noise() -> Tensor:
    """White noise of 60 dB SPL, another in each ear, (2, T): three quarters of all bins are components."""
    generator = torch.Generator().manual_seed(0)
    return 0.02 * torch.randn(2, FS // 5, generator=generator, dtype=torch.float64)


def voices() -> Tensor:
    """A voice of 150 Hz and 65 dB SPL and one of 180 Hz and 60 dB, (2, T), each above noise: a quarter of the bins."""
    time = torch.arange(2 * FS // 5, dtype=torch.float64) / FS
    generator = torch.Generator().manual_seed(0)
    ears = []
    for pitch, level in ((150, 65), (180, 60)):
        order = torch.arange(1, 15000 // pitch, dtype=torch.float64)[:, None]
        harmonics = torch.cos(2 * math.pi * pitch * order * time + order.square()) / order.square()
        sound = harmonics.sum(0)
        sound = sound / sound.square().mean().sqrt()
        sound = sound + 10 ** (-50 / 20) * torch.randn(len(time), generator=generator, dtype=torch.float64)
        ears.append(REFERENCE_PRESSURE * 10 ** (level / 20) * sound)
    return torch.stack(ears)


def by_port(port: Any, x: np.ndarray, taps: np.ndarray) -> float:
    """Peak by the stages of ``tvl2018.main_tv2018``, without its picture and its file of text.

    The taps are tamt's, as the port has them in files beside it; they are the same to 1e-13.
    """
    heard = np.stack([convolve(ear, taps)[CUT:-CUT] for ear in x], 1)
    ears = port.filtered_signal_to_monaural_instantaneous_specific_loudness(heard, FS, DB_MAX)
    left, right = (port.instantaneous_specific_loudness_to_shortterm_specific_loudness(ear)[0] for ear in ears)
    frames = zip(left, right, strict=True)
    short = [port.monaural_specific_loudness_to_binaural_loudness_025(*frame)[1:] for frame in frames]
    long = [port.shortterm_loudness_to_longterm_loudness(ear) for ear in np.array(short).T]
    return float(np.max(np.sum(long, 0)))


def difference(actual: float | Tensor, expected: float) -> float:
    """Of two peaks of long-term loudness, over the second."""
    return abs(float(actual) / expected - 1)


def moore2016(device: str, dtype: str, sound: Tensor) -> Work:
    model = Moore2016Loudness(dtype=DTYPES[dtype], device=device)
    exact = Moore2016Loudness(dtype=torch.float64)
    x, wide = sound.to(device, DTYPES[dtype]), sound.numpy()
    taps = exact.ear._constant("taps").numpy()

    def phonometry() -> Callable[[], float]:
        loudness = library("phonometry").loudness_moore_glasberg_time
        return lambda: loudness(wide.T, FS).n_max

    def port() -> Callable[[], float]:
        return partial(by_port, library("tvl2018"), wide, taps)

    return Work(
        f"stereo {sound.shape[-1] / FS:g} s at 32 kHz",
        exact(sound).peak.item(),
        difference,
        LIMIT,
        "of the peak",
        lambda: without_gradient(lambda: model(x).peak),
        on_cpu(device, {"phonometry.loudness_moore_glasberg_time": phonometry, "tvl2018": port}),
    )


@work("loudness of Moore et al., noise")
def of_noise(device: str, dtype: str) -> Work:
    """Loudness of noise."""
    return moore2016(device, dtype, noise())


@work("loudness of Moore et al., voices")
def of_voices(device: str, dtype: str) -> Work:
    """Loudness of two voices, one in each ear."""
    return moore2016(device, dtype, voices())
