"""Recursive filters: the gammatone filterbank, a cascade of biquads, both DRNL filterbanks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.signal import fftconvolve
from torch import Tensor

from asv_bench.benchmarks import drnl as drnl_bench
from asv_bench.benchmarks import gammatone as gammatone_bench
from asv_bench.benchmarks import iir as iir_bench
from asv_bench.benchmarks.common import (
    DTYPES,
    by_sosfilt,
    gammatone_biquads,
    modal_as_biquads,
    relative_error,
    scipy_cascade,
)
from tamt import DRNLFilterbank, FastDRNLFilterbank, GammatoneFilterbank
from tamt.ops.iir import biquad_cascade

from .measure import Contender, Work, without_gradient, work
from .peers import RECURSIONS, Absent, library, torch_amt

LIMITS = {"float32": 1e-2, "float64": 1e-6}
PEAK = "of the channel's peak"
STEP = 1e-6  # of a coefficient, for difference quotients in float64


def on_cpu(device: str, peers: dict[str, Contender]) -> dict[str, Contender]:
    """scipy's, where the work is done on the CPU."""
    return peers if device == "cpu" else {}


def error_of(actual: Any, expected: Tensor) -> float:
    return relative_error(torch.as_tensor(actual), expected)


@work("gammatone")
def gammatone(device: str, dtype: str) -> Work:
    """30 gammatone filters of order 4."""
    fs = gammatone_bench.FS
    bank = gammatone_bench.filterbank(30, dtype, device)
    x = gammatone_bench.noise(2, 1, dtype, device)
    exact = gammatone_bench.filterbank(30, "float64", "cpu")
    poles, gains = (t.to(device, DTYPES[dtype].to_complex()) for t in (exact.poles, exact.gains))
    expected = torch.from_numpy(scipy_cascade(x.double().cpu().numpy(), exact.poles.numpy(), exact.gains.numpy(), 4))

    def recursion(kind: type) -> Callable[[], Tensor]:
        return without_gradient(kind().onepoles, x, poles, gains, 4)

    def amt() -> Callable[[], Tensor]:
        return without_gradient(torch_amt("GammatoneFilterbank", bank.fc, fs, dtype=DTYPES[dtype], device=device), x)

    sos = gammatone_biquads(exact.poles, exact.gains).numpy()
    scipy = {
        "scipy.signal.sosfilt": lambda: partial(by_sosfilt, x.numpy(), sos),
        "scipy.signal.lfilter": lambda: partial(scipy_cascade, x.numpy(), poles.numpy(), gains.numpy(), 4),
    }
    others = {name: partial(recursion, kind) for name, kind in RECURSIONS.items()}
    return Work(
        "2 x 1 s at 16 kHz, 30 channels",
        expected,
        error_of,
        LIMITS[dtype],
        PEAK,
        lambda: without_gradient(bank, x),
        on_cpu(device, scipy) | others | {"torch_amt": amt},
    )


@work("gammatone, diffsptk's frequencies")
def hohmann(device: str, dtype: str) -> Work:
    """The gammatone filters of diffsptk: frequencies are its own, and of several signals it mixes up the channels."""
    fs = gammatone_bench.FS
    x = gammatone_bench.noise(1, 1, dtype, device)
    options = {"f_min": 100.0, "f_ref": 1000.0, "f_max": 7500.0}
    scale = 24.7 * 9.265
    number = 9.265 * np.log1p(np.array([100.0, 1000.0, 7500.0]) / scale)
    steps = np.arange(number[1] - np.floor(number[1] - number[0]), number[2] + 1e-6)
    centres = torch.from_numpy(scale * np.expm1(steps / 9.265))
    bank = GammatoneFilterbank(centres, fs, dtype=DTYPES[dtype], device=device)
    exact = GammatoneFilterbank(centres, fs, dtype=torch.float64)
    expected = torch.from_numpy(scipy_cascade(x.double().cpu().numpy(), exact.poles.numpy(), exact.gains.numpy(), 4))

    def diffsptk() -> Callable[[], Tensor]:
        peer = library("diffsptk").GammatoneFilterBankAnalysis(fs, **options).to(device)
        return without_gradient(lambda: peer(x).real)

    return Work(
        f"1 x 1 s at 16 kHz, {len(centres)} channels",
        expected,
        error_of,
        LIMITS[dtype],
        PEAK,
        lambda: without_gradient(bank, x),
        {"diffsptk.GammatoneFilterBankAnalysis": diffsptk},
    )


