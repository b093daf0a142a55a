"""Conversions between frequency in hertz and the auditory ERB scales, and frequency grids spaced on them.

Two fits of the equivalent rectangular bandwidth (ERB) of the human auditory filter are in use, about 0.1 % apart:
:func:`fc2erb` and :func:`erb2fc` are the pair of the auditory filterbanks (LTFAT's scale ``'erb'``),
:func:`f2erbrate` and :func:`erbrate2f` the pair of the loudness models (Glasberg and Moore's ERB-rate).
"""

from __future__ import annotations

import math
import numbers
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["audfiltbw", "erb2fc", "erbrate2f", "erbspacebw", "f2erb", "f2erbrate", "fc2erb"]

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)

# ERB-rate and bandwidth of the loudness models: de/df is 1/ERB(f), but for the rounding of these numbers.
ERB_RATE_PER_DECADE = 21.366
ERB_GROWTH = 4.368e-3  # per Hz
ERB_AT_0 = 24.673  # Hz

# Largest x for which exp(x) is a finite double.
_MAX_EXPONENT = 709.0


def audfiltbw(fc: FloatOrTensor) -> FloatOrTensor:
    """Bandwidth of the auditory filter centred at a frequency.

    ``24.7 + fc / 9.265``

    Parameters
    ----------
    fc : Tensor or float
        Centre frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        Equivalent rectangular bandwidth in Hz: for a tensor one of the same shape, dtype and device (an integer
        tensor is computed in the default dtype), for a number a float.

    Notes
    -----
    The values of tensors are not checked. A number has to be finite and at least 0. This holds for all conversions
    of this module.

    References
    ----------
    .. [1] B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data",
       Hearing Research 47, 103-138, 1990.

    Examples
    --------
    >>> from tamt import audfiltbw
    >>> audfiltbw(1000)
    132.63308148947652
    """
    fc = _operand("fc", fc, "Hz")
    return 24.7 + fc / 9.265


def fc2erb(f: FloatOrTensor) -> FloatOrTensor:
    """Convert frequency to position on the ERB scale of the filterbanks.

    ``9.2645 ln(1 + 0.00437 f)``

    Parameters
    ----------
    f : Tensor or float
        Frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        Number of ERBs below ``f``, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data",
       Hearing Research 47, 103-138, 1990; the constants are those of LTFAT's ``freqtoaud``.

    Examples
    --------
    >>> import torch
    >>> from tamt import fc2erb
    >>> fc2erb(torch.tensor([100.0, 1000.0, 8000.0]))
    tensor([ 3.3589, 15.5720, 33.1892])
    """
    f = _operand("f", f, "Hz")
    return 9.2645 * _log1p(0.00437 * f)


def erb2fc(e: FloatOrTensor) -> FloatOrTensor:
    """Convert position on the ERB scale of the filterbanks to frequency; the inverse of :func:`fc2erb`.

    ``(exp(e / 9.2645) - 1) / 0.00437``

    Parameters
    ----------
    e : Tensor or float
        Number of ERBs, of any shape.

    Returns
    -------
    Tensor or float
        Frequency in Hz, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] See :func:`fc2erb`.

    Examples
    --------
    >>> from tamt import erb2fc, fc2erb
    >>> round(erb2fc(15.572), 1), round(erb2fc(fc2erb(440.0)), 6)
    (1000.0, 440.0)
    """
    e = _operand("e", e, "ERB")
    return _expm1(e / 9.2645) / 0.00437


def f2erb(f: FloatOrTensor) -> FloatOrTensor:
    """Bandwidth of the auditory filter centred at a frequency, in the form of Glasberg and Moore.

    ``24.7 (4.37 f / 1000 + 1)``

    Parameters
    ----------
    f : Tensor or float
        Frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        Equivalent rectangular bandwidth in Hz, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] B. R. Glasberg, B. C. J. Moore, "Derivation of auditory filter shapes from notched-noise data",
       Hearing Research 47, 103-138, 1990, equation 3.

    Examples
    --------
    >>> from tamt import f2erb
    >>> round(f2erb(1000.0), 3)
    132.639
    """
    f = _operand("f", f, "Hz")
    return 24.7 * (4.37e-3 * f + 1.0)


