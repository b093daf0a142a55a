"""Reach and limits of the spreading of excitation."""

from __future__ import annotations

import math

import torch

# dB beyond which nothing is spread: 50 and what rounding adds to the neighbour that clamped slopes put there exactly.
LIMITS = {torch.float32: 50 + 1e-4, torch.float64: 50 + 1e-10}

MIN_SLOPE = 10.0  # dB/ERB

BITS_PER_DB = math.log2(10) / 10


def neighbours(n: int, erb_step: float) -> int:
    """How many of the other n - 1 channels can lie within the limit on one side."""
    return min(int(LIMITS[torch.float32] / MIN_SLOPE / erb_step), n - 1)
