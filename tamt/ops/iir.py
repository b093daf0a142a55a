r"""IIR filters of many channels: cascades of complex one-pole sections and of real second-order sections.

Five functions, one operator. Each filters a signal shared by all ``F`` channels, ``x`` (..., T), or, with
``per_channel=True``, ``S`` signals, ``x`` (..., S, T), of which each goes through ``F / S`` filters, the first through
the first ones: with ``S = F`` one for each channel. It returns the output (..., F, T) and the final state (..., F, N),
which continues the signal when it is given back as ``state``. Gradients reach the signal, the coefficients
and the state. On CUDA the operator runs on Triton kernels, elsewhere on :mod:`tamt.reference.iir`.

From the first sample on that is NaN or infinite, no sample of that signal's output is finite, nor is the final state;
from a state that is not finite, none is from the second sample on. What came before, and other signals, do not change,
and gradients of a loss that reads those alone are what they would be without such samples.

For the operator the leading dimensions are one, ``x`` is (B, S, T), with ``S = 1`` for a signal shared by all channels,
``state`` (B, F, N), and the coefficients of a channel are a row of ``coef`` (F, P):

=========== ==== ======== ============================================= ===========================================
kind        N    P        row                                           state
=========== ==== ======== ============================================= ===========================================
``onepole`` 2n   5        decay, frequency (high, low), gain (re, im)   re, im of each section's output, first to last
``biquad``  2n   7n       b, e1, e2, omega, k, a, r of each section     s1, s2 of each section
``allpole`` 2n   5 + 2n   as ``onepole``, then feedback (re, im)        as ``onepole``
``modal``   2n   6n       decay, frequency (high, low), gain (re, im),  re, im of each section's resonance
                          direct gain of each section
=========== ==== ======== ============================================= ===========================================

Decay is in nepers per sample, frequency in cycles per sample as an unevaluated sum. Of up to 8 one-pole sections gain
and feedback are the :math:`g` and :math:`c_k` of :func:`onepole_cascade`. Of more, the sections have a gain of
:math:`h = 1 - e^{-\mathrm{decay}}` each from the second on, so that states stay within float32: the row has
:math:`g / h^{n-1}` and :math:`c_k / h^{k-1}`.

A section of ``biquad`` takes its input :math:`u` to

.. math::

    y &= b\,u + s_1 \\
    s_1' &= r\,s_1 + \omega\,s_2 + e_1 u \\
    s_2' &= r\,s_2 - k\,s_1 - a\,s_2 + e_2 u

Its denominator is :math:`(z - r)^2 + a (z - r) + \omega k` and its numerator :math:`b (z - r)^2 + n_1 (z - r) + n_0`,
of which :math:`e_1 = n_1 - a b` and :math:`\omega e_2 = n_0 - \omega k b - a e_1`. The point r is 1 or -1 where the
poles are slow near it, else 0: for :math:`z^2 + a_1 z + a_2` and r = 1, :math:`a = a_1 + 2` and
:math:`\omega k = a_2 + a_1 + 1`, which float32 forms without error. :math:`\omega` is a power of two near
:math:`\sqrt{|\omega k|}`, so that both states are of a size. Powers of two of the gain move from one section to the
next. :func:`biquad_cascade` makes the rows of ordinary coefficients ``b0 b1 b2 a0 a1 a2``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamt.design.sections import Biquads, biquad_sections, scaled_cascade
from tamt.ops._checks import as_rows, check_same_kind, check_value, with_lead
from tamt.ops._register import Backward, backward_of, register
from tamt.ops.blocks import iir_blocks
from tamt.reference import iir as reference
from tamt.reference.blocks import iir_blocks_vjp
from tamt.shared.iir import KINDS, Blocks, analytic_rows, analytic_states


def onepole_cascade(
    x: Tensor,
    decay: Tensor,
    frequency: Tensor,
    gain: Tensor,
    order: int,
    *,
    frequency_low: Tensor | None = None,
    feedback: Tensor | None = None,
    state: Tensor | None = None,
    per_channel: bool = False,
    output: str = "real",
) -> tuple[Tensor, Tensor]:
    r"""``order`` equal complex one-pole sections: :math:`y = \mathrm{Re}\{g x / (1 - p z^{-1})^n\}`.

    The pole is :math:`p = e^{-\mathrm{decay} + 2\pi i\,\mathrm{frequency}}`. Decay and frequency, not the pole, keep
    float32 exact where a pole lies close to the unit circle. Section by section: :math:`s_0[t] = g x[t]`,
    :math:`s_j[t] = p\,s_j[t-1] + s_{j-1}[t]`, :math:`y = \mathrm{Re}\,s_n`. With ``feedback`` :math:`c`,
    :math:`s_0[t] = g x[t] - \sum_k c_k s_k[t-1]`, which makes any complex all-pole filter of that order.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64; the coefficients have the same type.
    decay : Tensor (F,)
        Nepers per sample, positive for a stable filter.
    frequency : Tensor (F,)
        Cycles per sample.
    gain : Tensor (F, 2)
        Real and imaginary part of :math:`g`.
    order : int
        Number of sections.
    frequency_low : Tensor (F,), optional
        What rounding took from ``frequency``; the filter uses the sum.
    feedback : Tensor (F, order, 2), optional
        Real and imaginary part of :math:`c_1 \dots c_n`.
    state : Tensor (..., F, 2 * order), optional
        State to continue from, real and imaginary part of :math:`s_1 \dots s_n`; rest if not given. Beyond order 8,
        where they would leave the range of float32, it has :math:`s_j / h^{n-j}`, :math:`h = 1 - e^{-\mathrm{decay}}`.
    per_channel : bool
        Whether ``x`` has a channel axis: S signals, of which each goes through F / S filters.
    output : {'real', 'complex'}
        Whether the output is :math:`\mathrm{Re}\,s_n` or the complex :math:`s_n` itself.

    Returns
    -------
    y : Tensor (..., F, T)
    state : Tensor (..., F, 2 * order)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, an ``order`` below 1, another ``output``.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.iir import onepole_cascade
    >>> decay, frequency = torch.tensor([0.05, 0.1]), torch.tensor([0.02, 0.1])
    >>> gain = torch.stack((2 * (1 - torch.exp(-decay)) ** 4, torch.zeros(2)), 1)  # 0 dB at the centre
    >>> y, state = onepole_cascade(torch.randn(3, 1000), decay, frequency, gain, order=4)
    >>> y.shape, state.shape
    (torch.Size([3, 2, 1000]), torch.Size([3, 2, 8]))
    >>> more, state = onepole_cascade(torch.randn(3, 1000), decay, frequency, gain, order=4, state=state)
    """
    if output not in ("real", "complex"):
        raise ValueError(f"output must be 'real' or 'complex', got {output!r}")
    _check_vector("decay", decay)
    _check_shape("frequency", frequency, decay.shape)
    _check_shape("gain", gain, (*decay.shape, 2))
    if frequency_low is None:
        frequency_low = torch.zeros_like(frequency)
    _check_shape("frequency_low", frequency_low, decay.shape)
    check_order(order)
    if feedback is not None:
        _check_shape("feedback", feedback, (*decay.shape, order, 2))
    gain, feedback = scaled_cascade(decay, gain, feedback, order)
    coef = torch.cat((decay[:, None], frequency[:, None], frequency_low[:, None], gain), 1)
    kind = "onepole" if feedback is None else "allpole"
    if feedback is not None:
        coef = torch.cat((coef, feedback.flatten(1)), 1)
    run = filtered if output == "real" else analytic
    return run(x, coef, kind, order, state, per_channel)


def biquad_cascade(
    x: Tensor, sos: Tensor, *, state: Tensor | None = None, per_channel: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Real second-order sections one after the other, as :func:`scipy.signal.sosfilt`.

    In float32 the coefficients are used as they are rounded, and the rest is exact to a few rounding errors of the
    output, though poles lie close to the unit circle: inside, the sections have the form of the rows of
    :mod:`tamt.ops.iir`.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64.
    sos : Tensor (F, K, 6)
        ``b0 b1 b2 a0 a1 a2`` of each section, as in :func:`scipy.signal.sosfilt`, for each channel. They are divided by
        ``a0``.
    state : Tensor (..., F, 2 * K), optional
        State to continue from, the two delays of each section in transposed direct form II (``zi`` of
        :func:`scipy.signal.sosfilt`); rest if not given.
    per_channel : bool
        Whether ``x`` has a channel axis: S signals, of which each goes through F / S filters.

    Returns
    -------
    y : Tensor (..., F, T)
    state : Tensor (..., F, 2 * K)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.iir import biquad_cascade
    >>> lowpass = torch.tensor([0.0675, 0.1349, 0.0675, 1.0, -1.1430, 0.4128])  # 2nd order, at a tenth of the rate
    >>> y, state = biquad_cascade(torch.randn(3, 1000), lowpass.expand(5, 2, 6))
    >>> y.shape, state.shape
    (torch.Size([3, 5, 1000]), torch.Size([3, 5, 4]))
    """
    if sos.dim() != 3 or sos.shape[1] < 1 or sos.shape[2] != 6:
        raise ValueError(f"sos must have shape (F, K, 6) with K >= 1, got {tuple(sos.shape)}")
    biquads = biquad_sections(sos)
    return filtered(x, biquads.sections.flatten(1), "biquad", sos.shape[1], state, per_channel, biquads)


