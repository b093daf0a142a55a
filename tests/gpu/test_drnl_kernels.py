"""The DRNL and the broken stick kernels on a device, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, example_coef
from torch import Tensor

from tamt.reference import broken_stick as reference
from tamt.reference import iir as engine

pytestmark = pytest.mark.gpu
ORDERS = {"paulick2024": (6, 2, 3), "jepsen2008": (7, 3, 6)}  # sections of the linear, the front and the back cascade
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def operands(orders: tuple[int, ...], length: int, batch: int, channels: int) -> list[Tensor]:
    """Signal, linear, front, back, stick and states other than rest, with samples on both sides of the knee."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cascades = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    stick = torch.tensor([[1.0, 0.25, 0.25]], dtype=torch.float64).repeat(channels, 1)
    states = [0.1 * normal(batch, channels, 2 * order) for order in orders]
    return [normal(batch, length), *cascades, stick, *states]


def expected(x: Tensor, linear: Tensor, front: Tensor, back: Tensor, stick: Tensor, *states: Tensor) -> list[Tensor]:
    direct, linear_final = engine.iir(x[:, None], linear, states[0], "modal", linear.shape[1] // 6)
    v, front_final = engine.iir(x[:, None], front, states[1], "modal", front.shape[1] // 6)
    z, back_final = engine.iir(reference.broken_stick(v, stick), back, states[2], "modal", back.shape[1] // 6)
    return [direct + z, linear_final, front_final, back_final]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 257, 4096, 50001, 160000])
@pytest.mark.parametrize("model", ORDERS)
def test_drnl_against_the_reference(model: str, length: int, dtype: torch.dtype) -> None:
    from tamt.triton_kernels.drnl import drnl

    case = [t.to(dtype) for t in operands(ORDERS[model], length, 2, 9)]
    got = drnl(*(t.cuda() for t in case))
    for actual, wanted in zip(got, expected(*(t.double() for t in case)), strict=True):
        assert_close(actual.cpu(), wanted, TOLERANCE[dtype], dtype=dtype)


def test_drnl_gives_the_same_bits_every_time() -> None:
    """Also where programs run at the same time over the memory that holds first one, then the other stage's output."""
    from tamt.triton_kernels.drnl import drnl

    case = [t.float().cuda() for t in operands(ORDERS["paulick2024"], 100001, 8, 30)]
    first = drnl(*case)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, drnl(*case), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0, 1, 16, 2049, 50001])
def test_broken_stick_against_the_reference(length: int, dtype: torch.dtype) -> None:
    from tamt.triton_kernels.broken_stick import broken_stick, broken_stick_backward

    generator = torch.Generator().manual_seed(length)
    v = torch.randn(3, 5, length, generator=generator, dtype=torch.float64)
    v = (v * 10 ** (-10 * torch.rand(v.shape, generator=generator, dtype=torch.float64))).to(dtype)
    v[..., 3::7] = 0
    stick = torch.tensor([[1.0, 0.1, 0.25], [1e4, 0.1, 0.25], [0, 0.5, 0.25], [2, 0.3, 1], [2, 2, 0.25]], dtype=dtype)
    grad = torch.randn(v.shape, generator=generator, dtype=torch.float64).to(dtype)
    wide = [t.double() for t in (grad, v, stick)]
    w = broken_stick(v.cuda(), stick.cuda())
    wanted = reference.broken_stick(*wide[1:])
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-12}[dtype]
    assert ((w.cpu() - wanted).abs() <= tolerance * wanted.abs()).all()
    runs = [broken_stick_backward(*(t.cuda() for t in (grad, v, stick))) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    grad_v, grad_stick = (t.cpu() for t in runs[0])
    wanted_v, wanted_stick = reference.broken_stick_backward(*wide)
    assert ((grad_v - wanted_v).abs() <= tolerance * wanted_v.abs()).all()
    assert_close(grad_stick.t(), wanted_stick.t(), 1e-5 if dtype == torch.float32 else 1e-12, dtype=dtype)
