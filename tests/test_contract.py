"""What every module promises, asked of every module of the registry; what is a module's own is in its own tests."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_close, in_a_process_group
from modules import (
    CASES,
    Case,
    assert_same,
    cases,
    changed,
    combinations,
    constants,
    forms,
    forms_of,
    forms_of_learning,
    gradients,
    is_step,
    learning,
    leaves,
    loss,
    outputs,
    steps,
    tensors,
    those,
    without_effect,
)
from torch import Tensor, nn

import tamt
from asv_bench.registry import MODULES
from tamt._base import Base
from tamt._learnable import RELATIVE, Form
from tamt.loudness.meter import LoudnessMeter

streams = those(lambda case: case.module.streams)
typed = those(lambda case: case.module.typed)
of_any_rank = those(lambda case: case.module.frames or case.module.streams)

# For what takes long: the variants, which are other ways to compute, are for the slow tests, and so are whole models,
# whose stages are tested, and the relative forms whose parameters are mere factors.
thrifty = pytest.mark.parametrize(
    ("case", "learnable"),
    [
        pytest.param(case, learnable, marks=pytest.mark.slow if case.options or whole or factors else (), id=name)
        for name, case, learnable in combinations()
        for whole in [issubclass(case.module.kind, LoudnessMeter)]
        for factors in [learnable == RELATIVE and case.module.name != "GammatoneFilterbank"]
    ],
)

HALVES = [torch.float16, torch.bfloat16]
TYPES = [torch.float32, torch.float64]


def close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert_close(a.detach(), e.detach(), tolerance, a.dtype)


def close_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """To the peak of each or, of steps, which are all of one kind, of all: an envelope has no phase."""
    peaks = {name: float(e.abs().max()) for name, e in expected.items() if e.numel()}
    of_steps = max((peak for name, peak in peaks.items() if is_step(name)), default=0.0)
    for name, peak in peaks.items():
        bound = tolerance * (of_steps if is_step(name) else peak)
        assert (actual[name] - expected[name]).abs().max() <= bound, name


def test_the_registry_has_every_module() -> None:
    public = (getattr(tamt, name) for name in tamt.__all__)
    assert set(MODULES) == {thing.__name__ for thing in public if isinstance(thing, type)}
    assert all(any(isinstance(part, Base) for part in case.make().modules()) for case in CASES.values())


@learning
def test_state(case: Case) -> None:
    """Keys do not depend on what is learnable, of which the class says which; a fixed module has no parameters.

    A relative one has others: real, of one dimension or more, all 0, and the design that they start from.
    """
    learnable, fixed = case.make(learnable=True), case.make()
    assert set(learnable.state_dict()) == set(fixed.state_dict())
    parameters = {name for name, _ in learnable.named_parameters()}
    assert not list(fixed.parameters())
    assert parameters <= set(fixed.state_dict())
    if not case.options:
        assert parameters == set(case.module.learnable)
    assert [module.learnable for module in (learnable, fixed)] == [True, False]
    if RELATIVE in case.forms:
        relative = case.make(RELATIVE)
        assert relative.learnable == RELATIVE
        assert all(p.is_floating_point() and p.dim() and not p.any() for p in relative.parameters())
        names = {name for name, _ in relative.named_parameters()}
        assert not names & set(fixed.state_dict())
        starts = {name for name in relative.state_dict() if name.rpartition(".")[2].startswith("design_")}
        assert set(relative.state_dict()) == names | starts | (set(fixed.state_dict()) - parameters)
        assert starts <= constants(relative)


@those(lambda case: not case.module.learnable)
def test_what_learns_nothing_has_no_state(case: Case) -> None:
    module = case.make()
    assert "learnable" not in case.module.arguments
    assert not list(module.parameters())
    assert not module.state_dict()


@forms
def test_copies(case: Case, learnable: Form) -> None:
    """In memory, pickled, in a file of the state; and a learnable module's state serves a fixed one."""
    module = case.make(learnable)
    expected = outputs(module, case)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = case.make(learnable)
    loaded.load_state_dict(torch.load(file))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert_same(outputs(twin, case), expected)
        assert getattr(twin, "learnable", False) == learnable
    if learnable != RELATIVE:
        case.make(not learnable).load_state_dict(module.state_dict())


