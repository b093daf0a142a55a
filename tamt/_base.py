"""The base of the modules: their state, constants that no change of a module can lose, conversions between types."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from tamt._arguments import as_signal, check_computing_type, check_state, computing_device, default_device
from tamt._arithmetic import split_sum
from tamt._memo import readable

Self = TypeVar("Self", bound="Base")

# Where filters are designed: in float64, which not every device has.
DESIGN = torch.device("cpu")


def computing_type(x: Any) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if getattr(x, "dtype", None) == torch.float64 else torch.float32


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant in the computing type, or in the complex type that belongs to it."""
    return value.to(dtype.to_complex() if value.is_complex() else dtype)


def unchanged(value: Tensor, _: torch.dtype) -> Tensor:
    """A constant of integers."""
    return value


def upper_half(value: Tensor, _: torch.dtype) -> Tensor:
    """A constant in float32, whatever the computing type."""
    return split_sum(value, torch.float32)[0]


def lower_half(value: Tensor, _: torch.dtype) -> Tensor:
    """What float32 takes from a constant, in float32."""
    return split_sum(value, torch.float32)[1]


class Constant(NamedTuple):
    """What a buffer is made of: its value in double precision on the CPU, and the form that it takes in a module."""

    value: Tensor | Callable[[], Tensor]  # a large one is better made when it is needed
    form: Callable[[Tensor, torch.dtype], Tensor]


