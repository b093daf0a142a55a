"""The kinds of filter: one sample of each forward, and one sample of its adjoint backward.

A kind is a real linear system per channel, ``s' = A s + B u``, ``y = C s + D u``, and these steps are all that tells
the kinds apart; every kernel of the engine is built around them. Registers come as tuples: N states, and the row of
the coefficient table (:mod:`tamt.triton_kernels.iir.tables`) that belongs to the lane's channel:

=========  =====================================================  =======================  ====
kind       table row                                              states                   N
=========  =====================================================  =======================  ====
onepole n  g_re, g_im, then re, im of POLES poles                 re, im of s_1 ... s_n    2n
allpole n  as onepole, then re, im of the feedback c_1 ... c_n    re, im of s_1 ... s_n    2n
biquad K   b, e1, e2, omega, k, a, r of each section              s1, s2 of each section   2K
modal K    q_re, q_im, g_re, g_im, d of each section              re, im of each section   2K
=========  =====================================================  =======================  ====

POLES is 1, or 16 slightly different float32 poles whose running product follows the powers of the exact pole;
sample PHASE of a trip of 16 uses pole PHASE. Modal sections have one pole ``p = 1 + q`` each, and what is rounded is q:
a slow pole, close to 1, keeps its digits.
"""

import triton
import triton.language as tl


@triton.jit
def forward_step(b_u, b_s, b_c, KIND: tl.constexpr, ORDER: tl.constexpr, PHASE: tl.constexpr, POLES: tl.constexpr):
    """(y[t], states after t) from u[t] and the states before t.

    onepole: ``s_0 = g u``, ``s_j' = p s_j + s_{j-1}'``, ``y = Re s_n'``.
    allpole: the same with ``s_0 = g u - sum_j c_j s_j``.
    biquad: ``y = b u + s1``, ``s1' = r s1 + omega s2 + e1 u``, ``s2' = r s2 - k s1 - a s2 + e2 u``; y is the next
    section's u.
    modal: ``s' = s + q s + g u``, ``y = d u + Re s'``; y is the next section's u. Three contracted operations per part
    of s', the first of them ``s + q s``.
    """
    b_new = ()
    if KIND == "biquad":
        b_y = b_u
        for j in tl.static_range(ORDER):
            b_in = b_y
            b_y = b_c[7 * j] * b_in + b_s[2 * j]
            b_1 = b_c[7 * j + 6] * b_s[2 * j] + b_c[7 * j + 3] * b_s[2 * j + 1] + b_c[7 * j + 1] * b_in
            b_2 = b_c[7 * j + 6] * b_s[2 * j + 1] - b_c[7 * j + 5] * b_s[2 * j + 1]
            b_2 = b_2 - b_c[7 * j + 4] * b_s[2 * j] + b_c[7 * j + 2] * b_in
            b_new = b_new + (b_1, b_2)
    elif KIND == "modal":
        b_y = b_u
        for j in tl.static_range(ORDER):
            b_in = b_y
            b_re = b_s[2 * j] + b_c[5 * j] * b_s[2 * j] - b_c[5 * j + 1] * b_s[2 * j + 1] + b_c[5 * j + 2] * b_in
            b_im = b_s[2 * j + 1] + b_c[5 * j] * b_s[2 * j + 1] + b_c[5 * j + 1] * b_s[2 * j] + b_c[5 * j + 3] * b_in
            b_y = b_c[5 * j + 4] * b_in + b_re
            b_new = b_new + (b_re, b_im)
    else:
        tl.static_assert(KIND == "onepole" or KIND == "allpole")
        p_re = b_c[2 + 2 * (PHASE % POLES)]
        p_im = b_c[3 + 2 * (PHASE % POLES)]
        b_y = b_c[0] * b_u
        b_im = b_c[1] * b_u
        if KIND == "allpole":
            for j in tl.static_range(ORDER):
                c_re = b_c[2 + 2 * POLES + 2 * j]
                c_im = b_c[3 + 2 * POLES + 2 * j]
                b_y = b_y - c_re * b_s[2 * j] + c_im * b_s[2 * j + 1]
                b_im = b_im - c_re * b_s[2 * j + 1] - c_im * b_s[2 * j]
        for j in tl.static_range(ORDER):
            b_y = b_y + p_re * b_s[2 * j] - p_im * b_s[2 * j + 1]
            b_im = b_im + p_re * b_s[2 * j + 1] + p_im * b_s[2 * j]
            b_new = b_new + (b_y, b_im)
    return b_y, b_new


