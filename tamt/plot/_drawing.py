"""What the pictures share: style, axes, colours, texts, checks."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tamt.scales import erb2fc, erbrate2f, f2erbrate, fc2erb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
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
TITLE_LEFT = 0.1  # inches from the edge of a figure
MOST_NAMED = 10  # curves that are named one by one; of more a scale of colours says which is which
# Fonts that have what DejaVu Sans lacks, of the usual systems: those that are there stand behind the settings' own.
OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
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


def styled() -> AbstractContextManager[None]:
    """The pictures' style for a while."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    families = [*matplotlib.rcParams["font.family"], *(name for name in OTHER_SCRIPTS if name in there)]
    return matplotlib.rc_context(STYLE | {"font.family": families})


def draw_image(axes: Axes, edges: NDArray, borders: NDArray, values: NDArray, limits: tuple[float, float]) -> QuadMesh:
    """Draw values (F, N) over time and frequency, coloured between two limits."""
    values = np.where(values == np.inf, np.nan, values)  # left out, as NaN is
    image = axes.pcolormesh(edges, borders, values, cmap="magma", vmin=limits[0], vmax=limits[1], rasterized=True)
    erb_axis(axes, "y", borders[0], borders[-1])
    return image


def draw_curves(axes: Axes, x: NDArray, levels: NDArray, low: float, linewidth: float = 1.1) -> list[Line2D]:
    """Draw curves (N, K) in dB over a grid; what is far below the end of the axis goes there straight."""
    colours = line_colours(len(levels))
    dot = "o" if len(x) == 1 else None  # no line
    lines = [
        axes.plot(x, np.maximum(curve, low - 100), color=colour, linewidth=linewidth, marker=dot, markersize=4)[0]
        for curve, colour in zip(levels, colours, strict=True)
    ]
    add_grid(axes)
    return lines