class Base(nn.Module):
    """A module with a state, which is what it learns or is told, and constants.

    Constants are buffers that are made anew from double precision whenever the module is converted. So they are exact
    in every type, and hold what they should after ``to_empty``, which leaves buffers uninitialised, and after a state
    dict was loaded or assigned.

    Parameters
    ----------
    learnable : bool
        Whether the tensors of :meth:`register_state` are parameters (else buffers of the same names).
    device : torch.device, optional
        Where the tensors are made, by default torch's.
    dtype : torch.float32 or torch.float64, optional
        Computing type, which conversions of the module change; if not given, the module computes in the type of its
        input and has no :attr:`dtype`.

    Raises
    ------
    TypeError
        Another type, or float64 on MPS.
    """

    _like: Tensor  # of the module's device and type
    _followed: Tensor

    def __init__(
        self,
        learnable: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.learnable = learnable
        self._typed = dtype is not None
        self._constants: dict[str, Constant] = {}
        self._follows = ""
        where = default_device(device) if dtype is None else computing_device(device, dtype)
        self._constants["_like"] = Constant(torch.zeros((), dtype=torch.float64, device=DESIGN), rounded)
        self.register_buffer("_like", torch.zeros((), dtype=dtype or torch.float32, device=where), persistent=False)
        self.register_load_state_dict_post_hook(_settle)

    @property
    def dtype(self) -> torch.dtype:
        """Computing type; a module that computes in the type of its input has none."""
        if not self._typed:
            raise AttributeError("dtype")  # nn.Module says it in full
        return self._like.dtype

    def register_state(self, tensors: dict[str, Tensor], learnable: Iterable[str] | None = None) -> None:
        """Keep copies of tensors in the state dict, in the module's type.

        In a learnable module those named in ``learnable``, all of them if not given, are parameters.
        """
        parameters = set(tensors if learnable is None else learnable)
        if not parameters <= set(tensors):
            raise ValueError(f"learnable must name some of {', '.join(tensors)}, got {learnable!r}")
        for name, tensor in tensors.items():
            held = rounded(tensor.detach(), self._like.dtype).to(self._like.device, copy=True)
            if self.learnable and name in parameters:
                self.register_parameter(name, nn.Parameter(held))
            else:
                self.register_buffer(name, held)

    def register_constant(
        self,
        name: str,
        value: Tensor | Callable[[], Tensor],
        form: Callable[[Tensor, torch.dtype], Tensor] = rounded,
        persistent: bool = False,
    ) -> None:
        """Keep ``value``, on the CPU and in double precision unless it is integers, as a buffer.

        ``form``, and a ``value`` that is a function, have to be fit for pickling. A persistent one is in the state
        dict, and a state dict with another value is refused.
        """
        self._constants[name] = Constant(value.clone() if isinstance(value, Tensor) else value, form)
        buffer = self._restored(name, self._like.device, self._like.dtype)
        self.register_buffer(name, buffer, persistent=persistent)

    def constant(self, name: str) -> Tensor:
        """The value that a buffer was registered with."""
        value = self._constants[name].value
        return value if isinstance(value, Tensor) else value()

    def register_exact(self, name: str, value: Tensor) -> None:
        """Keep ``value`` (float64) for float32 and float64 alike, as the sum of two float32 buffers.

        The upper half is the constant in float32, so that neither a device without float64 nor a float32 forward pass
        meets a float64 tensor, and the sum has 48 bits.
        """
        self.register_constant(f"_{name}_high", value, form=upper_half)
        self.register_constant(f"_{name}_low", value, form=lower_half)

    def exact(self, name: str, dtype: torch.dtype) -> Tensor:
        """The constant of :meth:`register_exact` in a computing type."""
        high: Tensor = getattr(self, f"_{name}_high")
        return high if dtype == torch.float32 else high.to(dtype) + getattr(self, f"_{name}_low").to(dtype)

    def follow(self, name: str, numbers: Tensor) -> None:
        """Build what depends on the numbers of a tensor of the state, by :meth:`_build`, now and when they change.

        A learnable module is built once. A fixed one is built anew after a state dict was loaded, and by
        :meth:`_up_to_date` where the numbers can be read. ``numbers`` are those of the tensor, on the CPU.
        """
        self._follows = name
        self._rebuild(numbers)

    def _build(self, numbers: Tensor) -> None:
        """What depends on the tensor that the module follows, for its numbers, on the CPU."""
        raise NotImplementedError

    def _rebuild(self, numbers: Tensor) -> None:
        self._build(numbers)
        self.register_constant("_followed", numbers.to(torch.float64))

    def _up_to_date(self) -> None:
        """Build for the numbers as they are now, wherever that may be asked: at the beginning of a forward pass."""
        if readable(getattr(self, self._follows)):
            self._catch_up()

    def _catch_up(self) -> None:
        tensor: Tensor = getattr(self, self._follows)
        if self.learnable or tensor.is_meta:
            return
        numbers = tensor.detach().to(DESIGN)
        if not torch.equal(numbers.to(torch.float64), self.constant("_followed")):
            self._rebuild(numbers)

    def _or_nan(self, result: Tensor) -> Tensor:
        """``result``, or NaN where the tensor may have changed since :meth:`_build` without a chance to look."""
        tensor: Tensor = getattr(self, self._follows)
        if self.learnable or readable(tensor):
            return result
        return torch.where((tensor == self._followed).all(), result, math.nan)

    def chunk(
        self, x: Tensor, state: tuple[Tensor, ...] | None, count: int
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """A chunk (..., T) of a stream in the computing type, and the state before it, of ``count`` tensors."""
        return as_signal(x, self.dtype), None if state is None else check_state(state, count)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def on_pairs(tensor: Tensor) -> Tensor:
            # nn.Module.double() passes complex tensors by and .to(torch.float64) drops their imaginary parts.
            if tensor.is_complex():
                return torch.view_as_complex(fn(torch.view_as_real(tensor)).contiguous())
            return fn(tensor)

        if self._typed:
            check_computing_type(fn(torch.empty_like(self._like)).dtype)
        constants = {name: self._buffers[name] for name in self._constants}
        converted = {name: on_pairs(buffer) for name, buffer in constants.items() if buffer is not None}
        for name, after in converted.items():
            before = constants[name]
            assert before is not None
            same = (after.device, after.dtype) == (before.device, before.dtype)
            if not (same and after.is_set_to(before)):
                converted[name] = self._restored(name, after.device, after.real.dtype)
        try:
            self._buffers.update(dict.fromkeys(constants))
            super()._apply(on_pairs, recurse)
        finally:
            self._buffers.update(converted)
        return self

    def _restored(self, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The buffer of a constant."""
        return self._constants[name].form(self.constant(name), dtype).to(device, copy=True)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        for name in self._constants:
            given = state_dict.get(prefix + name)
            if not isinstance(given, Tensor) or given.is_meta:
                continue
            expected = self._restored(name, torch.device("cpu"), torch.float64)
            if given.shape != expected.shape:
                continue  # has been said
            rtol = 4 * torch.finfo(given.dtype).eps + 1e-6
            if not torch.allclose(given.detach().to("cpu", torch.float64), expected, rtol, 1e-9):
                error_msgs.append(
                    f"{prefix}{name} belongs to a module built with other arguments: from {given.min():g} to "
                    f"{given.max():g}, but here from {expected.min():g} to {expected.max():g}; build the module with "
                    "the arguments of the one that was saved."
                )


def _settle(module: Base, _: object) -> None:
    """Constants where a loaded state is, and of its type; a state that was assigned may be elsewhere than before."""
    state = [t for name, t in module.state_dict(keep_vars=True).items() if "." not in name]
    own = [t for t in state if not any(t is module._buffers.get(name) for name in module._constants)]
    like = next(iter(own or state), None)
    if like is None:
        return  # a part of a module that has one
    for part in module.modules():
        if isinstance(part, Base) and (part is module or not part.state_dict()):
            for name in part._constants:
                part._buffers[name] = part._restored(name, like.device, like.real.dtype)
    if module._follows:
        module._catch_up()
