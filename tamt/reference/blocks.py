"""Block matrices of the IIR engine's filters from their coefficients, and the adjoint.

Every filter is a linear system with a state-space realisation ``s' = A s + b x``, ``y = c s + d x``. What the engine
needs of it are the impulse response, the observability rows ``c A^k``, the Krylov vectors ``A^k b`` and some powers of
``A``. The operator and the shapes are in :mod:`tamt.ops.blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import complex_conjugate, complex_divide, complex_multiply, flush_channels
from tamt.design.rows import KERNEL_ORDER, BiquadSection, ModalSection, OnepoleRow
from tamt.design.sections import section_gain
from tamt.shared.given_gradients import gradients
from tamt.shared.iir import BLOCK, KINDS, Blocks


def definition(coef: Tensor, kind: str, order: int) -> Blocks:
    """Block matrices, by powers of the realisation's ``A``.

    In float64, where the device has it: rounded to float32, ``A`` moves slow poles.
    """
    step, r, b, c, d = realisation(coef.to(wide(coef)), kind, order)
    a = step + torch.diag_embed(r)
    powers = [_identity_like(a).expand_as(a)]
    for _ in range(BLOCK):
        powers.append(a @ powers[-1])
    power = torch.stack(powers, 1)  # (F, L + 1, N, N)
    krylov = (power[:, :-1] @ b[:, None, :, None])[..., 0]  # (F, L, N)
    rows = (c[:, None, None] @ power[:, :-1])[:, :, 0]
    transitions = power[:, [2**i for i in range(BLOCK.bit_length())]]
    matrices = _impulse(b, rows, d), rows, krylov.flip(1).mT, transitions
    return Blocks(*(matrix.to(coef.dtype) for matrix in matrices))


def _impulse(b: Tensor, rows: Tensor, d: Tensor) -> Tensor:
    """``d, c b, c A b ..`` (F, L) from the observability rows."""
    return torch.cat((d[:, None], (rows[:, :-1] * b[:, None]).sum(-1)), 1)


def wide(tensor: Tensor) -> torch.dtype:
    """float64 where the device has it.

    Rounded to float32, a block's transition moves poles by 1e-9 each sample, which is much to narrow bands: biquads
    keep theirs in float64, and scan in it. Where that is missing, a band narrower than 1e-4 fs is good to 4 digits.
    """
    return tensor.dtype if tensor.device.type == "mps" else torch.float64


class System(NamedTuple):
    """A state-space realisation. Of slow poles ``A - r`` has more digits than ``A``."""

    step: Tensor  # (F, N, N): A - r
    r: Tensor  # (F, N): a diagonal of 1, of -1 or of 0
    b: Tensor  # (F, N)
    c: Tensor  # (F, N)
    d: Tensor  # (F,)


def realisation(coef: Tensor, kind: str, order: int) -> System:
    """The realisation of filters of :func:`tamt.ops.iir.iir`."""
    if kind == "biquad":
        return _biquads(BiquadSection(*KINDS[kind].sections(coef)))
    if kind == "modal":
        return _modal(ModalSection(*KINDS[kind].sections(coef)))
    row = OnepoleRow(*coef[:, :5].unbind(1))
    feedback = torch.stack(KINDS[kind].sections(coef), -1) if kind == "allpole" else None
    return _cascade(row, feedback, order)


def _cascade(row: OnepoleRow, feedback: Tensor | None, order: int) -> System:
    """``s_j' = p s_j + h s_{j-1}'``, ``h s_0' = g x - sum_k c_k s_k``, ``y = Re s_n'``.

    ``s' = (p J - v c) s + v g x`` with ``J_jk = h^(j - k)`` below and on the diagonal, ``v`` its first column.
    """
    angle = 2 * math.pi * (row.high + row.low)
    p = torch.exp(-row.decay)[:, None] * torch.stack((torch.cos(angle), torch.sin(angle)), 1)
    reach, within = _reach(row.decay, order)
    a = complex_multiply(p[:, None, None], pad((within + _identity_like(within))[..., None], (0, 1)))
    if feedback is not None:
        a = a - reach[:, :, None, None] * feedback[:, None]
    step = _real_matrix(a)
    step = step - _identity_like(step)
    b = (reach[..., None] * torch.stack((row.gain_re, row.gain_im), 1)[:, None]).flatten(1)
    return System(step, torch.ones_like(b), b, step[:, -2] + _identity_like(step)[-2], b[:, -2])


def _biquads(section: BiquadSection) -> System:
    """:class:`tamt.design.sections.Biquads`: ``s' = (r + M) s + e u`` with ``M = ((0, omega), (-k, -a))``."""
    zero = torch.zeros_like(section.r)
    own = torch.stack((torch.stack((zero, section.omega), -1), torch.stack((-section.k, -section.a), -1)), -2)
    gain, row = torch.stack((section.e1, section.e2), -1), torch.stack((torch.ones_like(zero), zero), -1)
    return _in_series(gain, own, row, section.b, section.r)


