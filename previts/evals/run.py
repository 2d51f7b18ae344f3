"""One benchmark of the paper on one model, run by name and repeated with several seeds if the settings say so.

PreViTS section 4. An evaluation reads a finished model and a labelled dataset. It never changes the model's weights.
The modules of the benchmarks are imported on demand, so that importing this one loads neither torch nor scikit-learn.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from previts.config.benchmarks import BENCHMARKS, check
from previts.config.evaluation import EvaluationConfig
from previts.evals.outcome import ITEMS, Outcome, Population, mean_of_runs, pack, unpack
from previts.evals.result import defined
from previts.storage import documents
from previts.storage.files import join, names, read_bytes, write_bytes, write_json

if TYPE_CHECKING:
    from previts.models.moco import MoCo


def evaluate(
    benchmark: str,
    model: "MoCo",
    datasets_uri: str,
    config: EvaluationConfig,
    *,
    folder: str = "",
    classifier_uri: str = "",
) -> Outcome:
    """Run one benchmark on a model, on the device of the model.

    With `config.runs` above 1 the benchmark is repeated with the following seeds. The numbers are then means. The
    protocol has the numbers of every repetition and the standard deviations.

    Args:
        benchmark: One of `BENCHMARKS`.
        model: From `checkpoint.load_model`; put into eval mode, its weights do not change.
        datasets_uri: Folder of the labelled datasets in their official layouts, named as in `BENCHMARKS`.
        config: Settings of all benchmarks.
        folder: URI for the states from which a stopped evaluation resumes. Delete it afterwards. "" stores no states.
        classifier_uri: The classifier that ucf101 stored for this model, from which jhmdb starts; "" trains one.

    Raises:
        InputError: If the benchmark is unknown, or a file of its layout is missing or damaged.
    """
    check([benchmark])
    from previts.processes import distributed

    model.eval()
    if config.runs == 1:
        return _once(benchmark, model, datasets_uri, config, folder=folder, classifier_uri=classifier_uri)
    outcomes = []
    for number in range(config.runs):
        uri = join(folder, f"run-{number}") if folder else ""
        outcome = _stored(uri) if folder else None
        if outcome is None:
            mine = replace(config, runs=1, seed=config.seed + number)
            # The stored classifier has the first seed. The other seeds train their own.
            classifier = "" if number else classifier_uri
            outcome = _once(benchmark, model, datasets_uri, mine, folder=uri, classifier_uri=classifier)
            if distributed.is_main() and folder:
                _store(uri, outcome)
        outcomes.append(outcome)
    numbers = {name: [outcome.metrics[name] for outcome in outcomes] for name in outcomes[0].metrics}
    return Outcome(
        metrics={name: float(np.mean(values)) for name, values in numbers.items()},
        protocol={
            **outcomes[0].protocol,
            "runs": config.runs,
            "standard_deviation": {name: float(np.std(values, ddof=1)) for name, values in numbers.items()},
            "by_run": numbers,
        },
        figures=outcomes[0].figures,
        files=outcomes[0].files | _mean_items(outcomes),
        populations=outcomes[0].populations,
    )


def _mean_items(outcomes: list[Outcome]) -> dict[str, bytes]:
    """Return the file with the item scores of means over repetitions; empty if a repetition has none."""
    found = [outcome.files[ITEMS] for outcome in outcomes if ITEMS in outcome.files]
    return {ITEMS: pack(mean_of_runs([unpack(data) for data in found]))} if len(found) == len(outcomes) else {}


@dataclass(frozen=True)
class _Repetition:
    metrics: dict[str, float | None]
    protocol: dict[str, Any]
    populations: dict[str, Population]


def _store(uri: str, outcome: Outcome) -> None:
    """Store the outcome of one repetition for a later call; `outcome.json` is written last and marks it as complete."""
    for kind, files in (("figures", outcome.figures), ("files", outcome.files)):
        for name, data in files.items():
            write_bytes(join(uri, kind, name), data)
    document = asdict(_Repetition({**outcome.metrics}, outcome.protocol, outcome.populations))
    write_json(join(uri, "outcome.json"), defined(document))


def _stored(uri: str) -> Outcome | None:
    """Return the outcome of one repetition that an earlier call stored, or None."""
    path, again = join(uri, "outcome.json"), "delete its folder and run the same command again"
    try:
        parsed = documents.parse_json(read_bytes(path), path, again)
    except FileNotFoundError:
        return None
    document = documents.from_json(_Repetition, parsed, path, again)
    figures, files = (
        {name: read_bytes(join(uri, kind, name)) for name in names(join(uri, kind))} for kind in ("figures", "files")
    )
    metrics = {name: math.nan if value is None else value for name, value in document.metrics.items()}
    return Outcome(metrics, document.protocol, figures, files, document.populations)


def _once(
    benchmark: str, model: "MoCo", datasets_uri: str, config: EvaluationConfig, *, folder: str, classifier_uri: str
) -> Outcome:
    from previts.evals import grounding, imagenet, voc07
    from previts.evals.actions import recognition
    from previts.evals.backgrounds import image_challenge, video_challenge
    from previts.evals.davis import attention_tracking
    from previts.evals.detection import benchmarks

    data_uri = join(datasets_uri, BENCHMARKS[benchmark].folders[0])
    match benchmark:
        case "voc07":
            return voc07.voc07(model, data_uri, config)
        case "in1k":
            return imagenet.imagenet(model, data_uri, config, folder)
        case "voc_det":
            return benchmarks.voc(model, data_uri, config, folder)
        case "coco":
            return benchmarks.coco(model, data_uri, config, folder)
        case "in9":
            return image_challenge.challenge(
                model, data_uri, imagenet_uri=join(datasets_uri, "imagenet"), config=config, folder=folder
            )
        case "grounding":
            return grounding.localise(model, data_uri, config)
        case "davis":
            return attention_tracking.track(model, data_uri, config)
        case "ucf101":
            return recognition.ucf101(model, data_uri, config, folder)
        case "hmdb51":
            return recognition.hmdb51(model, data_uri, config, folder)
        case "jhmdb":
            return video_challenge.score_jhmdb(
                model,
                data_uri,
                ucf101_uri=join(datasets_uri, "ucf101"),
                config=config,
                folder=folder,
                classifier_uri=classifier_uri,
            )
        case "minikinetics":
            return video_challenge.score_minikinetics(model, data_uri, config, folder)
    raise AssertionError(f"no code for {benchmark}")
