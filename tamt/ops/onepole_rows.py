"""From the poles and gains of gammatones to the rows that the IIR engine takes, in one launch where there are kernels.

As operations of torch these are some sixty, which is most of the time that a GPU needs for a short signal.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt.ops._register import pull_back, register
from tamt.reference import onepole_rows as reference


def onepole_rows(poles: Tensor, gains: Tensor, design: Tensor) -> Tensor:
    r"""Rows of kind ``onepole`` (:mod:`tamt.ops.iir`) of :math:`2\,\mathrm{Re}\{g x / (1 - p z^{-1})^n\}`.

    Parameters
    ----------
    poles : Tensor (F, 2)
        Real and imaginary part of ``p``. A pole outside the unit circle is scaled back to just inside.
    gains : Tensor (F, 2)
        Real and imaginary part of ``g``.
    design : Tensor (F, 5)
        Where the poles were designed (:func:`tamt.design.poles.split_design`), a constant.

    Returns
    -------
    Tensor (F, 5)
        Decay, frequency (high, low), gain (real and imaginary part).
    """
    rows: Tensor = _onepole_rows(poles, gains, design)
    return rows


def _check(poles: Tensor, gains: Tensor, design: Tensor) -> None:
    channels = design.shape[0]
    torch._check_value(
        poles.shape == gains.shape == (channels, 2) and design.shape == (channels, 5),
        lambda: (
            "poles, gains and design must have the shapes (F, 2), (F, 2) and (F, 5), got "
            f"{tuple(poles.shape)}, {tuple(gains.shape)} and {tuple(design.shape)}"
        ),
    )


def _fake(poles: Tensor, gains: Tensor, design: Tensor) -> Tensor:
    _check(poles, gains, design)
    return poles.new_empty(design.shape)


def _reference(poles: Tensor, gains: Tensor, design: Tensor) -> Tensor:
    _check(poles, gains, design)
    return reference.onepole_rows(poles, gains, design)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    poles, _, design = inputs
    ctx.save_for_backward(poles, output, design)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    poles, rows, design = ctx.saved_tensors
    grads = _onepole_rows_backward(grad, poles, rows, design)
    return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad[:2], strict=True)), None


def _fake_backward(grad: Tensor, poles: Tensor, rows: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
    return poles.new_empty(poles.shape), poles.new_empty(poles.shape)


def _definition_backward(grad: Tensor, poles: Tensor, rows: Tensor, design: Tensor) -> tuple[Tensor, ...]:
    # Twice the gain is linear: any will do.
    return pull_back(
        lambda poles, gains: reference.onepole_rows(poles, gains, design), (poles, torch.zeros_like(poles)), (grad,)
    )


_onepole_rows_backward = register(
    "onepole_rows_backward",
    "(Tensor grad, Tensor poles, Tensor rows, Tensor design) -> (Tensor, Tensor)",
    reference.onepole_rows_backward,
    "onepole_rows:onepole_rows_backward",
    _fake_backward,
    _definition_backward,
    linear=("grad",),
    rows=("grad", "poles", "rows", "design"),
)
_onepole_rows = register(
    "onepole_rows",
    "(Tensor poles, Tensor gains, Tensor design) -> Tensor",
    _reference,
    "onepole_rows:onepole_rows",
    _fake,
    reference.onepole_rows,
    setup_context=_setup_context,
    backward=_backward,
    rows=("poles", "gains", "design"),
)
