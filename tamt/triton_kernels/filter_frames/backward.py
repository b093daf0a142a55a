"""Gradients of means over hops of what a detector makes of filters' outputs, which are made again.

In slices, see :mod:`tamt.shared.hops`. For one-pole cascades in float32 and hops of at least 16 samples, but for
envelopes of more than 4 sections, a program makes those of its lanes' superblocks, and then takes the adjoint recursion
through them: they stay in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tamt.shared.hops import GPU_CHUNK, Chunks, Sizes, States, in_chunks_backward, pull_back_, pull_back_parts
from tamt.triton_kernels._common import (
    LAUNCH,
    cdiv,
    join_columns,
    lanes_per_warp,
    load_columns,
    next_power_of_2,
    on_amd,
    on_device_of,
    select,
    split_columns,
)
from tamt.triton_kernels.iir.adjoint import adjoint_tile, locate_lanes
from tamt.triton_kernels.iir.launch import (
    DEFAULT,
    TRIP,
    Pullback,
    Run,
    Tiling,
    iir_backward,
    iir_forward,
    onepole_gradient,
    scan,
    step_of,
)
from tamt.triton_kernels.iir.output import load_states
from tamt.triton_kernels.iir.sections import forward_step, load_row, vary

from .forward import STATES, run_of, system_of, together


@triton.jit
def store_pieces(p_memory, b_columns, m_lane, R: tl.constexpr, K: tl.constexpr):
    """K columns (R,) to memory (K / W, R, W), in pieces of W of a lane, 128 bits; none where m_lane (R,) is not set."""
    W: tl.constexpr = 128 // p_memory.dtype.element_ty.primitive_bitwidth
    o_piece = (tl.arange(0, R) * W)[:, None] + tl.arange(0, W)[None, :]
    for piece in tl.static_range(K // W):
        b_piece = ()
        for i in tl.static_range(W):
            b_piece = b_piece + (b_columns[piece * W + i],)
        tl.store(p_memory + piece * (R * W) + o_piece, join_columns(b_piece, R, W), mask=m_lane[:, None])


@triton.jit
def load_pieces(p_memory, m_lane, R: tl.constexpr, K: tl.constexpr):
    """What :func:`store_pieces` has stored; zeros where m_lane (R,) is not set."""
    W: tl.constexpr = 128 // p_memory.dtype.element_ty.primitive_bitwidth
    o_piece = (tl.arange(0, R) * W)[:, None] + tl.arange(0, W)[None, :]
    b_columns = ()
    for piece in tl.static_range(K // W):
        b_piece = tl.load(p_memory + piece * (R * W) + o_piece, mask=m_lane[:, None], other=0.0)
        b_columns = b_columns + split_columns(b_piece, R, W)
    return b_columns


@triton.jit
def remember(
    p_memory,
    place,
    b_s,
    b_c,
    p_x,
    x_stride_b,
    KIND: tl.constexpr,
    ORDER: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    ANALYTIC: tl.constexpr,
):
    """Outputs of a program's lanes, from their first states b_s, to memory, trip by trip as :func:`store_pieces`.

    ANALYTIC: real parts of the last section's output, then all of the imaginary ones.
    """
    o_b, o_tile, lane, b_length = place[3], place[4], place[5], place[8]
    p_signal = p_x + (o_b * x_stride_b + o_tile)
    for k in range(0, S, STEP):
        m_trip = k < b_length
        b_u = load_columns(p_signal + k, lane * S, m_trip, R, STEP)
        b_y = ()
        b_im = ()
        for i in tl.static_range(STEP):
            b_yi, b_s = forward_step(b_u[i], b_s, b_c, KIND, ORDER, i, POLES)
            b_y = b_y + (b_yi,)
            if ANALYTIC:
                b_im = b_im + (b_s[2 * ORDER - 1],)
        store_pieces(p_memory + k * R, b_y, m_trip, R, STEP)
        if ANALYTIC:
            store_pieces(p_memory + (S + k) * R, b_im, m_trip, R, STEP)


@triton.jit
def recall_gradient(k, m_trip, given, FORM: tl.constexpr, STEP: tl.constexpr, R: tl.constexpr):
    """Of :func:`adjoint_tile`: from what :func:`remember` has left, and gradients of the sums over hops.

    Hops are not shorter than a trip; FORM is the detector. given = (p_memory, p_grad, offsets of the lanes' rows
    there, lanes' first samples, hop, last hop, S). For envelopes real parts, then imaginary ones.
    """
    b_first = given[3] + k
    o_hop = b_first // given[4]
    b_left = (o_hop + 1) * given[4] - b_first  # samples of the trip, or more, in this hop; others are in the next
    p_grad = given[1] + given[2]
    b_this = tl.load(p_grad + o_hop, mask=m_trip, other=0.0)
    b_next = tl.load(p_grad + tl.minimum(o_hop + 1, given[5]), mask=m_trip, other=0.0)
    b_y = load_pieces(given[0] + k * R, m_trip, R, STEP)
    b_gy = ()
    b_gim = ()
    if FORM == "envelope":
        b_im = load_pieces(given[0] + (given[6] + k) * R, m_trip, R, STEP)
    for i in tl.static_range(STEP):
        b_g = tl.where(i < b_left, b_this, b_next)
        b_gy = b_gy + (tl.where(b_y[i] > 0, b_g, 0.0) if FORM == "halfwave" else b_g * b_y[i],)
        if FORM == "envelope":
            b_gim = b_gim + (b_g * b_im[i],)
    return b_gy + b_gim


@triton.jit(do_not_specialize=["n_super", "B", "F", "hop", "M", "n_programs", "p_grad"])
def filter_frames_adjoint_kernel(
    p_grad,
    p_memory,
    p_table,
    p_gfinal,
    p_start,
    p_out,
    p_gstate,
    p_x,
    p_state,
    p_entering,
    p_first,
    p_part,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    hop,
    M,
    n_programs,
    ORDER: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    WIDTH: tl.constexpr,
    POLES: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    BF: tl.constexpr,
    PER_LANE: tl.constexpr,
    DETECTOR: tl.constexpr,
    TASK: tl.constexpr,
    GRAD_X: tl.constexpr,
    SUMS: tl.constexpr,
):
    """What n_programs programs of :func:`iir_adjoint_kernel` do, one after the other, for one-pole cascades.

    There is one signal (B, n_samples) for all F channels. Outputs are made again from state (B, F, N) and entering
    (F, B, n_super, NP) by the program which needs them, in its part of memory (programs, R S, or 2 R S for envelopes),
    which stays in the cache. grad (B, F, hops), rows M apart, times an output of the hop is the output's gradient; of
    halfwave it is grad where the output is positive. The last hop may be longer than its samples.
    """
    BR: tl.constexpr = R // BF
    ANALYTIC: tl.constexpr = DETECTOR == "envelope"
    p_memory += tl.program_id(0).to(tl.int64) * (R * S * (1 + ANALYTIC))
    for program in range(tl.program_id(0), n_programs, tl.num_programs(0)):
        place = locate_lanes(program, n_samples, n_super, 1, F, S, R, BF, BR)
        tile, o_b, o_tile, lane, o_f, m_f = place[2], place[3], place[4], place[5], place[6], place[7]
        o_j = tile * BR + lane
        m_row = (o_j < n_super) & m_f
        o_n = tl.arange(0, NP)[None, :]
        b_c = load_row(p_table, vary(o_f, F, R, PER_LANE), WIDTH)
        p_one = p_entering + ((((o_f * B + o_b) * n_super + o_j) * NP)[:, None] + o_n)
        b_s = load_states(p_one, (m_row & (o_j > 0))[:, None], R, N, NP)
        p_one = p_state + (((o_b * F + o_f) * N)[:, None] + o_n)
        b_first = load_states(p_one, (m_row & (o_j == 0))[:, None] & (o_n < N), R, N, NP)
        b_s = select(o_j > 0, b_s, b_first, N)
        remember(p_memory, place, b_s, b_c, p_x, x_stride_b, "onepole", ORDER, POLES, S, STEP, R, ANALYTIC)
        tl.debug_barrier()
        given = (
            p_memory,
            p_grad,
            (o_b * F + o_f) * M,
            (o_tile + lane * S).to(tl.int32),
            hop,
            (n_samples - 1) // hop,
            S,
        )
        adjoint_tile(
            place,
            b_c,
            given,
            p_table,
            p_gfinal,
            p_start,
            p_out,
            p_gstate,
            p_out,
            p_x,
            p_entering,
            p_first,
            p_first,
            p_part,
            n_samples,
            n_samples,
            n_super,
            B,
            1,
            F,
            x_stride_b,
            0,
            recall_gradient,
            DETECTOR,
            ANALYTIC,
            "onepole",
            ORDER,
            N,
            NP,
            POLES,
            S,
            S,
            STEP,
            R,
            BF,
            TASK,
            GRAD_X,
            False,
            SUMS,
        )
        tl.debug_barrier()


class Slices(NamedTuple):
    """What the launchers of the backward pass choose. Tests make it small."""

    tiling: Tiling = DEFAULT
    samples: int = GPU_CHUNK  # outputs of a slice
    superblock: int = 128  # of one-pole cascades, whose outputs are not stored
    states: int = 2 * STATES  # bytes of superblocks' states together, and of what adds up to the gradient of x
    memory: int = 24 << 20  # bytes of outputs that wait in the cache


SLICES = Slices()
SECTIONS = 4  # the most of envelopes that stay in the cache


def pull_sums_back(
    grad, gfinal, run: Run, hop: int, detector: str, need_x: bool, need_coef: bool, memory: int
) -> Pullback:
    """As :func:`tamt.triton_kernels.iir.launch.pull_back`, for the sums over hops of one-pole cascades.

    grad (B, F, hops), rows side by side or not; the signal has whole trips.
    """
    x, state, entering, n_samples, n_super, system, tiling = run
    B, F, _ = state.shape
    warps = 2  # as there
    lanes = warps * lanes_per_warp()
    BF = min(8, next_power_of_2(F))
    groups = cdiv(F, BF)
    tiles = cdiv(n_super, lanes // BF)
    n_programs = groups * B * tiles
    room = lanes * tiling.superblock * (2 if detector == "envelope" else 1)
    programs = max(1, min(n_programs, memory // (room * x.element_size())))
    outputs = x.new_empty(programs, room)
    gstate = torch.empty_like(state)
    first = x.new_empty(B if need_coef else 0, F, 2)
    part = x.new_empty(B * tiles if need_coef else 0, 4, F)
    gx = x.new_empty((groups, B, 1, n_samples) if need_x else 0)
    constants = {name: value for name, value in system.constants.items() if name != "KIND"}

    def adjoint(task: str, start: torch.Tensor, out: torch.Tensor, grad_x: bool, sums: bool) -> None:
        filter_frames_adjoint_kernel[(programs,)](
            p_grad=grad,
            p_memory=outputs,
            p_table=system.table,
            p_gfinal=gfinal,
            p_start=start,
            p_out=out,
            p_gstate=gstate,
            p_x=x,
            p_state=state,
            p_entering=entering,
            p_first=first,
            p_part=part,
            n_samples=n_samples,
            n_super=n_super,
            B=B,
            F=F,
            x_stride_b=x.stride(0),
            hop=hop,
            M=grad.stride(1),
            n_programs=n_programs,
            S=tiling.superblock,
            STEP=step_of(system, adjoint=True),
            R=lanes,
            BF=BF,
            PER_LANE=on_amd(),
            DETECTOR=detector,
            TASK=task,
            GRAD_X=grad_x,
            SUMS=sums,
            num_warps=warps,
            **constants,
            **LAUNCH,
        )

    start = gfinal
    if n_super > 1:
        NP = constants["NP"]
        ends = x.new_empty(F, B * n_super, NP)
        adjoint("ends", ends, ends, False, False)
        start = scan(ends, system.transition, None, (0, 0), n_super, B, system.constants, tiling, adjoint=True)
    adjoint("output", start, gx, need_x, need_coef)
    if need_x:
        gx = gx.sum(0) if groups > 1 else gx[0]
    return Pullback(gx, gstate, state.new_empty(0), first, part)


def onepole_backward(
    grad_means: torch.Tensor,
    grad_final: torch.Tensor,
    x: torch.Tensor,
    coef: torch.Tensor,
    state: torch.Tensor,
    order: int,
    hop: int,
    detector: str,
    need_x: bool,
    need_coef: bool,
    slices: Slices,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`filter_frames_backward` of one-pole cascades, and whole hops of at least a trip.

    The signal is taken in parts of rows and time, forward for the states before them, then backward. What follows the
    last whole trip, in the last hop, is a slice.
    """
    B, F, _ = state.shape
    length = x.shape[1] // TRIP * TRIP
    left = x.shape[1] - length
    tiling = slices.tiling._replace(superblock=slices.superblock)
    system = system_of(x, coef, "onepole", order, tiling)
    grad_sums = (grad_means * ((2 if detector == "power" else 1) / hop)).contiguous()
    grad_x = x.new_empty(x.shape if need_x else 0)
    grad_state, grad_coef = torch.empty_like(state), torch.zeros_like(coef) if need_coef else coef.new_empty(0)
    size = x.element_size()
    per_sample = 3 * F * system.constants["NP"] * size / tiling.superblock + need_x * F * size / 8
    rows, samples = together(length, B, per_sample, hop, slices.states)
    for first in range(0, B, rows):
        part = slice(first, first + rows)
        times = [slice(t, min(t + samples, length)) for t in range(0, length, samples)]
        before = [state[part]]
        for time in times if left else times[:-1]:
            run = run_of(x[part, None, time], before[-1], system, tiling)
            before.append(last_state(run, coef, "onepole", order))
        after = grad_final[part]
        if left:
            of_x, after, of_coef = sliced_backward(
                grad_means[part, :, -1:] * (left / hop),
                after,
                x[part, length:],
                coef,
                before.pop(),
                "onepole",
                order,
                left,
                detector,
                need_x,
                need_coef,
                slices.tiling,
                slices.samples,
            )
            if need_coef:
                grad_coef += of_coef
            if need_x:
                grad_x[part, length:] = of_x
        for time in reversed(times):
            run = run_of(x[part, None, time], before.pop(), system, tiling)
            hops = slice(time.start // hop, cdiv(time.stop, hop))
            pulled = pull_sums_back(
                grad_sums[part, :, hops], after, run, hop, detector, need_x, need_coef, slices.memory
            )
            if need_coef:
                grad_coef += onepole_gradient(after, run, pulled)
            if need_x:
                grad_x[part, time] = pulled.gx[:, 0]
            after = pulled.gstate
        grad_state[part] = after
    return grad_x, grad_state, grad_coef


def last_state(run: Run, coef: torch.Tensor, kind: str, order: int) -> torch.Tensor:
    """State after a signal of whole trips, from that which enters its last superblock."""
    B, _, N = run.state.shape
    entering = run.state
    if run.n_super > 1:
        entering = run.start.unflatten(1, (B, run.n_super))[:, :, -1, :N].transpose(0, 1)
    rest = run.x[..., (run.n_super - 1) * run.tiling.superblock :]
    return iir_forward(rest, coef, entering, kind, order, run.tiling)[1]


def sliced_backward(
    grad_means: torch.Tensor,
    grad_final: torch.Tensor,
    x: torch.Tensor,
    coef: torch.Tensor,
    state: torch.Tensor,
    kind: str,
    order: int,
    hop: int,
    detector: str,
    need_x: bool,
    need_coef: bool,
    tiling: Tiling,
    samples: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`filter_frames_backward` by outputs in slices of so many samples, of envelopes as two channels each."""
    if detector == "envelope":

        def of_powers(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            grad_means, grad_final, coef, state = given
            return sliced_backward(
                grad_means,
                grad_final,
                x,
                coef,
                state,
                kind,
                order,
                hop,
                "power",
                need_x,
                need_coef,
                tiling,
                samples,
            )

        return pull_back_parts(of_powers, grad_means, grad_final, coef, state)
    total = torch.zeros_like(coef, memory_format=torch.contiguous_format) if need_coef else coef.new_empty(0)
    grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_x else x.new_empty(0)
    system = system_of(x, coef, kind, order, tiling)

    def advance(chunk: torch.Tensor, states: States) -> States:
        return (last_state(run_of(chunk[:, None], states[0].contiguous(), system, tiling), coef, kind, order),)

    def pull_back(rows: slice, time: slice, states: States, grads: States) -> States:
        given = x[rows, None, time], coef, states[0], kind, order
        y, _ = iir_forward(*given, tiling)
        grad_y = pull_back_(y, grad_means[rows], time.start, hop, detector)
        of_x, of_state, of_coef = iir_backward(grad_y, grads[0], *given, need_x, need_coef, tiling)
        if need_x:
            grad_x[rows, time] = of_x[:, 0]
        if need_coef:
            total.add_(of_coef)
        return (of_state,)

    chunks = Chunks(len(x), len(coef), grad_means.shape[2] * hop, Sizes(samples))
    (grad_state,) = in_chunks_backward(advance, pull_back, x, (state,), (grad_final,), chunks)
    return grad_x, grad_state, total


def filter_frames_backward(
    grad_means: torch.Tensor,
    grad_final: torch.Tensor,
    x: torch.Tensor,
    coef: torch.Tensor,
    state: torch.Tensor,
    kind: str,
    order: int,
    hop: int,
    detector: str,
    need_x: bool,
    need_coef: bool,
    slices: Slices | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, of state and of coef, from those of the means (B, F, M) and of the final state (B, F, N).

    Those of x and of coef are empty where they are not needed.
    """
    slices = SLICES if slices is None else slices
    length = grad_means.shape[2] * hop
    with on_device_of(x):
        # In float64 it spills on AMD, and LLVM does not compile that of envelopes of more sections for sm_100.
        kept = kind == "onepole" and x.dtype == torch.float32 and (detector != "envelope" or order <= SECTIONS)
        if kept and hop >= TRIP and grad_means.numel():
            given = grad_final.contiguous(), x[:, :length], coef.contiguous(), state.contiguous()
            grad_x, grad_state, grad_coef = onepole_backward(
                grad_means, *given, order, hop, detector, need_x, need_coef, slices
            )
            if need_x and length < x.shape[1]:
                grad_x = torch.nn.functional.pad(grad_x, (0, x.shape[1] - length))
            return grad_x, grad_state, grad_coef
        return sliced_backward(
            grad_means,
            grad_final,
            x,
            coef,
            state,
            kind,
            order,
            hop,
            detector,
            need_x,
            need_coef,
            slices.tiling,
            slices.samples,
        )
