"""What the machine code of every kernel may take: registers, stack, shared memory, and how wide it loads and stores.

Spills are allowed nowhere. Register counts where aligned float32 signals leave them are mostly 64 to 128; signals whose
length is not a multiple of 16, and float64, take more.
"""

from __future__ import annotations

from typing import NamedTuple

from asv_bench.kernels.machine_code import Code

# Registers of 512 that AMD's units have: two wavefronts can share one. Coefficients are in them too, see
# iir/sections.py, vary. Long modal cascades take more: LLVM pairs their operations for the packed instructions. So does
# the adjoint of one-pole cascades with the sums for the coefficients where the length is not a multiple of 16; with the
# signal in pieces it spills.
AMD, AMD_MODAL = 256, 272
AMD_SHORT = 320  # of few programs, which have a unit to themselves
ROUNDING = 8  # bytes: an empty stack frame is ptxas's way of rounding
SINE = 48  # bytes of stack: float64 sine keeps a table for huge arguments there


class Budget(NamedTuple):
    """The most that a kernel takes."""

    registers: int  # per lane
    shared: int  # bytes per program
    double: int | None = None  # registers in float64, if not the same
    amd: int | None = AMD  # registers on AMD; None as elsewhere
    tuned: int = 255  # registers of the load everything is tuned for, in float32, with a length divisible by 16
    stack: int = ROUNDING  # bytes


BUDGETS = {
    "iir_design_kernel": Budget(200, 4 << 10, stack=SINE),
    "iir_end_state_kernel": Budget(168, 50 << 10, tuned=168),
    "iir_scan_kernel": Budget(72, 4 << 10),
    "iir_power_kernel": Budget(96, 8 << 10),
    "iir_forward_kernel": Budget(168, 8 << 10, tuned=72),
    "iir_forward_tail_kernel": Budget(96, 8 << 10),
    "iir_short_kernel": Budget(176, 16 << 10),
    "iir_adjoint_kernel": Budget(216, 16 << 10, tuned=168),
    "iir_adjoint_tail_kernel": Budget(96, 16 << 10),
    "iir_gradient_kernel": Budget(255, 20 << 10),
    "iir_onepole_gradient_kernel": Budget(128, 2 << 10),
    "iir_blocks_vjp_kernel": Budget(255, 1 << 10, stack=SINE),
    "filter_frames_kernel": Budget(208, 8 << 10, tuned=72),
    "filter_frames_tail_kernel": Budget(104, 8 << 10),
    "filter_frames_adjoint_kernel": Budget(232, 16 << 10, amd=296),
    "filter_frames_rest_kernel": Budget(48, 1 << 10),
    "broken_stick_kernel": Budget(112, 0),
    "broken_stick_backward_kernel": Budget(176, 1 << 10),
    "onepole_rows_kernel": Budget(72, 0, stack=SINE),
    "onepole_rows_backward_kernel": Budget(48, 0),
    "drnl_sections_kernel": Budget(72, 0, stack=SINE),
    "drnl_front_kernel": Budget(240, 8 << 10, tuned=64),
    "drnl_back_kernel": Budget(180, 8 << 10, tuned=104),  # 88 by triton 3.6 and newer, 104 by 3.4
    "drnl_tail_kernel": Budget(255, 8 << 10),
    "drnl_frames_kernel": Budget(180, 8 << 10, tuned=96),
    "drnl_frames_tail_kernel": Budget(48, 1 << 10),
    # Loads of spectra wait for memory, so many lanes have to fit on a multiprocessor.
    "fft_drnl_product_kernel": Budget(40, 1 << 10, double=128, amd=None),
    "fft_drnl_mix_kernel": Budget(48, 1 << 10, double=128, amd=None),
    "fft_drnl_adjoint_mix_kernel": Budget(96, 1 << 10, double=128, amd=None),
    "fft_drnl_windows_kernel": Budget(80, 1 << 10, double=128, amd=None),
    "fft_drnl_valid_kernel": Budget(40, 1 << 10, double=128, amd=None),
    "fft_drnl_hops_kernel": Budget(64, 1 << 10, double=128, amd=None),
    "fft_drnl_valid_adjoint_kernel": Budget(40, 1 << 10, double=128, amd=None),
    "fft_drnl_stick_adjoint_kernel": Budget(64, 1 << 10, double=128, amd=None),
    "fft_drnl_overlap_add_kernel": Budget(56, 1 << 10, double=128, amd=None),
    # The many pairs of a lane hide each other's latency, so few warps will do.
    "roex_level_kernel": Budget(184, 1 << 10, double=184, amd=None),
    "roex_level_backward_kernel": Budget(216, 1 << 10, double=184, amd=None),
    "roex_excitation_kernel": Budget(152, 1 << 10, double=184, amd=None),  # 128 by triton 3.9, 150 by 3.4 and 3.6
    "roex_excitation_backward_kernel": Budget(96, 1 << 10, double=184, amd=None),
    "windowed_dft_kernel": Budget(240, 17 << 10),
    "windowed_dft_scale_kernel": Budget(240, 17 << 10),
    "windowed_dft_adjoint_kernel": Budget(128, 9 << 10),
    "compaction_kernel": Budget(255, 4 << 10),
    "compaction_backward_kernel": Budget(128, 1 << 10),
    # Two groups of frames are in registers, that which is worked on and the next.
    "attack_release_kernel": Budget(112, 0, double=176, amd=None),
    "attack_release_backward_kernel": Budget(176, 0, double=255, amd=None),
    "spreading_kernel": Budget(48, 1 << 10, double=128, amd=None),
    "spreading_backward_kernel": Budget(64, 1 << 10, double=128, amd=None),
}


