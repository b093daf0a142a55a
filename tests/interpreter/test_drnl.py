"""The fused DRNL kernels, run by Triton's interpreter, against recursions sample by sample in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close, example_coef, naive_iir

from tamt.reference import broken_stick as reference
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.iir import Tiling

SMALL = Tiling(superblock=64, chunk=2, top=2)  # a second of signal goes through many levels
PAULICK, JEPSEN = (6, 2, 3), (7, 3, 6)  # sections of the linear, the front and the back cascade
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def operands(
    orders: tuple[int, ...], length: int, dtype: torch.dtype, batch: int = 2, channels: int = 3
) -> tuple[Tensor, ...]:
    """Signal, linear, front, back, stick and states other than rest, with samples on both sides of the knee."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cascades = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    stick = torch.tensor([[1.0, 0.25, 0.25]], dtype=torch.float64).expand(channels, 3)
    states = [0.1 * normal(batch, channels, 2 * order) for order in orders]
    return tuple(t.to(dtype) for t in (normal(batch, length), *cascades, stick, *states))


def expected(
    x: Tensor, linear: Tensor, front: Tensor, back: Tensor, stick: Tensor, *states: Tensor
) -> tuple[Tensor, ...]:
    """The definition, in float64."""
    x, linear, front, back, stick, *states = (t.double() for t in (x, linear, front, back, stick, *states))
    direct, linear_final = naive_iir(x[:, None], linear, states[0], "modal", linear.shape[1] // 6)
    v, front_final = naive_iir(x[:, None], front, states[1], "modal", front.shape[1] // 6)
    z, back_final = naive_iir(reference.broken_stick(v, stick), back, states[2], "modal", back.shape[1] // 6)
    return direct + z, linear_final, front_final, back_final


@pytest.mark.parametrize(
    ("orders", "length", "batch", "channels", "dtype"),
    [
        ((1, 1, 1), 1, 1, 1, torch.float64),
        (PAULICK, 15, 3, 5, torch.float32),
        (JEPSEN, 16, 1, 2, torch.float64),
        (PAULICK, 17, 2, 2, torch.float64),
        ((3, 2, 1), 64, 1, 3, torch.float32),
        (PAULICK, 193, 2, 1, torch.float64),
        (JEPSEN, 330, 1, 1, torch.float32),
    ],
)
def test_output_and_states(orders: tuple[int, ...], length: int, batch: int, channels: int, dtype: torch.dtype) -> None:
    case = operands(orders, length, dtype, batch, channels)
    for actual, wanted in zip(drnl(*case, SMALL), expected(*case), strict=True):
        assert_close(actual, wanted, TOLERANCE[dtype], dtype=dtype)


@pytest.mark.parametrize(("batch", "channels", "length"), [(2, 3, 0), (0, 2, 20), (2, 0, 20)])
def test_nothing_to_do(batch: int, channels: int, length: int) -> None:
    case = operands(PAULICK, length, torch.float32, batch, 3)
    case = case[0], *(t[:channels] for t in case[1:5]), *(t[:, :channels] for t in case[5:])
    y, *finals = drnl(*case)
    assert y.shape == (batch, channels, length)
    for final, state in zip(finals, case[5:], strict=True):
        assert torch.equal(final, state)
        assert final is not state


def test_chunked_is_one_shot() -> None:
    case = operands((2, 1, 2), 150, torch.float64, 1, 2)
    y, *finals = drnl(*case, SMALL)
    states, parts = case[5:], []
    for piece in case[0].split((1, 67, 16, 66), -1):
        part, *states = drnl(piece, *case[1:5], *states, SMALL)
        parts.append(part)
    assert_close(torch.cat(parts, -1), y, 1e-12)
    for state, final in zip(states, finals, strict=True):
        assert_close(state, final, 1e-12)


@pytest.mark.slow  # every run has the cases of test_nan_causality.py here
def test_nan_stays_in_its_batch_row() -> None:
    case = operands((2, 1, 2), 200, torch.float32, 3, 2)
    clean = drnl(*case, SMALL)
    x = case[0].clone()
    x[1, 100] = float("nan")
    spoilt = drnl(x, *case[1:], SMALL)
    for a, b in zip(spoilt, clean, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert torch.equal(spoilt[0][1, :, :100], clean[0][1, :, :100])
    assert torch.isnan(spoilt[0][1, :, 100:]).all()


def test_any_strides() -> None:
    case = operands((2, 1, 1), 40, torch.float32, 2, 2)
    wanted = drnl(*case, SMALL)
    strided = case[0].t().contiguous().t(), *(t.mT.contiguous().mT for t in case[1:])
    expanded = case[0][:1].expand(2, -1)
    got = drnl(*strided, SMALL)
    assert all(torch.equal(a, b) and a.is_contiguous() for a, b in zip(got, wanted, strict=True))
    assert torch.equal(drnl(expanded, *case[1:], SMALL)[0][0], wanted[0][0])


def auditory(center: Tensor, fs: float) -> tuple[Tensor, ...]:
    """Cascades of the shape and the gains of paulick2024's: gammatones of two sections, Butterworth low-passes."""
    decay = 2 * math.pi * (10**-0.03193 * center**0.77) / fs
    high = (center / fs).float().double()
    zero = torch.zeros_like(center)
    gammatone = torch.stack((decay, high, center / fs - high, -2 * torch.expm1(-decay), zero, zero), -1)
    w = torch.tan(math.pi * center / fs)
    root = math.sqrt(2) * w
    cycles = torch.atan2(root, 1 - w * w) / (2 * math.pi)
    high = cycles.float().double()
    gain_re, gain_im = -2 * root * w * w / (1 + w**4), -2 * root / (1 + w**4)
    butterworth = torch.stack(
        (torch.atanh(root / (1 + w * w)), high, cycles - high, gain_re, gain_im, w * w / (1 - root + w * w)), -1
    )
    driven = gammatone * torch.tensor([1.0, 1, 1, 500, 500, 500], dtype=torch.float64)
    cascades = ((driven, gammatone, *(butterworth,) * 4), (gammatone,) * 2, (gammatone, gammatone, butterworth))
    return tuple(torch.cat(cascade, 1) for cascade in cascades)


@pytest.mark.parametrize(
    ("level", "center", "tiling"), [(1e-7, 250.0, SMALL), (1e-4, 1000.0, Tiling()), (1e-1, 4000.0, SMALL)]
)
def test_levels_of_hearing(level: float, center: float, tiling: Tiling) -> None:
    """A slope of 1e4 at 0 and compression by a power of 0.25 from far below the peak on."""
    generator = torch.Generator().manual_seed(0)
    x = level * torch.randn(1, 300, generator=generator, dtype=torch.float64)
    cascades = auditory(torch.tensor([center], dtype=torch.float64), 44100.0)
    stick = torch.tensor([[1e4, 0.1, 0.25]], dtype=torch.float64)
    states = [torch.zeros(1, 1, 2 * order, dtype=torch.float64) for order in PAULICK]
    case = tuple(t.float() for t in (x, *cascades, stick, *states))
    for actual, wanted in zip(drnl(*case, tiling), expected(*case), strict=True):
        assert_close(actual, wanted, 5e-6, dtype=torch.float32)
