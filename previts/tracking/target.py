"""The object of a video: chosen once among the salient regions, then followed by SORT from key frame to key frame.

PreViTS section 3.2. What happens when
- the first key frame is empty: the first one that has a region gives the target, its largest;
- the object leaves: nothing is there until it is matched again; after more than `max_age` misses in a row it is lost
  for good, and no other object takes its place;
- it splits: the piece that overlaps the expected place most stays the target, the others become passers-by;
- it merges with something: the merged region is the target, unless a passer-by fits it better and claims it; what had
  been part of it and walks off becomes a passer-by;
- it touches the border: it is followed as far as it is seen; `tubes.Tube.border_share` counts such frames.

Masks in, masks out; knows neither files nor the frames between key frames.

Shape suffixes: R regions, H W pixels, N tracks, M detections.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from previts.config.experiment import TrackConfig
from previts.media.masks import Mask, box, components
from previts.tracking.sort import Array, Sort, box_iou

MIN_COMPONENT_PIXELS = 10  # authors' code: a mask needs at least 10 non-zero pixels


def follow(masks: Iterable[Mask], config: TrackConfig, first: Mask | None = None) -> Iterator[Mask]:
    """Yield the object's own pixels (H, W) in each key frame, all False where it is not seen.

    Args:
        masks: Salient pixels of each key frame: a mask (H, W), or regions (R, H, W) that may overlap.
        config: How to follow.
        first: The object where it is known: its mask (H, W) in the first key frame. The region that overlaps it there
            becomes the target.

    Raises:
        ValueError: If the masks do not share a frame, or `first` is empty.
    """
    if first is not None and not first.any():
        raise ValueError("the mask of the object is empty, so there is nothing to follow")
    target = _Target(config)
    shape = None if first is None else first.shape
    if first is not None:
        target.start(first)
    for mask in masks:
        shape = shape or mask.shape[-2:]
        if mask.shape[-2:] != shape:
            raise ValueError(f"masks must share a frame, got {mask.shape} after {shape}")
        seen = None if target.is_lost() else target.find(_detections(mask, config.min_area))
        yield np.zeros(shape, dtype=np.bool_) if seen is None else seen


def _detections(mask: Mask, min_area: float) -> list[Mask]:
    """Return the 8-connected components of every region that are large enough, the largest first."""
    height, width = mask.shape[-2:]
    min_pixels = max(MIN_COMPONENT_PIXELS, round(min_area * height * width))
    regions_RHW = mask.reshape(-1, height, width) if mask.ndim == 2 else mask
    found = [part for region in regions_RHW for part in components(region, min_pixels)]
    return sorted(found, key=np.count_nonzero, reverse=True)


@dataclass
class _Target:
    """The tracks of one video, and which of them is the object.

    All regions are tracked, so that a passer-by claims its own detections instead of the object's. But only tracks that
    were seen beside it when it was last seen are known to be something else, and claim together with it; the others
    come second, as they may be the object itself in a shape that could not be matched.
    """

    config: TrackConfig
    number: int | None = None  # of the object's track
    hits: int = 0  # key frames in a row, up to `min_hits`
    beside: set[int] = field(default_factory=set)  # numbers of the tracks seen when the object was last seen
    last_masks: dict[int, Mask] = field(default_factory=dict)  # of each living track, where it was last seen

    def __post_init__(self) -> None:
        self.sort = Sort(self.config.iou_threshold, self.config.max_age)

    def start(self, mask: Mask) -> None:
        """Take a known mask as the object."""
        self.find([mask])
        self.hits = max(self.hits, self.config.min_hits)

    def is_lost(self) -> bool:
        """Return whether there was an object and it will not be found any more."""
        return self.number is not None and self.number not in self.last_masks

    def find(self, detections: Sequence[Mask]) -> Mask | None:
        """Match the detections of the next key frame and return that of the object, if it is seen."""
        boxes_M4 = np.array([box(detection) for detection in detections], dtype=np.float64).reshape(-1, 4)
        expected_N4 = self.sort.predict()
        if self.config.association == "box":
            overlap_NM = box_iou(expected_N4, boxes_M4)
        else:
            overlap_NM = mask_iou([self.last_masks[track.number] for track in self.sort.tracks], detections)
        numbers = self.sort.update(boxes_M4, overlap_NM, preferred=self.beside)
        seen = dict(zip(numbers, detections, strict=True))
        living = [track.number for track in self.sort.tracks]
        self.last_masks = {n: seen[n] if n in seen else self.last_masks[n] for n in living}
        confirmed = self.hits >= max(1, self.config.min_hits)
        if self.number not in seen and not confirmed:
            self.number, self.hits = (numbers[0], 0) if numbers else (None, 0)  # the largest comes first
        if self.number is None or self.number not in seen:
            return None
        self.beside = set(numbers)
        self.hits += not confirmed
        return seen[self.number] if self.hits >= self.config.min_hits else None


def mask_iou(one_N: Sequence[Mask], other_M: Sequence[Mask]) -> Array:
    """Return intersection over union of every pair of non-empty masks, shape (N, M)."""
    if not one_N or not other_M:
        return np.zeros((len(one_N), len(other_M)))
    # Products of 0 and 1 in float32 are exact sums up to 2^24 pixels.
    one, other = (np.stack(group).reshape(len(group), -1).astype(np.float32) for group in (one_N, other_M))
    shared = (one @ other.T).astype(np.float64)
    union = one.sum(axis=1, dtype=np.float64)[:, None] + other.sum(axis=1, dtype=np.float64)[None, :] - shared
    return np.asarray(shared / union, dtype=np.float64)