@triton.jit
def adjoint_step(
    b_gy,
    b_gim,
    b_s,
    b_c,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    PHASE: tl.constexpr,
    POLES: tl.constexpr,
    FIRST: tl.constexpr,
):
    """(gradient of u[t], what :func:`adjoint_states` takes) from the gradient of y[t] and the adjoint states after t.

    With l' the gradient of the states after t: ``gu = B^T l' + D gy``, ``l = A^T l' + C^T gy``.

    onepole: ``q_n = l_n' + gy + i gim``, ``q_{j-1} = l_{j-1}' + q_j``, ``gu = Re(conj(g) q_1)``,
    ``l_j = conj(p) q_j``; gim is the gradient of Im s_n[t], zero but for envelopes.
    allpole: the same with ``l_j = conj(p) q_j - conj(c_j) q_1``.
    biquad, last section first: ``gu = b gy + e1 l1' + e2 l2'``, ``l1 = gy + r l1' - k l2'``,
    ``l2 = r l2' - a l2' + omega l1'``.
    modal, last section first: ``m = l' + gy``, ``gu = d gy + Re(conj(g) m)``, ``l = m + conj(q) m``.

    Between the samples of a run the first two carry q, which saves an addition per part: FIRST says that l comes in.
    The others carry l throughout.
    """
    b_new = ()
    if KIND == "biquad":
        b_gu = b_gy
        for j in tl.static_range(ORDER - 1, -1, -1):
            b_1 = b_s[2 * j]
            b_2 = b_s[2 * j + 1]
            b_l1 = b_c[7 * j + 6] * b_1 - b_c[7 * j + 4] * b_2 + b_gu
            b_l2 = b_c[7 * j + 6] * b_2 - b_c[7 * j + 5] * b_2 + b_c[7 * j + 3] * b_1
            b_gu = b_c[7 * j] * b_gu + b_c[7 * j + 1] * b_1 + b_c[7 * j + 2] * b_2
            b_new = (b_l1, b_l2) + b_new
    elif KIND == "modal":
        b_gu = b_gy
        for j in tl.static_range(ORDER - 1, -1, -1):
            b_re = b_s[2 * j] + b_gu
            b_im = b_s[2 * j + 1]
            b_gu = b_c[5 * j + 4] * b_gu + b_c[5 * j + 2] * b_re + b_c[5 * j + 3] * b_im
            b_lre = b_re + b_c[5 * j] * b_re + b_c[5 * j + 1] * b_im
            b_lim = b_im + b_c[5 * j] * b_im - b_c[5 * j + 1] * b_re
            b_new = (b_lre, b_lim) + b_new
    else:
        tl.static_assert(KIND == "onepole" or KIND == "allpole")
        # The pole that takes q one sample back is that of the sample after.
        p_re = b_c[2 + 2 * ((PHASE + 1) % POLES)]
        p_im = b_c[3 + 2 * ((PHASE + 1) % POLES)]
        b_re = b_gy
        b_im = b_gim
        for j in tl.static_range(ORDER - 1, -1, -1):
            if FIRST:
                b_re = b_re + b_s[2 * j]
                b_im = b_im + b_s[2 * j + 1]
            else:
                if KIND == "allpole":
                    c_re = b_c[2 + 2 * POLES + 2 * j]
                    c_im = b_c[3 + 2 * POLES + 2 * j]
                    b_re = b_re - c_re * b_s[0] - c_im * b_s[1]
                    b_im = b_im - c_re * b_s[1] + c_im * b_s[0]
                b_re = b_re + p_re * b_s[2 * j] + p_im * b_s[2 * j + 1]
                b_im = b_im + p_re * b_s[2 * j + 1] - p_im * b_s[2 * j]
            b_new = (b_re, b_im) + b_new
        b_gu = b_c[0] * b_re + b_c[1] * b_im
    return b_gu, b_new


