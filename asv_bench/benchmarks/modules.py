"""What concerns every module alike: construction, compilation, and the graphs it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asv_bench.registry import MODULES, Inputs

from .common import DEVICES, Load, require, timing


def results(output: Any) -> list[Tensor]:
    return list(output) if isinstance(output, tuple | list) else [output]


def largest_difference(actual: Any, expected: Any) -> float:
    pairs = zip(results(actual), results(expected), strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


class Construction(Load):
    params = (DEVICES, list(MODULES), ["fixed", "learnable"])
    param_names = ("device", "module", "kind")

    def setup(self, device: str, name: str, kind: str) -> None:
        self.device, self.module, self.learnable = device, MODULES[name], kind == "learnable"
        if self.learnable and not self.module.learnable:
            raise NotImplementedError(f"{name} learns nothing")
        given = self.module.inputs(20)
        found = [t.cpu() for t in results(self.new()(*(t.to(device) for t in given)))]
        expected = results(self.module.build(self.learnable)(*given))
        require(largest_difference(found, expected), 1e-4, f"{name} {device}")

    def new(self) -> nn.Module:
        return self.module.build(self.learnable, self.device)

    time_construction = timing("new")


class Compilation:
    """Fixed modules under ``torch.compile(fullgraph=True, dynamic=True)``: seconds, and graphs for five lengths."""

    params = (DEVICES, list(MODULES))
    param_names = ("device", "module")
    timeout = 600

    def setup(self, device: str, name: str) -> None:
        self.device, self.name, self.inputs = device, name, MODULES[name].inputs
        self.module = MODULES[name].build(device=device)

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
