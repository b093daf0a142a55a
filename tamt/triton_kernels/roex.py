"""Roex excitation of a sparse spectrum: level per ERB at each component, excitation of each channel, gradients.

Definitions and shapes: :mod:`tamt.ops.roex`. A program owns a tile of components or channels of one row, loops over
tiles of the others and keeps its sums in registers; no pair ever reaches memory, and every sum has one order.
Exponents are in powers of 2.
"""

import torch
import triton
import triton.language as tl

from tamt import scales
from tamt.shared import roex as shared

from ._common import LAUNCH, cdiv, on_device_of

LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)
ERB_AT_0 = tl.constexpr(scales.ERB_AT_0)
ERB_PER_HZ = tl.constexpr(shared.ERB_PER_HZ)
LOOKED_THROUGH = tl.constexpr(1024)  # components looked through at once for the end of a row
VANISHING = {torch.float32: 127.0, torch.float64: 1100.0}  # bits below 1 at which a power of 2 counts as 0
# Tiles of a program, rows by what it loops over, in float32.
LEVEL_TILE, LEVEL_WARPS = (32, 32), 1  # one warp: no barrier where a tile's extent is found
LEVEL_BACKWARD_TILE, LEVEL_BACKWARD_WARPS = (64, 32), 4


@triton.jit
def steepness_of(b_f):
    """``4 log2(e) / ERB(f)``."""
    return 5.7707801635558535 / (b_f * ERB_PER_HZ + ERB_AT_0)


@triton.jit
def filled(p_intensity, C, WIDTH: tl.constexpr):
    """How far the components of a row reach, padding at its end left out."""
    o_j = tl.arange(0, WIDTH)
    b_end = tl.zeros([WIDTH], tl.int32)
    for first in range(0, C, WIDTH):
        b_intensity = tl.load(p_intensity + first + o_j, mask=first + o_j < C, other=0.0)
        b_end = tl.where(b_intensity != 0, first + o_j + 1, b_end)
    return tl.max(b_end, axis=0)


@triton.jit
def exclude(b_e, b_row, b_column, ratio):
    """Zeros for pairs more than ``ratio`` apart."""
    m_near = (b_column[None, :] <= (b_row * ratio)[:, None]) & (b_row[:, None] <= (b_column * ratio)[None, :])
    return tl.where(m_near, b_e, 0.0)


@triton.jit
def extent(b_f):
    """The least and the largest of a tile of frequencies, which are not negative.

    Floating numbers that are not negative are ordered like the integers of the same bits, whose extremes over a warp
    GPUs find in one instruction.
    """
    if b_f.dtype == tl.float32:
        b_bits = b_f.to(tl.int32, bitcast=True)
        low, high = tl.min(b_bits, axis=0), tl.max(b_bits, axis=0)
        return low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True)
    else:
        return tl.min(b_f, axis=0), tl.max(b_f, axis=0)


@triton.jit
def relation(i_low, i_high, j_low, j_high, ratio):
    """Of two tiles of frequencies: the gap between them, whether some pair may count, and whether all pairs do."""
    gap = tl.maximum(i_low - j_high, j_low - i_high)
    some = (j_low <= i_high * ratio) & (i_low <= j_high * ratio)
    every = (j_high <= i_low * ratio) & (i_high <= j_low * ratio)
    return gap, some, every


@triton.jit
def level_terms(b_sum, b_f, b_fj, b_intensity, ratio, EXCLUDE: tl.constexpr):
    """The sums of :func:`roex_level_kernel` and a tile of their terms."""
    b_u = tl.abs(b_fj[None, :] - b_f[:, None]) * steepness_of(b_fj)[None, :]
    b_e = tl.exp2(-b_u)
    if EXCLUDE:
        b_e = exclude(b_e, b_f, b_fj, ratio)
    return b_sum + (b_u * (b_intensity * LN2)[None, :] + b_intensity[None, :]) * b_e


