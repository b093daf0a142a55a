"""Units of level: sound pressure level, pressure, samples of full scale, and the velocity of the stapes.

Levels are in dB re 20 uPa (dB SPL) and belong to root mean squares. A sine has a peak of the square root of two times
its root mean square: conversions for signals, whose samples a sine of full scale takes from -1 to 1, hold that factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt.scales import FloatOrTensor, _operand

__all__ = [
    "REFERENCE_PRESSURE",
    "STAPES_GAIN",
    "full_scale_pascal",
    "pascal2spl",
    "spl2pascal",
    "stapes_velocity",
]

REFERENCE_PRESSURE = 20e-6  # Pa, root mean square at 0 dB SPL

# Peak velocity of the stapes in m/s for a tone of 1 kHz at 0 dB SPL: the gain there of AMT's middleearfilter, whose
# ground are the measurements of Goode et al. (1994).
_STAPES_AT_0_DB = 1.2e-8

STAPES_GAIN = _STAPES_AT_0_DB / (math.sqrt(2) * REFERENCE_PRESSURE)  # m/s per Pa, 4.24e-4


def spl2pascal(level: FloatOrTensor) -> FloatOrTensor:
    """Convert sound pressure level to pressure.

    ``20e-6 * 10 ** (level / 20)``

    Parameters
    ----------
    level : Tensor or float
        Level in dB SPL, of any shape.

    Returns
    -------
    Tensor or float
        Root mean square of the pressure in Pa: for a tensor one of the same shape, dtype and device (an integer tensor
        is computed in the default dtype), for a number a float.

    Notes
    -----
    The values of tensors are not checked. A number has to be finite. This holds for all conversions of this module.

    Examples
    --------
    >>> round(spl2pascal(94), 4)
    1.0024
    """
    return REFERENCE_PRESSURE * _factor(level)


def pascal2spl(pressure: FloatOrTensor) -> FloatOrTensor:
    """Convert pressure to sound pressure level; the inverse of :func:`spl2pascal`.

    ``20 log10(pressure / 20e-6)``

    Parameters
    ----------
    pressure : Tensor or float
        Root mean square of the pressure in Pa, of any shape, at least 0.

    Returns
    -------
    Tensor or float
        Level in dB SPL, in the form of the input; see :func:`spl2pascal`. Minus infinity for a pressure of 0.

    Examples
    --------
    >>> round(pascal2spl(1), 2)
    93.98
    """
    pressure = _operand("pressure", pressure, "Pa")
    if isinstance(pressure, Tensor):
        return 20 * torch.log10(pressure / REFERENCE_PRESSURE)
    return 20 * math.log10(pressure / REFERENCE_PRESSURE) if pressure > 0 else -math.inf


def full_scale_pascal(level: FloatOrTensor) -> FloatOrTensor:
    """Pressure that a sample of 1 stands for, where a sine of amplitude 1 has a given level.

    ``sqrt(2) * 20e-6 * 10 ** (level / 20)``

    Samples times this are pressure in Pa, as :class:`tamt.MultiResolutionFFT` takes it. Pressure divided by it, with
    the ``db_max`` of a :class:`tamt.Moore2016Spectrum` as the level, are samples that this one takes.

    Parameters
    ----------
    level : Tensor or float
        Level in dB SPL of a sine of amplitude 1, of any shape.

    Returns
    -------
    Tensor or float
        Pressure in Pa, in the form of the input; see :func:`spl2pascal`.
    """
    return math.sqrt(2) * REFERENCE_PRESSURE * _factor(level)


def stapes_velocity(level: FloatOrTensor) -> FloatOrTensor:
    """Peak velocity of the stapes for a sine, with the gain that the middle ear has at 1 kHz.

    ``1.2e-8 * 10 ** (level / 20)``, which is ``STAPES_GAIN`` times :func:`full_scale_pascal`

    Samples times this, with the level of a sine of amplitude 1, are a velocity as :class:`tamt.DRNLFilterbank` takes
    it. A real middle ear passes 7 dB less at 2 kHz and 15 dB less at 4 kHz.

    Parameters
    ----------
    level : Tensor or float
        Level of the sine in dB SPL, of any shape.

    Returns
    -------
    Tensor or float
        Peak velocity in m/s, in the form of the input; see :func:`spl2pascal`.

    References
    ----------
    .. [1] R. L. Goode, M. Killion, K. Nakamura, S. Nishihara, "New knowledge about the function of the human middle
       ear: development of an improved analog model", Am. J. Otol. 15, 145-154, 1994; the gain is that of AMT's
       ``middleearfilter``.

    Examples
    --------
    >>> stapes_velocity(100.0)
    0.0012
    """
    return _STAPES_AT_0_DB * _factor(level)


def _factor(level: FloatOrTensor) -> FloatOrTensor:
    """What a level multiplies an amplitude by."""
    exponent = _operand("level", level, "dB SPL", -math.inf) / 20
    if isinstance(exponent, Tensor):
        return 10**exponent
    return 10.0**exponent if exponent < 308 else math.inf
