"""What supports the numbers of a report: attention on labelled frames, detections, and the folders of the numbers.

Figures 4 and 5 of PreViTS. Shows stored files only and recomputes nothing. For an unreadable file it states the cause.
"""

import contextlib
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from previts.evals.result import Result
from previts.media import drawing
from previts.reporting.figures import attention_strip, class_strip, data_uri, grid_ious
from previts.reporting.inputs import Checkpoint, short
from previts.storage import files, folders
from previts.storage.files import join
from previts.storage.folders import Manifest

FRAMES = 8  # of a strip
ATTENTION_STRIPS, ATTENTION_SEQUENCES = 48, 6  # over all arms; each strip takes about 50 kB of the page
ATTENTION_FIGURE = "attention.npz"
ATTENTION_ARRAYS = ("names", "frames", "cams", "masks", "key_frames", "key_masks")
KEYS_FIGURE = "keys.npz"
CLASS_FIGURE = "class_attention.npz"
SHEET_FIGURE, SHEET_WIDTH = "detections.png", 900
RESULT_SEQUENCES, RESULT_COLOURS = 3, 192  # of the image of all arms; the palette keeps it below 150 kB
# The axes of each array; axes with one letter have one length. N items, T frames, 3 colours, others rows and columns.
AXES = {
    **dict.fromkeys(("names", "classes", "predicted"), "N"),
    **{"frames": "NTab3", "cams": "NTcd", "masks": "NTef", "key_frames": "Ngh3", "key_masks": "Nij"},
}
CLASS_ARRAYS = ("names", "classes", "predicted", "frames", "cams")
Figure = dict[str, NDArray[Any]]
STAGES = ("videos", "saliency_model", "saliency", "tubes", "index", "checkpoints", "results")


@dataclass(frozen=True)
class AttentionSequence:
    """One labelled sequence: a strip per arm, with the overlap (IoU) of attention and object for each frame."""

    name: str
    strips: list[tuple[str, str, list[float | None]]]


@dataclass(frozen=True)
class Attention:
    """Attention of all arms on the same frames; `cause` is the reason why something is not shown."""

    sequences: list[AttentionSequence]
    cause: str


@dataclass(frozen=True)
class ClassifiedVideo:
    """One test video and its class: a strip per arm, with the class that the arm's classifier predicts."""

    name: str
    label: str
    strips: list[tuple[str, str, str]]


@dataclass(frozen=True)
class ClassAttention:
    """Class attention of all arms on the same test videos; `cause` is the reason why something is not shown."""

    videos: list[ClassifiedVideo]
    cause: str


@dataclass(frozen=True)
class SourceFolder:
    """A finished folder that the report depends on, with its inputs as (name, URI, anchor or "")."""

    anchor: str
    manifest: Manifest
    uri: str
    inputs: list[tuple[str, str, str]]


def read_attention(results: list[Result], checkpoints: list[Checkpoint]) -> Attention:
    """Return the attention of every arm on the same labelled sequences."""
    attention = _read_sequences(results, checkpoints, ATTENTION_FIGURE)
    if not attention.sequences and not attention.cause:
        return Attention([], "No result has attention maps; the benchmark davis produces them.")
    return attention


