"""Mini-Kinetics with boxes of persons: its layout, and its videos with the persons blacked out.

PreViTS appendix A. The dataset is a list of Kinetics videos (Choi et al. 2019, "Why Can't I Dance in the Mall?"). The
boxes come from a person detector. Neither has a standard layout, so this one has Kinetics' own lists, a folder for each
class, and a table of boxes for each video:

    train.csv, val.csv           Kinetics' lists: columns label, youtube_id and any others
    videos/<label>/<id>.mp4      the ten seconds of the list
    boxes/<label>/<id>.csv       columns frame, x0, y0, x1, y1: a line for each box, any number per frame, none where
                                 the detector found nobody. Frames count from 0 in display order, those that an edit
                                 list hides not included. Boxes are in pixels of the displayed frame (upright, with
                                 square pixels, as high as stored before a turn), right and bottom exclusive.

Videos of Kinetics disappear over time; missing videos of a list are left out and counted. Trains and scores nothing.

Shape suffixes: T frames, H W pixels, C colour channels (RGB).
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from previts.errors import InputError
from previts.evals.actions import video_sets
from previts.media.variants import Pixels
from previts.media.video_reader import Footage
from previts.processes import prefetch
from previts.processes.progress import progress
from previts.storage import documents, files

VARIANTS = ("original", "no_fg")
_BOX = ("frame", "x0", "y0", "x1", "y1")
Boxes = dict[int, list[tuple[float, float, float, float]]]  # xyxy in pixels, by number of the frame


@dataclass(frozen=True)
class Kinetics:
    """The existing videos of one list, and the number of missing ones."""

    videos: video_sets.LabelledClips
    missing: int


def read_minikinetics(uri: str) -> tuple[Kinetics, Kinetics]:
    """Return the videos of `train.csv` and of `val.csv`; the classes are those of the first, sorted.

    Raises:
        InputError: If a list is missing, a line is invalid, a class is not in the first list, or no video of a list
            exists.
    """
    listed = {split: _read_list(files.join(uri, f"{split}.csv")) for split in ("train", "val")}
    classes = tuple(sorted({label for label, _ in listed["train"]}))
    if unknown := sorted({label for label, _ in listed["val"]} - set(classes)):
        raise InputError(f"{files.join(uri, 'val.csv')} has the class {unknown[0]!r}, which train.csv does not have")
    if both := sorted(set(listed["train"]) & set(listed["val"])):
        raise InputError(f"{uri}: {both[0]} is in train.csv and in val.csv; each video may be in one list")
    existing = _below(files.join(uri, "videos"))
    train, val = (_present(uri, split, pairs, classes=classes, existing=existing) for split, pairs in listed.items())
    return train, val


def _below(uri: str) -> set[str]:
    fs, path = files.open_fs(uri)
    root = path.rstrip("/") + "/"
    return {name.removeprefix(root) for name in fs.find(path)}


def _read_list(uri: str) -> list[tuple[str, str]]:
    """Return (label, id) of each line."""
    rows = _rows(uri, ("label", "youtube_id"))
    pairs = [(row["label"].strip(), row["youtube_id"].strip()) for _, row in rows]
    for (place, _), pair in zip(rows, pairs, strict=True):
        if not all(pair) or "/" in "".join(pair):
            raise InputError(f"{place}: label and youtube_id must be the names of a folder and a file, got {pair}")
    if len(set(pairs)) < len(pairs):
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        raise InputError(f"{uri} lists {twice} more than once; each video of a class may be listed once")
    return pairs


def _rows(uri: str, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the position and the fields of each line of a table with those columns."""
    try:
        text = files.read_regular(uri).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; expected a table with the columns {', '.join(columns)}") from None
    # A quote that is not closed hides all lines after it, and a comma without quotes moves the fields of its line.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    header: list[str] = []
    try:
        for fields in reader:
            if not header:
                header = fields
                if lacking := [column for column in columns if header.count(column) != 1]:
                    raise InputError(
                        f"{uri} has {'no' if lacking[0] not in header else 'more than one'} column {lacking[0]!r}; "
                        f"expected {', '.join(columns)} in its first line"
                    )
            elif fields and len(fields) != len(header):
                raise InputError(
                    f"{uri}, line {reader.line_num}: {len(fields)} fields, but the first line has {len(header)}; put "
                    "quotes around fields with commas"
                )
            elif fields:
                rows.append((f"{uri}, line {reader.line_num}", dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise InputError(f"{uri}, line {reader.line_num}: {error}; put quotes around fields with quotes") from None
    if not header:
        raise InputError(f"{uri} is empty; expected {', '.join(columns)} in its first line")
    return rows


def _present(
    uri: str, split: str, pairs: list[tuple[str, str]], *, classes: tuple[str, ...], existing: set[str]
) -> Kinetics:
    found = [(label, name) for label, name in pairs if f"{label}/{name}.mp4" in existing]
    if not found:
        raise InputError(
            f"none of the {len(pairs)} videos of {files.join(uri, f'{split}.csv')} exists; expected "
            f"{files.join(uri, 'videos', '<label>', '<youtube_id>.mp4')}"
        )
    uris = tuple(files.join(uri, "videos", label, f"{name}.mp4") for label, name in found)
    labels = tuple(classes.index(label) for label, _ in found)
    return Kinetics(video_sets.LabelledClips(classes, uris, labels), len(pairs) - len(found))


def varied(videos: video_sets.LabelledClips, variant: str) -> video_sets.LabelledClips:
    """Return unchanged videos ("original"), or videos with all persons' boxes black ("no_fg")."""
    match variant:
        case "original":
            return videos
        case "no_fg":
            return replace(videos, open=_without_persons)
    raise ValueError(f"there is no variant {variant!r} of mini-Kinetics; allowed: {', '.join(VARIANTS)}")


def boxes_uri(video: str) -> str:
    """Return the URI of the boxes of a video."""
    root, label, name = video.removesuffix(".mp4").rsplit("/", 2)
    return files.join(root.removesuffix("/videos"), "boxes", label, f"{name}.csv")


def read_boxes(uri: str) -> Boxes:
    """Return the boxes of one video.

    Raises:
        InputError: If the file is missing or a line is not a box.
    """
    found: Boxes = {}
    for place, row in _rows(uri, _BOX):
        try:
            frame, x0, y0, x1, y1 = (documents.number(row[name]) for name in _BOX)
        except ValueError:
            raise InputError(f"{place}: expected numbers for {', '.join(_BOX)}, got {list(row.values())}") from None
        if frame < 0 or frame != int(frame) or not (x0 < x1 and y0 < y1):
            raise InputError(f"{place}: expected a whole frame >= 0, x0 < x1 and y0 < y1, got {list(row.values())}")
        found.setdefault(int(frame), []).append((x0, y0, x1, y1))
    return found


def blackened(frames_THWC: Pixels, numbers: Sequence[int], boxes: Boxes) -> Pixels:
    """Return frames with their boxes black; a pixel that a box touches is black.

    Raises:
        ValueError: If a box is outside the frame, because it belongs to a video of another size.
    """
    result = frames_THWC.copy()
    height, width = frames_THWC.shape[1:3]
    for place, number in enumerate(numbers):
        for x0, y0, x1, y1 in boxes.get(int(number), []):
            if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                raise ValueError(f"box {x0:g},{y0:g},{x1:g},{y1:g} of frame {number} is outside {width} x {height}")
            left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
            result[place, top : math.ceil(y1), left : math.ceil(x1)] = 0
    return result


def _without_persons(uri: str) -> Footage:
    footage, boxes = video_sets.open_video(uri), read_boxes(boxes_uri(uri))
    count = len(footage.times)
    if boxes and max(boxes) >= count:
        raise InputError(
            f"{boxes_uri(uri)} has a box for frame {max(boxes)}, but {uri} has {count} frames; give its own boxes"
        )

    def read(numbers: Sequence[int]) -> Pixels:
        frames_THWC = footage.read(numbers)
        try:
            return blackened(frames_THWC, numbers, boxes)
        except ValueError as error:
            raise InputError(f"{boxes_uri(uri)}: {error}; boxes must be in pixels of the displayed video") from None

    return replace(footage, read=read)


def count_without_boxes(videos: video_sets.LabelledClips) -> int:
    """Return the number of videos without any box, whose two variants are the same; reads the boxes of all videos.

    Raises:
        InputError: If a file of boxes is missing or damaged.
    """
    groups = ([uri] for uri in videos.uris)
    each = prefetch.loaded(groups, lambda uri: not read_boxes(boxes_uri(uri)), ahead=prefetch.THREADS)
    return int(np.sum([empty for [empty] in progress(each, "boxes", unit="video", total=len(videos.uris))]))
