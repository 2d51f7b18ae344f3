"""The addresses of checkpoints and results, and the settings and inputs that each address is computed from.

An address depends only on these. A stage or the report can therefore find the output of another stage by computing
its address again. This module writes nothing.
"""

import os
from dataclasses import asdict
from typing import Any

from previts.config.benchmarks import BENCHMARKS, CLASS_MAP
from previts.config.experiment import Plan
from previts.corpus import members
from previts.errors import InputError
from previts.runlog.description import Dataset
from previts.stages.outputs import finished
from previts.storage import files, fingerprints
from previts.storage.folders import address, ancestor, fingerprint_of, identity, read_manifest

SHOWN_NAMES = 3  # crawls in the name of a corpus
# The version of each stage's output. Increase it when the content or the format of the output changes: results of an
# older version are then made again.
FORMATS = {
    "world": 5,
    "crawls": 1,
    "videos": 4,
    "saliency_model": 3,
    "saliency": 3,
    "tubes": 4,
    "held_out": 2,
    "leaks": 2,
    "index": 3,
    "checkpoints": 3,
    "results": 4,
    "report": 6,
}


def checkpoint_address(plan: Plan, index: str, root: str) -> str:
    """Return the address of the checkpoint of a plan on an index; equal plans share one checkpoint."""
    experiment = plan.experiment
    arm = "moco" if experiment.sampling.constraint == "none" else "sampling"
    arm = "previts" if experiment.objective.attention_weight else arm
    arm = "frozen" if experiment.model.frozen else arm
    label = f"{experiment.model.encoder}-{arm}"
    return address(root, "checkpoints", label, checkpoint_decided(plan, index, previous_checkpoint(plan, index, root)))


def checkpoint_decided(plan: Plan, index: str, previous: str = "") -> dict[str, Any]:
    """Return the decisions of a checkpoint: the index, the part of the experiment that training reads, and its start.

    Args:
        plan: The plan.
        index: The index.
        previous: What `previous_checkpoint` returned.
    """
    decided = {"index": finished(index, "index"), **plan.experiment.learned(), "format": FORMATS["checkpoints"]}
    if previous:
        decided["previous"] = finished(previous, "checkpoints")
    if weights := weights_identity(plan):  # of the first generation, if this one continues another
        decided["weights"] = weights
    return decided


def previous_checkpoint(plan: Plan, index: str, root: str) -> str:
    """Return the checkpoint that a training with model.start=previous continues, or "".

    It has the same settings except those of the optimiser, the same first weights, and tubes of the same saliency
    method. It was trained on some of the crawls of the index, but not all, and on no video that the index leaves out as
    withdrawn. Of several, it is the one with the most crawls, then with the most steps.
    """
    if plan.experiment.model.start != "previous" or plan.experiment.model.frozen:
        return ""
    wanted = {name: value for name, value in fingerprints.plain(plan.experiment.learned()).items() if name != "optim"}
    wanted |= {"weights": weights_identity(plan), "format": FORMATS["checkpoints"]}
    tracked = plan.experiment.sampling.constraint == "tracking"
    crawls, method = crawls_of(index), saliency_method(index)
    folder, found = files.join(files.absolute(root), "checkpoints"), []
    for name in files.names(folder):
        uri = files.join(folder, name)
        try:
            manifest = read_manifest(uri)
            if any(manifest.decided.get(key) != value for key, value in wanted.items()):
                continue
            trained = crawls_of(manifest.inputs["index"])
        except (InputError, KeyError):  # unfinished, or what it was made of was deleted
            continue
        same_kind = not tracked or saliency_method(manifest.inputs["index"]) == method
        if trained < crawls and same_kind:  # a proper part
            found.append((len(trained), manifest.counts.get("steps", 0), manifest.fingerprint, uri))
    out = _withdrawn(index) if found else set()
    return next((uri for *_, uri in sorted(found, reverse=True) if not (out and _has_seen(uri, out))), "")


def trained_on(checkpoint: str) -> list[str]:
    """Return the indexes that a checkpoint was trained on: its own, and those of the checkpoints that it continues."""
    indexes = []
    while checkpoint:
        try:
            inputs = read_manifest(checkpoint).inputs
        except InputError:  # deleted
            break
        indexes += [inputs["index"]] if "index" in inputs else []
        checkpoint = inputs.get("previous", "")
    return indexes


def _withdrawn(index: str) -> set[tuple[str, str]]:
    """Return the videos that an index leaves out as withdrawn, with their copies: identity of the crawl, and id.

    They are those of the index and not those of the ledger, so that the address of a checkpoint does not change.
    """
    manifest = read_manifest(index)
    if not manifest.decided.get("withdrawn"):
        return set()
    from previts.corpus.index_table import read_quality

    crawls = [fingerprint_of(uri, "videos") for uri in members.uris(manifest.inputs["videos"])]
    return {(crawls[row.crawl], row.video_id) for row in read_quality(index) if row.reason == "withdrawn"}


