"""Where the output of each stage lies, what decides it, and whether it is there.

An address is made of decisions alone, so that every stage, and the report, finds the output of another by asking again.
Nothing is computed here.
"""

import sys
from dataclasses import asdict
from typing import Any

from previts import storage
from previts.errors import InputError
from previts.evals.protocol import CLASS_MAP, FOLDERS
from previts.experiment import Plan

# Raise one of these when what a stage writes, or how, changes: results of the older form are then made anew.
FORMATS = {
    "world": 1,
    "videos": 1,
    "saliency_model": 1,
    "saliency": 1,
    "tubes": 1,
    "index": 1,
    "checkpoints": 1,
    "results": 1,
    "report": 1,
}


def checkpoint_address(plan: Plan, index: str, root: str) -> str:
    """Return where the checkpoint of a plan on an index lies; equal plans share one."""
    experiment = plan.experiment
    arm = "moco" if experiment.sampling.constraint == "none" else "sampling"
    arm = "previts" if experiment.objective.attention_weight else arm
    label = f"{experiment.model.encoder}-{arm}"
    return storage.address(root, "checkpoints", label, checkpoint_decided(plan, index))


def checkpoint_decided(plan: Plan, index: str) -> dict[str, Any]:
    """Return what decides a checkpoint: the corpus, and the part of the experiment that training reads."""
    learned = ("sampling", "augment", "model", "objective", "optim", "seed")
    experiment = {name: value for name, value in asdict(plan.experiment).items() if name in learned}
    return {"index": finished(index, "index"), **experiment, "format": FORMATS["checkpoints"]}


def data_folders(benchmark: str, data: str) -> list[str]:
    """Return the folders of the labelled sets that a benchmark reads.

    Raises:
        InputError: If the benchmark's own folder is not there.
    """
    folder = storage.join(data, FOLDERS[benchmark])
    if not storage.exists(folder):
        raise InputError(
            f"benchmark {benchmark} needs its labelled set at {folder}, and there is nothing; "
            "put it there in its authors' layout, or leave the benchmark out"
        )
    if benchmark == "in9" and storage.exists(storage.join(folder, CLASS_MAP)):
        return [folder, storage.join(data, FOLDERS["in1k"])]
    return [folder]


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
    print(f"made: {uri}", file=sys.stderr)
    return uri


def part_done(uri: str) -> str:
    """Say that only this worker's part of an output is there, and return it."""
    print(f"this part is done, other parts are not yet: {uri}", file=sys.stderr)
    return uri
