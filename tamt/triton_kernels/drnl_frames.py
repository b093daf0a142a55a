"""Means over hops of what a detector makes of DRNL filters' outputs, which are never stored.

The stages are those of :mod:`tamt.triton_kernels.drnl`, for some rows and a chunk of time after the other: w takes so
many bytes at a time, and tables, transitions and responses are made once. The back kernel adds up what the detector
gives and stores sums where hops end, in the two ways of :mod:`tamt.triton_kernels.filter_frames`. Chunks are whole
superblocks, and superblocks count from the start of the signal: so hops may be longer than a chunk, as a hop's sums of
superblocks are added up after the last chunk.

Per output sample w is written and read, 8 bytes of float32, where :mod:`tamt.triton_kernels.drnl` moves 12; the states
of superblocks come on top. A chunk has 7 launches, some 0.15 ms of the host, and its scans are expected to take 0.1 ms,
however small it is, and the rest 8 ps a sample on an H200: 0.26 ms in 128 MiB, but 0.05 ms in the 24 MiB that would fit
the L2 cache, which is no gain, as the kernels are bound by their arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tamt.shared.iir import KINDS

from ._common import LAUNCH, cdiv, lanes_per_warp, on_device_of
from .drnl import STEP, back_sample, bent, last_samples, launch_sizes, load_paths, path_operands, paths
from .filter_frames import (
    close_apart,
    close_together,
    detect,
    divisor,
    ends_together,
    finish,
    fitting,
    run_of,
    system_of,
)
from .iir.launch import TRIP, Run, System, Tiling, aligned, describe
from .iir.output import locate, recur, store_finals
from .iir.sections import vary

SUPERBLOCKS = (96, 320)  # the shortest and the longest, to fit a hop
SUPERBLOCK = 256  # the nearest to this is taken
CHUNK = 128 << 20  # bytes of w together


@triton.jit
def detected_sample(b_u, b_states, b_c, PHASE: tl.constexpr, FORM: tl.constexpr):
    """Of :func:`recur`: what the detector gives for both paths; FORM = (BACK, LINEAR, DETECTOR)."""
    b_y, b_s = back_sample(b_u, b_states, b_c, PHASE, FORM)
    return detect(b_y, (), 0, FORM[2]), (b_s[0], b_s[1], b_states[2])


@triton.jit
def close_together_after_paths(
    k, b_v, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """:func:`close_together` with states of two cascades before the sums."""
    sums = (given[0], (), given[2], given[3], given[4], given[5])
    b_sums = close_together(k, b_v, ((), b_states[2]), m_trip, sums, NPS, S, STEP, R)
    b_states = (b_states[0], b_states[1], b_sums[1])
    return store_finals(k, b_v, b_states, m_trip, given, NPS, S, STEP, R)


@triton.jit
def close_apart_after_paths(
    k, b_v, b_states, m_trip, given, NPS: tl.constexpr, S: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr
):
    """:func:`close_apart` with states of two cascades before the sums."""
    sums = (given[0], (), given[2], given[3], given[4], given[5], given[6])
    b_sums = close_apart(k, b_v, ((), b_states[2]), m_trip, sums, NPS, S, STEP, R)
    b_states = (b_states[0], b_states[1], b_sums[1])
    return store_finals(k, b_v, b_states, m_trip, given, NPS, S, STEP, R)


@triton.jit(do_not_specialize=["n_samples", "n_super", "B", "F", "start", "all_super", "hop", "M", "p_means", "p_rest"])
def drnl_frames_kernel(
    p_x,
    p_linear,
    p_linear_state,
    p_linear_start,
    p_linear_final,
    p_back,
    p_back_state,
    p_back_start,
    p_back_final,
    p_w,
    p_means,
    p_rest,
    T,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    start,
    all_super,
    hop,
    M,
    LINEAR: tl.constexpr,
    NP_LINEAR: tl.constexpr,
    BACK: tl.constexpr,
    NP_BACK: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
    DO_BACK: tl.constexpr,
    DETECTOR: tl.constexpr,
    TOGETHER: tl.constexpr,
    MANY: tl.constexpr,
):
    """Sums over hops of what the detector gives for ``back(w) + linear(x)``, or for ``w + linear(x)``, of a chunk.

    w (B, F, T) and what else the chunk has as in :func:`drnl_back_kernel`. ``start`` samples, a multiple of S, are
    before the chunk, which is one of a signal of all_super superblocks; means (B, F, M) and rest (B, F, all_super) are
    those of the signal, with sums and rests as in :func:`filter_frames_kernel`.
    """
    o_f, o_b, first, o_tile, length, end = locate(n_samples, n_super, F, S, R)
    lane = tl.arange(0, R)
    o_j = first + lane
    m_last = o_j == n_super - 1
    o_row = o_b * F + o_f
    b_c, b_s = load_paths(
        p_linear,
        p_linear_state,
        p_linear_start,
        p_back,
        p_back_state,
        p_back_start,
        vary(o_f, F, R, PER_LANE),
        o_row,
        (o_f * B + o_b) * n_super + first,
        o_j < n_super,
        o_j,
        LINEAR,
        NP_LINEAR,
        BACK,
        NP_BACK,
        R,
        DO_BACK,
        True,
    )
    p_signals = (p_w + (o_row * T + o_tile), p_x + (o_b * x_stride_b + o_tile))
    finals = (p_back_final + o_row * (2 * BACK), p_linear_final + o_row * (2 * LINEAR))
    b_sum = tl.zeros([R], p_linear.dtype.element_ty)
    at = o_tile + start
    first_hop = at // hop
    p_hops = p_means + (o_row * M + first_hop)
    FORM: tl.constexpr = (BACK * DO_BACK, LINEAR, DETECTOR)
    NPS: tl.constexpr = (NP_BACK, NP_LINEAR)
    if TOGETHER:
        given = (p_hops, finals, end, m_last, hop, divisor(hop, DETECTOR))
        b_states = (b_s[0], b_s[1], (b_sum, hop + 0))
        recur(
            p_signals,
            b_states,
            b_c,
            given,
            length,
            detected_sample,
            FORM,
            NPS,
            S,
            STEP,
            R,
            AFTER=close_together_after_paths,
        )
    else:
        b_at = (at - first_hop * hop).to(tl.int32) + lane * S  # since the start of the first lane's hop
        o_hop = b_at // hop
        b_left = hop - b_at % hop
        p_rests = p_rest + (o_row * all_super + (start // S + first))
        given = (p_hops, finals, end, m_last, hop, MANY, p_rests)
        b_states = (b_s[0], b_s[1], (b_sum, b_left, o_hop))
        b_states = recur(
            p_signals,
            b_states,
            b_c,
            given,
            length,
            detected_sample,
            FORM,
            NPS,
            S,
            STEP,
            R,
            AFTER=close_apart_after_paths,
        )
        tl.store(p_rests + lane, b_states[2][0], mask=o_j < n_super - 1)


@triton.jit(do_not_specialize=["n_samples", "length", "rows", "hop", "M", "p_means"])
def drnl_frames_tail_kernel(p_y, p_means, n_samples, length, rows, hop, M, R: tl.constexpr, DETECTOR: tl.constexpr):
    """Sums of what the detector gives for y (rows, length), the samples after n_samples; a lane for each row.

    -> the hops that end there, in means (rows, M): sums from the start of a hop, or n_samples, whatever is later.
    """
    o_row = tl.program_id(0) * R + tl.arange(0, R)
    m_row = o_row < rows
    p_hops = p_means + (o_row.to(tl.int64) * M + n_samples // hop)
    b_sum = tl.zeros([R], p_y.dtype.element_ty)
    left = hop - n_samples % hop
    o_hop = 0
    for i in range(0, length):
        b_y = tl.load(p_y + (o_row.to(tl.int64) * length + i), mask=m_row, other=0.0)
        b_sum += detect(b_y, (), 0, DETECTOR)
        left -= 1
        if left == 0:
            tl.store(p_hops + o_hop, b_sum, mask=m_row)
            b_sum = tl.zeros_like(b_sum)
            o_hop += 1
            left += hop


class Filters(NamedTuple):
    """What all chunks of a signal have in common."""

    systems: tuple[System, System, System]  # linear, front, back
    stick: torch.Tensor
    hop: int
    detector: str
    tiling: Tiling


def tiling_for(hop: int) -> Tiling:
    """How signals are cut for hops of so many samples."""
    return fitting(hop, SUPERBLOCKS, SUPERBLOCK, SUPERBLOCK)


def rows_together(batch: int, length: int, per_sample: int, tiling: Tiling, most: float) -> int:
    """Rows to take together, so that of each as many superblocks fit as are scanned in one go."""
    return max(1, min(batch, int(most / (per_sample * min(length, tiling.top * tiling.superblock)))))


def samples_together(rows: int, per_sample: int, tiling: Tiling, most: float) -> int:
    """Samples of a chunk of so many rows: whole superblocks, and all that are scanned in one go if these fit."""
    count = max(1, int(most / (rows * per_sample * tiling.superblock)))
    return (count if count < tiling.top else count // tiling.top * tiling.top) * tiling.superblock


def drnl_frames(
    x: torch.Tensor,
    linear: torch.Tensor,
    front: torch.Tensor,
    back: torch.Tensor,
    stick: torch.Tensor,
    state_linear: torch.Tensor,
    state_front: torch.Tensor,
    state_back: torch.Tensor,
    hop: int,
    detector: str,
    tiling: Tiling | None = None,
    most: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means (B, F, T // hop), and states of the linear, front and back cascades after the last whole hop.

    Operands as for :func:`tamt.triton_kernels.drnl.drnl`. Of w there are ``most`` bytes at a time, :data:`CHUNK` if not
    given.
    """
    B, F, _ = state_front.shape
    hops = x.shape[1] // hop
    length = hops * hop
    means = x.new_empty(B, F, hops)
    states = tuple(s.contiguous() for s in (state_linear, state_front, state_back))
    if means.numel() == 0:
        linear_final, front_final, back_final = (s.clone(memory_format=torch.contiguous_format) for s in states)
        return means, linear_final, front_final, back_final
    tiling = tiling_for(hop) if tiling is None else tiling
    most = CHUNK if most is None else most
    finals, spare = (tuple(torch.empty_like(state) for state in states) for _ in range(2))
    with on_device_of(x):
        x = x[:, :length]
        orders = tuple(KINDS["modal"].order(coef) for coef in (linear, front, back))
        systems = (
            system_of(x, linear, "modal", orders[0], tiling),
            system_of(x, front, "modal", orders[1], tiling),
            describe(back, "modal", orders[2], tiling.superblock if length >= tiling.superblock else 0, False),
        )
        filters = Filters(systems, stick.contiguous(), hop, detector, tiling)
        per_sample = F * x.element_size()
        rows = rows_together(B, length, per_sample, tiling, most)
        for first in range(0, B, rows):
            part = slice(first, first + rows)
            before, after, between = (tuple(s[part] for s in each) for each in (states, finals, spare))
            samples = samples_together(min(rows, B - first), per_sample, tiling, most)
            some_rows(x[part], filters, before, after, between, means[part], samples)
    return means, finals[0], finals[1], finals[2]


