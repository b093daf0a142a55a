"""The device of a run, and its clocks: a GPU, or for a rehearsal the CPU through the kernels' launchers."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ASLEEP = 1 << 26  # clock cycles, some 40 ms, in which the queue fills
SECONDS = 0.3  # of a figure, about
LAUNCHERS = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
Call = Callable[[], Any]


class Launched(TorchDispatchMode):
    """Operators of tamt go to their launchers on whatever device, as Triton's interpreter takes tensors of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if func.namespace == "tamt" and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"):
            return func.redispatch(LAUNCHERS, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Device:
    """Where and how calls run and are timed."""

    def __init__(self, rehearse: bool) -> None:
        self.rehearse = rehearse
        self.name = "cpu" if rehearse else "cuda"

    def size(self, full: Any, tiny: Any) -> Any:
        """A size of this run."""
        return tiny if self.rehearse else full

    def inside(self) -> contextlib.AbstractContextManager[Any]:
        """Operators called inside run kernels."""
        return Launched() if self.rehearse else contextlib.nullcontext()

    def result(self, call: Call) -> Any:
        with self.inside():
            return call()

    def synchronize(self) -> None:
        if not self.rehearse:
            torch.cuda.synchronize()

    def rounds(self, call: Call) -> int:
        """How often to time a call, which this also warms up."""
        self.result(call)
        return 1 if self.rehearse else max(3, min(20, int(SECONDS / (self.wall(call, 1) + 0.02))))

    def seconds(self, call: Call) -> float:
        """On the device, between events before and after a call whose launches are all queued: median of rounds."""
        rounds = self.rounds(call)
        return self.wall(call, rounds) if self.rehearse else statistics.median(between(call) for _ in range(rounds))

    def wall(self, call: Call, rounds: int) -> float:
        """From launch to launch: calls one after the other, the device awaited once at their end."""
        self.synchronize()
        start = time.perf_counter()
        with self.inside():
            for _ in range(rounds):
                call()
        self.synchronize()
        return (time.perf_counter() - start) / rounds

    def launch_to_launch(self, call: Call) -> float:
        """:meth:`wall` of as many calls as take a while."""
        if self.rehearse:
            return self.wall(call, 1)
        self.wall(call, 2)
        return self.wall(call, max(3, min(200, int(SECONDS / self.wall(call, 1)))))

    def graphed(self, call: Call) -> Call | None:
        """The replay of a CUDA graph of the call; None in a rehearsal."""
        if self.rehearse:
            return None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = call()  # the results live as long as the graph
        return lambda: (graph.replay(), kept)[0]

    def bandwidth(self) -> float:
        """Bytes/s of a copy of 4 GB, read and written."""
        source = torch.ones(self.size(1 << 29, 1 << 16), device=self.name)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source))

    def empty(self) -> None:
        if not self.rehearse:
            torch.cuda.empty_cache()


def between(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(ASLEEP)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return 1e-3 * start.elapsed_time(end)
