"""Images of one video: the map of each saliency prior, the salient regions and the tube.

PreViTS section 3.2 for a single video. A file is processed like a crawl of one video, by the same code. A video of an
index is shown as it was stored. This module stores no result of a stage.
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
from previts.config.experiment import Experiment
from previts.config.perception import PRIORS, SaliencyConfig
from previts.corpus import index_table, members, quality, region_table, tube_table, video_table
from previts.corpus.index_table import IndexRecord
from previts.corpus.region_table import SaliencyRecord
from previts.corpus.tube_table import Tube
from previts.errors import InputError
from previts.ingest import shards
from previts.ingest.crawls import CrawlItem
from previts.media import drawing, normalisation
from previts.saliency import predict
from previts.saliency.priors import prior_maps
from previts.storage import files, folders, tables
from previts.tracking import tracker

WINDOW_SECONDS = 30.0  # length of the window of a file if no end is given
SHEET, OVERLAY = "sheet.png", "overlay.mp4"


@dataclass(frozen=True)
class Stages:
    """The output of each stage for one video, the video's row of the index, and the saliency settings."""

    videos: str
    saliency: str
    tubes: str
    model: str
    config: SaliencyConfig
    row: IndexRecord


def look_at_file(
    source: str,
    out: str,
    experiment: Experiment,
    model: str,
    *,
    start: float | None,
    end: float | None,
    frames: int,
) -> str:
    """Write the contact sheet and the overlay of any video, and return a description of it.

    Args:
        source: Path or URI of the video. It is fetched and decoded like a video of a crawl.
        out: Folder for the two files.
        experiment: Settings of the stored video, of the saliency and of the tracker.
        model: URI of the saliency model; not used by a handcrafted prior.
        start: Start of the window in seconds; None is the start of the video.
        end: End of the window in seconds; None is `WINDOW_SECONDS` after its start.
        frames: Number of frames on the contact sheet, one a row.

    Raises:
        InputError: If the window is empty or the video cannot be used.
    """
    if end is None:
        end = (start or 0.0) + WINDOW_SECONDS
    if not 0 <= (start or 0.0) < end:  # also false for nan
        raise InputError(
            f"--start-seconds must be 0 or more and less than --end-seconds, got {start or 0:g} and {end:g}"
        )
    with tempfile.TemporaryDirectory(prefix="previts-") as root:
        videos, saliency, tracked = (files.join(root, stage) for stage in ("videos", "saliency", "tubes"))
        (made,) = shards.build_shard([CrawlItem("video", source, start, end, "", "")], 0, videos, experiment.video)
        if made.status != "ok":
            stored = "; to look at a stored video, give its id and --index" if "no such" in made.error else ""
            raise InputError(f"{source}: {made.error}{stored}")
        predict.predict_shard(videos, model, 0, experiment.saliency, saliency)
        tracker.track_shard(videos, saliency, 0, experiment.track, tracked)
        row = tables.row(index_table.join_shard(videos, tracked, 0), IndexRecord, 0)
        whole = start is None and row.num_frames / row.fps < end - 1 / row.fps
        name = source if whole else f"{source} from {start or 0:g} s to {end:g} s"
        return _look(Stages(videos, saliency, tracked, model, experiment.saliency, row), out, frames, name)


def look_at_stored(index_uri: str, video_id: str, out: str, frames: int) -> str:
    """Write the contact sheet and the overlay of a video of an index as it was stored, and return a description of it.

    The video may also be one that the filter left out.

    Args:
        index_uri: URI of the index.
        video_id: Id of the video.
        out: Folder for the two files.
        frames: Number of frames on the contact sheet, one a row.

    Raises:
        InputError: If the index has no such video, or the output of an earlier stage was deleted.
    """
    row = index_table.find_video(index_uri, video_id)
    manifest = folders.read_manifest(index_uri)
    videos, tubes = (members.uris(manifest.inputs[name])[row.crawl] for name in ("videos", "tubes"))
    saliency = folders.ancestor(tubes, "saliency")
    found = folders.read_manifest(saliency)
    config = SaliencyConfig(**found.decided["saliency"])
    stages = Stages(videos, saliency, tubes, found.inputs["model"], config, row)
    judged = next(item for item in index_table.read_quality(index_uri) if item.video_id == video_id)
    detail = f" ({judged.detail})" if judged.detail else ""
    field = quality.REASONS.get(judged.reason, "")
    left_out = f", left out by {f'filter.{field}' if field else judged.reason}{detail}" if judged.reason else ""
    return _look(stages, out, frames, f"{video_id} of {index_uri}{left_out}")


