"""Frames and means of frames in plain torch, and their adjoints. Shapes: :mod:`tamt.ops.frames`.

These only copy and add: they are their own definitions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad


def frames(x: Tensor, length: int, hop: int) -> Tensor:
    """Frames (B, J, length) of ``x`` (B, T), J as many as fit."""
    if length % hop:
        return x.unfold(1, length, hop).clone(memory_format=torch.contiguous_format)
    blocks, parts = x.unfold(1, hop, hop), length // hop
    count = blocks.shape[1] - parts + 1
    return torch.cat([blocks[:, part : part + count] for part in range(parts)], 2)


def overlap_add(frames: Tensor, samples: int, hop: int) -> Tensor:
    """The adjoint of :func:`frames`: (B, samples) from frames (B, J, length)."""
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


def group_means(x: Tensor, size: int, groups: int) -> Tensor:
    """Means (R, groups, N) of the frames ``x`` (R, J, N) that each group has."""
    before, count = size // 2, x.shape[1]
    whole = pad(x, (0, 0, before, groups * size - before - count)).unflatten(1, (groups, size))
    return whole.sum(2) / _members(count, size, groups, x)


def spread_means(means: Tensor, count: int, size: int) -> Tensor:
    """The adjoint of :func:`group_means`: (R, count, N) from ``means`` (R, groups, N)."""
    before, groups = size // 2, means.shape[1]
    shares = (means / _members(count, size, groups, means)).repeat_interleave(size, 1)
    return pad(shares, (0, 0, -before, count + before - groups * size))


def moving_means(x: Tensor, size: int) -> Tensor:
    """Means (..., max(0, M - size + 1)) of ``size`` neighbours of ``x`` (..., M)."""
    count = x.shape[-1] - size + 1
    if count < 1 or x.numel() == 0:
        return x.new_empty(*x.shape[:-1], max(0, count))
    return avg_pool1d(x.reshape(-1, 1, x.shape[-1]), size, 1).reshape(*x.shape[:-1], count)


def moved_means(means: Tensor, count: int, size: int) -> Tensor:
    """The adjoint of :func:`moving_means`: (..., count) from means (..., max(0, count - size + 1))."""
    if means.shape[-1] == 0:
        return means.new_zeros(*means.shape[:-1], count)
    return moving_means(pad(means, (size - 1, size - 1)), size)
