"""What the pictures share: style, axes, colours, texts, checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tamt.scales import erb2fc, erbrate2f, f2erbrate, fc2erb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.lines import Line2D
    from numpy.typing import ArrayLike, NDArray

# Labels of an axis in Hz: of the first of these that has three or more of them in the range.
TICKS_HZ = (
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000),
    tuple(round(step * decade) for decade in (10, 100, 1000, 10000) for step in (1, 1.5, 2, 3, 4, 5, 6, 8)),
)
FEWEST_TICKS = 3
INK = "#22252b"
GRID = "#e3e5e8"
WAVE = "#3b5b8c"
TITLE_SIZE = 11
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    # A dollar sign in a title is one, and numbers at the axes have to do without mathematics as well.
    "axes.formatter.use_mathtext": False,
    "axes.titlelocation": "left",
    "axes.titlesize": TITLE_SIZE,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}


def draw_image(axes: Axes, edges: NDArray, borders: NDArray, values: NDArray, limits: tuple[float, float]) -> QuadMesh:
    """Draw values (F, N) over time and frequency, coloured between two limits."""
    image = axes.pcolormesh(edges, borders, values, cmap="magma", vmin=limits[0], vmax=limits[1], rasterized=True)
    erb_axis(axes, "y", borders[0], borders[-1])
    return image


def draw_curves(axes: Axes, x: NDArray, levels: NDArray, low: float, linewidth: float = 1.1) -> list[Line2D]:
    """Draw curves (N, K) in dB over a grid; what is far below the end of the axis goes there straight."""
    colours = line_colours(len(levels))
    lines = [
        axes.plot(x, np.maximum(curve, low - 100), color=colour, linewidth=linewidth)[0]
        for curve, colour in zip(levels, colours, strict=True)
    ]
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return lines


def line_colours(count: int) -> NDArray:
    """Colours for lines in their order. The end of the colormap is left out: its yellow is hard to see on white."""
    import matplotlib

    return matplotlib.colormaps["plasma"](np.linspace(0.0, 0.85, count))


def name_panel(axes: Axes, name: str) -> None:
    """Write a name into the corner of an image."""
    box = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 3}
    axes.text(0.01, 0.96, name, transform=axes.transAxes, color="white", va="top", bbox=box)


def heading(title: str, inches: float) -> str:
    """Break lines wider than that, in the size of titles, at a space if there is one: names may be long."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TITLE_SIZE)

    def points(text: str) -> float:
        return text_to_path.get_text_width_height_descent(text, font, False)[0]

    lines = []
    for line in drawable(title).split("\n"):
        rest = line
        if points(line) > 72 * inches:
            width = {character: points(character) for character in set(line)}
            while (reach := np.cumsum([width[character] for character in rest]))[-1] > 72 * inches:
                fitting = max(1, int(np.searchsorted(reach, 72 * inches)))
                cut = rest.rfind(" ", 1, fitting) + 1 or fitting
                lines.append(rest[:cut])
                rest = rest[cut:]
        lines.append(rest)
    return "\n".join(lines)


def drawable(text: str) -> str:
    """Escape what no font in use can show; line ends stay."""
    unusual = {character for character in text if not " " <= character <= "~"} - {"\n"}
    if not unusual:
        return text
    there = characters()
    lacking = {character for character in unusual if ord(character) not in there}
    return "".join(c.encode("unicode_escape").decode("ascii") if c in lacking else c for c in text)


def characters() -> set[int]:
    """Code points that the fonts of the settings have."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    found: set[int] = set()
    for family in matplotlib.rcParams["font.family"]:
        found.update(get_font(findfont(FontProperties(family=[family]))).get_charmap())
    return found


def erb_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float, scale: Literal["Hz", "Cam"] = "Hz") -> None:
    """Give an axis in Hz equal distances per ERB, and labels at round frequencies or numbers of Cam."""
    if scale == "Hz":
        name, ticks = "Frequency (Hz)", round_frequencies(low, high)
        labels = [f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}" for hertz in ticks]
    else:
        cams = 5 * np.arange(np.ceil(f2erbrate(float(low)) / 5), np.floor(f2erbrate(float(high)) / 5) + 1)
        name, ticks, labels = "ERB-number (Cam)", [erbrate2f(cam) for cam in cams.tolist()], [f"{c:g}" for c in cams]
    set_scale, set_limits, set_name = (
        (axes.set_xscale, axes.set_xlim, axes.set_xlabel)
        if which == "x"
        else (axes.set_yscale, axes.set_ylim, axes.set_ylabel)
    )
    set_scale("function", functions=(erb_of, hertz_of))
    set_limits(low, high)
    set_name(name)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, labels)
    axis.set_ticks([], minor=True)


def round_frequencies(low: float, high: float) -> list[float]:
    """Frequencies in Hz for the labels of an axis: the round ones, and in a narrow range those of a linear axis."""
    from matplotlib.ticker import MaxNLocator

    for candidates in TICKS_HZ:
        # Below 20 Hz an ERB is so many Hz that labels would touch.
        ticks = [float(hertz) for hertz in candidates if low <= hertz <= high and (hertz >= 20 or high < 100)]
        if len(ticks) >= FEWEST_TICKS:
            return ticks
    ticks = [float(hertz) for hertz in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return [hertz for hertz in ticks if low <= hertz <= high]


def erb_of(hertz: NDArray) -> NDArray:
    return fc2erb(torch.from_numpy(np.array(hertz, dtype=np.float64))).numpy()


def hertz_of(erb: NDArray) -> NDArray:
    return erb2fc(torch.from_numpy(np.array(erb, dtype=np.float64))).numpy()


def edges_of(centres: NDArray) -> NDArray:
    """Borders of cells around given centres: half way between neighbours. No cell has one border."""
    if len(centres) == 0:
        return np.zeros(1)
    if len(centres) == 1:
        half = abs(centres[0]) or 0.5
        return centres[0] + np.array([-half, half])
    inner = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate(([2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]))


def erb_edges(fc: NDArray) -> NDArray:
    erb = erb_of(fc)
    edges = edges_of(erb) if len(erb) > 1 else erb[0] + np.array([-0.5, 0.5])
    return hertz_of(np.maximum(edges, 0.0))


def thinned(power: NDArray, times: NDArray, low: NDArray | None, high: NDArray | None, columns: int = 2000) -> tuple:
    """Join neighbouring frames until there are no more of them than a picture can show."""
    step = -(-len(times) // columns)
    if step <= 1:
        return power, times, low, high
    starts = np.arange(0, len(times), step)
    counts = np.diff(np.append(starts, len(times)))
    return (
        np.add.reduceat(power, starts, axis=-1) / counts,
        np.add.reduceat(times, starts) / counts,
        None if low is None else np.minimum.reduceat(low, starts, axis=-1),
        None if high is None else np.maximum.reduceat(high, starts, axis=-1),
    )


def peaks_of(curves: NDArray) -> NDArray:
    """The highest values of those of the curves (N, K) that are finite anywhere."""
    peaks = np.where(np.isfinite(curves), curves, -np.inf).max(-1, initial=-np.inf)
    return peaks[peaks > -np.inf]


def highest_of(values: NDArray, least: float) -> float:
    """The largest of the values that are finite, and at least that."""
    return values[np.isfinite(values)].max(initial=least)


def as_array(values: ArrayLike) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def expect_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, but has to have {shape}")


def expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def expect_range(decibels: float) -> None:
    if not 0 < decibels < math.inf:
        raise ValueError(f"dynamic_range must be a positive number of dB, got {decibels}")
