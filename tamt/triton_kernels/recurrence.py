"""Smoothing with attack and release, and its gradients: one pass over memory each.

Definition and shapes: :mod:`tamt.ops.recurrence`. A lane has a channel of a row, its state in a register, and goes
through time. A step takes some ten cycles, and memory answers after hundreds: so a group of frames is loaded while the
one before is worked on. Programs are of one warp, as there are few channels for many multiprocessors.
"""

import torch
import triton
import triton.language as tl

from ._common import LAUNCH, cdiv, lanes_per_warp, on_device_of

STEPS = 32  # frames of a group
BACK_STEPS = 16  # of three signals
LEAST_CHANNELS = 16  # side by side; fewer are brought together from all rows


@triton.jit
def load_frames(p_frame, stride, m, STEPS: tl.constexpr):
    """Tuple of STEPS frames, each (LANES,), from p_frame on; zeros where m is not set."""
    b_frames = ()
    for i in tl.static_range(STEPS):
        b_frames = b_frames + (tl.load(p_frame + i * stride, mask=m, other=0.0),)
    return b_frames


@triton.jit
def step(b_x, b_state, b_attack, b_release):
    """The next state. Both branches are computed while it is found which one holds; infinity is NaN."""
    b_difference = (b_x + 0.0 * b_x) - b_state
    b_rise = b_state + b_attack * b_difference
    b_fall = b_state + b_release * b_difference
    return tl.where(b_difference > 0, b_rise, b_fall)


@triton.jit(do_not_specialize=["N", "T", "C"])
def attack_release_kernel(
    p_x,
    p_attack,
    p_release,
    p_state,
    p_y,
    p_last,
    N,
    T,
    C,
    LANES: tl.constexpr,
    STEPS: tl.constexpr,
):
    """x (B, T, C), state (B, C) -> y (B, T, C), last (B, C); N = B C lanes, LANES of them per program."""
    o_lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    m = o_lane < N
    stride = C.to(tl.int64)
    o_first = o_lane // C * T * C + o_lane % C
    p_x += o_first
    p_y += o_first
    b_attack = tl.load(p_attack)
    b_release = tl.load(p_release)
    b_state = tl.load(p_state + o_lane, mask=m, other=0.0)
    n_groups = T // STEPS
    b_next = load_frames(p_x, stride, o_lane < tl.where(n_groups > 0, N, 0), STEPS)
    for group in range(n_groups):
        b_frames = b_next
        p_x += STEPS * stride
        b_next = load_frames(p_x, stride, o_lane < tl.where(group + 1 < n_groups, N, 0), STEPS)
        for i in tl.static_range(STEPS):
            b_state = step(b_frames[i], b_state, b_attack, b_release)
            tl.store(p_y + i * stride, b_state, mask=m)
        p_y += STEPS * stride
    for _ in range(n_groups * STEPS, T):
        b_state = step(tl.load(p_x, mask=m, other=0.0), b_state, b_attack, b_release)
        tl.store(p_y, b_state, mask=m)
        p_x += stride
        p_y += stride
    tl.store(p_last + o_lane, b_state, mask=m)


@triton.jit
def step_back(b_grad, b_x, b_before, b_carry, b_attack, b_release):
    """Gradient of x, of the state before, and what the constant of this frame gets, with whether that is attack's.

    What is not finite has no part in a loss of what came before it.
    """
    b_difference = b_x - b_before
    m_rise = b_difference > 0
    b_gain = tl.where(m_rise, b_attack, b_release)
    b_of_y = b_grad + b_carry
    b_of_x = b_gain * b_of_y
    b_share = tl.where(b_difference - b_difference == 0, b_difference, 0.0) * b_of_y
    return b_of_x, b_of_y - b_gain * b_of_y, b_share, m_rise


