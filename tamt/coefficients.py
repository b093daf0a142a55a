"""Filter design, apart from its application: poles and gains from frequencies, block matrices from sections.

Everything here is plain torch and differentiable. The engine's coefficient rows (``coef`` of shape ``(F, P)``) are
described in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import hardshrink, pad

from tamt.ops._register import transformed
from tamt.ops.doubling import doubled
from tamt.ops.product import product
from tamt.scales import audfiltbw

MIN_DECAY = 1e-5  # nepers per sample: learnt poles stay this far inside the unit circle
MAX_DECAY = 36.0  # where a pole might as well be 0


def gammatone_betamul(n: int) -> float:
    r"""Ratio of a gammatone's bandwidth parameter to its equivalent rectangular bandwidth.

    :math:`((n-1)!)^2 / (\pi (2n-2)! 2^{-(2n-2)})`, 1.0186 for order 4 (Patterson et al. 1987; AMT ``gammatone``).
    """
    return 4 ** (n - 1) / math.comb(2 * n - 2, n - 1) / math.pi  # whole numbers of any size first


def gammatone_design(fc: Tensor, fs: float, n: int, betamul: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""Pole and gain of Lyon's all-pole gammatone, :math:`2\,\mathrm{Re}\{g x / (1 - p z^{-1})^n\}`.

    Parameters
    ----------
    fc : Tensor (F,)
        Centre frequencies in Hz.
    fs : float
        Sampling rate in Hz.
    n : int
        Order.
    betamul : float
        Bandwidth parameter in units of ``audfiltbw(fc)``.

    Returns
    -------
    decay, frequency, gain : Tensor (F,)
        :math:`\phi = 2\pi\,\mathrm{betamul}\,\mathrm{audfiltbw}(f_c)/f_s` in nepers per sample, 36 at most,
        :math:`-f_c/f_s` in cycles per sample and :math:`(1 - e^{-\phi})^n`; the pole is
        :math:`p = e^{-\phi + 2\pi i\,\mathrm{frequency}}`.
    """
    decay = (2 * math.pi * betamul * audfiltbw(fc) / fs).clamp(max=MAX_DECAY)
    return decay, -fc / fs, (-torch.expm1(-decay)) ** n


def check_gammatone(fc: Tensor, decay: Tensor, n: int, dtype: torch.dtype, expanded: bool) -> None:
    """A ValueError where a gain, or if ``expanded`` an entry of the feedback map, is out of the range of ``dtype``."""
    range_of = torch.finfo(dtype)
    base = -torch.expm1(-decay)
    worst = int(base.argmin())
    if n * math.log(base[worst]) < math.log(range_of.tiny):
        most = int(math.log(range_of.tiny) / math.log(base[worst]))
        raise ValueError(
            f"n must be at most {most} for fc = {fc[worst]:g} Hz at this fs and betamul, got {n}: the gain, "
            f"{base[worst]:.3g} to the power of n, is out of the range of {dtype}"
        )
    growth = decay.max().item() + math.log(2)  # binomial coefficients over powers of the pole
    if expanded and (n - 1) * growth > math.log(range_of.max):
        raise ValueError(
            f"n must be at most {1 + int(math.log(range_of.max) / growth)} for implementation 'poly' at this fs and "
            f"betamul, got {n}: the expanded denominator is out of the range of {dtype}; 'sos' has no such limit"
        )


