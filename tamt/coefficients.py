"""Filter design, apart from its application: poles and gains from frequencies, block matrices from sections.

Everything here is plain torch and differentiable. The engine's coefficient rows (``coef`` of shape ``(F, P)``) are
described in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import hardshrink, pad

from tamt.ops._register import pull_back, transformed
from tamt.ops.doubling import doubled
from tamt.scales import audfiltbw

MIN_DECAY = 1e-5  # nepers per sample: learnt poles stay this far inside the unit circle


def gammatone_betamul(n: int) -> float:
    r"""Ratio of a gammatone's bandwidth parameter to its equivalent rectangular bandwidth.

    :math:`((n-1)!)^2 / (\pi (2n-2)! 2^{-(2n-2)})`, 1.0186 for order 4 (Patterson et al. 1987; AMT ``gammatone``).
    """
    return math.factorial(n - 1) ** 2 / (math.pi * math.factorial(2 * n - 2) * 2.0 ** -(2 * n - 2))


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
        :math:`\phi = 2\pi\,\mathrm{betamul}\,\mathrm{audfiltbw}(f_c)/f_s` in nepers per sample, :math:`-f_c/f_s` in
        cycles per sample and :math:`(1 - e^{-\phi})^n`; the pole is :math:`p = e^{-\phi + 2\pi i\,\mathrm{frequency}}`.
    """
    decay = 2 * math.pi * betamul * audfiltbw(fc) / fs
    return decay, -fc / fs, (-torch.expm1(-decay)) ** n


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
    binomial = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=pole.dtype)
    return binomial * (-pole[:, None]) ** torch.arange(n + 1)


def feedback_map(pole: Tensor, n: int) -> Tensor:
    r"""What a step away from an expanded denominator means for the sections of its cascade.

    With ``q = 1 - p z^-1`` every denominator with leading coefficient 1 is
    :math:`(1 - p z^{-1})^n + \sum_k c_k z^{-1} q^{n-k}`: the cascade of the pole ``p``, with feedback :math:`c_k` from
    its sections. Unlike expanded coefficients those keep float32 exact near ``p``.

    Returns the complex matrices (F, n, n) that take the steps of ``a_1 .. a_n`` to ``c_1 .. c_n``, from
    :math:`c_{n-i} = (-1)^i \sum_{m>i} \binom{m-1}{i} p^{-(m-1)} \delta_m`.
    """
    signed = [[(-1) ** i * math.comb(m, i) for m in range(n)] for i in reversed(range(n))]
    return torch.tensor(signed, dtype=pole.dtype) * pole[:, None, None] ** -torch.arange(n)


def moved_pole(pole: Tensor, design: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Decay and frequency of poles that have moved from where they were designed.

    ``log p = log p0 + log(1 + (p - p0)/p0)``: a pole at its design value keeps the digits of the design, though its
    real and imaginary part are rounded to float32; so does a small step away from it.

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
    step_re, step_im = pole[:, 0] - re0, pole[:, 1] - im0
    norm = re0 * re0 + im0 * im0
    re = (step_re * re0 + step_im * im0) / norm
    im = (step_im * re0 - step_re * im0) / norm
    decay = decay0 - 0.5 * torch.log1p(re * (2 + re) + im * im)
    return decay, f_high, f_low + torch.atan2(im, 1 + re) / (2 * math.pi)


def pole_design(decay: Tensor, frequency: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Complex poles (F,) from float64 decay and frequency, and the ``design`` (F, 5) of :func:`moved_pole` for them."""
    pole = torch.polar(torch.exp(-decay), 2 * math.pi * frequency).to(dtype.to_complex())
    columns = (*torch.view_as_real(pole).unbind(-1), decay.to(dtype), *split_sum(frequency, dtype))
    return pole, torch.stack(columns, 1)


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


Value = TypeVar("Value")


class Kept(Generic[Value]):
    """A value computed from tensors, kept as long as none of them is replaced or changed in place."""

    def __init__(self) -> None:
        self._sources: tuple[Tensor, ...] = ()
        self._versions: list[int] = []
        self._value: Value | None = None

    def get(self, sources: tuple[Tensor, ...], compute: Callable[[], Value]) -> Value:
        """``compute()``, or what it gave for the same ``sources``; never kept where gradients or tracing need it."""
        if torch.compiler.is_compiling() or any(t.requires_grad or t.is_inference() for t in sources):
            return compute()
        versions = [t._version for t in sources]
        same = len(sources) == len(self._sources) and all(a is b for a, b in zip(sources, self._sources, strict=True))
        if self._value is None or not same or versions != self._versions:
            with torch.inference_mode(False):
                self._value = compute()
            self._sources, self._versions = sources, versions
        return self._value


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


def flush(matrix: Tensor) -> Tensor:
    """Zero for what has decayed beyond any use: processors take many times longer over denormal numbers.

    A matrix that requires gradients passes as it is, and all derivatives do: also those of an exact 0.
    """
    least = torch.finfo(matrix.dtype).tiny ** 0.8
    if matrix.requires_grad:
        return matrix
    if transformed():
        return torch.where(matrix.abs() > least, matrix, matrix - matrix.detach())
    return hardshrink(matrix, least)


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


def _binomials(rows: int, columns: int, like: Tensor) -> Tensor:
    """``C(m + d, d)`` for ``m < rows`` and ``d < columns``."""
    m = torch.arange(rows, dtype=like.dtype, device=like.device)
    d = torch.arange(1, columns, dtype=like.dtype, device=like.device)
    rising = torch.cumprod(m[:, None] + d, 1) / torch.cumprod(d, 0)
    return torch.cat((torch.ones_like(m)[:, None], rising), 1)


def _onepole_blocks(coef: Tensor, order: int) -> Blocks:
    """``s_j[t] = p s_j[t-1] + s_{j-1}[t]``, ``s_0 = g x``, ``y = Re s_n``; everything in closed form.

    With lag ``m`` and ``d`` sections between, the response is ``C(m + d, d) p^m``.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))  # (F, L + 1, 2)
    binomial = _binomials(BLOCK, order, coef)[..., None]  # (L, n, 1)
    driven = complex_multiply(coef[:, None, 3:5], p[:, :-1])
    # State j at the block's end: lag L - 1 - k, j - 1 sections between.
    to_state = driven.flip(1)[:, :, None] * binomial.flip(0)  # (F, L, n, 2)
    # Output at t from state j at the block's start: lag t + 1, n - j sections between, each entered a sample early.
    output = complex_conjugate(p[:, 1:])[:, :, None] * binomial.flip(1)
    m, cascade = _cascade_weights(binomial[..., 0])
    transitions = _real_matrix(p[:, m, None, None] * cascade[..., None])
    return Blocks(driven[..., 0] * binomial[:, -1, 0], output.flatten(2), to_state.flatten(2).mT, transitions)


