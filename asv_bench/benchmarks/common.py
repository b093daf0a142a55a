"""What the benchmarks share: devices, alternating timing, peak memory, errors. Works without asv."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def best_times(*functions: Callable[[], object], device: str = "cpu", rounds: int = 9) -> list[float]:
    """Least seconds of each function, called in turn: a noisy machine disturbs all alike, and seldom every round."""
    for function in functions:
        timed(function, device)
    samples = [[timed(function, device) for function in functions] for _ in range(rounds)]
    return [min(column) for column in zip(*samples, strict=True)]


def ratio_of_times(
    one: Callable[[], object], other: Callable[[], object], device: str = "cpu", rounds: int = 9
) -> float:
    """Time of ``other`` over that of ``one``. A peer comes first: asv takes whatever has grown for a regression."""
    first, second = best_times(one, other, device=device, rounds=rounds)
    return second / first


def peak_memory(function: Callable[[], object], device: str) -> int:
    """Bytes that ``function`` holds at its peak beyond what was held before, its result included."""
    function()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    if not sys.platform.startswith("linux"):
        raise NotImplementedError("peak memory on the CPU is read from Linux's /proc")
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or freed memory of the first call would hide that of the second
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    result = function()
    peak = _status_bytes("VmHWM") - before
    del result
    return peak


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise NotImplementedError(f"no {field} in /proc/self/status")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference of a channel relative to its peak, over all channels; NaN counts as infinite."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    error = (actual - expected).abs().amax(-1) / expected.abs().amax(-1)
    return torch.nan_to_num(error, nan=float("inf")).max().item()


def largest_difference(actual: np.ndarray | Tensor, expected: np.ndarray | Tensor) -> float:
    """In the unit of the two; NaN counts as infinite."""
    wide = (torch.as_tensor(t).detach().double().cpu() for t in (actual, expected))
    difference = torch.sub(*wide).abs()
    return torch.nan_to_num(difference, nan=float("inf")).max().item()


def dense(lists: Sequence[Tensor]) -> Tensor:
    """Levels of both ears (2, B, n_segments, 960) from the lists of Moore2016Spectrum; NaN where there is none."""
    ears = []
    for freqs, levels in (lists[:2], lists[2:]):
        index = (freqs.detach().double().cpu() / 15.625).round().long()
        rows = torch.full((*levels.shape[:-1], 961), math.nan, dtype=torch.float64)
        ears.append(rows.scatter_(-1, index, levels.detach().double().cpu())[..., 1:])
    return torch.stack(ears)


def difference_in_db(levels: Tensor, expected: Tensor) -> float:
    """Of components that both have; infinite if more than one in a thousand stands in one of the two only."""
    one, other = levels.isfinite(), expected.isfinite()
    if (one ^ other).sum() > 1e-3 * other.sum():
        return math.inf
    return (levels - expected).abs()[one & other].max().item()


def difference_of_lists(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """:func:`difference_in_db` of lists of components."""
    return difference_in_db(dense(actual), dense(expected))


class Agreement(NamedTuple):
    """How far a module is from numbers that do not come from it; ``asked`` is what the tests hold it to."""

    module: str
    against: str
    error: float
    unit: str
    asked: float | None = None


def golden(name: str) -> Any:
    """Numbers of AMT, from the tests' data."""
    return np.load(Path(__file__).parents[2] / "tests" / "data" / f"{name}.npz")


def require(error: float, limit: float, what: str) -> None:
    """No figure from a run whose numbers are wrong."""
    if not error <= limit:
        raise RuntimeError(f"{what}: error {error:.2e} exceeds {limit:.0e}; not measured")


UNITS = {"MB": 1e6, "MiB": 1 << 20}


class Load:
    """What is measured of one load.

    ``setup`` of a subclass makes it, sets ``device``, ends with :meth:`ready`, and holds the numbers against others.
    ``result`` is the call, and ``error`` its error. A benchmark of asv is then an attribute, made by :func:`timing`,
    :func:`tracked`, :func:`peak` or :func:`over`.
    """

    timeout = 300
    device = "cpu"

    def result(self) -> Any:
        raise NotImplementedError

    def smooth(self) -> Sequence[Tensor]:
        """The results that are differentiated."""
        return [self.result()]

    def forward(self) -> Any:
        with torch.no_grad():
            return self.result()

    def ready(self, *wanted: Tensor) -> None:
        """Take random gradients of the results, by which a training step gets those of the ``wanted``."""
        self.wanted = wanted
        with torch.no_grad():
            self.weights = [torch.randn_like(t) for t in self.smooth()]

    def training_step(self) -> None:
        torch.autograd.grad(self.smooth(), self.wanted, self.weights)

    def outputs(self) -> int:
        """Bytes of the results."""
        return sum(t.nbytes for t in self.weights)

    def real_time(self) -> float:
        """Time of the forward pass over that of the signals, ``seconds`` in all."""
        return best_times(self.forward, device=self.device)[0] / self.seconds


