"""The verbs on a small synthetic world: what is made, what is not made twice, what an interruption leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torchvision
from operator_by_hand import Operator, open_namespace, run_pods

from previts import demo, stages
from previts.config import paper
from previts.corpus import index_table, tube_table, video_table
from previts.errors import InputError
from previts.launch import app
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import materialise
from previts.media import masks, normalisation
from previts.processes import workers
from previts.stages import addresses, flow, subprocess_evaluation
from previts.storage import files, folders, tables, tensors

SMALL = [
    "video.videos_per_shard=3",
    "saliency.method=rbd",
    "saliency.every=4",
    "augment.size=64",
    "objective.queue_size=16",
    "objective.batch_norm_groups=1",
    "optim.batch_size=4",
    "optim.epochs=1",
    "evaluation.crop=64",
    "evaluation.resize=72",
    "evaluation.linear.epochs=3",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    demo.make_world(str(folder), replace(demo.TINY, seed=1))
    return folder


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every verb once, the fan-outs by two workers, the second first."""
    root = str(tmp_path_factory.mktemp("root"))
    at = {"root": root, "crawl": str(world / "crawl.csv"), "data": str(world / "datasets")}
    for part in (1, 0):
        at["videos"] = stages.download(at["crawl"], root, "demo", SMALL, part, 2)
        assert folders.is_committed(at["videos"]) == (part == 0)
    at["model"] = stages.fit_saliency(at["videos"], root, "demo", SMALL)
    for part in (1, 0):
        at["saliency"] = stages.saliency(at["videos"], at["model"], root, "demo", SMALL, part, 2)
        at["tubes"] = stages.track(at["videos"], at["saliency"], root, "demo", SMALL, part, 2)
        assert folders.is_committed(at["tubes"]) == (part == 0)
    at["index"] = stages.index(at["videos"], at["tubes"], root)
    at["checkpoint"] = stages.pretrain("1/vgg/previts", at["index"], root, "demo", SMALL)
    at["result"] = stages.evaluate("1/vgg/previts", "davis", at["checkpoint"], at["data"], root, "demo", SMALL)
    at["report"] = stages.report(["1/vgg/previts", "6b"], at["index"], [at["result"]], root, "demo", SMALL)
    return at


def snapshot(root: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}


def test_every_video_of_the_crawl_is_accounted_for(made):
    counts = folders.read_manifest(made["videos"]).counts
    rows = [row for shard in range(int(counts["shards"])) for row in video_table.read_shard(made["videos"], shard)]
    crawl = Path(made["crawl"]).read_text().splitlines()[1:]
    assert [row.video_id for row in rows] == [line.split(",")[0] for line in crawl]
    assert counts["videos"] == len(crawl) == counts["ok"] + counts["failed"]
    assert counts["failed"] == sum(row.video_id.startswith("bad") for row in rows) == 3
    assert all(row.error for row in rows if row.status == "failed")


def test_the_index_joins_each_usable_video_with_its_own_tube(made):
    index = index_table.read_index(made["index"])
    total = int(folders.read_manifest(made["videos"]).counts["shards"])
    videos = {row.video_id: row for shard in range(total) for row in video_table.read_shard(made["videos"], shard)}
    followed = {row.video_id: row for shard in range(total) for row in tube_table.read_shard(made["tubes"], shard)}
    assert [row.video_id for row in index] == sorted(name for name, row in videos.items() if row.status == "ok")
    for row in index:
        assert (row.offset, row.size, row.num_frames) == (
            videos[row.video_id].offset,
            videos[row.video_id].size,
            videos[row.video_id].num_frames,
        )
        tube = tube_table.read_tube(made["tubes"], row.shard, row.tube_offset, row.tube_size)
        assert tube.spans() == [tuple(span) for span in row.spans] or tube.spans() == row.spans
        assert row.spans == followed[row.video_id].spans


def test_tubes_lie_on_the_objects_of_the_world(made, world):
    index = index_table.read_index(made["index"])
    scores = []
    for row in index:
        truth = demo.read_masks(files.join(str(world), "masks", f"{row.video_id}.npz"))
        tube = tube_table.read_tube(made["tubes"], row.shard, row.tube_offset, row.tube_size)
        step = truth.shape[0] / row.num_frames
        for frame in range(row.num_frames):
            mask = tube.mask(frame)
            if mask.any() and mask.shape == truth.shape[1:]:
                scores.append(masks.iou(mask, truth[min(int(frame * step), truth.shape[0] - 1)]))
    assert len(scores) > 20
    assert sum(scores) / len(scores) > 0.4