def _modal(section: ModalSection) -> System:
    """Sections ``s' = p s + g u``, ``y = d u + Re s'``."""
    angle, shrink = 2 * math.pi * (section.high + section.low), torch.expm1(-section.decay)
    re, im = (1 + shrink) * torch.cos(angle), (1 + shrink) * torch.sin(angle)
    step_re = shrink * torch.cos(angle) - 2 * torch.sin(angle / 2) ** 2  # Re p - 1
    own = torch.stack((torch.stack((step_re, -im), -1), torch.stack((im, step_re), -1)), -2)
    gain = torch.stack((section.gain_re, section.gain_im), -1)
    return _in_series(gain, own, torch.stack((re, -im), -1), section.direct + section.gain_re, torch.ones_like(re))


def _in_series(gain: Tensor, own: Tensor, row: Tensor, through: Tensor, r: Tensor) -> System:
    """Sections of two states, ``s' = (r + own) s + gain u``, ``y = row s + through u``, one after the other.

    ``gain``, ``row`` (F, K, 2), ``own`` (F, K, 2, 2), ``through`` and ``r`` (F, K). Before section ``k`` the signal is
    ``u_k = m_k0 x + sum_{j<k} m_kj (row_j s_j)``, with products ``m`` of what sections let through at once.
    """
    order = through.shape[1]
    one = torch.ones_like(through[:, :1])
    reach = [one]
    for k in range(order):
        reach.append(torch.cat((through[:, k : k + 1] * reach[-1], one), 1))
    m = torch.stack([pad(products, (0, order + 1 - products.shape[1])) for products in reach], 1)  # (F, K + 1, K + 1)
    coupling = gain[..., None, None] * m[:, :-1, None, 1:, None] * row[:, None, None]
    step = coupling + own[:, :, :, None] * _identity_like(m[:, 1:, 1:])[:, None, :, None]
    b, c = (gain * m[:, :-1, :1]).flatten(1), (m[:, -1, 1:, None] * row).flatten(1)
    return System(step.flatten(3).flatten(1, 2), r.repeat_interleave(2, 1), b, c, m[:, -1, 0])