def attention_sheet(results: list[Result], checkpoints: list[Checkpoint]) -> bytes:
    """Return a PNG that compares the attention of all arms, or no bytes if no result has attention maps.

    One row per sequence: its object, then one column per arm. It shows the middle frame of the first sequences that all
    arms have. The only text in it is the titles of the arms.
    """
    found, _ = _read_figures(results, checkpoints, ATTENTION_FIGURE, ATTENTION_ARRAYS)
    every = [figure["names"].astype(str).tolist() for _, _, figure in found]
    shared = [name for name in every[0] if all(name in names for names in every)] if every else []
    rows = []
    for name in shared[:RESULT_SEQUENCES]:
        drawn: list[drawing.Array] = []
        for names, (_, _, figure) in zip(every, found, strict=True):
            frames, masks = figure["frames"][names.index(name)], figure["masks"][names.index(name)].astype(np.bool_)
            middle = len(frames) // 2
            cell = drawing.resize(frames[middle])
            drawn = drawn or [drawing.with_tube(cell, masks[middle], "hidden")]
            cam = figure["cams"][names.index(name), middle].astype(np.float32)
            drawn.append(drawing.outline(drawing.heat_over(cell, cam), masks[middle], drawing.WHITE))
        rows.append(("", drawn))
    if not rows:
        return b""
    sheet = drawing.sheet(["object", *(short(title, 40) for title, _, _ in found)], rows)
    image = Image.fromarray(sheet[:, drawing.NAMES_WIDTH + drawing.GAP :])  # rows have no names
    buffer = io.BytesIO()
    image.quantize(RESULT_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def read_keys(results: list[Result], checkpoints: list[Checkpoint]) -> Attention:
    """Return the attention of every arm on the same images with two keys each; empty if that benchmark was not run."""
    return _read_sequences(results, checkpoints, KEYS_FIGURE)


def read_sheets(results: list[Result], checkpoints: list[Checkpoint]) -> list[tuple[str, str, str]]:
    """Return sheets of detections as (benchmark, arm, image); unreadable images are left out."""
    order = {item.fingerprint: number for number, item in enumerate(checkpoints)}
    mine = [item for item in results if SHEET_FIGURE in item.figures and item.checkpoint in order]
    found = []
    for result in sorted(mine, key=lambda item: (item.benchmark, order[item.checkpoint])):
        with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            sheet = Image.open(io.BytesIO(folders.read_file(result.uri, join("figures", SHEET_FIGURE)))).convert("RGB")
            sheet.thumbnail((SHEET_WIDTH, SHEET_WIDTH))
            found.append(
                (
                    result.benchmark,
                    checkpoints[order[result.checkpoint]].title,
                    data_uri(np.asarray(sheet)),
                )
            )
    return found


def _read_sequences(results: list[Result], checkpoints: list[Checkpoint], name: str) -> Attention:
    found, causes = _read_figures(results, checkpoints, name, ATTENTION_ARRAYS)
    if not found:
        return Attention([], " ".join(causes))
    figures = [(title, figure) for title, _, figure in found]
    names, remark = _shown([str(name) for _, figure in figures for name in figure["names"]], len(figures))
    return Attention([_sequence(name, figures) for name in names], " ".join([*causes, *remark]))


def read_class_attention(results: list[Result], checkpoints: list[Checkpoint]) -> ClassAttention:
    """Return the class attention of every arm on the same test videos; empty if no classifier was trained."""
    figures, causes = _read_figures(results, checkpoints, CLASS_FIGURE, CLASS_ARRAYS)
    keys = [f"{benchmark}/{name}" for _, benchmark, figure in figures for name in figure["names"]]
    arms = max(Counter(benchmark for _, benchmark, _ in figures).values(), default=0)
    shown, remark = _shown(keys, arms)
    return ClassAttention([_classified_video(key, figures) for key in shown], " ".join([*causes, *remark]))


def _read_figures(
    results: list[Result], checkpoints: list[Checkpoint], name: str, arrays: tuple[str, ...]
) -> tuple[list[tuple[str, str, Figure]], list[str]]:
    """Return (arm, benchmark, arrays) of all results with a figure, in the order of the arms, and the read errors."""
    order = {item.fingerprint: number for number, item in enumerate(checkpoints)}
    mine = [item for item in results if name in item.figures and item.checkpoint in order]
    found: list[tuple[str, str, Figure]] = []
    causes = []
    for result in sorted(mine, key=lambda item: order[item.checkpoint]):
        title = checkpoints[order[result.checkpoint]].title
        try:
            with np.load(
                io.BytesIO(folders.read_file(result.uri, join("figures", name))), allow_pickle=False
            ) as archive:
                figure = {array: archive[array] for array in arrays}
            _check_arrays(figure)
            found.append((title, result.benchmark, figure))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            causes.append(f"{title}: the attention maps cannot be read ({type(error).__name__}: {short(error, 120)}).")
    return found, causes


def _check_arrays(figure: Figure) -> None:
    """Raise a ValueError if the arrays of a figure have other axes, lengths or types than a benchmark writes."""
    lengths = {"3": 3}
    for name, array in figure.items():
        axes, kinds = AXES[name], "U" if AXES[name] == "N" else "buif"
        fits = array.ndim == len(axes) and array.dtype.kind in kinds
        if not fits or any(
            lengths.setdefault(axis, n) != n or not n for axis, n in zip(axes, array.shape, strict=True)
        ):
            raise ValueError(f"the array {name} has the shape {array.shape} and the type {array.dtype}")


def _shown(names: list[str], arms: int) -> tuple[list[str], list[str]]:
    """Return the distinct names to show, limited by the size of the page, and a remark if some are left out."""
    every = list(dict.fromkeys(names))
    shown = every[: max(1, min(ATTENTION_SEQUENCES, ATTENTION_STRIPS // max(1, arms)))]
    less = len(shown) < len(every)
    return shown, [f"{len(shown)} of {len(every)} sequences are shown, to keep the page small."] if less else []


def _classified_video(key: str, figures: list[tuple[str, str, Figure]]) -> ClassifiedVideo:
    benchmark, name = key.split("/", 1)
    label, strips = "", []
    for title, own, figure in figures:
        for number in np.flatnonzero(figure["names"].astype(str) == name)[:1] if own == benchmark else ():
            label = short(figure["classes"][number], 80)
            strip = class_strip(figure["frames"][number], figure["cams"][number].astype(np.float32))
            strips.append((title, data_uri(strip), short(figure["predicted"][number], 80)))
    return ClassifiedVideo(short(name, 80), label, strips)


def _sequence(name: str, figures: list[tuple[str, Figure]]) -> AttentionSequence:
    strips = []
    for title, figure in figures:
        for number in np.flatnonzero(figure["names"].astype(str) == name)[:1]:
            length = len(figure["frames"][number])
            chosen = np.unique(np.linspace(0, length - 1, min(length, FRAMES)).round().astype(int))
            cams = figure["cams"][number, chosen].astype(np.float32)
            masks = figure["masks"][number, chosen].astype(np.bool_)
            key, key_mask = figure["key_frames"][number], figure["key_masks"][number].astype(np.bool_)
            strip = attention_strip(
                key, key_mask, frames_THWC=figure["frames"][number, chosen], cams_Thw=cams, masks_THW=masks
            )
            strips.append((title, data_uri(strip), grid_ious(cams, masks)))
    return AttentionSequence(short(name, 80), strips)


def read_provenance(uris: Iterable[str]) -> list[SourceFolder]:
    """Return the given finished folders and all folders that they were made from, in the order of the stages."""
    found: dict[str, SourceFolder] = {}
    waiting = [(uri, folders.read_manifest(uri)) for uri in dict.fromkeys(files.absolute(uri) for uri in uris)]
    while waiting:
        uri, manifest = waiting.pop()
        if uri in found:
            continue
        inputs = []
        for name, source in manifest.inputs.items():
            origin = _manifest_of(source)
            inputs.append((name, _without_secrets(source), _anchor(origin) if origin else ""))
            waiting += [(source, origin)] if origin else []
        found[uri] = SourceFolder(_anchor(manifest), manifest, _without_secrets(uri), inputs)
    return sorted(found.values(), key=lambda item: (_stage_order(item.manifest.stage), item.uri))


def _manifest_of(uri: str) -> Manifest | None:
    """Return the manifest of an input that a stage wrote; a crawl or a dataset has none."""
    if uri.startswith(("http://", "https://")):
        return None
    try:
        return folders.read_manifest(uri)
    except (ValueError, OSError):
        return None


def _without_secrets(uri: str) -> str:
    """Return a URI without user, password and query, because the page may be shared; a path stays as it is."""
    if (protocol := files.protocol(uri)) in files.ON_DISK:
        return uri
    uri = re.sub(r"(?<=://)[^/@]*@", "", uri)
    return uri.split("?")[0] if protocol in ("http", "https") else uri


def _anchor(manifest: Manifest) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{manifest.stage}-{manifest.fingerprint}")[:80]


def _stage_order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1