def test_a_second_call_of_every_verb_does_nothing(made, world):
    before = snapshot(made["root"])
    root = made["root"]
    again = {
        "videos": stages.download(made["crawl"], root, "demo", SMALL),
        "model": stages.fit_saliency(made["videos"], root, "demo", SMALL),
        "saliency": stages.saliency(made["videos"], made["model"], root, "demo", SMALL),
        "tubes": stages.track(made["videos"], made["saliency"], root, "demo", SMALL),
        "index": stages.index(made["videos"], made["tubes"], root),
        "checkpoint": stages.pretrain("6b/mu=0.3", made["index"], root, "demo", SMALL),
        "result": stages.evaluate("6b/mu=0.3", "davis", made["checkpoint"], made["data"], root, "demo", SMALL),
        "report": stages.report(["1/vgg/previts", "6b"], made["index"], [made["result"]], root, "demo", SMALL),
    }
    assert again == {name: made[name] for name in again}
    after = snapshot(root)
    page = str(Path(root) / "report.html")  # the page at the fixed address is put there anew
    assert {name: time for name, time in after.items() if name != page} == {
        name: time for name, time in before.items() if name != page
    }


def test_only_the_shard_that_is_missing_is_made_again(made, world, tmp_path):
    for stage in ("videos", "saliency", "tubes"):
        os.system(f"cp -a {made['root']}/. {tmp_path}/{stage}")
    for stage, verb in (
        ("videos", lambda at, root: stages.download(made["crawl"], root, "demo", SMALL)),
        ("saliency", lambda at, root: stages.saliency(at["videos"], at["model"], root, "demo", SMALL)),
        ("tubes", lambda at, root: stages.track(at["videos"], at["saliency"], root, "demo", SMALL)),
    ):
        root = str(tmp_path / stage)
        at = {name: uri.replace(made["root"], root) for name, uri in made.items()}
        whole = folders.read_manifest(at[stage]).counts
        os.unlink(files.join(at[stage], "manifest.json"))
        os.unlink(files.join(at[stage], tables.table_name(1)))
        others = {name: time for name, time in snapshot(at[stage]).items() if "00001" not in name}
        assert verb(at, root) == at[stage]
        assert folders.read_manifest(at[stage]).counts == whole
        assert {name: snapshot(at[stage])[name] for name in others} == others


def test_results_name_their_own_checkpoint(made):
    result = files.read_json(files.join(made["result"], "result.json"))
    assert result["checkpoint"] == folders.read_manifest(made["checkpoint"]).fingerprint
    assert folders.read_manifest(made["result"]).inputs["checkpoint"] == made["checkpoint"]
    assert 0 <= result["metrics"]["davis/j_mean"] <= 1
    sequences = len(result["protocol"]["sequences"])
    assert result["populations"]["davis/j_mean"] == {"items": sequences, "unit": "sequences", "chance": None}


def test_the_training_log_has_every_step_once(made):
    lines = [json.loads(line) for line in files.read_bytes(files.join(made["checkpoint"], "log.jsonl")).splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_the_report_shows_rows_that_were_not_trained_as_such(made):
    page = files.read_bytes(files.join(made["report"], "report.html")).decode()
    assert page == (Path(made["root"]) / "report.html").read_text()
    for row in paper.expand(["1/vgg/previts", "6b"]):
        assert row.name in page
    cells = files.read_bytes(files.join(made["report"], "report.csv")).decode().splitlines()
    missing = [line for line in cells if line.startswith("6b/mu=0.2,")]
    assert missing
    assert all(",0.0," not in line for line in missing)


def test_the_run_log_holds_the_arm_with_its_numbers(made):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{made['root']}/mlflow.db")
    (experiment,) = [item for item in client.search_experiments() if item.name == "previts"]
    runs = client.search_runs([experiment.experiment_id])
    fingerprint = folders.read_manifest(made["checkpoint"]).fingerprint
    (arm,) = [run for run in runs if run.data.tags.get("previts.fingerprint") == fingerprint]
    assert arm.info.status == "FINISHED"
    assert arm.data.params["objective.attention_weight"] == "3.0"
    assert "davis/j_mean" in arm.data.metrics
    assert arm.data.tags["mlflow.parentRunId"] in {run.info.run_id for run in runs}


def test_too_many_failures_stop_the_download_and_keep_what_was_stored(made, world, tmp_path):
    with pytest.raises(InputError, match=r"3 of the 9 videos .* failed, more than the allowed share of 0.1"):
        stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.1)
    stored = snapshot(str(tmp_path))
    videos = stages.download(made["crawl"], str(tmp_path), "demo", SMALL, max_failure_fraction=0.5)
    assert folders.read_manifest(videos).counts["failed"] == 3
    assert {name: snapshot(str(tmp_path))[name] for name in stored} == stored


