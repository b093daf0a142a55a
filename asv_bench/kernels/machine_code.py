"""The kernels a launcher starts: what each is given, and its machine code, without a device.

:func:`intercepted` shows every launch to a function. :func:`compiled` runs a launcher on ``meta`` tensors with a
stand-in driver, so every kernel is compiled with exactly the specialisation a real launch gets (types, divisible
arguments, constants, warps) and nothing is run. :func:`counted` tells how many kernels that would be.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


class Launch(NamedTuple):
    """What one launch of a kernel was given."""

    kernel: str
    constants: dict[str, Any]
    grid: tuple[int, ...]
    operands: dict[str, torch.Tensor]  # by the names of the kernel's arguments, in their order

    def programs(self) -> int:
        return math.prod(self.grid)


class Code(NamedTuple):
    """One kernel, compiled for one target."""

    name: str
    target: str
    registers: int
    spilled: int  # registers (AMD) or bytes (NVIDIA) stored to memory for want of registers
    stack: int  # bytes of private memory per lane
    shared: int  # bytes of shared memory per program
    kernel: Any

    def machine_code(self) -> str:
        if "cubin" not in self.kernel.asm:
            return self.kernel.asm["amdgcn"]
        with _file(self.kernel.asm["cubin"]) as path:
            return _tool("cuobjdump", "--dump-sass", path)

    def instructions(self) -> int:
        """Number of instructions, without what fills up the end of NVIDIA's code."""
        code = self.machine_code()
        if "cubin" in self.kernel.asm:
            found = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\w+)", code)
            return sum(name != "NOP" for name in found)
        body = code[code.index(f"\n{self.name}:") : code.index("\n.Lfunc_end")]
        return len(re.findall(r"^\t[a-z]", body, re.MULTILINE))

    def accesses(self) -> dict[str, int]:
        """Number of global loads and stores in the code, and how many of them move 128 bits."""
        code = self.machine_code()
        if "cubin" in self.kernel.asm:
            loads, stores = re.findall(r"\b(?:LDG|LDGSTS)\.\S+", code), re.findall(r"\bSTG\.\S+", code)
            wide = r"\.128"
        else:
            loads = re.findall(r"\b(?:global|buffer|flat)_load_\S+", code)
            stores = re.findall(r"\b(?:global|buffer|flat)_store_\S+", code)
            wide = r"dwordx4"
        wide_of = lambda found: sum(bool(re.search(wide, f)) for f in found)  # noqa: E731
        return {
            "loads": len(loads),
            "wide_loads": wide_of(loads),
            "stores": len(stores),
            "wide_stores": wide_of(stores),
        }


class _Driver:
    """Stands in for a CUDA or HIP driver. The device number differs per target, as kernels are cached per device."""

    def __init__(self, target: GPUTarget, first: int = 1000) -> None:
        self.target = target
        self.device = first + list(TARGETS.values()).index(target)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")


@contextlib.contextmanager
def intercepted(handle: Callable[[Launch, Callable[..., Any]], Any]) -> Iterator[None]:
    """Inside, a launch calls ``handle`` in its place, with the launch and a function that does it."""
    run = JITFunction.run

    def instead(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        assert not callable(grid)
        given = dict(zip((p.name for p in self.params), args, strict=False)) | options
        launch = Launch(
            self.fn.__name__,
            {p.name: given[p.name] for p in self.params if p.is_constexpr},
            grid,
            {p.name: given[p.name] for p in self.params if isinstance(given[p.name], torch.Tensor)},
        )
        return handle(launch, lambda warmup=warmup: run(self, *args, grid=grid, warmup=warmup, **options))

    with patch.object(JITFunction, "run", instead):
        yield


@contextlib.contextmanager
def compiled(target: str, observe: Callable[[Launch, Code], None] = lambda launch, code: None) -> Iterator[list[Code]]:
    """Inside, launches compile for the target instead of running; the list has one entry per different kernel.

    ``observe`` is told of every launch.
    """
    found: dict[int, Code] = {}
    codes: list[Code] = []

    def compile_only(launch: Launch, kernel: Any) -> None:
        if id(kernel) not in found:
            found[id(kernel)] = _examine(launch.kernel, target, kernel)
            codes.append(found[id(kernel)])
        observe(launch, found[id(kernel)])

    with compiling(target, compile_only):
        yield codes


@contextlib.contextmanager
def compiling(target: str, observe: Callable[[Launch, Any], None] = lambda launch, kernel: None) -> Iterator[None]:
    """Inside, a launch compiles for the target instead, tells ``observe`` of the kernel, and returns it."""

    def compile_only(launch: Launch, run: Callable[..., Any]) -> Any:
        kernel = run(warmup=True)
        observe(launch, kernel)
        return kernel

    with intercepted(compile_only), standing_in(target):
        yield


@contextlib.contextmanager
def counted(target: str) -> Iterator[Counter[str]]:
    """Inside, nothing compiles and nothing runs; the result counts, by kernel, what a device would have compiled."""
    seen: set[tuple[str, str]] = set()
    counts: Counter[str] = Counter()

    def note(*, key: str, fn: Any, **rest: Any) -> bool:
        counts[fn.name] += (fn.name, key) not in seen
        seen.add((fn.name, key))
        return True  # Triton leaves it at that

    with (
        intercepted(lambda launch, run: run(warmup=True)),
        patch.object(knobs.runtime, "jit_cache_hook", note),
        standing_in(target, first_device=2000),  # where none of those that `compiled` made are found
    ):
        yield counts


@contextlib.contextmanager
def standing_in(target: str, first_device: int = 1000) -> Iterator[None]:
    """Inside, torch and triton take the target for their device."""
    hip = "6" if TARGETS[target].backend == "hip" else None
    before = vars(driver).copy()  # triton's own reset looks for a device
    with patch.object(torch.version, "hip", hip):
        driver.set_active(_Driver(TARGETS[target], first_device))
        try:
            yield
        finally:
            vars(driver).update(before)


def _examine(name: str, target: str, kernel: Any) -> Code:
    shared = kernel.metadata.shared
    if "amdgcn" in kernel.asm:
        field = lambda key: int(re.search(rf"\.{key}:\s+(\d+)", kernel.asm["amdgcn"])[1])  # noqa: E731
        spilled = field("vgpr_spill_count") + field("sgpr_spill_count")
        return Code(name, target, field("vgpr_count"), spilled, field("private_segment_fixed_size"), shared, kernel)
    with _file(kernel.asm["cubin"]) as path:
        usage = _tool("cuobjdump", "--dump-resource-usage", path)
    registers, stack = (int(n) for n in re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    # Spilled registers lie on the stack, so only a kernel with a stack has to be assembled again to be asked.
    return Code(name, target, registers, _spilled_bytes(kernel) if stack else 0, stack, shared, kernel)


def _spilled_bytes(kernel: Any) -> int:
    ptx = kernel.asm["ptx"]
    architecture = re.search(r"\.target (\w+)", ptx)[1]
    with _file(ptx.encode()) as path:
        newer = TOOLS / "ptxas-blackwell"
        assembler = newer if newer.exists() else TOOLS / "ptxas"
        command = [str(assembler), "-v", f"--gpu-name={architecture}", path, "-o", path + ".o"]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        Path(path + ".o").unlink()
    return sum(int(n) for n in re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log).groups())


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / name), *arguments], capture_output=True, text=True, check=True).stdout
