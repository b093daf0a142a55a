"""The C library's memory, kept from one call to the next."""

from __future__ import annotations

import functools
import sys

LARGEST = (32 << 20) - (64 << 10)  # bytes of a block from which glibc still learns, what it adds to a block left out


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB, and 64 MiB of freed memory in all, for later ones.

    Pages of a fresh block are faults at their first touch, which take longer than filtering does. glibc gives freed
    memory back to the system from a limit on that follows the largest block that it has mapped and freed, and so a loop
    of equal calls can lose its memory in each of them. A large block, never touched, raises the limit for the process,
    unless the user has set one (``MALLOC_MMAP_THRESHOLD_`` and its kin, see mallopt(3)). Other C libraries do not mind.
    """
    if sys.platform == "linux":
        bytes(LARGEST)
