"""FIR filters by frequency sampling: taps of AMT's headphone filter, the rule as a loop, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within

from tamt.design.fir2 import fir2

DATA = np.load(Path(__file__).parent / "data" / "ear.npz")


def by_loop(order: int, frequencies: list[float], amplitudes: list[float]) -> np.ndarray:
    """The rule, value by value, and the inverse transform as a sum of cosines."""
    taps = order + 1
    size = 512 if taps < 1024 else next(p for p in (1 << i for i in range(30)) if p >= taps)
    grid = np.full(size + 1, np.nan)
    start = 1
    for i in range(1, len(frequencies)):
        end = int(np.floor(frequencies[i] * (size + 1)))
        for number in range(start, end + 1):
            share = 0 if end == start else (number - start) / (end - start)
            grid[number - 1] = (1 - share) * amplitudes[i - 1] + share * amplitudes[i]
        start = end + 1
    grid[1:-1] *= 2
    m, k = np.arange(taps)[:, None] - order / 2, np.arange(size + 1)
    return (grid * np.cos(np.pi * k * m / size)).sum(1) / (2 * size) * np.hamming(taps)


def test_headphones_of_amt() -> None:
    """``headphonefilter`` by MATLAB's rule; Octave's gives taps that differ by 4e-3."""
    f, amplitude = torch.from_numpy(DATA["head_table"]).unbind(1)
    inside = f < 8000
    ends = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    place = torch.cat((ends[0], f[inside] / 8000, ends[1]))
    taps = fir2(512, place, torch.cat((ends[0], amplitude[inside], ends[0])))
    assert_within(taps, torch.from_numpy(DATA["head_taps_16000"]), 1e-15)


@pytest.mark.parametrize("order", [1, 2, 31, 1022, 1023, 1024, 1030])
def test_rule(order: int) -> None:
    """Of any order, odd ones too; with segments of one value, of none, and two break points at one place."""
    places, amplitudes = [0, 0.1, 0.1005, 0.1006, 0.1007, 0.4, 0.4, 1], [0.5, 1, -2, 7, 2, 2, 0, 1.0]
    taps = fir2(order, torch.tensor(places, dtype=torch.float64), torch.tensor(amplitudes, dtype=torch.float64))
    assert_close(taps, torch.from_numpy(by_loop(order, places, amplitudes)), 1e-12)


def test_gradients() -> None:
    places = torch.tensor([0, 0.3, 1], dtype=torch.float64)
    amplitudes = torch.tensor([0.2, 1.0, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: fir2(10, places, a), amplitudes)
