"""Labelled videos: the layouts of UCF-101 and HMDB-51, and the clips for training and testing classifiers.

PreViTS section 4.3 fine-tunes as RSPNet does. Open details follow its code: 64 consecutive frames at 25 per second, a
random crop and a flip in training, ten evenly spaced clips of the central square in testing.

Shape suffixes: T frames, H W pixels, C colour channels (RGB), K clips, U frames in use, S pixels of a side.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.errors import InputError, VideoError
from previts.evals import labelled_images
from previts.media.video_reader import Footage, open_footage
from previts.storage import file_names, files

FPS = 25.0  # not stated; RSPNet's code
LEAST_AREA = 0.25  # not stated; RSPNet's code, of a random crop
Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom


def open_video(uri: str) -> Footage:
    """Return the footage of a video file.

    Raises:
        InputError: If the file is missing or damaged; also when damaged frames are read later.
    """
    try:
        footage = open_footage(files.read_regular(uri))
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; the dataset must be complete and in its authors' layout") from None
    except VideoError as error:
        raise _unreadable(uri, error) from None

    def read(numbers: Sequence[int]) -> Pixels:
        try:
            return footage.read(numbers)
        except VideoError as error:
            raise _unreadable(uri, error) from None

    return replace(footage, read=read)


def _unreadable(uri: str, error: VideoError) -> InputError:
    return InputError(f"{uri} cannot be read as a video ({error}); replace it by the original file")


@dataclass(frozen=True)
class LabelledClips:
    """Videos of one split with their class numbers; several threads call `open`, which returns the footage of a URI."""

    classes: tuple[str, ...]
    uris: tuple[str, ...]
    labels: tuple[int, ...]
    open: Callable[[str], Footage] = open_video


def limited(clips: LabelledClips, limit: int) -> LabelledClips:
    """Return at most `limit` videos, evenly spaced over the classes; 0 means all."""
    order = sorted(range(len(clips.uris)), key=lambda number: (clips.labels[number], number))
    chosen = [order[place] for place in labelled_images.evenly(len(order), limit)]
    return replace(clips, uris=tuple(clips.uris[i] for i in chosen), labels=tuple(clips.labels[i] for i in chosen))


def read_ucf101(uri: str, split: str) -> tuple[LabelledClips, LabelledClips]:
    """Return the training and the test videos of a split, in the order of its lists.

    Args:
        uri: Folder with `UCF-101/<Class>/<video>.avi` and `ucfTrainTestlist/{classInd,trainlistNN,testlistNN}.txt`.
        split: "1", "2" or "3".

    Raises:
        InputError: If a list or a video is missing, or a line is invalid.
    """
    videos, lists = files.join(uri, "UCF-101"), files.join(uri, "ucfTrainTestlist")
    index = files.join(lists, "classInd.txt")
    classes: list[str] = []
    for place, words in _lines(index, "UCF-101"):
        if len(words) != 2 or words[0] != str(len(classes) + 1) or words[1] in classes:
            raise InputError(f"{place}: expected '{len(classes) + 1} <Class>', got {' '.join(words)!r}")
        classes.append(words[1])
    if not classes:
        raise InputError(f"{index} has no classes; expected '<number> <Class>' in each line")
    existing = _files(videos)

    def read(name: str, numbered: bool) -> LabelledClips:
        list_uri = files.join(lists, f"{name}list{int(split):02d}.txt")
        names: dict[str, int] = {}  # the label of each video
        for place, words in _lines(list_uri, "UCF-101"):
            folder = words[0].split("/")[0]
            right = folder in classes and "/" in words[0] and len(words) == 1 + numbered
            if not right or (numbered and words[1] != str(classes.index(folder) + 1)):
                form = "'<Class>/<video>.avi" + (" <number of the class>'" if numbered else "'")
                raise InputError(f"{place}: expected {form} of a class of classInd.txt, got {' '.join(words)!r}")
            if words[0] not in existing:
                raise InputError(f"{place}: {files.join(videos, words[0])} is missing")
            if files.join(videos, words[0]) in names:
                raise InputError(f"{place}: {words[0]} is listed twice; replace the list by the original file")
            names[files.join(videos, words[0])] = classes.index(folder)
        if not names:
            raise InputError(f"{list_uri} has no videos; expected the list as published")
        return LabelledClips(tuple(classes), tuple(names), tuple(names.values()))

    train, test = read("train", numbered=True), read("test", numbered=False)
    if both := sorted(set(train.uris) & set(test.uris)):
        raise InputError(f"{lists}: {both[0]} is in both lists of split {split}; replace them by the original files")
    return train, test


def read_hmdb51(uri: str, split: str) -> tuple[LabelledClips, LabelledClips]:
    """Return the training and the test videos of a split, sorted by class, in the order of its lists.

    Args:
        uri: Folder with `testTrainMulti_7030_splits/<class>_test_split<N>.txt` and `<class>/<video>.avi`. The class
            folders may also be in its folder `videos`.
        split: "1", "2" or "3".

    Raises:
        InputError: If a list or a video is missing, or a line is invalid.
    """
    lists = read_class_lists(files.join(uri, "testTrainMulti_7030_splits"), split)
    classes = tuple(lists)
    videos = files.join(uri, "videos") if files.exists(files.join(uri, "videos")) else uri
    parts: dict[str, tuple[list[str], list[int]]] = {"1": ([], []), "2": ([], [])}
    existing = {name: set(files.names(files.join(videos, name))) for name in classes}
    for label, (name, listed) in enumerate(lists.items()):
        for video, part in listed:
            if part == "0":
                continue
            if video not in existing[name]:
                raise InputError(f"{files.join(videos, name, video)} is missing; split {split} lists it")
            parts[part][0].append(files.join(videos, name, video))
            parts[part][1].append(label)
    for part, name in (("1", "training"), ("2", "testing")):
        if not parts[part][0]:
            raise InputError(
                f"the lists of split {split} in {uri} have no video for {name}; expected lines with the mark {part}"
            )
    train, test = (LabelledClips(classes, tuple(names), tuple(labels)) for names, labels in parts.values())
    return train, test


def read_class_lists(uri: str, split: str) -> dict[str, list[tuple[str, str]]]:
    """Return (video, part) by class, sorted, from lists in the format of HMDB-51 and JHMDB.

    Part is "1" for training, "2" for testing, "0" for neither.

    Args:
        uri: Folder with `<class>_test_split<N>.txt`.
        split: "1", "2" or "3".

    Raises:
        InputError: If there is no list, or a line is invalid.
    """
    ending = f"_test_split{split}.txt"
    names = [name.removesuffix(ending) for name in file_names.shown(files.names(uri)) if name.endswith(ending)]
    if not names:
        raise InputError(f"there is no {files.join(uri, f'<class>{ending}')}; expected the lists as published")
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for name in names:
        listed = set[str]()
        for place, words in _lines(files.join(uri, name + ending), "it"):
            if len(words) != 2 or words[1] not in ("0", "1", "2"):
                raise InputError(f"{place}: expected '<video>.avi <0, 1 or 2>', got {' '.join(words)!r}")
            if words[0] in listed:
                raise InputError(f"{place}: {words[0]} is listed twice; replace the list by the original file")
            listed.add(words[0])
            found[name].append((words[0], words[1]))
    return found


def _lines(uri: str, what: str) -> Iterable[tuple[str, list[str]]]:
    """Yield the position and the words of each non-empty line."""
    try:
        text = files.read_regular(uri).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; expected {what} as published") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield f"{uri}, line {number}", words


def _files(uri: str) -> set[str]:
    """Return the names of all files in a folder and its subfolders, relative to the folder."""
    fs, path = files.open_fs(uri)
    root = path.rstrip("/") + "/"
    return {name.removeprefix(root) for name in fs.find(path)}


def training_clip(footage: Footage, frames: int, size: int, generator: np.random.Generator) -> Pixels:
    """Return a random clip, TCHW with H = W = `size`: start, crop and flip are random, the same for all frames."""
    numbers_K = footage.nearest(FPS)
    start = int(generator.integers(max(0, len(numbers_K) - frames) + 1))
    picked_THWC = footage.read(run(numbers_K, start, frames).tolist())
    height, width = picked_THWC.shape[1:3]
    box = labelled_images.random_box(width, height, LEAST_AREA, generator)
    clip = _cropped(picked_THWC, box, size)
    return np.ascontiguousarray(clip[..., ::-1]) if generator.random() < 0.5 else clip


class SpacedClips(NamedTuple):
    """Clips of one video that share frames: clip k is `frames[places[k]]`; UCSS uint8 and KT."""

    frames: Pixels
    places: NDArray[np.int64]


def evenly_spaced_clips(footage: Footage, frames: int, size: int, count: int) -> SpacedClips:
    """Return `count` clips of the central square; the first starts and the last ends with the video."""
    numbers_K = footage.nearest(FPS)
    room = max(0, len(numbers_K) - frames)
    starts = [room // 2] if count == 1 else [round(place * room / (count - 1)) for place in range(count)]
    wanted_KT = np.stack([run(numbers_K, start, frames) for start in starts])
    used_U, places = np.unique(wanted_KT, return_inverse=True)
    picked_UHWC = footage.read(used_U.tolist())
    square = central_square(*picked_UHWC.shape[1:3])
    return SpacedClips(_cropped(picked_UHWC, square, size), places.reshape(wanted_KT.shape))


def run(numbers_K: NDArray[np.int64], start: int, frames: int) -> NDArray[np.int64]:
    """Return `frames` entries from `start` on; after its end the video starts again."""
    return numbers_K[(start + np.arange(frames)) % len(numbers_K)]


def central_square(height: int, width: int) -> Box:
    """Return left, top, right and bottom of the largest square in the middle."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _cropped(picked_THWC: Pixels, box: Box, size: int) -> Pixels:
    """Return a part of all frames, scaled to a square, TCHW."""
    left, top, right, bottom = box
    shrinks = min(right - left, bottom - top) > size
    clip_TCHW = np.empty((len(picked_THWC), 3, size, size), np.uint8)
    for place, frame_HWC in enumerate(picked_THWC):
        part = frame_HWC[top:bottom, left:right]
        # Area averaging when the frame shrinks; otherwise thin structures flicker.
        scaled = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        clip_TCHW[place] = scaled.transpose(2, 0, 1)
    return clip_TCHW
