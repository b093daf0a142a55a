import subprocess
import sys
import zipfile
from pathlib import Path

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


def test_import_works_without_optional_packages():
    code = (
        WITHOUT_OPTIONAL
        # The operators are there by the import alone, as programs need that were exported.
        + "import tamt, torch\nprint(torch.ops.tamt.onepole_rows)\n"
        + "print(tamt.GammatoneFilterbank((100, 8000), 16000)(torch.ones(5)).shape)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tamt.onepole_rows\ntorch.Size([30, 5])\n"


def test_info_works_without_optional_packages():
    done = python(WITHOUT_OPTIONAL + "import tamt.cli\nsys.exit(tamt.cli.main(['info']))")
    assert done.returncode == 0, done.stderr


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


def test_version_is_the_same_everywhere():
    assert f"\nversion: {tamt.__version__}\n" in (ROOT / "CITATION.cff").read_text()