def f2erbrate(f: FloatOrTensor) -> FloatOrTensor:
    """Convert frequency to ERB-rate, the scale of the loudness models.

    ``21.366 log10(4.368 f / 1000 + 1)``

    Parameters
    ----------
    f : Tensor or float
        Frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        ERB-rate in Cam, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] B. C. J. Moore, B. R. Glasberg, A. Varathanathan, J. Schlittenlacher, "A loudness model for time-varying
       sounds incorporating binaural inhibition", Trends in Hearing 20, 2016.

    Examples
    --------
    >>> import torch
    >>> from tamt import f2erbrate
    >>> [round(cam, 2) for cam in f2erbrate(torch.tensor([100.0, 1000.0, 8000.0])).tolist()]
    [3.36, 15.59, 33.24]
    """
    f = _operand("f", f, "Hz")
    return (ERB_RATE_PER_DECADE / math.log(10.0)) * _log1p(ERB_GROWTH * f)


def erbrate2f(e: FloatOrTensor) -> FloatOrTensor:
    """Convert ERB-rate to frequency; the inverse of :func:`f2erbrate`.

    ``(10^(e / 21.366) - 1) 1000 / 4.368``

    Parameters
    ----------
    e : Tensor or float
        ERB-rate in Cam, of any shape.

    Returns
    -------
    Tensor or float
        Frequency in Hz, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] See :func:`f2erbrate`.

    Examples
    --------
    >>> from tamt import erbrate2f
    >>> round(erbrate2f(1.75), 1), round(erbrate2f(39.0), 1)  # the ends of the loudness models
    (47.5, 15083.6)
    """
    e = _operand("e", e, "Cam")
    return _expm1((math.log(10.0) / ERB_RATE_PER_DECADE) * e) / ERB_GROWTH


def erb_bandwidth(f: FloatOrTensor) -> FloatOrTensor:
    """Bandwidth of the auditory filter centred at a frequency, in the form of the loudness models.

    ``24.673 (4.368 f / 1000 + 1)``

    Parameters
    ----------
    f : Tensor or float
        Frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        Equivalent rectangular bandwidth in Hz, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] See :func:`f2erbrate`.
    """
    f = _operand("f", f, "Hz")
    return ERB_AT_0 * (ERB_GROWTH * f + 1.0)


def roex_slope(f: FloatOrTensor) -> FloatOrTensor:
    """Slope of the rounded-exponential filter centred at a frequency, relative to that frequency.

    ``4 f / erb_bandwidth(f)``, of the filter ``(1 + p |g|) exp(-p |g|)`` that is one ERB wide.

    Parameters
    ----------
    f : Tensor or float
        Frequency in Hz, of any shape.

    Returns
    -------
    Tensor or float
        Slope p, in the form of the input; see :func:`audfiltbw`.

    References
    ----------
    .. [1] See :func:`f2erbrate`.
    """
    return 4 * f / erb_bandwidth(f)


def erbrate_positions(f_min: float, f_max: float, erb_step: float) -> Tensor:
    """Positions at equal distances on the scale of :func:`f2erbrate`.

    Parameters
    ----------
    f_min, f_max : float
        Lowest frequency and the one that the highest reaches at least, in Hz, ``0 <= f_min < f_max``.
    erb_step : float
        Distance of neighbours in Cam, greater than 0.

    Returns
    -------
    Tensor
        Positions in Cam in rising order, shape ``(n,)``, float64 on the CPU.
    """
    if not 0 <= f_min < f_max < math.inf:
        raise ValueError(f"f_min and f_max must satisfy 0 <= f_min < f_max < inf, got {f_min} and {f_max} Hz")
    if not 0 < erb_step < math.inf:
        raise ValueError(f"erb_step must be positive and finite, got {erb_step}")
    low, high = f2erbrate(float(f_min)), f2erbrate(float(f_max))
    # The tolerance keeps rounding from adding a position where the range is a whole number of steps.
    steps = math.ceil((high - low) / erb_step - 1e-9)
    return low + erb_step * torch.arange(steps + 1, dtype=torch.float64, device="cpu")


