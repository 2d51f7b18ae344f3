"""Ground-truth masks of a crawl's videos, if the user has them, and the scores of tubes against them.

Not in the paper, which has no masks of its corpora. The demo world has them, and a user's own labelled videos may. The
masks are in a folder `masks` or `NAME_masks` next to the crawl `NAME.csv` or `NAME/`. Each video has either a file
`VIDEO_ID.npz` (`read_masks`) or a folder `VIDEO_ID` of PNGs in order of time, in which the object is not black. The
masks are spread evenly over the video, so their size and frame rate may differ from those of the video.

Shape suffixes: T frames, H W pixels.
"""

import io
import itertools
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from previts.corpus import members
from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.media.masks import Mask, iou, object_pixels
from previts.processes import prefetch
from previts.storage import file_names, files
from previts.storage.files import join


@dataclass(frozen=True)
class Truth:
    """A folder of exact masks: its URI, and the names of the files and folders in it."""

    uri: str
    names: frozenset[str]
    deeper: dict[str, frozenset[str]] = field(default_factory=dict, compare=False)  # names in the folders of ids

    def knows(self, video_id: str) -> bool:
        """Return whether the folder has masks of a video."""
        return self._has(f"{video_id}.npz") or self._has(video_id)

    def _has(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder and folder not in self.deeper:
            self.deeper[folder] = frozenset(files.names(join(self.uri, folder)))
        return name in (self.deeper[folder] if folder else self.names)

    def masks(self, video_id: str) -> Mask:
        """Return the masks (T, H, W) of a video for which `knows` is true.

        Raises:
            InputError: If they cannot be read.
        """
        if self._has(f"{video_id}.npz"):
            uri = join(self.uri, f"{video_id}.npz")
            try:
                return read_masks(uri)
            except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"{uri} does not contain masks ({error}); replace or remove the file") from error
        uri = join(self.uri, video_id)
        listed = [name for name in file_names.shown(files.names(uri)) if name.lower().endswith(".png")]
        listed.sort(key=file_names.by_number)
        masks = [_read_png(join(uri, name)) for name in listed]
        if not masks or any(mask.shape != masks[0].shape for mask in masks):
            raise InputError(f"{uri} must contain PNGs of one size, found {len(masks)} PNGs; fix or remove it")
        return np.stack(masks)


@dataclass(frozen=True)
class Score:
    """The overlap of one tube with its object.

    Attributes:
        iou: Mean IoU over all frames; 1 in frames where both are empty, as DAVIS defines it.
        tracked_iou: Mean IoU over the frames in which the tube is not empty; None for an empty tube.
        tracked: Share of these frames.
    """

    iou: float
    tracked_iou: float | None
    tracked: float


def find_truths(videos_uris: Sequence[str]) -> list[Truth | None]:
    """Return for the stored videos of each crawl the exact masks next to the crawl, or None if there are none."""
    places = [_places(manifest.inputs.get("crawl", "")) for manifest in members.manifests(videos_uris)]
    distinct = list(dict.fromkeys(itertools.chain.from_iterable(places)))  # many crawls may have one folder of masks
    known = dict(zip(distinct, prefetch.requested(distinct, _truth_at), strict=True))
    return [next((found for place in of_crawl if (found := known[place])), None) for of_crawl in places]


def _places(crawl: str) -> list[str]:
    """Return the folders in which the masks of a crawl may be, the first one that exists counts."""
    if not crawl or crawl.startswith(("http://", "https://")):
        return []
    folder, _, name = crawl.rstrip("/").rpartition("/")
    stem = re.sub(r"\.(csv|parquet|pq)$", "", name, flags=re.IGNORECASE)
    return [join(folder, f"{stem}_masks"), join(folder, "masks")]


def _truth_at(uri: str) -> Truth | None:
    try:
        names = file_names.shown(files.names(uri))
    except (OSError, InputError):
        names = []
    return Truth(uri, frozenset(names)) if names else None


def write_masks(uri: str, masks_THW: Mask) -> None:
    """Write the masks of a video as an npz file with one bit for each pixel; `read_masks` reads it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, packed=np.packbits(masks_THW), shape=np.array(masks_THW.shape))
    files.write_bytes(uri, buffer.getvalue())


def read_masks(uri: str) -> Mask:
    """Return the masks (T, H, W) that `write_masks` wrote."""
    with np.load(io.BytesIO(files.read_regular(uri)), allow_pickle=False) as file:
        shape = tuple(int(side) for side in file["shape"])
        packed = file["packed"]
        if len(shape) != 3 or min(shape) < 1 or packed.dtype != np.uint8 or len(packed) != -(-math.prod(shape) // 8):
            raise ValueError(f"{packed.size} bytes of type {packed.dtype} are not the masks of shape {shape}")
        return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)


def _read_png(uri: str) -> Mask:
    data = files.read_regular(uri)
    try:
        return object_pixels(Image.open(io.BytesIO(data)))
    except Exception:  # Pillow raises many types for a damaged file: OSError, SyntaxError, ValueError, ...
        raise InputError(f"{uri} is not an image; fix or remove it") from None


def score(tube: Tube, truth_THW: Mask) -> Score:
    """Compare a tube with exact masks of the same time span; masks of another size are scaled to the tube's size."""
    frames = range(len(tube.frame_keys))
    exact_THW = at_frames(truth_THW, frames, tube)
    scores = [iou(tube.mask(frame), exact) for frame, exact in zip(frames, exact_THW, strict=True)]
    visible = [key >= 0 for key in tube.frame_keys]
    tracked = [value for value, shown in zip(scores, visible, strict=True) if shown]
    return Score(float(np.mean(scores)), float(np.mean(tracked)) if tracked else None, len(tracked) / len(visible))


def at_frames(truth_THW: Mask, frames: Sequence[int], tube: Tube) -> Mask:
    """Return the exact masks (len(frames), H, W) at frames of a tube, in the tube's size."""
    places = [frame * len(truth_THW) // len(tube.frame_keys) for frame in frames]
    size = (tube.width, tube.height)
    if truth_THW.shape[1:] == (tube.height, tube.width):
        return np.asarray(truth_THW[places])
    scaled = [cv2.resize(truth_THW[place].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for place in places]
    return np.stack(scaled) > 0


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean over videos, at least one; each video has the same weight, whatever its length."""
    tracked = [item.tracked_iou for item in scores if item.tracked_iou is not None]
    return Score(
        float(np.mean([item.iou for item in scores])),
        float(np.mean(tracked)) if tracked else None,
        float(np.mean([item.tracked for item in scores])),
    )
