"""What is published: complete distributions, a light base installation, extras that contain what is imported."""

import ast
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from previts.processes.exits import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = ("components", "pipelines", "previts", "torchx_plugins")
CARRIED = ("docs", "images", "k8s", "tests")
OPTIONAL = {package for packages in EXTRAS.values() for package in packages}
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def files(root: Path, folders: Iterable[str]) -> set[str]:
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution of a copy of this project, and the wheel built from that distribution."""
    place = tmp_path_factory.mktemp("built")
    copy = place / "copy"
    for folder in (*INSTALLED, *CARRIED):
        copytree(ROOT / folder, copy / folder, ignore=ignore_patterns("__pycache__", "pushed.env", "content"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            (copy / path.name).write_bytes(path.read_bytes())
    subprocess.run([sys.executable, "-c", BUILD, "build_sdist", place], cwd=copy, check=True, capture_output=True)
    with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
        archive.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4 on
    (unpacked,) = place.glob("previts-*/")
    subprocess.run([sys.executable, "-c", BUILD, "build_wheel", place], cwd=unpacked, check=True, capture_output=True)
    return place


def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def head(built: Path) -> Message:
    archive = wheel(built)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_contains_every_file_of_the_packages_and_nothing_else(built: Path):
    content = {name for name in wheel(built).namelist() if ".dist-info/" not in name}
    assert content == files(ROOT, INSTALLED)
    assert {"previts/py.typed", "pipelines/previts_full.yaml"} <= content
    assert any(name.endswith("/page.html") for name in content)


def test_the_source_distribution_contains_the_tests_and_what_they_read(built: Path):
    (unpacked,) = built.glob("previts-*/")
    assert files(unpacked, (*INSTALLED, *CARRIED)) == files(built / "copy", (*INSTALLED, *CARRIED))
    assert all((unpacked / name).is_file() for name in ("LICENSE", "CITATION.cff", "Makefile", "requirements.lock"))


def test_the_wheel_states_its_licence_and_its_command(built: Path):
    about = head(built)
    assert (about["License-Expression"], about.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    archive = wheel(built)
    (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    (commands,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "previts = previts.cli:main" in archive.read(commands).decode()
    assert SpecifierSet(about["Requires-Python"]) == SpecifierSet(PROJECT["requires-python"])


def test_the_base_requirements_are_light_and_the_extras_are_those_of_the_documentation(built: Path):
    about = head(built)
    base = {Requirement(line).name for line in about.get_all("Requires-Dist") if "extra ==" not in line}
    assert base == {"fsspec", "gcsfs", "numpy", "pyarrow", "s3fs", "tqdm", "tyro"}
    documented = (ROOT / "docs" / "installation.md").read_text()
    assert [extra for extra in about.get_all("Provides-Extra") if f"| `{extra}` |" not in documented] == []


def closure(requirements: Iterable[str], found: set[str]) -> set[str]:
    """Add to `found` the distributions that are installed with these requirements, however indirectly."""
    for line in requirements:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name == "previts":
            closure((line for extra in requirement.extras for line in PROJECT["optional-dependencies"][extra]), found)
        elif name not in found:
            found.add(name)
            closure(metadata.requires(name) or [], found)
    return found


def imported(path: Path) -> set[str]:
    """Return the first parts of the names of all modules that a file imports, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_each_package_that_is_imported_comes_with_the_base_or_with_the_extra_that_an_error_names():
    modules = set().union(*(imported(ROOT / name) for name in files(ROOT, INSTALLED) if name.endswith(".py")))
    ours = modules - set(sys.stdlib_module_names) - set(INSTALLED)
    distributions = {
        module: {canonicalize_name(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }
    base = closure(PROJECT["dependencies"], set())
    assert {module for module in ours if not distributions[module] & base} == OPTIONAL
    for extra, packages in EXTRAS.items():
        provided = closure(PROJECT["optional-dependencies"][extra], set())
        assert [package for package in packages if not distributions[package] & provided] == []


def test_help_loads_no_optional_package():
    code = (
        "import sys\nfrom previts import cli\ntry:\n    cli.main(['--help'])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "fit_saliency" in run.stdout
    loaded = {name.partition(".")[0] for name in run.stderr.split()}
    assert "tyro" in loaded
    assert loaded & (OPTIONAL | {"pandas", "pyarrow"}) == set()
