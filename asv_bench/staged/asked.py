"""What is asked of a GPU: figures of whole modules, each checked, measured and held against what is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

import tamt
from asv_bench.benchmarks import cochleagram as cochleagram_bench
from asv_bench.benchmarks import fft_drnl as fft_drnl_bench
from asv_bench.benchmarks import gammatone as gammatone_bench
from asv_bench.benchmarks import roex as roex_bench
from asv_bench.benchmarks import spreading as spreading_bench
from asv_bench.benchmarks.common import (
    dense,
    difference_in_db,
    largest_difference,
    peak_memory,
    relative_error,
    require,
)
from asv_bench.comparison.measure import without_gradient
from asv_bench.comparison.peers import Absent, Torchaudio

from .device import Device

BANDWIDTH = 4.3e12  # bytes/s of a copy, read and written, of the H200 that the figures are asked of
FS = 44100  # of the DRNL


class Figure(NamedTuple):
    """``measure`` gives the value and whatever else is worth a note."""

    unit: str
    asked: float | None
    measure: Callable[[Device, float], dict[str, Any]]
    least: bool = False  # what is asked is the least value, not the most
    scaled: bool = False  # by the copy bandwidth: where memory takes longer, more time is allowed

    def limit(self, bandwidth: float) -> float | None:
        if self.asked is None or not self.scaled:
            return self.asked
        return self.asked * (bandwidth / BANDWIDTH if self.least else BANDWIDTH / bandwidth)

    def judged(self, value: float, bandwidth: float) -> dict[str, Any]:
        limit = self.limit(bandwidth)
        met = limit is None or (value >= limit if self.least else value <= limit)
        found = {"unit": self.unit, "asked": self.asked, "limit": limit, "least": self.least}
        return {"value": value} | found | ({} if limit is None else {"met": met})


def gammatone_case(device: Device, learnable: bool = False) -> tuple[Any, Tensor]:
    channels, seconds, batch = device.size((64, 10, 32), (2, 0.004, 1))
    bank = gammatone_bench.filterbank(channels, "float32", device.name, learnable)
    x = gammatone_bench.noise(batch, seconds, "float32", device.name)
    part = x[:1, :32000]
    exact = gammatone_bench.filterbank(channels, "float64", "cpu")
    expected = without_gradient(exact, part.double().cpu())()
    require(relative_error(device.result(without_gradient(bank, part)), expected), 1e-5, "gammatone")
    return bank, x


def writing(y: Tensor, bandwidth: float) -> float:
    return y.numel() * y.element_size() / bandwidth


def gammatone(device: Device, bandwidth: float) -> dict[str, Any]:
    bank, x = gammatone_case(device)
    call = without_gradient(bank, x)
    seconds, once = device.seconds(call), writing(device.result(call), bandwidth)
    return {"value": seconds / once, "seconds": seconds, "writing_once": once}


def gammatone_training(device: Device, bandwidth: float) -> dict[str, Any]:
    bank, x = gammatone_case(device, learnable=True)
    exact = gammatone_bench.filterbank(len(bank.fc), "float64", "cpu", learnable=True)
    part = x[:2, :8000]
    y = exact(part.double().cpu())
    weights = torch.randn_like(y)
    wanted = torch.autograd.grad(y, list(exact.parameters()), weights)
    parameters = list(bank.parameters())
    found = device.result(lambda: torch.autograd.grad(bank(part), parameters, weights.to(part)))
    for a, e in zip(found, wanted, strict=True):
        require(((a.cpu() - e).abs().max() / e.abs().max()).item(), 1e-3, "gradients of the gammatone")
    del y, wanted, found
    weights = torch.randn_like(device.result(without_gradient(bank, x)))
    call = lambda: torch.autograd.grad(bank(x), parameters, weights)  # noqa: E731
    seconds, once = device.seconds(call), writing(weights, bandwidth)
    return {"value": seconds / once, "seconds": seconds, "writing_once": once}


def cochleagram_case(device: Device, learnable: bool = False) -> tuple[Any, Tensor, float]:
    """A cochleagram of power, its signals, and the bytes of the filters' output, which is not made."""
    bank, x = gammatone_case(device, learnable)
    hop = device.size(cochleagram_bench.HOP, 16)
    module = tamt.Cochleagram(bank, hop, detector="power")
    part = x[:1, :32000]
    exact = gammatone_bench.filterbank(len(bank.fc), "float64", "cpu")
    expected = cochleagram_bench.means_of(without_gradient(exact, part.double().cpu())(), "power", hop)
    require(relative_error(device.result(without_gradient(module, part)), expected), 2e-5, "cochleagram")
    return module, x, float(x.nbytes * len(bank.fc))


def cochleagram(device: Device, bandwidth: float) -> dict[str, Any]:
    module, x, output = cochleagram_case(device)
    seconds = device.seconds(without_gradient(module, x))
    return {"value": seconds * bandwidth / output, "seconds": seconds, "writing_once": output / bandwidth}


