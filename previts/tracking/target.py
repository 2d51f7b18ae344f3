"""The target: the object of a video, chosen once among the salient regions and followed by SORT between key frames.

PreViTS section 3.2. These rules apply (a distractor is any other tracked region):
- The first key frame has no region: the target is the largest region of the first key frame that has one.
- The object leaves: its mask is empty until it is matched again. After more than `max_age` misses in a row it is lost,
  and no other object replaces it.
- The object splits: the part with the largest overlap with the expected position stays the target. The other parts
  become distractors.
- The object merges with another region: the merged region is the target, unless a distractor matches it better. A part
  that separates later becomes a distractor.
- The object touches the border: its visible part is followed. `tube_table.Tube.border_share` counts such frames.

Functions from masks to masks: no files, and no frames between key frames.

Shape suffixes: R regions, H W pixels, N tracks, M detections.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from previts.config.perception import TrackConfig
from previts.media.masks import Mask, box, components
from previts.tracking.sort import Array, Sort, box_iou

MIN_COMPONENT_PIXELS = 10  # authors' code: a mask needs at least 10 non-zero pixels


def follow(masks: Iterable[Mask], config: TrackConfig, first: Mask | None = None) -> Iterator[Mask]:
    """Yield the mask (H, W) of the object in each key frame, all False if the object is not matched.

    Args:
        masks: Salient pixels of each key frame: a mask (H, W), or regions (R, H, W) that may overlap.
        config: Settings of the tracker.
        first: Mask (H, W) of the object in the first key frame, if it is known. The region that matches it becomes the
            target.

    Raises:
        ValueError: If the masks differ in size, or `first` is empty.
    """
    if first is not None and not first.any():
        raise ValueError("`first`, the mask of the object in the first key frame, is empty; give a mask with pixels")
    target = _Target(config)
    shape = None if first is None else first.shape
    if first is not None:
        target.start(first)
    for mask in masks:
        shape = shape or mask.shape[-2:]
        if mask.shape[-2:] != shape:
            raise ValueError(f"masks must have one height and width, got {mask.shape} after {shape}")
        found = None if target.is_lost() else target.match_key_frame(_detections(mask, config.min_area))
        yield np.zeros(shape, dtype=np.bool_) if found is None else found


def _detections(mask: Mask, min_area: float) -> list[Mask]:
    """Return the 8-connected components of all regions that are large enough, the largest first."""
    height, width = mask.shape[-2:]
    min_pixels = max(MIN_COMPONENT_PIXELS, round(min_area * height * width))
    regions_RHW = mask.reshape(-1, height, width) if mask.ndim == 2 else mask
    found = [part for region in regions_RHW for part in components(region, min_pixels)]
    return sorted(found, key=np.count_nonzero, reverse=True)


@dataclass
class _Target:
    """Tracks of one video, one of which is the object.

    All regions are tracked, so that a distractor is matched to its own detections instead of the object. The tracks of
    a key frame are matched in two groups. The first group is the object's track, with the tracks that were matched in
    the same key frame as the object: these are certainly other objects. The second group is all other tracks. They may
    be the object in a shape that did not match its track, so they must not take its detection.

    The object is chosen in the first key frame with a region. While its track has fewer than `min_hits` successive
    matches, it is not confirmed: if it is missed, the largest region of that key frame is chosen instead.

    With `motion="drift"`, all tracks are matched in one group, and SORT decides when a track is reported.
    """

    config: TrackConfig
    object_track: int | None = None  # number of the object's track
    hits: int = 0  # successive key frames with a match, up to `min_hits`
    matched_with: set[int] = field(default_factory=set)  # numbers of the tracks at the last match of the object
    last_masks: dict[int, Mask] = field(default_factory=dict)  # of each living track at its last match

    def __post_init__(self) -> None:
        config = self.config
        self.sort = Sort(config.iou_threshold, config.max_age, min_hits=config.min_hits, motion=config.motion)

    def start(self, mask: Mask) -> None:
        """Start the object's track with a known mask."""
        self.match_key_frame([mask])
        self.hits = max(self.hits, self.config.min_hits)

    def is_lost(self) -> bool:
        """Return whether the object's track has ended."""
        return self.object_track is not None and self.object_track not in self.last_masks

    def match_key_frame(self, detections: Sequence[Mask]) -> Mask | None:
        """Match the detections of the next key frame and return that of the object, or None."""
        boxes_M4 = np.array([box(detection) for detection in detections], dtype=np.float64).reshape(-1, 4)
        expected_N4 = self.sort.predict()
        if self.config.association == "box":
            overlap_NM = box_iou(expected_N4, boxes_M4)
        else:
            overlap_NM = mask_iou([self.last_masks[track.number] for track in self.sort.tracks], detections)
        as_published = self.config.motion == "drift"
        numbers = self.sort.update(boxes_M4, overlap_NM, preferred=() if as_published else self.matched_with)
        found = dict(zip(numbers, detections, strict=True))
        living = [track.number for track in self.sort.tracks]
        self.last_masks = {n: found[n] if n in found else self.last_masks[n] for n in living}
        confirmed = self.hits >= max(1, self.config.min_hits)
        if self.object_track not in found and not confirmed:
            self.object_track, self.hits = (numbers[0], 0) if numbers else (None, 0)  # the largest is first
        if self.object_track is None or self.object_track not in found:
            return None
        self.matched_with = set(numbers)
        if as_published:
            shown = any(track.number == self.object_track for track in self.sort.established())
            self.hits = max(1, self.config.min_hits) if confirmed or shown else 0
        else:
            self.hits += not confirmed
            shown = self.hits >= self.config.min_hits
        return found[self.object_track] if shown else None


def mask_iou(one_N: Sequence[Mask], other_M: Sequence[Mask]) -> Array:
    """Return the intersection over union of each pair of non-empty masks, shape (N, M)."""
    if not one_N or not other_M:
        return np.zeros((len(one_N), len(other_M)))
    # A product of matrices of 0 and 1 in float32 is exact up to 2^24 pixels.
    one, other = (np.stack(group).reshape(len(group), -1).astype(np.float32) for group in (one_N, other_M))
    shared = (one @ other.T).astype(np.float64)
    union = one.sum(axis=1, dtype=np.float64)[:, None] + other.sum(axis=1, dtype=np.float64)[None, :] - shared
    return np.asarray(shared / union, dtype=np.float64)
