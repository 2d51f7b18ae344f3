"""What continuing a model on a grown corpus reaches, next to training from scratch. Run by `make bench`.

The corpus is the synthetic world: its first videos are the first crawl, the others the second one. Objects are found
once, by a handcrafted prior. For each seed the row is trained on the first crawl, and then on both: from scratch, from
scratch for a quarter of the epochs, and continued for a quarter of the epochs. Only the training's seed changes.

`PREVITS_BENCH_ROOT` is the folder for results, from which an interrupted run resumes; a training that was finished
before then has no CPU seconds. `PREVITS_BENCH_SEEDS` contains the seeds, `PREVITS_BENCH_VIDEOS` the numbers of videos
of the first crawl and of both, and `PREVITS_BENCH_SET` changed settings, all separated by blanks.
"""

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from previts import stages
from previts.config import paper
from previts.demo import WorldConfig
from previts.demo.world import make_world
from previts.evals.result import read_result
from previts.runs import steps
from previts.storage import folders

ROW, PROFILE, BENCHMARKS = "1/vgg/previts", "demo", ("voc07", "in1k", "davis")
SHOWN = ("voc07/map", "in1k/top1", "davis/j_mean")
SEEDS = os.environ.get("PREVITS_BENCH_SEEDS", "0 1 2").split()
FIRST, ALL = map(int, os.environ.get("PREVITS_BENCH_VIDEOS", "72 108").split())
SET = ["saliency.method=rbd", *os.environ.get("PREVITS_BENCH_SET", "").split()]


def perceive(crawls: Path, root: str) -> str:
    """Run the verbs up to the index on all crawls of a folder, and return the index."""
    videos = stages.download(steps.list_crawls(str(crawls), root), root, PROFILE, SET)
    model = stages.fit_saliency(videos, root, PROFILE, SET)
    tubes = stages.track(videos, stages.saliency(videos, model, root, PROFILE, SET), root, PROFILE, SET)
    return stages.index(videos, tubes, root, PROFILE, SET)


def shown(values: Sequence[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{statistics.mean(values):8.3f} +- {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


@pytest.mark.bench
def test_continuing_next_to_training_from_scratch() -> None:
    base = Path(os.environ.get("PREVITS_BENCH_ROOT") or tempfile.mkdtemp(prefix="previts-bench-"))
    root, source, crawls = str(base / "root"), base / "world", base / "crawls"
    if not (source / "crawl.csv").exists():
        make_world(str(source), WorldConfig(videos=ALL, bad_items=False))
    crawls.mkdir(exist_ok=True)
    for name in ("videos", "masks"):
        if not (crawls / name).exists():
            (source / name).rename(crawls / name)
    head, *lines = (source / "crawl.csv").read_text().splitlines(keepends=True)
    (crawls / "1.csv").write_text(head + "".join(lines[:FIRST]))
    (crawls / "2.csv").unlink(missing_ok=True)
    before = perceive(crawls, root)
    (crawls / "2.csv").write_text(head + "".join(lines[FIRST:]))
    after = perceive(crawls, root)
    counts = [folders.read_manifest(index).counts for index in (before, after)]
    print([{name: found[name] for name in ("videos", "videos_with_tube", "hours")} for found in counts])

    epochs = paper.resolve(ROW, PROFILE, SET).experiment.optim.epochs
    quarter = f"optim.epochs={epochs // 4}"
    arms = {
        "generation 1": (before, []),
        "scratch": (after, []),
        "scratch, quarter": (after, [quarter]),
        "continued, quarter": (after, [quarter, "model.start=previous"]),
    }
    found = defaultdict[str, dict[str, list[float]]](lambda: defaultdict(list))
    for seed in SEEDS:
        trained: dict[str, str] = {}
        for arm, (index, more) in arms.items():
            settings, started = [*SET, f"seed={seed}", *more], time.process_time()
            trained[arm] = checkpoint = stages.pretrain(ROW, index, root, PROFILE, settings)
            numbers = {"CPU seconds of training": time.process_time() - started}
            numbers["steps"] = folders.read_manifest(checkpoint).counts["steps"]
            for benchmark in BENCHMARKS:
                result = stages.evaluate(ROW, benchmark, checkpoint, str(source / "datasets"), root, PROFILE, settings)
                measured = read_result(result).metrics
                numbers |= {key: value for key in SHOWN if (value := measured.get(key)) is not None}
            print(f"seed {seed}, {arm}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
            for key, value in numbers.items():
                found[arm][key].append(value)
        continued = folders.read_manifest(trained["continued, quarter"])
        assert continued.inputs["previous"] == trained["generation 1"]

    for arm, numbers_of in found.items():
        print(f"{arm:20s} " + ", ".join(f"{key} {shown(values)}" for key, values in numbers_of.items()))
    for arm, other in (
        ("continued, quarter", "scratch"),
        ("continued, quarter", "scratch, quarter"),
        ("continued, quarter", "generation 1"),
        ("scratch", "generation 1"),
    ):
        for key in SHOWN:
            pairs = zip(found[arm][key], found[other][key], strict=True)
            print(f"{arm} - {other}: {key} {shown([one - another for one, another in pairs])}")
