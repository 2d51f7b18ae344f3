"""A corpus of several crawls that grows. Oracle: the requests that a web server gets, and the files of the roots."""

import contextlib
import csv
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mlflow.tracking import MlflowClient
from small_verbs import PERCEIVE, SMALL, snapshot
from source_videos import numbered, write_source

from previts import stages
from previts.config import paper
from previts.corpus import index_table, members, video_table
from previts.errors import InputError
from previts.evals.result import read_result
from previts.pretraining.checkpoint import load_model
from previts.processes import workers
from previts.reporting.metrics import KNOWN
from previts.runlog import run_store
from previts.runs import check, steps
from previts.stages import addresses
from previts.storage import files, folders
from previts.withdraw import withdraw

ROW = "1/vgg/moco"


class Site(NamedTuple):
    """A web server with videos, the names that it was asked for, and the folder of the crawls that name them."""

    url: str
    requests: list[str]
    crawls: Path

    def add(self, crawl: str, *names: str, **ids: str) -> None:
        """Write a crawl of videos; `ids` are ids that differ from the names."""
        lines = [f"{ids.get(name, name)},{self.url}/{name}.mp4,{name[0]}" for name in names]
        (self.crawls / crawl).write_text("\n".join(["video_id,url,label", *lines]) + "\n")

    def take(self) -> list[str]:
        """Return the names of the videos that were fetched since the last call."""
        taken = sorted({Path(path).stem for path in self.requests})
        self.requests.clear()
        return taken


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("a1", "a2", "a3", "a4", "b1", "b2", "c1", "c2")):
        frames = [numbered(100 * number + frame) for frame in range(8 + number)]
        write_source(str(folder / f"{name}.mp4"), frames, fps=8)
    frames = [numbered(900 + frame, 192, 128) for frame in range(40)]
    write_source(str(folder / "d1.mp4"), frames, fps=8)
    write_source(str(folder / "d2.mp4"), [frame[::2, ::2] for frame in frames[4:]], fps=8, options={"crf": "35"})
    return folder


