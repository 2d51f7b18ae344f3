"""The eight verbs in order of time, each from URIs to a URI: address, done already?, load, call one function, commit.

Python, the command line and the KFP components call these with one signature. A second call of a verb with the same
decisions finds the first one's result and does nothing. Heavy libraries load only where work is left to do.

Fan-out: a worker calls `download`, `saliency` or `track` with `part` of `parts` and takes every parts-th shard; whoever
finishes the last shard commits the whole.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

from previts import fields, paper, storage, workers
from previts.addresses import (
    FORMATS,
    check_fit,
    check_launch,
    check_lineage,
    check_method,
    check_processes,
    check_row,
    check_start,
    checkpoint_address,
    checkpoint_decided,
    done,
    finished,
    made,
    part_done,
    result_address,
    result_decided,
)
from previts.conduct import read_conduct
from previts.errors import InputError
from previts.evals import protocol
from previts.results import Result, write_result


def world(root: str, seed: int = 0) -> str:
    """Make a small synthetic world to try the pipeline on: a crawl of videos and labelled sets in official layouts.

    Args:
        root: Folder or bucket prefix under which every result lies.
        seed: Another seed, another world.

    Returns:
        URI of a folder with `crawl.csv` and `datasets/`.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    decided = {"seed": seed, "format": FORMATS["world"]}
    uri = storage.address(root, "world", "demo", decided)
    if done(uri):
        return uri
    from previts import demo

    counts = demo.make_world(uri, demo.WorldConfig(seed=seed))
    storage.commit(uri, decided, counts=counts)
    return made(uri)


def download(
    crawl: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
    max_failure_fraction: float = 0.5,
) -> str:
    """Fetch the videos of a crawl and store them as normalised videos in shards.

    Args:
        crawl: A CSV or Parquet manifest (video_id, url, start_seconds, end_seconds, label, split), the CSV of VGG-Sound
            or Kinetics as published, or a folder of videos.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as video.max_fps=12.
        part: Number of this worker, from 0.
        parts: Workers that share the work.
        max_failure_fraction: Share of videos that may fail before the stage fails.

    Returns:
        URI of the videos, for `fit_saliency`, `saliency`, `track` and `index`.
    """
    from previts import crawls

    _check_part(part, parts)
    if not 0 <= max_failure_fraction <= 1:
        raise InputError(f"max_failure_fraction must be from 0 to 1, got {max_failure_fraction}")
    config = paper.resolve(None, profile, set).experiment.video
    items = crawls.read_crawl(crawl)
    decided = {"crawl": crawls.crawl_identity(items, crawl), "video": asdict(config), "format": FORMATS["videos"]}
    uri = storage.address(root, "videos", "crawl", decided)
    if done(uri):
        return uri
    from previts import shards

    total = shards.num_shards(len(items), config)

    def settled(shard: int) -> bool:
        """A shard whose failures may pass (a network that was down) is tried again as long as nothing is committed."""
        return shards.is_done(uri, shard) and not any(video.retryable for video in shards.read_shard(uri, shard))

    for shard in range(part, total, parts):
        if not settled(shard):
            shards.build_shard(shards.shard_items(items, shard, config), shard, uri, config)
    if not all(shards.is_done(uri, shard) for shard in range(total)):
        return part_done(uri)
    videos = [video for shard in range(total) for video in shards.read_shard(uri, shard)]
    errors = Counter(video.error for video in videos if video.status != "ok")
    failed = sum(errors.values())
    if failed == len(videos) or failed > max_failure_fraction * len(videos):
        reasons = "\n".join(f"  {count} x {error}" for error, count in errors.most_common(5))
        allowed = ", and nothing is left" if failed == len(videos) else f", more than {max_failure_fraction:g} of them"
        remedy = "" if failed == len(videos) else ", or run again with a larger --max-failure-fraction"
        raise InputError(
            f"{failed} of the {len(videos)} videos of {crawl} failed{allowed}. Most frequent reasons:\n{reasons}\n"
            f"Mend the crawl{remedy}; videos already stored are kept"
        )
    storage.commit(
        uri,
        decided,
        inputs={"crawl": crawl},
        counts={
            "videos": len(videos),
            "ok": len(videos) - failed,
            "failed": failed,
            "shards": total,
            "hours": round(sum(video.num_frames / video.fps for video in videos if video.status == "ok") / 3600, 4),
            "bytes": sum(video.size for video in videos),
        },
        info={"errors": dict(errors.most_common(20))},
    )
    return made(uri)


