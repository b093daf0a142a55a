"""What the tests share: filters to try, a sample-by-sample recursion to hold them against, and a strict comparison."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tamt import DRNLFilterbank
from tamt.design import drnl as design
from tamt.design.poles import MIN_DECAY, pole_design, split_design
from tamt.design.rows import BiquadSection, ModalSection, OnepoleRow
from tamt.design.sections import biquad_sections, section_gain
from tamt.filterbanks.drnl import FILTERS, MODELS
from tamt.reference import onepole_rows as reference_rows

# Of torch.library.opcheck all but tracing an operator and its gradients, which can take half a minute.
QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")

# Every run traces the operators where modules call them (test_contract.py), the nightly one each by itself, too.
checked = pytest.mark.parametrize(
    "checks",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param((*QUICK, "test_aot_dispatch_dynamic"), id="traced", marks=pytest.mark.slow),
    ],
)

# Operators, of which the modules' tests make Inductor's graphs, and the same modules called in another way.
compiled_elsewhere = pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])


def some_slow(cases: Iterable, quick: Callable[..., bool]) -> list:
    """Cases for parametrize, of which those that are not ``quick`` are slow tests; a case may be a tuple of values."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if quick(*case) else pytest.mark.slow) for case in values]


by_torchrun = pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows has no libuv for torchrun's store")


def torchrun(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes of this machine, or fail with what they print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, dtype: torch.dtype | None = None) -> None:
    """Same shape, finite, and within ``tolerance`` of ``expected`` relative to the peak of every channel.

    A channel is everything but the last dimension. ``dtype`` is what ``actual`` must have, that of ``expected`` if not
    given. A quiet channel that came out as zeros fails.
    """
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert actual.dtype == (dtype or expected.dtype), actual.dtype
    assert torch.isfinite(torch.view_as_real(actual) if actual.is_complex() else actual).all()
    if actual.numel() == 0:
        return
    wide = torch.promote_types(actual.dtype, torch.float64)
    error = (actual.to(wide) - expected.to(wide)).abs().amax(-1)
    peak = expected.to(wide).abs().amax(-1)
    judge(torch.where(error == 0, 0, error / peak), tolerance)


def assert_within(actual: Tensor, expected: Tensor, tolerance: float | Tensor) -> None:
    """Every element within ``tolerance`` of that of ``expected``: one number for all of them, or one for each."""
    judge((actual.double() - expected.double()).abs(), tolerance)


def judge(error: Tensor, tolerance: float | Tensor) -> float:
    """Fail where an error exceeds its tolerance or is NaN; otherwise the largest share of a tolerance that is used.

    Every comparison comes here, so that ``machines.py`` sees what is left of the tolerances.
    """
    limit = torch.as_tensor(tolerance, dtype=error.dtype).expand_as(error)
    share = torch.where(error == 0, 0, error / limit).flatten()
    if not share.numel():
        return 0.0
    worst = share.argmax()
    assert share[worst] <= 1, f"error {error.flatten()[worst]:.2e} exceeds {limit.flatten()[worst]:.2e}"
    return share[worst].item()


CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class Steps(TorchDispatchMode):
    """Keeps every tensor made inside the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []
        self.results: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "tamt":
            with self:  # the mode is off inside its own handler
                out = func.redispatch(CPU, *args)
            self.results += out
        else:
            out = func(*args, **(kwargs or {}))
            self.made += [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        return out

    def largest_temporary(self, x: Tensor, y: Tensor, *others: Tensor) -> int:
        """Bytes of what was made beside operands and results, ``x``, ``y`` and copies of these."""
        lasting = {t.untyped_storage().data_ptr() for t in (*self.results, x, y, *others)}
        storages = [t.untyped_storage() for t in self.made]
        # Where the signal cannot be looked at, as inside of a mode, backward makes one copy of it without NaN.
        beside = [s.nbytes() for s in storages if s.data_ptr() not in lasting]
        return max(size for size in beside if size not in (x.nbytes, y.nbytes))


class Held(TorchDispatchMode):
    """The most bytes that results of torch's operations hold at a time, those of ``known`` tensors aside."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {StorageWeakRef(t.untyped_storage()) for t in known}
        self.live: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                storage = StorageWeakRef(result.untyped_storage())
                if storage not in self.known:
                    self.live[storage] = result.untyped_storage().nbytes()
        self.live = {storage: size for storage, size in self.live.items() if not storage.expired()}
        self.most = max(self.most, sum(self.live.values()))
        return results


