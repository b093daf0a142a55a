r"""Excitation of rounded-exponential (roex) auditory filters by a sparse spectrum, after Moore et al. (2016).

With :math:`\mathrm{ERB}(f) = 24.673 (0.004368 f + 1)`, :math:`p(f) = 4 f / \mathrm{ERB}(f)` and
:math:`W(p, g) = (1 + p |g|) e^{-p |g|}`, components of frequencies :math:`f_i` and intensities
:math:`I_i = 10^{L_i/10}` give

1. ``roex_level``: :math:`Y_j = \sum_i W(p(f_i), (f_j - f_i)/f_i)\, I_i`, the power at component j per ERB, each
   component seen through the filter at its own frequency;
2. ``roex_excitation``: :math:`S_n = \sum_i W(b_{ni}, (f_i - f^c_n)/f^c_n)\, I_i` with the slope :math:`b_{ni} = p_n`
   above the channel's frequency and :math:`\max(p_n s_i, 0.1)` below it.

Pairs of which one frequency is more than ``ratio`` times the other do not count. For the operators ``f``,
``intensity`` and the relative steepness ``steepness`` :math:`s` are (R, C), positive frequencies only, ``fc`` and ``p``
(N,); results are (R, C) and (R, N).

Where all rows have the same frequencies the first is a product with one matrix. On the CPU ``roex_shared`` does all of
it: ``f`` is (C,) there, ``weights`` is that matrix, ``factor`` () is what the steepness follows the level by, and
padding and rows of NaN are as for :func:`roex_power`. It holds blocks of rows beside its operands and results, forward
and backward. Elsewhere the second operator is given the one row of frequencies as many (``expand``); the kernels get a
copy of it for each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt._memo import readable
from tamt.ops._checks import as_rows, check_same_kind, check_value
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.product import product
from tamt.reference import roex as reference
from tamt.shared.roex import HIGHEST, REFERENCE_LEVEL, audible, level_per_erb, octaves_as_ratio, power_weights

FLOOR = 1e-12  # excitation of silence


def roex(
    freqs: Tensor,
    levels: Tensor,
    fc: Tensor,
    p: Tensor,
    factor: Tensor,
    p1000: float,
    limit: float = math.inf,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Excitation level of each channel.

    With :math:`Y_i` and :math:`S_n` of :mod:`tamt.ops.roex`, and :math:`X_i = 10 \log_{10} Y_i`, the low-frequency
    side of channel n has, for component i, the slope
    :math:`\max(p_n - \mathrm{factor}\, (p_n / p_{1000}) (X_i - 51), 0.1)`, and the result is
    :math:`10 \log_{10}(S_n + 10^{-12})`.

    Parameters
    ----------
    freqs : Tensor (..., C) or (C,)
        Frequencies in Hz of the components, float32 or float64, in any order; (C,) are those of all rows. Frequencies
        of 0 and below mark padding.
    levels : Tensor (..., C)
        In dB; -inf is silence.
    fc, p : Tensor (N,)
        Frequencies of the channels in Hz and slopes of their high-frequency sides. No gradient.
    factor : Tensor ()
        How much the low-frequency side depends on level.
    p1000 : float
        Slope of the filter at 1 kHz.
    limit : float
        Pairs further apart, in octaves, do not count.
    weights : Tensor (C, C), optional
        ``roex_weights(freqs, limit)`` of frequencies of all rows, to be kept between calls; made here if not given.

    Returns
    -------
    Tensor (..., N)
        In dB; -120 without components. A row with a level or a frequency that is NaN, a level of +inf or a frequency
        above 100 kHz is NaN; frequencies above 100 kHz are a ValueError on the CPU, outside of ``torch.compile``.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, a ``limit`` that is not above 0, a frequency above 100 kHz
        where that can be read.
    TypeError
        Frequencies that are neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.roex import roex
    >>> fc = torch.tensor([500.0, 1000.0, 2000.0])
    >>> p = 4 * fc / (24.673 * (4.368e-3 * fc + 1))
    >>> factor, p1000 = torch.tensor(0.35), p[1].item()
    >>> levels = roex(torch.tensor([1000.0]), torch.tensor([80.0]), fc, p, factor, p1000)
    >>> round(levels[1].item(), 3), bool(levels[2] > levels[0])  # spreads to higher channels
    (80.0, True)
    """
    known = levels < math.inf
    # Padding may hold anything, which must not reach the gradient of the power either.
    intensity = torch.exp(math.log(10) / 10 * levels.masked_fill(~known, 0)).masked_fill(~known, math.nan)
    power = _power(freqs, intensity, fc, p, factor, p1000, limit, weights, "levels")
    return 10 * torch.log10(power + FLOOR)


