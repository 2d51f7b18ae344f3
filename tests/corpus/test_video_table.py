"""Oracle: PyAV's decoding of the whole stored file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from source_videos import decode_file, write_noisy

from previts.config.perception import VideoConfig
from previts.corpus import video_table
from previts.errors import InputError, VideoError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.storage import files


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A shard of two videos of 40 frames in GOPs of 12: its folder and its rows."""
    source = str(tmp_path_factory.mktemp("source") / "noisy.mp4")
    write_noisy(source)
    uri = str(tmp_path_factory.mktemp("videos"))
    items = [CrawlItem(name, source, None, None, "", "") for name in ("one", "two")]
    return uri, shards.build_shard(items, 3, uri, VideoConfig(), workers=1)


@pytest.mark.parametrize(
    "frames", [[0], [39], [12, 11], [5, 5, 5], [38, 0, 13, 12, 39], list(range(40)), list(range(40))[::-1]]
)
def test_frames_are_those_of_the_whole_file(stored, tmp_path, frames):
    uri, rows = stored
    row = rows[0]
    (tmp_path / "one.mp4").write_bytes(
        files.read_bytes(f"{uri}/{video_table.tar_name(3)}", row.offset, row.offset + row.size)
    )
    np.testing.assert_array_equal(
        video_table.read_frames(uri, row, frames), decode_file(str(tmp_path / "one.mp4"))[frames]
    )


def test_any_row_with_the_columns_of_a_stored_video_is_read(stored):
    @dataclass(frozen=True)
    class Columns:
        video_id: str
        shard: int
        offset: int
        width: int
        height: int
        num_frames: int
        header: bytes
        gop_frames: list[int]
        gop_offsets: list[int]
        gop_crcs: list[int]

    uri, rows = stored
    columns = Columns(*(getattr(rows[1], name) for name in Columns.__dataclass_fields__))
    np.testing.assert_array_equal(
        video_table.read_frames(uri, columns, [3, 12]), video_table.read_frames(uri, rows[1], [3, 12])
    )


def test_only_the_gops_of_the_frames_are_read(stored, tmp_path):
    # All bytes outside the GOPs of the frames 14 and 38 are destroyed, which must not change the two frames.
    uri, rows = stored
    row = rows[0]
    data = Path(uri, video_table.tar_name(3)).read_bytes()
    kept = bytearray(b"\xff" * len(data))
    for gop in (1, 3):
        span = slice(row.offset + row.gop_offsets[gop], row.offset + row.gop_offsets[gop + 1])
        kept[span] = data[span]
    (tmp_path / video_table.tar_name(3)).write_bytes(kept)
    np.testing.assert_array_equal(
        video_table.read_frames(str(tmp_path), row, [14, 38]), video_table.read_frames(uri, row, [14, 38])
    )
    with pytest.raises(VideoError, match=r"video 'one' in .*shard-00003.tar: damaged"):
        video_table.read_frames(str(tmp_path), row, [14, 25])


def test_frames_outside_the_video_and_missing_files_are_refused(stored, tmp_path):
    uri, rows = stored
    for frames in ([], [-1], [40]):
        with pytest.raises(ValueError, match=r"frames must be in \[0, 40\)"):
            video_table.read_frames(uri, rows[0], frames)
    with pytest.raises(InputError, match="previts download"):
        video_table.read_frames(str(tmp_path), rows[0], [0])
    with pytest.raises(InputError, match="run the stage"):
        video_table.read_shard(uri, 4)
    cut = Path(uri, video_table.tar_name(3)).read_bytes()[: rows[0].offset + rows[0].gop_offsets[1] + 100]
    (tmp_path / video_table.tar_name(3)).write_bytes(cut)
    with pytest.raises(VideoError, match="video 'one'"):
        video_table.read_frames(str(tmp_path), rows[0], [13])


def test_some_columns_of_the_stored_videos_are_those_of_their_rows(stored):
    uri, rows = stored
    found = video_table.read_stored(uri, 3, ("identity", "hashes", "end_seconds"))
    wanted = [row for row in rows if row.status == "ok"]
    assert [row["video_id"] for row in found] == [row.video_id for row in wanted]
    assert [(row["identity"], row["hashes"], row["end_seconds"]) for row in found] == [
        (row.identity, row.hashes, row.end_seconds) for row in wanted
    ]
    with pytest.raises(InputError, match="run the stage"):
        video_table.read_stored(uri, 4, ())


def test_planes_are_the_frames_before_their_conversion_to_rgb(stored):
    uri, rows = stored
    planes = video_table.read_planes(uri, rows[0], [25, 0, 25])
    images = video_table.read_frames(uri, rows[0], [0, 25]).astype(float)
    for (number, (luma, *_)), frame, image in zip(planes, (0, 25), images, strict=True):
        assert number == frame
        # BT.601 in limited range: Y = 16 + 219 (0.299 R + 0.587 G + 0.114 B) / 255; RGB is rounded and clipped.
        expected = 16 + 219 * (image @ [0.299, 0.587, 0.114]) / 255
        assert np.median(np.abs(luma - expected)) < 1.5
