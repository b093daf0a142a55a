"""Pictures of the gallery: every figure of a script and its thumbnail are saved twice, for light and dark pages."""

from __future__ import annotations

import colorsys
import weakref
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from docutils import nodes
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba, to_rgba_array
from matplotlib.figure import Figure, FigureBase
from matplotlib.text import Text
from sphinx_gallery.utils import scale_image

PAGE = 0x14 / 255, 0x18 / 255, 0x1E / 255  # background of dark pages in pydata-sphinx-theme
INK = 0.88
STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.dpi": 100,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 160,
}

_saved: weakref.WeakSet[Figure] = weakref.WeakSet()


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", dark_thumbnails, priority=900)  # after the gallery has run
    app.connect("doctree-read", both_thumbnails, priority=400)  # before Sphinx collects the images of a page
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def dark_thumbnails(app: Any) -> None:
    """Make thumbnails of the first dark figures, as the gallery does of the first light ones."""
    size = app.config.sphinx_gallery_conf["thumbnail_size"]
    for light in Path(app.srcdir, "gallery").glob("*/images/thumb/sphx_glr_*_thumb.png"):
        figure = light.parents[1] / light.name.replace("_thumb", "_001_dark")
        if figure.exists():
            scale_image(figure, light.with_stem(f"{light.stem}_dark"), *size)


def both_thumbnails(app: Any, tree: nodes.document) -> None:
    """Show each thumbnail that has a dark one on light pages only, and the dark one on dark pages."""
    for light in list(tree.findall(nodes.image)):
        uri = Path(light["uri"])
        dark = uri.with_stem(f"{uri.stem}_dark")
        if uri.match("thumb/*_thumb.png") and Path(app.env.relfn2path(dark.as_posix(), app.env.docname)[1]).exists():
            other = light.deepcopy()
            other["uri"] = dark.as_posix()
            light["classes"].append("only-light")
            other["classes"].append("only-dark")
            light.parent.insert(light.parent.index(light) + 1, other)


def reset(_: dict[str, Any], __: str) -> None:
    """What a script finds, whatever ran before it in this process."""
    plt.close("all")
    plt.rcdefaults()
    plt.rcParams.update(STYLE)
    torch.manual_seed(0)
    torch.set_num_threads(1)


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The figures that a block of a script leaves: those of pyplot, and one of :mod:`tamt.plot` called ``figure``."""
    figures = [plt.figure(number) for number in plt.get_fignums()]
    own = block_vars["example_globals"].get("figure")
    if isinstance(own, Figure) and own not in figures and own not in _saved:
        figures.append(own)
    _saved.update(figures)
    lines = []
    for figure, path in zip(figures, block_vars["image_path_iterator"], strict=False):
        light = Path(path)
        for mode, file in (("light", light), ("dark", light.with_stem(f"{light.stem}_dark"))):
            if mode == "dark":
                figure.set_layout_engine("none")  # what there is stays where it is
                darken(figure)
            figure.savefig(file, facecolor=PAGE if mode == "dark" else "white")
            lines += [
                f".. image:: /{file.relative_to(gallery_conf['src_dir']).as_posix()}",
                f"   :alt: {described(figure)}",
                f"   :class: sphx-glr-single-img only-{mode}",
                f"   :target: ../../_images/{file.name}",  # to be enlarged
                "",
            ]
    plt.close("all")
    return "\n".join(lines)


def described(figure: Figure) -> str:
    """What a figure shows, for who cannot see it: its label in a sentence, else the titles in it."""
    if label := str(figure.get_label()):
        return " ".join(label.split())
    titles = [figure.get_suptitle(), *(axes.get_title(loc) for axes in figure.axes for loc in ("left", "center"))]
    return "; ".join(" ".join(title.split()) for title in titles if title) or "figure"


def darken(figure: Figure) -> None:
    """Give a figure that has been drawn the colours of a dark page: black becomes white, and what is dark light."""
    # A box behind a text is not among what findobj finds.
    boxes = [text.get_bbox_patch() for text in figure.findobj(Text) if isinstance(text, Text)]
    for artist in [*figure.findobj(Artist), *(box for box in boxes if box is not None)]:
        if isinstance(artist, Axes | FigureBase):
            continue  # their colour is that of their patch, which is among the artists
        if isinstance(artist, Collection) and artist.get_array() is not None:
            continue  # its colours are data
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            get, put = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if get is None or put is None or (name == "color" and hasattr(artist, "get_facecolor")):
                continue
            value = get()
            if isinstance(value, str) and value in ("none", "auto"):
                continue
            if isinstance(artist, Collection):
                put([on_dark(colour) for colour in to_rgba_array(value)])
            elif to_rgba(value)[3] > 0:
                put(on_dark(to_rgba(value)))


def on_dark(colour: Any) -> tuple[float, float, float, float]:
    red, green, blue, alpha = colour
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.1:  # a grey
        return *(page + (1 - lightness) * (INK - page) for page in PAGE), alpha
    return *colorsys.hls_to_rgb(hue, max(lightness, 0.58), saturation), alpha
