"""What the modules share: checked arguments, and signals in the computing type."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

COMPUTING_TYPES = torch.float32, torch.float64


def check_sampling_rate(fs: float) -> None:
    """A positive number of Hz, or a ValueError."""
    if not (math.isfinite(fs) and fs > 0):
        raise ValueError(f"fs must be a positive number of Hz, got {fs}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """An integer of at least ``least``, or a ValueError."""
    try:
        whole = not isinstance(value, (bool, str)) and int(value) == value
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not (whole and least <= value < 1 << 63):
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_channels(n_channels: Any, fc: Any, default: int | None = None) -> None:
    """A number of channels between the ends of a tuple, or beside anything the default, or a ValueError."""
    if n_channels == default:
        return
    check_count("n_channels", n_channels)
    if not isinstance(fc, tuple):
        pair = len(fc) == 2 if hasattr(fc, "__len__") and np.ndim(fc) == 1 else False
        range_of = f"; a range is a tuple, ({float(fc[0]):g}, {float(fc[1]):g})" if pair else ""
        raise ValueError(
            "n_channels is the number of channels between the ends of fc=(flow, fhigh), and must not be given "
            f"with a list of frequencies, got n_channels={n_channels} and fc of type {type(fc).__name__}{range_of}"
        )


def check_floating(name: str, value: Any) -> None:
    """A tensor of a floating type, or a TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be of a floating type, got {value.dtype}")


def default_device(device: torch.device | str | None) -> torch.device:
    """The device; None is torch's default."""
    return torch.get_default_device() if device is None else torch.device(device)


def computing_device(device: torch.device | str | None, dtype: torch.dtype) -> torch.device:
    """The device, by default torch's, of a module that computes in ``dtype``; a TypeError if that cannot be."""
    if dtype not in COMPUTING_TYPES:
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    device = default_device(device)
    if device.type == "mps" and dtype == torch.float64:
        raise TypeError("MPS has no torch.float64; dtype must be torch.float32 there")
    return device


def real_numbers(name: str, value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor, an array of any strides and byte order, a list or a number as a tensor of real numbers."""
    if not isinstance(value, Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
        value = torch.from_numpy(np.array(array, dtype=np.float64))
    elif value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, got {value.dtype}")
    return value.to(dtype).to(device)


def vector(name: str, value: Any, dtype: torch.dtype, device: torch.device, size: str = "K") -> Tensor:
    """:func:`real_numbers` of one dimension, or a ValueError."""
    numbers = real_numbers(name, value, dtype, device)
    if numbers.dim() != 1:
        raise ValueError(f"{name} must have shape ({size},), got {tuple(numbers.shape)}")
    return numbers


def centre_frequencies(fc: Any, fs: float, between: Callable[[float, float], Tensor]) -> Tensor:
    """Checked centre frequencies in float64 on the CPU; ``between(flow, fhigh)`` gives those of a tuple."""
    if isinstance(fc, tuple):
        if len(fc) != 2:
            raise ValueError(f"fc as a tuple must be (flow, fhigh), got {fc}; give frequencies as a list or a tensor")
        # By the numbers that were given, of which what lies between them follows.
        ends = [float(end) for end in fc if isinstance(end, numbers.Real)]
        _expect_below_nyquist(torch.tensor(ends, dtype=torch.float64, device="cpu"), fs)
        centre = between(*fc)
    else:
        given = fc.detach() if isinstance(fc, Tensor) else fc
        centre = real_numbers("fc", given, torch.float64, torch.device("cpu")).clone()
    if centre.dim() == 0:
        raise ValueError(
            f"fc must hold at least one frequency and have shape (F,), got the number {centre.item():g}; one frequency "
            "is a list, [fc], and a range a tuple, (flow, fhigh)"
        )
    if centre.dim() != 1 or centre.numel() == 0:
        raise ValueError(f"fc must hold at least one frequency and have shape (F,), got {tuple(centre.shape)}")
    _expect_below_nyquist(centre, fs)
    return centre


def _expect_below_nyquist(fc: Tensor, fs: float) -> None:
    wrong = fc[~((fc > 0) & (fc <= fs / 2))]
    if wrong.numel():
        raise ValueError(f"fc must lie in (0, fs/2] = (0, {fs / 2:g}] Hz, got {wrong[0].item():g}")


def as_signal(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in the computing type, or an error if it is no signal (..., T)."""
    check_floating("the signal", x)
    if x.dim() < 1:
        raise ValueError("the signal must have shape (..., T), got ()")
    return x.to(dtype)


def check_state(state: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    """The state of a stream, ``count`` tensors, or a TypeError."""
    # Pairs of types, not unions, wherever torch.compile comes by: that of torch 2.8 does not know unions.
    if not (isinstance(state, (tuple, list)) and len(state) == count):
        wanted = "one tensor" if count == 1 else f"{count} tensors"
        given = f" of {len(state)}" if isinstance(state, (tuple, list)) else ""
        raise TypeError(f"state must be a tuple of {wanted}, as stream returns it, got {type(state).__name__}{given}")
    for i, part in enumerate(state):
        if not isinstance(part, Tensor):
            raise TypeError(f"state[{i}] must be a torch.Tensor, got {type(part).__name__}")
    return tuple(state)
