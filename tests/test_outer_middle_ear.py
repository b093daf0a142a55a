"""Outer and middle ear: the authors' taps and AMT's filtered sound, the tables at other rates, the response, errors."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_within
from scipy.signal import freqz
from torch import Tensor
from torch.nn.functional import pad

from tamt import OuterMiddleEar

DATA = np.load(Path(__file__).parent / "data" / "ear.npz")
DECIBEL = math.log(10) / 20


def gain(ear: OuterMiddleEar, *f: float) -> Tensor:
    """In dB."""
    return 20 * ear.frequency_response(list(f)).abs().log10()


@pytest.mark.parametrize("field", ["free", "diffuse", "eardrum"])
def test_taps_are_the_authors(field: str) -> None:
    expected = torch.from_numpy(DATA[f"fir_{field}"])
    assert_within(OuterMiddleEar(32000, field, torch.float64).taps, expected, 1e-15)
    assert torch.equal(OuterMiddleEar(field=field).taps, expected.float())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_sound_is_that_of_amt(dtype: torch.dtype, tolerance: float) -> None:
    """The full convolution without its first and last 1024 samples; both ears, every fourth sample."""
    ear = OuterMiddleEar(dtype=dtype)
    full = ear(pad(torch.from_numpy(DATA["noise_x"]), (0, 2 * ear.delay)))
    assert_close(full[:, 1024:-1024:4], torch.from_numpy(DATA["noise_filt"]), tolerance, dtype)


@pytest.mark.parametrize(("fs", "taps"), [(16000, 2049), (22050, 2823), (44100, 5645), (48000, 6145), (96000, 12289)])
def test_other_rates(fs: int, taps: int) -> None:
    """Filters of the same resolution, and so of the same gain in the range of both; late by the same time."""
    ear, other = OuterMiddleEar(dtype=torch.float64), OuterMiddleEar(fs, dtype=torch.float64)
    assert len(other.taps) == taps == 2 * other.delay + 1
    assert other.delay / fs == pytest.approx(0.064, abs=0.5 / fs)
    f = [f for f in (50, 100, 500, 1000, 2000, 3000, 4500, 7000, 9500, 13000) if f < 0.46 * fs]
    assert_within(gain(other, *f), gain(ear, *f), 0.25)
    assert_within(gain(other, *f[2:]), gain(ear, *f[2:]), 0.06)


@pytest.mark.parametrize(
    ("field", "f", "level"),
    [
        ("free", [1000, 4000, 14000], [0, 7.6, -16.2]),
        ("diffuse", [1000, 4000, 14000], [1.2, 6.1, -14.9]),
        ("eardrum", [1000, 4000, 14000], [-2.6, -6.6, -18.2]),
    ],
)
def test_tables(field: str, f: list[float], level: list[float]) -> None:
    """Where the gain is smooth, the sum of the published gains of outer and middle ear."""
    assert_within(gain(OuterMiddleEar(44100, field, torch.float64), *f), torch.tensor(level), 0.15)


def test_end_of_the_table() -> None:
    """Gains at half the sampling rate: on the table, between two of its frequencies, and beyond its last."""
    for fs, amplitude in (
        (25000, 10 ** ((4.9 - 15.0) / 20)),
        (23700, (10 ** ((1.9 - 12.7) / 20) + 10 ** ((4.9 - 15.0) / 20)) / 2),
        (80000, 10 ** ((2.5 - 50.0) / 20)),
    ):
        response = OuterMiddleEar(fs, dtype=torch.float64).frequency_response([fs / 2]).abs()
        assert response.item() == pytest.approx(amplitude, rel=0.02), fs
    assert_within(gain(OuterMiddleEar(80000), 22000, 30000, 39000), torch.tensor(-47.5), 0.2)
    assert gain(OuterMiddleEar(), 0).item() < -40


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequency_response(dtype: torch.dtype) -> None:
    ear = OuterMiddleEar(44100, "diffuse", dtype)
    f = np.linspace(0, 44100, 301)
    exact = OuterMiddleEar(44100, "diffuse", torch.float64).taps.numpy()
    _, expected = freqz(exact, worN=f, fs=44100)
    wanted = torch.from_numpy(expected).to(dtype.to_complex())
    for given in (f, torch.from_numpy(f), list(f)):
        assert_within_complex(ear.frequency_response(given), wanted, 1e-6 if dtype == torch.float32 else 1e-11)
    assert ear.frequency_response(torch.zeros(0)).shape == (0,)


def assert_within_complex(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.dtype == expected.dtype
    assert_within(torch.view_as_real(actual), torch.view_as_real(expected), tolerance)


def test_tones_come_out_late_and_with_the_gain() -> None:
    fs = 16000
    ear = OuterMiddleEar(fs, "diffuse", torch.float64)
    t = torch.arange(2 * ear.delay, 2 * ear.delay + 400, dtype=torch.float64) / fs
    tones = torch.tensor([[250.0], [3000.0]], dtype=torch.float64)
    sound = torch.sin(2 * math.pi * tones * torch.arange(2 * ear.delay + 400, dtype=torch.float64) / fs)
    factor = torch.exp(DECIBEL * gain(ear, 250, 3000))[:, None]
    assert_close(ear(sound)[:, -400:], factor * torch.sin(2 * math.pi * tones * (t - ear.delay / fs)), 1e-11)


def test_errors() -> None:
    with pytest.raises(ValueError, match=re.escape("field must be one of ('free', 'diffuse', 'eardrum'), got 'pink'")):
        OuterMiddleEar(field="pink")
    with pytest.raises(ValueError, match=r"fs must be at least 1000 Hz, got 999\.9"):
        OuterMiddleEar(999.9)
    with pytest.raises(ValueError, match=re.escape("f must have shape (K,), got (1, 1)")):
        OuterMiddleEar().frequency_response(torch.ones(1, 1))
    with pytest.raises(ValueError, match=re.escape("state must have shape (2, 4096), got (2, 4)")):
        OuterMiddleEar().stream(torch.zeros(2, 5), (torch.zeros(2, 4),))
