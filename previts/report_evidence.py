"""What the numbers of a report rest on: attention on labelled frames, and the chain of folders.

Stands for figure 4 of PreViTS. What cannot be read is said in words; nothing is computed anew.
"""

import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from previts import report_pictures as pictures
from previts import storage
from previts.report_inputs import Checkpoint, Result, short
from previts.storage import Manifest, join

FRAMES = 8  # of a strip


ATTENTION_STRIPS, ATTENTION_SEQUENCES = 48, 6  # over all arms; each strip takes about 50 kB of the page


ATTENTION_FIGURE = "attention.npz"


STAGES = ("videos", "saliency_model", "saliency", "tubes", "index", "checkpoints", "results")


@dataclass(frozen=True)
class Scene:
    """One labelled sequence: a strip per arm, with the overlap of attention and object under each frame."""

    name: str
    strips: list[tuple[str, str, list[float | None]]]


@dataclass(frozen=True)
class Attention:
    """Attention of all arms on the same frames; `cause` says why something is not shown."""

    scenes: list[Scene]
    cause: str


@dataclass(frozen=True)
class Source:
    """A finished folder that the report rests on, and the folders it was made of: (name, URI, anchor or "")."""

    anchor: str
    manifest: Manifest
    uri: str
    inputs: list[tuple[str, str, str]]


def read_attention(results: list[Result], checkpoints: list[Checkpoint]) -> Attention:
    """Return the attention of every arm on the same labelled sequences."""
    order = {item.fingerprint: number for number, item in enumerate(checkpoints)}
    mine = [item for item in results if ATTENTION_FIGURE in item.figures and item.checkpoint in order]
    if not mine:
        return Attention([], "No result brings attention maps; they come with the benchmark davis.")
    figures, causes = [], []
    for result in sorted(mine, key=lambda item: order[item.checkpoint]):
        title = checkpoints[order[result.checkpoint]].title
        try:
            figures.append((title, _read_figure(join(result.uri, "figures", ATTENTION_FIGURE))))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            causes.append(f"{title}: the attention maps cannot be read ({type(error).__name__}: {short(error, 120)}).")
    names = list(dict.fromkeys(str(name) for _, figure in figures for name in figure["names"]))
    shown = names[: max(1, min(ATTENTION_SEQUENCES, ATTENTION_STRIPS // max(1, len(figures))))]
    if len(shown) < len(names):
        causes.append(f"{len(shown)} of {len(names)} sequences are shown, to keep the page small.")
    return Attention([_scene(name, figures) for name in shown], " ".join(causes))


def _read_figure(uri: str) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False) as archive:
        return {name: archive[name] for name in ("names", "frames", "cams", "masks", "key_frames", "key_masks")}


def _scene(name: str, figures: list[tuple[str, dict[str, NDArray[Any]]]]) -> Scene:
    strips = []
    for title, figure in figures:
        for number in np.flatnonzero(figure["names"].astype(str) == name)[:1]:
            length = len(figure["frames"][number])
            chosen = np.unique(np.linspace(0, length - 1, min(length, FRAMES)).round().astype(int))
            cams = figure["cams"][number, chosen].astype(np.float32)
            masks = figure["masks"][number, chosen].astype(np.bool_)
            key, key_mask = figure["key_frames"][number], figure["key_masks"][number].astype(np.bool_)
            strip = pictures.attention_strip(key, key_mask, figure["frames"][number, chosen], cams, masks)
            strips.append((title, pictures.data_uri(strip), pictures.grid_ious(cams, masks)))
    return Scene(short(name, 80), strips)


def read_provenance(uris: Iterable[str]) -> list[Source]:
    """Return every finished folder that the given ones rest on, in the order of the stages."""
    found: dict[str, Source] = {}
    waiting = [(uri, storage.read_manifest(uri)) for uri in dict.fromkeys(storage.absolute(uri) for uri in uris)]
    while waiting:
        uri, manifest = waiting.pop()
        if uri in found:
            continue
        inputs = []
        for name, source in manifest.inputs.items():
            origin = _manifest_of(source)
            inputs.append((name, _without_secrets(source), _anchor(origin) if origin else ""))
            waiting += [(source, origin)] if origin else []
        found[uri] = Source(_anchor(manifest), manifest, _without_secrets(uri), inputs)
    return sorted(found.values(), key=lambda item: (_stage_order(item.manifest.stage), item.uri))


def _manifest_of(uri: str) -> Manifest | None:
    """Return the manifest of an input that a stage of ours wrote; a crawl or a data set has none."""
    if uri.startswith(("http://", "https://")):
        return None
    try:
        return storage.read_manifest(uri)
    except (ValueError, OSError):
        return None


def _without_secrets(uri: str) -> str:
    """Return a URI without user, password and query: the page may be passed on."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri).split("?")[0]


def _anchor(manifest: Manifest) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{manifest.stage}-{manifest.fingerprint}")[:80]


def _stage_order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1
