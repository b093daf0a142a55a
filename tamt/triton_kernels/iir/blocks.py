"""From the gradients of a channel's block matrices to that of its coefficients, in one launch.

The matrices (:class:`tamt.shared.iir.Blocks`) are what a filter does in 64 samples from each unit state and from a
unit impulse. A program runs these with the tangents of some coefficients beside them, in float64, a lane for each pair,
and adds up what the tangents change, times the gradients. As operations of torch it is some two hundred launches.

One-pole cascades have a kernel of their own (onepole.py).
"""

import triton
import triton.language as tl


@triton.jit
def at_column(b_column, i, b_value):
    """``b_value`` in lanes whose coefficient is number i, else 0."""
    return tl.where(b_column == i, b_value, 0.0).to(tl.float64)


@triton.jit
def load_pole(p_row, first, b_column):
    """(re, im) of the pole whose decay and frequency (high, low) begin at ``first``, then of its tangent."""
    b_decay = tl.load(p_row + first).to(tl.float64)
    b_cycles = tl.load(p_row + first + 1).to(tl.float64) + tl.load(p_row + first + 2).to(tl.float64)
    b_angle = 6.283185307179586 * (b_cycles - tl.floor(b_cycles + 0.5))
    b_re = tl.exp(-b_decay) * tl.cos(b_angle)
    b_im = tl.exp(-b_decay) * tl.sin(b_angle)
    b_turn = 6.283185307179586 * tl.where((b_column == first + 1) | (b_column == first + 2), 1.0, 0.0).to(tl.float64)
    t_re = at_column(b_column, first, -b_re) - b_turn * b_im
    t_im = at_column(b_column, first, -b_im) + b_turn * b_re
    return b_re, b_im, t_re, t_im


@triton.jit
def load_duals(p_row, b_column, KIND: tl.constexpr, ORDER: tl.constexpr):
    """Coefficients as :func:`dual_step` takes them, each followed by its tangent."""
    b_c = ()
    if KIND == "modal":
        for j in tl.static_range(ORDER):
            b_re, b_im, t_re, t_im = load_pole(p_row, 6 * j, b_column)
            b_c = b_c + (b_re, t_re, b_im, t_im)
            for i in tl.static_range(3, 6):
                b_c = b_c + (tl.load(p_row + 6 * j + i).to(tl.float64), at_column(b_column, 6 * j + i, 1.0))
    elif KIND == "biquad":
        for i in tl.static_range(7 * ORDER):
            b_c = b_c + (tl.load(p_row + i).to(tl.float64), at_column(b_column, i, 1.0))
    else:
        tl.static_assert(KIND == "allpole")
        b_re, b_im, t_re, t_im = load_pole(p_row, 0, b_column)
        b_c = (b_re, t_re, b_im, t_im)
        for i in tl.static_range(3, 5 + 2 * ORDER):
            b_c = b_c + (tl.load(p_row + i).to(tl.float64), at_column(b_column, i, 1.0))
    return b_c


