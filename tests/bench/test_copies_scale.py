"""Seconds and memory of the search for copies among 10^5 and 10^6 synthetic videos. Run by `make bench`.

A video has 20 random hashes that change from frame to frame, as those of a moving scene do. One of a hundred is a copy
of an older one: mirrored, cut, and with changed bits. One of ten begins with a title that many share.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from previts.media.frame_hashes import MIRROR, mirrored_steps

FRAMES, COPIES, TITLES = 20, 100, 10

PROGRAM = """
import json, resource, sys, time
sys.path[:0] = {paths!r}
from test_copies_scale import synthetic
from previts.corpus import copies
videos, truth = synthetic({count})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.process_time()
found = copies.find_copies(videos)
seconds = time.process_time() - start
pairs = {{(copy.video, copy.original) for copy in found}}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"videos": len(videos), "cpu_seconds": round(seconds, 1), "peak_mib": round(peak),
    "videos_mib": round(before), "recall": len(pairs & truth) / len(truth), "wrong": len(pairs - truth)}}))
"""


def synthetic(count: int):
    """Return videos, and the pairs (copy, original) among them."""
    from previts.corpus.copies import Video

    generator = np.random.default_rng(0)
    hashes = generator.integers(1, 1 << 63, (count, FRAMES, 6), dtype=np.uint64)
    hashes ^= hashes << np.uint64(1)
    # Neighbouring frames differ in about a quarter of the bits.
    for frame in range(1, FRAMES):
        hashes[:, frame] = hashes[:, frame - 1] ^ (hashes[:, frame] & np.roll(hashes[:, frame], 1, axis=0))
    hashes[:, :, 4:] &= ~hashes[:, :, 2:4]  # what rises does not fall
    titles = np.arange(0, count, TITLES)
    hashes[titles, :4] = hashes[0, :4]
    copies = np.arange(COPIES - 1, count, COPIES)
    originals = generator.integers(0, copies // COPIES * COPIES + 1)
    originals -= originals % COPIES == COPIES - 1
    originals = np.maximum(originals, 0)
    changed = hashes[originals, 4:]
    noise = np.bitwise_and.reduce(generator.integers(0, 1 << 63, (4, *changed.shape), dtype=np.uint64))
    noise[:, :, 2:] &= changed[:, :, 2:]
    changed ^= noise
    mirrored = generator.random(len(copies)) < 0.5
    turned = changed[mirrored]
    turned[:, :, :2] ^= MIRROR
    turned[:, :, 2:] = mirrored_steps(turned[:, :, 2:].reshape(-1, 4)).reshape(*turned.shape[:2], 4)
    changed[mirrored] = turned
    hashes[copies, :16], hashes[copies, 16:] = changed, 0
    videos = [Video(str(number), "", None, None, b"\0" + hashes[number].tobytes()) for number in range(count)]
    return videos, set(zip(copies.tolist(), originals.tolist(), strict=True))


@pytest.mark.bench
def test_the_time_grows_like_the_number_of_videos():
    figures = []
    for count in (10**5, 10**6):
        program = PROGRAM.format(paths=[str(Path(__file__).parent)], count=count)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        figures.append(json.loads(done.stdout))
        print(json.dumps(figures[-1]))
    # All pairs would cost a hundred times as much; sorting, and arrays larger than the caches, cost more than ten.
    assert figures[1]["cpu_seconds"] < 40 * figures[0]["cpu_seconds"]
