"""Compaction of dense spectra: forward, training step, memory, and the time over that of a stable sort."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops.compaction import compaction

from .common import DEVICES, DTYPES, Load, over, peak, require, timing

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


class Compaction(Load):
    """Nine tenths of the components are relevant; all are wanted, or the 400 strongest."""

    params = (DEVICES, list(DTYPES), [None, 960, 400])
    param_names = ("device", "dtype", "max_components")

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
        self.ready(self.intensity)

    def result(self) -> tuple[Tensor, Tensor]:
        return compaction(self.intensity, self.frequencies, self.threshold, self.count)

    def smooth(self) -> list[Tensor]:
        return [self.result()[1]]

    def outputs(self) -> int:
        return 2 * super().outputs()  # the frequencies too

    def sorted(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return by_sort(self.intensity, self.frequencies, self.threshold, self.count)

    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_peak_memory = peak("forward", "outputs")
    track_time_over_sort = over("sorted")