def add_grid(axes: Axes, which: Literal["both", "x"] = "both") -> None:
    """Lines below what is drawn."""
    axes.grid(axis=which, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def line_colours(count: int) -> NDArray:
    """Colours for lines in their order. The end of the colormap is left out: its yellow is hard to see on white."""
    import matplotlib

    return matplotlib.colormaps["plasma"](np.linspace(0.0, 0.85, count))


def colour_bar(figure: Figure, mappable: ScalarMappable, panels: NDArray | list[Axes], label: str) -> None:
    """The scale of an image's or dots' colours, to the right of panels."""
    rows = len(panels)
    bar = figure.colorbar(mappable, ax=panels, label=label, pad=0.012, aspect=24 * rows)
    bar.outline.set_visible(False)


def colour_scale(axes: Axes, count: int, rows: NDArray, names: list[str], label: str) -> None:
    """A scale of the colours of lines beside them, in their order, with names at some rows."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ScalarMappable(Normalize(-0.5, count - 0.5), ListedColormap(line_colours(count)))
    beside = axes.inset_axes((1.03, 0.0, 0.035, 1.0))  # as high as the axes, whatever becomes of them
    bar = axes.figure.colorbar(colours, cax=beside, label=label)
    bar.set_ticks(rows.tolist(), labels=names)
    bar.minorticks_off()
    bar.outline.set_visible(False)


def set_title(figure: Figure, title: str | None) -> None:
    """Write a title from the left edge of a figure on, in as many lines as it takes."""
    if title:
        width = figure.get_figwidth()
        text = heading(title, 0.94 * width - TITLE_LEFT)  # hinted letters are up to 4 % wider
        figure.suptitle(text, x=TITLE_LEFT / width, ha="left", fontsize=TITLE_SIZE)


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
    """Give an axis in Hz equal distances per ERB, and labels at round frequencies or numbers of Cam.

    Around a single frequency it is one ERB wide.
    """
    if not low < high:
        low, high = erb_edges(np.array([low]))
    if scale == "Hz":
        name, ticks = "Frequency (Hz)", round_frequencies(low, high)
        labels = [kilohertz(hertz) for hertz in ticks]
    else:
        least, most = f2erbrate(float(low)), f2erbrate(float(high))
        cams = [float(cam) for cam in 5 * np.arange(np.ceil(least / 5), np.floor(most / 5) + 1)]
        cams = cams if len(cams) >= FEWEST_TICKS else even_ticks(least, most)
        name, ticks, labels = "ERB-number (Cam)", [erbrate2f(cam) for cam in cams], [f"{cam:g}" for cam in cams]
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
    for candidates in TICKS_HZ:
        # Below 20 Hz an ERB is so many Hz that labels would touch.
        ticks = [float(hertz) for hertz in candidates if low <= hertz <= high and (hertz >= 20 or high < 100)]
        if len(ticks) >= FEWEST_TICKS:
            return ticks
    return even_ticks(low, high)


def even_ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    ticks = [float(value) for value in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return [value for value in ticks if low <= value <= high]


def kilohertz(hertz: float) -> str:
    return f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}"


def level_names(levels: NDArray) -> list[str]:
    """Levels in dB to a tenth, or as many digits as tell them apart."""
    exact = len(np.unique(np.round(levels, 3)))
    rounded = (np.round(levels, digits) + 0.0 for digits in (1, 2, 3))  # no -0
    return [f"{level:g}" for level in next(names for names in rounded if len(np.unique(names)) == exact)]


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
    """An array of a tensor or of anything that numpy takes; of half types, which numpy may not have, in float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    tensor = values.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    elif tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    return tensor.resolve_conj().resolve_neg().numpy()


def as_numbers(values: ArrayLike) -> NDArray[np.float64]:
    """:func:`as_array` in double precision."""
    return np.asarray(as_array(values), dtype=np.float64)


def in_order(rows: NDArray, columns: NDArray, *tables: NDArray) -> tuple[NDArray, ...]:
    """Rows (N,) and columns (K,) of tables (N, K) in rising order, and the tables in theirs."""
    across, along = (values.argsort(kind="stable") for values in (rows, columns))
    return rows[across], columns[along], *(table[across][:, along] for table in tables)


def frequencies_of(name: str, values: ArrayLike) -> NDArray:
    """Frequencies (K,) of an axis, or a ValueError where they are none."""
    hertz = as_numbers(values)
    expect_shape(name, hertz, (hertz.size,))
    wrong = hertz[~(np.isfinite(hertz) & (hertz >= 0))]
    if len(wrong):
        raise ValueError(f"{name} must hold frequencies in Hz, finite and not negative, got {wrong[0]:g}")
    if len(hertz) == 0:
        raise ValueError(f"{name} must hold at least one frequency")
    return hertz


def times_of(name: str, values: ArrayLike) -> NDArray:
    """Times (M,) of frames, or a ValueError where they do not rise."""
    seconds = as_numbers(values)
    expect_shape(name, seconds, (seconds.size,))
    if not (np.isfinite(seconds).all() and (np.diff(seconds) >= 0).all()):
        raise ValueError(f"{name} must hold finite times in seconds in rising order")
    return seconds


def levels_of(name: str, values: ArrayLike) -> NDArray:
    """Levels (L,) in dB of what goes in, or a ValueError where there is none."""
    given = as_numbers(values)
    expect_shape(name, given, (given.size,))
    if not np.isfinite(given).all():
        raise ValueError(f"{name} has to be finite; silence has no level")
    return given


def panels_of(name: str, values: ArrayLike) -> NDArray:
    """Values of channels (C, ., .), also of one without that dimension."""
    array = as_numbers(values)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} has the shape {array.shape}, but has to have 2 dimensions, or 3 for several channels")
    return array[None] if array.ndim == 2 else array


def expect_some(name: str, values: NDArray) -> None:
    """A ValueError where there are values, and all are NaN or infinite. Silence, -inf in dB, is one to draw."""
    if values.size and not (np.isfinite(values) | (values == -np.inf)).any():
        raise ValueError(f"{name} has nothing to draw: every value is NaN or infinite")


def expect_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, but has to have {shape}")


def expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def expect_range(decibels: float) -> None:
    if not 0 < decibels < math.inf:
        raise ValueError(f"dynamic_range must be a positive number of dB, got {decibels}")
