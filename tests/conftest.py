import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import hypothesis
import pytest
import torch
import torch._functorch.config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# torch keeps compiled graphs on disk under keys that do not cover the backward of a custom operator.
torch._functorch.config.enable_autograd_cache = False

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run what its workers, and what they start, inherit: a cache of Inductor's, and one thread each."""
    if INTERPRETED and importlib.util.find_spec("triton"):
        from asv_bench.kernels import interpreter

        interpreter.prepare()
    if WORKER:
        return
    cache = tempfile.TemporaryDirectory(prefix="tamt-inductor-", ignore_cleanup_errors=True)
    config.add_cleanup(cache.cleanup)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    if config.getoption("numprocesses", None):
        os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


# Of so many cases of a test in these files every run has some, evenly spread; all of them are for `make test-all`.
CASES_IN_EVERY_RUN = {
    # Three to fifteen seconds a case in the interpreter, of what others of every run have in part.
    "interpreter/test_drnl.py::test_any_strides": 0,
    "interpreter/test_drnl.py::test_chunked_is_one_shot": 0,
    "interpreter/test_drnl_frames.py::test_any_strides": 0,
    "interpreter/test_fft_drnl.py::test_any_strides": 0,
    "interpreter/test_fft_drnl.py::test_small_groups": 0,
    "interpreter/test_filter_frames.py::test_a_signal_in_parts": 0,
    "interpreter/test_filter_frames.py::test_gradients_that_are_not_needed": 0,
    "interpreter/test_iir.py::test_any_strides": 0,
    "interpreter/test_iir.py::test_chunked_is_one_shot": 0,
    "interpreter/test_iir.py::test_gradients_that_are_not_needed": 0,
    "interpreter/test_iir.py::test_several_filters_of_each": 0,
    "interpreter/test_iir.py::test_slow_modal_sections": 1,
    "interpreter/test_iir.py::test_which_signals_are_short": 0,
    "interpreter/test_nan_causality.py::test_drnl": 0,
    "interpreter/test_nan_causality.py::test_fft_drnl": 0,
    "interpreter/test_windowed_dft.py::test_slices_of_z_are_one": 0,
    "interpreter/test_iir.py::test_from_block_matrices": 1,
    "interpreter/test_iir.py::test_several_filters": 1,
    "interpreter/test_filter_frames": 1,
    "interpreter/test_drnl_frames": 1,
    "interpreter/test_nan_causality": 1,
    "interpreter/test_fft_drnl": 1,
    "interpreter/test_staged_run.py::test_a_rehearsal": 0,
    "interpreter/": 2,
    "compile/test_kernel_census": 1000,
    # Take ten to thirty seconds a case; the census and a gate of every other file are part of every run.
    "compile/test_iir.py::test_machine_code_of_drnl": 1,
    "compile/test_iir.py::test_machine_code_of_short_signals": 0,
    "compile/test_fft_drnl.py::test_machine_code": 0,
    "compile/test_filter_frames.py::test_machine_code": 0,
    "compile/test_spectrum.py::test_windowed_dft": 0,
    "compile/test_spectrum.py::test_sizes_of_one_compile": 0,
    "compile/test_iir.py::test_machine_code": 0,
    "compile/test_drnl_frames": 0,
    "compile/test_recurrence": 0,
    "compile/": 1,
    "test_drnl_frames.py::test_memory_does_not_grow": 1,
    # test_contract.py compiles the modules that call these operators.
    "test_contract.py::test_compiled_streams": 3,
    "test_contract.py::test_compile": 1000,
    "::test_compile": 0,
    "test_filter_frames.py::test_one_graph_for_all_lengths": 0,
    "test_frames.py::test_means": 4,
    "test_iir.py::test_gradcheck": 8,
    "test_plot.py::test_cochleagram": 8,
    "tests/test_filter_frames.py::test_definition": 24,
    "tests/test_filter_frames.py::test_memory_does_not_grow": 2,
    "tests/test_filter_frames.py::test_gradients": 24,
    "tests/test_filter_frames.py::test_gradcheck": 2,
    "test_contract.py::test_a_parents_conversion_to_a_half_type": 36,
    "test_contract.py::test_other_forms": 12,
    "test_contract.py::test_what_is_not_finite_stays_in_its_row": 75,
    "test_contract.py::test_a_state_of_another_module_is_refused": 14,
    "test_contract.py::test_gradcheck": 8,
    "test_contract.py::test_export": 8,
    "test_training.py::test_relative": 42,
    # test_contract.py trains every module in one process's DistributedDataParallel.
    "::test_two_processes": 0,
    "test_transforms": 4,
    "test_state.py::test_broadcast": 0,  # two processes, to write in place as others of this file do
    "test_state": 6,
    "test_nan_causality": 6,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, cases in tests.items():
        most = next((most for part, most in CASES_IN_EVERY_RUN.items() if part in name), len(cases))
        quick = [item for item in cases if "slow" not in item.keywords]
        kept = {i * (len(quick) - 1) // max(1, most - 1) for i in range(most)}
        for i, item in enumerate(quick):
            if len(quick) > most and i not in kept:
                item.add_marker(pytest.mark.slow)
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords and not (INTERPRETED and "smoke" in item.keywords):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def compile_cache(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """Kernels that have not changed since the last run in this folder are not compiled again."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(pytestconfig.cache.mkdir("triton")))


CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class ForbidWideTypes(TorchDispatchMode):
    """Raise when an operation makes, or is given, a float64 or complex tensor, which MPS does not have.

    Complex parameters are the one exception: ``torch.view_as_real`` may read them.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.view_as_real.default:
            self._check(func, "is given", (args, kwargs))
        if func.namespace == "tamt":
            # The mode is off inside its own handler; run the operator's kernel with the mode on, to see its steps.
            with self:
                out = func.redispatch(CPU, *args, **kwargs)
        else:
            out = func(*args, **kwargs)
        self._check(func, "makes", out)
        return out

    @staticmethod
    def _check(func: Any, verb: str, tree: Any) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor) and (leaf.is_complex() or leaf.dtype == torch.float64):
                raise AssertionError(f"{func} {verb} a {leaf.dtype} tensor")


@pytest.fixture
def mps_safe(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[AbstractContextManager]]:
    """Give a context manager inside which no float64 or complex tensor may be made: ``with mps_safe(): ...``."""
    from tamt.reference import iir

    monkeypatch.setattr(iir, "wide", lambda tensor: tensor.dtype)  # as on MPS
    iir._plans.clear()
    yield ForbidWideTypes
    iir._plans.clear()
