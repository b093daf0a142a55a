"""The windowed DFT of Moore2016Spectrum's bands: forward, training step, memory, error, and the time over FFTs'."""

from __future__ import annotations

import torch
from torch import Tensor

from tamt.ops.windowed_dft import dft_tables, windowed_dft

from .common import DEVICES, DTYPES, Load, over, peak, relative_error, require, timing, tracked

FS, HOP, SIZE = 32000, 32, 2048
BANDS = [(2048, 1, 4), (1024, 5, 31), (512, 32, 79), (256, 80, 161), (128, 162, 258), (64, 259, 960)]
LOADS = {"cpu": (2, 1), "cuda": (32, 10)}  # rows, seconds
LIMITS = {"float64": 1e-12, "float32": 1e-5}


def noise(device: str, dtype: str) -> Tensor:
    rows, seconds = LOADS[device]
    x = torch.randn(rows, seconds * FS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(device, DTYPES[dtype])


def by_fft(x: Tensor, bands: list[tuple[int, int, int]] = BANDS, hop: int = HOP) -> Tensor:
    """Six whole FFTs of windowed frames that are written out."""
    frames = x.unfold(-1, SIZE, hop)
    parts = []
    for length, first, last in bands:
        window = torch.hann_window(length, periodic=False, dtype=x.dtype, device=x.device)
        around = (SIZE - length) // 2
        windowed = frames * torch.nn.functional.pad(window, (around, around))
        parts.append(torch.fft.rfft(windowed)[..., first : last + 1].abs().square())
    return torch.cat(parts, -1)


class _Load(Load):
    params = (DEVICES, list(DTYPES))
    param_names = ("device", "dtype")

    def setup(self, device: str, dtype: str) -> None:
        self.device = device
        self.x = noise(device, dtype).requires_grad_()
        self.tables = dft_tables(BANDS, SIZE, dtype=DTYPES[dtype], device=device)
        require(self.error(), LIMITS[dtype], f"windowed DFT {device} {dtype}")
        self.ready(self.x)

    def error(self) -> float:
        part = self.x[:1, :FS]
        power = windowed_dft(part, BANDS, HOP, SIZE, tables=self.tables)
        return relative_error(power, by_fft(part.detach().double().cpu()))

    def result(self) -> Tensor:
        return windowed_dft(self.x, BANDS, HOP, SIZE, tables=self.tables)


class WindowedDFT(_Load):
    time_forward = timing("forward")
    time_training_step = timing("training_step")
    track_training_over_forward = over("forward", "training_step")
    track_error = tracked("error", "of the frame's peak")
    track_peak_memory = peak("forward", "outputs")


class WindowedDFTAgainstFFTs(_Load):
    """Time over that of six FFTs of zero-padded frames. On a GPU a tenth of the load, for want of memory."""

    def setup(self, device: str, dtype: str) -> None:
        super().setup(device, dtype)
        self.x = self.x.detach()[: 2 if device == "cpu" else 3]

    def ffts(self) -> Tensor:
        return by_fft(self.x)

    track_time_over_ffts = over("ffts")