def test_a_changed_video_beside_the_manifest_is_a_new_crawl(made, world, tmp_path):
    os.system(f"cp -a {world}/crawl.csv {world}/videos {tmp_path}/")
    same = stages.download(str(tmp_path / "crawl.csv"), made["root"], "demo", SMALL)
    assert same == made["videos"]
    one = next((tmp_path / "videos").glob("v*.mp4"))
    one.write_bytes(one.read_bytes()[:-7] + b"changed")
    other = stages.download(str(tmp_path / "crawl.csv"), str(tmp_path / "root"), "demo", SMALL)
    assert other.rsplit("/", 1)[1] != made["videos"].rsplit("/", 1)[1]


def test_the_same_flow_gives_the_same_addresses_in_memory(made, world):
    root = "memory://flow"
    videos = stages.download(made["crawl"], root, "demo", SMALL)
    model = stages.fit_saliency(videos, root, "demo", SMALL)
    regions = stages.saliency(videos, model, root, "demo", SMALL)
    followed = stages.track(videos, regions, root, "demo", SMALL)
    index = stages.index(videos, followed, root)
    assert index == made["index"].replace(made["root"], root)
    assert files.read_bytes(files.join(index, index_table.TABLE)) == files.read_bytes(
        files.join(made["index"], index_table.TABLE)
    )


def test_a_closing_step_tells_what_to_do_after_a_failure(tmp_path):
    text = flow.close_run(str(tmp_path), "FAILED", "Task pretrain failed.")
    assert "Task pretrain failed." in text
    assert "same parameters" in text
    assert "SUCCEEDED" in flow.close_run(str(tmp_path), "SUCCEEDED", "")


def test_a_checkpoint_of_another_row_is_refused(made):
    with pytest.raises(InputError, match=r"of row 1/vgg/previts with profile demo, not of row 1/vgg/moco"):
        stages.evaluate("1/vgg/moco", "davis", made["checkpoint"], made["data"], made["root"], "demo", SMALL)


def test_a_report_is_made_anew_when_a_missing_row_has_been_trained(made, tmp_path):
    root = made["root"]
    before = stages.report(["1/vgg/previts", "6a/gap=zero"], made["index"], [made["result"]], root, "demo", SMALL)
    stages.pretrain("6a/gap=zero", made["index"], root, "demo", SMALL)
    after = stages.report(["1/vgg/previts", "6a/gap=zero"], made["index"], [made["result"]], root, "demo", SMALL)
    assert before != after
    with pytest.raises(InputError, match="no results were given"):
        stages.report(["1/vgg/previts"], made["index"], [], root, "demo", SMALL)


def test_a_damaged_model_is_made_again_by_its_remedy(made, tmp_path):
    os.system(f"cp -a {made['root']}/. {tmp_path}")
    at = {name: uri.replace(made["root"], str(tmp_path)) for name, uri in made.items()}
    model = Path(at["checkpoint"]) / "model.pt"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"delete manifest.json there, if there is one"):
        stages.evaluate("1/vgg/previts", "voc07", at["checkpoint"], at["data"], str(tmp_path), "demo", SMALL)
    (Path(at["checkpoint"]) / "manifest.json").unlink()
    assert stages.pretrain("1/vgg/previts", at["index"], str(tmp_path), "demo", SMALL) == at["checkpoint"]
    result = stages.evaluate("1/vgg/previts", "voc07", at["checkpoint"], at["data"], str(tmp_path), "demo", SMALL)
    assert folders.is_committed(result)


