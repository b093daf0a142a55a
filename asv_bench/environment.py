"""What a result file says of where it comes from."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import tamt


def origin() -> dict[str, str]:
    """When and from what a result was made."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit()}


def describe(device: str) -> dict[str, Any]:
    """Origin, versions and machine."""
    found: dict[str, Any] = origin() | {
        "tamt": tamt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "name": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        import triton

        found |= {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "triton": triton.__version__}
    return found


def write(result: dict[str, Any], path: Path) -> None:
    """The result file, in a folder that is made if need be."""
    save(result, path)
    print(f"written to {path}")


def write_all(result: dict[str, Any], rows: Iterable[dict[str, Any]], path: Path) -> None:
    """The result file with all rows as its ``"results"``, whole after each of them."""
    for row in rows:
        result["results"].append(row)
        save(result, path)
    write(result, path)


def save(result: dict[str, Any], path: Path) -> None:
    """A cut-off leaves the file as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(laid_out(result))
    part.replace(path)


def laid_out(result: dict[str, Any]) -> str:
    """JSON with an entry a line, and of a list of records a record a line."""
    lines = []
    for key, value in result.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(record)}" for record in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def commit() -> str:
    """Commit of the checkout, "unknown" outside one, with "-dirty" where what is measured differs from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:  # there is no git
        return "unknown"
    if head.returncode:
        return "unknown"
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "tamt", "asv_bench"], capture_output=True, text=True
    )
    return head.stdout.strip() + "-dirty" * bool(changed.stdout)


def processor() -> str:
    """Name of the processor, as Linux knows it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
