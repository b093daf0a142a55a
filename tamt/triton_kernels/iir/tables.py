"""Stage 1 of the IIR engine: what the other stages need to know about each channel, found by simulating it.

One program per channel runs the filter one sample in float64, from N unit start states and once from a unit impulse,
one lane each. That is the system ``s' = A s + b u`` for every kind of filter; the powers of A then give the transition
over a superblock and the response of its end state to each sample, COLUMNS samples at a time.
"""

import triton
import triton.language as tl

from .sections import forward_step


@triton.jit
def store_pole(p_table, o_first, b_decay, b_cycles, POLES: tl.constexpr):
    """POLES poles at o_first, the i-th such that the product of the first i, as rounded, is nearest to p^i."""
    b_angle = 6.283185307179586 * (b_cycles - tl.floor(b_cycles + 0.5))
    b_radius = tl.exp(-b_decay)
    b_re = b_radius * tl.cos(b_angle)
    b_im = b_radius * tl.sin(b_angle)
    b_dre = b_re  # what the next factor should be: p^i over the product so far
    b_dim = b_im
    for i in tl.static_range(POLES):
        b_qre = b_dre.to(p_table.dtype.element_ty)
        b_qim = b_dim.to(p_table.dtype.element_ty)
        tl.store(p_table + o_first + 2 * i, b_qre)
        tl.store(p_table + o_first + 2 * i + 1, b_qim)
        # d <- p d / q; q is d up to rounding, and 0 only where p is.
        b_qre = b_qre.to(tl.float64)
        b_qim = b_qim.to(tl.float64)
        b_norm = b_qre * b_qre + b_qim * b_qim
        b_norm = tl.where(b_norm == 0.0, 1.0, b_norm)
        b_rre = (b_dre * b_qre + b_dim * b_qim) / b_norm
        b_rim = (b_dim * b_qre - b_dre * b_qim) / b_norm
        b_dre = b_re * b_rre - b_im * b_rim
        b_dim = b_re * b_rim + b_im * b_rre
    return b_re, b_im


@triton.jit
def load_column(p_row, o_j, i: tl.constexpr, ORDER: tl.constexpr):
    """Coefficient i of modal sections o_j, in float64."""
    return tl.load(p_row + 6 * o_j + i, mask=o_j < ORDER, other=0.0).to(tl.float64)


@triton.jit
def store_sections(p_row, p_table, ORDER: tl.constexpr, LANES: tl.constexpr):
    """The table row of a cascade of modal sections, a lane each; returned as a tuple of scalars, in float64.

    ``q = p - 1`` from the half angle h, without cancellation where the pole is slow: ``Re q = (r - 1) cos 2h -
    2 sin^2 h`` and ``Im q = r sin 2h``. With r in float64, the digits that r - 1 loses are none of float32's.
    """
    o_j = tl.arange(0, LANES)
    b_radius = tl.exp(-load_column(p_row, o_j, 0, ORDER))
    b_cycles = load_column(p_row, o_j, 1, ORDER) + load_column(p_row, o_j, 2, ORDER)
    b_half = 3.141592653589793 * (b_cycles - tl.floor(b_cycles + 0.5))
    b_sin = tl.sin(b_half)
    b_square = 2.0 * b_sin * b_sin
    b_columns = (
        (b_radius - 1.0) * (1.0 - b_square) - b_square,
        b_radius * 2.0 * b_sin * tl.cos(b_half),
        load_column(p_row, o_j, 3, ORDER),
        load_column(p_row, o_j, 4, ORDER),
        load_column(p_row, o_j, 5, ORDER),
    )
    for i in tl.static_range(5):
        tl.store(p_table + 5 * o_j + i, b_columns[i].to(p_table.dtype.element_ty), mask=o_j < ORDER)
    b_c = ()
    for j in tl.static_range(ORDER):
        for i in tl.static_range(5):
            b_c = b_c + (tl.sum(tl.where(o_j == j, b_columns[i], 0.0), axis=0),)
    return b_c


@triton.jit
def times(b_a, b_b):
    """Product of small matrices in float64. The sum is over the first axis, which lies within lanes: no shuffles."""
    return tl.sum(tl.trans(b_a)[:, :, None] * b_b[:, None, :], axis=0)