def _reach(decay: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """What sections of gain ``h`` pass on at once: ``h^j`` (F, n), and ``h^(j - k)`` below the diagonal (F, n, n)."""
    j = torch.arange(order, device=decay.device)
    reach = section_gain(decay, order)[:, None] ** j
    return reach, reach[:, (j[:, None] - j).clamp(min=0)].tril(-1)


def _real_matrix(entries: Tensor) -> Tensor:
    """Complex matrices (..., n, n, 2) acting on interleaved real and imaginary parts: (..., 2n, 2n)."""
    rows = torch.stack((complex_conjugate(entries), entries.flip(-1)), -3)  # (re, -im) over (im, re)
    return rows.flatten(-2).flatten(-3, -2)


def _identity_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def doubled(step: Tensor, b: Tensor, c: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Krylov vectors, observability rows and powers of ``A = 1 + step`` by doubling, in place of one by one.

    For ``step`` (F, N, N), ``b`` and ``c`` (F, N): ``A^k b`` (F, N, L) and ``c A^k`` (F, L, N) for ``k < L``, a power
    of two of at least 2, and ``A^1, A^2, A^4 .. A^L`` (F, 1 + log2 L, N, N). The first squares are taken of ``A - 1``:
    rounding ``A`` itself takes digits of slow poles.
    """
    columns, rows = b[:, :, None], c[:, None, :]
    identity = _identity_like(step)
    powers = [step + identity]
    while columns.shape[2] < samples:
        columns = torch.cat((columns, powers[-1] @ columns), 2)
        rows = torch.cat((rows, rows @ powers[-1]), 1)
        if columns.shape[2] <= 8:
            step = torch.baddbmm(step, step, step, beta=2)
            powers.append(step + identity)
        else:
            powers.append(powers[-1] @ powers[-1])
    return columns, rows, torch.stack(powers, 1)


def _modal_blocks(coef: Tensor, order: int) -> Blocks:
    step, _, b, c, d = realisation(coef, "modal", order)
    columns, rows, powers = doubled(step, b, c, BLOCK)
    return Blocks(_impulse(b, rows, d), rows, columns.flip(2), powers)


def _biquad_blocks(coef: Tensor, order: int) -> Blocks:
    """By doubling steps of two samples: the square of ``A`` is close to 1 for ``r = -1`` too."""
    step, r, b, c, d = realisation(coef, "biquad", order)
    once = step + torch.diag_embed(r)
    twice = step @ step + (r[:, :, None] + r[:, None]) * step + torch.diag_embed(r * r - 1)
    columns, rows, powers = doubled(twice, b, c, BLOCK // 2)
    columns = torch.stack((columns, once @ columns), 3).flatten(2)
    rows = torch.stack((rows, rows @ once), 2).flatten(1, 2)
    return Blocks(_impulse(b, rows, d), rows, columns.flip(2), torch.cat((once[:, None], powers), 1))


def _allpole_blocks(coef: Tensor, order: int) -> Blocks:
    """Of :func:`_cascade`, with ``A = p (J - v c/p)``.

    The powers of the bracket are taken by doubling, exact where ``c`` is 0, those of ``p`` apart from them in closed
    form.
    """
    row = OnepoleRow(*coef[:, :5].unbind(1))
    p = _pole_powers(row)  # (F, L + 1, 2)
    feedback = -complex_divide(torch.stack(KINDS["allpole"].sections(coef), -1)[:, None], p[:, 1, None, None])
    reach, within = _reach(row.decay, order)
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


def _onepole_blocks(coef: Tensor, order: int) -> Blocks:
    """Of :func:`_cascade` without feedback, in closed form.

    With lag ``m`` and ``d`` sections between, the response is ``C(m + d, d) h^d p^m``.
    """
    row = OnepoleRow(*coef.unbind(1))
    p = _pole_powers(row)  # (F, L + 1, 2)
    weights = _weights(row.decay, order)[..., None]  # (1 or F, L, n, 1)
    driven = complex_multiply(coef[:, None, 3:5], p[:, :-1])
    # State j at the block's end: lag L - 1 - k, j - 1 sections between.
    to_state = driven.flip(1)[:, :, None] * weights.flip(1)  # (F, L, n, 2)
    # Output at t from state j at the block's start: lag t + 1, n - j sections between, each entered a sample early.
    output = complex_conjugate(p[:, 1:])[:, :, None] * weights.flip(2)
    m, between = _transition_weights(weights[..., 0])
    transitions = _real_matrix(p[:, m, None, None] * between[..., None])
    return Blocks(driven[..., 0] * weights[..., -1, 0], output.flatten(2), to_state.flatten(2).mT, transitions)


def _onepole_vjp(grads: Blocks, coef: Tensor, order: int) -> Tensor:
    """Adjoint of :func:`_onepole_blocks`. Autograd takes more than twice as long for its many operations.

    Every entry of the matrices is a constant times a part of ``p^k`` or of ``g p^k``. With their gradients ``P_k`` and
    ``D_k`` as complex numbers, that of ``log p`` is the sum of ``k conj(p^k) P_k`` and ``k conj(g p^k) D_k``.
    """
    row = OnepoleRow(*coef.unbind(1))
    p = _pole_powers(row)
    weights = _weights(row.decay, order)  # (1 or F, L, n)
    m, between = _transition_weights(weights)
    # D_k: (F, L, 2)
    of_input = grads.input.flip(2).unflatten(1, (order, 2))
    of_driven = (of_input * weights.mT[:, :, None]).sum(1).mT
    of_driven = of_driven + pad((grads.impulse * weights[..., -1])[..., None], (0, 1))
    # conj(P_k): (F, L, 2), for k = 1 .. L from the outputs and for the powers of two from the transitions
    of_output = (grads.output.unflatten(2, (order, 2)) * weights.flip(2)[..., None]).sum(2)
    (re, minus_im), (im, also_re) = (
        part.unbind(-1) for part in grads.transitions.unflatten(3, (order, 2)).unflatten(2, (order, 2)).unbind(3)
    )
    of_power = torch.stack((re + also_re, minus_im - im), -1)
    of_output = of_output.index_add(1, m - 1, (of_power * between[..., None]).sum((2, 3)))
    through_gain = complex_multiply(complex_conjugate(p[:, :-1]), of_driven)
    of_gain = through_gain.sum(1)
    k = torch.arange(BLOCK + 1, dtype=coef.dtype, device=coef.device)[:, None]
    by_gain = complex_multiply(complex_conjugate(coef[:, 3:5]), (k[:-1] * through_gain).sum(1))
    by_power = complex_conjugate((k[1:] * complex_multiply(p[:, 1:], of_output)).sum(1))
    of_decay, of_phase = (by_gain + by_power).unbind(-1)
    of_frequency = 2 * math.pi * of_phase
    return torch.stack(OnepoleRow(-of_decay, of_frequency, of_frequency, *of_gain.unbind(1)), 1)


def _pole_powers(row: OnepoleRow) -> Tensor:
    """``p**k``, ``k = 0 .. BLOCK``, as real and imaginary part: (F, BLOCK + 1, 2).

    Phases are counted in cycles: a multiple of 2^-12 (whose products with k are exact, also in float32) plus a small
    rest, so the phase of a long power is as exact as that of the pole.
    """
    k = torch.arange(BLOCK + 1, dtype=row.decay.dtype, device=row.decay.device)
    coarse = torch.round(row.high.detach() * 4096) / 4096
    cycles = k * coarse[:, None]
    phase = (cycles - torch.round(cycles) + k * ((row.high - coarse) + row.low)[:, None]) * (2 * math.pi)
    magnitude = torch.exp(-k * row.decay[:, None])
    return magnitude[..., None] * torch.stack((torch.cos(phase), torch.sin(phase)), -1)


def _weights(decay: Tensor, order: int) -> Tensor:
    """``C(m + d, d) h^d`` for lags ``m < BLOCK``, ``d < order`` and section gains ``h``: (1 or F, L, n)."""
    m = torch.arange(BLOCK, dtype=decay.dtype, device=decay.device)[:, None]
    d = torch.arange(1, order, dtype=decay.dtype, device=decay.device)
    if order <= KERNEL_ORDER:
        rising = (torch.cumprod(m + d, 1) / torch.cumprod(d, 0))[None]
    else:
        rising = torch.cumprod(section_gain(decay, order)[:, None, None] * (1 + m / d), 2)
    return pad(rising, (1, 0), value=1.0)


def _transition_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Samples ``m = 1, 2, 4 .. L``, and the weights (1 or F, I, n, n) with which a state reaches the others after them.

    State i reaches state j >= i with ``C(m - 1 + j - i, j - i) h^(j - i)``.
    """
    m = 2 ** torch.arange(BLOCK.bit_length(), device=weights.device)
    j = torch.arange(weights.shape[2], device=weights.device)
    return m, weights[:, m - 1][..., (j[:, None] - j).clamp(min=0)].tril()


_FAST: dict[str, Callable[[Tensor, int], Blocks]] = {
    "onepole": _onepole_blocks,
    "biquad": _biquad_blocks,
    "allpole": _allpole_blocks,
    "modal": _modal_blocks,
}


def iir_blocks(coef: Tensor, kind: str, order: int) -> Blocks:
    """:func:`definition` in ``coef``'s type, faster and without denormals; gradients do not pass what is 0."""
    return Blocks(*(flush_channels(matrix) for matrix in _FAST[kind](coef, order)))


def iir_blocks_vjp(grads: Blocks, coef: Tensor, kind: str, order: int) -> Tensor:
    """Gradient of ``coef`` from those of its :func:`iir_blocks`, which cannot be differentiated again.

    For the kernels of operators, below autograd and in inference mode.
    """
    if kind == "onepole":
        return _onepole_vjp(grads, coef, order)
    plain = coef.clone()  # without tangents, as autograd is off here
    # Leaving inference mode also gives autograd back, which torch has switched off around an operator's kernel.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = (plain.clone() if plain.is_inference() else plain).requires_grad_()
        return gradients(_FAST[kind](leaf, order), [leaf], grads)[0]
