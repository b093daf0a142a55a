"""What the project asks of its figures on two CPU cores, and where a result leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """The largest value a benchmark may have, for parameter combinations that hold all of ``parameters``."""

    work: str
    benchmark: str
    parameters: tuple[str, ...]
    most: float


def at_least(times: float) -> float:
    """As many times faster than the peer, or than real time, as a limit on the tracked time over the other's."""
    return 1 / times


LIMITS = (
    Limit(
        "gammatone, 2 x 1 s x 30, float32: time over scipy.signal.lfilter",
        "gammatone.GammatoneAgainstScipy.track_time_over_scipy",
        ("float32",),
        at_least(12),
    ),
    Limit(
        "the same, learnable: training step over forward",
        "gammatone.GammatoneTraining.track_training_over_forward",
        ("2 x 1 s x 30", "float32"),
        5,
    ),
    Limit("10 s over ten times 1 s", "gammatone.GammatoneGrowth.track_growth_with_length", (), 1.15),
    Limit("8 x 10 s: peak memory in outputs", "gammatone.GammatoneGrowth.track_peak_memory_8_x_10_s", (), 4),
    Limit("float32 error, 20 Hz to 4 kHz", "gammatone.GammatoneAccuracy.track_float32_error", (), 5e-6),
    Limit(
        "DRNL, 1 x 1 s, float64: time over scipy.signal.sosfilt",
        "drnl.DRNLAgainstScipy.track_time_over_scipy",
        ("1 x 1 s", "float64", "drnl"),
        at_least(1.5),
    ),
    Limit(
        "DRNL, 8 x 1 s, float32: time over scipy.signal.sosfilt",
        "drnl.DRNLAgainstScipy.track_time_over_scipy",
        ("8 x 1 s", "float32", "drnl"),
        at_least(2.5),
    ),
    Limit(
        "DRNL, learnable: training step over a fixed forward",
        "drnl.DRNLTraining.track_training_over_forward",
        ("drnl",),
        6,
    ),
    Limit("design of 50 learnable DRNL channels, s", "drnl.DRNLDesign.track_design_beside_forward", (), 5e-3),
    Limit(
        "FastDRNL, 0.5 s, float64: time over real time",
        "fft_drnl.FftDrnl.track_time_over_real_time",
        ("float64",),
        at_least(5),
    ),
    Limit(
        "FastDRNL, memory beyond the output, 60 s over 10 s",
        "fft_drnl.FftDrnlGrowth.track_memory_60_s_over_10_s",
        (),
        1.2,
    ),
    Limit(
        "MultiResolutionFFT, 8 x 1 s, float32: time over real time",
        "multi_resolution_fft.MultiResolution.track_time_over_real_time",
        ("8 x 1 s", "float32", "fixed"),
        at_least(700),
    ),
    Limit(
        "MultiResolutionFFT: training step over forward",
        "multi_resolution_fft.MultiResolutionTraining.track_training_over_forward",
        ("float32",),
        4,
    ),
    Limit(
        "Moore2016Spectrum, stereo 1 s, float32: time over real time",
        "moore2016_spectrum.Spectrum.track_time_over_real_time",
        ("'stereo 1 s'", "float32"),
        at_least(40),
    ),
    Limit(
        "the same: peak memory beside input and output, MiB",
        "moore2016_spectrum.Spectrum.track_peak_memory",
        ("'stereo 1 s'", "float32"),
        40,
    ),
    Limit(
        "the same: training step over forward",
        "moore2016_spectrum.Spectrum.track_training_over_forward",
        ("'stereo 1 s'", "float32"),
        4,
    ),
    Limit(
        "ERBIntegration, 8 x 32 spectra, float32, s",
        "erb_integration.ERBBands.time_forward",
        ("8 x 32", "float32", "fixed"),
        1e-3,
    ),
    Limit(
        "ERBIntegration: training step over forward",
        "erb_integration.ERBBandsTraining.track_training_over_forward",
        ("float32",),
        4,
    ),
    Limit(
        "ExcitationPattern, 2 x 32 frames, float32, s", "spreading.Spreading.time_forward", ("2 x 32", "float32"), 1e-3
    ),
    Limit("four times the frames: time over four times", "spreading.SpreadingGrowth.track_growth", ("float32",), 1.2),
    Limit(
        "16 x 1000 frames: peak memory in inputs", "spreading.Spreading.track_peak_memory", ("16 x 1000", "float32"), 8
    ),
    Limit(
        "ExcitationPattern: training step over forward",
        "spreading.SpreadingTraining.track_training_over_forward",
        ("float32",),
        5,
    ),
    Limit(
        "Moore2016ExcitationPattern, float32: time over real time, frames of 1 ms",
        "roex.Roex.track_time_over_real_time",
        ("float32",),
        at_least(0.7),
    ),
    Limit("the same: peak memory, MB", "roex.Roex.track_peak_memory", ("float32",), 100),
    Limit("the same: training step over forward", "roex.RoexTraining.track_training_over_forward", ("float32",), 5),
)


def judged(rows: list[dict[str, Any]]) -> Iterator[tuple[Limit, float]]:
    """Every limit of which the results have a figure, with the largest one."""
    for limit in LIMITS:
        found = [
            row["value"]
            for row in rows
            if row["benchmark"] == limit.benchmark and all(holds(row["parameters"], p) for p in limit.parameters)
        ]
        if found:
            yield limit, max(found)


def holds(parameters: list[str], wanted: str) -> bool:
    """Whether one of them is, or is a pair of a device and a load with, the wanted one."""
    return any(p == wanted or (p.startswith("(") and wanted in p) for p in parameters)
