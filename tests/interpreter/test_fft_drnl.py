"""The FFT-DRNL's Triton kernels, run by Triton's interpreter, against transforms of the whole signal in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import assert_close

from tamt.ops.fft_drnl_frames import _definition as frames_definition
from tamt.reference import fft_drnl as reference
from tamt.triton_kernels import fft_drnl as engine


def operands(
    memory: int, size: int, length: int, dtype: torch.dtype, batch: int = 2, channels: int = 3
) -> tuple[Tensor, ...]:
    """Signal, spectra, stick and a past other than silence."""
    decay = torch.exp(-3 * torch.arange(memory + 1) / (memory + 1))
    impulses = decay * torch.randn(3, 3, memory + 1)
    spectra = torch.view_as_real(torch.fft.rfft(impulses.double(), size))[:, :channels]
    stick = torch.tensor([[2.0, 0.7, 0.25], [0.5, 1.5, 0.4], [3.0, 1.0, 0.1]])[:channels]
    drawn = torch.randn(batch, length), spectra, stick, torch.randn(batch, memory), torch.randn(batch, channels, memory)
    return tuple(t.to(dtype) for t in drawn)


# Memory, size of a transform, length, batch, channels. Hops are 12, 31, 96, 8 (shorter than the memory) and 1000.
SHAPES = [
    (4, 16, 0, 2, 3),
    (4, 16, 1, 1, 1),
    (4, 16, 3, 2, 2),
    (4, 16, 4, 2, 3),
    (4, 16, 12, 1, 3),
    (4, 16, 13, 2, 3),
    (4, 16, 50, 2, 3),
    (32, 128, 31, 1, 2),
    (32, 128, 97, 2, 3),
    (32, 128, 300, 1, 3),
    (32, 40, 70, 1, 2),
    (0, 4, 11, 2, 2),
    (1023, 4096, 4000, 1, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("memory", "size", "length", "batch", "channels"), SHAPES)
def test_forward_and_every_gradient(
    memory: int, size: int, length: int, batch: int, channels: int, dtype: torch.dtype
) -> None:
    given = operands(memory, size, length, dtype, batch, channels)
    wide = [t.double().requires_grad_() for t in given]
    expected = reference.definition(*wide)
    actual = engine.fft_drnl(*given)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, tolerance, dtype)
    weights = [torch.randn_like(a) for a in actual]
    targets = [wide[i] for i in (0, 2, 3, 4)]
    expected = torch.autograd.grad(
        expected, targets, [w.double() for w in weights], allow_unused=True, materialize_grads=True
    )
    for a, e in zip(engine.fft_drnl_backward(*weights, *given, True), expected, strict=True):
        assert_close(a, e, 3 * tolerance, dtype)


def test_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of channels, groups of blocks and slices of rows, each carrying what the next one needs."""
    given = operands(4, 16, 30, torch.float64, batch=3)
    weights = torch.randn(3, 3, 30).double(), torch.randn(3, 4).double(), torch.randn(3, 3, 4).double()
    expected = *engine.fft_drnl(*given), *engine.fft_drnl_backward(*weights, *given, True)
    for transforms in (1, 4, 7):
        monkeypatch.setattr(engine, "BYTES", transforms * 16 * 8 * engine.TEMPORARIES)
        assert len(engine.plan(weights[0], 16, 4)) > 1
        actual = *engine.fft_drnl(*given), *engine.fft_drnl_backward(*weights, *given, True)
        for a, e in zip(actual, expected, strict=True):
            assert_close(a, e, 1e-12)


