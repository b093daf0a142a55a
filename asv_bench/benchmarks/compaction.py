"""Compaction of dense spectra: forward, training step, memory, and the time over that of a stable sort."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops.compaction import compaction

from .common import DEVICES, DTYPES, peak_memory, ratio_of_times, require, timed

COLUMNS = 960
ROWS = {"cpu": 1872, "cuda": 300000}  # two ears, 1 s and 160 s in steps of 1 ms


def by_sort(
    intensity: Tensor, frequencies: Tensor, threshold: Tensor, max_components: int | None
) -> tuple[Tensor, Tensor]:
    """The same with torch's sorts: the strongest first, then by frequency."""
    keep = intensity > threshold[:, None]
    count = int(keep.sum(-1).amax()) if max_components is None else max_components
    rank = torch.where(keep, intensity, torch.zeros_like(intensity))
    strongest = rank.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    index = torch.where(keep.gather(1, strongest), strongest, COLUMNS).sort(-1).values
    padded = torch.nn.functional.pad(frequencies, (0, 1)).expand(intensity.shape[0], -1)
    levels = torch.nn.functional.pad(10 * torch.log10(intensity), (0, 1))
    return padded.gather(1, index), levels.gather(1, index)


class Compaction:
    """Nine tenths of the components are relevant; all are wanted, or the 400 strongest."""

    params = (DEVICES, list(DTYPES), [None, 960, 400])
    param_names = ("device", "dtype", "max_components")
    timeout = 300

    def setup(self, device: str, dtype: str, max_components: int | None) -> None:
        self.device, self.count = device, max_components
        generator = torch.Generator().manual_seed(0)
        intensity = 10 ** (6 * torch.rand(ROWS[device], COLUMNS, generator=generator) - 3)
        self.intensity = intensity.to(device, DTYPES[dtype]).requires_grad_()
        self.frequencies = 15.625 * torch.arange(1, COLUMNS + 1, dtype=DTYPES[dtype], device=device)
        self.threshold = torch.full_like(self.intensity[:, 0], 10**-2.4, requires_grad=False)
        part = self.intensity.detach()[:500], self.frequencies, self.threshold[:500], max_components
        actual, expected = compaction(*part), by_sort(*part)
        require((actual[0] != expected[0]).sum().item(), 0, f"compaction {device} {dtype}: frequencies")
        require((actual[1] - expected[1]).abs().max().item(), 1e-4, f"compaction {device} {dtype}: levels in dB")
        self.weights = torch.randn_like(self.forward()[1])

    def operands(self) -> tuple[Tensor, Tensor, Tensor, int | None]:
        return self.intensity, self.frequencies, self.threshold, self.count

    def forward(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return compaction(*self.operands())

    def training_step(self) -> None:
        torch.autograd.grad(compaction(*self.operands())[1], self.intensity, self.weights)

    def sorted(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return by_sort(*self.operands())

    def time_forward(self, *_: object) -> None:
        timed(self.forward, self.device)

    def time_training_step(self, *_: object) -> None:
        timed(self.training_step, self.device)

    def track_peak_memory(self, *_: object) -> float:
        return peak_memory(self.forward, self.device) / (2 * self.weights.nbytes)

    track_peak_memory.unit = "outputs"

    def track_time_over_sort(self, *_: object) -> float:
        return ratio_of_times(self.sorted, self.forward, self.device)

    track_time_over_sort.unit = "x"
