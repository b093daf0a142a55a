"""One way to make an operator of torch: from a definition, two passes, and what the Triton kernels offer.

:func:`register` is told what an operation is (``definition``), how it is done (``forward``, ``backward``, a launcher of
kernels each), what it takes (``check``) and gives (``shapes``). What torch wants beside that follows: results without
data, the filter by needed gradients, derivatives of any order in both modes, mapping, and the operator of the backward
pass.

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

from tamt._memo import transformed
from tamt.ops._precision import own_precision
from tamt.shared.nonfinite import silenced

operators: dict[str, Operator] = {}  # by name; each lives as long as its library


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


class Signature(NamedTuple):
    """An operator's schema, taken apart."""

    name: str
    arguments: list[tuple[str, str]]  # type and name
    results: list[str]

    @classmethod
    def of(cls, name: str, schema: str) -> Signature:
        """From a schema without the name."""
        taken, given = re.fullmatch(r"\((.*)\) -> \(?([^()]*)\)?", schema).groups()  # type: ignore[union-attr]
        arguments = [words.split() for words in taken.split(", ")]
        results = [words.split() for words in given.split(", ")]
        return cls(name, [(kind, name) for kind, name in arguments], [(*words, "result")[1] for words in results])

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
        """Positions of arguments."""
        every = [name for _, name in self.arguments]
        return [every.index(name) for name in names]


class Backward(NamedTuple):
    """The backward pass of an operator ``tamt::name``, which becomes the operator ``tamt::name_backward``.

    It takes, by position: the gradients of the results that have one, all operands, the results of ``keeps``, the
    parameters, and the flags of ``needs``. It is differentiated by pulling back the definition of the operator.

    Attributes
    ----------
    function : callable
        Plain torch for every device, which may write in place: a tensor for each of ``of``.
    of : str
        Operands whose gradients it gives, in its order.
    launcher : str or None
        As in :func:`register`.
    keeps : str
        Results that it takes.
    needs : sequence of str
        Groups of operands whose gradients are worth leaving out. The flag ``need_``, with the name of a group's first,
        says that one of the group is needed; without it their gradients are empty.
    silences : str
        Operands in which what is not finite is 0 here, as it has no part in a loss of what it did not reach. Not where
        the operator is linear in all that is needed: there these operands' values do not enter.
    """

    function: Callable[..., Any]
    of: str
    launcher: str | None = None
    keeps: str = ""
    needs: Sequence[str] = ()
    silences: str = ""


def _never(operands: Sequence[Any]) -> bool:
    return False


@dataclass
class Operator:
    """All that is known of an operator, places in place of names, and what torch asks of it; see :func:`register`."""

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

    @property
    def count(self) -> int:
        """Number of operands that are tensors."""
        return len(self.signature.tensors)

    @functools.cached_property
    def call(self) -> torch._ops.OpOverload:
        """The operator itself."""
        return getattr(torch.ops.tamt, self.signature.name).default

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
            with torch._C._AutoDispatchBelowAutograd():
                return operator(*args)

        library.impl(name, _out_of_sight(_own_precision(self.computed)), "CompositeExplicitAutograd")
        if self.launcher is not None:
            library.impl(name, _out_of_sight(_own_precision(self.launch)), "CUDA")
        torch.library.register_fake(operator, self.fake, lib=library)
        library.impl(name, _out_of_sight(autograd), "Autograd")
        library.impl(name, _out_of_sight(lambda *args: differentiable.apply(*args)), "FuncTorchDynamicLayerFrontMode")
        return operator

    def computed(self, *args: Any) -> Any:
        """The results in plain torch."""
        if self.check is not None:
            self.check(*args)
        return self.forward(*args)

    def launch(self, *args: Any) -> Any:
        """The results by Triton kernels where :func:`backend` says so."""
        if backend("cuda") == "reference" or args[0].dtype not in self.launched:
            return self.computed(*args)
        module, function = self.launcher.split(":")  # type: ignore[union-attr]
        return getattr(importlib.import_module(f"tamt.triton_kernels.{module}"), function)(*args)

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
        results = _as_tuple(self.definition(*args))
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
            return list(_as_tuple(self.call(*operands, *ctx.parameters)))
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


