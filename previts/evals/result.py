"""One benchmark of one checkpoint, as `previts evaluate` stores it: the only reader and writer of `result.json`.

PreViTS section 4, whose tables compare such numbers. Numbers are stored as they were measured; nothing is rounded.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from previts.errors import InputError
from previts.evals.outcome import Population
from previts.storage import fences, files

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
        metrics: Numbers by name, in the units of the paper's tables.
        populations: By name of a number: the test items that it is measured on, and its chance level. Results of
            earlier versions have none.
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
    metrics: Mapping[str, float] = field(default_factory=dict)
    populations: Mapping[str, Population] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    figures: tuple[str, ...] = ()
    uri: str = ""


def write_result(uri: str, result: Result) -> None:
    """Write `result.json` to the folder of a result."""
    fences.check(uri)
    document = dataclasses.asdict(result)
    del document["uri"]
    files.write_json(files.join(uri, FILE), document)


def read_result(uri: str) -> Result:
    """Return the result in a folder. Fields that an earlier version did not write keep their defaults.

    Raises:
        InputError: If `result.json` is missing or damaged.
    """
    try:
        document = files.read_json(files.join(uri, FILE))
        populations = {name: Population(**item) for name, item in (document.get("populations") or {}).items()}
        return Result(
            row=str(document.get("row") or ""),
            benchmark=str(document["benchmark"]),
            checkpoint=str(document["checkpoint"]),
            status="ok" if document["status"] == "ok" else "failed",
            error=str(document.get("error") or ""),
            metrics=dict(document.get("metrics") or {}),
            populations=populations,
            protocol=dict(document.get("protocol") or {}),
            seconds=float(document.get("seconds") or 0),
            figures=tuple(str(name) for name in document.get("figures") or ()),
            uri=uri,
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{files.join(uri, FILE)} cannot be read ({type(error).__name__}: {error}); "
            "delete the folder and run `previts evaluate` again"
        ) from None
