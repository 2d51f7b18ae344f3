"""Oracle: the runs and models in MLflow, read with its own client."""

from pathlib import Path

import fsspec
import pytest
from mlflow.tracking import MlflowClient
from mlflow_runs import client_of, open_trial, runs_of

from previts.runlog import run_log, stored_run
from previts.runlog.description import Dataset, LoggedModel

pytestmark = pytest.mark.usefixtures("mlflow_environment")

INDEX = Dataset("crawl-1 (9 videos)", "0123456789ab", "/root/index/corpus-0123456789ab", {"videos": 9.0, "hours": 0.5})
VOC = Dataset("voc", "ba9876543210", "gs://bucket/data/voc", {"images": 18.0})


def model_of(fingerprint: str = "f1", **tags: str) -> LoggedModel:
    return LoggedModel(
        fingerprint,
        "1-vgg-moco · seed 0",
        "resnet18",
        12,
        {"optim.lr": "0.1", "model.weights": ""},
        {"row": "1/vgg/moco", "mlflow.note.content": "how to load it", **tags},
        {"experiment.json": "{}"},
        {"images": [-1, 3, 64, 64]},
        {"features": [-1, 512]},
    )


def models_in(client: MlflowClient) -> list:
    experiment = client.get_experiment_by_name("previts")
    return list(client.search_logged_models([experiment.experiment_id]))


def test_an_experiment_is_one_of_model_training_also_if_an_earlier_version_made_it(root: Path):
    client = client_of(root)
    experiment = client.create_experiment("previts", artifact_location=(root / "mlartifacts").as_uri())
    assert "mlflow.experimentKind" not in client.get_experiment(experiment).tags
    open_trial(root).finish()
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_checkpoint_is_one_logged_model_however_often_it_is_recorded(root: Path):
    for text in ("first", "second"):  # training was killed before its commit, and runs again
        run = open_trial(root)
        run.dataset(INDEX, "training")
        run.model(model_of(remark=text))
        run.measured({"loss": 2.5}, 12, "f1", INDEX)
        run.finish()
    run_log.log_result(str(root), "f1", {"voc07/map": 50.0}, VOC)
    client = client_of(root)
    (found,), (trial,) = models_in(client), runs_of(client)["trials"]
    model = client.get_logged_model(found.model_id)
    assert (model.name, model.model_type, model.status) == ("1-vgg-moco · seed 0", "resnet18", "READY")
    assert (model.tags["remark"], model.tags["mlflow.note.content"]) == ("second", "how to load it")
    assert model.params["optim.lr"] == "0.1"
    assert model.source_run_id == trial.info.run_id
    assert [output.model_id for output in trial.outputs.model_outputs] == [model.model_id]
    assert trial.outputs.model_outputs[0].step == 12
    linked = {(item.key, item.value, item.dataset_name, item.dataset_digest) for item in model.metrics}
    assert linked == {("loss", 2.5, INDEX.name, INDEX.digest), ("voc07/map", 50.0, "voc", VOC.digest)}
    assert trial.data.metrics == {"loss": 2.5, "voc07/map": 50.0}
    datasets = {item.dataset.name: (item.dataset, item.tags[0].value) for item in trial.inputs.dataset_inputs}
    assert {name: context for name, (_, context) in datasets.items()} == {INDEX.name: "training", "voc": "eval"}
    assert datasets["voc"][0].source_type == "gs"
    assert '"videos": 9.0' in datasets[INDEX.name][0].profile
    files = {item.path for item in client.list_logged_model_artifacts(model.model_id)}
    assert files == {"experiment.json", "MLmodel"}


def test_the_signature_of_a_model_is_read_by_mlflow(root: Path):
    from mlflow.models import Model

    run = open_trial(root)
    run.model(model_of())
    run.finish()
    client = client_of(root)
    (model,) = models_in(client)
    path = model.artifact_location.removeprefix("file://")
    signature = Model.load(path).signature
    assert [(spec.name, spec.shape) for spec in signature.inputs.inputs] == [("images", (-1, 3, 64, 64))]
    assert [(spec.name, spec.shape, str(spec.type)) for spec in signature.outputs.inputs] == [
        ("features", (-1, 512), "float32")
    ]


def test_a_number_of_a_model_that_is_not_in_mlflow_is_still_in_the_run(root: Path):
    run_log.log_result(str(root), "f9", {"voc07/map": 50.0}, VOC)
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    assert trial.data.metrics == {"voc07/map": 50.0}
    assert [item.dataset.name for item in trial.inputs.dataset_inputs] == ["voc"]


def test_another_number_of_the_same_time_is_still_in_the_run(root: Path, caplog: pytest.LogCaptureFixture):
    run = open_trial(root)
    run.model(model_of())
    stored = stored_run.StoredRun(client := client_of(root), runs_of(client)["trials"][0].info.run_id)
    linked = {"model": "f1", "dataset": "voc", "digest": "d1"}
    for value in (50.0, 51.0):
        stored.send_entries([{"kind": "metrics", "values": {"voc07/map": value}, "step": 0, "time": 1000, **linked}])
    run.finish()
    history = client.get_metric_history(stored.run_id, "voc07/map")
    assert [point.value for point in history] == [50.0, 51.0]
    assert "rejects" not in caplog.text


