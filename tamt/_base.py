"""The base of the modules: constants that no change of a module can lose, conversions between types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from tamt._arguments import COMPUTING_TYPES, as_signal, check_state, computing_device, default_device
from tamt._arithmetic import split_sum

Self = TypeVar("Self", bound="Base")

HALF_TYPES = torch.float16, torch.bfloat16, torch.complex32

# Where filters are designed: in float64, which not every device has.
DESIGN = torch.device("cpu")


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant in the computing type, or in the complex type that belongs to it."""
    return value.to(dtype.to_complex() if value.is_complex() else dtype)


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
    """A module with constants.

    They are buffers that are made anew from double precision whenever the module is converted. So they are exact
    in every type, and hold what they should after ``to_empty``, which leaves buffers uninitialised, and after a state
    dict was loaded or assigned.

    Conversions to a type other than float32 and float64 leave the module's own as it is.

    Parameters
    ----------
    device : torch.device, optional
        Where the tensors are made, by default torch's.
    dtype : torch.float32 or torch.float64, optional
        Computing type, which conversions of the module change; by default :attr:`_COMPUTES_IN` or, where that is None,
        the type of the input.

    Raises
    ------
    TypeError
        Another type, or float64 on MPS.
    """

    _COMPUTES_IN: torch.dtype | None = None

    _like: Tensor  # of the module's device and type

    def __init__(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dtype = self._COMPUTES_IN if dtype is None else dtype
        self._typed = dtype is not None
        self._constants: dict[str, Constant] = {}
        where = default_device(device) if dtype is None else computing_device(device, dtype)
        self._constants["_like"] = Constant(torch.zeros((), dtype=torch.float64, device=DESIGN), rounded)
        self.register_buffer("_like", torch.zeros((), dtype=dtype or torch.float32, device=where), persistent=False)
        self.register_load_state_dict_post_hook(_settle)

    @property
    def dtype(self) -> torch.dtype | None:
        """Computing type; None where that is the input's, half types in float32."""
        return self._held_type if self._typed else None

    @property
    def _held_type(self) -> torch.dtype:
        """Type of what the module holds."""
        return self._like.dtype

    def _computing_type(self, x: Any) -> torch.dtype:
        """The type to compute in, given ``x``."""
        if self._typed:
            return self._held_type
        return torch.float64 if getattr(x, "dtype", None) == torch.float64 else torch.float32

    def __getattr__(self, name: str) -> Any:
        held = super().__getattr__(name)
        return self._precise(name, held) if isinstance(held, Tensor) and held.dtype in HALF_TYPES else held

    def _precise(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor, or a TypeError if it is one of the module's own, not a user's, in a half type.

        Policies of mixed precision put such in a module.
        """
        if tensor.dtype in HALF_TYPES and self._owns(name):
            own = self._buffers["_like"]  # not by __getattr__, which comes here if this is of a half type too
            precision = "float32 or float64" if own is None or own.dtype in HALF_TYPES else own.dtype
            raise TypeError(
                f"{name} of {type(self).__name__} must be in the module's own precision, {precision}, got "
                f"{tensor.dtype}; keep the module's tensors out of the policy of mixed precision"
            )
        return tensor

    def _owns(self, name: str) -> bool:
        """Whether a tensor is one that this class has registered."""
        return name in self._constants

    def _register_constant(
        self,
        name: str,
        value: Tensor | Callable[[], Tensor],
        form: Callable[[Tensor, torch.dtype], Tensor] = rounded,
        persistent: bool = False,
    ) -> None:
        """Keep ``value``, on the CPU and in double precision, as a buffer.

        ``form``, and a ``value`` that is a function, have to be fit for pickling. A persistent one is in the state
        dict, and a state dict with another value is refused.
        """
        self._constants[name] = Constant(value.clone() if isinstance(value, Tensor) else value, form)
        buffer = self._restored(name, self._like.device, self._held_type)
        self.register_buffer(name, buffer, persistent=persistent)

    def _constant(self, name: str) -> Tensor:
        """The value that a buffer was registered with."""
        value = self._constants[name].value
        return value if isinstance(value, Tensor) else value()

    def _register_exact(self, name: str, value: Tensor) -> None:
        """Keep ``value`` (float64) for float32 and float64 alike, as the sum of two float32 buffers.

        The upper half is the constant in float32, so that neither a device without float64 nor a float32 forward pass
        meets a float64 tensor, and the sum has 48 bits.
        """
        self._register_constant(f"_{name}_high", value, form=upper_half)
        self._register_constant(f"_{name}_low", value, form=lower_half)

    def _exact(self, name: str, dtype: torch.dtype) -> Tensor:
        """The constant of :meth:`_register_exact` in a computing type."""
        high: Tensor = getattr(self, f"_{name}_high")
        return high if dtype == torch.float32 else high.to(dtype) + getattr(self, f"_{name}_low").to(dtype)

    def _loaded(self) -> None:
        """What is to be done after a state dict was loaded."""

    def _chunk(
        self, x: Tensor, state: tuple[Tensor, ...] | None, count: int
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """A chunk (..., T) of a stream in the computing type, and the state before it, of ``count`` tensors."""
        return as_signal(x, self._held_type), None if state is None else check_state(state, count)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def in_own_types(tensor: Tensor) -> Tensor:
            after = fn(tensor)
            return after if after.dtype in COMPUTING_TYPES else tensor.to(after.device)

        def on_pairs(tensor: Tensor) -> Tensor:
            # nn.Module.double() passes complex tensors by and .to(torch.float64) drops their imaginary parts.
            if tensor.is_complex():
                return torch.view_as_complex(in_own_types(torch.view_as_real(tensor)).contiguous())
            return in_own_types(tensor)

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
        return self._constants[name].form(self._constant(name), dtype).to(device, copy=True)

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
        given_constants = {name: state_dict.get(prefix + name) for name in self._constants}
        if local_metadata.get("assign_to_params_buffers"):
            for name in (*self._parameters, *self._buffers):
                tensor = state_dict.get(prefix + name)
                if not (isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())):
                    continue
                if tensor.dtype.to_real() not in COMPUTING_TYPES:
                    state_dict[prefix + name] = rounded(tensor, self._held_type)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        for name, given in given_constants.items():
            if not isinstance(given, Tensor) or given.is_meta:
                continue
            expected = self._restored(name, torch.device("cpu"), torch.float64)
            if given.shape != expected.shape:
                continue  # has been said
            largest, digits = expected.abs().max().item() if expected.numel() else 0.0, torch.finfo(given.dtype)
            rtol, atol = 4 * digits.eps + 1e-6, 1e-9 * largest + digits.eps * digits.tiny
            if not torch.allclose(given.detach().to("cpu", torch.float64), expected, rtol, atol):
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
    move_constants(module, like)
    module._loaded()


def move_constants(module: nn.Module, like: Tensor) -> None:
    """Put constants of a module, and of parts of it that have no state, where ``like`` is, in its type."""
    for part in module.modules():
        if isinstance(part, Base) and (part is module or not part.state_dict()):
            for name in part._constants:
                part._buffers[name] = part._restored(name, like.device, like.real.dtype)