def folder_for(name: str) -> str:
    """Return the default name of the output folder for a video."""
    stem = re.sub(r"\.\w{1,5}$", "", name.rstrip("/").rsplit("/", 1)[-1])
    return "look-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "video")


def _look(stages: Stages, out: str, frames: int, name: str) -> str:
    row = stages.row
    salient = [item for item in region_table.read_shard(stages.saliency, row.shard) if item.video_id == row.video_id]
    tube = tube_table.read_tube(stages.tubes, row)
    chosen = np.unique(np.linspace(0, len(salient) - 1, frames).round().astype(int))
    files.check_writable(out)
    sheet, overlay = files.join(out, SHEET), files.join(out, OVERLAY)
    # On small matrices the threads of BLAS wait for each other, see `predict.predict_shard`.
    with _local(sheet) as path, threadpool_limits(limits=1, user_api="blas"):
        Image.fromarray(_sheet(stages, [salient[place] for place in chosen], tube)).save(path)
    with _local(overlay) as path:
        normalisation.encode_video(_overlay(stages, tube), row.fps, path)
    return "\n".join([f"contact sheet  {sheet}", f"overlay        {overlay}", *_describe(stages, tube, name)])


@contextmanager
def _local(uri: str) -> Iterator[str]:
    """Yield a local path to write to, and upload the file to `uri` at the end."""
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        path = os.path.join(folder, uri.rsplit("/", 1)[-1])
        yield path
        files.upload(path, uri)


def _sheet(stages: Stages, salient: Sequence[SaliencyRecord], tube: Tube) -> drawing.Array:
    """Draw one row for each key frame: the frame, the map of each prior and of the model, the mask and the tube."""
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
        line = [
            small,
            *(drawing.heat(drawing.resize_map(found[name], small)) for name in found),
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
    """Yield every frame with the tube drawn on it; only `predict.FRAMES_AT_ONCE` frames are in memory at a time."""
    row = stages.row
    for start in range(0, row.num_frames, predict.FRAMES_AT_ONCE):
        frames = list(range(start, min(start + predict.FRAMES_AT_ONCE, row.num_frames)))
        images_THWC = _read(stages, frames)
        for frame, image, mask in zip(frames, images_THWC, tube.masks(frames), strict=True):
            yield drawing.with_tube(image, mask, _absent(row, frame))


def _absent(row: IndexRecord, frame: int) -> str:
    """Return the label of a frame in which the tube is empty."""
    return "no tube" if not row.spans else "not yet" if frame < row.spans[0][0] else "lost"


def _describe(stages: Stages, tube: Tube, name: str) -> list[str]:
    row, judged = stages.row, index_table.quality_of(stages.row)
    size = f"{row.num_frames} frames of {row.width} x {row.height} at {row.fps:g} a second"
    every = "every frame" if stages.config.every == 1 else f"1 frame in {stages.config.every}"
    lines = [
        f"video          {name}: {judged.seconds:.1f} s, {size}",
        f"saliency       {stages.config.method} on {every}, threshold {stages.config.threshold:g}",
    ]
    if judged.tube_seconds:
        areas = [sum(counts[1::2]) / (row.height * row.width) for counts in tube.key_counts]
        end = "visible at the end" if judged.lost_seconds is None else f"lost for good at {judged.lost_seconds:.1f} s"
        lines += [
            f"tube           visible {judged.tube_seconds:.1f} of {judged.seconds:.1f} s ({judged.held:.0%}), in "
            f"{len(row.spans)} {'span' if len(row.spans) == 1 else 'spans'}; {end}",
            f"area           {row.mean_area:.1%} of the frame on average, from {min(areas):.1%} to {max(areas):.1%}",
            f"edge           the tube touches the border in {row.border_share:.0%} of its key frames",
        ]
    elif stages.config.method == "none":
        lines.append("tube           none: with saliency.method=none no region is salient")
    else:
        lines.append("tube           none: no salient region is large enough to be tracked")
    if row.agreement is not None:
        lines.append(f"agreement      {row.agreement:.2f} among the handcrafted priors, on the first frame")
    return lines
