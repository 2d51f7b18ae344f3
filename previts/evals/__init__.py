"""The benchmarks of the paper: one file per family, and one function to run any of them by name.

PreViTS section 4. An evaluation reads a finished model and a labelled dataset. It never changes the model's weights.
"""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from previts.config.benchmarks import BENCHMARKS, check
from previts.config.evaluation import EvaluationConfig
from previts.evals.outcome import Outcome, Population
from previts.storage.files import join, names, read_bytes, write_bytes, write_json

if TYPE_CHECKING:
    from previts.models.moco import MoCo

__all__ = ["BENCHMARKS", "EvaluationConfig", "Outcome", "evaluate"]


def evaluate(
    benchmark: str,
    model: "MoCo",
    datasets_uri: str,
    config: EvaluationConfig,
    folder: str = "",
    classifier_uri: str = "",
) -> Outcome:
    """Run one benchmark on a model, on the device of the model.

    With `config.runs` above 1 the benchmark is repeated with the following seeds. The numbers are then means; the
    protocol has the numbers of every run and the standard deviations.

    Args:
        benchmark: One of `BENCHMARKS`.
        model: From `checkpoint.load_model`; put into eval mode, its weights do not change.
        datasets_uri: Folder of the labelled datasets in their official layouts, named as in `BENCHMARKS`.
        config: Settings of all benchmarks.
        folder: URI for the states from which a stopped evaluation resumes; useless afterwards. "" stores no states.
        classifier_uri: The classifier that ucf101 stored for this model, from which jhmdb starts; "" trains one.

    Raises:
        InputError: If the benchmark is unknown, or a file of its layout is missing or damaged.
    """
    check([benchmark])
    # Imported here and below: the command line needs the names above and must not wait for torch.
    from previts.processes import distributed

    model.eval()
    if config.runs == 1:
        return _once(benchmark, model, datasets_uri, config, folder, classifier_uri)
    outcomes = []
    for number in range(config.runs):
        place = join(folder, f"run-{number}") if folder else ""
        outcome = _stored(place) if folder else None
        if outcome is None:
            mine = replace(config, runs=1, seed=config.seed + number)
            # The stored classifier has the first seed. The other seeds train their own, whatever the root contains.
            outcome = _once(benchmark, model, datasets_uri, mine, place, "" if number else classifier_uri)
            if distributed.is_main() and folder:
                _store(place, outcome)
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
        files=outcomes[0].files,
        populations=outcomes[0].populations,
    )


def _store(place: str, outcome: Outcome) -> None:
    """Store the outcome of one run for a later call; `outcome.json` comes last and marks it as complete."""
    for kind, files in (("figures", outcome.figures), ("files", outcome.files)):
        for name, data in files.items():
            write_bytes(join(place, kind, name), data)
    populations = {name: asdict(population) for name, population in outcome.populations.items()}
    document = {"metrics": outcome.metrics, "protocol": outcome.protocol, "populations": populations}
    write_json(join(place, "outcome.json"), document)


def _stored(place: str) -> Outcome | None:
    """Return the outcome of one run that an earlier call stored, or None."""
    try:
        document: Any = json.loads(read_bytes(join(place, "outcome.json")))
    except FileNotFoundError:
        return None
    figures, files = (
        {name: read_bytes(join(place, kind, name)) for name in names(join(place, kind))}
        for kind in ("figures", "files")
    )
    populations = {name: Population(**item) for name, item in document.get("populations", {}).items()}
    return Outcome(document["metrics"], document["protocol"], figures, files, populations)


def _once(
    benchmark: str, model: "MoCo", datasets_uri: str, config: EvaluationConfig, folder: str, classifier_uri: str
) -> Outcome:
    from previts.evals import davis, grounding, imagenet, voc07
    from previts.evals.actions import recognition
    from previts.evals.backgrounds import image_challenge, video_challenge
    from previts.evals.detection import fine_tuning

    data_uri = join(datasets_uri, BENCHMARKS[benchmark].folders[0])
    match benchmark:
        case "voc07":
            return voc07.voc07(model, data_uri, config)
        case "in1k":
            return imagenet.imagenet(model, data_uri, config, folder)
        case "voc_det":
            return fine_tuning.voc(model, data_uri, config, folder)
        case "coco":
            return fine_tuning.coco(model, data_uri, config, folder)
        case "in9":
            return image_challenge.challenge(model, data_uri, join(datasets_uri, "imagenet"), config, folder)
        case "grounding":
            return grounding.localise(model, data_uri, config)
        case "davis":
            return davis.track(model, data_uri, config)
        case "ucf101":
            return recognition.ucf101(model, data_uri, config, folder)
        case "hmdb51":
            return recognition.hmdb51(model, data_uri, config, folder)
        case "jhmdb":
            ucf101_uri = join(datasets_uri, "ucf101")
            return video_challenge.score_jhmdb(model, data_uri, ucf101_uri, config, folder, classifier_uri)
        case "minikinetics":
            return video_challenge.score_minikinetics(model, data_uri, config, folder)
    raise AssertionError(f"no code for {benchmark}")
