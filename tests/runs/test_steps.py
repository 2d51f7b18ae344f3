"""The steps of a run, called as the components call them."""

import csv
import io
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient
from small_verbs import SMALL

from previts import demo, stages
from previts.errors import InputError, TemporaryError
from previts.evals.result import read_result
from previts.runlog import run_store
from previts.runs import steps
from previts.storage import files, folders

RUN = {"rows": ["1/vgg/sampling", "6b/mu=0.2"], "profile": "demo", "set": [*SMALL, "6b/mu=0.2:saliency.method=mc"]}


def test_the_parts_of_a_stage_must_have_the_same_finished_outputs(tmp_path):
    uri, other = (folders.address(str(tmp_path), "tubes", name, {}) for name in ("x", "y"))
    with pytest.raises(InputError, match="has not finished"):
        steps.collect_parts([{"": uri}, {"": uri}])
    folders.commit(uri, {})
    assert steps.collect_parts([{"": uri}, {"": uri}]) == {"": uri}
    with pytest.raises(InputError, match="has not finished"):
        steps.collect_parts([{"": uri, "6d/supervised": other}] * 2)
    with pytest.raises(InputError, match="must write one output"):
        steps.collect_parts([{"": uri}, {"": other}])


@pytest.mark.slow
def test_rows_of_several_perceptions_and_seeds_are_one_run(tmp_path):
    demo.make_world(str(tmp_path / "world"), replace(demo.TINY, seed=3))
    root, data = str(tmp_path / "root"), str(tmp_path / "world" / "datasets")
    videos = stages.download(str(tmp_path / "world" / "crawls" / "crawl-1.csv"), root, "demo", SMALL)
    models = steps.fit_saliency(videos=videos, root=root, **RUN)
    assert {name: folders.read_manifest(uri).info["method"] for name, uri in models.items()} == {
        "": "rbd",
        "6b/mu=0.2": "mc",
    }
    part = {"root": root, "profile": RUN["profile"], "set": RUN["set"], "part": 0, "parts": 1}
    regions = steps.saliency(videos=videos, models=models, **part)
    tubes = steps.track(videos=videos, regions=regions, **part)
    place = {"root": root, "profile": RUN["profile"], "set": RUN["set"]}
    indexes = steps.index(videos=videos, tubes=[tubes, tubes], data="", **place)
    seeds = [0, 2]
    training = {"launcher": "local", "processes": 1, "job": []}
    trained = [
        uri
        for number in range(4)
        for uri in steps.pretrain(indexes=indexes, root=root, seeds=seeds, part=number, **training, **RUN)
    ]
    manifests = [folders.read_manifest(uri) for uri in trained]
    assert [(item.info["row"], item.decided["seed"]) for item in manifests] == [
        ("1/vgg/sampling", 0),
        ("6b/mu=0.2", 0),
        ("1/vgg/sampling", 2),
        ("6b/mu=0.2", 2),
    ]
    assert len(set(trained)) == 4
    evaluating = {"data": data, "benchmarks": ["voc07"], "processes": 1}
    found = [
        steps.evaluate(indexes=indexes, root=root, seeds=seeds, part=number, **evaluating, **RUN) for number in range(4)
    ]
    results = [read_result(uri) for uris in found for uri in uris]
    assert [item.checkpoint for item in results] == [item.fingerprint for item in manifests]
    report = steps.report(indexes=indexes, results=found, root=root, seeds=seeds, **RUN)
    shown = csv.DictReader(io.StringIO(files.read_bytes(files.join(report, "report.csv")).decode()))
    values = {row["row"]: float(row["value"]) for row in shown if row["metric"] == "voc07/map"}
    for row in RUN["rows"]:
        own = [item.metrics["voc07/map"] for item in results if item.row == row]
        assert len(own) == 2
        assert values[row] == pytest.approx(sum(own) / 2)
    steps.check_evaluations(report, root)
    # MLflow has the rows of each training, of all seeds.
    client = MlflowClient(run_store.tracking_uri(root))
    found = client.search_runs([client.get_experiment_by_name("previts").experiment_id], "tags.rows LIKE '%'")
    assert sorted((run.data.tags["rows"], run.data.tags["seed"]) for run in found) == [
        ("1/vgg/sampling", "0"),
        ("1/vgg/sampling", "2"),
        ("6b/mu=0.2", "0"),
        ("6b/mu=0.2", "2"),
    ]


def test_one_trial_that_cannot_be_trained_does_not_stop_the_others_of_its_share(tmp_path):
    done = []

    def work(name: str) -> str:
        if name == "b":
            raise InputError("it is broken")
        done.append(name)
        return name

    with pytest.raises(InputError, match="b: it is broken"):
        steps._each(["a", "b", "c"], work)
    assert done == ["a", "c"]
    with pytest.raises(InputError, match=r"^it is broken$"):
        steps._each(["b"], work)


def test_an_outage_in_one_trial_of_a_share_may_pass(tmp_path):
    def work(name: str) -> str:
        if name != "a":
            raise TemporaryError("the store is away") if name == "b" else InputError("it is broken")
        return name

    with pytest.raises(TemporaryError, match="b: the store is away\nc: it is broken"):
        steps._each(["a", "b", "c"], work)
