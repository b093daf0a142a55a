"""Units of level: sound pressure level, pressure, samples of full scale, and the velocity of the stapes.

Levels are in dB re 20 uPa (dB SPL) and belong to root mean squares. A sine has a peak of the square root of two times
its root mean square: conversions for signals, whose samples a sine of full scale takes from -1 to 1, hold that factor.

=========================================== ========================================================================
what is known                               sound in pascal
=========================================== ========================================================================
a level L in dB SPL                         has a root mean square of ``spl2pascal(L)``, and back by ``pascal2spl``
samples, and the level of a full-scale sine ``full_scale_pascal(level) * samples``
samples, and a calibrator's recording       ``calibrate(recording, level) * samples``
sound in pascal, as ``db_max`` of a         ``pascal2spl(1 / sqrt(2))``, 90.97: the level of a sine of amplitude 1
:class:`tamt.Moore2016Spectrum`
=========================================== ========================================================================
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from tamt._memo import readable
from tamt.scales import FloatOrTensor, _operand

__all__ = [
    "REFERENCE_PRESSURE",
    "STAPES_GAIN",
    "STAPES_LEVEL",
    "calibrate",
    "full_scale_pascal",
    "pascal2spl",
    "spl2pascal",
    "stapes_velocity",
]

REFERENCE_PRESSURE = 20e-6  # Pa, root mean square at 0 dB SPL

# Peak velocity of the stapes in m/s for a tone of 1 kHz at 0 dB SPL: the gain there of AMT's middleearfilter, whose
# ground are the measurements of Goode et al. (1994).
_STAPES_AT_0_DB = 1.2e-8

_NOT_FLOATING = "recording must be floating, got {}: divide integers by their full scale, such as 32768 for int16"

# What tells a calibrator's tone, 250 or 1000 Hz, from anything else. A sine's peak is 1.41 times its root mean square.
_SINE_CREST = 1.3, 1.6
_STEADY_DB = 1.0  # the most by which the levels of parts may differ
_PARTS = 10
_PART = 1000  # samples, a period of 250 Hz at the highest usual rates: less tells nothing

STAPES_GAIN = _STAPES_AT_0_DB / (math.sqrt(2) * REFERENCE_PRESSURE)  # m/s per Pa, 4.24e-4
STAPES_LEVEL = 20 * math.log10(_STAPES_AT_0_DB / math.sqrt(2))  # dB re 1 m/s, root mean square at 0 dB SPL, -161.4


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
    >>> from tamt.spl import spl2pascal
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
    >>> from tamt.spl import pascal2spl
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

    Examples
    --------
    >>> from tamt.spl import full_scale_pascal
    >>> round(full_scale_pascal(100), 3)  # a sine of 100 dB SPL has a peak of 2.8 Pa
    2.828
    """
    return math.sqrt(2) * REFERENCE_PRESSURE * _factor(level)