def classic_gammatone(fc: Tensor, bandwidth: Tensor, fs: float, n: int) -> Tensor:
    r"""Sections of the real pole-zero gammatone, 0 dB at its centre frequency.

    With :math:`p = e^{-\phi + i\theta}`, :math:`\phi = 2\pi\,\mathrm{bandwidth}/f_s` and :math:`\theta = 2\pi f_c/f_s`
    each of the ``n`` equal sections is :math:`a_0 (1 - \mathrm{Re}\,p\,z^{-1}) / ((1 - p z^{-1})(1 - \bar p z^{-1}))`,
    which is the real part of :math:`a_0 / (1 - p z^{-1})` for a real signal; :math:`a_0` is the inverse of the
    section's magnitude at :math:`f_c` (AMT ``gammatone``, option ``classic``).

    Parameters
    ----------
    fc, bandwidth : Tensor (F,)
        Centre frequencies and bandwidths in Hz. A filter of a bandwidth below ``1e-5 fs / 2 pi``, which would hardly
        decay or not at all, gets this one.
    fs : float
        Sampling rate in Hz.
    n : int
        Order.

    Returns
    -------
    Tensor (F, n, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`.
    """
    decay = 2 * math.pi * bandwidth / fs
    decay = torch.where(decay < MIN_DECAY, MIN_DECAY, decay)
    cycles = fc / fs
    shrink, angle = torch.expm1(-decay), 2 * math.pi * cycles
    # Half the sum of 1 / (1 - p/z) and 1 / (1 - conj(p)/z) at z = e^{i theta}, without cancellation.
    far_re = 2 * (1 + shrink) * torch.sin(angle) ** 2 - shrink
    far_im = (1 + shrink) * torch.sin(2 * angle)
    norm = far_re**2 + far_im**2
    a0 = 2 * torch.rsqrt((far_re / norm - 1 / shrink) ** 2 + (far_im / norm) ** 2)
    zero = torch.zeros_like(a0)
    return torch.stack((decay, cycles, zero, a0, zero, zero), -1)[:, None].expand(-1, n, -1)


def butterworth_lowpass(cutoff: Tensor, fs: float, n: int) -> Tensor:
    r"""Sections of a second-order Butterworth low-pass applied ``n`` times.

    The bilinear transform with :math:`W = \tan(\pi f_c/f_s)` takes the analogue pole to :math:`p = (1 + s)/(1 - s)`,
    :math:`s = W e^{3 i \pi/4}`; partial fractions of the biquad give
    :math:`g = -2\sqrt 2\,W (W^2 + i)/(1 + W^4)` and :math:`d = W^2/(1 - \sqrt 2\,W + W^2)`.

    Parameters
    ----------
    cutoff : Tensor (F,)
        Cut-off frequencies in Hz, limited to 0.9999 of the Nyquist frequency.
    fs : float
        Sampling rate in Hz.
    n : int
        How many times.

    Returns
    -------
    Tensor (F, n, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`.
    """
    w = torch.tan(math.pi * cutoff.clamp(max=0.9999 * fs / 2) / fs)
    twice, square = math.sqrt(2) * w, w * w
    decay = torch.atanh(twice / (1 + square))
    cycles = torch.atan2(twice, 1 - square) / (2 * math.pi)
    scale = -2 * twice / (1 + square * square)
    columns = (decay, cycles, torch.zeros_like(w), scale * square, scale, square / (1 - twice + square))
    return torch.stack(columns, -1)[:, None].expand(-1, n, -1)


DRNLSections = tuple[Tensor, Tensor, Tensor]  # of the linear path, and of the nonlinear path's first and second filter


def drnl_sections(
    cf_lin: Tensor,
    bw_lin: Tensor,
    lp_lin: Tensor,
    g: Tensor,
    cf_nlin: Tensor,
    bw_nlin: Tensor,
    lp_nlin: Tensor,
    *,
    fs: float,
    orders: Sequence[int],
) -> DRNLSections:
    """Sections of the three filters of a dual-resonance nonlinear filterbank.

    Parameters
    ----------
    cf_lin, bw_lin, lp_lin, g : Tensor (F,)
        Centre frequency, bandwidth and low-pass cut-off in Hz, and gain of the linear path.
    cf_nlin, bw_nlin, lp_nlin : Tensor (F,)
        The same of the nonlinear path.
    fs : float
        Sampling rate in Hz.
    orders : four int
        Order of the gammatone and number of low-passes of the linear path, then of the nonlinear path.

    Returns
    -------
    linear, front, back : Tensor (F, K, 6)
        Sections of :func:`tamt.ops.iir.modal_cascade`; ``front`` comes before the broken stick, ``back`` after it.
    """
    order_lin, lowpasses_lin, order_nlin, lowpasses_nlin = orders
    first, *others = classic_gammatone(cf_lin, bw_lin, fs, order_lin).unbind(1)
    one = torch.ones_like(g)
    first = first * torch.stack((one, one, one, g, g, g), 1)
    lowpasses = butterworth_lowpass(lp_lin, fs, lowpasses_lin)
    linear = torch.cat((torch.stack((first, *others), 1), lowpasses), 1)
    front = classic_gammatone(cf_nlin, bw_nlin, fs, order_nlin)
    back = torch.cat((front, butterworth_lowpass(lp_nlin, fs, lowpasses_nlin)), 1)
    return linear, front, back


