"""The whole pipeline on a corpus that grows: three crawls of the demo world, copies, test items and a withdrawal.

Oracles: the requests that a web server gets, what the world was made of, and a root where nothing was killed.
"""

import csv
import functools
import http.server
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from killing import Command, content
from small_verbs import SMALL

from previts import demo
from previts.config import paper
from previts.corpus import index_table

KILLS = int(os.environ.get("PREVITS_KILLS", "12"))
CONFIG = replace(demo.TINY, seed=3, videos=9, seconds=3.0, davis_frames=24, ucf_frames=40)
ROWS, BENCHMARKS = [paper.ARMS[-1]], ["voc07"]
COPIES = ("equal", "coded", "half", "trimmed", "logo", "mirrored")
OUTPUTS = (
    "crawls", "videos", "saliency_model", "saliency", "tubes", "held_out", "leaks", "index", "checkpoints", "results"
)  # fmt: skip
# Runs the committed YAML on the embedded engine, as the engine of a cluster would get it.
COMPILED = """
import json, sys
import kfp.local
from kfp import components
arguments, engine = json.loads(sys.argv[1]), sys.argv[2]
kfp.local.init(
    kfp.local.SubprocessRunner(use_venv=False), pipeline_root=engine + "/outputs", workspace_root=engine + "/work"
)
components.load_component_from_file("pipelines/previts_full.yaml")(**arguments)
"""


@dataclass
class Site:
    """The demo world behind a web server, the folder of the crawls that arrived so far, and the requested files."""

    world: Path
    url: str
    crawls: Path
    requests: list[str] = field(default_factory=list)

    def rows(self, crawl: int) -> list[dict[str, str]]:
        with open(self.world / "crawls" / f"crawl-{crawl}.csv", newline="") as file:
            return list(csv.DictReader(file))

    def add(self, crawl: int) -> None:
        """Let a crawl arrive; its videos are at the web server."""
        rows = self.rows(crawl)
        with open(self.crawls / f"crawl-{crawl}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({**row, "url": f"{self.url}/{row['url']}"} for row in rows)

    def take(self) -> set[str]:
        """Return the files that were requested since the last call."""
        taken, self.requests[:] = set(self.requests), []
        return taken

    def named(self, crawl: int) -> set[str]:
        return {f"/{row['url']}" for row in self.rows(crawl)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    demo.make_world(str(folder / "world"), CONFIG)
    for crawl in (2, 3):
        demo.add_crawl(str(folder / "world"), CONFIG, crawl)
    (folder / "crawls").mkdir()
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    served = functools.partial(Handler, directory=str(folder / "world" / "crawls"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(folder / "world", f"http://127.0.0.1:{server.server_address[1]}", folder / "crawls", requests)
        server.shutdown()


def arguments(site: Site, root: Path) -> dict[str, str]:
    return {"root": str(root), "crawl": str(site.crawls), "data": str(site.world / "datasets")}


def run_local(site: Site, root: Path) -> list[str]:
    given = [text for name, value in arguments(site, root).items() for text in (f"--{name}", value)]
    lists = ["--rows", *ROWS, "--benchmarks", *BENCHMARKS, "--parts", "1", "--set", *SMALL]
    return [sys.executable, "-m", "pipelines", "run-local", *given, *lists]


def run_compiled(site: Site, root: Path, engine: Path) -> list[str]:
    lists = {"rows": ROWS, "benchmarks": BENCHMARKS, "set": SMALL}
    given = {**arguments(site, root), **lists, "profile": "demo", "parts": 2, "launcher": "local"}
    return [sys.executable, "-c", COMPILED, json.dumps(given), str(engine)]


def environment(site: Site) -> dict[str, str]:
    return {**os.environ, "PREVITS_TRUSTED_HOSTS": site.url.removeprefix("http://"), "OMP_NUM_THREADS": "1"}


def finish(site: Site, command: Sequence[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, env=environment(site))
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def reasons(root: Path) -> dict[str, tuple[str, str]]:
    """Return the videos that the newest index leaves out: the reason, and more about it."""
    newest = max(root.glob("index/*"), key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns)
    rows = index_table.read_quality(str(newest))
    return {row.video_id: (row.reason, row.detail) for row in rows if row.reason}


def outputs(root: Path) -> dict[str, object]:
    """Return the files of all outputs without what measures the machine. The page has such numbers, too."""
    found = {name: value for stage in OUTPUTS for name, value in content(root / stage).items()}
    return found | {path.parent.name: path.read_text() for path in root.glob("report/*/report.csv")}


@pytest.fixture(scope="module")
def first(site: Site, tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A root after the run on the first crawl."""
    root = tmp_path_factory.mktemp("first") / "root"
    root.mkdir()
    shutil.copy(mlflow_tables, root / "mlflow.db")
    site.add(1)
    finish(site, run_local(site, root))
    return root


@pytest.mark.slow
def test_a_corpus_of_three_crawls_grows_by_what_is_new_and_wanted(site: Site, first: Path, tmp_path: Path):
    root = tmp_path / "root"
    site.take()
    shutil.copytree(first, root)
    site.add(2)
    finish(site, run_compiled(site, root, tmp_path / "engine"))
    assert site.take() == site.named(2)
    withdrawn = site.rows(1)[5]["video_id"]
    program = [sys.executable, "-m", "previts", "withdraw", withdrawn, "--root", str(root), "--reason", "of its owner"]
    finish(site, program)
    site.add(3)
    finish(site, run_local(site, root))
    assert site.take() == site.named(3)
    again = finish(site, run_compiled(site, root, tmp_path / "engine again"))
    assert not re.search(r"(?<!\w)made:", again)
    assert site.take() == set()
    assert 'id="generations"' in (root / "report.html").read_text()
    left_out = reasons(root)
    unwanted = {row["video_id"]: row["video_id"].split("_", 1) for crawl in (2, 3) for row in site.rows(crawl)}
    copies = {video_id: original for video_id, (kind, original) in unwanted.items() if kind in COPIES}
    leaks = {video_id for video_id, (kind, _) in unwanted.items() if kind in ("davis", "ucf101", "voc")}
    assert (len(copies), len(leaks)) == (10, 3)
    expected = {withdrawn: "withdrawn", **dict.fromkeys(copies, "duplicate"), **dict.fromkeys(leaks, "leak")}
    assert {video_id: reason for video_id, (reason, _) in left_out.items()} == expected
    assert [video_id for video_id, original in copies.items() if original not in left_out[video_id][1]] == []


@pytest.mark.long
def test_a_run_that_is_killed_in_the_second_generation_ends_as_an_undisturbed_one(
    site: Site, first: Path, tmp_path: Path
):
    root = tmp_path / "root"  # one path for all: outputs may contain the paths of their inputs
    site.add(2)

    def run(temporary: str) -> Command:
        return Command(run_local(site, root), root, tmp_path / temporary, **environment(site))

    shutil.copytree(first, root)
    seconds = run("straight").work_seconds()
    expected = outputs(root)
    chance, killed = random.Random("the second generation"), 0
    while killed < KILLS:
        shutil.rmtree(root)
        shutil.copytree(first, root)
        command = run("killed")
        for _ in range(4):
            killed += command.kill(chance, seconds)
            assert command.orphans() == []
        assert "Traceback" not in command.finish()
        found = outputs(root)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        assert command.leftovers() == []
