"""Compare tamt with its peers on this machine: a table as text, a result file, and a plot beside it.

``PYTHONPATH=. python asv_bench/compare.py --out results/compare-cpu.json [--device cpu] [--only NAME]``
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asv_bench import environment
from asv_bench.comparison import excitation, filters, spectra
from asv_bench.comparison.measure import compared
from asv_bench.comparison.peers import versions
from asv_bench.tables import comparison_table

OPERATIONS = {
    "gammatone": filters.gammatone,
    "gammatone, training": filters.gammatone_training,
    "gammatone, diffsptk's frequencies": filters.hohmann,
    "biquads": filters.biquads,
    "biquads, training": filters.biquads_training,
    "DRNL": filters.drnl,
    "DRNL by FFT": filters.fast_drnl,
    "PSD, one window": spectra.one_window,
    "multi-resolution PSD": spectra.multi_resolution,
    "components of Moore et al.": spectra.moore2016,
    "ERB bands": excitation.erb_integration,
    "excitation of Glasberg and Moore": excitation.glasberg2002,
    "excitation of Moore et al., grid": excitation.moore2016_grid,
    "excitation of Moore et al., any": excitation.moore2016_any,
}


def rows_of(operation: str, dtype: str, device: str) -> Iterator[dict[str, Any]]:
    """Rows of one operation as they are known: tamt, then its peers."""
    work = OPERATIONS[operation](device, dtype)
    head = {"operation": operation, "load": work.load, "dtype": dtype, "unit": work.unit, "limit": work.limit}
    for row in compared(work, device):
        yield head | row


def rows(device: str, only: str) -> Iterator[dict[str, Any]]:
    """Of all operations; one that fails is a row that says so."""
    for operation in OPERATIONS:
        for dtype in ("float32", "float64") if only in operation else ():
            print(f"{operation}, {dtype} ...", file=sys.stderr, flush=True)
            try:
                yield from rows_of(operation, dtype, device)
            except Exception as error:
                yield {"operation": operation, "dtype": dtype, "failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="result file, JSON; the table and the plot lie beside it"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", help="part of an operation's name")
    arguments = parser.parse_args()
    environment.require(parser, arguments.device)
    warnings.simplefilter("ignore")  # of the peers
    result = environment.describe(arguments.device) | {"peers": versions(), "results": []}
    environment.write_all(result, rows(arguments.device, arguments.only), arguments.out)
    text = comparison_table(result)
    print(text)
    arguments.out.with_suffix(".txt").write_text(text + "\n")
    try:
        from asv_bench.plots import plot_comparison
    except ModuleNotFoundError as error:  # matplotlib is an extra, and not on every GPU machine
        print(f"no plot: {error.name} is not installed")
    else:
        plot_comparison(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
