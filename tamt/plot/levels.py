"""Pictures of levels: over time and frequency, and over frequency alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ._drawing import (
    INK,
    MOST_NAMED,
    WAVE,
    add_grid,
    as_array,
    as_numbers,
    colour_bar,
    colour_scale,
    draw_curves,
    draw_image,
    drawable,
    edges_of,
    erb_axis,
    erb_edges,
    expect_one_of,
    expect_range,
    expect_shape,
    expect_some,
    frequencies_of,
    highest_of,
    in_order,
    level_names,
    levels_of,
    name_panel,
    panels_of,
    peaks_of,
    set_title,
    styled,
    thinned,
    times_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox
    from numpy.typing import ArrayLike, NDArray

_SILENCE_DB = -240.0
# Per detector of a cochleagram what its level is called, and its mean.
_DETECTED = {
    "envelope": ("Envelope level", "mean of envelope²/2"),
    "power": ("Level", "mean square"),
    "halfwave": ("Level of the positive half", "mean of positive half"),
}
# Top of the scale for faint sounds in dB SPL. Silence, -26 dB SPL in the bands of ERBIntegration, has to look dark.
_LEAST_TOP_SPL = 40.0
# What has to be seen of an excitation pattern, in dB: down to 0 dB SPL, and this far below the peak.
_LEAST_PATTERN_DB = 10.0
_COMPONENT_RANGE = (10.0, 15500.0)  # Hz, shown at least: all bins of Moore2016Spectrum


def excitation_patterns(
    excitation: ArrayLike,
    levels: ArrayLike,
    fc: ArrayLike,
    title: str | None = None,
    dynamic_range: float | None = None,
    scale: Literal["Hz", "Cam"] = "Hz",
    label: str = "Excitation level (dB SPL)",
) -> Figure:
    """Draw excitation over frequency, a curve for each level of a sound, on an axis of equal distances per Cam.

    Parameters
    ----------
    excitation : array_like
        Excitation levels in dB, shape ``(L, N)``, as :class:`~tamt.Moore2016ExcitationPattern` and
        :class:`~tamt.ExcitationPattern` give them for sounds of L levels.
    levels : array_like
        Levels of the sounds in dB SPL, shape ``(L,)``, which the colours follow. Up to ten are written at the peaks of
        the curves, where there is room for them; of more a scale of colours says which is which.
    fc : array_like
        Centre frequencies in Hz, shape ``(N,)``.
    title : str, optional
        Text above the picture.
    dynamic_range : float, optional
        The axis ends this many dB below the highest excitation; if not given, at 0 dB SPL, or 10 dB below the peak of
        the faintest pattern if that is lower.
    scale : {'Hz', 'Cam'}
        What is written at the axis of frequency: Hz, or Cam, the ERB-number of :func:`~tamt.f2erbrate`.
    label : str
        Text at the axis of excitation.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, frequencies that are negative or not finite, levels that are not
        finite, an unknown ``scale``, a range that is not positive, excitation in which every value is NaN or infinite.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10)
    >>> levels = torch.arange(20.0, 101.0, 10.0)  # of a tone of 1 kHz, in dB SPL
    >>> excitation = pattern(torch.tensor([1000.0]), levels[:, None])
    >>> figure = tamt.plot.excitation_patterns(excitation, levels, pattern.fc_channels)
    >>> figure.savefig("excitation.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    given, centres = levels_of("levels", levels), frequencies_of("fc", fc)
    curves = as_numbers(excitation)
    expect_shape("excitation", curves, (len(given), len(centres)))
    expect_one_of("scale", scale, ("Hz", "Cam"))
    expect_some("excitation", curves)
    given, centres, curves = in_order(given, centres, curves)
    peaks = peaks_of(curves)
    top = peaks.max() if len(peaks) else 0.0
    if dynamic_range is None:
        low = min(0.0, peaks.min(initial=top) - _LEAST_PATTERN_DB)
    else:
        expect_range(dynamic_range)
        low = top - dynamic_range
    with styled():
        figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        lines = draw_curves(axes, centres, curves, low, linewidth=1.6)
        erb_axis(axes, "x", centres[0], centres[-1], scale)
        axes.set(ylim=(low, top + 0.08 * (top - low)), ylabel=drawable(label))
        set_title(figure, title)
        names = level_names(given)
        if len(names) > MOST_NAMED:
            rows = np.unique(np.linspace(0, len(names) - 1, 6).round().astype(int))
            colour_scale(axes, len(names), rows, [names[row] for row in rows], "Level of the sound (dB SPL)")
        else:
            _name_peaks(figure, axes, lines, [*names[:-1], *(f"{loudest} dB SPL" for loudest in names[-1:])])
    return figure


def cochleagram(
    frames: ArrayLike,
    times: ArrayLike,
    fc: ArrayLike,
    detector: str = "envelope",
    compression: str | float | None = None,
    floor: float = 1e-10,
    waveform: tuple[ArrayLike, ArrayLike] | None = None,
    title: str | None = None,
    dynamic_range: float = 60.0,
    reference: str = "full scale",
) -> Figure:
    """Draw a cochleagram over time, on an axis of equal distances per ERB, and the waveform above it.

    Means without compression are drawn as levels in dB, compressed ones as they are. Of more frames than a picture can
    show neighbours are joined: by the average of the means, whatever the compression.

    Parameters
    ----------
    frames : array_like
        What :class:`~tamt.Cochleagram` gives, shape ``(F, M)``, or ``(C, F, M)`` for a sound of C channels, which are
        drawn one below the other.
    times : array_like
        Middle of each frame in seconds in rising order, shape ``(M,)``, as :meth:`~tamt.Cochleagram.times` gives it.
    fc : array_like
        Centre frequencies in Hz, shape ``(F,)``. ``fc`` of a bank is the design's; gammatone filters that have learnt
        are where ``design()["fc"]`` says.
    detector, compression, floor
        Those of the cochleagram.
    waveform : tuple of array_like, optional
        Lowest and highest sample of the sound in each frame, both of shape ``(M,)`` or ``(C, M)``.
    title : str, optional
        Text above the picture.
    dynamic_range : float
        Levels further than this many dB below the highest one get the darkest colour. The colours of a power law, which
        has less to show of faint sounds, begin at silence instead.
    reference : str
        What levels are relative to, an output of 1: ``"full scale"`` where the bank filters samples of sound,
        ``"1 m/s"`` for DRNL filters, whose output is a velocity.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        An unknown ``detector`` or ``compression``, arrays whose shapes do not fit together, frequencies that are
        negative or not finite, times that do not rise, frames in which every value is NaN or infinite. Silence is
        drawn.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank = tamt.GammatoneFilterbank((100, 7500), fs=16000)
    >>> model = tamt.Cochleagram(bank, hop_length=160, compression="db")
    >>> frames = model(torch.randn(8000))
    >>> figure = tamt.plot.cochleagram(frames, model.times(frames.shape[-1]), bank.fc, compression="db")
    >>> figure.savefig("cochleagram.png")  # doctest: +SKIP

    Of DRNL filters, in dB re 1 m/s:

    >>> bank = tamt.DRNLFilterbank((250, 7000), fs=16000, n_channels=40)
    >>> model = tamt.Cochleagram(bank, hop_length=160, detector="power")
    >>> frames = model(tamt.spl.stapes_velocity(60.0) * torch.randn(8000))
    >>> figure = tamt.plot.cochleagram(frames, model.times(50), bank.fc, detector="power", reference="1 m/s")
    """
    expect_range(dynamic_range)
    scale = _Scale.of(detector, compression, floor, reference)
    given, middles, centres = panels_of("frames", frames), times_of("times", times), frequencies_of("fc", fc)
    expect_shape("frames", given, (len(given), len(centres), len(middles)))
    expect_some("frames", given)
    order = centres.argsort(kind="stable")
    mean, centres = scale.mean(given[:, order]), centres[order]
    low, high = (np.atleast_2d(as_array(edge)) for edge in waveform) if waveform is not None else (None, None)
    for edge in () if low is None or high is None else (low, high):
        expect_shape("waveform", edge, (len(given), len(middles)))
    mean, middles, low, high = thinned(mean, middles, low, high)
    value = scale.value(mean)
    limits = scale.limits(highest_of(value, least=-np.inf), dynamic_range)
    return _draw_levels(value, middles, centres, (low, high), title, limits, scale.label)


def level_map(
    levels: ArrayLike,
    times: ArrayLike,
    fc: ArrayLike,
    title: str | None = None,
    dynamic_range: float = 60.0,
    label: str = "Level (dB SPL)",
    least_top: float = _LEAST_TOP_SPL,
) -> Figure:
    """Draw levels in dB SPL per band over time, on an axis of equal distances per ERB.

    Parameters
    ----------
    levels : array_like
        Levels in dB SPL, shape ``(N, F)`` as ``ERBIntegration``, ``ExcitationPattern`` and
        ``Moore2016ExcitationPattern`` give them, or ``(C, N, F)`` for C channels, which are drawn one below the other.
    times : array_like
        Middle of each frame in seconds in rising order, shape ``(N,)``.
    fc : array_like
        Centre frequencies in Hz, shape ``(F,)``.
    title : str, optional
        Text above the picture.
    dynamic_range : float
        Levels further than this many dB below the highest one, or below ``least_top`` if that is higher, get the
        darkest colour.
    label : str
        Text at the scale of colours.
    least_top : float
        The brightest colour is for no less than this, 40 dB SPL if not given, so that faint sounds look faint.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, frequencies that are negative or not finite, times that do not rise,
        levels in which every value is NaN or infinite. Silence is drawn.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> psd, freqs = tamt.MultiResolutionFFT(fs=32000)(torch.randn(1, 16000))
    >>> bands = tamt.ERBIntegration(fs=32000)
    >>> levels = bands(psd, freqs)[0]
    >>> figure = tamt.plot.level_map(levels, 0.032 * torch.arange(len(levels)), bands.fc_erb)
    >>> figure.savefig("levels.png")  # doctest: +SKIP
    """
    given, middles, centres = panels_of("levels", levels), times_of("times", times), frequencies_of("fc", fc)
    expect_shape("levels", given, (len(given), len(middles), len(centres)))
    expect_range(dynamic_range)
    expect_some("levels", given)
    order = centres.argsort(kind="stable")
    given, centres = given[..., order], centres[order]
    power, middles, _, _ = thinned(10 ** (given.swapaxes(1, 2) / 10), middles, None, None)
    level = 10 * np.log10(np.maximum(power, 1e-24))
    top = highest_of(level, least_top)
    return _draw_levels(level, middles, centres, (None, None), title, (top - dynamic_range, top), label)


def components(
    freqs: ArrayLike,
    levels: ArrayLike,
    times: ArrayLike,
    title: str | None = None,
    dynamic_range: float = 60.0,
    most_frames: int = 1000,
) -> Figure:
    """Draw the components of a sparse spectrum over time, and beside them those of the loudest frame.

    Parameters
    ----------
    freqs, levels : array_like
        Frequencies in Hz and levels in dB SPL of each frame's components, shape ``(N, K)``, or ``(C, N, K)`` for C
        ears, which are drawn one below the other. Where a frequency is 0 or a level not finite there is no component.
        Frequencies of shape ``(K,)``, as ``Moore2016Spectrum.dense`` gives them, are those of all frames.
    times : array_like
        Middle of each frame in seconds in rising order, shape ``(N,)``.
    title : str, optional
        Text above the picture.
    dynamic_range : float
        Levels further than this many dB below the highest one, or below 40 dB SPL if that is higher, get the lightest
        colour.
    most_frames : int
        Of more frames than this, every second, third ... is drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, times that do not rise, levels in which every value is NaN or infinite.

    Examples
    --------
    >>> import math, torch, tamt, tamt.plot
    >>> tone = 1e-3 * torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 32000)
    >>> freqs, levels, _, _ = tamt.Moore2016Spectrum(segment_duration=10)(tone.expand(1, 2, -1))
    >>> times = 0.032 + 0.01 * torch.arange(freqs.shape[1])
    >>> figure = tamt.plot.components(freqs[0], levels[0], times)
    >>> figure.savefig("components.png")  # doctest: +SKIP
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    hertz, level, middles = as_array(freqs), panels_of("levels", levels), times_of("times", times)
    if hertz.ndim == 1 and hertz.shape == level.shape[-1:]:
        hertz = np.broadcast_to(hertz, level.shape)
    hertz = panels_of("freqs", hertz)
    count = len(hertz)
    expect_shape("freqs", hertz, (count, len(middles), hertz.shape[-1]))
    expect_shape("levels", level, hertz.shape)
    expect_range(dynamic_range)
    expect_some("levels", level)
    there = (hertz > 0) & np.isfinite(hertz) & np.isfinite(level)
    power = 10 ** (np.where(there, level, -np.inf) / 10)
    power = power.sum((0, 2))
    loudest = np.flatnonzero(power == power.max(initial=0.0))[:1]  # empty where there are no frames
    drawn = slice(None, None, max(1, -(-len(middles) // most_frames)))
    top = highest_of(level[there], _LEAST_TOP_SPL)
    lowest, highest = hertz[there].min(initial=_COMPONENT_RANGE[0]), hertz[there].max(initial=_COMPONENT_RANGE[1])
    colours: dict[str, Any] = {"cmap": _component_colours(), "norm": Normalize(top - dynamic_range, top)}
    with styled():
        figure = Figure(figsize=(9, 0.5 + 3.6 * count), dpi=150, layout="constrained")
        grid = figure.subplots(count, 2, sharex="col", sharey=True, squeeze=False, width_ratios=[3, 1])
        for channel, (over_time, frame) in enumerate(grid):
            chosen = there[channel, drawn]
            seconds = np.broadcast_to(middles[drawn, None], chosen.shape)[chosen]
            strength = level[channel, drawn][chosen]
            # The strongest last, on top of the others.
            order = strength.argsort()
            dots = over_time.scatter(
                seconds[order],
                hertz[channel, drawn][chosen][order],
                c=strength[order],
                s=3,
                linewidths=0,
                rasterized=True,
                **colours,
            )
            for second in middles[loudest]:
                over_time.axvline(second, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            chosen = there[channel, loudest]
            height, pitch = level[channel, loudest][chosen], hertz[channel, loudest][chosen]
            frame.hlines(pitch, top - 1.1 * dynamic_range, height, color="#c9ccd2", linewidth=0.6, zorder=1)
            frame.scatter(height, pitch, c=height, s=9, linewidths=0, zorder=2, **colours)
            # Labels from 50 Hz on: one at 20 Hz would touch the next.
            erb_axis(over_time, "y", 50, highest)
            over_time.set_ylim(lowest, highest)
            add_grid(frame, "x")
            if count > 1:
                over_time.set_title(("left ear", "right ear")[channel] if count == 2 else f"channel {channel + 1}")
        edges = edges_of(middles)
        over_time.set_xlabel("Time (s)")
        if len(middles):
            over_time.set_xlim(edges[0], edges[-1])
        when = "".join(f" at {second:.3f} s" for second in middles[loudest])
        frame.set(xlabel=f"Level{when}\n(dB SPL)", xlim=(top - 1.1 * dynamic_range, top + 5))
        colour_bar(figure, dots, grid, "Level (dB SPL)")
        set_title(figure, title)
    return figure


class _Scale(NamedTuple):
    """How means of a detector are drawn."""

    mean: Callable[[NDArray], NDArray]  # from what a cochleagram gives; with a power law the mean and the floor
    value: Callable[[NDArray], NDArray]  # drawn for a mean
    silence: float  # the least value
    span: float | None  # values per dB of the range that is drawn, or None for all from silence on
    label: str

    @classmethod
    def of(cls, detector: str, compression: str | float | None, floor: float, reference: str) -> _Scale:
        """The scale of a cochleagram."""
        if detector not in _DETECTED:
            raise ValueError(f"detector must be one of {tuple(_DETECTED)}, got {detector!r}")
        level, mean = _DETECTED[detector]
        factor = 20 if detector == "halfwave" else 10

        def decibels(values: NDArray) -> NDArray:
            return factor * np.log10(np.maximum(values, 10 ** (_SILENCE_DB / factor)))

        if compression is None:
            return cls(np.asarray, decibels, _SILENCE_DB, 1.0, f"{level} (dB re {reference})")
        if compression == "db":
            least = factor * math.log10(floor)
            return cls(lambda db: 10 ** (db / factor), decibels, least, 1.0, f"{level} (dB re {reference})")
        if compression == "log":
            return cls(np.exp, np.log, math.log(floor), math.log(10) / factor, f"ln({mean}), re {reference}")
        if isinstance(compression, str) or not 0 < compression < 1:
            raise ValueError(f"compression must be None, 'db', 'log' or a number in (0, 1), got {compression!r}")
        exponent = float(compression)
        label = f"({mean} + {floor:g})^{exponent:g}, re {reference}"
        return cls(lambda v: v ** (1 / exponent), lambda p: p**exponent, floor**exponent, None, label)

    def limits(self, top: float, dynamic_range: float) -> tuple[float, float]:
        """Values of the darkest and the brightest colour, where `top` is the largest."""
        silent = not top > self.silence + 1e-4 * abs(self.silence)
        if self.span is None:
            return self.silence, self.silence + 1 if silent else top
        # Digital silence has no level of its own; it is drawn dark, without compression on the scale of a full one.
        if silent and self.silence == _SILENCE_DB:
            return -dynamic_range, 0.0
        span = self.span * dynamic_range
        return (self.silence, self.silence + span) if silent else (max(self.silence, top - span), top)


def _draw_levels(
    level: NDArray,
    times: NDArray,
    fc: NDArray,
    waveform: tuple[NDArray | None, NDArray | None],
    title: str | None,
    limits: tuple[float, float],
    label: str,
) -> Figure:
    """Draw levels (C, F, N) in dB, coloured between two limits."""
    from matplotlib.figure import Figure

    (low, high), (bottom, top), count = waveform, limits, len(level)
    edges, borders = edges_of(times), erb_edges(fc)
    with styled():
        heights = [1.0, 3.6] if low is not None else [3.6]
        figure = Figure(figsize=(9, 0.5 + sum(heights) * count), dpi=150, layout="constrained")
        grid = figure.add_gridspec(len(heights) * count, 1, height_ratios=heights * count, hspace=0.02)
        panels: list[Axes] = []
        for channel in range(count):
            row = len(heights) * channel
            shared = panels[0] if panels else None
            axes = figure.add_subplot(grid[row + len(heights) - 1], sharex=shared)
            panels.append(axes)
            image = draw_image(axes, edges, borders, level[channel], (bottom, top))
            axes.tick_params(labelbottom=channel == count - 1)
            if low is not None and high is not None:
                limit = 1.08 * max(highest_of(-low, 0.0), highest_of(high, 0.0)) or 1.0
                _draw_waveform(figure.add_subplot(grid[row], sharex=axes), edges, low[channel], high[channel], limit)
            if count > 1:
                name_panel(axes, f"channel {channel + 1}")
        panels[-1].set_xlabel("Time (s)")
        colour_bar(figure, image, panels, drawable(label))
        figure.align_ylabels()
        set_title(figure, title)
    return figure


def _name_peaks(figure: Figure, axes: Axes, lines: list[Line2D], names: list[str]) -> None:
    """Write names above the peaks of lines, from the highest on; one that would lie on another is left out.

    At an end of the axis they stand beside the peak, not across the end.
    """
    written = []
    for line, name in zip(lines, names, strict=True):
        heights = np.asarray(line.get_ydata(), dtype=np.float64)
        heights = np.where(np.isfinite(heights), heights, -np.inf)
        best = int(heights.argmax())
        if heights[best] > axes.get_ylim()[0]:
            position = np.asarray(line.get_xdata())[best], heights[best]
            style: dict[str, Any] = {"color": line.get_color(), "fontsize": 9, "ha": "center", "va": "bottom"}
            style["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}
            text = axes.annotate(name, position, (0, 2), textcoords="offset points", **style)
            written.append((heights[best], text))
    if not written:
        return
    figure.draw_without_rendering()  # where they are
    inside = axes.get_window_extent()
    kept: list[Bbox] = []
    for _, text in sorted(written, key=lambda entry: -entry[0]):
        box = text.get_window_extent()
        if box.x0 < inside.x0 or box.x1 > inside.x1:
            text.set_horizontalalignment("left" if box.x0 < inside.x0 else "right")
            box = text.get_window_extent()
        if any(box.expanded(1.0, 3.0).overlaps(other) for other in kept):  # with room for the lines
            text.remove()
        else:
            kept.append(box)


def _component_colours() -> Colormap:
    """Colours for dots on white: their brightest, nearly white, is left out, and the loudest are the darkest."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.12, 1.0, 256)))


def _draw_waveform(axes: Axes, edges: NDArray, low: NDArray, high: NDArray, limit: float) -> None:
    axes.axhline(0, color=WAVE, linewidth=0.7)
    if len(high):
        axes.stairs(high, edges, baseline=low, fill=True, color=WAVE, linewidth=0.5)
    axes.set(ylim=(-limit, limit), ylabel="Amplitude")
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelbottom=False, bottom=False)
    axes.spines["bottom"].set_visible(False)
