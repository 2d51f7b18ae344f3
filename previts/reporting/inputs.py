"""The inputs of a report: results and checkpoints as `evaluate` and `pretrain` stored them.

The data of tables 1, 4, 5 and 6 of PreViTS. Writes nothing. An unusable checkpoint has a cause.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from previts.errors import InputError
from previts.evals.result import Result, read_result
from previts.storage import documents, files, folders
from previts.storage.files import join
from previts.storage.folders import Manifest

_LARGEST = 1e100  # beyond it, sums and squares of numbers are no longer finite
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps, values


@dataclass(frozen=True)
class Seed:
    """One training of an arm: its seed and its checkpoint."""

    seed: int
    checkpoint: str
    fingerprint: str


@dataclass(frozen=True)
class ReportRow:
    """An arm of the paper: its checkpoints, and the paper's numbers for it by metric key.

    `checkpoint` and `fingerprint` are those of the first seed, and `seeds` has all seeds; empty for one seed.
    `withdrawn` has the ids of the videos that were withdrawn after the checkpoint was trained on them. Of several arms
    with one name, `changes` says in which settings they differ. Arms of different `corpus` are not compared.
    """

    name: str
    title: str
    checkpoint: str
    fingerprint: str
    reported: dict[str, float] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
    corpus: str = ""
    changes: str = ""

    @property
    def all_seeds(self) -> tuple[Seed, ...]:
        """Every training of the arm; the number of a single one is 0 if it is not given."""
        return self.seeds or (Seed(0, self.checkpoint, self.fingerprint),)


@dataclass(frozen=True)
class Checkpoint:
    """The output of a pretraining: configuration by dotted field, curves by name; `cause` if it is unusable."""

    uri: str
    fingerprint: str
    title: str
    also: list[str]
    manifest: Manifest | None
    cause: str
    configuration: dict[str, str]
    curves: dict[str, Curve]

    def last(self, name: str) -> float | None:
        """Return the last logged value of a curve."""
        return float(self.curves[name][1][-1]) if name in self.curves else None

    def late(self, name: str) -> float | None:
        """Return the mean of the last tenth of a curve."""
        return (
            float(self.curves[name][1][-max(1, len(self.curves[name][1]) // 10) :].mean())
            if name in self.curves
            else None
        )

    def median(self, name: str) -> float | None:
        """Return the median of a curve."""
        return float(np.median(self.curves[name][1])) if name in self.curves else None


def short(text: object, limit: int = 300) -> str:
    """Return text from data as one line of limited length, without control characters."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(str(text).split())
    )
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def read_results(uris: Sequence[str]) -> list[Result]:
    """Return the results at some URIs, each once.

    Raises:
        InputError: If a URI is not the URI of a result, a result is damaged, or two results have the same checkpoint
            and benchmark.
    """
    found: dict[tuple[str, str], Result] = {}
    for uri in dict.fromkeys(files.absolute(uri) for uri in uris):
        manifest = folders.read_manifest(uri)
        if manifest.stage != "results":
            raise InputError(
                f"{uri} is the output of the stage {manifest.stage!r}; give the URIs that `evaluate` returns"
            )
        result = read_result(uri)
        key = (result.checkpoint, result.benchmark)
        if key in found:
            raise InputError(
                f"two results of {result.benchmark} for checkpoint {result.checkpoint}: {found[key].uri} and {uri}; "
                "they differ in data or protocol; give one of them"
            )
        found[key] = result
    return list(found.values())


def read_checkpoints(rows: Sequence[ReportRow]) -> list[Checkpoint]:
    """Return the checkpoint of each row's first seed, each once, in the order of the rows."""
    shared: dict[str, list[ReportRow]] = {}
    for row in rows:
        shared.setdefault(row.fingerprint, []).append(row)
    found = [_read_checkpoint(fingerprint, sharing) for fingerprint, sharing in shared.items()]
    titles = Counter(item.title for item in found)
    ambiguous = {title for title, count in titles.items() if count > 1}
    named = {item.fingerprint: f"{item.title} ({short(shared[item.fingerprint][0].name, 60)})" for item in found}
    return [replace(item, title=named[item.fingerprint]) if item.title in ambiguous else item for item in found]


def read_causes(rows: Sequence[ReportRow]) -> dict[str, str]:
    """Return by fingerprint, for the checkpoints of all seeds, why a checkpoint is unusable; "" if it is usable."""
    return {item.fingerprint: _cause(item.checkpoint) for row in rows for item in row.all_seeds}


def _cause(uri: str) -> str:
    if uri and folders.is_committed(uri):
        return ""
    place = short(uri, 160) or "(no URI)"
    return f"This arm has no finished checkpoint at {place}: its training has not run, or has not finished."


def _read_checkpoint(fingerprint: str, rows: list[ReportRow]) -> Checkpoint:
    uri, cause = rows[0].checkpoint, _cause(rows[0].checkpoint)
    manifest = None if cause else folders.read_manifest(uri)
    return Checkpoint(
        uri=uri,
        fingerprint=fingerprint,
        title=short(rows[0].title, 80),
        also=[short(title, 80) for title in dict.fromkeys(row.title for row in rows[1:]) if title != rows[0].title],
        manifest=manifest,
        cause=cause,
        configuration=flatten(_read_configuration(uri)) if uri else {},
        curves=_read_log(uri) if uri else {},
    )


def _read_configuration(uri: str) -> Any:
    try:
        data = folders.read_file(uri, "experiment.json")
    except FileNotFoundError:
        return {}
    remedy = "delete the folder and run `previts pretrain` again"
    return documents.parse_json(data, join(uri, "experiment.json"), remedy)


def flatten(value: Any, path: str = "") -> dict[str, str]:
    """Return the fields of a nested configuration as text by dotted name."""
    if isinstance(value, dict):
        parts = [flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, list) and (len(value) > 8 or any(isinstance(item, dict | list) for item in value)):
        return {path: f"a list of {len(value)}"}
    if isinstance(value, list):
        return {path: ", ".join(_plain_number(item) for item in value)}
    return {path: _plain_number(value)}


def _plain_number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else short(value, 80)


def _read_log(uri: str) -> dict[str, Curve]:
    """Return steps and finite values of every logged number; a step that was logged twice counts once."""
    try:
        lines = folders.read_file(uri, "log.jsonl").decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    steps: dict[float, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the incomplete last line of a killed run
            continue
        if isinstance(entry, dict) and is_finite(entry.get("step")):
            steps[float(entry["step"])] = entry
    names = dict.fromkeys(name for entry in steps.values() for name in entry)
    series = {
        name: [(step, float(entry[name])) for step, entry in sorted(steps.items()) if is_finite(entry.get(name))]
        for name in names
    }
    return {
        name: (np.array([step for step, _ in points]), np.array([value for _, value in points]))
        for name, points in series.items()
        if points
    }


def is_finite(value: Any) -> bool:
    """Return whether a value from a document is a number that a curve can show; a whole number may have any size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST
