"""Links of the pages in Markdown that are written so that they read well where the site is not built, too.

A link to a script of ``examples/gallery`` leads to its page in the gallery. A public name of tamt in code, as
``Cochleagram`` or ``spl.calibrate(recording, 94)``, leads to its page in the reference where a section first has it. In
``coming_from``, where others have the same names, only those in later columns of tables do.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.util.nodes import make_refnode

SCRIPT = re.compile(r"\]\((?:\.\./)*examples/gallery/([\w/]+)\.py\)")
NAME = re.compile(r"(?:tamt\.)?(\w[\w.]*)(?:\(.*\))?", re.DOTALL)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", galleries)
    app.connect("doctree-resolved", names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def galleries(app: Any, page: str, source: list[str]) -> None:
    source[0] = SCRIPT.sub(r"](/gallery/\1.rst)", source[0])


def names(app: Any, tree: nodes.document, page: str) -> None:
    if not str(app.env.doc2path(page)).endswith(".md") or page.startswith("reference/"):
        return
    objects, seen = app.env.get_domain("py").objects, set()
    for node in list(tree.findall(lambda node: isinstance(node, nodes.section | nodes.literal))):
        if isinstance(node, nodes.section):
            seen = set()
            continue
        match = NAME.fullmatch(node.astext())
        found = match and next((name for name in (f"tamt.{match[1]}", f"tamt.spl.{match[1]}") if name in objects), None)
        if not found or found in seen or isinstance(node.parent, nodes.title | nodes.reference):
            continue
        if page.startswith("coming_from/") and not in_later_column(node):
            continue
        seen.add(found)
        entry = objects[found]
        node.replace_self(make_refnode(app.builder, page, entry.docname, entry.node_id, node.deepcopy(), found))


def in_later_column(node: nodes.Node) -> bool:
    while node and not isinstance(node, nodes.entry):
        node = node.parent
    return node is not None and node.parent.index(node) > 0
