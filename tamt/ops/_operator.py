"""An operator of torch: what is known of it, and what torch asks of it.

An operator of ``torch.library.custom_op`` has no forward mode (tangents are lost without a word), ``torch.func`` does
not take it, and its first call imports TorchDynamo, which takes seconds. So these have their own kernels, under three
kinds of keys of torch's dispatcher:

- devices: the reference, or the Triton launcher;
- ``Autograd``: an ``autograd.Function`` around these, where something is differentiated;
- ``FuncTorchDynamicLayerFrontMode``, where a call within a transform of ``torch.func`` arrives: the same
  ``autograd.Function``, which torch takes through the transforms one by one.

Tangents, and the backward of a backward, come from the definition: plain torch, which autograd differentiates itself.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tamt._heap import keep_freed_memory
from tamt._memo import transformed
from tamt.ops._precision import own_precision, precision_is_own
from tamt.shared.given_gradients import gradients

operators: dict[str, Operator] = {}  # by name; each lives as long as its library


@functools.cache
def backend(device_type: str) -> str:
    """What serves a type of device: ``"triton"`` on CUDA and ROCm where triton is installed, else ``"reference"``.

    Parameters
    ----------
    device_type : str
        As ``device.type``: ``"cpu"``, ``"cuda"``, ``"mps"``. torch calls ROCm ``"cuda"``.

    Returns
    -------
    str
        ``"triton"``, the kernels, or ``"reference"``, plain torch.

    Examples
    --------
    >>> from tamt.ops import backend
    >>> backend("cpu")
    'reference'
    """
    return "triton" if device_type == "cuda" and importlib.util.find_spec("triton") else "reference"


def _own_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors with the matrix products inside in :func:`own_precision`."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        device_type = args[0].device.type  # operands come first
        if precision_is_own(device_type):
            return function(*args)
        with own_precision(device_type):
            return function(*args)

    return wrapped


# What TorchDynamo does with a frame that is about to run: None where it does nothing, be it not imported.
_watching: Callable[[], Any] = getattr(
    torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: sys.modules.get("torch._dynamo")
)


def _out_of_sight(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps TorchDynamo from compiling the inside of an operator, where it does not compile what calls it.

    Where it is not at work nothing is done for this, which would import it.
    """
    hidden: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        if _watching() is None:
            return function(*args)
        if not hidden:
            hidden.append(torch.compiler.disable(function))
        return hidden[0](*args)

    return wrapped


def pull_back(
    function: Callable[..., Any], primals: Sequence[Tensor], cotangents: Iterable[Tensor | None]
) -> tuple[Tensor, ...]:
    """Gradients of ``primals`` from those of ``function(*primals)``; None on either side stands for a constant.

    That one of the primals may depend on another does not count.
    """
    used: list[Tensor] = []

    def results(*operands: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(as_tuple(function(*operands)), cotangents, strict=True)
        taken = [(result, grad) for result, grad in pairs if result is not None and grad is not None]
        nothing = operands[0].new_zeros(())  # for torch, which wants a result at least
        used[:] = [grad for _, grad in taken] or [nothing]
        return tuple(result for result, _ in taken) or (nothing,)

    # Views, because a tensor may come from a transform that is over, and only operations unwrap those.
    gradients = torch.func.vjp(results, *(p.view_as(p) for p in primals))[1]
    return gradients(tuple(g.view_as(g) for g in used))


def _plainly_pulled_back(
    function: Callable[..., Any], primals: Sequence[Tensor], cotangents: Iterable[Tensor | None]
) -> tuple[Tensor, ...]:
    """:func:`pull_back` by autograd alone, once: torch.func imports TorchDynamo, which takes seconds."""
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in primals]
        pairs = zip(as_tuple(function(*leaves)), cotangents, strict=True)
        taken = [
            (result, grad) for result, grad in pairs if grad is not None and getattr(result, "requires_grad", False)
        ]
        if not taken:
            return tuple(torch.zeros_like(p) for p in primals)
        results, grads = zip(*taken, strict=True)
        return gradients(results, leaves, grads)