@forms_of_learning
def test_a_state_of_another_module_is_refused(case: Case, learnable: Form) -> None:
    state = case.make(learnable).state_dict()
    name = next(iter(state))
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        case.make(learnable).load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        case.make(learnable).load_state_dict({**state, "other": torch.ones(1)})
    with pytest.raises(RuntimeError, match=f"size mismatch for {name}"):
        case.make(learnable).load_state_dict({**state, name: torch.ones(3, 1, 3)})
    for name in constants(case.make(learnable)) & state.keys():
        with pytest.raises(
            RuntimeError, match=f"{name} belongs to a module built with other arguments: from [0-9.e-]+ "
        ):
            case.make(learnable).load_state_dict({**state, name: 1.05 * state[name]})
    case.make(learnable).load_state_dict(
        {key: t.bfloat16() for key, t in state.items() if not t.is_complex()}, strict=False
    )


@forms_of_learning
def test_other_forms(case: Case, learnable: Form) -> None:
    """Copies of all forms hold the same quantities; a state dict of the wrong one is refused, and both are named."""
    module = case.make(learnable, dtype=torch.float64)
    module.load_state_dict(changed(module, 0.97))
    quantities = module.design()
    assert all(not t.requires_grad for t in quantities.values())
    held = [t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())]
    assert not {t.untyped_storage().data_ptr() for t in quantities.values()} & set(held)
    for other in case.forms:
        twin, loaded = module.with_learnable(other), case.make(other, dtype=torch.float64)
        assert twin.learnable == other
        for names in (nn.Module.state_dict, lambda m: dict(m.named_parameters())):
            assert set(names(twin)) == set(names(loaded))
        for name, value in twin.design().items():
            assert_close(value.flatten(), quantities[name].flatten(), 1e-6)
        if RELATIVE in (learnable, other) and other != learnable:
            learnt = case.make(learnable or True, device="meta"), case.make(other or True, device="meta")
            foreign, own = (next(m.named_parameters())[0] for m in learnt)
            refusal = rf"{foreign}.* belong to .*{own}.*\.with_learnable\({other!r}\)"
            for strict in (True, False):
                with pytest.raises(RuntimeError, match=refusal):
                    loaded.load_state_dict(module.state_dict(), strict=strict)
        loaded.load_state_dict(twin.state_dict())
        close(outputs(loaded, case), outputs(twin, case), 1e-6)
        if bool(other) == bool(learnable):
            close(outputs(twin, case), outputs(module, case), 1e-5)
    with pytest.raises(ValueError, match="learnable must be False, True or 'relative', got None"):
        module.with_learnable(None)


@cases
@pytest.mark.parametrize("given", [*HALVES, *TYPES])
def test_type_of_the_input(case: Case, given: torch.dtype) -> None:
    """Computed in the module's type or, where it has none, in the input's, half types in float32."""
    inputs = [t.to(given) if t.dim() > 1 else t for t in case.inputs()]
    for dtype in TYPES if case.module.typed else [torch.float64 if given == torch.float64 else torch.float32]:
        module = case.make(dtype=dtype)
        results = outputs(module, inputs)
        assert all(y.dtype == dtype for y in results)
        assert_same(results, outputs(module, [t.to(dtype) if t.dim() > 1 else t for t in inputs]))


@typed
def test_conversions_of_a_module_with_a_type(case: Case) -> None:
    """``double`` and ``float`` give the module that is built in that type, to the rounding of what it holds."""
    inputs = case.inputs(dtype=torch.float64)
    wide, narrow = case.make(dtype=torch.float64), case.make()
    exact = outputs(wide, inputs)
    for convert in (lambda m: m.double(), lambda m: m.to(torch.float64)):
        widened = convert(copy.deepcopy(narrow))
        assert widened.dtype == torch.float64
        assert all(t.real.dtype == torch.float64 for t in widened.state_dict().values())
        for name in set(narrow.state_dict()) - constants(narrow):
            held = narrow.state_dict()[name]  # of complex numbers both parts
            assert torch.equal(widened.state_dict()[name], held.to(widened.state_dict()[name].dtype)), name
        close(outputs(widened, inputs), exact, 5e-5)
    narrowed = wide.float()
    assert narrowed.dtype == torch.float32
    assert_same(outputs(narrowed, inputs), outputs(narrow, inputs))
    with pytest.raises(TypeError, match=r"dtype must be torch\.float32 or torch\.float64, got torch\.float16"):
        case.make(dtype=torch.float16)
    with pytest.raises(TypeError, match=r"MPS has no torch\.float64; dtype must be torch\.float32 there"):
        case.make(dtype=torch.float64, device="mps")


