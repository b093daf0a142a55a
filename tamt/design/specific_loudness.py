"""Constants of specific loudness at any frequency, from the tables of the loudness models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Constants(NamedTuple):
    """What a model of specific loudness holds for its channels, in float64."""

    C: Tensor  # (), sone per Cam
    A: Tensor  # (N,)
    alpha: Tensor  # (N,)
    threshold: Tensor  # (N,), excitation at absolute threshold in dB


class Law(NamedTuple):
    """How the constants of a model follow from frequency."""

    C: float
    frequencies: Sequence[float]  # Hz, of the thresholds
    thresholds: Sequence[float]  # dB
    smooth: bool  # whether thresholds and alpha are interpolated by cubics, or linearly
    gains: Sequence[float]  # dB, of A
    A: Sequence[float]
    most: float  # excitation from where on the power law is another
    divisor: float  # of the excitation there
    exponent: float


# Gain of the cochlear amplifier at low levels in dB, and A.
# fmt: off
_GAINS = (
    -24.54531, -23.78397, -22.78169, -21.76854, -20.74442, -19.78305, -18.90431, -18.01605, -17.11816, -16.21055,
    -15.32375, -14.59341, -13.91727, -13.29726, -12.73537, -12.23364, -11.75255, -11.23866, -10.75136, -10.29164,
    -9.86051, -9.45902, -9.08823, -8.72191, -8.35715, -8.01199, -7.68715, -7.38338, -7.10145, -6.84213, -6.60623,
    -6.39458, -6.14589, -5.89392, -5.65071, -5.41661, -5.19198, -4.97718, -4.77258, -4.57857, -4.39555, -4.20148,
    -4.00538, -3.81442, -3.62882, -3.27454, -3.10633, -2.94438, -2.78894, -2.64027, -2.50042, -2.37015, -2.2482,
    -2.13487, -2.03046, -1.93531, -1.84973, -1.77405, -1.70863, -1.65382, -1.60997, -1.57745, -1.51786, -1.44522,
    -1.37466, -1.30624, -1.24006, -1.17621, -1.11478, -1.05587, -0.99956, -0.94596, -0.89518, -0.84731, -0.80246,
    -0.75663, -0.69834, -0.64029, -0.58251, -0.52501, -0.46783, -0.41099, -0.35451, -0.29842, -0.24274, -0.1875,
    -0.13273, -0.07845, -0.0247, 0.0,
)
_A = (
    8.852, 8.6315, 8.3584, 8.1012, 7.8585, 7.65258, 7.49124, 7.32853, 7.16458, 6.99954, 6.83957, 6.70559, 6.58115,
    6.46869, 6.36813, 6.2797, 6.19583, 6.10719, 6.02404, 5.9464, 5.87876, 5.8249, 5.77551, 5.72719, 5.67939, 5.63443,
    5.59236, 5.55322, 5.51708, 5.48399, 5.45402, 5.42723, 5.39588, 5.36425, 5.33386, 5.30472, 5.27688, 5.25064, 5.228,
    5.20667, 5.1866, 5.16539, 5.14401, 5.12326, 5.10314, 5.0649, 5.04681, 5.02944, 5.0128, 4.99693, 4.98203, 4.96818,
    4.95524, 4.94324, 4.93219, 4.92215, 4.91312, 4.90515, 4.89827, 4.89251, 4.8879, 4.88449, 4.87824, 4.87063,
    4.86324, 4.85609, 4.84918, 4.84252, 4.83611, 4.82998, 4.82412, 4.81854, 4.81327, 4.8083, 4.80365, 4.7989, 4.79286,
    4.78685, 4.78088, 4.77494, 4.76904, 4.76318, 4.75736, 4.75159, 4.74586, 4.74019, 4.73456, 4.72899, 4.72349,
    4.72096,
)
# fmt: on
# Of these the older table has some.
_COARSE = (0, 1, 2, 5, 9, 17, 21, 27, 33, 37, 44, 50, 57, 61, 66, 71, 75, 79, 82, 85, 87, 88, 89)
_ALPHA_GAINS = (-25, -20, -15, -10, -5, 0)  # dB
_ALPHA = (0.26692, 0.25016, 0.23679, 0.22228, 0.21055, 0.2)
_FREQUENCIES = (50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500)  # Hz
_THRESHOLDS = (28.18, 23.9, 19.2, 15.68, 12.67, 10.09, 8.08, 6.3, 5.3, 4.5)  # dB, below 500 Hz

MOORE2016 = Law(
    C=0.0631,
    frequencies=_FREQUENCIES,
    thresholds=(*_THRESHOLDS, 3.63),
    smooth=False,
    gains=_GAINS,
    A=_A,
    most=1e10,
    divisor=1.0707,
    exponent=0.2,
)
GLASBERG2002 = Law(
    C=0.04740123418501873,  # 1.01131 times that of ANSI S3.4-2007: a tone of 1 kHz and 40 dB SPL has 1 sone
    frequencies=(*_FREQUENCIES, 630, 750, 800, 1000),
    thresholds=(*_THRESHOLDS, *[3.73] * 5),
    smooth=True,
    gains=tuple(_GAINS[i] for i in _COARSE),
    A=tuple(_A[i] for i in _COARSE),
    most=math.nextafter(1e10, math.inf),  # not 1e10 itself
    divisor=1.04e6,
    exponent=0.5,
)

# From 100 dB up: the square root of 1997, or the power that ANSI S3.4-2007 and ISO 532-2 have since.
GLASBERG2002_HIGH = {"1997": GLASBERG2002, "2007": GLASBERG2002._replace(divisor=1.0707, exponent=0.2)}


def constants(law: Law, fc: Tensor) -> Constants:
    """Constants for channels at ``fc`` (N,) in Hz, on the CPU."""
    hz: NDArray[np.float64] = fc.numpy()
    low, high = law.frequencies[0], law.frequencies[-1]
    if law.smooth:
        threshold = np.where(
            hz < high, _cubic(law.frequencies, law.thresholds, np.minimum(hz, high)), law.thresholds[-1]
        )
    else:
        threshold = np.interp(np.clip(hz, low, high), law.frequencies, law.thresholds)
    gain = law.thresholds[-1] - threshold
    alpha = _cubic(_ALPHA_GAINS, _ALPHA, gain) if law.smooth else np.interp(gain, _ALPHA_GAINS, _ALPHA)
    found = np.asarray(law.C), _cubic(law.gains, law.A, gain), alpha, threshold
    return Constants(*(torch.from_numpy(np.array(value, dtype=np.float64)) for value in found))


def _cubic(x: Sequence[float], y: Sequence[float], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Monotone cubic interpolation (F. N. Fritsch and J. Butland, 1984), the first and last cubic continued."""
    places, values = np.array(x, np.float64), np.array(y, np.float64)
    step = np.diff(places)
    slope = np.diff(values) / step
    before, after = slope[:-1], slope[1:]
    # Inside, the harmonic mean of the slopes on both sides, the nearer one counting less; 0 where they turn.
    rising = before * after > 0
    left, right = step[:-1] + 2 * step[1:], 2 * step[:-1] + step[1:]
    inverse = np.divide(left, before, where=rising, out=np.ones_like(before))
    inverse += np.divide(right, after, where=rising, out=np.ones_like(after))
    inside = np.where(rising, (left + right) / inverse, 0.0)
    start, stop = (_end_slope(*step[order], *slope[order]) for order in (slice(2), slice(-1, -3, -1)))
    tangent = np.concatenate(([start], inside, [stop]))
    i = np.clip(np.searchsorted(places, at, side="right") - 1, 0, len(step) - 1)
    s = at - places[i]
    square = (3 * slope[i] - 2 * tangent[i] - tangent[i + 1]) / step[i]
    cube = (tangent[i] + tangent[i + 1] - 2 * slope[i]) / step[i] ** 2
    found: NDArray[np.float64] = values[i] + s * (tangent[i] + s * (square + s * cube))
    return found


def _end_slope(step: float, next_step: float, slope: float, next_slope: float) -> float:
    """That of the parabola through an end and its two neighbours, as far as it keeps the curve monotone."""
    found = ((2 * step + next_step) * slope - step * next_slope) / (step + next_step)
    if found * slope <= 0:
        return 0.0
    return 3 * slope if slope * next_slope < 0 and abs(found) > 3 * abs(slope) else found