def calibrate(recording: Tensor | np.ndarray, level: FloatOrTensor) -> Tensor:
    """Pressure that a sample of 1 stands for, from the recording of a sound calibrator.

    ``20e-6 * 10 ** (level / 20)`` over the root mean square of the recording

    Samples recorded in the same way times this are pressure in Pa.

    Parameters
    ----------
    recording : Tensor (..., T) or array
        The calibrator's tone alone, floating, in samples of any scale. Of several channels ``soundfile`` reads (T, C),
        which is to be transposed. A constant offset counts as sound.
    level : float or Tensor (..., 1)
        Level of the tone in dB SPL, commonly 94 or 114.

    Returns
    -------
    Tensor (..., 1)
        Pressure in Pa, of each channel by its own recording, to be multiplied by signals (..., T); in the type and on
        the device of the recording, half types in float32.

    Raises
    ------
    ValueError
        A recording without samples, with fewer samples than channels, with a sample that is not finite, or with a
        channel of zeros.
    TypeError
        A recording that is not floating: integers have a full scale that they do not tell.

    Warns
    -----
    UserWarning
        A channel that is no steady sine (on the CPU, outside of ``torch.compile``): of 1000 samples or more whose peak
        is not 1.3 to 1.6 times the root mean square, as of noise or a clipped tone; of 10000 or more whose tenths
        differ in level by more than 1 dB, as where the tone begins late.

    See Also
    --------
    full_scale_pascal : the same where the level of a full-scale sine is known.

    Examples
    --------
    >>> import torch
    >>> from tamt.spl import calibrate, pascal2spl
    >>> tone = 0.05 * torch.sin(2 * torch.pi * 1000 * torch.arange(48000) / 48000)
    >>> factor = calibrate(tone, 94)
    >>> round(factor.item(), 2)
    28.35
    >>> round(pascal2spl((factor * tone / 10).square().mean().sqrt()).item(), 2)
    74.0
    """
    if isinstance(recording, np.ndarray):
        if recording.dtype.kind != "f":
            raise TypeError(_NOT_FLOATING.format(recording.dtype))
        recording = torch.from_numpy(np.array(recording, dtype=recording.dtype.newbyteorder("=")))
    elif not isinstance(recording, Tensor):
        raise TypeError(f"recording must be a tensor or an array, got {type(recording).__name__}")
    if not recording.is_floating_point():
        raise TypeError(_NOT_FLOATING.format(recording.dtype))
    if recording.dim() < 1 or recording.numel() == 0:
        raise ValueError(f"recording must have shape (..., T) with T >= 1, got {tuple(recording.shape)}")
    if recording.dim() > 1 and recording.shape[-1] < recording.shape[-2]:
        raise ValueError(
            f"recording must have shape (..., T), got {tuple(recording.shape)}, which looks like (T, C): transpose it"
        )
    x = recording.to(torch.promote_types(recording.dtype, torch.float32))
    peak = x.detach().abs().amax(-1, keepdim=True)
    if not peak.isfinite().all():
        raise ValueError("recording has samples that are not finite")
    if not peak.all():
        raise ValueError(f"recording is silent{_first_channel(peak[..., 0] == 0)}: all of its samples are 0")
    power = (x / peak).square()  # squares of 1e-30 would vanish
    relative = power.mean(-1, keepdim=True).sqrt()  # to the peak
    if readable(x):
        _warn_unless_steady_sine(power.detach(), 1 / relative[..., 0].detach())
    return spl2pascal(level) / (peak * relative)


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
    >>> from tamt.spl import stapes_velocity
    >>> stapes_velocity(100.0)
    0.0012
    """
    return _STAPES_AT_0_DB * _factor(level)


def _warn_unless_steady_sine(power: Tensor, crest: Tensor) -> None:
    """Warn of a recording of a calibrator that has something else in it, by its squares (..., T) and crest factor."""
    samples, problem = power.shape[-1], ""
    if samples >= _PARTS * _PART:
        part = samples // _PARTS
        levels = 10 * power[..., : _PARTS * part].unflatten(-1, (_PARTS, part)).mean(-1).log10()
        spread = levels.amax(-1) - levels.amin(-1)
        if (changing := spread > _STEADY_DB).any():
            by = spread[changing][0].item()
            problem = f"the level changes by {by:.3g} dB" if by < math.inf else "a part is silent"
            problem += _first_channel(changing)
    odd = (crest < _SINE_CREST[0]) | (crest > _SINE_CREST[1])
    if not problem and samples >= _PART and odd.any():
        problem = f"the peak is {crest[odd][0]:.3g} times the root mean square (a sine's is 1.41){_first_channel(odd)}"
    if problem:
        warnings.warn(
            f"recording is not a calibrator's steady tone alone: {problem}; what it calibrates may be wrong",
            stacklevel=3,
        )


def _first_channel(found: Tensor) -> str:
    """Where a mask (...) of channels is first true, in words; nothing of a single one."""
    if found.numel() == 1:
        return ""
    index = found.nonzero()[0].tolist()
    return f" in channel {index[0] + 1} of {len(found)}" if len(index) == 1 else f" at index {tuple(index)}"


def _factor(level: FloatOrTensor) -> FloatOrTensor:
    """What a level multiplies an amplitude by."""
    exponent = _operand("level", level, "dB SPL", -math.inf) / 20
    if isinstance(exponent, Tensor):
        return 10**exponent
    return 10.0**exponent if exponent < 308 else math.inf
