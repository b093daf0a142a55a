"""Smoothing with attack and release in plain torch. Definition and shapes: :mod:`tamt.ops.recurrence`.

On the CPU time is cut into blocks, and a step moves all of them by a frame. Where they begin is found by Newton's
method: what a block makes of its first state is convex or concave, and piecewise linear, with the product of its
``1 - a`` as slope. So a walk through all blocks gives ends and slopes, a scan over these better starts, and after a few
walks, which only go through blocks whose start has moved, each block begins where the one before has ended.
"""

from __future__ import annotations

import math
from itertools import repeat

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt.shared.nonfinite import finite, on_cpu

LANES = 1 << 14  # that a step moves: so many lie in the cache, and few calls are needed
LEAST_BLOCKS = 8  # fewer gain nothing, as starts have to be found and slopes counted
TILE = 256  # lanes that are turned at a time from frames side by side to lanes side by side, or frames back
LONGER = 4  # times longer may blocks be that forget their start, as two walks will do, and slopes are nothing
FLUSHED = 64  # frames after which what has become subnormal is made 0: processors take ten times longer over it
CLOSE = 4  # rounding errors within which a block has to begin where the one before has ended


def _plain(x: Tensor, attack: Tensor, release: Tensor, state: Tensor) -> Tensor:
    """``y`` (B, T, C), one frame after the other."""
    frames = []
    for value in x.unbind(1):
        state = state + torch.where(value > state, attack, release) * (value - state)
        frames.append(state)
    return torch.stack(frames, 1) if frames else x


def _before(y: Tensor, state: Tensor) -> Tensor:
    """``y`` (B, T, C) one frame earlier."""
    return torch.cat((state[:, None], y), 1)[:, :-1]


