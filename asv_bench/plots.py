"""Pictures of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def plot_comparison(result: dict[str, Any], path: Path) -> None:
    """How many times longer each peer takes than tamt, a bar each, on a logarithmic axis."""
    timed = [row for row in result["results"] if "ratio" in row]
    if not timed:
        return
    colours = {"float32": "C0", "float64": "C1"}
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(timed)), layout="constrained")
    labels, before = [], None
    for k, row in enumerate(timed):
        axes.barh(k, row["ratio"] - 1, left=1, color=colours[row["dtype"]], height=0.8)
        axes.annotate(f" {row['ratio']:.3g}", (max(row["ratio"], 1), k), va="center", fontsize=7)
        work = row["operation"]
        labels.append(f"{work}: {row['contender']}" if work != before else row["contender"])
        before = work
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min(0.4, *(row["ratio"] for row in timed)), 2 * max(row["ratio"] for row in timed))
    axes.set_yticks(range(len(timed)), labels, fontsize=7)
    axes.set_ylim(len(timed) - 0.4, -0.6)
    axes.set_xlabel("time of the peer over that of tamt")
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    axes.legend(patches, list(colours), loc="lower right", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)
