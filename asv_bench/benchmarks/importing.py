"""Import of the library: its time over that of torch alone, and that it leaves out what it does not need."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .common import require

OPTIONAL = ("triton.runtime", "matplotlib", "soundfile", "soxr", "tamt.cli", "tamt.plot")


def seconds_of(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


class Import:
    timeout = 300

    def setup(self) -> None:
        code = f"import sys, tamt; tamt.GammatoneFilterbank; print(sum(name in sys.modules for name in {OPTIONAL}))"
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        require(int(run.stdout), 0, "optional modules imported with tamt")

    def timeraw_import(self) -> str:
        return "import tamt"

    def track_time_over_torch(self) -> float:
        """Of interpreters that import tamt, over those that import torch, in turn."""
        pairs = [(seconds_of("import torch"), seconds_of("import tamt")) for _ in range(6)]
        torch_alone, with_tamt = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
        return with_tamt / torch_alone

    track_time_over_torch.unit = "x"
