"""The documentation: what its pages and docstrings show runs, and every public name has a page."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
ROUGH = re.compile(
    r"\b(?:about|above|at most|below|less than|more than|some|within) N(?: %)?(?: of)?(?:(?:,| and)? N)*".replace(
        "N", NUMBER.pattern
    )
)
SHAPE = re.compile(r"\((?:\d+, ?)+\d*\)")


def shapes(value: Any) -> list[tuple[int, ...]]:
    if isinstance(value, torch.Tensor | np.ndarray):
        return [tuple(value.shape)]
    return [shape for part in value for shape in shapes(part)] if isinstance(value, tuple | list) else []


def rounds_to(value: float, text: str) -> bool:
    mantissa, _, exponent = text.partition("e")
    return abs(value - float(text)) <= 0.501 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def run(code: str, where: str, names: dict[str, Any]) -> None:
    """Execute a block, and hold its comments against what it does.

    Each number of a comment beside ``print`` is one that the line prints, rounded, unless a word before it says that it
    is rough. Each shape of a comment beside an assignment is that of a tensor that is assigned.
    """
    printed: dict[int, str] = {}

    def record(*values: object, **_: object) -> None:
        line = sys._getframe(1).f_lineno
        printed[line] = " ".join([printed.get(line, ""), *map(str, values)])

    names["print"] = record
    torch.manual_seed(20)  # numbers that depend on it are another's than the reader's: what prints them has its own
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        exec(compile(ast.Module([statement], []), where, "exec"), names)
        said = lines[(statement.end_lineno or 0) - 1].partition("  # ")[2]
        if isinstance(statement, ast.Assign):
            targets = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in names]
            found = [shape for name in targets for shape in shapes(names[name])]
            for shape in SHAPE.findall(said):
                assert ast.literal_eval(shape) in found, (said, found)
    for line, text in printed.items():
        said = lines[line - 1].partition("  # ")[2]
        values = [float(number) for number in NUMBER.findall(text)]
        for number in NUMBER.findall(ROUGH.sub("", said)):
            assert any(rounds_to(value, number) for value in values), (lines[line - 1], text)


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


def test_the_readme_has_examples() -> None:
    assert len(README_BLOCKS) >= 6


def test_the_readme_names_what_is_not_there() -> None:
    """Every name of torch_amt that its page says has no counterpart."""
    section = (ROOT / "README.md").read_text().partition("\n## tamt, torch_amt and AMT\n")[2].partition("\n## ")[0]
    missing = re.findall(
        r"^\| `(\w+)` \| not in tamt \|", (DOCS / "coming_from" / "torch_amt.md").read_text(), re.MULTILINE
    )
    assert len(missing) > 20
    named = re.findall(r"`(\w+?)(?:\.\.\.)?`", section)
    for name in missing:
        functions = name.startswith(("apply_", "torch_")) and name.partition("_")[0] + "_" in named
        assert functions or name.removeprefix("Fast") in named, name


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
