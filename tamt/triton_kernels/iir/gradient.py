"""Last stage of the IIR engine's backward: how the loss depends on each channel's block matrices.

Over a block of L samples that starts from state s, ``y = H x + C s`` and ``s_end = A s + E x``. The gradients of these
matrices are sums of outer products over all blocks, that is matrix products with the blocks as inner dimension. The
gradient of H is needed along its diagonals only (it is Toeplitz); they are summed by the launcher.
"""

import triton
import triton.language as tl


@triton.jit(
    do_not_specialize=["n_blocks", "n_states_row", "B", "n_splits"], do_not_specialize_on_alignment=["signals", "fan"]
)
def iir_gradient_kernel(
    p_gy,
    p_x,
    p_state,
    p_adjoint,
    p_out,
    T,
    n_blocks,
    n_states_row,
    B,
    signals,
    fan,
    n_splits,
    x_stride_b,
    x_stride_s,
    NP: tl.constexpr,
    ND: tl.constexpr,
    L: tl.constexpr,
    BQ: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Partial sums over every n_splits-th group of BQ blocks, one channel per program.

    All float32. gy (B, F, T); x (B, signals, T), each for ``fan`` of the F = signals fan channels, one after the other;
    state (F, B, n_states_row, NP) entering and adjoint (F, B, n_blocks, NP) leaving each whole block, of which a batch
    row has n_blocks
    -> out (n_splits, F, (L + ND)^2): row-major x^T gy (L, L), x^T adjoint (L, ND), gy^T state (L, ND) and
    adjoint^T state (ND, ND), one after the other. ND >= NP; what lies beyond is 0.
    """
    F = signals * fan
    f = tl.program_id(0) % F
    o_s = (f // fan).to(tl.int64)
    split = tl.program_id(0) // F
    o_f = f.to(tl.int64)
    o_l = tl.arange(0, L)
    o_n = tl.arange(0, ND)
    m_n = (o_n < NP)[None, :]
    b_hh = tl.zeros([L, L], tl.float32)
    b_he = tl.zeros([L, ND], tl.float32)
    b_hc = tl.zeros([L, ND], tl.float32)
    b_ha = tl.zeros([ND, ND], tl.float32)
    for first in range(split * BQ, B * n_blocks, n_splits * BQ):
        o_q = first + tl.arange(0, BQ)
        o_b = (o_q // n_blocks).to(tl.int64)
        o_m = o_q % n_blocks
        m_q = (o_q < B * n_blocks)[:, None]
        p_g = p_gy + ((o_b * F + o_f) * T + o_m.to(tl.int64) * L)[:, None] + o_l[None, :]
        p_u = p_x + (o_b * x_stride_b + o_s * x_stride_s + o_m.to(tl.int64) * L)[:, None] + o_l[None, :]
        p_s = p_state + (((o_f * B + o_b) * n_states_row + o_m) * NP)[:, None] + o_n[None, :]
        p_l = p_adjoint + (((o_f * B + o_b) * n_blocks + o_m) * NP)[:, None] + o_n[None, :]
        # Each tile is loaded where it is first needed: with all of them from the start, registers spill on sm_80.
        b_g = tl.load(p_g, mask=m_q, other=0.0)
        b_u = tl.load(p_u, mask=m_q, other=0.0)
        b_hh = tl.dot(tl.trans(b_u), b_g, b_hh, input_precision=PRECISION)
        b_l = tl.load(p_l, mask=m_q & m_n, other=0.0)
        b_he = tl.dot(tl.trans(b_u), b_l, b_he, input_precision=PRECISION)
        b_s = tl.load(p_s, mask=m_q & m_n, other=0.0)
        b_hc = tl.dot(tl.trans(b_g), b_s, b_hc, input_precision=PRECISION)
        b_ha = tl.dot(tl.trans(b_l), b_s, b_ha, input_precision=PRECISION)
    p_part = p_out + (split.to(tl.int64) * F + o_f) * ((L + ND) * (L + ND))
    tl.store(p_part + o_l[:, None] * L + o_l[None, :], b_hh)
    tl.store(p_part + L * L + o_l[:, None] * ND + o_n[None, :], b_he)
    tl.store(p_part + L * (L + ND) + o_l[:, None] * ND + o_n[None, :], b_hc)
    tl.store(p_part + L * (L + 2 * ND) + o_n[:, None] * ND + o_n[None, :], b_ha)
