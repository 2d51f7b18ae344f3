"""Oracle: a list of shares sorted by hand."""

import pytest

from previts.corpus import quality
from previts.reporting import corpus


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_chosen_tubes_are_the_best_the_median_and_the_worst(count: int) -> None:
    held = [0, 90, 10, 50, 100, 30, 0, 70, 60, 20, 40, 100]
    agreement = [0.9] * 11 + [0.8]
    videos = [
        quality.Quality(f"v{number}", "", "", 0, "", 100.0, share, 0.1, None, 0.0, alike)
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
