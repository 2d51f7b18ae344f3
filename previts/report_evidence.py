"""What the numbers of a report rest on: attention on labelled frames, the corpus with its tubes, the chain of folders.

Stands for figures 1 and 4 of PreViTS. What cannot be read is said in words; nothing is computed anew.
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
from previts import shards, storage, tubes
from previts.errors import InputError
from previts.index import Index, IndexRecord, read_index
from previts.report_inputs import Checkpoint, Result, short
from previts.storage import Manifest, join
from previts.video import VideoError

FRAMES = 8  # of a strip


TUBE_STRIPS, CORPORA_WITH_STRIPS = 8, 3


ATTENTION_STRIPS, ATTENTION_SEQUENCES = 48, 6  # over all arms; each strip takes about 50 kB of the page


FAILURE_REASONS = 6


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
class TubeStrip:
    """Frames of one video with its tube; `timeline` holds (start, length) of its spans in percent of the video."""

    video_id: str
    why: str
    seconds: float
    visible_seconds: float
    timeline: list[tuple[float, float]]
    image: str
    cause: str


@dataclass(frozen=True)
class Corpus:
    """What became of a crawl: `steps` are (what, number, share in percent of the step it is compared with, remark)."""

    uri: str
    fingerprint: str
    cause: str
    steps: list[tuple[str, str, float, str]]
    failures: list[tuple[int, str]]
    strips: list[TubeStrip]


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


def read_corpus(uri: str, number: int) -> Corpus:
    """Return the account of one corpus, and for the first few strips of its videos."""
    try:
        index = read_index(uri)
        videos = storage.read_manifest(index.videos_uri)
    except InputError as error:
        return Corpus(uri, "", f"The corpus cannot be read: {short(error)}", [], [], [])
    strips = TUBE_STRIPS if number == 0 else TUBE_STRIPS // 2 if number < CORPORA_WITH_STRIPS else 0
    errors = videos.info.get("errors") or {}
    ranked = sorted(((int(count), short(reason, 200)) for reason, count in errors.items()), key=lambda item: -item[0])
    return Corpus(
        uri=uri,
        fingerprint=storage.read_manifest(uri).fingerprint,
        cause="",
        steps=_funnel(index, videos),
        failures=ranked[:FAILURE_REASONS],
        strips=[_tube_strip(index, index[place], why) for place, why in _choose(index, strips)],
    )


def _funnel(index: Index, videos: Manifest) -> list[tuple[str, str, float, str]]:
    frames, fps, tracked = (index.table.column(name).to_numpy() for name in ("num_frames", "fps", "tracked_frames"))
    spans = sum(len(item) for item in index.table.column("spans").to_pylist())
    crawled = int(videos.counts.get("videos", len(index)))
    failed = int(videos.counts.get("failed", crawled - len(index)))
    with_tube = int((tracked > 0).sum())
    seconds, visible = float((frames / fps).sum()), float((tracked / fps).sum())
    lost = "" if crawled == len(index) + failed else f"; {crawled - len(index) - failed} are unaccounted for"
    return [
        ("Videos in the crawl", f"{crawled:,}", 100.0, ""),
        ("Usable videos", f"{len(index):,}", _share(len(index), crawled), f"{failed:,} failed{lost}"),
        ("Videos with a tube", f"{with_tube:,}", _share(with_tube, crawled), f"{len(index) - with_tube:,} without"),
        ("Length of the usable videos", _duration(seconds), 100.0, f"{seconds / max(1, len(index)):.1f} s each"),
        (
            "Time in which the object is visible", _duration(visible), _share(visible, seconds),
            f"in {spans:,} spans, {visible / max(1, spans):.1f} s each",
        ),
    ]  # fmt: skip


def _share(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"


def _choose(index: Index, count: int) -> list[tuple[int, str]]:
    """Return places in the index and why they are shown: the extremes, then videos spread evenly over the corpus."""
    share = index.table.column("tracked_frames").to_numpy() / index.table.column("num_frames").to_numpy()
    ranked = sorted(np.flatnonzero(share > 0).tolist(), key=lambda place: (-share[place], place))
    chosen: dict[int, str] = {}
    if ranked and count:
        chosen = {ranked[0]: "visible longest"}
        chosen.setdefault(ranked[len(ranked) // 2], "median")
        chosen.setdefault(ranked[-1], "visible shortest")
    chosen.update({place: "no object found" for place in np.flatnonzero(share == 0).tolist()[: int(count > 0)]})
    rest = [place for place in sorted(ranked) if place not in chosen]
    spread = np.linspace(0, len(rest) - 1, min(len(rest), max(0, count - len(chosen)))).round().astype(int)
    return list((chosen | {rest[place]: "spread evenly over the corpus" for place in spread}).items())


def _tube_strip(index: Index, record: IndexRecord, why: str) -> TubeStrip:
    # Each frame stands for an eighth of the video, so that the timeline below the strip lines up with it.
    frames = [int((number + 0.5) / FRAMES * record.num_frames) for number in range(FRAMES)]
    image, cause = "", ""
    try:
        pixels = shards.read_frames(index.videos_uri, record, frames)
        tube = tubes.read_tube(index.tubes_uri, record.shard, record.tube_offset, record.tube_size)
        image = pictures.data_uri(pictures.tube_strip(pixels, tube.masks(frames)))
    except (ValueError, OSError, VideoError) as error:
        cause = f"This strip cannot be drawn: {short(error)}"
    return TubeStrip(
        video_id=short(record.video_id, 80),
        why=why,
        seconds=record.num_frames / record.fps,
        visible_seconds=record.tracked_frames / record.fps,
        timeline=[
            (_share(start, record.num_frames), _share(stop - start, record.num_frames)) for start, stop in record.spans
        ],
        image=image,
        cause=cause,
    )


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
