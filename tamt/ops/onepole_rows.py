"""From the poles and gains of gammatones to the rows that the IIR engine takes, in one launch where there are kernels.

As operations of torch these are some sixty, which is most of the time that a GPU needs for a short signal.
"""

from __future__ import annotations

from torch import Tensor

from tamt.ops._checks import check_value
from tamt.ops._register import Backward, backward_of, register
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
        Where the poles were designed, a constant: real and imaginary part of that pole, its decay in nepers per sample
        and its frequency in cycles per sample as a sum (high, low). Poles near it keep the digits of these.

    Returns
    -------
    Tensor (F, 5)
        Decay, frequency (high, low), gain (real and imaginary part).

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.onepole_rows import onepole_rows
    >>> pole = torch.polar(torch.tensor(0.9), torch.tensor(-0.5))
    >>> poles = torch.view_as_real(pole)[None]
    >>> design = torch.tensor([[*poles[0], -torch.log(torch.tensor(0.9)), -0.5 / (2 * torch.pi), 0.0]])
    >>> onepole_rows(poles, torch.tensor([[1e-4, 0.0]]), design).shape
    torch.Size([1, 5])
    """
    rows: Tensor = _onepole_rows(poles, gains, design)
    return rows


def _check(poles: Tensor, gains: Tensor, design: Tensor) -> None:
    channels = design.shape[0]
    check_value(
        poles.shape == gains.shape == (channels, 2) and design.shape == (channels, 5),
        lambda: (
            "poles, gains and design must have the shapes (F, 2), (F, 2) and (F, 5), got "
            f"{tuple(poles.shape)}, {tuple(gains.shape)} and {tuple(design.shape)}"
        ),
    )


_onepole_rows = register(
    "onepole_rows",
    "(Tensor poles, Tensor gains, Tensor design) -> Tensor",
    definition=reference.onepole_rows,
    forward=reference.onepole_rows,
    launcher="onepole_rows:onepole_rows",
    backward=Backward(
        reference.onepole_rows_backward,
        of="poles gains",
        constants="design",
        launcher="onepole_rows:onepole_rows_backward",
        keeps="result",
    ),
    check=_check,
    shapes=lambda poles, gains, design: design.shape,
    rows="poles gains design",
)
_onepole_rows_backward = backward_of(_onepole_rows)
