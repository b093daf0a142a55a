r"""The broken stick: DRNL's instantaneous compression, linear below a knee and a power law above.

.. math:: \mathrm{NL}(v) = \mathrm{sign}(v) \min(a |v|,\, b |v|^c)

For the operator ``v`` is (B, F, T) and the parameters of a channel are a row a, b, c of ``stick`` (F, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import broken_stick as reference


def broken_stick(v: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    r""":math:`\mathrm{sign}(v) \min(a |v|, b |v|^c)` sample by sample.

    Parameters
    ----------
    v : Tensor (..., F, T)
        Signals, float32 or float64.
    a, b, c : Tensor (F,)
        Slope at 0, factor and exponent of the power law, of ``v``'s type.

    Returns
    -------
    Tensor (..., F, T)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        ``v`` that is neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    On the knee, where both branches are equal, gradients are those of the linear one.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.broken_stick import broken_stick
    >>> v = torch.tensor([[-4.0, -0.25, 0.0, 0.25, 4.0]])
    >>> broken_stick(v, a=torch.tensor([2.0]), b=torch.tensor([1.0]), c=torch.tensor([0.5]))
    tensor([[-2.0000, -0.5000,  0.0000,  0.5000,  2.0000]])
    """
    if a.dim() != 1 or a.shape != b.shape or a.shape != c.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (a, b, c))
        raise ValueError(f"a, b and c must have the same shape (F,), got {shapes}")
    if v.dim() < 2 or v.shape[-2] != a.shape[0]:
        raise ValueError(f"v must have shape (..., {a.shape[0]}, T), got {tuple(v.shape)}")
    if v.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"v must be float32 or float64, got {v.dtype}")
    stick = torch.stack((a, b, c), 1)
    check_same_kind({"a, b and c": stick}, v, "v's")
    (bent,) = with_lead(v.shape[:-2], [broken_stick_rows(as_rows(v, 2), stick)])
    return bent


def _check(v: Tensor, stick: Tensor) -> None:
    check_value(
        v.dim() == 3 and stick.dim() == 2 and stick.shape[0] == v.shape[1] and stick.shape[1] == 3,
        lambda: f"v and stick must have the shapes (B, F, T) and (F, 3), got {tuple(v.shape)} and {tuple(stick.shape)}",
    )


broken_stick_rows = register(
    "broken_stick",
    "(Tensor v, Tensor stick) -> Tensor",
    definition=reference.definition,
    forward=reference.broken_stick,
    launcher="broken_stick:broken_stick",
    backward=Backward(reference.broken_stick_backward, of="v stick", launcher="broken_stick:broken_stick_backward"),
    check=_check,
    shapes=lambda v, _: v.shape,
    rows="v",
)
broken_stick_backward = backward_of(broken_stick_rows)
