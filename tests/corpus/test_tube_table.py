"""Oracles: masks and figures before they became bytes, the exact object, and counts that must be conserved."""

from dataclasses import replace

import numpy as np
import pytest
from blobs import HEIGHT, WIDTH, blob, follow

from previts.config import experiment
from previts.config.experiment import TrackConfig
from previts.corpus import region_table, tube_layout, tube_table, video_table
from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.media.masks import encode_rle
from previts.processes import workers
from previts.saliency import predict
from previts.storage import files, tables
from previts.tracking import tracker


def random_tube(generator):
    height, width = (int(side) for side in generator.integers(1, 40, size=2))
    masks = [generator.random((height, width)) < generator.random() for _ in range(generator.integers(0, 6))]
    frame_keys = generator.integers(-1, len(masks), size=generator.integers(1, 30)).tolist()
    return Tube(height, width, [encode_rle(mask) for mask in masks], frame_keys), masks


def test_a_tube_comes_back_from_its_bytes():
    generator = np.random.default_rng(0)
    for _ in range(200):
        tube, masks = random_tube(generator)
        again = Tube.from_bytes(tube.to_bytes())
        assert again == tube
        frames = generator.integers(0, len(tube.frame_keys), size=7).tolist()
        empty = np.zeros((tube.height, tube.width), bool)
        expected = [masks[tube.frame_keys[frame]] if tube.frame_keys[frame] >= 0 else empty for frame in frames]
        np.testing.assert_array_equal(again.masks(frames), np.stack(expected))
        np.testing.assert_array_equal(tube_layout.unpack(tube.to_bytes()).masks(frames), np.stack(expected))


def test_figures_of_a_tube_are_what_its_masks_say():
    generator = np.random.default_rng(1)
    for _ in range(100):
        tube, masks = random_tube(generator)
        seen = [key >= 0 for key in tube.frame_keys]
        assert tube.tracked_frames() == sum(seen) == sum(stop - start for start, stop in tube.spans())
        inside = [any(start <= frame < stop for start, stop in tube.spans()) for frame in range(len(seen))]
        assert inside == seen
        assert all(a[1] < b[0] for a, b in zip(tube.spans(), tube.spans()[1:], strict=False))
        shares = [masks[key].mean() for key in tube.frame_keys if key >= 0]
        assert tube.mean_area() == pytest.approx(np.mean(shares) if shares else 0)


def test_frames_that_the_clip_has_not_are_refused():
    tube = follow([blob(5)] * 3)
    for frame in (-1, 3):
        with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
            tube.mask(frame)
    assert tube.masks([]).shape == (0, HEIGHT, WIDTH)


def test_damage_to_any_byte_is_noticed():
    tube = follow([blob(5), blob(6)])
    blob_bytes = tube.to_bytes()
    for place in range(len(blob_bytes)):
        damaged = bytearray(blob_bytes)
        damaged[place] ^= 0xFF
        with pytest.raises(ValueError, match="tube"):
            Tube.from_bytes(bytes(damaged))
    for size in (0, 10, len(blob_bytes) - 5):
        with pytest.raises(ValueError, match="tube"):
            Tube.from_bytes(blob_bytes[:size])


def test_damage_to_other_masks_is_not_looked_at_and_damage_to_the_wanted_one_is_told(tmp_path):
    tube = follow([blob(5), blob(6), blob(7)])
    blob_bytes = tube.to_bytes()
    packed = tube_layout.unpack(blob_bytes)
    damaged = bytearray(b"..." + blob_bytes)
    damaged[3 + packed.stops[1] + 2 : 3 + packed.stops[2]] = bytes(packed.stops[2] - packed.stops[1] - 2)
    (tmp_path / tube_table.blob_name(0)).write_bytes(damaged)
    place = (str(tmp_path), 0, 3, len(blob_bytes))
    first, last, again = tube_table.read_masks(*place, [0, 2, 0])
    np.testing.assert_array_equal([first, last], tube.masks([0, 2]))
    assert again is first
    with pytest.raises(InputError, match=r"bytes 3 to .*damaged.*previts track"):
        tube_table.read_masks(*place, [1])
    with pytest.raises(ValueError, match=r"must be in \[0, 3\)"):
        tube_table.read_masks(*place, [3])
    with pytest.raises(InputError, match="missing"):
        tube_table.read_masks(str(tmp_path), 1, 0, 10, [0])


