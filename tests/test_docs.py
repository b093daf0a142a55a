"""The documentation: what its pages and docstrings show runs, and every public name has a page."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tamt
import tamt.plot
import tamt.spl

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "templates" not in path.parts)]
# A block that the reader, not the test, can run says why not.
BLOCK = re.compile(r"(?P<kept><!-- not run: [^\n]+ -->\n\n?)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
LISTED = re.compile(r"^\.\. currentmodule:: (\S+)|^   (\w+)$", re.MULTILINE)


def blocks(page: Path) -> list[str]:
    found = list(BLOCK.finditer(page.read_text()))
    for match in found:
        compile(match["code"], page.name, "exec")
    return [match["code"] for match in found if not match["kept"]]


def listed() -> list[str]:
    """What has a page in the reference."""
    names, module = [], ""
    for page in sorted((DOCS / "reference").glob("*.md")):
        for entered, name in LISTED.findall(page.read_text()):
            module = entered or module
            names += [f"{module}.{name}"] if name else []
    return names


def is_result(documented: Any) -> bool:
    """Whether it is a result, which the example of its model shows."""
    return isinstance(documented, type) and issubclass(documented, tuple)


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ROUGHLY = re.compile(r"\b(about|above|at most|below|less|more|within)\b")


def run(code: str, where: str, names: dict[str, Any]) -> None:
    """Execute a block, and hold what comments say that it prints against what it does.

    Each number of a comment beside ``print`` is one that the line prints, rounded; but where it is said to be rough.
    """
    printed: dict[int, str] = {}

    def record(*values: object) -> None:
        line = sys._getframe(1).f_lineno
        printed[line] = " ".join([printed.get(line, ""), *map(str, values)])

    names["print"] = record
    exec(compile(code, where, "exec"), names)
    for number, line in enumerate(code.splitlines(), 1):
        statement, _, said = line.partition("  # ")
        if not statement.lstrip().startswith("print(") or not said or ROUGHLY.search(said):
            continue
        found = [float(text) for text in NUMBER.findall(printed[number])]
        for text in NUMBER.findall(said):
            half = (
                0.501
                * 10.0 ** -len(text.partition(".")[2].partition("e")[0])
                * float(f"1e{text.partition('e')[2] or 0}")
            )
            assert any(abs(value - float(text)) <= half for value in found), (line, printed[number])


README_BLOCKS = blocks(ROOT / "README.md")


@pytest.mark.parametrize("example", README_BLOCKS, ids=lambda code: code.splitlines()[-1][:30])
def test_examples_of_the_readme(example: str) -> None:
    """Each by itself."""
    names: dict[str, Any] = {}
    run(example, "README.md", names)
    if "optimizer" in names:
        assert names["loss"] < 1e-2


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if blocks(page)], ids=lambda page: page.stem)
def test_examples_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as they are read."""
    monkeypatch.chdir(tmp_path)
    tone = 0.05 * np.sin(2 * np.pi * 1000 * np.arange(24000) / 48000)
    for name in re.findall(r'"([\w-]+\.(?:wav|flac))"', "".join(blocks(page))):
        pytest.importorskip("soundfile").write(name, tone, 48000)
    names: dict[str, Any] = {"__name__": page.stem}
    for number, code in enumerate(blocks(page)):
        run(code, f"{page.name}, block {number + 1}", names)


def test_local_links_of_the_readme() -> None:
    assert len(README_BLOCKS) >= 6
    for target in re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), target


def test_every_public_name_has_a_page() -> None:
    names = listed()
    assert len(names) == len(set(names))
    public = {f"tamt.{name}" for name in tamt.__all__} | {f"tamt.plot.{name}" for name in tamt.plot.__all__}
    public |= {f"tamt.loudness.{name}" for name in ("BinauralLoudness", "Loudness")}  # results of models
    public |= {f"tamt.spl.{name}" for name in tamt.spl.__all__ if callable(getattr(tamt.spl, name))}
    assert {name for name in names if not name.startswith("tamt.ops.")} == public
    for path in (ROOT / "tamt" / "ops").glob("[a-z]*.py"):
        assert path.stem == "blocks" or any(name.startswith(f"tamt.ops.{path.stem}.") for name in names), path.stem


@pytest.mark.parametrize("name", listed())
def test_examples_of_docstrings(name: str) -> None:
    module, _, last = name.rpartition(".")
    documented = getattr(importlib.import_module(module), last)
    assert documented.__doc__
    if module == "tamt.plot":
        pytest.importorskip("matplotlib")
    runner, found = doctest.DocTestRunner(), doctest.DocTestFinder().find(documented, last, globs={})
    assert any(example.examples for example in found) or is_result(documented), "it has no example"
    for example in found:
        assert runner.run(example).failed == 0