@triton.jit
def dual_step(b_u, b_s, b_t, b_c, KIND: tl.constexpr, ORDER: tl.constexpr):
    """(tangent of y[t], states after t, their tangents) of :func:`tamt.triton_kernels.iir.sections.forward_step`."""
    b_state = ()
    b_tangent = ()
    b_y = b_u
    t_y = tl.zeros_like(b_u)
    if KIND == "modal":
        for j in tl.static_range(ORDER):
            p_re = b_c[10 * j]
            p_im = b_c[10 * j + 2]
            s_re = b_s[2 * j]
            s_im = b_s[2 * j + 1]
            b_re = p_re * s_re - p_im * s_im + b_c[10 * j + 4] * b_y
            b_im = p_re * s_im + p_im * s_re + b_c[10 * j + 6] * b_y
            t_re = p_re * b_t[2 * j] - p_im * b_t[2 * j + 1] + b_c[10 * j + 4] * t_y
            t_re += b_c[10 * j + 1] * s_re - b_c[10 * j + 3] * s_im + b_c[10 * j + 5] * b_y
            t_im = p_re * b_t[2 * j + 1] + p_im * b_t[2 * j] + b_c[10 * j + 6] * t_y
            t_im += b_c[10 * j + 1] * s_im + b_c[10 * j + 3] * s_re + b_c[10 * j + 7] * b_y
            t_y = b_c[10 * j + 8] * t_y + b_c[10 * j + 9] * b_y + t_re
            b_y = b_c[10 * j + 8] * b_y + b_re
            b_state = b_state + (b_re, b_im)
            b_tangent = b_tangent + (t_re, t_im)
    elif KIND == "biquad":
        for j in tl.static_range(ORDER):
            s_1 = b_s[2 * j]
            s_2 = b_s[2 * j + 1]
            t_1 = b_t[2 * j]
            t_2 = b_t[2 * j + 1]
            # Of 14 j: b, e1, e2, omega, k, a, r, each with its tangent.
            b_1 = b_c[14 * j + 12] * s_1 + b_c[14 * j + 6] * s_2 + b_c[14 * j + 2] * b_y
            b_2 = (b_c[14 * j + 12] - b_c[14 * j + 10]) * s_2 - b_c[14 * j + 8] * s_1 + b_c[14 * j + 4] * b_y
            d_1 = b_c[14 * j + 12] * t_1 + b_c[14 * j + 6] * t_2 + b_c[14 * j + 2] * t_y
            d_1 += b_c[14 * j + 13] * s_1 + b_c[14 * j + 7] * s_2 + b_c[14 * j + 3] * b_y
            d_2 = (b_c[14 * j + 12] - b_c[14 * j + 10]) * t_2 - b_c[14 * j + 8] * t_1 + b_c[14 * j + 4] * t_y
            d_2 += (b_c[14 * j + 13] - b_c[14 * j + 11]) * s_2 - b_c[14 * j + 9] * s_1 + b_c[14 * j + 5] * b_y
            t_y = b_c[14 * j] * t_y + b_c[14 * j + 1] * b_y + t_1
            b_y = b_c[14 * j] * b_y + s_1
            b_state = b_state + (b_1, b_2)
            b_tangent = b_tangent + (d_1, d_2)
    else:
        b_re = b_c[4] * b_u
        b_im = b_c[6] * b_u
        t_re = b_c[5] * b_u
        t_im = b_c[7] * b_u
        for j in tl.static_range(ORDER):
            f_re = b_c[8 + 4 * j]
            f_im = b_c[10 + 4 * j]
            b_re -= f_re * b_s[2 * j] - f_im * b_s[2 * j + 1]
            b_im -= f_re * b_s[2 * j + 1] + f_im * b_s[2 * j]
            t_re -= f_re * b_t[2 * j] - f_im * b_t[2 * j + 1]
            t_re -= b_c[9 + 4 * j] * b_s[2 * j] - b_c[11 + 4 * j] * b_s[2 * j + 1]
            t_im -= f_re * b_t[2 * j + 1] + f_im * b_t[2 * j]
            t_im -= b_c[9 + 4 * j] * b_s[2 * j + 1] + b_c[11 + 4 * j] * b_s[2 * j]
        for j in tl.static_range(ORDER):
            b_re += b_c[0] * b_s[2 * j] - b_c[2] * b_s[2 * j + 1]
            b_im += b_c[0] * b_s[2 * j + 1] + b_c[2] * b_s[2 * j]
            t_re += b_c[0] * b_t[2 * j] - b_c[2] * b_t[2 * j + 1] + b_c[1] * b_s[2 * j] - b_c[3] * b_s[2 * j + 1]
            t_im += b_c[0] * b_t[2 * j + 1] + b_c[2] * b_t[2 * j] + b_c[1] * b_s[2 * j + 1] + b_c[3] * b_s[2 * j]
            b_state = b_state + (b_re, b_im)
            b_tangent = b_tangent + (t_re, t_im)
        t_y = t_re
    return t_y, b_state, b_tangent


@triton.jit(do_not_specialize=["P"])
def iir_blocks_vjp_kernel(
    p_coef,
    p_impulse,
    p_output,
    p_input,
    p_transitions,
    p_out,
    P,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    L: tl.constexpr,
    POWERS: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out (F, P) = the gradient of coef (F, P), COLUMNS coefficients of one channel per program.

    impulse (F, L), output (F, L, N), input (F, N, L) and transitions (F, POWERS, N, N) are the gradients of the
    matrices of that name. Of the LANES > N of a coefficient, lane l < N starts from unit state l, lane N gets the
    impulse.
    """
    n_tiles = (P + COLUMNS - 1) // COLUMNS
    o_f = (tl.program_id(0) // n_tiles).to(tl.int64)
    first = tl.program_id(0) % n_tiles * COLUMNS
    lane = tl.arange(0, COLUMNS * LANES) % LANES
    b_column = first + tl.arange(0, COLUMNS * LANES) // LANES
    m_state = lane < N
    m_impulse = lane == N
    b_c = load_duals(p_coef + o_f * P, b_column, KIND, ORDER)
    b_s = ()
    b_t = ()
    for n in tl.static_range(N):
        b_s = b_s + (tl.where(lane == n, 1.0, 0.0).to(tl.float64),)
        b_t = b_t + (tl.zeros([COLUMNS * LANES], tl.float64),)
    b_u = tl.where(m_impulse, 1.0, 0.0).to(tl.float64)
    b_sum = tl.zeros([COLUMNS * LANES], tl.float64)
    power = 0
    for t in range(0, L):
        t_y, b_s, b_t = dual_step(b_u, b_s, b_t, b_c, KIND, ORDER)
        b_u = tl.zeros([COLUMNS * LANES], tl.float64)
        b_of_y = tl.load(p_output + (o_f * L + t) * N + lane, mask=m_state, other=0.0).to(tl.float64)
        b_of_y += tl.where(m_impulse, tl.load(p_impulse + o_f * L + t).to(tl.float64), 0.0)
        b_sum += b_of_y * t_y
        is_power = ((t + 1) & t) == 0
        for n in tl.static_range(N):
            b_of_s = tl.where(m_impulse, tl.load(p_input + (o_f * N + n) * L + (L - 1 - t)).to(tl.float64), 0.0)
            p_row = p_transitions + ((o_f * POWERS + power) * N + n) * N
            b_of_s += tl.load(p_row + lane, mask=m_state & is_power, other=0.0).to(tl.float64)
            b_sum += b_of_s * b_t[n]
        power += tl.where(is_power, 1, 0)
    o_c = first + tl.arange(0, COLUMNS)
    b_out = tl.sum(tl.reshape(b_sum, [COLUMNS, LANES]), axis=1)
    tl.store(p_out + o_f * P + o_c, b_out.to(p_out.dtype.element_ty), mask=o_c < P)
