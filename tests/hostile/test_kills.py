"""SIGKILL at random moments, in every verb. The oracle is a run that nobody interrupted.

`PREVITS_KILLS=100` kills a hundred times. By default each slow case has one or two kills.
"""

import os
import random
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from killing import Command, content
from small_verbs import PERCEIVE
from source_videos import numbered, write_source

KILLS = int(os.environ.get("PREVITS_KILLS", "12"))
AT_ONCE = 4  # kills before the command may end
IMAGES, CLIPS = "1/vgg/previts", "2/vgg/previts"
PERCEPTION = [
    "video.videos_per_shard=3", "fit.frames=12", "fit.size=64", "fit.width=0.125", "fit.round_epochs=2",
    "fit.fusion_epochs=10", "fit.batch_size=4", "saliency.every=6",
]  # fmt: skip
LEARNING = [
    "augment.size=64", "objective.queue_size=16", "objective.batch_norm_groups=1", "optim.batch_size=4",
    "optim.epochs=8", "evaluation.crop=64", "evaluation.resize=72", "evaluation.linear.epochs=40",
]  # fmt: skip
OF_CLIPS = ["model.width=0.125", "sampling.clip_frames=8", "sampling.clip_stride=1", "optim.epochs=4"]
TINY_WORLD = """
from dataclasses import replace
from previts import cli, demo
demo.WorldConfig = lambda seed: replace(demo.TINY, seed=seed)
cli.main()
"""


@dataclass(frozen=True)
class Case:
    """A verb: the stage that it writes, its kills of a hundred, and the options that name outputs of other stages."""

    stage: str
    share: int
    arguments: tuple[str, ...]


CASES = {
    "world": Case("world", 8, ("world",)),
    "download": Case("videos", 14, ("download", "--crawl", "{crawl}")),
    "fit_saliency": Case("saliency_model", 12, ("fit_saliency", "--videos", "{videos}")),
    "saliency": Case("saliency", 12, ("saliency", "--videos", "{videos}", "--model", "{saliency_model}")),
    "track": Case("tubes", 10, ("track", "--videos", "{videos}", "--saliency", "{saliency}")),
    "index": Case("index", 6, ("index", "--videos", "{videos}", "--tubes", "{tubes}")),
    "pretrain images": Case("checkpoints", 8, ("pretrain", "--row", IMAGES, "--index", "{index}")),
    "pretrain images, 2 processes": Case(
        "checkpoints", 5, ("pretrain", "--row", IMAGES, "--index", "{index}", "--processes", "2")
    ),
    "pretrain clips": Case("checkpoints", 6, ("pretrain", "--row", CLIPS, "--index", "{index}")),
    "pretrain clips, 2 processes": Case(
        "checkpoints", 5, ("pretrain", "--row", CLIPS, "--index", "{index}", "--processes", "2")
    ),
    "evaluate": Case(
        "results", 8,
        ("evaluate", "--row", IMAGES, "--benchmark", "in1k", "--checkpoint", "{checkpoints}", "--data", "{data}"),
    ),
    "report": Case("report", 6, ("report", "--rows", IMAGES, "--index", "{index}", "--results", "{results}")),
}  # fmt: skip
# The chain of verbs whose outputs the others read.
CHAIN = [name for name in CASES if "clips" not in name and "2 processes" not in name]


def command(name: str, root: Path, temporary: Path, **more: str) -> Command:
    """Return the command of a case on a root that has the outputs of the verbs before it."""
    case = CASES[name]
    known = {path.parent.name: str(path) for path in root.glob("*/*") if path.is_dir()}
    if "world" in known:
        known |= {"crawl": f"{known['world']}/crawls", "data": f"{known['world']}/datasets"}
    program = ["-c", TINY_WORLD] if name == "world" else ["-m", "previts"]
    settings = [*PERCEPTION, *LEARNING, *(OF_CLIPS if CLIPS in case.arguments else [])]
    if "--processes" in case.arguments:
        settings.append("objective.batch_norm_groups=2")
    options = [] if name == "world" else ["--profile", "demo", "--set", *settings]
    arguments = [argument.format(**{**known, **more}) for argument in case.arguments]
    return Command(
        [sys.executable, *program, *arguments, "--root", str(root), *options],
        root,
        temporary,
        PREVITS_CHECKPOINT_SECONDS="1",
        OMP_NUM_THREADS="1",
    )


def output(name: str, root: Path) -> Path:
    (folder,) = (root / CASES[name].stage).iterdir()
    return folder


