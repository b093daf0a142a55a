"""Filter design, apart from its application: poles and gains from frequencies, block matrices from sections.

Everything here is plain torch and differentiable. The engine's coefficient rows (``coef`` of shape ``(F, P)``) are
described in :mod:`tamt.ops.iir`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tamt.scales import audfiltbw


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


def split_sum(value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``value`` (float64) as an unevaluated sum ``high + low`` of two tensors of ``dtype``."""
    high = value.to(dtype)
    return high, (value - high.to(value.dtype)).to(dtype)


BLOCK = 64  # samples per block, a power of two


class Blocks(NamedTuple):
    """A linear system with ``N`` states, seen over a block of ``L = BLOCK`` samples.

    ``y[t] = sum_{i<=t} impulse[t-i] x[i] + output[t] . s`` and ``s_end = A^L s + sum_k input[:, k] x[k]``. A block of
    ``r < L`` samples has the first ``r`` entries of ``impulse`` and ``output``, the last ``r`` columns of ``input``, and
    ``A^r``, a product of powers of two.
    """

    impulse: Tensor  # (F, L)
    output: Tensor  # (F, L, N)
    input: Tensor  # (F, N, L)
    transitions: Tensor  # (F, 1 + log2 L, N, N): A^1, A^2, A^4 ... A^L


def flush(matrix: Tensor) -> Tensor:
    """Zero for what has decayed beyond any use: processors take many times longer over denormal numbers."""
    return torch.nn.functional.hardshrink(matrix, torch.finfo(matrix.dtype).tiny ** 0.8)


def _interleave(real: Tensor, imag: Tensor) -> Tensor:
    return torch.stack((real, imag), -1).flatten(-2)


def _pole_powers(decay: Tensor, f_high: Tensor, f_low: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of ``p**k``, ``k = 0 .. BLOCK``: two tensors (F, BLOCK + 1).

    Phases are counted in cycles: a multiple of 2^-12 (whose products with k are exact, also in float32) plus a small
    rest, so the phase of a long power is as exact as that of the pole.
    """
    k = torch.arange(BLOCK + 1, dtype=decay.dtype, device=decay.device)
    coarse = torch.round(f_high.detach() * 4096) / 4096
    cycles = k * coarse[:, None]
    phase = (cycles - torch.round(cycles) + k * ((f_high - coarse) + f_low)[:, None]) * (2 * math.pi)
    magnitude = torch.exp(-k * decay[:, None])
    return magnitude * torch.cos(phase), magnitude * torch.sin(phase)


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
    decay, f_high, f_low, g_re, g_im = coef.unbind(-1)
    re, im = _pole_powers(decay, f_high, f_low)
    binomial = _binomials(BLOCK, order, coef)  # (L, n)
    in_re = g_re[:, None] * re[:, :-1] - g_im[:, None] * im[:, :-1]
    in_im = g_re[:, None] * im[:, :-1] + g_im[:, None] * re[:, :-1]
    # State j at the block's end: lag L - 1 - k, j - 1 sections between.
    weight = binomial.flip(0)
    to_state = _interleave(in_re.flip(1)[:, :, None] * weight, in_im.flip(1)[:, :, None] * weight)
    # Output at t from state j at the block's start: lag t + 1, n - j sections between, each entered a sample early.
    weight = binomial.flip(1)
    output = _interleave(re[:, 1:, None] * weight, -im[:, 1:, None] * weight)
    # State i at the start reaches state j >= i after m samples with weight C(m - 1 + j - i, j - i).
    m = 2 ** torch.arange(BLOCK.bit_length(), device=coef.device)
    j = torch.arange(order, device=coef.device)
    cascade = binomial[m - 1][:, (j[:, None] - j).clamp(min=0)].tril()
    end_re, end_im = re[:, m, None, None] * cascade, im[:, m, None, None] * cascade
    transitions = torch.stack((_interleave(end_re, -end_im), _interleave(end_im, end_re)), 3).flatten(2, 3)
    return Blocks(in_re * binomial[:, -1], output, to_state.transpose(1, 2), transitions)


def _state_space_blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Blocks:
    """Blocks of ``y = c z + d x``, ``z' = a z + b x`` (a (F, N, N), b (F, N), c (F, N), d (F,)) by doubling."""
    columns, rows = b[:, :, None], c[:, None, :]  # A^k b and c A^k, k = 0, 1, ...
    powers = [a]
    while columns.shape[2] < BLOCK:
        columns = torch.cat((columns, powers[-1] @ columns), 2)
        rows = torch.cat((rows, rows @ powers[-1]), 1)
        powers.append(powers[-1] @ powers[-1])
    impulse = torch.cat((d[:, None], (rows[:, :-1] @ b[:, :, None])[..., 0]), 1)
    return Blocks(impulse, rows, columns.flip(2), torch.stack(powers, 1))


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
    a = torch.stack([torch.nn.functional.pad(row, (0, 2 * order - row.shape[1])) for row in a_rows], 1)
    return _state_space_blocks(a, torch.stack(b_rows, 1), rows, direct)


def _allpole_blocks(coef: Tensor, order: int) -> Blocks:
    """``w[t] = g x[t] - sum_k a_k w[t-k]``, ``y = Re w``: companion form with the last ``n`` values of ``w`` as state."""
    g_re, g_im = coef[:, 0], coef[:, 1]
    a_re, a_im = coef[:, 2::2], coef[:, 3::2]
    now = torch.stack((_interleave(-a_re, a_im), _interleave(-a_im, -a_re)), 1)  # (F, 2, 2n)
    shift = torch.eye(2 * order, dtype=coef.dtype, device=coef.device)[: 2 * order - 2]
    a = torch.cat((now, shift.expand(coef.shape[0], -1, -1)), 1)
    b = torch.nn.functional.pad(torch.stack((g_re, g_im), 1), (0, 2 * order - 2))
    return _state_space_blocks(a, b, a[:, 0], g_re)


_BLOCKS: dict[str, Callable[[Tensor, int], Blocks]] = {
    "onepole": _onepole_blocks,
    "biquad": _biquad_blocks,
    "allpole": _allpole_blocks,
}


def iir_blocks(coef: Tensor, kind: str, order: int) -> Blocks:
    """Block matrices of the engine's filters, in ``coef``'s type.

    ``coef`` (F, P) and ``kind`` are those of :func:`tamt.ops.iir.iir`. Gradients reach ``coef``.
    """
    return Blocks(*(flush(matrix) for matrix in _BLOCKS[kind](coef, order)))