def saved_by_autograd(function: Callable[..., Any], operands: Iterable[Tensor]) -> list[Tensor]:
    """Tensors that autograd keeps for the backward pass of a function, but for the operands."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*operands)
    given = {t.data_ptr() for t in operands}
    return [t for t in kept if t.data_ptr() not in given]


def in_a_process_group(folder: Path, body: Callable[[], None]) -> None:
    """Run ``body`` in a group of this one process.

    What it has made is gone before the group: a reducer that is the last to hold a group waits for threads that wait
    for Python.
    """
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    try:
        body()
        gc.collect()
    finally:
        torch.distributed.destroy_process_group()


def pole_of(section: OnepoleRow | ModalSection) -> Tensor:
    return torch.exp(torch.complex(-section.decay, 2 * math.pi * (section.high + section.low)))


def naive_iir(x: Tensor, coef: Tensor, state: Tensor, kind: str, order: int) -> tuple[Tensor, Tensor]:
    """The definition of ``tamt.ops.iir.iir``, one sample after the other; autograd differentiates it."""
    signal = x.repeat_interleave(coef.shape[0] // max(1, x.shape[1]), 1)
    outputs = []
    if kind == "biquad":
        sections = [BiquadSection(*section.unbind(-1)) for section in coef.unflatten(1, (order, 7)).unbind(1)]
        s = list(state.unbind(-1))
        for u in signal.unbind(-1):
            for k, of in enumerate(sections):
                one, two = s[2 * k], s[2 * k + 1]
                s[2 * k] = of.r * one + of.omega * two + of.e1 * u
                s[2 * k + 1] = (of.r - of.a) * two - of.k * one + of.e2 * u
                u = of.b * u + one
            outputs.append(u)
        final = torch.stack(s, -1)
    elif kind == "modal":
        of = ModalSection(*coef.unflatten(1, (order, 6)).unbind(-1))
        pole, gain = pole_of(of), torch.complex(of.gain_re, of.gain_im)
        s = [torch.complex(*pair.unbind(-1)) for pair in state.unflatten(-1, (order, 2)).unbind(-2)]
        for u in signal.unbind(-1):
            for k in range(order):
                s[k] = pole[:, k] * s[k] + gain[:, k] * u
                u = of.direct[:, k] * u + s[k].real
            outputs.append(u)
        final = torch.stack([torch.view_as_real(section) for section in s], -2).flatten(-2)
    else:
        row = OnepoleRow(*coef[:, :5].unbind(-1))
        pole, gain = pole_of(row), torch.complex(row.gain_re, row.gain_im)
        feedback = torch.complex(coef[:, 5::2], coef[:, 6::2]).unbind(-1)
        s = [torch.complex(*pair.unbind(-1)) for pair in state.unflatten(-1, (order, 2)).unbind(-2)]
        between = section_gain(row.decay, order)
        for u in signal.unbind(-1):
            v = gain * u - sum(c * section for c, section in zip(feedback, s, strict=False))
            for j in range(order):
                s[j] = v = pole * s[j] + (v if j == 0 else between * v)
            outputs.append(v.real)
        final = torch.stack([torch.view_as_real(section) for section in s], -2).flatten(-2)
    y = torch.stack(outputs, -1) if outputs else signal.clone()
    return y, final


def example_coef(kind: str, order: int, channels: int, seed: int = 0) -> Tensor:
    """Coefficient rows (channels, P) of stable filters of every kind, float64."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    if kind == "biquad":
        radius, angle = uniform(0.5, 0.95, channels, order), uniform(0, math.pi, channels, order)
        poles = torch.stack((torch.ones_like(radius), -2 * radius * torch.cos(angle), radius**2), -1)
        return biquad_sections(torch.cat((uniform(-0.5, 0.5, channels, order, 3), poles), -1)).sections.flatten(1)
    if kind == "modal":
        decay, frequency = uniform(0.02, 0.4, channels, order), uniform(-0.5, 0.5, channels, order)
        high = frequency.float().double()
        gain = -torch.expm1(-decay)[..., None] * uniform(-1, 1, channels, order, 2)
        direct = uniform(-0.5, 0.5, channels, order)
        direct[:1] = 0
        return torch.stack(ModalSection(decay, high, frequency - high, *gain.unbind(-1), direct), -1).flatten(1)
    decay, frequency = uniform(0.02, 0.4, channels), uniform(-0.5, 0.5, channels)
    high = frequency.float().double()
    gain = (-torch.expm1(-decay)) ** order
    gain_im = uniform(-0.2, 0.2, channels) * gain
    gain_im[:1] = 0  # an exact zero must not hide a gradient
    coef = torch.stack(OnepoleRow(decay, high, frequency - high, gain, gain_im), 1)
    if kind == "onepole":
        return coef
    weight = (-torch.expm1(-decay))[:, None, None] ** torch.arange(1, order + 1)[:, None]
    return torch.cat((coef, (weight * uniform(-0.1, 0.1, channels, order, 2)).flatten(1)), 1)


