"""Stage 4 of the IIR engine: the recursion itself, one lane per superblock and channel, states in registers.

Each trip takes STEP samples, 16 or 8: a tile (lanes, STEP) is loaded with vector loads, split into columns, stepped
through, joined and stored. Only whole trips go through this loop, so its masks are per lane; what is left of a length
not divisible by 16 is done by a small kernel of its own.
"""

import triton
import triton.language as tl

from tamt.triton_kernels._common import join_columns, load_columns, select, split_columns

from .sections import forward_step, load_phase, load_row, vary


@triton.jit
def load_states(p_tile, m_tile, R: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """Tuple of N states from pointers (R, NP); zero where masked."""
    b_columns = split_columns(tl.load(p_tile, mask=m_tile, other=0.0), R, NP)
    b_s = ()
    for n in tl.static_range(N):
        b_s = b_s + (b_columns[n],)
    return b_s


@triton.jit
def store_states(p_tile, b_s, m_tile, R: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """N states to pointers (R, NP), the rest zeros."""
    b_columns = b_s
    for _ in tl.static_range(NP - N):
        b_columns = b_columns + (tl.zeros_like(b_s[0]),)
    tl.store(p_tile, join_columns(b_columns, R, NP), mask=m_tile)


@triton.jit
def locate(n_super, F, R: tl.constexpr):
    """(channel, batch row, group of R superblocks) of a program that has a lane for each superblock of the group.

    Channels run fastest over programs, so that a shared signal is read from DRAM once.
    """
    n_tiles = (n_super + R - 1) // R
    rest = tl.program_id(0) // F
    return (tl.program_id(0) % F).to(tl.int64), (rest // n_tiles).to(tl.int64), rest % n_tiles


@triton.jit
def states_at_rest(p_table, R: tl.constexpr, N: tl.constexpr):
    """N states of R lanes, zero, of the table's type."""
    b_s = ()
    for _ in tl.static_range(N):
        b_s = b_s + (tl.zeros([R], p_table.dtype.element_ty),)
    return b_s


@triton.jit
def load_starts(p_start, p_state, m_row, o_j, R: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """States that enter superblocks o_j: from p_state (N) the first of a batch row, from p_start (R, NP) the others."""
    p_tile = p_start + tl.arange(0, R)[:, None] * NP + tl.arange(0, NP)[None, :]
    b_s = load_states(p_tile, (m_row & (o_j > 0))[:, None], R, N, NP)
    return select(o_j > 0, b_s, load_row(p_state, 0, N), N)


@triton.jit
def store_final(p_final, b_s, m_last, R: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """The states of the one lane where m_last is set to p_final (N)."""
    o_n = tl.arange(0, NP)
    p_last = p_final + tl.zeros([R, 1], tl.int32) + o_n[None, :]
    store_states(p_last, b_s, m_last[:, None] & (o_n < N)[None, :], R, N, NP)


@triton.jit(do_not_specialize=["n_super", "B", "F"])
def iir_forward_kernel(
    p_x,
    p_table,
    p_state,
    p_start,
    p_out,
    p_final,
    T,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    x_stride_f,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    BORDER: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
    TASK: tl.constexpr,
):
    """R neighbouring superblocks of one batch row and channel per program, a lane each.

    x (B, T) with x_stride_f = 0, or (B, F, T); table (F, WIDTH); state (B, F, N) enters superblock 0 of each batch row,
    start (F, B, n_super, NP) the others. n_samples <= T, a multiple of 16, is how far to go.

    TASK "output":  out (B, F, T) = y, and final (B, F, N) = state after sample n_samples - 1.
    TASK "ends":    out (F, B, n_super, NP) = end states from a zero start; the last superblock's are not valid.
    TASK "borders": out (F, B, ceil(n_samples / BORDER), NP) = state entering each BORDER samples; final as above.

    Beyond its base, every address is a lane's number times a constant, which costs no registers.
    """
    o_f, o_b, tile = locate(n_super, F, R)
    o_tile = tile.to(tl.int64) * (R * S)
    lane = tl.arange(0, R)
    o_j = tile * R + lane
    o_i = tl.arange(0, STEP)
    o_n = tl.arange(0, NP)
    m_row = o_j < n_super
    length = tl.minimum(n_samples - o_tile, R * S).to(tl.int32)
    b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
    p_xtile = p_x + (o_b * x_stride_b + o_f * x_stride_f + o_tile)
    p_state += (o_b * F + o_f) * N
    o_super = ((o_f * B + o_b) * n_super + tile * R) * NP

    if TASK == "ends":
        b_s = states_at_rest(p_table, R, N)
    else:
        b_s = load_starts(p_start + o_super, p_state, m_row, o_j, R, N, NP)
    for k in range(0, S, STEP):
        m_trip = lane * S + k < length  # one register for all lanes' lengths
        if TASK == "borders":  # noqa: SIM102
            if k % BORDER == 0:
                o_border = (o_f * B + o_b) * ((n_samples + BORDER - 1) // BORDER) + (o_tile + k) // BORDER
                p_border = p_out + o_border * NP + ((lane * (S // BORDER * NP))[:, None] + o_n[None, :])
                store_states(p_border, b_s, m_trip[:, None], R, N, NP)
        b_u = load_columns(p_xtile + k, lane * S, m_trip, R, STEP)
        b_y = ()
        for i in tl.static_range(STEP):
            b_yi, b_s = forward_step(b_u[i], b_s, b_c, KIND, ORDER, i, POLES)
            b_y = b_y + (b_yi,)
        if TASK == "output":
            b_out = join_columns(b_y, R, STEP)
            p_y = p_out + ((o_b * F + o_f) * T + o_tile) + ((lane * S)[:, None] + o_i[None, :])
            tl.store(p_y + k, b_out, mask=m_trip[:, None])
        if TASK != "ends":  # noqa: SIM102
            if (tile == (n_super - 1) // R) & (k + STEP == n_samples - (n_super - 1) * S):
                store_final(p_final + (o_b * F + o_f) * N, b_s, o_j == n_super - 1, R, N, NP)
    if TASK == "ends":
        store_states(p_out + o_super + (lane[:, None] * NP + o_n[None, :]), b_s, m_row[:, None], R, N, NP)


@triton.jit(do_not_specialize=["T", "length", "B", "F", "x_stride_b", "x_stride_f"])
def iir_forward_tail_kernel(
    p_x,
    p_table,
    p_state,
    p_y,
    p_final,
    T,
    length,
    B,
    F,
    x_stride_b,
    x_stride_f,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    R: tl.constexpr,
):
    """The last length < 16 samples of every row, sample by sample; one lane per (batch row, channel).

    x (B, T) with x_stride_f = 0, or (B, F, T); state (B, F, N) before these samples -> their part of y (B, F, T), and
    final (B, F, N), which may be the same tensor as state.
    """
    o_q = tl.program_id(0) * R + tl.arange(0, R)
    o_b = (o_q // F).to(tl.int64)
    o_f = o_q % F
    o_n = tl.arange(0, NP)
    m_q = o_q < B * F
    o_state = (o_q.to(tl.int64) * N)[:, None] + o_n[None, :]
    m_state = m_q[:, None] & (o_n < N)[None, :]
    p_xrow = p_x + o_b * x_stride_b + o_f.to(tl.int64) * x_stride_f + (T - length)
    p_yrow = p_y + o_q.to(tl.int64) * T + (T - length)
    b_s = load_states(p_state + o_state, m_state, R, N, NP)
    for i in range(0, length):
        b_c = load_phase(p_table, o_f, i, KIND, WIDTH, POLES)
        b_u = tl.load(p_xrow + i, mask=m_q, other=0.0)
        b_y, b_s = forward_step(b_u, b_s, b_c, KIND, ORDER, 0, 1)
        tl.store(p_yrow + i, b_y, mask=m_q)
    store_states(p_final + o_state, b_s, m_state, R, N, NP)