@pytest.mark.parametrize(
    ("period", "detector", "dtype"),
    [
        (5, "power", torch.float32),  # some end in a later block
        (1, "halfwave", torch.float64),
        (12, "power", torch.float64),  # a block
        (13, "halfwave", torch.float32),
        (40, "power", torch.float64),  # some blocks, of several groups
        (61, "power", torch.float32),  # no hop
        (30, "halfwave", torch.float32),
    ],
)
def test_means_over_hops(period: int, detector: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all blocks in a group, and of groups of one or two blocks of a channel or of all."""
    given = operands(4, 16, 60, dtype, batch=2)
    expected = frames_definition(*(t.double() for t in given), period, detector)
    for transforms in (1, 6, 1000):
        monkeypatch.setattr(engine, "BYTES", transforms * 16 * dtype.itemsize * engine.TEMPORARIES)
        for a, e in zip(engine.fft_drnl_frames(*given, period, detector), expected, strict=True):
            assert_close(a, e, 1e-5 if dtype == torch.float32 else 1e-11, dtype)


def test_means_over_hops_of_several_loads() -> None:
    """Of more samples than a program takes at a time, and of more hops than one program has."""
    given = operands(4, 4096, 3000, torch.float64, batch=1, channels=1)
    for period in (1, 2500):
        expected = frames_definition(*given, period, "power")
        for a, e in zip(engine.fft_drnl_frames(*given, period, "power"), expected, strict=True):
            assert_close(a, e, 1e-11)


def test_without_the_gradient_of_the_signal() -> None:
    given = operands(4, 16, 30, torch.float64)
    weights = torch.randn(2, 3, 30).double(), torch.randn(2, 4).double(), torch.randn(2, 3, 4).double()
    every = engine.fft_drnl_backward(*weights, *given, True)
    some = engine.fft_drnl_backward(*weights, *given, False)
    assert torch.equal(some[1], every[1])
    assert torch.equal(some[3], every[3])
    assert some[0].numel() == some[2].numel() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_and_knee(dtype: torch.dtype) -> None:
    """Gradients of the linear branch. With c = 1 and a = b every sample lies on the knee."""
    x, spectra, _, past_x, past_w = operands(4, 16, 30, dtype)
    weights = torch.randn(2, 3, 30, dtype=dtype), torch.zeros_like(past_x), torch.zeros_like(past_w)
    knee = torch.tensor([[1.5, 1.5, 1.0]] * 3, dtype=dtype)
    linear = torch.tensor([[1.5, 1e9, 1.0]] * 3, dtype=dtype)
    silence = x * 0, spectra, torch.tensor([[1.5, 0.1, 0.25]] * 3, dtype=dtype), past_x * 0, past_w
    expected = engine.fft_drnl_backward(*weights, x, spectra, linear, past_x, past_w, True)
    assert expected[1][:, 0].abs().min() > 0.1
    for a, e in zip(engine.fft_drnl_backward(*weights, x, spectra, knee, past_x, past_w, True), expected, strict=True):
        assert torch.equal(a, e)
    silent = engine.fft_drnl_backward(*weights, *silence, True)
    assert torch.equal(silent[0], expected[0])
    assert not silent[1].any()


@pytest.mark.slow  # every run has the cases of test_nan_causality.py here
def test_nan_stays_in_its_row() -> None:
    given = list(operands(4, 16, 55, torch.float32, batch=3))
    weights = torch.randn(3, 3, 55), torch.randn(3, 4), torch.randn(3, 3, 4)
    clean = *engine.fft_drnl(*given), *engine.fft_drnl_backward(*weights, *given, True)
    given[0] = given[0].clone()
    given[0][1, 20] = float("nan")
    spoilt = *engine.fft_drnl(*given), *engine.fft_drnl_backward(*weights, *given, True)
    assert spoilt[0][1].isnan().any()
    for i in (0, 1, 2, 3, 5, 6):
        assert torch.equal(spoilt[i][[0, 2]], clean[i][[0, 2]])


def test_any_strides() -> None:
    x, spectra, stick, past_x, past_w = operands(4, 16, 30, torch.float32)
    plain = engine.fft_drnl(x, spectra, stick, past_x, past_w)
    strided = (
        x.repeat_interleave(2, -1)[:, ::2],
        spectra.transpose(0, 2).contiguous().transpose(0, 2),
        stick.t().contiguous().t(),
        past_x.t().contiguous().t(),
        past_w.mT.contiguous().mT,
    )
    for a, e in zip(engine.fft_drnl(*strided), plain, strict=True):
        assert torch.equal(a, e)
        assert a.is_contiguous()
    weights = torch.ones(()).expand(2, 3, 30), past_x.mT.contiguous().mT, past_w.mT.contiguous().mT
    expected = engine.fft_drnl_backward(*(w.contiguous() for w in weights), x, spectra, stick, past_x, past_w, True)
    for a, e in zip(engine.fft_drnl_backward(*weights, *strided, True), expected, strict=True):
        assert torch.equal(a, e)
        assert a.is_contiguous()


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (2, 0)])
def test_no_rows_or_no_channels(batch: int, channels: int) -> None:
    given = operands(4, 16, 20, torch.float32, batch, channels)
    y, last_x, last_w = engine.fft_drnl(*given)
    assert y.shape == (batch, channels, 20)
    grad_x, grad_stick, grad_past_x, grad_past_w = engine.fft_drnl_backward(y, 0 * last_x, last_w, *given, True)
    assert not grad_x.any()
    assert grad_x.shape == given[0].shape
    assert not grad_stick.any()
    assert grad_past_x.shape == given[3].shape
    assert grad_past_w.shape == given[4].shape