def example_operands(
    kind: str, order: int, length: int, per_channel: bool, batch: int = 2, channels: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A signal for all channels or one for each, coefficients and a state other than rest, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels if per_channel else 1, length)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    state = 0.1 * torch.randn(batch, channels, 2 * order, generator=generator, dtype=torch.float64)
    return x, example_coef(kind, order, channels, seed), state


def rows_of_poles(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Poles, gains and design of 25 channels: poles where they were designed, near, far, at 0, outside the circle."""
    decay = torch.logspace(-5.5, 0, 25, dtype=torch.float64)
    frequency = torch.linspace(-0.49, 0.49, 25, dtype=torch.float64)
    origin = torch.polar(torch.exp(-decay), 2 * math.pi * frequency).to(dtype.to_complex())
    poles = origin.clone()
    poles[5:15] *= torch.polar(1 - torch.logspace(-6, -1, 10), torch.logspace(-6, -0.5, 10)).to(poles.dtype)
    others = [0, 1e-4, 0.5, -0.5 + 0.01j, 0.3j, -0.3j, 1.1, -1.2, 1 - 0.3j, -0.4 + 0.7j]
    poles[15:] = torch.tensor(others, dtype=poles.dtype)
    design = split_design(pole_design(origin, decay, frequency), dtype)
    return torch.view_as_real(poles), torch.randn(25, 2, dtype=dtype), design


def check_rows_against_reference(device: str, dtype: torch.dtype) -> None:
    """The kernels of the gammatone's rows, forward and backward, against plain torch in float64."""
    from tamt.triton_kernels import onepole_rows as kernels

    given = rows_of_poles(dtype)
    grad = torch.randn(25, 5, dtype=dtype)
    rows = kernels.onepole_rows(*(t.to(device) for t in given))
    poles, gains, design = (t.double() for t in given)
    expected = reference_rows.onepole_rows(poles, gains, design)
    eps = torch.finfo(dtype).eps
    least = expected[:, 0] <= design[:, 2].clamp(max=MIN_DECAY)
    actual = rows.cpu().double()
    assert rows.dtype == dtype
    some = poles.any(1)  # one at 0 is moved by a rounding error, which is another in float64
    assert (actual[:, 0] - expected[:, 0])[some].abs().max() <= 10 * eps  # of up to 9 nepers
    turns = (actual[:, 1] + actual[:, 2]) - (expected[:, 1] + expected[:, 2])
    assert (turns - turns.round()).abs().max() <= eps
    assert torch.equal(actual[:, 3:], expected[:, 3:])
    assert torch.equal(actual[least, 0].to(dtype), expected[least, 0].to(dtype))
    of_poles, of_gains = kernels.onepole_rows_backward(*(t.to(device) for t in (grad, *given, expected.to(dtype))))
    wanted = reference_rows.onepole_rows_backward(grad.double(), poles, gains, design, expected)
    error = (of_poles.cpu().double() - wanted[0])[some].abs().amax(1) / wanted[0][some].abs().amax(1)
    assert error.max() <= 4 * eps
    assert torch.equal(of_gains.cpu(), 2 * grad[:, 3:])


def drnl_parameters(model: str, dtype: torch.dtype) -> tuple[list[Tensor], dict]:
    """The seven parameters of 37 channels, some at and beyond their limits, and the arguments that go with them."""
    bank = DRNLFilterbank((60, 8000), 44100, 37, model=model, dtype=dtype)
    parameters = [getattr(bank, name).clone() for name in FILTERS]
    parameters[1][:3] = torch.tensor([0.0, -1.0, 0.01])  # bandwidths of filters that would not decay
    parameters[2][4] = 30000.0  # above half the sampling rate
    return parameters, {"fs": 44100, "orders": MODELS[model]}


def check_sections_against_formulas(device: str, model: str, dtype: torch.dtype) -> None:
    """The kernel of DRNL's sections against plain torch in float64: one rounding."""
    from tamt.triton_kernels.drnl_sections import drnl_sections

    parameters, options = drnl_parameters(model, dtype)
    expected = design.drnl_sections(*(p.double() for p in parameters), **options)
    found = drnl_sections(*(p.to(device) for p in parameters), float(options["fs"]), list(options["orders"]))
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.dtype == dtype
        assert_within(actual.cpu().double(), wanted, 8 * torch.finfo(dtype).eps * wanted.abs())
