"""Checks of the user's choices, made before anything is computed."""

from collections.abc import Sequence

from previts.config.benchmarks import BENCHMARKS
from previts.config.experiment import Plan
from previts.config.paper import NEED_WEIGHTS
from previts.errors import InputError
from previts.launch.options import read_options
from previts.stages.addresses import weights_identity
from previts.storage import fingerprints
from previts.storage.folders import ancestor, read_manifest

LAUNCHERS = ("local", "pytorchjob")


def check_weights(plan: Plan) -> None:
    """Raise an InputError if the weights that training starts from are not there."""
    weights_identity(plan)


def check_launch(launcher: str, processes: int, job: Sequence[str] = ()) -> None:
    """Raise an InputError if there is no such place to train at, no process, or a setting of a job that cannot be."""
    if launcher not in LAUNCHERS:
        raise InputError(f"there is no launcher {launcher!r}; allowed: {', '.join(LAUNCHERS)}")
    check_processes(processes)
    options = read_options(job)
    if launcher == "pytorchjob":
        options.nodes(processes)
    elif job:
        raise InputError(f"job settings ({', '.join(job)}) are those of launcher pytorchjob, not of {launcher}")


def check_processes(processes: int) -> None:
    """Raise an InputError if there is no process."""
    if processes < 1:
        raise InputError(f"processes must be 1 or more, got {processes}")


def check_fit(row: str, plan: Plan, benchmarks: Sequence[str]) -> None:
    """Raise an InputError if a row's model cannot be measured by a benchmark."""
    video = plan.experiment.model.encoder == "s3dg"
    able = [name for name, benchmark in BENCHMARKS.items() if (benchmark.clips if video else benchmark.images)]
    if unfit := [name for name in benchmarks if name not in able]:
        raise InputError(
            f"row {row} is of the {'video' if video else 'image'} model, and {', '.join(unfit)} cannot measure that; "
            f"benchmarks of this model: {', '.join(able)}"
        )


def check_start(row: str, plan: Plan) -> None:
    """Raise an InputError if a row is about given weights and none are."""
    if row in NEED_WEIGHTS and not plan.experiment.model.weights:
        raise InputError(f"row {row} is measured from given weights; name them by --set {row}:model.weights=URI")


def check_method(method: str, model: str) -> None:
    """Raise an InputError if a saliency model was made for another method."""
    made_for = read_manifest(model).info.get("method")
    if made_for != method:
        raise InputError(
            f"{model} is a model for saliency.method={made_for}, and saliency.method is {method} here; "
            "give both verbs the same profile and --set"
        )


def check_perception(row: str, plan: Plan, shared: Plan) -> None:
    """Raise an InputError if a row needs other tubes than those that the steps before it make."""
    wanted, made_by = plan.experiment.saliency.method, shared.experiment.saliency.method
    if row == "6d/unsupervised" and wanted == "supervised":
        raise InputError(
            f"row {row} is tracking without labels, not saliency.method={wanted}; give --rows 6d/supervised"
        )
    if plan.experiment.sampling.constraint == "tracking" and wanted != made_by:
        raise InputError(
            f"row {row} follows what saliency.method={wanted} finds, and the other steps of this run use {made_by}: "
            f"leave it out here, and give it a run of its own on the same root, "
            f"--rows {row} --set saliency.method={wanted} fit.weights=URI"
        )


def check_lineage(row: str, plan: Plan, index: str) -> None:
    """Raise an InputError if an index rests on supervised tubes and the row does not, or the reverse.

    Their checkpoints would share an address: training reads an index, and not how it came about.
    """
    if plan.experiment.sampling.constraint != "tracking":
        return
    try:
        saliency = ancestor(index, "tubes", "saliency")
        made_by = read_manifest(saliency).decided["saliency"]["method"]
    except (InputError, KeyError):  # the steps before the index are not kept any more
        return
    wanted = plan.experiment.saliency.method
    if (wanted == "supervised") != (made_by == "supervised"):
        raise InputError(
            f"row {row} wants tubes of saliency.method={wanted}, and {index} was made of {made_by}; "
            "give it an index of its own, and every verb the same --set"
        )


def check_row(row: str, plan: Plan, checkpoint: str) -> None:
    """Raise an InputError if a checkpoint was not pretrained as a row says."""
    manifest = read_manifest(checkpoint)
    wanted = fingerprints.plain({**plan.experiment.learned(), "weights": weights_identity(plan)})
    if differing := [name for name, value in wanted.items() if manifest.decided.get(name) != value]:
        raise InputError(
            f"{checkpoint} is of row {manifest.info.get('row')} under profile {manifest.info.get('profile')}, not what "
            f"row {row} means here: {', '.join(differing)} differ; give its own row, profile and --set"
        )
