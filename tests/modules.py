"""The modules of the registry, as the tests of what every module promises take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from asv_bench.registry import MODULES, Module, Options
from tamt._base import Base
from tamt._learnable import Form

FORMS: dict[str, Form] = {"fixed": False, "learnable": True, "relative": "relative"}


class Case(NamedTuple):
    """A module with few channels, computed in one of its ways."""

    module: Module
    options: Options

    @property
    def complex(self) -> bool:
        """Whether it computes with complex numbers where its input has none: itself, or the bank that it is given."""
        return self.module.complex or ("bank" in self.options and MODULES[self.options["bank"]].complex)

    @property
    def forms(self) -> tuple[Form, ...]:
        """Of parameters, if it has any: the expanded denominators of ``'poly'`` have no relative one."""
        if not self.module.learnable:
            return (False,)
        return tuple(FORMS.values())[: 2 if self.options.get("implementation") == "poly" else 3]

    def make(
        self,
        learnable: Form = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> nn.Module:
        return self.module.build(learnable, device, dtype, small=True, **self.options, **options)

    def inputs(self, size: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Two signals, or the like, which do not know of each other."""
        return tuple(t.to(dtype) for t in self.module.inputs(size))


CASES = {
    f"{module.name} {variant}".strip(): Case(module, options)
    for module in MODULES.values()
    for variant, options in {"": {}, **module.variants}.items()
}


def those(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """Parametrize a test by some cases."""
    some = {name: case for name, case in CASES.items() if wanted(case)}
    return pytest.mark.parametrize("case", some.values(), ids=some)


cases = those(lambda case: True)
learning = those(lambda case: bool(case.module.learnable))


def combinations(wanted: Callable[[Case], bool] = lambda case: True) -> Iterator[tuple[str, Case, Form]]:
    """Cases in every form of their parameters, by a name for both."""
    for name, case in CASES.items():
        for form, learnable in FORMS.items():
            if wanted(case) and learnable in case.forms:
                yield f"{name}-{form}", case, learnable


def forms_of(wanted: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Parametrize a test by some cases, each in every form."""
    found = [pytest.param(case, learnable, id=name) for name, case, learnable in combinations(wanted)]
    return pytest.mark.parametrize(("case", "learnable"), found)


forms = forms_of()
forms_of_learning = forms_of(lambda case: bool(case.module.learnable))


def tensors(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def constants(module: nn.Module) -> set[str]:
    """Names of the constants of a module and of those that it is made of."""
    parts = {f"{name}." if name else "": part for name, part in module.named_modules() if isinstance(part, Base)}
    return {prefix + name for prefix, part in parts.items() for name in part._constants}


def is_step(name: str) -> bool:
    """Whether a parameter is one of the relative form: without a dimension, and 0 by design."""
    return name.rpartition(".")[2].startswith(("log_", "delta_", "phase"))


def changed(module: nn.Module, factor: float = 1.07) -> dict[str, Tensor]:
    """Another state: other filters, slopes, limits, and the constants of the design."""
    fixed, steps = constants(module), {name for name, _ in module.named_parameters() if is_step(name)}
    return {
        name: tensor.detach() * (1 if name in fixed else factor) + (factor - 1 if name in steps else 0)
        for name, tensor in module.state_dict().items()
    }


def without_effect(case: Case, name: str) -> bool:
    """Whether a module computes what a parameter has no part in, and gives it a gradient of 0: an envelope's phase."""
    return name.endswith("phase") and case.module.name == "Cochleagram" and "detector" not in case.options


def steps(module: nn.Module, samples: int) -> int:
    """How many results along time so many samples give: one a sample or, of frames, those that are complete."""
    hop, frame = getattr(module, "hop_length", 1), getattr(module, "frame_length", 1)
    return max(0, 1 + (samples - frame) // hop)


def outputs(module: nn.Module, given: Sequence[Tensor] | Case) -> tuple[Tensor, ...]:
    """Results without gradients."""
    with torch.no_grad():
        return tensors(module(*(given.inputs() if isinstance(given, Case) else given)))


def leaves(given: Sequence[Tensor]) -> list[Tensor]:
    """Inputs, of which those that hold two rows need gradients; frequencies of bins are constants."""
    return [t.detach().clone().requires_grad_(t.dim() > 1) for t in given]


def loss(results: Sequence[Tensor]) -> Tensor:
    """A number that depends on all that can be differentiated."""
    return sum((y.square().mean() for y in results if y.requires_grad), torch.zeros(()))


def gradients(results: Sequence[Tensor], module: nn.Module, given: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of :func:`loss` to the inputs that need them and to all parameters; complex ones as pairs."""
    wanted = {f"input {i}": t for i, t in enumerate(given) if t.requires_grad} | dict(module.named_parameters())
    found = torch.autograd.grad(loss(results), list(wanted.values()), allow_unused=True, materialize_grads=True)
    return {name: torch.view_as_real(g) if g.is_complex() else g for name, g in zip(wanted, found, strict=True)}


def assert_same(left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), (a - b).abs().max()
