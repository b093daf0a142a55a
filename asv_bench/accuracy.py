"""How exact every module is: against AMT's own numbers, and float32 against float64.

``python -m asv_bench.accuracy --out results/accuracy.json``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tamt
from asv_bench import environment
from asv_bench.benchmarks.common import (
    DTYPES,
    dense,
    difference_in_db,
    largest_difference,
    modal_as_biquads,
    relative_error,
    scipy_cascade,
)
from asv_bench.benchmarks.drnl import LEVEL, scipy_drnl
from asv_bench.benchmarks.erb_integration import band_by_band, spectrum
from asv_bench.benchmarks.multi_resolution_fft import by_scipy, noise
from asv_bench.benchmarks.spreading import composition, excitation

DATA = Path(__file__).parents[1] / "tests" / "data"
RATES = [8000, 16000, 22050, 32000, 44100, 48000, 96000]
FREQUENCIES = [20, 31.5, 50, 100, 200, 500, 1000, 2000, 4000, 8000]
LOWEST_DRNL = 100
PEAK = "of the channel's peak"


def golden(name: str) -> Any:
    return np.load(DATA / f"{name}.npz")


def conformance() -> Iterator[dict[str, Any]]:
    """Largest differences from AMT's numbers, or from the definition where AMT has no such function."""
    yield from scales()
    for dtype in DTYPES:
        for row in (*gammatone(dtype), *drnl(dtype), *moore2016(dtype), *by_definition(dtype)):
            yield row | {"dtype": dtype}


def row(module: str, against: str, error: float, unit: str, asked: float | None) -> dict[str, Any]:
    return {"module": module, "against": against, "error": error, "unit": unit, "asked": asked}


def scales() -> Iterator[dict[str, Any]]:
    data = golden("scales")
    for name, argument, result in (
        ("audfiltbw", "f", "audfiltbw"),
        ("fc2erb", "f", "freqtoaud_erb"),
        ("erb2fc", "cam", "audtofreq_erb_of_cam"),
        ("f2erbrate", "f", "fc2erb"),
        ("erbrate2f", "cam", "erb2fc_of_cam"),
    ):
        computed = getattr(tamt, name)(torch.from_numpy(data[argument])).numpy()
        error = np.abs(computed - data[result]).max() / np.abs(data[result]).max()
        yield row(name, f"AMT, {len(computed)} values", error, "of the largest", 1e-13) | {"dtype": "float64"}


def gammatone(dtype: str) -> Iterator[dict[str, Any]]:
    data = golden("gammatone")
    x = torch.from_numpy(data["x_noise"])
    for n in (2, 3, 4):
        bank = tamt.GammatoneFilterbank(data["fc"], float(data["fs"]), n, dtype=DTYPES[dtype])
        error = relative_error(bank(x), torch.from_numpy(data[f"n{n}_y_noise"]))
        asked = 1e-10 if dtype == "float64" else 2e-6
        yield row("GammatoneFilterbank", f"AMT, order {n}, 100 Hz to 7 kHz", error, PEAK, asked)


def drnl(dtype: str) -> Iterator[dict[str, Any]]:
    cases = [
        ("drnl", "NH", "noise"),
        ("drnl_hix", "HIx", "noise"),
        ("drnl_tone", "NH", "tone"),
        ("drnl_tone", "HIx", "tone"),
    ]
    for kind in (tamt.DRNLFilterbank, tamt.FastDRNLFilterbank):
        for file, subject, sound in cases:
            data = golden(file)
            for model in ("paulick2024", "jepsen2008"):
                bank = kind(data["cf"], float(data["fs"]), subject=subject, model=model, dtype=DTYPES[dtype])
                y = bank(torch.from_numpy(data["x"])).transpose(0, 1).double().numpy()
                expected, own = (data[f"{what}_{subject}_{model}"] for what in ("y", "roundoff"))
                # AMT's own rounding is stored beside its output: what is left is tamt's.
                beyond = np.abs(y - expected).max(-1) / np.abs(expected).max(-1) - own
                against = f"AMT, {model}, {subject}, {sound} at 4 levels, beyond AMT's own rounding"
                asked = 1e-9 if kind is tamt.DRNLFilterbank and dtype == "float64" else None
                yield row(kind.__name__, against, max(0.0, beyond.max()), PEAK, asked)


