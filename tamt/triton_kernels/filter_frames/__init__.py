"""Means over hops of what a detector makes of filters' outputs, which are never stored."""

from .backward import SLICES, Slices, filter_frames_backward
from .forward import (
    STATES,
    close_apart,
    close_together,
    detect,
    divisor,
    ends_together,
    filter_frames,
    finish,
    fitting,
    mean_of,
    run_of,
    system_of,
    tiling_for,
)

__all__ = [
    "SLICES",
    "STATES",
    "Slices",
    "close_apart",
    "close_together",
    "detect",
    "divisor",
    "ends_together",
    "filter_frames",
    "filter_frames_backward",
    "finish",
    "fitting",
    "mean_of",
    "run_of",
    "system_of",
    "tiling_for",
]
