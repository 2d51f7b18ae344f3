"""What a report finds: results and checkpoints as `evaluate` and `pretrain` left them.

Stands before tables 1, 4, 5 and 6 of PreViTS. Reads only; a checkpoint that cannot be used says why.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from previts import storage
from previts.errors import InputError
from previts.storage import Manifest, join

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps, values


@dataclass(frozen=True)
class ReportRow:
    """An arm of the paper: its checkpoint, and the numbers that the paper reports for it by metric key."""

    name: str
    title: str
    checkpoint: str
    fingerprint: str
    reported: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One benchmark of one checkpoint, as `previts evaluate` left it."""

    uri: str
    manifest: Manifest
    benchmark: str
    checkpoint: str
    status: str
    error: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    seconds: float
    figures: list[str]


@dataclass(frozen=True)
class Checkpoint:
    """What pretraining left: configuration by dotted field, curves by name; `cause` if it is unusable."""

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
    """Return text that came from data as one bounded line without control characters."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(str(text).split())
    )
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def read_results(uris: Sequence[str]) -> list[Result]:
    """Return the results at some URIs, each once.

    Raises:
        InputError: If a URI is not that of a result, or two results are of the same checkpoint and benchmark.
    """
    found: dict[tuple[str, str], Result] = {}
    for uri in dict.fromkeys(storage.absolute(uri) for uri in uris):
        manifest = storage.read_manifest(uri)
        if manifest.stage != "results":
            raise InputError(f"{uri} is the output of the stage {manifest.stage!r}; a report reads that of `evaluate`")
        try:
            document = storage.read_json(join(uri, "result.json"))
            result = Result(
                uri=uri,
                manifest=manifest,
                benchmark=str(document["benchmark"]),
                checkpoint=str(document["checkpoint"]),
                status=str(document["status"]),
                error=str(document.get("error") or ""),
                metrics=dict(document.get("metrics") or {}),
                protocol=dict(document.get("protocol") or {}),
                seconds=float(document.get("seconds") or 0),
                figures=[str(name) for name in document.get("figures") or []],
            )
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{join(uri, 'result.json')} cannot be read ({type(error).__name__}: {error}); "
                "delete the folder and run `previts evaluate` again"
            ) from None
        key = (result.checkpoint, result.benchmark)
        if key in found:
            raise InputError(
                f"two results of {result.benchmark} for checkpoint {result.checkpoint}: {found[key].uri} and {uri}; "
                "they differ in data or protocol, so give one of them"
            )
        found[key] = result
    return list(found.values())


def read_checkpoints(rows: Sequence[ReportRow]) -> list[Checkpoint]:
    """Return each checkpoint once, in the order of the rows that share it."""
    shared: dict[str, list[ReportRow]] = {}
    for row in rows:
        shared.setdefault(row.fingerprint, []).append(row)
    found = [_read_checkpoint(fingerprint, sharing) for fingerprint, sharing in shared.items()]
    titles = Counter(item.title for item in found)
    ambiguous = {title for title, count in titles.items() if count > 1}
    named = {item.fingerprint: f"{item.title} ({short(shared[item.fingerprint][0].name, 60)})" for item in found}
    return [replace(item, title=named[item.fingerprint]) if item.title in ambiguous else item for item in found]


def _read_checkpoint(fingerprint: str, rows: list[ReportRow]) -> Checkpoint:
    uri, manifest, cause = rows[0].checkpoint, None, ""
    if uri and storage.is_committed(uri):
        manifest = storage.read_manifest(uri)
    else:
        cause = f"Pretraining of this arm did not finish: no finished checkpoint at {short(uri, 160) or '(no URI)'}."
    return Checkpoint(
        uri=uri,
        fingerprint=fingerprint,
        title=short(rows[0].title, 80),
        also=[short(title, 80) for title in dict.fromkeys(row.title for row in rows[1:]) if title != rows[0].title],
        manifest=manifest,
        cause=cause,
        configuration=flatten(_read_optional(join(uri, "experiment.json")) if uri else {}),
        curves=_read_log(join(uri, "log.jsonl")) if uri else {},
    )


def _read_optional(uri: str) -> Any:
    try:
        return storage.read_json(uri)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def flatten(value: Any, path: str = "") -> dict[str, str]:
    """Return a tree of configuration as text by dotted field."""
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
    """Return steps and finite values of every logged number; a step logged again after a restart counts once."""
    try:
        lines = storage.read_bytes(uri).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    steps: dict[float, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
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
    """Whether a value from a document is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
