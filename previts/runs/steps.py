"""The steps of a run. Each calls a verb for every perception, or for a share of the trials or evaluations.

All steps have the parameters of the run, and each computes from them what is its own. So no step passes long lists on,
and the loops are flat: over the parts of the videos, and over shares of the trials and of the evaluations. None is over
crawls, so their number is not limited, and finished ones cost no iteration.

A value for each perception is a dict from its name to a URI, see `trials.py`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple, TypeVar

from previts import stages
from previts.config import paper
from previts.errors import InputError, TemporaryError
from previts.runs import check, ends
from previts.runs.sizes import sizes as step_sizes
from previts.runs.trials import distinct, evaluation_shares, list_trials, perceptions, share
from previts.stages import addresses, subprocess_evaluation
from previts.storage import files, folders

Item = TypeVar("Item")


class Plan(NamedTuple):
    """What `check_run` gives to the other steps: the crawl, the numbers that the loops are over, and `sizes.Sizes`."""

    crawl: str
    parts: list[int]
    trials: list[int]
    evaluations: list[int]
    cpu: str
    data_memory: str
    saliency_memory: str
    training_memory: str
    report_cpu: str
    report_memory: str


def check_run(
    *,
    crawl: str,
    root: str,
    data: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    parts: int,
    launcher: str,
    processes: int,
    job: Sequence[str],
    sizes: Mapping[str, str],
) -> Plan:
    """Check the parameters and inputs of a run before any expensive step, and fix which crawls it is about.

    Raises:
        InputError: If a parameter is invalid, the crawl is broken, or weights or a labelled dataset are missing.
    """
    wanted = step_sizes(profile, sizes)
    loops = check.check_run(
        crawl=crawl,
        data=data,
        rows=rows,
        seeds=seeds,
        benchmarks=benchmarks,
        profile=profile,
        set=set,
        parts=parts,
        launcher=launcher,
        processes=processes,
        job=job,
    )
    return Plan(list_crawls(crawl, root), *loops, **asdict(wanted))


def list_crawls(crawl: str, root: str) -> str:
    """Return the crawl of a run for all its parts: a crawl, or a list of those that a folder has now.

    A crawl that is added while the parts work belongs to the next run.

    Raises:
        InputError: If the folder contains both crawls and videos.
    """
    from previts.ingest import crawls

    found = crawls.list_crawls(files.absolute(crawl))
    return found[0] if len(found) == 1 else crawls.write_list(found, root, addresses.FORMATS["crawls"])


def collect_parts(outputs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Check that all parts of a step wrote the same finished outputs, and return them.

    Raises:
        InputError: If the outputs differ, or one is not finished.
    """
    first = dict(outputs[0])
    if any(dict(other) != first for other in outputs):
        found = sorted({uri for other in outputs for uri in other.values()})
        raise InputError(
            f"the parts of a stage must write one output, got {found}; run the pipeline again with one set of "
            "parameters"
        )
    for uri in first.values():
        folders.read_manifest(uri)
    return first


def fit_saliency(*, videos: str, root: str, rows: Sequence[str], profile: str, set: Sequence[str]) -> dict[str, str]:
    """Fit the saliency model of each perception of a run."""
    names = dict.fromkeys(perceptions(rows, profile, set).values())
    return {name: stages.fit_saliency(videos, root, profile, set, row=name) for name in names}


def saliency(
    *, videos: str, models: Mapping[str, str], root: str, profile: str, set: Sequence[str], part: int, parts: int
) -> dict[str, str]:
    """Find the salient regions of a part of the videos with the model of each perception."""
    return {
        name: stages.saliency(videos, model, root, profile, set, row=name, part=part, parts=parts)
        for name, model in models.items()
    }


def track(
    *, videos: str, regions: Mapping[str, str], root: str, profile: str, set: Sequence[str], part: int, parts: int
) -> dict[str, str]:
    """Track the objects of a part of the videos in the regions of each perception."""
    return {
        name: stages.track(videos, found, root, profile, set, row=name, part=part, parts=parts)
        for name, found in regions.items()
    }


def index(
    *, videos: str, tubes: Sequence[Mapping[str, str]], root: str, profile: str, set: Sequence[str], data: str
) -> dict[str, str]:
    """Make the sampling index of each perception from the tubes that all parts of `track` wrote."""
    found = collect_parts(tubes)
    return {name: stages.index(videos, uri, root, profile, set, data, row=name) for name, uri in found.items()}


