"""Overlapping frames of signals, and their adjoint, the overlap-add.

``torch.Tensor.unfold`` would do, but its adjoint takes several times longer, and its strides make ``torch.compile`` and
``torch.export`` tell signals of a whole number of hops from others. Both operators only copy and add, which torch does
on every device: there is nothing for a kernel to win.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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


@torch.library.custom_op("tamt::frames", mutates_args=(), schema="(Tensor x, int length, int hop) -> Tensor")
def _frames(x: Tensor, length: int, hop: int) -> Tensor:
    if length % hop:
        return x.unfold(1, length, hop).clone(memory_format=torch.contiguous_format)
    blocks, parts = x.unfold(1, hop, hop), length // hop
    count = blocks.shape[1] - parts + 1
    return torch.cat([blocks[:, part : part + count] for part in range(parts)], 2)


@_frames.register_fake
def _(x: Tensor, length: int, hop: int) -> Tensor:
    return x.new_empty(x.shape[0], 1 + (x.shape[1] - length) // hop, length)


@torch.library.custom_op(
    "tamt::overlap_add", mutates_args=(), schema="(Tensor frames, SymInt samples, int hop) -> Tensor"
)
def _overlap_add(frames: Tensor, samples: int, hop: int) -> Tensor:
    batch, count, length = frames.shape
    if length % hop:
        return torch.ops.aten.unfold_backward(frames, [batch, samples], 1, length, hop)
    x = frames.new_zeros(batch, samples)
    blocks = x.unfold(1, hop, hop)
    for part in range(length // hop):
        blocks[:, part : part + count] += frames[:, :, part * hop : (part + 1) * hop]
    return x


@_overlap_add.register_fake
def _(frames: Tensor, samples: int, hop: int) -> Tensor:
    return frames.new_empty(frames.shape[0], samples)


def _setup_frames(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.samples, ctx.hop = inputs[0].shape[1], inputs[2]


def _frames_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _overlap_add(grad, ctx.samples, ctx.hop), None, None


def _setup_overlap_add(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.length, ctx.hop = inputs[0].shape[2], inputs[2]


def _overlap_add_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _frames(grad, ctx.length, ctx.hop), None, None


_frames.register_autograd(_frames_backward, setup_context=_setup_frames)
_overlap_add.register_autograd(_overlap_add_backward, setup_context=_setup_overlap_add)
