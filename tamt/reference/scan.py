"""Scan of the states of blocks, ``s_{k+1} = A s_k + e_k``: the loop, and a tree that takes few steps for many blocks.

States are rows here, so that a step is ``s A^T + e``. At each height of the tree a group of ``G`` steps is one matrix
product: with rows ``e_0 .. e_{G-1}`` side by side, the states of the group from rest are these times a block-Toeplitz
matrix of powers of ``A^T``. The states after the groups are scanned in the same way, one height up, with ``A^G`` as
transition; what enters a group then reaches its states through the powers.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamt._arithmetic import flush

GROUP_STATES = 64  # numbers of state in a group
STEPS = 8  # so many steps, or fewer, are cheaper one by one than the matrices of a height are to make


def definition(ends: Tensor, state: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """One step after the other.

    Parameters
    ----------
    ends : Tensor (F, B, K, N)
        ``e_k``, what each block adds to the state at its end.
    state : Tensor (F, B, N)
        ``s_0``.
    transition : Tensor (F, N, N)
        ``A``.

    Returns
    -------
    starts : Tensor (F, B, K, N)
        ``s_0 .. s_{K-1}``.
    last : Tensor (F, B, N)
        ``s_K``.
    """
    states = _visited(ends, state, transition)
    return torch.stack(states[:-1], 2) if states[1:] else ends, states[-1]


def _visited(ends: Tensor, state: Tensor, transition: Tensor) -> list[Tensor]:
    """``s_0 .. s_K``."""
    states = [state]
    for end in ends.unbind(2):
        states.append(torch.baddbmm(end, states[-1], transition.mT))
    return states


class Groups(NamedTuple):
    """Matrices for groups of ``size`` steps, at one height of the tree."""

    size: int
    step: Tensor  # A^T
    powers: Tensor  # (F, N, G N): I, A^T .. side by side, from the state before a group to each state of it
    over: Tensor  # A^G
    toeplitz: Tensor  # (F, G N, (G + 1) N): from e_i to state j > i of its group, and to the state after the group

    def of(self, channels: slice) -> Groups:
        """The same for some of the channels."""
        if channels == slice(None):
            return self
        return Groups(self.size, *(matrix[channels] for matrix in self[1:]))


def make_groups(transition: Tensor, size: int) -> Groups:
    """Groups of ``size`` steps of ``transition`` (F, N, N)."""
    states = transition.shape[-1]
    step = powers = transition.mT
    while powers.shape[2] < size * states:
        powers = torch.cat((powers, powers[..., -states:] @ powers), 2)
    identity = torch.eye(states, dtype=powers.dtype, device=powers.device).expand_as(transition)
    powers = flush(torch.cat((identity, powers), 2)[..., : (size + 1) * states])
    inside = powers[..., : size * states]
    late = pad(inside, (size * states, 0))
    rows = [late[..., start * states : (start + size + 1) * states] for start in reversed(range(size))]
    return Groups(size, step, inside, powers[..., size * states :].mT, torch.stack(rows, 1).flatten(1, 2))


class Tree:
    """The scan tree of a batch of filters, grown as high as signals need it.

    Parameters
    ----------
    transition : Tensor (F, N, N)
        ``A`` of a block, in the type to scan in.
    """

    def __init__(self, transition: Tensor) -> None:
        self.transition = transition
        self.grown: list[Groups] = []
        self.lock = threading.Lock()

    def at(self, height: int, count: int) -> Groups:
        """Groups that scan ``count`` steps at this height, of which the steps are the groups of the one below."""
        size = min(max(2, GROUP_STATES // self.transition.shape[-1]), count)
        with self.lock:
            # Groups that have become too small were the only one of their height: nothing above hangs on them.
            if height == len(self.grown) or self.grown[height].size < size:
                self.grown[height:] = [make_groups(self.transition_at(height), size)]
            return self.grown[height]

    def transition_at(self, height: int) -> Tensor:
        """``A`` of a step at this height."""
        return self.grown[height - 1].over if height else self.transition

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices grown so far."""
        return sum(matrix.nbytes for groups in self.grown for matrix in groups[1:])


def _grouped(steps: Tensor, n_groups: int, size: int, copy: bool = False) -> Tensor:
    """Steps (F, B, K, N) as groups (F, B n_groups, size N), with zeros behind the last."""
    filters, batch, count, states = steps.shape
    if copy or n_groups * size != count or not steps.is_contiguous():
        grouped = steps.new_empty(filters, batch, n_groups * size, states)
        grouped[:, :, :count] = steps
        grouped[:, :, count:] = 0
        steps = grouped
    return steps.view(filters, batch * n_groups, size * states)


