"""What a module computes follows what it holds, however that was changed; what it keeps never shows."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from modules import (
    CASES,
    Case,
    assert_same,
    cases,
    changed,
    constants,
    forms,
    forms_of_learning,
    learning,
    outputs,
    tensors,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import tamt
from tamt._learnable import Form
from tamt.ops import fft_drnl as fft_drnl_ops
from tamt.reference import iir as reference

FC = [300.0, 1000.0]


def differ(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> bool:
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(left, right, strict=True))


def expected(case: Case, state: dict[str, Tensor], **options: Any) -> tuple[Tensor, ...]:
    """What a new module with this state gives."""
    fresh = case.make(**options)
    fresh.load_state_dict(state)
    return outputs(fresh, case)


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the state dict themselves."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name not in constants(module):
            yield name, tensor


WRITERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "in place": lambda held, new: held.copy_(new),
    ".data": lambda held, new: held.data.copy_(new),
    "another .data": lambda held, new: setattr(held, "data", new),
    "numpy": lambda held, new: held.detach().numpy().__setitem__(..., new.numpy()),
    "average": lambda held, new: torch._foreach_lerp_([held.data], [2 * new - held], 0.5),
}


@forms_of_learning
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_writing_to_the_tensors(case: Case, learnable: Form, writer: Callable[[Tensor, Tensor], Any]) -> None:
    module = case.make(learnable=learnable).requires_grad_(False)
    before, state = outputs(module, case), changed(module)
    with torch.no_grad():
        for name, held in own_tensors(module):
            writer(held, state[name])
    after = outputs(module, case)
    assert_same(after, expected(case, module.state_dict(), learnable=learnable))
    assert differ(after, before)


@learning
def test_vector_to_parameters(case: Case) -> None:
    module = case.make(learnable=True).requires_grad_(False)
    before = outputs(module, case)
    held = list(module.parameters())
    vector_to_parameters(1.07 * parameters_to_vector(held), held)
    after = outputs(module, case)
    assert_same(after, expected(case, module.state_dict(), learnable=True))
    assert differ(after, before)


@forms
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_that_are_loaded_anew(case: Case, learnable: Form, copied: Callable[[nn.Module], nn.Module]) -> None:
    module = case.make(learnable=learnable)
    first, second, third = changed(module, 1.0), changed(module, 1.03), changed(module, 1.07)
    module.load_state_dict(first)
    module.load_state_dict(second)
    outputs(module, case)
    twin = copied(module)
    assert_same(outputs(twin, case), outputs(module, case))
    twin.load_state_dict(third)
    assert_same(outputs(twin, case), expected(case, third, learnable=learnable))
    assert_same(outputs(module, case), expected(case, second, learnable=learnable))


@forms
@pytest.mark.parametrize("assign", [False, True], ids=["to_empty", "assign"])
def test_from_the_meta_device(case: Case, learnable: Form, assign: bool) -> None:
    source = case.make(learnable=learnable)
    state = changed(source)
    source.load_state_dict(state)
    with torch.device("meta"):
        module = case.make(learnable=learnable)
    if not (assign and state):  # a state of nothing does not say where the module is to be
        module.to_empty(device="cpu")
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point() and name not in constants(module):
                tensor.data.fill_(float("nan"))  # what uninitialised memory may hold
    module.load_state_dict(state, assign=assign)
    assert_same(outputs(module, case), outputs(source, case))
    for (name, tensor), (_, other) in zip(module.named_buffers(), source.named_buffers(), strict=True):
        assert torch.equal(tensor, other), name


@cases
def test_constants_are_exact_after_any_conversion(case: Case) -> None:
    """Through float32 and back there is no trace of it; shared memory stays shared."""
    wide = case.make(dtype=torch.float64)
    there_and_back = copy.deepcopy(wide).float().double()
    wide = wide.double()
    shared = copy.deepcopy(wide).share_memory()
    for name in constants(wide):
        assert torch.equal(wide.get_buffer(name), there_and_back.get_buffer(name)), name
        assert shared.get_buffer(name).is_shared(), name


@forms
@pytest.mark.parametrize("rehearsal", ["grad", "jvp", "vmap", "fake", "dual"])
def test_a_first_call_inside_a_transform_leaves_nothing(case: Case, learnable: Form, rehearsal: str) -> None:
    module, inputs = case.make(learnable=learnable), case.inputs()
    first, rest = inputs[0], inputs[1:]

    def total(x: Tensor) -> Tensor:
        return sum(y.sum() for y in tensors(module(x, *rest)))

    if rehearsal == "grad":
        torch.func.grad(total)(first)
    elif rehearsal == "jvp":
        torch.func.jvp(total, (first,), (torch.ones_like(first),))
    elif rehearsal == "vmap":
        torch.func.vmap(total)(first[None])
    elif rehearsal == "dual":
        with torch.autograd.forward_ad.dual_level():
            total(torch.autograd.forward_ad.make_dual(first, torch.ones_like(first)))
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            module(*inputs)
    after = outputs(module, case)
    assert all(type(y) is Tensor for y in after)
    assert_same(after, outputs(case.make(learnable=learnable), case))
    copy.deepcopy(module)
    torch.save(module, io.BytesIO())
    assert_same(outputs(pickle.loads(pickle.dumps(module)), case), after)


@forms
def test_functional_call(case: Case, learnable: Form) -> None:
    module = case.make(learnable=learnable)
    before, state = outputs(module, case), changed(module)
    with torch.no_grad():
        result = tensors(torch.func.functional_call(module, state, case.inputs()))
    assert_same(result, expected(case, state, learnable=learnable))
    assert_same(outputs(module, case), before)


@forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_default_type_does_not_matter(case: Case, dtype: torch.dtype, learnable: Form) -> None:
    """Neither at construction nor in a call: loaders of large models change it around both."""
    usual, inputs = case.make(learnable), case.inputs()
    wanted = tensors(usual(*inputs))
    torch.set_default_dtype(dtype)
    try:
        module = case.make(learnable)
        result = tensors(module(*inputs))
    finally:
        torch.set_default_dtype(torch.float32)
    for (name, tensor), (_, other) in zip(module.named_buffers(), usual.named_buffers(), strict=True):
        assert tensor.dtype == other.dtype, name
        assert torch.equal(tensor, other), name
    assert_same(result, wanted)


def test_given_lists_keep_their_digits_under_any_default_type() -> None:
    thresholds = [501.0, 1250.0, 2540.0, 4050.0, 8000.0]
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert tamt.MultiResolutionFFT(32000, freq_thresholds=thresholds).freq_thresholds.tolist() == thresholds
        bank = tamt.DRNLFilterbank([250.0, 1001.0], 16000)
        assert torch.isfinite(bank.io_function([-100.3], 1001.0)).all()
        assert bank.fc.tolist() == [250.0, 1001.0]
    finally:
        torch.set_default_dtype(torch.float32)


@cases
def test_the_default_device_does_not_matter_in_a_call(case: Case) -> None:
    module, inputs = case.make(), case.inputs()
    wanted = tensors(module(*inputs))
    fresh = case.make()
    with torch.device("meta"):
        assert_same(tensors(fresh(*inputs)), wanted)


def test_tones_are_made_on_the_modules_device() -> None:
    bank = tamt.DRNLFilterbank(FC, 16000)
    wanted = bank.io_function([-100.0])
    with torch.device("meta"):
        assert torch.equal(bank.io_function([-100.0]), wanted)
        assert torch.equal(bank.path_responses([500.0])[0], bank.path_responses(torch.tensor([500.0], device="cpu"))[0])


def test_frequencies_in_memory_that_is_written_again() -> None:
    """A table is for the numbers it was made for, though the tensor is the same and its version too."""
    module, (psd, given) = tamt.ERBIntegration(), CASES["ERBIntegration"].inputs()
    memory = given.clone().numpy()
    freqs = torch.from_numpy(memory)
    module(psd, freqs)
    memory *= 0.5
    assert torch.equal(module(psd, freqs), tamt.ERBIntegration()(psd, 0.5 * given))


@cases
def test_limits_followed_where_they_cannot_be_read(case: Case) -> None:
    """In a graph shapes are those of construction or loading: after other changes there is no wrong number."""
    module, inputs = case.make(), case.inputs()
    if not getattr(module, "_follows", ""):
        return
    torch._dynamo.reset()
    graph = torch.compile(module, backend="eager", fullgraph=True)
    assert_same(graph(*inputs), module(*inputs))
    getattr(module, module._follows).data.mul_(1.07)
    assert any(y.isnan().all() for y in graph(*inputs))
    module.load_state_dict(module.state_dict())
    assert_same(outputs(module, inputs), expected(case, module.state_dict()))
    assert_same(graph(*inputs), outputs(module, inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["GammatoneFilterbank", "DRNLFilterbank", "FastDRNLFilterbank", "ERBIntegration"])
def test_tracing_a_fresh_module(name: str) -> None:
    case = CASES[name]
    module = case.make()
    traced = torch.jit.trace(module, case.inputs())
    assert_same(tensors(traced(*case.inputs())), outputs(module, case))


@pytest.mark.parametrize(
    ("name", "banks"), [("DRNLFilterbank", 5), ("GammatoneFilterbank", 20), ("FastDRNLFilterbank", 4)]
)
def test_banks_in_turn_are_designed_once(name: str, banks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for module, function in ((reference, "make_plan"), (fft_drnl_ops, "_computed_spectra")):
        original = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *a, f=original: made.append("") or f(*a))
    reference._plans.clear()
    fft_drnl_ops._spectra.clear()
    case = CASES[name]
    modules = []
    for i in range(banks):
        module = case.make()
        module.load_state_dict(changed(module, 1 + 0.01 * i))
        modules.append(module)
    first = [outputs(module, case) for module in modules]
    count = len(made)
    assert count >= banks
    again = [outputs(module, case) for module in modules]
    assert len(made) == count
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)


def _broadcast(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        for name, case in CASES.items():
            if not case.module.learnable:
                continue  # there is nothing to broadcast
            module = case.make().requires_grad_(False)
            if rank == 0:
                module.load_state_dict(changed(module))
            before = outputs(module, case)
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(torch.view_as_real(tensor) if tensor.is_complex() else tensor, 0)
            after = outputs(module, case)
            assert differ(after, before) == (rank == 1), name
            assert_same(after, expected(case, module.state_dict()))
    finally:
        torch.distributed.destroy_process_group()


def test_broadcast_into_a_used_module(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_broadcast, (str(tmp_path / "store"),), nprocs=2)
