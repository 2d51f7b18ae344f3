"""The verb `download` on a small synthetic world. Oracles: the crawl, and the files before a second call."""

import re
import shutil
from pathlib import Path

import pytest
from mlflow_runs import free_port
from small_verbs import SMALL, snapshot

from previts import stages
from previts.corpus import video_table
from previts.errors import InputError
from previts.storage import folders


def test_every_video_of_the_crawl_has_a_row_in_order(made):
    counts = folders.read_manifest(made["videos"]).counts
    rows = [row for shard in range(int(counts["shards"])) for row in video_table.read_shard(made["videos"], shard)]
    crawl = Path(made["crawl"]).read_text().splitlines()[1:]
    assert [row.video_id for row in rows] == [line.split(",")[0] for line in crawl]
    assert counts["videos"] == len(crawl) == counts["ok"] + counts["failed"]
    assert counts["failed"] == sum(row.video_id.startswith("bad") for row in rows) == 3
    assert all(row.error for row in rows if row.status == "failed")


def test_too_many_failures_stop_the_download_and_stored_videos_are_kept(made, world, tmp_path):
    with pytest.raises(InputError, match=r"3 of the 9 videos .* failed, more than the allowed share of 0.1"):
        stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.1)
    stored = snapshot(str(tmp_path))
    videos = stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.5)
    assert folders.read_manifest(videos).counts["failed"] == 3
    assert {name: snapshot(str(tmp_path))[name] for name in stored} == stored


def test_a_crawl_with_a_changed_local_video_has_another_address(made, world, tmp_path):
    shutil.copy(world / "crawl.csv", tmp_path)
    shutil.copytree(world / "videos", tmp_path / "videos")
    same = stages.download(str(tmp_path / "crawl.csv"), made["root"], "demo", SMALL)
    assert same == made["videos"]
    one = next((tmp_path / "videos").glob("v*.mp4"))
    one.write_bytes(one.read_bytes()[:-7] + b"changed")
    other = stages.download(str(tmp_path / "crawl.csv"), str(tmp_path / "root"), "demo", SMALL)
    assert other.rsplit("/", 1)[1] != made["videos"].rsplit("/", 1)[1]


def test_the_remedy_for_failures_names_the_network_only_if_it_can_be_the_cause(tmp_path, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1")
    closed = f"https://127.0.0.1:{free_port()}/video.mp4"
    remedies = {
        (closed,): "run again for the 1 that may be temporary, and check the network. ",
        (closed, "gone.mp4"): "run again for the 1 that may be temporary, and check the network, or fix the crawl. ",
        ("gone.mp4",): "fix the crawl. ",
    }
    for urls, remedy in remedies.items():
        crawl = tmp_path / f"{len(urls)}-{len(urls[0])}.csv"
        crawl.write_text("video_id,url\n" + "".join(f"v{number},{url}\n" for number, url in enumerate(urls)))
        with pytest.raises(InputError, match=re.escape(f"What to do: {remedy}Videos already stored are kept")):
            stages.download(str(crawl), str(tmp_path / "root"), "demo", SMALL)
