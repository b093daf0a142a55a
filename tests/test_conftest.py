import pytest
import torch


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
