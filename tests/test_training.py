"""What trains the modules: ordinary optimisers and the tools around them, each really used, in every form."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import by_torchrun, torchrun
from modules import CASES, Case, assert_same, cases, forms, outputs, tensors, those
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import tamt
from tamt._learnable import Form

RELATIVE: Form = "relative"

NAMES = (
    "GammatoneFilterbank",
    "Cochleagram",
    "DRNLFilterbank",
    "FastDRNLFilterbank",
    "MultiResolutionFFT",
    "ERBIntegration",
    "ExcitationPattern",
    "Moore2016ExcitationPattern",
)


def moved(module: nn.Module, by: float = 0.05) -> nn.Module:
    """Steps away from the design, of either sign."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * (1 - 2 * torch.randint(2, parameter.shape, generator=generator))
    return module


class Task:
    """A module at its design, to find the parameters of another one from what it computes."""

    def __init__(self, case: Case, learnable: Form = RELATIVE, by: float = 0.05) -> None:
        self.make = partial(case.make, learnable)
        self.module = self.make()
        self.inputs = case.inputs()
        twin = moved(case.make(RELATIVE), by)
        self.target = outputs(twin, self.inputs)
        self.start = 1.0
        self.start = self.loss().item()

    def loss(self, module: Callable[..., Any] | None = None, rows: slice = slice(None)) -> Tensor:
        """Squared distance relative to what the target differs from silence by, on average over rows."""
        results = tensors((module or self.module)(*(t[rows] if t.dim() > 1 else t for t in self.inputs)))
        each = [
            ((y - t[rows]).square().mean() / t.square().mean())
            for y, t in zip(results, self.target, strict=True)
            if y.requires_grad
        ]
        return torch.stack(each).mean() / self.start

    @property
    def rate(self) -> float:
        """Of learning: in the relative form one for all, in the other so small that parameters remain finite."""
        return 1e-2 if self.module.learnable == RELATIVE else 1e-12

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    @property
    def values(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def gradients(self, module: Callable[..., Any] | None = None) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss(module), self.parameters))


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=1e-2, foreach=False),
    "AdamW foreach": partial(torch.optim.AdamW, lr=1e-2, foreach=True),
    "AdamW fused": partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "Adam": partial(torch.optim.Adam, lr=1e-2),
    "NAdam": partial(torch.optim.NAdam, lr=1e-2),
    "RMSprop": partial(torch.optim.RMSprop, lr=2e-3),
    # Its steps are in proportion to the parameters, but to 1 at least, as these are 0 by design.
    "Adafactor": partial(torch.optim.Adafactor, lr=1e-2, eps=(None, 1.0)),
    "SGD": partial(torch.optim.SGD, lr=2e-4, momentum=0.9),
}


Tool = Callable[[Task], None]


def optimiser_of(make: Callable[..., torch.optim.Optimizer]) -> Tool:
    def tool(task: Task) -> None:
        given = {} if task.module.learnable == RELATIVE else {"lr": task.rate}
        optimiser, types = make(task.parameters, **given), [p.dtype for p in task.parameters]
        for _ in range(5):
            optimiser.zero_grad()
            task.loss().backward()
            optimiser.step()
        assert [p.dtype for p in task.parameters] == types
        assert all(p.isfinite().all() for p in task.parameters)
        if task.module.learnable == RELATIVE:
            assert task.loss() < 0.4

    return tool


def clip_norm(task: Task) -> None:
    task.loss().backward()
    grads = [p.grad.clone() for p in task.parameters]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    torch.testing.assert_close(clip_grad_norm_(task.parameters, 0.5 * norm.item()), norm)
    torch.testing.assert_close([p.grad for p in task.parameters], [0.5 * g for g in grads])


def clip_value(task: Task) -> None:
    task.loss().backward()
    grads = [p.grad.clone() for p in task.parameters]
    most = 0.5 * max(g.abs().max().item() for g in grads)
    clip_grad_value_(task.parameters, most)
    assert_same([p.grad for p in task.parameters], [g.clamp(-most, most) for g in grads])


def scaler(task: Task) -> None:
    """Scaled gradients are the same ones, and a step that overflows is left out."""
    grads = task.gradients()
    optimiser = torch.optim.AdamW(task.parameters, task.rate)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaler.scale(task.loss()).backward()
    scaler.unscale_(optimiser)
    torch.testing.assert_close([p.grad for p in task.parameters], grads, rtol=1e-4, atol=1e-6)
    scaler.step(optimiser)
    scaler.update()
    stepped = task.values
    optimiser.zero_grad()
    scaler.scale(task.loss() * 1e38).backward()
    assert not all(p.grad.isfinite().all() for p in task.parameters)
    scaler.step(optimiser)
    scaler.update()
    assert_same(task.values, stepped)
    assert scaler.get_scale() == 2.0**11


