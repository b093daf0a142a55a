"""Memory that is kept from one call to the next."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CALLS = """
from pathlib import Path
import torch
from tamt import GammatoneFilterbank

GammatoneFilterbank([1000.0], 16000)(torch.randn(1000))
address = torch.empty(30 << 20, dtype=torch.uint8).data_ptr()
(heap,) = (line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]"))
first, last = (int(end, 16) for end in heap.split("-"))
print(first <= address < last)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other rules")
def test_large_blocks_come_from_memory_that_is_kept() -> None:
    """Otherwise each is a mapping of its own, with pages that nobody has touched."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True, env=own)
    assert done.stdout.split() == ["True"]
