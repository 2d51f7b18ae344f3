"""The verb `evaluate`, which runs one benchmark on one checkpoint."""

import math
import time
from collections.abc import Sequence

from previts.config import benchmarks, paper
from previts.launch.start import start
from previts.processes import workers
from previts.stages.addresses import result_address, result_decided
from previts.stages.checks import check_fit, check_processes, check_row
from previts.stages.outputs import done, exclusive, made
from previts.storage import files, folders


@exclusive
def evaluate(
    row: str,
    benchmark: str,
    checkpoint: str,
    data: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    processes: int = 1,
) -> str:
    """Evaluate one checkpoint on one benchmark. Run the same command again to resume.

    Args:
        row: Name of the row that the checkpoint was pretrained for, such as 1/vgg/previts.
        benchmark: voc07, in1k, voc_det, coco, in9, grounding, davis, ucf101, hmdb51, jhmdb or minikinetics.
        checkpoint: URI that `pretrain` returned.
        data: Folder of the labelled datasets, each in its official layout: voc/, imagenet/, in9/, davis/ and so on.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as evaluation.limit=100.
        processes: Processes of a benchmark that trains (in1k, voc_det, coco, ...), one for each GPU. More than one are
            started with torchrun.

    Returns:
        URI of the result, for `report`.
    """
    benchmarks.check([benchmark])
    check_processes(processes)
    plan = paper.resolve(row, profile, set)
    check_fit(row, plan, [benchmark])
    decided = result_decided(benchmark, checkpoint, data, plan)
    check_row(row, plan, checkpoint)
    uri = result_address(benchmark, checkpoint, data, plan, root)
    work = files.join(uri, "work")
    starts = processes > 1 and benchmarks.BENCHMARKS[benchmark].shared and not workers.is_launched()
    if done(uri, take=not starts):
        files.delete_folder(work)  # left by a call that was killed after its commit
        return uri
    if starts:
        arguments = ["--row", row, "--benchmark", benchmark, "--checkpoint", checkpoint, "--data", data]
        arguments += ["--root", root, "--profile", profile, "--set", *set]
        return start("evaluate", uri, arguments, launcher="local", processes=processes)
    from previts.evals import run
    from previts.evals.result import FILE, Result, write_result
    from previts.pretraining.checkpoint import load_model
    from previts.processes import distributed
    from previts.runlog import run_log
    from previts.runlog.description import Dataset

    started = time.monotonic()
    classifier = ""
    if benchmark == "jhmdb":
        tuned = result_address("ucf101", checkpoint, data, plan, root)
        classifier = files.join(tuned, "classifier.pt") if folders.is_committed(tuned) else ""
    with distributed.process_group() as device:
        outcome = run.evaluate(
            benchmark, load_model(checkpoint, device), data, plan.evaluation, folder=work, classifier_uri=classifier
        )
        if not distributed.is_main():
            return uri
    for name, figure in outcome.figures.items():
        files.write_bytes(files.join(uri, "figures", name), figure)
    for name, file in outcome.files.items():
        files.write_bytes(files.join(uri, name), file)
    fingerprint = decided["checkpoint"]
    result = Result(
        row=row,
        benchmark=benchmark,
        checkpoint=fingerprint,
        metrics=outcome.metrics,
        populations=outcome.populations,
        protocol=outcome.protocol,
        seconds=round(time.monotonic() - started, 1),
        figures=tuple(sorted(outcome.figures)),
    )
    write_result(uri, result)
    measured = {name: value for name, value in outcome.metrics.items() if math.isfinite(value)}
    name, *_ = benchmarks.BENCHMARKS[benchmark].folders
    items = {population.unit: population.items for population in outcome.populations.values()}
    digest = "-".join(dict.fromkeys(decided["data"]))
    run_log.log_result(root, fingerprint, measured, Dataset(name, digest[:36], files.join(data, name), items))
    written = [FILE, *outcome.files, *(files.join("figures", name) for name in outcome.figures)]
    inputs = {"checkpoint": checkpoint, "data": data}
    folders.commit(uri, decided, inputs=inputs, counts=measured, files=written)
    files.delete_folder(work)
    return made(uri)
