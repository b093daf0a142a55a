"""What a call costs before a GPU has anything to do: how much it launches, and the host's time.

``python -m asv_bench.kernels.host [--only NAME]``

On ``meta`` tensors, which :func:`standing_in_for_cuda` sends to the launchers as on CUDA. A launch goes the way of a
real one, ``kernel[grid](...)`` and triton's binding of arguments, up to the compiled launcher, which is left out with
its call of the driver, 3 to 5 us. Operations of torch are dispatched and make results of their sizes, in C++ or in
Python, but launch nothing: theirs is another time than on a GPU. So counts are exact, and times are those of this
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs
from triton.runtime.jit import JITFunction

import tamt
from asv_bench.kernels.machine_code import standing_in
from asv_bench.operations import OPERATIONS, Operation, operations
from asv_bench.registry import evenly
from tamt.ops._operator import as_tuple, operators

Call = Callable[[], Any]
SMALL = operations(16000, 30)  # of one row
TARGET = "sm_90"
ROUNDS, ROUND = 20, 5e-3  # and seconds of one


@contextlib.contextmanager
def standing_in_for_cuda() -> Iterator[None]:
    """Inside, operators on ``meta`` tensors run their launchers, or where they have none what they run on CUDA."""
    library, enabled = torch.library.Library("tamt", "IMPL"), torch.is_autocast_enabled
    for name, operator in operators.items():
        library.impl(name, operator.on_cuda, "Meta", allow_override=True)
    try:
        with (
            standing_in(TARGET, first_device=3000),
            patch.object(knobs.runtime, "jit_cache_hook", _instead_of_compiling),
            patch.object(torch, "is_autocast_enabled", lambda device_type: enabled("cuda")),  # meta has none
        ):
            yield
    finally:
        library._destroy()


def _instead_of_compiling(*, key: str, fn: Any, compile: dict[str, Any], **rest: Any) -> bool:
    """Puts a kernel that does nothing where triton keeps those it has compiled."""
    kernel = SimpleNamespace(
        run=lambda *args: None, launch_metadata=lambda *args: None, function=None, packed_metadata=None
    )
    fn.jit_function.device_caches[compile["device"]][0][key] = kernel
    return True  # Triton leaves it at that


class _Seen(TorchDispatchMode):
    """Operations of torch, also those within operators, which are called in its sight."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            if func.namespace == "tamt":
                return operators[func._schema.name.partition("::")[2]].on_cuda(*args)
            result = func.decompose(*args, **kwargs)  # below autograd, compositions of operations arrive as one
        if result is not NotImplemented:
            return result
        self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)

    def launched(self) -> int:
        """How many of them have work for a GPU: no views, and not only memory. Most launch one kernel."""
        idle = ("empty", "detach", "_unsafe_view")
        return sum(not (f.is_view or any(word in f._schema.name for word in idle)) for f, *_ in self.calls)


class Launches(NamedTuple):
    """What a call launches."""

    kernels: Counter[str]
    torch: int  # operations

    def row(self) -> dict[str, int]:
        return {"kernels": self.kernels.total(), "torch": self.torch}


def launches(call: Call) -> Launches:
    """What a call launches, inside of :func:`standing_in_for_cuda`."""
    names: Counter[str] = Counter()
    run = JITFunction.run

    def count(self: JITFunction, *args: Any, **options: Any) -> Any:
        names[self.fn.__name__] += 1
        return run(self, *args, **options)

    with patch.object(JITFunction, "run", count), _Seen() as seen:
        call()
    return Launches(names, seen.launched())


def calls(operation: Operation, rows: int) -> Iterator[tuple[str, Call]]:
    """Forward and backward of an operation, as autograd calls them."""
    torch.manual_seed(0)
    operands = operation.operands(rows, "meta")
    forward, backward = (operators[operation.operator + suffix] for suffix in ("", "_backward"))
    yield "forward", partial(forward.call_below, *operands)
    outputs = list(as_tuple(forward.fake(*operands)))
    grads = [torch.empty_like(output) for output in outputs]
    yield "backward", partial(backward.call_below, *operation.given(grads, outputs, operands))


