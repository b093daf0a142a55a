"""The operator of DRNL filters' means over hops: time, error and memory."""

from __future__ import annotations

from torch import Tensor

from tamt.ops.drnl_frames import drnl_frames

from .cochleagram import means_of
from .common import DTYPES, Load, cases, modal_as_biquads, over, peak, relative_error, require, timing, tracked
from .drnl import filterbank, noise, scipy_drnl

CPU_LOADS = {"2 x 1 s": (2, 1)}
GPU_LOADS = {"32 x 4 s": (32, 4)}
CASES = cases(CPU_LOADS, GPU_LOADS)
HOP = 441
LIMITS = {"float64": 1e-9, "float32": 4e-5}
PART = 22050  # samples that are held against the definition


class DRNLFrames(Load):
    params = (CASES, list(DTYPES))
    param_names = ("load", "dtype")

    def setup(self, case: tuple[str, str], dtype: str) -> None:
        self.device, load = case
        self.x = noise(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        bank = filterbank("drnl", "float64", "cpu")
        operands = *bank._sections(), bank._stick()
        self.operands = [t.to(self.device, DTYPES[dtype], copy=True).requires_grad_() for t in operands]
        paths = (modal_as_biquads(path) for path in operands[:3])
        y = scipy_drnl(self.x[:1, :PART].double().cpu().numpy(), *paths, operands[3].numpy())
        self.expected = means_of(y, "power", HOP)
        require(self.error(), LIMITS[dtype], f"drnl_frames {dtype}")
        self.ready(*self.operands)

    def error(self) -> float:
        return relative_error(self.means(self.x[:1, :PART]), self.expected)

    def means(self, x: Tensor) -> Tensor:
        return drnl_frames(x, *self.operands, HOP, "power")[0]

    def result(self) -> Tensor:
        return self.means(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_error = tracked("error", "of the channel's peak")
    track_peak_memory = peak("forward", "MiB")