def test_a_corpus_without_any_tube_cannot_be_learnt_with_tracking(world, tmp_path):
    grey = (np.full((64, 96, 3), 128, np.uint8) for _ in range(24))
    (tmp_path / "crawl").mkdir()
    normalisation.encode_video(grey, 12.0, str(tmp_path / "crawl" / "grey.mp4"))
    root = str(tmp_path / "root")
    videos = stages.download(str(tmp_path / "crawl"), root, "demo", SMALL)
    regions = stages.saliency(videos, stages.fit_saliency(videos, root, "demo", SMALL), root, "demo", SMALL)
    index = stages.index(videos, stages.track(videos, regions, root, "demo", SMALL), root)
    with pytest.raises(InputError, match=r"no video of .* has a tube"):
        stages.pretrain("1/vgg/previts", index, root, "demo", SMALL)


@pytest.mark.slow
def test_two_processes_under_torchrun_train_one_checkpoint(made):
    changed = [*SMALL, "objective.batch_norm_groups=2"]
    one = stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*changed, "seed=1"])
    two = stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*changed, "seed=2"], processes=2)
    logs = [files.read_bytes(files.join(uri, "log.jsonl")).splitlines() for uri in (one, two)]
    assert len(logs[0]) == len(logs[1]) > 0
    assert folders.read_manifest(two).counts["steps"] == folders.read_manifest(one).counts["steps"]
    with pytest.raises(InputError, match=r"batch_norm_groups = 1 must be a multiple of the number of processes, 2"):
        stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", [*SMALL, "seed=2"], processes=2)


@pytest.mark.slow
def test_torchx_and_the_pods_of_a_job_train_the_same_weights_as_the_local_launcher(made, tmp_path):
    changed = [*SMALL, "objective.batch_norm_groups=2", "optim.epochs=3", "seed=3"]
    local = stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", changed, processes=2)
    weights = tensors.read_checked(files.join(local, "model.pt"), "cpu")["model"]
    row = ["--row", "1/vgg/previts", "--index", made["index"], "--profile", "demo"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def ways() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
        root = str(tmp_path / "torchx")
        torchx = [sys.executable, "-m", "torchx.cli.main", "run", "-s", "local_cwd", "--workspace", "", "--wait"]
        torchx += [f"{app.__file__}:train", "--verb", "pretrain", "--processes", "2", "--"]
        yield root, [subprocess.Popen([*torchx, *row, "--root", root, "--set", *changed], env=environment)]
        for form, options in (("rigid", JobOptions()), ("spot", JobOptions(spot=True))):
            root = str(tmp_path / form)
            arguments = [*row, "--root", root, "--set", *changed]
            yield root, run_pods(materialise(app.training_app("pretrain", 1, arguments, nodes=2, image="x"), options))

    for root, processes in ways():
        assert [process.wait(300) for process in processes] == [0] * len(processes)
        found = tensors.read_checked(local.replace(made["root"], root) + "/model.pt", "cpu")["model"]
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights), root


@pytest.mark.slow
def test_a_cluster_trains_the_same_weights_as_this_machine(made, tmp_path, plane, kubelet, monkeypatch, capfd):
    changed = [*SMALL, "objective.batch_norm_groups=2", "optim.epochs=3", "seed=3"]
    local = stages.pretrain("1/vgg/previts", made["index"], made["root"], "demo", changed, processes=2)
    weights = tensors.read_checked(files.join(local, "model.pt"), "cpu")["model"]
    open_namespace(plane, "training")
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig("launcher", "training"))

    def script(operator: Operator, job: dict[str, Any]) -> None:
        operator.condition(job, "Created")
        processes = run_pods(job)
        operator.condition(job, "Running")
        codes = [process.wait(300) for process in processes]
        operator.condition(job, "Failed" if any(codes) else "Succeeded")

    where = {"launcher": "pytorchjob", "processes": 2, "job": ["image=x", "processes_per_node=1", "accelerator="]}
    arguments = ("1/vgg/previts", made["index"], str(tmp_path), "demo", changed)
    with Operator(plane, kubelet, "training", script):
        trained = stages.pretrain(*arguments, **where)
    found = tensors.read_checked(files.join(trained, "model.pt"), "cpu")["model"]
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    capfd.readouterr()
    assert stages.pretrain(*arguments, **where) == trained  # and no cluster is asked
    assert "already there" in capfd.readouterr().err