def some_rows(
    x: torch.Tensor,
    filters: Filters,
    states: Sequence[torch.Tensor],
    finals: Sequence[torch.Tensor],
    spare: Sequence[torch.Tensor],
    means: torch.Tensor,
    samples: int,
) -> None:
    """Means (B, F, M) and final states of a signal (B, M hop), in chunks of so many samples.

    Chunks leave their states in ``finals`` and ``spare`` in turn: a kernel writes the last while it reads the first.
    """
    B, F, n_hops = means.shape
    hop, detector, S = filters.hop, filters.detector, filters.tiling.superblock
    n_samples = x.shape[1] // TRIP * TRIP
    n_super = cdiv(n_samples, S)
    even = ends_together(hop, S)
    closing = means if not even or hop <= S else means.new_empty(B, F, n_super)
    rest = means.new_empty(B, F, 0 if even else n_super)
    starts = range(0, n_samples, samples)
    for i, start in enumerate(starts):
        after = finals if (len(starts) - i) % 2 else spare
        stop = min(start + samples, n_samples)
        one_chunk(x[:, None, start:stop], filters, states, after, start, closing, rest)
        states = after
    lanes = lanes_per_warp()
    tail = x.shape[1] - n_samples
    if tail:
        y = means.new_empty(B, F, tail)
        end = x[:, None, n_samples:]
        end = end if end.stride(-1) == 1 else end.contiguous()
        last_samples(end, y, tail, filters.systems, filters.stick, states, finals)
        drnl_frames_tail_kernel[(cdiv(B * F, lanes),)](
            p_y=y,
            p_means=means,
            n_samples=n_samples,
            length=tail,
            rows=B * F,
            hop=hop,
            M=n_hops,
            R=lanes,
            DETECTOR=detector,
            num_warps=1,
            **LAUNCH,
        )
    finish(means, closing, rest, n_samples, S, hop, detector)


