"""Stage 4 of the IIR engine: the recursion itself, one lane per superblock and channel, states in registers.

Each trip takes STEP samples, 16 or 8: a tile (lanes, STEP) is loaded with vector loads, split into columns, stepped
through, joined and stored. Only whole trips go through :func:`recur`, so its masks are per lane; what is left of a
length not divisible by 16 is done by a small kernel of its own.

:func:`recur` walks; what happens to a sample, and before and after a trip, are functions that a kernel gives to it.
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
def locate(n_samples, n_super, F, S: tl.constexpr, R: tl.constexpr):
    """(channel, batch row, first superblock, its first sample, samples, end) of a program with a lane for each of R.

    Channels run fastest over programs, so that a shared signal is read from DRAM once. ``end`` is the number of samples
    of the batch row's last superblock, 0 where another program has it.
    """
    n_tiles = (n_super + R - 1) // R
    rest = tl.program_id(0) // F
    tile = rest % n_tiles
    o_tile = tile.to(tl.int64) * (R * S)
    length = tl.minimum(n_samples - o_tile, R * S).to(tl.int32)
    end = tl.where(tile == n_tiles - 1, n_samples - (n_super - 1).to(tl.int64) * S, 0).to(tl.int32)
    return (tl.program_id(0) % F).to(tl.int64), (rest // n_tiles).to(tl.int64), tile * R, o_tile, length, end


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


@triton.jit
def recur(
    p_signals,
    b_states,
    b_c,
    given,
    length,
    SAMPLE: tl.constexpr,
    FORM: tl.constexpr,
    NPS: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    BEFORE: tl.constexpr = None,
    AFTER: tl.constexpr = None,
):
    """The recursion: every one of R lanes takes S samples, STEP at a time; the states after them.

    p_signals is a tuple of signals, the first sample of each: the lanes' samples follow one another, and in all
    ``length``, a multiple of STEP, count. b_states holds the states of each cascade, and what else goes from sample to
    sample. Functions do the rest:

    SAMPLE(b_u, b_states, b_c, PHASE, FORM) -> (y, b_states): one sample of each signal, number PHASE of a trip.
    BEFORE(k, (), b_states, m_trip, given, NPS, S, STEP, R) -> b_states: before the trip that begins with sample k of
    every lane, of which m_trip has samples left; ``given`` is what the kernel gives it, NPS the cascades' NP.
    AFTER(k, b_y, b_states, m_trip, given, NPS, S, STEP, R) -> b_states: after it, with the STEP outputs.

    Beyond its base, every address is a lane's number times a constant, which costs no registers.
    """
    lane = tl.arange(0, R)
    for k in range(0, S, STEP):
        m_trip = lane * S + k < length  # one register for all lanes' lengths
        if BEFORE is not None:
            b_states = BEFORE(k, (), b_states, m_trip, given, NPS, S, STEP, R)
        b_signals = ()
        for n in tl.static_range(len(p_signals)):
            b_signals = b_signals + (load_columns(p_signals[n] + k, lane * S, m_trip, R, STEP),)
        b_y = ()
        for i in tl.static_range(STEP):
            b_u = ()
            for n in tl.static_range(len(p_signals)):
                b_u = b_u + (b_signals[n][i],)
            b_yi, b_states = SAMPLE(b_u, b_states, b_c, i, FORM)
            b_y = b_y + (b_yi,)
        if AFTER is not None:
            b_states = AFTER(k, b_y, b_states, m_trip, given, NPS, S, STEP, R)
    return b_states


@triton.jit
def filter_sample(b_u, b_states, b_c, PHASE: tl.constexpr, FORM: tl.constexpr):
    """Of :func:`recur`: one cascade of FORM = (KIND, ORDER, POLES)."""
    b_y, b_s = forward_step(b_u[0], b_states[0], b_c, FORM[0], FORM[1], PHASE, FORM[2])
    return b_y, (b_s,)


@triton.jit
def store_output(
    k, b_y, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """Of :func:`recur`: outputs to p_y, and states at the end of the signal as :func:`store_finals`.

    given = (p_y, p_finals, end, m_last)
    """
    p_trip = given[0] + ((tl.arange(0, R) * S)[:, None] + tl.arange(0, STEP)[None, :])
    tl.store(p_trip + k, join_columns(b_y, R, STEP), mask=m_trip[:, None])
    return store_finals(k, b_y, b_states, m_trip, given, NPS, S, STEP, R)


@triton.jit
def store_finals(
    k, b_y, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """Of :func:`recur`: states of the first cascades to p_finals after sample ``end`` of the one lane in m_last.

    given = (..., p_finals, end, m_last, ...)
    """
    if k + STEP == given[2]:
        for n in tl.static_range(len(given[1])):
            if len(b_states[n]) > 0:
                store_final(given[1][n], b_states[n], given[3], R, len(b_states[n]), NPS[n])
    return b_states


@triton.jit
def store_borders(
    k, b_y, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """Of :func:`recur`: the cascade's states that enter each BORDER samples to p_border (lanes, S / BORDER, NP).

    given = (p_border, ..., BORDER)
    """
    NP: tl.constexpr = NPS[0]
    BORDER: tl.constexpr = given[4]
    if k % BORDER == 0:
        o_border = (tl.arange(0, R) * (S // BORDER * NP))[:, None] + tl.arange(0, NP)[None, :]
        store_states(given[0] + (k // BORDER * NP) + o_border, b_states[0], m_trip[:, None], R, len(b_states[0]), NP)
    return b_states


@triton.jit(do_not_specialize=["n_super", "B"], do_not_specialize_on_alignment=["signals", "fan"])
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
    signals,
    fan,
    x_stride_b,
    x_stride_s,
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

    x (B, signals, T), each for ``fan`` of the F = signals fan channels, one after the other; table (F, WIDTH); state
    (B, F, N) enters superblock 0 of each batch row, start (F, B, n_super, NP) the others. n_samples <= T, a multiple of
    16, is how far to go.

    TASK "output":  out (B, F, T) = y, and final (B, F, N) = state after sample n_samples - 1.
    TASK "ends":    out (F, B, n_super, NP) = end states from a zero start; the last superblock's are not valid.
    TASK "borders": out (F, B, ceil(n_samples / BORDER), NP) = state entering each BORDER samples; final as above.
    """
    F = signals * fan
    o_f, o_b, first, o_tile, length, end = locate(n_samples, n_super, F, S, R)
    o_s = (tl.program_id(0) % F // fan).to(tl.int64)
    lane = tl.arange(0, R)
    o_j = first + lane
    m_row = o_j < n_super
    o_row = o_b * F + o_f
    o_super = ((o_f * B + o_b) * n_super + first) * NP
    b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
    p_signals = (p_x + (o_b * x_stride_b + o_s * x_stride_s + o_tile),)
    FORM: tl.constexpr = (KIND, ORDER, POLES)
    if TASK == "ends":
        b_states = (states_at_rest(p_table, R, N),)
        b_states = recur(p_signals, b_states, b_c, (), length, filter_sample, FORM, (NP,), S, STEP, R)
        p_end = p_out + o_super + (lane[:, None] * NP + tl.arange(0, NP)[None, :])
        store_states(p_end, b_states[0], m_row[:, None], R, N, NP)
    else:
        b_states = (load_starts(p_start + o_super, p_state + o_row * N, m_row, o_j, R, N, NP),)
        finals = ((p_final + o_row * N,), end, o_j == n_super - 1)
        if TASK == "output":
            given = (p_out + (o_row * T + o_tile),) + finals
            recur(p_signals, b_states, b_c, given, length, filter_sample, FORM, (NP,), S, STEP, R, AFTER=store_output)
        else:
            o_border = (o_f * B + o_b) * ((n_samples + BORDER - 1) // BORDER) + o_tile // BORDER
            given = (p_out + o_border * NP,) + finals + (BORDER,)
            recur(
                p_signals,
                b_states,
                b_c,
                given,
                length,
                filter_sample,
                FORM,
                (NP,),
                S,
                STEP,
                R,
                store_borders,
                store_finals,
            )


@triton.jit(do_not_specialize=["T", "length", "B", "signals", "fan", "x_stride_b", "x_stride_s"])
def iir_forward_tail_kernel(
    p_x,
    p_table,
    p_state,
    p_y,
    p_final,
    T,
    length,
    B,
    signals,
    fan,
    x_stride_b,
    x_stride_s,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    R: tl.constexpr,
):
    """The last length < 16 samples of every row, sample by sample; one lane per (batch row, channel).

    x (B, signals, T), table and channels as in :func:`iir_forward_kernel`; state (B, F, N) before these samples
    -> their part of y (B, F, T), and final (B, F, N), which may be the same tensor as state.
    """
    F = signals * fan
    o_q = tl.program_id(0) * R + tl.arange(0, R)
    o_b = (o_q // F).to(tl.int64)
    o_f = (o_q % F).to(tl.int64)
    o_n = tl.arange(0, NP)
    m_q = o_q < B * F
    o_state = (o_q.to(tl.int64) * N)[:, None] + o_n[None, :]
    m_state = m_q[:, None] & (o_n < N)[None, :]
    p_xrow = p_x + o_b * x_stride_b + o_f // fan * x_stride_s + (T - length)
    p_yrow = p_y + o_q.to(tl.int64) * T + (T - length)
    b_s = load_states(p_state + o_state, m_state, R, N, NP)
    for i in range(0, length):
        b_c = load_phase(p_table, o_f, i, KIND, WIDTH, POLES)
        b_u = tl.load(p_xrow + i, mask=m_q, other=0.0)
        b_y, b_s = forward_step(b_u, b_s, b_c, KIND, ORDER, 0, 1)
        tl.store(p_yrow + i, b_y, mask=m_q)
    store_states(p_final + o_state, b_s, m_state, R, N, NP)