@forms_of(lambda case: not case.module.typed)
def test_conversions_of_a_module_without_a_type(case: Case, learnable: Form) -> None:
    """They change what it holds and nothing of what it computes."""
    assert case.make().dtype is None
    for dtype in TYPES:
        inputs = case.inputs(dtype=dtype)
        expected = outputs(case.make(learnable), inputs)
        for converted in (case.make(learnable).double(), case.make(learnable).double().float()):
            outputs(converted, case.inputs(dtype=torch.float64))
            assert_same(outputs(converted, inputs), expected)
        assert all(t.dtype == torch.float64 for t in case.make(learnable).double().state_dict().values())


@forms_of(lambda case: not case.module.typed)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_type_given_to_a_module_that_needs_none(case: Case, learnable: Form, dtype: torch.dtype) -> None:
    """It computes in that type whatever the input's, and gives what the input's type alone would have given."""
    module = case.module.kind(
        **{**case.module.options, **case.module.small, **case.options}, learnable=learnable, dtype=dtype
    )
    assert module.dtype == dtype
    for given in TYPES:
        inputs = case.inputs(dtype=given)
        results = outputs(module, inputs)
        assert all(y.dtype == dtype for y in results)
        close(results, outputs(case.make(learnable).to(dtype), [t.to(dtype) for t in inputs]), 1e-12)
    with pytest.raises(TypeError, match=r"dtype must be torch\.float32 or torch\.float64, got torch\.bfloat16"):
        case.module.kind(dtype=torch.bfloat16)


@forms
def test_a_parents_conversion_to_a_half_type(case: Case, learnable: Form) -> None:
    """The module keeps its own type, and what it computes; the parent's other modules do not."""
    for dtype in TYPES if case.module.typed else TYPES[:1]:
        module, inputs = case.make(learnable, dtype=dtype), case.inputs(dtype=dtype)
        expected, state = outputs(module, inputs), copy.deepcopy(module.state_dict())
        for half in HALVES:
            parent = nn.Sequential(nn.Linear(2, 2), module).to(half)
            assert parent[0].weight.dtype == half
            assert_same(outputs(module, inputs), expected)
            assert_same(list(module.state_dict().values()), list(state.values()))
            assert all(t.real.dtype in TYPES for t in module.buffers() if t.is_floating_point())
        for half in HALVES:
            narrow = {name: t if t.is_complex() else t.to(half) for name, t in state.items()}
            for assign in (False, True):  # constants too are those of the module, as far as the type tells
                module.load_state_dict(narrow, assign=assign)
            assert all(t.real.dtype == dtype for t in module.state_dict().values())


@forms
def test_autocast(case: Case, learnable: Form) -> None:
    """No matrix product is left to it, in neither pass."""
    module, given = case.make(learnable), leaves(case.inputs())
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            results = tensors(module(*given))
        found.append([*results, *gradients(results, module, given).values()])
    assert_same(*found)


@forms
def test_everything_stays_on_its_device(case: Case, learnable: Form) -> None:
    """On tensors without memory: nothing is made elsewhere, nothing is read back, forward and backward."""
    given = leaves(case.inputs())
    expected = tensors(case.make(learnable)(*given))
    module = case.make(learnable, device="meta")
    assert all(t.is_meta for t in (*module.parameters(), *module.buffers()))
    away = leaves([t.to("meta") for t in given])
    results = tensors(module(*away))
    for result, e in zip(results, expected, strict=True):
        assert result.is_meta
        assert (result.shape, result.dtype, result.stride()) == (e.shape, e.dtype, e.stride())
    assert all(g.is_meta for g in gradients(results, module, away).values())
    with torch.device("meta"):
        assert all(t.is_meta for t in case.make(learnable).buffers())


