"""Oracle: the same comparison with Python's sets."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from generations_of_a_corpus import commit_index, stored

from previts.corpus import quality
from previts.corpus.quality import Quality
from previts.reporting import turnover


def sets(crawls: Mapping[str, Sequence[Quality]]) -> dict[str, set[tuple[str, str]]]:
    """Return the videos that each count of an index is about, by crawl and id."""
    every = {(name, video.video_id): video for name, videos in crawls.items() for video in videos}
    kept = {key for key, video in every.items() if not video.reason}
    return {
        "videos_in": set(every),
        "videos": kept,
        "videos_with_tube": {key for key in kept if every[key].tube_seconds},
        **{f"filtered_{name}": {key for key in every if every[key].reason == name} for name in quality.REASONS},
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_came_and_went_is_that_of_sets(tmp_path: Path, seed: int):
    draw = random.Random(seed)

    def crawl(ids: Sequence[int]) -> list[Quality]:
        return [
            stored(
                f"v{number}",
                draw.choice(["", "", *quality.REASONS]),
                seconds=draw.choice([3.6, 36.0]),
                tube=draw.choice([0.0, 1.5]),
            )
            for number in ids
        ]

    def judged_again(videos: Sequence[Quality]) -> list[Quality]:
        other = crawl(range(len(videos)))
        return [
            replace(video, reason=new.reason if draw.random() < 0.3 else video.reason)
            for video, new in zip(videos, other, strict=True)
        ]

    older = {"b": crawl(range(200)), "c": crawl(range(100, 300)), "dropped": crawl(range(40))}
    # A new crawl is the first, so the others have other numbers; two crawls have videos of the same ids.
    newer = {"a": crawl(range(250)), "b": judged_again(older["b"]), "c": judged_again(older["c"])}
    found = turnover.compare(*(turnover.read_stored(commit_index(str(tmp_path), crawls)) for crawls in (older, newer)))
    before, after = sets(older), sets(newer)
    lengths = {(name, video.video_id): video.seconds for name, videos in (older | newer).items() for video in videos}
    for name in before:
        assert (found.came[name], found.went[name]) == (
            len(after[name] - before[name]),
            len(before[name] - after[name]),
        )
    for moved, keys in (
        (found.came, after["videos"] - before["videos"]),
        (found.went, before["videos"] - after["videos"]),
    ):
        assert moved["hours"] == pytest.approx(sum(lengths[key] for key in keys) / 3600, abs=1e-4)
    now = {(name, video.video_id): video.reason for name, videos in newer.items() for video in videos}
    assert found.reasons == Counter(now.get(key, turnover.GONE) for key in before["videos"] - after["videos"])
    assert list(found.reasons.values()) == sorted(found.reasons.values(), reverse=True)
    assert Counter(reason for _, reason, _ in found.examples) == {
        name: min(turnover.EXAMPLES, count) for name, count in found.reasons.items()
    }


def test_some_videos_that_went_are_named_with_the_reason_that_they_have_now(tmp_path: Path):
    ids = ("a", "b", "c", "d", "e")
    before = commit_index(str(tmp_path), {"1": [stored(name) for name in ids], "2": [stored("z")]})
    words = "request of the owner"
    now = [stored("a"), *(stored(name, "withdrawn", words) for name in "bcd"), stored("e", "leak", "shows davis/dog")]
    after = commit_index(str(tmp_path), {"0": [stored("b")], "1": now})
    found = turnover.compare(turnover.read_stored(before), turnover.read_stored(after))
    assert found.reasons == {"withdrawn": 3, "leak": 1, "gone": 1}
    assert found.examples == (
        ("b", "withdrawn", words), ("c", "withdrawn", words), ("e", "leak", "shows davis/dog"), ("z", "gone", ""),
    )  # fmt: skip
