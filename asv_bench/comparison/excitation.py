"""Band levels and excitation patterns of the loudness models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from asv_bench.benchmarks import against_scipy
from asv_bench.benchmarks import erb_integration as bands_bench
from asv_bench.benchmarks import roex as roex_bench
from asv_bench.benchmarks import spreading as spreading_bench
from asv_bench.benchmarks.common import DTYPES, largest_difference
from tamt import ERBIntegration, ExcitationPattern, Moore2016ExcitationPattern

from .filters import on_cpu
from .measure import Work, without_gradient, work
from .peers import torch_amt

LIMITS = {"float32": 0.01, "float64": 1e-6}  # dB


@work("ERB bands")
def erb_integration(device: str, dtype: str) -> Work:
    """Levels of 150 bands from spectra of 1025 bins."""
    psd, freqs = bands_bench.spectrum(8, 32, dtype, device)
    module = ERBIntegration(device=device)
    centres = module._exact("centres", DTYPES[dtype])
    own = centres, bands_bench.widths(centres)

    def amt() -> Callable[[], Tensor]:
        return without_gradient(torch_amt("ERBIntegration", device=device), psd, freqs)

    def by_numpy() -> Callable[[], np.ndarray]:
        return partial(against_scipy.band_levels, psd.numpy(), against_scipy.band_table(freqs))

    return Work(
        "8 x 32 spectra",
        bands_bench.exact(psd, freqs),
        largest_difference,
        LIMITS[dtype],
        "dB",
        lambda: without_gradient(module, psd, freqs),
        on_cpu(device, {"numpy.matmul": by_numpy})
        | {
            "torch, a mask and a sum per band": lambda: without_gradient(bands_bench.band_by_band, psd, freqs, *own),
            "torch_amt": amt,
        },
    )


@work("excitation of Glasberg and Moore")
def glasberg2002(device: str, dtype: str) -> Work:
    """Spreading of 150 band levels."""
    levels = spreading_bench.excitation((1, 1000), dtype, device)
    pattern = ExcitationPattern(device=device)

    def amt() -> Callable[[], Tensor]:
        return without_gradient(torch_amt("ExcitationPattern", device=device), levels)

    return Work(
        "1 x 1000 frames",
        spreading_bench.exact(levels),
        largest_difference,
        LIMITS[dtype],
        "dB",
        lambda: without_gradient(pattern, levels),
        on_cpu(device, {"scipy.special.logsumexp": lambda: partial(against_scipy.spread, levels.numpy())})
        | {
            "torch, all pairs of bands": lambda: without_gradient(spreading_bench.composition, levels, pattern),
            "torch_amt": amt,
        },
    )


def moore2016(device: str, dtype: str, kind: str) -> Work:
    frames = 32 if device == "cpu" else 2000
    freqs, levels = roex_bench.spectra(frames, kind, device, dtype)
    module = Moore2016ExcitationPattern(dtype=DTYPES[dtype], device=device)
    exact = Moore2016ExcitationPattern(dtype=torch.float64)

    def amt() -> Callable[[], Tensor]:
        peer = torch_amt("Moore2016ExcitationPattern", dtype=DTYPES[dtype], device=device)
        return without_gradient(peer, freqs.expand_as(levels), levels)

    def by_numpy() -> Callable[[], np.ndarray]:
        return partial(against_scipy.excitation, freqs.numpy(), levels.numpy(), exact.fc_channels.numpy())

    return Work(
        f"{frames} frames of {roex_bench.COMPONENTS} components",
        roex_bench.sliced(freqs.double().cpu(), levels.double().cpu(), exact),
        largest_difference,
        LIMITS[dtype],
        "dB",
        lambda: without_gradient(module, freqs, levels),
        on_cpu(device, {"numpy, all pairs of components": by_numpy})
        | {
            "torch, all pairs of components": lambda: without_gradient(roex_bench.sliced, freqs, levels, module),
            "torch_amt": amt,
        },
    )


@work("excitation of Moore et al., grid")
def moore2016_grid(device: str, dtype: str) -> Work:
    """Excitation of components on the grid of Moore2016Spectrum."""
    return moore2016(device, dtype, "grid")


@work("excitation of Moore et al., any")
def moore2016_any(device: str, dtype: str) -> Work:
    """Excitation of components of any frequencies."""
    return moore2016(device, dtype, "any")
