"""The base of the modules: their state, constants that no change of a module can lose, conversions between types."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tamt._arguments import as_signal, check_learnable, check_state, computing_device, default_device
from tamt._arithmetic import split_sum
from tamt._memo import readable

Self = TypeVar("Self", bound="Base")

Learnable = bool | Literal["relative"]
RELATIVE: Literal["relative"] = "relative"
TYPES = torch.float32, torch.float64
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


def log_ratio(name: str, value: Tensor, design: Tensor) -> Tensor:
    """``log(value / design)``, 0 where both are; a ValueError where there is no such thing."""
    ratio = torch.where((value == 0) & (design == 0), 1.0, value / design)
    wrong = ~((ratio > 0) & ratio.isfinite())
    if wrong.any():
        raise ValueError(
            f"learnable='relative' needs {name} to be a positive multiple of its value by design, "
            f"{design[wrong][0].item():g}, got {value[wrong][0].item():g}"
        )
    return ratio.log()


class Constant(NamedTuple):
    """What a buffer is made of: its value in double precision on the CPU, and the form that it takes in a module."""

    value: Tensor | Callable[[], Tensor]  # a large one is better made when it is needed
    form: Callable[[Tensor, torch.dtype], Tensor]


class Quantity(NamedTuple):
    """A tensor of the state that can be learnt: its value by design, on the CPU, and how steps away from it count."""

    design: Tensor
    level: bool  # in dB, to be added to; everything else is multiplied

    def parameter(self, name: str) -> str:
        """Name of the parameter of a relative module."""
        return f"delta_{name}" if self.level else f"log_{name}"


class Base(nn.Module):
    """A module with a state, which is what it learns or is told, and constants.

    Constants are buffers that are made anew from double precision whenever the module is converted. So they are exact
    in every type, and hold what they should after ``to_empty``, which leaves buffers uninitialised, and after a state
    dict was loaded or assigned.

    A relative module holds, in place of every tensor that it learns, a parameter that is 0 by design: the logarithm of
    the ratio to the tensor's value by design, which is a constant, or of levels in dB the difference. The tensor itself
    remains an attribute, which is computed.

    Conversions to a type other than float32 and float64 leave the module's own as it is.

    Parameters
    ----------
    learnable : bool or 'relative'
        Whether the tensors of :meth:`register_state` are parameters (else buffers of the same names).
    device : torch.device, optional
        Where the tensors are made, by default torch's.
    dtype : torch.float32 or torch.float64, optional
        Computing type, which conversions of the module change; if not given, the module computes in the type of its
        input.

    Raises
    ------
    ValueError
        Another ``learnable``.
    TypeError
        Another type, or float64 on MPS.
    """

    _like: Tensor  # of the module's device and type
    _followed: Tensor

    def __init__(
        self,
        learnable: Learnable = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_learnable(learnable)
        self.learnable = learnable
        self._typed = dtype is not None
        self._constants: dict[str, Constant] = {}
        self._state: list[str] = []  # names of all that register_state was given
        self._quantities: dict[str, Quantity] = {}
        self._form: list[str] = []  # names of the tensors that hold the quantities
        self._follows = ""
        where = default_device(device) if dtype is None else computing_device(device, dtype)
        self._constants["_like"] = Constant(torch.zeros((), dtype=torch.float64, device=DESIGN), rounded)
        self.register_buffer("_like", torch.zeros((), dtype=dtype or torch.float32, device=where), persistent=False)
        self.register_load_state_dict_post_hook(_settle)

    @property
    def dtype(self) -> torch.dtype | None:
        """Computing type; None where that is the input's, half types in float32."""
        return self._like.dtype if self._typed else None

    @property
    def _held_type(self) -> torch.dtype:
        """Type of what the module holds."""
        return self._like.dtype

    def computing_type(self, x: Any) -> torch.dtype:
        """The type to compute in, given ``x``."""
        if self._typed:
            return self._like.dtype
        return torch.float64 if getattr(x, "dtype", None) == torch.float64 else torch.float32

    def __getattr__(self, name: str) -> Any:
        quantities = self.__dict__.get("_quantities")
        if quantities and name in quantities and self.learnable == RELATIVE:
            return self._computed(name)
        held = super().__getattr__(name)
        return self._precise(name, held) if isinstance(held, Tensor) else held

    def _precise(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor, or a TypeError if it is of a half type: policies of mixed precision put such in a module."""
        if tensor.dtype in HALF_TYPES:
            raise TypeError(
                f"{name} of {type(self).__name__} must be in the module's own precision, {self._like.dtype}, got "
                f"{tensor.dtype}; keep the module's parameters out of the policy of mixed precision"
            )
        return tensor

    def register_state(
        self, tensors: dict[str, Tensor], learnable: Iterable[str] | None = None, levels: Iterable[str] = ()
    ) -> None:
        """Keep copies of tensors in the state dict, in the module's type.

        In a learnable module those named in ``learnable``, all of them if not given, are parameters; of these
        ``levels`` are in dB.
        """
        quantities = set(tensors if learnable is None else learnable)
        if not quantities <= set(tensors):
            raise ValueError(f"learnable must name some of {', '.join(tensors)}, got {learnable!r}")
        self._state += tensors
        steps = {}
        for name, tensor in tensors.items():
            if name not in quantities:
                self.register_buffer(name, self._held(tensor))
                continue
            self._quantities[name] = Quantity(tensor.detach().to(DESIGN, copy=True), name in levels)
            if self.learnable == RELATIVE:
                steps[name] = tensor
            else:
                self._hold({name: tensor})
        self._hold(steps)

    def _held(self, tensor: Tensor) -> Tensor:
        """A copy in the module's type, on its device."""
        return rounded(tensor.detach(), self._like.dtype).to(self._like.device, copy=True)

    def _hold(self, tensors: dict[str, Tensor]) -> None:
        """Hold quantities in the form that the module has."""
        if self.learnable == RELATIVE:
            self._hold_steps(tensors)
            return
        self._form += tensors
        for name, tensor in tensors.items():
            if self.learnable:
                self.register_parameter(name, nn.Parameter(self._held(tensor)))
            else:
                self.register_buffer(name, self._held(tensor))

    def _hold_steps(self, tensors: dict[str, Tensor]) -> None:
        """Hold quantities as steps away from their values by design."""
        for name, tensor in tensors.items():
            quantity = self._quantities[name]
            value, design = tensor.to(DESIGN, torch.float64), quantity.design.double()
            step = value - design if quantity.level else log_ratio(name, value, design)
            self.register_step(quantity.parameter(name), step, name, design)

    def register_step(self, name: str, step: Tensor, quantity: str = "", design: Tensor | None = None) -> None:
        """Keep a parameter of a relative module, and where it starts from as the constant ``design_<quantity>``.

        That of a number has the shape (1,), as FSDP does not shard numbers.
        """
        self.register_parameter(name, nn.Parameter(self._held(step.reshape(step.shape or (1,)))))
        self._form.append(name)
        if design is not None:
            self.register_constant(f"design_{quantity}", design, persistent=True)
            self._form.append(f"design_{quantity}")

    def step(self, name: str) -> Tensor:
        """A parameter of a relative module, or what its parametrization gives."""
        return self._precise(name, getattr(self, name))

    def _computed(self, name: str) -> Tensor:
        """A quantity of a relative module as it is now."""
        quantity = self._quantities[name]
        design: Tensor = getattr(self, f"design_{name}")
        step = self.step(quantity.parameter(name)).reshape(design.shape)
        return design + step if quantity.level else design * step.exp()

    def _step_names(self) -> list[str]:
        """Names of the parameters that the module has, or would have, as a relative one."""
        return [quantity.parameter(name) for name, quantity in self._quantities.items()]

    def design(self) -> dict[str, Tensor]:
        """What the module has learnt or was told: its documented quantities as they are now.

        Returns
        -------
        dict of Tensor
            Detached copies by name, whatever the form of the parameters (``learnable``).
        """
        with self._whole():
            return {name: getattr(self, name).detach().clone() for name in self._state}

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All of the parameters, of which a process may hold shards: all processes have to come here."""
        held = [(part, dict(part._parameters)) for part in self.modules()]
        try:
            for part, parameters in held:
                for name, parameter in parameters.items():
                    if (gather := getattr(parameter, "full_tensor", None)) is not None:
                        part._parameters[name] = nn.Parameter(gather().detach(), requires_grad=False)
            yield
        finally:
            for part, parameters in held:
                part._parameters.update(parameters)

    def with_learnable(self: Self, learnable: Learnable) -> Self:
        """A copy of the same quantities, with parameters of another form.

        It computes the same, unless limits that are sharp in a fixed module are smooth in a learnable one.

        Parameters
        ----------
        learnable : bool or 'relative'
            Form of the copy's parameters.

        Raises
        ------
        ValueError
            Another ``learnable``; a form that the module does not have; a quantity that is no positive multiple of its
            value by design, which the relative form cannot hold.
        """
        check_learnable(learnable)
        with self._whole():
            twin = copy.deepcopy(self)
            present = {name: getattr(self, name).detach() for name in self._quantities}
        if parametrize.is_parametrized(twin):
            # Not by remove_parametrizations, which takes them from a class that both have.
            twin.__class__ = parametrize.type_before_parametrizations(twin)
            del twin.parametrizations
        for name in twin._form:
            for tensors in (twin._parameters, twin._buffers, twin._constants):
                tensors.pop(name, None)
        twin.learnable, twin._form = learnable, []
        twin._hold(present)
        if twin._follows:
            twin._rebuild(getattr(twin, twin._follows).detach().to(DESIGN))
        return twin

    def register_constant(
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
        return as_signal(x, self._like.dtype), None if state is None else check_state(state, count)

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def in_own_types(tensor: Tensor) -> Tensor:
            after = fn(tensor)
            return tensor.to(after.device) if after.is_floating_point() and after.dtype not in TYPES else after

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
        forms = [list(self._quantities), self._step_names()]
        own, others = reversed(forms) if self.learnable == RELATIVE else forms
        foreign = [name for name in others if prefix + name in state_dict]
        if foreign and not any(prefix + name in state_dict for name in own):
            there = "True or False" if self.learnable == RELATIVE else "'relative'"
            error_msgs.append(
                f"{', '.join(prefix + name for name in foreign)} belong to a module with learnable={there}, but here, "
                f"with learnable={self.learnable!r}, there are {', '.join(prefix + name for name in own)}. Load the "
                f"state dict with a {type(self).__name__} of learnable={there}: what is wanted here is its "
                f".with_learnable({self.learnable!r})."
            )
            return
        if local_metadata.get("assign_to_params_buffers"):
            for name in (*self._parameters, *self._buffers):
                tensor = state_dict.get(prefix + name)
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype not in TYPES:
                    state_dict[prefix + name] = tensor.to(self._like.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        for name in self._constants:
            given = state_dict.get(prefix + name)
            if not isinstance(given, Tensor) or given.is_meta:
                continue
            expected = self._restored(name, torch.device("cpu"), torch.float64)
            if given.shape != expected.shape:
                continue  # has been said
            rtol = 4 * torch.finfo(given.dtype).eps + 1e-6
            atol = 1e-9 * expected.abs().max().item() if expected.numel() else 0.0
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
    for part in module.modules():
        if isinstance(part, Base) and (part is module or not part.state_dict()):
            for name in part._constants:
                part._buffers[name] = part._restored(name, like.device, like.real.dtype)
    if module._follows:
        module._catch_up()
