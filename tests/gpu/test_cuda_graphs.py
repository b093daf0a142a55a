"""CUDA graphs of the modules: captured once, replayed with another input, equal to what eager calls give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import tamt

pytestmark = [pytest.mark.gpu, pytest.mark.alone]
FS = 44100


def noise(*shape: int) -> Tensor:
    return 1e-2 * torch.randn(*shape, device="cuda")


def erb_integration() -> tuple[Any, Callable[[], list[Tensor]]]:
    freqs = torch.linspace(0, 16000, 1025, device="cuda")
    module = tamt.ERBIntegration(device="cuda")
    return lambda psd: module(psd, freqs), lambda: [noise(2, 8, 1025).square()]


def roex() -> tuple[Any, Callable[[], list[Tensor]]]:
    freqs = torch.linspace(20, 15000, 300, device="cuda").expand(20, 300).contiguous()
    module = tamt.Moore2016ExcitationPattern(device="cuda")
    return lambda levels: module(freqs, levels), lambda: [40 + 1e3 * noise(20, 300)]


MODULES: dict[str, Callable[[], tuple[Any, Callable[[], list[Tensor]]]]] = {
    "GammatoneFilterbank": lambda: (
        tamt.GammatoneFilterbank([100.0, 1000, 5000], 16000, dtype=torch.float32, device="cuda"),
        lambda: [noise(2, 5003)],
    ),
    "DRNLFilterbank": lambda: (
        tamt.DRNLFilterbank((250, 8000), FS, 8, dtype=torch.float32, device="cuda"),
        lambda: [noise(2, 5003)],
    ),
    "FastDRNLFilterbank": lambda: (
        tamt.FastDRNLFilterbank((250, 8000), FS, 8, dtype=torch.float32, device="cuda"),
        lambda: [noise(2, 5003)],
    ),
    "MultiResolutionFFT": lambda: (tamt.MultiResolutionFFT(device="cuda"), lambda: [noise(2, 16001)]),
    "Moore2016Spectrum": lambda: (
        tamt.Moore2016Spectrum(dtype=torch.float32, max_components=400, device="cuda"),
        lambda: [noise(1, 2, 6400)],
    ),
    "ERBIntegration": erb_integration,
    "ExcitationPattern": lambda: (tamt.ExcitationPattern(device="cuda"), lambda: [50 + 1e3 * noise(20, 150)]),
    "Moore2016ExcitationPattern": roex,
}


def captured(call: Callable[..., Any], given: list[Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    """The call as a graph: given others, it replays with these."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call(*given)

    def replay(others: list[Tensor]) -> list[Tensor]:
        for place, other in zip(given, others, strict=True):
            place.detach().copy_(other)
        graph.replay()
        return [t.clone() for t in tree_leaves(results) if isinstance(t, Tensor)]

    return replay


def check(call: Callable[..., Any], inputs: Callable[[], list[Tensor]]) -> None:
    given, others = inputs(), inputs()
    expected = [t for t in tree_leaves(call(*others)) if isinstance(t, Tensor)]
    found = captured(call, given)(others)
    assert len(found) == len(expected) > 0
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-7 * e.nan_to_num(neginf=0.0).abs().max().item())


@pytest.mark.parametrize("name", MODULES)
def test_forward(name: str) -> None:
    module, inputs = MODULES[name]()
    with torch.no_grad():
        check(module, inputs)


@pytest.mark.parametrize("name", ["GammatoneFilterbank", "DRNLFilterbank"])
def test_forward_and_backward(name: str) -> None:
    module, inputs = MODULES[name]()

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        y = module(x)
        return y.detach(), torch.autograd.grad(y.square().sum(), x)[0]

    check(step, lambda: [t.requires_grad_() for t in inputs()])


def test_a_spectrum_of_all_components_reads_back() -> None:
    """How many components there are decides the shape of the result, which a graph cannot wait for."""
    module = tamt.Moore2016Spectrum(dtype=torch.float32, device="cuda")
    x = noise(1, 2, 6400)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            module(x)
    finally:
        torch.cuda.set_sync_debug_mode(before)
