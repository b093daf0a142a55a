"""The libraries tamt is compared with: which are at hand, and the filters each of them offers."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from asv_bench.benchmarks.common import gammatone_biquads

PACKAGES: dict[str, str | None] = {  # by the name to import, None where there is only a file
    "scipy": "scipy",
    "philtorch": "philtorch",
    "torchlpc": "torchlpc",
    "torchaudio": "torchaudio",
    "diffsptk": "diffsptk",
    "nnAudio": "nnAudio",
    "gammatone": "Gammatone",
    "phonometry": "phonometry",
    "torch_amt": "torch_amt",
    "tvl2018": None,
}


class Absent(Exception):
    """A library that cannot run here, and why."""


def library(name: str, needs: str = "") -> ModuleType:
    """The imported module ``name``, or its submodule ``needs``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"{name}.{needs}" if needs else name)
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from error
    except Exception as error:  # whatever a library raises that does not fit this Python or torch
        raise Absent(f"import fails: {str(error).splitlines()[0]}") from error


def versions() -> dict[str, str]:
    """Version of every library, or why it is absent."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            library(name)
            found[name] = importlib.metadata.version(package) if package else "without a version"
        except Absent as reason:
            found[name] = f"absent: {reason}"
    return found


def torch_amt(name: str, *args: Any, device: str, **options: Any) -> torch.nn.Module:
    """A filterbank of torch_amt, which takes tamt's arguments."""
    return getattr(library("torch_amt", "common.filterbanks"), name)(*args, **options).to(device)


def compiled_lfilter() -> Any:
    """``torchaudio.functional.lfilter``, if its loop over time is compiled."""
    functional = library("torchaudio", "functional")
    if not library("torchaudio", "_extension")._IS_TORCHAUDIO_EXT_AVAILABLE:
        raise Absent("its compiled lfilter needs the CUDA build of torch; what is left is a loop in Python")
    return functional.lfilter


def one_signal_per_channel(x: Tensor, channels: int) -> Tensor:
    """(B, T) or (B, F, T) as rows (B F, T)."""
    return (x[:, None].expand(-1, channels, -1) if x.dim() == 2 else x).reshape(-1, x.shape[-1])


class Philtorch:
    """philtorch: linear recurrences, and biquads as state-space models, with kernels in C++."""

    def __init__(self) -> None:
        self.lti = library("philtorch", "lti")

    def onepoles(self, x: Tensor, poles: Tensor, gains: Tensor, order: int) -> Tensor:
        rows = one_signal_per_channel(x, len(poles))
        repeat = len(rows) // len(poles)
        y, p = rows * (2 * gains).repeat(repeat)[:, None], poles.repeat(repeat)
        for _ in range(order):
            y = self.lti.linear_recurrence(p, torch.zeros_like(p), y)
        return y.real.reshape(-1, len(poles), x.shape[-1])

    def biquads(self, x: Tensor, sos: Tensor) -> Tensor:
        y = one_signal_per_channel(x, len(sos))
        for section in sos.repeat(len(y) // len(sos), 1, 1).unbind(1):
            y = self.lti.lfilter(section[:, :3], section[:, 4:], y)
        return y.reshape(-1, len(sos), x.shape[-1])


class Torchlpc:
    """torchlpc: all-pole filters whose coefficients are given for every sample, with kernels in Numba."""

    def __init__(self) -> None:
        self.filter = library("torchlpc").sample_wise_lpc

    def allpole(self, rows: Tensor, feedback: Tensor) -> Tensor:
        """Rows (R, T) by denominators 1 + feedback (R, N)."""
        return self.filter(rows, feedback[:, None].expand(-1, rows.shape[1], -1).contiguous())

    def onepoles(self, x: Tensor, poles: Tensor, gains: Tensor, order: int) -> Tensor:
        rows = one_signal_per_channel(x, len(poles))
        repeat = len(rows) // len(poles)
        y, feedback = rows * (2 * gains).repeat(repeat)[:, None], -poles.repeat(repeat)[:, None]
        for _ in range(order):
            y = self.allpole(y, feedback)
        return y.real.reshape(-1, len(poles), x.shape[-1])

    def biquads(self, x: Tensor, sos: Tensor) -> Tensor:
        y = one_signal_per_channel(x, len(sos))
        for section in sos.repeat(len(y) // len(sos), 1, 1).unbind(1):
            delayed = torch.nn.functional.pad(y, (2, 0))
            fir = section[:, :1] * y + section[:, 1:2] * delayed[:, 1:-1] + section[:, 2:3] * delayed[:, :-2]
            y = self.allpole(fir, section[:, 4:])
        return y.reshape(-1, len(sos), x.shape[-1])


class Torchaudio:
    """torchaudio: direct-form filters with a loop in C++ and CUDA."""

    def __init__(self) -> None:
        self.lfilter = compiled_lfilter()

    def onepoles(self, x: Tensor, poles: Tensor, gains: Tensor, order: int) -> Tensor:
        assert order == 4
        return self.biquads(x, gammatone_biquads(poles, gains))

    def biquads(self, x: Tensor, sos: Tensor) -> Tensor:
        for k, section in enumerate(sos.unbind(1)):
            x = self.lfilter(x, section[:, 3:], section[:, :3], clamp=False, batching=k > 0 or x.dim() == 3)
        return x


RECURSIONS = {
    "philtorch": Philtorch,
    "torchlpc": Torchlpc,
    "torchaudio.functional.lfilter": Torchaudio,
}