def cochleagram_memory(device: Device, bandwidth: float) -> dict[str, Any]:
    """Beside signal and result."""
    module, x, output = cochleagram_case(device)
    if device.rehearse:  # where the launcher's tensors are not those of a GPU
        return {"memory": "not read in a rehearsal"}
    call = without_gradient(module, x)
    beside = peak_memory(call, device.name) - call().nbytes
    return {"value": beside / output, "bytes": beside}


def cochleagram_training(device: Device, bandwidth: float) -> dict[str, Any]:
    module, x, output = cochleagram_case(device, learnable=True)
    exact = gammatone_bench.filterbank(len(module.fc), "float64", "cpu", learnable=True)
    part = x[:2, :8000]
    means = cochleagram_bench.means_of(exact(part.double().cpu()), "power", module.hop_length)
    weights = torch.randn_like(means)
    wanted = torch.autograd.grad(means, list(exact.parameters()), weights)
    parameters = list(module.parameters())
    found = device.result(lambda: torch.autograd.grad(module(part), parameters, weights.to(part)))
    for a, e in zip(found, wanted, strict=True):
        require(((a.cpu() - e).abs().max() / e.abs().max()).item(), 1e-3, "gradients of the cochleagram")
    weights = torch.randn_like(device.result(without_gradient(module, x)))
    call = lambda: torch.autograd.grad(module(x), parameters, weights)  # noqa: E731
    seconds = device.seconds(call)
    return {"value": seconds * bandwidth / output, "seconds": seconds, "writing_once": output / bandwidth}


def drnl(device: Device, bandwidth: float) -> dict[str, Any]:
    channels, length, batch = device.size((50, 4 * FS, 32), (2, 70, 1))
    x = 1e-3 * torch.randn(batch, length, generator=torch.Generator().manual_seed(0))
    bank = tamt.DRNLFilterbank((250, 8000), FS, channels, dtype=torch.float32, device=device.name)
    exact = tamt.DRNLFilterbank((250, 8000), FS, channels)
    x = x.to(device.name)
    part = x[:1, :FS]
    expected = without_gradient(exact, part.double().cpu())()
    require(relative_error(device.result(without_gradient(bank, part)), expected), 5e-5, "DRNL")
    call = without_gradient(bank, x)
    seconds, once = device.seconds(call), writing(device.result(call), bandwidth)
    return {"value": seconds / once, "seconds": seconds, "writing_once": once}


def fast_drnl(device: Device, bandwidth: float) -> dict[str, Any]:
    """Against the benchmark's composition of transforms of the whole signal; it checks both against scipy."""
    small = {"CHANNELS": 2, "LOADS": {"cpu": (1, 0.002)}} if device.rehearse else {}
    bench = fft_drnl_bench.FftDrnlAgainstPlainTorch()
    with patch.multiple(fft_drnl_bench, **small):
        device.result(partial(bench.setup, device.name, "float32"))
        ours = device.seconds(bench.forward)
        theirs = device.seconds(bench.plain_forward)
    return {"value": theirs / ours, "seconds": ours, "plain_torch": theirs}


def moore2016_spectrum(device: Device, bandwidth: float) -> dict[str, Any]:
    batch, length = device.size((16, 320000), (1, 2100))
    options = {"max_components": 960, "segment_duration": 1}
    module = tamt.Moore2016Spectrum(dtype=torch.float32, device=device.name, **options)
    exact = tamt.Moore2016Spectrum(dtype=torch.float64, **options)
    x = 0.02 * torch.randn(batch, 2, length, generator=torch.Generator().manual_seed(0))
    part = x[:1, :, :6400]
    expected = dense(without_gradient(exact, part.double())())
    found = dense(device.result(without_gradient(module, part.to(device.name))))
    require(difference_in_db(found, expected), 0.05, "Moore2016Spectrum")
    seconds = device.seconds(without_gradient(module, x.to(device.name)))
    return {"value": batch * length / 32000 / seconds, "seconds": seconds}


def roex(device: Device, bandwidth: float) -> dict[str, Any]:
    freqs, levels = roex_bench.spectra(device.size(16000, 1), "any", device.name, "float32")
    module = tamt.Moore2016ExcitationPattern(device=device.name)
    exact = tamt.Moore2016ExcitationPattern(dtype=torch.float64)
    rows = slice(0, 20)
    expected = without_gradient(exact, *(t[rows].double().cpu() for t in (freqs, levels)))()
    found = device.result(without_gradient(module, freqs[rows], levels[rows]))
    require(largest_difference(found, expected), 1e-3, "Moore2016ExcitationPattern")
    return {"value": device.seconds(without_gradient(module, freqs, levels))}


