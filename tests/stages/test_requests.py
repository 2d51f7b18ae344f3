"""Requests to an object store: how many wait for each other must not depend on the number of crawls.

A bucket answers in some 50 ms. A thousand crawls with a few requests each, one after the other, would take minutes.
"""

from pathlib import Path

import counted_store
import pytest
from table_corpus import SETTINGS, run_stages, write_crawls, write_outputs

from previts import stages
from previts.config.perception import FilterConfig
from previts.corpus import withdrawals
from previts.corpus.index_table import join_corpus
from previts.corpus.left_out import find_left_out
from previts.corpus.members import uris
from previts.corpus.truth import find_truths
from previts.runs import check, steps
from previts.storage import files

VIDEOS = 4  # of a crawl


def add_crawl(base: str) -> None:
    """Add a crawl whose only video is withdrawn, so that nothing is fetched."""
    withdrawals.write(f"{base}/root", withdrawals.Withdrawal("new", "a test"))
    files.write_bytes(f"{base}/crawls/99999.csv", b"video_id,url\nnew,https://videos.example/new.mp4\n")


def measured(base: str, crawls: int) -> dict[str, int]:
    """Return the number of requests in turn of each step on a corpus, with and without a new crawl."""
    write_crawls(f"{base}/crawls", VIDEOS * crawls, crawls)
    at = write_outputs(f"{base}/crawls", f"{base}/root")
    counts: dict[str, int] = {}

    def count(name: str, step) -> None:
        counted_store.REQUESTS.clear()
        counted_store.LISTED.clear()
        step()
        counts[name] = counted_store.REQUESTS["in turn"]
        large = [f"{base}/{folder}".removeprefix("counted://") for folder in ("crawls", "root/videos", "root/tubes")]
        assert all(counted_store.LISTED[folder] <= 1 for folder in large), name

    count(
        "check", lambda: check.check_sources(f"{base}/crawls", None, rows=["1/vgg/moco"], benchmarks=[], profile="demo")
    )
    count("list", lambda: steps.list_crawls(f"{base}/crawls", f"{base}/root"))
    count("nothing new", lambda: run_stages(f"{base}/crawls", f"{base}/root", at["model"]))
    count("left out", lambda: find_left_out(at["videos"], FilterConfig()))
    count("join", lambda: list(join_corpus(at["videos"], at["tubes"])))
    count("truths", lambda: find_truths(uris(at["videos"])))
    add_crawl(base)
    count("a new crawl", lambda: run_stages(f"{base}/crawls", f"{base}/root", at["model"]))
    count("fit", lambda: stages.fit_saliency(at["videos"], f"{base}/other", "paper", SETTINGS))
    return counts


@pytest.mark.slow
def test_a_step_waits_for_as_many_requests_with_three_crawls_as_with_twelve(tmp_path: Path):
    assert measured(f"counted://{tmp_path}/a", 3) == measured(f"counted://{tmp_path}/b", 12)
