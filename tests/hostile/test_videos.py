"""Hostile videos through the real `previts download`. Oracle: the number that each frame of a source shows."""

import contextlib
import csv
import itertools
import re
import resource
import statistics
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pytest
from making import read_picture
from videos import catalogue

from previts.config.perception import VideoConfig
from previts.corpus import video_table
from previts.errors import VideoError
from previts.ingest.fetch import Limits
from previts.ingest.sandbox import Normaliser
from previts.storage import folders

SAMPLE = 10  # default CI: every tenth video of each kind, and the bombs that are quick to write
RAW = re.compile(r"Error\b|Traceback|Errno|Invalid argument|\bav\.|NoneType|division")  # texts that are not ours


def download(videos, folder):
    """Run the verb on a crawl of these videos; return its rows by name, and its folder."""
    crawl = folder / "crawl.csv"
    with open(crawl, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "url", "start_seconds", "end_seconds", "label", "split"])
        for video in videos:
            path = folder / video.name
            video.make(path)
            writer.writerow([video.name, path, video.start, video.end, video.kind, "train"])
    command = [
        sys.executable,
        "-c",
        "from previts.cli import main; main()",
        "download",
        "--crawl",
        str(crawl),
        "--root",
        str(folder / "root"),
    ]
    command += ["--max-failure-fraction", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    uri = done.stdout.strip().splitlines()[-1]
    shards = int(folders.read_manifest(uri).counts["shards"])
    rows = [row for shard in range(shards) for row in video_table.read_shard(uri, shard)]
    assert [row.video_id for row in rows] == [video.name for video in videos]
    return rows, uri


def content(row, uri):
    """Return the numbers that a stored video shows, without repeats, and what is wrong with them."""
    frames = video_table.read_frames(uri, row, list(range(row.num_frames)))
    shown = [read_picture(frame) for frame in frames]
    distinct = [number for number, _ in itertools.groupby(shown)]
    if None in shown:
        return distinct, f"frame {shown.index(None)} of {row.num_frames} is not a frame of the source"
    return distinct, "" if distinct == sorted(set(distinct)) else f"wrong order: {distinct}"


def fault(video, row, uri):
    """Return what is wrong with the outcome of a video, or ""."""
    if row.status == "failed":
        if RAW.search(row.error) or re.search("twice", row.error):
            return f"not our reason: {row.error}"
        if video.right in ("true", "said", "damaged"):
            return ""
        if isinstance(video.right, list) or not re.search(video.right, row.error):
            return f"refused: {row.error}"
        return ""
    distinct, untrue = content(row, uri)
    if video.right == "damaged":
        return ""
    if untrue:
        return untrue
    if isinstance(video.right, list):
        lost = set(video.right) - set(distinct)
        if 0 < len(lost) == row.skipped_frames and set(distinct) < set(video.right):
            return ""  # the decoder dropped frames, and the table says so
        return "" if distinct == video.right else f"other frames: {distinct}"
    if video.right == "said" and distinct != list(range(50)) and not row.missing_seconds:
        return f"silently shortened to {distinct[-1] + 1} frames"
    return "" if video.right == "said" or "true" in video.right else "stored, but to be refused"


def test_a_sample_of_the_hostile_videos(tmp_path):
    seen = Counter()
    chosen = []
    for video in catalogue():
        if seen[video.kind] % SAMPLE == 0 and not video.name.startswith(("bomb-png.mov", "sparse.mp4")):
            chosen.append(video)
        seen[video.kind] += 1
    assert len(seen) > 30
    rows, uri = download(chosen, tmp_path)
    faults = {video.name: fault(video, row, uri) for video, row in zip(chosen, rows, strict=True)}
    assert {name: what for name, what in faults.items() if what} == {}


@pytest.mark.long
def test_all_hostile_videos_and_what_they_cost(tmp_path):
    videos = catalogue()
    assert len(videos) >= 400
    rows, uri = download(videos, tmp_path)
    faults = {video.name: fault(video, row, uri) for video, row in zip(videos, rows, strict=True)}
    used = costs(videos, tmp_path)
    seconds = sorted((cpu, video.name) for (cpu, _), video in zip(used, videos, strict=True))
    peaks = sorted((peak, video.name) for (_, peak), video in zip(used, videos, strict=True))
    print(Counter((video.kind, row.status) for video, row in zip(videos, rows, strict=True)))
    print(Counter(row.status for row in rows), folders.read_manifest(uri).counts)
    print("CPU seconds: median", statistics.median(cpu for cpu, _ in seconds), "most", seconds[-8:])
    print("99 %:", seconds[int(0.99 * len(seconds))], "peak MiB: most", peaks[-8:])
    damaged = [(video, row) for video, row in zip(videos, rows, strict=True) if video.right == "damaged"]
    hidden = [row.video_id for _, row in damaged if row.status == "ok" and content(row, uri)[1]]
    print("damaged:", Counter(row.status for _, row in damaged), "with untrue frames:", len(hidden), hidden)
    assert {name: what for name, what in faults.items() if what} == {}
    assert seconds[-1][0] < 90
    assert peaks[-1][0] < Limits().memory_bytes >> 20


def costs(videos, folder):
    """Return the CPU seconds and the peak memory in MiB of decoding each video in the sandbox."""
    found = []
    with ThreadPoolExecutor(1) as pool, Normaliser(VideoConfig()) as normaliser:
        for video in videos:
            before, peak = cpu_seconds(), reset_peak()
            arguments = (str(folder / video.name), str(folder / "target.mp4"), video.start, video.end)
            decoding = pool.submit(normaliser.normalise, *arguments)
            while not wait([decoding], 0.02).done:
                peak = peak_mib() or peak  # a child that exceeds a limit is soon gone
            assert isinstance(decoding.exception(), VideoError | None)
            found.append((cpu_seconds() - before, peak_mib() or peak))
    return found


def cpu_seconds():
    """Return the CPU seconds of all children of this process, ended or not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [child.cpu_times() for child in psutil.Process().children()]
    return ended.ru_utime + ended.ru_stime + sum(times.user + times.system for times in alive)


def reset_peak():
    for child in psutil.Process().children():
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")
    return 0


def peak_mib():
    """Return the peak memory of the decoder, or 0 if there is none now."""
    for child in psutil.Process().children():
        with contextlib.suppress(OSError):
            if found := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text()):
                return int(found[1]) >> 10
    return 0
