"""Oracles: the tar as Python reads it, a second build of the same crawl, and rows that must be conserved."""

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from odd_videos import OddVideo
from source_videos import read_number

from previts.config.perception import VideoConfig
from previts.corpus import video_table
from previts.errors import InputError
from previts.ingest import crawls, shards
from previts.ingest.crawls import CrawlItem
from previts.ingest.fetch import Limits
from previts.media import frame_hashes, normalisation

CONFIG = VideoConfig()
QUICK = Limits(attempts=1)


def item(video_id, url, start=None, end=None):
    return CrawlItem(video_id, str(url), start, end, f"label of {video_id}", "train")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three videos of moving noise, and files that are not videos."""
    folder = tmp_path_factory.mktemp("sources")
    for number, length in enumerate((40, 25, 13)):
        base = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        frames = [np.roll(base, (shift, 2 * shift), (0, 1)) for shift in range(length)]
        normalisation.encode_video(frames, 25, str(folder / f"{number}.mp4"))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video\n" * 100)
    return folder


@pytest.fixture(scope="module")
def items(sources):
    return [
        item("one", sources / "0.mp4"),
        item("empty", sources / "empty.mp4"),
        item("a/two", sources / "1.mp4", 0.2, 0.8),
        item("gone", sources / "gone.mp4"),
        item("three", sources / "2.mp4"),
        item("text", sources / "text.mp4"),
        item("x" * 150, sources / "2.mp4"),  # too long for a plain tar header
    ]


@pytest.fixture(scope="module")
def built(items, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("videos"))
    return uri, shards.build_shard(items, 3, uri, CONFIG, limits=QUICK)


def test_every_item_of_the_crawl_is_a_row_in_its_order(built, items):
    uri, rows = built
    assert [row.video_id for row in rows] == [item.video_id for item in items]
    assert [(row.url, row.label, row.split, row.shard) for row in rows] == [
        (item.url, item.label, item.split, 3) for item in items
    ]
    assert [row.status for row in rows] == ["ok", "failed", "ok", "failed", "ok", "failed", "ok"]
    assert [row.num_frames for row in rows] == [40, 0, 15, 0, 13, 0, 13]
    for row in rows:
        assert bool(row.error) == (row.status == "failed")
    assert "empty" in rows[1].error
    assert "no such file" in rows[3].error
    assert "not a readable video" in rows[5].error
    assert video_table.read_shard(uri, 3) == rows
    assert video_table.is_done(uri, 3)
    assert not video_table.is_done(uri, 2)
    assert sorted(os.listdir(uri)) == ["shard-00003.parquet", "shard-00003.tar"]


def test_offsets_and_digests_are_those_of_the_files_in_the_tar(built):
    uri, rows = built
    data = Path(uri, video_table.tar_name(3)).read_bytes()
    usable = [row for row in rows if row.status == "ok"]
    with tarfile.open(Path(uri, video_table.tar_name(3))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"{row.video_id}.mp4" for row in usable]
        for member, row in zip(members, usable, strict=True):
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")
            stored = archive.extractfile(member).read()
            assert data[row.offset : row.offset + row.size] == stored
            assert hashlib.sha256(stored).hexdigest() == row.sha256


def test_rows_have_the_digest_and_window_of_the_source_and_the_hashes_of_the_frames(built, items):
    _, rows = built
    for row, wanted in zip(rows, items, strict=True):
        path = Path(wanted.url)
        # The file without bytes is refused before it is read; the text is fetched and cannot be decoded.
        fetched = path.exists() and path.stat().st_size > 0
        assert row.source_sha256 == (hashlib.sha256(path.read_bytes()).hexdigest() if fetched else "")
        assert (row.start_seconds, row.end_seconds) == (wanted.start_seconds, wanted.end_seconds)
        assert frame_hashes.is_valid(row.hashes)
        count = -(-row.num_frames // 6.25)  # of frames on screen at 0, 0.25, 0.5 s, ..., at 25 frames a second
        assert len(row.hashes) == (1 + frame_hashes.HASH_BYTES * count if row.status == "ok" else 0)


def test_the_same_crawl_gives_the_same_bytes_with_any_number_of_workers(built, items, tmp_path):
    uri, rows = built
    assert shards.build_shard(items, 3, str(tmp_path), CONFIG, limits=QUICK, workers=1) == rows
    assert (tmp_path / video_table.tar_name(3)).read_bytes() == Path(uri, video_table.tar_name(3)).read_bytes()


def test_an_object_store_gets_the_same_shard(built, items):
    uri, rows = built
    fs = fsspec.filesystem("memory")
    try:
        assert shards.build_shard(items, 3, "memory://videos", CONFIG, limits=QUICK) == rows
        assert video_table.read_shard("memory://videos", 3) == rows
        np.testing.assert_array_equal(
            video_table.read_frames("memory://videos", rows[0], [1, 30, 14]),
            video_table.read_frames(uri, rows[0], [1, 30, 14]),
        )
        with pytest.raises(InputError, match="missing"):
            video_table.read_frames("memory://elsewhere", rows[0], [0])
    finally:
        fs.rm("/videos", recursive=True)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (64, 1), (65, 2), (129, 3)])
def test_every_item_is_in_exactly_one_shard(count, expected):
    crawl = [item(str(number), "x") for number in range(count)]
    assert shards.num_shards(count, CONFIG) == expected
    dealt = [shards.shard_items(crawl, shard, CONFIG) for shard in range(expected)]
    assert [item for part in dealt for item in part] == crawl
    assert all(0 < len(part) <= 64 for part in dealt)


def test_a_shard_with_only_failures_is_complete(tmp_path):
    rows = shards.build_shard([item("a", "/nowhere")], 0, str(tmp_path), CONFIG, limits=QUICK)
    assert [row.status for row in rows] == ["failed"]
    assert video_table.is_done(str(tmp_path), 0)


def test_a_second_attempt_repeats_only_retryable_failures(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1")
    # At first no server listens, which is retryable. In the second attempt the video is there; the others are deleted.
    folder = tmp_path / "crawl"
    folder.mkdir()
    for name in ("0.mp4", "1.mp4"):
        (folder / name).write_bytes((sources / name).read_bytes())
    busy = "http://127.0.0.1:9/late.mp4"
    crawl = [item("one", folder / "0.mp4"), item("late", busy), item("bad", sources / "text.mp4")]
    first = shards.build_shard(crawl, 0, str(tmp_path / "videos"), CONFIG, limits=QUICK)
    assert [(row.status, row.retryable) for row in first] == [("ok", False), ("failed", True), ("failed", False)]
    os.remove(folder / "0.mp4")
    crawl[1] = replace(crawl[1], url=str(folder / "1.mp4"))
    second = shards.build_shard(crawl, 0, str(tmp_path / "videos"), CONFIG, limits=QUICK)
    assert second[0] == first[0]
    assert second[2] == first[2]
    assert (second[1].status, second[1].num_frames) == ("ok", 25)
    np.testing.assert_array_equal(
        video_table.read_frames(str(tmp_path / "videos"), second[1], [7]),
        video_table.read_frames(
            str(tmp_path / "other"),
            shards.build_shard([crawl[1]], 0, str(tmp_path / "other"), CONFIG, limits=QUICK)[0],
            [7],
        ),
    )


def test_a_broken_line_is_a_final_failure_and_a_refused_address_is_tried_again(sources, tmp_path, monkeypatch):
    (tmp_path / "crawl.csv").write_text(f"video_id,url,start_seconds\na,{sources}/0.mp4,\nb,{sources}/1.mp4,soon\n")

    def rows():
        items = crawls.read_crawl(str(tmp_path / "crawl.csv"))
        return shards.build_shard(items, 0, str(tmp_path / "videos"), CONFIG, limits=QUICK)

    monkeypatch.delenv("PREVITS_LOCAL_FILES", raising=False)
    refused, broken = rows()
    assert (refused.status, refused.retryable, broken.status, broken.retryable) == ("failed", True, "failed", False)
    assert "PREVITS_LOCAL_FILES" in refused.error
    assert "line 3: start_seconds 'soon'" in broken.error
    monkeypatch.setenv("PREVITS_LOCAL_FILES", f"/nowhere:{sources}")
    assert [row.status for row in rows()] == ["ok", "failed"]


@pytest.mark.parametrize("moment", ["while videos are made", "between tar and table"])
def test_a_killed_shard_is_incomplete_and_is_built_again(built, items, tmp_path, moment):
    uri, rows = built
    if moment == "between tar and table":  # a table of an earlier tar must not remain
        shards.build_shard(items[:1], 3, str(tmp_path), CONFIG, limits=QUICK)
        assert video_table.is_done(str(tmp_path), 3)
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        from previts.config.perception import VideoConfig
        from previts.ingest import shards
        from previts.ingest.crawls import CrawlItem
        from previts.ingest.fetch import Limits
        from previts.storage import tables
        items = [CrawlItem(*fields) for fields in {[tuple(vars(item).values())[:6] for item in items]!r}]
        if {moment!r} == "between tar and table":
            tables.write_records = lambda *arguments, **more: os.kill(os.getpid(), signal.SIGKILL)
        print("go", flush=True)
        shards.build_shard(items, 3, {str(tmp_path)!r}, VideoConfig(), limits=Limits(attempts=1))
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout.readline() == b"go\n"
    if moment == "while videos are made":
        time.sleep(0.3)
        child.kill()
    assert child.wait(60) == -signal.SIGKILL
    child.stdout.close()
    assert not video_table.is_done(str(tmp_path), 3)
    assert shards.build_shard(items, 3, str(tmp_path), CONFIG, limits=QUICK) == rows
    assert (tmp_path / video_table.tar_name(3)).read_bytes() == Path(uri, video_table.tar_name(3)).read_bytes()


def test_a_real_crawl_is_stored_without_failures(real_data, tmp_path):
    crawl = crawls.read_crawl(str(real_data / "crawl"))[::24]
    rows = shards.build_shard(crawl, 0, str(tmp_path), CONFIG)
    assert [row.video_id for row in rows] == [item.video_id for item in crawl]
    assert [row.error for row in rows if row.status == "failed"] == []
    for row in rows:
        frames = video_table.read_frames(str(tmp_path), row, [row.num_frames - 1, 0])
        assert frames.shape == (2, row.height, row.width, 3)


def test_a_shard_of_odd_videos_has_their_displayed_frames(odd_videos: dict[str, OddVideo], tmp_path: Path):
    items = [item(f"{number:02d}", video.path) for number, video in enumerate(odd_videos.values())]
    made = shards.build_shard(items, 0, str(tmp_path), CONFIG)
    for row, (name, video) in zip(made, odd_videos.items(), strict=True):
        assert row.status == "ok", (name, row.error)
        frames = video_table.read_frames(str(tmp_path), row, range(row.num_frames))
        assert [read_number(frame) for frame in frames] == list(video.numbers), name
