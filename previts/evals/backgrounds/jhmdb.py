"""JHMDB as published, and the eight variants of the Video Backgrounds Challenge, made from it on the fly.

PreViTS section 4.4, figure 3. No variant is stored. A variant is exact: it is made from frames and puppet masks at
their original size, before any scaling or cropping. The pairing of objects and backgrounds depends only on the seed and
is available as a table. Trains and scores nothing.

Shape suffixes: T frames, H W pixels, C colour channels (RGB).
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.io import loadmat

from previts.errors import InputError
from previts.evals import labelled_images
from previts.evals.actions import video_sets
from previts.media.masks import Mask
from previts.media.variants import MIXED, Oddities, Pixels, oddities, only_bg_t, partners, vary_clip
from previts.media.video_reader import Footage, steady
from previts.processes import prefetch
from previts.processes.progress import progress
from previts.storage import csv_text, files, listings

FRAMES, MASKS, SPLITS = "Rename_Images", "puppet_mask", "splits"
MASK_FILE, MASK_FIELD = "puppet_mask.mat", "part_mask"
COLUMNS = ("seed", "split", "part", "variant", "class", "clip", "background_class", "background_clip")


@dataclass(frozen=True)
class PuppetClip:
    """One clip: its frames in order of time and the file with the masks of the person.

    Attributes:
        label: Number of its class.
        class_name: Name of its class.
        name: Name of the clip, without `.avi`.
        uri: Folder of the frames.
        frames: URIs of the frames.
        mask: URI of the masks.
    """

    label: int
    class_name: str
    name: str
    uri: str
    frames: tuple[str, ...]
    mask: str

    @property
    def key(self) -> str:
        """Its key in the choice of partners."""
        return f"{self.class_name}/{self.name}"


@dataclass(frozen=True)
class PuppetClips:
    """The clips of one part of a split."""

    classes: tuple[str, ...]
    clips: tuple[PuppetClip, ...]


def read_jhmdb(uri: str, split: str) -> tuple[PuppetClips, PuppetClips]:
    """Return the training and the test clips of a split, sorted by class, in the order of its lists.

    Args:
        uri: Folder with `Rename_Images/<class>/<clip>/00001.png` and so on,
            `puppet_mask/<class>/<clip>/puppet_mask.mat` and `splits/<class>_test_split<N>.txt`, whose lines are
            `<clip>.avi 1` (training) or `2` (testing).
        split: "1", "2" or "3".

    Raises:
        InputError: If a list, a frame or a file of masks is missing, or a line is invalid.
    """
    for name in (FRAMES, MASKS, SPLITS):
        if not files.exists(files.join(uri, name)):
            existing = ", ".join(files.names(uri)) or "nothing"
            raise InputError(
                f"{files.join(uri, name)} is missing; expected JHMDB as published, with {FRAMES}/, {MASKS}/ and "
                f"{SPLITS}/ in one folder; this folder has: {existing}"
            )
    lists = video_sets.read_class_lists(files.join(uri, SPLITS), split)
    frames_uri, masks_uri = files.join(uri, FRAMES), files.join(uri, MASKS)
    frames, masks = _by_folder(frames_uri, ".png"), _by_folder(masks_uri, ".mat")
    parts: dict[str, list[PuppetClip]] = {"0": [], "1": [], "2": []}
    for label, (class_name, listed) in enumerate(lists.items()):
        for file_name, part in listed:
            name = file_name.removesuffix(".avi")
            place = f"{class_name}/{name}"
            folder = files.join(frames_uri, place)
            names = frames.get(place, [])
            # The files are numbered from 1 without gaps; a missing file would shift all later masks.
            expected = [f"{number:05d}.png" for number in range(1, max(1, len(names)) + 1)]
            if names != expected:
                lost = next(name for name in expected if name not in names)
                raise InputError(f"{files.join(folder, lost)} is missing; split {split} lists the clip")
            mask = files.join(masks_uri, place, MASK_FILE)
            if MASK_FILE not in masks.get(place, []):
                raise InputError(f"{mask} is missing; every clip that split {split} lists needs its puppet masks")
            uris = tuple(files.join(folder, frame) for frame in names)
            parts[part].append(PuppetClip(label, class_name, name, folder, uris, mask))
    if not parts["1"] or not parts["2"]:
        part = "training" if parts["2"] else "test"
        raise InputError(
            f"the lists of split {split} in {files.join(uri, SPLITS)} have no {part} clips; expected lines "
            "`<clip>.avi 1` (training) and `<clip>.avi 2` (test)"
        )
    return PuppetClips(tuple(lists), tuple(parts["1"])), PuppetClips(tuple(lists), tuple(parts["2"]))


def _by_folder(uri: str, suffix: str) -> dict[str, list[str]]:
    """Return the sorted names of the files with that ending by `<class>/<clip>`, without hidden files."""
    found = dict[str, list[str]]()
    for name in listings.below(uri, (suffix,)).names:
        folder, _, file = name.rpartition("/")
        if folder.count("/") == 1:
            found.setdefault(folder, []).append(file)
    return found


def read_frames(clip: PuppetClip, numbers: Sequence[int]) -> Pixels:
    """Return the frames with these numbers, counted from 0, as THWC; each file is decoded once.

    Raises:
        InputError: If a frame is damaged or differs in size from the others.
    """
    used, places = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
    frames = [
        np.asarray(labelled_images.as_rgb(labelled_images.open_image(clip.frames[number])), np.uint8) for number in used
    ]
    for number, frame in zip(used, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise InputError(
                f"{clip.frames[number]} is {_size(frame.shape[:2])}, and {clip.frames[used[0]]} is "
                f"{_size(frames[0].shape[:2])}; all frames of a clip must have one size"
            )
    return np.stack(frames)[places]


def _size(shape: Sequence[int]) -> str:
    """Return a shape for messages, such as `240 x 320`."""
    return " x ".join(str(side) for side in shape)


def read_masks(clip: PuppetClip) -> Mask:
    """Return the person's mask in each frame of a clip, THW.

    Raises:
        InputError: If the file cannot be read, or the number of masks differs from the number of frames.
    """
    try:
        document: dict[str, Any] = loadmat(io.BytesIO(files.read_regular(clip.mask)), variable_names=[MASK_FIELD])
    except FileNotFoundError:
        raise InputError(f"{clip.mask} is missing; expected the puppet masks of JHMDB as published") from None
    except Exception as error:  # SciPy raises many types for a damaged file: its own, zlib's, ValueError, TypeError
        raise InputError(f"{clip.mask} cannot be read as a MATLAB file ({error}); replace it by the original") from None
    if MASK_FIELD not in document:
        raise InputError(f"{clip.mask} has no field {MASK_FIELD}; expected the puppet masks of JHMDB as published")
    masks_HWT = np.asarray(document[MASK_FIELD])
    if masks_HWT.ndim == 2:  # MATLAB drops a last axis of one frame
        masks_HWT = masks_HWT[..., None]
    if masks_HWT.ndim != 3 or masks_HWT.shape[2] != len(clip.frames):
        raise InputError(
            f"{clip.mask}: {MASK_FIELD} is {_size(masks_HWT.shape)}, and {clip.uri} has {len(clip.frames)} frames; "
            "expected height x width x frames"
        )
    if masks_HWT.dtype.kind not in "buif" or not np.isfinite(masks_HWT).all() or (masks_HWT < 0).any():
        raise InputError(
            f"{clip.mask}: {MASK_FIELD} has values of type {masks_HWT.dtype} that are not numbers of 0 or more; "
            "replace it by the original"
        )
    return np.ascontiguousarray(masks_HWT.transpose(2, 0, 1) != 0)


def behind(part: PuppetClips, variant: str, seed: int) -> dict[str, PuppetClip]:
    """Return for each clip, by its URI, the clip of the same part that provides the background of a mixed variant.

    Raises:
        InputError: If a clip has no partner, such as the only clip of its class for mixed_same.
    """
    chosen = partners(variant, [clip.label for clip in part.clips], [clip.key for clip in part.clips], seed)
    return {clip.uri: part.clips[other] for clip, other in zip(part.clips, chosen, strict=True)}


def varied(part: PuppetClips, variant: str, seed: int) -> video_sets.LabelledClips:
    """Return the clips of a part in one variant, which is made when a clip is read.

    The partners of a mixed variant come from the whole part, so that a limit on the scored clips does not change them.
    """
    by_uri = {clip.uri: clip for clip in part.clips}
    others = behind(part, variant, seed) if variant in MIXED else {}

    def open_variant(uri: str) -> Footage:
        clip = by_uri[uri]
        return _footage(clip, partial(_read_variant, variant, clip, others.get(uri)))

    labels = tuple(clip.label for clip in part.clips)
    return video_sets.LabelledClips(part.classes, tuple(clip.uri for clip in part.clips), labels, open_variant)


def mask_footage(clip: PuppetClip) -> Footage:
    """Return the masks of a clip as black and white footage, which can be cropped and scaled like its frames."""

    def read(numbers: Sequence[int]) -> Pixels:
        masks_THW = read_masks(clip)[np.asarray(numbers)]
        return np.repeat(masks_THW[..., None].astype(np.uint8) * 255, 3, axis=3)

    return _footage(clip, read)


def _footage(clip: PuppetClip, read: Callable[[Sequence[int]], Pixels]) -> Footage:
    # not stated: consecutive frames are used, as if they had the rate of UCF-101's videos.
    return steady(len(clip.frames), video_sets.FPS, read)


def _read_variant(variant: str, clip: PuppetClip, other: PuppetClip | None, numbers: Sequence[int]) -> Pixels:
    frames_THWC = read_frames(clip, numbers)
    if variant == "original":
        return frames_THWC
    masks_THW = _masks_of(clip, frames_THWC, numbers)
    if other is None:
        return vary_clip(variant, frames_THWC, masks_THW)
    theirs = [number % len(other.frames) for number in numbers]
    backs_THWC = read_frames(other, theirs)
    back_masks_THW = _masks_of(other, backs_THWC, theirs)
    tiled_THWC = np.stack([only_bg_t(*pair) for pair in zip(backs_THWC, back_masks_THW, strict=True)])
    return vary_clip(variant, frames_THWC, masks_THW, tiled_THWC)


def _masks_of(clip: PuppetClip, frames_THWC: Pixels, numbers: Sequence[int]) -> Mask:
    masks_THW: Mask = read_masks(clip)[np.asarray(numbers)]
    if masks_THW.shape != frames_THWC.shape[:3]:
        raise InputError(
            f"{clip.mask} has masks of {masks_THW.shape[1:]} pixels, {clip.uri} frames of {frames_THWC.shape[1:3]}; "
            "height and width must be the same"
        )
    return masks_THW


def count_oddities(part: PuppetClips) -> Oddities:
    """Return the number of frames of a part, of frames without a person, and of frames that the person's box spans.

    Raises:
        InputError: If a file of masks is damaged, or does not match its frames.
    """

    def count(clip: PuppetClip) -> Oddities:
        _masks_of(clip, read_frames(clip, [0]), [0])
        return oddities(read_masks(clip))

    each = prefetch.loaded(([clip] for clip in part.clips), count, ahead=prefetch.THREADS)
    shown = progress(each, "puppet masks", unit="clip", total=len(part.clips))
    return sum((found for [found] in shown), Oddities())


def manifest(rows: Iterable[tuple[str, str, PuppetClips]], seed: int) -> bytes:
    """Return the source of each mixed variant's background as CSV, for (split, part, clips) of a challenge."""
    lines: list[list[csv_text.Cell]] = []
    for split, name, part in rows:
        for variant in MIXED:
            others = behind(part, variant, seed)
            for clip in part.clips:
                other = others[clip.uri]
                lines.append([seed, split, name, variant, clip.class_name, clip.name, other.class_name, other.name])
    return csv_text.to_csv(COLUMNS, lines).encode()
