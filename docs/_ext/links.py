"""The built pages: local links lead somewhere, nothing is loaded from another server, no initial became a list."""

from __future__ import annotations

import functools
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

# Of lists whose items have letters. Nobody writes them: "B. Moore" at the start of a line becomes item B.
LETTERED = {"upperalpha", "loweralpha", "upperroman", "lowerroman"}
LOADING = {"script": "src", "img": "src", "source": "src", "link": "href", "iframe": "src"}


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Page(HTMLParser):
    """What a page links to, what it loads, the names in it that can be linked to, and its lists by letters."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()
        self.lettered = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.names.update(name for name in (given.get("id"), given.get("name")) if name)
        self.lettered += tag == "ol" and not LETTERED.isdisjoint((given.get("class") or "").split())
        if tag in ("a", *LOADING) and (target := given.get(LOADING.get(tag, "href"))):
            self.links.add(target)
            if tag != "a" and given.get("rel") not in ("canonical", "author"):
                self.loaded.add(target)


def check(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    say, page = logging.getLogger(__name__), functools.cache(Page)
    pages = {path for path in Path(app.outdir).rglob("*.html") if "_static" not in path.parts}  # there are templates
    for path in sorted(pages):
        if page(path).lettered:
            say.warning(
                "%s has a list by letters: an initial at the start of a line is to be escaped, as in \\B. Moore",
                path.relative_to(app.outdir),
                type="links",
            )
        for link in sorted(page(path).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page(path).loaded and parts.scheme != "data":
                    say.warning("%s is loaded from another server by %s", link, path.name, type="links")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            name = unquote(parts.fragment)
            if not target.exists() or (name and target.suffix == ".html" and name not in page(target).names):
                say.warning("%s of %s leads nowhere", link, path.relative_to(app.outdir), type="links")