@triton.jit(do_not_specialize=["F", "steps"])
def iir_design_kernel(
    p_coef,
    p_table,
    p_transition,
    p_response,
    F,
    steps,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    P: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
    RESPONSE: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Table row, superblock transition and superblock response of channel ``program_id(0)``.

    coef (F, P) -> table (F, WIDTH) of the same dtype
    transition (F, LEVELS, NP, NP) float64: ``[out, in]`` of A^steps, A^(2 steps), A^(4 steps) ..., zero where out or
        in >= N
    response (steps, F NP): state n at the end of ``steps`` samples after a unit sample at k, zero for n >= N;
        written if RESPONSE.
    ``steps`` is a multiple of COLUMNS, or 0 (short signals need the table alone); transition is then the identity.
    LANES > N: lane l < N starts from unit state l, lane N gets the impulse.
    """
    f = tl.program_id(0).to(tl.int64)
    p_row = p_coef + f * P
    o_table = f * WIDTH
    b_c = ()
    if KIND == "biquad":
        for i in tl.static_range(P):
            b_value = tl.load(p_row + i)
            tl.store(p_table + o_table + i, b_value)
            b_c = b_c + (b_value.to(tl.float64),)
    elif KIND == "modal":
        b_c = store_sections(p_row, p_table + o_table, ORDER, LANES)
    else:
        # f_hi + f_lo is an unevaluated sum that carries more than float32: add it in float64.
        b_cycles = tl.load(p_row + 1).to(tl.float64) + tl.load(p_row + 2).to(tl.float64)
        b_re, b_im = store_pole(p_table, o_table + 2, tl.load(p_row).to(tl.float64), b_cycles, POLES)
        b_gre = tl.load(p_row + 3)
        b_gim = tl.load(p_row + 4)
        tl.store(p_table + o_table, b_gre)
        tl.store(p_table + o_table + 1, b_gim)
        b_c = (b_gre.to(tl.float64), b_gim.to(tl.float64), b_re, b_im)
        for i in tl.static_range(P - 5):
            b_value = tl.load(p_row + 5 + i)
            tl.store(p_table + o_table + 2 + 2 * POLES + i, b_value)
            b_c = b_c + (b_value.to(tl.float64),)

    lane = tl.arange(0, LANES)
    b_s = ()
    for n in tl.static_range(N):
        b_s = b_s + (tl.where(lane == n, 1.0, 0.0).to(tl.float64),)
    _, b_s = forward_step(tl.where(lane == N, 1.0, 0.0).to(tl.float64), b_s, b_c, KIND, ORDER, 0, 1)
    # A changes from registers of lanes to a tile by way of the memory of the result.
    p_out = p_transition + f * (LEVELS * NP * NP)
    o_n = tl.arange(0, NP)
    o_k = tl.arange(0, COLUMNS)
    b_states = tl.zeros([NP, COLUMNS], tl.float64)
    for n in tl.static_range(NP):
        b_row = tl.where(lane < N, b_s[n], 0.0) if n < N else tl.zeros([LANES], tl.float64)
        tl.store(p_out + n * NP + lane, b_row, mask=lane < NP)
        if RESPONSE and n < N:
            b_states += tl.where((o_n == n)[:, None], tl.sum(tl.where(lane == N, b_s[n], 0.0), axis=0), 0.0)
    tl.debug_barrier()
    o_matrix = o_n[:, None] * NP + o_n[None, :]
    b_a = tl.load(p_out + o_matrix)
    tl.debug_barrier()  # nothing is stored there again before all of it is read
    tl.static_assert(COLUMNS == 32 or COLUMNS == 1)
    for level in tl.static_range(5 if COLUMNS == 32 else 0):
        if RESPONSE:  # column k is A^k b, one bit of k after the other
            b_states = tl.where((o_k >> level & 1)[None, :] == 1, times(b_a, b_states), b_states)
        b_a = times(b_a, b_a)
    b_transition = tl.where(o_n[:, None] == o_n[None, :], 1.0, 0.0).to(tl.float64)
    for first in range(0, steps, COLUMNS):
        if RESPONSE:
            o_row = (steps - 1 - first - o_k).to(tl.int64) * F + f
            p_tile = p_response + o_row[None, :] * NP + o_n[:, None]
            tl.store(p_tile, b_states.to(p_response.dtype.element_ty))
            b_states = times(b_a, b_states)
        b_transition = times(b_a, b_transition)
    for level in tl.static_range(LEVELS):
        if level:
            b_transition = times(b_transition, b_transition)
        tl.store(p_out + level * (NP * NP) + o_matrix, b_transition)


@triton.jit
def iir_power_kernel(p_in, p_out, NP: tl.constexpr, SQUARINGS: tl.constexpr):
    """out = in^(2^SQUARINGS) for the matrix (NP, NP), float64, of channel ``program_id(0)``: one level's transition
    from that of the level below. Powers of stable filters fade to zero, as they should."""
    o_row = tl.arange(0, NP)
    o_tile = tl.program_id(0).to(tl.int64) * (NP * NP) + o_row[:, None] * NP + o_row[None, :]
    b_a = tl.load(p_in + o_tile)
    for _ in tl.static_range(SQUARINGS):
        b_a = times(b_a, b_a)
    tl.store(p_out + o_tile, b_a)
