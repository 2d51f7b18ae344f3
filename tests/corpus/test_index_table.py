"""Oracle: a corpus of moving squares whose tubes are known, and counting by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from moving_squares import FRAMES, SIZE, SQUARE, make_index, square

from previts.config.perception import FilterConfig
from previts.corpus import index_table, quality, tube_table, video_table
from previts.corpus.index_table import Index, IndexRecord
from previts.errors import InputError
from previts.storage import files, folders, tables


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make_index(tmp_path_factory.mktemp("squares"), 8)


@pytest.fixture(scope="module")
def rows(squares: Index) -> list[IndexRecord]:
    return list(squares)


def write(folder: Path, rows: list[IndexRecord], config: FilterConfig) -> tuple[str, dict[str, int | float]]:
    """Write and commit an index whose inputs do not exist."""
    uri = str(folder / "index" / "corpus-0")
    counts = index_table.write_index(uri, [tables.to_table(IndexRecord, rows)], config)
    inputs = {"videos": "nowhere", "tubes": "nowhere"}
    folders.commit(uri, {}, inputs=inputs, counts=counts, files=(index_table.TABLE, index_table.QUALITY))
    return uri, counts


def test_rows_have_the_numbers_of_the_exact_masks(rows):
    # In moving_squares, every fourth video has no object, and every second one loses it after three quarters.
    for number, row in enumerate(rows):
        seen = [frame for frame in range(FRAMES) if square(number, frame).any()]
        assert row.tracked_frames == len(seen)
        assert row.lost_frame == (0 if not seen else None if seen[-1] == FRAMES - 1 else seen[-1] + 1)
        assert row.mean_area == pytest.approx(SQUARE**2 / SIZE**2 if seen else 0)
        video = index_table.quality_of(row)
        assert (video.seconds, video.tube_seconds) == (pytest.approx(3.0), pytest.approx(len(seen) / 10))
        assert video.lost_seconds == (None if row.lost_frame is None else pytest.approx(row.lost_frame / 10))


def test_the_filter_of_the_paper_keeps_every_video(rows, tmp_path):
    uri, counts = write(tmp_path, rows, FilterConfig())
    assert counts["videos"] == counts["videos_in"] == len(index_table.read_index(uri)) == 8
    assert counts["videos_with_tube"] == 6
    assert counts["filtered"] == 0
    assert all(not video.reason for video in index_table.read_quality(uri))


@pytest.mark.parametrize(
    ("config", "out"),
    [
        (FilterConfig(min_tube_seconds=0.1), {"short": {3, 7}}),
        (FilterConfig(min_tube_seconds=2.5), {"short": {1, 3, 5, 7}}),
        (FilterConfig(min_area=0.01, max_area=0.2), {"small": {4}, "large": {6}}),
        (FilterConfig(min_agreement=0.35), {"disagreeing": {0, 1, 2, 3}}),
        # A video with several reasons counts once, for the first reason.
        (FilterConfig(2.5, 0.01, 0.2, 0.15), {"short": {1, 3, 5, 7}, "small": {4}, "large": {6}, "disagreeing": {0}}),
    ],
)
def test_a_filter_removes_videos_by_its_thresholds_and_counts_all_of_them(rows, tmp_path, config, out):
    changed = [replace(row, agreement=number / 10) for number, row in enumerate(rows)]
    changed[4] = replace(changed[4], mean_area=0.001)
    changed[6] = replace(changed[6], mean_area=0.7)
    uri, counts = write(tmp_path, changed, config)
    judged = index_table.read_quality(uri)
    assert {name: {n for n, video in enumerate(judged) if video.reason == name} for name in out} == out
    assert [row.video_id for row in index_table.read_index(uri)] == [
        video.video_id for video in judged if not video.reason
    ]
    assert counts["videos_in"] == 8 == counts["videos"] + counts["filtered"]
    assert counts["filtered"] == sum(counts[f"filtered_{name}"] for name in quality.REASONS)
    assert {name: counts[f"filtered_{name}"] for name in out} == {name: len(videos) for name, videos in out.items()}


def test_a_filter_that_keeps_no_video_is_refused_with_what_each_threshold_removes(rows, tmp_path):
    with pytest.raises(InputError) as caught:
        index_table.write_index(
            str(tmp_path), [tables.to_table(IndexRecord, rows)], FilterConfig(min_tube_seconds=2.5, min_area=0.9)
        )
    for words in ("none of the 8", "filter.min_tube_seconds=2.5 removes 4", "filter.min_area=0.9 removes 4"):
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_filter_by_an_unknown_agreement_is_refused(rows, tmp_path):
    with pytest.raises(InputError, match=r"unknown for 8 of 8 videos; .*saliency\.agreement=true"):
        index_table.write_index(str(tmp_path), [tables.to_table(IndexRecord, rows)], FilterConfig(min_agreement=0.1))


def test_the_order_of_the_rows_does_not_change_the_tables(rows, tmp_path):
    shuffled = [rows[number] for number in np.random.default_rng(0).permutation(len(rows))]
    one, other = (write(tmp_path / name, given, FilterConfig())[0] for name, given in (("a", rows), ("b", shuffled)))
    for table in (index_table.TABLE, index_table.QUALITY):
        assert files.read_bytes(files.join(one, table)) == files.read_bytes(files.join(other, table))


def test_a_video_is_found_by_its_id_even_if_the_filter_removed_it(tmp_path):
    made = make_index(tmp_path, 8)
    uri = str(tmp_path / "index" / "corpus-0")
    counts = index_table.write_index(uri, [made.table], FilterConfig(min_tube_seconds=0.1))
    inputs = {"videos": made.crawls[0].videos, "tubes": made.crawls[0].tubes}
    folders.commit(uri, {}, inputs=inputs, counts=counts, files=(index_table.TABLE, index_table.QUALITY))
    assert index_table.find_video(uri, "v003") == made[3]
    kept = {row.video_id: row for row in index_table.read_index(uri)}
    assert index_table.find_video(uri, "v004") == kept["v004"]
    assert "v003" not in kept
    row = video_table.read_shard(made.crawls[0].videos, 0)[0]
    failed = replace(row, video_id="broken", status="failed", error="not a readable video", shard=1)
    table = files.join(made.crawls[0].videos, tables.table_name(1))
    tables.write_records(table, video_table.VideoRecord, [failed])
    folders.commit(made.crawls[0].videos, {}, counts={"shards": 2}, files=tables.table_names(2))
    with pytest.raises(InputError, match="did you mean 'v004'"):
        index_table.find_video(uri, "v04")
    with pytest.raises(InputError, match="video 'broken' was not stored: not a readable video"):
        index_table.find_video(uri, "broken")
    with pytest.raises(InputError, match=r"has no video 'elephant'; `previts quality"):
        index_table.find_video(uri, "elephant")


def test_counts_equal_those_of_numpy_over_the_table(rows, tmp_path):
    uri, counts = write(tmp_path, [replace(row, agreement=0.1 * n) for n, row in enumerate(rows)], FilterConfig())
    table = tables.read_table(files.join(uri, index_table.TABLE), IndexRecord)
    tracked = table.column("tracked_frames").to_numpy()
    seconds = tracked[tracked > 0] / 10
    assert counts["tube_seconds_mean"] == pytest.approx(seconds.mean(), abs=1e-4)
    assert [counts[f"tube_seconds_q{q}"] for q in (25, 50, 75)] == pytest.approx(
        np.percentile(seconds, (25, 50, 75)), abs=1e-4
    )
    assert counts["agreement_q50"] == pytest.approx(0.35)  # of 0, 0.1, ... 0.7
    assert counts["tube_share"] == 0.75
    # The videos 1 and 5 lose their object at frame 22 of 30; 3 and 7 have none.
    assert counts["lost_share"] == pytest.approx(2 / 6, abs=1e-4)
    assert counts["lost_at"] == pytest.approx(22 / 30, abs=1e-4)


BROKEN_VIDEOS = [
    {"width": 0},
    {"fps": 0.0},
    {"num_frames": 1},
    {"gop_frames": [1, 12, 24]},
    {"gop_frames": [0, 12, 12]},
    {"gop_frames": [0, 12]},
    {"gop_offsets": [0, 9, 8, 10]},
    {"gop_offsets": [0, 1, 2]},
    {"gop_offsets": [0, 1, 2, 10**9]},
    {"gop_crcs": [1]},
    {"gop_frames": [], "gop_offsets": [], "gop_crcs": []},
]
BROKEN_TUBES = [
    {"spans": [[0, 22, 30]]},
    {"spans": [[0, 12], [11, 21]]},
    {"spans": [[9, 31]]},
    {"spans": [[12, 0]]},
    {"spans": []},
    {"tracked_frames": 7},
    {"lost_frame": 30},
]


def join_with(made: Index, module, changes: dict[str, Any], folder: Path) -> pa.Table:
    """Join a shard after columns of video 5 were changed."""
    row_type, at = (
        (video_table.VideoRecord, made.crawls[0].videos)
        if module is video_table
        else (tube_table.TubeRecord, made.crawls[0].tubes)
    )
    stored = module.read_shard(at, 0)
    stored[5] = replace(stored[5], **changes)
    uri = str(folder / "changed")
    tables.write_records(files.join(uri, tables.table_name(0)), row_type, stored)
    videos, tubes = (uri, made.crawls[0].tubes) if module is video_table else (made.crawls[0].videos, uri)
    return index_table.join_shard(videos, tubes, 0)


@pytest.mark.parametrize(
    ("module", "changes"),
    [*((video_table, change) for change in BROKEN_VIDEOS), *((tube_table, change) for change in BROKEN_TUBES)],
)
def test_a_row_whose_columns_do_not_fit_is_named(squares, tmp_path, module, changes):
    assert join_with(squares, module, {}, tmp_path / "whole").equals(squares.table)
    with pytest.raises(InputError, match=r"changed/shard-00000\.parquet: the row of video 'v005' is wrong"):
        join_with(squares, module, changes, tmp_path)


def test_the_quality_of_many_videos_is_that_of_each(rows, tmp_path):
    changed = [replace(row, fps=row.fps + n / 7, agreement=n / 10 if n % 2 else None) for n, row in enumerate(rows)]
    uri, _ = write(tmp_path, changed, FilterConfig())
    for row, found in zip(changed, index_table.read_quality(uri), strict=True):
        assert found.seconds == row.num_frames / row.fps
        assert found.tube_seconds == row.tracked_frames / row.fps
        assert found.lost_seconds == (None if row.lost_frame is None else row.lost_frame / row.fps)
        assert (found.agreement, found.mean_area, found.shard) == (row.agreement, row.mean_area, row.shard)
