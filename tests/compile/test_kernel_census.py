"""The census and the measurement of kernels: traffic known by hand, rows of a file, the bookkeeping of times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from asv_bench.kernels.census import kernel_rows, operation_rows
from asv_bench.kernels.machine_code import Code, Launch, compiled, compiling
from asv_bench.kernels.times import error, launch_times, measured, summary
from asv_bench.kernels.traffic import Traffic, size_in_bytes, traffic
from asv_bench.operations import OPERATIONS, Pass, passes
from asv_bench.staged.operators import TINY
from tamt.triton_kernels.broken_stick import broken_stick
from tamt.triton_kernels.drnl import drnl
from tamt.triton_kernels.fft_drnl import windows

pytestmark = pytest.mark.usefixtures("compile_cache")


def moved(call: Any) -> dict[str, Traffic]:
    """What the launches of ``call`` move, by kernel, compiled for sm_90."""
    found = {}

    def observe(launch: Launch, code: Code) -> None:
        found[launch.kernel] = traffic(code.kernel.asm["ttir"], launch.operands, launch.programs())

    with compiled("sm_90", observe):
        call()
    return found


def test_the_census_of_a_kernel_with_a_while_loop() -> None:
    (row,) = (row for row in kernel_rows("compaction to 400", "sm_90") if row["direction"] == "forward")
    assert row["bytes"] == 4 * (300000 * 960 + 960 + 300000 + 2 * 300000 * 400)


def test_a_pointer_of_unknown_origin() -> None:
    ttir = "tt.func public @k(%a: !tt.ptr<f32>) {\n%0 = tt.load %b : !tt.ptr<f32>\ntt.return\n}"
    with pytest.raises(NotImplementedError, match="a pointer of unknown origin"):
        traffic(ttir, {"a": torch.empty(1)}, 1)


def test_the_census_of_the_broken_stick() -> None:
    samples, partial_sums = 4 * 32 * 50 * 176400, 4 * 32 * 50 * 11 * 3  # chunks of 16384
    forward, backward = kernel_rows("broken stick", "sm_90")
    assert (forward["kernel"], forward["direction"], forward["launches"]) == ("broken_stick_kernel", "forward", 1)
    assert (forward["loads"], forward["stores"]) == (["p_v", "p_stick"], ["p_w"])
    assert forward["bytes"] == 2 * samples + 600
    assert forward["floor, s"] == pytest.approx(forward["bytes"] / 4.3e12, rel=1e-3)
    assert forward["programs"] == 32 * 50 * 87
    assert forward["narrow stores"] == 0 < forward["wide stores"]
    assert 0 < forward["registers"] < 256 < forward["instructions"]
    assert backward["loads"] == ["p_grad", "p_v", "p_stick"]
    assert backward["stores"] == ["p_grad_v", "p_part"]
    assert backward["bytes"] == 3 * samples + 600 + partial_sums
    rows = {row["direction"]: row["bytes"] for row in operation_rows("broken stick")}
    assert rows == {"forward": 2 * samples + 600, "backward": 3 * samples + 2 * 600}


def test_what_is_changed_in_place_counts_twice() -> None:
    new = torch.empty(0, device="meta").new_empty
    states = [new(2, 3, 2) for _ in range(3)]
    found = moved(lambda: drnl(new(2, 64), *(new(3, 6) for _ in range(3)), new(3, 3), *states))
    back = found["drnl_back_kernel"]
    assert back.loads["p_y"] == back.stores["p_y"] == 4 * 2 * 3 * 64
    assert back.loads["p_x"] == 4 * 2 * 64
    assert "p_x" not in back.stores
    assert "p_y" not in found["drnl_front_kernel"].loads | found["drnl_front_kernel"].stores


def test_operands_are_views_and_expanded() -> None:
    assert size_in_bytes(torch.empty(7, 5)[:, 1:3]) == 4 * 14
    assert size_in_bytes(torch.empty(7, 1, dtype=torch.float64).expand(7, 9)) == 8 * 7
    assert size_in_bytes(torch.empty(0, 1).expand(0, 9)) == 0
    new = torch.empty(0, device="meta").new_empty
    found = moved(lambda: broken_stick(new(2, 3, 64), new(1, 3).expand(3, 3)))  # the launcher copies it
    assert found["broken_stick_kernel"].loads == {"p_v": 4 * 2 * 3 * 64, "p_stick": 4 * 9}


def test_of_an_operand_read_in_part_no_more_counts_than_the_programs_reach() -> None:
    new = torch.empty(0, device="meta").new_empty
    found = moved(lambda: windows(new(1, 1, 2, 16384), new(2, 3), new(1, 2, 1024), 0, 1, 1024, 15360))
    assert found["fft_drnl_windows_kernel"].loads["p_v"] == 4 * 2 * 1024


def test_operations_are_the_same_on_every_device() -> None:
    for name, operation in OPERATIONS.items():
        given = operation.operands(2, "cpu")
        shapes = [getattr(t, "shape", t) for t in operation.operands(2, "meta")]
        assert shapes == [getattr(t, "shape", t) for t in given], name
        assert all(t.isfinite().all() for t in given if isinstance(t, torch.Tensor)), name


def test_every_operation_has_something_to_do_in_a_rehearsal() -> None:
    for name, operation in TINY.items():
        for direction, _, given in passes(operation, "cpu", 1, launched=False):
            assert all(t.numel() for t in given if isinstance(t, torch.Tensor)), (name, direction)


class _Event:
    """An event of a device whose clock goes on by a millisecond at each of them."""

    clock = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        type(self).clock += 1
        self.time = self.clock

    def elapsed_time(self, later: _Event) -> float:
        return later.time - self.time


def test_the_bookkeeping_of_times() -> None:
    """On a stand-in of a device, which compiles what is launched but runs nothing."""
    row = kernel_rows("broken stick", "sm_90")[0]
    new = torch.empty(0, device="meta").new_empty

    def call() -> None:
        for samples in (64, 64, 4096):
            broken_stick(new(2, 3, samples), new(3, 3))

    steps: list[str] = []
    device = SimpleNamespace(
        Event=_Event,
        _sleep=lambda cycles: steps.append("sleep"),
        synchronize=lambda: steps.append("synchronize"),
    )
    with compiling("sm_90"):
        launches = launch_times(call, {}, device)
        rows = measured(call, device, rounds=2)
    assert steps == ["synchronize", "sleep", "synchronize"] * 4
    assert [(timed.launch.kernel, timed.launch.programs(), timed.seconds) for timed in launches] == [
        ("broken_stick_kernel", programs, 1e-3) for programs in (6, 6, 12)
    ]
    assert [timed.bytes for timed in launches] == [4 * (2 * 2 * 3 * samples + 9) for samples in (64, 64, 4096)]
    slower = [timed._replace(seconds=3 * timed.seconds) for timed in launches]
    small, large = summary([launches, slower, slower])
    assert rows == [small | {"seconds": 1e-3}, large | {"seconds": 1e-3}]
    assert (small["launches"], large["launches"]) == (2, 1)
    assert (small["programs"], large["programs"]) == (6, 12)
    assert small["seconds"] == pytest.approx(3e-3)
    assert small["constants"] == row["constants"]
    assert set(small) - {"seconds"} <= set(row)


def test_a_wrong_kernel_is_not_measured() -> None:
    def wrong(x: torch.Tensor) -> list[torch.Tensor]:
        return [x, torch.full_like(x, torch.nan)]

    def right(x: torch.Tensor) -> list[torch.Tensor]:
        return [x, x]

    assert error(Pass(right, right), (torch.ones(3),)) == 0
    assert error(Pass(right, right), (torch.zeros(3),)) == 0
    assert error(Pass(wrong, right), (torch.ones(3),)) == torch.inf
    operation = OPERATIONS["spreading"]
    for direction, functions, given in passes(operation, "cpu", 2, launched=False):
        assert 0 < error(Pass(functions.reference, functions.reference), given) < operation.limit, direction
