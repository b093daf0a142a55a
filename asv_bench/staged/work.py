"""One process of a stage: it goes through the items it is given and leaves rows.

It exits with DEAD where the device does not answer any more; :mod:`asv_bench.gpu` starts another one for the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from asv_bench import environment

from . import asked, operators, others, sweep
from .device import Device
from .outcomes import device_answers
from .rows import Rows, last_run, read

DEAD = 3  # exit status
CLOCKS = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"


def described(device: Device, rows: Rows, commit: str) -> None:
    """Stage 0."""
    found = environment.describe(device.name)
    rows.add("device", **found | {"commit": commit or found["commit"]})
    with rows.guarded("clocks"):
        if not device.rehearse:
            command = ["nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv"]
            rows.add("clocks", csv=subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows.add("copy", bytes_per_s=device.bandwidth())
    target = torch.empty(device.size(1 << 30, 1 << 16), device=device.name)
    rows.add("fill", bytes_per_s=target.nbytes / device.seconds(lambda: target.fill_(1.0)))


def bandwidth(device: Device, path: Path) -> float:
    """That of stage 0, or measured where it has not been."""
    found = [row["bytes_per_s"] for row in last_run(read(path)) if row["what"] == "copy" and "bytes_per_s" in row]
    return found[-1] if found else device.bandwidth()


def items(stage: int, path: Path, rehearse: bool) -> list[str]:
    """What a stage has to do, in its order."""
    if stage == 0:
        return ["describe"]
    if stage == 2:  # what is asked comes early, as it decides what is swept
        first, rest = list(operators.NAMES[:1]), list(operators.NAMES[1:])
        return first + list(asked.FIGURES) + rest
    if stage == 4:
        return sweep.wanted(last_run(read(path)))
    return others.REHEARSED if rehearse else others.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("items", nargs="+")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peers
    if arguments.rehearse:
        from asv_bench.kernels import interpreter

        interpreter.prepare()
    device, rows = Device(arguments.rehearse), Rows(arguments.out, arguments.stage)
    speed = bandwidth(device, arguments.out) if arguments.stage else 0.0

    def described_here(name: str) -> None:
        described(device, rows, arguments.commit)

    def measured(name: str) -> None:
        if name in asked.FIGURES:
            rows.add(name, **asked.row(name, device, speed))
        else:
            operators.measure(name, device, rows, speed)

    work: dict[int, Callable[[str], None]] = {
        0: described_here,
        2: measured,
        4: lambda name: sweep.run(name, device, rows),
        5: lambda name: others.run(name, device, rows),
    }
    for name in arguments.items:
        with rows.item(name):
            work[arguments.stage](name)
        device.empty()
        if not device_answers():
            rows.add(name, failed="the device does not answer any more")
            sys.stdout.flush()
            os._exit(DEAD)


if __name__ == "__main__":
    main()
