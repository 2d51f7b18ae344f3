"""What runs left in their roots: finished results, counts, and the numbers of the report."""

import csv
import io
import json
from collections.abc import Collection
from typing import Any

from previts.reporting import metrics
from previts.storage import files, folders

STAGES = ("videos", "saliency_model", "saliency", "tubes", "index", "checkpoints", "results", "report")
# Counts that do not depend on how a CPU rounds. Areas, losses and scores do.
COUNTS = {
    "videos": ("videos", "ok", "failed", "shards"),
    "saliency": ("shards", "key_frames"),
    "tubes": ("shards", "videos", "tubes"),
    "index": ("videos_in", "videos", "leak_sets", "leak_items"),
    "checkpoints": ("videos", "steps", "pairs"),
}
# Columns of report.csv that must be equal. `checkpoint` may differ, since it depends on the bytes of the crawl.
EXACT = ("row", "metric", "unit", "benchmark", "status", "cause", "paper", "items", "chance", "seeds", "source")
# CPUs of two kinds round the last bits differently, and training amplifies that, at most to what another seed changes.
# Seeds differ most on VOC07: by a standard deviation of 4.1 points (docs/results.md), so two of them by 5.8. The limit
# is two of these. It finds an untrained model or a wrong data set. The largest difference is printed; on one machine it
# should be 0. The limit is for the numbers that the paper compares. Others, such as scores at one threshold, vary more.
POINTS = 12.0


def finished(root: str) -> dict[str, bytes]:
    """Return the manifest of each finished result of a root, by its place. It has the id of the run that made it."""
    found = {}
    for stage in STAGES:
        for name in files.names(files.join(root, stage)):
            place = files.join(root, stage, name, folders.MANIFEST)
            if files.exists(place):
                found[f"{stage}/{name}"] = files.read_bytes(place)
    return found


def counts(root: str, rows: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the exact counts of the results of a root; of the checkpoints, only those of some rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for place, data in sorted(finished(root).items()):
        stage, manifest = place.split("/")[0], json.loads(data)
        if stage in COUNTS and manifest["info"].get("row", next(iter(rows))) in rows:
            found.setdefault(stage, []).append({name: manifest["counts"].get(name) for name in COUNTS[stage]})
    return {stage: sorted(items, key=str) for stage, items in found.items()}


def report(root: str) -> list[dict[str, str]]:
    """Return the lines of the only report of a root, after a look at its pages."""
    places = [place for place in finished(root) if place.startswith("report/")]
    assert len(places) == 1, f"{root} should have one report, and has {places}"
    (place,) = places
    page = files.read_bytes(files.join(root, "report.html")).decode()
    lines = list(csv.DictReader(io.StringIO(files.read_bytes(files.join(root, place, "report.csv")).decode())))
    assert lines, f"the report {place} of {root} has no numbers"
    for row in {line["row"] for line in lines}:
        assert row in page, f"the page {root}/report.html does not show row {row}"
    assert files.read_bytes(files.join(root, place, "report.md")).strip(), f"{root}/{place}/report.md is empty"
    return lines


def unequal(found: dict[str, Any], wanted: dict[str, Any], what: str) -> list[str]:
    """Return a line for each key of which two dicts have different values."""
    keys = sorted(found.keys() | wanted.keys())
    return [
        f"{what} of {key}: {found.get(key)}, not {wanted.get(key)}" for key in keys if found.get(key) != wanted.get(key)
    ]


def differences(found: list[dict[str, str]], wanted: list[dict[str, str]]) -> list[str]:
    """Return how the numbers of two reports differ, and print the largest difference of the scores."""
    keyed = [{(line["row"], line["metric"]): line for line in lines} for lines in (found, wanted)]
    wrong = [f"{row} {metric} is in one report only" for row, metric in sorted(keyed[0].keys() ^ keyed[1].keys())]
    largest = (0.0, "the scores are equal")
    for key in sorted(keyed[0].keys() & keyed[1].keys()):
        one, other = keyed[0][key], keyed[1][key]
        name = " ".join(key)
        exact = EXACT if one["value"] and other["value"] else (*EXACT, "value")
        unequal = [column for column in exact if one[column] != other[column]]
        wrong += [f"{name}: {column} is {one[column]!r}, not {other[column]!r}" for column in unequal]
        if "value" in exact:
            continue
        metric = metrics.KNOWN.get(key[1])
        if metric is None or not metric.is_main:
            continue
        apart = abs(float(one["value"]) - float(other["value"])) * (100 if one["unit"] == "fraction" else 1)
        text = f"{name}: {one['value']} and {other['value']} are {apart:.3g} points apart"
        largest = max(largest, (apart, text))
        wrong += [text] if apart > POINTS else []
    equal = sum(keyed[0][key]["value"] == keyed[1].get(key, {}).get("value") for key in keyed[0])
    print(f"{equal} of {len(keyed[0])} numbers are equal; {largest[1]}")
    return wrong