@triton.jit(do_not_specialize=["N", "T", "C"])
def attack_release_backward_kernel(
    p_grad,
    p_grad_last,
    p_x,
    p_attack,
    p_release,
    p_state,
    p_y,
    p_grad_x,
    p_grad_state,
    p_part,
    N,
    T,
    C,
    NEED_X: tl.constexpr,
    NEED_CONSTANTS: tl.constexpr,
    LANES: tl.constexpr,
    STEPS: tl.constexpr,
):
    """grad, x, y (B, T, C), grad_last, state (B, C) -> grad_x (B, T, C), grad_state (B, C), and part (2, N): sums of a
    lane's frames for attack and for release. Time runs backwards; the first frame, before which is the state, is last.
    """
    o_lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    m = o_lane < N
    stride = C.to(tl.int64)
    o_last = o_lane // C * T * C + o_lane % C + (T - 1) * stride
    p_grad += o_last
    p_x += o_last
    p_y += o_last - stride
    p_grad_x += o_last
    b_attack = tl.load(p_attack)
    b_release = tl.load(p_release)
    b_carry = tl.load(p_grad_last + o_lane, mask=m, other=0.0)
    b_attack_sum = tl.zeros_like(b_carry)
    b_release_sum = tl.zeros_like(b_carry)
    n_groups = (T - 1) // STEPS
    b_grads = load_frames(p_grad, -stride, o_lane < tl.where(n_groups > 0, N, 0), STEPS)
    b_xs = load_frames(p_x, -stride, o_lane < tl.where(n_groups > 0, N, 0), STEPS)
    b_ys = load_frames(p_y, -stride, o_lane < tl.where(n_groups > 0, N, 0), STEPS)
    for group in range(n_groups):
        b_grad = b_grads
        b_x = b_xs
        b_y = b_ys
        p_grad -= STEPS * stride
        p_x -= STEPS * stride
        p_y -= STEPS * stride
        m_next = o_lane < tl.where(group + 1 < n_groups, N, 0)
        b_grads = load_frames(p_grad, -stride, m_next, STEPS)
        b_xs = load_frames(p_x, -stride, m_next, STEPS)
        b_ys = load_frames(p_y, -stride, m_next, STEPS)
        # Sums of a group first: many frames one by one would cost digits.
        b_attack_group = tl.zeros_like(b_carry)
        b_release_group = tl.zeros_like(b_carry)
        for i in tl.static_range(STEPS):
            b_of_x, b_carry, b_share, m_rise = step_back(b_grad[i], b_x[i], b_y[i], b_carry, b_attack, b_release)
            if NEED_X:
                tl.store(p_grad_x - i * stride, b_of_x, mask=m)
            if NEED_CONSTANTS:
                b_attack_group += tl.where(m_rise, b_share, 0.0)
                b_release_group += tl.where(m_rise, 0.0, b_share)
        p_grad_x -= STEPS * stride
        b_attack_sum += b_attack_group
        b_release_sum += b_release_group
    for i in range(n_groups * STEPS, T):
        b_grad_frame = tl.load(p_grad, mask=m, other=0.0)
        b_x_frame = tl.load(p_x, mask=m, other=0.0)
        b_before = tl.load(p_y, mask=o_lane < tl.where(i < T - 1, N, 0), other=0.0)
        if i == T - 1:
            b_before = tl.load(p_state + o_lane, mask=m, other=0.0)
        b_of_x, b_carry, b_share, m_rise = step_back(b_grad_frame, b_x_frame, b_before, b_carry, b_attack, b_release)
        if NEED_X:
            tl.store(p_grad_x, b_of_x, mask=m)
        b_attack_sum += tl.where(m_rise, b_share, 0.0)
        b_release_sum += tl.where(m_rise, 0.0, b_share)
        p_grad -= stride
        p_x -= stride
        p_y -= stride
        p_grad_x -= stride
    if NEED_X:
        tl.store(p_grad_state + o_lane, b_carry, mask=m)
    if NEED_CONSTANTS:
        tl.store(p_part + o_lane, b_attack_sum, mask=m)
        tl.store(p_part + N + o_lane, b_release_sum, mask=m)


def _side_by_side(x: torch.Tensor) -> torch.Tensor:
    """``x`` (B, T, C) with lanes side by side: of few channels as (1, T, B C)."""
    return x.contiguous() if x.shape[2] >= LEAST_CHANNELS else x.movedim(1, 0).flatten(1)[None].contiguous()


def _as_given(lanes: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Undoes :func:`_side_by_side`."""
    if lanes.shape == shape:
        return lanes
    return lanes[0].unflatten(1, (shape[0], shape[2])).movedim(0, 1).contiguous()


def _options(lanes: torch.Tensor, steps: int) -> dict:
    return {"N": lanes.shape[0] * lanes.shape[2], "T": lanes.shape[1], "C": lanes.shape[2], "STEPS": steps} | {
        "LANES": lanes_per_warp(),
        "num_warps": 1,
        **LAUNCH,
    }


def attack_release(
    x: torch.Tensor, attack: torch.Tensor, release: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """y (B, T, C) and the last of it (B, C)."""
    if x.numel() == 0:
        return x.new_empty(x.shape), state.clone(memory_format=torch.contiguous_format)
    lanes, last = _side_by_side(x), state.new_empty(state.shape)
    y = lanes.new_empty(lanes.shape)
    with on_device_of(x):
        attack_release_kernel[(cdiv(state.numel(), lanes_per_warp()),)](
            lanes, attack, release, state.contiguous(), y, last, **_options(lanes, STEPS)
        )
    return _as_given(y, x.shape), last


def attack_release_backward(
    grad_y: torch.Tensor,
    grad_last: torch.Tensor,
    x: torch.Tensor,
    attack: torch.Tensor,
    release: torch.Tensor,
    state: torch.Tensor,
    y: torch.Tensor,
    need_x: bool,
    need_attack: bool,
) -> tuple[torch.Tensor, ...]:
    """Gradients of x, the two constants and the state; ``y`` is what :func:`attack_release` gave."""
    wanted = need_x, need_attack, need_attack, need_x
    if x.numel() == 0:
        of_state = grad_last.clone(memory_format=torch.contiguous_format)
        found = x.new_empty(x.shape), torch.zeros_like(attack), torch.zeros_like(release), of_state
        return tuple(g if needed else x.new_empty(0) for g, needed in zip(found, wanted, strict=True))
    lanes = _side_by_side(x)
    of_x, of_state = lanes.new_empty(lanes.shape if need_x else 0), state.new_empty(state.shape if need_x else 0)
    part = x.new_empty(2, state.numel() if need_attack else 0)
    with on_device_of(x):
        attack_release_backward_kernel[(cdiv(state.numel(), lanes_per_warp()),)](
            _side_by_side(grad_y),
            grad_last.contiguous(),
            lanes,
            attack,
            release,
            state.contiguous(),
            _side_by_side(y),
            of_x,
            of_state,
            part,
            NEED_X=need_x,
            NEED_CONSTANTS=need_attack,
            **_options(lanes, BACK_STEPS),
        )
    found = _as_given(of_x, x.shape) if need_x else of_x, part[0].sum(), part[1].sum(), of_state
    return tuple(g if needed else x.new_empty(0) for g, needed in zip(found, wanted, strict=True))