def test_a_row_of_supervised_tracking_is_not_trained_on_other_tubes(made):
    chosen = [item for item in SMALL if not item.startswith("saliency.method")]
    for verb in (
        lambda: stages.pretrain("6d/supervised", made["index"], made["root"], "demo", chosen),
        lambda: stages.report(["6d/supervised"], made["index"], [made["result"]], made["root"], "demo", chosen),
    ):
        with pytest.raises(InputError, match=r"row 6d/supervised needs tubes of saliency\.method=supervised.* of rbd"):
            verb()


@pytest.mark.parametrize(("part", "parts"), [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_does_not_exist_is_refused_whether_or_not_the_whole_is_there(made, part, parts):
    for verb in (
        lambda: stages.download(made["crawl"], made["root"], "demo", SMALL, part, parts),
        lambda: stages.saliency(made["videos"], made["model"], made["root"], "demo", SMALL, part, parts),
        lambda: stages.track(made["videos"], made["saliency"], made["root"], "demo", SMALL, part, parts),
    ):
        with pytest.raises(InputError, match=r"part from 0 to parts - 1"):
            verb()


def test_the_saliency_counts_its_key_frames(made):
    frames = [row.num_frames for shard in range(3) for row in video_table.read_shard(made["videos"], shard)]
    counts = folders.read_manifest(made["saliency"]).counts
    assert counts == {"shards": 3, "key_frames": sum(-(-number // 4) for number in frames)}


def test_rows_that_are_not_trained_measure_their_start(made, tmp_path):
    index, root, data = made["index"], made["root"], made["data"]
    random = stages.pretrain("1/random", index, root, "demo", SMALL)
    assert folders.read_manifest(random).counts["steps"] == 0
    assert folders.is_committed(stages.evaluate("1/random", "davis", random, data, root, "demo", SMALL))
    with pytest.raises(InputError, match=r"--set 1/supervised:model\.weights=URI"):
        stages.pretrain("1/supervised", index, root, "demo", SMALL)
    weights = str(tmp_path / "torchvision.pt")
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), weights)
    chosen = [*SMALL, f"1/supervised:model.weights={weights}"]
    given = stages.pretrain("1/supervised", index, root, "demo", chosen)
    encoder = tensors.read_checked(files.join(given, tensors.ENCODER), "cpu")
    assert all(torch.equal(encoder[name], value) for name, value in network.state_dict().items() if "fc." not in name)
    assert stages.pretrain("1/random", index, root, "demo", chosen) == random


def test_a_failed_benchmark_is_a_result_with_its_reason_and_is_tried_again(made, tmp_path, capfd):
    os.system(f"cp -a {made['data']}/voc/. {tmp_path}/voc")
    os.system(f"cp -a {made['data']}/davis/. {tmp_path}/davis")
    picture = next((tmp_path / "voc" / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())
    sound = picture.read_bytes()
    picture.write_bytes(sound[:100])
    root, data = made["root"], str(tmp_path)
    place = {"row": "1/vgg/previts", "checkpoint": made["checkpoint"], "data": data, "root": root}
    place |= {"profile": "demo", "set": SMALL}
    failed = subprocess_evaluation.evaluate_in_subprocess(benchmark="voc07", **place)
    with pytest.raises(InputError, match="cannot be read as an image"):
        stages.evaluate(benchmark="voc07", **place)
    other = subprocess_evaluation.evaluate_in_subprocess(benchmark="davis", **place)
    assert "VOC07 trainval" in capfd.readouterr().err  # what the process says is passed on
    report = stages.report(["1/vgg/previts"], made["index"], [failed, other], root, "demo", SMALL)
    page = files.read_bytes(files.join(report, "report.md")).decode()
    assert f"{picture.name} cannot be read as an image" in page
    assert folders.read_manifest(report).counts["measured"] > 0
    with pytest.raises(InputError, match=r"1 of 2 evaluations failed:\n  voc07 of .*cannot be read as an image"):
        flow.check_evaluations(report)
    picture.write_bytes(sound)
    mended = subprocess_evaluation.evaluate_in_subprocess(benchmark="voc07", **place)
    assert folders.read_manifest(mended).counts["voc07/map"] >= 0
    flow.check_evaluations(stages.report(["1/vgg/previts"], made["index"], [mended, other], root, "demo", SMALL))


def test_an_evaluation_that_ends_with_its_engine_has_not_failed(made, tmp_path):
    place = {
        "row": "1/vgg/previts",
        "benchmark": "voc07",
        "checkpoint": made["checkpoint"],
        "data": made["data"],
        "root": str(tmp_path),
        "profile": "demo",
        "set": SMALL,
    }
    step = """
import json, sys
from previts.processes.exits import readable_errors
from previts.stages import subprocess_evaluation
with readable_errors():
    subprocess_evaluation.evaluate_in_subprocess(**json.loads(sys.argv[1]))
"""
    engine = subprocess.Popen(["sleep", "600"])
    environment = {**os.environ, workers.STARTED_BY: str(engine.pid)}
    process = psutil.Popen([sys.executable, "-c", step, json.dumps(place)], env=environment)
    while not (tmp_path / "results").exists():
        assert process.poll() is None
        time.sleep(0.05)
    evaluations = process.children()
    # It must not be the first that finds the engine gone: its end would look like a failure.
    assert [child.environ()[workers.STARTED_BY] for child in evaluations] == [str(process.pid)]
    engine.kill()
    engine.wait()
    assert process.wait(60) == -signal.SIGKILL
    assert not psutil.wait_procs(evaluations, 60)[1]
    assert not list(tmp_path.rglob("result.json"))


def test_a_benchmark_may_be_repeated_with_other_seeds(made):
    chosen = [*SMALL, "evaluation.runs=3", "evaluation.linear.recipe=virtex"]
    uri = stages.evaluate("1/vgg/previts", "in1k", made["checkpoint"], made["data"], made["root"], "demo", chosen)
    result = files.read_json(files.join(uri, "result.json"))
    by_run = result["protocol"]["by_run"]["in1k/top1"]
    assert len(by_run) == 3
    assert result["metrics"]["in1k/top1"] == pytest.approx(np.mean(by_run))
    assert result["protocol"]["standard_deviation"]["in1k/top1"] == pytest.approx(np.std(by_run, ddof=1))
    assert "work" not in files.names(uri)
    alone = [*SMALL, "evaluation.seed=2", "evaluation.linear.recipe=virtex"]
    uri = stages.evaluate("1/vgg/previts", "in1k", made["checkpoint"], made["data"], made["root"], "demo", alone)
    assert files.read_json(files.join(uri, "result.json"))["metrics"]["in1k/top1"] == by_run[2]


@pytest.mark.slow
def test_jhmdb_starts_from_the_classifier_that_ucf101_left(made):
    small = [*SMALL, "evaluation.actions.epochs=1", "evaluation.actions.frames=8", "evaluation.actions.test_clips=1"]
    row, at = "2/random", (made["data"], made["root"], "demo")
    checkpoint = stages.pretrain(row, made["index"], made["root"], "demo", small)
    stages.evaluate(row, "ucf101", checkpoint, *at, small)
    uri = stages.evaluate(row, "jhmdb", checkpoint, *at, small)
    result = files.read_json(files.join(uri, "result.json"))
    assert result["protocol"]["start"] == "the classifier that ucf101 left"
    assert {name.partition("/")[0] for name in result["metrics"]} == {"jhmdb"}
    assert files.read_bytes(files.join(uri, "manifest.csv")).startswith(b"seed,split,part,variant,")
    assert files.names(files.join(uri, "work")) == []
    # How backgrounds are tested is nothing to ucf101, whose classifier is found whatever it says.
    plain, other = (
        paper.resolve(row, "demo", [*small, f"evaluation.backgrounds.train_on={value}"])
        for value in ("original", "variant")
    )
    for benchmark, same in (("ucf101", True), ("jhmdb", False), ("minikinetics", False)):
        places = [addresses.result_address(benchmark, checkpoint, made["data"], plan, "r") for plan in (plain, other)]
        assert (places[0] == places[1]) == same
    uri = stages.evaluate(row, "minikinetics", checkpoint, *at, [*small, "evaluation.backgrounds.train_on=variant"])
    assert set(files.read_json(files.join(uri, "result.json"))["metrics"]) == {
        "minikinetics_by_variant/original", "minikinetics_by_variant/no_fg",
    }  # fmt: skip