def write_clip(path, frames):
    """A red square walks over grain; `frames` says in which frames it is there."""
    grain = np.random.default_rng(0).integers(90, 110, size=(96, 128, 1))

    def images():
        for frame, there in enumerate(frames):
            image = np.broadcast_to(grain if any(frames) else 100, (96, 128, 3)).astype(np.uint8)
            if there:
                image[36:60, 30 + frame : 54 + frame] = [200, 30, 40]
            yield image

    normalisation.encode_video(images(), 25.0, str(path))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One shard of videos and its saliency: an object, no video at all, no object, another object."""
    folder = tmp_path_factory.mktemp("crawl")
    write_clip(folder / "walk.mp4", [True] * 20)
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    write_clip(folder / "plain.mp4", [False] * 6)
    write_clip(folder / "again.mp4", [True] * 9)
    names = ["walk", "broken", "plain", "again"]
    items = [CrawlItem(name, str(folder / f"{name}.mp4"), None, None, "", "") for name in names]
    uri, saliency = str(tmp_path_factory.mktemp("videos")), str(tmp_path_factory.mktemp("saliency"))
    shards.build_shard(items, 0, uri, experiment.VideoConfig())
    predict.predict_shard(uri, "", 0, experiment.SaliencyConfig(method="rbd", every=2, agreement=False), saliency)
    return uri, saliency


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
    # The blobs lie one after the other and fill the file.
    assert [row.offset for row in rows] == np.cumsum([0, *(row.size for row in rows)])[:-1].tolist()
    assert len(files.read_bytes(files.join(target, tube_table.blob_name(0)))) == sum(row.size for row in rows)
    frames = {row.video_id: row.num_frames for row in videos}
    for row in rows:
        tube = tube_table.read_tube(target, 0, row.offset, row.size)
        assert (len(tube.frame_keys), tube.height, tube.width) == (frames[row.video_id], 96, 128)
        assert (row.tracked_frames, row.spans) == (tube.tracked_frames(), tube.spans())
        assert (row.lost_frame, row.border_share) == (tube.lost_frame(), tube.border_share())
        assert row.mean_area == pytest.approx(
            tube.masks(range(len(tube.frame_keys))).sum() / max(1, row.tracked_frames) / (96 * 128)
        )


def test_the_tube_of_a_video_is_its_object(world, tmp_path):
    tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path))
    walk = tube_table.read_shard(str(tmp_path), 0)[0]
    tube = tube_table.read_tube(str(tmp_path), 0, walk.offset, walk.size)
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


def test_bytes_do_not_depend_on_how_many_processes_share_the_videos(world, tmp_path):
    tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path / "one"))
    with workers.pool(2) as run:
        tracker.track_shard(*world, 0, TrackConfig(), str(tmp_path / "two"), run)
    for name in (tables.table_name(0), tube_table.blob_name(0)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_agreement_of_a_tube_is_the_mean_of_what_was_compared(world, tmp_path):
    def change(rows):
        numbers = iter([0.25, 0.75])
        return [
            replace(row, agreement=next(numbers) if row.video_id == "walk" and row.frame < 4 else None) for row in rows
        ]

    saliency = rewritten(world[1], str(tmp_path / "saliency"), change)
    tracker.track_shard(world[0], saliency, 0, TrackConfig(), str(tmp_path / "tubes"))
    assert [row.agreement for row in tube_table.read_shard(str(tmp_path / "tubes"), 0)] == [0.5, None, None]


def rewritten(saliency, target, change):
    tables.write_records(
        files.join(target, tables.table_name(0)),
        region_table.SaliencyRecord,
        change(region_table.read_shard(saliency, 0)),
    )
    return target


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


def test_a_damaged_or_missing_blob_file_says_what_to_do(world, tmp_path):
    target = str(tmp_path)
    tracker.track_shard(*world, 0, TrackConfig(), target)
    row = tube_table.read_shard(target, 0)[0]
    uri = files.join(target, tube_table.blob_name(0))
    damaged = bytearray(files.read_bytes(uri))
    damaged[row.offset + 40] ^= 1
    files.write_bytes(uri, bytes(damaged))
    with pytest.raises(InputError, match=r"damaged tube.*run `previts track` again"):
        tube_table.read_tube(target, 0, row.offset, row.size)
    (tmp_path / tube_table.blob_name(0)).unlink()
    with pytest.raises(InputError, match=r"tubes is missing; .*`previts track` again"):
        tube_table.read_tube(target, 0, row.offset, row.size)
