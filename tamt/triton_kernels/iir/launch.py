"""Launchers of the IIR engine: filters with a linear recursion per channel, forward and backward.

Forward, by stage, with the file that holds the kernel:

1. table, superblock transition and response of each channel (tables.py)
2. end states of superblocks: a matrix product where float32 channels share the signal (scan.py), else a recursion
   (output.py)
3. scan of the end states, in chunks at as many levels as needed (scan.py)
4. output: recursion from the scanned states (output.py)

Backward does stages 2 to 4 for the adjoint system, backwards in time (adjoint.py). For the coefficients of one-pole
cascades it correlates signal and adjoint states on the way (onepole.py); for those of the other kinds states, adjoint
states, signal and gradient over blocks of 64 samples (gradient.py), and pulls what they give for the matrices of such
blocks back to the coefficients (blocks.py).

Of few short signals stages 2 to 4 are one launch forward (short.py).

The kinds of filter and their states are described in :mod:`tamt.triton_kernels.iir.sections`.
"""

from typing import Any, NamedTuple

import torch

from tamt.design.rows import KERNEL_ORDER
from tamt.shared.iir import BLOCK as BORDER
from tamt.shared.iir import KINDS, Blocks, block_shapes
from tamt.shared.iir_gradients import (
    add_block_gradients,
    add_power_gradients,
    blocked,
    diagonal_sums,
    fanned,
    outer,
)
from tamt.triton_kernels._common import (
    LAUNCH,
    cdiv,
    dot_precision,
    lanes_per_warp,
    next_power_of_2,
    on_amd,
    on_device_of,
)

from .adjoint import iir_adjoint_kernel, iir_adjoint_tail_kernel
from .blocks import iir_blocks_vjp_kernel
from .gradient import iir_gradient_kernel
from .onepole import iir_onepole_gradient_kernel
from .output import iir_forward_kernel, iir_forward_tail_kernel
from .scan import iir_end_state_kernel, iir_scan_kernel
from .short import iir_short_kernel
from .tables import iir_design_kernel, iir_power_kernel


class Tiling(NamedTuple):
    """Sizes the launchers choose. The defaults are for GPUs; tests make them small to reach every level."""

    superblock: int = 256  # samples a lane of the recursions goes through; a multiple of 64
    chunk: int = 32  # superblocks in a chunk of the scan; a power of two
    top: int = 64  # a level of at most this many blocks is scanned in one go
    short: int = 128  # a short signal is cut into at most so many superblocks of so many samples; 32, 64, 128 or none


DEFAULT = Tiling()
TRIP = 16  # samples the recursions take at once, or half of them
FEW = 1024  # filtered signals of a short batch; all of their programs run at the same time
# Of the product for the end states: superblocks, states and samples of a tile.
END_ROWS, END_COLUMNS, END_STEP, END_WARPS, END_STAGES = 64, 64, 32, 4, 3
# Of the block gradients: blocks of a step, programs to aim at. With more warps the operands of the products pass
# through shared memory several times as often.
GRADIENT_BQ, GRADIENT_WARPS, GRADIENT_STAGES, GRADIENT_PROGRAMS = 32, 4, 1, 1024
VJP_WARPS = 4  # of the kernel that pulls gradients of matrices back


class System(NamedTuple):
    """A batch of filters as the kernels see it: what :func:`iir_design_kernel` finds, and the constants of the kind."""

    table: torch.Tensor  # (F, WIDTH): what a lane has in registers
    transition: torch.Tensor  # (F, NP, NP) or (F, levels, NP, NP), float64: over a superblock, two, four ...
    response: torch.Tensor  # (samples of a superblock, F NP): of the end state to each sample, or empty
    constants: dict[str, Any]  # KIND, ORDER, N, NP, WIDTH, POLES