class Launches(NamedTuple):
    """Kernels of tamt, exactly so many, and the most operations of torch: at the reference load, and at a small one."""

    forward: tuple[int, int]
    backward: tuple[int, int]
    small_forward: tuple[int, int]
    small_backward: tuple[int, int]


LAUNCHES = {
    "gammatone": Launches((7, 0), (13, 1), (2, 0), (7, 1)),
    "cochleagram": Launches((19, 0), (133, 46), (4, 0), (13, 6)),
    "cochleagram of envelopes": Launches((33, 0), (276, 377), (6, 0), (26, 37)),
    "allpole": Launches((7, 0), (16, 30), (2, 0), (9, 13)),
    "biquads": Launches((7, 0), (16, 30), (2, 0), (9, 13)),
    "modal": Launches((7, 0), (16, 30), (2, 0), (9, 13)),
    "modal per channel": Launches((7, 0), (16, 29), (2, 0), (9, 12)),
    "broken stick": Launches((1, 0), (1, 1), (1, 0), (1, 1)),
    "drnl": Launches((19, 0), (57, 91), (10, 0), (31, 40)),
    "drnl cochleagram": Launches((81, 0), (781, 1130), (13, 0), (44, 110)),
    "fft drnl": Launches((80, 167), (128, 243), (5, 47), (8, 18)),
    "fft drnl cochleagram": Launches((80, 167), (273, 1015), (5, 47), (13, 75)),
    "windowed dft": Launches((6, 0), (26, 77), (6, 0), (12, 56)),
    "compaction to 960": Launches((1, 0), (1, 0), (1, 0), (1, 0)),
    "compaction to 400": Launches((1, 0), (1, 0), (1, 0), (1, 0)),
    "spreading": Launches((1, 1), (1, 4), (1, 1), (1, 4)),
    "attack and release": Launches((1, 0), (1, 2), (1, 0), (1, 2)),
    "roex level": Launches((1, 0), (1, 0), (1, 0), (1, 0)),
    "roex excitation": Launches((1, 0), (1, 0), (1, 0), (1, 0)),
}


class Widths(NamedTuple):
    """The least accesses of 128 bits where 16 divides the length."""

    loads: int
    stores: int
    every_store: bool = False  # whether there may be no other stores
    amd_loads: int | None = None  # None where AMD's code is not looked at


WIDTHS = {
    # Four loads of the signal and four stores of the output a trip; the other loads are of single coefficients, once.
    "iir_forward_kernel": Widths(4, 4, every_store=True),
    "filter_frames_kernel": Widths(4, 0),  # as above, of the signal
    # Two loads of each signal and two stores of the output a trip.
    "drnl_front_kernel": Widths(2, 2),
    "drnl_back_kernel": Widths(4, 2),
    "drnl_frames_kernel": Widths(4, 0),  # two loads of w and two of the signal
    "broken_stick_kernel": Widths(4, 1, every_store=True, amd_loads=2),
    "broken_stick_backward_kernel": Widths(4, 0, amd_loads=2),
}


def names(*prefixes: str) -> set[str]:
    """Of the kernels that begin so."""
    return {name for name in BUDGETS if name.startswith(prefixes)}


def check(code: Code, *, double: bool = False, tuned: bool = False, amd: int = AMD) -> None:
    """Hold a kernel's code against its budget; ``amd`` registers where that is another number than usual."""
    budget = BUDGETS[code.name]
    registers = budget.registers if budget.double is None or not double else budget.double
    if code.target.startswith("gfx"):
        registers = registers if budget.amd is None else max(amd, budget.amd)
    elif tuned:
        registers = min(registers, budget.tuned)
    assert code.spilled == 0, code
    assert code.registers <= registers, code
    assert code.shared <= budget.shared, code
    assert code.stack <= budget.stack, code


def check_widths(code: Code) -> None:
    """Hold a kernel's loads and stores against :data:`WIDTHS`, where they are in it."""
    widths = WIDTHS.get(code.name)
    amd = code.target.startswith("gfx")
    if widths is None or (amd and widths.amd_loads is None):
        return
    accesses = code.accesses()
    assert accesses["wide_loads"] >= (widths.amd_loads if amd else widths.loads), accesses
    assert accesses["wide_stores"] >= widths.stores, accesses
    assert not widths.every_store or accesses["stores"] == accesses["wide_stores"], accesses
