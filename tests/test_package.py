import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tamt
import tamt.common.filterbanks

ROOT = Path(__file__).parents[1]
OPTIONAL = ("triton", "matplotlib", "soundfile", "soxr", "tqdm")

WITHOUT_OPTIONAL = f"""
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {OPTIONAL} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_filters_and_info_work_without_optional_packages():
    # The operators are there by the import alone, as programs need that were exported.
    operators = "import tamt, torch\nprint(torch.ops.tamt.onepole_rows)\n"
    filters = "print(tamt.GammatoneFilterbank((100, 8000), 16000)(torch.ones(5)).shape)\n"
    done = python(WITHOUT_OPTIONAL + operators + filters + "import tamt.cli\nsys.exit(tamt.cli.main(['info']))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tamt.onepole_rows\ntorch.Size([30, 5])\n")


def test_import_leaves_optional_packages_alone():
    # torch itself imports tqdm where it is installed.
    code = (
        f"import sys, torch\nbefore = set(sys.modules)\nimport tamt\nprint({{*{OPTIONAL}}} & set(sys.modules) - before)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "set()\n"


def test_public_names():
    for name in tamt.__all__:
        assert getattr(tamt, name).__doc__
        assert getattr(tamt.common.filterbanks, name) is getattr(tamt, name)
    assert tamt.common.filterbanks.__all__ == tamt.__all__


def test_wheel_contains_the_library_alone(tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"tamt-{tamt.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"tamt-{tamt.__version__}.dist-info/METADATA").decode()
    metadata_folder = f"tamt-{tamt.__version__}.dist-info/"
    library = {name for name in names if not name.startswith(metadata_folder)}
    assert library == {
        path.relative_to(ROOT).as_posix()
        for package in ("tamt", "tamt_command")
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert metadata_folder + "licenses/LICENSE" in names
    assert "Requires-Python: <3.15,>=3.10" in metadata
    assert "Requires-Dist: triton>=3.4; sys_platform == 'linux'" in metadata

    # The README as PyPI shows it: all of it, with links that work there.
    fields = email.message_from_string(metadata)
    urls = dict(value.split(", ") for value in fields.get_all("Project-URL"))
    assert urls.keys() == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    readme, text = (ROOT / "README.md").read_text(), fields.get_payload()
    targets, links = (re.findall(r"\]\(([^)\s]+)\)", prose(page)) for page in (readme, text))
    assert len(links) == len(targets) > 20
    for target, link in zip(targets, links, strict=True):
        assert re.match(r"https?://", link), link
        assert link.endswith(target)
    pictures = re.findall(r"!\[[^]]+\]\((.+)\)", text)
    assert pictures
    assert all(picture.startswith(urls["Source"] + "/raw/main/docs/images/") for picture in pictures)
    assert re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE) == re.findall(
        r"^```.*?^```", readme, re.DOTALL | re.MULTILINE
    )


def prose(page):
    return re.sub(r"^```.*?^```|`[^`]+`", "", page, flags=re.DOTALL | re.MULTILINE)


def test_version_date_and_address_are_the_same_everywhere():
    cited = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert cited["version"] == tamt.__version__
    assert cited["license"] == "Apache-2.0"
    assert f'\nSource = "{cited["repository-code"]}"\n' in (ROOT / "pyproject.toml").read_text()
    released = re.findall(r"^## \[(\d.*)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:1] in ([], [(cited["version"], cited["date-released"])])
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", cited["date-released"])
