"""Oracles: a list of shares sorted by hand, and a corpus whose tubes are known."""

from pathlib import Path

import pytest
from report_world import (
    Reader,
    World,
    fingerprint,
    make_checkpoint,
    make_corpus,
)

from previts.config.perception import FilterConfig
from previts.corpus import quality
from previts.reporting import corpus, inputs
from previts.reporting.corpus import FRAMES
from previts.reporting.page import build_report
from previts.storage import folders


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_chosen_tubes_are_the_best_the_median_and_the_worst(count: int) -> None:
    held = [0, 90, 10, 50, 100, 30, 0, 70, 60, 20, 40, 100]
    agreement = [0.9] * 11 + [0.8]
    videos = [
        quality.Quality(f"v{number}", "", "", 0, 0, "", "", 100.0, share, 0.1, None, 0.0, alike)
        for number, (share, alike) in enumerate(zip(held, agreement, strict=True))
    ]
    chosen = corpus.choose(videos, count)
    places = [place for place, _ in chosen]
    assert len(places) == len(set(places)) == {0: 0, 1: 4, 3: 10, 100: 11}[count]  # of those without a tube one
    by_kind = {
        kind: sorted(held[place] for place, why in chosen if why.startswith(kind))
        for kind in ("best", "median", "worst", "no object")
    }
    if count == 1:
        # Two videos are held throughout; the one whose priors agree more is the best.
        assert by_kind == {"best": [100], "median": [60], "worst": [10], "no object": [0]}
        assert (4, "best, rank 1 of 10") in chosen
    if count == 3:
        assert by_kind == {"best": [90, 100, 100], "median": [50, 60, 70], "worst": [10, 20, 30], "no object": [0]}


def test_funnel_counts_are_those_of_the_corpus(page: Reader) -> None:
    assert page.row("Videos in the crawl")[1] == "6"
    assert page.row("Usable videos")[1:] == ["5", "", "83 % 1 failed"]
    # moving_square: number 3 shows nothing, the others leave after 16, 13, 10 and 4 of 16 frames
    assert page.row("Kept by the filter")[1:] == ["5", "", "83 % none left out"]
    assert page.row("Videos with a tube")[1:] == ["4", "", "67 % 1 without"]
    assert page.row("Length of the kept videos")[1] == "10.0 s"
    assert page.row("Time in which the object")[1:] == ["5.4 s", "", "54 % in 4 spans, 1.3 s each"]


def test_tubes_made_of_exact_masks_have_an_iou_of_one_in_the_report(world: World, page: Reader) -> None:
    # Four of the five videos with a clip have exact masks; in one of them nothing is ever visible.
    assert (world.counts["tube_videos"], world.counts["tube_iou"], world.counts["tube_tracked_iou"]) == (4, 1, 1)
    assert world.counts["tube_tracked"] == pytest.approx((13 + 10 + 0 + 4) / 64, abs=1e-4)
    sentence = "On the 4 videos with exact masks the tubes have a mean IoU of 1.000 over all frames"
    assert sentence in world.markdown
    assert "Mean IoU, frames with a tube 1.000" in " ".join(page.text.split())
    assert page.text.count("IoU 1.00") >= 4 * FRAMES


def test_filter_reasons_are_shown_with_their_counts(tmp_path: Path) -> None:
    names = [*(f"video-{number}" for number in range(5)), "broken"]
    corpus = make_corpus(tmp_path, names, config=FilterConfig(min_tube_seconds=1.3, min_agreement=0.55))
    checkpoint = make_checkpoint(tmp_path, "eee", corpus, 3.0)
    rows = [inputs.ReportRow("arm", "arm", checkpoint, fingerprint(checkpoint), {})]
    counts = build_report([], str(tmp_path / "out"), rows, profile="demo")
    page = Reader((tmp_path / "out" / "report.html").read_text())
    # Visible for 2, 1.6, 1.25, 0 and 0.5 s; the priors agree by 0.5 on the first and more on the others.
    assert page.row("Kept by the filter")[1:] == [
        "1", "", "17 % 4 left out: 3 short (filter.min_tube_seconds=1.3), 1 disagreeing (filter.min_agreement=0.55)",
    ]  # fmt: skip
    assert page.row("Videos with a tube")[1:] == ["1", "", "17 % 0 without"]
    assert "tube_iou" not in counts
    assert "exact mask" not in page.text


def test_a_corpus_that_was_compared_with_nothing_has_a_warning(world: World, page: Reader) -> None:
    sentence = "The corpus was compared with no labelled set, so it may show test items"
    assert sentence in " ".join(page.text.split())
    assert f"**{sentence}" in world.markdown


def test_the_report_says_what_the_corpus_was_compared_with(tmp_path: Path) -> None:
    indexed = make_corpus(tmp_path, ["a", "b", "broken"])
    manifest = folders.read_manifest(indexed)
    sets = {
        "voc": {"held_out": "1", "items": 1200, "unreadable": 3, "causes": {"000016": "it is too uniform"}},
        "ucf101": {"held_out": "2", "items": 34, "unreadable": 0, "causes": {}},
        "coco": {"held_out": "3", "items": 0, "unreadable": 0, "causes": {"": "instances_val2017.json is missing"}},
    }
    counts = {**manifest.counts, "filtered_leak": 2, "leak_items": 1234, "leak_unreadable": 3}
    folders.commit(
        indexed,
        manifest.decided,
        inputs=manifest.inputs,
        counts=counts,
        info={"leak_sets": sets},
        files=manifest.files,
    )
    found = corpus.read_corpus(indexed, 0)
    assert found.leakage == (
        "2 videos were left out because they show a test item of a labelled set. The corpus was compared with 1,234 "
        "test items of ucf101, voc. 3 items could not be compared: they are unreadable, or too uniform."
    )
    assert found.unguarded == (
        "The corpus may show test items of these sets, whose lists could not be read: "
        "coco (instances_val2017.json is missing)"
    )
    checkpoint = make_checkpoint(tmp_path, "fff", indexed, 3.0)
    rows = [inputs.ReportRow("1/vgg/previts", "PreViTS", checkpoint, fingerprint(checkpoint), {})]
    build_report([], str(tmp_path / "report"), rows, index=indexed)
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text().replace("\\", "")
        assert found.leakage in text
        assert found.unguarded in text
