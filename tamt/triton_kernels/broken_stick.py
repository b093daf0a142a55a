"""The broken stick ``NL(v) = v min(a, b |v|^(c-1))`` and its gradients: one pass over memory each.

Definition and shapes: :mod:`tamt.ops.broken_stick`. A program takes a chunk of one row, batch row and channel.
"""

import torch
import triton
import triton.language as tl

from ._common import LAUNCH, cdiv, on_device_of

TILE = 2048  # samples in registers at once
CHUNK = 16384  # samples that one partial sum of the backward pass covers


@triton.jit
def log2_magnitude(b_v):
    """``log2 |v|``, of 0 and subnormal numbers that of the smallest normal one; NaN stays NaN."""
    if b_v.dtype == tl.float64:
        b_tiny = tl.full([], 2.2250738585072014e-308, tl.float64)
    else:
        b_tiny = tl.full([], 1.1754943508222875e-38, tl.float32)
    b_magnitude = tl.abs(b_v)
    return tl.log2(tl.where(b_magnitude < b_tiny, b_tiny, b_magnitude))


@triton.jit
def broken_stick_gain(b_v, b_a, b_b, b_c):
    """``min(a, b |v|^(c-1))``, with c < 1 a at 0; NaN where any of the four is."""
    b_power = b_b * tl.exp2((b_c - 1.0) * log2_magnitude(b_v))
    return tl.minimum(b_power, b_a, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def load_stick(p_stick, o_f):
    """a, b, c of channel o_f."""
    return tl.load(p_stick + o_f * 3), tl.load(p_stick + o_f * 3 + 1), tl.load(p_stick + o_f * 3 + 2)


@triton.jit(do_not_specialize=["F"])
def broken_stick_kernel(p_v, p_stick, p_w, T, F, TILE: tl.constexpr):
    """v (B, F, T), stick (F, 3) -> w (B, F, T), TILE samples of one row per program."""
    n_tiles = (T - 1) // TILE + 1
    row = tl.program_id(0) // n_tiles
    o_tile = (tl.program_id(0) % n_tiles) * TILE
    o_row = row.to(tl.int64) * T
    o_t = o_tile + tl.arange(0, TILE)
    m_t = tl.arange(0, TILE) < T - o_tile  # o_t may be beyond 2^31
    b_a, b_b, b_c = load_stick(p_stick, row % F)
    b_v = tl.load(p_v + o_row + o_t, mask=m_t, other=0.0)
    tl.store(p_w + o_row + o_t, b_v * broken_stick_gain(b_v, b_a, b_b, b_c), mask=m_t)


@triton.jit(do_not_specialize=["B", "F"])
def broken_stick_backward_kernel(
    p_grad,
    p_v,
    p_stick,
    p_grad_v,
    p_part,
    T,
    B,
    F,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """grad, v (B, F, T), stick (F, 3) -> grad_v (B, F, T), and part (F, B, n_chunks, 3): sums over a chunk of
    the linear branch's ``g v`` (of a), the power law's ``g v |v|^(c-1)`` (of b) and ``g v b |v|^(c-1) log |v|`` (of c).
    The linear branch includes the knee and 0.
    """
    n_chunks = (T - 1) // CHUNK + 1
    row = tl.program_id(0) // n_chunks
    chunk = tl.program_id(0) % n_chunks
    o_chunk = chunk * CHUNK
    o_first = row.to(tl.int64) * T + o_chunk
    length = tl.minimum(T - o_chunk, CHUNK)  # the end of a chunk may be beyond 2^31
    b_a, b_b, b_c = load_stick(p_stick, row % F)
    b_sum_a = tl.zeros([TILE], p_v.dtype.element_ty)
    b_sum_b = tl.zeros([TILE], p_v.dtype.element_ty)
    b_sum_c = tl.zeros([TILE], p_v.dtype.element_ty)
    for first in range(0, length, TILE):
        o_t = first + tl.arange(0, TILE)
        b_v = tl.load(p_v + o_first + o_t, mask=o_t < length, other=0.0)
        b_g = tl.load(p_grad + o_first + o_t, mask=o_t < length, other=0.0)
        b_log = log2_magnitude(b_v)
        b_power = tl.exp2((b_c - 1.0) * b_log)
        m_linear = b_b * b_power >= b_a
        b_power = tl.where(m_linear, 0.0, b_power)  # where it may be infinite
        tl.store(p_grad_v + o_first + o_t, b_g * tl.where(m_linear, b_a, b_c * b_b * b_power), mask=o_t < length)
        b_weight = b_g * b_v
        b_sum_a += tl.where(m_linear, b_weight, 0.0)
        b_sum_b += b_weight * b_power
        b_sum_c += b_weight * b_power * b_log
    p_out = p_part + (((row % F).to(tl.int64) * B + row // F) * n_chunks + chunk) * 3
    tl.store(p_out, tl.sum(b_sum_a, axis=0))
    tl.store(p_out + 1, tl.sum(b_sum_b, axis=0))
    tl.store(p_out + 2, 0.6931471805599453 * b_b * tl.sum(b_sum_c, axis=0))


def broken_stick(v: torch.Tensor, stick: torch.Tensor) -> torch.Tensor:
    """``NL(v)`` for v (B, F, T) and stick (F, 3), columns a, b, c."""
    B, F, T = v.shape
    w = v.new_empty(v.shape)
    if w.numel():
        with on_device_of(v):
            grid = (B * F * cdiv(T, TILE),)
            broken_stick_kernel[grid](v.contiguous(), stick.contiguous(), w, T, F, TILE=TILE, num_warps=4, **LAUNCH)
    return w


def broken_stick_backward(
    grad: torch.Tensor, v: torch.Tensor, stick: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of v and stick: on the knee, and at 0, those of the linear branch."""
    B, F, T = v.shape
    grad_v = v.new_empty(v.shape)
    if grad_v.numel() == 0:
        return grad_v, torch.zeros_like(stick, memory_format=torch.contiguous_format)
    n_chunks = cdiv(T, CHUNK)
    part = v.new_empty(F, B * n_chunks, 3)
    with on_device_of(v):
        broken_stick_backward_kernel[(B * F * n_chunks,)](
            grad.contiguous(),
            v.contiguous(),
            stick.contiguous(),
            grad_v,
            part,
            T,
            B,
            F,
            TILE=TILE,
            CHUNK=CHUNK,
            num_warps=8,
            **LAUNCH,
        )
    return grad_v, part.sum(1)
