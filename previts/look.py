"""One video looked at closely: what each saliency prior says, which regions were salient, and the tube that came of it.

PreViTS section 3.2 for a single video. A file goes the way of a crawl of one video, through the same code; a stored
video is shown as it was stored. Decides nothing.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from previts import errors
from previts.config.experiment import PRIORS, Experiment, SaliencyConfig
from previts.corpus import index_table, quality, region_table, tube_table, video_table
from previts.corpus.index_table import IndexRecord
from previts.corpus.region_table import SaliencyRecord
from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import drawing, normalisation
from previts.saliency import predict
from previts.saliency.priors import prior_maps
from previts.storage import files, folders
from previts.tracking import tracker

WINDOW_SECONDS = 30.0  # of a file, where no end is given
SHEET, OVERLAY = "sheet.png", "overlay.mp4"


@dataclass(frozen=True)
class Stages:
    """The folders that hold one video at each stage, its row, and how its saliency was found."""

    videos: str
    saliency: str
    tubes: str
    model: str
    config: SaliencyConfig
    row: IndexRecord


def look_at_file(
    source: str, out: str, experiment: Experiment, model: str, start: float | None, end: float | None, frames: int
) -> str:
    """Write the contact sheet and the overlay of any video and return an account of it.

    Args:
        source: Path or URI of the video; it is fetched and decoded as one of a crawl.
        out: Folder for the two files.
        experiment: How videos are stored, what is salient, how it is followed.
        model: URI of the saliency model; a handcrafted prior needs none.
        start: Where to begin, in seconds; None is the start of the video.
        end: Where to stop; None is after half a minute.
        frames: Rows of the contact sheet.

    Raises:
        InputError: If the video cannot be used.
    """
    if end is None:
        end = (start or 0.0) + WINDOW_SECONDS
    if (start is not None and start < 0) or end <= (start or 0.0):
        raise InputError(f"the window must be start < end from 0 on, got {start or 0:g} to {end:g} s")
    with tempfile.TemporaryDirectory(prefix="previts-") as root:
        videos, saliency, tracked = (files.join(root, stage) for stage in ("videos", "saliency", "tubes"))
        (made,) = shards.build_shard([CrawlItem("video", source, start, end, "", "")], 0, videos, experiment.video)
        if made.status != "ok":
            stored = "; a stored video is named by its id together with --index" if "no such" in made.error else ""
            raise InputError(f"{source}: {made.error}{stored}")
        predict.predict_shard(videos, model, 0, experiment.saliency, saliency)
        tracker.track_shard(videos, saliency, 0, experiment.track, tracked)
        (row,) = index_table.join_shard(videos, tracked, 0)
        whole = start is None and row.num_frames / row.fps < end - 1 / row.fps
        name = source if whole else f"{source} from {start or 0:g} s to {end:g} s"
        return _look(Stages(videos, saliency, tracked, model, experiment.saliency, row), out, frames, name)


def look_at_stored(index_uri: str, video_id: str, out: str, frames: int) -> str:
    """Write the contact sheet and the overlay of a video of an index, as it was stored; see `look_at_file`.

    A video that the filter left out can be looked at too.

    Raises:
        InputError: If there is no such video, or a stage that it came through is gone.
    """
    row = index_table.find_video(index_uri, video_id)
    manifest = folders.read_manifest(index_uri)
    saliency = folders.ancestor(index_uri, "tubes", "saliency")
    found = folders.read_manifest(saliency)
    config = SaliencyConfig(**found.decided["saliency"])
    stages = Stages(manifest.inputs["videos"], saliency, manifest.inputs["tubes"], found.inputs["model"], config, row)
    (judged,) = (item for item in index_table.read_quality(index_uri) if item.video_id == video_id)
    left_out = f", left out of it by filter.{quality.REASONS[judged.reason]}" if judged.reason else ""
    return _look(stages, out, frames, f"{video_id} of {index_uri}{left_out}")


def folder_for(name: str) -> str:
    """Return the name of a folder for what is found about a video."""
    stem = re.sub(r"\.\w{1,5}$", "", name.rstrip("/").rsplit("/", 1)[-1])
    return "look-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "video")


def _look(stages: Stages, out: str, frames: int, name: str) -> str:
    row = stages.row
    salient = [item for item in region_table.read_shard(stages.saliency, row.shard) if item.video_id == row.video_id]
    tube = tube_table.read_tube(stages.tubes, row.shard, row.tube_offset, row.tube_size)
    chosen = np.unique(np.linspace(0, len(salient) - 1, frames).round().astype(int))
    files.check_writable(out)
    sheet, overlay = files.join(out, SHEET), files.join(out, OVERLAY)
    # On small matrices threads of BLAS only wait for each other, see `predict.predict_shard`.
    with _local(sheet) as path, threadpool_limits(limits=1, user_api="blas"):
        Image.fromarray(_sheet(stages, [salient[place] for place in chosen], tube)).save(path)
    with _local(overlay) as path:
        normalisation.encode_video(_overlay(stages, tube), row.fps, path)
    return "\n".join([f"contact sheet  {sheet}", f"overlay        {overlay}", *_account(stages, tube, name)])


@contextmanager
def _local(uri: str) -> Iterator[str]:
    """Give a path to write to, and put what was written there to `uri`."""
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        path = os.path.join(folder, uri.rsplit("/", 1)[-1])
        yield path
        files.upload(path, uri)


def _sheet(stages: Stages, salient: Sequence[SaliencyRecord], tube: Tube) -> drawing.Array:
    """Return a row for each of some key frames: the frame, the priors, the chosen map, the mask and the tube."""
    keys = [item.frame for item in salient]
    images_THWC = _read(stages, keys)
    method = stages.config.method
    maps_THW = None
    if method not in ("supervised", "none", *PRIORS):
        maps_THW = predict.load_predictor(stages.model, stages.config)(images_THWC)
    rows = []
    for place, (item, image) in enumerate(zip(salient, images_THWC, strict=True)):
        found = prior_maps(image, PRIORS)
        if maps_THW is not None:
            found[method] = maps_THW[place]
        small = drawing.resize(image)
        pictures = [drawing.heat(drawing.resize_map(found[name], small)) for name in found]
        line = [
            small,
            *pictures,
            drawing.only(small, np.asarray(item.masks().any(axis=0))),
            drawing.with_tube(small, tube.mask(item.frame), _absent(stages.row, item.frame)),
        ]
        rows.append((f"{item.frame / stages.row.fps:.2f} s", line))
    titles = ["frame", *(f"{name} (chosen)" if name == method else name for name in found), "salient", "tube"]
    return drawing.sheet(titles, rows)


def _read(stages: Stages, frames: list[int]) -> drawing.Array:
    try:
        return video_table.read_frames(stages.videos, stages.row, frames)
    except errors.VideoError as error:
        raise video_table.unreadable(stages.videos, stages.row, error) from error


def _overlay(stages: Stages, tube: Tube) -> Iterator[drawing.Array]:
    """Yield every frame with the tube on it, some frames in memory at a time."""
    row = stages.row
    for start in range(0, row.num_frames, predict.FRAMES_AT_ONCE):
        frames = list(range(start, min(start + predict.FRAMES_AT_ONCE, row.num_frames)))
        images_THWC = _read(stages, frames)
        for frame, image, mask in zip(frames, images_THWC, tube.masks(frames), strict=True):
            yield drawing.with_tube(image, mask, _absent(row, frame))


def _absent(row: IndexRecord, frame: int) -> str:
    """Return what to say of a frame without a tube."""
    return "no tube" if not row.spans else "not yet" if frame < row.spans[0][0] else "lost"


def _account(stages: Stages, tube: Tube, name: str) -> list[str]:
    row, figures = stages.row, index_table.quality_of(stages.row)
    size = f"{row.num_frames} frames of {row.width} x {row.height} at {row.fps:g} a second"
    every = "every frame" if stages.config.every == 1 else f"1 frame in {stages.config.every}"
    lines = [
        f"video          {name}: {figures.seconds:.1f} s, {size}",
        f"saliency       {stages.config.method} on {every}, threshold {stages.config.threshold:g}",
    ]
    if figures.tube_seconds:
        areas = [sum(counts[1::2]) / (row.height * row.width) for counts in tube.key_counts]
        end = "held to the end" if figures.lost_seconds is None else f"lost for good at {figures.lost_seconds:.1f} s"
        lines += [
            f"tube           visible {figures.tube_seconds:.1f} of {figures.seconds:.1f} s ({figures.held:.0%}), in "
            f"{len(row.spans)} {'span' if len(row.spans) == 1 else 'spans'}; {end}",
            f"area           {row.mean_area:.1%} of the frame on average, from {min(areas):.1%} to {max(areas):.1%}",
            f"edge           touched in {row.border_share:.0%} of its key frames",
        ]
    elif stages.config.method == "none":
        lines.append("tube           none: saliency.method=none looks for nothing")
    else:
        lines.append("tube           none: no salient region is large enough to be followed")
    if row.agreement is not None:
        lines.append(f"agreement      {row.agreement:.2f} among the handcrafted priors, on the first frame")
    return lines
