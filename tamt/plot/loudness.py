"""Pictures of loudness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._drawing import (
    WAVE,
    add_grid,
    as_array,
    as_numbers,
    colour_bar,
    draw_image,
    edges_of,
    erb_edges,
    expect_shape,
    expect_some,
    frequencies_of,
    highest_of,
    name_panel,
    set_title,
    styled,
    thinned,
    times_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


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
        Middle of each frame in seconds in rising order, shape ``(S,)``: ``model.times(S)``.
    specific : array_like, optional
        Specific loudness in sone/Cam, shape ``(S, N)``, or ``(E, S, N)`` for one or two ears, which are drawn one below
        the other. If not given, there are the curves alone.
    fc : array_like, optional
        With ``specific``: frequencies of its channels in Hz, shape ``(N,)``: ``model.specific.fc``.
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
        Arrays whose shapes do not fit together, loudness of more than one sound, ``specific`` without ``fc``,
        frequencies that are negative or not finite, times that do not rise, loudness or specific loudness in which
        every value is NaN or infinite.

    Examples
    --------
    >>> import torch, tamt, tamt.plot
    >>> model = tamt.Glasberg2002Loudness(hop=10)
    >>> result = model(0.02 * torch.randn(8000))
    >>> times = model.times(len(result.short_term))
    >>> figure = tamt.plot.loudness(result.short_term, result.long_term, times, result.specific, model.specific.fc)
    >>> figure.savefig("loudness.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    if (specific is None) != (fc is None):
        raise ValueError("specific and fc, the frequencies of its channels, have to be given together")
    seconds, drawn = times_of("times", times), {"short-term": as_array(short_term), "long-term": as_array(long_term)}
    for name, curve in zip(("short_term", "long_term"), drawn.values(), strict=True):
        if curve.ndim > 1:
            raise ValueError(f"{name} has the shape {curve.shape}, but has to have (S,): one sound, as {name}[0] is")
        expect_shape(name, curve, seconds.shape)
    curves = np.stack(list(drawn.values()))
    expect_some("loudness", curves)
    middles = seconds if specific_times is None else times_of("specific_times", specific_times)
    ears, image, centres = 0, np.zeros(0), np.zeros(0)
    if specific is not None and fc is not None:
        image, centres = as_numbers(specific), frequencies_of("fc", fc)
        image = image[None] if image.ndim == 2 else image
        ears = min(len(image), 2)
        expect_shape("specific", image, (ears, len(middles), len(centres)))
        expect_some("specific", image)
        order = centres.argsort(kind="stable")
        centres, image = centres[order], image[..., order]
        image, middles, _, _ = thinned(image.swapaxes(1, 2), middles, None, None)
    _, seconds, _, heights = thinned(seconds, seconds, None, curves)
    edges = edges_of(middles if ears else seconds)
    with styled():
        figure = Figure(figsize=(9, 2.6 + 3.2 * ears), dpi=150, layout="constrained")
        panels = figure.subplots(1 + ears, 1, sharex=True, height_ratios=[2.2, *[3.2] * ears], squeeze=False)[:, 0]
        over_time, images = panels[0], panels[1:]
        for name, height, colour in zip(drawn, heights, ("#9db4d6", WAVE), strict=True):
            over_time.plot(seconds, height, color=colour, linewidth=1.3, label=name, marker="." * (len(seconds) == 1))
        over_time.set(ylim=(0.0, 1.08 * highest_of(heights, 0.0) or 1.0), ylabel="Loudness (sone)")
        add_grid(over_time)
        over_time.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, frameon=False, ncols=2)
        for ear, axes in enumerate(images):
            mesh = draw_image(axes, edges, erb_edges(centres), image[ear], (0.0, highest_of(image, 0.0) or 1.0))
            if ears > 1:
                name_panel(axes, ("left ear", "right ear")[ear])
        panels[-1].set_xlabel("Time (s)")
        if len(edges) > 1:
            panels[-1].set_xlim(edges[0], edges[-1])
        if ears:
            colour_bar(figure, mesh, images, "Specific loudness (sone/Cam)")
        figure.align_ylabels()
        set_title(figure, title)
    return figure
