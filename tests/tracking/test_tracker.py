"""Oracles: the exact square, and counts that must be conserved from the videos to the tubes."""

from dataclasses import replace

import numpy as np
import pytest

from previts.config import experiment
from previts.config.perception import TrackConfig
from previts.corpus import region_table, tube_table, video_table
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.processes import workers
from previts.saliency import predict
from previts.storage import files, tables
from previts.tracking import tracker


def write_video(path, visible):
    """Write a video of a red square that moves over noise; `visible` has a bool for each frame."""
    noise = np.random.default_rng(0).integers(90, 110, size=(96, 128, 1))

    def images():
        for frame, shown in enumerate(visible):
            image = np.broadcast_to(noise if any(visible) else 100, (96, 128, 3)).astype(np.uint8)
            if shown:
                image[36:60, 30 + frame : 54 + frame] = [200, 30, 40]
            yield image

    normalisation.encode_video(images(), 25.0, str(path))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One shard of videos and its saliency: an object; a file that is not a video; no object; another object."""
    folder = tmp_path_factory.mktemp("crawl")
    write_video(folder / "walk.mp4", [True] * 20)
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    write_video(folder / "plain.mp4", [False] * 6)
    write_video(folder / "again.mp4", [True] * 9)
    names = ["walk", "broken", "plain", "again"]
    items = [CrawlItem(name, str(folder / f"{name}.mp4"), None, None, "", "") for name in names]
    uri, saliency = str(tmp_path_factory.mktemp("videos")), str(tmp_path_factory.mktemp("saliency"))
    shards.build_shard(items, 0, uri, experiment.VideoConfig())
    predict.predict_shard(uri, "", 0, experiment.SaliencyConfig(method="rbd", every=2, agreement=False), saliency)
    return uri, saliency


def rewritten(saliency, target, change):
    """Write a changed copy of the table of saliency; return its folder."""
    tables.write_records(
        files.join(target, tables.table_name(0)),
        region_table.SaliencyRecord,
        change(region_table.read_shard(saliency, 0)),
    )
    return target


def stored_tube(uri, row):
    """Return the tube of a row, read straight from the file of the shard."""
    blob = files.read_bytes(files.join(uri, tube_table.blob_name(0)))[row.offset : row.offset + row.size]
    return tube_table.Tube.from_bytes(blob)


def test_every_usable_video_has_exactly_one_tube(world, tmp_path):
    target = str(tmp_path)
    assert not tube_table.is_done(target, 0)
    counts = tracker.track_shard(*world, 0, TrackConfig(), target)
    assert tube_table.is_done(target, 0)
    videos, rows = video_table.read_shard(world[0], 0), tube_table.read_shard(target, 0)
    assert (
        [row.video_id for row in rows]
        == [row.video_id for row in videos if row.status == "ok"]
        == ["walk", "plain", "again"]
    )
    assert [row.status for row in rows] == ["tracked", "empty", "tracked"]
    tracked = sum(row.tracked_frames for row in rows)
    assert counts == {"videos": 3, "tracked": 2, "empty": 1, "frames": 35, "tracked_frames": tracked}
    # The blobs are contiguous and fill the file.
    assert [row.offset for row in rows] == np.cumsum([0, *(row.size for row in rows)])[:-1].tolist()
    assert len(files.read_bytes(files.join(target, tube_table.blob_name(0)))) == sum(row.size for row in rows)
    frames = {row.video_id: row.num_frames for row in videos}
    for row in rows:
        tube = stored_tube(target, row)
        assert (len(tube.frame_keys), tube.height, tube.width) == (frames[row.video_id], 96, 128)
        assert (row.tracked_frames, row.spans) == (tube.tracked_frames(), tube.spans())
        assert (row.lost_frame, row.border_share) == (tube.lost_frame(), tube.border_share())
        assert row.mean_area == pytest.approx(
            tube.masks(range(len(tube.frame_keys))).sum() / max(1, row.tracked_frames) / (96 * 128)
        )


def test_the_tube_covers_the_square(world, tmp_path):
    tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path))
    walk = tube_table.read_shard(str(tmp_path), 0)[0]
    tube = stored_tube(str(tmp_path), walk)
    assert walk.spans == [[0, 20]]
    for frame in range(0, 20, 2):
        square = np.zeros((96, 128), bool)
        square[36:60, 30 + frame : 54 + frame] = True
        assert (tube.mask(frame) & square).sum() / (tube.mask(frame) | square).sum() > 0.7


def test_tracking_twice_writes_the_same_bytes(world, tmp_path):
    for name in ("one", "two"):
        tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path / name))
    for name in (tables.table_name(0), tube_table.blob_name(0)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_bytes_do_not_depend_on_the_number_of_processes(world, tmp_path):
    tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path / "one"))
    with workers.pool(2) as run:
        tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path / "two"), run)
    for name in (tables.table_name(0), tube_table.blob_name(0)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_agreement_of_a_tube_is_the_mean_over_the_compared_key_frames(world, tmp_path):
    def change(rows):
        numbers = iter([0.25, 0.75])
        return [
            replace(row, agreement=next(numbers) if row.video_id == "walk" and row.frame < 4 else None) for row in rows
        ]

    saliency = rewritten(world[1], str(tmp_path / "saliency"), change)
    tracker.track_shard(world[0], saliency, 0, TrackConfig(), str(tmp_path / "tubes"))
    assert [row.agreement for row in tube_table.read_shard(str(tmp_path / "tubes"), 0)] == [0.5, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row for row in rows if row.video_id != "again"], "has 0 masks .* 'again'"),
        (lambda rows: [*rows, region_table.SaliencyRecord("other", 0, 96, 128, [], None)], r"has 1 videos .*'other'"),
        (
            lambda rows: [*rows[:-1], region_table.SaliencyRecord("again", 9, 96, 128, [], None)],
            "'again', which is 96 x 128 with 9",
        ),
        (
            lambda rows: [region_table.SaliencyRecord("walk", 0, 2, 3, [[6]], None), *rows[1:]],
            "'walk', which is 96 x 128",
        ),
    ],
)
def test_saliency_of_other_videos_is_refused(world, tmp_path, change, message):
    saliency = rewritten(world[1], str(tmp_path / "saliency"), change)
    with pytest.raises(InputError, match=message):
        tracker.track_shard(world[0], saliency, 0, TrackConfig(), str(tmp_path / "tubes"))
    assert not tube_table.is_done(str(tmp_path / "tubes"), 0)
