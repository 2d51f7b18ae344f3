import shutil
from dataclasses import replace

import av
import counted_store
import cv2
import numpy as np
import pytest
import torch
from moving_squares import (
    frame_image,
    frame_number,
    make_index,
    moved,
    numbered,
    small_experiment,
    small_video_experiment,
    square,
)

from previts.corpus import tube_table, video_table
from previts.errors import InputError
from previts.pretraining import augment, dataset, loader
from previts.pretraining.schedule import Schedule

VIDEOS = 10


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Return an index of videos whose frames show their number."""
    return make_index(tmp_path_factory.mktemp("counted"), 4, shown=numbered)


def schedule(videos=VIDEOS, batch=4, epochs=3, seed=0):
    return Schedule(videos, batch, epochs, seed)


def all_batches(pairs, plan, first=0, **options):
    return list(loader.load_batches(pairs, plan, first, **options))


def one(pairs, epoch, number, role):
    """Return one clip of a sample."""
    (sample,) = pairs.load_clips(epoch, number, (role,))
    return sample


def rgb(sample):
    """Return the first image of a sample as (3, S, S) numbers from 0 to 255."""
    clip, matrix = torch.from_numpy(sample.clip)[None], torch.tensor([sample.matrix])
    return (augment.to_rgb(clip, matrix)[0, 0] * 255).numpy()


def test_a_row_contains_the_key_of_the_pair_in_the_key_order(index):
    plan = schedule()
    pairs = dataset.PairDataset(index, small_experiment())
    for batch in all_batches(pairs, plan):
        ids = [batch.query.video_ids[row] for row in batch.key_order]
        assert batch.key.video_ids == ids


def test_the_other_clip_belongs_to_the_pair_of_the_key(index):
    pairs = dataset.PairDataset(index, small_video_experiment())
    for batch in all_batches(pairs, schedule()):
        assert batch.other.video_ids == batch.key.video_ids
        assert batch.other.clips.shape == batch.key.clips.shape == (4, 8, 96, 64)
    assert all_batches(dataset.PairDataset(index, small_experiment()), schedule(epochs=1))[0].other is None


@pytest.mark.parametrize("visible", ["clip", "middle"])
@pytest.mark.parametrize("segment", ["own", "key"])
def test_the_frames_of_a_clip_show_its_speed(counted, visible, segment):
    experiment = small_video_experiment()
    sampling = replace(experiment.sampling, visible=visible, other_segment=segment, clip_stride=1)
    pairs = dataset.PairDataset(counted, replace(experiment, sampling=sampling))
    speeds, apart = [], 0
    for epoch in range(12):
        for number in range(3):
            (query,) = pairs.load_clips(epoch, number, ("query",))
            key, other = pairs.load_clips(epoch, number, ("key", "other"))
            frames = [[frame_number(image) for image in sample.clip] for sample in (query, key, other)]
            steps = [set(np.diff(taken)) for taken in frames]
            assert steps[0] == steps[1]
            assert {*steps[0], *steps[2]} == {1, 2}
            speeds.append(steps[0].pop())
            apart += frames[1][0] != frames[2][0]
            for sample, taken in zip((query, key, other), frames, strict=True):
                assert sample.masked
                reference = taken[0] + 8
                shown = taken if visible == "clip" else [reference]
                assert all(square(number, frame).any() for frame in shown)
                if visible == "middle":
                    assert all(np.array_equal(sample.mask[0], mask) for mask in sample.mask)
            # loaded alone, it is the same as together with the key
            assert np.array_equal(one(pairs, epoch, number, "other").clip, other.clip)
    assert 8 < speeds.count(1) < 28
    assert (apart > 20) if segment == "own" else (apart == 0)


def test_every_frame_of_a_clip_has_its_own_mask_in_one_crop(index):
    pairs = dataset.PairDataset(index, small_video_experiment())
    overlaps = []
    for number in (0, 2, 4):
        colour = frame_image(number, 0)[square(number, 0)][0].astype(int)
        for role in ("query", "key", "other"):
            sample = one(pairs, 0, number, role)
            clip = augment.to_rgb(torch.from_numpy(sample.clip)[None], torch.tensor([sample.matrix]))[0] * 255
            away, ground = (np.abs(clip.numpy() - of).sum(1) for of in (colour[:, None, None], 90))
            seen = away < ground
            overlaps += [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(seen, sample.mask, strict=True)]
            assert any(not np.array_equal(sample.mask[0], mask) for mask in sample.mask)
    assert np.mean(overlaps) > 0.85


def test_clips_equal_those_of_a_plain_decoding(index, tmp_path):
    pairs, size = dataset.PairDataset(index, small_video_experiment()), 64
    for number in (0, 2, 4):
        plan = pairs._plan(0, number, ("key", "other"))
        stored = tmp_path / f"{number}.mp4"
        with open(f"{index.crawls[0].videos}/{video_table.tar_name(plan.video.shard)}", "rb") as tar:
            tar.seek(plan.video.offset)
            stored.write_bytes(tar.read(plan.video.size))
        with av.open(str(stored)) as container:
            images = [frame.to_ndarray() for frame in container.decode(video=0)]
        masks = tube_table.read_masks(index.crawls[0].tubes, plan.video, range(plan.video.num_frames))
        for sample, (role, frames) in zip(
            pairs.load_clips(0, number, ("key", "other")), plan.frames.items(), strict=True
        ):
            reference = masks[plan.mask_frames[role][len(frames) // 2]]
            left, top, right, bottom = pairs._crop(plan, role, reference)
            for image, mask, frame, of in zip(sample.clip, sample.mask, frames, plan.mask_frames[role], strict=True):
                height = plan.video.height
                luma, chroma = images[frame][:height], images[frame][height:].reshape(2, height // 2, -1)
                cut = [luma[top:bottom, left:right]]
                cut += [plane[top // 2 : bottom // 2, left // 2 : right // 2] for plane in chroma]
                sides = (size, size // 2, size // 2)
                resized = [cv2.resize(plane, (side, side)) for plane, side in zip(cut, sides, strict=True)]
                np.testing.assert_array_equal(image.ravel(), np.concatenate([plane.ravel() for plane in resized]))
                window = masks[of][top:bottom, left:right].astype(np.uint8)
                expected = cv2.resize(window, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
                np.testing.assert_array_equal(mask, expected)


def test_the_other_clip_needs_the_speed_task(index):
    with pytest.raises(ValueError, match="no other clip"):
        one(dataset.PairDataset(index, small_experiment()), 0, 0, "other")


def test_masks_and_crops_are_those_of_the_frame(index):
    """The square has a colour of its own, so the mask of a crop can be read from the crop."""
    pairs = dataset.PairDataset(index, small_experiment())
    overlaps = []
    for number in (0, 2, 4):
        colour = frame_image(number, 0)[square(number, 0)][0].astype(int)
        for epoch in range(4):
            for role in ("query", "key"):
                sample = one(pairs, epoch, number, role)
                assert sample.masked
                away, ground = (np.abs(rgb(sample) - of).sum(0) for of in (colour[:, None, None], 90))
                seen = away < ground
                overlap = (seen & sample.mask[0]).sum() / (seen | sample.mask[0]).sum()
                overlaps.append(overlap)
    # The codec blurs the edges, most if the square is small in its crop. A mask of another place would overlap little.
    assert min(overlaps) > 0.75
    assert np.mean(overlaps) > 0.9


def test_videos_without_an_object_are_flagged(index):
    pairs = dataset.PairDataset(index, small_experiment())
    masked = [one(pairs, 0, number, "query").masked for number in range(VIDEOS)]
    assert masked == [number % 4 != 3 for number in range(VIDEOS)]
    untracked = one(pairs, 0, 3, "key")
    assert untracked.mask.all()
    assert not untracked.error


def test_zero_gap_takes_two_crops_of_one_frame(index):
    experiment = small_experiment()
    experiment = replace(experiment, sampling=replace(experiment.sampling, gap="zero"))
    pairs = dataset.PairDataset(index, experiment)
    query, key = one(pairs, 0, 0, "query"), one(pairs, 0, 0, "key")
    assert not np.array_equal(query.clip, key.clip)
    assert not np.array_equal(query.draw, key.draw)


def test_the_baseline_never_opens_a_tube(index, tmp_path):
    experiment = small_experiment()
    experiment = replace(
        experiment,
        sampling=replace(experiment.sampling, constraint="none"),
        objective=replace(experiment.objective, attention_weight=0.0),
    )
    pairs = dataset.PairDataset(moved(index, tubes=str(tmp_path / "nowhere")), experiment)
    batch = all_batches(pairs, schedule())[0]
    assert not batch.query.masked.any()
    assert batch.query.usable.all()


@pytest.fixture
def broken(index, tmp_path):
    """Return the index with the bytes of two videos overwritten."""
    copy = str(tmp_path / "videos")
    shutil.copytree(index.crawls[0].videos, copy)
    for number in (1, 4):
        record = index[number]
        with open(f"{copy}/{video_table.tar_name(record.shard)}", "r+b") as file:
            file.seek(record.offset)
            file.write(b"\xff" * record.size)
    return moved(index, videos=copy)


def test_damaged_clips_are_skipped_named_and_counted(broken):
    pairs = dataset.PairDataset(broken, small_experiment())
    plan = schedule(batch=10)
    batch = all_batches(pairs, plan)[0]
    assert [video_id for video_id, _ in batch.damaged] == ["v001", "v004"]
    rows = [row for row, video_id in enumerate(batch.query.video_ids) if video_id in ("v001", "v004")]
    assert batch.query.usable.logical_not().nonzero().flatten().tolist() == rows
    for row in rows:  # the placeholder is the clip of a good row
        assert any(torch.equal(batch.query.clips[row], batch.query.clips[n]) for n in range(10) if n not in rows)
    assert not batch.query.masked[rows].any()


def test_damage_removes_key_and_other_of_a_pair_but_not_its_neighbours(broken):
    batch = all_batches(dataset.PairDataset(broken, small_video_experiment()), schedule(batch=10))[0]
    bad = torch.tensor([video_id in ("v001", "v004") for video_id in batch.key.video_ids])
    for side in (batch.key, batch.other):
        assert torch.equal(side.usable, ~bad)
        assert not side.masked[bad].any()
        assert side.masks[bad].all()
    assert batch.query.usable.sum() == 8


def test_a_batch_of_damaged_clips_is_grey(broken):
    pairs = dataset.PairDataset(broken, small_video_experiment())
    loaded = next(pairs.load([[(0, 0, 1, 1)] * 2]))
    batch = dataset.collate(*loaded, schedule(batch=2))
    images, _ = augment.augment(batch.query.clips, batch.query.matrices, batch.query.masks, torch.zeros(2, 8) + 1)
    grey = augment.to_rgb(batch.query.clips, batch.query.matrices)
    assert images.isfinite().all()
    assert (grey - 108 / 219).abs().max() < 1e-6
    assert [video_id for video_id, _ in batch.damaged] == ["v001"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_tube_is_skipped_and_named(index, tmp_path, workers):
    copy = str(tmp_path / "tubes")
    shutil.copytree(index.crawls[0].tubes, copy)
    record = index[2]
    with open(f"{copy}/{tube_table.blob_name(record.shard)}", "r+b") as file:
        file.seek(record.tube_offset)
        file.write(b"\xff" * record.tube_size)
    pairs = dataset.PairDataset(moved(index, tubes=copy), small_experiment())
    batch = all_batches(pairs, schedule(batch=10), workers=workers)[0]
    assert [video_id for video_id, _ in batch.damaged] == ["v002"]
    assert "tubes" in batch.damaged[0][1]


def test_a_missing_shard_stops_training_before_the_first_step(index, tmp_path):
    shutil.copytree(index.crawls[0].videos, tmp_path / "videos")
    (tmp_path / "videos" / video_table.tar_name(1)).unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the 2 shards .*shard-00001\.tar"):
        dataset.PairDataset(moved(index, videos=str(tmp_path / "videos")), small_experiment())


@pytest.mark.parametrize("experiment", [small_experiment(), small_video_experiment()], ids=["image", "speed"])
def test_a_bucket_gives_the_samples_of_the_disk_with_two_requests_a_pair(index, experiment, tmp_path, monkeypatch):
    plan = schedule(batch=8, epochs=4)
    near = all_batches(dataset.PairDataset(index, experiment), plan)
    (crawl,) = index.crawls
    bucket = moved(index, videos=f"counted://{crawl.videos}", tubes=f"counted://{crawl.tubes}")
    monkeypatch.setattr(counted_store, "LATENCY", 0.01)
    requests = []
    for cache in (None, (str(tmp_path / "cache"), 10**9)):
        pairs = dataset.PairDataset(bucket, experiment, cache)
        counted_store.REQUESTS.clear()
        far = all_batches(pairs, plan)
        requests.append(counted_store.REQUESTS["read"] / (8 * len(near)))
        assert not counted_store.REQUESTS["in turn"]
        for ours, its in zip(far, near, strict=True):
            for one_side, other in zip(ours[:3], its[:3], strict=True):
                assert (one_side is None) == (other is None)
                assert one_side is None or all(torch.equal(a, b) for a, b in zip(one_side[:6], other[:6], strict=True))
    assert requests[0] <= 2  # one for the video and one for its tube
    assert requests[1] <= 0.5  # each block once in four epochs


def test_a_folder_of_the_cache_that_cannot_be_made_is_an_error(index, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*/file/cache"):
        dataset.PairDataset(index, small_experiment(), (str(tmp_path / "file" / "cache"), 10**9))
