"""Exact masks of a crawl's videos, where somebody has them, and how well tubes lie on them.

No place in the paper, which has no masks of its corpora; the demo world and a user's own labelled videos do. Masks are
in a folder `masks` or `NAME_masks` next to the crawl `NAME.csv` or `NAME/`. Each video has either `VIDEO_ID.npz`
(`demo.read_masks`) or a folder `VIDEO_ID` of PNGs in order of time, the object not black. They span the video evenly,
so they may have another size and rate. Never chooses or changes a tube.

Shape suffixes: T frames, H W pixels.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.media.masks import Mask, iou
from previts.storage import files, folders
from previts.storage.files import join


@dataclass(frozen=True)
class Truth:
    """A folder of exact masks and the names in it."""

    uri: str
    names: frozenset[str]

    def knows(self, video_id: str) -> bool:
        """Return whether there are masks of a video."""
        return f"{video_id}.npz" in self.names or video_id in self.names

    def masks(self, video_id: str) -> Mask:
        """Return the masks (T, H, W) of a video that it knows.

        Raises:
            InputError: If they cannot be read.
        """
        if f"{video_id}.npz" in self.names:
            uri = join(self.uri, f"{video_id}.npz")
            try:
                return read_masks(uri)
            except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"{uri} holds no masks ({error}); mend or remove it") from error
        uri = join(self.uri, video_id)
        listed = [name for name in files.names(uri) if name.lower().endswith(".png")]
        listed.sort(key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
        pictures = [_read_png(join(uri, name)) for name in listed]
        if not pictures or any(picture.shape != pictures[0].shape for picture in pictures):
            raise InputError(f"{uri} must hold PNGs of one size, found {len(pictures)}; mend or remove it")
        return np.stack(pictures)


def _read_png(uri: str) -> Mask:
    data = np.frombuffer(files.read_bytes(uri), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if picture is None:
        raise InputError(f"{uri} is not a picture; mend or remove it")
    return np.asarray(picture > 0)


def find_truth(videos_uri: str) -> Truth | None:
    """Return the exact masks beside the crawl that stored videos came from, or None where there are none."""
    crawl = folders.read_manifest(videos_uri).inputs.get("crawl", "")
    if not crawl or crawl.startswith(("http://", "https://")):
        return None
    folder, _, name = crawl.rstrip("/").rpartition("/")
    stem = re.sub(r"\.(csv|parquet)$", "", name)
    for candidate in (join(folder, f"{stem}_masks"), join(folder, "masks")):
        try:
            names = files.names(candidate)
        except (OSError, InputError):
            continue
        if names:
            return Truth(candidate, frozenset(names))
    return None


@dataclass(frozen=True)
class Score:
    """How well one tube lies on its object: mean IoU over all frames, over those with a tube, and the share of these.

    Where neither shows anything the IoU is 1, as DAVIS counts it. `tracked_iou` is None for an empty tube.
    """

    iou: float
    tracked_iou: float | None
    tracked: float


def score(tube: Tube, truth_THW: Mask) -> Score:
    """Compare a tube with exact masks that span the same time; a mask of another size is scaled to the tube's."""
    frames = range(len(tube.frame_keys))
    exact_THW = at_frames(truth_THW, frames, tube)
    scores = [iou(tube.mask(frame), exact) for frame, exact in zip(frames, exact_THW, strict=True)]
    seen = [key >= 0 for key in tube.frame_keys]
    tracked = [value for value, visible in zip(scores, seen, strict=True) if visible]
    return Score(float(np.mean(scores)), float(np.mean(tracked)) if tracked else None, len(tracked) / len(seen))


def at_frames(truth_THW: Mask, frames: Sequence[int], tube: Tube) -> Mask:
    """Return exact masks at frames of a tube, in the tube's size."""
    places = [frame * len(truth_THW) // len(tube.frame_keys) for frame in frames]
    size = (tube.width, tube.height)
    if truth_THW.shape[1:] == (tube.height, tube.width):
        return np.asarray(truth_THW[places])
    scaled = [cv2.resize(truth_THW[place].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for place in places]
    return np.stack(scaled) > 0


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean over videos, so that a long video counts no more than a short one; at least one is needed."""
    tracked = [item.tracked_iou for item in scores if item.tracked_iou is not None]
    return Score(
        float(np.mean([item.iou for item in scores])),
        float(np.mean(tracked)) if tracked else None,
        float(np.mean([item.tracked for item in scores])),
    )


def write_masks(uri: str, masks: NDArray[np.bool_]) -> None:
    """Write the masks THW of a video, a bit a pixel; see `read_masks`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, packed=np.packbits(masks), shape=np.array(masks.shape))
    files.write_bytes(uri, buffer.getvalue())


def read_masks(uri: str) -> NDArray[np.bool_]:
    """Return the masks THW that `write_masks` wrote."""
    with np.load(io.BytesIO(files.read_bytes(uri))) as file:
        shape = tuple(int(side) for side in file["shape"])
        return np.unpackbits(file["packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)
