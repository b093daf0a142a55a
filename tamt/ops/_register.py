"""Turns a reference, a Triton launcher, a shape function and a definition into one operator of torch.

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
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tamt._memo import transformed
from tamt.ops._precision import own_precision

_libraries: dict[str, torch.library.Library] = {}  # an operator lives as long as its library


@functools.cache
def backend(device_type: str) -> str:
    """What serves a type of device: ``"triton"`` on CUDA and ROCm where triton is installed, else ``"reference"``."""
    return "triton" if device_type == "cuda" and importlib.util.find_spec("triton") else "reference"


def _own_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors with the matrix products inside in :func:`own_precision`."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        with own_precision(next(a for a in args if isinstance(a, Tensor)).device.type):
            return function(*args)

    return wrapped


def _out_of_sight(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps TorchDynamo from compiling the inside of an operator, where it does not compile what calls it.

    Where it has not been imported it cannot, and it is not imported for this.
    """
    hidden: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args)
        if not hidden:
            hidden.append(torch.compiler.disable(function))
        return hidden[0](*args)

    return wrapped


def _launch(reference: Callable[..., Any], launcher: str) -> Callable[..., Any]:
    """``launcher`` where :func:`backend` says so, else ``reference``."""

    def launch(*args: Any) -> Any:
        if backend("cuda") == "reference":
            return reference(*args)
        module, function = launcher.split(":")
        return getattr(importlib.import_module(f"tamt.triton_kernels.{module}"), function)(*args)

    return launch


