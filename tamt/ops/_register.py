"""One way to make an operator of torch: from a definition, two passes, and what the Triton kernels offer.

:func:`register` is told what an operation is (``definition``), how it is done (``forward``, ``backward``, a launcher of
kernels each), what it takes (``check``) and gives (``shapes``). What torch wants beside that follows: results without
data, the filter by needed gradients, derivatives of any order in both modes, mapping, and the operator of the backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tamt._memo import transformed
from tamt.ops._operator import Operator, Signature, as_tuple, pull_back
from tamt.shared.nonfinite import silenced


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
    constants : str
        The other operands, which have none.
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
    constants: str = ""
    launcher: str | None = None
    keeps: str = ""
    needs: Sequence[str] = ()
    silences: str = ""


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
    for one in (launcher, backward.launcher if isinstance(backward, Backward) else None):
        if one is not None and one.count(":") != 1:
            raise ValueError(f"a launcher of tamt::{name} must be 'module:function', got {one!r}")
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
        constants=set(signature.places_of_results(constants.split())),
        linear=set(signature.places(linear.split())),
        rows=set(signature.places(rows.split())),
        common=common,
        saves=saves,
        dtype=dtype,
    )
    if isinstance(backward, Backward):
        _check_backward(signature, backward)
        own.keeps = signature.places_of_results(backward.keeps.split())
        passes_back = _backward_of(own, backward)
        passes_back.install()
        own.backward = _passed_back(own, backward, passes_back)
    else:
        own.backward = backward
    return own.install()


def backward_of(operator: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """The operator of the backward pass of one that was given a :class:`Backward`."""
    return getattr(torch.ops.tamt, f"{operator._schema.name.partition('::')[2]}_backward").default


def _check_backward(signature: Signature, backward: Backward) -> None:
    """A ValueError or TypeError for names that are none, and for operands of which nothing is said."""
    if isinstance(backward.needs, str):
        raise TypeError(f"needs of tamt::{signature.name} must be a sequence of groups, got {backward.needs!r}")
    of = backward.of.split()
    named = [*signature.places(of), *signature.places(backward.constants.split())]
    if sorted(named) != list(range(len(signature.tensors))):
        raise ValueError(
            f"every operand of tamt::{signature.name} must be once in of or in constants, got of={backward.of!r} and "
            f"constants={backward.constants!r} for {', '.join(signature.tensors)}"
        )
    groups = [group.split() for group in backward.needs]
    if not all(group and set(group) <= set(of) for group in groups):
        raise ValueError(f"needs of tamt::{signature.name} must be groups of {backward.of!r}, got {backward.needs!r}")
    signature.places(backward.silences.split())


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


def _passed_back(own: Operator, backward: Backward, operator: Operator) -> Callable[..., Any]:
    """The backward pass of autograd by its operator: gradients of all arguments, only those that are needed."""
    of, silent = (own.signature.places(names.split()) for names in (backward.of, backward.silences))
    groups = [own.signature.places(group.split()) for group in backward.needs]

    def passed_back(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs, saved = ctx.needs_input_grad, list(ctx.saved_tensors)
        if any(need and i not in own.linear for i, need in enumerate(needs)):
            for i in silent:
                saved[i] = silenced(saved[i])
        flags = [any(needs[i] for i in group) for group in groups]
        call = operator.call if transformed() or torch.is_grad_enabled() else operator.call_below
        found = dict(zip(of, as_tuple(call(*grads, *saved, *ctx.parameters, *flags)), strict=True))
        return tuple(found.get(i) if need else None for i, need in enumerate(needs))

    return passed_back
