"""Oracles: a second world of the same seed, and frames rendered again from the plans."""

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from source_videos import decode_file

from previts import errors
from previts.config import experiment
from previts.demo import TINY, WorldConfig, add_crawl, make_world, read_masks
from previts.demo.cast.casting import compose
from previts.demo.films import film, plan_videos
from previts.demo.scene import render
from previts.demo.scenery.backgrounds import FAMILIES
from previts.ingest import crawls
from previts.media import masks, normalisation
from previts.saliency.priors import prior_map


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_two_worlds_of_one_seed_have_the_same_bytes_on_two_stores(world):
    root, counts = world
    assert make_world("memory://demo-world", TINY) == counts
    store = fsspec.filesystem("memory")
    again = {path.removeprefix("/demo-world/"): store.cat_file(path) for path in store.find("/demo-world")}
    store.rm("/demo-world", recursive=True)
    first = files(root)
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_a_later_crawl_is_added_once_and_has_copies_and_test_items(world, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(world[0], root)
    before = files(root)
    uris = [add_crawl(str(root), TINY, crawl) for crawl in (2, 3)]
    after = files(root)
    assert {name: after[name] for name in before} == before
    first, second, third = (crawls.read_crawl(str(root / "crawls" / f"crawl-{number}.csv")) for number in (1, 2, 3))
    ids = [item.video_id for item in first[:6] + second[:3] + third[:3]]
    assert ids == [plan.video_id for crawl in (1, 2, 3) for plan in plan_videos(TINY, crawl)]
    names = [Path(item.url).name for item in second[3:] + third[3:]]
    assert [name.split("_")[0] for name in names] == [
        *("equal", "equal", "equal", "coded", "half", "davis", "ucf101"),
        *("equal", "equal", "trimmed", "logo", "mirrored", "voc"),
    ]
    videos = root / "crawls" / "videos"
    for name in names:
        kind, original = name.split("_", 1)
        if kind == "equal":
            assert (videos / name).read_bytes() == (videos / original).read_bytes()
        elif kind == "mirrored":
            shown, mirrored = decode_file(videos / original), decode_file(videos / name)
            assert np.abs(shown[:, :, ::-1].astype(float) - mirrored).mean() < 8
        elif kind == "trimmed":
            assert len(decode_file(videos / name)) < len(decode_file(videos / original))
        elif kind == "half":
            assert [2 * side for side in decode_file(videos / name).shape[1:3]] == [TINY.height, TINY.width]
    (videos / names[0]).unlink()  # a crawl that is there is not written again
    assert [add_crawl(str(root), TINY, crawl) for crawl in (2, 3)] == uris
    assert not (videos / names[0]).exists()


def test_another_seed_gives_another_world():
    first, second = (film(config, plan_videos(config)[0])[0] for config in (TINY, replace(TINY, seed=1)))
    assert (first.image != second.image).mean() > 0.5


def test_the_crawl_is_readable_and_its_masks_match_its_videos(world):
    root, counts = world
    items = crawls.read_crawl(str(root / "crawls" / "crawl-1.csv"))
    assert len(items) == counts["videos"] + counts["bad_items"]
    plans = {plan.video_id: plan for plan in plan_videos(TINY)}
    for item in items[: counts["videos"]]:
        frames = decode_file(item.url)
        exact = read_masks(str(root / "crawls" / "masks" / f"{item.video_id}.npz"))
        assert exact.shape == frames.shape[:3]
        assert item.label == plans[item.video_id].label
        rendered = film(TINY, plans[item.video_id])
        np.testing.assert_array_equal(exact, [frame.masks[0] for frame in rendered])
        assert np.abs(frames[0].astype(float) - rendered[0].image).mean() < 8  # H.264 is lossy


def test_the_bad_items_of_the_crawl_raise_a_video_error(world, tmp_path):
    root, _ = world
    bad = [item for item in crawls.read_crawl(str(root / "crawls" / "crawl-1.csv")) if item.video_id.startswith("bad_")]
    assert len(bad) == 3
    for item in bad:
        with pytest.raises(errors.VideoError):
            normalisation.normalise(item.url, str(tmp_path / "clip.mp4"), experiment.VideoConfig(), None, None)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 1.0])
def test_the_configured_share_of_videos_has_the_home_background(correlation):
    plans = plan_videos(replace(TINY, videos=900, background_correlation=correlation))
    homes = np.mean([plan.shot.family == plan.home for plan in plans])
    # Four standard deviations of a share of 900 draws; 0 and 1 are exact.
    assert homes == pytest.approx(correlation, abs=4 * np.sqrt(correlation * (1 - correlation) / 900) + 1e-12)
    away = [plan.shot.family for plan in plans if plan.shot.family != plan.home]
    if correlation < 1:
        assert set(away) == set(FAMILIES)


def test_objects_leave_and_arrive_as_planned():
    config = replace(TINY, videos=18)
    plans = plan_videos(config)
    shown = {
        plan.shot.visit: [frame.masks[0].any() for frame in film(config, plan)]
        for plan in plans
        if plan.shot.visit != "stays"
    }
    assert shown.keys() == {"leaves", "arrives"}
    assert shown["leaves"][0]
    assert not all(shown["leaves"])
    assert not shown["arrives"][0]
    assert shown["arrives"][-1]
    assert len({(plan.shot.width, plan.shot.height) for plan in plans}) == 3
    assert {plan.fps for plan in plans} == {12.0, 25.0}


@pytest.mark.slow
def test_robust_background_detection_finds_the_object_in_most_videos():
    config = WorldConfig()
    found, areas, cut = [], [], []
    for plan in plan_videos(config)[::2]:
        if plan.shot.visit == "arrives":
            continue
        frame = render(compose(config.seed, f"video/{plan.video_id}", plan.shot), 0.0)
        best = masks.components(prior_map("rbd", frame.image) > 0.5, 10)
        found.append(bool(best) and masks.iou(best[0], frame.masks[0]) >= 0.5)
        areas.append(frame.masks[0].mean())
        edge = frame.masks[0].copy()
        edge[1:-1, 1:-1] = False
        cut.append(edge.any())
    assert np.mean(found) >= 0.6
    assert np.mean(np.array(areas) > 0.06) > 0.9
    assert max(areas) < 0.3
    assert np.mean(cut) < 0.15