def modal_cascade(
    x: Tensor, sections: Tensor, *, state: Tensor | None = None, per_channel: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Real second-order sections one after the other, each the real part of a complex one-pole section.

    A section has the pole :math:`p = e^{-\mathrm{decay} + 2\pi i\,\mathrm{frequency}}`, the gain :math:`g` and the
    direct gain :math:`d`: :math:`s[t] = p\,s[t-1] + g\,u[t]`, :math:`y[t] = d\,u[t] + \mathrm{Re}\,s[t]`, or

    .. math:: H(z) = d + \frac{1}{2} \left(\frac{g}{1 - p z^{-1}} + \frac{\bar g}{1 - \bar p z^{-1}}\right).

    Any biquad with complex poles can be written so. It keeps the digits that float32 takes from the coefficients of a
    biquad whose poles are slow.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64; the sections have the same type.
    sections : Tensor (F, K, 6)
        Decay in nepers per sample, frequency in cycles per sample as an unevaluated sum (high, low), gain (real and
        imaginary part) and direct gain of each of the K sections of each channel.
    state : Tensor (..., F, 2 * K), optional
        State to continue from; rest if not given.
    per_channel : bool
        Whether ``x`` has a channel axis: S signals, of which each goes through F / S filters.

    Returns
    -------
    y : Tensor (..., F, T)
    state : Tensor (..., F, 2 * K)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.iir import modal_cascade
    >>> section = torch.tensor([0.05, 0.1, 0.0, 0.1, 0.0, 0.0])  # decay, frequency (high, low), gain (re, im), direct
    >>> y, state = modal_cascade(torch.randn(3, 1000), section.expand(5, 2, 6))
    >>> y.shape, state.shape
    (torch.Size([3, 5, 1000]), torch.Size([3, 5, 4]))
    """
    check_sections("sections", sections)
    return filtered(x, sections.flatten(1), "modal", sections.shape[1], state, per_channel)


def analytic(
    x: Tensor, coef: Tensor, kind: str, order: int, state: Tensor | None = None, per_channel: bool = False
) -> tuple[Tensor, Tensor]:
    """Complex output of one-pole sections, of which :func:`filtered` gives the real part.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64; coefficients and state have the same type.
    coef : Tensor (F, P)
        Rows of coefficients of that kind, see the table of :mod:`tamt.ops.iir`.
    kind : {'onepole', 'allpole'}
        Others have no analytic output; that is not checked.
    order : int
        Number of sections.
    state : Tensor (..., F, 2 * order), optional
        State to continue from; rest if not given.
    per_channel : bool
        Whether ``x`` has a channel axis: S signals, of which each goes through F / S filters.

    Returns
    -------
    z : Tensor (..., F, T), complex
    state : Tensor (..., F, 2 * order)

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.iir import analytic
    >>> row = torch.tensor([0.05, 0.1, 0.0, 1e-5, 0.0])  # decay, frequency (high, low), gain (re, im)
    >>> z, state = analytic(torch.randn(1000), row.expand(5, 5), "onepole", 4)
    >>> z.shape, z.is_complex()
    (torch.Size([5, 1000]), True)
    """
    both = None if state is None else analytic_states(state)
    parts, final = filtered(x, analytic_rows(coef), kind, order, both, per_channel)
    re, im = parts.unflatten(-2, (coef.shape[0], 2)).unbind(-2)
    return torch.complex(re, im), final.unflatten(-2, (coef.shape[0], 2))[..., 0, :]


def check_sections(name: str, sections: Tensor) -> None:
    """Sections of :func:`modal_cascade`, or a ValueError."""
    if sections.dim() != 3 or sections.shape[1] < 1 or sections.shape[2] != 6:
        raise ValueError(f"{name} must have shape (F, K, 6) with K >= 1, got {tuple(sections.shape)}")


def filtered(
    x: Tensor,
    coef: Tensor,
    kind: str,
    order: int,
    state: Tensor | None,
    per_channel: bool = False,
    biquads: Biquads | None = None,
) -> tuple[Tensor, Tensor]:
    """Output of filters of any kind, given by their rows of coefficients.

    Parameters
    ----------
    x : Tensor (..., T) or, with ``per_channel``, (..., S, T)
        Signal, float32 or float64; coefficients and state have the same type.
    coef : Tensor (F, P)
        Rows of coefficients of that kind, see the table of :mod:`tamt.ops.iir`.
    kind : {'onepole', 'biquad', 'allpole', 'modal'}
    order : int
        Number of sections.
    state : Tensor (..., F, N) or None
        State to continue from; None is rest.
    per_channel : bool
        Whether ``x`` has a channel axis: S signals, of which each goes through F / S filters.
    biquads : Biquads, optional
        For :func:`biquad_cascade`: what turns the delays of its sections into states of the rows, and back.

    Returns
    -------
    y : Tensor (..., F, T)
    state : Tensor (..., F, N)
        State after the last sample.

    Raises
    ------
    ValueError
        Tensors whose shapes do not belong together, another ``kind``, an ``order`` below 1.
    TypeError
        A signal that is neither float32 nor float64, other tensors of another type or device.

    Examples
    --------
    >>> import torch
    >>> from tamt.ops.iir import filtered
    >>> row = torch.tensor([0.05, 0.1, 0.0, 1e-5, 0.0])  # decay, frequency (high, low), gain (re, im)
    >>> y, state = filtered(torch.randn(1000), row.expand(5, 5), "onepole", 4, None)
    >>> y.shape, state.shape
    (torch.Size([5, 1000]), torch.Size([5, 8]))
    """
    channels = coef.shape[0]
    if x.dim() < (2 if per_channel else 1) or (per_channel and not _fan_out(x.shape[-2], channels)):
        expected = f"(..., S, T) with an S that divides {channels}" if per_channel else "(..., T)"
        raise ValueError(f"x must have shape {expected}, got {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    lead = x.shape[: -2 if per_channel else -1]
    rows = as_rows(x, 2) if per_channel else as_rows(x).unsqueeze(1)
    numbers = KINDS[kind].states(order)
    check_same_kind({"coefficients": coef}, x, "the signal's")
    if state is None:
        states = rows.new_zeros(rows.shape[0], channels, numbers)
    else:
        _check_shape("state", state, (*lead, channels, numbers))
        check_same_kind({"state": state}, x, "the signal's")
        states = as_rows(biquads.states(state) if biquads else state, 2)
    y, last = with_lead(lead, iir(rows, coef, states, kind, order))
    return y, biquads.delays(last) if biquads else last


def _fan_out(signals: int, channels: int) -> bool:
    """Whether each of the signals can have an equal number of channels."""
    return channels % signals == 0 if signals else channels == 0


def _check_vector(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 1:
        raise ValueError(f"{name} must have shape (F,), got {tuple(tensor.shape)}")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")


def check_order(order: int) -> None:
    """A number of sections, or a ValueError."""
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")


def check_filters(coef: Tensor, state: Tensor, kind: str, order: int) -> None:
    """Rows of coefficients and states (B, F, N) that belong to such filters, or a ValueError."""
    check_value(kind in KINDS, lambda: f"kind must be one of {tuple(KINDS)}, got {kind!r}")
    columns, states = KINDS[kind].columns(order), KINDS[kind].states(order)
    check_value(
        coef.dim() == 2 and coef.shape[1] == columns,
        lambda: f"coef must have shape (F, {columns}), got {tuple(coef.shape)}",
    )
    check_value(
        state.dim() == 3 and state.shape[1] == coef.shape[0] and state.shape[2] == states,
        lambda: f"state must have shape (B, {coef.shape[0]}, {states}), got {tuple(state.shape)}",
    )


def _check_operands(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int) -> None:
    check_filters(coef, state, kind, order)
    check_value(
        x.dim() == 3 and x.shape[0] == state.shape[0] and _fan_out(x.shape[1], coef.shape[0]),
        lambda: f"x must have shape (B, S, T) with an S that divides {coef.shape[0]}, got {tuple(x.shape)}",
    )


def _definition(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int) -> tuple[Tensor, Tensor]:
    return reference.definition(x, Blocks(*iir_blocks(coef, kind, order)), state)


def _backward(*operands: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_state, grad_blocks = reference.iir_backward(*operands)
    *_, coef, _, kind, order, _, need_coef = operands
    grad_coef = iir_blocks_vjp(grad_blocks, coef, kind, order) if need_coef else coef.new_empty(0)
    return grad_x, grad_state, grad_coef


iir = register(
    "iir",
    "(Tensor x, Tensor coef, Tensor state, str kind, int order) -> (Tensor y, Tensor final)",
    definition=_definition,
    forward=reference.iir,
    launcher="iir:iir_forward",
    backward=Backward(
        _backward,
        of="x state coef",
        launcher="iir:iir_backward",
        needs=("x", "coef"),
        silences="x state",
    ),
    check=_check_operands,
    shapes=lambda x, coef, state, kind, order: ((*state.shape[:2], x.shape[-1]), state.shape),
    linear="x state",
    rows="x state",
)
iir_backward = backward_of(iir)