def pretrain(
    *,
    indexes: Mapping[str, str],
    root: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    profile: str,
    set: Sequence[str],
    launcher: str,
    processes: int,
    job: Sequence[str],
    part: int,
) -> list[str]:
    """Pretrain a share of the trials of a run, and return their checkpoints.

    Raises:
        InputError: If a trial cannot be trained. The others of the share are trained first.
    """
    return _each(
        share(distinct(list_trials(rows, seeds, profile, set)), part),
        lambda trial: stages.pretrain(
            trial.row.name,
            indexes[trial.perception],
            root,
            profile,
            paper.with_seed(set, trial.seed),
            launcher=launcher,
            processes=processes,
            job=job,
        ),
    )


def evaluate(
    *,
    indexes: Mapping[str, str],
    data: str,
    root: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    benchmarks: Sequence[str],
    profile: str,
    set: Sequence[str],
    processes: int,
    part: int,
) -> list[str]:
    """Run a share of the evaluations of a run, and return their results; a failure is a result too."""
    trials = list_trials(rows, seeds, profile, set)
    evaluations = [
        subprocess_evaluation.Evaluation(
            row=trial.row.name,
            benchmark=benchmark,
            checkpoint=addresses.checkpoint_address(trial.plan, indexes[trial.perception], root),
            data=data,
            root=root,
            profile=profile,
            set=paper.with_seed(set, trial.seed),
            processes=processes,
        )
        for trial, benchmark in evaluation_shares(trials, benchmarks, profile)[part]
    ]
    return subprocess_evaluation.evaluate_in_subprocess(evaluations)


def report(
    *,
    indexes: Mapping[str, str],
    results: Sequence[Sequence[str]],
    root: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    profile: str,
    set: Sequence[str],
) -> str:
    """Write the report of a run from the results of all shares."""
    used = perceptions(rows, profile, set)
    first = next(iter(indexes.values()))
    others = [f"{row}:{indexes[name]}" for row, name in used.items() if indexes[name] != first]
    return stages.report(
        rows=[*used],
        index=[first, *others],
        results=[uri for uris in results for uri in uris],
        root=root,
        profile=profile,
        set=set,
        seeds=seeds,
    )


def _each(items: Sequence[Item], work: Callable[[Item], str]) -> list[str]:
    """Return the output for each item; an error of one does not keep the others from being made."""
    made, failed, kind = list[str](), list[str](), InputError
    for item in items:
        print(item, file=sys.stderr)
        try:
            made.append(work(item))
        except InputError as error:
            if len(items) == 1:
                raise
            failed.append(f"{item}: {error}")
            kind = TemporaryError if isinstance(error, TemporaryError) else kind
    if failed:
        raise kind("\n".join(failed))
    return made


def check_evaluations(report: str, root: str) -> None:
    """Note that the run finished, or raise an InputError if an evaluation that the report shows has failed."""
    inputs = folders.read_manifest(report).inputs
    results = [folders.read_manifest(uri) for name, uri in inputs.items() if name.startswith("result")]
    failed = [
        f"  {result.decided['benchmark']} of {result.inputs['checkpoint']}: {result.info['failed']}"
        for result in results
        if "failed" in result.info
    ]
    if failed:
        lines = "\n".join(failed)
        raise InputError(
            f"{len(failed)} of {len(results)} evaluations failed:\n{lines}\nThe report at {report} shows the others. "
            "Fix the cause and start the same run again: it repeats only the failed evaluations"
        )
    ends.note_finish(root)


def close_run(root: str) -> str:
    """Mark MLflow runs that were interrupted as failed, and return a Markdown summary of how the run ended.

    The steps of the run noted how they ended (`ends.py`); a pod that was lost noted nothing.
    """
    from previts.runlog import run_log

    finished, failures = ends.collect(root)
    lines = [f"### The run {'finished' if finished else 'ended before its last step'}", ""]
    lines += [f"The results{'' if finished else ' so far'} are under `{root}`.", ""]
    lines += [f"- `{end.step.rsplit('/', 1)[-1]}`: {end.reason}" for end in failures]
    if not finished:
        if not failures:
            lines.append(
                "No step noted a failure: the run was stopped, or a pod was lost. Kubeflow's page shows which."
            )
        lines += [
            "",
            "Run the pipeline again with the same parameters. It finds finished work and does not repeat it.",
            f"MLflow runs that were interrupted and are now marked as failed: {run_log.close_runs(root)}.",
        ]
    print("\n".join(lines), file=sys.stderr)
    return "\n".join(lines) + "\n"
