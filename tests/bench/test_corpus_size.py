"""Time, memory and requests of every step for corpora of up to 10^6 videos in 10^3 crawls. Run by `make bench`.

The crawls, the tables and the manifests are those of finished runs, but there are no videos (`table_corpus.py`). They
are in a store on this disk that counts its requests (`counted_store.py`). Each step runs in a process of its own and is
printed as a line of JSON: CPU seconds, peak memory, requests, and how many of these waited for each other.

The environment variable `PREVITS_SIZE_VIDEOS` is the largest number of videos (default: 1000000, which takes 5 GB of
disk and an hour; 100000 takes a tenth of that).
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import counted_store  # noqa: F401 (it registers the protocol)
import pytest

LARGEST = int(os.environ.get("PREVITS_SIZE_VIDEOS", "1000000"))
SIZES = [size for size in ((10**4, 10), (10**5, 100), (10**6, 1000)) if size[0] <= LARGEST]
LATENCY = 0.05  # seconds of a request to a bucket
GENERATIONS = 10
OLD = ["v00000003", "v00004711"]  # videos that are withdrawn, besides those of the new crawl

PROGRAM = """
import json, sys, time
sys.path[:0] = {paths!r}
import counted_store, test_corpus_size
step = test_corpus_size.STEPS[{step!r}]
at = json.loads({at!r})
counted_store.LATENCY = {latency}
counted_store.REQUESTS.clear()
cpu, wall = time.process_time(), time.monotonic()
found = step(at) or {{}}
cpu, wall = time.process_time() - cpu, time.monotonic() - wall
with open("/proc/self/status") as status:  # `getrusage` counts the memory of the parent
    peak = int(status.read().split("VmHWM:")[1].split()[0]) / 1024
requests = dict(counted_store.REQUESTS)
print(json.dumps({{"cpu_seconds": round(cpu, 2), "seconds": round(wall, 1), "peak_mib": round(peak),
    "in_turn": requests.pop("in turn", 0), "requests": sum(requests.values()), **found}}))
"""

At = dict[str, Any]  # the outputs of a corpus, and its `crawls`, `root`, and numbers of `videos` and `shares`


def make(at: At) -> At:
    """Write the tables of a corpus."""
    from table_corpus import write_crawls, write_outputs

    write_crawls(at["crawls"], at["videos_in"], at["crawls_in"])
    return write_outputs(at["crawls"], at["root"])


def check(at: At) -> None:
    """Check a run, and list its crawls: the first two steps of the pipeline."""
    from previts.runs import check, steps

    check.check_sources(at["crawls"], None, rows=["1/vgg/moco"], benchmarks=[], profile="demo")
    steps.list_crawls(at["crawls"], at["root"])


def download(at: At) -> At:
    """Plan the download of all crawls, and download those that are new."""
    from previts import stages

    return {"videos": stages.download(at["crawls"], at["root"], "paper", _settings())}


def saliency(at: At) -> At:
    """Find the regions of new crawls."""
    from previts import stages

    return {"saliency": stages.saliency(at["videos"], at["model"], at["root"], "paper", _settings())}


def track(at: At) -> At:
    """Track the objects of new crawls."""
    from previts import stages

    return {"tubes": stages.track(at["videos"], at["saliency"], at["root"], "paper", _settings())}


def index(at: At) -> At:
    """Make the index of a corpus."""
    from previts import stages

    return {"index": stages.index(at["videos"], at["tubes"], at["root"], "paper", _settings())}


def index_equal(at: At) -> None:
    """Make the index of a corpus in which only equal copies are searched."""
    from previts import stages

    stages.index(at["videos"], at["tubes"], at["root"], "paper", [*_settings(), "filter.duplicates=equal"])


def pretrain(at: At) -> At:
    """Start a training of the paper, up to the plan of its first batch."""
    import pickle

    from previts.config import paper
    from previts.corpus.index_table import read_index
    from previts.pretraining.dataset import PairDataset
    from previts.pretraining.schedule import Schedule
    from previts.stages.addresses import checkpoint_address
    from previts.stages.checks import check_lineage

    plan = paper.resolve("1/vgg/previts", "paper", _settings())
    check_lineage("1/vgg/previts", plan, at["index"])
    checkpoint_address(plan, at["index"], at["root"])
    dataset = PairDataset(read_index(at["index"]), plan.experiment)
    optim = plan.experiment.optim
    schedule = Schedule(len(dataset), optim.batch_size, optim.epochs, plan.experiment.seed)
    for sample in schedule.samples(0):
        assert dataset.index[dataset.numbers[sample]].video_id
    with dataset.mapped() as shared:
        return {
            "table_mib": round(shared.index.table.nbytes / 2**20),
            "sent_mib": round(len(pickle.dumps(shared)) / 2**20),
        }


def report(at: At) -> None:
    """Show a corpus in a report."""
    from previts.reporting.corpus import read_corpus

    assert not read_corpus(at["index"], 0).cause


def generations(at: At) -> None:
    """Find the reports of earlier generations."""
    from previts.stages import report as _  # noqa: F401 (the module)

    found = sys.modules["previts.stages.report"]._earlier(at["index"], at["root"], "paper")
    assert len(found) == GENERATIONS - 1


STEPS: dict[str, Callable[[At], At | None]] = {
    step.__name__: step
    for step in (make, check, download, saliency, track, index, index_equal, pretrain, report, generations)
}


def add_generations(at: At) -> None:
    """Write the manifests of corpora of a part of the crawls, and of their indexes and reports."""
    from previts.corpus import members
    from previts.stages.addresses import FORMATS
    from previts.storage import files, folders

    found = members.read(at["videos"])
    for number in range(1, GENERATIONS):
        part = found[: max(1, len(found) * number // GENERATIONS)]
        decided: At = {"crawls": [folders.fingerprint_of(item.uri, "videos") for item in part]}
        decided["format"] = FORMATS["videos"]
        videos = folders.address(at["root"], "videos", "corpus", decided)
        members.write(videos, part)
        folders.commit(videos, decided, counts={"crawls": len(part)}, files=[members.MEMBERS])
        decided = {"videos": folders.fingerprint_of(videos, "videos")}
        joined = folders.address(at["root"], "index", "corpus", decided)
        folders.commit(joined, decided, inputs={"videos": videos})
        decided = {"profile": "paper", "results": [], "earlier": number}
        page = folders.address(at["root"], "report", "comparison", decided)
        folders.commit(page, decided, inputs={"index": joined})
        files.write_bytes(files.join(page, "report.csv"), b"row,metric,value\n")


def add_crawl(at: At) -> None:
    """Add a crawl whose videos are all withdrawn, so that nothing is fetched; and withdraw two old videos."""
    from previts.corpus import withdrawals
    from previts.storage import files

    new = [f"new{number}" for number in range(10)]
    for video in [*new, *OLD]:
        withdrawals.write(at["root"], withdrawals.Withdrawal(video, "a test"))
    lines = [f"{video},https://videos.example/{video}.mp4" for video in new]
    files.write_bytes(files.join(at["crawls"], "99999.csv"), "\n".join(["video_id,url", *lines]).encode())


def measure(step: str, at: At, latency: float = 0.0) -> dict[str, float]:
    """Run a step in a process of its own, print its figures, and add the outputs that it returns to `at`."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "support")]
    program = PROGRAM.format(paths=paths, step=step, at=json.dumps(at), latency=latency)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    at |= {name: value for name, value in figures.items() if isinstance(value, str)}
    figures = {name: value for name, value in figures.items() if not isinstance(value, str)}
    print(json.dumps({"step": step, "videos": at["videos_in"], "crawls": at["crawls_in"], **figures}), flush=True)
    return figures


