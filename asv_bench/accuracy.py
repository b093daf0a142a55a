"""How exact every module is: against AMT's own numbers, and float32 against float64.

``python -m asv_bench.accuracy --out results/accuracy.json``
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tamt
from asv_bench import environment
from asv_bench.benchmarks.common import DTYPES, Agreement, golden
from asv_bench.benchmarks.drnl import DRNLAccuracy
from asv_bench.benchmarks.gammatone import GammatoneAccuracy
from asv_bench.registry import MODULES

RATES = [8000, 16000, 22050, 32000, 44100, 48000, 96000]
# Of tests/data/scales.npz what each function takes, and what AMT's or LTFAT's gave for it.
SCALES = (
    ("audfiltbw", "f", "audfiltbw"),
    ("fc2erb", "f", "freqtoaud_erb"),
    ("erb2fc", "cam", "audtofreq_erb_of_cam"),
    ("f2erbrate", "f", "fc2erb"),
    ("erbrate2f", "cam", "erb2fc_of_cam"),
)
FREQUENCIES = [20, 31.5, 50, 100, 200, 500, 1000, 2000, 4000, 8000]


def conformance() -> Iterator[dict[str, Any]]:
    """Largest differences from AMT's numbers, or from the definition where AMT has no such function."""
    for agreement in scales():
        yield agreement._asdict() | {"dtype": "float64"}
    for dtype in DTYPES:
        for stem in dict.fromkeys(module.stem for module in MODULES.values()):
            found = importlib.import_module(f"asv_bench.benchmarks.{stem}").conformance(dtype)
            yield from (agreement._asdict() | {"dtype": dtype} for agreement in found)


def scales() -> Iterator[Agreement]:
    data = golden("scales")
    for name, argument, result in SCALES:
        computed = getattr(tamt, name)(torch.from_numpy(data[argument])).numpy()
        error = np.abs(computed - data[result]).max() / np.abs(data[result]).max()
        yield Agreement(name, f"AMT, {len(computed)} values", error, "of the largest", 1e-13)


def single_precision() -> Iterator[dict[str, Any]]:
    """Errors of float32 over centre frequency and sampling rate: two seconds of noise, relative to the peak."""
    for benchmark in (GammatoneAccuracy(), DRNLAccuracy()):
        for fs in RATES:
            for fc in FREQUENCIES:
                if benchmark.lowest <= fc <= 0.45 * fs:
                    benchmark.setup(fs, fc)
                    yield {"module": benchmark.module, "fs": fs, "fc": fc, "error": benchmark.error()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    arguments = parser.parse_args()
    with torch.no_grad():
        result = environment.describe("cpu") | {
            "conformance": list(conformance()),
            "single precision": list(single_precision()),
        }
    environment.write(result, arguments.out)


if __name__ == "__main__":
    main()