@work("gammatone, training")
def gammatone_training(device: str, dtype: str) -> Work:
    """Forward, backward to the poles, and a change of the poles."""
    bank = gammatone_bench.filterbank(30, dtype, device, learnable=True)
    x = gammatone_bench.noise(2, 1, dtype, device)
    exact = gammatone_bench.filterbank(30, "float64", "cpu")
    weights = torch.randn(2, 30, x.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss_per_channel(step: complex) -> np.ndarray:
        poles = exact.poles.numpy() + step
        y = scipy_cascade(x.double().cpu().numpy(), poles, exact.gains.numpy(), 4)
        return (y * weights.numpy()).sum((0, 2))

    slopes = [(loss_per_channel(step) - loss_per_channel(-step)) / (2 * STEP) for step in (STEP, 1j * STEP)]
    weights = weights.to(device, DTYPES[dtype])
    poles, gains = (t.to(device, DTYPES[dtype].to_complex()) for t in (exact.poles, exact.gains))

    def step(forward: Callable[[Tensor], Tensor], poles: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(forward(x), poles, weights)
        with torch.no_grad():
            poles.mul_(1 - 1e-7)  # nothing kept for unchanged filters serves the next call
        return torch.view_as_real(gradient)

    def recursion(kind: type) -> Callable[[], Tensor]:
        peer, own = kind(), poles.clone().requires_grad_()
        return partial(step, lambda x: peer.onepoles(x, own, gains, 4), own)

    return Work(
        "2 x 1 s at 16 kHz, 30 channels",
        torch.from_numpy(np.stack(slopes, 1)),
        error_of,
        LIMITS[dtype],
        "of the channel's gradient",
        lambda: partial(step, bank, bank.poles),
        {name: partial(recursion, kind) for name, kind in RECURSIONS.items()},
    )


def _lowpasses(device: str, dtype: str) -> tuple[Tensor, Tensor, np.ndarray]:
    x = torch.randn(1, iir_bench.FS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sos = iir_bench.sections()
    return x.to(device, DTYPES[dtype]), torch.from_numpy(sos).to(device, DTYPES[dtype]), sos


@work("biquads")
def biquads(device: str, dtype: str) -> Work:
    """Four second-order low-passes a channel, one signal for all channels."""
    x, sos, exact = _lowpasses(device, dtype)

    def recursion(kind: type) -> Callable[[], Tensor]:
        return without_gradient(kind().biquads, x, sos)

    scipy = {"scipy.signal.sosfilt": lambda: partial(by_sosfilt, x.numpy(), exact)}
    return Work(
        "1 x 1 s at 44.1 kHz, 50 channels x 4 sections",
        torch.from_numpy(by_sosfilt(x.double().cpu().numpy(), exact)),
        error_of,
        LIMITS[dtype],
        PEAK,
        lambda: without_gradient(lambda: biquad_cascade(x, sos)[0]),
        on_cpu(device, scipy) | {name: partial(recursion, kind) for name, kind in RECURSIONS.items()},
    )


@work("biquads, training")
def biquads_training(device: str, dtype: str) -> Work:
    """Forward, backward to the coefficients, and a change of them."""
    x, sos, exact = _lowpasses(device, dtype)
    weights = torch.randn(1, len(sos), x.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    signal = x.double().cpu().numpy()

    def slope(section: int, column: int) -> np.ndarray:
        up, down = exact.copy(), exact.copy()
        up[:, section, column] += STEP
        down[:, section, column] -= STEP
        difference = by_sosfilt(signal, up) - by_sosfilt(signal, down)
        return (difference * weights.numpy()).sum((0, 2)) / (2 * STEP)

    columns = (0, 1, 2, 4, 5)  # the leading 1 of the denominator stays
    expected = np.stack([[slope(k, c) for c in columns] for k in range(exact.shape[1])])  # (K, 5, F)
    weights = weights.to(device, DTYPES[dtype])

    def step(forward: Callable[[Tensor, Tensor], Tensor], sos: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(forward(x, sos), sos, weights)
        with torch.no_grad():
            sos[..., :3].mul_(1 - 1e-7)
        return gradient[..., columns].permute(1, 2, 0).flatten(0, 1).T

    def set_up(forward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
        return partial(step, forward, sos.clone().requires_grad_())

    return Work(
        "1 x 1 s at 44.1 kHz, 50 channels x 4 sections",
        torch.from_numpy(expected).flatten(0, 1).T,
        error_of,
        10 * LIMITS[dtype],  # gradients of direct-form coefficients cancel
        "of the channel's gradient",
        lambda: set_up(lambda x, sos: biquad_cascade(x, sos)[0]),
        {name: (lambda kind=kind: set_up(kind().biquads)) for name, kind in RECURSIONS.items()},
    )


def _drnl(device: str, dtype: str, kind: type) -> Work:
    fs = drnl_bench.FS
    x = drnl_bench.noise(1, 1, dtype, device)
    span = (drnl_bench.FLOW, drnl_bench.FHIGH)
    bank = kind(span, fs, dtype=DTYPES[dtype], device=device)
    bank = DRNLFilterbank(span, fs)
    filters, stick = bank._sections(), bank._stick()
    sos = [torch.from_numpy(modal_as_biquads(sections)).to(device, DTYPES[dtype]) for sections in filters]
    stick = stick.to(device, DTYPES[dtype])

    def chain(biquads: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        linear, front, back = sos
        a, b, c = stick.T[..., None]
        v = biquads(x, front)
        magnitude = v.abs()
        w = v.sign() * torch.minimum(a * magnitude, b * magnitude**c)
        return biquads(x, linear) + biquads(w, back)

    def recursion(peer: type) -> Callable[[], Tensor]:
        return without_gradient(chain, peer().biquads)

    def amt() -> Callable[[], Tensor]:
        if kind is DRNLFilterbank:
            raise Absent("DRNLFilterbank is a loop over samples in Python, too slow for this load")
        return without_gradient(torch_amt(kind.__name__, span, fs, dtype=DTYPES[dtype], device=device), x)

    def convolved() -> np.ndarray:
        linear, front, back = responses.astype(x.numpy().dtype)
        a, b, c = stick.numpy().T[..., None]
        signal, length = x.numpy()[:, None], x.shape[1]
        v = fftconvolve(signal, front[None], axes=-1)[..., :length]
        w = np.sign(v) * np.minimum(a * np.abs(v), b * np.abs(v) ** c)
        return (fftconvolve(signal, linear[None], axes=-1) + fftconvolve(w, back[None], axes=-1))[..., :length]

    scipy = {"scipy.signal.sosfilt": lambda: drnl_bench.by_scipy(x)}
    if kind is FastDRNLFilterbank:
        impulse = np.zeros((1, 4096))
        impulse[0, 0] = 1
        responses = np.stack([by_sosfilt(impulse, modal_as_biquads(sections))[0] for sections in filters])
        scipy["scipy.signal.fftconvolve"] = lambda: convolved
    others = {name: partial(recursion, peer) for name, peer in RECURSIONS.items()}
    return Work(
        "1 x 1 s at 44.1 kHz, 50 channels",
        torch.from_numpy(drnl_bench.by_scipy(x.double().cpu())()),
        error_of,
        LIMITS["float32"] if dtype == "float32" or kind is FastDRNLFilterbank else LIMITS[dtype],
        PEAK,
        lambda: without_gradient(bank, x),
        on_cpu(device, scipy) | others | {"torch_amt": amt},
    )


@work("DRNL")
def drnl(device: str, dtype: str) -> Work:
    """50 DRNL channels: two cascades, a broken stick between two gammatones."""
    return _drnl(device, dtype, DRNLFilterbank)


@work("DRNL by FFT")
def fast_drnl(device: str, dtype: str) -> Work:
    """The same by FFT convolution with impulse responses of 4096 samples."""
    return _drnl(device, dtype, FastDRNLFilterbank)
