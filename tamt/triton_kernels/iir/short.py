"""Stages 2 to 4 of the IIR engine in one launch, for few and short signals, where launches take longer than arithmetic.

A program takes a channel of one batch row, a lane a superblock: the end states from rest, their scan by doubling, and
the output from the scanned states.
"""

import triton
import triton.language as tl

from tamt.triton_kernels._common import select

from .output import filter_sample, recur, states_at_rest, store_output
from .sections import load_row, vary


@triton.jit
def exchange(p_buffer, b_s, m_from, distance, R: tl.constexpr, N: tl.constexpr):
    """The states of the lanes ``distance`` before, in float64; zero where masked. p_buffer (N, R) takes them there."""
    lane = tl.arange(0, R)
    for n in tl.static_range(N):
        tl.store(p_buffer + n * R + lane, b_s[n])
    tl.debug_barrier()
    b_from = ()
    for n in tl.static_range(N):
        b_from = b_from + (tl.load(p_buffer + n * R + lane - distance, mask=m_from, other=0.0),)
    return b_from


@triton.jit
def scan_lanes(p_matrices, p_buffers, b_s, levels, R: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """States entering each lane's superblock but the first, from what each adds by its end: in float64, by doubling.

    matrices (levels, NP, NP) are the transitions over 1, 2, 4 ... superblocks. The two buffers (N, R) take turns, so
    that one barrier a level is enough.
    """
    lane = tl.arange(0, R)
    for level in range(0, levels):
        distance = 1 << level
        b_from = exchange(p_buffers + (level % 2) * (N * R), b_s, lane >= distance, distance, R, N)
        b_new = ()
        for i in tl.static_range(N):
            b_sum = b_s[i]
            for n in tl.static_range(N):
                b_sum += tl.load(p_matrices + (level * NP + i) * NP + n) * b_from[n]
            b_new = b_new + (b_sum,)
        b_s = b_new
    return exchange(p_buffers + (levels % 2) * (N * R), b_s, lane >= 1, 1, R, N)


@triton.jit(do_not_specialize=["n_samples", "levels"], do_not_specialize_on_alignment=["signals", "fan"])
def iir_short_kernel(
    p_x,
    p_table,
    p_matrices,
    p_state,
    p_buffers,
    p_y,
    p_final,
    T,
    n_samples,
    levels,
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
    STEP: tl.constexpr,
    LEVELS: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
):
    """All of one batch row and channel per program, a lane each superblock; ``2^levels >= n_super``.

    x (B, signals, T), each for ``fan`` of the F = signals fan channels, one after the other; table (F, WIDTH); matrices
    (F, LEVELS, NP, NP), float64; state (B, F, N)
    -> y (B, F, T), of which the first n_samples <= R S, a multiple of 16, and final (B, F, N), the state after these.
    buffers (B, F, 2, N, R), float64, is to work in.
    """
    F = signals * fan
    o_f = (tl.program_id(0) % F).to(tl.int64)
    o_s = (tl.program_id(0) % F // fan).to(tl.int64)
    o_b = (tl.program_id(0) // F).to(tl.int64)
    lane = tl.arange(0, R)
    n_super = (n_samples + S - 1) // S
    b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
    o_row = o_b * F + o_f
    b_first = load_row(p_state + o_row * N, 0, N)
    p_signals = (p_x + (o_b * x_stride_b + o_s * x_stride_s),)
    FORM: tl.constexpr = (KIND, ORDER, POLES)

    b_states = (select(lane == 0, b_first, states_at_rest(p_table, R, N), N),)
    b_states = recur(p_signals, b_states, b_c, (), n_samples, filter_sample, FORM, (NP,), S, STEP, R)
    b_ends = ()
    for n in tl.static_range(N):
        b_ends = b_ends + (b_states[0][n].to(tl.float64),)
    b_ends = scan_lanes(
        p_matrices + o_f * (LEVELS * NP * NP), p_buffers + o_row * (2 * N * R), b_ends, levels, R, N, NP
    )
    b_s = ()
    for n in tl.static_range(N):
        b_s = b_s + (tl.where(lane == 0, b_first[n], b_ends[n].to(p_table.dtype.element_ty)),)
    given = (p_y + o_row * T, (p_final + o_row * N,), n_samples - (n_super - 1) * S, lane == n_super - 1)
    recur(p_signals, (b_s,), b_c, given, n_samples, filter_sample, FORM, (NP,), S, STEP, R, AFTER=store_output)
