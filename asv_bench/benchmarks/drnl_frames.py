"""The operator of means over hops of the DRNL: time, error and memory."""

from __future__ import annotations

from torch import Tensor

from tamt.ops.drnl_frames import drnl_frames

from .cochleagram import HOP, definition, filterbank, signals
from .common import DTYPES, Load, cases, over, peak, relative_error, require, timing, tracked

CPU_LOADS = {"2 x 1 s x 64": (2, 1)}
GPU_LOADS = {"32 x 10 s x 64": (32, 10)}
CASES = cases(CPU_LOADS, GPU_LOADS)
LIMITS = {"float64": 1e-9, "float32": 4e-5}


class DRNLFrames(Load):
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.x = signals("drnl", *{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        bank = filterbank("drnl", dtype, self.device)
        self.sections = [sections.clone().requires_grad_() for sections in bank._sections()]
        self.stick = bank._stick().requires_grad_()
        self.expected = definition("drnl", self.x[:1], "power")
        require(self.error(), LIMITS[dtype], f"drnl_frames {dtype}")
        self.ready(*self.sections, self.stick)

    def error(self) -> float:
        return relative_error(self.means(self.x[:1]), self.expected)

    def means(self, x: Tensor) -> Tensor:
        return drnl_frames(x, *self.sections, self.stick, HOP, "power")[0]

    def result(self) -> Tensor:
        return self.means(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_error = tracked("error", "of the channel's peak")
    track_peak_memory = peak("forward", "MiB")
