"""Values computed from tensors, kept for as long as the tensors hold the same numbers.

What is kept is found by the bits of what it was computed from. Neither the identity of a tensor nor its version tells
of every change: writing through ``.data`` or to memory shared with numpy changes neither, nor does a collective.
Comparing some hundred numbers takes a few microseconds on the CPU. On other devices it would read values back, so
nothing is kept there.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Value = TypeVar("Value")
Key = tuple[Hashable, ...]

PLAIN = (Tensor, nn.Parameter)


def readable(*tensors: Tensor) -> bool:
    """Whether these are ordinary CPU tensors, whose numbers can be looked at without breaking a graph or transform."""
    for t in tensors:
        if type(t) not in PLAIN or not t.is_cpu:
            return False
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0  # such as FakeTensorMode
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def transformed() -> bool:
    """Whether more than reverse mode may be at work: forward mode, torch.func, or tracing, which hides its levels."""
    return (
        forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def bits(*tensors: Tensor) -> Key:
    """What tells :func:`readable` tensors with different numbers, types or shapes apart."""

    def content(tensor: Tensor) -> bytes:
        if tensor.is_conj() or tensor.is_neg() or not tensor.is_contiguous():
            tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
        # Read where they are: numpy() would pin the memory of a tensor for good, which FSDP has to free.
        return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)

    return tuple([(t.dtype, t.shape, content(t)) for t in tensors])


def _settings(compute: Callable[..., Any]) -> Key:
    """What tells partial functions of the same function apart."""
    return (*compute.args, *compute.keywords.items()) if isinstance(compute, partial) else ()


class Memo(Generic[Value]):
    """The last values of a function of tensors; copies of a memo begin empty.

    Parameters
    ----------
    most : int
        How many values are kept.
    """

    def __init__(self, most: int = 2) -> None:
        self.most = most
        self._kept: tuple[tuple[Key, Value], ...] = ()  # replaced as a whole: threads need no lock

    def get(self, compute: Callable[..., Value], *sources: Tensor) -> Value:
        """``compute(*sources)``, or what it gave for the same numbers; what a partial function was given counts too.

        Nothing is kept where gradients have to reach the sources, or where they are not :func:`readable`.
        """
        if not readable(*sources) or (torch.is_grad_enabled() and any(t.requires_grad for t in sources)):
            return compute(*sources)
        kept, key = self._kept, (*_settings(compute), *bits(*sources))
        for i, (known, value) in enumerate(kept):
            if known == key:
                if i:
                    self._kept = (kept[i], *kept[:i], *kept[i + 1 :])
                return value
        # From copies, as the value may share memory with them; and fit for later calls that need gradients.
        with torch.inference_mode(False), torch.no_grad():
            value = compute(*(t.detach().clone() for t in sources))
        self._kept = ((key, value), *kept[: self.most - 1])
        return value

    def __deepcopy__(self, memo: dict[int, Any]) -> Memo[Value]:
        return Memo(self.most)

    def __reduce__(self) -> tuple[Any, ...]:
        return Memo, (self.most,)


class Sized(Protocol):
    """What a :class:`Store` can hold."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes now."""


Held = TypeVar("Held", bound=Sized)


class Store(Generic[Held]):
    """Values by key, for all of a process, up to so many bytes; what was not used for longest goes first.

    Parameters
    ----------
    most : int
        Bytes. The newest value is kept whatever its size.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Key, Held] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, compute: Callable[[], Held]) -> Held:
        """The value of ``key``: ``compute()`` if there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        with torch.inference_mode(False), torch.no_grad():
            value = compute()
        with self._lock:
            self._values[key] = value
            # Values may have grown since they were stored.
            excess = sum(held.nbytes for held in self._values.values()) - self.most
            while excess > 0 and len(self._values) > 1:
                excess -= self._values.popitem(last=False)[1].nbytes
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