def kill_and_compare(name: str, before: Path, tmp_path: Path, kills: int, **more: str) -> dict[str, float]:
    """Kill a command on copies of a root, and compare the output with that of a command that was not killed."""
    chance = random.Random(f"{name} {kills}")
    begun, cpu = time.monotonic(), cpu_seconds()
    place = tmp_path / "root"  # one path for all: outputs may contain the paths of their inputs
    shutil.copytree(before, place)
    straight = command(name, place, tmp_path / "straight", **more)
    seconds = straight.work_seconds()
    expected = content(output(name, place))
    killed = tried = 0
    while killed < kills:
        shutil.rmtree(place)
        shutil.copytree(before, place)
        run = command(name, place, tmp_path / "killed", **more)
        for _ in range(min(AT_ONCE, kills - killed)):
            tried += 1
            killed += run.kill(chance, seconds)
            assert run.orphans() == []
        said = run.finish()
        assert "Traceback" not in said
        found = content(output(name, place))
        assert found.keys() == expected.keys()
        assert [file for file in expected if found[file] != expected[file]] == []
        assert run.leftovers() == []
        again = run.finish()
        assert "made:" not in again
        assert "already there:" in again
        assert content(output(name, place)) == found
        assert run.leftovers() == []
    figures = {"kills": killed, "tries": tried, "wall": time.monotonic() - begun, "cpu": cpu_seconds() - cpu}
    print(f"KILLS {name}: " + ", ".join(f"{key} {value:.0f}" for key, value in figures.items()), flush=True)
    return figures


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each case, a root with the outputs of the verbs before it."""
    folder = tmp_path_factory.mktemp("roots")
    root, before = folder / "root", {}
    root.mkdir()
    for name in CHAIN:
        before[name] = folder / name
        shutil.copytree(root, before[name])
        command(name, root, folder / "temporary").finish()
    for name in CASES:
        if name.startswith("pretrain"):
            before[name] = before["pretrain images"]
    return before


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_verb_that_is_killed_and_repeated_makes_what_an_undisturbed_one_makes(
    name: str, roots: dict[str, Path], tmp_path: Path
):
    kill_and_compare(name, roots[name], tmp_path, max(1, round(CASES[name].share * KILLS / 100)))


def test_a_download_that_is_killed_twice_makes_what_an_undisturbed_one_makes(tmp_path: Path):
    crawl, root = tmp_path / "crawl", tmp_path / "empty"
    crawl.mkdir()
    root.mkdir()
    for number in range(4):
        write_source(crawl / f"{number}.mp4", [numbered(number * 20 + frame) for frame in range(20)])
    figures = kill_and_compare("download", root, tmp_path, 2, crawl=str(crawl))
    assert figures["kills"] == 2


@pytest.mark.slow
def test_a_corpus_that_grows_and_is_killed_ends_as_an_undisturbed_one(tmp_path: Path):
    crawls, root = tmp_path / "crawls", tmp_path / "root"
    (crawls / "videos").mkdir(parents=True)
    root.mkdir()
    for number in range(6):
        frames = [numbered(100 * number + frame) for frame in range(12)]
        write_source(crawls / "videos" / f"{number}.mp4", frames, fps=12)

    def perceive(temporary: str) -> Command:
        settings = [*PERCEPTION, "saliency.method=rbd", "video.videos_per_shard=1"]
        return Command([sys.executable, "-c", PERCEIVE, str(crawls), str(root), *settings], root, tmp_path / temporary)

    def add(name: str, *numbers: int) -> None:
        lines = [f"{number},videos/{number}.mp4" for number in numbers]
        (crawls / name).write_text("\n".join(["video_id,url", *lines]) + "\n")

    add("1.csv", 0, 1, 2)
    perceive("first").finish()
    before = tmp_path / "before"
    shutil.copytree(root, before)
    add("2.csv", 3, 4)
    add("3.csv", 5)
    seconds = perceive("straight").work_seconds()
    expected = content(root)
    chance, run = random.Random("a corpus that grows"), perceive("killed")
    for _ in range(max(2, KILLS // 10)):
        shutil.rmtree(root)
        shutil.copytree(before, root)
        while not run.kill(chance, seconds):
            shutil.rmtree(root)
            shutil.copytree(before, root)
        assert run.orphans() == []
        assert "Traceback" not in run.finish()
        found = content(root)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        assert run.leftovers() == []
