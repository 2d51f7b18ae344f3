"""The verb `download` on a small synthetic world. Oracles: the crawl, and the files before a second call."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from costly_videos import write_images
from mlflow_runs import free_port
from small_verbs import SMALL, snapshot
from source_videos import numbered, write_source

from previts import stages
from previts.corpus import video_table
from previts.errors import InputError
from previts.ingest import confinement
from previts.media import normalisation
from previts.storage import folders


def test_every_video_of_the_crawl_has_a_row_in_order(made):
    counts = folders.read_manifest(made["videos"]).counts
    rows = [row for shard in range(int(counts["shards"])) for row in video_table.read_shard(made["videos"], shard)]
    crawl = Path(made["crawl"]).read_text().splitlines()[1:]
    assert [row.video_id for row in rows] == [line.split(",")[0] for line in crawl]
    assert counts["videos"] == len(crawl) == counts["ok"] + counts["failed"]
    assert counts["failed"] == sum(row.video_id.startswith("bad") for row in rows) == 3
    assert all(row.error for row in rows if row.status == "failed")


def test_too_many_failures_stop_the_download_and_stored_videos_are_kept(made, world, tmp_path, capfd):
    with pytest.raises(InputError, match=r"3 of the 9 videos .* failed, more than the allowed share of 0.1"):
        stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.1)
    assert capfd.readouterr().err.count("decoders are confined by") == 1
    stored = snapshot(str(tmp_path))
    videos = stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.5)
    assert folders.read_manifest(videos).counts["failed"] == 3
    assert {name: snapshot(str(tmp_path))[name] for name in stored} == stored
    # The second command decoded nothing. The manifest says how the decoders of the first one were confined.
    assert folders.read_manifest(videos).info["sandbox"]["hidden_parent"]
    assert "decoders are confined" not in capfd.readouterr().err
    # On Google the step may write only below this folder (k8s/overlays/gke/cluster.sh).
    assert {path.name for path in tmp_path.iterdir()} == {"videos"}


def test_the_manifest_says_how_the_decoders_were_confined(made):
    layers = folders.read_manifest(made["videos"]).info["sandbox"]
    assert set(layers) >= {"hidden_parent", "no_new_privs", *confinement.FILES, *confinement.NETWORK}
    assert layers["hidden_parent"] == confinement.HELD or sys.platform != "linux"


def test_a_crawl_with_a_changed_local_video_has_another_address(made, world, tmp_path):
    shutil.copy(world / "crawls" / "crawl-1.csv", tmp_path / "crawl.csv")
    shutil.copytree(world / "crawls" / "videos", tmp_path / "videos")
    same = stages.download(str(tmp_path / "crawl.csv"), made["root"], "demo", SMALL)
    assert same == made["videos"]
    one = next((tmp_path / "videos").glob("v*.mp4"))
    one.write_bytes(one.read_bytes()[:-7] + b"changed")
    other = stages.download(str(tmp_path / "crawl.csv"), str(tmp_path / "root"), "demo", SMALL)
    assert other.rsplit("/", 1)[1] != made["videos"].rsplit("/", 1)[1]


def test_the_manifest_of_a_folder_crawl_counts_what_was_left_aside(world, tmp_path):
    folder = tmp_path / "crawl"
    folder.mkdir()
    shutil.copy(next((world / "crawls" / "videos").glob("v*.mp4")), folder / "a.MP4")
    for name in ("._a.MP4", ".DS_Store", "notes.txt"):
        (folder / name).write_bytes(b"x")
    videos = stages.download(str(folder), str(tmp_path / "root"), "demo", SMALL)
    manifest = folders.read_manifest(videos)
    assert manifest.counts["ok"] == manifest.counts["videos"] == 1
    assert manifest.info["left_aside"] == "2 hidden, 1 .txt"


def test_a_worker_stops_when_failing_videos_cost_too_much_and_goes_on_later(tmp_path):
    # Three videos of costly frames, whose last frames are damaged, each in its own shard.
    for number in range(3):
        path = tmp_path / f"{number}.mov"
        write_images(path, "png", (1024, 512), "rgb24", 60 + number)
        data = bytearray(path.read_bytes())
        place = data.rindex(b"IDAT") + 200
        data[place : place + 600] = bytes(600)
        path.write_bytes(data)
    good = tmp_path / "good.mp4"
    normalisation.encode_video([np.full((64, 96, 3), 8 * number, np.uint8) for number in range(30)], 25, str(good))
    rows = [f"{path.stem},{path}" for path in [*sorted(tmp_path.glob("*.mov")), good]]
    (tmp_path / "crawl.csv").write_text("\n".join(["video_id,url", *rows]))
    arguments = (str(tmp_path / "crawl.csv"), str(tmp_path / "root"), "demo")
    settings = ["video.videos_per_shard=1"]
    limit = 0.3 / 3600
    with pytest.raises(InputError, match=r"took .* CPU hours, more than video.max_lost_cpu_hours=.*up to shard 0"):
        stages.download(*arguments, [*settings, f"video.max_lost_cpu_hours={limit:.6f}"], max_failure_fraction=1)
    stored = snapshot(str(tmp_path / "root"))
    assert any(name.endswith("shard-00000.parquet") for name in stored)
    videos = stages.download(*arguments, settings, max_failure_fraction=1)  # the limit is not part of the address
    assert {name: snapshot(str(tmp_path / "root"))[name] for name in stored} == stored
    counts = folders.read_manifest(videos).counts
    assert (counts["ok"], counts["failed"], counts["too_costly"]) == (1, 3, 0)


def test_the_manifest_counts_what_was_too_costly_and_what_is_shortened(tmp_path):
    write_images(tmp_path / "bomb.mov", "png", (4096, 2048), "rgb24", 1000)
    whole = Path(write_source(tmp_path / "whole.ts", [numbered(number) for number in range(50)])).read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) * 2 // 3 // 188 * 188 - 77])
    videos = stages.download(str(tmp_path), str(tmp_path / "root"), "demo", max_failure_fraction=1)
    rows = {row.video_id: row for row in video_table.read_shard(videos, 0)}
    counts = folders.read_manifest(videos).counts
    assert (counts["ok"], counts["failed"], counts["too_costly"], counts["shortened"]) == (2, 1, 1, 1)
    (short,) = (row for name, row in rows.items() if name.startswith("cut"))
    assert 0 < short.missing_seconds == pytest.approx(counts["missing_seconds"], abs=0.06)
    assert counts["skipped_frames"] == sum(row.skipped_frames for row in rows.values())


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


def test_a_crawl_that_is_refused_leaves_no_empty_folder(tmp_path):
    crawl, root = tmp_path / "crawl.csv", tmp_path / "root"
    crawl.write_text("video_id,url,start_seconds,end_seconds\na,a.mp4,5,2\nb,b.mp4,5,2\n")
    with pytest.raises(InputError, match="2 broken lines"):
        stages.download(str(crawl), str(root), "demo", SMALL)
    assert list(root.glob("*/*")) == []
