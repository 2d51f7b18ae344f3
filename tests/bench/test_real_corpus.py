"""Tubes of a real crawl by the verbs: counts, overlap with the objects, and cost.

Run by `make bench`. `PREVITS_BENCH_ROOT` is the folder for results, from which an interrupted run resumes.
`PREVITS_BENCH_PROFILE` is the profile, and `PREVITS_BENCH_SET` contains changed settings, separated by blanks. The
default is the paper's profile with a handcrafted prior, because DRN-D-105 needs a GPU.
"""

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from previts import stages
from previts.corpus import index_table, truth
from previts.reporting import corpus
from previts.storage import folders

PROFILE = os.environ.get("PREVITS_BENCH_PROFILE", "paper")
SET = os.environ.get("PREVITS_BENCH_SET", "saliency.method=rbd").split()


def cpu_seconds() -> float:
    """Return the CPU time of this process and its finished children."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@pytest.mark.bench
def test_tubes_of_a_real_crawl(real_data: Path):
    root = os.environ.get("PREVITS_BENCH_ROOT") or tempfile.mkdtemp(prefix="previts-bench-")
    figures: dict[str, float] = {}

    def timed(name: str, work: Callable[[], str]) -> str:
        cpu, wall = cpu_seconds(), time.monotonic()
        uri = work()
        figures[f"{name}_cpu_seconds"] = round(cpu_seconds() - cpu, 2)
        figures[f"{name}_wall_seconds"] = round(time.monotonic() - wall, 2)
        return uri

    videos = timed("download", lambda: stages.download(str(real_data / "crawl"), root, PROFILE, SET))
    model = timed("fit_saliency", lambda: stages.fit_saliency(videos, root, PROFILE, SET))
    regions = timed("saliency", lambda: stages.saliency(videos, model, root, PROFILE, SET))
    followed = timed("track", lambda: stages.track(videos, regions, root, PROFILE, SET))
    index = timed("index", lambda: stages.index(videos, followed, root, PROFILE, SET))
    for name, uri in (("crawl", videos), ("fit", model), ("index", index)):
        figures |= {f"{name}_{key}": value for key, value in folders.read_manifest(uri).counts.items()}
    scores, cause = corpus.score_index(
        read := index_table.read_index(index), truth.find_truths([crawl.videos for crawl in read.crawls])
    )
    assert scores, cause
    mean = truth.mean_score(list(scores.values()))
    figures |= {"clips_with_truth": len(scores), "iou_all_frames": round(mean.iou, 3)}
    figures |= {
        "iou_tracked_frames": round(mean.tracked_iou or 0, 3),
        "share_of_frames_tracked": round(mean.tracked, 3),
    }
    print(json.dumps({"profile": PROFILE, "set": SET, "root": root, **figures}, indent=1))
