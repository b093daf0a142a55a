"""Block matrices of the IIR engine's filters, from their sections, and the adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import complex_conjugate, complex_divide, complex_multiply, flush_channels
from tamt.design.sections import section_gain
from tamt.ops.doubling import doubled
from tamt.ops.product import product
from tamt.shared.iir import BLOCK, Blocks


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