def autocast(task: Task) -> None:
    """Between layers that it concerns, the module and its gradients stay as they are."""
    grads = task.gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = tensors(task.module(*task.inputs))
        assert all(y.dtype == torch.float32 for y in results)
        assert nn.functional.linear(results[0], results[0].detach()[..., :1, :].flatten(0, -2)).dtype == torch.bfloat16
        assert_same(task.gradients(), grads)


def accumulation(task: Task) -> None:
    grads = task.gradients()
    for row in range(2):
        (task.loss(rows=slice(row, row + 1)) / 2).backward()
    torch.testing.assert_close([p.grad for p in task.parameters], grads, rtol=1e-4, atol=1e-4)


def averages(task: Task) -> None:
    """Of parameters, with and without buffers; what the averaged module computes is of these."""
    names = [name for name, _ in task.module.named_parameters()]
    kinds = {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, {"avg_fn": get_ema_avg_fn(0.9)}, {}
    models = [AveragedModel(task.module, use_buffers=buffers, **kind) for kind in kinds for buffers in (False, True)]
    optimiser, path = torch.optim.SGD(task.parameters, task.rate), []
    for _ in range(3):
        optimiser.zero_grad()
        task.loss().backward()
        optimiser.step()
        path.append(task.values)
        for model in models:
            model.update_parameters(task.module)
    first, second, third = (list(values) for values in path)
    decayed = [0.9 * (0.9 * a + 0.1 * b) + 0.1 * c for a, b, c in zip(first, second, third, strict=True)]
    even = [(a + b + c) / 3 for a, b, c in zip(first, second, third, strict=True)]
    for model, expected in zip(models, [decayed] * 4 + [even] * 2, strict=True):
        torch.testing.assert_close([p.detach() for p in model.parameters()], expected)
        fresh = task.make()
        fresh.load_state_dict(dict(task.module.state_dict(), **dict(zip(names, expected, strict=True))))
        for actual, wanted in zip(outputs(model, task.inputs), outputs(fresh, task.inputs), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def resume(task: Task) -> None:
    """What was saved and loaded goes on to the same numbers."""

    def parts(task: Task) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimiser = torch.optim.AdamW(task.parameters, task.rate)
        return task.module, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 6)

    def steps(task: Task, optimiser: torch.optim.Optimizer, schedule: Any) -> list[Tensor]:
        found = []
        for _ in range(3):
            optimiser.zero_grad()
            found.append(task.loss())
            found[-1].backward()
            optimiser.step()
            schedule.step()
        return [*found, *task.values]

    running = parts(task)
    steps(task, *running[1:])
    file = io.BytesIO()
    torch.save([part.state_dict() for part in running], file)
    expected = steps(task, *running[1:])
    file.seek(0)
    task.module = task.make()
    resumed = parts(task)
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert_same(steps(task, *resumed[1:]), expected)


def recomputation(task: Task) -> None:
    again = task.gradients(lambda *inputs: checkpoint(task.module, *inputs, use_reentrant=False))
    assert_same(again, task.gradients())


def functional(task: Task) -> None:
    names = [name for name, _ in task.module.named_parameters()]

    def loss(values: dict[str, Tensor]) -> Tensor:
        return task.loss(lambda *inputs: torch.func.functional_call(task.module, values, inputs))

    held = dict(zip(names, task.values, strict=True))
    found = torch.func.grad(loss)(held)
    torch.testing.assert_close([found[name] for name in names], task.gradients(), rtol=1e-4, atol=1e-5)


def compiled(task: Task, backend: str = "aot_eager") -> None:
    """All of a step in what is compiled: forward pass, loss, backward pass and the optimiser's."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    optimiser = torch.optim.AdamW(
        task.parameters, task.rate, eps=1.0
    )  # which rounding in a small gradient moves little

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = task.loss()
        loss.backward()
        optimiser.step()
        return loss.detach()

    start = task.values
    expected = [step() for _ in range(3)] + task.values
    with torch.no_grad():
        for parameter, value in zip(task.parameters, start, strict=True):
            parameter.copy_(value)
    optimiser = torch.optim.AdamW(task.parameters, task.rate, eps=1.0)
    quick = torch.compile(step, backend=backend)
    actual = [quick() for _ in range(3)] + task.values
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


TOOLS: dict[str, Tool] = {
    **{name: optimiser_of(make) for name, make in OPTIMISERS.items()},
    "clip_grad_norm_": clip_norm,
    "clip_grad_value_": clip_value,
    "GradScaler": scaler,
    "autocast": autocast,
    "gradient accumulation": accumulation,
    "AveragedModel": averages,
    "save and resume": resume,
    "torch.utils.checkpoint": recomputation,
    "functional_call and grad": functional,
    "torch.compile": compiled,
}


# Of parameters in the form True: complex ones, real ones, and single numbers.
REFUSED: dict[tuple[str, str], tuple[type[Exception], str]] = {
    ("AdamW fused", "GammatoneFilterbank"): (RuntimeError, "requires all the params to be floating point"),
    ("Adafactor", "GammatoneFilterbank"): (RuntimeError, "does not support complex parameters"),
    ("clip_grad_value_", "GammatoneFilterbank"): (NotImplementedError, "clamp is not supported for complex types"),
    ("GradScaler", "GammatoneFilterbank"): (NotImplementedError, "not implemented for 'ComplexFloat'"),
}


def pairs(names: tuple[str, ...], quick: Callable[[str, str], bool]) -> pytest.MarkDecorator:
    """Parametrize a test by tools and cases, of which every run has the quick ones."""
    found = [
        pytest.param(tool, name, id=f"{tool}-{name}", marks=() if quick(tool, name) else pytest.mark.slow)
        for tool in TOOLS
        for name in names
    ]
    return pytest.mark.parametrize(("tool", "name"), found)


def quick(tool: str, name: str) -> bool:
    """Compiling takes ten seconds, and a step of the recursive DRNL bank a tenth of one."""
    if tool == "torch.compile":
        return name == "Cochleagram"
    return name != "DRNLFilterbank" or tool in ("AdamW", "SGD", "GradScaler")


@pairs(NAMES, quick)
def test_relative(tool: str, name: str) -> None:
    TOOLS[tool](Task(CASES[name]))


@pairs(("GammatoneFilterbank", "FastDRNLFilterbank", "ExcitationPattern"), lambda tool, _: tool != "torch.compile")
def test_learnable(tool: str, name: str) -> None:
    """What runs with the tensors themselves as parameters, at small rates, and what torch refuses."""
    task = Task(CASES[name], True)
    if (tool, name) in REFUSED:
        error, message = REFUSED[tool, name]
        with pytest.raises(error, match=message):
            TOOLS[tool](task)
    else:
        TOOLS[tool](task)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GammatoneFilterbank", "Cochleagram", "ExcitationPattern"])
def test_step_by_inductor(name: str) -> None:
    compiled(Task(CASES[name]), "inductor")


def test_one_rate_does_not_fit_the_tensors_themselves() -> None:
    """Why the relative form is there: at a usual rate poles leave their filters in one step."""
    task = Task(CASES["GammatoneFilterbank"], True)
    optimiser = torch.optim.AdamW(task.parameters, 1e-3)
    before = task.loss()
    before.backward()
    optimiser.step()
    assert task.loss() > 1e4 * before


def test_adafactor_hardly_moves_what_is_zero() -> None:
    """With its own eps, of which the relative steps are at least 1e-3."""
    moves = []
    for given in ({}, {"eps": (None, 1.0)}):
        task = Task(CASES["GammatoneFilterbank"])
        optimiser = torch.optim.Adafactor(task.parameters, 1e-2, **given)
        task.loss().backward()
        optimiser.step()
        moves.append(max(p.abs().max().item() for p in task.parameters))
    assert moves[0] < 1.1e-5 < 5e-3 < moves[1]


@those(lambda case: RELATIVE in case.forms)
def test_weight_decay_leads_to_the_design(case: Case) -> None:
    module, by_design = moved(case.make(RELATIVE), 0.2), case.make()
    optimiser = torch.optim.AdamW(module.parameters(), 0.1, weight_decay=1.0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(200):
        optimiser.step()
    assert all(p.abs().max() < 1e-6 for p in module.parameters())
    for part, fixed in zip(module.modules(), by_design.modules(), strict=True):
        if hasattr(part, "design"):
            torch.testing.assert_close(part.design(), fixed.design(), rtol=1e-5, atol=1e-9)


@forms
def test_no_silent_half_precision(case: Case, learnable: Form) -> None:
    """Of parameters, or what a fixed module has in their place, as policies of mixed precision replace them."""
    module = case.make(learnable)
    held = dict(module.named_parameters()) or dict(case.make(True).named_parameters())
    for i, (name, tensor) in enumerate(held.items()):
        half = (torch.bfloat16, torch.float16)[i % 2]
        owner = type(module.get_submodule(name.rpartition(".")[0])).__name__
        message = (
            f"{name.rpartition('.')[2]} of {owner} must be in the module's own precision, torch.float32, got {half}"
        )
        with pytest.raises(TypeError, match=message):
            torch.func.functional_call(module, {name: tensor.detach().real.to(half)}, case.inputs())


@cases
def test_constants_of_a_half_type(case: Case) -> None:
    """Policies of mixed precision for buffers: a TypeError that names one, whichever is read first."""
    module = case.make()
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.half()
    with pytest.raises(TypeError, match=r"in the module's own precision, float32 or float64, got torch.float16"):
        module(*case.inputs())


def test_a_users_tensors_of_half_types() -> None:
    bank = tamt.GammatoneFilterbank([500.0], 16000)
    bank.register_buffer("mask", torch.ones(1, dtype=torch.float16))
    assert bank.mask.dtype == torch.float16


@by_torchrun
@pytest.mark.parametrize("part", ["fsdp", "ddp"])
def test_two_processes(part: str) -> None:
    torchrun(Path(__file__).with_name("distributed_training.py"), part)
