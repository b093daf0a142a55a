"""What concerns every module alike: construction, compilation, and the graphs it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import tamt

from .common import DEVICES, require, timed

Inputs = tuple[Tensor, ...]


def signal(length: int, *lead: int, level: float = 1.0) -> Tensor:
    return level * torch.randn(*lead, length, generator=torch.Generator().manual_seed(0))


def spectrum_and_frequencies(frames: int) -> Inputs:
    return signal(1025, 2, frames).square(), torch.linspace(0, 16000, 1025)


def components(frames: int) -> Inputs:
    freqs = torch.linspace(50, 15000, 60).expand(2, frames, 60).contiguous()
    return freqs, 40 + 10 * signal(60, 2, frames)


# Constructor (with learnable and device) and inputs of a size.
MODULES: dict[str, tuple[Callable[..., nn.Module], Callable[[int], Inputs]]] = {
    "GammatoneFilterbank": (
        lambda **options: tamt.GammatoneFilterbank((100, 7900), 16000, **options),
        lambda size: (signal(100 * size, 2),),
    ),
    "DRNLFilterbank": (
        lambda **options: tamt.DRNLFilterbank((250, 8000), 44100, dtype=torch.float32, **options),
        lambda size: (signal(100 * size, 2, level=1e-3),),
    ),
    "FastDRNLFilterbank": (
        lambda **options: tamt.FastDRNLFilterbank((250, 8000), 44100, dtype=torch.float32, **options),
        lambda size: (signal(100 * size, 2, level=1e-3),),
    ),
    "MultiResolutionFFT": (
        lambda **options: tamt.MultiResolutionFFT(**options),
        lambda size: (signal(2000 + 100 * size, 2),),
    ),
    "Moore2016Spectrum": (
        lambda **options: tamt.Moore2016Spectrum(max_components=960, **options),
        lambda size: (signal(2100 + 100 * size, 2, 2, level=0.02),),
    ),
    "ERBIntegration": (lambda **options: tamt.ERBIntegration(**options), spectrum_and_frequencies),
    "ExcitationPattern": (
        lambda **options: tamt.ExcitationPattern(**options),
        lambda size: (50 + 15 * signal(150, 2, size),),
    ),
    "Moore2016ExcitationPattern": (lambda **options: tamt.Moore2016ExcitationPattern(**options), components),
}


def results(output: Any) -> list[Tensor]:
    return list(output) if isinstance(output, tuple | list) else [output]


def largest_difference(actual: Any, expected: Any) -> float:
    pairs = zip(results(actual), results(expected), strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


class Construction:
    params = (DEVICES, list(MODULES), ["fixed", "learnable"])
    param_names = ("device", "module", "kind")

    def setup(self, device: str, name: str, kind: str) -> None:
        self.device, self.options = device, {"learnable": kind == "learnable", "device": device}
        self.build, inputs = MODULES[name]
        given = inputs(20)
        require(
            largest_difference([t.cpu() for t in results(self.new()(*(t.to(device) for t in given)))],
                               results(self.build(learnable=kind == "learnable")(*given))),
            1e-4,
            f"{name} {device}",
        )  # fmt: skip

    def new(self) -> nn.Module:
        return self.build(**self.options)

    def time_construction(self, *_: object) -> None:
        timed(self.new, self.device)


class Compilation:
    """Fixed modules under ``torch.compile(fullgraph=True, dynamic=True)``: seconds, and graphs for five lengths."""

    params = (DEVICES, list(MODULES))
    param_names = ("device", "module")
    timeout = 600

    def setup(self, device: str, name: str) -> None:
        self.device, self.name = device, name
        build, self.inputs = MODULES[name]
        self.module = build(device=device)

    def given(self, size: int) -> Inputs:
        return tuple(t.to(self.device) for t in self.inputs(size))

    def compiled(self, backend: str) -> Callable[..., Any]:
        torch._dynamo.reset()
        return torch.compile(self.module, fullgraph=True, dynamic=True, backend=backend)

    def track_compile_time(self, *_: object) -> float:
        """By Inductor without its caches, up to the first result."""
        from torch._inductor import config

        with config.patch(force_disable_caches=True), torch.no_grad():
            compiled, given = self.compiled("inductor"), self.given(20)
            start = time.perf_counter()
            first = compiled(*given)
            seconds = time.perf_counter() - start
            require(largest_difference(first, self.module(*given)), 1e-4, f"{self.name}, compiled")
        return seconds

    track_compile_time.unit = "s"

    def track_graphs(self, *_: object) -> float:
        from torch._dynamo.utils import counters

        compiled = self.compiled("eager")
        counters.clear()
        with torch.no_grad():
            for size in (20, 21, 33, 64, 65):
                given = self.given(size)
                require(largest_difference(compiled(*given), self.module(*given)), 1e-5, f"{self.name}, traced")
        return counters["stats"]["unique_graphs"]

    track_graphs.unit = "graphs"
