"""DRNL filters: ``y = linear(x) + back(NL(front(x)))`` with cascades of modal sections and the broken stick NL.

Forward, in the stages of :mod:`tamt.triton_kernels.iir`; what is new is fused, so that per output sample 12 bytes of
float32 move:

1. states that enter the superblocks of the front and the linear cascade, which filter the same shared signal
2. front kernel: front cascade and broken stick; writes w = NL(front(x)), and runs the back cascade over it from rest,
   which gives that cascade's end states of superblocks
3. scan of these
4. back kernel: back cascade over w plus linear cascade over x

The last samples of lengths not divisible by 16 go through all at once, in a kernel of their own.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from tamt.shared.iir import KINDS

from ._common import LAUNCH, cdiv, lanes_per_warp, on_amd, on_device_of
from .broken_stick import broken_stick_gain, load_stick
from .iir.launch import DEFAULT, Run, System, Tiling, aligned, begin, enter, scanned, uses_product
from .iir.output import (
    load_starts,
    load_states,
    locate,
    recur,
    states_at_rest,
    store_output,
    store_states,
)
from .iir.sections import forward_step, load_row, vary

STEP = 8  # samples of a lane in registers at once; 16 leave fewer lanes on a processor


@triton.jit
def front_sample(b_x, b_s, b_front, b_stick, FRONT: tl.constexpr):
    """(w, states after) of ``w = NL(front(x))``."""
    b_v, b_s = forward_step(b_x, b_s, b_front, "modal", FRONT, 0, 1)
    return b_v * broken_stick_gain(b_v, b_stick[0], b_stick[1], b_stick[2]), b_s


@triton.jit
def front_and_back_sample(b_u, b_states, b_c, PHASE: tl.constexpr, FORM: tl.constexpr):
    """Of :func:`recur`: w from x, and the back cascade's states; FORM = (FRONT, BACK)."""
    b_w, b_s = front_sample(b_u[0], b_states[0], b_c[0], b_c[2], FORM[0])
    _, b_e = forward_step(b_w, b_states[1], b_c[1], "modal", FORM[1], 0, 1)
    return b_w, (b_s, b_e)


@triton.jit
def back_sample(b_u, b_states, b_c, PHASE: tl.constexpr, FORM: tl.constexpr):
    """Of :func:`recur`: ``back(w) + linear(x)`` from w and x; FORM = (BACK, LINEAR), 0 for one that is left out."""
    b_y = b_u[0]
    b_e = b_states[0]
    b_s = b_states[1]
    if FORM[0] > 0:
        b_y, b_e = forward_step(b_y, b_e, b_c[0], "modal", FORM[0], 0, 1)
    if FORM[1] > 0:
        b_l, b_s = forward_step(b_u[1], b_s, b_c[1], "modal", FORM[1], 0, 1)
        b_y += b_l
    return b_y, (b_e, b_s)


@triton.jit
def load_paths(
    p_linear,
    p_linear_state,
    p_linear_start,
    p_back,
    p_back_state,
    p_back_start,
    o_channel,
    o_row,
    o_super,
    m_row,
    o_j,
    LINEAR: tl.constexpr,
    NP_LINEAR: tl.constexpr,
    BACK: tl.constexpr,
    NP_BACK: tl.constexpr,
    R: tl.constexpr,
    DO_BACK: tl.constexpr,
    DO_LINEAR: tl.constexpr,
):
    """Tables and states of superblocks o_j, each a tuple (back, linear), empty for one that is left out."""
    b_back = ()
    b_e = ()
    if DO_BACK:
        b_back = load_row(p_back, o_channel, 5 * BACK)
        p_back_start += o_super * NP_BACK
        b_e = load_starts(p_back_start, p_back_state + o_row * (2 * BACK), m_row, o_j, R, 2 * BACK, NP_BACK)
    b_linear = ()
    b_s = ()
    if DO_LINEAR:
        b_linear = load_row(p_linear, o_channel, 5 * LINEAR)
        p_linear_start += o_super * NP_LINEAR
        b_s = load_starts(p_linear_start, p_linear_state + o_row * (2 * LINEAR), m_row, o_j, R, 2 * LINEAR, NP_LINEAR)
    return (b_back, b_linear), (b_e, b_s)