def _cascade_weights(binomial: Tensor) -> tuple[Tensor, Tensor]:
    """Samples ``m = 1, 2, 4 .. L``, and the weights (I, n, n) with which a state reaches the others after ``m``.

    State i reaches state j >= i with ``C(m - 1 + j - i, j - i)``.
    """
    m = 2 ** torch.arange(BLOCK.bit_length(), device=binomial.device)
    j = torch.arange(binomial.shape[1], device=binomial.device)
    return m, binomial[m - 1][:, (j[:, None] - j).clamp(min=0)].tril()


def _onepole_vjp(coef: Tensor, order: int, grads: Blocks) -> Tensor:
    """Adjoint of :func:`_onepole_blocks`. Autograd takes more than twice as long for its many operations.

    Every entry of the matrices is a constant times a part of ``p^k`` or of ``g p^k``. With their gradients ``P_k`` and
    ``D_k`` as complex numbers, that of ``log p`` is the sum of ``k conj(p^k) P_k`` and ``k conj(g p^k) D_k``.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))
    binomial = _binomials(BLOCK, order, coef)  # (L, n)
    m, cascade = _cascade_weights(binomial)
    # D_k: (F, L, 2)
    of_input = grads.input.flip(2).unflatten(1, (order, 2))
    of_driven = (of_input * binomial.t()[:, None]).sum(1).mT + pad((grads.impulse * binomial[:, -1])[..., None], (0, 1))
    # conj(P_k): (F, L, 2), for k = 1 .. L from the outputs and for the powers of two from the transitions
    of_output = (grads.output.unflatten(2, (order, 2)) * binomial.flip(1)[..., None]).sum(2)
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


def _biquad_blocks(coef: Tensor, order: int) -> Blocks:
    """A cascade of biquads in transposed direct form II, two states each."""
    rows = torch.zeros_like(coef[:, :0])  # output of the sections so far: rows . z + direct x
    direct = torch.ones_like(coef[:, 0])
    a_rows: list[Tensor] = []
    b_rows: list[Tensor] = []
    zero, one = torch.zeros_like(direct)[:, None], torch.ones_like(direct)[:, None]
    for section in coef.unflatten(1, (order, 5)).unbind(1):
        b0, b1, b2, a1, a2 = (v[:, None] for v in section.unbind(-1))
        beta1, beta2 = b1 - a1 * b0, b2 - a2 * b0  # what the section's input adds to its two states
        a_rows += [torch.cat((beta1 * rows, -a1, one), 1), torch.cat((beta2 * rows, -a2, zero), 1)]
        b_rows += [beta1[:, 0] * direct, beta2[:, 0] * direct]
        rows = torch.cat((b0 * rows, one, zero), 1)
        direct = b0[:, 0] * direct
    a = torch.stack([pad(row, (0, 2 * order - row.shape[1])) for row in a_rows], 1)
    b = torch.stack(b_rows, 1)
    columns, rows, powers = doubled(a - _identity_like(a), b, rows, BLOCK)
    impulse = torch.cat((direct[:, None], (rows[:, :-1] @ b[:, :, None])[..., 0]), 1)
    return Blocks(impulse, rows, columns.flip(2), powers)


def _allpole_blocks(coef: Tensor, order: int) -> Blocks:
    """The one-pole cascade with ``s_0[t] = g x[t] - sum_k c_k s_k[t-1]``.

    ``s' = p (J - 1 c/p) s + 1 g x`` with ones ``J`` below and on the diagonal: the powers of the bracket are taken by
    doubling, exact where ``c`` is 0, those of ``p`` apart from them in closed form.
    """
    p = _pole_powers(*coef[:, :3].unbind(-1))  # (F, L + 1, 2)
    feedback = -complex_divide(coef[:, None, 5:].unflatten(2, (order, 2)), p[:, 1, None, None])
    step = _real_matrix(pad(coef.new_ones(order, order).tril(-1)[..., None], (0, 1)) + feedback)
    ones = torch.zeros_like(step[:, 0])
    ones[:, ::2] = 1
    columns, rows, powers = doubled(step, ones, step[:, -2] + _identity_like(step)[-2], BLOCK)
    driven = complex_multiply(coef[:, None, 3:5], p[:, :-1])[:, :, None]
    to_state = complex_multiply(driven, columns.mT.unflatten(2, (order, 2)))  # (F, L, n, 2)
    # A row of real numbers that gives a real part is the conjugate of the complex row.
    output = complex_conjugate(complex_multiply(p[:, 1:, None], complex_conjugate(rows.unflatten(2, (order, 2)))))
    entries = powers.unflatten(2, (order, 2))[..., ::2].transpose(3, 4)  # complex entries (F, 7, n, n, 2)
    steps = p[:, 2 ** torch.arange(BLOCK.bit_length(), device=coef.device), None, None]
    transitions = _real_matrix(complex_multiply(steps, entries))
    return Blocks(to_state[:, :, -1, 0], output.flatten(2), to_state.flip(1).flatten(2).mT, transitions)


def _modal_blocks(coef: Tensor, order: int) -> Blocks:
    """Sections ``s' = p s + g u``, ``y = d u + Re s'``, one after the other, two states each.

    Before section ``k`` the signal is ``u_k = m_k0 x + sum_{j<k} m_kj Re(p_j s_j)``, with products ``m`` of what
    sections let through at once, ``d + Re g``.
    """
    decay, high, low, g_re, g_im, direct = coef.unflatten(1, (order, 6)).unbind(-1)
    angle, shrink = 2 * math.pi * (high + low), torch.expm1(-decay)
    re, im = (1 + shrink) * torch.cos(angle), (1 + shrink) * torch.sin(angle)
    step_re = shrink * torch.cos(angle) - 2 * torch.sin(angle / 2) ** 2  # Re p - 1
    through = direct + g_re
    one = torch.ones_like(through[:, :1])
    reach = [one]
    for k in range(order):
        reach.append(torch.cat((through[:, k : k + 1] * reach[-1], one), 1))
    m = torch.stack([pad(row, (0, order + 1 - row.shape[1])) for row in reach], 1)  # (F, K + 1, K + 1)
    gain, pole_row = torch.stack((g_re, g_im), -1), torch.stack((re, -im), -1)
    own = torch.stack((torch.stack((step_re, -im), -1), torch.stack((im, step_re), -1)), -2)  # (F, K, 2, 2)
    coupling = gain[..., None, None] * m[:, :-1, None, 1:, None] * pole_row[:, None, None]
    step = coupling + own[:, :, :, None] * _identity_like(m[:, 1:, 1:])[:, None, :, None]
    b, c = (gain * m[:, :-1, :1]).flatten(1), (m[:, -1, 1:, None] * pole_row).flatten(1)
    columns, rows, powers = doubled(step.flatten(3).flatten(1, 2), b, c, BLOCK)
    impulse = torch.cat((m[:, -1, :1], (rows[:, :-1] @ b[:, :, None])[..., 0]), 1)
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
    return Blocks(*(flush(matrix) for matrix in _BLOCKS[kind](coef, order)))


def iir_blocks_vjp(coef: Tensor, grads: Blocks, kind: str, order: int) -> Tensor:
    """Gradient of ``coef`` from those of its :func:`iir_blocks`; differentiable where gradients are enabled."""
    if kind == "onepole":
        return _onepole_vjp(coef, order, grads)
    if transformed():
        return pull_back(lambda coef: iir_blocks(coef, kind, order), (coef,), grads)[0]
    # The same for plain autograd, which takes a quarter less time by itself.
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = coef.view_as(coef)
        if not (again and leaf.requires_grad):
            leaf = leaf.detach().requires_grad_()
        return torch.autograd.grad(iir_blocks(leaf, kind, order), leaf, tuple(grads), create_graph=again)[0]
