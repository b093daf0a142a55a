"""The built pages: local links lead somewhere, nothing is loaded from another server, no initial became a list."""

from __future__ import annotations

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

LOADING = dict.fromkeys(("audio", "embed", "iframe", "img", "script", "source", "video"), "src")
LOADING |= {"link": "href", "object": "data"}
# Of lists whose items have letters. Nobody writes them: "B. Moore" at the start of a line becomes item B.
LETTERED = {"upperalpha", "loweralpha", "upperroman", "lowerroman"}
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?(https?:[^"')\s]+)""")


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Page(HTMLParser):
    """What a page links to, what it loads, the names in it that can be linked to, and its lists by letters."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = {"top"}
        self.lettered = 0
        text = path.read_text(encoding="utf-8")
        self.loaded: set[str] = set(IN_STYLES.findall(text))
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.names.update(given[name] for name in ("id", "name") if name in given)
        self.lettered += tag == "ol" and not LETTERED.isdisjoint(given.get("class", "").split())
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in LOADING and given.get("rel") not in ("canonical", "author"):
            one = [given[LOADING[tag]]] if LOADING[tag] in given else []
            self.loaded.update(one, (part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()))


def check(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.name not in ("html", "dirhtml"):
        return
    say, page, out = logging.getLogger(__name__), functools.cache(Page), Path(app.outdir)
    elsewhere = "%s is loaded from another server by %s"
    for path in sorted(out.rglob("*.css")):
        for link in IN_STYLES.findall(path.read_text(encoding="utf-8")):
            say.warning(elsewhere, link, path.name, type="links")
    for path in sorted(out.rglob("*.html")):
        if "_static" in path.relative_to(out).parts:
            continue  # there are templates
        if page(path).lettered:
            say.warning(
                "%s has a list by letters: an initial at the start of a line is to be escaped, as in \\B. Moore",
                path.relative_to(out),
                type="links",
            )
        for link in sorted(page(path).links | page(path).loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page(path).loaded and parts.scheme != "data":
                    say.warning(elsewhere, link, path.name, type="links")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            name = unquote(parts.fragment)
            if not target.exists() or (name and target.suffix == ".html" and name not in page(target).names):
                say.warning("%s of %s leads nowhere", link, path.relative_to(out), type="links")