def modal_response(sections: Tensor, cycles: Tensor) -> Tensor:
    r"""Complex response (F, K) of cascades (F, n, 6) of modal sections at ``cycles`` (K,) per sample.

    The product of :math:`d + \frac12 (g/(1 - p z^{-1}) + \bar g/(1 - \bar p z^{-1}))` over the sections.
    """
    decay, high, low, g_re, g_im, direct = sections[..., None].unbind(2)  # (F, n, 1)
    shrink, half = torch.expm1(-decay), torch.complex(g_re, g_im) / 2

    def part(cycles: Tensor) -> Tensor:
        angle = 2 * math.pi * ((high - cycles) + low)
        # 1 - p / z without cancellation near the pole
        return half / torch.complex(
            2 * torch.sin(angle / 2) ** 2 * (1 + shrink) - shrink, -(1 + shrink) * torch.sin(angle)
        )

    return (direct + part(cycles) + part(-cycles).conj()).prod(1)


class Biquads(NamedTuple):
    r"""Real second-order sections in the form that the engine gives them, which keeps the digits of slow poles.

    A section is :math:`y = b u + s_1`, :math:`s_1' = r s_1 + \omega s_2 + e_1 u`,
    :math:`s_2' = r s_2 - k s_1 - a s_2 + e_2 u`: both its polynomials are taken in powers of :math:`z - r`, where
    :math:`r` is 1 or -1, near which slow poles lie, or 0. What the coefficients of a biquad say about poles near 1 is
    in the sums :math:`a = a_1 + 2` and :math:`\omega k = a_2 + a_1 + 1`, which float32 forms without error.
    :math:`\omega \approx \sqrt{|\omega k|}` makes the states equally large.
    """

    sections: Tensor  # (F, K, 7): b, e_1, e_2, omega, k, a, r, with powers of two moved from one section to the next
    scale: Tensor  # (F, K): what these make of the states

    def states(self, delays: Tensor) -> Tensor:
        """States (..., F, 2K) from the two delays of each section in transposed direct form II."""
        one, two = delays.unflatten(-1, (-1, 2)).unbind(-1)
        _, _, _, omega, _, a, r = self.sections.unbind(-1)
        return (torch.stack((one, ((two + r * one) - a * one) / omega), -1) * self.scale[..., None]).flatten(-2)

    def delays(self, states: Tensor) -> Tensor:
        """The inverse of :meth:`states`."""
        one, two = (states.unflatten(-1, (-1, 2)) / self.scale[..., None]).unbind(-1)
        _, _, _, omega, _, a, r = self.sections.unbind(-1)
        return torch.stack((one, (omega * two + a * one) - r * one), -1).flatten(-2)


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
        omega = torch.maximum(kappa.abs().sqrt(), a.abs() / 4)
        omega = torch.exp2(torch.round(torch.log2(torch.maximum(omega, torch.where(r == 0, 0.5, 2.0**-30)))))
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
    sections = torch.stack((factor * direct, factor * e1, factor * e2, omega, kappa / omega, a, r), -1)
    return Biquads(sections, torch.exp2(exponent[:, 1:]))


