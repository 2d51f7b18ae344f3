"""Precision and recall of the search for copies, on real clips, on synthetic ones and on copies. Run by `make bench`.

Each real clip is normalised, and so are eight copies of it: of the seven kinds of `video_copies.COMMON`, and of one of
the other kinds. The clips and then the copies are one corpus, oldest first. A copy is found if it leads to its clip.
The thresholds were chosen on one half of the clips ("tuned"), so the other half ("held out") tells how good they are.
A clip that leads to another one takes its copies along, which count as wrong too.

Most clips of UCF-101 here show people in front of one wall, before one camera that does not move. They are the hardest
case, and are counted apart too ("one wall"). Clips of one source that overlap in time are copies of each other.

Of each synthetic video, two copies are made. `PREVITS_BENCH_OUT` is a folder that keeps the hashes for the next run.
"""

import csv
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_copies import COMMON, KINDS, Clip, copy_of, read_clip, real_clips, write

from previts.config.perception import VideoConfig
from previts.corpus.copies import Copy, Video, find_copies
from previts.demo.config import WorldConfig
from previts.demo.world import film, plan_videos
from previts.errors import VideoError
from previts.media import normalisation

WORKERS, SEEDS, SYNTHETIC = 2, (0, 1), 200
ORIGINAL = "original"
OTHERS = [kind for kind in KINDS if kind not in COMMON]
IN_A_WORLD = COMMON[:5]
Row = tuple[int, str, str, str]  # number and name of the clip, kind, hashes as text
# Clips of one source that overlap, as their frames show; the manifest of the crawl names two sources.
REPEATS = ({"c031_bear", "davis_bear"}, {"c119_Cat", "c120_Cat"})


def hashes_of(number: int, clip: Clip, kinds: Sequence[str]) -> list[Row]:
    """Return the rows of a clip and of its copies."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (ORIGINAL, *kinds):
            source = Path(folder) / "source.mp4"
            copy = clip if kind == ORIGINAL else copy_of(clip, kind)
            if len(copy.frames) < 2:
                continue
            write(copy, source)
            try:
                info = normalisation.normalise(str(source), f"{folder}/target.mp4", VideoConfig(), None, None)
            except VideoError:
                continue
            rows.append((number, clip.name, kind, info.hashes.hex()))
    return rows


def of_real_clip(number: int, path: Path) -> list[Row]:
    return hashes_of(number, read_clip(path), (*COMMON, OTHERS[number % len(OTHERS)]))


def of_synthetic_video(number: int, config: WorldConfig) -> list[Row]:
    plan = plan_videos(config)[number]
    images = [np.ascontiguousarray(frame.image) for frame in film(config, plan)]
    clip = Clip(plan.video_id, images, Fraction(plan.fps).limit_denominator(1001))
    return hashes_of(number, clip, [IN_A_WORLD[(number + step) % len(IN_A_WORLD)] for step in (0, 2)])


def kept_rows(name: str, function: Callable[[int, Any], list[Row]], clips: Sequence[Any]) -> list[Row]:
    """Return the rows of all clips, the originals first; those of an earlier run if they were kept."""
    kept = Path(os.environ.get("PREVITS_BENCH_OUT", tempfile.mkdtemp())) / f"hashes-{name}.json"
    if not kept.exists():
        with ProcessPoolExecutor(WORKERS, get_context("spawn"), os.nice, (10,)) as pool:
            rows = [row for rows in pool.map(function, range(len(clips)), clips) for row in rows]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows))
    rows = [(number, name, kind, text) for number, name, kind, text in json.loads(kept.read_text())]
    return sorted(rows, key=lambda row: row[2] != ORIGINAL)


def copies_of(rows: Sequence[Row]) -> list[Copy]:
    return find_copies([Video(str(n), "", None, None, bytes.fromhex(row[3])) for n, row in enumerate(rows)])


def overlapping(data: Path) -> Iterator[set[str]]:
    """Yield the pairs of clips that show one source at the same time."""
    yield from REPEATS
    of_source: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    with open(data / "crawl" / "manifest.csv") as file:
        for row in csv.DictReader(file):
            start = float(row["src_start_s"] or 0)
            of_source[row["source"]].append((start, start + min(8, float(row["seconds"])), row["id"]))
    for clips in of_source.values():
        for one in clips:
            for other in clips:
                # Less than a second is not enough to be found.
                if one < other and min(one[1], other[1]) - other[0] >= 1:
                    yield {one[2], other[2]}


@pytest.mark.bench
def test_copies_of_real_clips(real_data: Path):
    rows = kept_rows("real", of_real_clip, real_clips(real_data))
    lead = {copy.video: rows[copy.original] for copy in copies_of(rows)}
    first = {row[1]: row[1] for row in rows}
    for one, other in map(sorted, overlapping(real_data)):
        if one in first and other in first:
            first[other] = first[one]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number, row in enumerate(rows):
        right = number in lead and first[lead[number][1]] == first[row[1]]
        half = "tuned" if row[0] // 12 % 2 == 0 else "held out"
        wall = "one wall" if "Yoga" in row[1] else "other clips"
        if row[2] == ORIGINAL:
            counts["originals"]["made"] += 1
            if number in lead:
                print(f"original {row[1]} -> {lead[number][1]}: {'overlaps' if right else 'WRONG'}")
                counts["originals"]["wrong"] += not right
            continue
        common = "the seven kinds" if row[2] in COMMON else "other kinds"
        for group in ("all", half, wall, f"{half}, {wall}", common, f"{half}, {common}", row[2], f"{half}: {row[2]}"):
            counts[group]["made"] += 1
            counts[group]["right"] += right
            counts[group]["wrong"] += number in lead and not right
    for group, count in sorted(counts.items()):
        called, made, right = count["right"] + count["wrong"], count["made"], count["right"]
        if group == "originals":
            print(f"originals: {made}, of which {count['wrong']} are taken for copies of another one")
        else:
            print(f"{group:48s} {made:4d} recall {right / made:.3f} precision {right / max(1, called):.3f}")
    alone = [row for row in rows if row[2] == ORIGINAL]
    for copy in copies_of(alone):
        one, other = alone[copy.original][1], alone[copy.video][1]
        print(f"without any copy: {other} -> {one}: {'overlaps' if first[one] == first[other] else 'WRONG'}")
    assert set(KINDS) <= set(counts)


@pytest.mark.bench
@pytest.mark.parametrize("seed", SEEDS)
def test_copies_of_synthetic_videos(seed):
    config = WorldConfig(seed=seed, videos=SYNTHETIC)
    rows = kept_rows(f"synthetic-{seed}", of_synthetic_video, [config] * config.videos)
    lead = {copy.video: rows[copy.original] for copy in copies_of(rows)}
    made, right, wrong = Counter[str](), Counter[str](), Counter[str]()
    for number, row in enumerate(rows):
        made[row[2]] += 1
        right[row[2]] += number in lead and lead[number][1] == row[1]
        wrong[row[2]] += number in lead and lead[number][1] != row[1]
    for kind in sorted(made):
        print(f"seed {seed}: {kind:20s} {made[kind]:4d}, found {right[kind]:4d}, wrong {wrong[kind]:4d}")
    assert made[ORIGINAL] == SYNTHETIC