@pytest.fixture
def site(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(videos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", f"127.0.0.1:{server.server_address[1]}")
    (tmp_path / "crawls").mkdir()
    with contextlib.closing(server.socket):
        yield Site(f"http://127.0.0.1:{server.server_address[1]}", requests, tmp_path / "crawls")
        server.shutdown()


def perceive(site: Site, root: Path, parts: int = 1, *more: str) -> dict[str, str]:
    """Run the verbs up to the index on all crawls, and return the outputs."""
    at, settings = {"crawl": steps.list_crawls(str(site.crawls), str(root))}, [*SMALL, *more]
    for part in range(parts):
        at["videos"] = stages.download(at["crawl"], str(root), "demo", settings, part, parts)
    at["model"] = stages.fit_saliency(at["videos"], str(root), "demo", settings)
    for part in range(parts):
        at["saliency"] = stages.saliency(at["videos"], at["model"], str(root), "demo", settings, part, parts)
        at["tubes"] = stages.track(at["videos"], at["saliency"], str(root), "demo", settings, part, parts)
    at["index"] = stages.index(at["videos"], at["tubes"], str(root), "demo", settings)
    return at


def ids(index: str) -> list[str]:
    return [row.video_id for row in index_table.read_index(index)]


def test_a_new_crawl_costs_its_own_videos_only(site, tmp_path, capsys):
    root = tmp_path / "root"
    site.add("2026-01.csv", "a1", "a2", "a3", "a4")
    first = perceive(site, root)
    assert site.take() == ["a1", "a2", "a3", "a4"]
    before = snapshot(str(root))
    site.add("2026-02.csv", "b1", "b2")
    second = perceive(site, root)
    assert site.take() == ["b1", "b2"]
    assert {name: snapshot(str(root))[name] for name in before} == before
    assert ids(second["index"]) == ["a1", "a2", "a3", "a4", "b1", "b2"]
    assert second["model"] == first["model"]
    for stage in ("videos", "saliency", "tubes"):
        assert members.uris(second[stage])[0] == first[stage]
    counts = folders.read_manifest(second["videos"]).counts
    assert (counts["crawls"], counts["videos"], counts["ok"], counts["shards"]) == (2, 6, 6, 3)
    before = snapshot(str(root))
    capsys.readouterr()
    assert perceive(site, root) == second
    assert site.take() == []
    assert snapshot(str(root)) == before
    assert "made:" not in capsys.readouterr().err


def test_the_parts_of_a_corpus_share_its_shards_evenly_and_give_what_one_worker_gives(site, tmp_path, monkeypatch):
    for number in range(4):  # four crawls of one shard each
        names = ("a1", "a2", "b1", "c1")[number]
        site.add(f"{number}.csv", names)
    whole = perceive(site, tmp_path / "whole")
    root = str(tmp_path / "parts")
    listed = steps.list_crawls(str(site.crawls), root)
    made = stages.download(listed, root, "demo", SMALL, 1, 2)
    assert [video_table.is_done(uri, 0) for uri in members.uris(made)] == [False, True, False, True]
    assert not folders.is_committed(made)
    monkeypatch.setenv(workers.COUNT, "2")  # and each part has two processes
    parts = perceive(site, tmp_path / "parts", 2)
    for stage in ("videos", "saliency", "tubes", "index"):
        assert folders.read_manifest(parts[stage]).counts == folders.read_manifest(whole[stage]).counts
        assert parts[stage].rsplit("/", 1)[1] == whole[stage].rsplit("/", 1)[1]
    assert files.read_bytes(files.join(parts["index"], "index.parquet")) == files.read_bytes(
        files.join(whole["index"], "index.parquet")
    )


def test_of_a_crawl_that_was_changed_in_place_only_the_changed_lines_are_fetched(site, tmp_path):
    root = tmp_path / "root"
    site.add("1.csv", "a1", "a2")
    site.add("2.csv", "b1", "b2")
    before = perceive(site, root)
    site.take()
    site.add("1.csv", "a1", "a3", a1="renamed")
    after = perceive(site, root)
    assert site.take() == ["a3"]
    assert ids(after["index"]) == ["a3", "b1", "b2", "renamed"]
    assert after["model"] == before["model"]
    assert members.uris(after["tubes"])[1] == members.uris(before["tubes"])[1]
    fresh = perceive(site, tmp_path / "fresh")
    assert video_table.read_shard(members.uris(after["videos"])[0], 0) == video_table.read_shard(
        members.uris(fresh["videos"])[0], 0
    )


def test_two_runs_at_once_fetch_each_video_once_and_give_what_one_gives(site, tmp_path):
    root = tmp_path / "root"
    site.add("1.csv", "a1", "a2")
    perceive(site, root)
    site.take()
    site.add("2.csv", "a3", "a4", "b1", "b2")
    site.add("3.csv", "c1", "c2")
    program = [sys.executable, "-c", PERCEIVE, str(site.crawls), str(root), *SMALL]
    both = [subprocess.Popen(program, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    fetched = list(site.requests)
    assert sorted(fetched) == [f"/{name}.mp4" for name in ("a3", "a4", "b1", "b2", "c1", "c2")]
    alone = tmp_path / "alone"
    perceive(site, alone)
    (wanted,) = alone.glob("index/*/index.parquet")
    assert len(list(root.glob("index/*"))) == 2  # and that of the first crawl alone
    assert (root / wanted.relative_to(alone)).read_bytes() == wanted.read_bytes()
    assert not list(root.rglob("*.lease"))


def test_the_model_is_kept_if_a_crawl_comes_first_and_fitted_again_only_on_request(site, tmp_path):
    root = tmp_path / "root"
    site.add("2.csv", "b1", "b2")
    first = perceive(site, root)
    site.add("1.csv", "a1")
    second = perceive(site, root)
    assert second["model"] == first["model"]
    assert members.uris(second["tubes"])[1] == first["tubes"]
    everything = perceive(site, root, 1, "fit.corpus=all")
    assert everything["model"] != first["model"]
    assert folders.read_manifest(everything["model"]).inputs["videos"] == everything["videos"]


def test_of_videos_with_one_id_the_oldest_is_kept(site, tmp_path):
    site.add("1.csv", "a1", "a2")
    site.add("2.csv", "b1", "c1", b1="a2")
    at = perceive(site, tmp_path / "root")
    assert ids(at["index"]) == ["a1", "a2", "c1"]
    judged = index_table.read_quality(at["index"])
    assert [(video.video_id, video.crawl, video.reason) for video in judged] == [
        ("a1", 0, ""), ("a2", 0, ""), ("a2", 1, "duplicate"), ("c1", 1, ""),
    ]  # fmt: skip
    assert judged[2].detail == "same id as a2 of crawl 1"
    assert folders.read_manifest(at["index"]).counts["filtered_duplicate"] == 1
    assert index_table.find_video(at["index"], "a2").crawl == 0


@pytest.mark.parametrize(
    ("duplicates", "kept"),
    [("near", ["a1", "d1"]), ("equal", ["a1", "d1", "d2"]), ("keep", ["a1", "d1", "d2", "other"])],
)
def test_copies_of_older_videos_are_left_out_with_their_reason(site, tmp_path, duplicates, kept):
    site.add("1.csv", "a1", "d1")
    site.add("2.csv", "a1", "d2", a1="other")  # the same file, and the same frames at half the size from 0.5 s on
    at = perceive(site, tmp_path / "root", 1, f"filter.duplicates={duplicates}")
    assert ids(at["index"]) == kept
    details = {"other": "same file as a1 of crawl 1", "d2": "shows the same as d1 of crawl 1"}
    judged = {video.video_id: video.detail for video in index_table.read_quality(at["index"]) if video.reason}
    assert judged == {name: detail for name, detail in details.items() if name not in kept}


def test_one_bad_crawl_does_not_keep_the_others_from_being_downloaded(site, tmp_path):
    site.add("1.csv", "missing1", "missing2")
    site.add("2.csv", "b1")
    root = str(tmp_path / "root")
    with pytest.raises(InputError, match=r"2 of the 2 videos of .*1\.csv failed"):
        stages.download(str(site.crawls), root, "demo", SMALL)
    site.requests.clear()
    site.add("1.csv", "a1")
    stages.download(str(site.crawls), root, "demo", SMALL)
    assert site.take() == ["a1"]


def test_pretraining_reads_the_videos_and_tubes_of_all_crawls(site, tmp_path):
    site.add("1.csv", "a1", "a2", "a3")
    site.add("2.csv", "b1", "b2", "c1")
    at = perceive(site, tmp_path / "root")
    checkpoint = stages.pretrain(ROW, at["index"], str(tmp_path / "root"), "demo", SMALL)
    assert folders.read_manifest(checkpoint).counts["videos"] == 6
    crawl = index_table.read_index(at["index"]).crawls[1]
    shutil.rmtree(crawl.videos)
    with pytest.raises(InputError, match="lacks 1 of the 1 shards"):
        stages.pretrain(ROW, at["index"], str(tmp_path / "root"), "demo", [*SMALL, "seed=1"])


def test_a_training_continues_the_model_of_the_crawls_so_far(site, tmp_path):
    root, settings = str(tmp_path / "root"), [*SMALL, "model.start=previous"]
    site.add("1.csv", "a1", "a2", "a3", "a4")
    first = stages.pretrain(ROW, perceive(site, tmp_path / "root")["index"], root, "demo", settings)
    assert first == stages.pretrain(ROW, perceive(site, tmp_path / "root")["index"], root, "demo", SMALL)
    site.add("2.csv", "b1", "b2", "c1", "c2")
    index = perceive(site, tmp_path / "root")["index"]
    untouched = [*settings, "optim.lr=1e-12", "optim.weight_decay=0"]
    second = stages.pretrain(ROW, index, root, "demo", untouched)
    manifest = folders.read_manifest(second)
    assert (manifest.inputs["previous"], manifest.counts["steps"]) == (first, 2)
    before, after = (load_model(uri, "cpu") for uri in (first, second))
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        torch.testing.assert_close(new, old, msg=name)
    # The queue of 16 embeddings has 8 of the second training, and 8 of the first one.
    assert (after.queue != before.queue).any(1).sum() == 8
    client = MlflowClient(run_store.tracking_uri(root))
    experiment = client.get_experiment_by_name("previts").experiment_id
    continued = f"tags.`previts.previous` = '{folders.read_manifest(first).fingerprint}'"
    assert [run.data.tags["previts.fingerprint"] for run in client.search_runs([experiment], continued)] == [
        manifest.fingerprint
    ]
    assert stages.pretrain(ROW, index, root, "demo", untouched) == second
    scratch = stages.pretrain(ROW, index, root, "demo", [*SMALL, "optim.lr=1e-12", "optim.weight_decay=0"])
    assert scratch != second
    assert addresses.checkpoint_address(paper.resolve(ROW, "demo", untouched), index, root) == second


@pytest.mark.slow
def test_the_report_compares_the_generations_of_a_corpus(site, world, tmp_path):
    root, data = str(tmp_path / "root"), str(world / "datasets")

    def reported() -> tuple[str, float]:
        index = perceive(site, tmp_path / "root")["index"]
        checkpoint = stages.pretrain(ROW, index, root, "demo", SMALL)
        result = stages.evaluate(ROW, "voc07", checkpoint, data, root, "demo", SMALL)
        page = stages.report([ROW], index, [result], root, "demo", SMALL)
        return page, read_result(result).metrics["voc07/map"]

    site.add("1.csv", "a1", "a2", "a3", "a4")
    first, before = reported()
    assert "Generations" not in folders.read_file(first, "report.html").decode()
    withdraw(["a2"], root, "request of the owner")
    site.add("2.csv", "b1", "b2", "c1")
    site.add("3.csv", "a1", a1="again")
    second, after = reported()
    assert [name for name in folders.read_manifest(second).inputs if name.startswith("earlier")] == ["earlier0"]
    assert folders.read_manifest(second).inputs["earlier0"] == first
    page = folders.read_file(second, "report.html").decode()
    assert '<section id="generations">' in page
    lines = files.read_bytes(files.join(second, "report.md")).decode().splitlines()
    start = lines.index("## Generations of the corpus")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : start + 6]]
    titles = ["crawls", "videos stored", "videos kept", "with a tube", "hours", "duplicate", "leak", "withdrawn"]
    assert rows[0] == ["generation", *titles]
    assert rows[2][:4] + rows[2][6:] == ["1", "1", "4", "4", "0", "0", "0"]
    assert rows[3][:4] + rows[3][6:] == ["2", "3", "8 (+4)", "6 (+3 −1)", "1 (+1)", "0", "1 (+1)"]  # noqa: RUF001
    gone = "leaves out 1 video that the one before kept (1 withdrawn): a2 (withdrawn: request of the owner)."
    assert f"- Generation 2 {gone}" in lines
    assert gone in page
    metric = KNOWN["voc07/map"]
    (line,) = [line for line in lines[start:] if metric.title in line and line.count("|") == 6]
    shown = [cell.strip() for cell in line.strip("|").split("|")]
    assert before != after
    assert shown[2:] == [metric.show(before), metric.show(after), metric.show(after - before, "+")]
    (cells,) = [
        row
        for row in csv.DictReader(folders.read_file(second, "report.csv").decode().splitlines())
        if row["metric"] == "voc07/map"
    ]
    assert [float(cells[name]) for name in ("value", "previous", "change")] == [after, before, after - before]
    assert reported()[0] == second

    # MLflow has the same, and a line over generations.
    client = MlflowClient(run_store.tracking_uri(root))
    experiment = client.get_experiment_by_name("previts").experiment_id
    order = ["metrics.generation DESC"]
    arms = client.search_runs([experiment], f"tags.row = '{ROW}'", order_by=order)
    assert [run.data.tags["previts.generation"] for run in arms] == ["2", "1"]
    of_generation = client.search_runs([experiment], """tags."previts.generation" = '2'""")
    assert [run.info.run_id for run in of_generation if "row" in run.data.tags] == [arms[0].info.run_id]
    found = arms[0].data.metrics
    measured = (found["voc07/map"], found["voc07/map.previous"], found["voc07/map.change"])
    assert measured == (after, before, after - before)
    points = client.get_metric_history(arms[0].info.run_id, "generations/voc07/map")
    assert [(point.step, point.value) for point in points] == [(1, before), (2, after)]
    assert "voc07/map.previous" not in arms[1].data.metrics
    indexes = [folders.read_manifest(folders.read_manifest(page).inputs["index"]) for page in (second, first)]
    for arm, index, crawls in zip(arms, indexes, ("3", "1"), strict=True):
        assert (arm.data.tags["previts.index"], arm.data.tags["previts.crawls"]) == (index.fingerprint, crawls)
        assert arm.data.tags["previts.videos"] == str(index.counts["videos"])
        assert arm.data.metrics["corpus/videos"] == index.counts["videos"]
        assert arm.data.metrics["corpus/hours"] == index.counts["hours"]
    corpora = client.search_runs([experiment], "tags.`previts.role` = 'group'", order_by=order)
    assert [run.data.tags["previts.generation"] for run in corpora] == ["2", "1"]
    assert corpora[0].data.tags["previts.previous_index"] == indexes[1].fingerprint
    sizes = client.get_metric_history(corpora[0].info.run_id, "corpus/videos")
    assert [(point.step, point.value) for point in sizes] == [(1, 4), (2, 6)]
    assert corpora[0].info.run_name.startswith("previts · 1 + 2 + 3 (8 videos) · ")
    assert corpora[1].info.run_name.startswith("previts · 1 (4 videos) · ")
    moved = corpora[0].data.metrics
    assert [moved[f"{way}/videos"] for way in ("came", "went")] == [3, 1]
    assert [moved[f"came/filtered_{name}"] for name in ("duplicate", "withdrawn")] == [1, 1]


def test_a_folder_of_crawls_has_no_videos_next_to_them(tmp_path):
    (tmp_path / "crawl.csv").write_text("video_id,url\n")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match=r"contains both crawls, such as crawl\.csv, and videos, such as a\.mp4"):
        steps.list_crawls(str(tmp_path), str(tmp_path / "root"))


def test_the_crawls_of_a_run_stay_those_of_its_start(site, tmp_path):
    root = str(tmp_path / "root")
    for name in ("._2026-02.csv", ".2026-01.csv", "notes.txt"):  # hidden files are no crawls
        (site.crawls / name).touch()
    site.add("2026-02.csv", "a1")
    assert steps.list_crawls(str(site.crawls), root) == str(site.crawls / "2026-02.csv")
    site.add("2026-1.csv", "a2")
    listed = steps.list_crawls(str(site.crawls), root)
    site.add("2026-3.csv", "a3")
    videos = stages.download(listed, root, "demo", SMALL)
    assert len(members.uris(videos)) == 2
    assert steps.list_crawls(str(site.crawls), root) != listed


def test_an_empty_crawl_of_several_is_left_aside_until_it_has_videos(site, tmp_path, capsys):
    root = str(tmp_path / "root")
    for name, text in (empty := {"1.csv": "", "3.parquet": "", "4.csv": "video_id,url\n"}).items():
        (site.crawls / name).write_text(text)
    said = f"are left aside until they have videos: {', '.join(str(site.crawls / name) for name in empty)}"
    for crawl in (site.crawls, *(site.crawls / name for name in empty)):
        with pytest.raises(InputError, match=r"the crawl .* is empty; expected at least one video"):
            stages.download(steps.list_crawls(str(crawl), root), root, "demo", SMALL)
        with pytest.raises(InputError, match=r"the crawl .* is empty; expected at least one video"):
            check.check_sources(str(crawl), None, rows=[ROW], benchmarks=[], profile="demo")
    site.add("2.csv", "a1")
    check.check_sources(str(site.crawls), None, rows=[ROW], benchmarks=[], profile="demo")
    assert said in capsys.readouterr().err
    first = stages.download(steps.list_crawls(str(site.crawls), root), root, "demo", SMALL)
    assert said in capsys.readouterr().err
    site.add("4.csv", "b1")
    both = stages.download(steps.list_crawls(str(site.crawls), root), root, "demo", SMALL)
    assert (members.uris(both)[0], site.take()) == (first, ["a1", "b1"])
