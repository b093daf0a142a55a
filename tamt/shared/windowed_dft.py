"""Where the tables, weights, results and frames of windowed DFTs are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

PITCH = 16  # a table's rows start at multiples of so many numbers, so that GPUs load them in vectors


class Band(NamedTuple):
    """Where the tables, the weights and the results of a window are."""

    half: int  # rows of its tables: samples on either side of the middle
    bins: slice  # its columns of the spectrum
    weights: slice  # its part of the weights
    offset: int  # of its cosine table (half, pitch) among the tables; the sine table follows
    pitch: int

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.bins.stop - self.bins.start

    def tables(self, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine table, (half, n_bins) each."""
        both = tables[self.offset : self.offset + 2 * self.half * self.pitch].view(2, self.half, self.pitch)
        return both[0, :, : self.n_bins], both[1, :, : self.n_bins]


def layout(lengths: list[int], first: list[int], last: list[int]) -> list[Band]:
    """The bands of windows of these lengths, each with the bins ``first`` to ``last``, both included."""
    bands, weights, offset = [], 0, 0
    for length, low, high in zip(lengths, first, last, strict=True):
        count = high - low + 1
        pitch = -(-count // PITCH) * PITCH
        start = low - min(first)
        bands.append(Band(length // 2, slice(start, start + count), slice(weights, weights + count), offset, pitch))
        weights += count
        offset += length * pitch
    return bands


def n_frames(n_samples: int, size: int, hop: int) -> int:
    """Number of whole frames of ``size`` samples."""
    return (n_samples - size) // hop + 1


def slices(rows: int, frames: int, half: int, samples: int) -> Iterator[tuple[slice, slice]]:
    """Rows and frames of about so many ``samples`` taken together; frames of one row, or rows with all their frames."""
    at_once = max(1, samples // (2 * half))
    rows_at_once = max(1, at_once // max(1, frames))
    for row in range(0, rows, rows_at_once):
        for frame in range(0, frames, at_once):
            yield slice(row, min(rows, row + rows_at_once)), slice(frame, min(frames, frame + at_once))