def roex_power(
    freqs: Tensor,
    intensity: Tensor,
    fc: Tensor,
    p: Tensor,
    factor: Tensor,
    p1000: float,
    limit: float = math.inf,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Excitation of each channel as a ratio: the sum :math:`S_n` of which :func:`roex` takes the level.

    Parameters
    ----------
    intensity : Tensor (..., C)
        Intensities :math:`10^{L_i/10}` of the components, not negative.
    freqs, fc, p, factor, p1000, limit, weights
        As for :func:`roex`.

    Returns
    -------
    Tensor (..., N)
        0 without components, where the gradient is that of the limit; NaN as for :func:`roex`.

    Raises
    ------
    ValueError
        As :func:`roex`.
    TypeError
        As :func:`roex`.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.roex import roex_power
    >>> fc = torch.tensor([500.0, 1000.0, 2000.0])
    >>> p = 4 * fc / (24.673 * (4.368e-3 * fc + 1))
    >>> factor, p1000 = torch.tensor(0.35), p[1].item()
    >>> roex_power(torch.tensor([1000.0]), torch.zeros(5, 1), fc, p, factor, p1000).sum()  # silence
    tensor(0.)
    """
    return _power(freqs, intensity, fc, p, factor, p1000, limit, weights, "intensity")


def _power(
    freqs: Tensor,
    intensity: Tensor,
    fc: Tensor,
    p: Tensor,
    factor: Tensor,
    p1000: float,
    limit: float,
    weights: Tensor | None,
    name: str,
) -> Tensor:
    """:func:`roex_power` of what a caller knows as ``name``."""
    same = freqs.shape == (intensity.shape if freqs.dim() == intensity.dim() else intensity.shape[-1:])
    if freqs.dim() < 1 or intensity.dim() < 1 or not same:
        raise ValueError(
            f"freqs and {name} must have the same shape (..., C), or the shapes (C,) and (..., C), got "
            f"{tuple(freqs.shape)} and {tuple(intensity.shape)}"
        )
    if fc.dim() != 1 or fc.shape != p.shape:
        raise ValueError(f"fc and p must have the same shape (N,), got {tuple(fc.shape)} and {tuple(p.shape)}")
    if freqs.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"freqs must be float32 or float64, got {freqs.dtype}")
    check_same_kind({name: intensity, "fc": fc, "p": p, "factor": factor}, freqs, "freqs's")
    if not limit > 0:
        raise ValueError(f"limit must be a positive number of octaves, got {limit}")
    if readable(freqs):
        wrong = freqs.detach()[freqs > HIGHEST]
        if wrong.numel():
            raise ValueError(f"freqs must not exceed {HIGHEST:g} Hz, got {wrong[0].item():g} Hz")
    ratio, shape = octaves_as_ratio(limit), (*intensity.shape[:-1], fc.shape[0])
    shared, fc, p = freqs.dim() < intensity.dim(), fc.detach(), p.detach()
    if shared:
        weights = roex_weights(freqs, limit) if weights is None else weights
        if freqs.device.type == "cpu":
            found = roex_shared_rows(freqs, as_rows(intensity), weights, factor, fc, p, p1000, ratio)
            return found.reshape(shape)
    f, given = as_rows(freqs), as_rows(intensity)
    heard = audible(f)
    valid = heard & (given < math.inf)
    unknown = ~valid & ~(f <= 0)
    # Padding stands above all others: components in rising frequency stay so.
    f = torch.where(heard if shared else valid, f, HIGHEST)
    given = torch.where(valid, given, 0.0)
    power = product(given, weights) if weights is not None else roex_level_rows(f, given, ratio)
    level = torch.where(valid, level_per_erb(power), REFERENCE_LEVEL)
    steepness = 1 - factor / p1000 * (level - REFERENCE_LEVEL)
    total = roex_excitation_rows(f.expand(given.shape), given, steepness, fc, p, ratio)
    return total.masked_fill(unknown.any(1, keepdim=True), math.nan).reshape(shape)


def roex_weights(freqs: Tensor, limit: float = math.inf) -> Tensor:
    r"""Weights :math:`W(p(f_j), (f_i - f_j)/f_j)` (C, C) of the filter at component j, in rows, for component i.

    Parameters
    ----------
    freqs : Tensor (C,)
        Frequencies in Hz, float32 or float64. What is not in (0, 100 kHz] is padding.
    limit : float
        Pairs further apart, in octaves, have no weight.

    Returns
    -------
    Tensor (C, C)
        Of the type of ``freqs``.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.roex import roex_weights
    >>> weights = roex_weights(torch.tensor([500.0, 1000.0, 2000.0]))
    >>> weights.shape, weights.diagonal()
    (torch.Size([3, 3]), tensor([1., 1., 1.]))
    """
    return power_weights(torch.where(audible(freqs), freqs, HIGHEST), octaves_as_ratio(limit))


def _check_components(f: Tensor, intensity: Tensor, ratio: float) -> None:
    check_value(
        f.dim() == 2 and intensity.dim() == 2 and f.shape[0] == intensity.shape[0] and f.shape[1] == intensity.shape[1],
        lambda: f"f and intensity must have the same shape (R, C), got {tuple(f.shape)} and {tuple(intensity.shape)}",
    )


def _check_excitation(f: Tensor, intensity: Tensor, steepness: Tensor, fc: Tensor, p: Tensor, ratio: float) -> None:
    _check_components(f, intensity, ratio)
    check_value(
        steepness.dim() == 2 and steepness.shape[0] == f.shape[0] and steepness.shape[1] == f.shape[1],
        lambda: f"steepness must have the shape {tuple(f.shape)}, got {tuple(steepness.shape)}",
    )
    _check_channels(fc, p)


def _check_shared(
    f: Tensor, intensity: Tensor, weights: Tensor, factor: Tensor, fc: Tensor, p: Tensor, p1000: float, ratio: float
) -> None:
    count = f.shape[-1] if f.dim() == 1 else -1
    check_value(
        intensity.dim() == 2 and intensity.shape[1] == count and weights.shape == (count, count) and factor.dim() == 0,
        lambda: (
            "f, intensity, weights and factor must have the shapes (C,), (R, C), (C, C) and (), got "
            f"{tuple(f.shape)}, {tuple(intensity.shape)}, {tuple(weights.shape)} and {tuple(factor.shape)}"
        ),
    )
    _check_channels(fc, p)


def _check_channels(fc: Tensor, p: Tensor) -> None:
    check_value(
        fc.dim() == 1 and p.dim() == 1 and fc.shape[0] == p.shape[0],
        lambda: f"fc and p must have the same shape (N,), got {tuple(fc.shape)} and {tuple(p.shape)}",
    )


roex_level_rows = register(
    "roex_level",
    "(Tensor f, Tensor intensity, float ratio) -> Tensor",
    definition=reference.power_per_erb_definition,
    forward=reference.power_per_erb,
    launcher="roex:power_per_erb",
    backward=Backward(reference.power_per_erb_backward, of="f intensity", launcher="roex:power_per_erb_backward"),
    check=_check_components,
    shapes=lambda f, *_: f.shape,
    linear="intensity",
    rows="f intensity",
)
roex_excitation_rows = register(
    "roex_excitation",
    "(Tensor f, Tensor intensity, Tensor steepness, Tensor fc, Tensor p, float ratio) -> Tensor",
    definition=reference.excitation_definition,
    forward=reference.excitation,
    launcher="roex:excitation",
    backward=Backward(
        reference.excitation_backward, of="f intensity steepness", constants="fc p", launcher="roex:excitation_backward"
    ),
    check=_check_excitation,
    shapes=lambda f, intensity, steepness, fc, p, ratio: (f.shape[0], fc.shape[0]),
    linear="intensity",
    rows="f intensity steepness",
)
roex_shared_rows = register(
    "roex_shared",
    "(Tensor f, Tensor intensity, Tensor weights, Tensor factor, Tensor fc, Tensor p, float p1000, float ratio) -> "
    "Tensor",
    definition=reference.shared_definition,
    forward=reference.shared_excitation,
    backward=Backward(
        reference.shared_excitation_backward, of="f intensity weights factor", constants="fc p", needs=("f weights",)
    ),
    check=_check_shared,
    shapes=lambda f, intensity, weights, factor, fc, *_: (intensity.shape[0], fc.shape[0]),
    rows="intensity",
)
roex_shared_backward = backward_of(roex_shared_rows)
roex_level_backward = backward_of(roex_level_rows)
roex_excitation_backward = backward_of(roex_excitation_rows)