@forms_of(lambda case: not case.complex)
def test_float32_needs_neither_float64_nor_complex(case: Case, learnable: Form, mps_safe: type) -> None:
    """Complex parameters are only read as pairs of real numbers."""
    module, given = case.make(learnable), leaves(case.inputs())
    real = [p for p in module.parameters() if not p.is_complex()]
    with mps_safe():
        results = tensors(module(*given))
    with mps_safe():
        torch.autograd.grad(loss(results), [t for t in given if t.requires_grad] + real)


@forms
def test_gradients(case: Case, learnable: Form) -> None:
    """Finite and not zero, to the signal and every parameter, in both modes of a module that is used for a while."""
    module, given = case.make(learnable), leaves(case.inputs())
    for _ in range(2):
        found = gradients(tensors(module(*given)), module, given)
        assert len(found) > bool(learnable)
        for name, g in found.items():
            assert g.isfinite().all(), name
            assert g.any() or (name.startswith("input") and "input 1" in found) or without_effect(case, name), name
    assert_same(outputs(module, case), [y.detach() for y in tensors(module(*given))])
    with torch.inference_mode():
        assert_same(tensors(module(*case.inputs())), outputs(module, case))


@forms
def test_silence(case: Case, learnable: Form) -> None:
    """Zeros, alone and beside a signal, give finite results and gradients; streams give 0, compressed or not."""
    module = case.make(learnable)
    least = {None: 0, "db": -200, 0.3: 1e-3}[case.options.get("compression")]
    for rows in (slice(0, 2), slice(1, 2)):
        given = leaves(case.inputs())
        with torch.no_grad():
            for t in given:
                if t.requires_grad:
                    t[rows] = 0
        results = tensors(module(*given))
        assert all(y.isfinite().all() for y in results)
        if case.module.streams:
            close(tuple(y[rows] for y in results), tuple(torch.full_like(y[rows], least) for y in results), 1e-6)
        assert all(g.isfinite().all() for g in gradients(results, module, given).values())


@forms
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_row(case: Case, learnable: Form, value: float) -> None:
    """Of the signals and, where frames do not know of each other, of the frames; the other rows' gradients too."""
    module, given = case.make(learnable), leaves(case.inputs(3))
    clean = tensors(module(*given))
    spoilt = [t for t in given if t.requires_grad][-1]
    before = gradients(clean, module, given)
    with torch.no_grad():
        spoilt[1].reshape(-1)[spoilt[1].numel() // 2] = value
    results = tensors(module(*given))
    assert not all(y.isfinite().all() for y in results)
    for a, e in zip(results, clean, strict=True):
        assert torch.equal(a[0], e[0])
        if case.module.frames:
            assert torch.equal(a[1, ::2], e[1, ::2])
    after = gradients(results, module, given)
    for name, e in before.items():
        if name.startswith("input"):
            assert torch.equal(after[name][0], e[0]), name


@cases
def test_layouts(case: Case) -> None:
    """Transposed, with gaps, and expanded."""
    module, inputs = case.make(), case.inputs()
    expected = outputs(module, inputs)
    strided: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
        lambda t: t.repeat_interleave(2, -1)[..., ::2],
    ]
    for layout in strided:
        given = [layout(t) if t.dim() > 1 else layout(t[None])[0] for t in inputs]
        close(outputs(module, given), expected, 1e-5)
    first = [t[:1].expand_as(t) if t.dim() > 1 else t for t in inputs]
    close(outputs(module, first), outputs(module, [t.contiguous() for t in first]), 1e-5)


@cases
def test_no_rows(case: Case) -> None:
    module, inputs = case.make(learnable=True), case.inputs()
    expected = outputs(module, inputs)
    given = [t[:0] if t.dim() > 1 else t for t in inputs]
    for t in given:
        t.requires_grad_(t.dim() > 1)
    results = tensors(module(*given))
    for a, e in zip(results, expected, strict=True):
        assert a.shape == e[:0].shape or (e.dim() == 1 and a.shape == e.shape)  # frequencies are the same for all rows
    assert not any(g.any() for g in gradients(results, module, given).values())