def split_sum(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``value`` (float64) as an unevaluated sum ``high + low`` of two tensors of ``dtype``."""
    high = value.to(dtype)
    return high, (value - high.to(value.dtype)).to(dtype)


def complex_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers given as real and imaginary part in the last dimension (2)."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack((a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re), -1)


def complex_divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient of complex numbers given as real and imaginary part in the last dimension (2)."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    norm = b_re * b_re + b_im * b_im
    return torch.stack((a_re * b_re + a_im * b_im, a_im * b_re - a_re * b_im), -1) / norm[..., None]


def complex_conjugate(a: Tensor) -> Tensor:
    """Conjugate of complex numbers given as real and imaginary part in the last dimension (2)."""
    re, im = a.unbind(-1)
    return torch.stack((re, -im), -1)


def expanded_denominator(pole: Tensor, n: int) -> Tensor:
    """Coefficients (F, n + 1) of ``(1 - p z^-1)^n`` for complex ``pole`` (F,), ascending powers of ``z^-1``."""
    binomial = torch.tensor([float(math.comb(n, i)) for i in range(n + 1)], dtype=pole.dtype)
    return binomial * (-pole[:, None]) ** torch.arange(n + 1)


def feedback_map(pole: Tensor, n: int) -> Tensor:
    r"""What a step away from an expanded denominator means for the sections of its cascade.

    With ``q = 1 - p z^-1`` every denominator with leading coefficient 1 is
    :math:`(1 - p z^{-1})^n + \sum_k c_k z^{-1} q^{n-k}`: the cascade of the pole ``p``, with feedback :math:`c_k` from
    its sections. Unlike expanded coefficients those keep float32 exact near ``p``.

    Returns the complex matrices (F, n, n) that take the steps of ``a_1 .. a_n`` to ``c_1 .. c_n``, from
    :math:`c_{n-i} = (-1)^i \sum_{m>i} \binom{m-1}{i} p^{-(m-1)} \delta_m`.
    """
    signed = [[(-1.0) ** i * math.comb(m, i) for m in range(n)] for i in reversed(range(n))]
    return torch.tensor(signed, dtype=pole.dtype) * pole[:, None, None] ** -torch.arange(n)


def moved_pole(pole: Tensor, design: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Decay and frequency of poles that have moved from where they were designed.

    ``log p = log p0 + log(1 + (p - p0)/p0)``: a pole at its design value keeps the digits of the design, though its
    real and imaginary part are rounded to float32; so does a step away from it. A pole that is further away than half
    of ``|p0|`` is taken as it is. One at 0, which has no logarithm, is moved by a rounding error: the gradients of what
    a filter does are right there.

    Parameters
    ----------
    pole : Tensor (F, 2)
        Real and imaginary part of ``p``.
    design : Tensor (F, 5)
        Real and imaginary part of ``p0``, its decay, and its frequency as high + low.

    Returns
    -------
    decay, frequency, frequency_low : Tensor (F,)
    """
    re0, im0, decay0, f_high, f_low = design.unbind(-1)
    origin = torch.stack((re0, im0), 1)
    ratio = complex_divide(pole - origin, origin)
    far = (ratio.detach().square().sum(1) > 0.25)[:, None]
    re, im = torch.where(far, 0.0, ratio).unbind(1)
    near = torch.stack((torch.log1p(re * (2 + re) + im * im), torch.atan2(im, 1 + re)), 1)
    least = torch.finfo(pole.dtype).eps
    re, im = torch.where(far, pole, torch.ones_like(pole)).unbind(1)
    re = torch.where(re.abs().maximum(im.abs()) < least, re + 2 * least, re)
    other = torch.stack((torch.log(re * re + im * im), torch.atan2(im, re)), 1)
    (near_size, near_angle), (other_size, other_angle) = near.unbind(1), other.unbind(1)
    far = far[:, 0]
    decay = torch.where(far, -0.5 * other_size, decay0 - 0.5 * near_size)
    low = torch.where(far, other_angle / (2 * math.pi), f_low + near_angle / (2 * math.pi))
    return decay, torch.where(far, 0.0, f_high), low


def pole_design(pole: Tensor, decay: Tensor, frequency: Tensor) -> Tensor:
    """Where poles (F,), which may be rounded, were designed, in float64: (F, 4), to be :func:`split_design`."""
    return torch.stack((*torch.view_as_real(pole).double().unbind(-1), decay, frequency), 1)


def split_design(design: Tensor, dtype: torch.dtype) -> Tensor:
    """The ``design`` (F, 5) of :func:`moved_pole` in a computing type, from :func:`pole_design`."""
    return torch.cat((design[:, :3].to(dtype), torch.stack(split_sum(design[:, 3], dtype), 1)), 1)


def stable_denominator(a: Tensor, limit: float = 0.98) -> Tensor:
    """Denominators (F, n, 2), ``a_1 .. a_n`` as real and imaginary parts, with all roots inside the unit circle.

    Stable ones pass unchanged. Of the others the reflection coefficients (Schur-Cohn recursion) of magnitude 1 or more
    are limited to ``limit``, which moves the roots inside.
    """
    lower, reflections = a, []
    stable = torch.ones_like(a[:, :1, :1], dtype=torch.bool)
    for _ in range(a.shape[1]):
        reflection = lower[:, -1:]
        square = reflection.square().sum(-1, keepdim=True)
        outside = square >= 0.9999  # float32 cannot tell closer to 1; a 12-fold root at 0.9 is still inside
        stable = stable & ~outside
        reflection = reflection * torch.rsqrt(square.clamp(min=1)) * torch.where(outside, limit, 1.0)
        reflections.append(reflection)
        head = lower[:, :-1]
        remainder = 1 - reflection.square().sum(-1, keepdim=True)
        lower = (head - complex_multiply(reflection, complex_conjugate(head.flip(1)))) / remainder
    for reflection in reversed(reflections):
        lower = torch.cat((lower + complex_multiply(reflection, complex_conjugate(lower.flip(1))), reflection), 1)
    return torch.where(stable, a, lower)


BLOCK = 64  # samples per block, a power of two


class Blocks(NamedTuple):
    """A linear system with ``N`` states, seen over a block of ``L = BLOCK`` samples.

    ``y[t] = sum_{i<=t} impulse[t-i] x[i] + output[t] . s`` and ``s_end = A^L s + sum_k input[:, k] x[k]``. A block of
    ``r < L`` samples has the first ``r`` entries of ``impulse`` and ``output``, the last ``r`` columns of ``input``,
    and ``A^r``, a product of powers of two.
    """

    impulse: Tensor  # (F, L)
    output: Tensor  # (F, L, N)
    input: Tensor  # (F, N, L)
    transitions: Tensor  # (F, 1 + log2 L, N, N): A^1, A^2, A^4 ... A^L


def block_shapes(channels: int, states: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the four matrices of :class:`Blocks`."""
    return (
        (channels, BLOCK),
        (channels, BLOCK, states),
        (channels, states, BLOCK),
        (channels, BLOCK.bit_length(), states, states),
    )


def flush(matrix: Tensor, least: Tensor | None = None) -> Tensor:
    """Zero for what has decayed beyond any use: processors take many times longer over denormal numbers.

    That is what is not above ``least``, by default so small that products of it vanish. A matrix that requires
    gradients passes as it is, and all derivatives do: also those of an exact 0.
    """
    if matrix.requires_grad:
        return matrix
    small = torch.finfo(matrix.dtype).tiny ** 0.8
    if transformed():
        return torch.where(matrix.abs() <= (small if least is None else least), matrix - matrix.detach(), matrix)
    return hardshrink(matrix, small) if least is None else torch.where(matrix.abs() <= least, 0.0, matrix)


def flush_channels(matrix: Tensor) -> Tensor:
    """:func:`flush` for matrices (F, ...), each channel's relative to its largest entry where that is below 1."""
    tiny = torch.finfo(matrix.dtype).tiny
    largest = matrix.detach().abs().flatten(1).amax(1)
    return flush(matrix, (largest.clamp(max=1) * tiny**0.8).clamp(min=tiny).view(-1, *[1] * (matrix.dim() - 1)))


def _real_matrix(entries: Tensor) -> Tensor:
    """Complex matrices (..., n, n, 2) acting on interleaved real and imaginary parts: (..., 2n, 2n)."""
    rows = torch.stack((complex_conjugate(entries), entries.flip(-1)), -3)  # (re, -im) over (im, re)
    return rows.flatten(-2).flatten(-3, -2)


def _pole_powers(decay: Tensor, f_high: Tensor, f_low: Tensor) -> Tensor:
    """``p**k``, ``k = 0 .. BLOCK``, as real and imaginary part: (F, BLOCK + 1, 2).

    Phases are counted in cycles: a multiple of 2^-12 (whose products with k are exact, also in float32) plus a small
    rest, so the phase of a long power is as exact as that of the pole.
    """
    k = torch.arange(BLOCK + 1, dtype=decay.dtype, device=decay.device)
    coarse = torch.round(f_high.detach() * 4096) / 4096
    cycles = k * coarse[:, None]
    phase = (cycles - torch.round(cycles) + k * ((f_high - coarse) + f_low)[:, None]) * (2 * math.pi)
    magnitude = torch.exp(-k * decay[:, None])
    return magnitude[..., None] * torch.stack((torch.cos(phase), torch.sin(phase)), -1)


def section_gain(decay: Tensor, order: int) -> Tensor:
    """What a section of a one-pole cascade does to the output of the one before: (F,), a constant to gradients.

    Up to order 8, which is all that GPUs do, 1. In longer cascades near the circle that would make the first states
    smaller than float32 has numbers; there, a section has about 0 dB at its resonance.
    """
    if order <= 8:
        return torch.ones_like(decay)
    return torch.expm1(-decay.detach()).abs().clamp(min=MIN_DECAY)


def scaled_cascade(decay: Tensor, gain: Tensor, feedback: Tensor | None, order: int) -> tuple[Tensor, Tensor | None]:
    """The gain and feedback that a cascade with :func:`section_gain` needs to be that of ``gain`` and ``feedback``."""
    if order <= 8:
        return gain, feedback
    root = section_gain(decay, order).sqrt()[:, None]  # their powers alone may leave the range of float32
    scale = root ** (1 - order)
    if feedback is not None:
        of_section = (root ** -torch.arange(order, device=decay.device))[..., None]
        feedback = feedback * of_section * of_section
    return gain * scale * scale, feedback


def _weights(decay: Tensor, order: int) -> Tensor:
    """``C(m + d, d) h^d`` for lags ``m < BLOCK``, ``d < order`` and section gains ``h``: (1 or F, L, n)."""
    m = torch.arange(BLOCK, dtype=decay.dtype, device=decay.device)[:, None]
    d = torch.arange(1, order, dtype=decay.dtype, device=decay.device)
    if order <= 8:
        rising = (torch.cumprod(m + d, 1) / torch.cumprod(d, 0))[None]
    else:
        rising = torch.cumprod(section_gain(decay, order)[:, None, None] * (1 + m / d), 2)
    return pad(rising, (1, 0), value=1.0)


def _onepole_blocks(coef: Tensor, order: int) -> Blocks:
    """``s_j[t] = p s_j[t-1] + h s_{j-1}[t]``, ``h s_0 = g x``, ``y = Re s_n``; everything in closed form.

    With lag ``m`` and ``d`` sections between, the response is ``C(m + d, d) h^d p^m``.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))  # (F, L + 1, 2)
    weights = _weights(coef[:, 0], order)[..., None]  # (1 or F, L, n, 1)
    driven = complex_multiply(coef[:, None, 3:5], p[:, :-1])
    # State j at the block's end: lag L - 1 - k, j - 1 sections between.
    to_state = driven.flip(1)[:, :, None] * weights.flip(1)  # (F, L, n, 2)
    # Output at t from state j at the block's start: lag t + 1, n - j sections between, each entered a sample early.
    output = complex_conjugate(p[:, 1:])[:, :, None] * weights.flip(2)
    m, cascade = _cascade_weights(weights[..., 0])
    transitions = _real_matrix(p[:, m, None, None] * cascade[..., None])
    return Blocks(driven[..., 0] * weights[..., -1, 0], output.flatten(2), to_state.flatten(2).mT, transitions)


def _cascade_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Samples ``m = 1, 2, 4 .. L``, and the weights (1 or F, I, n, n) with which a state reaches the others after them.

    State i reaches state j >= i with ``C(m - 1 + j - i, j - i) h^(j - i)``.
    """
    m = 2 ** torch.arange(BLOCK.bit_length(), device=weights.device)
    j = torch.arange(weights.shape[2], device=weights.device)
    return m, weights[:, m - 1][..., (j[:, None] - j).clamp(min=0)].tril()


def _onepole_vjp(coef: Tensor, order: int, grads: Blocks) -> Tensor:
    """Adjoint of :func:`_onepole_blocks`. Autograd takes more than twice as long for its many operations.

    Every entry of the matrices is a constant times a part of ``p^k`` or of ``g p^k``. With their gradients ``P_k`` and
    ``D_k`` as complex numbers, that of ``log p`` is the sum of ``k conj(p^k) P_k`` and ``k conj(g p^k) D_k``.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))
    weights = _weights(coef[:, 0], order)  # (1 or F, L, n)
    m, cascade = _cascade_weights(weights)
    # D_k: (F, L, 2)
    of_input = grads.input.flip(2).unflatten(1, (order, 2))
    of_driven = (of_input * weights.mT[:, :, None]).sum(1).mT
    of_driven = of_driven + pad((grads.impulse * weights[..., -1])[..., None], (0, 1))
    # conj(P_k): (F, L, 2), for k = 1 .. L from the outputs and for the powers of two from the transitions
    of_output = (grads.output.unflatten(2, (order, 2)) * weights.flip(2)[..., None]).sum(2)
    (re, minus_im), (im, also_re) = (
        row.unbind(-1) for row in grads.transitions.unflatten(3, (order, 2)).unflatten(2, (order, 2)).unbind(3)
    )
    of_power = torch.stack((re + also_re, minus_im - im), -1)
    of_output = of_output.index_add(1, m - 1, (of_power * cascade[..., None]).sum((2, 3)))
    through_gain = complex_multiply(complex_conjugate(p[:, :-1]), of_driven)
    of_gain = through_gain.sum(1)
    k = torch.arange(BLOCK + 1, dtype=coef.dtype, device=coef.device)[:, None]
    by_gain = complex_multiply(complex_conjugate(coef[:, 3:5]), (k[:-1] * through_gain).sum(1))
    by_power = complex_conjugate((k[1:] * complex_multiply(p[:, 1:], of_output)).sum(1))
    of_decay, of_phase = (by_gain + by_power).unbind(-1)
    of_frequency = 2 * math.pi * of_phase
    return torch.cat((torch.stack((-of_decay, of_frequency, of_frequency), 1), of_gain), 1)


def _identity_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _joined(gain: Tensor, own: Tensor, row: Tensor, through: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sections of two states, ``s' = (r + own) s + gain u``, ``y = row s + through u``, one after the other.

    ``gain``, ``row`` (F, K, 2), ``own`` (F, K, 2, 2) and ``through`` (F, K) to the system ``A - r`` (F, 2K, 2K),
    ``b``, ``c`` (F, 2K) and ``d`` (F,). Before section ``k`` the signal is
    ``u_k = m_k0 x + sum_{j<k} m_kj (row_j s_j)``, with products ``m`` of what sections let through at once.
    """
    order = through.shape[1]
    one = torch.ones_like(through[:, :1])
    reach = [one]
    for k in range(order):
        reach.append(torch.cat((through[:, k : k + 1] * reach[-1], one), 1))
    m = torch.stack([pad(row, (0, order + 1 - row.shape[1])) for row in reach], 1)  # (F, K + 1, K + 1)
    coupling = gain[..., None, None] * m[:, :-1, None, 1:, None] * row[:, None, None]
    step = coupling + own[:, :, :, None] * _identity_like(m[:, 1:, 1:])[:, None, :, None]
    b, c = (gain * m[:, :-1, :1]).flatten(1), (m[:, -1, 1:, None] * row).flatten(1)
    return step.flatten(3).flatten(1, 2), b, c, m[:, -1, 0]


def _biquad_blocks(coef: Tensor, order: int) -> Blocks:
    """:class:`Biquads`: ``s' = (r + M) s + e u``, ``y = b u + s_1``, ``M = ((0, omega), (-k, -a))``.

    The square of ``r + M`` is close to 1 again where poles are slow and ``r`` is -1: the powers are those of two
    samples.
    """
    direct, e1, e2, omega, k, a, r = coef.unflatten(1, (order, 7)).unbind(-1)
    zero = torch.zeros_like(r)
    own = torch.stack((torch.stack((zero, omega), -1), torch.stack((-k, -a), -1)), -2)
    row = torch.stack((torch.ones_like(r), zero), -1)
    step, b, c, through = _joined(torch.stack((e1, e2), -1), own, row, direct)
    r = r.repeat_interleave(2, 1)
    once = step + torch.diag_embed(r)
    twice = product(step, step) + (r[:, :, None] + r[:, None]) * step + torch.diag_embed(r * r - 1)
    columns, rows, powers = doubled(twice, b, c, BLOCK // 2)
    columns = torch.stack((columns, product(once, columns)), 3).flatten(2)
    rows = torch.stack((rows, product(rows, once)), 2).flatten(1, 2)
    impulse = torch.cat((through[:, None], (rows[:, :-1] * b[:, None]).sum(-1)), 1)
    return Blocks(impulse, rows, columns.flip(2), torch.cat((once[:, None], powers), 1))


def _allpole_blocks(coef: Tensor, order: int) -> Blocks:
    """The one-pole cascade with ``h s_0[t] = g x[t] - sum_k c_k s_k[t-1]``.

    ``s' = p (J - v c/p) s + v g x`` with ``J_jk = h^(j - k)`` below and on the diagonal, ``v`` its first column: the
    powers of the bracket are taken by doubling, exact where ``c`` is 0, those of ``p`` apart from them in closed form.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))  # (F, L + 1, 2)
    feedback = -complex_divide(coef[:, None, 5:].unflatten(2, (order, 2)), p[:, 1, None, None])
    j = torch.arange(order, device=coef.device)
    reach = section_gain(coef[:, 0], order)[:, None] ** j  # (F, n), v
    within = reach[:, (j[:, None] - j).clamp(min=0)].tril(-1)
    step = _real_matrix(pad(within[..., None], (0, 1)) + reach[:, :, None, None] * feedback)
    start = pad(reach[..., None], (0, 1)).flatten(1)
    columns, rows, powers = doubled(step, start, step[:, -2] + _identity_like(step)[-2], BLOCK)
    driven = complex_multiply(coef[:, None, 3:5], p[:, :-1])[:, :, None]
    to_state = complex_multiply(driven, columns.mT.unflatten(2, (order, 2)))  # (F, L, n, 2)
    # A row of real numbers that gives a real part is the conjugate of the complex row.
    output = complex_conjugate(complex_multiply(p[:, 1:, None], complex_conjugate(rows.unflatten(2, (order, 2)))))
    entries = powers.unflatten(2, (order, 2))[..., ::2].transpose(3, 4)  # complex entries (F, 7, n, n, 2)
    steps = p[:, 2 ** torch.arange(BLOCK.bit_length(), device=coef.device), None, None]
    transitions = _real_matrix(complex_multiply(steps, entries))
    return Blocks(to_state[:, :, -1, 0], output.flatten(2), to_state.flip(1).flatten(2).mT, transitions)


def _modal_blocks(coef: Tensor, order: int) -> Blocks:
    """Sections ``s' = p s + g u``, ``y = d u + Re s'``, one after the other, two states each."""
    decay, high, low, g_re, g_im, direct = coef.unflatten(1, (order, 6)).unbind(-1)
    angle, shrink = 2 * math.pi * (high + low), torch.expm1(-decay)
    re, im = (1 + shrink) * torch.cos(angle), (1 + shrink) * torch.sin(angle)
    step_re = shrink * torch.cos(angle) - 2 * torch.sin(angle / 2) ** 2  # Re p - 1
    gain, row = torch.stack((g_re, g_im), -1), torch.stack((re, -im), -1)
    own = torch.stack((torch.stack((step_re, -im), -1), torch.stack((im, step_re), -1)), -2)  # (F, K, 2, 2)
    step, b, c, through = _joined(gain, own, row, direct + g_re)
    columns, rows, powers = doubled(step, b, c, BLOCK)
    impulse = torch.cat((through[:, None], (rows[:, :-1] * b[:, None]).sum(-1)), 1)
    return Blocks(impulse, rows, columns.flip(2), powers)


_BLOCKS: dict[str, Callable[[Tensor, int], Blocks]] = {
    "onepole": _onepole_blocks,
    "biquad": _biquad_blocks,
    "allpole": _allpole_blocks,
    "modal": _modal_blocks,
}


def iir_blocks(coef: Tensor, kind: str, order: int) -> Blocks:
    """Block matrices of the engine's filters, in ``coef``'s type.

    ``coef`` (F, P) and ``kind`` are those of :func:`tamt.ops.iir.iir`. Gradients reach ``coef``.
    """
    return Blocks(*(flush_channels(matrix) for matrix in _BLOCKS[kind](coef, order)))


def iir_blocks_vjp(coef: Tensor, grads: Blocks, kind: str, order: int) -> Tensor:
    """Gradient of ``coef`` from those of its :func:`iir_blocks`, which cannot be differentiated again.

    For the kernels of operators, below autograd and in inference mode.
    """
    if kind == "onepole":
        return _onepole_vjp(coef, order, grads)
    plain = coef.clone()  # without tangents, as autograd is off here
    # Leaving inference mode also gives autograd back, which torch has switched off around an operator's kernel.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = (plain.clone() if plain.is_inference() else plain).requires_grad_()
        return torch.autograd.grad(iir_blocks(leaf, kind, order), leaf, tuple(grads))[0]