@triton.jit(do_not_specialize=["n_super", "B", "F"])
def drnl_front_kernel(
    p_x,
    p_front,
    p_state,
    p_start,
    p_final,
    p_stick,
    p_back,
    p_end,
    p_w,
    T,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    FRONT: tl.constexpr,
    NP_FRONT: tl.constexpr,
    BACK: tl.constexpr,
    NP_BACK: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
):
    """``w = NL(front(x))``, and what the back cascade makes of it in each superblock from rest.

    R neighbouring superblocks of one batch row and channel per program, a lane each. x (B, T), of which the first
    n_samples count, a multiple of 16; front (F, 5 FRONT) and back (F, 5 BACK) are tables; state (B, F, 2 FRONT) enters
    superblock 0 of each batch row, start (F, B, n_super, NP_FRONT) the others; stick (F, 3)
    -> w (B, F, T), final (B, F, 2 FRONT) = front's state after n_samples, and end (F, B, n_super, NP_BACK) = back's end
    states; those of the last superblock are not valid.
    """
    o_f, o_b, first, o_tile, length, end = locate(n_samples, n_super, F, S, R)
    lane = tl.arange(0, R)
    o_j = first + lane
    m_row = o_j < n_super
    o_row = o_b * F + o_f
    o_super = (o_f * B + o_b) * n_super + first
    o_channel = vary(o_f, F, R, PER_LANE)
    b_c = (
        load_row(p_front, o_channel, 5 * FRONT),
        load_row(p_back, o_channel, 5 * BACK),
        load_stick(p_stick, o_channel),
    )
    p_state += o_row * (2 * FRONT)
    p_start += o_super * NP_FRONT
    b_s = load_starts(p_start, p_state, m_row, o_j, R, 2 * FRONT, NP_FRONT)
    p_signals = (p_x + (o_b * x_stride_b + o_tile),)
    b_states = (b_s, states_at_rest(p_back, R, 2 * BACK))
    given = (p_w + (o_row * T + o_tile), (p_final + o_row * (2 * FRONT),), end, o_j == n_super - 1)
    FORM: tl.constexpr = (FRONT, BACK)
    NPS: tl.constexpr = (NP_FRONT, NP_BACK)
    b_states = recur(
        p_signals, b_states, b_c, given, length, front_and_back_sample, FORM, NPS, S, STEP, R, AFTER=store_output
    )
    p_tile = p_end + o_super * NP_BACK + (lane[:, None] * NP_BACK + tl.arange(0, NP_BACK)[None, :])
    store_states(p_tile, b_states[1], m_row[:, None], R, 2 * BACK, NP_BACK)


@triton.jit(do_not_specialize=["n_super", "B", "F"])
def drnl_back_kernel(
    p_x,
    p_linear,
    p_linear_state,
    p_linear_start,
    p_linear_final,
    p_back,
    p_back_state,
    p_back_start,
    p_back_final,
    p_y,
    T,
    n_samples,
    n_super,
    B,
    F,
    x_stride_b,
    LINEAR: tl.constexpr,
    NP_LINEAR: tl.constexpr,
    BACK: tl.constexpr,
    NP_BACK: tl.constexpr,
    S: tl.constexpr,
    STEP: tl.constexpr,
    R: tl.constexpr,
    PER_LANE: tl.constexpr,
    DO_BACK: tl.constexpr,
    DO_LINEAR: tl.constexpr,
):
    """In y (B, F, T), which holds w to begin with: DO_BACK ``y = back(y)``, then DO_LINEAR ``y += linear(x)``.

    Shapes as in :func:`drnl_front_kernel`. In place, because a program alone touches its superblocks, and a trip has
    all its samples in registers before the first of its outputs is stored.
    """
    o_f, o_b, first, o_tile, length, end = locate(n_samples, n_super, F, S, R)
    o_j = first + tl.arange(0, R)
    m_row = o_j < n_super
    o_row = o_b * F + o_f
    o_super = (o_f * B + o_b) * n_super + first
    b_c, b_states = load_paths(
        p_linear,
        p_linear_state,
        p_linear_start,
        p_back,
        p_back_state,
        p_back_start,
        vary(o_f, F, R, PER_LANE),
        o_row,
        o_super,
        m_row,
        o_j,
        LINEAR,
        NP_LINEAR,
        BACK,
        NP_BACK,
        R,
        DO_BACK,
        DO_LINEAR,
    )
    p_tile = p_y + (o_row * T + o_tile)
    p_signals = (p_tile, p_x + (o_b * x_stride_b + o_tile))
    p_finals = (p_back_final + o_row * (2 * BACK), p_linear_final + o_row * (2 * LINEAR))
    given = (p_tile, p_finals, end, o_j == n_super - 1)
    FORM: tl.constexpr = (BACK * DO_BACK, LINEAR * DO_LINEAR)
    NPS: tl.constexpr = (NP_BACK, NP_LINEAR)
    recur(p_signals, b_states, b_c, given, length, back_sample, FORM, NPS, S, STEP, R, AFTER=store_output)


