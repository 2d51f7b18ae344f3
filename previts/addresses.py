"""Where the output of each stage lies, what decides it, and whether it is there.

An address is made of decisions alone, so that every stage, and the report, finds the output of another by asking again.
Nothing is computed here.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from previts import storage
from previts.errors import InputError
from previts.evals.protocol import BENCHMARKS, CLASS_MAP
from previts.experiment import Plan
from previts.launch.options import read_options
from previts.paper import NEED_WEIGHTS

LAUNCHERS = ("local", "pytorchjob")
# Raise one of these when what a stage writes, or how, changes: results of the older form are then made anew.
FORMATS = {
    "world": 2,
    "videos": 1,
    "saliency_model": 2,
    "saliency": 2,
    "tubes": 3,
    "index": 2,
    "checkpoints": 2,
    "results": 3,
    "report": 2,
}


def checkpoint_address(plan: Plan, index: str, root: str) -> str:
    """Return where the checkpoint of a plan on an index lies; equal plans share one."""
    experiment = plan.experiment
    arm = "moco" if experiment.sampling.constraint == "none" else "sampling"
    arm = "previts" if experiment.objective.attention_weight else arm
    arm = "frozen" if experiment.model.frozen else arm
    label = f"{experiment.model.encoder}-{arm}"
    return storage.address(root, "checkpoints", label, checkpoint_decided(plan, index))


def checkpoint_decided(plan: Plan, index: str) -> dict[str, Any]:
    """Return what decides a checkpoint: the corpus, and the part of the experiment that training reads."""
    decided = {"index": finished(index, "index"), **plan.experiment.learned(), "format": FORMATS["checkpoints"]}
    if weights := _weights(plan):
        decided["weights"] = weights
    return decided


def check_weights(plan: Plan) -> None:
    """Raise an InputError if the weights that training starts from are not there."""
    _weights(plan)


def _weights(plan: Plan) -> str | None:
    """Return the identity of the weights that training starts from, if any."""
    if not plan.experiment.model.weights:
        return None
    try:
        return storage.identity(plan.experiment.model.weights)
    except InputError as error:
        raise InputError(f"model.weights: {error}") from None


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
    made_for = storage.read_manifest(model).info.get("method")
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
        saliency = storage.ancestor(index, "tubes", "saliency")
        made_by = storage.read_manifest(saliency).decided["saliency"]["method"]
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
    manifest = storage.read_manifest(checkpoint)
    wanted = storage.plain({**plan.experiment.learned(), "weights": _weights(plan)})
    if differing := [name for name, value in wanted.items() if manifest.decided.get(name) != value]:
        raise InputError(
            f"{checkpoint} is of row {manifest.info.get('row')} under profile {manifest.info.get('profile')}, not what "
            f"row {row} means here: {', '.join(differing)} differ; give its own row, profile and --set"
        )


def data_folders(benchmark: str, data: str) -> list[str]:
    """Return the folders of the labelled sets that a benchmark reads.

    Raises:
        InputError: If one is not there.
    """
    folders = [storage.join(data, name) for name in BENCHMARKS[benchmark].folders]
    if benchmark == "in9" and storage.exists(storage.join(folders[0], CLASS_MAP)):
        folders.append(storage.join(data, BENCHMARKS["in1k"].folders[0]))
    for folder in folders:
        if not storage.exists(folder):
            raise InputError(
                f"benchmark {benchmark} needs a labelled set at {folder}, and there is nothing; "
                "put it there in its authors' layout, or leave the benchmark out"
            )
    return folders


def result_decided(benchmark: str, checkpoint: str, data: str, plan: Plan) -> dict[str, Any]:
    """Return what decides a result: the checkpoint, the labelled sets, and the settings that the benchmark reads."""
    settings = asdict(plan.evaluation)
    sections = {name for other in BENCHMARKS.values() for name in other.sections}
    unread = sections.difference(BENCHMARKS[benchmark].sections)
    return {
        "checkpoint": finished(checkpoint, "checkpoints"),
        "benchmark": benchmark,
        "data": [storage.identity(folder) for folder in data_folders(benchmark, data)],
        "evaluation": {name: value for name, value in settings.items() if name not in unread},
        "format": FORMATS["results"],
    }


def result_address(benchmark: str, checkpoint: str, data: str, plan: Plan, root: str) -> str:
    """Return where the result of a benchmark on a checkpoint lies."""
    decided = result_decided(benchmark, checkpoint, data, plan)
    return storage.address(root, "results", f"{benchmark}-{decided['checkpoint']}", decided)


def finished(uri: str, stage: str) -> str:
    """Return the fingerprint of a finished input, or say that it is the wrong thing."""
    manifest = storage.read_manifest(uri)
    if manifest.stage != stage:
        raise InputError(f"{uri} is an output of stage {manifest.stage!r}; expected an output of stage {stage!r}")
    return manifest.fingerprint


def describe(uri: str) -> str:
    """Return a short Markdown account of a stage's output: where it is and what it counts."""
    if not storage.is_committed(uri):
        return f"`{uri}`\n\nThis part is done; others still work on the whole.\n"
    manifest = storage.read_manifest(uri)
    lines = [f"### {manifest.stage} {manifest.fingerprint}", "", f"`{uri}`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in manifest.counts.items()]
    return "\n".join(lines) + "\n"


def done(uri: str) -> bool:
    """Return whether the output is finished; if not, make sure that it can be written before anything is computed."""
    if not storage.is_committed(uri):
        storage.check_writable(uri)
        return False
    print(f"already there: {uri}", file=sys.stderr)
    return True


def made(uri: str) -> str:
    """Say that an output is finished, and return it."""
    manifest = storage.read_manifest(uri)
    counts = ", ".join(f"{name} {value}" for name, value in list(manifest.counts.items())[:8])
    print(f"made: {uri} ({counts})" if counts else f"made: {uri}", file=sys.stderr)
    for error, count in manifest.info.get("errors", {}).items():
        print(f"  {count} x {error}", file=sys.stderr)
    return uri


def part_done(uri: str) -> str:
    """Say that only this worker's part of an output is there, and return it."""
    print(f"this part is done, other parts are not yet: {uri}", file=sys.stderr)
    return uri
