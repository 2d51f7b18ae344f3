"""Checks of the user's choices, which a verb or a pipeline makes before it computes anything."""

from collections.abc import Sequence

from previts.config.benchmarks import BENCHMARKS
from previts.config.experiment import Plan
from previts.config.tables import NEED_WEIGHTS
from previts.errors import InputError
from previts.launch.options import read_options
from previts.stages.addresses import saliency_method, weights_identity
from previts.storage import files, fingerprints
from previts.storage.folders import read_manifest

LAUNCHERS = ("local", "pytorchjob")


def check_weights(plan: Plan) -> None:
    """Raise an InputError if the weights that training starts from, or those of the saliency, do not exist."""
    weights_identity(plan)
    saliency, fit = plan.experiment.saliency.method, plan.experiment.fit
    if saliency in ("deepusps", "supervised") and fit.weights and not files.exists(fit.weights):
        raise InputError(f"fit.weights: there is nothing at {fit.weights}; give the URI of the weights")


def check_launch(launcher: str, processes: int, job: Sequence[str] = ()) -> None:
    """Raise an InputError if the launcher, the number of processes or a setting of the job is invalid."""
    if launcher not in LAUNCHERS:
        raise InputError(f"there is no launcher {launcher!r}; allowed: {', '.join(LAUNCHERS)}")
    check_processes(processes)
    options = read_options(job)
    if launcher == "pytorchjob":
        options.nodes(processes)
    elif job:
        raise InputError(
            f"job settings ({', '.join(job)}) are for --launcher pytorchjob, not for {launcher}; "
            "leave them out, or change the launcher"
        )


def check_processes(processes: int) -> None:
    """Raise an InputError if the number of processes is less than 1."""
    if processes < 1:
        raise InputError(f"processes must be 1 or more, got {processes}")


def check_fit(row: str, plan: Plan, benchmarks: Sequence[str]) -> None:
    """Raise an InputError if a benchmark does not accept the model of a row."""
    video = plan.experiment.model.encoder == "s3dg"
    able = [name for name, benchmark in BENCHMARKS.items() if (benchmark.clips if video else benchmark.images)]
    if unfit := [name for name in benchmarks if name not in able]:
        raise InputError(
            f"row {row} has the {'video' if video else 'image'} model, which {', '.join(unfit)} cannot evaluate; "
            f"benchmarks of this model: {', '.join(able)}"
        )


def missing_weights(row: str, plan: Plan) -> str:
    """Return the setting of the weights that a row needs and that is empty: `model.weights`, `fit.weights`, or ""."""
    if row in NEED_WEIGHTS and not plan.experiment.model.weights:
        return "model.weights"
    supervised = plan.experiment.sampling.constraint == "tracking" and plan.experiment.saliency.method == "supervised"
    return "fit.weights" if supervised and not plan.experiment.fit.weights else ""


def check_start(row: str, plan: Plan) -> None:
    """Raise an InputError if a row evaluates given weights and `model.weights` is empty."""
    if missing_weights(row, plan) == "model.weights":
        raise InputError(f"row {row} evaluates given weights: set them with --set {row}:model.weights=URI")


def check_method(method: str, model: str) -> None:
    """Raise an InputError if a saliency model was made for another method than `method`."""
    made_for = read_manifest(model).info.get("method")
    if made_for != method:
        raise InputError(
            f"{model} is a model for saliency.method={made_for}, but here saliency.method={method}; "
            "use the same --profile and --set as for `fit_saliency`"
        )


def check_perception(row: str, plan: Plan) -> None:
    """Raise an InputError if the row of tracking without labels has the tubes of a detector."""
    table, _, kind = row.partition("/")
    if kind == "unsupervised" and plan.experiment.saliency.method == "supervised":
        raise InputError(
            f"row {row} tracks without labels, but saliency.method=supervised; set the method of one row only, such as "
            f"--set {table}/supervised:fit.weights=URI"
        )


def check_lineage(row: str, plan: Plan, index: str) -> None:
    """Raise an InputError if an index has supervised tubes and the row needs unsupervised ones, or the reverse.

    Both rows would have checkpoints at the same address: the saliency method is not part of a checkpoint's decisions.
    """
    if plan.experiment.sampling.constraint != "tracking":
        return
    wanted, made_by = plan.experiment.saliency.method, saliency_method(index)
    if made_by and (wanted == "supervised") != (made_by == "supervised"):
        raise InputError(
            f"row {row} needs tubes of saliency.method={wanted}, but {index} has tubes of {made_by}; "
            "make another index for the row, with the same --set for all verbs"
        )


def check_row(row: str, plan: Plan, checkpoint: str) -> None:
    """Raise an InputError if a checkpoint was not pretrained with the settings of a row."""
    manifest = read_manifest(checkpoint)
    wanted = {**fingerprints.plain(plan.experiment.learned()), "weights": weights_identity(plan)}
    if differing := [name for name, value in wanted.items() if manifest.decided.get(name) != value]:
        raise InputError(
            f"{checkpoint} is a checkpoint of row {manifest.info.get('row')} with profile "
            f"{manifest.info.get('profile')}, not of row {row} with these settings: {', '.join(differing)} differ; "
            "use the row, profile and --set that it was pretrained with"
        )