def _zeros(like: tuple[torch.Size, torch.dtype, torch.device]) -> Tensor:
    shape, dtype, device = like
    return torch.zeros(shape, dtype=dtype, device=device)


def as_tuple(results: Any) -> tuple[Any, ...]:
    """What an operator returns, one result or several."""
    return (results,) if isinstance(results, Tensor) else tuple(results)


class Signature(NamedTuple):
    """An operator's schema, taken apart."""

    name: str
    arguments: list[tuple[str, str]]  # type and name
    results: list[str]

    @classmethod
    def of(cls, name: str, schema: str) -> Signature:
        """From a schema without the name, or a ValueError: operands come first, and results have names of their own."""
        argument, several = r"[\w\[\]]+ \w+", r"\(Tensor \w+(?:, Tensor \w+)+\)"
        found = re.fullmatch(rf"\(({argument}(?:, {argument})*)\) -> (Tensor(?: \w+)?|{several})", schema)
        halves = (half.strip("()").split(", ") for half in (found.groups() if found else ("", "")))
        taken, given = ([words.split() for words in half if words] for half in halves)
        signature = cls(name, [(kind, one) for kind, one in taken], [(*words, "result")[1] for words in given])
        operands, names = signature.tensors, [one for _, one in signature.arguments]
        others = [kind for kind, _ in signature.arguments[len(operands) :]]
        twice = len(set(names)) < len(names) or len(set(signature.results)) < len(signature.results)
        if not operands or names[: len(operands)] != operands or any("Tensor" in kind for kind in others) or twice:
            raise ValueError(
                f"the schema of tamt::{name} must be like '(Tensor x, Tensor a, int n) -> (Tensor y, Tensor last)': "
                "tensors, then what is none, without defaults; several results have names, and no name comes twice; "
                f"got {schema!r}"
            )
        return signature

    @property
    def schema(self) -> str:
        """As torch reads it."""
        taken = ", ".join(f"{kind} {name}" for kind, name in self.arguments)
        given = ", ".join(f"Tensor {name}" for name in self.results)
        return f"({taken}) -> " + (f"({given})" if len(self.results) > 1 else "Tensor")

    @property
    def tensors(self) -> list[str]:
        """Names of the operands, which are tensors and come before the parameters."""
        return [name for kind, name in self.arguments if kind == "Tensor"]

    def places(self, names: Iterable[str]) -> list[int]:
        """Positions of operands."""
        return [self._place(name, self.tensors, "operands") for name in names]

    def places_of_results(self, names: Iterable[str]) -> list[int]:
        """Positions of results."""
        return [self._place(name, self.results, "results") for name in names]

    def _place(self, name: str, known: list[str], what: str) -> int:
        if name not in known:
            raise ValueError(f"tamt::{self.name} has no {name!r} among its {what} {', '.join(known)}")
        return known.index(name)


def _never(operands: Sequence[Any]) -> bool:
    return False


