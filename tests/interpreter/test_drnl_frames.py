"""Means over hops of DRNL filters' outputs, by the Triton kernels in Triton's interpreter, against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef

from tamt.ops.drnl_frames import _definition as definition
from tamt.triton_kernels import drnl_frames as engine
from tamt.triton_kernels.drnl_frames import drnl_frames
from tamt.triton_kernels.iir import Tiling

SMALL = Tiling(superblock=32, chunk=2, top=2)  # a hundred samples go through many levels
PAULICK, SIMPLE = (6, 2, 3), (1, 1, 1)  # sections of the linear, the front and the back cascade
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def operands(
    orders: tuple[int, ...], length: int, dtype: torch.dtype, batch: int = 1, channels: int = 1
) -> tuple[Tensor, ...]:
    """Signal, linear, front, back, stick and states other than rest, with samples on both sides of the knee."""
    cascades = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    stick = torch.tensor([[1.0, 0.25, 0.25]]).expand(channels, 3)
    states = [0.1 * torch.randn(batch, channels, 2 * order) for order in orders]
    return tuple(t.to(dtype) for t in (torch.randn(batch, length), *cascades, stick, *states))


def check(case: tuple[Tensor, ...], hop: int, detector: str, found: tuple[Tensor, ...]) -> None:
    for actual, wanted in zip(found, definition(*(t.double() for t in case), hop, detector), strict=True):
        assert actual.is_contiguous()
        assert_close(actual, wanted, TOLERANCE[actual.dtype], dtype=actual.dtype)


@pytest.mark.parametrize(
    ("orders", "hop", "length", "batch", "channels", "detector", "dtype", "samples"),
    [
        (SIMPLE, 41, 170, 1, 2, "power", torch.float32, 64),  # hops over the borders of chunks, and in the tail
        (SIMPLE, 1, 50, 1, 1, "halfwave", torch.float32, 32),
        (SIMPLE, 7, 75, 2, 1, "power", torch.float64, 64),
        ((2, 1, 2), 16, 100, 1, 2, "power", torch.float64, 64),  # hops end together
        (SIMPLE, 100, 210, 1, 1, "halfwave", torch.float32, 32),  # a hop is longer than three chunks
        (SIMPLE, 64, 150, 1, 2, "power", torch.float32, 32),  # a hop is two superblocks, of two chunks
        (SIMPLE, 64, 140, 1, 1, "halfwave", torch.float64, 128),
        (SIMPLE, 5, 15, 2, 2, "power", torch.float32, 64),  # no trip
        (PAULICK, 9, 60, 2, 1, "power", torch.float64, 32),
        (PAULICK, 32, 70, 1, 1, "halfwave", torch.float32, 32),
    ],
)
def test_means_and_states(
    orders: tuple[int, ...],
    hop: int,
    length: int,
    batch: int,
    channels: int,
    detector: str,
    dtype: torch.dtype,
    samples: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks are of one row and so many ``samples``."""
    chunks = []
    one_chunk = engine.one_chunk
    monkeypatch.setattr(engine, "one_chunk", lambda *a: chunks.append(a) or one_chunk(*a))
    case = operands(orders, length, dtype, batch, channels)
    found = drnl_frames(*case, hop, detector, SMALL, samples * channels * dtype.itemsize)
    check(case, hop, detector, found)
    assert len(chunks) == batch * -(-(length // hop * hop // 16 * 16) // samples)


def test_rows_together() -> None:
    """Two rows of three, then the third, in one chunk each."""
    case = operands(SIMPLE, 64, torch.float32, 3)
    check(case, 16, "power", drnl_frames(*case, 16, "power", SMALL, 2 * 64 * 4))


def test_default_tiling() -> None:
    case = operands(SIMPLE, 300, torch.float32)
    check(case, 100, "power", drnl_frames(*case, 100, "power"))


@pytest.mark.parametrize(
    ("hop", "superblock"), [(160, 320), (16, 256), (320, 320), (512, 256), (16000, 320), (441, 256), (1, 256)]
)
def test_superblocks_fit_hops(hop: int, superblock: int) -> None:
    assert engine.tiling_for(hop).superblock == superblock
    assert engine.ends_together(hop, superblock) == (hop not in (441, 1))


def test_chunks_are_scanned_in_one_go_where_they_can_be() -> None:
    """Of 50 channels, 24 MiB in superblocks of 128; and of so many that not even one row's superblocks fit."""
    tiling, most = Tiling(superblock=128), 24 << 20
    assert engine.rows_together(32, 176400, 200, tiling, most) == 15
    assert engine.samples_together(15, 200, tiling, most) == 64 * 128
    assert engine.rows_together(32, 5000, 200, tiling, most) == 25
    assert engine.samples_together(1, 200, tiling, most) == 15 * 64 * 128
    assert engine.rows_together(8, 176400, 40000, tiling, most) == 1
    assert engine.samples_together(1, 40000, tiling, most) == 4 * 128
    assert engine.samples_together(1, 1 << 20, tiling, most) == 128


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (19, 20)])
def test_no_hop(length: int, hop: int) -> None:
    case = operands(PAULICK, length, torch.float32, 2, 3)
    means, *finals = drnl_frames(*case, hop, "power")
    assert means.shape == (2, 3, 0)
    for final, state in zip(finals, case[5:], strict=True):
        assert torch.equal(final, state)
        assert final is not state


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (2, 0)])
def test_no_rows_or_no_channels(batch: int, channels: int) -> None:
    case = operands(PAULICK, 40, torch.float32, batch, 2)
    case = case[0], *(t[:channels] for t in case[1:5]), *(t[:, :channels] for t in case[5:])
    means, *finals = drnl_frames(*case, 7, "power")
    assert means.shape == (batch, channels, 5)
    assert [final.shape for final in finals] == [state.shape for state in case[5:]]


def test_any_strides() -> None:
    case = operands(SIMPLE, 41, torch.float32, 2, 2)
    wanted = drnl_frames(*case, 9, "power", SMALL)
    strided = case[0].t().contiguous().t(), *(t.mT.contiguous().mT for t in case[1:])
    for actual, expected in zip(drnl_frames(*strided, 9, "power", SMALL), wanted, strict=True):
        assert torch.equal(actual, expected)


def test_streamed_is_one_shot() -> None:
    """In pieces of whole hops, from the states after the last."""
    case = operands(SIMPLE, 72, torch.float64)
    wanted = drnl_frames(*case, 9, "halfwave", SMALL)
    states, parts = case[5:], []
    for piece in case[0].split((9, 54, 9), 1):
        part, *states = drnl_frames(piece, *case[1:5], *states, 9, "halfwave", SMALL)
        parts.append(part)
    for actual, expected in zip((torch.cat(parts, 2), *states), wanted, strict=True):
        assert_close(actual, expected, 1e-12)