def scan(ends: Tensor, state: Tensor, tree: Tree, channels: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """:func:`definition` by the ``tree`` of all channels, for those that the first dimension stands for."""
    if ends.numel() == 0:
        return ends, state
    kept = ends.dtype
    if kept != tree.transition.dtype:
        ends, state = ends.to(tree.transition.dtype), state.to(tree.transition.dtype)
    starts = _starts(ends, state, tree, channels)
    last = torch.baddbmm(ends[:, :, -1], starts[:, :, -1], tree.transition[channels].mT)
    return starts.to(kept), last.to(kept)


def _starts(ends: Tensor, state: Tensor, tree: Tree, channels: slice, height: int = 0) -> Tensor:
    """The states before the steps at a height of the tree."""
    filters, batch, count, size = ends.shape
    if count <= STEPS:
        return torch.stack(_visited(ends[:, :, :-1], state, tree.transition_at(height)[channels]), 2)
    groups = tree.at(height, count).of(channels)
    n_groups = -(-count // groups.size)
    if n_groups == 1:
        inside = torch.bmm(ends.reshape(filters, batch, -1), groups.toeplitz[:, : count * size, : count * size])
        starts = torch.baddbmm(inside, state, groups.powers[..., : count * size])
    else:
        width = groups.size * size
        grouped = _grouped(ends, n_groups, groups.size)
        leaving = torch.bmm(grouped, groups.toeplitz[..., width:]).unflatten(1, (batch, n_groups))
        entering = _starts(leaving, state, tree, channels, height + 1)
        starts = torch.bmm(grouped, groups.toeplitz[..., :width])
        starts.baddbmm_(entering.reshape(filters, batch * n_groups, size), groups.powers)
    return starts.view(filters, batch, -1, size)[:, :, :count]


def adjoint(
    grad_starts: Tensor, grad_last: Tensor, tree: Tree, channels: slice = slice(None), height: int = 0
) -> tuple[Tensor, Tensor]:
    """Adjoint of :func:`scan`, ``m_k = A^T m_{k+1} + grad_starts_k`` from its end: gradients of ``ends`` and ``state``.

    The gradient of ``e_k``, which is added to ``s_{k+1}``, is that of ``s_{k+1}`` itself, ``m_{k+1}``.
    """
    filters, batch, count, size = grad_starts.shape
    if grad_starts.numel() == 0:
        return grad_starts, grad_last
    if grad_starts.dtype != tree.transition.dtype:
        wide = tree.transition.dtype
        grad_ends, grad_state = adjoint(grad_starts.to(wide), grad_last.to(wide), tree, channels)
        return grad_ends.to(grad_starts.dtype), grad_state.to(grad_last.dtype)
    if count <= STEPS:
        transition, adjoints = tree.transition_at(height)[channels], [grad_last]
        for grad in reversed(grad_starts.unbind(2)):
            adjoints.append(torch.baddbmm(grad, adjoints[-1], transition))
        return torch.stack(adjoints[-2::-1], 2), adjoints[-1]
    groups = tree.at(height, count).of(channels)
    n_groups = -(-count // groups.size)
    of_last = grad_last @ groups.step.mT
    if n_groups == 1:
        flat = grad_starts.reshape(filters, batch, -1).clone()
        flat[..., -size:] += of_last
        grad_ends = torch.bmm(flat, groups.toeplitz[:, : count * size, : count * size].mT)
        grad_state = torch.bmm(flat, groups.powers[..., : count * size].mT)
    else:
        width = groups.size * size
        grouped = _grouped(grad_starts, n_groups, groups.size, copy=True)
        grouped.unflatten(1, (batch, n_groups)).unflatten(-1, (-1, size)).flatten(2, 3)[:, :, count - 1] += of_last
        entering = torch.bmm(grouped, groups.powers.mT).unflatten(1, (batch, n_groups))
        after, grad_state = adjoint(entering, torch.zeros_like(grad_last), tree, channels, height + 1)
        grad_ends = torch.bmm(grouped, groups.toeplitz[..., :width].mT)
        grad_ends.baddbmm_(after.reshape(filters, batch * n_groups, size), groups.toeplitz[..., width:].mT)
    grad_ends = grad_ends.reshape(filters, batch, -1, size)[:, :, :count]
    grad_ends[:, :, -1] += grad_last
    return grad_ends, grad_state