def loudness(device: Device, bandwidth: float) -> dict[str, Any]:
    batch, ears, length = device.size((16, 2, 320000), (1, 1, 20))
    model, exact = tamt.Moore2016Loudness(device=device.name), tamt.Moore2016Loudness(dtype=torch.float64)
    x = 0.02 * torch.randn(batch, ears, length, generator=torch.Generator().manual_seed(0))
    part = x[:1, :, :3200]
    expected = without_gradient(exact, part.double())().long_term
    found = device.result(lambda: without_gradient(model, part.to(device.name))().long_term).double().cpu()
    require(((found - expected).abs().max() / expected.max()).item(), 2e-4, "Moore2016Loudness")
    seconds = device.seconds(without_gradient(model, x.to(device.name)))
    return {"value": seconds, "times_real_time": batch * length / 32000 / seconds}


def spreading(device: Device, bandwidth: float) -> dict[str, Any]:
    levels = spreading_bench.excitation((device.size(1000000, 2),), "float32", device.name)
    module = tamt.ExcitationPattern(device=device.name)
    part = levels[:50]
    found = device.result(without_gradient(module, part))
    require(largest_difference(found, spreading_bench.exact(part)), 1e-3, "ExcitationPattern")
    return {"value": device.seconds(without_gradient(module, levels))}


def one_second(device: Device) -> Callable[[], Any]:
    channels, seconds = device.size((30, 1), (2, 0.004))
    bank = gammatone_bench.filterbank(channels, "float32", device.name)
    x = gammatone_bench.noise(1, seconds, "float32", device.name)
    exact = gammatone_bench.filterbank(channels, "float64", "cpu")
    call = without_gradient(bank, x)
    expected = without_gradient(exact, x.double().cpu())()
    require(relative_error(device.result(call), expected), 1e-5, "gammatone of one second")
    return call


def eager(device: Device, bandwidth: float) -> dict[str, Any]:
    return {"value": device.launch_to_launch(one_second(device))}


def graph(device: Device, bandwidth: float) -> dict[str, Any]:
    call = one_second(device)
    replay = device.graphed(call)
    if replay is None:
        return {"value": device.launch_to_launch(call), "graph": "none in a rehearsal"}
    require(relative_error(replay(), call()), 1e-6, "replay of the gammatone")
    return {"value": device.launch_to_launch(replay)}


def lfilter(device: Device, bandwidth: float) -> dict[str, Any]:
    """torchaudio's, as the cascade of the gammatone's four second-order sections in direct form."""
    bank, x = gammatone_case(device)
    try:
        peer = Torchaudio()
    except Absent as reason:
        return {"absent": str(reason)}
    exact = gammatone_bench.filterbank(len(bank.fc), "float64", "cpu")
    poles, gains = (t.detach().to(device.name, torch.complex64) for t in (exact.poles, exact.gains))
    call = without_gradient(peer.onepoles, x, poles, gains, 4)
    wrong = relative_error(peer.onepoles(x[:1, :32000], poles, gains, 4), device.result(partial(bank, x[:1, :32000])))
    require(wrong, 1e-2, "torchaudio's lfilter")
    theirs, ours = device.wall(call, 2), device.seconds(without_gradient(bank, x))
    return {"value": theirs / ours, "seconds": ours, "lfilter": theirs, "error": wrong}


WRITING = "times writing the output once"
UNWRITTEN = "times writing the filters' output once"
FIGURES = {
    "gammatone 32 x 10 s x 64, forward": Figure(WRITING, 2, gammatone),
    "gammatone 32 x 10 s x 64, learnable, forward and backward": Figure(WRITING, 9, gammatone_training),
    "cochleagram 32 x 10 s x 64, power, forward": Figure(UNWRITTEN, 1, cochleagram),
    "cochleagram 32 x 10 s x 64, power, learnable, forward and backward": Figure(UNWRITTEN, 4, cochleagram_training),
    "cochleagram 32 x 10 s x 64, power, peak memory": Figure("of the filters' output", 0.02, cochleagram_memory),
    "DRNL 32 x 4 s x 50 at 44.1 kHz, forward": Figure(WRITING, 8, drnl),
    "FastDRNL over the same composition of torch": Figure("times faster", 2, fast_drnl, least=True),
    "Moore2016Spectrum, 16 stereo x 10 s": Figure("times real time", 5000, moore2016_spectrum, least=True, scaled=True),
    "Moore2016ExcitationPattern, 16000 frames of 950": Figure("s", 12e-3, roex, scaled=True),
    "Moore2016Loudness, 16 stereo x 10 s": Figure("s", 40e-3, loudness, scaled=True),
    "ExcitationPattern, 1000000 frames": Figure("s", 8e-3, spreading, scaled=True),
    "gammatone 1 x 1 s x 30, launch to launch": Figure("s", 200e-6, eager),
    "gammatone 1 x 1 s x 30, launch to launch, CUDA graph": Figure("s", 60e-6, graph),
    "torchaudio's lfilter on 32 x 10 s x 64": Figure("times tamt's", None, lfilter),
}


def row(name: str, device: Device, bandwidth: float) -> dict[str, Any]:
    """What is known of a figure, with its value and whether that is what was asked, unless its peer is absent."""
    figure = FIGURES[name]
    found = figure.measure(device, bandwidth)
    value = found.pop("value", None)
    return found if value is None else figure.judged(value, bandwidth) | found
