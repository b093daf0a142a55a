"""The gallery: every script says what it shows and asserts what it says, and runs without the tools of the pages."""

import ast
import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
SCRIPTS = sorted(GALLERY.rglob("*.py"))
CLAIMS = re.compile(r"^# sphinx_gallery_start_ignore\n(.*?)^# sphinx_gallery_end_ignore\n", re.DOTALL | re.MULTILINE)


def test_every_section_has_a_header() -> None:
    assert SCRIPTS
    for folder in {GALLERY, *(script.parent for script in SCRIPTS)}:
        title, line, *_ = (folder / "GALLERY_HEADER.rst").read_text().splitlines()
        assert len(title) == len(line), folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_has_a_title_and_asserts_its_claims(script: Path) -> None:
    source = script.read_text()
    title, line, blank, *text = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    assert line == "=" * len(title)
    assert not blank
    assert text
    claims = CLAIMS.findall(source)
    assert any(isinstance(node, ast.Assert) for block in claims for node in ast.walk(ast.parse(block)))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs(script: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")  # of plt.show()
        warnings.filterwarnings("ignore", r"__array_(_|wrap__)")  # torch's, as numpy finds them
        runpy.run_path(str(script))
    plt.close("all")
