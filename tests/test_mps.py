"""Every module in float32 on an Apple GPU against the CPU; on any machine, that MPS has all that they call."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asv_bench.benchmarks.modules import results
from asv_bench.registry import MODULES

both_kinds = pytest.mark.parametrize("learnable", [False, True])
every_module = pytest.mark.parametrize("name", MODULES)


def both_passes(name: str, learnable: bool, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the inputs and parameters, on the CPU."""
    module = MODULES[name].build(learnable, device)
    given = [t.to(device).requires_grad_() for t in MODULES[name].inputs(3)]
    outputs = results(module(*given))
    smooth = [t for t in outputs if t.requires_grad]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator).to(device) for t in smooth]
    gradients = torch.autograd.grad(smooth, [*given, *module.parameters()], weights)
    return [t.detach().cpu() for t in outputs], [t.cpu() for t in gradients]


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")
@both_kinds
@every_module
def test_against_the_cpu(name: str, learnable: bool) -> None:
    there, here = (both_passes(name, learnable, device) for device in ("mps", "cpu"))
    for tensors, expected, tolerance in zip(there, here, (1e-4, 1e-3), strict=True):
        for a, e in zip(tensors, expected, strict=True):
            assert a.dtype == e.dtype
            assert torch.isfinite(a).all()
            assert (a - e).abs().max() <= tolerance * e.abs().max()


class Calls(TorchDispatchMode):
    """Notes the operations inside, those of tamt's operators instead of the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "tamt":
            with self:
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **(kwargs or {}))
        self.names.add(func._schema.name.removeprefix("aten::") + f".{func._overloadname}".removesuffix(".default"))
        return func(*args, **(kwargs or {}))


def operations_of_mps() -> set[str]:
    """Names from torch's own table of those that MPS has, or that are made of others on every device."""
    (folder,) = importlib.util.find_spec("torchgen").submodule_search_locations
    entries = (Path(folder) / "packaged/ATen/native/native_functions.yaml").read_text().split("\n- func: ")[1:]
    table = {entry.partition("(")[0]: entry for entry in entries}
    found = set()
    for name, entry in table.items():
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)
        _, listed, dispatch = table[delegate[1] if delegate else name].partition("\n  dispatch:\n")
        keys = re.findall(r"\w+", " ".join(re.findall(r"^    ([\w, ]+):", dispatch, re.MULTILINE)))
        if not listed or any(key == "MPS" or key.startswith("Composite") for key in keys):
            found.add(name)
    return found


@pytest.fixture(scope="module")
def available() -> set[str]:
    found = operations_of_mps()
    assert {"mm", "add.Tensor", "_fft_r2c", "zeros"} <= found
    assert "geqrf" not in found  # for CPU and CUDA alone
    return found


@both_kinds
@every_module
def test_mps_has_every_operation(name: str, learnable: bool, available: set[str]) -> None:
    with Calls() as calls:
        both_passes(name, learnable, "cpu")
    assert len(calls.names) > 10
    assert calls.names <= available


class NoWideTypesOnMeta(TorchDispatchMode):
    """Raise when a float64 tensor is made on the device ``meta``, which stands for one that has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.is_meta and leaf.dtype in (torch.float64, torch.complex128):
                raise AssertionError(f"{func} makes a {leaf.dtype} tensor on the device")
        return out


@both_kinds
@every_module
def test_construction_makes_no_float64_on_the_device(name: str, learnable: bool) -> None:
    with NoWideTypesOnMeta():
        module = MODULES[name].build(learnable, "meta")
    assert all(t.is_meta for t in module.state_dict().values())
