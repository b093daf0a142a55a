"""Import of the library and first calls: their time over that of torch alone, and what they do not need left out."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .common import require

OPTIONAL = ("triton.runtime", "matplotlib", "soundfile", "soxr", "tamt.cli", "tamt.plot")


def seconds_of(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def seconds_over(less: str, more: str) -> float:
    """Of interpreters that run ``more``, over those that run ``less``, in turn."""
    pairs = [(seconds_of(less), seconds_of(more)) for _ in range(6)]
    alone, together = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    return together / alone


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
        return seconds_over("import torch", "import tamt")

    track_time_over_torch.unit = "x"


FIRST_CALL = """
import sys, torch, tamt
x = torch.ones(1000, requires_grad=True)
tamt.{module}([500.0, 1000.0], 16000)(x).sum().backward()
print(sum(name in sys.modules for name in ("sympy", "scipy", "torch._dynamo", "triton.runtime")))
"""


class FirstCall:
    timeout = 300
    params = ("GammatoneFilterbank", "DRNLFilterbank")
    param_names = ("module",)

    def setup(self, module: str) -> None:
        code = FIRST_CALL.format(module=module)
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        require(int(run.stdout), 0, "slow modules imported by a first call")

    def track_first_call_over_import(self, module: str) -> float:
        """Of interpreters that take a gradient by a module, over those that import tamt, in turn."""
        return seconds_over("import tamt", FIRST_CALL.format(module=module))

    track_first_call_over_import.unit = "x"