def n_states(kind: str, order: int) -> int:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {tuple(KINDS)}, got {kind!r}")
    if not 1 <= order <= KERNEL_ORDER:
        raise ValueError(f"order must be in 1..{KERNEL_ORDER}, got {order}")
    return KINDS[kind].states(order)


def aligned(x: torch.Tensor, channels: int) -> torch.Tensor:
    """x (B, signals, T), samples side by side and, where channels share a signal, rows that load 128 bits at a time.

    That may take a copy, which is little beside the output of all channels.
    """
    B, signals, T = x.shape
    if signals == channels:
        return x if x.stride(-1) == 1 else x.contiguous()
    if x.stride(-1) == 1 and x.stride(0) % TRIP == 0 and (signals == 1 or x.stride(1) % TRIP == 0):
        return x
    return x.new_empty(B, signals, cdiv(T, TRIP) * TRIP)[..., :T].copy_(x)


def uses_product(x: torch.Tensor) -> bool:
    """End states by matrix product: where one signal serves all channels and float32 is enough."""
    return x.shape[1] == 1 and x.dtype == torch.float32


def describe(coef: torch.Tensor, kind: str, order: int, steps: int, response: bool, levels: int = 1) -> System:
    """The system of coef (F, P): table, transition over ``steps`` samples and, if asked, response to each of them.

    With more ``levels`` the transitions over twice as many samples, four times as many and so on follow.
    """
    F, P = coef.shape
    N = n_states(kind, order)
    NP = next_power_of_2(N)
    poles = 16 if kind in ("onepole", "allpole") and coef.dtype == torch.float32 else 1
    width = {"biquad": P, "modal": 5 * order}.get(kind, P - 3 + 2 * poles)
    table = coef.new_empty(F, width)
    transition = coef.new_empty(F, *[levels] * (levels > 1), NP, NP, dtype=torch.float64)
    product = coef.new_empty(steps if response else 0, F * NP, dtype=torch.float32)
    constants = {"KIND": kind, "ORDER": order, "N": N, "NP": NP, "WIDTH": width, "POLES": poles}
    iir_design_kernel[(F,)](
        p_coef=coef.contiguous(),
        p_table=table,
        p_transition=transition,
        p_response=product,
        F=F,
        steps=steps,
        P=P,
        LANES=next_power_of_2(N + 1),
        COLUMNS=32 if steps % 32 == 0 else 1,
        RESPONSE=response,
        LEVELS=levels,
        num_warps=max(1, NP * NP // 32),
        **constants,
        **LAUNCH,
    )
    return System(table, transition, product, constants)


def scan(ends, transition, start, start_strides, n, B, constants, tiling, adjoint=False, reverse=None):
    """States entering each of n blocks of B rows, from what the blocks add by their end: ``s[j + 1] = A s[j] + e[j]``.

    ends (F, B n, NP), transition (F, NP, NP); start holds the state entering block 0 of each row, (f, b, n < N) at the
    strides (start_strides, 1), or is None for zeros. With ``adjoint`` A is transposed, and blocks count from the end of
    the row if ``reverse`` does not say otherwise.
    """
    reverse = adjoint if reverse is None else reverse
    F, _, NP = ends.shape
    chunk = n if n <= tiling.top else tiling.chunk
    n_chunks = cdiv(n, chunk)
    lanes = 8
    grid = (F * cdiv(B * n_chunks, lanes),)
    sizes = {"n": n, "B": B, "F": F, "n_chunks": n_chunks, "chunk": chunk}
    options = {
        "a_stride_out": 1 if adjoint else NP,
        "a_stride_in": NP if adjoint else 1,
        "N": constants["N"],
        "NP": NP,
        "R": lanes,
        "REVERSE": reverse,
        "num_warps": 4 if NP > 8 else 2,
        **LAUNCH,
    }
    if n_chunks > 1:
        leaving = ends.new_empty(F, B * n_chunks, NP, dtype=torch.float64)
        iir_scan_kernel[grid](
            p_e=ends,
            p_transition=transition,
            p_start=ends,
            p_out=leaving,
            start_stride_f=0,
            start_stride_r=0,
            STATES=False,
            START=False,
            **sizes,
            **options,
        )
        power = torch.empty_like(transition)
        iir_power_kernel[(F,)](
            p_in=transition, p_out=power, NP=NP, SQUARINGS=chunk.bit_length() - 1, num_warps=4, **LAUNCH
        )
        # Chunks are already counted from the end, so the levels above run forward, with the transposed A still.
        start = scan(leaving, power, start, start_strides, n_chunks, B, constants, tiling, adjoint, reverse=False)
        start_strides = (B * n_chunks * NP, NP)
    states = torch.empty_like(ends)
    iir_scan_kernel[grid](
        p_e=ends,
        p_transition=transition,
        p_start=ends if start is None else start,
        p_out=states,
        start_stride_f=start_strides[0],
        start_stride_r=start_strides[1],
        STATES=True,
        START=start is not None,
        **sizes,
        **options,
    )
    return states


class Run(NamedTuple):
    """A signal cut into superblocks, with what the recursion over them needs."""

    x: torch.Tensor  # (B, signals, T), last stride 1; channel f filters signal f // fan
    state: torch.Tensor  # (B, F, N), contiguous
    start: torch.Tensor  # (F, B n_super, NP): states that enter the superblocks after the first
    n_samples: int  # T without the last T % 16
    n_super: int
    system: System
    tiling: Tiling

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments of most kernels that tell how large the signal is and where its parts are."""
        B, signals, T = self.x.shape
        fan = self.state.shape[1] // signals
        # Kernels would be told apart by strides that no address depends on.
        x_stride_s = 0 if signals == 1 else self.x.stride(1)
        return {
            "T": T,
            "B": B,
            "signals": signals,
            "fan": fan,
            "x_stride_b": self.x.stride(0),
            "x_stride_s": x_stride_s,
        }

    @property
    def whole(self) -> dict[str, int]:
        """:attr:`sizes` with those of the whole trips."""
        return {"n_samples": self.n_samples, "n_super": self.n_super, **self.sizes}


def step_of(system: System, adjoint: bool = False) -> int:
    """Samples of a lane in registers at once: half a trip where states, or numbers, take many registers themselves.

    The 16 poles of float32 cascades need whole trips. The adjoint of modal sections takes fewer registers with half a
    trip on AMD alone.
    """
    modal = system.constants["KIND"] == "modal" and (on_amd() or not adjoint)
    return TRIP // 2 if modal or system.table.dtype == torch.float64 else TRIP


def recur(task: str, run: Run, out: torch.Tensor, final: torch.Tensor) -> None:
    """Launches :func:`iir_forward_kernel` for one of its tasks."""
    B, F, _ = run.state.shape
    lanes = lanes_per_warp()
    iir_forward_kernel[(F * B * cdiv(run.n_super, lanes),)](
        p_x=run.x,
        p_table=run.system.table,
        p_state=run.state,
        p_start=run.start,
        p_out=out,
        p_final=final,
        S=run.tiling.superblock,
        BORDER=BORDER,
        STEP=step_of(run.system),
        R=lanes,
        PER_LANE=on_amd(),
        TASK=task,
        num_warps=1,
        **run.whole,
        **run.system.constants,
        **LAUNCH,
    )


def recur_tail(run: Run, state: torch.Tensor, y: torch.Tensor, final: torch.Tensor) -> None:
    """Launches :func:`iir_forward_tail_kernel` for the samples after the whole trips, from the state before them."""
    B, F, _ = state.shape
    lanes = lanes_per_warp()
    iir_forward_tail_kernel[(cdiv(B * F, lanes),)](
        p_x=run.x,
        p_table=run.system.table,
        p_state=state,
        p_y=y,
        p_final=final,
        length=y.shape[-1] - run.n_samples,
        R=lanes,
        num_warps=1,
        **run.sizes,
        **run.system.constants,
        **LAUNCH,
    )


def begin(x, coef, state, kind, order, tiling, response) -> Run:
    """Stage 1: the design, and the signal cut into superblocks. With ``response`` ready for :func:`enter`'s product."""
    n_samples = x.shape[-1] // TRIP * TRIP
    n_super = cdiv(n_samples, tiling.superblock)
    x = aligned(x, state.shape[1])
    state = state.contiguous()
    steps = tiling.superblock if n_super > 1 else 0
    system = describe(coef, kind, order, steps, response and n_super > 1)
    return Run(x, state, state, n_samples, n_super, system, tiling)


def enter(run: Run) -> Run:
    """Stages 2 and 3 of the forward pass: the states that enter the superblocks."""
    if run.n_super <= 1:
        return run
    B, F, _ = run.state.shape
    NP = run.system.constants["NP"]
    ends = run.x.new_empty(F, B * run.n_super, NP)
    if run.system.response.numel():
        tiles = cdiv(run.n_super, END_ROWS) * cdiv(F * NP, END_COLUMNS)
        iir_end_state_kernel[(B * tiles,)](
            p_x=run.x,
            p_response=run.system.response,
            p_end=ends,
            n_samples=run.n_samples,
            n_super=run.n_super,
            B=B,
            columns=F * NP,
            x_stride_b=run.x.stride(0),
            S=run.tiling.superblock,
            NP=NP,
            BR=END_ROWS,
            BC=END_COLUMNS,
            BK=END_STEP,
            PRECISION=dot_precision(),
            num_warps=END_WARPS,
            num_stages=END_STAGES,
            **LAUNCH,
        )
    else:
        recur("ends", run, ends, run.state)
    return scanned(run, ends)


def scanned(run: Run, ends: torch.Tensor) -> Run:
    """Stage 3 of the forward pass, from the end states of stage 2."""
    state, system = run.state, run.system
    strides = state.stride(1), state.stride(0)
    start = scan(ends, system.transition, state, strides, run.n_super, state.shape[0], system.constants, run.tiling)
    return run._replace(start=start)


def short(x, coef, state, kind, order, y, final, tiling) -> Run:
    """The output by :func:`iir_short_kernel`, but for the last T % 16 samples."""
    B, F, _ = state.shape
    n_samples = x.shape[-1] // TRIP * TRIP
    x, state = aligned(x, F), state.contiguous()
    levels = tiling.short.bit_length() - 1
    system = describe(coef, kind, order, tiling.short, False, levels)
    buffers = state.new_empty(B, F, 2, system.constants["N"], tiling.short, dtype=torch.float64)
    run = Run(x, state, state, n_samples, cdiv(n_samples, tiling.short), system, tiling)
    iir_short_kernel[(B * F,)](
        p_x=x,
        p_table=system.table,
        p_matrices=system.transition,
        p_state=state,
        p_buffers=buffers,
        p_y=y,
        p_final=final,
        n_samples=n_samples,
        levels=(run.n_super - 1).bit_length(),
        **{name: size for name, size in run.sizes.items() if name != "B"},
        S=tiling.short,
        STEP=step_of(system),
        LEVELS=levels,
        R=tiling.short,
        PER_LANE=on_amd(),
        num_warps=tiling.short // 32,
        **system.constants,
        **LAUNCH,
    )
    return run


def iir_forward(
    x: torch.Tensor, coef: torch.Tensor, state: torch.Tensor, kind: str, order: int, tiling: Tiling = DEFAULT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, F, T) and state after the last sample (B, F, N) of F filters.

    x (B, S, T), F a multiple of S: filter f filters signal f // (F / S); coef (F, P); state (B, F, N) before the first
    sample.
    """
    B, F, _ = state.shape
    T = x.shape[-1]
    y = x.new_empty(B, F, T)
    if y.numel() == 0:
        return y, state.clone(memory_format=torch.contiguous_format)
    final = torch.empty_like(state, memory_format=torch.contiguous_format)
    with on_device_of(x):
        if B * F <= FEW and TRIP <= T < tiling.short**2 + TRIP:
            run = short(x, coef, state, kind, order, y, final, tiling)
        else:
            run = enter(begin(x, coef, state, kind, order, tiling, uses_product(x)))
            if run.n_samples:
                recur("output", run, y, final)
        if run.n_samples < T:
            recur_tail(run, final if run.n_samples else run.state, y, final)
    return y, final


class Pullback(NamedTuple):
    """What the adjoint recursion leaves behind."""

    gx: torch.Tensor  # of x's shape, or empty
    gstate: torch.Tensor  # (B, F, N)
    border: torch.Tensor  # (F, B T // 64, NP): adjoint states at the ends of whole blocks, or empty
    first: torch.Tensor  # (B, F, 2): l_0[0] of iir_onepole, or empty
    part: torch.Tensor  # (n, 4, F): sums of iir_onepole, or empty


def pull_back(gy, gfinal, run: Run, need_x: bool, borders: bool, sums: bool) -> Pullback:
    """The adjoint system's stages 2 to 4: its states at the ends of superblocks, and its output.

    ``borders`` and ``sums`` ask for what Pullback has of that name; sums need the states that enter the superblocks.
    """
    x, state, entering, n_samples, n_super, system, tiling = run
    B, F, _ = state.shape
    T = x.shape[-1]
    NP = system.constants["NP"]
    # One is enough, but then ptxas spills a few words on sm_100; of modal cascades with two, on sm_80.
    warps = 1 if system.constants["KIND"] == "modal" else 2
    lanes = warps * lanes_per_warp()
    signals = x.shape[1]
    # Lanes of one program that share a superblock of a signal add up what they find.
    BF = min(8, next_power_of_2(F // signals))
    groups = cdiv(F // signals, BF)
    tiles = cdiv(n_super, lanes // BF)
    tail_tiles = cdiv(B, lanes // BF) if n_samples < T else 0
    gstate = torch.empty_like(state)
    border = x.new_empty(F, B * (T // BORDER) if borders else 0, NP)
    first = x.new_empty(B if sums else 0, F, 2)
    part = x.new_empty(B * tiles + tail_tiles if sums else 0, 4, F)
    gx = x.new_empty((groups, *x.shape) if need_x else 0)
    options = {"R": lanes, "BF": BF, "num_warps": warps, **system.constants, **LAUNCH}
    zeroth = first
    if tail_tiles:
        cut = torch.empty_like(state) if n_samples else gstate
        zeroth = torch.empty_like(first) if n_samples else first
        iir_adjoint_tail_kernel[(signals * groups * tail_tiles,)](
            p_gy=gy,
            p_table=system.table,
            p_gfinal=gfinal,
            p_out=gx,
            p_gstate=cut,
            p_x=x,
            p_zeroth=zeroth,
            p_part=part[B * tiles :],
            length=T - n_samples,
            GRAD_X=need_x,
            SUMS=sums,
            **run.sizes,
            **options,
        )
        gfinal = cut

    def adjoint(task: str, start, out, grad_x: bool, borders: bool, sums: bool) -> None:
        iir_adjoint_kernel[(signals * groups * B * tiles,)](
            p_gy=gy,
            p_table=system.table,
            p_gfinal=gfinal,
            p_start=start,
            p_out=out,
            p_gstate=gstate,
            p_border=border,
            p_x=x,
            p_entering=entering,
            p_zeroth=zeroth,
            p_first=first,
            p_part=part,
            S=tiling.superblock,
            BORDER=BORDER,
            STEP=step_of(system, adjoint=True),
            PER_LANE=on_amd(),
            TASK=task,
            GRAD_X=grad_x,
            BORDERS=borders,
            SUMS=sums,
            # Kernels would be told apart by what they do not use.
            **(run.whole if sums else {**run.whole, "x_stride_b": 0, "x_stride_s": 0}),
            **options,
        )

    start = gfinal
    if n_super > 1:
        ends = x.new_empty(F, B * n_super, NP)
        adjoint("ends", ends, ends, False, False, False)
        start = scan(ends, system.transition, None, (0, 0), n_super, B, system.constants, tiling, adjoint=True)
    if n_super:
        adjoint("output", start, gx, need_x, borders, sums)
    if need_x:
        gx = gx.sum(0) if groups > 1 else gx[0]
    return Pullback(gx, gstate, border, first, part)


def onepole_gradient(gfinal, run: Run, pulled: Pullback) -> torch.Tensor:
    """Gradient of the coefficients (F, 5) of one-pole cascades."""
    out = run.x.new_empty(run.state.shape[1], 5)
    iir_onepole_gradient_kernel[(len(out),)](
        p_part=pulled.part,
        p_first=pulled.first,
        p_gstate=pulled.gstate,
        p_gfinal=gfinal,
        p_x=run.x,
        p_table=run.system.table,
        p_state=run.state,
        p_start=run.start,
        p_out=out,
        n_parts=len(pulled.part),
        n_super=run.n_super,
        S=run.tiling.superblock,
        R=lanes_per_warp(),
        num_warps=1,
        **run.sizes,
        **{name: value for name, value in run.system.constants.items() if name != "KIND"},
        **LAUNCH,
    )
    return out


def add_tail_gradients(total: Blocks, gy, gfinal, x, entering, transitions) -> None:
    """What the last, short block adds to the gradients, from the states (F, B, N) that enter it.

    transitions (F, 7, N, N) over 1, 2, 4 ... 64 samples. The sums over batch rows are part of the products, as a launch
    for each row would take longer than its work.
    """
    length = gy.shape[-1]
    gy, leaving = gy.transpose(0, 1), gfinal.transpose(0, 1)
    x = fanned(x.transpose(0, 1), len(gy))
    total.impulse[:, :length] += diagonal_sums(x.mT @ gy)
    total.output[:, :length] += gy.mT @ entering
    total.input[:, :, BORDER - length :] += leaving.mT @ x
    add_power_gradients(total.transitions, length, entering, leaving, transitions)


def block_gradients(gy, gfinal, run: Run, coef, kind, order, border) -> Blocks:
    """Gradients of the matrices of :func:`tamt.blocks.iir_blocks`."""
    x, state, _, n_samples, _, system, _ = run
    B, F, N = state.shape
    T = x.shape[-1]
    L = BORDER
    NP = system.constants["NP"]
    n_blocks = T // L
    n_borders = cdiv(n_samples, L)
    states = x.new_empty(F, B * n_borders, NP)
    cut = torch.empty_like(state)
    if n_samples:
        recur("borders", run, states, cut)
    grad = Blocks(*(x.new_zeros(shape) for shape in block_shapes(F, N)))
    whole = n_blocks * L
    if n_blocks and x.dtype == torch.float64:
        # cuBLAS has the double-precision matrix units; tl.dot takes no float64 in triton 3.4 and is slow with it later.
        starts = states.unflatten(1, (B, n_borders))[:, :, :n_blocks, :N]
        leaving = border.unflatten(1, (B, n_blocks))[..., :N]
        gradient, signal = blocked(gy[..., :whole]), blocked(x[..., :whole])
        add_block_gradients(grad, gradient, leaving, signal, starts)
        grad.transitions[:, -1] = outer(leaving, starts)
    elif n_blocks:
        BQ = GRADIENT_BQ if T % TRIP == 0 else GRADIENT_BQ // 2  # rows that load word by word spill on sm_80
        ND = max(16, NP)
        splits = max(1, min(GRADIENT_PROGRAMS // F, cdiv(B * n_blocks, BQ)))
        part = x.new_empty(splits, F, (L + ND) ** 2)
        iir_gradient_kernel[(F * splits,)](
            p_gy=gy,
            p_x=x,
            p_state=states,
            p_adjoint=border,
            p_out=part,
            n_blocks=n_blocks,
            n_states_row=n_borders,
            n_splits=splits,
            NP=NP,
            ND=ND,
            L=L,
            BQ=BQ,
            PRECISION=dot_precision(),
            num_warps=GRADIENT_WARPS,
            num_stages=GRADIENT_STAGES,
            **run.sizes,
            **LAUNCH,
        )
        hh, he, hc, ha = part.sum(0).split((L * L, L * ND, L * ND, ND * ND), 1)
        grad.impulse.copy_(diagonal_sums(hh.unflatten(1, (L, L))))
        grad.input.copy_(he.unflatten(1, (L, ND))[..., :N].mT)
        grad.output.copy_(hc.unflatten(1, (L, ND))[..., :N])
        grad.transitions[:, -1] = ha.unflatten(1, (ND, ND))[:, :N, :N]
    if whole < T:
        entering = states.unflatten(1, (B, n_borders))[:, :, -1, :N] if n_samples > whole else cut.transpose(0, 1)
        if not n_samples:
            entering = state.transpose(0, 1)
        powers = describe(coef, kind, order, 1, False, BORDER.bit_length()).transition[..., :N, :N].to(x.dtype)
        add_tail_gradients(grad, gy[..., whole:], gfinal, x[..., whole:], entering, powers)
    return grad


def coefficient_gradient(coef, grad: Blocks, kind: str, order: int) -> torch.Tensor:
    """Gradient of coef (F, P) from those of its block matrices."""
    F, P = coef.shape
    N = n_states(kind, order)
    lanes = next_power_of_2(N + 1)
    columns = max(1, 32 * VJP_WARPS // lanes)
    out = coef.new_empty(F, P)
    iir_blocks_vjp_kernel[(F * cdiv(P, columns),)](
        p_coef=coef.contiguous(),
        p_impulse=grad.impulse,
        p_output=grad.output,
        p_input=grad.input,
        p_transitions=grad.transitions,
        p_out=out,
        P=P,
        KIND=kind,
        ORDER=order,
        N=N,
        L=BORDER,
        POWERS=BORDER.bit_length(),
        LANES=lanes,
        COLUMNS=columns,
        num_warps=VJP_WARPS,
        **LAUNCH,
    )
    return out


def iir_backward(
    gy: torch.Tensor,
    gfinal: torch.Tensor,
    x: torch.Tensor,
    coef: torch.Tensor,
    state: torch.Tensor,
    kind: str,
    order: int,
    need_x: bool,
    need_coef: bool,
    tiling: Tiling = DEFAULT,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, of state and of coef, from those of y (B, F, T) and of the final state, gfinal (B, F, N).

    Those of x and of coef are empty where they are not needed.
    """
    if gy.numel() == 0:
        gx = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_x else x.new_empty(0)
        gcoef = torch.zeros_like(coef, memory_format=torch.contiguous_format) if need_coef else x.new_empty(0)
        return gx, gfinal.clone(memory_format=torch.contiguous_format), gcoef
    with on_device_of(x):
        gy, gfinal = gy.contiguous(), gfinal.contiguous()
        run = begin(x, coef, state, kind, order, tiling, need_coef and uses_product(x))
        if need_coef:
            run = enter(run)
        sums = need_coef and kind == "onepole"
        pulled = pull_back(gy, gfinal, run, need_x, need_coef and not sums, sums)
        if sums:
            gcoef = onepole_gradient(gfinal, run, pulled)
        elif need_coef:
            gcoef = coefficient_gradient(
                coef, block_gradients(gy, gfinal, run, coef, kind, order, pulled.border), kind, order
            )
        else:
            gcoef = x.new_empty(0)
        return pulled.gx, pulled.gstate, gcoef
