"""Salient regions of a shard. Oracles: priors of the decoded frames, a known square, conserved counts."""

import numpy as np
import pytest

from previts.config import experiment
from previts.config.perception import SaliencyConfig
from previts.corpus import region_table, video_table
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import normalisation
from previts.media.masks import decode_rle
from previts.saliency import predict, priors
from previts.saliency.priors import prior_map, prior_maps
from previts.storage import files

FRAMES = 26


def moving_square(step, frames=FRAMES):
    """Yield frames of a red square that moves over grey grain."""
    grain = np.random.default_rng(0).integers(90, 110, size=(96, 128, 1))
    for frame in range(frames):
        image = np.broadcast_to(grain, (96, 128, 3)).astype(np.uint8)
        left = 30 + step * frame
        image[36:60, left : left + 24] = [200, 30, 40]
        yield image


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Store one shard: two videos with a broken file between them, and a video without contrast."""
    folder = tmp_path_factory.mktemp("crawl")
    normalisation.encode_video(moving_square(1), 25.0, str(folder / "slow.mp4"))
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    normalisation.encode_video(moving_square(2), 25.0, str(folder / "fast.mp4"))
    normalisation.encode_video([np.full((96, 128, 3), 90, np.uint8)] * 5, 25.0, str(folder / "plain.mp4"))
    names = ["slow", "broken", "fast", "plain"]
    items = [CrawlItem(name, str(folder / f"{name}.mp4"), None, None, "", "") for name in names]
    uri = str(tmp_path_factory.mktemp("videos"))
    rows = shards.build_shard(items, 0, uri, experiment.VideoConfig())
    assert [row.status for row in rows] == ["ok", "failed", "ok", "ok"]
    return uri


def test_every_kth_frame_of_each_usable_video_has_a_row(videos, tmp_path):
    config = SaliencyConfig(method="rbd", every=4)
    assert not region_table.is_done(str(tmp_path), 0)
    counts = predict.predict_shard(videos, "", 0, config, str(tmp_path))
    assert region_table.is_done(str(tmp_path), 0)
    rows = region_table.read_shard(str(tmp_path), 0)
    keys = {name: list(range(0, frames, 4)) for name, frames in (("slow", FRAMES), ("fast", FRAMES), ("plain", 5))}
    assert [(row.video_id, row.frame) for row in rows] == [(name, frame) for name in keys for frame in keys[name]]
    assert counts == {"videos": 3, "key_frames": 16, "salient_frames": 14}
    stored = {row.video_id: row for row in video_table.read_shard(videos, 0)}
    for row in rows:
        image = video_table.read_frames(videos, stored[row.video_id], [row.frame])[0]
        expected = prior_map("rbd", image) > 0.5
        assert len(row.regions) == int(expected.any())
        for region in row.regions:
            np.testing.assert_array_equal(decode_rle(region, row.height, row.width), expected)
        assert (row.agreement is None) == (row.frame > 0)
        if row.frame == 0:
            assert row.agreement == pytest.approx(priors.mean_agreement(prior_maps(image)))
    assert all(not row.regions and row.agreement == 0 for row in rows if row.video_id == "plain" and row.frame == 0)


def test_the_salient_pixels_are_those_of_the_square(videos, tmp_path):
    predict.predict_shard(videos, "", 0, SaliencyConfig(method="rbd", every=5), str(tmp_path))
    for row in region_table.read_shard(str(tmp_path), 0):
        if row.video_id != "slow":
            continue
        square = np.zeros((96, 128), bool)
        square[36:60, 30 + row.frame : 54 + row.frame] = True
        mask = decode_rle(row.regions[0], row.height, row.width)
        assert (mask & square).sum() / (mask | square).sum() > 0.7


def test_the_table_does_not_depend_on_the_number_of_frames_at_once(videos, tmp_path, monkeypatch):
    config = SaliencyConfig(method="rbd", every=3)
    predict.predict_shard(videos, "", 0, config, str(tmp_path / "whole"))
    for at_once in (1, 2, 7):
        monkeypatch.setattr(predict, "FRAMES_AT_ONCE", at_once)
        predict.predict_shard(videos, "", 0, config, str(tmp_path / "pieces"))
        assert (tmp_path / "pieces" / "shard-00000.parquet").read_bytes() == (
            tmp_path / "whole" / "shard-00000.parquet"
        ).read_bytes()


def whole(row):
    """Return all regions of a frame as one mask."""
    masks = [decode_rle(region, row.height, row.width) for region in row.regions]
    return np.any(masks, axis=0) if masks else np.zeros((row.height, row.width), bool)


def test_a_higher_threshold_keeps_fewer_pixels(videos, tmp_path):
    found = {}
    for threshold in (0.2, 0.8):
        target = str(tmp_path / str(threshold))
        predict.predict_shard(videos, "", 0, SaliencyConfig(method="rbd", every=9, threshold=threshold), target)
        found[threshold] = [whole(row) for row in region_table.read_shard(target, 0)]
    for loose, strict in zip(found[0.2], found[0.8], strict=True):
        assert not (strict & ~loose).any()
    assert sum(mask.sum() for mask in found[0.2]) > sum(mask.sum() for mask in found[0.8])


def test_a_damaged_stored_video_is_named_and_no_table_is_written(videos, tmp_path):
    uri = files.join(str(tmp_path), "videos")
    for name in files.names(videos):
        files.write_bytes(files.join(uri, name), files.read_bytes(files.join(videos, name)))
    fast = next(row for row in video_table.read_shard(uri, 0) if row.video_id == "fast")
    tar = bytearray(files.read_bytes(files.join(uri, video_table.tar_name(0))))
    start, stop = (fast.offset + fast.gop_offsets[gop] for gop in (0, 1))
    tar[start:stop] = bytes(stop - start)
    files.write_bytes(files.join(uri, video_table.tar_name(0)), bytes(tar))
    with pytest.raises(InputError, match=r"'fast' of shard-00000.tar .* run `previts download` again"):
        predict.predict_shard(uri, "", 0, SaliencyConfig(method="rbd", every=5), str(tmp_path / "saliency"))
    assert not region_table.is_done(str(tmp_path / "saliency"), 0)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"threshold": 1.0}, {"threshold": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SaliencyConfig(**wrong)


def test_a_missing_shard_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"missing; delete manifest\.json next to it"):
        region_table.read_shard(str(tmp_path), 3)
