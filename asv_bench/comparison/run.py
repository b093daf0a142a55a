"""Compare tamt with its peers on the CPU: a table as text, a result file, and a plot beside it.

``python -m asv_bench.comparison.run --out results/compare-cpu.json [--only NAME] [--peer NAME]``
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asv_bench import comparison, environment
from asv_bench.comparison.measure import WORKS, compared
from asv_bench.comparison.peers import versions
from asv_bench.report.tables import comparison_table

for _, name, _ in pkgutil.iter_modules(comparison.__path__, f"{comparison.__name__}."):
    if name != __name__:
        importlib.import_module(name)  # which enters what it compares


def rows_of(operation: str, dtype: str, device: str, peer: str = "") -> Iterator[dict[str, Any]]:
    """Rows of one operation as they are known: tamt, then its peers, or the one that is named."""
    work = WORKS[operation](device, dtype)
    if peer:
        kept = ({name: value for name, value in found.items() if name == peer} for found in (work.peers, work.others))
        work = dataclasses.replace(work, **dict(zip(("peers", "others"), kept, strict=True)))
        if not work.peers and not work.others:
            return
    head = {"operation": operation, "load": work.load, "dtype": dtype, "unit": work.unit, "limit": work.limit}
    for row in compared(work, device):
        yield head | row


def rows(only: str, peer: str = "") -> Iterator[dict[str, Any]]:
    """Of all operations; one that fails is a row that says so."""
    for operation in WORKS:
        for dtype in ("float32", "float64") if only in operation else ():
            print(f"{operation}, {dtype} ...", file=sys.stderr, flush=True)
            try:
                yield from rows_of(operation, dtype, "cpu", peer)
            except Exception as error:
                yield {"operation": operation, "dtype": dtype, "failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="result file, JSON; the table and the plot lie beside it"
    )
    parser.add_argument("--only", default="", help="part of an operation's name")
    parser.add_argument("--peer", default="", help="one peer's name, to measure it alone")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the peers
    result = environment.describe("cpu") | {"peers": versions(), "results": []}
    environment.write_all(result, rows(arguments.only, arguments.peer), arguments.out)
    text = comparison_table(result)
    print(text)
    arguments.out.with_suffix(".txt").write_text(text + "\n")
    from asv_bench.report.plots import plot_comparison

    plot_comparison(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
