"""The verb `pretrain`, which trains the encoder of one row."""

import os
import sys
from collections.abc import Sequence

from previts.config import paper
from previts.errors import InputError
from previts.launch.start import start
from previts.processes import workers
from previts.processes.conduct import read_conduct
from previts.stages.addresses import (
    checkpoint_address,
    checkpoint_decided,
    crawls_of,
    index_dataset,
    previous_checkpoint,
    videos_of,
)
from previts.stages.checks import check_launch, check_lineage, check_start
from previts.stages.outputs import done, exclusive, made
from previts.storage import folders


@exclusive
def pretrain(
    row: str,
    index: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    launcher: str = "local",
    processes: int = 1,
    job: Sequence[str] = (),
) -> str:
    """Pretrain the encoder of one row of the paper's tables. Run the same command again to resume.

    Environment variables adapt the training to a machine. They do not change its result.

    - PREVITS_WORKERS: loader processes of each training process (default: by cores; 0 without a GPU)
    - PREVITS_ACCUMULATE: parts in which a process computes its share of a batch (default: 1)
    - PREVITS_COMPILE: 1 compiles the encoders with torch.compile (default: 0)
    - PREVITS_CHECKPOINT_SECONDS: longest time between two saved states, in seconds (default: 600)
    - PREVITS_CACHE: folder:size, such as /mnt/disk/cache:200GB, keeps the corpus of a bucket on the local disk

    Args:
        row: Name of the row, such as 1/vgg/previts (`previts show` lists all rows).
        index: URI that `index` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as sampling.min_overlap=0.2.
        launcher: Where pretraining runs: local (this machine) or pytorchjob (a Kubernetes cluster).
        processes: Training processes, one for each GPU. More than one are started with torchrun.
        job: Settings of a PyTorchJob, such as spot=true queue=research (`torchx runopts pytorchjob` lists all).

    Returns:
        URI of the checkpoint, for `evaluate`.
    """
    check_launch(launcher, processes, job)
    plan = paper.resolve(row, profile, set)
    plan.experiment.check_processes(processes)
    check_start(row, plan)
    check_lineage(row, plan, index)
    previous = previous_checkpoint(plan, index, root)
    uri = checkpoint_address(plan, index, root)
    starts = (processes > 1 or launcher != "local") and not workers.is_launched()
    if done(uri, take=not starts):
        return uri
    if plan.experiment.model.start == "previous" and not plan.experiment.model.frozen and not workers.is_launched():
        print(
            f"continues {previous}"
            if previous
            else "model.start=previous: no checkpoint of a part of the crawls was found that can be continued; "
            "training starts from scratch",
            file=sys.stderr,
        )
    if plan.experiment.sampling.constraint == "tracking" and not folders.read_manifest(index).counts.get(
        "videos_with_tube"
    ):
        raise InputError(
            f"no video of {index} has a tube, and row {row} samples frames with tubes only; check some videos with "
            "`previts look`, or pretrain a row without tracking such as 1/vgg/moco"
        )
    conduct = read_conduct(os.environ)
    if starts:
        arguments = ["--row", row, "--index", index, "--root", root, "--profile", profile, "--set", *set]
        return start("pretrain", uri, arguments, launcher=launcher, processes=processes, job=job)
    from previts.corpus.index_table import read_index
    from previts.models.encoders import build_encoder
    from previts.models.moco import metric_names
    from previts.pretraining import checkpoint
    from previts.pretraining.loop import run_pretraining
    from previts.processes import distributed
    from previts.runlog import description, run_log, system_metrics

    fingerprint = folders.fingerprint_of(uri, "checkpoints")
    trial = description.describe_trial(row, profile, set)
    with distributed.process_group() as device:
        run, data = None, index_dataset(index)
        if distributed.is_main():
            run = run_log.open_run(
                root,
                group=videos_of(index),
                corpus=data.name,
                name=trial.name,
                fingerprint=fingerprint,
                params=trial.params,
                tags={**trial.tags, **_corpus(index, previous), "previts.checkpoint": uri},
            )
            run.dataset(data, "training")
            run.note(description.trial_note(row, profile, set, trial.tags, checkpoint=uri, root=root, data=data))
        with run_log.reporting(run):
            with system_metrics.sampled(run, root, fingerprint):
                summary = run_pretraining(
                    plan.experiment, read_index(index), uri, device=device, run=run, conduct=conduct, previous=previous
                )
            if distributed.is_main():
                checkpoint.finish(uri, plan.experiment, int(summary["steps"]))
                if run is not None:
                    model, objective = plan.experiment.model, plan.experiment.objective
                    channels = build_encoder(model.encoder, width=model.width).channels
                    steps = int(summary["steps"])
                    run.model(description.describe_model(trial, plan.experiment, uri, steps, channels))
                    learned = {name: value for name, value in summary.items() if name in metric_names(objective)}
                    run.measured(learned, steps, model=fingerprint, dataset=data)
                decided = checkpoint_decided(plan, index, previous)
                folders.commit(
                    uri,
                    decided,
                    inputs={"index": index, **({"previous": previous} if previous else {})},
                    counts=summary,
                    info={"row": row, "profile": profile},
                    files=checkpoint.written(uri),
                )
                made(uri)
    return uri


def _corpus(index: str, previous: str) -> dict[str, str]:
    """Return the tags of a run that say on which generation of a corpus it is trained, and what it continues."""
    manifest = folders.read_manifest(index)
    found = {"index": manifest.fingerprint, "crawls": len(crawls_of(index))}
    found |= {name: manifest.counts.get(name, 0) for name in ("videos", "hours")}
    if previous:
        found["previous"] = folders.fingerprint_of(previous, "checkpoints")
    return {f"previts.{name}": str(value) for name, value in found.items()}