@triton.jit
def adjoint_states(b_s, b_c, KIND: tl.constexpr, ORDER: tl.constexpr, PHASE: tl.constexpr, POLES: tl.constexpr):
    """The adjoint states before sample t from what :func:`adjoint_step` of that sample has left."""
    if KIND == "biquad" or KIND == "modal":
        return b_s
    p_re = b_c[2 + 2 * (PHASE % POLES)]
    p_im = b_c[3 + 2 * (PHASE % POLES)]
    b_new = ()
    for j in tl.static_range(ORDER):
        l_re = p_re * b_s[2 * j] + p_im * b_s[2 * j + 1]
        l_im = p_re * b_s[2 * j + 1] - p_im * b_s[2 * j]
        if KIND == "allpole":
            c_re = b_c[2 + 2 * POLES + 2 * j]
            c_im = b_c[3 + 2 * POLES + 2 * j]
            l_re = l_re - c_re * b_s[0] - c_im * b_s[1]
            l_im = l_im - c_re * b_s[1] + c_im * b_s[0]
        b_new = b_new + (l_re, l_im)
    return b_new


@triton.jit
def correlate_step(b_u, b_s, b_zeroth, b_sum, b_c, PHASE: tl.constexpr, POLES: tl.constexpr):
    """(l_0 before t, sums) of :mod:`tamt.triton_kernels.iir.onepole` from l_0 after t and the sums over later samples.

    b_s is what :func:`adjoint_step` of this sample has left, which begins with q_1. The sums are those of ``u q_1`` and
    of ``u l_0``, l_0 after t, and ``l_0 = conj(p) (l_0' + q_1)``.
    """
    p_re = b_c[2 + 2 * (PHASE % POLES)]
    p_im = b_c[3 + 2 * (PHASE % POLES)]
    b_new = (
        b_sum[0] + b_u * b_s[0],
        b_sum[1] + b_u * b_s[1],
        b_sum[2] + b_u * b_zeroth[0],
        b_sum[3] + b_u * b_zeroth[1],
    )
    b_re = b_zeroth[0] + b_s[0]
    b_im = b_zeroth[1] + b_s[1]
    return (p_re * b_re + p_im * b_im, p_re * b_im - p_im * b_re), b_new


@triton.jit
def vary(o_f, F, R: tl.constexpr, PER_LANE: tl.constexpr):
    """o_f, which is below F, for each of R lanes if PER_LANE: in a way that no compiler sees to be the same for all.

    A row common to the lanes goes to uniform registers on NVIDIA, which saves a third of the others. AMD's compiler
    runs out of scalar registers and spills; there every lane has to have its own.
    """
    return tl.minimum(o_f, F - 1 + tl.arange(0, R)) if PER_LANE else o_f


@triton.jit
def load_row(p_table, o_f, WIDTH: tl.constexpr):
    """The table row of channel o_f (a scalar or one channel per lane) as a tuple of WIDTH values."""
    b_c = ()
    for i in tl.static_range(WIDTH):
        b_c = b_c + (tl.load(p_table + o_f * WIDTH + i),)
    return b_c


@triton.jit
def load_phase(p_table, o_f, i, KIND: tl.constexpr, WIDTH: tl.constexpr, POLES: tl.constexpr):
    """As :func:`load_row`, but with the pole of sample i of a trip alone: a row for steps with PHASE 0 of 1 pole."""
    if KIND == "biquad" or POLES == 1:
        b_c = load_row(p_table, o_f, WIDTH)
    else:
        p_row = p_table + o_f * WIDTH
        b_c = (tl.load(p_row), tl.load(p_row + 1), tl.load(p_row + 2 + 2 * i), tl.load(p_row + 3 + 2 * i))
        for j in tl.static_range(WIDTH - 2 - 2 * POLES):
            b_c = b_c + (tl.load(p_row + 2 + 2 * POLES + j),)
    return b_c