def definition(x: Tensor, attack: Tensor, release: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """``y`` (B, T, C) and the last of it (B, C).

    Which constant holds is found one frame after the other. What then is a linear recursion is differentiated as one,
    solved by doubling: few operations for long signals too.
    """
    if x.shape[1] == 0:
        return x.clone(), state.clone()
    x, state = x + 0 * x, state + 0 * state  # infinity is NaN
    fixed = [t.detach() for t in (x, attack, release, state)]
    rising = fixed[0] > _before(_plain(*fixed), fixed[3])
    gain = torch.where(rising, attack, release)
    kept = 1 - gain
    y = gain * x + pad(kept[:, :1] * state[:, None], (0, 0, 0, x.shape[1] - 1))
    step = 1
    while step < x.shape[1]:
        y = y + kept * pad(y, (0, 0, step, 0))[:, :-step]
        kept = kept * pad(kept, (0, 0, step, 0))[:, :-step]
        step *= 2
    return y, y[:, -1]


def attack_release(x: Tensor, attack: Tensor, release: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """``y`` (B, T, C) and the last of it (B, C)."""
    if x.numel() == 0:
        return torch.empty_like(x, memory_format=torch.contiguous_format), state.clone()
    constants = _constants(x, attack, release)
    if not constants:
        y = _plain(x + 0 * x, attack, release, state)
        return y, y[:, -1].clone()
    y = _in_blocks(x, *constants, state)
    last = y[:, -1].clone()
    if not last.isfinite().all():
        for result in (y, last):
            result.masked_fill_(result.isinf(), math.nan)
    return y, last


def _constants(x: Tensor, attack: Tensor, release: Tensor) -> tuple[float, float] | None:
    """The constants, where they can be read and are those of a low-pass, so that blocks forget where they began."""
    if not on_cpu(x):
        return None
    constants = attack.item(), release.item()
    return constants if all(0 < a <= 1 for a in constants) else None


def _memory(x: Tensor, attack: float, release: float) -> int:
    """Frames after which nothing is left of a state."""
    slower = min(attack, release)
    return math.ceil(math.log(torch.finfo(x.dtype).eps) / math.log1p(-slower)) if slower < 1 else 1


def _blocks(x: Tensor, memory: int) -> tuple[int, int]:
    """Number of blocks and their length for ``x`` (B, T, C); the last block may be shorter."""
    rows, frames, channels = x.shape
    count = min(math.isqrt(frames), LANES // (rows * channels))
    if count < LEAST_BLOCKS:
        return 1, frames
    length = -(-frames // count)
    if length < memory <= min(LONGER * length, frames // LEAST_BLOCKS):
        length = memory
    return -(-frames // length), length


def _cut(x: Tensor, count: int, length: int) -> Tensor:
    """``x`` (B, T, C) as (length, B, count, C), frames first, with zeros behind the last."""
    rows, frames, channels = x.shape
    whole = frames // length
    cut = x.new_empty(length, rows, count, channels)
    blocks = x[:, : whole * length].unflatten(1, (whole, length)).permute(2, 0, 1, 3)
    size = max(1, TILE // count) if channels == 1 else rows
    for first in range(0, rows, size):
        some = slice(first, first + size)
        cut[:, some, :whole].copy_(blocks[:, some])
    if whole < count:
        rest = frames - whole * length
        cut[:rest, :, whole].copy_(x[:, whole * length :].movedim(1, 0))
        cut[rest:, :, whole] = 0
    return cut


def _joined(cut: Tensor, frames: int) -> Tensor:
    """Undoes :func:`_cut`."""
    length, rows, count, channels = cut.shape
    x = cut.new_empty(rows, frames, channels)
    whole = frames // length
    blocks = x[:, : whole * length].unflatten(1, (whole, length))
    size = max(1, TILE // 8) if channels == 1 else length
    for first in range(0, length, size):
        some = slice(first, first + size)
        blocks[:, :, some].copy_(cut[some, :, :whole].permute(1, 2, 0, 3))
    if whole < count:
        x[:, whole * length :].copy_(cut[: frames - whole * length, :, whole].movedim(0, 1))
    return x


def _walk(x: Tensor, start: Tensor, y: Tensor | None, attack: float, release: float, count: bool) -> tuple[Tensor, ...]:
    """From a first state ``start`` (...) through frames ``x`` (L, ...), to be written to ``y`` (L, ...) if it is given.

    Returns the last state and its slope over the first: if steps are not counted, that of a fall all the way, which
    is right in silence and next to nothing where ``x`` is long.
    """
    rising = attack >= release
    # With the larger constant on the positive side of the difference, its leaky rectification is both branches.
    large, small = (attack, release) if rising else (release, attack)
    state, difference, balance = start.clone(), torch.empty_like(start), torch.zeros_like(start)
    ratio, gain = small / large, large if rising else -large
    tiny = torch.finfo(x.dtype).tiny
    rectify, add, sub = torch.nn.functional.leaky_relu_, torch.add, torch.sub  # names take a tenth of the time
    for i, (value, after) in enumerate(zip(x.unbind(0), repeat(state) if y is None else y.unbind(0), strict=False), 1):
        if rising:
            sub(value, state, out=difference)
        else:
            sub(state, value, out=difference)
        rectify(difference, ratio)
        state = add(state, difference, alpha=gain, out=after)
        if count:
            balance.add_(difference.sign_())
        if i % FLUSHED == 0:
            torch.hardshrink(state, tiny, out=state)
    if not count:
        return state, balance.fill_((1 - release) ** len(x))
    # Steps of the larger constant less those of the other one; of a tie half belongs to each.
    logs = [math.log(max(1 - constant, tiny)) / 2 for constant in (large, small)]
    return state, balance.mul_(logs[0] - logs[1]).add_(len(x) * (logs[0] + logs[1])).exp_()


def _scan(ends: Tensor, slopes: Tensor) -> Tensor:
    """``s_k = ends_k + slopes_k s_(k-1)`` along the second dimension of (B, K, C), from 0, in place of both."""
    step = 1
    while step < ends.shape[1]:
        ends[:, step:] += slopes[:, step:] * ends[:, :-step]
        slopes[:, step:] *= slopes[:, :-step].clone()
        step *= 2
    return ends


def _lanes(x: Tensor, length: int, count: int, some: Tensor) -> Tensor:
    """``some`` of the lanes of :func:`_cut`, by their places in (B, count, C)."""
    frames, channels = x.shape[1:]
    first = some // channels % count * length
    frame = first + torch.arange(length, device=x.device)[:, None]
    return x[some // (count * channels), frame.clamp_(max=frames - 1), some % channels]


def _in_blocks(x: Tensor, attack: float, release: float, state: Tensor) -> Tensor:
    memory = _memory(x, attack, release)
    count, length = _blocks(x, memory)
    if count == 1 and x.shape[2] > 1:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        _walk(x.movedim(1, 0), state, y.movedim(1, 0), attack, release, False)
        return y
    counted = count > 1 and length < memory
    cut = _cut(x, count, length)
    shape, given, digits = cut.shape[1:], cut.flatten(1), torch.finfo(x.dtype)
    y = torch.empty_like(given) if counted else given
    start = state[:, None].repeat(1, count, 1)
    # Blocks that forget are walked through for their ends first, and then in place.
    written = counted or count == 1
    ends, slopes = _walk(given, start.flatten(), y if written else None, attack, release, counted)
    # After each walk at least one more block is final, the first that was not.
    for _ in range(count):
        reached = ends.view(shape)[:, :-1]
        moves = _scan(reached - start[:, 1:], slopes.view(shape)[:, :-1].clone())
        near = moves.abs() <= reached.abs().mul_(CLOSE * digits.eps).add_(digits.tiny)
        settled = near | start[:, 1:].isnan()
        if written and settled.all():
            break
        start[:, 1:] += moves.masked_fill_(settled, 0)
        moved = pad(~settled, (0, 0, 1, 0)).flatten().nonzero().flatten()
        if not written or (counted and 2 * len(moved) > settled.numel()):
            ends, slopes = _walk(given, start.flatten(), y, attack, release, counted)
            written = True
        else:
            some = _lanes(x, length, count, moved)
            ends[moved], slopes[moved] = _walk(some, start.flatten()[moved], some, attack, release, counted)
            y.index_copy_(1, moved, some)
    return _joined(y.view(length, *shape), x.shape[1])


def _walk_back(grad: Tensor, gain: Tensor, carry: Tensor, slopes: Tensor | None, keep: bool) -> Tensor:
    """From what reaches the last frame of ``grad`` and ``gain`` (L, ...), ``carry`` (...): what leaves the first.

    If it is to be kept, the gradient of ``y`` takes the place of ``grad``. ``slopes`` (...) are multiplied by those of
    what leaves over what comes.
    """
    carry, total, tiny = carry.clone(), torch.empty_like(carry), torch.finfo(grad.dtype).tiny
    for i, (given, a) in enumerate(zip(reversed(grad.unbind(0)), reversed(gain.unbind(0)), strict=True), 1):
        of_y = torch.add(given, carry, out=given if keep else total)
        torch.addcmul(of_y, a, of_y, value=-1, out=carry)
        if slopes is not None:
            torch.addcmul(slopes, a, slopes, value=-1, out=slopes)
        if i % FLUSHED == 0:
            for decaying in (carry,) if slopes is None else (carry, slopes):
                torch.hardshrink(decaying, tiny, out=decaying)
    return carry


def _back_in_blocks(grad: Tensor, gain: Tensor, last: Tensor, memory: int) -> tuple[Tensor, Tensor]:
    """Gradient of ``y`` (B, T, C) and of the state (B, C), from that of the last state."""
    count, length = _blocks(grad, memory)
    if count == 1 and grad.shape[2] > 1:
        of_y = grad.clone(memory_format=torch.contiguous_format)
        return of_y, _walk_back(of_y.movedim(1, 0), gain.movedim(1, 0), last, None, True)
    grads, gains = _cut(grad, count, length), _cut(gain, count, length)
    carries = last[:, None].repeat(1, count, 1)
    if count > 1:
        carries[:, :-1] = 0
        slopes = torch.ones_like(carries) if length < memory else None
        left = _walk_back(grads, gains, carries, slopes, False)[:, 1:].flip(1)
        carries[:, :-1] = (left if slopes is None else _scan(left, slopes[:, 1:].flip(1))).flip(1)
    of_state = _walk_back(grads, gains, carries, None, True)[:, 0]
    return _joined(grads, grad.shape[1]), of_state.contiguous()


def attack_release_backward(
    grad_y: Tensor,
    grad_last: Tensor,
    x: Tensor,
    attack: Tensor,
    release: Tensor,
    state: Tensor,
    y: Tensor,
    need_x: bool,
    need_attack: bool,
) -> tuple[Tensor, ...]:
    """Gradients of ``x``, the two constants and the state; ``y`` is what :func:`attack_release` gave."""
    wanted = need_x, need_attack, need_attack, need_x
    if x.numel() == 0:
        found = (torch.zeros_like(x), torch.zeros_like(attack), torch.zeros_like(release), grad_last.clone())
        return tuple(g if needed else x.new_empty(0) for g, needed in zip(found, wanted, strict=True))
    rising = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    torch.gt(x[:, 0], state, out=rising[:, 0])
    torch.gt(x[:, 1:], y[:, :-1], out=rising[:, 1:])
    gain = torch.where(rising, attack, release)
    constants = _constants(x, attack, release)
    if constants:
        of_y, of_state = _back_in_blocks(grad_y, gain, grad_last, _memory(x, *constants))
    else:
        of_y = grad_y.clone(memory_format=torch.contiguous_format)
        of_state = _walk_back(of_y.movedim(1, 0), gain.movedim(1, 0), grad_last, None, True)
    of_x = gain.mul_(of_y)
    of_attack = of_release = x.new_empty(0)
    if need_attack:
        step = torch.empty_like(of_y)
        torch.sub(x[:, 0], state, out=step[:, 0])
        torch.sub(x[:, 1:], y[:, :-1], out=step[:, 1:])
        # What is not finite, and so is the last then, has no part in a loss of what came before it.
        if not (on_cpu(x) and finite(y[:, -1], state)):
            step.nan_to_num_(0.0, 0.0, 0.0)
        step.mul_(of_y)
        of_attack = torch.where(rising, step, 0).sum()
        of_release = step.masked_fill_(rising, 0).sum()
    found = of_x, of_attack, of_release, of_state
    return tuple(g if needed else x.new_empty(0) for g, needed in zip(found, wanted, strict=True))