@of_any_rank
@pytest.mark.parametrize("lead", [(), (2, 1), (2, 0, 2)], ids=str)
def test_leading_dimensions(case: Case, lead: tuple[int, ...]) -> None:
    """As many as one likes; what a row gives does not depend on them."""
    module, inputs = case.make(), case.inputs()
    rows = [t.flatten(0, -2)[:2] if t.dim() > 1 else t for t in inputs]
    expected = outputs(module, rows)
    given = [t[0].expand(*lead, t.shape[-1]) if t.dim() > 1 else t for t in rows]
    for a, e in zip(outputs(module, given), expected, strict=True):
        assert a.shape == (*lead, *e.shape[1:])
        close(tuple(a.flatten(0, len(lead) - 1) if lead else a[None]), (e[0],) * math.prod(lead), 1e-6)


@cases
@pytest.mark.parametrize("wrong", [torch.int64, torch.bool, torch.complex64])
def test_inputs_of_a_wrong_type(case: Case, wrong: torch.dtype) -> None:
    module, inputs = case.make(), case.inputs()
    for i in range(len(inputs)):
        given = [t.to(wrong) if i == n else t for n, t in enumerate(inputs)]
        with pytest.raises(TypeError, match=re.escape(f"must be of a floating type, got {wrong}")):
            module(*given)
        other = [t.numpy() if i == n else t for n, t in enumerate(inputs)]
        with pytest.raises(TypeError, match=re.escape("must be a torch.Tensor, got ndarray")):
            module(*other)


@cases
def test_inputs_of_a_wrong_shape(case: Case) -> None:
    module, inputs = case.make(), case.inputs()
    for i in range(len(inputs)):
        given = [torch.tensor(1.0) if i == n else t for n, t in enumerate(inputs)]
        with pytest.raises(ValueError, match=r"shape.*got \(") as error:
            module(*given)
        assert "()" in str(error.value)


@cases
@pytest.mark.parametrize("fs", [0, -1, math.nan, math.inf])
def test_sampling_rates(case: Case, fs: float) -> None:
    if "fs" in case.module.arguments:
        with pytest.raises(ValueError, match=f"fs must be .*Hz, got {fs}"):
            case.make(fs=fs)


@forms
def test_repr(case: Case, learnable: Form) -> None:
    text = repr(case.make(learnable))
    assert text.startswith(f"{case.module.name}(")
    assert (f"learnable={learnable!r}" in text) == bool(case.module.learnable)
    assert f"dtype={torch.float32 if case.module.typed else None}" in text
    if case.module.learnable:
        with pytest.raises(ValueError, match=r"learnable must be False, True or 'relative', got 'poles'"):
            case.make("poles")
        with pytest.raises(ValueError, match=r"learnable must be False, True or 'relative', got 1"):
            case.make(1)
    assert repr(case.make(learnable, device="meta")) == text
    for name, value in case.options.items():
        assert f"{name}={value!r}" in text or f"({name}): {value}(" in text


def moved(module: nn.Module, given: list[Tensor]) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """What a module computes, of factors of its inputs and parameters: so all are differentiated in steps that fit.

    Parameters of the relative form are such steps themselves.
    """
    held = {name: p.detach() for name, p in module.named_parameters()}
    constant = [t.detach() for t in given]
    counted = [i for i, t in enumerate(given) if t.requires_grad]
    peaks = [y.abs().amax().clamp(min=1e-30) for y in outputs(module, given)]
    factors = [torch.ones_like(constant[i]) for i in counted]
    factors += [torch.ones(p.shape, dtype=torch.float64) for p in held.values()]
    added = getattr(module, "learnable", False) == RELATIVE

    def function(*factors: Tensor) -> tuple[Tensor, ...]:
        inputs = list(constant)
        for i, f in zip(counted, factors, strict=False):
            inputs[i] = constant[i] * f
        of_state = zip(held.items(), factors[len(counted) :], strict=True)
        state = {name: p + (f - 1) if added else p * f for (name, p), f in of_state}
        results = tensors(torch.func.functional_call(module, state, tuple(inputs)))
        return tuple(y / peak for y, peak in zip(results, peaks, strict=True) if y.requires_grad)

    return function, [f.requires_grad_() for f in factors]


