"""The kernels of means over hops, compiled for four GPUs without one: no spills, registers and memory in budget."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import AMD, AMD_MODAL, check, check_widths, names
from tamt.triton_kernels.filter_frames import filter_frames, filter_frames_backward

pytestmark = pytest.mark.usefixtures("compile_cache")

CASES = {
    "tuned": ("onepole", 4, torch.float32, 160, "power", 160000),
    "envelope": ("onepole", 4, torch.float32, 160, "envelope", 160000),
    "apart": ("onepole", 4, torch.float32, 441, "power", 160000),
    "every sample": ("onepole", 4, torch.float32, 1, "halfwave", 160001),
    "allpole": ("allpole", 4, torch.float32, 441, "envelope", 160000),
    "biquad": ("biquad", 4, torch.float32, 160, "halfwave", 160000),
    "biquad float64": ("biquad", 8, torch.float64, 441, "power", 160001),
    "onepole float64": ("onepole", 8, torch.float64, 441, "envelope", 160000),
    "modal": ("modal", 7, torch.float32, 441, "power", 160001),
    "modal float64": ("modal", 6, torch.float64, 7, "halfwave", 160000),
}
EVERY_RUN = ("tuned", "apart")


def launch(
    kind: str,
    order: int,
    dtype: torch.dtype,
    hop: int,
    detector: str,
    length: int,
    rows: int = 32,
    channels: int = 64,
    backward: bool = False,
) -> None:
    """On tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    columns = {"onepole": 5, "biquad": 7 * order, "allpole": 5 + 2 * order, "modal": 6 * order}[kind]
    operands = new(rows, length), new(channels, columns), new(rows, channels, 2 * order)
    means, final = filter_frames(*operands, kind, order, hop, detector)
    if backward:
        filter_frames_backward(means, final, *operands, kind, order, hop, detector, True, True)


@pytest.mark.parametrize(
    ("target", "case"),
    some_slow(
        [(target, case) for target in TARGETS for case in CASES],
        lambda target, case: target == "sm_90" and case in EVERY_RUN,
    ),
)
def test_machine_code(target: str, case: str) -> None:
    kind, _, dtype, hop, _, length = CASES[case]
    with compiled(target) as codes:
        launch(*CASES[case])
    codes = [code for code in codes if not code.name.startswith("iir")]
    own = names("filter_frames")
    if hop % 16 == 0:
        own -= {"filter_frames_rest_kernel"}
    if length // hop * hop % 16 == 0:
        own -= {"filter_frames_tail_kernel"}
    own -= {"filter_frames_adjoint_kernel"}
    assert {code.name for code in codes} == own
    for code in codes:
        check(code, tuned=case == "tuned", amd=AMD_MODAL if kind == "modal" else AMD)
        if dtype == torch.float32 and length % 16 == 0:
            check_widths(code)


@pytest.mark.parametrize(
    ("target", "hop", "detector"),
    some_slow(
        itertools.product(TARGETS, [160, 441], ["power", "halfwave", "envelope"]),
        lambda *case: case in {("sm_90", 160, "power"), ("sm_90", 160, "envelope")},
    ),
)
def test_machine_code_of_the_adjoint(target: str, hop: int, detector: str) -> None:
    """Slices are what :mod:`compile.test_iir` compiles."""
    with compiled(target) as codes:
        launch("onepole", 4, torch.float32, hop, detector, 160000, backward=True)
    adjoints = [code for code in codes if code.name == "filter_frames_adjoint_kernel"]
    assert len(adjoints) == 2
    for code in adjoints:
        check(code, tuned=hop == 160)


@pytest.mark.parametrize(
    ("hop", "length"), some_slow([(1, 1), (1, 300), (16, 16), (17, 17), (160, 4000)], lambda h, n: n < 20)
)
def test_sizes_of_one_compile(hop: int, length: int) -> None:
    """Triton makes a constant of every argument that is 1."""
    with compiled("sm_90") as codes:
        launch("biquad", 1, torch.float32, hop, "power", length, rows=1, channels=1)
    for code in codes:
        if code.name in names("filter_frames"):  # an end state of few samples has more registers, and time
            check(code)