@dataclass
class Operator:
    """All that is known of an operator, and what torch asks of it.

    The fields are the arguments of :func:`tamt.ops._register.register`, with places for names.
    """

    signature: Signature
    definition: Callable[..., Any] | None
    forward: Callable[..., Any]
    shapes: Callable[..., Any]
    check: Callable[..., None] | None = None
    launcher: str | None = None
    launched: Sequence[torch.dtype] = ()
    backward: Callable[..., Any] | None = None
    constants: set[int] = field(default_factory=set)  # results
    linear: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)
    sums: Callable[[Sequence[Any]], bool] = _never  # whether, for these operands, results are sums over rows
    common: bool = False
    saves: bool = True
    keeps: Sequence[int] = ()  # results that the backward pass takes
    dtype: torch.dtype | None = None
    library: torch.library.Library = field(init=False, repr=False)

    @functools.cached_property
    def count(self) -> int:
        """Number of operands that are tensors."""
        return len(self.signature.tensors)

    @functools.cached_property
    def call(self) -> torch._ops.OpOverload:
        """The operator itself."""
        return getattr(torch.ops.tamt, self.signature.name).default

    @functools.cached_property
    def on_cuda(self) -> Callable[..., Any]:
        """What a CUDA device has for the operator."""
        return _out_of_sight(_own_precision(self.computed if self.launcher is None else self.launch))

    def call_below(self, *args: Any) -> Any:
        """The operator, without a record for derivatives."""
        with torch._C._AutoDispatchBelowAutograd():
            return self.call(*args)

    def install(self) -> torch._ops.OpOverload:
        """Make torch know the operator."""
        name, count = self.signature.name, self.count
        if name in operators:
            operators.pop(name).library._destroy()
        operators[name] = self
        library = self.library = torch.library.Library("tamt", "FRAGMENT")
        library.define(name + self.signature.schema, tags=(torch.Tag.pt2_compliant_tag,))
        operator, differentiable = self.call, _differentiable(self)
        # What ``Function.apply`` does outside of transforms, without a look at the signature, which takes most of the
        # time.
        apply = super(torch.autograd.Function, differentiable).apply  # type: ignore[misc]

        def autograd(*args: Any) -> Any:
            if transformed() or (torch.is_grad_enabled() and any(t.requires_grad for t in args[:count])):
                return apply(*args)
            return self.call_below(*args)

        library.impl(name, _out_of_sight(_own_precision(self.computed)), "CompositeExplicitAutograd")
        if self.launcher is not None:
            library.impl(name, self.on_cuda, "CUDA")
        torch.library.register_fake(operator, self.fake, lib=library)
        library.impl(name, _out_of_sight(autograd), "Autograd")
        library.impl(name, _out_of_sight(lambda *args: differentiable.apply(*args)), "FuncTorchDynamicLayerFrontMode")
        return operator

    def computed(self, *args: Any) -> Any:
        """The results in plain torch."""
        keep_freed_memory()
        if self.check is not None:
            self.check(*args)
        return self.forward(*args)

    def launch(self, *args: Any) -> Any:
        """The results by Triton kernels where :func:`backend` says so."""
        if backend("cuda") == "reference" or args[0].dtype not in self.launched:
            return self.computed(*args)
        if self.check is not None:
            self.check(*args)
        return self.launched_function(*args)

    @functools.cached_property
    def launched_function(self) -> Callable[..., Any]:
        """The Triton launcher; imports triton."""
        module, function = self.launcher.split(":")  # type: ignore[union-attr]
        return getattr(importlib.import_module(f"tamt.triton_kernels.{module}"), function)

    def fake(self, *args: Any) -> Any:
        """Results without data."""
        if self.check is not None:
            self.check(*args)
        alone = len(self.signature.results) == 1
        shapes = self.shapes(*args)
        made = [args[0].new_empty(shape, dtype=self.dtype) for shape in ([shapes] if alone else shapes)]
        return made[0] if alone else tuple(made)

    def defined(self, *args: Any) -> tuple[Tensor | None, ...]:
        """The results by the definition; None for what is constant."""
        if self.definition is None:
            raise NotImplementedError(f"tamt::{self.signature.name} was asked for a derivative that needs a definition")
        results = as_tuple(self.definition(*args))
        return tuple(None if i in self.constants else result for i, result in enumerate(results))

    def gradients(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """The backward that follows from the definition."""
        saved, wanted = ctx.saved_tensors, [i for i in range(self.count) if ctx.needs_input_grad[i]]

        def function(*primals: Tensor) -> Any:
            operands = dict(enumerate(saved)) | dict(zip(wanted, primals, strict=True))
            return self.defined(*operands.values(), *ctx.parameters)

        again = transformed() or torch.is_grad_enabled()
        found_by = pull_back if again else _plainly_pulled_back
        found = dict(zip(wanted, found_by(function, [saved[i] for i in wanted], grads), strict=True))
        return tuple(found.get(i) for i in range(len(ctx.needs_input_grad)))

    def tangents(self, ctx: Any, given: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Tangents of the results from those of the operands; None stands for zero."""
        primals = [forward_ad.unpack_dual(p, level=0).primal for p in ctx.saved_tensors]
        pairs = list(zip(primals, given, strict=True))
        if all(i in self.linear for i, tangent in enumerate(given) if tangent is not None):
            operands = [
                p if i not in self.linear else torch.zeros_like(p) if t is None else t for i, (p, t) in enumerate(pairs)
            ]
            return list(as_tuple(self.call(*operands, *ctx.parameters)))
        with forward_ad._set_fwd_grad_enabled(True):
            duals = [p if t is None else forward_ad.make_dual(p, t, level=0) for p, t in pairs]
            results = self.defined(*duals, *ctx.parameters)
            return [None if r is None else forward_ad.unpack_dual(r, level=0).tangent for r in results]

    def calls(
        self, function: Callable[..., Any], count: int, dims: Sequence[int | None], operands: Sequence[Any]
    ) -> tuple[tuple[Tensor, ...], int | None]:
        """Results of ``function`` for ``count`` sets of operands, and the dimension that holds them."""
        mapped = {i: operands[i].movedim(d, 0) for i, d in enumerate(dims[: self.count]) if d is not None}
        if count == 0:  # one set of zeros instead, for the shapes
            mapped = {i: t.new_zeros(1, *t.shape[1:]) for i, t in mapped.items()}
        sets = max(1, count)
        if self.rows.issuperset(mapped) and not self.sums(operands):
            every = {i: mapped.get(i, operands[i].expand(sets, *operands[i].shape)).flatten(0, 1) for i in self.rows}
            results = as_tuple(function(*(every.get(i, operand) for i, operand in enumerate(operands))))
            if self.common:
                return results, None
            results = tuple(r.unflatten(0, (sets, r.shape[0] // sets)) for r in results)
        else:
            single = [
                as_tuple(function(*(mapped[i][n] if i in mapped else operand for i, operand in enumerate(operands))))
                for n in range(sets)
            ]
            results = tuple(torch.stack(same) for same in zip(*single, strict=True))
        return tuple(r[:count] for r in results), 0


def _differentiable(own: Operator) -> type[torch.autograd.Function]:
    """The kernels of an operator as one that can be differentiated and mapped."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(*operands: Any) -> Any:
            return own.call_below(*operands)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tensors, results = inputs[: own.count], as_tuple(output)
            ctx.parameters = inputs[own.count :]
            ctx.shapes = [t.shape for t in tensors]
            ctx.results = [(r.shape, r.dtype, r.device) for r in results]
            ctx.set_materialize_grads(False)
            if own.constants:
                ctx.mark_non_differentiable(*(results[i] for i in own.constants))
            ctx.save_for_forward(*tensors)
            if own.saves:
                ctx.save_for_backward(*tensors, *(results[i] for i in own.keeps))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            if own.backward is None:
                return own.gradients(ctx, *grads)
            pairs = enumerate(zip(grads, ctx.results, strict=True))
            return own.backward(
                ctx, *(_zeros(like) if grad is None else grad for i, (grad, like) in pairs if i not in own.constants)
            )

        @staticmethod
        def jvp(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
            known = [None if t is None or t._is_zerotensor() else t for t in given[: own.count]]
            pairs = enumerate(zip(own.tangents(ctx, known), ctx.results, strict=True))
            return tuple(
                None if i in own.constants else _zeros(like) if tangent is None else tangent
                for i, (tangent, like) in pairs
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> Any:
            results, dim = own.calls(Differentiable.apply, info.batch_size, in_dims, operands)
            return (results[0], dim) if len(own.signature.results) == 1 else (results, (dim,) * len(results))

    return Differentiable
