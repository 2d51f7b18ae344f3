"""One benchmark of one checkpoint, as `previts evaluate` stores it: the only reader and writer of `result.json`.

PreViTS section 4, whose tables compare such numbers. Numbers are stored as they were measured; nothing is rounded.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from previts.errors import InputError
from previts.evals.outcome import ITEMS, ItemScores, Population, unpack
from previts.storage import documents, fences, files, folders

FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """The outcome of one evaluation, or the reason why there is none.

    Attributes:
        row: Name of the row that was evaluated.
        benchmark: Name of the benchmark.
        checkpoint: Fingerprint of the checkpoint.
        status: Whether there are numbers.
        error: The reason of a failure.
        metrics: Numbers by name, in the units of the paper's tables; None for a number that is not defined on the test
            items, such as the precision of detections where there are no objects.
        populations: By name of a number: the test items that it is measured on, and its chance level.
        protocol: How the numbers were measured; JSON types only.
        seconds: Duration of the evaluation.
        figures: Names of the files in the folder `figures`.
        uri: The folder that the result was read from; not stored.
    """

    row: str
    benchmark: str
    checkpoint: str
    status: Literal["ok", "failed"] = "ok"
    error: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    populations: Mapping[str, Population] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    figures: tuple[str, ...] = ()
    uri: str = ""


def write_result(uri: str, result: Result) -> None:
    """Write `result.json` to the folder of a result."""
    fences.check(uri)
    document = defined(dataclasses.asdict(result))
    del document["uri"]
    files.write_json(files.join(uri, FILE), document)


def defined(value: Any) -> Any:
    """Return plain data with None in place of each float that is not finite, which JSON cannot express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: defined(item) for key, item in value.items()}
    return [defined(item) for item in value] if isinstance(value, list | tuple) else value


def read_result(uri: str) -> Result:
    """Return the result in a folder.

    Raises:
        InputError: If `result.json` is missing, damaged or not the file that `evaluate` wrote.
    """
    path = files.join(uri, FILE)
    remedy = "delete the folder and run `previts evaluate` again"
    try:
        data = folders.read_file(uri, FILE)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {remedy}") from None
    found = documents.from_json(Result, documents.parse_json(data, path, remedy), path, remedy)
    return dataclasses.replace(found, uri=uri)


def read_items(result: Result) -> dict[str, ItemScores]:
    """Return the item scores of a result by name of the metric; empty if the benchmark has none.

    Results of earlier versions, and those that were not read from a folder, have none either.

    Raises:
        InputError: If the file is damaged, not the file that `evaluate` wrote, or of another result.
    """
    if not result.uri:  # not read from a folder
        return {}
    path = files.join(result.uri, ITEMS)
    remedy = "delete the folder and run `previts evaluate` again"
    try:
        data = folders.read_file(result.uri, ITEMS)
    except FileNotFoundError:
        if ITEMS in folders.read_manifest(result.uri).files:
            raise InputError(f"{path} is missing; {remedy}") from None
        return {}
    try:
        found = unpack(data)
    except ValueError as error:
        raise InputError(f"{path} {error}; {remedy}") from None
    if unknown := sorted(found.keys() - result.metrics.keys()):
        raise InputError(f"{path} has scores of {unknown[0]}, which {FILE} does not have; {remedy}")
    return found
