"""Spreading of excitation and its gradients: no pair of bands is ever in memory.

Definition and shapes: :mod:`tamt.ops.spreading`. A program takes ROWS rows, TILE bands of them at once, whichever row
they are in; a lane finds its band's neighbours in the cache, as other lanes have just loaded them.

Slopes are in bits per step: ``a = max(base - per_db (E - level_ref), 10) step log2(10)/10``.
"""

import struct

import torch
import triton
import triton.language as tl

from tamt.shared.spreading import BITS_PER_DB, LIMITS, MIN_SLOPE, neighbours

from ._common import LAUNCH, cdiv, on_device_of

ROWS = 8
TILE = 256
BITS: tl.constexpr = tl.constexpr(BITS_PER_DB)
SINGLE_LIMIT: tl.constexpr = tl.constexpr(LIMITS[torch.float32] * BITS_PER_DB)
DOUBLE_LIMIT: tl.constexpr = tl.constexpr(LIMITS[torch.float64] * BITS_PER_DB)
MIN_BITS: tl.constexpr = tl.constexpr(MIN_SLOPE * BITS_PER_DB)  # per ERB
HEADROOM: tl.constexpr = tl.constexpr(144.0)  # dB by which sources may exceed the level that is power 1
FAINT: tl.constexpr = tl.constexpr(-1e30)  # dB, no power


@triton.jit
def load_slopes(p_slopes, step_high, step_low):
    """Upper base, lower base, upper per_db, lower per_db in bits per step, level_ref, and the step in ERB.

    The step is the sum of two floats, as triton has no float64 arguments.
    """
    dtype = p_slopes.dtype.element_ty
    b_step = tl.full([], step_high, dtype) + tl.full([], step_low, dtype)
    b_unit = b_step * BITS
    b_upper, b_lower = tl.load(p_slopes) * b_unit, tl.load(p_slopes + 1) * b_unit
    b_upper_per_db, b_lower_per_db = tl.load(p_slopes + 2) * b_unit, tl.load(p_slopes + 3) * b_unit
    return b_upper, b_lower, b_upper_per_db, b_lower_per_db, tl.load(p_slopes + 4), b_step


@triton.jit
def within_limit(b_loss):
    """Whether a loss in bits is no more than 50 dB, but for rounding.

    Older triton compares with a number in float32, which would lose the neighbour that lies at 50 dB exactly.
    """
    return b_loss <= tl.full([], DOUBLE_LIMIT if b_loss.dtype == tl.float64 else SINGLE_LIMIT, b_loss.dtype)


@triton.jit
def term(b_e, b_reference, b_base, b_per_db, b_least, d):
    """``2^((E - reference) BITS - a d)`` of sources E d steps away, 0 beyond the limit; base is at E = 0."""
    b_loss = tl.maximum(b_base - b_per_db * b_e, b_least) * d
    return tl.where(within_limit(b_loss), tl.exp2((b_e - b_reference) * BITS - b_loss), 0.0)