def moore2016(dtype: str) -> Iterator[dict[str, Any]]:
    data = golden("moore2016_spectrum")
    for case in ("harm", "diff", "click"):
        module = tamt.Moore2016Spectrum(
            db_max=float(data[f"{case}_dBMax"]), dtype=DTYPES[dtype], max_components=960, joint_threshold=True
        )
        lists = module(torch.from_numpy(data[f"{case}_signal"].T.copy())[None])
        at = data[f"{case}_start"] // module.hop
        found = [t[:, at] for t in lists]
        theirs = [torch.from_numpy(data[f"{case}_{what}"][None, :, ear]) for ear in range(2) for what in ("f", "L")]
        name = {"harm": "harmonic complex", "diff": "ears that differ", "click": "click"}[case]
        asked = 1e-6 if dtype == "float64" else None
        yield row("Moore2016Spectrum", f"AMT, {name}", difference_in_db(dense(found), dense(theirs)), "dB", asked)
    data = golden("moore2016_excitation")
    pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10, dtype=DTYPES[dtype])
    f, levels = (torch.from_numpy(data[name]).to(DTYPES[dtype]) for name in ("f", "L"))
    audible = data["E"] > 0
    error = np.abs(pattern(f, levels).double().numpy() - data["E"])[audible].max()
    asked = 1e-6 if dtype == "float64" else None
    yield row("Moore2016ExcitationPattern", f"AMT, {len(f)} spectra, where AMT reads above 0 dB", error, "dB", asked)


def by_definition(dtype: str) -> Iterator[dict[str, Any]]:
    """Modules that AMT lacks."""
    x = noise(1, 1, "float64", "cpu")
    psd = tamt.MultiResolutionFFT()(x.to(DTYPES[dtype]))[0]
    yield row(
        "MultiResolutionFFT",
        "scipy.signal, white noise",
        relative_error(psd[0], by_scipy(x[0])),
        "of the frame's peak",
        None,
    )
    density, freqs = spectrum(1, 32, dtype, "cpu")
    centres = tamt.ERBIntegration().exact("centres", torch.float64)
    expected = band_by_band(density.double(), freqs.double(), centres, 24.673 * (4.368e-3 * centres + 1))
    error = largest_difference(tamt.ERBIntegration()(density, freqs), expected)
    yield row("ERBIntegration", "sums in float64, white noise", error, "dB", None)
    levels = excitation((1, 50), dtype, "cpu")
    pattern = tamt.ExcitationPattern()
    error = largest_difference(pattern(levels), composition(levels.double(), pattern))
    yield row("ExcitationPattern", "all pairs in float64, 0 to 100 dB", error, "dB", None)


def single_precision() -> Iterator[dict[str, Any]]:
    """Errors of float32 over centre frequency and sampling rate: two seconds of noise, relative to the peak."""
    for fs in RATES:
        x = torch.randn(2 * fs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for fc in FREQUENCIES:
            if fc > 0.45 * fs:
                continue
            yield {"module": "GammatoneFilterbank", "fs": fs, "fc": fc, "error": gammatone_error(x, fs, fc)}
            if fc >= LOWEST_DRNL:
                yield {"module": "DRNLFilterbank", "fs": fs, "fc": fc, "error": drnl_error(LEVEL * x, fs, fc)}


def gammatone_error(x: Tensor, fs: int, fc: float) -> float:
    exact = tamt.GammatoneFilterbank([fc], fs, dtype=torch.float64)
    expected = scipy_cascade(x.numpy(), exact.poles.numpy(), exact.gains.numpy(), 4)
    return relative_error(tamt.GammatoneFilterbank([fc], fs)(x), torch.from_numpy(expected))


def drnl_error(x: Tensor, fs: int, fc: float) -> float:
    x = x.float()
    bank = tamt.DRNLFilterbank([fc], fs)
    filters, stick = bank._sections(), bank._stick()
    expected = scipy_drnl(x.double().numpy(), *(modal_as_biquads(s) for s in filters), stick.numpy())
    return relative_error(tamt.DRNLFilterbank([fc], fs, dtype=torch.float32)(x), torch.from_numpy(expected))


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