def launch_rows(name: str) -> Iterator[dict[str, Any]]:
    """Launches of an operation at its reference load, and of a row of it with few samples and channels."""
    with standing_in_for_cuda():
        pairs = zip(calls(OPERATIONS[name], OPERATIONS[name].rows), calls(SMALL[name], 1), strict=True)
        for (direction, call), (_, small) in pairs:
            found = {"reference": launches(call).row(), "small": launches(small).row()}
            yield {"operation": name, "direction": direction, **found}


def seconds(call: Call) -> float:
    """Of a call, the least of some rounds, in the time of this thread alone."""
    call()
    repeat, found = 1, 0.0
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(repeat):
            call()
        found = (time.thread_time() - start) / repeat
        best, repeat = min(best, found), max(1, int(ROUND / max(found, 1e-6)))
    return best


class Cost(NamedTuple):
    """Seconds of the host for a call: all, those in triton, and those that operations of torch take by themselves.

    What is left is tamt's. Operations are called again one by one, from Python, which takes longer: theirs are at most
    so many.
    """

    all: float
    triton: float
    torch: float


def cost(call: Call) -> Cost:
    with _Seen() as seen:
        call()

    def operations_alone() -> None:
        for func, args, kwargs in seen.calls:
            func(*args, **kwargs)

    total = seconds(call)
    with patch.object(JITFunction, "run", lambda self, *args, **options: None):
        bare = seconds(call)
    return Cost(total, total - bare, seconds(operations_alone))


def modules() -> Iterator[tuple[str, Call]]:
    """Modules forward, and forward and backward to what they learn, with a second of one signal."""
    gammatone = partial(tamt.GammatoneFilterbank, evenly(30, 100, 7000), 16000)
    drnl = partial(tamt.DRNLFilterbank, (250, 7000), 16000, 30, dtype=torch.float32)
    fast = partial(tamt.FastDRNLFilterbank, (250, 7000), 16000, 30, dtype=torch.float32)
    kinds = {
        "gammatone": gammatone,
        "DRNL": drnl,
        "FastDRNL": fast,
        "cochleagram": lambda learnable: tamt.Cochleagram(gammatone(learnable=learnable), 160, detector="power"),
        "DRNL cochleagram": lambda learnable: tamt.Cochleagram(drnl(learnable=learnable), 160, detector="power"),
    }
    x = torch.empty(1, 16000, device="meta")
    for name, kind in kinds.items():
        fixed, learnt = (kind(learnable=learnable).to("meta") for learnable in (False, True))
        grad = torch.empty_like(fixed(x))
        parameters = list(learnt.parameters())
        yield f"{name}, forward", partial(_without_gradients, fixed, x)
        yield f"{name}, training", partial(_training_step, learnt, x, parameters, grad)


def _without_gradients(module: torch.nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        module(x)


def _training_step(module: torch.nn.Module, x: torch.Tensor, parameters: list[torch.Tensor], grad: Any) -> None:
    torch.autograd.grad(module(x), parameters, grad, allow_unused=True)


def report(only: str = "") -> Iterator[str]:
    """A line for every operation and module: launches, and microseconds of the host."""
    yield f"{'call, 1 x 1 s x 30 or the like':44} kernels torch    all us  triton   torch    tamt"
    with standing_in_for_cuda():
        given = [(f"{name}, {way}", call) for name, one in SMALL.items() for way, call in calls(one, 1)]
        for name, call in (*given, *modules()):
            if only in name:
                found, spent = launches(call).row(), cost(call)
                rest = spent.all - spent.triton - spent.torch
                times = "".join(f"{1e6 * s:8.0f}" for s in (*spent, rest))
                yield f"{name:44} {found['kernels']:7} {found['torch']:5}  {times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a call's name")
    for line in report(parser.parse_args().only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
