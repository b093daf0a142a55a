"""Means over hops of DRNL filters' outputs, by recursion and by FFT: against the outputs, gradients, chunks, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers import QUICK, Steps, assert_close, compiled_elsewhere
from test_drnl_operator import example as drnl_example
from test_fft_drnl import example_operands as fft_example
from torch import Tensor

from tamt.ops import drnl, drnl_frames, fft_drnl, fft_drnl_frames
from tamt.shared import hops


@dataclass(frozen=True)
class Case:
    """An operator of means, that of the outputs, and their operands for a length and a batch."""

    rows: Any
    backward: Any
    outputs: Any
    example: Callable[..., list[Tensor]]
    states: int  # operands from here on are states
    flags: int  # of the backward operator
    constant: int | None = None  # an operand without gradient

    def graded(self, length: int, batch: int = 2) -> tuple[list[Tensor], list[Tensor]]:
        """Operands, and those of them that have gradients."""
        operands = [t.requires_grad_(i != self.constant) for i, t in enumerate(self.example(length, batch))]
        return operands, [t for t in operands if t.requires_grad]

    def composed(self, operands: list[Tensor], hop: int, detector: str) -> tuple[Tensor, ...]:
        x, *rest = operands
        count = x.shape[1] // hop
        y, *finals = self.outputs(x[:, : count * hop], *rest)
        values = y.clamp(min=0) if detector == "halfwave" else y.square()
        return values.unflatten(-1, (count, hop)).mean(-1), *finals


CASES = {
    "drnl": Case(
        drnl_frames.drnl_frames_rows, drnl_frames.drnl_frames_backward, drnl.drnl_rows, drnl_example, states=5, flags=5
    ),
    "fft_drnl": Case(
        fft_drnl_frames.fft_drnl_frames_rows,
        fft_drnl_frames.fft_drnl_frames_backward,
        fft_drnl.fft_drnl_rows,
        lambda length, batch=2: list(fft_example(20, 128, length, batch, channels=3)),
        states=3,
        flags=1,
        constant=1,
    ),
}

every = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
detectors = pytest.mark.parametrize("detector", ["power", "halfwave"])


@pytest.fixture(params=[None, 700], ids=["whole", "chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples together, or some rows and pieces of time after the others."""
    if request.param:
        monkeypatch.setattr(hops, "CHUNK", request.param)
        sizes = fft_drnl_frames._sizes
        monkeypatch.setattr(fft_drnl_frames, "_sizes", lambda *given: sizes(*given)._replace(least=100))


@every
@detectors
@pytest.mark.parametrize("hop", [160, 7, 1, 500, 501])
@pytest.mark.usefixtures("_chunks")
def test_means_and_gradients(case: Case, detector: str, hop: int) -> None:
    operands, graded = case.graded(500)
    found = case.rows(*operands, hop, detector)
    expected = case.composed(operands, hop, detector)
    assert found[0].shape[2] == 500 // hop
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted, 1e-10)
        assert actual.is_contiguous()
    weights = [torch.randn_like(r) for r in expected]
    wanted = torch.autograd.grad(expected, graded, weights)
    for a, e in zip(torch.autograd.grad(found, graded, weights), wanted, strict=True):
        assert_close(a, e, 1e-8)


@every
def test_gradients_of_one_operand_alone(case: Case) -> None:
    operands, graded = case.graded(300)
    every_one = torch.autograd.grad(case.rows(*operands, 90, "power")[0].sum(), graded)
    for one, expected in zip(graded, every_one, strict=True):
        for tensor in graded:
            tensor.requires_grad_(tensor is one)
        assert_close(torch.autograd.grad(case.rows(*operands, 90, "power")[0].sum(), one)[0], expected, 1e-12)


