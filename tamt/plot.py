r"""Pictures of filterbanks and of what they make of a sound.

Needs matplotlib (``pip install 'tamt[plot]'``). Every function returns a :class:`matplotlib.figure.Figure` of its own,
drawn without pyplot: nothing has to be closed, and no display is needed. Titles and labels are shown as they are: ``$``
is a dollar sign, what the fonts lack is shown as an escape (``\u65e5``), and long titles are broken into lines.
Ranges follow what is finite in the data; NaN is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from .scales import erb2fc, erbrate2f, f2erbrate, fc2erb
from .spl import STAPES_LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "cochleagram",
    "components",
    "excitation_patterns",
    "filter_responses",
    "io_functions",
    "level_map",
    "loudness",
    "tuning_curves",
]

# Labels of an axis in Hz: of the first of these that has three or more of them in the range.
_TICKS_HZ = (
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000),
    tuple(round(step * decade) for decade in (10, 100, 1000, 10000) for step in (1, 1.5, 2, 3, 4, 5, 6, 8)),
)
_FEWEST_TICKS = 3
# Units of the levels of tones and of what DRNL filters make of them: what is added to dB re 1 m/s, and the names.
_TONE_UNITS = {
    "dB SPL": (-STAPES_LEVEL, "dB SPL", "dB re stapes at 0 dB SPL"),
    "dB re 1 m/s": (0.0, "dB re 1 m/s", "dB re 1 m/s"),
}
_MOST_NAMED = 10  # curves in a legend of one column
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
_INK = "#22252b"
_GRID = "#e3e5e8"
_WAVE = "#3b5b8c"
_TITLE_SIZE = 11
_COMPONENT_RANGE = (10.0, 15500.0)  # Hz, shown at least: all bins of Moore2016Spectrum
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": _INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    # A dollar sign in a title is one, and numbers at the axes have to do without mathematics as well.
    "axes.formatter.use_mathtext": False,
    "axes.titlelocation": "left",
    "axes.titlesize": _TITLE_SIZE,
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": _INK,
    "xtick.labelsize": 9,
    "ytick.color": _INK,
    "ytick.labelsize": 9,
}


def filter_responses(
    frequencies: ArrayLike,
    response: ArrayLike | Sequence[ArrayLike],
    fc: ArrayLike,
    title: str | None = None,
    dynamic_range: float = 60.0,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw the magnitude of every filter over frequency, on an axis of equal distances per ERB.

    Parameters
    ----------
    frequencies : array_like
        Frequencies in Hz, greater than 0, in rising order, shape ``(K,)``.
    response : array_like, or a tuple or list of them
        Complex response or magnitude of each filter at them, shape ``(F, K)``; or several sets, ``(S, F, K)`` or a
        tuple as of ``DRNLFilterbank.path_responses``, which are drawn one below the other, to one scale.
    fc : array_like
        Centre frequencies in Hz, shape ``(F,)``.
    title : str, optional
        Text above the picture.
    dynamic_range : float
        The axis ends this many dB below the peak of the weakest filter. Filters whose peaks are further than that below
        the strongest one do not count.
    names : sequence of str, optional
        What is written above each set; several sets are numbered if not given.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, another number of names than of sets, a range that is not positive.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank, f = tamt.GammatoneFilterbank((100, 7500), fs=16000), torch.logspace(1.8, 3.9, 300)
    >>> figure = tamt.plot.filter_responses(f, bank.frequency_response(f), bank.fc)
    >>> figure.savefig("filters.png")  # doctest: +SKIP

    Both paths of DRNL filters, of which the linear one amplifies:

    >>> bank = tamt.DRNLFilterbank([500.0, 1000.0, 2000.0, 4000.0], fs=44100)
    >>> figure = tamt.plot.filter_responses(f, bank.path_responses(f), bank.fc, names=["linear", "nonlinear"])
    """
    import matplotlib
    from matplotlib.figure import Figure

    hertz, count, sets = _array(frequencies), len(_array(fc)), _sets(response)
    for gain in sets:
        _expect_shape("response", gain, (count, len(hertz)))
    if names is not None and len(names) != len(sets):
        raise ValueError(f"names has {len(names)} entries, but the sets of responses are {len(sets)}")
    if names is None and len(sets) > 1:
        names = [f"set {number + 1}" for number in range(len(sets))]
    with np.errstate(divide="ignore"):
        levels = [20 * np.log10(np.abs(gain).astype(np.float64)) for gain in sets]
    low, high = _decibel_limits(np.concatenate(levels), dynamic_range)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.6 + 3.6 * len(sets)), dpi=150, layout="constrained")
        panels = figure.subplots(len(sets), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for row, (axes, level) in enumerate(zip(panels, levels, strict=True)):
            _draw_curves(axes, hertz, level, low)
            _erb_axis(axes, "x", hertz[0], hertz[-1])
            axes.set(ylim=(low, high), ylabel="Gain (dB)")
            axes.label_outer()
            if names is not None:
                axes.set_title(_heading(names[row], 8.1))
        if title and names is None:
            panels[0].set_title(_heading(title, 8.1))
        elif title:
            figure.suptitle(_heading(title, 8.7), x=0.012, ha="left", fontsize=_TITLE_SIZE)
    return figure


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
        Levels of the sounds in dB SPL, which are written at the peaks of the curves, where there is room for them,
        shape ``(L,)``.
    fc : array_like
        Centre frequencies in Hz in rising order, shape ``(N,)``.
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
        Arrays whose shapes do not fit together, an unknown ``scale``, a range that is not positive.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> pattern = tamt.Moore2016ExcitationPattern(spreading_limit_octaves=10)
    >>> levels = torch.arange(20.0, 101.0, 10.0)  # of a tone of 1 kHz, in dB SPL
    >>> excitation = pattern(torch.tensor([1000.0]), levels[:, None])
    >>> figure = tamt.plot.excitation_patterns(excitation, levels, pattern.fc_channels)
    >>> figure.savefig("excitation.png")  # doctest: +SKIP
    """
    import matplotlib
    from matplotlib.figure import Figure

    curves, given, centres = np.asarray(_array(excitation), dtype=np.float64), _array(levels), _array(fc)
    _expect_shape("levels", given, (given.size,))
    _expect_shape("excitation", curves, (len(given), len(centres)))
    _expect_one_of("scale", scale, ("Hz", "Cam"))
    peaks = _peaks(curves)
    top = peaks.max() if len(peaks) else 0.0
    if dynamic_range is None:
        low = min(0.0, peaks.min(initial=top) - _LEAST_PATTERN_DB)
    else:
        _expect_range(dynamic_range)
        low = top - dynamic_range
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        lines = _draw_curves(axes, centres, curves, low, linewidth=1.6)
        _erb_axis(axes, "x", centres[0], centres[-1], scale)
        axes.set(ylim=(low, top + 0.08 * (top - low)), ylabel=_drawable(label))
        if title:
            axes.set_title(_heading(title, 8.1))
        loudest = int(given.argmax()) if len(given) else 0
        names = [f"{level:g} dB SPL" if row == loudest else f"{level:g}" for row, level in enumerate(given)]
        _name_peaks(figure, axes, lines, names)
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
        Middle of each frame in seconds, shape ``(M,)``, as :meth:`~tamt.Cochleagram.times` gives it.
    fc : array_like
        Centre frequencies in Hz in rising order, shape ``(F,)``.
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
        What levels are relative to: an output of 1.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        An unknown ``detector`` or ``compression``, or arrays whose shapes do not fit together.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank = tamt.GammatoneFilterbank((100, 7500), fs=16000)
    >>> model = tamt.Cochleagram(bank, hop_length=160, compression="db")
    >>> frames = model(torch.randn(8000))
    >>> figure = tamt.plot.cochleagram(frames, model.times(frames.shape[-1]), bank.fc, compression="db")
    >>> figure.savefig("cochleagram.png")  # doctest: +SKIP
    """
    _expect_range(dynamic_range)
    scale = _Scale.of(detector, compression, floor, reference)
    mean, middles, centres = scale.mean(_array(frames).astype(np.float64)), _array(times), _array(fc)
    mean = mean[None] if mean.ndim == 2 else mean
    _expect_shape("frames", mean, (len(mean), len(centres), len(middles)))
    low, high = (np.atleast_2d(_array(edge)) for edge in waveform) if waveform is not None else (None, None)
    mean, middles, low, high = _thin(mean, middles, low, high)
    value = scale.value(mean)
    limits = scale.limits(_highest(value, least=-np.inf), dynamic_range)
    return _draw_levels(value, middles, centres, (low, high), title, limits, scale.label)


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
        Middle of each frame in seconds, shape ``(N,)``.
    fc : array_like
        Centre frequencies in Hz in rising order, shape ``(F,)``.
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
        Arrays whose shapes do not fit together.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> psd, freqs = tamt.MultiResolutionFFT(fs=32000)(torch.randn(1, 16000))
    >>> bands = tamt.ERBIntegration(fs=32000)
    >>> levels = bands(psd, freqs)[0]
    >>> figure = tamt.plot.level_map(levels, 0.032 * torch.arange(len(levels)), bands.fc_erb)
    >>> figure.savefig("levels.png")  # doctest: +SKIP
    """
    given, middles, centres = np.asarray(_array(levels), dtype=np.float64), _array(times), _array(fc)
    given = given[None] if given.ndim == 2 else given
    _expect_shape("levels", given, (len(given), len(middles), len(centres)))
    _expect_range(dynamic_range)
    power, middles, _, _ = _thin(10 ** (given.swapaxes(1, 2) / 10), middles, None, None)
    level = 10 * np.log10(np.maximum(power, 1e-24))
    top = _highest(level, least_top)
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
        Middle of each frame in seconds, shape ``(N,)``.
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
        Arrays whose shapes do not fit together.

    Examples
    --------
    >>> import math, torch, tamt, tamt.plot
    >>> tone = 1e-3 * torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 32000)
    >>> freqs, levels, _, _ = tamt.Moore2016Spectrum(segment_duration=10)(tone.expand(1, 2, -1))
    >>> times = 0.032 + 0.01 * torch.arange(freqs.shape[1])
    >>> figure = tamt.plot.components(freqs[0], levels[0], times)
    >>> figure.savefig("components.png")  # doctest: +SKIP
    """
    import matplotlib
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    hertz, level, middles = _array(freqs), _array(levels), _array(times)
    if hertz.ndim == 1 and hertz.shape == level.shape[-1:]:
        hertz = np.broadcast_to(hertz, level.shape)
    hertz, level = (array[None] if array.ndim == 2 else array for array in (hertz, level))
    count = len(hertz)
    _expect_shape("freqs", hertz, (count, len(middles), hertz.shape[-1]))
    _expect_shape("levels", level, hertz.shape)
    _expect_range(dynamic_range)
    there = (hertz > 0) & np.isfinite(level)
    power = 10 ** (np.where(there, level, -np.inf).astype(np.float64) / 10)
    power = power.sum((0, 2))
    loudest = np.flatnonzero(power == power.max(initial=0.0))[:1]  # empty where there are no frames
    drawn = slice(None, None, max(1, -(-len(middles) // most_frames)))
    top = _highest(level[there], _LEAST_TOP_SPL)
    lowest, highest = hertz[there].min(initial=_COMPONENT_RANGE[0]), hertz[there].max(initial=_COMPONENT_RANGE[1])
    colours: dict[str, Any] = {"cmap": _component_colours(), "norm": Normalize(top - dynamic_range, top)}
    with matplotlib.rc_context(_STYLE):
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
                over_time.axvline(second, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
            chosen = there[channel, loudest]
            height, pitch = level[channel, loudest][chosen], hertz[channel, loudest][chosen]
            frame.hlines(pitch, top - 1.1 * dynamic_range, height, color="#c9ccd2", linewidth=0.6, zorder=1)
            frame.scatter(height, pitch, c=height, s=9, linewidths=0, zorder=2, **colours)
            # Labels from 50 Hz on: one at 20 Hz would touch the next.
            _erb_axis(over_time, "y", 50, highest)
            over_time.set_ylim(lowest, highest)
            frame.grid(axis="x", color=_GRID, linewidth=0.7)
            frame.set_axisbelow(True)
            if count > 1:
                over_time.set_title(("left ear", "right ear")[channel] if count == 2 else f"channel {channel + 1}")
        edges = _edges(middles)
        over_time.set_xlabel("Time (s)")
        if len(middles):
            over_time.set_xlim(edges[0], edges[-1])
        when = "".join(f" at {second:.3f} s" for second in middles[loudest])
        frame.set(xlabel=f"Level{when}\n(dB SPL)", xlim=(top - 1.1 * dynamic_range, top + 5))
        bar = figure.colorbar(dots, ax=grid, label="Level (dB SPL)", pad=0.012, aspect=24 * count)
        bar.outline.set_visible(False)
        if title:
            figure.suptitle(_heading(title, 8.7), x=0.012, ha="left", fontsize=_TITLE_SIZE)
    return figure


def io_functions(
    levels: ArrayLike,
    output: ArrayLike,
    fc: ArrayLike,
    title: str | None = None,
    unit: Literal["dB SPL", "dB re 1 m/s"] = "dB SPL",
) -> Figure:
    """Draw the output level of filters over the level of the tones that go in, both to the same scale.

    The legend gives the least slope of each curve: 1 dB/dB is linear, and less is compression. Of more than ten filters
    a scale of colours says which is which. Grey lines have slope 1.

    Parameters
    ----------
    levels : array_like
        Input levels in dB re 1 m/s, at least two in rising order, shape ``(L,)``. ``tamt.spl.STAPES_LEVEL`` is what
        takes dB SPL there.
    output : array_like
        Output levels of each filter in dB re 1 m/s, shape ``(F, L)``, as ``DRNLFilterbank.io_function`` gives them.
    fc : array_like
        Frequencies of the filters in Hz, shape ``(F,)``.
    title : str, optional
        Text above the picture.
    unit : {'dB SPL', 'dB re 1 m/s'}
        What is written at the axes. ``'dB SPL'``: the levels of the tones in dB SPL, by the gain that the middle ear
        has at 1 kHz (:func:`~tamt.spl.stapes_velocity`), and the output in dB re what the stapes does at 0 dB SPL.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Fewer than two levels, levels that do not rise, an output of another shape or not finite, an unknown ``unit``.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank = tamt.DRNLFilterbank([500.0, 4000.0], fs=44100)
    >>> levels = torch.arange(0.0, 121.0, 5.0) + tamt.spl.STAPES_LEVEL  # from 0 to 120 dB SPL
    >>> figure = tamt.plot.io_functions(levels, bank.io_function(levels), bank.fc)
    >>> figure.savefig("io.png")  # doctest: +SKIP
    """
    import matplotlib
    from matplotlib.figure import Figure

    given, curves, centres = _array(levels), _array(output), _array(fc)
    _expect_shape("output", curves, (len(centres), len(given)))
    if not (len(given) > 1 and (np.diff(given) > 0).all()):
        raise ValueError("levels has to hold at least two levels in rising order")
    if not np.isfinite(curves).all():
        raise ValueError("output has to be finite; at silence a filter has no level")
    offset, of_tones, of_output = _unit(unit)
    given, curves = given.astype(np.float64) + offset, curves.astype(np.float64) + offset
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.5, 5.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        colours = _line_colours(len(centres))
        for centre, curve, colour in zip(centres, curves, colours, strict=True):
            slope = np.gradient(curve, given).min()
            axes.plot(given, curve, color=colour, linewidth=1.6, label=f"{centre:g} Hz, least slope {slope:.2f}")
        axes.set(xlim=_round_levels(given[[0, -1]]), aspect="equal")
        axes.set(xlabel=f"Input level ({of_tones})", ylabel=f"Output level ({of_output})")
        low, high = axes.get_ylim()
        for start in np.arange(20 * np.floor((low - given[-1]) / 20), high - given[0], 20):
            reference = axes.axline((0, start), slope=1, color="#c9ccd2", linewidth=0.7, zorder=0)
        reference.set_label("slope 1")
        axes.set_ylim(low, high)
        if len(centres) > _MOST_NAMED:
            _colour_scale(axes, centres)
        else:
            axes.legend(loc="upper left", edgecolor="none", framealpha=0.9)
        if title:
            axes.set_title(_heading(title, 5.7))
    return figure


def tuning_curves(
    levels: ArrayLike,
    frequencies: ArrayLike,
    output: ArrayLike,
    fc: float,
    title: str | None = None,
    quantity: Literal["gain", "output"] = "gain",
    unit: Literal["dB SPL", "dB re 1 m/s"] = "dB SPL",
    dynamic_range: float = 40.0,
) -> Figure:
    """Draw the response of one filter over the frequency of tones, a curve for each of their levels (iso-level curves).

    A dot is at the peak of each curve, a dotted line at the frequency of the filter.

    Parameters
    ----------
    levels : array_like
        Input levels in dB re 1 m/s, shape ``(L,)``. ``tamt.spl.STAPES_LEVEL`` is what takes dB SPL there.
    frequencies : array_like
        Frequencies of the tones in Hz, greater than 0, in rising order, shape ``(K,)``.
    output : array_like
        Output levels in dB re 1 m/s, shape ``(L, K)``, as ``DRNLFilterbank.tone_responses`` gives them for a number
        ``fc``.
    fc : float
        Frequency of the filter in Hz.
    title : str, optional
        Text above the picture.
    quantity : {'gain', 'output'}
        What is drawn: the output level less the level of the tone, or the output level itself.
    unit : {'dB SPL', 'dB re 1 m/s'}
        Unit of the levels of the tones, and of the output as for :func:`io_functions`.
    dynamic_range : float
        The axis ends this many dB below the lowest peak.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, levels that are not finite, an unknown ``quantity`` or ``unit``, a
        range that is not positive.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank = tamt.DRNLFilterbank([4000.0], fs=44100)
    >>> levels = torch.arange(0.0, 101.0, 20.0) + tamt.spl.STAPES_LEVEL  # from 0 to 100 dB SPL
    >>> f = torch.logspace(3.1, 3.9, 60)
    >>> output = bank.tone_responses(levels, f, fc=4000.0)
    >>> figure = tamt.plot.tuning_curves(levels, f, output, fc=4000.0)
    >>> figure.savefig("tuning.png")  # doctest: +SKIP
    """
    import matplotlib
    from matplotlib.figure import Figure

    given, hertz = np.asarray(_array(levels), dtype=np.float64), _array(frequencies)
    curves = np.asarray(_array(output), dtype=np.float64)
    _expect_shape("levels", given, (given.size,))
    _expect_shape("output", curves, (len(given), len(hertz)))
    _expect_one_of("quantity", quantity, ("gain", "output"))
    offset, of_tones, of_output = _unit(unit)
    if not np.isfinite(given).all():
        raise ValueError("levels has to be finite; at silence a filter has no level")
    curves = curves - given[:, None] if quantity == "gain" else curves + offset
    low, high = _decibel_limits(curves, dynamic_range)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        lines = _draw_curves(axes, hertz, curves, low, linewidth=1.6)
        for line, curve, level in zip(lines, curves, _round_levels(given + offset), strict=True):
            line.set_label(f"{level:g} {of_tones}")
            if np.isfinite(curve).any():
                best = int(np.where(np.isfinite(curve), curve, -np.inf).argmax())
                axes.plot(hertz[best], curve[best], "o", color=line.get_color(), markersize=4)
        axes.axvline(fc, color="#8a8f98", linewidth=0.8, linestyle=":", zorder=0)
        _erb_axis(axes, "x", hertz[0], hertz[-1])
        axes.set_xlabel("Frequency of the tone (Hz)")
        axes.set(ylim=(low, high), ylabel="Gain (dB)" if quantity == "gain" else f"Output level ({of_output})")
        # The order of the curves: gains fall with level where a filter compresses, outputs rise.
        order = lines if quantity == "gain" else lines[::-1]
        axes.legend(
            handles=order,
            title="Level of the tone",
            alignment="left",
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            ncols=1 + (len(lines) - 1) // 20,
        )
        if title:
            axes.set_title(_heading(title, 6.9))
    return figure


def loudness(
    short_term: ArrayLike,
    long_term: ArrayLike,
    times: ArrayLike,
    specific: ArrayLike | None = None,
    fc: ArrayLike | None = None,
    specific_times: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Draw loudness of a sound over time, and below it specific loudness, on an axis of equal distances per Cam.

    Of more frames than a picture can show neighbours are joined: the curves by the largest value, specific loudness by
    the average.

    Parameters
    ----------
    short_term, long_term : array_like
        Loudness in sone, shape ``(S,)``, as :class:`~tamt.Moore2016Loudness` and :class:`~tamt.Glasberg2002Loudness`
        give it.
    times : array_like
        Middle of each frame in seconds, shape ``(S,)``: ``model.times(S)``.
    specific : array_like, optional
        Specific loudness in sone/Cam, shape ``(S, N)``, or ``(E, S, N)`` for one or two ears, which are drawn one below
        the other. If not given, there are the curves alone.
    fc : array_like, optional
        With ``specific``: frequencies of its channels in Hz in rising order, shape ``(N,)``: ``model.specific.fc``.
    specific_times : array_like, optional
        Middle of each frame of ``specific``, where these are others than ``times``.
    title : str, optional
        Text above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Arrays whose shapes do not fit together, loudness of more than one sound, ``specific`` without ``fc``.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> model = tamt.Glasberg2002Loudness(hop=10)
    >>> result = model(0.02 * torch.randn(8000))
    >>> times = model.times(len(result.short_term))
    >>> figure = tamt.plot.loudness(result.short_term, result.long_term, times, result.specific, model.specific.fc)
    >>> figure.savefig("loudness.png")  # doctest: +SKIP
    """
    import matplotlib
    from matplotlib.figure import Figure

    if (specific is None) != (fc is None):
        raise ValueError("specific and fc, the frequencies of its channels, have to be given together")
    seconds, drawn = _array(times), {"short-term": _array(short_term), "long-term": _array(long_term)}
    for name, curve in zip(("short_term", "long_term"), drawn.values(), strict=True):
        if curve.ndim > 1:
            raise ValueError(f"{name} has the shape {curve.shape}, but has to have (S,): one sound, as {name}[0] is")
        _expect_shape(name, curve, seconds.shape)
    middles = seconds if specific_times is None else _array(specific_times)
    ears, image, centres = 0, np.zeros(0), np.zeros(0)
    if specific is not None and fc is not None:
        image, centres = np.asarray(_array(specific), dtype=np.float64), _array(fc)
        image = image[None] if image.ndim == 2 else image
        ears = min(len(image), 2)
        _expect_shape("specific", image, (ears, len(middles), len(centres)))
        image, middles, _, _ = _thin(image.swapaxes(1, 2), middles, None, None)
    _, seconds, _, heights = _thin(seconds, seconds, None, np.stack(list(drawn.values())))
    edges = _edges(middles if ears else seconds)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 2.6 + 3.2 * ears), dpi=150, layout="constrained")
        panels = figure.subplots(1 + ears, 1, sharex=True, height_ratios=[2.2, *[3.2] * ears], squeeze=False)[:, 0]
        over_time, images = panels[0], panels[1:]
        for name, height, colour in zip(drawn, heights, ("#9db4d6", _WAVE), strict=True):
            over_time.plot(seconds, height, color=colour, linewidth=1.3, label=name, marker="." * (len(seconds) == 1))
        over_time.set(ylim=(0.0, 1.08 * _highest(heights, 0.0) or 1.0), ylabel="Loudness (sone)")
        over_time.grid(color=_GRID, linewidth=0.7)
        over_time.set_axisbelow(True)
        over_time.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, frameon=False, ncols=2)
        for ear, axes in enumerate(images):
            mesh = _draw_image(axes, edges, _erb_edges(centres), image[ear], (0.0, _highest(image, 0.0) or 1.0))
            if ears > 1:
                _name_panel(axes, ("left ear", "right ear")[ear])
        panels[-1].set_xlabel("Time (s)")
        if len(edges) > 1:
            panels[-1].set_xlim(edges[0], edges[-1])
        if ears:
            bar = figure.colorbar(mesh, ax=images, label="Specific loudness (sone/Cam)", pad=0.012, aspect=24 * ears)
            bar.outline.set_visible(False)
        figure.align_ylabels()
        if title:
            figure.suptitle(_heading(title, 8.7), x=0.012, ha="left", fontsize=_TITLE_SIZE)
    return figure


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
    import matplotlib
    from matplotlib.figure import Figure

    (low, high), (bottom, top), count = waveform, limits, len(level)
    edges, borders = _edges(times), _erb_edges(fc)
    with matplotlib.rc_context(_STYLE):
        heights = [1.0, 3.6] if low is not None else [3.6]
        figure = Figure(figsize=(9, 0.5 + sum(heights) * count), dpi=150, layout="constrained")
        grid = figure.add_gridspec(len(heights) * count, 1, height_ratios=heights * count, hspace=0.02)
        panels: list[Axes] = []
        for channel in range(count):
            row = len(heights) * channel
            shared = panels[0] if panels else None
            axes = figure.add_subplot(grid[row + len(heights) - 1], sharex=shared)
            panels.append(axes)
            image = _draw_image(axes, edges, borders, level[channel], (bottom, top))
            axes.tick_params(labelbottom=channel == count - 1)
            if low is not None and high is not None:
                limit = 1.08 * max(_highest(-low, 0.0), _highest(high, 0.0)) or 1.0
                _draw_waveform(figure.add_subplot(grid[row], sharex=axes), edges, low[channel], high[channel], limit)
            if count > 1:
                _name_panel(axes, f"channel {channel + 1}")
        panels[-1].set_xlabel("Time (s)")
        bar = figure.colorbar(image, ax=panels, label=_drawable(label), pad=0.012, aspect=24 * count)
        bar.outline.set_visible(False)
        figure.align_ylabels()
        if title:
            figure.suptitle(_heading(title, 8.7), x=0.012, ha="left", fontsize=_TITLE_SIZE)
    return figure


def _draw_image(axes: Axes, edges: NDArray, borders: NDArray, values: NDArray, limits: tuple[float, float]) -> QuadMesh:
    """Draw values (F, N) over time and frequency, coloured between two limits."""
    image = axes.pcolormesh(edges, borders, values, cmap="magma", vmin=limits[0], vmax=limits[1], rasterized=True)
    _erb_axis(axes, "y", borders[0], borders[-1])
    return image


def _draw_curves(axes: Axes, x: NDArray, levels: NDArray, low: float, linewidth: float = 1.1) -> list[Line2D]:
    """Draw curves (N, K) in dB over a grid; what is far below the end of the axis goes there straight."""
    colours = _line_colours(len(levels))
    lines = [
        axes.plot(x, np.maximum(curve, low - 100), color=colour, linewidth=linewidth)[0]
        for curve, colour in zip(levels, colours, strict=True)
    ]
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return lines


def _line_colours(count: int) -> NDArray:
    """Colours for lines in their order. The end of the colormap is left out: its yellow is hard to see on white."""
    import matplotlib

    return matplotlib.colormaps["plasma"](np.linspace(0.0, 0.85, count))


def _colour_scale(axes: Axes, fc: NDArray) -> None:
    """A scale of the colours of lines, in the order of their frequencies."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ScalarMappable(Normalize(-0.5, len(fc) - 0.5), ListedColormap(_line_colours(len(fc))))
    beside = axes.inset_axes((1.03, 0.0, 0.035, 1.0))  # as high as the axes, whatever becomes of them
    bar = axes.figure.colorbar(colours, cax=beside, label="Frequency of filter and tone (Hz)")
    rows = np.unique(np.linspace(0, len(fc) - 1, 6).round().astype(int))
    bar.set_ticks(rows.tolist(), labels=[f"{fc[row]:.0f}" for row in rows])
    bar.outline.set_visible(False)


def _name_peaks(figure: Figure, axes: Axes, lines: list[Line2D], names: list[str]) -> None:
    """Write names above the peaks of lines, from the highest on; one that would lie on another is left out."""
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
    kept: list[Bbox] = []
    for _, text in sorted(written, key=lambda entry: -entry[0]):
        box = text.get_window_extent()
        if any(box.expanded(1.0, 3.0).overlaps(other) for other in kept):  # with room for the lines
            text.remove()
        else:
            kept.append(box)


def _name_panel(axes: Axes, name: str) -> None:
    """Write a name into the corner of an image."""
    box = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 3}
    axes.text(0.01, 0.96, name, transform=axes.transAxes, color="white", va="top", bbox=box)


def _heading(title: str, inches: float) -> str:
    """Break lines wider than that, in the size of titles, at a space if there is one: names may be long."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_TITLE_SIZE)

    def points(text: str) -> float:
        return text_to_path.get_text_width_height_descent(text, font, False)[0]

    lines = []
    for line in _drawable(title).split("\n"):
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


def _drawable(text: str) -> str:
    """Escape what no font in use can show; line ends stay."""
    unusual = {character for character in text if not " " <= character <= "~"} - {"\n"}
    if not unusual:
        return text
    there = _characters()
    lacking = {character for character in unusual if ord(character) not in there}
    return "".join(c.encode("unicode_escape").decode("ascii") if c in lacking else c for c in text)


def _characters() -> set[int]:
    """Code points that the fonts of the settings have."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    found: set[int] = set()
    for family in matplotlib.rcParams["font.family"]:
        found.update(get_font(findfont(FontProperties(family=[family]))).get_charmap())
    return found


def _component_colours() -> Colormap:
    """Colours for dots on white: their brightest, nearly white, is left out, and the loudest are the darkest."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.12, 1.0, 256)))


def _draw_waveform(axes: Axes, edges: NDArray, low: NDArray, high: NDArray, limit: float) -> None:
    axes.axhline(0, color=_WAVE, linewidth=0.7)
    if len(high):
        axes.stairs(high, edges, baseline=low, fill=True, color=_WAVE, linewidth=0.5)
    axes.set(ylim=(-limit, limit), ylabel="Amplitude")
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelbottom=False, bottom=False)
    axes.spines["bottom"].set_visible(False)


def _erb_axis(
    axes: Axes, which: Literal["x", "y"], low: float, high: float, scale: Literal["Hz", "Cam"] = "Hz"
) -> None:
    """Give an axis in Hz equal distances per ERB, and labels at round frequencies or numbers of Cam."""
    if scale == "Hz":
        name, ticks = "Frequency (Hz)", _round_frequencies(low, high)
        labels = [f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}" for hertz in ticks]
    else:
        cams = 5 * np.arange(np.ceil(f2erbrate(float(low)) / 5), np.floor(f2erbrate(float(high)) / 5) + 1)
        name, ticks, labels = "ERB-number (Cam)", [erbrate2f(cam) for cam in cams.tolist()], [f"{c:g}" for c in cams]
    set_scale, set_limits, set_name = (
        (axes.set_xscale, axes.set_xlim, axes.set_xlabel)
        if which == "x"
        else (axes.set_yscale, axes.set_ylim, axes.set_ylabel)
    )
    set_scale("function", functions=(_erb_of, _hertz_of))
    set_limits(low, high)
    set_name(name)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, labels)
    axis.set_ticks([], minor=True)


def _round_frequencies(low: float, high: float) -> list[float]:
    """Frequencies in Hz for the labels of an axis: the round ones, and in a narrow range those of a linear axis."""
    from matplotlib.ticker import MaxNLocator

    for candidates in _TICKS_HZ:
        # Below 20 Hz an ERB is so many Hz that labels would touch.
        ticks = [float(hertz) for hertz in candidates if low <= hertz <= high and (hertz >= 20 or high < 100)]
        if len(ticks) >= _FEWEST_TICKS:
            return ticks
    ticks = [float(hertz) for hertz in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return [hertz for hertz in ticks if low <= hertz <= high]


def _erb_of(hertz: NDArray) -> NDArray:
    return fc2erb(torch.from_numpy(np.array(hertz, dtype=np.float64))).numpy()


def _hertz_of(erb: NDArray) -> NDArray:
    return erb2fc(torch.from_numpy(np.array(erb, dtype=np.float64))).numpy()


def _edges(centres: NDArray) -> NDArray:
    """Borders of cells around given centres: half way between neighbours. No cell has one border."""
    if len(centres) == 0:
        return np.zeros(1)
    if len(centres) == 1:
        half = abs(centres[0]) or 0.5
        return centres[0] + np.array([-half, half])
    inner = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate(([2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]))


def _erb_edges(fc: NDArray) -> NDArray:
    erb = _erb_of(fc)
    edges = _edges(erb) if len(erb) > 1 else erb[0] + np.array([-0.5, 0.5])
    return _hertz_of(np.maximum(edges, 0.0))


def _thin(power: NDArray, times: NDArray, low: NDArray | None, high: NDArray | None, columns: int = 2000) -> tuple:
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


def _decibel_limits(levels: NDArray, dynamic_range: float) -> tuple[float, float]:
    """Ends of an axis for curves (N, K) in dB: a range below the lowest peak that counts, and above the highest."""
    _expect_range(dynamic_range)
    peaks = _peaks(levels)
    top = peaks.max() if len(peaks) else 0.0
    lowest = max(peaks.min(initial=top), top - dynamic_range)
    return lowest - dynamic_range, top + dynamic_range / 12


def _peaks(curves: NDArray) -> NDArray:
    """The highest values of those of the curves (N, K) that are finite anywhere."""
    peaks = np.where(np.isfinite(curves), curves, -np.inf).max(-1, initial=-np.inf)
    return peaks[peaks > -np.inf]


def _round_levels(levels: NDArray) -> NDArray:
    """Levels in dB without the rounding of float32, which would show in labels."""
    return np.round(levels.astype(np.float64), 3) + 0.0  # no -0


def _highest(values: NDArray, least: float) -> float:
    """The largest of the values that are finite, and at least that."""
    return values[np.isfinite(values)].max(initial=least)


def _sets(response: Any) -> list[NDArray]:
    """Arrays (F, K) of one or several sets of responses."""
    if not isinstance(response, (tuple, list)):
        array = _array(response)
        return list(array) if array.ndim > 2 else [array]
    arrays = [_array(one) for one in response]
    return arrays if arrays and arrays[0].ndim > 1 else [np.asarray(arrays)]


def _array(values: ArrayLike) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _expect_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, but has to have {shape}")


def _expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def _expect_range(decibels: float) -> None:
    if not 0 < decibels < math.inf:
        raise ValueError(f"dynamic_range must be a positive number of dB, got {decibels}")


def _unit(unit: str) -> tuple[float, str, str]:
    """What is added to dB re 1 m/s, and the names of the units of tones and of output."""
    _expect_one_of("unit", unit, tuple(_TONE_UNITS))
    return _TONE_UNITS[unit]
