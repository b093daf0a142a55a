r"""FIR filters of any length, any number of them on each signal.

.. math:: y_f[t] = \sum_{m=0}^{M-1} h_f[m]\, x[t-m]

Signals run in blocks (overlap-save by FFT), so memory beyond the output does not grow with their length. The operator
has no kernels of its own: on every device it runs on that device's FFT, by :mod:`tamt.reference.fir`.

From the first sample on that is NaN or infinite, that signal's outputs are NaN, and so is what it leaves in the state,
for good; a state that is not finite does so from the start. What came before is what zeros in their place would give,
to the rounding of a transform, and other signals do not change. Gradients of a loss that reads those alone are what
they would be without such samples. Filters of a single tap have no state, and so nothing to tell the next call by.

For the operator the leading dimensions are one and the signals have a dimension, of size 1 where they have none for the
user: ``x`` (B, S, T), ``taps`` (F, M), ``past`` (B, S, M-1), with F / S filters to each signal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tamt.ops._checks import check_same_kind, check_value
from tamt.ops._register import Backward, backward_of, register
from tamt.reference import fir as reference


def fir(x: Tensor, taps: Tensor, *, state: Tensor | None = None, per_channel: bool = False) -> tuple[Tensor, Tensor]:
    r"""Convolve signals with causal impulse responses: :math:`y_f[t] = \sum_m h_f[m]\, x[t-m]`.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64; the other tensors have the same type.
    taps : Tensor (F, M)
        Impulse responses :math:`h_f`, with at least one filter and one tap.
    state : Tensor (..., M - 1) or, with ``per_channel``, (..., S, M - 1), optional
        The last samples of the signal to continue from; zeros if not given.
    per_channel : bool
        Whether ``x`` has a dimension of S signals. Filter f then filters signal :math:`\lfloor f / (F/S) \rfloor`: each
        signal has its own F / S filters, in order. Without it every filter gets the same signal.

    Returns
    -------
    y : Tensor (..., F, T)
    state : Tensor
        In the shape of ``state``, to continue with.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, ``taps`` without a filter or a tap.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Notes
    -----
    Exact to the rounding of transforms, which is relative to the largest samples of a block and not to those near by.
    Samples so large that a transform overflows, from about 1e35 in float32, spoil their block as a whole.
    Gradients reach the signal, the taps and the state.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.fir import fir
    >>> y, state = fir(torch.randn(3, 1000), torch.randn(2, 129))
    >>> y.shape, state.shape
    (torch.Size([3, 2, 1000]), torch.Size([3, 128]))
    >>> more, state = fir(torch.randn(3, 1000), torch.randn(2, 129), state=state)
    """
    signal_dims = 2 if per_channel else 1
    if x.dim() < signal_dims:
        raise ValueError(f"x must have shape {'(..., S, T)' if per_channel else '(..., T)'}, got {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if taps.dim() != 2 or taps.shape[0] < 1 or taps.shape[1] < 1:
        raise ValueError(f"taps must have shape (F, M) with F, M >= 1, got {tuple(taps.shape)}")
    filters, length = taps.shape
    if per_channel and (x.shape[-2] < 1 or filters % x.shape[-2]):
        raise ValueError(f"taps must hold as many filters for each of the {x.shape[-2]} signals, got {filters} in all")
    past_shape = (*x.shape[:-1], length - 1)
    if state is None:
        state = x.new_zeros(past_shape)
    if state.shape != torch.Size(past_shape):
        raise ValueError(f"state must have shape {past_shape}, got {tuple(state.shape)}")
    check_same_kind({"taps": taps, "state": state}, x, "the signal's")
    lead = x.shape[:-signal_dims]
    signals = x.shape[-2] if per_channel else 1
    batch = math.prod(lead)  # whose numel() would make a constant of it in torch.export
    y, last = fir_rows(x.reshape(batch, signals, x.shape[-1]), taps, state.reshape(batch, signals, length - 1))
    return y.reshape(*lead, filters, x.shape[-1]), last.reshape(past_shape)


def _check(x: Tensor, taps: Tensor, past: Tensor) -> None:
    check_value(
        x.dim() == 3 and taps.dim() == 2 and x.shape[1] > 0 and taps.shape[0] > 0 and taps.shape[0] % x.shape[1] == 0,
        lambda: (
            "x and taps must have the shapes (B, S, T) and (F, M) with F a multiple of S, "
            f"got {tuple(x.shape)} and {tuple(taps.shape)}"
        ),
    )
    check_value(
        past.dim() == 3
        and past.shape[0] == x.shape[0]
        and past.shape[1] == x.shape[1]
        and past.shape[2] == taps.shape[1] - 1,
        lambda: f"past must have shape {(*x.shape[:2], taps.shape[1] - 1)}, got {tuple(past.shape)}",
    )


fir_rows = register(
    "fir",
    "(Tensor x, Tensor taps, Tensor past) -> (Tensor y, Tensor last)",
    definition=reference.definition,
    forward=reference.fir,
    backward=Backward(
        reference.fir_backward,
        of="x taps past",
        needs=("x past", "taps"),
        silences="x past",
    ),
    check=_check,
    shapes=lambda x, taps, past: ((x.shape[0], taps.shape[0], x.shape[2]), past.shape),
    linear="x past",
    rows="x past",
)
fir_backward = backward_of(fir_rows)
