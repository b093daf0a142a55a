"""Products stay in float32 where the global switches and autocast allow less."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import assert_close, example_operands
from modules import CASES, Case, cases, tensors
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tamt.ops._precision import own_precision
from tamt.ops.iir import KINDS, iir
from tamt.ops.product import product


def slow(*names: str) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "dot", "_int_mm", "linear"}


def is_product(operator: Any) -> bool:
    return operator.namespace == "aten" and operator._schema.name.removeprefix("aten::").rstrip("_") in PRODUCTS


def switches() -> tuple[str, ...]:
    return tuple(
        getattr(torch._C, "_get_fp32_precision_getter", lambda *_: torch.get_float32_matmul_precision())(*switch)
        for switch in (("cuda", "matmul"), ("mkldnn", "matmul"))
    )


class Bfloat16Products(TorchDispatchMode):
    """A processor that does as it is allowed: products of float32 from operands in bfloat16, inside operators too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "tamt":
            with self:
                return func.redispatch(CPU, *args, **(kwargs or {}))
        if is_product(func) and not {"ieee", "none", "highest"}.issuperset(switches()):
            args = tree_map_only(Tensor, lambda t: t.bfloat16().to(t) if t.dtype == torch.float32 else t, args)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["set_float32_matmul_precision", "fp32_precision"])
def allowed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Less than float32 is allowed, by the old switch or by the new ones."""
    if request.param == "set_float32_matmul_precision":
        torch.set_float32_matmul_precision("medium")
    elif hasattr(torch._C, "_set_fp32_precision_setter"):
        torch._C._set_fp32_precision_setter("mkldnn", "matmul", "bf16")
        torch._C._set_fp32_precision_setter("cuda", "matmul", "tf32")
    else:
        pytest.skip("this torch has only the old switch")
    before = switches()
    yield
    assert switches() == before
    torch.set_float32_matmul_precision("highest")
    if hasattr(torch._C, "_set_fp32_precision_setter"):
        for backend in ("mkldnn", "cuda"):
            torch._C._set_fp32_precision_setter(backend, "matmul", "none")


def single(case: Case) -> nn.Module:
    """A learnable module that computes in float32."""
    return case.make(learnable=True)


def results(module: nn.Module, case: Case) -> list[Tensor]:
    """Outputs, and gradients to the signal and to all parameters."""
    first, *rest = (t.detach().clone().requires_grad_() for t in case.inputs())
    outputs = tensors(module(first, *(t.detach() for t in rest)))
    loss = sum(y.square().mean() for y in outputs if y.requires_grad)
    return [*outputs, *torch.autograd.grad(loss, [first, *module.parameters()])]


@cases
def test_products_of_modules(case: Case, allowed: None) -> None:
    module = single(case)
    wanted = results(module, case)
    with Bfloat16Products():
        found = results(module, case)
        assert not torch.equal(torch.ones(2, 2) / 3 @ torch.ones(2, 2), torch.ones(2, 2) / 3 + torch.ones(2, 2) / 3)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_filters(kind: str, allowed: None) -> None:
    def gradients() -> tuple[Tensor, ...]:
        x, coef, state = (t.float().requires_grad_() for t in example_operands(kind, 2, 130, False))
        y, final = iir(x, coef, state, kind, 2)
        return torch.autograd.grad(y.square().sum() + final.square().sum(), (x, coef, state))

    wanted = gradients()
    with Bfloat16Products():
        for a, b in zip(gradients(), wanted, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        "GammatoneFilterbank",
        "DRNLFilterbank",
        "ERBIntegration",
        *slow("MultiResolutionFFT", "Moore2016Spectrum", "Moore2016Spectrum joint threshold"),
    ],
)
def test_products_in_graphs(name: str) -> None:
    """A compiled graph holds none but inside operators, where its precision is theirs."""
    found: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        for node in graph.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload):
                found.append(str(node.target))
                assert not is_product(node.target), node
        return make_boxed_func(graph.forward)

    case = CASES[name]
    module = single(case)
    graph = torch.compile(module, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep), fullgraph=True)
    first, *rest = case.inputs()
    first.requires_grad_()
    loss = sum(y.square().mean() for y in tensors(graph(first, *rest)) if y.requires_grad)
    loss.backward()
    assert any(target.startswith("tamt.") for target in found)


def test_threads_leave_the_switch_as_it_was(allowed: None) -> None:
    before = switches()
    inside, leave = threading.Barrier(5), threading.Barrier(5)

    def work() -> None:
        with own_precision("cpu"), own_precision("cpu"):
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert {"ieee", "highest"}.issuperset(switches())
    leave.wait()
    for thread in threads:
        thread.join()
    assert switches() == before


@pytest.mark.parametrize("shapes", [((5,), (5, 3)), ((2, 0, 5), (5, 3)), ((2, 4, 5), (5, 3)), ((2, 4, 5), (2, 5, 3))])
def test_product(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert_close(product(a, b).detach(), (a @ b).detach(), 1e-15)
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=a.numel() > 0)
    assert torch.autograd.gradgradcheck(product, (a, b))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = product(a.detach().float(), b.detach().float())
    assert torch.equal(single, a.detach().float() @ b.detach().float())


def test_products_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"a and b must have the shapes .* got \(2, 3\) and \(4, 5\)"):
        product(torch.zeros(2, 3), torch.zeros(4, 5))
    with pytest.raises(TypeError, match=re.escape("a must be float32 or float64, got torch.int64")):
        product(torch.zeros(2, 3).long(), torch.zeros(3, 5))
    with pytest.raises(
        TypeError, match=re.escape("b must have a's type and device, torch.float32 on cpu, got torch.float64")
    ):
        product(torch.zeros(2, 3), torch.zeros(3, 5).double())
