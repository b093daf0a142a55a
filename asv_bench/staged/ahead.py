"""Compile the kernels of a stage in many processes, without the device: the stage finds them in Triton's cache."""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from asv_bench.kernels.machine_code import TARGETS

from . import operators, sweep

Job = partial[None]


def jobs(stage: int, target: str, names: list[str]) -> Iterator[Job]:
    if stage == 2:
        for name, direction, count in operators.ahead():
            if name in names:
                yield partial(operators.compile_ahead, target, name, direction, count)
    else:
        for name in names:
            for k in range(len(sweep.SWEEPS[name].trials)):
                yield partial(sweep.compile_ahead, target, name, k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    if arguments.target not in TARGETS:
        print(f"nothing is compiled ahead for {arguments.target}")
        return
    start = time.monotonic()
    with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(job): job for job in jobs(arguments.stage, arguments.target, arguments.names)}
        for future in as_completed(waiting):
            if error := future.exception():  # the device's own process will meet it again
                print(waiting[future].args, "".join(traceback.format_exception_only(error)).strip(), flush=True)
    print(f"{len(waiting)} passes compiled ahead in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