def timing(call: str) -> Callable[..., None]:
    """The time of a method of a :class:`Load`."""

    def measure(self: Load, *_: object) -> None:
        timed(getattr(self, call), self.device)

    return measure


def tracked(figure: str, unit: str) -> Callable[..., float]:
    """What a method of a :class:`Load` returns."""

    def measure(self: Load, *_: object) -> float:
        return getattr(self, figure)()

    measure.unit = unit
    return measure


def peak(call: str, unit: str) -> Callable[..., float]:
    """Peak memory of a method of a :class:`Load`, in one of UNITS or in what the method ``unit`` says."""

    def measure(self: Load, *_: object) -> float:
        return peak_memory(getattr(self, call), self.device) / (UNITS[unit] if unit in UNITS else getattr(self, unit)())

    measure.unit = unit
    return measure


def over(peer: str, call: str = "forward", rounds: int = 9) -> Callable[..., float]:
    """The time of a method of a :class:`Load` over that of another one."""

    def measure(self: Load, *_: object) -> float:
        return ratio_of_times(getattr(self, peer), getattr(self, call), self.device, rounds)

    measure.unit = "x"
    return measure


def cases(cpu: Iterable[str], cuda: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of a device that is here and one of its loads."""
    return [(device, load) for device in DEVICES for load in (cpu if device == "cpu" else cuda)]


def scipy_cascade(x: np.ndarray, poles: np.ndarray, gains: np.ndarray, order: int) -> np.ndarray:
    """``2 Re{g x / (1 - p z^-1)^order}`` per channel by ``scipy.signal.lfilter``, in the type of ``x``."""
    return np.stack([y.real for y in _cascades(x, poles, gains, order)], -2)


def scipy_analytic(x: np.ndarray, poles: np.ndarray, gains: np.ndarray, order: int) -> np.ndarray:
    """The complex outputs of which :func:`scipy_cascade` gives the real parts."""
    return np.stack(list(_cascades(x, poles, gains, order)), -2)


def _cascades(x: np.ndarray, poles: np.ndarray, gains: np.ndarray, order: int) -> Iterator[np.ndarray]:
    from scipy.signal import lfilter  # which takes a second to import

    wide = np.result_type(x.dtype, np.complex64)
    for pole, gain in zip(poles.astype(wide), gains.astype(wide), strict=True):
        section = np.array([1, -pole], dtype=wide)
        y = (2 * gain * x).astype(wide)
        for _ in range(order):
            y = lfilter(np.ones(1, dtype=wide), section, y)
        yield y


def by_sosfilt(x: np.ndarray, sos: np.ndarray) -> np.ndarray:
    """(B, T) or (B, F, T) by sections (F, K, 6), channel by channel, in the type of ``x``."""
    from scipy.signal import sosfilt  # which takes a second to import

    rows = [sosfilt(s, x if x.ndim == 2 else x[:, f]) for f, s in enumerate(sos.astype(x.dtype))]
    return np.stack(rows, 1)


def gammatone_biquads(poles: Tensor, gains: Tensor) -> Tensor:
    r"""Sections (F, 4, 6), as ``sosfilt`` has them, of ``2 Re{g / (1 - p z^-1)^4}`` with a real gain.

    As :math:`a^4 + b^4` is the product of :math:`a - e^{i \alpha} b` over the odd multiples of :math:`\pi/4`, the
    numerator has four real zeros :math:`\mathrm{Re}\,p + \mathrm{Im}\,p \cot(\alpha/2)`.
    """
    half = torch.arange(1, 8, 2, dtype=poles.real.dtype, device=poles.device) * (math.pi / 8)
    zeros = poles.real[:, None] + poles.imag[:, None] / half.tan()
    scale = (2 * gains.real[:, None]) ** 0.25 + torch.zeros_like(zeros)
    one = torch.ones_like(zeros)
    return torch.stack(
        (scale, -scale * zeros, 0 * one, one, -2 * poles.real[:, None] * one, poles.abs().square()[:, None] * one), -1
    )


def modal_as_biquads(sections: Tensor) -> np.ndarray:
    """Sections (F, K, 6) of :func:`tamt.ops.iir.modal_cascade` as those of ``sosfilt``, float64."""
    decay, high, low, g_re, g_im, direct = np.moveaxis(sections.detach().double().cpu().numpy(), -1, 0)
    pole, gain = np.exp(-decay + 2j * np.pi * (high + low)), g_re + 1j * g_im
    denominator = np.stack((np.ones_like(decay), -2 * pole.real, np.abs(pole) ** 2), -1)
    resonance = np.stack((gain.real, -(gain * pole.conj()).real, np.zeros_like(decay)), -1)
    return np.concatenate((resonance + direct[..., None] * denominator, denominator), -1)
