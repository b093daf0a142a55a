"""Sections as the IIR engine takes them: from biquads, of cascades, and what they do to a tone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt.design.poles import MIN_DECAY
from tamt.design.rows import KERNEL_ORDER, BiquadSection, ModalSection


def modal_response(sections: Tensor, cycles: Tensor) -> Tensor:
    r"""Complex response (F, K) of cascades (F, n, 6) of modal sections at ``cycles`` (K,) per sample.

    The product of :math:`d + \frac12 (g/(1 - p z^{-1}) + \bar g/(1 - \bar p z^{-1}))` over the sections.
    """
    section = ModalSection(*sections[..., None].unbind(2))  # (F, n, 1) each
    shrink, half = torch.expm1(-section.decay), torch.complex(section.gain_re, section.gain_im) / 2

    def part(cycles: Tensor) -> Tensor:
        angle = 2 * math.pi * ((section.high - cycles) + section.low)
        # 1 - p / z without cancellation near the pole
        return half / torch.complex(
            2 * torch.sin(angle / 2) ** 2 * (1 + shrink) - shrink, -(1 + shrink) * torch.sin(angle)
        )

    return (section.direct + part(cycles) + part(-cycles).conj()).prod(1)


class Biquads(NamedTuple):
    r"""Real second-order sections in the form that the engine gives them, which keeps the digits of slow poles.

    A section is :math:`y = b u + s_1`, :math:`s_1' = r s_1 + \omega s_2 + e_1 u`,
    :math:`s_2' = r s_2 - k s_1 - a s_2 + e_2 u` (:class:`tamt.design.rows.BiquadSection`): both its polynomials are
    taken in powers of :math:`z - r`, where :math:`r` is 1 or -1, near which slow poles lie, or 0. What the coefficients
    of a biquad say about poles near 1 is in the sums :math:`a = a_1 + 2` and :math:`\omega k = a_2 + a_1 + 1`, which
    float32 forms without error. :math:`\omega \approx \sqrt{|\omega k|}` makes the states equally large.
    """

    sections: Tensor  # (F, K, 7), with powers of two moved from one section to the next
    scale: Tensor  # (F, K): what these make of the states

    def states(self, delays: Tensor) -> Tensor:
        """States (..., F, 2K) from the two delays of each section in transposed direct form II."""
        one, two = delays.unflatten(-1, (-1, 2)).unbind(-1)
        of = BiquadSection(*self.sections.unbind(-1))
        second = ((two + of.r * one) - of.a * one) / of.omega
        return (torch.stack((one, second), -1) * self.scale[..., None]).flatten(-2)

    def delays(self, states: Tensor) -> Tensor:
        """The inverse of :meth:`states`."""
        one, two = (states.unflatten(-1, (-1, 2)) / self.scale[..., None]).unbind(-1)
        of = BiquadSection(*self.sections.unbind(-1))
        return torch.stack((one, (of.omega * two + of.a * one) - of.r * one), -1).flatten(-2)


def _shifted(first: Tensor, second: Tensor, third: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The lower coefficients of ``first z^2 + second z + third`` in powers of ``z - r``, for ``r`` of 0, 1 or -1."""
    turned, again = r * second, r * r * first
    total = again + turned
    with torch.no_grad():
        kept = total - again
        lost = (again - (total - kept)) + (turned - kept)  # what rounding took from the total
    return torch.where(r == 0, second, r * (total + again + lost)), (total + third) + lost


def biquad_sections(sos: Tensor) -> Biquads:
    """:class:`Biquads` of ``b0 b1 b2 a0 a1 a2`` (F, K, 6).

    How large omega is, and where powers of two go, is arbitrary and a constant to gradients: these are finite and right
    where poles meet on the real axis.
    """
    b0, b1, b2, a0, a1, a2 = sos.unbind(-1)
    with torch.no_grad():
        size, rest = (a1 / a0).abs(), a2 / a0
        near = (size >= 1) | ((size >= 0.5) & (1 - size + rest < 0.5))
        r = torch.where(near, -torch.sign(a1 / a0), torch.zeros_like(a1))
    a, kappa = (v / a0 for v in _shifted(a0, a1, a2, r))
    n1, n0 = (v / a0 for v in _shifted(b0, b1, b2, r))
    direct = b0 / a0
    with torch.no_grad():
        least = torch.where(r == 0, 0.5, torch.full_like(r, 2.0**-30))
        omega = torch.maximum(torch.maximum(kappa.abs().sqrt(), a.abs() / 4), least)
        omega = torch.exp2(torch.round(torch.log2(omega)))
    e1 = n1 - a * direct
    e2 = ((n0 - kappa * direct) - a * e1) / omega
    with torch.no_grad():
        # A section's gain, roughly. Designs put that of the whole filter into the first section: 1e-35 for a long one.
        gain = direct.abs() + (e1.abs() + e2.abs()) / omega
        limit = 700 if sos.dtype == torch.float64 else 90
        gain = torch.where(gain == 0, 1.0, gain.clamp(min=2.0**-limit))
        exponent = -torch.round(torch.log2(gain)).cumsum(1)
        exponent = pad(exponent[:, :-1].clamp(-limit, limit), (1, 1))
        factor = torch.exp2(exponent.diff(dim=1))
    section = BiquadSection(factor * direct, factor * e1, factor * e2, omega, kappa / omega, a, r)
    return Biquads(torch.stack(section, -1), torch.exp2(exponent[:, 1:]))


def section_gain(decay: Tensor, order: int) -> Tensor:
    """What a section of a one-pole cascade does to the output of the one before: (F,), a constant to gradients.

    Up to order 8, which is all that GPUs do, 1. In longer cascades near the circle that would make the first states
    smaller than float32 has numbers; there, a section has about 0 dB at its resonance.
    """
    if order <= KERNEL_ORDER:
        return torch.ones_like(decay)
    return torch.expm1(-decay.detach()).abs().clamp(min=MIN_DECAY)


def scaled_cascade(decay: Tensor, gain: Tensor, feedback: Tensor | None, order: int) -> tuple[Tensor, Tensor | None]:
    """The gain and feedback that a cascade with :func:`section_gain` needs to be that of ``gain`` and ``feedback``."""
    if order <= KERNEL_ORDER:
        return gain, feedback
    root = section_gain(decay, order).sqrt()[:, None]  # their powers alone may leave the range of float32
    scale = root ** (1 - order)
    if feedback is not None:
        of_section = (root ** -torch.arange(order, device=decay.device))[..., None]
        feedback = feedback * of_section * of_section
    return gain * scale * scale, feedback
