"""Modules that learn: what they hold can be parameters, of two forms, or buffers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tamt._base import DESIGN, Base, rounded
from tamt._memo import readable

Self = TypeVar("Self", bound="Learnable")

Form = bool | Literal["relative"]
RELATIVE: Literal["relative"] = "relative"


def check_learnable(learnable: Any) -> None:
    """A form of the parameters, or a ValueError."""
    if not (isinstance(learnable, bool) or learnable == RELATIVE):
        raise ValueError(f"learnable must be False, True or {RELATIVE!r}, got {learnable!r}")


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


class Quantity(NamedTuple):
    """A tensor of the state that can be learnt: its value by design, on the CPU, and how steps away from it count."""

    design: Tensor
    level: bool  # in dB, to be added to; everything else is multiplied

    def parameter(self, name: str) -> str:
        """Name of the parameter of a relative module."""
        return f"delta_{name}" if self.level else f"log_{name}"


class Learnable(Base):
    """A module with a state, which is what it learns or is told.

    A relative module holds, in place of every tensor that it learns, a parameter that is 0 by design: the logarithm of
    the ratio to the tensor's value by design, which is a constant, or of levels in dB the difference. The tensor itself
    remains an attribute, which is computed.

    Parameters
    ----------
    learnable : bool or 'relative'
        Whether the tensors of :meth:`_register_state` are parameters (else buffers of the same names).
    device, dtype
        As for :class:`Base`.

    Raises
    ------
    ValueError
        Another ``learnable``.
    """

    _followed: Tensor

    def __init__(
        self,
        learnable: Form = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(device, dtype)
        check_learnable(learnable)
        self.learnable = learnable
        self._state: list[str] = []  # names of all that register_state was given
        self._quantities: dict[str, Quantity] = {}
        self._form: list[str] = []  # names of the tensors that hold the quantities
        self._follows = ""

    def __getattr__(self, name: str) -> Any:
        quantities = self.__dict__.get("_quantities")
        if quantities and name in quantities and self.learnable == RELATIVE:
            return self._computed(name)
        return super().__getattr__(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._quantities]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_quantities", ()) and self.learnable == RELATIVE:
            raise AttributeError(
                f"{name} of a {type(self).__name__} with learnable='relative' follows from its parameters "
                f"{', '.join(self._step_names())}: change these, or a copy by .with_learnable(True)"
            )
        super().__setattr__(name, value)

    def _register_state(
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
        return rounded(tensor.detach(), self._held_type).to(self._like.device, copy=True)

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
            self._register_step(quantity.parameter(name), step, name, design)

    def _register_step(self, name: str, step: Tensor, quantity: str = "", design: Tensor | None = None) -> None:
        """Keep a parameter of a relative module, and where it starts from as the constant ``design_<quantity>``.

        That of a number has the shape (1,), as FSDP does not shard numbers.
        """
        self.register_parameter(name, nn.Parameter(self._held(step.reshape(step.shape or (1,)))))
        self._form.append(name)
        if design is not None:
            self._register_constant(f"design_{quantity}", design, persistent=True)
            self._form.append(f"design_{quantity}")

    def _step(self, name: str) -> Tensor:
        """A parameter of a relative module, or what its parametrization gives."""
        step: Tensor = self._precise(name, getattr(self, name))
        if hasattr(step, "full_tensor"):
            raise TypeError(
                f"{name} of {type(self).__name__} is a shard where it is needed whole: FSDP gathers parameters for "
                "forward alone. Shard a Cochleagram, not its bank, and announce other methods by "
                "torch.distributed.fsdp.register_fsdp_forward_method"
            )
        return step

    def _computed(self, name: str) -> Tensor:
        """A quantity of a relative module as it is now."""
        quantity = self._quantities[name]
        design: Tensor = getattr(self, f"design_{name}")
        step = self._step(quantity.parameter(name)).reshape(design.shape)
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

    def with_learnable(self: Self, learnable: Form) -> Self:
        """A copy of the same quantities, with parameters of another form.

        It computes the same, unless limits that are sharp in a fixed module are smooth in a learnable one. A copy of a
        module whose parameters are all frozen has frozen parameters.

        Parameters
        ----------
        learnable : bool or 'relative'
            Form of the copy's parameters.

        Returns
        -------
        Module
            Of the same class, on the same device and in the same type.

        Raises
        ------
        ValueError
            Another ``learnable``; a form that the module does not have; a quantity that is no positive multiple of its
            value by design, which the relative form cannot hold.
        """
        check_learnable(learnable)
        with self._whole():
            twin = copy.deepcopy(self)
            if learnable == self.learnable:
                return twin
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
        if self.learnable and not any(parameter.requires_grad for parameter in self.parameters()):
            twin.requires_grad_(False)
        if twin._follows:
            twin._rebuild(getattr(twin, twin._follows).detach().to(DESIGN))
        return twin

    def _follow(self, name: str, numbers: Tensor) -> None:
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
        self._register_constant("_followed", numbers.to(torch.float64))

    def _up_to_date(self) -> None:
        """Build for the numbers as they are now, wherever that may be asked: at the beginning of a forward pass."""
        if readable(getattr(self, self._follows)):
            self._catch_up()

    def _catch_up(self) -> None:
        tensor: Tensor = getattr(self, self._follows)
        if self.learnable or tensor.is_meta:
            return
        numbers = tensor.detach().to(DESIGN)
        if not torch.equal(numbers.to(torch.float64), self._constant("_followed")):
            self._rebuild(numbers)

    def _or_nan(self, result: Tensor) -> Tensor:
        """``result``, or NaN where the tensor may have changed since :meth:`_build` without a chance to look."""
        tensor: Tensor = getattr(self, self._follows)
        if self.learnable or readable(tensor):
            return result
        return torch.where((tensor == self._followed).all(), result, math.nan)

    def _owns(self, name: str) -> bool:
        return super()._owns(name) or name in self._form or name in self._state

    def _loaded(self) -> None:
        if self._follows:
            self._catch_up()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *found: list[str]
    ) -> None:
        forms = [list(self._quantities), self._step_names()]
        own, others = reversed(forms) if self.learnable == RELATIVE else forms
        foreign = [name for name in others if prefix + name in state_dict]
        if foreign and not any(prefix + name in state_dict for name in own):
            there = "True or False" if self.learnable == RELATIVE else "'relative'"
            found[-1].append(
                f"{', '.join(prefix + name for name in foreign)} belong to a module with learnable={there}, but here, "
                f"with learnable={self.learnable!r}, there are {', '.join(prefix + name for name in own)}. Load the "
                f"state dict with a {type(self).__name__} of learnable={there}: what is wanted here is its "
                f".with_learnable({self.learnable!r})."
            )
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *found)
