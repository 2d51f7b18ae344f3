"""Oracle: the quality of a crawl of five videos, counted by hand."""

import csv
import io
from dataclasses import fields, replace

import numpy as np
import pytest

from previts.config.perception import FilterConfig
from previts.corpus import quality
from previts.corpus.quality import Quality
from previts.storage import tables


def video(number: int, tube_seconds: float, *, lost: float | None = None, area: float = 0.1, agreement: float = 0.5):
    return Quality(f"v{number:02d}", "", "", 0, 0, "", "", 10.0, tube_seconds, area, lost, 0.0, agreement)


CRAWL = [
    video(0, 10.0),
    video(1, 4.0, lost=4.0, agreement=0.2),
    video(2, 7.5, lost=9.0, area=0.3),
    video(3, 0.0, lost=0.0, area=0.0, agreement=0.05),
    video(4, 9.0, area=0.004),
]


def reason(item: Quality, config: FilterConfig) -> str:
    """Return the first reason that applies to a video."""
    reasons = {
        "short": item.tube_seconds < config.min_tube_seconds,
        "small": item.tube_seconds > 0 and item.mean_area < config.min_area,
        "large": item.tube_seconds > 0 and item.mean_area > config.max_area,
        "disagreeing": item.agreement is not None and item.agreement < config.min_agreement,
    }
    return item.reason or next((name for name, applies in reasons.items() if applies), "")


def judged(videos: list[Quality], config: FilterConfig) -> list[Quality]:
    table = quality.judged(tables.to_table(Quality, videos), config)
    return [Quality(**row) for row in table.to_pylist()]


def test_each_video_gets_the_first_reason_that_applies():
    unknown = replace(video(5, 3.0, area=0.5), agreement=None)
    crawl = [*CRAWL, unknown, replace(video(6, 1.0), reason="leak", detail="shows a test item")]
    for config in (FilterConfig(), FilterConfig(5.0, 0.01, 0.4, 0.3), FilterConfig(0, 0.2, 0.25, 0.1)):
        assert judged(crawl, config) == [replace(item, reason=reason(item, config)) for item in crawl]
        assert judged([], config) == []


def test_the_curve_falls_where_tubes_are_lost():
    # Of four tubes one ends at 40 % and one at 90 % of its video; the video without a tube does not count.
    at, held = quality.held_curve(CRAWL, points=11)
    assert at == pytest.approx(np.arange(11) / 10)
    assert held == [1, 1, 1, 1, 0.75, 0.75, 0.75, 0.75, 0.75, 0.5, 0.5]


def test_kept_by_equals_what_a_filter_with_the_threshold_keeps():
    crawl = tables.to_table(Quality, CRAWL)
    for field, values in quality.CANDIDATES.items():
        kept = []
        for value in values:
            config = FilterConfig(**{field: value})
            kept.append(sum(not reason(item, config) for item in [*CRAWL, video(9, 100.0)]))
            assert kept[-1] == quality.kept_by(tables.to_table(Quality, [*CRAWL, video(9, 100.0)]), field, value)
        assert kept == sorted(kept, reverse=True)  # candidates go from mild to strict
    assert quality.kept_by(crawl, "min_tube_seconds", 4.0) == 4
    assert quality.kept_by(crawl, "min_area", 0.005) == 4  # the video without a tube has no area, so it is kept
    assert quality.kept_by(crawl, "max_area", 0.2) == 4
    assert quality.kept_by(crawl, "min_agreement", 0.1) == 4


def test_each_number_of_the_summary_is_over_the_right_videos():
    counts = quality.summarise(tables.to_table(Quality, CRAWL))
    assert counts["tube_share"] == 0.8
    assert (counts["lost_share"], counts["lost_at"]) == (0.5, 0.65)
    assert counts["held_mean"] == pytest.approx((1 + 0.4 + 0.75 + 0.9) / 4, abs=1e-4)
    assert counts["area_q50"] == 0.1  # of the four tubes
    assert counts["agreement_mean"] == pytest.approx((3 * 0.5 + 0.2 + 0.05) / 5)  # of all
    assert quality.summarise(tables.to_table(Quality, [])) == {}
    assert set(quality.summarise(tables.to_table(Quality, [video(0, 0.0, lost=0.0)]))) == {
        "tube_share", "agreement_mean", "agreement_q25", "agreement_q50", "agreement_q75",
    }  # fmt: skip


def test_the_text_lists_the_weakest_videos_with_their_numbers():
    text = quality.describe(judged(CRAWL, FilterConfig(min_agreement=0.1)), worst=2)
    assert "5, of which the filter left out 1, 1 disagreeing" in text
    assert "with a tube 4 (80%)" in text
    assert "half of them before 65% of the video" in text
    weakest = [line.split(maxsplit=1) for line in text[text.index("The weakest:") :].splitlines()[1:]]
    assert weakest == [
        ["v03", "no object found (left out: disagreeing)"],
        ["v01", "visible 4.0 of 10.0 s, lost at 4.0 s, 10.0 % of the frame, priors agree 0.20"],
    ]
    assert "of 0 videos" in quality.describe([], worst=2)


def test_a_threshold_of_an_unknown_agreement_is_not_offered():
    known = quality.describe(CRAWL, worst=0)
    unknown = quality.describe([*CRAWL[:-1], replace(CRAWL[-1], agreement=None)], worst=0)
    assert "filter.min_agreement      cannot be set" in unknown
    assert "cannot be set" not in known


def test_the_csv_contains_every_field_of_every_video():
    lines = list(csv.DictReader(io.StringIO(quality.to_csv(CRAWL))))
    for line, item in zip(lines, CRAWL, strict=True):
        for field in fields(Quality):
            value = getattr(item, field.name)
            assert line[field.name] == ("" if value is None else str(value))


def test_the_csv_has_no_text_that_a_spreadsheet_runs():
    strange = replace(CRAWL[0], video_id='=HYPERLINK("http://x","y")', label="@SUM(A1)", split="-x", agreement=-0.5)
    (line,) = csv.DictReader(io.StringIO(quality.to_csv([strange])))
    assert (line["video_id"], line["label"], line["split"]) == ('\'=HYPERLINK("http://x","y")', "'@SUM(A1)", "'-x")
    assert line["agreement"] == "-0.5"