def _has_seen(checkpoint: str, videos: set[tuple[str, str]]) -> bool:
    """Return whether a checkpoint was trained on one of some videos; also if that cannot be read."""
    from previts.corpus.index_table import TABLE, IndexRecord
    from previts.storage import tables

    try:
        for index in trained_on(checkpoint):
            crawls = [fingerprint_of(uri, "videos") for uri in members.uris(read_manifest(index).inputs["videos"])]
            table = tables.read_table(files.join(index, TABLE), IndexRecord, ["crawl", "video_id"])
            rows = zip(table.column("crawl").to_pylist(), table.column("video_id").to_pylist(), strict=True)
            if any((crawls[crawl], video_id) in videos for crawl, video_id in rows):
                return True
    except (InputError, KeyError, IndexError):
        return True
    return False


def crawls_of(index: str) -> set[str]:
    """Return the identities of the crawls of an index."""
    return {fingerprint_of(uri, "videos") for uri in members.uris(read_manifest(index).inputs["videos"])}


def videos_of(index: str) -> str:
    """Return the fingerprint of the stored videos of an index, which the arms of one comparison share."""
    return fingerprint_of(read_manifest(index).inputs["videos"], "videos")


def index_dataset(index: str) -> Dataset:
    """Return an index as the dataset that a run of the run log was trained on."""
    manifest = read_manifest(index)
    return Dataset(_title(manifest.inputs["videos"]), manifest.fingerprint, index, manifest.counts)


def _title(videos: str) -> str:
    """Return a readable name of stored videos: the last parts of the URIs of their crawls, and their number."""
    try:
        manifest = read_manifest(videos)
    except InputError:  # deleted
        return fingerprint_of(videos, "videos")
    sources = [source.rstrip("/") for name, source in manifest.inputs.items() if name.startswith("crawl")]
    names = [os.path.splitext(source.rsplit("/", 1)[-1])[0] for source in sources]
    if len(names) > SHOWN_NAMES:
        names[SHOWN_NAMES - 1 :] = [f"{len(names) - SHOWN_NAMES + 1} more"]
    return f"{' + '.join(names)} ({manifest.counts.get('videos', 0):,} videos)"


def saliency_method(index: str) -> str:
    """Return the saliency method behind the tubes of an index; "" if the outputs before it were deleted or edited."""
    try:
        return str(read_manifest(ancestor(index, "tubes", "saliency")).decided["saliency"]["method"])
    except (InputError, KeyError, TypeError):
        return ""


def weights_identity(plan: Plan) -> str | None:
    """Return the identity of the weights that training starts from, or None for random weights.

    Raises:
        InputError: If the weights do not exist.
    """
    if not plan.experiment.model.weights:
        return None
    try:
        return identity(plan.experiment.model.weights)
    except InputError as error:
        raise InputError(f"model.weights: {error}") from None


def data_folders(benchmark: str, data: str) -> list[str]:
    """Return the folders of the labelled datasets that a benchmark reads.

    Raises:
        InputError: If one does not exist.
    """
    folders = [files.join(data, name) for name in BENCHMARKS[benchmark].folders]
    if benchmark == "in9" and files.exists(files.join(folders[0], CLASS_MAP)):
        folders.append(files.join(data, BENCHMARKS["in1k"].folders[0]))
    for folder in folders:
        if not files.exists(folder):
            raise InputError(
                f"benchmark {benchmark} needs a labelled dataset at {folder}, which does not exist; "
                "store the dataset there in its official layout, or leave the benchmark out"
            )
    return folders


def result_decided(benchmark: str, checkpoint: str, data: str, plan: Plan) -> dict[str, Any]:
    """Return the decisions of a result: the checkpoint, the datasets, and the settings that the benchmark reads."""
    settings = asdict(plan.evaluation)
    sections = {name for other in BENCHMARKS.values() for name in other.sections}
    unread = sections.difference(BENCHMARKS[benchmark].sections)
    return {
        "checkpoint": finished(checkpoint, "checkpoints"),
        "benchmark": benchmark,
        "data": [identity(folder) for folder in data_folders(benchmark, data)],
        "evaluation": {name: value for name, value in settings.items() if name not in unread},
        "format": FORMATS["results"],
    }


def result_address(benchmark: str, checkpoint: str, data: str, plan: Plan, root: str) -> str:
    """Return the address of the result of a benchmark on a checkpoint."""
    decided = result_decided(benchmark, checkpoint, data, plan)
    return address(root, "results", f"{benchmark}-{decided['checkpoint']}", decided)
