"""Cochlear features for networks: frames of a gammatone filterbank's power, and what others have for that purpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asv_bench.benchmarks import cochleagram as bench
from asv_bench.benchmarks.common import DTYPES, scipy_cascade
from tamt import Cochleagram

from .filters import LIMITS, PEAK, STEP, error_of, on_cpu
from .measure import Other, Work, without_gradient, work
from .peers import library, torch_amt

FS, HOP, CHANNELS = bench.FS, bench.HOP, bench.CHANNELS
LOW, HIGH = 100.0, 7800.0  # Hz, first and last channel
BATCH, SECONDS = 8, 10
LOAD = f"{BATCH} x {SECONDS} s at 16 kHz, {CHANNELS} channels, hop {HOP}"
SPECTRUM = {"n_fft": 1024, "hop_length": HOP}  # of features made from a spectrogram
OWN = "tamt's filterbank, square and mean of torch"


def by_scipy(x: np.ndarray, poles: np.ndarray, gains: np.ndarray) -> Tensor:
    """Mean powers of the filters' outputs, signal by signal, in the type of ``x``."""
    return torch.stack([bench.means_of(scipy_cascade(row, poles, gains, 4), "power") for row in x])


@work("cochleagram")
def cochleagram(device: str, dtype: str) -> Work:
    """Mean power of gammatone channels over hops."""
    bank = bench.filterbank("gammatone", dtype, device)
    x = bench.signals("gammatone", BATCH, SECONDS, dtype, device)
    exact = bench.filterbank("gammatone", "float64", "cpu")
    filters = exact.poles.numpy(), exact.gains.numpy()

    def amt() -> Callable[[], Tensor]:
        peer = torch_amt("GammatoneFilterbank", bank.fc, FS, dtype=DTYPES[dtype], device=device)
        return without_gradient(bench.composed, peer, x)

    def nnaudio() -> Callable[[], Tensor]:
        features = library("nnAudio", "features")
        peer = features.Gammatonegram(FS, **SPECTRUM, n_bins=CHANNELS, fmin=LOW, fmax=HIGH, verbose=False)
        return without_gradient(peer.to(device, DTYPES[dtype]), x)

    def torchaudio() -> Callable[[], Tensor]:
        transforms = library("torchaudio", "transforms")
        peer = transforms.MelSpectrogram(FS, **SPECTRUM, n_mels=CHANNELS, f_min=LOW, f_max=HIGH)
        return without_gradient(peer.to(device, DTYPES[dtype]), x)

    def detly() -> Callable[[], Any]:
        gtgram, wide = library("gammatone", "gtgram").gtgram, x.double().numpy()
        return lambda: [gtgram(row, FS, HOP / FS, HOP / FS, CHANNELS, LOW, HIGH) for row in wide]

    akin = {
        "torchaudio.transforms.MelSpectrogram": Other("mel bands of spectra of 64 ms", torchaudio),
        "nnAudio.features.Gammatonegram": Other("gammatone weights on spectra of 64 ms", nnaudio),
    }
    slaney = {"gammatone.gtgram": Other("root mean square of Slaney's filters, float64", detly)}
    return Work(
        LOAD,
        by_scipy(x.double().cpu().numpy(), *filters),
        error_of,
        LIMITS[dtype],
        PEAK,
        lambda: without_gradient(Cochleagram(bank, HOP, detector="power"), x),
        {OWN: lambda: without_gradient(bench.composed, bank, x)}
        | on_cpu(device, {"scipy.signal.lfilter": lambda: partial(by_scipy, x.numpy(), *filters)})
        | {"torch_amt": amt},
        akin | (slaney if device == "cpu" else {}),
    )


@work("cochleagram, training")
def cochleagram_training(device: str, dtype: str) -> Work:
    """Forward, backward to the poles, and a change of the poles."""
    x = bench.signals("gammatone", BATCH, SECONDS, dtype, device)
    exact = bench.filterbank("gammatone", "float64", "cpu")
    frames = x.shape[1] // HOP
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(BATCH, CHANNELS, frames, generator=generator, dtype=torch.float64)
    wide = x.double().cpu().numpy()

    def loss_per_channel(step: complex) -> Tensor:
        return (by_scipy(wide, exact.poles.numpy() + step, exact.gains.numpy()) * weights).sum((0, 2))

    slopes = [(loss_per_channel(step) - loss_per_channel(-step)) / (2 * STEP) for step in (STEP, 1j * STEP)]
    given = weights.to(device, DTYPES[dtype])

    def step(forward: Callable[[Tensor], Tensor], poles: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(forward(x), poles, given)
        with torch.no_grad():
            poles.mul_(1 - 1e-7)  # nothing kept for unchanged filters serves the next call
        return torch.view_as_real(gradient)

    def set_up(features: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> Callable[[], Tensor]:
        bank = bench.filterbank("gammatone", dtype, device, learnable=True)
        return partial(step, features(bank), bank.poles)

    return Work(
        LOAD,
        torch.stack(slopes, 1),
        error_of,
        LIMITS[dtype],
        "of the channel's gradient",
        lambda: set_up(lambda bank: Cochleagram(bank, HOP, detector="power")),
        {OWN: lambda: set_up(lambda bank: partial(bench.composed, bank))},
    )
