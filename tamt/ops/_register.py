"""Turns a reference, a Triton launcher, a shape function and a backward into one operator of ``torch.library``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import torch


@functools.cache
def backend(device_type: str) -> str:
    """What serves a type of device: ``"triton"`` on CUDA and ROCm where triton is installed, else ``"reference"``."""
    return "triton" if device_type == "cuda" and importlib.util.find_spec("triton") else "reference"


def _own_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast would also reach the matrix products inside an operator; here it must not."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        device = next(a for a in args if isinstance(a, torch.Tensor)).device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return function(*args)
        return function(*args)

    return wrapped


def aliases(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """What the backward of a backward differentiates in place of its saved tensors.

    Aliases, because one may depend on another (a loss gradient on the operands): that is not counted there.
    """
    return [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]


def _launch(reference: Callable[..., Any], launcher: str) -> Callable[..., Any]:
    """``launcher`` where :func:`backend` says so, else ``reference``."""

    def launch(*args: Any) -> Any:
        if backend("cuda") == "reference":
            return reference(*args)
        module, function = launcher.split(":")
        return getattr(importlib.import_module(f"tamt.triton_kernels.{module}"), function)(*args)

    return launch


def register(
    name: str,
    schema: str,
    reference: Callable[..., Any],
    launcher: str | None,
    fake: Callable[..., Any],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
) -> torch.library.CustomOpDef:
    """Operator ``tamt::name``: the Triton ``launcher`` where :func:`backend` says so, ``reference`` elsewhere.

    ``launcher`` is ``"module:function"`` in ``tamt.triton_kernels``, imported at the first call, so that tamt works
    without triton; None where there are no kernels. ``fake`` checks shapes and gives the strides of the result;
    ``backward`` uses public operations.
    """
    operator = torch.library.custom_op(f"tamt::{name}", _own_precision(reference), mutates_args=(), schema=schema)
    if launcher is not None:
        operator.register_kernel("cuda")(_own_precision(_launch(reference, launcher)))
    operator.register_fake(fake)
    operator.register_autograd(backward, setup_context=setup_context)
    return operator
