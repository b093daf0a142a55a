"""Means over hops of what a detector makes of filters' outputs, which are never stored.

Stages 1 to 3 are those of :mod:`tamt.triton_kernels.iir`. Then the recursion adds up what the detector gives
in registers, and stores a sum where a hop ends. With superblocks of S samples there are two ways:

* Where S is a multiple of the hop, and 16 divides the hop, hops of all lanes end at the ends of the same trips, and no
  hop has samples of two superblocks: sums are divided and stored. Long hops of whole superblocks are means of the
  superblocks' means.
* Elsewhere every lane looks for ends of hops at each of its samples. What a superblock has of the hop that ends in a
  later one is its ``rest``; a kernel of its own adds rests to the sums, each of which has one sign.

Superblocks are as long as it takes for the first way, if they can be. Signals are taken in parts of rows or of time, so
that the states of superblocks do not grow with them.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from tamt.triton_kernels._common import LAUNCH, cdiv, lanes_per_warp, on_amd, on_device_of
from tamt.triton_kernels.iir.launch import (
    DEFAULT,
    TRIP,
    Run,
    Tiling,
    aligned,
    describe,
    enter,
    n_states,
    step_of,
    uses_product,
)
from tamt.triton_kernels.iir.output import load_starts, load_states, locate, recur, store_finals, store_states
from tamt.triton_kernels.iir.sections import forward_step, load_phase, load_row, vary

SUPERBLOCKS = (160, 800)  # the shortest and the longest, to fit a hop
SUPERBLOCK = 320  # the nearest to this is taken
STATES = 24 << 20  # bytes of superblocks' states together
HOPS = 128  # hops of a program that adds rests


@triton.jit
def detect(b_y, b_s, ORDER: tl.constexpr, DETECTOR: tl.constexpr):
    """What the detector gives for a sample, of envelopes twice; not finite where the output is not."""
    if DETECTOR == "power":
        return b_y * b_y
    elif DETECTOR == "envelope":
        return b_s[2 * ORDER - 2] * b_s[2 * ORDER - 2] + b_s[2 * ORDER - 1] * b_s[2 * ORDER - 1]
    else:
        tl.static_assert(DETECTOR == "halfwave")
        return tl.where(b_y < 0, 0 * b_y, b_y)


@triton.jit
def divisor(hop, DETECTOR: tl.constexpr):
    """What makes a mean of the sum over a hop."""
    return hop * 2 if DETECTOR == "envelope" else hop + 0


@triton.jit
def mean_of(b_sum, divisor):
    """The mean from the sum over a hop; NaN where that is not finite."""
    b_mean = b_sum / divisor.to(b_sum.dtype)
    return b_mean + 0 * b_mean


@triton.jit
def detected_sample(b_u, b_states, b_c, PHASE: tl.constexpr, FORM: tl.constexpr):
    """Of :func:`recur`: what the detector gives for a cascade; FORM = (KIND, ORDER, POLES, DETECTOR)."""
    b_y, b_s = forward_step(b_u[0], b_states[0], b_c, FORM[0], FORM[1], PHASE, FORM[2])
    return detect(b_y, b_s, FORM[1], FORM[3]), (b_s, b_states[1])


@triton.jit
def close_together(
    k, b_v, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """Of :func:`recur`: adds up, stores the mean where the hop of all lanes ends, and states as :func:`store_finals`.

    given = (p_means, p_finals, end, m_last, hop, divisor); b_states[1] = (sum, samples left of the hop)
    """
    b_sum = b_states[1][0]
    left = b_states[1][1] - STEP
    b_trip = b_v[0]
    for i in tl.static_range(1, STEP):
        b_trip += b_v[i]
    b_sum += b_trip
    if left == 0:
        hop = given[4]
        o_hop = tl.arange(0, R) * (S // hop) + ((k + STEP) // hop - 1)
        tl.store(given[0] + o_hop, mean_of(b_sum, given[5]), mask=m_trip)
        b_sum = tl.zeros_like(b_sum)
        left += hop
    b_states = (b_states[0], (b_sum, left))
    return store_finals(k, b_v, b_states, m_trip, given, NPS, S, STEP, R)


@triton.jit
def close_apart(
    k, b_v, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """Of :func:`recur`: adds up, stores the sum where a lane's hop ends, and states as :func:`store_finals`.

    given = (p_sums, p_finals, end, m_last, hop, MANY, p_rest); b_states[1] = (sum, samples left of the hop, hop). With
    MANY, hops may be shorter than a trip.
    """
    MANY: tl.constexpr = given[5]
    b_sum = b_states[1][0]
    b_left = b_states[1][1]
    o_hop = b_states[1][2]
    b_closed = b_sum
    for i in tl.static_range(STEP):
        b_sum += b_v[i]
        m_end = b_left == i + 1
        if MANY:
            tl.store(given[0] + o_hop, b_sum, mask=m_end & m_trip)
            o_hop = tl.where(m_end, o_hop + 1, o_hop)
            b_left = tl.where(m_end, b_left + given[4], b_left)
        else:
            b_closed = tl.where(m_end, b_sum, b_closed)
        b_sum = tl.where(m_end, 0.0, b_sum)
    if not MANY:
        m_end = b_left <= STEP
        tl.store(given[0] + o_hop, b_closed, mask=m_end & m_trip)
        o_hop = tl.where(m_end, o_hop + 1, o_hop)
        b_left = tl.where(m_end, b_left + given[4], b_left)
    if k + STEP == given[2]:
        tl.store(given[6] + tl.arange(0, R), b_sum, mask=given[3])
    b_states = (b_states[0], (b_sum, b_left - STEP, o_hop))
    return store_finals(k, b_v, b_states, m_trip, given, NPS, S, STEP, R)


@triton.jit(do_not_specialize=["n_samples", "n_super", "B", "F", "hop", "M", "p_means"])
def filter_frames_kernel(
    p_x,
    p_table,
    p_state,
    p_start,
    p_means,
    p_rest,
    p_final,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    hop,
    M,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
    DETECTOR: tl.constexpr,
    TOGETHER: tl.constexpr,
    MANY: tl.constexpr,
):
    """R neighbouring superblocks of one batch row and channel per program, a lane each.

    x (B, n_samples), 16 divides n_samples; table, state and start as in :func:`iir_forward_kernel`
    -> final (B, F, N), and means (B, F, hops), rows M apart, of the hops that end here.
    TOGETHER: hop divides S, 16 divides hop, and means are as they should be.
    Else:     means are sums from the start of a hop or of a superblock, whatever is later, to the end of the hop, and
              rest (B, F, n_super) those from the last end of a hop, or the start of a superblock, to its end.
    """
    o_f, o_b, first, o_tile, length, end = locate(n_samples, n_super, F, S, R)
    lane = tl.arange(0, R)
    o_j = first + lane
    m_row = o_j < n_super
    m_last = o_j == n_super - 1
    o_row = o_b * F + o_f
    o_super = ((o_f * B + o_b) * n_super + first) * NP
    b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
    p_signals = (p_x + (o_b * x_stride_b + o_tile),)
    finals = (p_final + o_row * N,)
    b_s = load_starts(p_start + o_super, p_state + o_row * N, m_row, o_j, R, N, NP)
    b_sum = tl.zeros([R], p_table.dtype.element_ty)
    first_hop = o_tile // hop
    p_hops = p_means + (o_row * M + first_hop)
    FORM: tl.constexpr = (KIND, ORDER, POLES, DETECTOR)
    if TOGETHER:
        given = (p_hops, finals, end, m_last, hop, divisor(hop, DETECTOR))
        b_states = (b_s, (b_sum, hop + 0))
        recur(p_signals, b_states, b_c, given, length, detected_sample, FORM, (NP,), S, STEP, R, AFTER=close_together)
    else:
        b_at = (o_tile - first_hop * hop).to(tl.int32) + lane * S  # since the start of the first lane's hop
        o_hop = b_at // hop
        b_left = hop - b_at % hop
        p_rests = p_rest + (o_row * n_super + first)
        given = (p_hops, finals, end, m_last, hop, MANY, p_rests)
        b_states = (b_s, (b_sum, b_left, o_hop))
        b_states = recur(
            p_signals, b_states, b_c, given, length, detected_sample, FORM, (NP,), S, STEP, R, AFTER=close_apart
        )
        tl.store(p_rests + lane, b_states[1][0], mask=o_j < n_super - 1)


@triton.jit(do_not_specialize=["n_samples", "length", "B", "F", "x_stride_b", "hop", "M", "p_means"])
def filter_frames_tail_kernel(
    p_x,
    p_table,
    p_state,
    p_means,
    p_final,
    n_samples,
    length,
    B,
    F,
    x_stride_b,
    hop,
    M,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    R: tl.constexpr,
    DETECTOR: tl.constexpr,
):
    """The last length < 16 samples of every row, those after n_samples; one lane per (batch row, channel).

    x (B, n_samples + length); table as in :func:`iir_forward_kernel`; state (B, F, N) before these samples -> final
    (B, F, N), which may be the same tensor as state, and sums as those of a superblock in :func:`filter_frames_kernel`.
    """
    o_q = tl.program_id(0) * R + tl.arange(0, R)
    o_f = o_q % F
    o_n = tl.arange(0, NP)
    m_q = o_q < B * F
    o_state = (o_q.to(tl.int64) * N)[:, None] + o_n[None, :]
    m_state = m_q[:, None] & (o_n < N)[None, :]
    p_row = p_x + (o_q // F).to(tl.int64) * x_stride_b + n_samples
    p_hops = p_means + (o_q.to(tl.int64) * M + n_samples // hop)
    b_s = load_states(p_state + o_state, m_state, R, N, NP)
    b_sum = tl.zeros([R], p_table.dtype.element_ty)
    left = hop - n_samples % hop
    o_hop = 0
    for i in range(0, length):
        b_c = load_phase(p_table, o_f, i, KIND, WIDTH, POLES)
        b_u = tl.load(p_row + i, mask=m_q, other=0.0)
        b_y, b_s = forward_step(b_u, b_s, b_c, KIND, ORDER, 0, 1)
        b_sum += detect(b_y, b_s, ORDER, DETECTOR)
        left -= 1
        if left == 0:
            tl.store(p_hops + o_hop, b_sum, mask=m_q)
            b_sum = tl.zeros_like(b_sum)
            o_hop += 1
            left += hop
    store_states(p_final + o_state, b_s, m_state, R, N, NP)


@triton.jit(do_not_specialize=["n_samples", "n_super", "n_hops", "hop", "M", "p_means"])
def filter_frames_rest_kernel(
    p_means,
    p_rest,
    n_samples,
    n_super,
    n_hops,
    hop,
    M,
    S: tl.constexpr,
    R: tl.constexpr,
    DETECTOR: tl.constexpr,
):
    """means (rows, n_hops), rows M apart, from the sums there and rest (rows, n_super), R hops of a row per program.

    What follows n_samples has sums of its own.
    """
    n_tiles = (n_hops + R - 1) // R
    o_row = (tl.program_id(0) // n_tiles).to(tl.int64)
    o_hop = (tl.program_id(0) % n_tiles) * R + tl.arange(0, R)
    m_hop = o_hop < n_hops
    b_first = o_hop.to(tl.int64) * hop
    b_last = b_first + (hop - 1)
    o_first = tl.where(b_first < n_samples, b_first // S, n_super).to(tl.int32)
    o_last = tl.where(b_last < n_samples, b_last // S, n_super).to(tl.int32)
    count = tl.max(tl.where(m_hop, o_last - o_first, 0), axis=0)
    p_hops = p_means + o_row * M + o_hop
    p_rests = p_rest + o_row * n_super
    b_sum = tl.load(p_hops, mask=m_hop, other=0.0).to(tl.float64)
    for i in range(0, count):
        b_sum += tl.load(p_rests + (o_first + i), mask=m_hop & (o_first + i < o_last), other=0.0).to(tl.float64)
    tl.store(p_hops, mean_of(b_sum, divisor(hop, DETECTOR)).to(p_means.dtype.element_ty), mask=m_hop)


def ends_together(hop: int, superblock: int) -> bool:
    """Whether hops end with trips, and each is in one superblock, or is some."""
    return hop % TRIP == 0 and (superblock % hop == 0 or hop % superblock == 0)


def fitting(hop: int, lengths: tuple[int, int], wanted: int, otherwise: int) -> Tiling:
    """Superblocks that fit the hop, of the shortest to the longest of ``lengths`` the nearest to what is wanted.

    They are multiples of what the product for the end states takes. Where none fits they are as long as ``otherwise``.
    """
    shortest, longest = lengths
    fit = [s for s in range(shortest, longest + 1, 32) if ends_together(hop, s)]
    multiples = [s for s in fit if s % hop == 0]
    return DEFAULT._replace(
        superblock=min(multiples or fit, key=lambda s: abs(math.log(s / wanted)), default=otherwise)
    )


def tiling_for(hop: int) -> Tiling:
    """How signals are cut for hops of so many samples."""
    return fitting(hop, SUPERBLOCKS, SUPERBLOCK, DEFAULT.superblock)


def together(length: int, batch: int, per_sample: float, hop: int, most: int) -> tuple[int, int]:
    """Rows, and samples of each, to take together: so that ``per_sample`` bytes for each sample of a row are ``most``.

    Samples are all, or as many whole hops as begin with a trip.
    """
    rows = max(1, min(batch, int(most / (per_sample * max(1, length)))))
    unit = math.lcm(hop, TRIP)
    return rows, length if rows * length * per_sample <= most else max(1, int(most / (per_sample * unit))) * unit


def filter_frames(
    x: torch.Tensor,
    coef: torch.Tensor,
    state: torch.Tensor,
    kind: str,
    order: int,
    hop: int,
    detector: str,
    tiling: Tiling | None = None,
    most: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (B, F, T // hop) and state after the last whole hop (B, F, N) of F filters.

    x (B, T); coef (F, P); state (B, F, N) before the first sample. The states of superblocks take ``most`` bytes,
    :data:`STATES` if not given.
    """
    B, F, _ = state.shape
    hops = x.shape[1] // hop
    means = x.new_empty(B, F, hops)
    if means.numel() == 0:
        return means, state.clone(memory_format=torch.contiguous_format)
    tiling = tiling_for(hop) if tiling is None else tiling
    most = STATES if most is None else most
    final = torch.empty_like(state, memory_format=torch.contiguous_format)
    with on_device_of(x):
        x, state = x[:, : hops * hop], state.contiguous()
        system = system_of(x, coef, kind, order, tiling)
        per_sample = 2 * F * system.constants["NP"] * x.element_size() / tiling.superblock
        rows, samples = together(hops * hop, B, per_sample, hop, most)
        for first in range(0, B, rows):
            part = slice(first, first + rows)
            now = state[part]
            for start in range(0, hops * hop, samples):
                chunk = x[part, None, start : start + samples]
                found = means[part, :, start // hop : (start + samples) // hop]
                one_part(run_of(chunk, now, system, tiling), found, final[part], hop, detector)
                if start + samples < hops * hop:
                    now = final[part].clone()  # programs of the next part read it while others write the new one
    return means, final


def system_of(x, coef, kind: str, order: int, tiling: Tiling):
    """Stage 1, for all parts of a signal (B, T) together."""
    n_states(kind, order)
    steps = tiling.superblock if x.shape[1] >= tiling.superblock else 0
    return describe(coef, kind, order, steps, steps > 0 and uses_product(x[:, None]))


def run_of(x, state, system, tiling: Tiling) -> Run:
    """A part (B, 1, T) of a signal, from its first states to those of its superblocks."""
    n_samples = x.shape[-1] // TRIP * TRIP
    run = Run(
        aligned(x, state.shape[1]),
        state,
        state,
        n_samples,
        cdiv(n_samples, tiling.superblock),
        system,
        tiling,
    )
    return enter(run)


def one_part(run: Run, means: torch.Tensor, final: torch.Tensor, hop: int, detector: str) -> None:
    """Means (B, F, M), rows side by side or not, and final state of a signal of M hops."""
    B, F, _ = means.shape
    S = run.tiling.superblock
    even = ends_together(hop, S)
    closing, per_hop = (means, hop) if not even or hop <= S else (means.new_empty(B, F, run.n_super), S)
    rest = means.new_empty(0 if even else B * F * run.n_super)
    lanes = lanes_per_warp()
    options = {
        "n_samples": run.n_samples,
        "B": B,
        "F": F,
        "x_stride_b": run.x.stride(0),
        "hop": per_hop,
        "M": closing.stride(1),
        "R": lanes,
        "DETECTOR": detector,
        "num_warps": 1,
        **run.system.constants,
        **LAUNCH,
    }
    if run.n_samples:
        step = step_of(run.system)
        filter_frames_kernel[(F * B * cdiv(run.n_super, lanes),)](
            p_x=run.x,
            p_table=run.system.table,
            p_state=run.state,
            p_start=run.start,
            p_means=closing,
            p_rest=rest,
            p_final=final,
            n_super=run.n_super,
            S=S,
            STEP=step,
            PER_LANE=on_amd(),
            TOGETHER=even,
            MANY=hop < step,
            **options,
        )
    length = run.x.shape[-1] - run.n_samples
    if length:
        filter_frames_tail_kernel[(cdiv(B * F, lanes),)](
            p_x=run.x,
            p_table=run.system.table,
            p_state=final if run.n_samples else run.state,
            p_means=closing,
            p_final=final,
            length=length,
            **options,
        )
    finish(means, closing, rest, run.n_samples, S, hop, detector)


def finish(
    means: torch.Tensor,
    closing: torch.Tensor,
    rest: torch.Tensor,
    n_samples: int,
    superblock: int,
    hop: int,
    detector: str,
) -> None:
    """Means (B, F, M), rows side by side or not, from what superblocks of the first n_samples have left.

    That is the means themselves, or means (B, F, n_super) of superblocks; where hops do not end together, it is sums in
    ``means`` and rest (B, F, n_super).
    """
    B, F, n_hops = means.shape
    if not ends_together(hop, superblock):
        filter_frames_rest_kernel[(B * F * cdiv(n_hops, HOPS),)](
            p_means=means,
            p_rest=rest,
            n_samples=n_samples,
            n_super=cdiv(n_samples, superblock),
            n_hops=n_hops,
            hop=hop,
            M=means.stride(1),
            S=superblock,
            R=HOPS,
            DETECTOR=detector,
            num_warps=HOPS // lanes_per_warp(),
            **LAUNCH,
        )
    elif closing is not means:
        torch.mean(closing.unflatten(2, (n_hops, hop // superblock)), 3, out=means)
