"""Precision and recall of the search for copies, on real clips and on copies made of them. Run by `make bench`.

Each clip is normalised, and so are three copies of it, of the kinds of `video_copies.KINDS`. The clips and then the
copies are one corpus, oldest first. A copy is found if it leads to its clip. The thresholds were chosen on one half of
the clips ("tuned"), so the other half ("held out") tells how good they are.

Most clips of UCF-101 here show people in front of one wall, before one camera that does not move. They are the hardest
case, and are counted apart too ("one wall"). Clips of one source that overlap in time are copies of each other.
`PREVITS_BENCH_OUT` is a folder that keeps the hashes for the next run.
"""

import csv
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from video_copies import KINDS, copy_of, kinds_of, read_clip, real_clips, write

from previts.config.perception import VideoConfig
from previts.corpus.copies import Video, find_copies
from previts.errors import VideoError
from previts.media import normalisation

COPIES, WORKERS = 3, 2
ORIGINAL = "original"
# Clips of one source that overlap, as their frames show; the manifest of the crawl names two sources.
REPEATS = ({"c031_bear", "davis_bear"}, {"c119_Cat", "c120_Cat"})


def hashes_of(number: int, path: Path) -> list[tuple[int, str, str, str]]:
    """Return (number, name, kind, hashes as text) of a clip and its copies."""
    clip, rows = read_clip(path), []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (ORIGINAL, *kinds_of(number, COPIES)):
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


def all_hashes(data: Path) -> list[tuple[int, str, str, str]]:
    kept = Path(os.environ.get("PREVITS_BENCH_OUT", tempfile.mkdtemp())) / "hashes.json"
    if not kept.exists():
        clips = real_clips(data)
        with ProcessPoolExecutor(WORKERS, get_context("spawn"), os.nice, (10,)) as pool:
            rows = [row for rows in pool.map(hashes_of, range(len(clips)), clips) for row in rows]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows))
    return [(number, name, kind, text) for number, name, kind, text in json.loads(kept.read_text())]


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
    rows = sorted(all_hashes(real_data), key=lambda row: row[2] != ORIGINAL)
    found = find_copies([Video(str(n), "", None, None, bytes.fromhex(row[3])) for n, row in enumerate(rows)])
    lead = {copy.video: rows[copy.original] for copy in found}
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
        for group in ("all", half, wall, f"{half}, {wall}", row[2], f"{half}: {row[2]}"):
            counts[group]["made"] += 1
            counts[group]["right"] += right
            counts[group]["wrong"] += number in lead and not right
    for group, count in sorted(counts.items()):
        called, made, right = count["right"] + count["wrong"], count["made"], count["right"]
        if group == "originals":
            print(f"originals: {made}, of which {count['wrong']} are taken for copies of another one")
        else:
            print(f"{group:48s} {made:4d} recall {right / made:.3f} precision {right / max(1, called):.3f}")
    assert set(KINDS) <= set(counts)
