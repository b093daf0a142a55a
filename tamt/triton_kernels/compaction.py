"""The relevant components of a row to its front, one row per program.

Definition and shapes: :mod:`tamt.ops.compaction`. Positions are a running count. Of a row with more components than
there is room for, the weakest that stays is found bit by bit: floating numbers that are not negative are ordered like
the integers of the same bits.
"""

import torch
import triton
import triton.language as tl

from ._common import LAUNCH, next_power_of_2, on_device_of

LEVEL = 10 * 0.30102999566398120  # of 10 log10 I over log2 I
WARPS = {torch.float32: 1, torch.float64: 2}  # of a row of up to 1024 components; one has no barriers
LEVEL_SLOPE = 10 * 0.43429448190325183  # of 10 log10 I over ln I


@triton.jit
def strongest(b_i, m_keep, C, BITS: tl.constexpr):
    """``m_keep`` with at most C components: the strongest, of equal ones those of lower index; NaN is infinite."""
    b_finite = tl.where(b_i == b_i, b_i, float("inf"))
    b_key = tl.where(m_keep, b_finite.to(tl.int64 if BITS == 64 else tl.int32, bitcast=True), -1)
    n_stay = tl.sum(m_keep.to(tl.int32), axis=0)
    b_last = tl.full([], 0, b_key.dtype)
    b_bit = tl.where(n_stay > C, tl.full([], 1, b_key.dtype) << (BITS - 2), 0)
    # Few bits tell the strongest apart: the search ends where as many are left as there is room for.
    while b_bit != 0:
        n = tl.sum((b_key >= (b_last | b_bit)).to(tl.int32), axis=0)
        b_last = tl.where(n >= C, b_last | b_bit, b_last)
        n_stay = tl.where(n >= C, n, n_stay)
        b_bit = tl.where(n == C, 0, b_bit >> 1)
    m_stay = b_key >= b_last
    if n_stay > C:
        m_equal = b_key == b_last
        room = C - n_stay + tl.sum(m_equal.to(tl.int32), axis=0)
        m_stay = m_stay & (~m_equal | (tl.cumsum(m_equal.to(tl.int32), axis=0) <= room))
    return m_stay


@triton.jit
def kept_places(b_i, b_threshold, m_f, C, LIMITED: tl.constexpr, BITS: tl.constexpr):
    """Mask of the components that stay, and their columns."""
    m_keep = ~(b_i <= b_threshold) & m_f
    if LIMITED:
        m_keep = strongest(b_i, m_keep, C, BITS)
    return m_keep, tl.cumsum(m_keep.to(tl.int32), axis=0) - 1


@triton.jit(do_not_specialize=["C"])
def compaction_kernel(
    p_intensity,
    p_frequencies,
    p_threshold,
    p_freqs,
    p_levels,
    F,
    C,
    LEVEL: tl.constexpr,
    LIMITED: tl.constexpr,
    BITS: tl.constexpr,
    BF: tl.constexpr,
):
    """intensity (R, F), frequencies (F,), threshold (R,) -> freqs, levels (R, C). LIMITED: a row may have more
    than C that are relevant."""
    o_row = tl.program_id(0).to(tl.int64)
    o_f = tl.arange(0, BF)
    b_i = tl.load(p_intensity + o_row * F + o_f, mask=o_f < F, other=0.0)
    m_keep, o_c = kept_places(b_i, tl.load(p_threshold + o_row), o_f < F, C, LIMITED, BITS)
    tl.store(p_freqs + o_row * C + o_c, tl.load(p_frequencies + o_f, mask=m_keep, other=0.0), mask=m_keep)
    tl.store(p_levels + o_row * C + o_c, LEVEL * tl.log2(b_i), mask=m_keep)
    n = tl.sum(m_keep.to(tl.int32), axis=0)
    for first in range(n, C, BF):
        o_rest = first + o_f
        tl.store(p_freqs + o_row * C + o_rest, tl.zeros([BF], b_i.dtype), mask=o_rest < C)
        tl.store(p_levels + o_row * C + o_rest, tl.zeros([BF], b_i.dtype), mask=o_rest < C)


@triton.jit(do_not_specialize=["C"])
def compaction_backward_kernel(
    p_grad,
    p_intensity,
    p_threshold,
    p_grad_intensity,
    F,
    C,
    SLOPE: tl.constexpr,
    LIMITED: tl.constexpr,
    BITS: tl.constexpr,
    BF: tl.constexpr,
):
    """grad (R, C) of the levels -> grad_intensity (R, F): ``SLOPE grad / I`` of what stays, else 0."""
    o_row = tl.program_id(0).to(tl.int64)
    o_f = tl.arange(0, BF)
    b_i = tl.load(p_intensity + o_row * F + o_f, mask=o_f < F, other=0.0)
    m_keep, o_c = kept_places(b_i, tl.load(p_threshold + o_row), o_f < F, C, LIMITED, BITS)
    b_g = tl.load(p_grad + o_row * C + o_c, mask=m_keep, other=0.0)
    tl.store(p_grad_intensity + o_row * F + o_f, SLOPE * b_g / tl.where(m_keep, b_i, 1.0), mask=o_f < F)


def _options(intensity: torch.Tensor, limited: bool) -> dict:
    columns = intensity.shape[1]
    return {
        "LIMITED": limited,
        "BITS": 8 * intensity.element_size(),
        "BF": max(32, next_power_of_2(columns)),
        "num_warps": WARPS[intensity.dtype] if columns <= 1024 else 8,
        **LAUNCH,
    }


def compaction(
    intensity: torch.Tensor, frequencies: torch.Tensor, threshold: torch.Tensor, count: int, limited: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies and levels (R, count) of what is relevant in intensity (R, F)."""
    R, F = intensity.shape
    freqs, levels = intensity.new_empty(R, count), intensity.new_empty(R, count)
    if R:
        given = intensity.contiguous(), frequencies.contiguous(), threshold.contiguous()
        with on_device_of(intensity):
            compaction_kernel[(R,)](*given, freqs, levels, F, count, LEVEL=LEVEL, **_options(intensity, limited))
    return freqs, levels


def compaction_backward(
    grad: torch.Tensor,
    intensity: torch.Tensor,
    frequencies: torch.Tensor,
    threshold: torch.Tensor,
    count: int,
    limited: bool,
) -> torch.Tensor:
    """Gradient of intensity from that of the levels (R, count)."""
    R, F = intensity.shape
    grad_intensity = intensity.new_empty(R, F)
    if R:
        given = grad.contiguous(), intensity.contiguous(), threshold.contiguous()
        with on_device_of(intensity):
            options = _options(intensity, limited)
            compaction_backward_kernel[(R,)](*given, grad_intensity, F, count, SLOPE=LEVEL_SLOPE, **options)
    return grad_intensity
