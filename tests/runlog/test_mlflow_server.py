"""A small real run on a real MLflow server with PostgreSQL. Oracle: MLflow's own Python functions."""

from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow_runs import Server, postgres, postgres_programs
from small_verbs import SMALL

from previts import demo, stages
from previts.compare import compare
from previts.storage import folders

pytestmark = [pytest.mark.usefixtures("mlflow_environment"), pytest.mark.slow]

ROWS, SEEDS = ("1/vgg/moco", "1/vgg/previts"), (0, 1)


@pytest.mark.skipif(not postgres_programs(), reason="PostgreSQL is not installed: apt-get install postgresql")
def test_a_run_is_in_mlflow_as_its_users_expect_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, world = str(tmp_path / "root"), tmp_path / "world"
    demo.make_world(str(world), replace(demo.TINY, seed=2))
    with postgres() as database:
        server = Server(tmp_path / "server", database)
        server.up()
        try:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
            check_runs(fill(root, world), root, server.uri)
        finally:
            server.down()


def fill(root: str, world: Path) -> dict[tuple[str, int], str]:
    """Run all verbs for each row and seed; return the checkpoints."""
    videos = stages.download(str(world / "crawls" / "crawl-1.csv"), root, "demo", SMALL)
    regions = stages.saliency(videos, stages.fit_saliency(videos, root, "demo", SMALL), root, "demo", SMALL)
    index = stages.index(videos, stages.track(videos, regions, root, "demo", SMALL), root, "demo", SMALL)
    checkpoints, results = {}, []
    for seed in SEEDS:
        for row in ROWS:
            settings = [*SMALL, f"seed={seed}"]
            checkpoints[row, seed] = stages.pretrain(row, index, root, "demo", settings)
            evaluated = (row, "voc07", checkpoints[row, seed], str(world / "datasets"), root, "demo", settings)
            results.append(stages.evaluate(*evaluated))
    stages.report(ROWS, index, results, root, "demo", SMALL)
    return checkpoints


def check_runs(checkpoints: dict[tuple[str, int], str], root: str, uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=["previts"], filter_string="tags.row LIKE '%'")
    assert sorted(runs["tags.mlflow.runName"]) == sorted(f"{row} · seed {seed}" for row, seed in checkpoints)
    assert set(runs["status"]) == {"FINISHED"}
    assert set(runs[runs["tags.row"] == ROWS[1]]["tags.diff"]) == {
        "sampling.constraint=tracking, objective.attention_weight=3.0"
    }
    assert set(runs[runs["tags.row"] == ROWS[0]]["tags.diff"]) == {"baseline"}
    means = runs.groupby("tags.row")["metrics.voc07/map"].mean()
    assert set(means.index) == set(ROWS)
    assert {f"{value:.1f}" for value in means} <= set(compare("", []).split())
    (parent_id,) = set(runs["tags.mlflow.parentRunId"])
    parent = mlflow.get_run(parent_id)
    assert parent.info.run_name.startswith("previts · crawl-1 (9 videos) · ")
    assert "| MoCo (baseline) |" in parent.data.tags["mlflow.note.content"]
    artifacts = {item.path for item in mlflow.artifacts.list_artifacts(run_id=parent_id)}
    assert artifacts == {"report.html", "report"}
    index = folders.read_manifest(folders.read_manifest(checkpoints[ROWS[0], 0]).inputs["index"])
    for _, row in runs.iterrows():
        trial = mlflow.get_run(row["run_id"])
        data = {item.tags[0].value: item.dataset for item in trial.inputs.dataset_inputs}
        assert data["training"].digest == index.fingerprint
        (output,) = trial.outputs.model_outputs
        model = mlflow.get_logged_model(output.model_id)
        checkpoint = checkpoints[model.tags["row"], int(model.tags["seed"])]
        assert model.tags["previts.checkpoint"] == checkpoint
        assert str(model.status) == "READY"
        linked = {item.key: (item.value, item.dataset_name) for item in model.metrics}
        assert linked["voc07/map"] == (row["metrics.voc07/map"], "voc")
        known: dict[str, torch.Tensor] = {}
        exec(model.tags["mlflow.note.content"].split("```python\n")[1].split("```")[0], known)
        shape = mlflow.models.Model.load(model.model_uri).signature.outputs.inputs[0].shape
        assert tuple(known["features"].shape[1:]) == tuple(shape[1:])
    ids = [parent.info.experiment_id]
    found = mlflow.search_logged_models(ids, filter_string="tags.row = '1/vgg/previts'", output_format="list")
    assert len(found) == len(SEEDS)
