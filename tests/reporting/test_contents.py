"""Oracle: sentences written by hand."""

import pytest

from previts.corpus.truth import Score
from previts.reporting import contents
from previts.reporting.corpus import Corpus


@pytest.mark.parametrize(
    ("name", "title"), [("1", "Table 1"), ("6b", "Table 6b"), ("a2", "Figure A2 (appendix)"), ("", "Results")]
)
def test_tables_have_the_titles_of_the_paper(name: str, title: str) -> None:
    assert contents.table_title(name) == title


def test_only_a_run_of_the_papers_size_has_no_warning() -> None:
    assert contents.warning("paper") == ""
    assert "demo-sized" in contents.warning("demo")
    assert "not recorded" in contents.warning("")


def test_the_sentence_of_a_corpus_has_its_scores() -> None:
    corpus = Corpus("uri", score=Score(iou=0.51234, tracked=0.256, tracked_iou=None), labelled=1200)
    assert contents.truth_sentence(corpus).startswith(
        "On the 1,200 videos with exact masks the tubes have a mean IoU of 0.512 over all frames; 26% of the frames"
    )
