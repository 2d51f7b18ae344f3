"""The chain behind a result: what it was made from, with which settings, and by which code.

`previts why` prints it. Only manifests, `members.json` and `result.json` are read, each once. An ancestor
that was deleted is part of the chain too: its URI is known, but not what it was made from.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from previts.config import paper
from previts.config.fields import flatten
from previts.corpus import members
from previts.errors import InputError
from previts.storage import files, folders
from previts.storage.fingerprints import plain

# The stages in the order of the chain, each with the sections of the settings that decide its outputs.
SECTIONS: dict[str, tuple[str, ...]] = {
    "report": (),
    "results": ("evaluation",),
    "checkpoints": ("sampling", "augment", "model", "objective", "optim", "seed"),
    "index": ("filter",),
    "tubes": ("track",),
    "saliency": ("saliency",),
    "saliency_model": ("fit",),
    "videos": ("video",),
}
SOURCES = ("crawl", "data", "weights")  # inputs that no stage writes
SHOWN = 5  # outputs of a stage, or items of a list, that the text shows
NUMBERS_SHOWN = 10  # numbers of a result, or of one name in its protocol
_AT_ONCE = 32  # manifests that are read at once


@dataclass(frozen=True)
class Output:
    """An output of a stage, as far as it still exists.

    Attributes:
        uri: The folder.
        stage: The stage that writes it.
        state: finished, unfinished, missing or damaged.
        remark: Why it cannot be read; "" if it is finished.
        manifest: Its manifest; None if it cannot be read.
        members: URIs of the outputs of single crawls that it lists; empty if it is of a single crawl.
    """

    uri: str
    stage: str
    state: str
    remark: str
    manifest: folders.Manifest | None
    members: tuple[str, ...]

    def ancestors(self) -> list[str]:
        """Return the URIs of the outputs that it was made from."""
        inputs = self.manifest.inputs if self.manifest else {}
        return [*(uri for name, uri in inputs.items() if name.rstrip("0123456789") not in SOURCES), *self.members]

    def sources(self) -> dict[str, str]:
        """Return the URIs of what it was made from that no stage wrote, by the name of the input."""
        inputs = self.manifest.inputs if self.manifest else {}
        return {name: uri for name, uri in inputs.items() if name.rstrip("0123456789") in SOURCES}


@dataclass(frozen=True)
class Asked:
    """What the user asked about: a folder, or a file in it and whether it is the one that the stage wrote."""

    folder: str
    file: str = ""
    state: str = ""


def find(uri: str) -> Asked:
    """Return the output that a URI names, or that contains the file at the URI: the nearest folder with a manifest.

    Raises:
        InputError: If there is none.
    """
    uri = files.absolute(uri)
    parts = uri.split("/")
    for number in range(len(parts), 1, -1):
        folder, file = "/".join(parts[:number]), "/".join(parts[number:])
        if folder and not folder.endswith(":/") and files.exists(files.join(folder, folders.MANIFEST)):
            folders.read_manifest(folder)  # the first output must be readable
            if file and not files.exists(uri):
                raise InputError(f"there is no file {file} in {folder}")
            return Asked(folder, file, _state(folder, file) if file else "")
    if found := _copied_report(uri):
        return found
    raise InputError(
        f"neither {uri} nor a folder above it has a {folders.MANIFEST}; give the URI that a verb printed, or a file in "
        "such a folder"
    )


def _copied_report(uri: str) -> Asked | None:
    """Return the report whose page was copied to `ROOT/report.html`, or None."""
    root, name = uri.rsplit("/", 1)
    if name != "report.html" or not files.exists(uri):
        return None
    digest = hashlib.sha256(files.read_bytes(uri)).hexdigest()
    for folder in (files.join(root, "report", found) for found in files.names(files.join(root, "report"))):
        if folders.is_committed(folder) and folders.read_manifest(folder).files.get(name) == digest:
            return Asked(folder, name, f"copied to {uri}")
    return None


def _state(folder: str, file: str) -> str:
    listed = folders.read_manifest(folder).files.get(file)
    if listed is None:
        return "not listed in the manifest, so not checked"
    written = hashlib.sha256(files.read_bytes(files.join(folder, file))).hexdigest() == listed
    return "as the stage wrote it" if written else "CHANGED after the stage wrote it"


def read_chain(uri: str) -> list[Output]:
    """Return an output and all outputs that it was made from, each once, in the order of `SECTIONS`."""
    known: dict[str, Output] = {}
    due = [files.absolute(uri)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while due:
            found = dict(zip(due, pool.map(_read, due), strict=True))
            known |= found
            further = (ancestor for output in found.values() for ancestor in output.ancestors())
            due = list(dict.fromkeys(ancestor for ancestor in further if ancestor not in known))
    order = list(SECTIONS)
    return sorted(known.values(), key=lambda item: order.index(item.stage) if item.stage in order else len(order))


def _read(uri: str) -> Output:
    stage = uri.rsplit("/", 2)[-2] if uri.count("/") > 1 else ""
    try:
        manifest = folders.read_manifest(uri)
        listed = members.uris(uri) if members.MEMBERS in manifest.files else []
        return Output(uri, manifest.stage, "finished", "", manifest, tuple(listed))
    except folders.UnfinishedError:
        if files.exists(uri):
            return Output(uri, stage, "unfinished", f"it has no {folders.MANIFEST}", None, ())
        return Output(uri, stage, "missing", "it was deleted, so what it was made from is not known", None, ())
    except (InputError, OSError) as error:
        return Output(uri, stage, "damaged", str(error), None, ())


def not_the_papers(output: Output, row: str | None = None) -> dict[str, tuple[Any, Any]]:
    """Return the settings of an output that differ from the paper's: by name, the value and that of the paper.

    Args:
        output: The output.
        row: The row whose settings count; by default those of the steps that all rows share.
    """
    plan = plain(paper.resolve(row if row in paper.ROWS else None, "paper", ()))
    expected = {**plan["experiment"], "evaluation": plan["evaluation"]}
    decided = output.manifest.decided if output.manifest else {}
    sections = [name for name in SECTIONS.get(output.stage, ()) if name in decided]
    wanted = flatten({name: expected[name] for name in sections})
    found = flatten({name: decided[name] for name in sections})
    return {name: (value, wanted.get(name)) for name, value in found.items() if value != wanted.get(name)}


def _row(output: Output, known: Mapping[str, Output]) -> str | None:
    """Return the row that an output belongs to, or None if all rows share it or the row is not known."""
    if output.stage == "results" and output.manifest:
        output = known.get(output.manifest.inputs.get("checkpoint", ""), output)
    return str(output.manifest.info.get("row", "")) or None if output.manifest else None


def to_json(asked: Asked, chain: Sequence[Output]) -> str:
    """Return the whole chain as a JSON document."""
    known = {output.uri: output for output in chain}
    outputs = []
    for output in chain:
        manifest = asdict(output.manifest) if output.manifest else {}
        changed = not_the_papers(output, _row(output, known))
        outputs.append(
            {
                "uri": output.uri,
                "stage": output.stage,
                "state": output.state,
                "remark": output.remark,
                "members": list(output.members),
                **{name: value for name, value in manifest.items() if name not in ("stage", "files", "checksum")},
                "not_the_papers": {name: {"value": value, "paper": other} for name, (value, other) in changed.items()},
                **({"protocol": _protocol(output)} if output.stage == "results" else {}),
            }
        )
    return json.dumps({"asked": asdict(asked), "outputs": outputs}, indent=1)


def _protocol(output: Output) -> dict[str, Any]:
    """Return how the numbers of a result were measured, as its benchmark states it."""
    from previts.evals.result import read_result

    try:
        return plain(dict(read_result(output.uri).protocol)) if output.manifest else {}
    except InputError as error:
        return {"error": str(error)}


def describe(asked: Asked, chain: Sequence[Output]) -> str:
    """Return the chain as text: the asked output first, then what it was made from, down to the crawls."""
    known = {output.uri: output for output in chain}
    parts = {member for output in chain for member in output.members}
    lines = [f"{asked.file} of {asked.folder}: {asked.state}", ""] if asked.file else []
    for stage in dict.fromkeys(output.stage for output in chain):
        found = [output for output in chain if output.stage == stage]
        whole = [output for output in found if output.uri not in parts]
        for output in whole[:SHOWN]:
            lines += [f"{stage or 'output'}  {output.uri}", *(f"  {line}" for line in _facts(output, known)), ""]
        lines += _more(len(whole))
        if single := [output for output in found if output.uri in parts]:
            lines += [f"{stage} of single crawls: {len(single)}", *(f"  {line}" for line in _members(single)), ""]
    return "\n".join(lines).rstrip()


def _more(count: int) -> list[str]:
    return [f"... and {count - SHOWN} more; --json lists all", ""] if count > SHOWN else []


def _facts(output: Output, known: Mapping[str, Output]) -> Iterator[str]:
    manifest = output.manifest
    if manifest is None:
        yield f"{output.state.upper()}: {output.remark}"
        return
    match output.stage:
        case "report":
            yield f"rows: {_list(manifest.decided.get('rows', []))}"
        case "results":
            if manifest.info.get("failed"):
                yield f"failed: {manifest.info['failed']}"
            yield f"numbers: {_first(manifest.counts) or 'none'}"
            yield f"benchmark: {manifest.decided.get('benchmark')}"
            yield f"protocol: {', '.join(_measured(_protocol(output)))}"
        case "checkpoints":
            profile = manifest.info.get("profile", "unknown")
            yield f"row: {manifest.info.get('row', 'unknown')}, profile: {profile}"
            if "weights" in manifest.decided:
                yield f"starts from weights with the digest {manifest.decided['weights']}"
        case "saliency_model":
            yield f"method: {manifest.info.get('method')}; labels: {manifest.info.get('labels')}"
            yield f"fitted on: {_crawls_of(known.get(manifest.inputs.get('videos', '')))}"
        case "index" if manifest.decided.get("withdrawn"):
            yield f"without {len(manifest.decided['withdrawn'])} withdrawn videos"
    if output.stage == "videos":
        yield from _crawl(output)
    elif output.stage != "results" and manifest.counts:
        yield f"counts: {_pairs(dict(list(manifest.counts.items())[:8]))}"
    if output.members:
        yield f"lists the outputs of {len(output.members)} crawls"
    for name, uri in output.sources().items():
        if not name.startswith("crawl"):
            yield f"{name}: {uri} (digest {_digest(manifest, name)})"
    changed = not_the_papers(output, _row(output, known))
    if SECTIONS.get(output.stage):
        yield f"settings that are not the paper's: {len(changed) or 'none'}"
    for name, (value, other) in changed.items():
        yield f"  {name} = {_text(value)} (paper: {_text(other)})"
    yield f"made by: {_made_by(manifest)}"


def _digest(manifest: folders.Manifest, name: str) -> str:
    found = manifest.decided.get(name, "unknown")
    return ", ".join(str(item) for item in found) if isinstance(found, list) else str(found)


def _crawl(output: Output) -> Iterator[str]:
    """Yield the crawl of some videos, with its digest and how many of its entries were stored."""
    assert output.manifest is not None
    manifest = output.manifest
    counts = {"rows": manifest.counts.get("videos", 0), **_chosen(manifest.counts, "ok", "failed", "withdrawn")}
    if output.members:
        yield f"crawls: {len(output.members)}; {_pairs(counts)}"
    else:
        digest = manifest.decided.get("crawl", "unknown")
        yield f"crawl: {manifest.inputs.get('crawl', 'unknown')} (digest {digest}); {_pairs(counts)}"
    for uri in (uri for name, uri in manifest.inputs.items() if re.fullmatch(r"earlier\d+", name)):
        yield f"unchanged videos were copied from: {uri}"


def _chosen(counts: Mapping[str, int | float], *names: str) -> dict[str, int | float]:
    return {name: counts[name] for name in names if name in counts}


def _members(outputs: Sequence[Output]) -> Iterator[str]:
    """Yield one line for each of the first outputs of single crawls, and by whom all were made."""
    for output in outputs[:SHOWN]:
        if output.manifest is None:
            yield f"{output.uri}: {output.state.upper()}: {output.remark}"
        elif output.stage == "videos":
            yield f"{output.uri}: {'; '.join(_crawl(output))}"
        else:
            yield f"{output.uri}: {_pairs(output.manifest.counts)}"
    yield from (line for line in _more(len(outputs)) if line)
    lost = Counter(output.state for output in outputs if output.manifest is None)
    yield from (f"{state}: {count}" for state, count in lost.items())
    makers = Counter(_made_by(output.manifest) for output in outputs if output.manifest)
    for maker, count in makers.most_common(SHOWN):
        yield f"{count} made by: {maker}"
    yield from (line for line in _more(len(makers)) if line)


def _crawls_of(videos: Output | None) -> str:
    if videos is None:
        return "unknown videos"
    if videos.members:
        return f"all {len(videos.members)} crawls of {videos.uri}"
    crawl = videos.manifest.inputs.get("crawl", "an unknown crawl") if videos.manifest else f"a {videos.state} output"
    return f"{crawl} ({videos.uri})"


def _made_by(manifest: folders.Manifest) -> str:
    made = manifest.made_by
    known = [f"{name} {made[name]}" for name in ("revision", "image", "run") if made.get(name)]
    return ", ".join([f"previts {manifest.code_version}", *known])


def _list(items: Sequence[Any]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(_text(item) for item in items[:SHOWN]) + more


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _first(values: Mapping[str, Any]) -> str:
    more = len(values) - NUMBERS_SHOWN
    return _pairs(dict(list(values.items())[:NUMBERS_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _measured(protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yield each entry of a protocol as text; of a table, such as a list of sequences, only its number of rows."""
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            yield from filter(None, [_first(flatten({name: value}))])
        elif isinstance(value, list):
            is_table = any(isinstance(item, Mapping | list) for item in value)
            yield f"{name} {len(value) if is_table else _list(value) or 'none'}"
        else:
            yield _pairs({name: value})


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "(empty)" if value == "" else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)[:300]
