"""The operator of means over hops: time, error and memory for cascades of one-pole and of second-order sections."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.design.sections import biquad_sections
from tamt.ops.filter_frames import filter_frames

from .cochleagram import means_of
from .common import DTYPES, Load, cases, over, peak, relative_error, require, scipy_analytic, timing, tracked
from .gammatone import filterbank, noise
from .iir import sections

CPU_LOADS = {"2 x 1 s x 50": (2, 1)}
GPU_LOADS = {"32 x 10 s x 50": (32, 10)}
CASES = cases(CPU_LOADS, GPU_LOADS)
HOPS = {"onepole": (160, "envelope"), "biquad": (441, "power")}
LIMITS = {"float64": 1e-11, "float32": 5e-6}
ORDER, CHANNELS = 4, 50


def sosfilt_means(x: Tensor, hop: int, detector: str) -> Tensor:
    """Means of what scipy gives for the low-passes of the IIR benchmarks."""
    from scipy.signal import sosfilt

    y = [sosfilt(rows, x.numpy()) for rows in sections()]
    return means_of(torch.stack([torch.from_numpy(channel) for channel in y], 1), detector, hop)


class FilterFrames(Load):
    params = (CASES, list(DTYPES), list(HOPS))
    param_names = ("load", "dtype", "kind")

    def setup(self, case: tuple[str, str], dtype: str, kind: str) -> None:
        self.device, load = case
        self.kind, (self.hop, self.detector) = kind, HOPS[kind]
        self.x = noise(*{**CPU_LOADS, **GPU_LOADS}[load], dtype, self.device)
        part = self.x[:1].double().cpu()
        if kind == "onepole":
            bank = filterbank(CHANNELS, "float64", "cpu")
            coef = bank._rows()
            z = scipy_analytic(part.numpy(), bank.poles.numpy(), bank.gains.numpy(), ORDER)
            self.expected = means_of(z, self.detector, self.hop)
        else:
            coef = biquad_sections(torch.from_numpy(sections())).sections.flatten(1)
            self.expected = sosfilt_means(part, self.hop, self.detector)
        self.coef = coef.to(self.device, DTYPES[dtype], copy=True).requires_grad_()
        require(self.error(), LIMITS[dtype], f"filter_frames {kind} {dtype}")
        self.ready(self.coef)

    def error(self) -> float:
        return relative_error(self.means(self.x[:1]), self.expected)

    def means(self, x: Tensor) -> Tensor:
        return filter_frames(x, self.coef, self.kind, ORDER, self.hop, self.detector)[0]

    def result(self) -> Tensor:
        return self.means(self.x)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_error = tracked("error", "of the channel's peak")
    track_peak_memory = peak("forward", "MiB")