def erbspacebw(
    flow: float,
    fhigh: float,
    bwmul: float = 1.0,
    basef: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Centre frequencies at equal distances on the ERB scale.

    Without `basef`, ``floor((fc2erb(fhigh) - fc2erb(flow)) / bwmul) + 1`` frequencies from `flow` to `fhigh`, both
    included, at equal distances of at least `bwmul`. With `basef`, `basef` itself and all frequencies at multiples
    of exactly `bwmul` from it that lie in ``[flow, fhigh]``.

    Parameters
    ----------
    flow, fhigh : float
        Lowest and highest frequency in Hz, ``0 <= flow < fhigh``.
    bwmul : float
        Distance between neighbours in ERBs, greater than 0.
    basef : float, optional
        A frequency in Hz, ``flow <= basef <= fhigh``, that has to be one of the centres.
    device : torch.device or str, optional
        Where the result is made; by default the current default device.
    dtype : torch.dtype
        A floating type. The frequencies are computed in double precision and rounded to it.

    Returns
    -------
    Tensor
        Centre frequencies in Hz in rising order, shape ``(F,)``. If the range is narrower than `bwmul` and `basef`
        is not given, `flow` alone.

    Raises
    ------
    ValueError
        An argument outside its range.
    TypeError
        An argument that is no real number, a ``dtype`` that is not floating.

    References
    ----------
    .. [1] The form with `basef` is that of LTFAT's ``erbspacebw``. The form without it keeps both ends, where
       LTFAT keeps the distance and moves the ends inwards.

    Examples
    --------
    >>> from tamt import erbspacebw
    >>> erbspacebw(100, 8000)[:3]
    tensor([100.0000, 138.6141, 181.7625])
    """
    flow, fhigh, bwmul = _real("flow", flow), _real("fhigh", fhigh), _real("bwmul", bwmul)
    if not 0.0 <= flow < math.inf:
        raise ValueError(f"flow is {flow:g} Hz, but has to be finite and at least 0")
    if not flow < fhigh < math.inf:
        raise ValueError(f"fhigh is {fhigh:g} Hz, but has to be finite and greater than flow ({flow:g} Hz)")
    if not 0.0 < bwmul < math.inf:
        raise ValueError(f"bwmul is {bwmul:g}, but has to be finite and greater than 0")
    if basef is not None:
        basef = _real("basef", basef)
        if not flow <= basef <= fhigh:
            raise ValueError(f"basef is {basef:g} Hz, but has to lie in [flow, fhigh] = [{flow:g}, {fhigh:g}] Hz")
    if not dtype.is_floating_point:
        raise TypeError(f"dtype is {dtype}, but has to be a floating type such as torch.float32")

    low, high = fc2erb(flow), fc2erb(fhigh)
    if basef is None:
        steps = _whole_steps(high - low, bwmul)
        positions = torch.linspace(low, high if steps else low, steps + 1, dtype=torch.float64, device="cpu")
        exact = {-1: fhigh, 0: flow} if steps else {0: flow}
    else:
        centre = fc2erb(basef)
        below, above = _whole_steps(centre - low, bwmul), _whole_steps(high - centre, bwmul)
        positions = centre + bwmul * torch.arange(-below, above + 1, dtype=torch.float64, device="cpu")
        exact = {below: basef}
    # Rounding must not move what the caller has asked for, nor a frequency out of the range.
    fc = erb2fc(positions).clamp(flow, fhigh)
    for channel, hertz in exact.items():
        fc[channel] = hertz
    return fc.to(dtype).to(torch.empty(0, device=device).device)


def erb_spaced(flow: float, fhigh: float, count: int) -> Tensor:
    """A given number of centre frequencies between two, even on the scale of :func:`fc2erb`.

    Parameters
    ----------
    flow, fhigh : float
        Lowest and highest frequency in Hz, ``0 <= flow < fhigh``.
    count : int
        Number of frequencies, at least 1; one alone is ``flow``.

    Returns
    -------
    Tensor
        Frequencies in Hz in rising order, shape ``(count,)``, float64.
    """
    flow, fhigh = _real("flow", flow), _real("fhigh", fhigh)
    steps = count - 1 or 0.5
    return erbspacebw(flow, fhigh, (fc2erb(fhigh) - fc2erb(flow)) / steps, dtype=torch.float64)


def _whole_steps(distance: float, step: float) -> int:
    # The tolerance keeps a distance that is a multiple of the step, but for rounding, from losing its last channel.
    return math.floor(distance / step + 1e-9)


def _log1p(x: FloatOrTensor) -> FloatOrTensor:
    return torch.log1p(x) if isinstance(x, Tensor) else math.log1p(x)


def _expm1(x: FloatOrTensor) -> FloatOrTensor:
    if isinstance(x, Tensor):
        return torch.expm1(x)
    return math.expm1(x) if x < _MAX_EXPONENT else math.inf


def _operand(name: str, value: FloatOrTensor, unit: str, least: float = 0.0) -> FloatOrTensor:
    """Give a floating tensor, or a float that is known to be valid, for the argument of a conversion."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name} is a tensor of {value.dtype}, but has to be real: floating or integer")
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())
    number = _real(name, value, "a tensor or a real number")
    if not (math.isfinite(number) and number >= least):
        limit = f" and at least {least:g}" if math.isfinite(least) else ""
        raise ValueError(f"{name} is {number:g} {unit}, but has to be finite{limit}")
    return number


def _real(name: str, value: float, allowed: str = "a real number") -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        shown = repr(value)
        # Tensors in a tuple would fill the screen.
        given = f"{shown} of type" if len(shown) <= 60 else "of type"
        raise TypeError(f"{name} is {given} {type(value).__name__}, but has to be {allowed}")
    return float(value)
