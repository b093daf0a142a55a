"""Pictures of filters: responses, input/output curves, tuning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tamt.spl import STAPES_LEVEL

from ._drawing import (
    MOST_NAMED,
    as_array,
    as_numbers,
    colour_scale,
    draw_curves,
    erb_axis,
    expect_one_of,
    expect_range,
    expect_shape,
    expect_some,
    frequencies_of,
    heading,
    in_order,
    kilohertz,
    level_names,
    levels_of,
    line_colours,
    peaks_of,
    round_frequencies,
    set_title,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

# Units of the levels of tones and of what DRNL filters make of them: what is added to dB re 1 m/s, and the names.
_TONE_UNITS = {
    "dB SPL": (-STAPES_LEVEL, "dB SPL", "dB re stapes at 0 dB SPL"),
    "dB re 1 m/s": (0.0, "dB re 1 m/s", "dB re 1 m/s"),
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
        Frequencies in Hz, not negative, shape ``(K,)``.
    response : array_like, or a tuple or list of them
        Complex response or magnitude of each filter at them, shape ``(F, K)``; or several sets, ``(S, F, K)`` or a
        tuple as of ``DRNLFilterbank.path_responses``, which are drawn one below the other, to one scale. Of one filter
        with a number ``fc`` also ``(K,)``.
    fc : array_like or float
        Centre frequencies in Hz, shape ``(F,)``, which the colours follow. Of filters that have learnt
        ``design()["fc"]`` has those that they have now.
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
        Arrays whose shapes do not fit together, frequencies that are negative or not finite, another number of names
        than of sets, a range that is not positive, a response in which every value is NaN or infinite.

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
    from matplotlib.figure import Figure

    hertz, one = frequencies_of("frequencies", frequencies), np.ndim(as_array(fc)) == 0
    centres = frequencies_of("fc", np.atleast_1d(as_array(fc)))
    sets = [gain[None] if one and gain.ndim == 1 else gain for gain in _sets(response)]
    for gain in sets:
        expect_shape("response", gain, (len(centres), len(hertz)))
    if names is not None and len(names) != len(sets):
        raise ValueError(f"names has {len(names)} entries, but the sets of responses are {len(sets)}")
    if names is None and len(sets) > 1:
        names = [f"set {number + 1}" for number in range(len(sets))]
    with np.errstate(divide="ignore"):
        levels = [20 * np.log10(np.abs(gain).astype(np.float64)) for gain in sets]
    expect_some("response", np.concatenate(levels))
    _, hertz, *levels = in_order(centres, hertz, *levels)
    low, high = _decibel_limits(np.concatenate(levels), dynamic_range)
    with styled():
        figure = Figure(figsize=(9, 0.6 + 3.6 * len(sets)), dpi=150, layout="constrained")
        panels = figure.subplots(len(sets), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for row, (axes, level) in enumerate(zip(panels, levels, strict=True)):
            draw_curves(axes, hertz, level, low)
            erb_axis(axes, "x", hertz[0], hertz[-1])
            axes.set(ylim=(low, high), ylabel="Gain (dB)")
            axes.label_outer()
            if names is not None:
                axes.set_title(heading(names[row], 7.9))
        set_title(figure, title)
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
        Input levels in dB re 1 m/s, two or more, not above 0, shape ``(L,)``. ``tamt.spl.STAPES_LEVEL`` is what takes
        dB SPL there.
    output : array_like
        Output levels of each filter in dB re 1 m/s, shape ``(F, L)``, as ``DRNLFilterbank.io_function`` gives them.
        Of one filter with a number ``fc`` also ``(L,)``. What is not finite is left out.
    fc : array_like or float
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
        Fewer than two different levels, levels that are not finite or above 0 dB re 1 m/s, an output of another shape
        or without a finite value, an unknown ``unit``.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> bank = tamt.DRNLFilterbank([500.0, 4000.0], fs=44100)
    >>> levels = torch.arange(0.0, 121.0, 5.0) + tamt.spl.STAPES_LEVEL  # from 0 to 120 dB SPL
    >>> figure = tamt.plot.io_functions(levels, bank.io_function(levels), bank.fc)
    >>> figure.savefig("io.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    given, curves = _tone_levels(levels), as_numbers(output)
    if np.ndim(as_array(fc)) == 0 and curves.ndim == 1:
        curves = curves[None]
    centres = frequencies_of("fc", np.atleast_1d(as_array(fc)))
    expect_shape("output", curves, (len(centres), len(given)))
    centres, given, curves = in_order(centres, given, curves)
    if not (len(given) > 1 and (np.diff(given) > 0).all()):
        raise ValueError("levels has to hold at least two levels, each once")
    curves = np.where(np.isfinite(curves), curves, np.nan)
    if np.isnan(curves).all():
        raise ValueError("output has nothing to draw: no value is finite; at silence a filter has no level")
    offset, of_tones, of_output = _unit(unit)
    given, curves = given + offset, curves + offset
    with styled():
        figure = Figure(figsize=(6.5, 5.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        colours = line_colours(len(centres))
        for centre, curve, colour in zip(centres, curves, colours, strict=True):
            there = np.isfinite(curve)
            name = f"{centre:.0f} Hz" if centre >= 100 else f"{centre:.3g} Hz"
            if there.sum() > 1:
                name += f", least slope {np.gradient(curve[there], given[there]).min():.2f}"
            axes.plot(given, curve, color=colour, linewidth=1.6, label=name, marker="o" if there.sum() == 1 else None)
        # Without the rounding of float32, which would show in labels.
        axes.set(xlim=np.round(given[[0, -1]], 3), aspect="equal")
        axes.set(xlabel=f"Input level ({of_tones})", ylabel=f"Output level ({of_output})")
        low, high = axes.get_ylim()
        for start in np.arange(20 * np.floor((low - given[-1]) / 20), high - given[0], 20):
            reference = axes.axline((0, start), slope=1, color="#c9ccd2", linewidth=0.7, zorder=0)
        reference.set_label("slope 1")
        axes.set_ylim(low, high)
        if len(centres) > MOST_NAMED:
            _name_filters(axes, centres)
            # What stands beside axes of equal scales is laid out for their size before they are made to fit.
            figure.set_layout_engine("constrained", w_pad=0.18)
        else:
            axes.legend(loc="upper left", edgecolor="none", framealpha=0.9)
        set_title(figure, title)
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
        Input levels in dB re 1 m/s, not above 0, shape ``(L,)``. ``tamt.spl.STAPES_LEVEL`` is what takes dB SPL there.
        The colours follow them.
    frequencies : array_like
        Frequencies of the tones in Hz, not negative, shape ``(K,)``.
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
        Arrays whose shapes do not fit together, levels that are not finite or above 0 dB re 1 m/s, frequencies that are
        negative or not finite, an unknown ``quantity`` or ``unit``, a range that is not positive, an output in which
        every value is NaN or infinite.

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
    from matplotlib.figure import Figure

    given, hertz = _tone_levels(levels), frequencies_of("frequencies", frequencies)
    curves, centre = as_numbers(output), as_numbers(fc)
    expect_shape("fc", centre, ())
    expect_shape("output", curves, (len(given), len(hertz)))
    expect_one_of("quantity", quantity, ("gain", "output"))
    offset, of_tones, of_output = _unit(unit)
    expect_some("output", curves)
    given, hertz, curves = in_order(given, hertz, curves)
    curves = curves - given[:, None] if quantity == "gain" else curves + offset
    low, high = _decibel_limits(curves, dynamic_range)
    with styled():
        figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        lines = draw_curves(axes, hertz, curves, low, linewidth=1.6)
        for line, curve, level in zip(lines, curves, level_names(given + offset), strict=True):
            line.set_label(f"{level} {of_tones}")
            if np.isfinite(curve).any():
                best = int(np.where(np.isfinite(curve), curve, -np.inf).argmax())
                axes.plot(hertz[best], curve[best], "o", color=line.get_color(), markersize=4)
        axes.axvline(centre.item(), color="#8a8f98", linewidth=0.8, linestyle=":", zorder=0)
        erb_axis(axes, "x", hertz[0], hertz[-1])
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
        set_title(figure, title)
    return figure


def _name_filters(axes: Axes, fc: NDArray) -> None:
    """A scale of the colours of filters in the order of their frequencies, with round ones that do not touch."""
    rows: list[float] = []
    names: list[str] = []
    for hertz in reversed(round_frequencies(fc[0], fc[-1])):
        row = float(np.interp(hertz, fc, np.arange(len(fc))))
        if not rows or rows[-1] - row > (len(fc) - 1) / 16:
            rows.append(row)
            names.append(kilohertz(hertz))
    colour_scale(axes, len(fc), np.array(rows), names, "Frequency of filter and tone (Hz)")


def _decibel_limits(levels: NDArray, dynamic_range: float) -> tuple[float, float]:
    """Ends of an axis for curves (N, K) in dB: a range below the lowest peak that counts, and above the highest."""
    expect_range(dynamic_range)
    peaks = peaks_of(levels)
    top = peaks.max() if len(peaks) else 0.0
    lowest = max(peaks.min(initial=top), top - dynamic_range)
    return lowest - dynamic_range, top + dynamic_range / 12


def _tone_levels(levels: ArrayLike) -> NDArray:
    """Levels (L,) of tones in dB re 1 m/s, or a ValueError where they must be something else."""
    given = levels_of("levels", levels)
    if (given > 0).any():
        raise ValueError(
            f"levels must be in dB re 1 m/s, at most 0, got {given.max():g}; levels in dB SPL become that by "
            f"+ tamt.spl.STAPES_LEVEL, {STAPES_LEVEL:.1f} dB, for io_function and tone_responses as well"
        )
    return given


def _sets(response: Any) -> list[NDArray]:
    """Arrays (F, K) of one or several sets of responses."""
    if not isinstance(response, (tuple, list)):
        array = as_array(response)
        return list(array) if array.ndim > 2 else [array]
    arrays = [as_array(one) for one in response]
    return arrays if arrays and arrays[0].ndim > 1 else [np.asarray(arrays)]


def _unit(unit: str) -> tuple[float, str, str]:
    """What is added to dB re 1 m/s, and the names of the units of tones and of output."""
    expect_one_of("unit", unit, tuple(_TONE_UNITS))
    return _TONE_UNITS[unit]
