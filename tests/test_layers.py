"""The layers of the code: every import goes down, none in a circle, and triton stays in its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TAMT = Path(__file__).parents[1] / "tamt"
# From the top. What stands in one line do not know of each other; inside a package imports only may not go in circles.
LAYERS = (
    ("__main__", "common"),
    ("cli",),
    ("__init__",),
    ("plot",),
    ("loudness",),
    ("filterbanks", "spectra", "excitation", "ear"),
    ("_learnable",),
    ("_base",),
    ("_arguments",),
    ("ops",),
    ("reference", "triton_kernels"),
    ("shared",),
    ("design",),
    ("_arithmetic",),
    ("spl",),
    ("_memo", "_heap", "scales"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(("tamt", *path.relative_to(TAMT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(TAMT.rglob("*.py"))
}


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Modules of tamt and others that a module imports anywhere, each with its line."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join((*parts, *([base] if base else [])))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base, node.lineno


def room(module: str) -> str:
    """The package or file right below ``tamt``."""
    return (*module.split("."), "__init__")[1]


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in MODULES} == set(RANK)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for name, line in imports(module):
        if name.partition(".")[0] != "tamt" or room(name) == room(module):
            continue
        assert RANK[room(module)] < RANK[room(name)], f"{MODULES[module]}:{line} imports {name}, which is not below it"


def test_no_import_goes_in_a_circle() -> None:
    """Packages themselves, which import their parts for others, aside."""
    below = {
        module: {name for name, _ in imports(module) if name in MODULES and MODULES[name].stem != "__init__"}
        for module, path in MODULES.items()
        if path.stem != "__init__"
    }
    while leaves := {module for module, names in below.items() if not names & set(below)}:
        below = {module: names for module, names in below.items() if module not in leaves}
    assert not below, f"circles among {sorted(below)}"


@pytest.mark.parametrize("module", MODULES)
def test_triton_stays_in_its_room(module: str) -> None:
    used = {line for name, line in imports(module) if name.partition(".")[0] == "triton"}
    assert room(module) == "triton_kernels" or not used, f"{MODULES[module]}:{used} imports triton"