@triton.jit(do_not_specialize=["T", "length", "B", "F", "x_stride_b"])
def drnl_tail_kernel(
    p_x,
    p_linear,
    p_front,
    p_back,
    p_stick,
    p_linear_state,
    p_front_state,
    p_back_state,
    p_linear_final,
    p_front_final,
    p_back_final,
    p_y,
    T,
    length,
    B,
    F,
    x_stride_b,
    LINEAR: tl.constexpr,
    NP_LINEAR: tl.constexpr,
    FRONT: tl.constexpr,
    NP_FRONT: tl.constexpr,
    BACK: tl.constexpr,
    NP_BACK: tl.constexpr,
    R: tl.constexpr,
):
    """The last length < 16 samples of every row, sample by sample; one lane per (batch row, channel).

    x (B, T), states (B, F, N) before these samples -> their part of y (B, F, T), and final states (B, F, N), which may
    be the same tensors as the states.
    """
    o_q = tl.program_id(0) * R + tl.arange(0, R)
    o_f = o_q % F
    m_q = o_q < B * F
    o_linear = (o_q.to(tl.int64) * (2 * LINEAR))[:, None] + tl.arange(0, NP_LINEAR)[None, :]
    o_front = (o_q.to(tl.int64) * (2 * FRONT))[:, None] + tl.arange(0, NP_FRONT)[None, :]
    o_back = (o_q.to(tl.int64) * (2 * BACK))[:, None] + tl.arange(0, NP_BACK)[None, :]
    m_linear = m_q[:, None] & (tl.arange(0, NP_LINEAR) < 2 * LINEAR)[None, :]
    m_front = m_q[:, None] & (tl.arange(0, NP_FRONT) < 2 * FRONT)[None, :]
    m_back = m_q[:, None] & (tl.arange(0, NP_BACK) < 2 * BACK)[None, :]
    p_xrow = p_x + (o_q // F).to(tl.int64) * x_stride_b + (T - length)
    p_yrow = p_y + o_q.to(tl.int64) * T + (T - length)
    b_l = load_states(p_linear_state + o_linear, m_linear, R, 2 * LINEAR, NP_LINEAR)
    b_s = load_states(p_front_state + o_front, m_front, R, 2 * FRONT, NP_FRONT)
    b_e = load_states(p_back_state + o_back, m_back, R, 2 * BACK, NP_BACK)
    for i in range(0, length):
        b_x = tl.load(p_xrow + i, mask=m_q, other=0.0)
        b_w, b_s = front_sample(b_x, b_s, load_row(p_front, o_f, 5 * FRONT), load_stick(p_stick, o_f), FRONT)
        b_c = (load_row(p_back, o_f, 5 * BACK), load_row(p_linear, o_f, 5 * LINEAR))
        b_y, b_states = back_sample((b_w, b_x), (b_e, b_l), b_c, 0, (BACK, LINEAR))
        b_e, b_l = b_states
        tl.store(p_yrow + i, b_y, mask=m_q)
    store_states(p_linear_final + o_linear, b_l, m_linear, R, 2 * LINEAR, NP_LINEAR)
    store_states(p_front_final + o_front, b_s, m_front, R, 2 * FRONT, NP_FRONT)
    store_states(p_back_final + o_back, b_e, m_back, R, 2 * BACK, NP_BACK)


def orders(**systems: System) -> dict[str, int]:
    """The kernels' constants that tell the cascades' numbers of sections and padded numbers of states."""
    found: dict[str, int] = {}
    for name, system in systems.items():
        found |= {name: system.constants["ORDER"], f"NP_{name}": system.constants["NP"]}
    return found


def drnl(
    x: torch.Tensor,
    linear: torch.Tensor,
    front: torch.Tensor,
    back: torch.Tensor,
    stick: torch.Tensor,
    state_linear: torch.Tensor,
    state_front: torch.Tensor,
    state_back: torch.Tensor,
    tiling: Tiling = DEFAULT,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output (B, F, T) of F filters, and the states of their linear, front and back cascades after the last sample.

    x (B, T); cascades (F, 6 K) of K modal sections, each with a K of its own; stick (F, 3), columns a, b, c; states
    (B, F, 2 K) before the first sample.
    """
    B, F, _ = state_front.shape
    T = x.shape[-1]
    y = x.new_empty(B, F, T)
    states = state_linear, state_front, state_back
    if y.numel() == 0:
        linear_final, front_final, back_final = (s.clone(memory_format=torch.contiguous_format) for s in states)
        return y, linear_final, front_final, back_final
    finals = tuple(torch.empty_like(state, memory_format=torch.contiguous_format) for state in states)

    def cut(signal: torch.Tensor, coef: torch.Tensor, state: torch.Tensor, response: bool) -> Run:
        return begin(signal, coef, state, "modal", KINDS["modal"].order(coef), tiling, response)

    with on_device_of(x):
        x, stick = aligned(x[:, None], F), stick.contiguous()
        runs = (
            enter(cut(x, linear, state_linear, uses_product(x))),
            enter(cut(x, front, state_front, uses_product(x))),
            cut(y, back, state_back, False),
        )
        n_samples = runs[0].n_samples
        if n_samples:
            linear_run, front_run, back_run = runs
            back_run = bent(front_run, back_run, stick, finals[1])
            # Both cascades in double precision do not fit the registers.
            for do_back, do_linear in ((True, True),) if y.dtype == torch.float32 else ((True, False), (False, True)):
                paths(linear_run, back_run, finals, do_back, do_linear)
        if n_samples < T:
            before = finals if n_samples else tuple(run.state for run in runs)
            last_samples(x, y, T - n_samples, tuple(run.system for run in runs), stick, before, finals)
    return y, finals[0], finals[1], finals[2]


def launch_sizes(run: Run, back: Run) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and arguments of the kernels that take a signal and, of all channels, what is in the signal of ``back``."""
    B, F, T = back.x.shape
    lanes = lanes_per_warp()
    return (F * B * cdiv(run.n_super, lanes),), {
        "T": T,
        "n_samples": run.n_samples,
        "n_super": run.n_super,
        "B": B,
        "F": F,
        "x_stride_b": run.x.stride(0),
        "S": run.tiling.superblock,
        "STEP": STEP,
        "R": lanes,
        "PER_LANE": on_amd(),
        "num_warps": 1,
        **LAUNCH,
    }


def bent(front: Run, back: Run, stick: torch.Tensor, final: torch.Tensor) -> Run:
    """Stages 2 and 3, all but the last T % 16 samples: w in the signal of ``back``, which it enters."""
    grid, sizes = launch_sizes(front, back)
    F, B = sizes["F"], sizes["B"]
    ends = back.x.new_empty(F, B * front.n_super, back.system.constants["NP"])
    drnl_front_kernel[grid](
        p_x=front.x,
        p_front=front.system.table,
        p_state=front.state,
        p_start=front.start,
        p_final=final,
        p_stick=stick,
        p_back=back.system.table,
        p_end=ends,
        p_w=back.x,
        **orders(FRONT=front.system, BACK=back.system),
        **sizes,
    )
    return scanned(back, ends) if back.n_super > 1 else back


def path_operands(linear: Run, back: Run, finals: Sequence[torch.Tensor]) -> dict[str, Any]:
    """What a kernel of stage 4 is given of both paths."""
    return {
        "p_x": linear.x,
        "p_linear": linear.system.table,
        "p_linear_state": linear.state,
        "p_linear_start": linear.start,
        "p_linear_final": finals[0],
        "p_back": back.system.table,
        "p_back_state": back.state,
        "p_back_start": back.start,
        "p_back_final": finals[2],
        **orders(LINEAR=linear.system, BACK=back.system),
    }


def paths(linear: Run, back: Run, finals: Sequence[torch.Tensor], do_back: bool, do_linear: bool) -> None:
    """Stage 4, or one of its paths, in place in the signal of ``back``."""
    grid, sizes = launch_sizes(linear, back)
    operands = path_operands(linear, back, finals)
    drnl_back_kernel[grid](p_y=back.x, DO_BACK=do_back, DO_LINEAR=do_linear, **operands, **sizes)


def last_samples(
    x: torch.Tensor,
    y: torch.Tensor,
    length: int,
    systems: Sequence[System],
    stick: torch.Tensor,
    before: Sequence[torch.Tensor],
    finals: Sequence[torch.Tensor],
) -> None:
    """The last ``length`` < 16 samples of y (B, F, T) and the final states, from x (B, 1, T) and the states before."""
    B, F, T = y.shape
    lanes = lanes_per_warp()
    linear, front, back = systems
    drnl_tail_kernel[(cdiv(B * F, lanes),)](
        p_x=x,
        p_linear=linear.table,
        p_front=front.table,
        p_back=back.table,
        p_stick=stick,
        p_linear_state=before[0],
        p_front_state=before[1],
        p_back_state=before[2],
        p_linear_final=finals[0],
        p_front_final=finals[1],
        p_back_final=finals[2],
        p_y=y,
        T=T,
        length=length,
        B=B,
        F=F,
        x_stride_b=x.stride(0),
        R=lanes,
        num_warps=1,
        **orders(LINEAR=linear, FRONT=front, BACK=back),
        **LAUNCH,
    )
