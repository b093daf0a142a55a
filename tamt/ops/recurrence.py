r"""Smoothing over time with attack and release: a one-pole low-pass whose constant depends on whether it rises.

.. math:: y_i = y_{i-1} + a_i (x_i - y_{i-1}), \qquad
    a_i = \begin{cases} \mathrm{attack} & x_i > y_{i-1} \\ \mathrm{release} & \text{else} \end{cases}

For the operator ``x`` and ``y`` are (B, T, C), the constants (), and ``state`` (B, C) is :math:`y_{-1}`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt._memo import readable
from tamt.ops._checks import check_same_kind, check_value
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import recurrence as reference


def attack_release(
    x: Tensor, attack: Tensor | float, release: Tensor | float, *, state: Tensor | None = None, dim: int = -1
) -> tuple[Tensor, Tensor]:
    r"""Smooth ``x`` along a dimension, by ``attack`` where it is above what is smoothed and by ``release`` elsewhere.

    Parameters
    ----------
    x : Tensor (..., T, ...)
        Signals, float32 or float64.
    attack, release : Tensor () or float
        The constants of a step, ``0 < a <= 1``, of ``x``'s type. Either may be the larger one.
    state : Tensor (..., ...), optional
        :math:`y_{-1}`, of the shape of ``x`` without ``dim``; zeros if not given.
    dim : int
        The dimension of time.

    Returns
    -------
    y : Tensor (..., T, ...)
    state : Tensor (..., ...)
        The last of ``y``, to go on with; of no frames the state that was given.

    Raises
    ------
    ValueError
        A constant out of its range, as far as it can be read: on the CPU, where nothing is compiled or transformed.
        Other shapes.
    TypeError
        Other types or devices.

    Notes
    -----
    From a value on that is NaN or infinite, a channel is NaN.

    Gradients are those of the branches that were taken: the recursion is piecewise linear in ``x`` and ``state``. What
    fades out, of either, is 0 instead of a subnormal number.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.recurrence import attack_release
    >>> y, state = attack_release(torch.tensor([1.0, 1.0, 0.0, 0.0]), attack=0.5, release=0.25)
    >>> y
    tensor([0.5000, 0.7500, 0.5625, 0.4219])
    """
    if not x.dim():
        raise ValueError("x must have shape (..., T, ...), got ()")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"dim must lie in [{-x.dim()}, {x.dim()}) for {tuple(x.shape)}, got {dim}")
    dim %= x.dim()
    constants = {
        name: torch.full((), given, dtype=x.dtype, device=x.device) if isinstance(given, (int, float)) else given
        for name, given in {"attack": attack, "release": release}.items()
    }
    for name, constant in constants.items():
        if not isinstance(constant, Tensor):
            raise TypeError(f"{name} must be a number or a tensor, got {type(constant).__name__}")
    check_same_kind(constants, x, "x's")
    for name, constant in constants.items():
        if constant.dim():
            raise ValueError(f"{name} must have shape (), got {tuple(constant.shape)}")
        if readable(constant) and not 0 < constant.item() <= 1:
            raise ValueError(f"{name} must lie in (0, 1], got {constant.item():g}")
    before, frames, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1 :]
    rows, channels = math.prod(before), math.prod(after)
    if state is None:
        state = x.new_zeros(rows, channels)
    elif state.shape != before + after:
        raise ValueError(f"state must have shape {tuple(before + after)}, got {tuple(state.shape)}")
    else:
        check_same_kind({"state": state}, x, "x's")
        state = state.reshape(rows, channels)
    y, last = attack_release_rows(x.reshape(rows, frames, channels), *constants.values(), state)
    return y.reshape(x.shape), last.reshape(before + after)


def _check(x: Tensor, attack: Tensor, release: Tensor, state: Tensor) -> None:
    check_value(
        x.dim() == 3 and state.shape == (x.shape[0], x.shape[2]) and attack.shape == release.shape == (),
        lambda: (
            "x, attack, release and state must have the shapes (B, T, C), (), () and (B, C), got "
            f"{tuple(x.shape)}, {tuple(attack.shape)}, {tuple(release.shape)} and {tuple(state.shape)}"
        ),
    )


attack_release_rows = register(
    "attack_release",
    "(Tensor x, Tensor attack, Tensor release, Tensor state) -> (Tensor y, Tensor last)",
    definition=reference.definition,
    forward=reference.attack_release,
    launcher="recurrence:attack_release",
    backward=Backward(
        reference.attack_release_backward,
        of="x attack release state",
        launcher="recurrence:attack_release_backward",
        keeps="y",
        needs=("x state", "attack release"),
    ),
    check=_check,
    shapes=lambda x, attack, release, state: (x.shape, state.shape),
    rows="x state",
)
attack_release_backward = backward_of(attack_release_rows)
