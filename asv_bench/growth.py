"""Time and memory of every module over length, batch and channels, three decades each.

``PYTHONPATH=. python asv_bench/growth.py --out results/growth-cpu.json [--device cpu] [--only NAME]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import tamt
from asv_bench import environment
from asv_bench.benchmarks.common import largest_difference, relative_error, require, timed
from asv_bench.benchmarks.moore2016_spectrum import dense, difference_in_db
from asv_bench.comparison.measure import peak_bytes, without_gradient

STEPS = [10 ** (k / 2) for k in range(7)]  # three decades
SECONDS_PER_POINT = 0.5


class Case(NamedTuple):
    """A module, built for any size in float32 or float64, and the sizes at which its axes begin."""

    build: Callable[..., Callable[[], Any]]  # (length, batch, channels, dtype, device)
    base: dict[str, int]  # of the axes that stay
    start: dict[str, int]  # of the axis that grows
    limit: float = 5e-5
    error: Callable[[Any, Any], float] = relative_error


def noise(batch: int, length: int, dtype: torch.dtype, device: str, level: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(batch, length, generator=generator).to(device, dtype)


def evenly(channels: int, low: float, high: float) -> Tensor:
    """Frequencies on the ERB scale."""
    ends = tamt.fc2erb(torch.tensor([low, high], dtype=torch.float64))
    return tamt.erb2fc(torch.linspace(ends[0], ends[1], channels, dtype=torch.float64))


def filterbank(kind: type, low: float, high: float, fs: int, level: float) -> Callable[..., Callable[[], Tensor]]:
    def build(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
        bank = kind(evenly(channels, low, high), fs, dtype=dtype, device=device)
        x = noise(batch, length, dtype, device, level)
        return lambda: bank(x)

    return build


def multi_resolution(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    module, x = tamt.MultiResolutionFFT(device=device), noise(batch, length, dtype, device)
    return lambda: module(x)[0]


def moore_spectrum(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Any]:
    module = tamt.Moore2016Spectrum(segment_duration=10, dtype=dtype, max_components=960, device=device)
    x = noise(2 * batch, length, dtype, device, 0.02).unflatten(0, (batch, 2))
    return lambda: module(x)


def erb_step(channels: int) -> float:
    """That of as many bands between 50 Hz and 15 kHz."""
    low, high = tamt.f2erbrate(50.0), tamt.f2erbrate(15000.0)
    return (high - low) / (channels - 1.5)


def bands(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    module = tamt.ERBIntegration(erb_step=erb_step(channels), device=device)
    psd = noise(batch, length * 1025, dtype, device).square().unflatten(1, (length, 1025))
    freqs = torch.linspace(0, 16000, 1025, dtype=dtype, device=device)
    return lambda: module(psd, freqs)


def spreading(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    module = tamt.ExcitationPattern(erb_step=erb_step(channels), device=device)
    count = module.n_erb_bands
    levels = 50 + 15 * noise(batch, length * count, dtype, device).unflatten(1, (length, count))
    return lambda: module(levels)


def roex(length: int, batch: int, channels: int, dtype: torch.dtype, device: str) -> Callable[[], Tensor]:
    """``channels`` counts the components."""
    module = tamt.Moore2016ExcitationPattern(dtype=dtype, device=device)
    freqs = torch.linspace(20, 15000, channels, dtype=torch.float64).to(device, dtype).expand(batch, length, channels)
    levels = 40 + 10 * noise(batch, length * channels, dtype, device).unflatten(1, (length, channels))
    return lambda: module(freqs, levels)


CASES = {
    "GammatoneFilterbank": Case(
        filterbank(tamt.GammatoneFilterbank, 100, 7000, 16000, 1.0),
        {"length": 4000, "batch": 1, "channels": 10},
        {"length": 1000, "batch": 1, "channels": 1},
    ),
    "DRNLFilterbank": Case(
        filterbank(tamt.DRNLFilterbank, 250, 8000, 44100, 1e-3),
        {"length": 4000, "batch": 1, "channels": 10},
        {"length": 1000, "batch": 1, "channels": 1},
    ),
    "FastDRNLFilterbank": Case(
        filterbank(tamt.FastDRNLFilterbank, 250, 8000, 44100, 1e-3),
        {"length": 4000, "batch": 1, "channels": 10},
        {"length": 1000, "batch": 1, "channels": 1},
    ),
    "MultiResolutionFFT": Case(
        multi_resolution, {"length": 8000, "batch": 1, "channels": 0}, {"length": 3200, "batch": 1}
    ),
    "Moore2016Spectrum": Case(
        moore_spectrum,
        {"length": 4000, "batch": 1, "channels": 0},
        {"length": 3200, "batch": 1},
        limit=0.05,
        error=lambda actual, expected: difference_in_db(dense(actual), dense(expected)),
    ),
    "ERBIntegration": Case(
        bands,
        {"length": 10, "batch": 1, "channels": 150},
        {"length": 10, "batch": 1, "channels": 5},
        limit=1e-3,
        error=largest_difference,
    ),
    "ExcitationPattern": Case(  # rounding decides whether a term 50 dB down counts
        spreading,
        {"length": 10, "batch": 1, "channels": 150},
        {"length": 10, "batch": 1, "channels": 5},
        limit=0.1,
        error=largest_difference,
    ),
    "Moore2016ExcitationPattern": Case(
        roex,
        {"length": 1, "batch": 1, "channels": 300},
        {"length": 1, "batch": 1, "channels": 2},
        limit=1e-3,
        error=largest_difference,
    ),
}


def points(name: str, axis: str, device: str) -> Iterator[dict[str, Any]]:
    """One axis of one module, with its numbers checked against float64 at both ends."""
    case = CASES[name]
    for step in STEPS:
        size = round(case.start[axis] * step)
        sizes = case.base | {axis: size}
        call = without_gradient(case.build(**sizes, dtype=torch.float32, device=device))
        if step in (STEPS[0], STEPS[-1]):
            expected = without_gradient(case.build(**sizes, dtype=torch.float64, device="cpu"))()
            require(case.error(call(), expected), case.limit, f"{name}, {axis} {size}")
            del expected
        once = timed(call, device)
        rounds = max(3, min(20, int(SECONDS_PER_POINT / once)))
        seconds = min(timed(call, device) for _ in range(rounds))
        yield {"module": name, "axis": axis, "size": size, "seconds": seconds, "peak_bytes": peak_bytes(call, device)}


def rows(device: str, only: str) -> Iterator[dict[str, Any]]:
    """Of all axes of all modules; where one fails, its last row says so."""
    for name, case in CASES.items():
        for axis in case.start if only in name else ():
            try:
                for row in points(name, axis, device):
                    print(f"{name}, {axis} {row['size']}: {row['seconds']:.3g} s", file=sys.stderr, flush=True)
                    yield row
            except Exception as error:
                yield {"module": name, "axis": axis, "failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", help="part of a module's name")
    arguments = parser.parse_args()
    environment.require(parser, arguments.device)
    result = environment.describe(arguments.device) | {"results": []}
    environment.write_all(result, rows(arguments.device, arguments.only), arguments.out)


if __name__ == "__main__":
    main()
