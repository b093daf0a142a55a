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


def plot_growth(axes: dict[tuple[str, str], list[dict[str, Any]]], path: Path) -> None:
    """Time and peak memory over each axis, a line per module, all axes logarithmic."""
    names = list(dict.fromkeys(axis for _, axis in axes))
    figure, panels = plt.subplots(2, len(names), figsize=(4 * len(names), 7), layout="constrained", squeeze=False)
    modules = list(dict.fromkeys(module for module, _ in axes))
    for (module, axis), rows in axes.items():
        column = names.index(axis)
        style = {"color": f"C{modules.index(module)}", "marker": ".", "label": module}
        sizes = [row["size"] / rows[0]["size"] for row in rows]
        panels[0, column].loglog(sizes, [row["seconds"] * 1e3 for row in rows], **style)
        if all(row["peak_bytes"] is not None for row in rows):
            panels[1, column].loglog(sizes, [max(row["peak_bytes"], 1 << 16) / 2**20 for row in rows], **style)
    for column, axis in enumerate(names):
        for panel, label in zip(panels[:, column], ("time in ms", "peak memory in MiB"), strict=True):
            low, high = panel.get_ylim()
            panel.loglog([1, 1000], [low, 1000 * low], color="grey", linestyle=":", label="proportional")
            panel.set_ylim(low, high)
            panel.set_xlabel(f"{axis} over its smallest")
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label)
    panels[0, 0].legend(fontsize=6)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_single_precision(rows: list[dict[str, Any]], path: Path) -> None:
    """Error of float32 over centre frequency, a line per sampling rate, a panel per filterbank."""
    modules = list(dict.fromkeys(row["module"] for row in rows))
    figure, panels = plt.subplots(1, len(modules), figsize=(10, 4), layout="constrained", sharey=True, squeeze=False)
    for module, panel in zip(modules, panels[0], strict=True):
        for k, fs in enumerate(dict.fromkeys(row["fs"] for row in rows)):
            line = [(row["fc"], row["error"]) for row in rows if row["module"] == module and row["fs"] == fs]
            panel.loglog(*zip(*line, strict=True), color=f"C{k}", marker=".", label=f"{fs / 1000:g} kHz")
        panel.set_title(module, fontsize=10)
        panel.set_xlabel("centre frequency in Hz")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("largest error of float32 over the channel's peak")
    panels[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
