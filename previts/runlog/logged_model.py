"""Checkpoints as logged models of MLflow: their settings, description and signature. The weights stay where they are.

For section 4 of PreViTS. A checkpoint has one logged model, found by its fingerprint, however often it is stored.
"""

import os
import tempfile
from typing import TYPE_CHECKING

from previts.runlog.entries import Entry

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.tracking import MlflowClient

MODEL_TAG = "previts.fingerprint"


def find(client: "MlflowClient", experiment_id: str, fingerprint: str) -> "LoggedModel | None":
    """Return the earliest logged model of a checkpoint, or None."""
    found = client.search_logged_models([experiment_id], f"tags.`{MODEL_TAG}` = '{fingerprint}'")
    return min(found, key=lambda model: (model.creation_timestamp, model.model_id), default=None)


def store(client: "MlflowClient", run: "Run", entry: Entry) -> None:
    """Store the checkpoint of an entry as a logged model of its run; a second call updates it.

    Raises:
        OSError, MlflowException: If MLflow does not answer.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment_id, fingerprint = run.info.experiment_id, entry["fingerprint"]
    tags = {**entry["tags"], MODEL_TAG: fingerprint}
    model = find(client, experiment_id, fingerprint)
    if model is None:
        created = client.create_logged_model(
            experiment_id,
            name=entry["name"],
            source_run_id=run.info.run_id,
            tags=tags,
            params=entry["params"],
            model_type=entry["type"],
        )
        model = find(client, experiment_id, fingerprint) or created
        if model.model_id != created.model_id:  # another process was faster
            client.delete_logged_model(created.model_id)
    else:
        client.set_logged_model_tags(model.model_id, tags)
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        for name, text in {**entry["files"], "MLmodel": _mlmodel(model.model_id, run.info.run_id, entry)}.items():
            with open(os.path.join(folder, os.path.basename(name)), "w", encoding="utf-8") as file:
                file.write(text)
        client.log_model_artifacts(model.model_id, folder)
    if model.status != LoggedModelStatus.READY:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    known = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in known}:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, entry["step"])])


def _mlmodel(model_id: str, run_id: str, entry: Entry) -> str:
    """Return the content of the file from which MLflow shows the signature."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(shapes: dict[str, list[int]]) -> Schema:
        return Schema([TensorSpec(np.dtype("float32"), tuple(shape), name) for name, shape in shapes.items()])

    signature = ModelSignature(schema(entry["inputs"]), schema(entry["outputs"]))
    return str(Model(run_id=run_id, signature=signature, model_id=model_id, model_uuid=model_id).to_yaml())
