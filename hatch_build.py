"""What the build adds to ``pyproject.toml``: the README as it reads away from the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# Code is passed over: a subscript that is called looks like a link.
LINK = re.compile(
    r"^```.*?^```|`[^`]+`|(?P<image>!?)\[(?P<text>(?:`[^`]+`|[^\]`])*)\]\((?P<target>[^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)


class ReadmeHook(MetadataHookInterface):
    """Makes the README the package's long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata of the project."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, metadata["urls"]["Source"])}


def absolute(text: str, repository: str) -> str:
    """Make links and images that are relative to the root of the repository absolute."""

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or "://" in target:
            return match[0]
        kind = "raw" if match["image"] else "blob"
        whole = f"{repository}{target}" if target.startswith("#") else f"{repository}/{kind}/main/{target}"
        return f"{match['image']}[{match['text']}]({whole})"

    return LINK.sub(link, text)