@thrifty
def test_gradcheck(case: Case, learnable: Form) -> None:
    """Of first and second order, along random directions."""
    module = case.make(learnable, dtype=torch.float64)
    module = module if case.module.typed else module.double()
    function, factors = moved(module, leaves(case.inputs(dtype=torch.float64)))
    steps = {"eps": 1e-7, "atol": 1e-3, "rtol": 1e-3, "fast_mode": True}
    assert torch.autograd.gradcheck(function, factors, **steps)
    assert torch.autograd.gradgradcheck(function, factors, **steps)


def varying(case: Case) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """Inputs of three rows, and others of two and other sizes."""
    first, *others = (case.inputs(size) for size in (4, 5, 12))
    return tuple(torch.cat((t, t[:1])) if t.dim() > 1 else t for t in first), others


def compilations() -> Iterator[Any]:
    """Every run compiles every module, which learns if it can, up to Inductor, which takes ten seconds to a minute.

    Of Moore2016Loudness, whose graph is large, up to the graph alone, and MultiResolutionFFT, whose graph is the
    largest, not at all: other modules trace the same operators and gradients.
    What Inductor makes of a module is run by the guide to compilation and the gallery.
    """
    for name, case, learnable in combinations():
        large = case.module.name == "Moore2016Loudness"
        for backend in ("eager", "aot_eager", "inductor") if large else ("aot_eager", "inductor"):
            whole = learnable == case.forms[:2][-1]
            first = backend == ("eager" if large else "aot_eager") and case.module.name != "MultiResolutionFFT"
            quick = whole and not case.options and not case.module.compiled_with and first
            yield pytest.param(
                case, learnable, backend, marks=() if quick else pytest.mark.slow, id=f"{name}-{backend}"
            )


@pytest.mark.parametrize(("case", "learnable", "backend"), list(compilations()))
def test_compile(case: Case, learnable: Form, backend: str) -> None:
    """One graph without breaks serves every number of rows and every length, forward and backward."""
    torch._dynamo.reset()
    module = case.make(learnable)
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    first, others = varying(case)
    loss(tensors(compiled(*leaves(first)))).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for inputs in others:
            given = leaves(inputs)
            actual, expected = tensors(compiled(*given)), tensors(module(*given))
            close(actual, expected, 1e-5)
            close_gradients(gradients(actual, module, given), gradients(expected, module, given), 1e-4)


@thrifty
def test_export(case: Case, learnable: Form) -> None:
    """A program for every number of rows and every length."""
    module = case.make(learnable)
    first, others = varying(case)
    shapes = tuple(
        {n: torch.export.Dim.DYNAMIC for n in range(t.dim()) if t.shape[n] != others[0][i].shape[n]}
        for i, t in enumerate(first)
    )
    program = torch.export.export(module, first, dynamic_shapes=shapes).module()
    for inputs in others:
        close(outputs(program, inputs), outputs(module, inputs), 1e-5)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    def body() -> None:
        for name, case in CASES.items():
            if not case.module.learnable:  # DistributedDataParallel takes no module without parameters
                continue
            module, given = case.make(case.forms[-1]), leaves(case.inputs())
            results = tensors(nn.parallel.DistributedDataParallel(module)(*given))
            assert_same([y.detach() for y in results], outputs(module, given))
            loss(results).backward()
            for parameter, p in module.named_parameters():
                assert p.grad is not None
                assert p.grad.any() != without_effect(case, parameter), name

    in_a_process_group(tmp_path, body)


@cases
def test_threads(case: Case) -> None:
    """One module serves several at once, while it is new."""
    module, inputs = case.make(), case.inputs()
    expected = outputs(case.make(), inputs)
    with ThreadPoolExecutor(4) as threads:
        for results in threads.map(lambda _: outputs(module, inputs), range(8)):
            assert_same(results, expected)


CUTS = [1, 99, 0, 64, 36, 200, 0]


