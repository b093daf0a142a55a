"""Every launcher, in Triton's interpreter, at random shapes, strides and types against the operator's plain torch.

Around operands that are views lies what :mod:`interpreter.nets` takes for unwritten.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from helpers import drnl_parameters, example_coef, example_operands, judge, rows_of_poles

import tamt.ops
from tamt.ops._operator import Operator, as_tuple, operators
from tamt.ops.windowed_dft import dft_tables
from tamt.shared.roex import rate
from tamt.triton_kernels import broken_stick, fft_drnl, recurrence, windowed_dft
from tamt.triton_kernels.filter_frames import Slices
from tamt.triton_kernels.iir import Tiling

for module in pkgutil.iter_modules(tamt.ops.__path__):
    importlib.import_module(f"tamt.ops.{module.name}")
LAUNCHED = [name for name, one in operators.items() if one.launcher and not name.endswith("_backward")]
# NumPy, which the interpreter runs on, warns of what is not finite.
pytestmark = [pytest.mark.filterwarnings("ignore::RuntimeWarning"), pytest.mark.slow]


class Case(NamedTuple):
    """Operands in float64, parameters by name, and what launchers take beside these, or read from their modules."""

    operands: tuple[Tensor, ...]
    parameters: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})
    settings: tuple[tuple[Any, str, Any], ...] = ()


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


LENGTHS = (0, 1, 7, 15, 16, 17, 31, 32, 48, 63, 64, 65, 80, 127, 128, 130, 192, 200, 257, 272)


def tiling(draw: random.Random) -> Tiling:
    return Tiling(draw.choice([64, 64, 128]), draw.choice([2, 4]), draw.randint(1, 4), draw.choice([0, 0, 32]))


def filters(draw: random.Random, shared: bool = False) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    kind, order = draw.choice(["onepole", "biquad", "allpole", "modal"]), draw.choice([1, 1, 2, 2, 3, 4, 5])
    rows, channels, length = draw.randint(1, 3), draw.choice([1, 2, 3, 4, 6, 9]), draw.choice(LENGTHS)
    x, *rest = example_operands(kind, order, length, not shared, rows, channels, draw.randrange(1000))
    signals = draw.choice([s for s in range(1, channels + 1) if channels % s == 0])
    return (x if shared else x[:, :signals], *rest), {"kind": kind, "order": order}


def of_iir(draw: random.Random) -> Case:
    operands, parameters = filters(draw)
    return Case(operands, parameters, {"tiling": tiling(draw)})


def of_filter_frames(draw: random.Random) -> Case:
    (x, *rest), parameters = filters(draw, shared=True)
    detectors = ["power", "halfwave"] + ["envelope"] * (parameters["kind"] in ("onepole", "allpole"))
    parameters |= {"hop": draw.choice([1, 5, 16, 17, 32, 41, 64, 100]), "detector": draw.choice(detectors)}
    one = tiling(draw)
    slices = Slices(one, draw.choice([100, 1000]), draw.choice([32, 64]), draw.choice([3000, 10**6]), 8192)
    return Case((x[:, 0], *rest), parameters, {"tiling": one, "most": draw.choice([300, 10**6]), "slices": slices})


def of_drnl(draw: random.Random) -> Case:
    orders, rows, channels = [draw.randint(1, 3) for _ in range(3)], draw.randint(1, 2), draw.randint(1, 3)
    cascades = [example_coef("modal", order, channels, draw.randrange(99)) for order in orders]
    stick = torch.tensor([[1.0, 0.25, 0.25]], dtype=torch.float64) * (0.5 + uniform(channels, 3))
    states = [0.1 * normal(rows, channels, 2 * order) for order in orders]
    return Case(
        (normal(rows, draw.choice(LENGTHS)), *cascades, stick, *states), {}, {"tiling": tiling(draw)._replace(short=0)}
    )


def of_drnl_frames(draw: random.Random) -> Case:
    case = of_drnl(draw)
    parameters = {"hop": draw.choice([1, 7, 16, 41, 64, 100]), "detector": draw.choice(["power", "halfwave"])}
    return case._replace(parameters=parameters, options=case.options | {"most": draw.choice([512, 2048, 10**6])})


def of_fft_drnl(draw: random.Random) -> Case:
    memory, rows, channels = draw.choice([0, 1, 4, 31, 40]), draw.randint(1, 3), draw.randint(1, 3)
    size = draw.choice([n for n in (4, 16, 40, 64, 128) if n > memory])
    decay = torch.exp(-3 * torch.arange(memory + 1) / (memory + 1)).double()
    impulses = decay * normal(3, channels, memory + 1)
    spectra = torch.view_as_real(torch.fft.rfft(impulses / impulses.norm(dim=-1, keepdim=True), size))
    stick = torch.tensor([2.0, 0.7, 0.25], dtype=torch.float64) * (0.5 + uniform(channels, 3))
    past = normal(rows, memory), normal(rows, channels, memory)
    settings = (
        (fft_drnl, "BYTES", draw.choice([8 << 10, 200 << 10, 256 << 20])),
        (fft_drnl, "BLOCK", draw.choice([32, 1024])),
        (fft_drnl, "BINS", draw.choice([16, 512])),
    )
    return Case((normal(rows, draw.choice(LENGTHS)), spectra, stick, *past), settings=settings)


def of_fft_drnl_frames(draw: random.Random) -> Case:
    parameters = {"hop": draw.choice([1, 5, 12, 40, 100]), "detector": draw.choice(["power", "halfwave"])}
    return of_fft_drnl(draw)._replace(parameters=parameters)


def of_broken_stick(draw: random.Random) -> Case:
    shape = draw.randint(1, 3), draw.randint(1, 4), draw.choice([0, 1, 16, 63, 64, 257, 500])
    v = normal(*shape) * 10 ** (-10 * uniform(*shape))
    v[..., 3::7] = 0
    stick = torch.tensor([[1.0, 0.1, 0.25], [1e4, 0.1, 0.25], [0, 0.5, 0.25], [2, 0.3, 1]], dtype=torch.float64)
    return Case((v, stick[: shape[1]]), settings=((broken_stick, "TILE", 64), (broken_stick, "CHUNK", 128)))


def of_windowed_dft(draw: random.Random) -> Case:
    size, hop = draw.choice([64, 128]), draw.choice([1, 7, 16, 33, 64, 100, 200])
    bands, low = [], draw.randrange(5)
    apart = draw.random() < 0.5
    for _ in range(draw.randint(1, 3)):
        low = low if apart else draw.randrange(size // 2)
        high = min(size // 2, low + draw.randrange(40))
        bands.append((2 * draw.randint(1, size // 2), low, high))
        low = min(size // 2, high + 1)
    draw.shuffle(bands)
    plan = dict(zip(("lengths", "first", "last"), map(list, zip(*bands, strict=True)), strict=True))
    x, weight = (
        normal(draw.randint(1, 2), size + draw.randrange(400)),
        0.5 + uniform(sum(b - a + 1 for _, a, b in bands)),
    )
    settings = ((windowed_dft, "PARTS", draw.choice([512, 4096, 1 << 24])),)
    return Case((x, dft_tables(bands, size), weight), plan | {"hop": hop, "size": size}, settings=settings)


def of_compaction(draw: random.Random) -> Case:
    rows, columns = draw.choice([0, 1, 3, 8]), draw.choice([1, 5, 31, 32, 33, 100, 300])
    intensity = 1.0 * torch.randint(1, draw.choice([3, 50]), (rows, columns))
    count = draw.choice([1, max(1, columns // 3), columns, columns + 50])
    parameters = {"count": count, "limited": count < columns}
    threshold = 1.0 * torch.randint(0, 40, (rows,))
    return Case((intensity.double(), torch.arange(1.0, columns + 1).double(), threshold.double()), parameters)


def spectrum(draw: random.Random) -> tuple[Tensor, Tensor]:
    rows, components = draw.randint(0, 3), draw.choice([0, 1, 5, 31, 64, 65, 200])
    intensity = 10 ** (6 * uniform(rows, components))
    intensity[:, components // 2 + 1 :] *= draw.choice([0, 1])
    return 20 + 14980 * uniform(rows, components), intensity


def of_roex_level(draw: random.Random) -> Case:
    return Case(spectrum(draw), {"ratio": draw.choice([2.0, 16.0, 2.0**60])})


def of_roex_excitation(draw: random.Random) -> Case:
    f, intensity = spectrum(draw)
    fc = torch.logspace(1.7, 4.1, draw.choice([0, 1, 7, 32, 33, 60]), dtype=torch.float64)
    return Case(
        (f, intensity, 1.5 * uniform(*f.shape) - 0.2, fc, fc * rate(fc)), {"ratio": draw.choice([2.0, 16.0, math.inf])}
    )


def of_spreading(draw: random.Random) -> Case:
    rows, bands = draw.choice([0, 1, 3, 8, 9, 17]), draw.choice([1, 2, 5, 40, 150, 300])
    slopes = torch.tensor([27.0, 11.0, 0.37, 0.2, 60.0], dtype=torch.float64)
    return Case((110 * uniform(rows, bands), slopes), {"erb_step": draw.choice([0.25, 0.1, 1.0])})


def of_attack_release(draw: random.Random) -> Case:
    rows, frames, channels = draw.randint(0, 3), draw.choice([0, 1, 7, 8, 9, 33, 70]), draw.choice([1, 3, 16, 40])
    constants = (torch.tensor(draw.choice([0.02, 0.3, 1.0]), dtype=torch.float64) for _ in range(2))
    settings = (recurrence, "STEPS", draw.choice([8, 32])), (recurrence, "BACK_STEPS", draw.choice([4, 16]))
    return Case((normal(rows, frames, channels), *constants, normal(rows, channels)), settings=settings)


def of_onepole_rows(draw: random.Random) -> Case:
    some = draw.sample([*range(3, 15), *range(17, 25)], draw.randint(0, 20))  # not those that rounding moves
    return Case(tuple(t[some] for t in rows_of_poles(torch.float64)))


def of_drnl_sections(draw: random.Random) -> Case:
    parameters, options = drnl_parameters("paulick2024", torch.float64)
    some = draw.sample(range(3, 37), draw.randint(0, 34))
    options = {"fs": float(options["fs"]), "orders": list(options["orders"])}
    return Case(tuple(p[some] for p in parameters), options)


def strided(draw: random.Random, t: Tensor) -> Tensor:
    """The same numbers with other strides, at another place."""
    way = draw.randrange(6)
    if way == 0 or t.dim() == 0:
        return t
    if way == 1:
        return t.transpose(0, -1).contiguous().transpose(0, -1)
    room = torch.empty([2 * n + 3 for n in t.shape], dtype=t.dtype)
    if way == 2:  # steps along the last dimension
        room = room[..., 1 : 2 * t.shape[-1] + 1 : 2]
    for dim, size in enumerate(t.shape[: -1 if way == 2 else None]):
        start = draw.choice([0, 1, 3]) if way < 5 else 0
        room = room.narrow(dim, start if dim == t.dim() - 1 else 0, size)
    return room.copy_(t)


def compare(one: Operator, given: list[Any], wide: list[Any], options: Mapping[str, Any], tolerance: float) -> None:
    """What a launcher gives against what plain torch does in float64."""
    file, name = one.launcher.split(":")
    launcher = getattr(importlib.import_module(f"tamt.triton_kernels.{file}"), name)
    taken = inspect.signature(launcher).parameters
    found = as_tuple(launcher(*given, **{key: value for key, value in options.items() if key in taken}))
    for result, actual, wanted in zip(one.signature.results, found, as_tuple(one.computed(*wide)), strict=True):
        assert actual.shape == wanted.shape, result
        assert actual.dtype == given[0].dtype, result
        assert actual.is_contiguous(), result
        if actual.numel():
            assert actual.isfinite().all(), result
            # Coefficients, a column each, differ in size by orders; rows of other results are held against the loudest.
            columns = result in ("grad_coef", "grad_stick", "grad_slopes")
            error, size = ((t.t() if columns and t.dim() == 2 else t).norm(dim=-1) for t in (actual - wanted, wanted))
            judge(error, tolerance * (size if columns and wanted.dim() == 2 else size.amax()) + 1e-30)


def check(name: str, seed: int) -> None:
    """Forward and, where there is a launcher for it, backward."""
    draw = random.Random(f"{name} {seed}")
    torch.manual_seed(draw.randrange(1 << 30))
    case = globals()[f"of_{name}"](draw)
    one, back = operators[name], operators.get(f"{name}_backward")
    dtype = draw.choice(one.launched)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    vary = lambda key, t: t if key == "tables" else strided(draw, t)  # noqa: E731
    operands = {key: t.to(dtype) for key, t in zip(one.signature.tensors, case.operands, strict=True)}
    operands = {key: vary(key, t) for key, t in operands.items()}
    wide = {key: t.double() for key, t in operands.items()}
    with pytest.MonkeyPatch.context() as setting:
        for place in case.settings:
            setting.setattr(*place)
        parameters = list(case.parameters.values())
        compare(one, [*operands.values(), *parameters], [*wide.values(), *parameters], case.options, tolerance)
        if back is None or back.launcher is None:
            return
        results = dict(zip(one.signature.results, as_tuple(one.computed(*wide.values(), *parameters)), strict=True))
        differentiable = [r for i, r in enumerate(results.values()) if i not in one.constants]
        known = operands | {key: vary(key, t.to(dtype)) for key, t in results.items()}
        given = []
        for kind, key in back.signature.arguments:
            if kind != "Tensor":
                given.append(case.parameters[key] if key in case.parameters else draw.random() < 0.8)
            elif key in known:
                given.append(known[key])
            else:
                given.append(strided(draw, torch.randn_like(differentiable.pop(0)).to(dtype)))
        exact = [t.double() if isinstance(t, Tensor) else t for t in given]
        compare(back, given, exact, case.options, tolerance)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LAUNCHED)
def test_launcher(name: str, seed: int) -> None:
    check(name, seed)
