"""Attention as a tracker on DAVIS-2016: follow one object, given its mask in the first frame.

PreViTS section 4.5, table 5. The foreground of frame 0 is the key, every later frame a query. The Grad-CAM that
pretraining supervises shows where the query matches the key. Nothing is trained.

Shape suffixes: T frames, C channels, H W pixels of a frame, S pixels of the squashed frame, h w cells of the map.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import attention, features, frozen, labelled_images
from previts.evals.davis import measure
from previts.evals.outcome import ITEMS, Outcome, Population, item_scores, pack
from previts.media.masks import object_pixels
from previts.models.moco import MoCo
from previts.processes.progress import progress
from previts.storage import file_names, files

SPLIT = "val"  # not stated: the usual split for comparing methods on DAVIS-2016, 20 sequences
SWEEP = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FIGURE_SEQUENCES, FIGURE_FRAMES, THUMBNAIL_WIDTH = 6, 5, 128

Masks = NDArray[np.bool_]
Maps = NDArray[np.float32]
Scores = dict[str, measure.SequenceScore]


@dataclass(frozen=True)
class Sequence480p:
    """One sequence: the URIs of its frames and of their masks, in order of time."""

    name: str
    frames: tuple[str, ...]
    masks: tuple[str, ...]


@dataclass(frozen=True)
class Followed:
    """Attention and ground truth of one sequence, without its first frame.

    Attributes:
        cam: Attention, each frame scaled to [0, 1], Thw.
        truth_cells: Cells that count as object, Thw.
        key_cells: The same for frame 0, hw.
        truth: The object's pixels, THW.
    """

    cam: Maps
    truth_cells: Masks
    key_cells: Masks
    truth: Masks


def track(model: MoCo, data_uri: str, config: EvaluationConfig) -> Outcome:
    """Score attention as a tracker on DAVIS-2016: `davis/j_mean`, `davis/j_recall`, `davis/j_decay` as fractions.

    Primary numbers compare on the grid of the map, `upsampled_` numbers at the size of the frames. `_at_` numbers
    repeat the mean for other thresholds. `static_` numbers score the unmoved first mask: a lower bound for trackers.

    Args:
        model: In eval mode.
        data_uri: Folder with `ImageSets/480p/val.txt`, `JPEGImages/480p` and `Annotations/480p`.
        config: Uses crop, batch_size, davis, limit.

    Raises:
        InputError: If a file of the layout is missing or damaged, or a first mask is empty.
    """
    before, length = frozen.weights_digest(model), model.experiment.sampling.clip_frames
    sequences = [_shortened(sequence, config.limit) for sequence in read_sequences(data_uri)]
    shown = _Figure(sequences)
    scores: list[Scores] = []
    unseen, grid = 0, (0, 0)
    for sequence in progress(sequences, "DAVIS-2016", unit="sequence"):
        followed = follow(model, sequence, config)
        scores.append(_score(followed, config.davis.threshold))
        unseen += int((~followed.truth_cells[:-1].any(axis=(1, 2))).sum())
        grid = followed.truth_cells.shape[1:]
        shown.add(sequence, followed)
    means = {name: measure.mean_score([score[name] for score in scores]) for name in scores[0]}
    numbers = {
        "davis/j_mean": means["grid"].mean,
        "davis/j_recall": means["grid"].recall,
        "davis/j_decay": means["grid"].decay,
        "davis/upsampled_j_mean": means["upsampled"].mean,
        "davis/upsampled_j_recall": means["upsampled"].recall,
        "davis/upsampled_j_decay": means["upsampled"].decay,
        "davis/static_j_mean": means["static"].mean,
        **{f"davis/j_mean_at_{value}": means[f"grid {value}"].mean for value in SWEEP},
        **{f"davis/upsampled_j_mean_at_{value}": means[f"upsampled {value}"].mean for value in SWEEP},
    }
    names = [sequence.name for sequence in sequences]
    items = {
        f"davis/j_{name}": item_scores(names, [getattr(score["grid"], name) for score in scores])
        for name in ("mean", "recall", "decay")
    }
    return Outcome(
        metrics=numbers,
        protocol={
            "primary": f"on the {grid[0]} x {grid[1]} grid of the map: cells covered by more than half, else the most "
            f"covered ({model.experiment.objective.mask_pooling} pooling), against cells at or above the threshold, "
            "the map of each frame scaled to [0, 1]",
            "upsampled": "map enlarged bilinearly to the frame, against the object's pixels",
            "static": "the cells of the first mask, repeated for every frame",
            "threshold": config.davis.threshold,
            "input": f"whole frames squashed to {config.crop} x {config.crop}; key is frame 0 times its mask"
            + (f", as a clip of {length} equal frames; queries are the clips around each frame" if length > 1 else ""),
            "frames": "first and last of a sequence are not scored (DAVIS-2016)",
            "split": SPLIT,
            "scored_frames": sum(len(sequence.frames) - 2 for sequence in sequences),
            "scored_frames_without_the_object": unseen,
            "sequences": [
                {"name": sequence.name, "frames": len(sequence.frames), **_table_row(score)}
                for sequence, score in zip(sequences, scores, strict=True)
            ],
            **frozen.unchanged(model, before),
        },
        figures={"attention.npz": shown.npz()},
        files={ITEMS: pack(items)},
        # Each sequence counts the same, whatever its length. DAVIS-2016 defines no chance level.
        populations=dict.fromkeys(numbers, Population(len(sequences), "sequences")),
    )


def list_uri(data_uri: str, split: str) -> str:
    """Return the URI of the list of a split."""
    return files.join(data_uri, "ImageSets", "480p", f"{split}.txt")


def read_sequences(data_uri: str, split: str = SPLIT) -> list[Sequence480p]:
    """Return the sequences of a split, sorted by name.

    Raises:
        InputError: If the list is missing, a line is invalid, or a sequence has fewer than 3 frames.
    """
    uri = list_uri(data_uri, split)
    try:
        lines = files.read_regular(uri).decode("utf-8-sig", "replace").splitlines()
    except FileNotFoundError:
        raise InputError(f"{uri} is missing; expected DAVIS-2016 as published, at 480p") from None
    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0].count("/") < 2:
            raise InputError(
                f"{uri}, line {number}: expected '/JPEGImages/480p/<sequence>/00000.jpg "
                f"/Annotations/480p/<sequence>/00000.png', got {line!r}"
            )
        frame, mask = (word.rsplit(".", 1)[0].rsplit("/", 2)[1:] for word in words)
        if frame != mask:
            raise InputError(f"{uri}, line {number}: the frame and its mask must have one name, got {line!r}")
        if words[0] in seen:
            raise InputError(f"{uri}, line {number}: {words[0]} is listed twice; replace the list by the original file")
        seen.add(words[0])
        found.setdefault(words[0].rsplit("/", 2)[1], []).append((words[0], words[1]))
    for name, pairs in found.items():
        pairs.sort(key=lambda pair: file_names.by_number(pair[0]))
        if len(pairs) < 3:
            raise InputError(f"{uri}: sequence {name!r} has {len(pairs)} frames; at least 3 are needed")
    if not found:
        raise InputError(f"{uri} has no frames; expected DAVIS-2016 as published, at 480p")
    return [
        Sequence480p(
            name,
            tuple(files.join(data_uri, frame) for frame, _ in pairs),
            tuple(files.join(data_uri, mask) for _, mask in pairs),
        )
        for name, pairs in sorted(found.items())
    ]


def _shortened(sequence: Sequence480p, limit: int) -> Sequence480p:
    chosen = labelled_images.evenly(len(sequence.frames), limit and max(3, limit))
    return Sequence480p(
        sequence.name, tuple(sequence.frames[i] for i in chosen), tuple(sequence.masks[i] for i in chosen)
    )


def follow(model: MoCo, sequence: Sequence480p, config: EvaluationConfig) -> Followed:
    """Return the attention of every frame after the first to the object of the first mask.

    Raises:
        InputError: If a file is missing or damaged, or the first mask is empty.
    """
    size, device = config.crop, features.device_of(model)
    truth_THW = _read_masks(sequence)
    squashed_TSS = np.stack([_squash_mask(mask, size) for mask in truth_THW])
    if not squashed_TSS[0].any():
        raise InputError(f"{sequence.masks[0]} is empty at {size} x {size} pixels; the first mask must show the object")
    load = partial(labelled_images.load_whole, size=size)
    frames_TCSS = np.concatenate(list(features.image_batches(sequence.frames, load, config.batch_size)))
    # A video model gets the clip around each frame; the first and last frame are repeated beyond the ends.
    length, stride = model.experiment.sampling.clip_frames, model.experiment.sampling.clip_stride
    places_TL = np.arange(1, len(frames_TCSS))[:, None] + (np.arange(length) - length // 2) * stride
    places_TL = places_TL.clip(0, len(frames_TCSS) - 1)
    key_LCSS = features.normalised(frames_TCSS[:1].repeat(length, 0), device)
    key_mask_LSS = torch.from_numpy(squashed_TSS[:1].repeat(length, 0)).to(device)
    at_once = max(1, config.batch_size // length)
    parts = []
    for start in range(0, len(places_TL), at_once):
        clips_BLCSS = features.normalised(frames_TCSS[places_TL[start : start + at_once]], device)
        cam_Bthw = attention.key_attention(model, clips_BLCSS, key_LCSS, key_mask_LSS)
        # the time step of the map that contains the frame itself
        parts.append(cam_Bthw[:, length // 2 * cam_Bthw.shape[1] // length].cpu().numpy())
    cam_Thw = unit_scaled(np.concatenate(parts))
    cells_Thw = attention.covered_cells(model, squashed_TSS, (cam_Thw.shape[1], cam_Thw.shape[2]))
    return Followed(cam_Thw, cells_Thw[1:], cells_Thw[0], truth_THW[1:])


def _read_masks(sequence: Sequence480p) -> Masks:
    masks = []
    for uri in sequence.masks:
        # Grey files hold 0 and 255, palette files 0 and the number of the object.
        masks.append(object_pixels(labelled_images.open_image(uri)))
        if masks[-1].shape != masks[0].shape:
            raise InputError(
                f"{uri} has {masks[-1].shape = }, the first mask of the sequence {masks[0].shape}; all need one size"
            )
    height, width = masks[0].shape
    if (size := labelled_images.open_image(sequence.frames[0]).size) != (width, height):
        raise InputError(
            f"{sequence.masks[0]} has {width} x {height} pixels, its frame {sequence.frames[0]} {size[0]} x {size[1]}; "
            "frames and masks must have one size"
        )
    return np.stack(masks)


def _squash_mask(mask_HW: Masks, size: int) -> Masks:
    return np.asarray(Image.fromarray(mask_HW.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)) > 0


def unit_scaled(map_Thw: Maps) -> Maps:
    """Return each map scaled to [0, 1] by its minimum and maximum; a constant map becomes 0."""
    low = map_Thw.min(axis=(1, 2), keepdims=True)
    span = map_Thw.max(axis=(1, 2), keepdims=True) - low
    return np.asarray(np.divide(map_Thw - low, span, out=np.zeros_like(map_Thw), where=span > 0))


def _score(followed: Followed, threshold: float) -> Scores:
    """Return the scores of one sequence by kind: grid, upsampled, static, and the first two for each threshold."""
    cam_Thw, truth_Thw, truth_THW = followed.cam[:-1], followed.truth_cells[:-1], followed.truth[:-1]
    enlarged_THW = _enlarge(cam_Thw, truth_THW.shape[1:])
    static_Thw = np.broadcast_to(followed.key_cells, truth_Thw.shape)
    similarities = {"static": measure.jaccard(static_Thw, truth_Thw)}
    for suffix, value in (("", threshold), *((f" {value}", value) for value in SWEEP)):
        similarities[f"grid{suffix}"] = measure.jaccard(cam_Thw >= value, truth_Thw)
        similarities[f"upsampled{suffix}"] = measure.jaccard(enlarged_THW >= value, truth_THW)
    return {name: measure.sequence_score(value) for name, value in similarities.items()}


def _enlarge(map_Thw: Maps, size: tuple[int, ...]) -> Maps:
    enlarged = F.interpolate(torch.from_numpy(map_Thw)[:, None], size=size, mode="bilinear", align_corners=False)
    return enlarged[:, 0].numpy()


def _table_row(score: Scores) -> dict[str, Any]:
    grid = {f"j_{name}": round(value, 4) for name, value in asdict(score["grid"]).items()}
    return {
        **grid,
        "upsampled_j_mean": round(score["upsampled"].mean, 4),
        "static_j_mean": round(score["static"].mean, 4),
    }


class _Figure:
    """Collects thumbnails of frames that do not depend on the model, so that a report can compare models."""

    def __init__(self, sequences: Sequence[Sequence480p]) -> None:
        shown = [sequences[i] for i in labelled_images.evenly(len(sequences), FIGURE_SEQUENCES)]
        self.names = [sequence.name for sequence in shown]
        self.num_frames = min(FIGURE_FRAMES, *(len(sequence.frames) - 1 for sequence in shown))
        self.size: tuple[int, int] | None = None
        self.rows: dict[str, list[NDArray[Any]]] = {}

    def add(self, sequence: Sequence480p, followed: Followed) -> None:
        """Add the thumbnails of a sequence, if it is among the shown sequences."""
        if sequence.name not in self.names:
            return
        if self.size is None:
            height, width = followed.truth.shape[1:]
            self.size = (THUMBNAIL_WIDTH, max(1, round(THUMBNAIL_WIDTH * height / width)))
        chosen = labelled_images.evenly(len(followed.cam), self.num_frames)
        key_mask = object_pixels(labelled_images.open_image(sequence.masks[0]))
        row: dict[str, NDArray[Any]] = {
            "frames": np.stack([self._frame(sequence.frames[1 + i]) for i in chosen]),
            "cams": followed.cam[chosen].astype(np.float16),
            "masks": np.stack([self._mask(followed.truth[i]) for i in chosen]),
            "key_frames": self._frame(sequence.frames[0]),
            "key_masks": self._mask(key_mask),
        }
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)

    def npz(self) -> bytes:
        """Return `names`, `frames` NTHWC, `cams` NThw, `masks` NTHW, `key_frames` NHWC and `key_masks` NHW."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(values) for name, values in self.rows.items()}
        np.savez_compressed(file, names=np.array(self.names), **arrays)
        return file.getvalue()

    def _frame(self, uri: str) -> NDArray[np.uint8]:
        assert self.size is not None
        image = labelled_images.as_rgb(labelled_images.open_image(uri)).resize(self.size, Image.Resampling.BOX)
        return np.asarray(image, dtype=np.uint8)

    def _mask(self, mask_HW: Masks) -> Masks:
        assert self.size is not None
        return np.asarray(Image.fromarray(mask_HW.astype(np.uint8)).resize(self.size, Image.Resampling.NEAREST)) > 0
