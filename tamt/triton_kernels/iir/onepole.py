"""Gradient of the coefficients of one-pole cascades, without the block matrices of the other kinds.

With l[t] and q[t] as in :func:`tamt.triton_kernels.iir.sections.adjoint_step`, that of the gain is the sum of
``x[t] q_1[t]``, and that of log p is ``G = sum_t sum_j l_j[t] conj(s_j[t-1])``. For the latter the adjoint cascade goes
on by one section, ``l_0[t] = conj(p) (l_0[t+1] + q_1[t])``. With ``w_j = n + 1 - j``, a solution of the recursion of
the derivatives of l_j by conj(log p) is ``f_j = w_j l_{j-1} - w_{j+1} l_j``; what it lacks of the one that is 0 at T is
a free adjoint response, which pairs with the states. With s[-1] the first and s[T-1] the final state that gives

    G = n conj(g) sum_t x[t] l_0[t+1] + sum_j f_j[0] conj(s_j[-1]) - sum_j f_j[T] conj(s_j[T-1]).

The same holds for every superblock alone. Of f, only l_0 need not be what the next superblock begins with: it comes
from zero at the end of each, which leaves ``n l_0 conj(s_1)`` at its start. All other terms between superblocks cancel.

The adjoint kernels, which have l and q in registers, sum ``x q_1`` and ``conj(g) x l_0``, the latter with
``l_0 conj(s_1)`` at the starts of all superblocks but the first; the kernel here adds up, and does the rest.
"""

import triton
import triton.language as tl

from .output import load_states, states_at_rest
from .sections import forward_step, load_phase


@triton.jit
def weighted(b_zeroth, b_l, b_s, m_b, ORDER: tl.constexpr):
    """(re, im) of ``sum_j f_j conj(s_j)``, in float64; zero where masked."""
    b_re = tl.where(m_b, 0.0, 0.0).to(tl.float64)
    b_im = b_re
    b_l = b_zeroth + b_l
    for j in tl.static_range(ORDER):
        f_re = (ORDER - j) * b_l[2 * j].to(tl.float64) - (ORDER - j - 1) * b_l[2 * j + 2].to(tl.float64)
        f_im = (ORDER - j) * b_l[2 * j + 1].to(tl.float64) - (ORDER - j - 1) * b_l[2 * j + 3].to(tl.float64)
        s_re = b_s[2 * j].to(tl.float64)
        s_im = b_s[2 * j + 1].to(tl.float64)
        b_re += f_re * s_re + f_im * s_im
        b_im += f_im * s_re - f_re * s_im
    return tl.where(m_b, b_re, 0.0), tl.where(m_b, b_im, 0.0)


@triton.jit(do_not_specialize=["n_parts", "T", "n_super", "B", "signals", "fan", "x_stride_b", "x_stride_s"])
def iir_onepole_gradient_kernel(
    p_part,
    p_first,
    p_gstate,
    p_gfinal,
    p_x,
    p_table,
    p_state,
    p_start,
    p_out,
    n_parts,
    T,
    n_super,
    B,
    signals,
    fan,
    x_stride_b,
    x_stride_s,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
):
    """out (F, 5) = the gradient of coef, one channel per program.

    part (n_parts, 4, F): sums of the adjoint kernels; first (B, F, 2) = l_0[0]; gstate (B, F, N) = l[0];
    gfinal (B, F, N) = l[T]; x, table, state and start as in the forward kernel. The final state is made again from the
    last superblock's start, where its gradient is not zero.
    """
    F = signals * fan
    f = tl.program_id(0)
    o_f = f.to(tl.int64)
    o_r = tl.arange(0, R)
    o_n = tl.arange(0, NP)
    b_gre = tl.zeros([R], tl.float64)
    b_gim = b_gre
    b_re = b_gre
    b_im = b_gre
    for first in range(0, n_parts, R):
        p_row = p_part + ((first + o_r).to(tl.int64) * 4 * F + f)
        m_row = first + o_r < n_parts
        b_gre += tl.load(p_row, mask=m_row, other=0.0).to(tl.float64)
        b_gim += tl.load(p_row + F, mask=m_row, other=0.0).to(tl.float64)
        b_re += ORDER * tl.load(p_row + 2 * F, mask=m_row, other=0.0).to(tl.float64)
        b_im += ORDER * tl.load(p_row + 3 * F, mask=m_row, other=0.0).to(tl.float64)
    begin = tl.maximum(n_super - 1, 0).to(T.dtype) * S
    for first in range(0, B, R):
        o_b = (first + o_r).to(tl.int64)
        m_b = o_b < B
        m_state = m_b[:, None] & (o_n < N)[None, :]
        o_q = o_b * F + o_f
        o_state = (o_q * N)[:, None] + o_n[None, :]
        o_pair = (o_q * 2)[:, None] + tl.arange(0, 2)[None, :]
        b_s = load_states(p_state + o_state, m_state, R, N, NP)
        b_l = load_states(p_gstate + o_state, m_state, R, N, NP)
        b_zeroth = load_states(p_first + o_pair, m_b[:, None], R, 2, 2)
        f_re, f_im = weighted(b_zeroth, b_l, b_s, m_b, ORDER)
        b_re += f_re
        b_im += f_im
        b_l = load_states(p_gfinal + o_state, m_state, R, N, NP)
        b_nonzero = tl.zeros([R], tl.int32)
        for n in tl.static_range(N):
            b_nonzero = tl.where(b_l[n] == 0.0, b_nonzero, 1)
        if tl.max(b_nonzero, axis=0) > 0:
            if n_super > 1:
                o_start = ((o_f * B + o_b) * n_super + (n_super - 1)) * NP
                b_s = load_states(p_start + o_start[:, None] + o_n[None, :], m_state, R, N, NP)
            p_signal = p_x + (o_b * x_stride_b + (f // fan).to(tl.int64) * x_stride_s)
            for t in range(begin, T):
                b_c = load_phase(p_table, o_f, t % 16, "onepole", WIDTH, POLES)
                b_u = tl.load(p_signal + t, mask=m_b, other=0.0)
                _y, b_s = forward_step(b_u, b_s, b_c, "onepole", ORDER, 0, 1)
            f_re, f_im = weighted(states_at_rest(p_table, R, 2), b_l, b_s, m_b, ORDER)
            b_re -= f_re
            b_im -= f_im
    b_phase = 6.283185307179586 * tl.sum(b_im, axis=0)
    b_row = (-tl.sum(b_re, axis=0), b_phase, b_phase, tl.sum(b_gre, axis=0), tl.sum(b_gim, axis=0))
    for i in tl.static_range(5):
        tl.store(p_out + o_f * 5 + i, b_row[i].to(p_out.dtype.element_ty))
