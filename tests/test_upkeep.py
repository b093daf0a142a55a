"""Workflows, forms and CONTRIBUTING.md: of a valid form, and in accord with the tree they speak of."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import pytest

# `make gpu` uses a Python that may lack the extras.
check_jsonschema = pytest.importorskip("check_jsonschema")
ruamel = pytest.importorskip("ruamel.yaml")

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
CONFIG = GITHUB / "ISSUE_TEMPLATE" / "config.yml"
FORMS = sorted(set((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) - {CONFIG})
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": FORMS,
    "github-issue-config": [CONFIG],
    "dependabot": [GITHUB / "dependabot.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
    "readthedocs": [ROOT / ".readthedocs.yaml"],
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md"]
SPAN = re.compile(r"`([^`\n]+)`")


@functools.cache
def parsed(path: Path) -> Any:
    return ruamel.YAML(typ="safe", pure=True).load(path)


@functools.cache
def project() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        return pytest.importorskip("tomli").loads((ROOT / "pyproject.toml").read_text())
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def jobs() -> dict[str, dict[str, Any]]:
    return {f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in parsed(path)["jobs"].items()}


def code(page: Path) -> list[str]:
    """What stands between backticks, and the lines of blocks of code."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return SPAN.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)) + "".join(blocks).splitlines()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schema(schema: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(path) for path in SCHEMAS[schema]]
    assert files
    with pytest.raises(SystemExit) as done:
        check_jsonschema.main(["--builtin-schema", f"vendor.{schema}", *files])
    assert done.value.code == 0, capsys.readouterr().out


def test_linux_runs_every_python() -> None:
    versions = parsed(GITHUB / "workflows" / "tests.yml")["jobs"]["linux"]["strategy"]["matrix"]["python"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project()["project"]["classifiers"]))
    assert versions == named
    first, last = (tuple(map(int, version.split("."))) for version in (versions[0], versions[-1]))
    assert project()["project"]["requires-python"] == f">=3.{first[1]},<3.{last[1] + 1}"


def test_rights_of_workflows() -> None:
    assert all(parsed(path)["permissions"] == {"contents": "read"} for path in WORKFLOWS)
    assert [name for name, job in jobs().items() if "permissions" in job] == ["release.publish"]
    publish = jobs()["release.publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert set(publish["needs"]) == {"build", "install"}
    assert "refs/tags/v" in publish["if"]


def test_steps_of_workflows() -> None:
    steps = [step for job in jobs().values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+\.\d+)?", name) for name in used), used
    assert all(step["with"]["persist-credentials"] is False for step in steps if "checkout" in step.get("uses", ""))
    assert all("timeout-minutes" in job for job in jobs().values())


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]
    for text in [*scripts, *(line for page in PAGES for line in code(page))]:
        assert set(re.findall(r"(?:^|\n)make ([a-z][a-z-]*)", text)) <= targets, text
    assert {"make test", "make test-all"} <= set(code(ROOT / "CONTRIBUTING.md"))


def test_paths_exist() -> None:
    """``<stem>`` stands for anything that is there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
            assert (page.parent / target).is_file(), (page.name, target)
    words = {word.rstrip("/") for line in code(ROOT / "CONTRIBUTING.md") for word in line.split()}
    pattern = r"[\w.<>-]+(/[\w.<>-]+)+|[\w<>-]+\.(py|md|txt|toml|cff|json)"
    paths = {word for word in words if re.fullmatch(pattern, word) and not word.startswith((".venv/", "docs/_build/"))}
    assert len(paths) > 40
    for path in paths:
        assert any(ROOT.glob(re.sub(r"<\w+>", "*", path))), path


def test_names_exist() -> None:
    """Every single word of code in CONTRIBUTING.md stands somewhere in the tree."""
    files = [path for folder in ("tamt", "tests", "asv_bench") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in [*files, ROOT / "Makefile", ROOT / "pyproject.toml"])
    spans = [span for span in code(ROOT / "CONTRIBUTING.md") if re.fullmatch(r"[A-Za-z_]\w*(\.[a-z_]\w*)*", span)]
    names = {span.rpartition(".")[2] for span in spans if not (ROOT / span).exists()}
    assert len(names) > 40
    assert names <= set(re.findall(r"\w+", text))


def test_tools_are_of_one_version() -> None:
    dev = project()["project"]["optional-dependencies"]["dev"]
    revisions = {repo["repo"]: repo["rev"] for repo in parsed(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert f"ruff=={revisions['https://github.com/astral-sh/ruff-pre-commit'].removeprefix('v')}" in dev


def test_the_oldest_versions_are_those_of_the_project() -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = sorted(line.replace("==", ">=") for line in lines if not line.startswith("#"))
    assert oldest == sorted(need.partition(";")[0] for need in project()["project"]["dependencies"])
    assert "constraints-oldest.txt" in str(parsed(GITHUB / "workflows" / "nightly.yml"))


def test_forms_ask_for_what_is_needed() -> None:
    for name in ("bug_report", "numbers"):
        body = parsed(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")["body"]
        fields = {field["id"]: field for field in body if "id" in field}
        assert "`tamt info`" in fields["info"]["attributes"]["label"]
        assert fields["info"]["validations"]["required"]
        assert fields["script"]["validations"]["required"]
