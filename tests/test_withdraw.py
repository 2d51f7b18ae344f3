"""Withdrawn videos: what is no longer fetched or used, what rests on them, and what is left of their bytes.

Oracle: the files of the roots, and a run that never knew the videos.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from forked_processes import Forks
from small_corpus import ROW, perceive, two_crawls, write_crawl
from small_verbs import SMALL, snapshot

from previts import cli, erasure, lineage, stages, withdraw
from previts.config import paper
from previts.corpus import index_table, members, region_table, tube_table, video_table, withdrawals
from previts.errors import InputError
from previts.evals.result import Result, write_result
from previts.look import look_at_stored
from previts.pretraining import monitor
from previts.processes import workers
from previts.reporting.turnover import read_generations
from previts.saliency import fit, usps
from previts.stages import addresses
from previts.stages.report import _earlier, _stale
from previts.storage import files, folders, tables

pytestmark = pytest.mark.usefixtures("mlflow_environment")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crawls, and a root with the outputs up to the index."""
    folder = tmp_path_factory.mktemp("base")
    perceive(two_crawls(folder), str(folder / "root"))
    return folder


@pytest.fixture
def world(base: Path, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A copy of the root, and its outputs."""
    root = tmp_path / "root"
    shutil.copytree(base / "root", root)
    return str(root), perceive(str(base / "crawls"), str(root))


def url(base: Path, name: str) -> str:
    return str(base / "crawls" / "videos" / f"{name}.mp4")


def run(root: str, *videos: str, reason: str = "request 7", purge: bool = False) -> str:
    return withdraw.withdraw(videos, root, reason, purge=purge)


def rows(videos: str) -> dict[str, video_table.VideoRecord]:
    found = (row for member in members.read(videos) for shard in range(member.shards)
             for row in video_table.read_shard(member.uri, shard))  # fmt: skip
    return {row.video_id: row for row in found}


def ids(index: str) -> list[str]:
    return [row.video_id for row in index_table.read_index(index)]


def trained(at: dict[str, str], root: str) -> dict[str, str]:
    """Write a checkpoint and a result as the stages do, without training, and make the report."""
    plan = paper.resolve(ROW, "demo", SMALL)
    at["checkpoint"] = addresses.checkpoint_address(plan, at["index"], root)
    decided = addresses.checkpoint_decided(plan, at["index"], "")
    files.write_bytes(files.join(at["checkpoint"], "pictures", "step-00000001.png"), b"pixels of a1")
    info = {"row": ROW, "profile": "demo"}
    folders.commit(at["checkpoint"], decided, inputs={"index": at["index"]}, info=info)
    known = folders.read_manifest(at["checkpoint"]).fingerprint
    decided = {"checkpoint": known, "benchmark": "voc07", "format": 4}
    at["result"] = folders.address(root, "results", "voc07", decided)
    write_result(at["result"], Result(row=ROW, benchmark="voc07", checkpoint=known, metrics={"voc07/map": 12.5}))
    inputs = {"checkpoint": at["checkpoint"]}
    folders.commit(at["result"], decided, inputs=inputs, counts={"voc07/map": 12.5}, files=["result.json"])
    at["report"] = stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL)
    return at


def test_a_withdrawn_video_is_not_fetched_and_is_no_failure_of_the_crawl(base: Path, tmp_path: Path):
    root = str(tmp_path / "root")
    (tmp_path / "root").mkdir()
    said = run(root, "a1", url(base, "a2"), url(base, "b1"))
    assert said.count("none stored under this root (check the spelling)") == 3
    crawls = tmp_path / "crawls"
    shutil.copytree(base / "crawls", crawls)
    listed = [crawls / name for name in ("1.csv", "2.csv")]
    for path in listed:  # with the addresses that were withdrawn, and a1 at another one
        path.write_text(path.read_text().replace("videos/", f"{base}/crawls/videos/").replace("a1.mp4", "gone.mp4"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREVITS_LOCAL_FILES", str(base))
        videos = stages.download(str(crawls), root, "demo", SMALL, max_failure_fraction=0.0)
    found = rows(videos)
    assert {name: row.error for name, row in found.items()} == {
        "a1": "withdrawn: request 7", "a2": "withdrawn: request 7", "b1": "withdrawn: request 7", "b2": "",
    }  # fmt: skip
    assert not any(row.retryable for row in found.values())
    counts = folders.read_manifest(videos).counts
    assert (counts["videos"], counts["ok"], counts["failed"], counts["withdrawn"]) == (4, 1, 3, 3)
    # The other failures still stop a crawl, and are a share of the others.
    (crawls / "3.csv").write_text("video_id,url\na1,gone.mp4\nx,lost.mp4\ny,lost.mp4\n")
    with pytest.raises(InputError, match=r"2 of the 2 videos of .*3\.csv failed"):
        stages.download(str(crawls / "3.csv"), root, "demo", SMALL)


def test_another_root_is_not_affected(base: Path, tmp_path: Path, world: tuple[str, dict[str, str]]):
    root, at = world
    run(root, "a1")
    other = stages.download(str(base / "crawls"), str(tmp_path / "other"), "demo", SMALL)
    assert other.rsplit("/", 1)[1] == at["videos"].rsplit("/", 1)[1]
    assert all(row.status == "ok" for row in rows(other).values())


def test_a_later_index_leaves_the_video_out_and_nothing_else_is_made_again(base: Path, world):
    root, at = world
    before = snapshot(root)
    run(root, "a1")
    after = perceive(str(base / "crawls"), root)
    assert ids(after["index"]) == ["a2", "b1", "b2"]
    assert {name: uri for name, uri in after.items() if name != "index"} == {n: at[n] for n in at if n != "index"}
    assert {name: snapshot(root)[name] for name in before} == before
    assert [(row.video_id, row.reason) for row in index_table.read_quality(after["index"])] == [
        ("a1", "withdrawn"), ("a2", ""), ("b1", ""), ("b2", ""),
    ]  # fmt: skip
    manifest = folders.read_manifest(after["index"])
    assert manifest.decided["withdrawn"] == [[0, "a1"]]
    assert manifest.counts["filtered_withdrawn"] == manifest.counts["filtered"] == 1
    with pytest.raises(InputError, match="'a1' was withdrawn"):
        index_table.find_video(after["index"], "a1")
    assert ids(at["index"]) == ["a1", "a2", "b1", "b2"]


def test_a_withdrawal_of_another_video_changes_no_address(base: Path, world):
    root, at = world
    run(root, "another", "https://example.org/x.mp4")
    before = snapshot(root)
    assert perceive(str(base / "crawls"), root) == at
    assert snapshot(root) == before
    run(root, "a2")
    after = perceive(str(base / "crawls"), root)
    run(root, "yet another")
    assert perceive(str(base / "crawls"), root) == after


def test_an_index_whose_videos_are_all_withdrawn_says_so(base: Path, world):
    root, at = world
    run(root, "a1", "a2", "b1", "b2")
    with pytest.raises(InputError, match="keeps none of the 4 videos: 4 withdrawn"):
        stages.index(at["videos"], at["tubes"], root, "demo", SMALL)


def test_a_withdrawn_video_does_not_hide_another_one_of_its_id(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    write_crawl(crawls, "2.csv", a1="b1", b2="b2")
    at = perceive(str(crawls), root)
    assert [row.crawl for row in index_table.read_index(at["index"])] == [0, 0, 1]
    run(root, str(crawls / "videos" / "a1.mp4"))
    after = perceive(str(crawls), root)
    assert [(row.video_id, row.crawl) for row in index_table.read_index(after["index"])] == [
        ("a1", 1), ("a2", 0), ("b2", 1),
    ]  # fmt: skip
    assert index_table.find_video(after["index"], "a1").crawl == 1


def test_the_same_source_under_another_id_is_withdrawn_too(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    at = perceive(str(crawls), root)
    run(root, "a1")
    write_crawl(crawls, "1.csv", renamed="a1", a2="a2")
    after = perceive(str(crawls), root)
    assert rows(after["videos"])["renamed"].error == "withdrawn: request 7"  # not copied from the earlier output
    assert ids(after["index"]) == ["a2", "b1", "b2"]
    assert after["model"] == at["model"]


def test_a_copy_does_not_take_the_place_of_a_withdrawn_video(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    (crawls / "2.csv").write_text(
        "video_id,url,start_seconds,end_seconds\nc1,videos/a1.mp4,0,0.8\nb2,videos/b2.mp4,,\n"
    )
    at = perceive(str(crawls), root, "filter.duplicates=equal")
    assert ids(at["index"]) == ["a1", "a2", "b2"]
    run(root, "a1")
    after = perceive(str(crawls), root, "filter.duplicates=equal")
    assert ids(after["index"]) == ["a2", "b2"]
    reasons = {row.video_id: (row.reason, row.detail) for row in index_table.read_quality(after["index"]) if row.reason}
    assert reasons == {
        "a1": ("withdrawn", "request 7"),
        "c1": ("withdrawn", "shows the same as a1 of crawl 1, which was withdrawn"),
    }


def test_what_rests_on_a_video_is_listed_with_what_to_run_next(base: Path, world, capsys: pytest.CaptureFixture[str]):
    root, at = world
    trained(at, root)
    write_crawl(base / "crawls", "only-b.txt", b1="b1")  # not a crawl
    (base / "crawls" / "only-b.txt").unlink()
    single = stages.index(members.uris(at["videos"])[1], members.uris(at["tubes"])[1], root, "demo", SMALL)
    said = run(root, "a1", "nothing")
    assert f"withdrawn: a1 (request 7); 1 stored; recorded in {root}/withdrawn/" in said
    assert "withdrawn: nothing (request 7); none stored" in said
    listed = [line.strip() for line in said.splitlines() if line.startswith("  ") and line.endswith("(a1)")]
    assert listed == [
        f"index {at['index']} (a1)", f"checkpoint {at['checkpoint']} (a1)", f"result {at['result']} (a1)",
        f"report {at['report']} (a1)",
    ]  # fmt: skip
    assert single not in said
    command = next(line.strip() for line in said.splitlines() if line.startswith("  previts index"))
    cli.main([*shlex.split(command)[1:], "--profile", "demo"])
    remade = capsys.readouterr().out.strip()
    assert ids(remade) == ["a2", "b1", "b2"]
    again = run(root, "a1", reason="another")
    assert "withdrawn: a1 (request 7)" in again
    assert f"{remade} is made already" in again
    assert f"previts pretrain --row {ROW} --index {remade} --profile demo --root {root}" in again
    assert "nothing under this root rests on them" in run(root, "nothing")


def test_a_checkpoint_that_starts_from_a_resting_one_is_listed(base: Path, world):
    root, at = world
    trained(at, root)
    first = folders.read_manifest(at["checkpoint"]).fingerprint
    single = stages.index(members.uris(at["videos"])[1], members.uris(at["tubes"])[1], root, "demo", SMALL)
    decided = {"index": "x", "weights": first}
    uri = folders.address(root, "checkpoints", "tuned", decided)
    folders.commit(uri, decided, inputs={"index": single}, info={"row": ROW, "profile": "demo"})
    decided = {"index": "x", "previous": first}
    more = folders.address(root, "checkpoints", "continued", decided)
    inputs = {"index": single, "previous": at["checkpoint"]}
    folders.commit(more, decided, inputs=inputs, info={"row": ROW, "profile": "demo"})
    said = run(root, "a1")
    assert f"checkpoint {uri} (a1)" in said
    assert f"checkpoint {more} (a1)" in said
    assert _stale([more], root) == {folders.read_manifest(more).fingerprint: ["a1"]}
    assert at["index"] in {output.uri for output in lineage.read_chain(more)}


def test_the_report_of_a_row_that_saw_a_withdrawn_video_says_that_it_is_stale(base: Path, world):
    root, at = world
    trained(at, root)
    note = "was trained on 1 video withdrawn since (a1)"
    fresh = Path(at["report"], "report.html").read_text()
    assert "Stale" not in fresh
    asked = lineage.find(f"{root}/report.html")
    assert (asked.folder, asked.file) == (at["report"], "report.html")
    run(root, "unrelated")
    assert stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL) == at["report"]
    run(root, "a1")
    newer = stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL)
    assert newer != at["report"]
    page, text = Path(newer, "report.html").read_text(), Path(newer, "report.md").read_text()
    assert note in page
    assert 'class="failed" role="note">Stale: ' in page
    assert "stale: withdrawn videos" in page
    assert next(line for line in text.splitlines() if note in line).startswith("**Stale: ")
    assert Path(root, "report.html").read_text() == page


def every_file(root: str) -> Iterator[tuple[str, bytes]]:
    fs, path = files.open_fs(root)
    for name in sorted(fs.find(path)):
        yield name.removeprefix(path), fs.cat_file(name)


def stored_bytes(videos: str, tubes: str, video_id: str) -> list[bytes]:
    """Return the clip and the tube of a video as they are stored."""
    row, tube = rows(videos)[video_id], None
    (home,) = [member.uri for member in members.read(videos) if video_id in rows(member.uri)]
    place = members.uris(videos).index(home)
    blobs = members.uris(tubes)[place]
    tube = next(item for item in tube_table.read_shard(blobs, row.shard) if item.video_id == video_id)
    clip = files.read_bytes(files.join(home, video_table.tar_name(row.shard)), row.offset, row.offset + row.size)
    mask = files.read_bytes(files.join(blobs, tube_table.blob_name(row.shard)), tube.offset, tube.offset + tube.size)
    return [clip, mask]


def frames(index: str) -> dict[str, np.ndarray]:
    """Return the frames and masks of the videos of an index that can be read."""
    found, read = index_table.read_index(index), {}
    for row in found:
        try:
            crawl = found.crawl_of(row)
            every = range(row.num_frames)
            masks = tube_table.read_masks(crawl.tubes, row, every)
            read[row.video_id] = np.concatenate(
                [video_table.read_frames(crawl.videos, row, every).ravel(), *map(np.ravel, masks)]
            )
        except withdrawals.WithdrawnError:
            pass
    return read


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_purge_deletes_the_bytes_of_the_video_and_no_others(base: Path, tmp_path: Path, place: str):
    root = str(tmp_path / "root") if place == "disk" else f"memory://{tmp_path.name}/root"
    if place == "disk":
        shutil.copytree(base / "root", root)
    else:
        fsspec.filesystem("memory").put(str(base / "root"), f"/{tmp_path.name}/root", recursive=True)
    at = perceive(str(base / "crawls"), root)
    before, old = frames(at["index"]), dict(every_file(root))
    secrets = stored_bytes(at["videos"], at["tubes"], "a1")
    assert all(sum(secret in data for data in old.values()) == 1 for secret in secrets)
    regions = region_table.read_shard(members.uris(at["saliency"])[0], 0)
    assert any(row.regions for row in regions if row.video_id == "a1")
    said = run(root, "a1", purge=True)
    assert "erased: 1 clips, 1 masks, " in said
    new = dict(every_file(root))
    assert not any(secret in data for secret in secrets for data in new.values())
    assert not any(secret[100:160] in data for secret in secrets[:1] for data in new.values())
    home, tubes, maps = (members.uris(at[stage])[0] for stage in ("videos", "tubes", "saliency"))
    changed = {name.rsplit("/", 1)[-1] for name in old if new.get(name) != old[name]}
    assert changed == {"shard-00000.tar", tube_table.blob_name(0), "shard-00000.parquet", "manifest.json"}
    folder = maps.removeprefix(files.absolute(root)).strip("/")
    tables_changed = [name for name in old if new[name] != old[name] and name.endswith((".parquet", ".json"))]
    assert all(folder in name for name in tables_changed)
    assert len(new) == len(old) + 1  # the withdrawal
    after = frames(at["index"])
    assert after.keys() == {"a2", "b1", "b2"}
    assert all(np.array_equal(after[name], before[name]) for name in after)
    left = region_table.read_shard(maps, 0)
    assert [(row.video_id, row.frame) for row in left] == [(row.video_id, row.frame) for row in regions]
    assert [row for row in left if row.video_id != "a1"] == [row for row in regions if row.video_id != "a1"]
    assert not any(row.regions for row in left if row.video_id == "a1")
    index = index_table.read_index(at["index"])
    for read in (
        lambda: list(video_table.read_planes(home, index[0], [0])),
        lambda: tube_table.read_tube(tubes, index[0]),
        lambda: look_at_stored(at["index"], "a1", str(tmp_path / "look"), 2),
    ):
        with pytest.raises(InputError, match=r"'a1' of .* was withdrawn \(request 7\).*run `previts index` again"):
            read()
    assert run(root, "a1", purge=True).count("erased: 0 clips, 0 masks, 0 key frames, 0 reports") == 1
    assert dict(every_file(root)) == new
    assert {**perceive(str(base / "crawls"), root), "index": ""} == {**at, "index": ""}
    assert {name: data for name, data in every_file(root) if name in new} == new


def test_training_on_an_old_index_says_that_a_video_was_withdrawn(base: Path, world):
    root, at = world
    run(root, "a1", "a2", "b1", "b2", purge=True)
    with pytest.raises(InputError, match="was withdrawn"):
        stages.pretrain(ROW, at["index"], root, "demo", SMALL)


def test_zeros_in_the_bytes_of_another_video_are_still_damage(base: Path, world):
    root, at = world
    run(root, "a1")
    home = members.uris(at["videos"])[0]
    row = rows(home)["a2"]
    erasure.erase_ranges(files.join(home, video_table.tar_name(0)), [(row.offset, row.offset + row.size)])
    with pytest.raises(video_table.VideoError, match="damaged"):
        video_table.read_frames(home, row, [0])


def test_a_purged_video_does_not_stop_the_stages_after_it(base: Path, tmp_path: Path):
    root = str(tmp_path / "root")
    stages.download(str(base / "crawls"), root, "demo", SMALL)
    run(root, "a1", purge=True)
    at = perceive(str(base / "crawls"), root)
    assert ids(at["index"]) == ["a2", "b1", "b2"]
    tubes = {row.video_id: row.status for row in tube_table.read_shard(members.uris(at["tubes"])[0], 0)}
    assert tubes["a1"] == "empty"


def test_reports_that_show_the_video_their_artifacts_and_pictures_of_training_are_deleted(base: Path, world):
    root, at = world
    trained(at, root)
    page = Path(at["report"], "report.html").read_bytes()
    assert b"a1" in page
    artifacts = [path for path in Path(root).rglob("report.html") if path.read_bytes() == page]
    assert len(artifacts) == 3  # the report, its copy in the root, and the artifact
    said = run(root, "b1", purge=True)
    assert "1 reports, 1 folders of pictures" in said
    assert [path for path in Path(root).rglob("report.html")] == []
    assert sorted(path.name for path in Path(at["report"]).iterdir()) == ["manifest.json", "report.csv"]
    assert not Path(at["checkpoint"], "pictures").exists()
    assert folders.is_committed(at["checkpoint"])
    assert "erased: 0 clips, 0 masks, 0 key frames, 0 reports" in run(root, "b1", purge=True)
    again = stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL)
    shown = Path(again, "report.html").read_text()
    assert "b1" not in shown or "withdrawn" in shown


def test_a_purged_report_is_still_a_generation_and_can_be_made_again(base: Path, tmp_path: Path):
    root, crawls = str(tmp_path / "root"), tmp_path / "crawls"
    shutil.copytree(base / "crawls", crawls)
    (crawls / "2.csv").rename(tmp_path / "2.csv")
    at = trained(perceive(str(crawls), root), root)
    run(root, "a1", purge=True)
    (tmp_path / "2.csv").rename(crawls / "2.csv")
    grown = perceive(str(crawls), root)["index"]
    assert _earlier(grown, root, "demo") == [at["report"]]
    first, last = read_generations([at["report"]], grown)
    assert first.numbers == {(ROW, "voc07/map"): 12.5}
    assert (first.counts["crawls"], first.counts["videos"], last.counts["crawls"]) == (1, 2, 2)
    Path(at["checkpoint"], "manifest.json").unlink()  # the row is not stale then
    without = stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL)
    assert Path(without, "report.html").exists()
    assert _earlier(grown, root, "demo") == [without]
    Path(without, "report.html").unlink()
    assert stages.report([ROW], at["index"], [at["result"]], root, "demo", SMALL) == without
    assert Path(without, "report.html").exists()


def test_an_unfinished_output_that_may_contain_the_video_is_said(base: Path, world):
    root, at = world
    maps = members.uris(at["saliency"])[0]
    for uri in (maps, at["saliency"]):
        os.unlink(Path(uri, "manifest.json"))
    with pytest.raises(InputError, match=r"erased: 1 clips, 1 masks(.|\n)*not everything could be done:\n  .*saliency"):
        run(root, "a1", purge=True)
    perceive(str(base / "crawls"), root)
    run(root, "a1", purge=True)
    left = region_table.read_shard(maps, 0)
    assert not any(row.regions for row in left if row.video_id == "a1")


def test_frames_that_a_killed_fit_left_are_said(base: Path, world):
    root, at = world
    Path(at["model"], "frames.npz").write_bytes(b"pixels")
    unfinished = Path(root, "saliency_model", "deepusps-000000000000")
    unfinished.mkdir()
    (unfinished / "frames.npz").write_bytes(b"pixels")
    with pytest.raises(InputError) as error:
        run(root, "a1", purge=True)
    assert f"{at['model']} still has the frames of its fit" in str(error.value)
    assert f"{unfinished} is not finished and may contain" in str(error.value)
    assert fit.FRAMES == erasure.FRAMES
    assert monitor.PICTURES == erasure.PICTURES


def test_a_shard_of_an_unfinished_download_is_erased_too(base: Path, world):
    root, at = world
    home = members.uris(at["videos"])[0]
    (secret, _) = stored_bytes(at["videos"], at["tubes"], "a1")
    for uri in (home, at["videos"]):
        os.unlink(Path(uri, "manifest.json"))
    run(root, "a1", purge=True)
    assert not any(secret in data for _, data in every_file(root))
    stages.download(str(base / "crawls"), root, "demo", SMALL)
    assert ids(perceive(str(base / "crawls"), root)["index"]) == ["a2", "b1", "b2"]


KILLED = """
import os, sys
from previts import erasure, withdraw
from previts.storage import files, folders
left = int(sys.argv[2])
def killing(work):
    def call(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return work(*arguments, **more)
    return call
for module, name in ((erasure, "erase_ranges"), (files, "delete"), (files, "delete_folder"), (files, "write_bytes"),
                     (folders, "write_json"), (folders, "list_again")):
    setattr(module, name, killing(getattr(module, name)))
withdraw.withdraw(sys.argv[3:], sys.argv[1], "request 7", purge=True)
"""


@pytest.mark.slow
def test_a_purge_that_is_killed_at_any_step_is_completed_by_the_next_one(base: Path, tmp_path: Path):
    place, saved = tmp_path / "root", tmp_path / "saved"
    shutil.copytree(base / "root", place)
    trained(perceive(str(base / "crawls"), str(place)), str(place))
    shutil.copytree(place, saved)

    def content() -> dict[str, bytes]:
        return {name: data for name, data in every_file(str(place)) if "mlflow.db" not in name}

    run(str(place), "a1", "b2", purge=True)
    expected, killed = content(), 0
    forks = Forks([], ["previts.withdraw", "pyarrow.parquet", "mlflow.store.tracking.sqlalchemy_store"])
    for steps in range(40):
        shutil.rmtree(place)
        shutil.copytree(saved, place)
        done = forks.start(KILLED, place, str(steps), "a1", "b2")
        assert done.wait(120) in (0, 9), done.stderr.read()
        run(str(place), "b2", "a1", purge=True)
        found = content()
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        if not done.returncode:
            break
        killed += 1
    assert done.returncode == 0
    assert killed >= 12


def test_two_purges_at_once_do_the_work_of_both(base: Path, world):
    root, at = world
    command = [sys.executable, "-m", "previts", "withdraw", "--root", root, "--reason", "r", "--purge"]
    both = [subprocess.Popen([*command, *videos]) for videos in (["a1", "b2"], ["a1", "a2"])]
    assert [process.wait(120) for process in both] == [0, 0]
    assert frames(at["index"]).keys() == {"b1"}
    for maps in members.uris(at["saliency"]):
        assert {row.video_id for row in region_table.read_shard(maps, 0) if row.regions} <= {"b1"}
    assert not list(Path(root).rglob("*.lease"))
    assert ids(stages.index(at["videos"], at["tubes"], root, "demo", SMALL)) == ["b1"]


def test_a_saliency_model_is_fitted_without_withdrawn_videos(base: Path, world):
    root, at = world
    run(root, "a1", purge=True)
    config = paper.resolve(None, "demo", ["fit.frames=4", "fit.size=32"]).experiment.fit
    home = members.uris(at["videos"])[0]
    images, _ = fit._frames(home, config, str(Path(root, "saliency_model", "x")), workers.in_order)
    wanted = video_table.read_frames(home, rows(home)["a2"], range(rows(home)["a2"].num_frames))
    squares = {usps.squash(image, 32).tobytes() for image in wanted}
    assert {image.tobytes() for image in images} <= squares
    run(root, "a2")
    with pytest.raises(InputError, match=r"no video of .* is stored and not withdrawn"):
        fit._frames(home, config, str(Path(root, "saliency_model", "y")), workers.in_order)


def test_a_table_that_was_changed_otherwise_is_damaged_and_not_taken_for_a_purge(base: Path, world):
    root, at = world
    maps = members.uris(at["saliency"])[0]
    path = files.join(maps, "shard-00000.parquet")
    kept = [row for row in region_table.read_shard(maps, 0) if row.video_id != "a2"]
    tables.write_records(path, region_table.SaliencyRecord, kept)
    with pytest.raises(InputError, match=r"shard-00000\.parquet was changed after manifest\.json was written"):
        run(root, "a1", purge=True)


def test_a_copy_of_a_withdrawn_video_stays_out_when_the_video_is_no_longer_stored(base: Path, tmp_path: Path):
    crawls, root, settings = tmp_path / "crawls", str(tmp_path / "root"), "filter.duplicates=equal"
    shutil.copytree(base / "crawls", crawls)
    perceive(str(crawls / "1.csv"), root, settings)
    run(root, "a1", purge=True)
    before = perceive(str(crawls / "2.csv"), root, settings)
    (crawls / "1.csv").unlink()
    (crawls / "3.csv").write_text(
        "video_id,url,start_seconds,end_seconds\nc1,videos/a1.mp4,0,0.8\nb1,videos/b1.mp4,,\n"
    )
    after = perceive(str(crawls / "3.csv"), root, settings)
    assert ids(after["index"]) == ["b1"]
    assert folders.read_manifest(after["index"]).decided["withdrawn"] == [[0, "c1"]]
    (left,) = [row for row in index_table.read_quality(after["index"]) if row.reason]
    assert (left.video_id, left.reason, left.detail) == ("c1", "withdrawn", "shows the same as a1, which was withdrawn")
    run(root, "a2")  # a ledger without contents is read too, and other corpora keep their indexes
    assert perceive(str(crawls / "2.csv"), root, settings) == before
    for path in Path(root, "withdrawn").iterdir():
        kept = json.loads(path.read_text())
        assert [item["hashing"] for item in kept.pop("contents")] == [withdrawals.HASHING]
        path.write_text(json.dumps(kept))
    assert ids(perceive(str(crawls / "3.csv"), root, settings)["index"]) == ["b1", "c1"]


def test_what_to_run_next_is_of_the_newest_generation(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    shutil.move(crawls / "2.csv", tmp_path / "2.csv")
    first = perceive(str(crawls / "1.csv"), root)
    old = trained(dict(first), root)["checkpoint"]
    shutil.move(tmp_path / "2.csv", crawls / "2.csv")
    second = perceive(str(crawls), root)
    said = run(root, "a1")
    assert f"index {first['index']} (a1)" in said
    assert f"checkpoint {old} (a1)" in said
    (command,) = [line for line in said.splitlines() if line.startswith("  previts ")]
    assert command.startswith(f"  previts index --videos {second['videos']}")
    assert "  (none for 1 earlier indexes of fewer crawls)" in said


def test_a_training_does_not_continue_a_checkpoint_that_saw_a_withdrawn_video(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    plan = paper.resolve(ROW, "demo", [*SMALL, "model.start=previous"])
    old = trained(perceive(str(crawls / "1.csv"), root), root)["checkpoint"]
    before = perceive(str(crawls), root)["index"]
    assert addresses.previous_checkpoint(plan, before, root) == old
    run(root, "a1")
    after = perceive(str(crawls), root)["index"]
    assert addresses.previous_checkpoint(plan, after, root) == ""
    assert addresses.previous_checkpoint(plan, before, root) == old  # the address of what was trained stays
    remade = trained(perceive(str(crawls / "1.csv"), root), root)["checkpoint"]
    assert addresses.previous_checkpoint(plan, after, root) == remade
    shutil.rmtree(remade)
    capsys.readouterr()
    fresh = stages.pretrain(ROW, after, root, "demo", [*SMALL, "model.start=previous"])
    assert "no checkpoint of a part of the crawls was found that can be continued" in capsys.readouterr().err
    assert "previous" not in folders.read_manifest(fresh).inputs


def test_a_root_that_does_not_exist_is_an_error_and_not_made(tmp_path: Path):
    with pytest.raises(InputError, match=f"root {tmp_path}/rots does not exist"):
        run(f"{tmp_path}/rots", "a1")
    assert not list(tmp_path.iterdir())


def test_a_withdrawal_is_taken_back_by_deleting_the_file_that_was_printed(base: Path, world):
    root, at = world
    said = run(root, "a1")
    assert ids(perceive(str(base / "crawls"), root)["index"]) == ["a2", "b1", "b2"]
    Path(said.splitlines()[0].rsplit("recorded in ", 1)[1]).unlink()
    assert perceive(str(base / "crawls"), root) == at


def test_a_purge_names_the_copies_whose_bytes_stay(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", str(tmp_path / "root")
    shutil.copytree(base / "crawls", crawls)
    (crawls / "2.csv").write_text(
        "video_id,url,start_seconds,end_seconds\nc1,videos/a1.mp4,0,0.8\nb2,videos/b2.mp4,,\n"
    )
    stages.download(str(crawls), root, "demo", SMALL)
    said = run(root, "a1", purge=True)
    assert "1 copies are stored under other ids: c1; withdraw them too to delete their bytes" in said
    assert "under other ids" not in run(root, "c1", purge=True)


def test_the_end_of_a_url_is_an_error_that_names_the_video(base: Path, world):
    root, _ = world
    with pytest.raises(InputError, match=r"'videos/a1.mp4' is only the end of a URL.*id of the video, 'a1', or"):
        run(root, "b1", "videos/a1.mp4")
    assert not Path(root, "withdrawn").exists()


def test_the_source_of_a_video_that_was_refused_is_refused_under_other_ids(base: Path, tmp_path: Path):
    crawls, root = tmp_path / "crawls", tmp_path / "root"
    shutil.copytree(base / "crawls", crawls)
    root.mkdir()
    run(str(root), "a1")
    write_crawl(crawls, "2.csv", other="a1", b2="b2")
    videos = stages.download(str(crawls), str(root), "demo", SMALL)
    errors = {name: row.error for name, row in rows(videos).items()}
    assert errors == {"a1": "withdrawn: request 7", "a2": "", "other": "withdrawn: request 7", "b2": ""}
    apart = tmp_path / "apart"  # of a download that did not know of the other crawl
    apart.mkdir()
    run(str(apart), "a1")
    assert rows(stages.download(str(crawls / "2.csv"), str(apart), "demo", SMALL))["other"].status == "ok"
    assert ids(perceive(str(crawls), str(apart))["index"]) == ["a2", "b2"]
