"""Signals of other batches and lengths compile few kernels anew: what varies with them is no constant of a kernel.

Whether 16 divides a stride is all that may be told apart: loads and stores of 128 bits depend on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import counted
from compile.test_drnl_frames import launch as launch_drnl_frames
from compile.test_fft_drnl import launch as launch_fft_drnl
from compile.test_filter_frames import launch as launch_filter_frames
from compile.test_iir import launch, launch_broken_stick, launch_drnl
from compile.test_recurrence import launch as launch_attack_release
from compile.test_roex import launch as launch_roex
from compile.test_spectrum import transform
from compile.test_spreading import launch as launch_spreading
from tamt.triton_kernels.compaction import compaction, compaction_backward
from tamt.triton_kernels.iir import iir_forward

CHANNELS = 30
new = torch.empty(0, device="meta").new_empty


def sizes(least: int = 1, most: int = 200000) -> Iterator[tuple[int, int]]:
    """Rows and lengths, half of the lengths divisible by 16, the smallest and the largest among them."""
    draw = random.Random(0)
    yield from ((1, least), (1, 16 * least), (1, most), (1, most + 1), (2, 16 * least))
    for i in range(16):
        yield draw.randint(2, 9), draw.randint(least, most) if i % 2 else 16 * draw.randint(least // 16 + 1, most // 16)


def compilations(run: Callable[[int, int], None], given: Iterable[tuple[int, int]]) -> int:
    with counted("sm_90") as counts:
        for rows, length in given:
            run(rows, length)
    print(counts)  # for a test that fails
    return counts.total()


@pytest.mark.parametrize(
    ("kind", "order", "shared", "most"),
    [("onepole", 4, True, 26), ("biquad", 3, False, 31), ("modal", 2, True, 27), ("onepole", 4, False, 30)],
)
def test_filters(kind: str, order: int, shared: bool, most: int) -> None:
    """The scan has 8 variants of types and directions; what loads or stores signals, up to 3 of strides."""

    def run(rows: int, length: int) -> None:
        launch(kind, order, torch.float32, shared, length, rows, CHANNELS)

    assert compilations(run, sizes()) <= most


def test_chunks_of_a_stream() -> None:
    def run(rows: int, length: int) -> None:
        iir_forward(new(rows, 1, length), new(CHANNELS, 5), new(rows, CHANNELS, 8), "onepole", 4)

    assert compilations(run, ((1, length) for length in range(160, 16001, 160))) <= 5


@pytest.mark.parametrize(("hop", "most"), [(160, 20), (441, 20)])
def test_means_over_hops(hop: int, most: int) -> None:
    def run(rows: int, length: int) -> None:
        launch_filter_frames("onepole", 4, torch.float32, hop, "power", length, rows, CHANNELS)

    assert compilations(run, sizes()) <= most


def test_drnl() -> None:
    assert compilations(lambda b, t: launch_drnl((6, 2, 3), torch.float32, t, b, CHANNELS), sizes()) <= 27
    assert compilations(lambda b, t: launch_broken_stick(torch.float32, t, b, CHANNELS), sizes()) <= 6


@pytest.mark.parametrize(("hop", "most"), [(160, 22), (441, 25)])
def test_means_over_hops_of_drnl(hop: int, most: int) -> None:
    def run(rows: int, length: int) -> None:
        launch_drnl_frames((6, 2, 3), torch.float32, hop, "power", length, rows, CHANNELS)

    assert compilations(run, sizes()) <= most


def test_drnl_by_fft() -> None:
    assert compilations(lambda b, t: launch_fft_drnl(torch.float32, b, CHANNELS, t, 4095, 16384), sizes()) <= 19


@pytest.mark.parametrize(("learnable", "most"), [(False, 22), (True, 8)])
def test_spectrum(learnable: bool, most: int) -> None:
    """Forward and scale have three tiles, and weights of a band may begin anywhere."""
    assert compilations(lambda b, t: transform(b, t, 32, learnable), sizes(2048, 40000)) <= most


def test_components() -> None:
    """Their number depends on the signal where a module is given none."""

    def run(rows: int, count: int) -> None:
        compaction(new(rows, 960), new(960), new(rows), count, count < 960)
        compaction_backward(new(rows, count), new(rows, 960), new(960), new(rows), count, count < 960)

    assert compilations(run, sizes(1, 960)) <= 4
    assert compilations(lambda rows, count: launch_roex(torch.float32, rows, count, 150), sizes(1, 960)) <= 12


def test_spreading() -> None:
    assert compilations(lambda _, rows: launch_spreading(torch.float32, rows, 150), sizes(1, 2000)) <= 2


def test_attack_release() -> None:
    """Forward, and backward, whatever the signal is."""
    assert compilations(lambda rows, frames: launch_attack_release(torch.float32, rows, frames, 150), sizes()) <= 2
    assert compilations(lambda rows, frames: launch_attack_release(torch.float32, rows, frames, 1), sizes()) <= 2
