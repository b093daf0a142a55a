"""tamt's gammatone filterbank beside those of brian2hears, in figures for docs/coming_from/brian2hears.md.

``python -m asv_bench.comparison.hears --out results/brian2hears.json``, where brian2hears is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tamt
from asv_bench import environment
from asv_bench.benchmarks.common import best_times
from asv_bench.comparison.peers import library

FS = 16000
STEPS = (-4, -2, -1, 0, 1, 2, 4)  # ERB from the centre


def output(x: np.ndarray, name: str, fc: np.ndarray) -> np.ndarray:
    """Of a filterbank of brian2hears, (F, T)."""
    hears, hertz = library("brian2hears"), library("brian2").Hz
    sound = hears.Sound(x[:, None], samplerate=FS * hertz)
    bandwidth = () if name == "Gammatone" else (1.019 * tamt.audfiltbw(torch.from_numpy(fc)).numpy() * hertz,)
    return np.asarray(getattr(hears, name)(sound, fc * hertz, *bandwidth).process()).T


def gains() -> Iterator[dict[str, Any]]:
    """In dB, at distances from the centre, of both filters."""
    impulse = np.zeros(16384)
    impulse[0] = 1
    for fc in (250.0, 1000.0, 4000.0):
        hertz = tamt.erb2fc(tamt.fc2erb(torch.tensor(fc).double()) + torch.tensor(STEPS))
        wave = torch.exp(-2j * torch.pi * hertz[:, None] * torch.arange(len(impulse)) / FS)
        ours = tamt.GammatoneFilterbank([fc], FS, dtype=torch.float64)(torch.from_numpy(impulse))[0]
        for name in ("Gammatone", "ApproximateGammatone"):
            theirs = torch.from_numpy(output(impulse, name, np.array([fc]))[0])
            level = [(20 * (wave @ h.to(wave.dtype)).abs().log10()).tolist() for h in (theirs, ours)]
            yield {"what": "gain", "filter": name, "fc": fc, "steps": STEPS, "brian2hears": level[0], "tamt": level[1]}


def speed() -> Iterator[dict[str, Any]]:
    for channels, seconds in ((30, 1), (100, 2)):
        fc = np.linspace(tamt.fc2erb(100), tamt.fc2erb(7000), channels)
        fc = tamt.erb2fc(torch.from_numpy(fc)).numpy()
        x = np.random.default_rng(0).standard_normal(seconds * FS)
        for dtype in ("float64", "float32"):
            bank = tamt.GammatoneFilterbank(fc, FS, dtype=getattr(torch, dtype))
            signal = torch.from_numpy(x).to(bank.dtype)
            times = best_times(
                lambda bank=bank, signal=signal: bank(signal), lambda x=x, fc=fc: output(x, "Gammatone", fc), rounds=15
            )
            load = f"{seconds} s at 16 kHz, {channels} channels"
            yield {"what": "time", "load": load, "dtype": dtype, "brian2hears": times[1], "tamt": times[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    version = {name: importlib.metadata.version(name) for name in ("brian2hears", "brian2")}
    with torch.no_grad():
        rows = [*gains(), *speed()]
    environment.write(environment.describe("cpu") | version | {"results": rows}, arguments.out)


if __name__ == "__main__":
    main()
