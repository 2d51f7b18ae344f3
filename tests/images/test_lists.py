"""Each image lists the packages of its extras at the versions of the lock, and only the training image has torch."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components import _images

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = sorted(path.stem for path in (ROOT / "images").glob("*.txt"))
RECIPE = (ROOT / "images" / "Dockerfile").read_text()


def pins(text: str) -> dict[str, str]:
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE)}


def extras(image: str) -> list[str]:
    (line,) = re.findall(rf"^EXTRAS_{image} := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return line.replace("--extra", "").split()


def asked(extra: str) -> set[str]:
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        inner = [asked(name) for name in requirement.extras] if requirement.name == "previts" else []
        found |= set().union(*inner) if inner else {canonicalize_name(requirement.name)}
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_lists_the_packages_of_its_extras_at_the_versions_of_the_lock(image: str):
    listed = pins((ROOT / "images" / f"{image}.txt").read_text())
    locked = pins((ROOT / "requirements.lock").read_text())
    assert {name: locked.get(name) for name in listed} == listed, "run `make lock`"
    always = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert set().union(always, *map(asked, extras(image))) <= set(listed), "run `make lock`"


def test_the_images_of_steps_contain_kfp():
    steps = {image for image in IMAGES if "kfp" in pins((ROOT / "images" / f"{image}.txt").read_text())}
    assert steps == {"data", "train", "launcher"}


def test_only_the_training_image_has_torch():
    assert [image for image in IMAGES if "torch" in pins((ROOT / "images" / f"{image}.txt").read_text())] == ["train"]


@pytest.mark.parametrize("image", IMAGES)
def test_the_dockerfile_installs_each_listed_package_with_its_hashes(image: str):
    (program,) = re.findall(r"awk '(.*?)'", RECIPE)
    files = [f"images/{image}.txt", "requirements.lock"]
    kept = subprocess.run(["awk", program, *files], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tool = {"setuptools": pins((ROOT / files[1]).read_text())["setuptools"]}
    assert pins(kept) == pins((ROOT / files[0]).read_text()) | tool
    assert all("--hash=sha256:" in block for block in re.split(r"^(?=[a-z0-9])", kept, flags=re.MULTILINE)[1:])


def test_every_image_has_the_same_name_everywhere():
    assert sorted(name.split("/previts-")[1].split(":")[0] for name in _images.IMAGES) == IMAGES
    assert sorted(re.findall(r"^EXTRAS_([a-z]+)", (ROOT / "Makefile").read_text(), re.MULTILINE)) == IMAGES


def test_the_images_do_not_run_as_root_and_download_nothing():
    last = RECIPE.rsplit("\nFROM ", 1)[1]
    assert "\nUSER 65532:65532\n" in last
    assert not re.search(r"\b(apt-get|curl|wget)\b|--extra-index|ADD ", RECIPE)
