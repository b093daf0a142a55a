"""Stages 2 and 3 of the IIR engine: the states with which the superblocks end and start.

``rows`` are superblocks of all batch rows, batch row b having rows ``b n ... b n + n - 1``. State tensors are
(F, rows, NP): a lane finds the NP >= N values of its superblock side by side, and neighbouring lanes neighbouring ones.

The scan ``s[j + 1] = A s[j] + e[j]`` runs in chunks: the end of every chunk from a zero start, the same scan over these
ends with A^chunk (itself in chunks where they are many), then the states inside every chunk from its now known start.
All sums are in float64.
"""

import triton
import triton.language as tl

from tamt.triton_kernels._common import product


@triton.jit(do_not_specialize=["n_super", "B"])
def iir_end_state_kernel(
    p_x,
    p_response,
    p_end,
    n_samples,
    n_super,
    B,
    columns,
    x_stride_b,
    S: tl.constexpr,
    NP: tl.constexpr,
    BR: tl.constexpr,
    BC: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """End states of superblocks from a zero start, for one signal shared by all channels: ``e = x E``.

    x (B, T), seen as (B, n_super, S) with zeros after n_samples, a multiple of 16; response E (S, columns), columns =
    F NP -> end (F, B, n_super, NP). Program: BR superblocks of one batch row by BC columns, BK samples a step. Column
    blocks run fastest, so that a tile of x is read from DRAM once.
    """
    n_blocks = (columns + BC - 1) // BC
    n_tiles = (n_super + BR - 1) // BR
    tile = (tl.program_id(0) // n_blocks) % n_tiles
    o_b = (tl.program_id(0) // n_blocks // n_tiles).to(tl.int64)
    o_r = tl.arange(0, BR)
    o_c = (tl.program_id(0) % n_blocks) * BC + tl.arange(0, BC)
    o_k = tl.arange(0, BK)
    o_tile = tile.to(tl.int64) * (BR * S)
    b_length = tl.minimum(tl.maximum(n_samples - o_tile - o_r * S, 0), S).to(tl.int32)
    b_length = tl.multiple_of(b_length, [16])
    p_xtile = p_x + (o_b * x_stride_b + o_tile) + ((o_r * S)[:, None] + o_k[None, :])
    p_etile = p_response + (o_k.to(tl.int64)[:, None] * columns + o_c[None, :])
    m_c = (o_c < columns)[None, :]
    b_acc = tl.zeros([BR, BC], tl.float32)
    for k in range(0, S, BK):
        b_x = tl.load(p_xtile + k, mask=(k + o_k)[None, :] < b_length[:, None], other=0.0)
        b_e = tl.load(p_etile, mask=m_c, other=0.0)
        b_acc = product(b_x, b_e, b_acc, PRECISION)
        p_etile += BK * columns
    o_row = ((o_c // NP).to(tl.int64) * B + o_b) * n_super + tile * BR
    p_out = p_end + (o_row * NP + o_c % NP)[None, :] + (o_r * NP)[:, None]
    tl.store(p_out, b_acc, mask=(tile * BR + o_r < n_super)[:, None] & m_c)


@triton.jit(do_not_specialize=["n", "B", "F", "n_chunks", "chunk", "start_stride_f", "start_stride_r"])
def iir_scan_kernel(
    p_e,
    p_transition,
    p_start,
    p_out,
    n,
    B,
    F,
    n_chunks,
    chunk,
    a_stride_out,
    a_stride_in,
    start_stride_f,
    start_stride_r,
    N: tl.constexpr,
    NP: tl.constexpr,
    R: tl.constexpr,
    STATES: tl.constexpr,
    START: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """One pass over chunks, of ``chunk`` blocks each, of a row of n blocks: R chunks of one channel per program.

    e (F, B n, NP): what block j adds by its end; transition (F, NP, NP) float64, given by its strides (the adjoint's
    is the transpose).
    start, if START: state entering the chunk; element (f, chunk, n < N) at strides start_stride_f, start_stride_r, 1.
    STATES: out (F, B n, NP) = state entering each block; else out (F, B n_chunks, NP) = state leaving each chunk.
    REVERSE: blocks and chunks count from the end of the row. Only the last chunk may be short of blocks; the state that
    leaves it is wrong then, and not used.
    """
    f = (tl.program_id(0) % F).to(tl.int64)
    o_q = (tl.program_id(0) // F) * R + tl.arange(0, R)
    o_n = tl.arange(0, NP)
    m_q = o_q < B * n_chunks
    o_b = (o_q // n_chunks).to(tl.int64)
    o_first = (o_q % n_chunks) * chunk
    o_channel = f * B
    # The matrix is transposed, so that the products of a sum are the first axis, which lies within lanes: no shuffles.
    b_at = tl.load(p_transition + f * (NP * NP) + o_n[:, None] * a_stride_in + o_n[None, :] * a_stride_out)
    if START:
        o_start = f * start_stride_f + o_q.to(tl.int64) * start_stride_r
        b_s = tl.load(p_start + o_start[:, None] + o_n[None, :], mask=m_q[:, None] & (o_n < N)[None, :], other=0.0).to(
            tl.float64
        )
    else:
        b_s = tl.zeros([R, NP], tl.float64)
    for i in range(0, chunk):
        o_j = o_first + i
        m_j = (m_q & (o_j < n))[:, None]
        if REVERSE:
            o_j = n - 1 - o_j
        o_e = (((o_channel + o_b) * n + o_j) * NP)[:, None] + o_n[None, :]
        b_e = tl.load(p_e + o_e, mask=m_j, other=0.0).to(tl.float64)
        if STATES:
            tl.store(p_out + o_e, b_s.to(p_out.dtype.element_ty), mask=m_j)
        b_s = tl.sum(b_at[:, None, :] * tl.trans(b_s)[:, :, None], axis=0) + b_e
    if not STATES:
        o_out = ((o_channel * n_chunks + o_q) * NP)[:, None] + o_n[None, :]
        tl.store(p_out + o_out, b_s.to(p_out.dtype.element_ty), mask=m_q[:, None])
