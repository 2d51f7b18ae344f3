"""docs/licences.md lists what the installed packages state and contain."""

import re
import runpy
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text()
LIBRARY = re.compile(r"lib(.+?)(?:[-.][0-9a-f]{8})+\.")


def site_packages() -> Path:
    return Path(str(metadata.distribution("numpy").locate_file("")))


def of_images() -> set[str]:
    lists = [path.read_text() for path in (ROOT / "images").glob("*.txt")]
    return {name.replace("-", "_") for text in lists for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


@pytest.mark.skipif(sys.platform != "linux", reason="the images have the packages for Linux")
def test_the_table_of_packages_is_that_of_their_metadata():
    made = runpy.run_path(str(ROOT / "images" / "licences.py"))
    try:
        page = made["page"]()
    except SystemExit as reason:  # a lock that is newer than this environment
        pytest.skip(str(reason))
    assert page == PAGE, "run `make licences` and commit docs/licences.md"


@pytest.mark.skipif(sys.platform != "linux", reason="the wheels for Linux have these libraries")
def test_every_library_inside_a_wheel_has_a_licence_in_the_page():
    listed: dict[str, set[str]] = {}
    section = PAGE[PAGE.index("## Libraries inside") : PAGE.index("## Python packages")]
    for wheel, libraries in re.findall(r"^\| (\w+) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE):
        if wheel != "wheel":
            listed.setdefault(wheel, set()).update(libraries.split(", "))
    found = {
        folder.stem: {match[1] for path in folder.iterdir() if (match := LIBRARY.match(path.name))}
        for folder in site_packages().glob("*.libs")
        if folder.stem in of_images()
    }
    assert sum(map(len, found.values())) > 80
    assert listed == found


def test_the_statements_about_ffmpeg_are_its_own():
    core = pytest.importorskip("av")._core
    built = core.library_meta["libavcodec"]
    assert f"`{built['license']}`" in PAGE
    assert {"--enable-libx264", "--enable-libx265"} <= set(built["configuration"].split())
    assert "`--enable-libx264 --enable-libx265`" in PAGE
