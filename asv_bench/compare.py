"""Compare tamt with its peers on this machine: a table as text, a result file, and a plot beside it.

``PYTHONPATH=. python asv_bench/compare.py --out results/compare-cpu.json [--device cpu] [--only NAME]``
"""

from __future__ import annotations

import argparse
import sys
import warnings
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


def rows(device: str, only: str) -> list[dict[str, Any]]:
    found = []
    for operation, build in OPERATIONS.items():
        if only not in operation:
            continue
        for dtype in ("float32", "float64"):
            print(f"{operation}, {dtype} ...", file=sys.stderr, flush=True)
            work = build(device, dtype)
            head = {"operation": operation, "load": work.load, "dtype": dtype, "unit": work.unit, "limit": work.limit}
            found += [head | row for row in compared(work, device)]
    return found


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
    result = environment.describe(arguments.device) | {
        "peers": versions(),
        "results": rows(arguments.device, arguments.only),
    }
    text = comparison_table(result)
    print(text)
    environment.write(result, arguments.out)
    arguments.out.with_suffix(".txt").write_text(text + "\n")
    try:
        from asv_bench.plots import plot_comparison
    except ModuleNotFoundError as error:  # matplotlib is an extra, and not on every GPU machine
        print(f"no plot: {error.name} is not installed")
    else:
        plot_comparison(result, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