def _settings() -> list[str]:
    from table_corpus import SETTINGS

    return SETTINGS


def _corpus(folder: Path, videos: int, crawls: int) -> At:
    base = f"counted://{folder}/{videos}-{crawls}"
    return {"crawls": f"{base}/crawls", "root": f"{base}/root", "videos_in": videos, "crawls_in": crawls}


@pytest.mark.bench
def test_time_and_memory_grow_like_the_number_of_videos(tmp_path: Path):
    figures: dict[str, list[dict[str, float]]] = {}
    for videos, crawls in SIZES:
        at = _corpus(tmp_path, videos, crawls)
        for step in ("make", "check", "download", "saliency", "track", "index", "index_equal", "pretrain", "report"):
            figures.setdefault(step, []).append(measure(step, at))
        add_generations(at)
        figures.setdefault("generations", []).append(measure("generations", at))
        add_crawl(at)
        for step in ("download", "saliency", "track", "index"):
            figures.setdefault(f"{step}, one crawl is new", []).append(measure(step, at))
        subprocess.run(["rm", "-r", str(tmp_path / f"{videos}-{crawls}")], check=True)
    added = [later[0] - earlier[0] for earlier, later in itertools.pairwise(SIZES)]
    for step, measured in figures.items():
        costs = [
            (later["cpu_seconds"] - earlier["cpu_seconds"]) / number
            for (earlier, later), number in zip(itertools.pairwise(measured), added, strict=True)
        ]
        print(f"{step}: CPU-us for each further video: {', '.join(f'{1e6 * cost:.1f}' for cost in costs)}")


@pytest.mark.bench
def test_a_step_waits_seconds_for_a_bucket_with_a_thousand_crawls(tmp_path: Path):
    at = _corpus(tmp_path, 10**4, 1000)
    measure("make", at)
    for step in ("check", "download", "saliency", "track", "index", "pretrain", "report"):
        measure(step, at, LATENCY)
    add_generations(at)
    measure("generations", at, LATENCY)
    add_crawl(at)
    for step in ("download", "saliency", "track", "index"):
        measure(step, at, LATENCY)
