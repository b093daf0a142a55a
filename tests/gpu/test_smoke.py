"""Every operator, forward and backward, in both types at two odd shapes: what a device is asked first.

The GPU's results are held against the reference on the CPU in float64. ``asv_bench/gpu.py --rehearse`` runs the same
in Triton's interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from helpers import drnl_parameters, example_coef, example_operands, rows_of_poles
from torch import Tensor

from asv_bench.staged.device import Device
from tamt.ops import (
    blocks,
    broken_stick,
    compaction,
    drnl,
    drnl_frames,
    drnl_sections,
    fft_drnl,
    fft_drnl_frames,
    filter_frames,
    fir,
    frames,
    iir,
    onepole_rows,
    product,
    recurrence,
    roex,
    spreading,
    windowed_dft,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.smoke,
    pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning"),  # numpy's, in the interpreter
]
REHEARSED = not torch.cuda.is_available()
DEVICE = Device(REHEARSED)


class Shape(NamedTuple):
    rows: int
    channels: int
    length: int


SHAPES = {"tiny": Shape(1, 3, 77), "odd": Shape(3, 5, 1003)}


class Case(NamedTuple):
    """A function of tensors, float64 on the CPU, of which the first ones are differentiated."""

    function: Callable[..., Any]
    operands: list[Tensor]
    differentiated: int
    tolerance: float = 1e-5  # in float32, relative to the norm of a result


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


def of_iir(kind: str, order: int, per_channel: bool, shape: Shape) -> Case:
    rows, channels, length = shape
    operands = list(example_operands(kind, order, length, per_channel, rows, channels))
    return Case(lambda *t: iir.iir(*t, kind, order), operands, 3, 1e-4)


def of_filter_frames(kind: str, order: int, hop: int, detector: str, shape: Shape) -> Case:
    rows, channels, length = shape
    x, coef, state = example_operands(kind, order, length, False, rows, channels)

    def function(*t: Tensor) -> Any:
        return filter_frames.filter_frames_rows(*t, kind, order, hop, detector)

    return Case(function, [x[:, 0], coef, state], 3, 1e-4)


def of_drnl(orders: tuple[int, int, int], shape: Shape) -> Case:
    rows, channels, length = shape
    cascades = [example_coef("modal", order, channels, seed) for seed, order in enumerate(orders)]
    stick = torch.tensor([[1.0, 0.25, 0.25]], dtype=torch.float64).repeat(channels, 1)
    states = [0.1 * random(rows, channels, 2 * order) for order in orders]
    # Rounding may put a sample on the other side of the knee, where its gradient is another one.
    return Case(drnl.drnl_rows, [random(rows, length), *cascades, stick, *states], 8, 1e-2)


def of_drnl_frames(hop: int, detector: str, shape: Shape) -> Case:
    whole = of_drnl((2, 1, 2), shape)
    return whole._replace(function=lambda *t: drnl_frames.drnl_frames_rows(*t, hop, detector))


def of_fft_drnl(shape: Shape) -> Case:
    rows, channels, length = shape
    impulses = torch.exp(-torch.arange(300) / 50.0).double() * random(3, channels, 300)
    spectra = fft_drnl.ir_spectra(impulses / impulses.norm(dim=-1, keepdim=True))
    stick = torch.tensor([[2.0, 0.7, 0.25]], dtype=torch.float64) * (0.5 + positive(channels, 3))
    past = [random(rows, 299), random(rows, channels, 299)]

    def function(x: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, spectra: Tensor) -> Any:
        return fft_drnl.fft_drnl_rows(x, spectra, stick, past_x, past_w)

    return Case(function, [random(rows, length), stick, *past, spectra], 4, 1e-2)


def of_fft_drnl_frames(shape: Shape) -> Case:
    def function(x: Tensor, stick: Tensor, past_x: Tensor, past_w: Tensor, spectra: Tensor) -> Any:
        return fft_drnl_frames.fft_drnl_frames_rows(x, spectra, stick, past_x, past_w, 7, "power")

    return of_fft_drnl(shape)._replace(function=function)


def of_fir(fan: int, shape: Shape) -> Case:
    rows, channels, length = shape
    taps = torch.exp(-torch.arange(300) / 50.0).double() * random(fan * channels, 300)
    return Case(fir.fir_rows, [random(rows, channels, length), taps, random(rows, channels, 299)], 3)


def of_broken_stick(shape: Shape) -> Case:
    return Case(broken_stick.broken_stick_rows, [random(*shape), 0.2 + positive(shape.channels, 3)], 2, 1e-4)


def of_windowed_dft(shape: Shape) -> Case:
    rows, _, length = shape
    bands = [(64, 3, 9), (32, 10, 30)]
    plan = *map(list, zip(*bands, strict=True)), 17, 64

    def function(x: Tensor, weight: Tensor, tables: Tensor) -> Tensor:
        return windowed_dft.windowed_dft_rows(x, tables, weight, *plan)

    tables = windowed_dft.dft_tables(bands, 64, dtype=torch.float64)
    return Case(function, [random(rows, length), 0.5 + positive(28), tables], 2, 1e-4)


def of_compaction(count: int, shape: Shape) -> Case:
    rows, _, length = shape
    # Levels a good deal apart, so that float32 finds the same ones.
    intensity = 10 ** (3 * torch.rand(rows, length).argsort(1).double() / length)
    frequencies, limits = torch.arange(1.0, length + 1).double(), torch.full((rows,), 31.6, dtype=torch.float64)
    count = min(count, length)

    def function(intensity: Tensor, frequencies: Tensor, limits: Tensor) -> Any:
        found, levels = compaction.compaction_rows(intensity, frequencies, limits, count, count < length)
        return found, levels.nan_to_num(neginf=0.0)

    return Case(function, [intensity, frequencies, limits], 1)


def of_fullest(shape: Shape) -> Case:
    rows, _, length = shape
    return Case(compaction.fullest, [10 ** (3 * positive(rows, length)), torch.full((rows,), 31.6).double()], 0)


def spectrum(shape: Shape) -> tuple[Tensor, Tensor]:
    rows, _, length = shape
    return (50 + 9000 * positive(rows, length)).sort(1).values, 10 ** (6 * positive(rows, length))


def of_level(shape: Shape) -> Case:
    return Case(lambda f, intensity: roex.roex_level_rows(f, intensity, 16.0), list(spectrum(shape)), 2, 1e-3)


def of_excitation(shape: Shape) -> Case:
    f, intensity = spectrum(shape)
    fc = torch.logspace(1.8, 4, 20 * shape.channels + 1, dtype=torch.float64)
    steepness = 0.2 + positive(*f.shape)

    def function(*tensors: Tensor) -> Tensor:
        return roex.roex_excitation_rows(*tensors, math.inf)

    return Case(function, [f, intensity, steepness, fc, fc / 30], 3, 1e-3)


def of_shared(shape: Shape) -> Case:
    f, intensity = spectrum(shape)
    weights, fc = roex.roex_weights(f[0]), torch.logspace(1.8, 4, 20 * shape.channels + 1, dtype=torch.float64)
    factor = torch.tensor(0.35, dtype=torch.float64)

    def function(*tensors: Tensor) -> Tensor:
        return roex.roex_shared_rows(*tensors, 30.2, math.inf)

    return Case(function, [f[0], intensity, weights, factor, fc, fc / 30], 4, 1e-3)


def of_spreading(shape: Shape) -> Case:
    slopes = torch.tensor([27.0, 24.0, 0.4, 0.1, 51.0], dtype=torch.float64)
    levels = 50 + 10 * random(7 * shape.rows, 30 * shape.channels + 1)
    return Case(lambda levels, slopes: spreading.spreading_rows(levels, slopes, 0.25), [levels, slopes], 2, 1e-4)


def of_attack_release(single: bool, shape: Shape) -> Case:
    """Channels side by side or, where there is one only, rows."""
    rows, channels, length = shape
    rows, channels = (rows * channels, 1) if single else (rows, 4 * channels)
    constants = [torch.tensor(constant, dtype=torch.float64) for constant in (0.1, 0.03)]
    return Case(
        recurrence.attack_release_rows, [random(rows, length, channels), *constants, random(rows, channels)], 4, 1e-4
    )


def of_blocks(shape: Shape) -> Case:
    return Case(lambda coef: blocks.iir_blocks(coef, "modal", 2), [example_coef("modal", 2, shape.channels)], 1, 1e-4)


def of_frames(name: str, shape: Shape) -> Case:
    rows, channels, length = shape
    return {
        "frames": lambda: Case(lambda x: frames._frames(x, 16, 5), [random(rows, length)], 1),
        "overlap_add": lambda: Case(
            lambda x: frames._overlap_add(x, length, 5), [random(rows, (length - 16) // 5 + 1, 16)], 1
        ),
        "group_means": lambda: Case(
            lambda x: frames._group_means(x, 4, (length - 2) // 4), [random(rows, length, channels)], 1
        ),
        "spread_means": lambda: Case(
            lambda x: frames._spread_means(x, 4 * length - 1, 4), [random(rows, length, 3)], 1
        ),
        "moving_means": lambda: Case(lambda x: frames._moving_means(x, 5), [random(rows, channels, length)], 1),
        "moved_means": lambda: Case(
            lambda x: frames._moved_means(x, length + 4, 5), [random(rows, channels, length)], 1
        ),
    }[name]()


def of_onepole_rows(shape: Shape) -> Case:
    some = [*range(3, 15), *range(17, 25)]  # not those at 0 and at the limit, which rounding moves
    return Case(onepole_rows.onepole_rows, [t[some] for t in rows_of_poles(torch.float64)], 2)


def of_drnl_sections(shape: Shape) -> Case:
    parameters, options = drnl_parameters("paulick2024", torch.float64)
    return Case(lambda *p: drnl_sections.drnl_sections(*p, **options), parameters, 7)


CASES: dict[str, Callable[[Shape], Case]] = {
    **{
        f"iir {kind} {order}{' per channel' * per_channel}": (
            lambda shape, kind=kind, order=order, per_channel=per_channel: of_iir(kind, order, per_channel, shape)
        )
        for kind, order, per_channel in (
            ("onepole", 4, False),
            ("allpole", 4, False),
            ("biquad", 4, False),
            ("modal", 6, False),
            ("modal", 3, True),
            ("onepole", 2, True),
        )
    },
    **{
        f"filter_frames {kind} {order}, {detector} of {hop}": (
            lambda shape, kind=kind, order=order, hop=hop, detector=detector: of_filter_frames(
                kind, order, hop, detector, shape
            )
        )
        for kind, order, hop, detector in (
            ("onepole", 4, 16, "power"),
            ("onepole", 4, 25, "envelope"),
            ("biquad", 2, 7, "halfwave"),
        )
    },
    "onepole_rows": of_onepole_rows,
    "drnl_sections": of_drnl_sections,
    "drnl": lambda shape: of_drnl((6, 2, 3), shape),
    "broken_stick": of_broken_stick,
    **{
        f"drnl_frames {detector} of {hop}": (
            lambda shape, hop=hop, detector=detector: of_drnl_frames(hop, detector, shape)
        )
        for hop, detector in ((16, "power"), (25, "halfwave"))
    },
    "fft_drnl": of_fft_drnl,
    "fft_drnl_frames": of_fft_drnl_frames,
    "fir": lambda shape: of_fir(1, shape),
    "fir of a fan": lambda shape: of_fir(2, shape),
    "windowed_dft": of_windowed_dft,
    "compaction": lambda shape: of_compaction(10**6, shape),
    "compaction to a few": lambda shape: of_compaction(40, shape),
    "fullest": of_fullest,
    "roex_level": of_level,
    "roex_excitation": of_excitation,
    "roex_shared": of_shared,
    "spreading": of_spreading,
    "attack_release": lambda shape: of_attack_release(False, shape),
    "attack_release of single channels": lambda shape: of_attack_release(True, shape),
    "iir_blocks": of_blocks,
    "product": lambda shape: Case(
        product._product, [random(2, shape.rows, shape.length), random(1, shape.length, 5).expand(2, -1, -1)], 2
    ),
    "products": lambda shape: Case(product._products, [random(3, 2, shape.length), random(3, shape.length, 5)], 2),
    **{
        name: (lambda shape, name=name: of_frames(name, shape))
        for name in ("frames", "overlap_add", "group_means", "spread_means", "moving_means", "moved_means")
    },
}


def passes(case: Case, operands: list[Tensor], weights: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Results and gradients; without weights some are made."""
    leaves = [t.requires_grad_() if k < case.differentiated else t for k, t in enumerate(operands)]
    results = case.function(*leaves)
    results = [results] if isinstance(results, Tensor) else list(results)
    weighted = [r for r in results if r.requires_grad]
    weights = [torch.randn_like(r) for r in weighted] if weights is None else weights
    given = [w.to(r) for w, r in zip(weights, weighted, strict=True)]
    grads = torch.autograd.grad(weighted, leaves[: case.differentiated], given) if weighted else ()
    return [r.detach() for r in results] + list(grads), weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, shape: Shape, dtype: torch.dtype) -> None:
    case = CASES[name](shape)
    here = [t.to(dtype) for t in case.operands]
    expected, weights = passes(case, [t.double() for t in here], None)
    there = [t.to(DEVICE.name) if REHEARSED else t.cuda() for t in here]
    actual, _ = DEVICE.result(lambda: passes(case, [t.clone() for t in there], weights))
    tolerance = case.tolerance if dtype == torch.float32 else 1e-8
    for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.shape == e.shape
        assert a.dtype == (dtype if e.is_floating_point() else e.dtype)
        difference = (a.cpu().double() - e.double()).norm()
        assert difference <= tolerance * e.double().norm() + 1e-300, f"result {k}: {difference / e.norm():.2e}"
