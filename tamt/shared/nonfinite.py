"""Samples that are NaN or infinite, which must not reach what a filter has put out before them.

The zeros by which products over blocks are causal do not stop them: 0 times NaN is NaN. Filters therefore work on a
signal that is 0 from its first such sample on, and from there on their output and their state are NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._memo import readable


def on_cpu(x: Tensor) -> bool:
    """Whether the body of an operator may read data back: no other device is asked for it."""
    return x.device.type == "cpu"


def finite(*tensors: Tensor) -> bool:
    """Whether all values are finite; for tensors that may be read."""
    # A sum of finite numbers may overflow, so it proves the one thing only; but it is cheap.
    return all(math.isfinite(t.sum().item()) or bool(t.isfinite().all()) for t in tensors)


def first_bad(x: Tensor) -> Tensor:
    """Index (...) of the first sample of ``x`` (..., T) that is not finite, T where all are."""
    length = x.shape[-1]
    index = torch.where(x.isfinite(), length, torch.arange(length, device=x.device))
    return pad(index, (0, 1), value=length).amin(-1)


def silenced(x: Tensor) -> Tensor:
    """``x`` with 0 for what is not finite; where that can be seen to be nothing, ``x`` itself."""
    if readable(x) and finite(x.detach()):
        return x
    return x.nan_to_num(nan=0, posinf=0, neginf=0)


def filled_from(x: Tensor, first: Tensor, value: float) -> Tensor:
    """``x`` (..., T) with ``value`` from the index ``first`` (...) on, in the same layout."""
    return fill_from_(x.clone(), first, value)


def fill_from_(x: Tensor, first: Tensor, value: float) -> Tensor:
    """:func:`filled_from` in place."""
    return x.masked_fill_(torch.arange(x.shape[-1], device=x.device) >= first[..., None], value)