def pull_back(
    function: Callable[..., Any], primals: Sequence[Tensor], cotangents: Iterable[Tensor | None]
) -> tuple[Tensor, ...]:
    """Gradients of ``primals`` from those of ``function(*primals)``; None on either side stands for a constant.

    That one of the primals may depend on another does not count.
    """
    used: list[Tensor] = []

    def results(*operands: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(_as_tuple(function(*operands)), cotangents, strict=True)
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
        pairs = zip(_as_tuple(function(*leaves)), cotangents, strict=True)
        taken = [
            (result, grad) for result, grad in pairs if grad is not None and getattr(result, "requires_grad", False)
        ]
    if not taken:
        return tuple(torch.zeros_like(p) for p in primals)
    results, grads = zip(*taken, strict=True)
    return torch.autograd.grad(results, leaves, grads, materialize_grads=True)


def _zeros(like: tuple[torch.Size, torch.dtype, torch.device]) -> Tensor:
    shape, dtype, device = like
    return torch.zeros(shape, dtype=dtype, device=device)


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def _undefined(*operands: Any) -> Any:
    raise NotImplementedError("an operator that has no definition was asked for a derivative that needs it")


class _Rules(NamedTuple):
    """How to differentiate an operator and how to call it for many sets of operands; see :func:`register`."""

    operator: torch._ops.OpOverload
    definition: Callable[..., Any]
    tensors: int  # so many operands, the first
    linear: set[int]
    rows: set[int]
    sums: int | bool  # of a flag, its place among the operands
    common: bool

    def gradients(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """The backward that follows from the definition."""
        saved, wanted = ctx.saved_tensors, [i for i in range(self.tensors) if ctx.needs_input_grad[i]]

        def function(*primals: Tensor) -> Any:
            operands = dict(enumerate(saved)) | dict(zip(wanted, primals, strict=True))
            return self.definition(*operands.values(), *ctx.parameters)

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
            return list(_as_tuple(self.operator(*operands, *ctx.parameters)))
        with forward_ad._set_fwd_grad_enabled(True):
            duals = [p if t is None else forward_ad.make_dual(p, t, level=0) for p, t in pairs]
            results = _as_tuple(self.definition(*duals, *ctx.parameters))
            return [None if r is None else forward_ad.unpack_dual(r, level=0).tangent for r in results]

    def calls(
        self, function: Callable[..., Any], count: int, dims: Sequence[int | None], operands: Sequence[Any]
    ) -> tuple[tuple[Tensor, ...], int | None]:
        """Results of ``function`` for ``count`` sets of operands, and the dimension that holds them."""
        mapped = {i: operands[i].movedim(d, 0) for i, d in enumerate(dims[: self.tensors]) if d is not None}
        if count == 0:  # one set of zeros instead, for the shapes
            mapped = {i: t.new_zeros(1, *t.shape[1:]) for i, t in mapped.items()}
        sets = max(1, count)
        if self.rows.issuperset(mapped) and not (self.sums if isinstance(self.sums, bool) else operands[self.sums]):
            every = {i: mapped.get(i, operands[i].expand(sets, *operands[i].shape)).flatten(0, 1) for i in self.rows}
            results = _as_tuple(function(*(every.get(i, operand) for i, operand in enumerate(operands))))
            if self.common:
                return results, None
            results = tuple(r.unflatten(0, (sets, r.shape[0] // sets)) for r in results)
        else:
            single = [
                _as_tuple(function(*(mapped[i][n] if i in mapped else operand for i, operand in enumerate(operands))))
                for n in range(sets)
            ]
            results = tuple(torch.stack(same) for same in zip(*single, strict=True))
        return tuple(r[:count] for r in results), 0


def _differentiable(
    rules: _Rules, setup_context: Callable[..., None] | None, backward: Callable[..., Any] | None
) -> type[torch.autograd.Function]:
    """The kernels of an operator as one that can be differentiated and mapped."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(*operands: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return rules.operator(*operands)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tensors = inputs[: rules.tensors]
            ctx.parameters = inputs[rules.tensors :]
            ctx.results = [(r.shape, r.dtype, r.device) for r in _as_tuple(output)]
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*(r for r in _as_tuple(output) if not r.is_floating_point()))
            ctx.save_for_forward(*tensors)
            if setup_context is None:
                ctx.save_for_backward(*tensors)
            else:
                setup_context(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            if backward is None:
                return rules.gradients(ctx, *grads)
            pairs = zip(grads, ctx.results, strict=True)
            return backward(ctx, *(_zeros(like) if grad is None else grad for grad, like in pairs))

        @staticmethod
        def jvp(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
            known = [None if t is None or t._is_zerotensor() else t for t in given[: rules.tensors]]
            pairs = zip(rules.tangents(ctx, known), ctx.results, strict=True)
            return tuple(
                _zeros(like) if tangent is None and like[1].is_floating_point else tangent for tangent, like in pairs
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> Any:
            results, dim = rules.calls(Differentiable.apply, info.batch_size, in_dims, operands)
            alone = len(rules.operator._schema.returns) == 1
            return (results[0], dim) if alone else (results, (dim,) * len(results))

    return Differentiable


def register(
    name: str,
    schema: str,
    reference: Callable[..., Any],
    launcher: str | None,
    fake: Callable[..., Any],
    definition: Callable[..., Any] | None,
    *,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    linear: Sequence[str] = (),
    rows: Sequence[str] = (),
    sums: str | bool = False,
    common: bool = False,
) -> torch._ops.OpOverload:
    """Operator ``tamt::name``: the Triton ``launcher`` where :func:`backend` says so, ``reference`` elsewhere.

    It is called by position: tensors first, then the parameters that are none. It works with autograd in both modes, of
    any order, with the transforms of ``torch.func``, and as one node of ``torch.compile`` and ``torch.export``.

    Parameters
    ----------
    name, schema : str
        Its schema without the name.
    reference : callable
        Plain torch for every device, which may write in place.
    launcher : str or None
        ``"module:function"`` in ``tamt.triton_kernels``, imported at the first call, so that tamt works without triton;
        None where there are no kernels.
    fake : callable
        Checks shapes and gives the strides of the results.
    definition : callable or None
        The same results from operations that torch differentiates and maps: out of place, nothing read from the data.
        None in place of a result means that it is constant. It may be left out where ``linear`` and ``backward`` cover
        all there is.
    setup_context, backward : callable, optional
        As of :class:`torch.autograd.Function`, ``backward`` in public operations; without them the definition is pulled
        back. All gradients are tensors.
    linear : sequence of str
        Operands in which the operator, the others given, is linear: for their tangents it is called again.
    rows : sequence of str
        Operands whose first dimensions are rows that do not know of each other, the same for all of them and for the
        results: ``torch.vmap`` over these is one call with more rows; over others it is a loop.
    sums : str or bool
        Whether results are sums over rows all the same, or the parameter that says so.
    common : bool
        Whether the results are one for all rows, as a maximum is: mapped over, one for all.
    """
    if name in _libraries:
        _libraries.pop(name)._destroy()
    library = _libraries[name] = torch.library.Library("tamt", "FRAGMENT")
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.tamt, name).default
    operands = {argument.name: i for i, argument in enumerate(operator._schema.arguments)}
    rules = _Rules(
        operator,
        definition or _undefined,
        sum(str(argument.type) == "Tensor" for argument in operator._schema.arguments),
        {operands[one] for one in linear},
        {operands[one] for one in rows},
        operands[sums] if isinstance(sums, str) else sums,
        common,
    )
    if definition is None and (backward is None or len(rules.linear) < rules.tensors):
        raise ValueError(f"tamt::{name} needs a definition: its backward or its tangents would have none")
    differentiable = _differentiable(rules, setup_context, backward)
    # What ``Function.apply`` does outside of transforms, without a look at the signature, which takes most of the time.
    apply = super(torch.autograd.Function, differentiable).apply  # type: ignore[misc]
    tensors = rules.tensors

    def autograd(*args: Any) -> Any:
        if transformed() or (torch.is_grad_enabled() and any(t.requires_grad for t in args[:tensors])):
            return apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    library.impl(name, _out_of_sight(_own_precision(reference)), "CompositeExplicitAutograd")
    if launcher is not None:
        library.impl(name, _out_of_sight(_own_precision(_launch(reference, launcher))), "CUDA")
    torch.library.register_fake(operator, fake, lib=library)
    library.impl(name, _out_of_sight(autograd), "Autograd")
    library.impl(name, _out_of_sight(lambda *args: differentiable.apply(*args)), "FuncTorchDynamicLayerFrontMode")
    return operator
