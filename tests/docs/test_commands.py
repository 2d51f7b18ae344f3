"""The commands of the documentation.

Blocks `sh` and `python` are run on a small world. A block `sh gpu` is too large for that: its commands are checked up
to the point where work would start. Blocks `sh cluster`, `sh install` and `sh bench` need a cluster, the network or
hours: only their options, make targets and files are checked.
"""

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from doc_pages import PAGES, ROOT, Block, blocks, prose

from previts import demo
from previts.models.encoders import build_encoder

RUN, CHECKED, NAMED = ("sh", "python"), ("sh gpu",), ("sh cluster", "sh install", "sh bench")
SHOWN = ("", "csv")  # file trees and tables
VARIABLES = "ROOT V M S T I C R RUN"
WORDS = re.compile(r"--[a-z][a-z_-]*")
# `previts VERB ...` and `python -m pipelines VERB ...`, up to the end of the command.
PROGRAM = re.compile(r"(?:\.venv/bin/|^)(previts|python -m pipelines) ([a-z_-]+)([^|;&)]*)", re.MULTILINE)


def ours(*kinds: str) -> list[Block]:
    return [block for block in blocks() if block.info in kinds]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PREVITS_WORKERS": "1", **more}


@cache
def printed_by(module: str, *arguments: str) -> str:
    """Return the output of `python -m MODULE ARGUMENTS`. It runs in this process, since each import takes seconds."""
    printed, given = io.StringIO(), sys.argv
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__")
    finally:
        sys.argv = given
    return printed.getvalue()


@cache
def parameters() -> set[str]:
    """Return the names of the parameters of the pipeline."""
    pipeline = next(yaml.safe_load_all((ROOT / "pipelines" / "previts_full.yaml").read_text()))
    return set(pipeline["root"]["inputDefinitions"]["parameters"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that the commands need: videos, datasets, images, and `.venv/bin`."""
    world = tmp_path / "world"
    demo.make_world(str(world), replace(demo.TINY, seed=3))
    (world / "crawls" / "videos").rename(tmp_path / "my_videos")
    (world / "datasets").rename(tmp_path / "my_datasets")
    shutil.copy(next((tmp_path / "my_videos").glob("v*.mp4")), tmp_path / "my_video.mp4")
    for name, variant in (("images", "original"), ("masks", "fg_mask")):
        shutil.copytree(tmp_path / "my_datasets" / "in9" / variant / "val", tmp_path / name)
    for name in ("resnet50.pth", "mask_rcnn.pt"):  # for commands that are only checked; never read
        (tmp_path / name).write_bytes(b"weights")
    # `make demo` and `make demo MODEL=video` leave their checkpoints in demo/.
    video = tmp_path / "runs" / "checkpoints" / "s3dg-previts-0" / "encoder.pt"
    video.parent.mkdir(parents=True)
    torch.save(build_encoder("s3dg", width=0.25).state_dict(), video)
    (tmp_path / "demo").symlink_to("runs")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("previts", "python"):
        script = f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/support/at_test_size.py" {name} "$@"\n'
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    return tmp_path


def run(block: Block, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a block in the folder. Its shell variables are kept for the next block."""
    if block.info == "python":
        command = [sys.executable, "-c", block.text]
    else:
        keep = f"declare -p {VARIABLES} 2>/dev/null >variables || true"
        command = ["bash", "-ec", f"touch variables; . ./variables\n{block.text}\n{keep}"]
    check = "1" if block.info in CHECKED else ""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=place, env=environment(PREVITS_DOCS_CHECK=check)
    )


def test_every_block_has_a_known_kind():
    unknown = [f"{block.place}: {block.info}" for block in blocks() if block.info not in RUN + CHECKED + NAMED + SHOWN]
    assert not unknown


@pytest.mark.slow
def test_every_command_and_every_snippet_runs(place: Path):
    known: set[tuple[str, str]] = set()
    for block in ours(*RUN, *CHECKED):
        if (block.info, block.text) in known:  # a command on two pages runs once
            continue
        known.add((block.info, block.text))
        done = run(block, place)
        assert done.returncode == 0, f"{block.place}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert (place / "runs" / "report.html").exists()
    assert (place / "look-my_video" / "sheet.png").exists()


def test_every_option_exists():
    wrong = []
    for block in ours("sh", *CHECKED, *NAMED):
        for program, verb, rest in PROGRAM.findall("\n".join(block.commands)):
            module = "previts" if program == "previts" else "pipelines"
            known = set(WORDS.findall(printed_by(module, verb, "--help")))
            wrong += [f"{block.place}: {program} {verb} {word}" for word in WORDS.findall(rest) if word not in known]
    assert not wrong


def test_every_parameter_of_a_run_on_a_cluster_exists():
    found = 0
    for block in ours(*NAMED):
        for line in re.findall(r"-m pipelines (?:submit|schedule)(?: |.*?=)[^\n]*(?:\n  [^\n]*)*", block.text):
            given = [word for word in shlex.split(line.replace("\\\n", " "))[3:] if re.match(r"\w+=", word)]
            for name, _, value in (word.partition("=") for word in given):
                assert name in parameters(), f"{block.place}: {name}"
                assert value[:1] not in ("[", "{") or json.loads(value), f"{block.place}: {value}"
                found += 1
    assert found >= 20


def test_every_make_target_and_every_file_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in ours(*CHECKED, *NAMED):
        for line in block.commands:
            assert set(re.findall(r"^make ([a-z0-9-]+)", line)) <= targets, f"{block.place}: {line}"
            for name in re.findall(r"(?:tests|k8s|pipelines)/[\w./-]*\w", line):
                assert (ROOT / name).exists(), f"{block.place}: {name}"


def test_every_setting_exists():
    known = {
        line.split()[0] for line in printed_by("previts", "show", "1/vgg/previts").splitlines() if line.startswith("  ")
    }
    sections = {path.partition(".")[0] for path in known if "." in path}
    setting = re.compile(rf"(?<![\w/.])((?:{'|'.join(sections)})(?:\.[a-z0-9_]+)+)(?!\w*\.)")
    for page in PAGES:
        named = {path for code in re.findall(r"`([^`\n]+)`", prose(page)) for path in setting.findall(code)}
        assert named <= known, page
    for block in ours("sh", *CHECKED, *NAMED):
        assert set(setting.findall("\n".join(block.commands))) <= known, block.place