def _differentiable(own: Operator) -> type[torch.autograd.Function]:
    """The kernels of an operator as one that can be differentiated and mapped."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(*operands: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return own.call(*operands)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tensors, results = inputs[: own.count], _as_tuple(output)
            ctx.parameters = inputs[own.count :]
            ctx.shapes = [t.shape for t in tensors]
            ctx.results = [(r.shape, r.dtype, r.device) for r in results]
            ctx.set_materialize_grads(False)
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


def register(
    name: str,
    schema: str,
    *,
    definition: Callable[..., Any] | None,
    forward: Callable[..., Any],
    shapes: Callable[..., Any],
    check: Callable[..., None] | None = None,
    backward: Backward | Callable[..., Any] | None = None,
    launcher: str | None = None,
    launched: Sequence[torch.dtype] = (torch.float32, torch.float64),
    constants: str = "",
    linear: str = "",
    rows: str = "",
    common: bool = False,
    saves: bool = True,
    dtype: torch.dtype | None = None,
) -> torch._ops.OpOverload:
    """Operator ``tamt::name``: the Triton ``launcher`` where :func:`backend` says so, ``forward`` elsewhere.

    It is called by position: operands, which are tensors, then parameters, which are none. It works with autograd in
    both modes, of any order, with the transforms of ``torch.func``, and as one node of ``torch.compile`` and
    ``torch.export``. Several names are one string, with spaces between.

    Parameters
    ----------
    name, schema : str
        The schema is without the name: ``(Tensor x, int n) -> Tensor``. Several results have names.
    definition : callable or None
        The results from operations that torch differentiates and maps: out of place, nothing read from the data. It may
        be left out where the operator is ``linear`` in all operands and ``backward`` is a function.
    forward : callable
        Plain torch for every device, which may write in place. Results are contiguous.
    shapes : callable
        From operands and parameters the shape of the result, or those of the results.
    check : callable, optional
        Raises for operands that do not belong together.
    backward : Backward or callable, optional
        The backward pass; or a function of a context and the gradients of the results, in public operations, as of
        :class:`torch.autograd.Function`: the context has ``saved_tensors`` and ``shapes`` of the operands, and
        ``parameters``. Without it the definition is pulled back.
    launcher : str, optional
        ``"module:function"`` in ``tamt.triton_kernels``, imported at the first call, so that tamt works without triton.
    launched : sequence of torch.dtype
        Types of the first operand that launchers take; others go through ``forward``.
    constants : str
        Results without gradient, for which the definition may give None.
    linear : str
        Operands in which the operator, the others given, is linear: for their tangents it is called again.
    rows : str
        Operands whose first dimensions are rows that do not know of each other, the same for all of them and for the
        results: ``torch.vmap`` over these is one call with more rows; over others it is a loop.
    common : bool
        Whether the results are one for all rows, as a maximum is: mapped over, one for all.
    saves : bool
        Whether a ``backward`` that is a function takes the operands.
    dtype : torch.dtype, optional
        Of the results, if not that of the first operand.
    """
    signature = Signature.of(name, schema)
    if definition is None and (not callable(backward) or set(linear.split()) != set(signature.tensors)):
        raise ValueError(f"tamt::{name} needs a definition: its backward or its tangents would have none")
    own = Operator(
        signature,
        definition,
        forward,
        shapes,
        check,
        launcher,
        launched,
        constants={signature.results.index(one) for one in constants.split()},
        linear=set(signature.places(linear.split())),
        rows=set(signature.places(rows.split())),
        common=common,
        saves=saves,
        dtype=dtype,
    )
    if isinstance(backward, Backward):
        own.keeps = [signature.results.index(one) for one in backward.keeps.split()]
        own.backward = functools.partial(_passed_back, own, backward, _backward_of(own, backward).install())
    else:
        own.backward = backward
    return own.install()


def backward_of(operator: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """The operator of the backward pass of one that was given a :class:`Backward`."""
    return getattr(torch.ops.tamt, f"{operator._schema.name.partition('::')[2]}_backward").default


def _backward_of(own: Operator, backward: Backward) -> Operator:
    """The operator of a backward pass."""
    graded = [i for i in range(len(own.signature.results)) if i not in own.constants]
    alone = len(own.signature.results) == 1
    grads = ["grad" if alone else f"grad_{own.signature.results[i]}" for i in graded]
    kept = [own.signature.results[i] for i in own.keeps]
    groups = [group.split() for group in backward.needs]
    of = own.signature.places(backward.of.split())
    signature = Signature(
        f"{own.signature.name}_backward",
        [
            *(("Tensor", name) for name in (*grads, *own.signature.tensors, *kept)),
            *own.signature.arguments[own.count :],
            *(("bool", f"need_{group[0]}") for group in groups),
        ],
        [f"grad_{name}" for name in backward.of.split()],
    )
    first, after = len(grads), len(grads) + own.count
    last = len(signature.arguments) - len(groups)
    flags = {i: last + k for k, group in enumerate(groups) for i in own.signature.places(group)}

    def forward_of(args: Sequence[Any]) -> list[Any]:
        """Operands and parameters of the operator itself."""
        return [*args[first:after], *args[after + len(kept) : last]]

    def needed(i: int, args: Sequence[Any]) -> bool:
        return i not in flags or args[flags[i]]

    def definition(*args: Any) -> tuple[Tensor | None, ...]:
        given = forward_of(args)

        def function(*primals: Tensor) -> Any:
            operands = dict(enumerate(given)) | dict(zip(of, primals, strict=True))
            results = own.defined(*operands.values())
            return tuple(results[i] for i in graded)

        found = pull_back(function, [given[i] for i in of], args[:first])
        return tuple(grad if needed(i, args) else None for i, grad in zip(of, found, strict=True))

    def shapes(*args: Any) -> Any:
        found = [args[first + i].shape if needed(i, args) else (0,) for i in of]
        return found if len(found) > 1 else found[0]

    def check(*args: Any) -> None:
        if own.check is not None:
            own.check(*forward_of(args))

    return Operator(
        signature,
        definition,
        backward.function,
        shapes,
        check,
        backward.launcher,
        own.launched,
        linear=set(range(first)),
        rows={*range(first), *(first + i for i in own.rows), *range(after, after + len(kept))} if own.rows else set(),
        sums=lambda args: any(i not in own.rows and needed(i, args) for i in of),
    )


def _passed_back(
    own: Operator, backward: Backward, operator: torch._ops.OpOverload, ctx: Any, *grads: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of an operator's arguments by that of its backward pass; only those that are needed."""
    needs = ctx.needs_input_grad
    operands, kept = list(ctx.saved_tensors[: own.count]), ctx.saved_tensors[own.count :]
    if any(need and i not in own.linear for i, need in enumerate(needs)):
        for i in own.signature.places(backward.silences.split()):
            operands[i] = silenced(operands[i])
    flags = [any(needs[i] for i in own.signature.places(group.split())) for group in backward.needs]
    found = _as_tuple(operator(*grads, *operands, *kept, *ctx.parameters, *flags))
    by_place = dict(zip(own.signature.places(backward.of.split()), found, strict=True))
    return tuple(by_place.get(i) if need else None for i, need in enumerate(needs))