def test_names_and_descriptions_of_a_user_are_kept(root: Path):
    run = open_trial(root)
    run.note("ours\n")
    run.rename("trial one")
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    assert (trial.info.run_name, trial.data.tags["mlflow.note.content"]) == ("trial one", "ours\n")
    run.note("ours, newer")
    run.rename("trial two")
    run.rename("trial two")
    trial = client.get_run(trial.info.run_id)
    assert (trial.info.run_name, trial.data.tags["mlflow.note.content"]) == ("trial two", "ours, newer")
    client.update_run(trial.info.run_id, name="my favourite")
    client.set_tag(trial.info.run_id, "mlflow.note.content", "mine")
    run.note("ours, newest")
    run.rename("trial three")
    run.finish()
    trial = client.get_run(trial.info.run_id)
    assert (trial.info.run_name, trial.data.tags["mlflow.note.content"]) == ("my favourite", "mine")


def test_a_group_gets_its_name_from_the_report_unless_the_user_or_kubeflow_named_it(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    report = tmp_path / "report"
    report.mkdir()
    for name in ("report.html", "report.csv", "curve.svg", "result.png", "manifest.json"):
        (report / name).write_text(name)
    (report / "report.md").write_text("## Table 1\n\n| arm | mAP |\n| --- | --- |\n| MoCo | 40.1 |\n")
    open_trial(root, corpus="crawl-1 (9 videos)").finish()
    client = client_of(root)
    (group,) = runs_of(client)["groups"]
    assert group.info.run_name.startswith("crawl-1 (9 videos) · 2")
    for name in ("3 rows", "4 rows"):
        run_log.log_report(str(root), group="corpus", report=str(report), name=name, index=INDEX)
    (group,) = runs_of(client)["groups"]
    assert group.info.run_name == "4 rows"
    assert "| MoCo | 40.1 |" in group.data.tags["mlflow.note.content"]
    assert [item.dataset.name for item in group.inputs.dataset_inputs] == [INDEX.name]
    assert {item.path for item in client.list_artifacts(group.info.run_id)} == {"report.html", "report"}
    inside = {item.path for item in client.list_artifacts(group.info.run_id, "report")}
    assert inside == {f"report/{name}" for name in ("report.md", "report.csv", "curve.svg", "result.png")}
    assert run_log.delete_report(str(root), str(report))
    assert client.list_artifacts(group.info.run_id) == []
    client.update_run(group.info.run_id, name="for the paper")
    run_log.log_report(str(root), group="corpus", report=str(report), name="5 rows")
    assert client.get_run(group.info.run_id).info.run_name == "for the paper"
    theirs = client.create_run(group.info.experiment_id, run_name="theirs")
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.info.run_id)
    run_log.log_report(str(root), group="corpus", report=str(report), name="6 rows")
    assert client.get_run(theirs.info.run_id).info.run_name == "theirs"


def test_an_artifact_of_a_store_is_sent_and_one_that_is_gone_is_reported(root: Path, caplog: pytest.LogCaptureFixture):
    with fsspec.open("memory://bucket/pictures/step-1.png", "wb") as file:
        file.write(b"png")
    run = open_trial(root)
    run.artifact("memory://bucket/pictures/step-1.png", "pictures")
    run.artifact("memory://bucket/pictures/gone.png", "pictures")
    run.artifact(str(root / "gone.txt"))
    run.finish()
    client = client_of(root)
    (trial,) = runs_of(client)["trials"]
    assert [item.path for item in client.list_artifacts(trial.info.run_id, "pictures")] == ["pictures/step-1.png"]
    assert caplog.text.count("no longer exists") == 2


def test_long_texts_are_cut_at_the_end_of_a_line(root: Path):
    table = "".join(f"| row {number} | 40.1 |\n" for number in range(2000))
    run = open_trial(root)
    run.note(table)
    run.tag("long", "x" * 9000)
    run.finish()
    (trial,) = runs_of(client_of(root))["trials"]
    note = trial.data.tags["mlflow.note.content"]
    assert 7900 < len(note) <= 8000
    assert note.splitlines()[-2].endswith("| 40.1 |")
    assert note.splitlines()[-1] == "…"
    assert len(trial.data.tags["long"]) <= 8000
    assert stored_run.cut("short") == "short"


def test_tags_of_a_newer_start_replace_those_of_an_earlier_one(root: Path):
    open_trial(root, tags={"previts.pipeline_run": "one", "row": "6b/mu=0.2"}).finish("KILLED")
    open_trial(root, tags={"previts.pipeline_run": "two", "row": "6b/mu=0.2"}).finish()
    (trial,) = runs_of(client_of(root))["trials"]
    assert (trial.data.tags["previts.pipeline_run"], trial.data.tags["row"]) == ("two", "6b/mu=0.2")