@triton.jit(do_not_specialize=["R"])
def spreading_kernel(
    p_e, p_peak, p_slopes, p_out, R, n, n_steps, step_high, step_low, ROWS: tl.constexpr, TILE: tl.constexpr
):
    """e (R, n), peak (R,) = the largest level of each row, slopes (5,) -> out (R, n).

    ``out_j = reference + log2(sum_i term_ij) / BITS``. The reference is the band's own level or, where that is more
    than HEADROOM below the row's peak, the level HEADROOM below it: no sum overflows, and float32 reaches 520 dB down.
    """
    b_upper, b_lower, b_upper_per_db, b_lower_per_db, b_ref, b_step = load_slopes(p_slopes, step_high, step_low)
    b_upper += b_upper_per_db * b_ref
    b_lower += b_lower_per_db * b_ref
    b_least = b_step * MIN_BITS
    o_first = tl.program_id(0).to(tl.int64) * ROWS
    n_bands = (tl.minimum(R - o_first, ROWS) * n).to(tl.int32)
    p_e += o_first * n
    p_out += o_first * n
    for first in range(0, n_bands, TILE):
        o = first + tl.arange(0, TILE)
        o_band = o % n
        m = o < n_bands
        b_own = tl.load(p_e + o, mask=m, other=0.0)
        b_peak = tl.load(p_peak + o_first + o // n, mask=m, other=0.0)
        b_reference = tl.maximum(b_own, b_peak - HEADROOM, propagate_nan=tl.PropagateNan.ALL)
        b_reference = tl.maximum(b_reference, FAINT, propagate_nan=tl.PropagateNan.ALL)
        b_sum = tl.exp2((b_own - b_reference) * BITS)
        o_left = tl.where(m, o_band, 0)
        o_right = tl.where(m, n - 1 - o_band, 0)
        p_left = p_e + o
        p_right = p_e + o
        for d in range(1, n_steps + 1):
            p_left -= 1
            p_right += 1
            b_e = tl.load(p_left, mask=d <= o_left, other=float("-inf"))
            b_sum += term(b_e, b_reference, b_upper, b_upper_per_db, b_least, d)
            b_e = tl.load(p_right, mask=d <= o_right, other=float("-inf"))
            b_sum += term(b_e, b_reference, b_lower, b_lower_per_db, b_least, d)
        b_out = b_reference + tl.log2(b_sum) * (1.0 / BITS)
        # The level of a band too faint for its power to be a number is its own.
        tl.store(p_out + o, tl.maximum(b_out, b_own, propagate_nan=tl.PropagateNan.ALL), mask=m)


@triton.jit
def share(b_e, b_out, b_loss):
    """``2^((E - out) BITS - a d)``: the part of a target that a source with the loss a d has; 0 beyond the limit."""
    b_bits = tl.minimum((b_e - b_out) * BITS - b_loss, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(within_limit(b_loss), tl.exp2(b_bits), 0.0)


@triton.jit(do_not_specialize=["R"])
def spreading_backward_kernel(
    p_grad,
    p_e,
    p_out,
    p_slopes,
    p_grad_e,
    p_part,
    R,
    n,
    n_steps,
    step_high,
    step_low,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """grad, e, out (R, n), slopes (5,) -> grad_e (R, n), and part (n_programs, 4): a program's sums for upper base,
    lower base, upper per_db and lower per_db.

    A lane is a source i. With ``w_ij = 2^((E_i - A_ij - out_j) BITS)`` and moments ``X = sum_j g_j w_ij |e_j - e_i|``
    over each side, 0 where that side's slope is clamped: ``grad_e = sum_j g_j w_ij + sum_sides per_db X``; ``part`` is
    the sum of -X for a base and of ``X (E - level_ref)`` for a per_db.
    """
    b_upper, b_lower, b_upper_per_db, b_lower_per_db, b_ref, b_step = load_slopes(p_slopes, step_high, step_low)
    b_least = b_step * MIN_BITS
    b_upper_db, b_lower_db = tl.load(p_slopes + 2), tl.load(p_slopes + 3)
    o_first = tl.program_id(0).to(tl.int64) * ROWS
    n_bands = (tl.minimum(R - o_first, ROWS) * n).to(tl.int32)
    p_grad += o_first * n
    p_e += o_first * n
    p_out += o_first * n
    p_grad_e += o_first * n
    dtype = p_e.dtype.element_ty
    b_upper_sum = tl.zeros([TILE], dtype)
    b_lower_sum = tl.zeros([TILE], dtype)
    b_upper_level_sum = tl.zeros([TILE], dtype)
    b_lower_level_sum = tl.zeros([TILE], dtype)
    for first in range(0, n_bands, TILE):
        o = first + tl.arange(0, TILE)
        o_band = o % n
        m = o < n_bands
        b_own = tl.load(p_e + o, mask=m, other=0.0)
        b_out = tl.load(p_out + o, mask=m, other=0.0)
        b_g = tl.load(p_grad + o, mask=m, other=0.0)
        b_own = tl.maximum(b_own, FAINT, propagate_nan=tl.PropagateNan.ALL)
        b_above = b_own - b_ref
        b_upper_slope = b_upper - b_upper_per_db * b_above
        b_lower_slope = b_lower - b_lower_per_db * b_above
        # No power is not spread, least of all into other bands without any.
        b_upper_rate = tl.where(b_own <= FAINT, float("inf"), tl.maximum(b_upper_slope, b_least))
        b_lower_rate = tl.where(b_own <= FAINT, float("inf"), tl.maximum(b_lower_slope, b_least))
        # A band that keeps its own level, all silence included, owes all of it to itself.
        b_grad = b_g * tl.where(b_out <= b_own, 1.0, tl.exp2((b_own - b_out) * BITS))
        b_upper_moment = tl.zeros([TILE], dtype)
        b_lower_moment = tl.zeros([TILE], dtype)
        o_left = tl.where(m, o_band, 0)
        o_right = tl.where(m, n - 1 - o_band, 0)
        p_left_grad = p_grad + o
        p_left_out = p_out + o
        p_right_grad = p_grad + o
        p_right_out = p_out + o
        for d in range(1, n_steps + 1):
            p_right_grad += 1
            p_right_out += 1
            p_left_grad -= 1
            p_left_out -= 1
            b_g = tl.load(p_right_grad, mask=d <= o_right, other=0.0)
            b_out = tl.load(p_right_out, mask=d <= o_right, other=0.0)
            b_loss = b_upper_rate * d
            b_share = b_g * share(b_own, b_out, b_loss)
            b_grad += b_share
            b_upper_moment += b_share * d
            b_g = tl.load(p_left_grad, mask=d <= o_left, other=0.0)
            b_out = tl.load(p_left_out, mask=d <= o_left, other=0.0)
            b_loss = b_lower_rate * d
            b_share = b_g * share(b_own, b_out, b_loss)
            b_grad += b_share
            b_lower_moment += b_share * d
        b_upper_moment = tl.where(b_upper_slope >= b_least, b_upper_moment, 0.0) * b_step
        b_lower_moment = tl.where(b_lower_slope >= b_least, b_lower_moment, 0.0) * b_step
        b_grad += b_upper_moment * b_upper_db + b_lower_moment * b_lower_db
        tl.store(p_grad_e + o, b_grad, mask=m)
        # Lanes beyond the last band have loaded no gradient: their moments are 0.
        b_upper_sum -= b_upper_moment
        b_lower_sum -= b_lower_moment
        b_upper_level_sum += b_upper_moment * b_above
        b_lower_level_sum += b_lower_moment * b_above
    p_part += tl.program_id(0).to(tl.int64) * 4
    tl.store(p_part, tl.sum(b_upper_sum, axis=0))
    tl.store(p_part + 1, tl.sum(b_lower_sum, axis=0))
    tl.store(p_part + 2, tl.sum(b_upper_level_sum, axis=0))
    tl.store(p_part + 3, tl.sum(b_lower_level_sum, axis=0))


def halves(erb_step: float) -> tuple[float, float]:
    """The step as a float32 number and the rest."""
    high = struct.unpack("f", struct.pack("f", erb_step))[0]
    return high, erb_step - high


def spreading(levels: torch.Tensor, slopes: torch.Tensor, erb_step: float) -> torch.Tensor:
    """Spread levels (R, n) for slopes (5,)."""
    R, n = levels.shape
    out = levels.new_empty(levels.shape)
    if R:
        with on_device_of(levels):
            spreading_kernel[(cdiv(R, ROWS),)](
                levels.contiguous(),
                levels.amax(1),
                slopes.contiguous(),
                out,
                R,
                n,
                neighbours(n, erb_step),
                *halves(erb_step),
                ROWS=ROWS,
                TILE=TILE,
                num_warps=4,
                **LAUNCH,
            )
    return out


def spreading_backward(
    grad: torch.Tensor, levels: torch.Tensor, slopes: torch.Tensor, out: torch.Tensor, erb_step: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the levels and of slopes; ``out`` is what :func:`spreading` gave for them."""
    R, n = levels.shape
    grad_levels = levels.new_empty(levels.shape)
    if R == 0:
        return grad_levels, torch.zeros_like(slopes, memory_format=torch.contiguous_format)
    n_programs = cdiv(R, ROWS)
    part = levels.new_empty(n_programs, 4)
    with on_device_of(levels):
        spreading_backward_kernel[(n_programs,)](
            grad.contiguous(),
            levels.contiguous(),
            out.contiguous(),
            slopes.contiguous(),
            grad_levels,
            part,
            R,
            n,
            neighbours(n, erb_step),
            *halves(erb_step),
            ROWS=ROWS,
            TILE=TILE,
            num_warps=4,
            **LAUNCH,
        )
    numbers = part.sum(0)
    return grad_levels, torch.cat((numbers, (numbers[:2] * slopes[2:4]).sum(0, keepdim=True)))
