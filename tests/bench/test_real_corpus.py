"""A real crawl through the verbs: what is found, how well it lies on the objects, and what it costs.

Run by `make bench`; `PREVITS_BENCH_ROOT` keeps the results (and is where an interrupted run goes on).
"""

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from previts import index as corpus
from previts import masks, stages, storage, tubes

PROFILE = os.environ.get("PREVITS_BENCH_PROFILE", "paper")


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
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

    videos = timed("download", lambda: stages.download(str(real_data / "crawl"), root, PROFILE))
    model = stages.fit_saliency(videos, root, PROFILE)
    regions = timed("saliency", lambda: stages.saliency(videos, model, root, PROFILE))
    followed = timed("track", lambda: stages.track(videos, regions, root, PROFILE))
    index = timed("index", lambda: stages.index(videos, followed, root))
    for name, uri in (("crawl", videos), ("index", index)):
        figures |= {f"{name}_{key}": value for key, value in storage.read_manifest(uri).counts.items()}

    everywhere, where_tracked, tracked = [], [], []
    for row in corpus.read_index(index):
        folder = real_data / "crawl_masks" / row.video_id
        if not folder.is_dir():
            continue
        files = sorted(folder.glob("*.png"))
        tube = tubes.read_tube(followed, row.shard, row.tube_offset, row.tube_size)
        scores = []
        for frame in range(row.num_frames):
            file = files[min(round(frame * len(files) / row.num_frames), len(files) - 1)]
            truth = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0
            mask = tube.mask(frame)
            truth = cv2.resize(truth.astype(np.uint8), mask.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            scores.append((masks.iou(mask, truth), mask.any()))
        everywhere.append(np.mean([score for score, _ in scores]))
        where_tracked.append(np.mean([score for score, found in scores if found] or [0.0]))
        tracked.append(np.mean([found for _, found in scores]))
    figures["clips_with_truth"] = len(everywhere)
    figures["iou_all_frames"] = round(float(np.mean(everywhere)), 3)
    figures["iou_tracked_frames"] = round(float(np.mean(where_tracked)), 3)
    figures["share_of_frames_tracked"] = round(float(np.mean(tracked)), 3)
    print(json.dumps({"profile": PROFILE, "root": root, **figures}, indent=1))
