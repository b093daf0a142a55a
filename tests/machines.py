"""The numeric tests as other processors would run them, and what they leave of their tolerances.

``python tests/machines.py [--all] [--margin 4] [files]``

torch, MKL, oneDNN, numpy and OpenBLAS choose their code by what the processor can do, and variables make them take that
of a lesser one. A processor has one level, so all of them run on the same, each with one thread and with two; ``--all``
combines torch's and MKL's levels as well. By default the files are all that compare numbers: those of ``tests`` but for
the command line, pictures, packages, machine code and GPUs, and with one thread those of ``tests/interpreter``. What
compiles, and the compiler's tests of operators, is left out of them.

Every test has to pass everywhere, and every tolerance has to be a multiple of the error, ``--margin`` of it, so that a
processor that is not at hand passes too. Errors that are the same everywhere are no processor's, and do not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

TESTS = Path(__file__).parent
LEFT_OUT = ("cli", "plot", "package", "upkeep", "evidence", "benchmarks", "conftest")
NO_COMPILER = "not compile and not export and not opcheck and not traced and not distributed"
# What torch, MKL and oneDNN call the instructions of a level, and what OpenBLAS calls a processor that has them.
LEVELS = {
    "baseline": ("default", "SSE4_2", "SSE41", "Nehalem"),
    "avx2": ("avx2", "AVX2", "AVX2", "Haswell"),
    "native": ("", "", "", ""),
}


def machines(every: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Names of processors, and the variables that make this one behave like them."""
    pairs = itertools.product(LEVELS, LEVELS) if every else zip(LEVELS, LEVELS, strict=True)
    for (level, mkl), threads in itertools.product(pairs, ("1", "2")):
        aten, _, onednn, openblas = LEVELS[level]
        variables = {
            "ATEN_CPU_CAPABILITY": aten,
            "MKL_ENABLE_INSTRUCTIONS": LEVELS[mkl][1],
            "ONEDNN_MAX_CPU_ISA": onednn,
            "OPENBLAS_CORETYPE": openblas,
            "NPY_DISABLE_CPU_FEATURES": " ".join(beyond(level)),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        name = f"{level}, {threads} thread{'s' * (threads == '2')}"
        yield name if mkl == level else f"{name}, MKL {mkl}", {key: value for key, value in variables.items() if value}


def beyond(level: str) -> list[str]:
    """numpy's names for what this processor can do and one of that level cannot."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    here = [name for name in __cpu_dispatch__ if __cpu_features__[name] and level != "native"]
    return [name for name in here if level == "baseline" or name.startswith(("AVX512", "X86_V4"))]


class Shares:
    """A plugin of pytest: which share of its tolerance every comparison of every test uses."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.shares = self.found.setdefault(item.nodeid, [])

    def pytest_sessionfinish(self) -> None:
        Path(os.environ["TAMT_SHARES"]).write_text(json.dumps({k: v for k, v in self.found.items() if v}))

    def watch(self) -> None:
        """Put what notes shares in the place of the comparisons."""
        import helpers

        judge = helpers.judge

        def judged(error: Tensor, tolerance: float | Tensor) -> float:
            self.shares.append(math.inf)  # unless it passes
            self.shares[-1] = judge(error, tolerance)
            return self.shares[-1]

        helpers.judge = judged
        self.watch_library(torch.testing, "assert_close", 1.3e-6, 1e-5)
        self.watch_library(np.testing, "assert_allclose", 1e-7, 0)

    def watch_library(self, library: Any, name: str, rtol: float, atol: float) -> None:
        compare = getattr(library, name)

        def compared(actual: Any, expected: Any, *more: Any, **named: Any) -> None:
            compare(actual, expected, *more, **named)
            if not more and isinstance(actual, (Tensor, np.ndarray)):
                a, e = (torch.as_tensor(t if isinstance(t, Tensor) else np.array(t)) for t in (actual, expected))
                allowed = named.get("rtol", rtol) * e.abs() + named.get("atol", atol)
                share = torch.where(a == e, 0, (a - e).abs() / allowed).detach().nan_to_num(0)
                self.shares.append(share.max().item() if share.numel() else 0.0)

        setattr(library, name, compared)


def pytest_configure(config: pytest.Config) -> None:
    shares = Shares()
    shares.watch()
    config.pluginmanager.register(shares)


def run(variables: dict[str, str], files: list[str]) -> tuple[bool, str, dict[str, list[float]]]:
    """Whether all tests pass in a process with these variables, its last line, and their shares."""
    with tempfile.NamedTemporaryFile() as file:
        environment = os.environ | variables | {"TAMT_SHARES": file.name, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-m", "pytest", "-p", "machines", "-n", "0", "-q", "-k", NO_COMPILER, *files]
        done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
        shares = json.loads(Path(file.name).read_text() or "{}")
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode == 0, done.stdout.strip().rpartition("\n")[2], shares


def close_ones(found: dict[str, dict[str, list[float]]], most: float) -> list[tuple[float, str, str]]:
    """Tests with a share above ``most`` that depends on the machine: the largest such share, the test, the machine."""
    close = []
    for test in sorted({test for shares in found.values() for test in shares}):
        columns = {name: shares[test] for name, shares in found.items() if test in shares}
        for row in itertools.zip_longest(*columns.values(), fillvalue=0.0):
            share, name = max(zip(row, columns, strict=True))
            if share > most and min(row) < 0.999 * share:
                close.append((share, test, name))
    worst = {test: (share, test, name) for share, test, name in sorted(close)}
    return sorted(worst.values(), reverse=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="in place of all that compare numbers")
    parser.add_argument("--all", action="store_true", help="torch's and MKL's levels in all combinations")
    parser.add_argument("--margin", type=float, default=4, help="least tolerance over error (default: %(default)g)")
    arguments = parser.parse_args()
    every = [*sorted(TESTS.glob("test_*.py")), *sorted((TESTS / "interpreter").glob("test_*.py"))]
    chosen = [path for path in every if not any(part in path.stem for part in LEFT_OUT)]
    files = [Path(name).resolve() for name in arguments.files] or chosen
    passed, found = True, {}
    for name, variables in machines(arguments.all):
        for interpreted in (False, True):
            part = [str(path) for path in files if (path.parent.name == "interpreter") == interpreted]
            if not part or (interpreted and variables["OMP_NUM_THREADS"] != "1"):
                continue
            good, summary, shares = run(variables | ({"TRITON_INTERPRET": "1"} if interpreted else {}), part)
            passed &= good
            found[name] = found.get(name, {}) | shares
            print(f"{'ok  ' if good else 'FAIL'} {name}{', interpreter' * interpreted}: {summary}", flush=True)
    close = close_ones(found, 1 / arguments.margin)
    for share, test, name in close:
        print(f"{share:5.0%} of its tolerance: {test} ({name})")
    print(f"{len(close)} tests leave less than a factor of {arguments.margin:g} between an error and its tolerance")
    return 0 if passed and not close else 1


if __name__ == "__main__":
    sys.exit(main())
