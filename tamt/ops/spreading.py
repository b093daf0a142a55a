r"""Spreading of excitation along the ERB-rate scale with slopes that depend on the level (Glasberg and Moore, 2002).

.. math::

    \mathrm{out}_j &= 10 \log_{10} \sum_i 10^{(E_i - A_{ij})/10} \\
    A_{ij} &= \begin{cases} s_u(E_i)\,(e_j - e_i) & e_j \ge e_i \\ s_l(E_i)\,(e_i - e_j) & e_j < e_i \end{cases} \\
    s(E) &= \max(\mathrm{base} - \mathrm{per\_db}\,(E - \mathrm{level\_ref}),\, 10)

over the sources i with :math:`A_{ij} \le 50` dB. For the operator E is (R, n), and ``slopes`` (5,) holds upper base,
lower base, upper per_db, lower per_db and level_ref.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import spreading as reference


def spreading(
    levels: Tensor,
    upper_slope_base: Tensor,
    lower_slope_base: Tensor,
    upper_slope_per_db: Tensor,
    lower_slope_per_db: Tensor,
    level_ref: Tensor,
    erb_step: float,
) -> Tensor:
    """Every band's level with what its neighbours spread into it, in dB.

    Parameters
    ----------
    levels : Tensor (..., n)
        Levels in dB of bands in rising frequency, float32 or float64; -inf for no power.
    upper_slope_base, lower_slope_base : Tensor ()
        Slopes towards higher and lower frequencies in dB/ERB of a source at ``level_ref``, of the type of ``levels``.
    upper_slope_per_db, lower_slope_per_db : Tensor ()
        What 1 dB of level takes from them. They never fall below 10 dB/ERB.
    level_ref : Tensor ()
        Level in dB.
    erb_step : float
        Distance of neighbouring bands in ERB.

    Returns
    -------
    Tensor (..., n)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, an ``erb_step`` that is not above 0.
    TypeError
        Levels that are neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    Exact to rounding where the levels of a row lie within 400 dB of each other. In float32, a band fainter than that
    may keep its own level. NaN and +inf spread over their row.

    Where a slope is clamped, the gradients of its numbers are zero.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.spreading import spreading
    >>> levels = torch.tensor([0.0, 0.0, 60.0, 0.0, 0.0])
    >>> numbers = [torch.tensor(number) for number in (27.0, 11.0, 0.37, 0.20, 60.0)]
    >>> spreading(levels, *numbers, erb_step=1.0).round()  # 11 dB/ERB down, 27 up, at most 50 dB
    tensor([38., 49., 60., 33.,  0.])
    """
    numbers = (upper_slope_base, lower_slope_base, upper_slope_per_db, lower_slope_per_db, level_ref)
    if any(t.dim() for t in numbers):
        shapes = ", ".join(str(tuple(t.shape)) for t in numbers)
        raise ValueError(f"the slopes' numbers and level_ref must have shape (), got {shapes}")
    if levels.dim() < 1 or levels.shape[-1] < 1:
        raise ValueError(f"levels must have shape (..., n) with at least one band, got {tuple(levels.shape)}")
    if levels.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"levels must be float32 or float64, got {levels.dtype}")
    if not erb_step > 0:
        raise ValueError(f"erb_step must be greater than 0, got {erb_step}")
    slopes = torch.stack(numbers)
    check_same_kind({"the slopes' numbers": slopes}, levels, "the levels'")
    (spread,) = with_lead(levels.shape[:-1], [spreading_rows(as_rows(levels), slopes, erb_step)])
    return spread


def _check(levels: Tensor, slopes: Tensor, erb_step: float) -> None:
    check_value(
        levels.dim() == 2 and levels.shape[1] > 0 and slopes.shape == (5,),
        lambda: (
            "levels and slopes must have the shapes (R, n > 0) and (5,), "
            f"got {tuple(levels.shape)} and {tuple(slopes.shape)}"
        ),
    )


spreading_rows = register(
    "spreading",
    "(Tensor levels, Tensor slopes, float erb_step) -> Tensor",
    definition=reference.definition,
    forward=reference.spreading,
    launcher="spreading:spreading",
    backward=Backward(
        reference.spreading_backward,
        of="levels slopes",
        launcher="spreading:spreading_backward",
        keeps="result",
    ),
    check=_check,
    shapes=lambda levels, *_: levels.shape,
    rows="levels",
)
spreading_backward = backward_of(spreading_rows)
