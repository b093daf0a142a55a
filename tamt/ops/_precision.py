"""Matrix products in their operands' own precision, whatever autocast and the global switches say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Where TF32 or bfloat16 may take the place of float32 in products.
_SWITCHES = (("cuda", "matmul"), ("mkldnn", "matmul"))

_lock = threading.Lock()
_inside = 0
_restore: Callable[[], None] | None = None


def precision_is_own(device_type: str) -> bool:
    """Whether :func:`own_precision` has nothing to do: no thread is inside, nothing is switched, no autocast."""
    if torch.is_autocast_enabled(device_type):
        return False
    with _lock:  # or the last one inside might put the switches back between the two
        return _inside == 0 and _is_float32()


@contextmanager
def own_precision(device_type: str) -> Iterator[None]:
    """Matrix products inside neither follow autocast nor ``torch.set_float32_matmul_precision`` and its kin.

    The switches are the process's: while one thread is inside, products of the others are exact too. The last to leave
    puts them back.
    """
    global _inside, _restore
    with _lock:
        if _inside == 0:
            _restore = _switched_to_float32()
        _inside += 1
    try:
        if torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                yield
        else:
            yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _restore is not None:
                _restore()


def _is_float32() -> bool:
    """Whether the switches are those of float32, as far as the old one tells."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        return False


def _switched_to_float32() -> Callable[[], None] | None:
    """Switch to float32; how to put things back, None if it was on."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the switches of torch 2.9 and later are in use, of which the old one knows nothing
        values = [torch._C._get_fp32_precision_getter(*switch) for switch in _SWITCHES]
        for switch in _SWITCHES:
            torch._C._set_fp32_precision_setter(*switch, "ieee")
        return lambda: _set_switches(values)
    if before == "highest":
        return None
    torch.set_float32_matmul_precision("highest")
    return lambda: torch.set_float32_matmul_precision(before)


def _set_switches(values: list[str]) -> None:
    for switch, value in zip(_SWITCHES, values, strict=True):
        torch._C._set_fp32_precision_setter(*switch, "none")
        if torch._C._get_fp32_precision_getter(*switch) != value:  # else it follows a more general switch, as before
            torch._C._set_fp32_precision_setter(*switch, value)
