"""Overlapping frames of signals and their adjoint, the overlap-add; means of frames and their adjoint.

``torch.Tensor.unfold`` would do, but its adjoint takes several times longer, and its strides make ``torch.compile`` and
``torch.export`` tell signals of a whole number of hops from others, as do the means. The operators only copy and add,
which torch does on every device: there is nothing for a kernel to win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt.ops._register import register


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
    """
    rows = x[None] if x.dim() == 2 else x.flatten(0, -3)
    return _group_means(rows, size, groups).reshape(*x.shape[:-2], groups, x.shape[-1])


def _frames_forward(x: Tensor, length: int, hop: int) -> Tensor:
    if length % hop:
        return x.unfold(1, length, hop).clone(memory_format=torch.contiguous_format)
    blocks, parts = x.unfold(1, hop, hop), length // hop
    count = blocks.shape[1] - parts + 1
    return torch.cat([blocks[:, part : part + count] for part in range(parts)], 2)


def _overlap_add_forward(frames: Tensor, samples: int, hop: int) -> Tensor:
    batch, count, length = frames.shape
    if length % hop:
        return torch.ops.aten.unfold_backward(frames, [batch, samples], 1, length, hop)
    x = frames.new_zeros(batch, samples)
    blocks = x.unfold(1, hop, hop)
    for part in range(length // hop):
        blocks[:, part : part + count] += frames[:, :, part * hop : (part + 1) * hop]
    return x


def _members(count: int, size: int, groups: int, like: Tensor) -> Tensor:
    """How many of ``count`` frames each group has: (groups, 1)."""
    start = torch.arange(groups, device=like.device) * size - size // 2
    return ((start + size).clamp(max=count) - start.clamp(min=0))[:, None].to(like.dtype)


def _group_means_forward(x: Tensor, size: int, groups: int) -> Tensor:
    before, count = size // 2, x.shape[1]
    whole = pad(x, (0, 0, before, groups * size - before - count)).unflatten(1, (groups, size))
    return whole.sum(2) / _members(count, size, groups, x)


def _spread_means_forward(means: Tensor, count: int, size: int) -> Tensor:
    before, groups = size // 2, means.shape[1]
    shares = (means / _members(count, size, groups, means)).repeat_interleave(size, 1)
    return pad(shares, (0, 0, -before, count + before - groups * size))


def _linear(name: str, schema: str, forward: Callable[..., Tensor], shape: Callable[..., Any], adjoint: Any) -> Any:
    """An operator that is linear in its one operand; ``adjoint`` takes the gradient, the shape and the parameters."""
    return register(
        name,
        schema,
        definition=None,
        forward=forward,
        shapes=shape,
        backward=lambda ctx, grad: (adjoint(grad, ctx.shapes[0], *ctx.parameters), None, None),
        saves=False,
        linear=schema.split()[1].rstrip(","),
        rows=schema.split()[1].rstrip(","),
    )


_frames: Any = _linear(
    "frames",
    "(Tensor x, int length, int hop) -> Tensor",
    _frames_forward,
    lambda x, length, hop: (x.shape[0], 1 + (x.shape[1] - length) // hop, length),
    lambda grad, shape, length, hop: _overlap_add(grad, shape[1], hop),
)
_overlap_add: Any = _linear(
    "overlap_add",
    "(Tensor frames, SymInt samples, int hop) -> Tensor",
    _overlap_add_forward,
    lambda frames, samples, hop: (frames.shape[0], samples),
    lambda grad, shape, samples, hop: _frames(grad, shape[2], hop),
)
_group_means: Any = _linear(
    "group_means",
    "(Tensor x, int size, SymInt groups) -> Tensor",
    _group_means_forward,
    lambda x, size, groups: (x.shape[0], groups, x.shape[2]),
    lambda grad, shape, size, groups: _spread_means(grad, shape[1], size),
)
_spread_means: Any = _linear(
    "spread_means",
    "(Tensor means, SymInt count, int size) -> Tensor",
    _spread_means_forward,
    lambda means, count, size: (means.shape[0], count, means.shape[2]),
    lambda grad, shape, count, size: _group_means(grad, size, shape[1]),
)