@forms_of(lambda case: case.module.streams)
@pytest.mark.parametrize("dtype", TYPES)
def test_stream(case: Case, learnable: Form, dtype: torch.dtype) -> None:
    """Chunks of any length give what the whole signal gives; with gradients; and a state outlives the process."""
    module = case.make(learnable, dtype=dtype)
    (x,) = leaves(case.inputs(4, dtype))
    whole = module(x)
    state, parts, done = None, [], 0
    for chunk in x.split(CUTS, -1):
        y, state = module.stream(chunk, state)
        assert y.shape == (*whole.shape[:-1], steps(module, done + chunk.shape[-1]) - steps(module, done))
        done += chunk.shape[-1]
        assert isinstance(state, tuple)
        assert all(s.shape[0] == x.shape[0] and s.dtype == dtype for s in state)
        parts.append(y)
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        for before, after in zip(state, torch.load(file), strict=True):
            assert torch.equal(before, after)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    close((torch.cat(parts, -1),), (whole,), tolerance)
    assert torch.equal(module.stream(x)[0], whole)
    pieces = gradients([torch.cat(parts, -1)], module, [x])
    close_gradients(pieces, gradients([whole], module, [x]), 100 * tolerance)


@streams
def test_states_that_do_not_fit(case: Case) -> None:
    module, (x,) = case.make(), case.inputs()
    _, state = module.stream(x)
    count = "one tensor" if len(state) == 1 else f"{len(state)} tensors"
    for wrong, given in ((state[0], "Tensor"), ((*state, state[0]), f"tuple of {len(state) + 1}"), ({}, "dict")):
        with pytest.raises(TypeError, match=f"state must be a tuple of {count}, as stream returns it, got {given}"):
            module.stream(x, wrong)
    with pytest.raises(ValueError, match="must have"):
        module.stream(x[0], state)
    with pytest.raises(TypeError, match="must have"):
        module.stream(x, tuple(s.double() for s in state))
    close(tensors(module.stream(x, list(state))[0]), tensors(module.stream(x, state)[0]), 0)


@streams
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 300])
def test_lengths(case: Case, length: int) -> None:
    """A shorter signal gives the beginning of what a longer one gives."""
    module, (x,) = case.make(dtype=torch.float64), case.inputs(4, torch.float64)
    y, whole = outputs(module, [x[:, :length]])[0], outputs(module, [x])[0]
    assert y.shape == (*whole.shape[:-1], steps(module, length))
    assert ((y - whole[..., : y.shape[-1]]).abs() <= 1e-10 * whole.abs().amax(-1, keepdim=True)).all()


@streams
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_finite_changes_nothing_before_it(case: Case, dtype: torch.dtype) -> None:
    """And nothing after it is finite, of frames none that is not complete before it; in chunks as in one."""
    module, (x,) = case.make(dtype=dtype), case.inputs(4, dtype)
    (clean,) = outputs(module, [x])
    for t, value in ((0, math.nan), (63, math.inf), (64, -math.inf), (170, math.nan), (399, math.nan)):
        signal = x.clone()
        signal[1, t] = value
        (y,) = outputs(module, [signal])
        assert torch.equal(y[0], clean[0])
        before = steps(module, t)
        bound = 8 * torch.finfo(dtype).eps * clean[1].abs().amax()
        assert ((y - clean)[1, ..., :before].abs() <= bound).all()
        assert y[1, ..., before:].isnan().all()
        state, parts = None, []
        for chunk in signal.split(CUTS, -1):
            with torch.no_grad():
                part, state = module.stream(chunk, state)
            parts.append(part)
        assert torch.equal(torch.cat(parts, -1).isnan(), y.isnan())


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case.options else (), id=name)
        for name, case in CASES.items()
        if case.module.streams
    ],
)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_streams(case: Case, backend: str) -> None:
    torch._dynamo.reset()
    module, (x,), state, parts = case.make(), case.inputs(4), None, []
    compiled = torch.compile(module.stream, backend=backend, fullgraph=True, dynamic=True)
    for chunk in x.split(100, -1):
        y, state = compiled(chunk, state)
        parts.append(y)
    close((torch.cat(parts, -1),), outputs(module, [x]), 1e-5)