@every
def test_gradgradcheck(case: Case) -> None:
    operands, graded = case.graded(24, batch=1)

    def function(x: Tensor) -> Tensor:
        return case.rows(x, *operands[1:], 12, "power")[0]

    assert torch.autograd.gradgradcheck(function, graded[0], atol=1e-4, fast_mode=True)


@every
def test_opcheck(case: Case) -> None:
    operands, _ = case.graded(60)
    torch.library.opcheck(case.rows, (*operands, 20, "power"), test_utils=QUICK)
    results = case.rows(*operands, 20, "power")
    flags = (True,) * case.flags
    given = *(torch.randn_like(r) for r in results), *operands, 20, "power"
    torch.library.opcheck(case.backward, (*given, *flags), test_utils=QUICK)
    torch.library.opcheck(case.backward, (*given, *(not flag for flag in flags)), test_utils=QUICK)


@compiled_elsewhere
@every
def test_one_graph_for_all_lengths(case: Case, backend: str) -> None:
    _, *rest = case.example(0)

    def function(x: Tensor, *rest: Tensor) -> Tensor:
        return case.rows(x, *rest, 40, "power")[0]

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for length in (200, 399, 1000):
        x = torch.randn(2, length, dtype=torch.float64).requires_grad_()
        actual, expected = compiled(x, *rest), function(x, *rest)
        assert_close(actual, expected, 1e-12)
        assert_close(torch.autograd.grad(actual.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0], 1e-9)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(torch.randn(2, 731, dtype=torch.float64).requires_grad_(), *rest)


@every
def test_memory_does_not_grow_with_the_length(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "CHUNK", 1 << 12)
    largest = []
    for length in (10_000, 40_000):
        operands, (x, *_) = case.graded(length, batch=1)
        with Steps() as steps:
            means = case.rows(*operands, 160, "power")[0]
            (grad,) = torch.autograd.grad(means.sum(), x)
        lasting = {means.nbytes, x.nbytes, grad.nbytes}
        largest.append(max(n for n in (t.untyped_storage().nbytes() for t in steps.made) if n not in lasting))
    assert largest[1] <= min(1.1 * largest[0], 3 * length * 8 / 2)


def test_chunks_on_a_device_are_whole_rows_or_fill_its_warps() -> None:
    sizes = hops.chunk_sizes(torch.empty(0, device="meta"))
    for batch, channels, length in ((32, 50, 176400), (1, 50, 1764000), (400, 50, 3000), (2, 10000, 20000)):
        chunks = hops.Chunks(batch, channels, length, sizes)
        times, rows = ([part.stop - part.start for part in parts] for parts in (chunks.times(), chunks.rows()))
        assert (sum(times), sum(rows)) == (length, batch)
        assert max(rows) == 1 or times == [length]
        assert all(n % 8192 == 0 for n in times[:-1])
        assert channels * max(rows) * max(times) <= max(hops.GPU_CHUNK, 8192 * channels)


@every
@detectors
def test_silence(case: Case, detector: str) -> None:
    operands = [t.float() for t in case.example(200)]
    silent = [torch.zeros_like(t) if not 0 < i < case.states else t for i, t in enumerate(operands)]
    x = silent[0].requires_grad_()
    means, *_ = case.rows(*silent, 40, detector)
    assert not means.any()
    assert torch.autograd.grad(means.sum(), x)[0].isfinite().all()


@every
def test_errors(case: Case) -> None:
    operands = case.example(60)
    with pytest.raises(ValueError, match="hop must be at least 1, got 0"):
        case.rows(*operands, 0, "power")
    with pytest.raises(ValueError, match=r"detector must be one of \('envelope', 'power', 'halfwave'\), got 'peak'"):
        case.rows(*operands, 20, "peak")
    with pytest.raises(
        ValueError, match="detector must be 'power' or 'halfwave' for nonlinear filters, got 'envelope'"
    ):
        case.rows(*operands, 20, "envelope")
    with pytest.raises(ValueError, match="x must have"):
        case.rows(operands[0][0], *operands[1:], 20, "power")