@triton.jit
def roex_level_kernel(p_f, p_intensity, p_power, C, ratio, VANISHING: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr):
    """f, intensity (R, C) -> power (R, C), BI components of one row per program.

    ``power[i] = sum_j (1 + u) e^-u intensity[j]`` with ``u = 4 |f_i - f_j| / ERB(f_j)``. Tiles of pairs all of which
    are 0 are left out: many where the frequencies are in order.
    """
    n_tiles = (C + BI - 1) // BI
    o_row = (tl.program_id(0) // n_tiles).to(tl.int64) * C
    o_i = (tl.program_id(0) % n_tiles) * BI + tl.arange(0, BI)
    b_f = tl.load(p_f + o_row + tl.minimum(o_i, C - 1))
    i_low, i_high = extent(b_f)
    b_sum = tl.zeros([BI, BJ], p_f.dtype.element_ty)
    for first in range(0, filled(p_intensity + o_row, C, LOOKED_THROUGH), BJ):
        o_j = first + tl.arange(0, BJ)
        b_fj = tl.load(p_f + o_row + tl.minimum(o_j, C - 1))
        b_intensity = tl.load(p_intensity + o_row + o_j, mask=o_j < C, other=0.0)
        j_low, j_high = extent(b_fj)
        gap, some, every = relation(i_low, i_high, j_low, j_high, ratio)
        if every:
            if not (gap * steepness_of(j_high) > VANISHING):
                b_sum = level_terms(b_sum, b_f, b_fj, b_intensity, ratio, False)
        elif some:
            b_sum = level_terms(b_sum, b_f, b_fj, b_intensity, ratio, True)
    tl.store(p_power + o_row + o_i, tl.sum(b_sum, axis=1), mask=o_i < C)


@triton.jit
def centre_terms(b_of_i, b_centre, b_f, b_rate, b_fj, b_gj, ratio, EXCLUDE: tl.constexpr):
    """The sums of :func:`roex_level_backward_kernel` for components as the centres of filters, and their terms."""
    b_widening = b_rate * (ERB_PER_HZ * LN2 / 4)
    b_d = b_fj[None, :] - b_f[:, None]
    b_u = tl.abs(b_d) * b_rate[:, None]
    b_e = tl.exp2(-b_u)
    if EXCLUDE:
        b_e = exclude(b_e, b_f, b_fj, ratio)
    b_e *= b_gj[None, :]
    return b_of_i + (b_u * LN2 + 1.0) * b_e, b_centre + (b_widening[:, None] * b_d + 1.0) * b_d * b_e


@triton.jit
def received_terms(b_received, b_f, b_fj, b_intensity, ratio, EXCLUDE: tl.constexpr):
    """The same for components in the filters of others."""
    b_rate = steepness_of(b_fj)
    b_d = b_fj[None, :] - b_f[:, None]
    b_e = tl.exp2(-tl.abs(b_d) * b_rate[None, :])
    if EXCLUDE:
        b_e = exclude(b_e, b_f, b_fj, ratio)
    return b_received + (b_intensity * b_rate * b_rate)[None, :] * b_d * b_e


@triton.jit
def roex_level_backward_kernel(
    p_grad,
    p_f,
    p_intensity,
    p_grad_f,
    p_grad_intensity,
    C,
    ratio,
    VANISHING: tl.constexpr,
    BI: tl.constexpr,
    BJ: tl.constexpr,
):
    """grad, f, intensity (R, C) -> grad_f, grad_intensity (R, C), BI components of one row per program.

    With ``d = f_j - f_i``, ``q = 4/ERB(f)``, ``e_i = exp(-q_i |d|)`` and ``e_j = exp(-q_j |d|)``::

        grad_intensity[i] = sum_j grad[j] (1 + q_i |d|) e_i
        grad_f[i] = intensity[i] q_i^2 sum_j grad[j] d (1 + (ERB'/4) q_i d) e_i    as the centre of a filter
                  + grad[i] sum_j intensity[j] q_j^2 d e_j                         as a component in others'

    The two have tiles of pairs to leave out apart from each other.
    """
    n_tiles = (C + BI - 1) // BI
    o_row = (tl.program_id(0) // n_tiles).to(tl.int64) * C
    o_i = (tl.program_id(0) % n_tiles) * BI + tl.arange(0, BI)
    b_f = tl.load(p_f + o_row + tl.minimum(o_i, C - 1))
    b_rate = steepness_of(b_f)
    i_low, i_high = extent(b_f)
    b_of_i = tl.zeros([BI, BJ], p_f.dtype.element_ty)
    b_centre = tl.zeros([BI, BJ], p_f.dtype.element_ty)
    b_received = tl.zeros([BI, BJ], p_f.dtype.element_ty)
    end = tl.maximum(filled(p_intensity + o_row, C, LOOKED_THROUGH), filled(p_grad + o_row, C, LOOKED_THROUGH))
    for first in range(0, end, BJ):
        o_j = first + tl.arange(0, BJ)
        b_fj = tl.load(p_f + o_row + tl.minimum(o_j, C - 1))
        b_intensity = tl.load(p_intensity + o_row + o_j, mask=o_j < C, other=0.0)
        b_gj = tl.load(p_grad + o_row + o_j, mask=o_j < C, other=0.0)
        j_low, j_high = extent(b_fj)
        gap, some, every = relation(i_low, i_high, j_low, j_high, ratio)
        if every:
            if not (gap * steepness_of(i_high) > VANISHING):
                b_of_i, b_centre = centre_terms(b_of_i, b_centre, b_f, b_rate, b_fj, b_gj, ratio, False)
            if not (gap * steepness_of(j_high) > VANISHING):
                b_received = received_terms(b_received, b_f, b_fj, b_intensity, ratio, False)
        elif some:
            b_of_i, b_centre = centre_terms(b_of_i, b_centre, b_f, b_rate, b_fj, b_gj, ratio, True)
            b_received = received_terms(b_received, b_f, b_fj, b_intensity, ratio, True)
    b_own = tl.load(p_intensity + o_row + o_i, mask=o_i < C, other=0.0)
    b_grad = tl.load(p_grad + o_row + o_i, mask=o_i < C, other=0.0)
    b_centre_i = tl.sum(b_centre, axis=1) * b_own * b_rate * b_rate
    b_gf = (b_centre_i + tl.sum(b_received, axis=1) * b_grad) * (LN2 * LN2)
    tl.store(p_grad_f + o_row + o_i, b_gf, mask=o_i < C)
    tl.store(p_grad_intensity + o_row + o_i, tl.sum(b_of_i, axis=1), mask=o_i < C)


@triton.jit
def load_channels(p_fc, p_p, o_n, N):
    """Frequencies, slopes of the high-frequency sides and least slopes (0.1) of the others, log2(e) times per Hz."""
    b_fc = tl.load(p_fc + o_n, mask=o_n < N, other=1.0)
    b_p = tl.load(p_p + o_n, mask=o_n < N, other=0.0)
    return b_fc, b_p * LOG2E / b_fc, 0.14426950408889634 / b_fc


@triton.jit
def roex_excitation_kernel(
    p_f, p_intensity, p_steepness, p_fc, p_p, p_power, C, N, ratio, BN: tl.constexpr, BJ: tl.constexpr
):
    """f, intensity, steepness (R, C); fc, p (N,) -> power (R, N), BN channels of one row per program.

    ``power[n] = sum_j (1 + u) e^-u intensity[j]`` with ``u = |f_j - fc_n| b / fc_n``, ``b = p_n`` where
    ``f_j >= fc_n``, else ``max(p_n steepness[j], 0.1)``.
    """
    n_tiles = (N + BN - 1) // BN
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    o_row = row * C
    o_n = (tl.program_id(0) % n_tiles) * BN + tl.arange(0, BN)
    b_fc, b_upper, b_least = load_channels(p_fc, p_p, o_n, N)
    b_sum = tl.zeros([BN, BJ], p_f.dtype.element_ty)
    for first in range(0, filled(p_intensity + o_row, C, LOOKED_THROUGH), BJ):
        o_j = first + tl.arange(0, BJ)
        b_f = tl.load(p_f + o_row + o_j, mask=o_j < C, other=1.0)
        b_intensity = tl.load(p_intensity + o_row + o_j, mask=o_j < C, other=0.0)
        b_s = tl.load(p_steepness + o_row + o_j, mask=o_j < C, other=1.0)
        b_d = b_f[None, :] - b_fc[:, None]
        b_lower = tl.maximum(b_upper[:, None] * b_s[None, :], b_least[:, None])
        # One of the two is at most 0, and which one depends on the side.
        b_v = tl.minimum(b_lower * b_d, -b_upper[:, None] * b_d)
        b_e = exclude(tl.exp2(b_v), b_fc, b_f, ratio)
        b_sum += (b_intensity[None, :] - b_v * (b_intensity * LN2)[None, :]) * b_e
    tl.store(p_power + row * N + o_n, tl.sum(b_sum, axis=1), mask=o_n < N)


@triton.jit
def roex_excitation_backward_kernel(
    p_grad,
    p_f,
    p_intensity,
    p_steepness,
    p_fc,
    p_p,
    p_grad_f,
    p_grad_intensity,
    p_grad_steepness,
    C,
    N,
    ratio,
    BI: tl.constexpr,
    BN: tl.constexpr,
):
    """grad (R, N); f, intensity, steepness (R, C); fc, p (N,) -> gradients (R, C), BI components per program.

    With ``d = f_i - fc_n``, the slope ``b`` per Hz of the side in question, ``a = p_n/fc_n`` and ``e = exp(-b |d|)``::

        grad_intensity[i] = sum_n grad[n] (1 + b |d|) e
        grad_f[i] = -intensity[i] sum_n grad[n] b^2 d e
        grad_steepness[i] = -intensity[i] sum_n grad[n] a b d^2 e    where d < 0 and b is not clamped
    """
    n_tiles = (C + BI - 1) // BI
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    o_i = (tl.program_id(0) % n_tiles) * BI + tl.arange(0, BI)
    o_c = row * C + o_i
    b_f = tl.load(p_f + o_c, mask=o_i < C, other=1.0)
    b_intensity = tl.load(p_intensity + o_c, mask=o_i < C, other=0.0)
    b_s = tl.load(p_steepness + o_c, mask=o_i < C, other=1.0)
    b_of_i = tl.zeros([BI, BN], p_f.dtype.element_ty)
    b_of_f = tl.zeros([BI, BN], p_f.dtype.element_ty)
    b_of_s = tl.zeros([BI, BN], p_f.dtype.element_ty)
    for first in range(0, N, BN):
        o_n = first + tl.arange(0, BN)
        b_fc, b_upper, b_least = load_channels(p_fc, p_p, o_n, N)
        b_grad = tl.load(p_grad + row * N + o_n, mask=o_n < N, other=0.0)
        b_d = b_f[:, None] - b_fc[None, :]
        b_free = b_upper[None, :] * b_s[:, None]
        b_slope = tl.where(b_d < 0, tl.maximum(b_free, b_least[None, :]), b_upper[None, :])
        b_drop = b_slope * b_d
        b_u = tl.abs(b_drop)
        b_e = exclude(tl.exp2(-b_u), b_f, b_fc, ratio)
        b_e *= b_grad[None, :]
        b_of_i += (b_u * LN2 + 1.0) * b_e
        b_e *= b_drop
        b_of_f += b_slope * b_e
        m_free = (b_d < 0) & (b_free >= b_least[None, :])
        b_of_s += tl.where(m_free, b_upper[None, :] * b_d, 0.0) * b_e
    b_scale = b_intensity * (-LN2 * LN2)
    tl.store(p_grad_f + o_c, tl.sum(b_of_f, axis=1) * b_scale, mask=o_i < C)
    tl.store(p_grad_intensity + o_c, tl.sum(b_of_i, axis=1), mask=o_i < C)
    tl.store(p_grad_steepness + o_c, tl.sum(b_of_s, axis=1) * b_scale, mask=o_i < C)


def _tile(like: torch.Tensor, rows: int, columns: int) -> tuple[int, int]:
    """A quarter of the rows in float64, whose numbers and powers of 2 take several registers each."""
    return rows if like.element_size() == 4 else rows // 4, columns


def power_per_erb(f: torch.Tensor, intensity: torch.Tensor, ratio: float) -> torch.Tensor:
    """Power sums (R, C) of the filters of all components at each component."""
    R, C = f.shape
    power = f.new_empty(f.shape)
    if power.numel():
        BI, BJ = _tile(f, *LEVEL_TILE)
        with on_device_of(f):
            roex_level_kernel[(R * cdiv(C, BI),)](
                f.contiguous(),
                intensity.contiguous(),
                power,
                C,
                ratio,
                VANISHING=VANISHING[f.dtype],
                BI=BI,
                BJ=BJ,
                num_warps=LEVEL_WARPS,
                **LAUNCH,
            )
    return power


def power_per_erb_backward(
    grad: torch.Tensor, f: torch.Tensor, intensity: torch.Tensor, ratio: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of frequencies and intensities."""
    R, C = f.shape
    grads = f.new_empty(f.shape), f.new_empty(f.shape)
    if f.numel():
        BI, BJ = _tile(f, *LEVEL_BACKWARD_TILE)
        with on_device_of(f):
            roex_level_backward_kernel[(R * cdiv(C, BI),)](
                grad.contiguous(),
                f.contiguous(),
                intensity.contiguous(),
                *grads,
                C,
                ratio,
                VANISHING=VANISHING[f.dtype],
                BI=BI,
                BJ=BJ,
                num_warps=LEVEL_BACKWARD_WARPS,
                **LAUNCH,
            )
    return grads


def excitation(
    f: torch.Tensor,
    intensity: torch.Tensor,
    steepness: torch.Tensor,
    fc: torch.Tensor,
    p: torch.Tensor,
    ratio: float,
) -> torch.Tensor:
    """Power sums (R, N) of the channels over all components."""
    (R, C), N = f.shape, fc.shape[0]
    power = f.new_empty(R, N)
    if power.numel():
        BN, BJ = _tile(f, 32, 64)
        with on_device_of(f):
            roex_excitation_kernel[(R * cdiv(N, BN),)](
                f.contiguous(),
                intensity.contiguous(),
                steepness.contiguous(),
                fc.contiguous(),
                p.contiguous(),
                power,
                C,
                N,
                ratio,
                BN=BN,
                BJ=BJ,
                num_warps=4,
                **LAUNCH,
            )
    return power


def excitation_backward(
    grad: torch.Tensor,
    f: torch.Tensor,
    intensity: torch.Tensor,
    steepness: torch.Tensor,
    fc: torch.Tensor,
    p: torch.Tensor,
    ratio: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of frequencies, intensities and steepnesses."""
    (R, C), N = f.shape, fc.shape[0]
    grads = f.new_empty(f.shape), f.new_empty(f.shape), f.new_empty(f.shape)
    if f.numel():
        BI, BN = _tile(f, 32, 32)
        with on_device_of(f):
            roex_excitation_backward_kernel[(R * cdiv(C, BI),)](
                grad.contiguous(),
                f.contiguous(),
                intensity.contiguous(),
                steepness.contiguous(),
                fc.contiguous(),
                p.contiguous(),
                *grads,
                C,
                N,
                ratio,
                BI=BI,
                BN=BN,
                num_warps=4,
                **LAUNCH,
            )
    return grads