def one_chunk(
    x: torch.Tensor,
    filters: Filters,
    states: Sequence[torch.Tensor],
    finals: Sequence[torch.Tensor],
    start: int,
    means: torch.Tensor,
    rest: torch.Tensor,
) -> None:
    """Sums and states of a chunk (B, 1, n) that begins ``start`` samples after the signal; n is a multiple of 16."""
    B, F, M = means.shape
    tiling = filters.tiling
    x = aligned(x, F)
    linear, front = (run_of(x, states[i], filters.systems[i], tiling) for i in range(2))
    w = x.new_empty(B, F, x.shape[-1])
    back = Run(w, states[2], states[2], front.n_samples, front.n_super, filters.systems[2], tiling)
    back = bent(front, back, filters.stick, finals[1])
    # Both cascades in double precision do not fit the registers.
    single = w.dtype == torch.float32
    if not single:
        paths(linear, back, finals, True, False)
    even = ends_together(filters.hop, tiling.superblock)
    grid, sizes = launch_sizes(linear, back)
    drnl_frames_kernel[grid](
        p_w=w,
        p_means=means,
        p_rest=rest,
        start=start,
        all_super=rest.shape[2],
        hop=min(filters.hop, tiling.superblock) if even else filters.hop,
        M=M,
        DO_BACK=single,
        DETECTOR=filters.detector,
        TOGETHER=even,
        MANY=filters.hop < STEP,
        **path_operands(linear, back, finals),
        **sizes,
    )
