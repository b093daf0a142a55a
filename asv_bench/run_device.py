"""Run the benchmarks on a machine without asv and write one result file.

``PYTHONPATH=. python3 asv_bench/run_device.py --out FILE [--device cuda] [--only NAME]``
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import itertools
import json
import platform
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import tamt
from asv_bench.benchmarks.common import timed

MODULES = (
    "iir",
    "gammatone",
    "fft_drnl",
    "drnl",
    "windowed_dft",
    "compaction",
    "multi_resolution_fft",
    "moore2016_spectrum",
    "erb_integration",
    "spreading",
    "roex",
    "front_ends",
)


def commit() -> str:
    """Commit of the checkout, "unknown" outside one, with "-dirty" where files differ from it."""
    call = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return call.stdout.strip() if call.returncode == 0 else "unknown"


def processor() -> str:
    """Name of the processor, as Linux knows it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def origin() -> dict[str, str]:
    """When and from what a result was made."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit()}


def environment(device: str) -> dict[str, Any]:
    found = origin() | {
        "tamt": tamt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "name": processor(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        import triton

        found |= {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "triton": triton.__version__}
        found["copy bandwidth, bytes/s"] = copy_bandwidth()
    return found


def copy_bandwidth() -> float:
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    seconds = statistics.median(timed(lambda: target.copy_(source), "cuda") for _ in range(20))
    return 2 * source.nbytes / seconds


def combinations(benchmark: type) -> Iterator[tuple[Any, ...]]:
    yield from itertools.product(*getattr(benchmark, "params", ()))


def on_device(combination: tuple[Any, ...], device: str) -> bool:
    """Whether a combination belongs to the device: its first parameter is the device, or a pair that begins with it."""
    if not combination:
        return device == "cpu"
    first = combination[0][0] if isinstance(combination[0], tuple) else combination[0]
    return first == device if first in ("cpu", "cuda") else device == "cpu"


def measure(instance: Any, method: str, combination: tuple[Any, ...], device: str) -> tuple[float, str]:
    function = getattr(instance, method)
    if method.startswith("track_"):
        return function(*combination), getattr(function, "unit", "")
    function(*combination)
    return statistics.median(timed(lambda: function(*combination), device) for _ in range(20)), "s"


def run(device: str, only: str) -> Iterator[dict[str, Any]]:
    for stem in MODULES:
        module = importlib.import_module(f"asv_bench.benchmarks.{stem}")
        for name, benchmark in inspect.getmembers(module, inspect.isclass):
            if name.startswith("_") or benchmark.__module__ != module.__name__ or only not in f"{stem}.{name}":
                continue
            for combination in combinations(benchmark):
                if not on_device(combination, device):
                    continue
                for method in dir(benchmark):
                    if not method.startswith(("time_", "track_")):
                        continue
                    instance = benchmark()
                    try:
                        instance.setup(*combination)
                        value, unit = measure(instance, method, combination, device)
                    except NotImplementedError:
                        continue
                    row = {"benchmark": f"{stem}.{name}.{method}", "parameters": [str(c) for c in combination]}
                    print(f"{row['benchmark']} {combination}: {value:.4g} {unit}", flush=True)
                    yield row | {"value": value, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", default="", help="part of a benchmark's, or of a kernel operation's, name")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu runs the CPU's benchmarks")
    result = environment(arguments.device) | {"results": list(run(arguments.device, arguments.only))}
    if arguments.device == "cuda":
        from asv_bench.kernel_times import measured

        result["kernels"] = list(measured(arguments.only))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