def fit_saliency(videos: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Make the saliency model of a corpus: Deep-USPS, learned from handcrafted maps of its own frames, without labels.

    A handcrafted prior (saliency.method=rbd, mc, dsr or hs) has nothing to learn: this records which one it is.
    saliency.method=supervised takes the detector at fit.weights. A call that was stopped goes on after its last round.

    Args:
        videos: URI that `download` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as saliency.method=rbd fit.network=drn_d_22.

    Returns:
        URI of the saliency model, for `saliency`.
    """
    experiment = paper.resolve(None, profile, set).experiment
    method, config = experiment.saliency.method, experiment.fit
    decided = {"videos": finished(videos, "videos"), "method": method, "format": FORMATS["saliency_model"]}
    weights = None
    labels = "none: handcrafted maps, random start" if method == "deepusps" else "none: nothing is learned"
    if method in ("deepusps", "supervised") and config.weights:
        from previts.saliency import fit

        weights = fit.read_weights(config.weights)
        labels = weights.labels
        # The kind of the labels too: the same tensors may come with and without their history.
        decided["weights"] = [weights.sha256, labels.partition(":")[0]]
    if method == "deepusps":
        decided["fit"] = {name: value for name, value in asdict(config).items() if name != "weights"}
    if method == "supervised" and not weights:
        raise InputError("saliency.method=supervised needs fit.weights: the URI of weights of torchvision's Mask R-CNN")
    uri = storage.address(root, "saliency_model", method, decided)
    if done(uri):
        return uri
    counts: dict[str, int | float] = {}
    if method == "deepusps":
        from previts.saliency import fit

        counts = fit.fit(videos, config, weights, uri)
    if method == "supervised" and weights:
        from previts.saliency import supervised

        supervised.write_detector(weights, uri)
        labels = f"detector: {weights.labels}"
    inputs = {"videos": videos, **({"weights": config.weights} if weights else {})}
    storage.commit(uri, decided, inputs=inputs, counts=counts, info={"method": method, "labels": labels})
    if method == "deepusps":
        fit.sweep(uri)
    return made(uri)


def saliency(
    videos: str, model: str, root: str, profile: str = "paper", set: Sequence[str] = (), part: int = 0, parts: int = 1
) -> str:
    """Find the salient regions on every k-th frame of each video.

    Args:
        videos: URI that `download` returned.
        model: URI that `fit_saliency` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as saliency.every=5.
        part: Number of this worker, from 0.
        parts: Workers that share the work.

    Returns:
        URI of the masks, for `track`.
    """
    _check_part(part, parts)
    config = paper.resolve(None, profile, set).experiment.saliency
    decided = {
        "videos": finished(videos, "videos"),
        "model": finished(model, "saliency_model"),
        "saliency": asdict(config),
        "format": FORMATS["saliency"],
    }
    check_method(config.method, model)
    uri = storage.address(root, "saliency", config.method, decided)
    if done(uri):
        return uri
    from previts import records, shards, workers
    from previts.saliency import predict

    total = int(storage.read_manifest(videos).counts["shards"])
    with workers.pool(data=uri) as run:

        def work(shard: int) -> None:
            predict.predict_shard(videos, model, shard, config, uri, run)

        if not _fan_out(total, part, parts, lambda shard: predict.is_done(uri, shard), work):
            return part_done(uri)
    keys = sum(records.num_rows(storage.join(uri, shards.table_name(shard))) for shard in range(total))
    counts = {"shards": total, "key_frames": keys}
    storage.commit(uri, decided, inputs={"videos": videos, "model": model}, counts=counts)
    return made(uri)


def track(
    videos: str,
    saliency: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
) -> str:
    """Follow the most salient object of each video: one tube of masks a video.

    Args:
        videos: URI that `download` returned.
        saliency: URI that `saliency` returned; its shards of the same part must be there.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as track.association=mask.
        part: Number of this worker, from 0.
        parts: Workers that share the work.

    Returns:
        URI of the tubes, for `index`.
    """
    _check_part(part, parts)
    config = paper.resolve(None, profile, set).experiment.track
    decided = {
        "videos": finished(videos, "videos"),
        # Not yet committed while other parts still work; its address is its decision.
        "saliency": storage.fingerprint_of(saliency, "saliency"),
        "track": asdict(config),
        "format": FORMATS["tubes"],
    }
    uri = storage.address(root, "tubes", config.association, decided)
    if done(uri):
        return uri
    from previts import tubes, workers

    total = int(storage.read_manifest(videos).counts["shards"])
    with workers.pool(data=uri) as run:

        def work(shard: int) -> None:
            tubes.track_shard(videos, saliency, shard, config, uri, run)

        if not _fan_out(total, part, parts, lambda shard: tubes.is_done(uri, shard), work):
            return part_done(uri)
    found = [tube for shard in range(total) for tube in tubes.read_shard(uri, shard)]
    storage.commit(
        uri,
        decided,
        inputs={"videos": videos, "saliency": saliency},
        counts={"shards": total, "videos": len(found), "tubes": sum(tube.status == "tracked" for tube in found)},
    )
    return made(uri)


def index(videos: str, tubes: str, root: str, profile: str = "paper", set: Sequence[str] = ()) -> str:
    """Join videos and tubes into the table that says which frames may be sampled, and leave out what the filter names.

    Args:
        videos: URI that `download` returned.
        tubes: URI that `track` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as filter.min_agreement=0.3.

    Returns:
        URI of the index, for `pretrain`.
    """
    config = paper.resolve(None, profile, set).experiment.filter
    decided = {
        "videos": finished(videos, "videos"),
        "tubes": finished(tubes, "tubes"),
        "filter": asdict(config),
        "format": FORMATS["index"],
    }
    uri = storage.address(root, "index", "corpus", decided)
    if done(uri):
        return uri
    from previts.index import join_shard, write_index

    total = int(storage.read_manifest(videos).counts["shards"])
    rows = [row for shard in range(total) for row in join_shard(videos, tubes, shard)]
    counts = write_index(uri, rows, config)
    if not counts["videos_with_tube"]:
        print("no video has a tube: only rows without tracking can be pretrained on this index", file=sys.stderr)
    storage.commit(uri, decided, inputs={"videos": videos, "tubes": tubes}, counts=counts)
    return made(uri)


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
    """Pretrain the encoder of one row of the paper's tables on an index; resumes where an earlier call was stopped.

    Environment variables set what changes nothing that is learnt:
    PREVITS_WORKERS (loader processes of each training process; by default as the machine has room for),
    PREVITS_ACCUMULATE (parts in which a process computes its share of a batch, for small memories; 1),
    PREVITS_COMPILE (1: encoders go through torch.compile; 0) and
    PREVITS_CHECKPOINT_SECONDS (a state is saved at least every so many seconds; 600).

    Args:
        row: Name of the row, such as 1/vgg/previts (`previts show` lists them).
        index: URI that `index` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as sampling.min_overlap=0.2.
        launcher: Where the training program runs: local, on this machine, or pytorchjob, on a Kubernetes cluster.
        processes: Training processes, one a GPU; more than one run under torchrun.
        job: Settings of a PyTorchJob, such as spot=true queue=research shm=32Gi (`torchx runopts pytorchjob`).

    Returns:
        URI of the checkpoint, for `evaluate`.
    """
    check_launch(launcher, processes, job)
    plan = paper.resolve(row, profile, set)
    plan.experiment.check_processes(processes)
    check_start(row, plan)
    check_lineage(row, plan, index)
    uri = checkpoint_address(plan, index, root)
    if done(uri):
        return uri
    if (
        plan.experiment.sampling.constraint == "tracking"
        and not storage.read_manifest(index).counts["videos_with_tube"]
    ):
        raise InputError(
            f"no video of {index} has a tube, so there is nothing that row {row} could constrain or attend to; "
            "look at the videos, or pretrain a row without tracking such as 1/vgg/moco"
        )
    conduct = read_conduct(os.environ)
    if (processes > 1 or launcher != "local") and not workers.is_launched():
        arguments = ["--row", row, "--index", index, "--root", root, "--profile", profile, "--set", *set]
        return _launch("pretrain", uri, arguments, launcher, processes, job)
    from previts import checkpoint, distributed, runlog
    from previts.index import read_index
    from previts.pretrain import run_pretraining

    with distributed.process_group() as device:
        run = None
        if distributed.is_main():
            run = runlog.open_run(
                root,
                group=storage.fingerprint_of(index, "index"),
                name=f"{row} ({profile})",
                fingerprint=storage.fingerprint_of(uri, "checkpoints"),
                params={"row": row, "profile": profile, **fields.flatten(asdict(plan.experiment))},
            )
        with runlog.reporting(run):
            summary = run_pretraining(plan.experiment, read_index(index), uri, device=device, run=run, conduct=conduct)
            if distributed.is_main():
                checkpoint.finish(uri, plan.experiment, int(summary["steps"]))
                decided = checkpoint_decided(plan, index)
                storage.commit(
                    uri, decided, inputs={"index": index}, counts=summary, info={"row": row, "profile": profile}
                )
                made(uri)
    return uri


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
    """Measure one checkpoint on one benchmark; what trains resumes where an earlier call was stopped.

    Args:
        row: Name of the row that the checkpoint is of.
        benchmark: voc07, in1k, voc_det, coco, in9, grounding, davis, ucf101, hmdb51, jhmdb or minikinetics.
        checkpoint: URI that `pretrain` returned.
        data: Folder of the labelled sets, each in its authors' layout: voc/, imagenet/, in9/, davis/ and so on.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as evaluation.limit=100.
        processes: Processes, one a GPU, that share a benchmark that trains; more than one run under torchrun.

    Returns:
        URI of the result, for `report`.
    """
    protocol.check([benchmark])
    check_processes(processes)
    plan = paper.resolve(row, profile, set)
    check_fit(row, plan, [benchmark])
    decided = result_decided(benchmark, checkpoint, data, plan)
    check_row(row, plan, checkpoint)
    uri = result_address(benchmark, checkpoint, data, plan, root)
    work = storage.join(uri, "work")
    if done(uri):
        storage.delete_folder(work)  # of a call that was killed after it had finished
        return uri
    if processes > 1 and protocol.BENCHMARKS[benchmark].shared and not workers.is_launched():
        arguments = ["--row", row, "--benchmark", benchmark, "--checkpoint", checkpoint, "--data", data]
        arguments += ["--root", root, "--profile", profile, "--set", *set]
        return _launch("evaluate", uri, arguments, "local", processes)
    from previts import distributed, evals, runlog
    from previts.checkpoint import load_model

    started = time.monotonic()
    classifier = ""
    if benchmark == "jhmdb":
        tuned = result_address("ucf101", checkpoint, data, plan, root)
        classifier = storage.join(tuned, "classifier.pt") if storage.is_committed(tuned) else ""
    with distributed.process_group() as device:
        outcome = evals.evaluate(benchmark, load_model(checkpoint, device), data, plan.evaluation, work, classifier)
        if not distributed.is_main():
            return uri
    for name, figure in outcome.figures.items():
        storage.write_bytes(storage.join(uri, "figures", name), figure)
    for name, file in outcome.files.items():
        storage.write_bytes(storage.join(uri, name), file)
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
    runlog.log_result(root, fingerprint, outcome.metrics)
    storage.commit(uri, decided, inputs={"checkpoint": checkpoint, "data": data}, counts=outcome.metrics)
    storage.delete_folder(work)
    return made(uri)


def report(
    rows: Sequence[str], index: str, results: Sequence[str], root: str, profile: str = "paper", set: Sequence[str] = ()
) -> str:
    """Write the page that compares the rows: numbers beside the paper's, curves, tubes, attention.

    Args:
        rows: Rows or tables to show, such as 1/vgg/previts or 6b.
        index: URI that `index` returned.
        results: URIs that `evaluate` returned.
        root: Folder or bucket prefix under which every result lies.
        profile: Size of the run: paper or demo.
        set: The one-off changes that the rows were pretrained with.

    Returns:
        URI of a folder with report.html, report.md, report.csv and, if there are attention maps, result.png.
    """
    shown = paper.expand(rows)
    if not results:
        raise InputError("no results were given; run `previts evaluate` first and give the URIs that it prints")
    trained = []
    for row in shown:
        plan = paper.resolve(row.name, profile, set)
        check_lineage(row.name, plan, index)
        trained.append(checkpoint_address(plan, index, root))
    decided = {
        "rows": [row.name for row in shown],
        "checkpoints": [[storage.fingerprint_of(uri, "checkpoints"), storage.is_committed(uri)] for uri in trained],
        "results": sorted({finished(result, "results") for result in results}),
        "profile": profile,
        "format": FORMATS["report"],
    }
    uri = storage.address(root, "report", "comparison", decided)
    page = storage.join(storage.absolute(root), "report.html")
    if not done(uri):
        from previts import runlog
        from previts.report import ReportRow, build_report

        lines = [
            ReportRow(
                name=row.name,
                title=row.title,
                checkpoint=uri,
                fingerprint=storage.fingerprint_of(uri, "checkpoints"),
                reported=row.reported,
            )
            for row, uri in zip(shown, trained, strict=True)
        ]
        counts = build_report(list(results), uri, lines, cited=paper.CITED, profile=profile, index=index)
        runlog.log_report(root, group=storage.fingerprint_of(index, "index"), report=uri)
        inputs = {"index": index, **{f"result{number}": result for number, result in enumerate(results)}}
        storage.commit(uri, decided, inputs=inputs, counts=counts)
    storage.write_bytes(page, storage.read_bytes(storage.join(uri, "report.html")))
    print(f"The report is at {page}", file=sys.stderr)
    return uri


def _launch(
    verb: str, uri: str, arguments: Sequence[str], launcher: str, processes: int, job: Sequence[str] = ()
) -> str:
    """Have a verb done by several processes, and return what they made."""
    from previts.launch.app import training_app

    match launcher:
        case "pytorchjob":
            from previts.launch.launcher import run_on_cluster
            from previts.launch.options import read_options

            options = read_options(job)
            nodes, each = options.nodes(processes)
            app = training_app(verb, each, arguments, nodes, gpus=each if options.accelerator else 0, target=uri)
            run_on_cluster(app, options, is_finished=lambda: storage.is_committed(uri))
        case _:
            from previts.launch.local import run_locally

            run_locally(training_app(verb, processes, arguments))
    storage.read_manifest(uri)
    return uri


def _check_part(part: int, parts: int) -> None:
    if parts < 1 or not 0 <= part < parts:
        raise InputError(f"part must be in [0, parts) and parts 1 or more, got {part = }, {parts = }")


def _fan_out(total: int, part: int, parts: int, is_done: Callable[[int], bool], work: Callable[[int], object]) -> bool:
    """Do this worker's shards that are not done, and return whether now all shards of all workers are."""
    for shard in range(part, total, parts):
        if not is_done(shard):
            work(shard)
    return all(is_done(shard) for shard in range(total))
