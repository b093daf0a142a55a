"""The recursion of the adjoint system, backwards in time: gradients of the signal and of the first state.

With ``l[t]`` the gradient of the states before sample t, ``l[t] = A^T l[t + 1] + C^T gy[t]`` and
``gx[t] = B^T l[t + 1] + D gy[t]``; ``l[T]`` is the gradient of the final state and ``l[0]`` that of the first.
Superblocks and trips are those of the forward recursion (output.py), taken from their ends.
"""

import triton
import triton.language as tl

from tamt.triton_kernels._common import join_columns, load_columns, select, split_columns

from .output import load_states, states_at_rest, store_states
from .sections import adjoint_states, adjoint_step, correlate_step, load_phase, load_row, vary


@triton.jit
def locate_group(program, signals, n_groups):
    """(signal, group of its channels, the rest of the program's number); groups run fastest, then signals."""
    one = program % (signals * n_groups)
    return one // n_groups, one % n_groups, program // (signals * n_groups)


@triton.jit
def locate_lanes(
    program, n_samples, n_super, signals, fan, S: tl.constexpr, R: tl.constexpr, BF: tl.constexpr, BR: tl.constexpr
):
    """What :func:`adjoint_tile` works on: (signal, group, tile, batch row, first sample), and for each of R lanes
    (superblock of the tile, channel, whether there is that one, samples)."""
    n_groups = (fan + BF - 1) // BF
    n_tiles = (n_super + BR - 1) // BR
    signal, group, rest = locate_group(program, signals, n_groups)
    tile = rest % n_tiles
    o_tile = tile.to(tl.int64) * (BR * S)
    lane = tl.arange(0, R) // BF
    o_c = group * BF + tl.arange(0, R) % BF
    o_f = (signal * fan + tl.minimum(o_c, fan - 1)).to(tl.int64)
    m_f = o_c < fan
    b_length = tl.where(m_f, tl.minimum(tl.maximum(n_samples - o_tile - lane * S, 0), S), 0).to(tl.int32)
    return signal, group, tile, (rest // n_tiles).to(tl.int64), o_tile, lane, o_f, m_f, b_length


@triton.jit
def load_gradient(k, m_trip, given, FORM: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr):
    """Of :func:`adjoint_tile`: from a tensor; given = (pointer to the first sample, lanes' offsets)."""
    return load_columns(given[0] + k, given[1], m_trip, R, STEP)


@triton.jit
def sum_channels(b_gx, BR: tl.constexpr, BF: tl.constexpr, STEP: tl.constexpr):
    """Tile (BR, STEP) of sums over BF neighbouring lanes, from a tuple of STEP columns (BR BF,).

    The samples of a group of lanes change places with its channels first: a sum between lanes would take three shuffles
    for each sample of eight channels.
    """
    b_tile = tl.permute(tl.reshape(join_columns(b_gx, BR * BF, STEP), [BR, BF, STEP]), (0, 2, 1))
    b_channels = split_columns(tl.reshape(b_tile, [BR * STEP, BF]), BR * STEP, BF)
    b_sum = b_channels[0]
    for c in tl.static_range(1, BF):
        b_sum += b_channels[c]
    return tl.reshape(b_sum, [BR, STEP])


@triton.jit
def store_sums(p_part, b_sum, b_zeroth, b_entering, b_c, o_c, m_c, F, BR: tl.constexpr, BF: tl.constexpr):
    """What BR BF lanes add to the sums (4, F) of :mod:`tamt.triton_kernels.iir.onepole`, for channels o_c (BF)."""
    b_re = b_c[0] * b_sum[2] + b_c[1] * b_sum[3] + b_zeroth[0] * b_entering[0] + b_zeroth[1] * b_entering[1]
    b_im = b_c[0] * b_sum[3] - b_c[1] * b_sum[2] + b_zeroth[1] * b_entering[0] - b_zeroth[0] * b_entering[1]
    b_all = (b_sum[0], b_sum[1], b_re, b_im)
    for i in tl.static_range(4):
        tl.store(p_part + i * F + o_c, tl.sum(tl.reshape(b_all[i], [BR, BF]), axis=0), mask=m_c)


@triton.jit
def adjoint_tile(
    place,
    b_c,
    given,
    p_table,
    p_gfinal,
    p_start,
    p_out,
    p_gstate,
    p_border,
    p_x,
    p_entering,
    p_zeroth,
    p_first,
    p_part,
    T,
    n_samples,
    n_super,
    B,
    signals,
    fan,
    x_stride_b,
    x_stride_s,
    GRADIENT: tl.constexpr,
    FORM: tl.constexpr,
    ANALYTIC: tl.constexpr,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    BORDER: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    BF: tl.constexpr,
    TASK: tl.constexpr,
    GRAD_X: tl.constexpr,
    BORDERS: tl.constexpr,
    SUMS: tl.constexpr,
):
    """What a program of :func:`iir_adjoint_kernel` does, at a ``place`` of :func:`locate_lanes`.

    GRADIENT(k, m_trip, given, FORM, STEP, R) gives the gradients of the outputs of a trip, that from sample k of every
    lane, as STEP columns (R,). ANALYTIC: and after these as many of the imaginary parts.
    """
    F = signals * fan
    BR: tl.constexpr = R // BF
    n_tiles = (n_super + BR - 1) // BR
    signal, group, tile, o_b, o_tile, lane, o_f, m_f, b_length = place
    o_j = tile * BR + lane
    o_i = tl.arange(0, STEP)
    o_n = tl.arange(0, NP)
    m_row = (o_j < n_super) & m_f
    o_super = (((o_f * B + o_b) * n_super + o_j) * NP)[:, None] + o_n[None, :]
    o_state = ((o_b * F + o_f) * N)[:, None] + o_n[None, :]
    m_last = (m_row & (o_j == n_super - 1))[:, None] & (o_n < N)[None, :]
    last_length = (n_samples - (n_super - 1).to(tl.int64) * S).to(tl.int32)

    if TASK == "ends":
        b_s = ()
        for _ in tl.static_range(N):
            b_s = b_s + (tl.zeros([R], p_table.dtype.element_ty),)
    else:
        b_s = load_states(p_start + o_super, (m_row & (o_j < n_super - 1))[:, None], R, N, NP)
    b_zeroth = states_at_rest(p_table, R, 2)
    b_sum = states_at_rest(p_table, R, 4)
    o_pair = ((o_b * F + o_f) * 2)[:, None] + tl.arange(0, 2)[None, :]
    for trip in range(0, S, STEP):
        k = S - STEP - trip
        m_trip = k < b_length
        if (tile == n_tiles - 1) & (k + STEP == last_length):  # the last superblock begins here, from gfinal
            b_s = select(o_j < n_super - 1, b_s, load_states(p_gfinal + o_state, m_last, R, N, NP), N)
            if SUMS:  # noqa: SIM102
                if n_samples < T:
                    b_tail = load_states(p_zeroth + o_pair, (m_row & (o_j == n_super - 1))[:, None], R, 2, 2)
                    b_zeroth = select(o_j < n_super - 1, b_zeroth, b_tail, 2)
        if BORDERS:  # noqa: SIM102
            if (k + STEP) % BORDER == 0:
                o_border = ((o_f * B + o_b) * (n_samples // BORDER) + (o_tile + lane * S + k) // BORDER) * NP
                p_block = p_border + o_border[:, None] + o_n[None, :]
                store_states(p_block, b_s, m_trip[:, None], R, N, NP)
        b_g = GRADIENT(k, m_trip, given, FORM, STEP, R)
        if SUMS:
            p_xtile = p_x + (o_b * x_stride_b + signal.to(tl.int64) * x_stride_s + o_tile)
            b_u = load_columns(p_xtile + k, lane * S, m_trip, R, STEP)
        b_gx = ()
        for i in tl.static_range(STEP - 1, -1, -1):
            b_gim = b_g[STEP + i] if ANALYTIC else tl.zeros_like(b_g[i])
            b_gxi, b_s = adjoint_step(b_g[i], b_gim, b_s, b_c, KIND, ORDER, i, POLES, i == STEP - 1)
            if SUMS:
                b_zeroth, b_sum = correlate_step(b_u[i], b_s, b_zeroth, b_sum, b_c, i, POLES)
            b_gx = (b_gxi,) + b_gx
        b_s = adjoint_states(b_s, b_c, KIND, ORDER, 0, POLES)
        if TASK == "output" and GRAD_X:
            o_r = tl.arange(0, BR)
            p_gx = p_out + (((group.to(tl.int64) * B + o_b) * signals + signal) * T + o_tile)
            p_gx += (o_r * S)[:, None] + o_i[None, :]
            if BF == 1:
                tl.store(p_gx + k, join_columns(b_gx, R, STEP), mask=m_trip[:, None])
            else:
                m_sum = (k < n_samples - o_tile - o_r * S)[:, None]
                tl.store(p_gx + k, sum_channels(b_gx, BR, BF, STEP), mask=m_sum)
    if TASK == "ends":
        store_states(p_out + o_super, b_s, m_row[:, None], R, N, NP)
    elif tile == 0:
        store_states(p_gstate + o_state, b_s, (m_row & (o_j == 0))[:, None] & (o_n < N)[None, :], R, N, NP)
    if SUMS:
        p_one = p_entering + (((o_f * B + o_b) * n_super + o_j) * NP)[:, None]
        b_one = load_states(p_one + tl.arange(0, 2)[None, :], (m_row & (o_j > 0))[:, None], R, 2, 2)
        o_part = ((o_b * n_tiles + tile) * 4) * F
        o_c = group * BF + tl.arange(0, BF)
        store_sums(p_part + o_part, b_sum, b_zeroth, b_one, b_c, signal * fan + o_c, o_c < fan, F, BR, BF)
        store_states(p_first + o_pair, b_zeroth, (m_row & (o_j == 0))[:, None], R, 2, 2)


@triton.jit(do_not_specialize=["n_super", "B"], do_not_specialize_on_alignment=["signals", "fan"])
def iir_adjoint_kernel(
    p_gy,
    p_table,
    p_gfinal,
    p_start,
    p_out,
    p_gstate,
    p_border,
    p_x,
    p_entering,
    p_zeroth,
    p_first,
    p_part,
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
    BF: tl.constexpr,
    PER_LANE: tl.constexpr,
    TASK: tl.constexpr,
    GRAD_X: tl.constexpr,
    BORDERS: tl.constexpr,
    SUMS: tl.constexpr,
):
    """BF channels of R / BF neighbouring superblocks of one batch row per program, a lane each; channels run fastest.

    The F = signals fan channels are those of the forward kernel: the BF of a program filter one signal.

    gy (B, F, T), of which the first n_samples, a multiple of 16, count; table (F, WIDTH); gfinal (B, F, N) is
    l[n_samples].

    TASK "ends":    out (F, B, n_super, NP) = l at the start of each superblock, from zero at its end; in the last
                    superblock from gfinal.
    TASK "output":  start (F, B, n_super, NP) is l at the end of each superblock but the last; gstate (B, F, N) = l[0].
        GRAD_X:     out (ceil(fan / BF), B, signals, T) = gx summed over each group of BF channels.
        BORDERS:    border (F, B, n_samples // BORDER, NP) = l at the end of each block of BORDER samples.
        SUMS:       part (B, tiles, 4, F), the sums of :mod:`tamt.triton_kernels.iir.onepole`, and first (B, F, 2) =
                    l_0[0]; from x as in the forward kernel, entering (F, B, n_super, NP) = states that enter each
                    superblock but the first, and, if n_samples < T, zeroth (B, F, 2) = l_0[n_samples].

    Lanes of channels past the signal's last work on the last one, masked: they read zeros and store nothing.
    """
    F = signals * fan
    BR: tl.constexpr = R // BF
    place = locate_lanes(tl.program_id(0), n_samples, n_super, signals, fan, S, R, BF, BR)
    o_b, o_tile, lane, o_f = place[3], place[4], place[5], place[6]
    b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
    adjoint_tile(
        place,
        b_c,
        (p_gy + (o_b * F * T + o_tile), o_f * T + lane * S),
        p_table,
        p_gfinal,
        p_start,
        p_out,
        p_gstate,
        p_border,
        p_x,
        p_entering,
        p_zeroth,
        p_first,
        p_part,
        T,
        n_samples,
        n_super,
        B,
        signals,
        fan,
        x_stride_b,
        x_stride_s,
        load_gradient,
        None,
        False,
        KIND,
        ORDER,
        N,
        NP,
        POLES,
        S,
        BORDER,
        STEP,
        R,
        BF,
        TASK,
        GRAD_X,
        BORDERS,
        SUMS,
    )


@triton.jit(do_not_specialize=["T", "length", "B", "signals", "fan", "x_stride_b", "x_stride_s"])
def iir_adjoint_tail_kernel(
    p_gy,
    p_table,
    p_gfinal,
    p_out,
    p_gstate,
    p_x,
    p_zeroth,
    p_part,
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
    BF: tl.constexpr,
    GRAD_X: tl.constexpr,
    SUMS: tl.constexpr,
):
    """The last length < 16 samples of every row, sample by sample; BF channels of R / BF batch rows per program.

    gy (B, F, T), gfinal (B, F, N) = l[T] -> gstate (B, F, N) = l[T - length], and if GRAD_X these samples of out as
    in :func:`iir_adjoint_kernel`; if SUMS, part (ceil(B BF / R), 4, F) and zeroth (B, F, 2) = l_0[T - length].
    """
    F = signals * fan
    n_groups = (fan + BF - 1) // BF
    BR: tl.constexpr = R // BF
    signal, group, tile = locate_group(tl.program_id(0), signals, n_groups)
    first = tile * BR
    o_b = first + tl.arange(0, R) // BF
    o_c = group * BF + tl.arange(0, R) % BF
    o_f = signal * fan + tl.minimum(o_c, fan - 1)
    o_n = tl.arange(0, NP)
    m_lane = (o_c < fan) & (o_b < B)
    o_q = o_b.to(tl.int64) * F + o_f
    o_state = (o_q * N)[:, None] + o_n[None, :]
    m_state = m_lane[:, None] & (o_n < N)[None, :]
    p_grow = p_gy + o_q * T + (T - length)
    b_s = load_states(p_gfinal + o_state, m_state, R, N, NP)
    b_zeroth = states_at_rest(p_table, R, 2)
    b_sum = states_at_rest(p_table, R, 4)
    for back in range(0, length):
        i = length - 1 - back
        b_c = load_phase(p_table, o_f, i, KIND, WIDTH, POLES)
        b_g = tl.load(p_grow + i, mask=m_lane, other=0.0)
        b_gx, b_s = adjoint_step(b_g, tl.zeros_like(b_g), b_s, b_c, KIND, ORDER, 0, 1, True)
        if SUMS:
            p_u = p_x + (o_b.to(tl.int64) * x_stride_b + signal.to(tl.int64) * x_stride_s + (T - length))
            b_u = tl.load(p_u + i, mask=m_lane, other=0.0)
            b_zeroth, b_sum = correlate_step(b_u, b_s, b_zeroth, b_sum, b_c, 0, 1)
        b_s = adjoint_states(b_s, b_c, KIND, ORDER, 0, 1)
        if GRAD_X:
            o_r = first + tl.arange(0, BR)
            b_gx = tl.sum(tl.reshape(tl.where(m_lane, b_gx, 0.0), [BR, BF]), axis=1)
            p_gx = p_out + ((group.to(tl.int64) * B + o_r) * signals + signal) * T + (T - length)
            tl.store(p_gx + i, b_gx, mask=o_r < B)
    store_states(p_gstate + o_state, b_s, m_state, R, N, NP)
    if SUMS:
        o_pair = (o_q * 2)[:, None] + tl.arange(0, 2)[None, :]
        store_states(p_zeroth + o_pair, b_zeroth, m_lane[:, None], R, 2, 2)
        b_c = load_row(p_table, o_f, WIDTH)
        p_part += tile.to(tl.int64) * 4 * F
        b_rest = states_at_rest(p_table, R, 2)
        o_c = group * BF + tl.arange(0, BF)
        store_sums(p_part, b_sum, b_zeroth, b_rest, b_c, signal * fan + o_c, o_c < fan, F, BR, BF)
