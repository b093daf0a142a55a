"""Overlapping frames of signals and their adjoint, the overlap-add; means of groups, moving means, and their adjoints.

``torch.Tensor.unfold`` would do, but its adjoint takes several times longer, and its strides make ``torch.compile`` and
``torch.export`` tell signals of a whole number of hops from others, as do the means. The operators only copy and add,
which torch does on every device: there is nothing for a kernel to win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, with_lead
from tamt.ops._register import register
from tamt.reference import frames as reference


def frames(x: Tensor, length: int, hop: int) -> Tensor:
    """Frames of ``length`` samples at every ``hop`` samples, as many as fit.

    Parameters
    ----------
    x : Tensor (B, T)
        Signals, ``T >= length``.
    length, hop : int
        In samples, at least 1.

    Returns
    -------
    Tensor (B, J, length)
        ``J = 1 + (T - length) // hop``.

    Raises
    ------
    ValueError
        A signal of another shape or shorter than a frame, ``length`` or ``hop`` below 1.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.frames import frames
    >>> frames(torch.arange(8.0)[None], length=4, hop=2)
    tensor([[[0., 1., 2., 3.],
             [2., 3., 4., 5.],
             [4., 5., 6., 7.]]])
    """
    if x.dim() != 2 or x.shape[1] < length:
        raise ValueError(f"x must have shape (B, T) with T of at least length = {length}, got {tuple(x.shape)}")
    if length < 1 or hop < 1:
        raise ValueError(f"length and hop must be at least 1, got {length} and {hop}")
    return _frames(x, length, hop)


def group_means(x: Tensor, size: int, groups: int) -> Tensor:
    """Means of groups of ``size`` frames, the first centred at frame 0; what lies outside of ``x`` does not count.

    Parameters
    ----------
    x : Tensor (..., J, N)
        Frames.
    size : int
        Frames of a whole group: group m has those in ``[m size - size // 2, (m + 1) size - size // 2)``.
    groups : int
        At least 1 and such that every group has a frame: ``(groups - 1) size - size // 2 < J``.

    Returns
    -------
    Tensor (..., groups, N)

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.frames import group_means
    >>> group_means(torch.arange(8.0)[:, None], size=4, groups=2).squeeze()  # of frames 0 and 1, and of 2 to 5
    tensor([0.5000, 3.5000])
    """
    (means,) = with_lead(x.shape[:-2], [_group_means(as_rows(x, 2), size, groups)])
    return means


def moving_means(x: Tensor, size: int) -> Tensor:
    """Means of ``size`` neighbours.

    Parameters
    ----------
    x : Tensor (..., M)
    size : int
        At least 1.

    Returns
    -------
    Tensor (..., max(0, M - size + 1))
        Element m is the mean of those from m on.

    Raises
    ------
    ValueError
        A ``size`` below 1, a tensor without a dimension.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.frames import moving_means
    >>> moving_means(torch.arange(5.0), 2)
    tensor([0.5000, 1.5000, 2.5000, 3.5000])
    """
    if x.dim() < 1 or size < 1:
        raise ValueError(f"x must have shape (..., M) and size be at least 1, got {tuple(x.shape)} and {size}")
    return x if size == 1 else _moving_means(x, size)


def _linear(
    name: str, operand: str, parameters: str, forward: Callable[..., Tensor], shape: Callable[..., Any], adjoint: Any
) -> Any:
    """An operator that is linear in its operand; ``adjoint`` takes gradient, shape of the operand and parameters."""
    return register(
        name,
        f"(Tensor {operand}, {parameters}) -> Tensor",
        definition=None,
        forward=forward,
        shapes=shape,
        backward=lambda ctx, grad: (adjoint(grad, ctx.shapes[0], *ctx.parameters), *(None for _ in ctx.parameters)),
        saves=False,
        linear=operand,
        rows=operand,
    )


_frames: Any = _linear(
    "frames",
    "x",
    "int length, int hop",
    reference.frames,
    lambda x, length, hop: (x.shape[0], 1 + (x.shape[1] - length) // hop, length),
    lambda grad, shape, length, hop: _overlap_add(grad, shape[1], hop),
)
_overlap_add: Any = _linear(
    "overlap_add",
    "frames",
    "SymInt samples, int hop",
    reference.overlap_add,
    lambda frames, samples, hop: (frames.shape[0], samples),
    lambda grad, shape, samples, hop: _frames(grad, shape[2], hop),
)
_group_means: Any = _linear(
    "group_means",
    "x",
    "int size, SymInt groups",
    reference.group_means,
    lambda x, size, groups: (x.shape[0], groups, x.shape[2]),
    lambda grad, shape, size, groups: _spread_means(grad, shape[1], size),
)
_spread_means: Any = _linear(
    "spread_means",
    "means",
    "SymInt count, int size",
    reference.spread_means,
    lambda means, count, size: (means.shape[0], count, means.shape[2]),
    lambda grad, shape, count, size: _group_means(grad, size, shape[1]),
)
_moving_means: Any = _linear(
    "moving_means",
    "x",
    "int size",
    reference.moving_means,
    lambda x, size: (*x.shape[:-1], torch.sym_max(0, x.shape[-1] - size + 1)),
    lambda grad, shape, size: _moved_means(grad, shape[-1], size),
)
_moved_means: Any = _linear(
    "moved_means",
    "means",
    "SymInt count, int size",
    reference.moved_means,
    lambda means, count, size: (*means.shape[:-1], count),
    lambda grad, shape, count, size: _moving_means(grad, size),
)
