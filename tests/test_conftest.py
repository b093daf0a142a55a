import os
from pathlib import Path

import pytest
import torch
from helpers import assert_close, assert_within
from torch._inductor.runtime.cache_dir_utils import cache_dir


@torch.library.custom_op("tamt::double_inside", mutates_args=())
def double_inside(x: torch.Tensor) -> torch.Tensor:
    return (x.double() + 1).to(x.dtype)


@torch.library.custom_op("tamt::all_single", mutates_args=())
def all_single(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def test_mps_safe_lets_float32_pass(mps_safe):
    pole = torch.nn.Parameter(torch.tensor([0.5 + 0.1j]))
    x = torch.ones(4, requires_grad=True)
    with mps_safe():
        y = all_single(x * torch.view_as_real(pole).sum(-1))
    torch.testing.assert_close(y, torch.full((4,), 1.6))


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.double(),
        lambda x: torch.complex(x, x),
        lambda x: torch.fft.rfft(x),
        lambda x: torch.zeros(3, dtype=torch.float64),
        lambda x: double_inside(x),
    ],
    ids=["double", "complex", "fft", "zeros", "inside an operator"],
)
def test_mps_safe_finds_wide_types(mps_safe, work):
    with pytest.raises(AssertionError, match=r"makes a torch\.(float64|complex64) tensor"), mps_safe():
        work(torch.ones(4))


def test_mps_safe_finds_wide_inputs(mps_safe):
    wide = torch.ones(4, dtype=torch.float64)
    with pytest.raises(AssertionError, match=r"is given a torch\.float64 tensor"), mps_safe():
        wide.float()


def test_inductor_has_a_cache_of_its_own():
    assert Path(cache_dir()).name.startswith("tamt-inductor-")
    assert Path(cache_dir()).is_dir()


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="runs in a worker")
def test_workers_have_one_thread_each():
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == "1"


def test_comparisons_are_strict():
    expected = torch.tensor([[1.0, -4.0], [0.0, 0.0]])
    assert_close(expected * (1 + 1e-6), expected, 2e-6)
    assert_within(expected + 0.5, expected, 0.5)
    assert_within(expected * 1.5, expected, 0.5 * expected.abs())
    for wrong in (expected * (1 + 1e-5), expected + torch.tensor([[0.0], [1e-30]]), expected / 0):
        with pytest.raises(AssertionError):
            assert_close(wrong, expected, 2e-6)
    for wrong in (expected + 0.6, expected + torch.nan, expected + torch.inf):
        with pytest.raises(AssertionError, match="exceeds"):
            assert_within(wrong, expected, 0.5)
    with pytest.raises(AssertionError, match=r"error 3\.00e\+00 exceeds 4\.00e-01"):
        assert_within(expected + torch.tensor([[0.0, 3.0], [0.0, 0.0]]), expected, 0.1 * expected.abs())
