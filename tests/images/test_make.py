"""What the make targets of the images ask of Docker, syft, grype and cosign; programs that write down their arguments
take the places of these, and a list of digests that of the registry."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ("data", "train", "launcher", "mlflow")
SYSTEM = "/usr/bin:/bin"
REGISTRY = "registry.test/project/previts"
# An engine that, like Docker, knows the digest of an image only after a pull or a push.
ENGINE = """#!/usr/bin/env bash
echo "engine $*" >> "$CALLS"
name="${!#}"
sum=$(echo "$name" | sha256sum | cut -c1-64)
case "$1" in
  pull|push) [ "$name" != "$BROKEN" ] && echo "progress" && touch "$KNOWN/$sum" ;;
  image) [ -e "$KNOWN/$sum" ] && echo "${name%:*}@sha256:$sum" ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the Makefile, and a folder with the programs."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("images", "bin", "known"):
        (tmp_path / name).mkdir()
    programs = {"engine": ENGINE} | {
        name: f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n' for name in ("go", "cosign", "git")
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def make(place: Path, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run make, and return the process and what was asked of the programs."""
    (place / "calls").write_text("")
    given = {"PATH": f"{place}/bin:{SYSTEM}", "CALLS": f"{place}/calls", "KNOWN": f"{place}/known", **environment}
    command = ["make", f"ENGINE={place}/bin/engine", *arguments]
    done = subprocess.run(command, cwd=place, env=given, capture_output=True, text=True, check=False)
    return done, (place / "calls").read_text().splitlines()


def test_every_image_has_one_base_by_its_digest_and_a_list_of_its_content(place: Path):
    done, calls = make(place, "images")
    assert done.returncode == 0, done.stderr
    built = [call for call in calls if call.startswith("engine build")]
    bases = {re.search(r"BASE=(\S+)", call)[1] for call in built}
    assert len(built) == len(IMAGES)
    assert [re.fullmatch(r"docker\.io/library/python@sha256:[0-9a-f]{64}", base) is not None for base in bases] == [
        True
    ]
    listed = [call for call in calls if call.startswith("go ")]
    saved = {call.split()[-1]: call.split()[-2] for call in calls if call.startswith("engine save")}
    read = [re.search(r"docker-archive:(\S+) --source-name previts-(\w+) ", call).groups() for call in listed]
    assert [name for _, name in read] == list(IMAGES)
    assert {f"previts/previts-{name}:0.2.0": path for path, name in read} == {
        name: f"{place}/{path}" for name, path in saved.items()
    }
    assert all("-C images/tools tool syft scan" in call for call in listed)
    assert [call.rsplit("=", 1)[1] for call in listed] == [f"{place}/images/content/{image}.json" for image in IMAGES]


def test_a_base_with_a_digest_is_taken_as_it_is(place: Path):
    base = f"mirror.test/python@sha256:{'a' * 64}"
    done, calls = make(place, "images", f"BASE={base}")
    assert done.returncode == 0, done.stderr
    assert not [call for call in calls if call.startswith("engine pull")]
    assert {re.search(r"BASE=(\S+)", call)[1] for call in calls if "build" in call} == {base}


def test_without_the_digest_of_the_base_nothing_is_built(place: Path):
    done, calls = make(place, "images", BROKEN="docker.io/library/python:3.11-slim")
    assert done.returncode
    assert not [call for call in calls if call.startswith("engine build")]


def test_compile_names_the_images_by_the_digests_that_push_wrote(place: Path):
    done, calls = make(place, "push", f"REGISTRY={REGISTRY}")
    assert done.returncode == 0, done.stderr
    pushed = [call.split()[-1] for call in calls if call.startswith("engine push")]
    assert pushed == [f"{REGISTRY}/previts-{image}:0.2.0" for image in IMAGES]
    written = place / "images" / "pushed.env"
    assert re.search(r"PREVITS_POSTGRES=docker\.io/library/postgres@sha256:[0-9a-f]{64}$", written.read_text(), re.M)
    program = "from components import _images; print(*_images.IMAGES)"
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PREVITS_IMAGES": str(written)}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
    ).stdout
    digests = dict(re.findall(r"PREVITS_(\w+)_DIGEST=(\S+)", written.read_text()))
    assert shown.split() == [f"{REGISTRY}/previts-{image}@{digests[image.upper()]}" for image in IMAGES]
    done, calls = make(place, "sign")
    assert done.returncode == 0, done.stderr
    signed = [call.split()[-1] for call in calls if call.startswith("cosign sign")]
    assert signed == shown.split()
    assert [call.split()[-1] for call in calls if call.startswith("cosign attest")] == signed


@pytest.mark.skipif(shutil.which("go", path=SYSTEM) is not None, reason="the system has go")
def test_without_go_nothing_is_built(place: Path):
    (place / "bin" / "go").unlink()
    done, calls = make(place, "images")
    assert done.returncode
    assert "Go 1.26.8 or newer is needed" in done.stdout
    assert not calls


def test_a_push_that_fails_leaves_the_digests_of_the_last_one(place: Path):
    make(place, "push", f"REGISTRY={REGISTRY}")
    before = (place / "images" / "pushed.env").read_text()
    done, _ = make(place, "push", f"REGISTRY={REGISTRY}", "TAG=9", BROKEN=f"{REGISTRY}/previts-launcher:9")
    assert done.returncode
    assert (place / "images" / "pushed.env").read_text() == before


def test_a_file_of_digests_that_cannot_be_read_is_named():
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PREVITS_IMAGES": "nowhere.env"}
    command = [sys.executable, "-m", "pipelines", "compile"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode
    assert "PREVITS_IMAGES=nowhere.env cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scan_reads_the_list_of_every_image(place: Path):
    done, calls = make(place, "scan")
    assert done.returncode == 0, done.stderr
    expected = [f"go -C images/tools tool grype sbom:{place}/images/content/{image}.json" for image in IMAGES]
    assert calls == expected


@pytest.mark.skipif(shutil.which("cosign", path=SYSTEM) is not None, reason="the system has cosign")
def test_signing_without_cosign_says_where_to_get_it(place: Path):
    (place / "bin" / "cosign").unlink()
    done, _ = make(place, "sign")
    assert done.returncode
    assert "'cosign' was not found" in done.stdout
