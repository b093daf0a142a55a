"""The kernels of DRNL filters' means over hops, compiled for four GPUs without one: no spills, in budget."""

from __future__ import annotations

import pytest
import torch
from helpers import some_slow

pytest.importorskip("triton")

from asv_bench.kernels.machine_code import TARGETS, compiled
from compile.budgets import AMD_SHORT, check, check_widths
from tamt.triton_kernels import drnl_frames as engine

pytestmark = pytest.mark.usefixtures("compile_cache")

PAULICK, JEPSEN = (6, 2, 3), (7, 3, 6)  # sections of the linear, the front and the back cascade
CASES = {
    "paulick": (PAULICK, torch.float32, 160, "power", 160000),
    "apart": (PAULICK, torch.float32, 441, "power", 160000),
    "jepsen": (JEPSEN, torch.float32, 160, "halfwave", 160000),
    "jepsen apart": (JEPSEN, torch.float32, 441, "power", 160000),
    "every sample": (JEPSEN, torch.float32, 1, "halfwave", 160001),
    "float64": (JEPSEN, torch.float64, 160, "power", 160000),
    "float64 apart": (JEPSEN, torch.float64, 441, "halfwave", 160000),
}
EVERY_RUN = ("paulick", "apart")
# Long cascades take a compiler half a minute: they are looked at where they fit with the least to spare.
SOME_TARGETS = {"every sample": ("sm_80", "gfx942"), "float64": ("sm_90",), "jepsen": ("sm_90", "sm_100")}
STAGES = {"iir_design_kernel", "iir_scan_kernel", "drnl_front_kernel", "drnl_frames_kernel"}


def launch(
    orders: tuple[int, ...],
    dtype: torch.dtype,
    hop: int,
    detector: str,
    length: int,
    rows: int = 32,
    channels: int = 64,
) -> None:
    """On tensors without memory."""
    new = torch.empty(0, dtype=dtype, device="meta").new_empty
    cascades, states = (new(channels, 6 * k) for k in orders), (new(rows, channels, 2 * k) for k in orders)
    engine.drnl_frames(new(rows, length), *cascades, new(channels, 3), *states, hop, detector)


@pytest.mark.parametrize(
    ("target", "case"),
    some_slow(
        [(target, case) for target in TARGETS for case in CASES if target in SOME_TARGETS.get(case, TARGETS)],
        lambda target, case: target == "sm_90" and case in EVERY_RUN,
    ),
)
def test_machine_code(target: str, case: str) -> None:
    _, dtype, hop, _, length = CASES[case]
    with compiled(target) as codes:
        launch(*CASES[case])
    single = dtype == torch.float32
    expected = STAGES | {"iir_end_state_kernel"} if single else STAGES | {"iir_forward_kernel", "drnl_back_kernel"}
    if hop % 16:
        expected |= {"filter_frames_rest_kernel"}
    if length // hop * hop % 16:
        expected |= {"drnl_tail_kernel", "drnl_frames_tail_kernel"}
    # Chunks of the few rows that are left in the end may have more superblocks than are scanned in one go.
    assert {code.name for code in codes} - {"iir_power_kernel"} == expected
    for code in codes:
        # A chunk has so few programs that each has a unit to itself.
        check(code, tuned=case == "paulick" and code.name.startswith("drnl"), amd=AMD_SHORT)
        if single:
            check_widths(code)
