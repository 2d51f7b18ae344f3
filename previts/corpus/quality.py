"""The quality of each video without ground truth: how long its object is visible, its size, and how far priors agree.

PreViTS section 3.2 keeps every video. Here a filter can remove videos, each for one reason. This module computes with
plain numbers; it reads no files and no masks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from previts.config.perception import FilterConfig
from previts.errors import InputError
from previts.storage import csv_text, tables
from previts.storage.tables import Count, Positive, Share

# Why a video is removed, and the field of `FilterConfig` that decides it, if any. The first reason that applies counts.
Reason = Literal["", "withdrawn", "duplicate", "leak", "short", "small", "large", "disagreeing"]
REASONS = {
    "withdrawn": "",
    "duplicate": "duplicates",
    "leak": "leakage",
    "short": "min_tube_seconds",
    "small": "min_area",
    "large": "max_area",
    "disagreeing": "min_agreement",
}
Key = tuple[int, str]  # a video of a corpus: the number of its crawl, and its id
# Thresholds that `previts quality` shows, so that the user can choose one; from mild to strict.
CANDIDATES = {
    "min_tube_seconds": (0.1, 0.5, 1.0, 2.0, 4.0, 8.0),
    "min_area": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
    "max_area": (0.9, 0.7, 0.5, 0.4, 0.3, 0.2),
    "min_agreement": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
}


@dataclass(frozen=True)
class LeftOut:
    """Why a video is left out; `detail` says more in words, such as whose copy it is."""

    reason: Literal["withdrawn", "duplicate", "leak"]
    detail: str


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of one video of a crawl, as far as it is known without ground truth.

    Attributes:
        crawl: Number of its crawl in the corpus.
        reason: Why the filter removed the video, one of `REASONS`; "" if it is kept.
        detail: More about the reason in words, such as whose copy it is.
        seconds: Length of the video.
        tube_seconds: How long the object is visible.
        mean_area: Mean share of the frame that the object covers while it is visible; 0 without a tube.
        lost_seconds: Time from which the object is not visible again; 0 without a tube; None if it is visible at the
            end.
        border_share: Share of the tracked key frames in which the object touches the edge of the frame.
        agreement: Agreement of the handcrafted priors on the first key frame; None if they were not compared.
    """

    video_id: str
    label: str
    split: str
    crawl: Count
    shard: Count
    reason: Reason
    detail: str
    seconds: Positive
    tube_seconds: Positive
    mean_area: Share
    lost_seconds: Positive | None
    border_share: Share
    agreement: Share | None

    @property
    def held(self) -> float:
        """Share of the video in which the object is visible."""
        return self.tube_seconds / self.seconds if self.seconds else 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key, the best video first: by `held`, then by agreement."""
        return (-self.held, -(self.agreement or 0.0))


def judged(videos: pa.Table, config: FilterConfig) -> pa.Table:
    """Return videos with the reason why the filter removes each, or ""; a reason that is known already stays.

    Without a tube, the area decides nothing.

    Args:
        videos: Table of `Quality`.
        config: The filter.
    """
    seconds, area = videos.column("tube_seconds"), videos.column("mean_area")
    found = pc.greater(seconds, 0.0)
    cases = {
        "known": pc.not_equal(videos.column("reason"), ""),
        "short": pc.less(seconds, config.min_tube_seconds),
        "small": pc.and_(found, pc.less(area, config.min_area)),
        "large": pc.and_(found, pc.greater(area, config.max_area)),
        "disagreeing": pc.fill_null(pc.less(videos.column("agreement"), config.min_agreement), False),
    }
    conditions = pa.StructArray.from_arrays([_array(case) for case in cases.values()], list(cases))
    why = pc.case_when(conditions, _array(videos.column("reason")), *list(cases)[1:], "")
    place = videos.schema.get_field_index("reason")
    return videos.set_column(place, videos.schema.field(place), why)


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def check_judged(videos: pa.Table, config: FilterConfig) -> None:
    """Raise an InputError if the filter needs an agreement that is not known, or keeps no video.

    Args:
        videos: Table of the videos as `judged` returned them, at least one.
        config: The filter.
    """
    kept = videos.filter(pc.equal(videos.column("reason"), ""))
    if config.min_agreement and (unknown := kept.column("agreement").null_count):
        raise InputError(
            f"filter.min_agreement={config.min_agreement:g} needs the agreement of the saliency priors, which is "
            f"unknown for {unknown} of {len(videos)} videos; run `previts saliency` and `previts track` with "
            "saliency.agreement=true and a method other than none"
        )
    if not kept.num_rows:
        counts = filtered(videos.column("reason").to_pylist())
        removed = ", ".join(
            f"filter.{field}={getattr(config, field)} removes {count}" if field else f"{count} {name}"
            for name, field in REASONS.items()
            if (count := counts[f"filtered_{name}"])
        )
        raise InputError(
            f"the filter keeps none of the {len(videos)} videos: {removed}; choose other values "
            "(`previts quality` on an index without a filter shows how many videos each value keeps)"
        )


def filtered(reasons: Sequence[str]) -> dict[str, int]:
    """Return the number of videos, and how many of them the filter removed: in total and for each reason."""
    out = Counter(reasons)
    counts = {f"filtered_{name}": out[name] for name in REASONS}
    return {"videos_in": len(reasons), "filtered": len(reasons) - out[""], **counts}


def summarise(videos: pa.Table) -> dict[str, float]:
    """Return the quality of a crawl in numbers; numbers without any data are left out.

    `tube_share` and `agreement_*` are over all videos, `lost_at` over the tubes that were lost, the others over the
    videos with a tube. `lost_at` is a median, as a share of the video.

    Args:
        videos: Table of `Quality`.
    """

    def column(name: str) -> NDArray[np.float64]:
        return np.asarray(videos.column(name).to_numpy(), np.float64)

    tube_seconds, seconds, lost_seconds, agreement = map(
        column, ("tube_seconds", "seconds", "lost_seconds", "agreement")
    )
    found = tube_seconds > 0
    lost = (lost_seconds / seconds)[found & ~np.isnan(lost_seconds)]
    spread = {
        "tube_seconds": tube_seconds[found],
        "held": (tube_seconds / seconds)[found],
        "area": column("mean_area")[found],
        "border": column("border_share")[found],
        "agreement": agreement[~np.isnan(agreement)],
    }
    counts: dict[str, float] = {}
    if len(found):
        counts["tube_share"] = int(found.sum()) / len(found)
    if found.any():
        counts["lost_share"] = len(lost) / int(found.sum())
    if len(lost):
        counts["lost_at"] = float(np.median(lost))
    for name, values in spread.items():
        if len(values):
            q25, q50, q75 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
            counts |= {f"{name}_mean": float(np.mean(values)), f"{name}_q25": q25, f"{name}_q50": q50}
            counts[f"{name}_q75"] = q75
    return {name: round(value, 4) for name, value in counts.items()}


def kept_by(videos: pa.Table, field: str, value: float) -> int:
    """Return how many videos of a table of `Quality` a filter with only this threshold keeps."""
    # The other fields have their defaults, which remove nothing, so `min_area` is never above `max_area`.
    config = replace(FilterConfig(), **{field: value})  # type: ignore[arg-type]  # a threshold
    place = videos.schema.get_field_index("reason")
    unjudged = videos.set_column(place, videos.schema.field(place), pa.array([""] * len(videos), pa.string()))
    return int(pc.sum(pc.equal(judged(unjudged, config).column("reason"), "")).as_py() or 0)


def held_curve(videos: Sequence[Quality], points: int = 101) -> tuple[list[float], list[float]]:
    """Return the curve of tubes that are not yet lost: shares of the video's length, and the share of tubes at each."""
    found = (video for video in videos if video.tube_seconds)
    ends = np.array([1.0 if video.lost_seconds is None else video.lost_seconds / video.seconds for video in found])
    at = np.linspace(0, 1, points)
    # A tube that is visible at the end counts at the last point too.
    still = [float(np.mean((ends > share) | (ends >= 1))) if len(ends) else 0.0 for share in at]
    return at.tolist(), still


def complaint(video: Quality) -> str:
    """Return in words the numbers that show how weak a video is."""
    if not video.tube_seconds:
        return "no object found"
    words = [f"visible {video.tube_seconds:.1f} of {video.seconds:.1f} s"]
    if video.lost_seconds is not None:
        words.append(f"lost at {video.lost_seconds:.1f} s")
    words.append(f"{100 * video.mean_area:.1f} % of the frame")
    if video.border_share >= 0.5:
        words.append(f"at the edge in {100 * video.border_share:.0f} % of its key frames")
    if video.agreement is not None:
        words.append(f"priors agree {video.agreement:.2f}")
    return ", ".join(words)


def to_csv(videos: Sequence[Quality]) -> str:
    """Return a CSV with a line for each video; numbers have all their digits."""
    columns = [field.name for field in fields(Quality)]
    return csv_text.to_csv(columns, ([getattr(video, column) for column in columns] for video in videos))


def spread(videos: Sequence[Quality]) -> list[tuple[str, list[str]]]:
    """Return the table of a crawl's quality: for each number a title, then mean and quartiles as text."""
    counts, lines = summarise(tables.to_table(Quality, videos)), []

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    number: Callable[[float], str] = "{:.2f}".format
    for title, name, show in (
        ("object visible, seconds", "tube_seconds", number),
        ("object visible, share of the video", "held", percent),
        ("area, share of the frame", "area", percent),
        ("at the edge, share of key frames", "border", percent),
        ("agreement of the priors", "agreement", number),
    ):
        if f"{name}_mean" in counts:
            lines.append((title, [show(counts[f"{name}_{part}"]) for part in ("mean", "q25", "q50", "q75")]))
    return lines


def describe(videos: Sequence[Quality], worst: int) -> str:
    """Return the quality of a crawl as text for a terminal, with its `worst` weakest videos."""
    table = tables.to_table(Quality, videos)
    counts = summarise(table)
    out = filtered([video.reason for video in videos])
    found = [video for video in videos if video.tube_seconds]
    lost = [video for video in found if video.lost_seconds is not None]
    lines = [
        f"videos      {out['videos_in']}, of which the filter left out {out['filtered']}"
        + "".join(f", {out[f'filtered_{name}']} {name}" for name in REASONS if out[f"filtered_{name}"]),
        f"with a tube {len(found)} ({counts.get('tube_share', 0):.0%})",
        f"lost        {len(lost)} before the end ({counts.get('lost_share', 0):.0%} of the tubes)"
        + (f", half of them before {counts['lost_at']:.0%} of the video" if lost else ""),
        "",
        f"{'':<38}{'mean':>8}{'25 %':>8}{'50 %':>8}{'75 %':>8}",
    ]
    lines += [f"{title:<38}{''.join(f'{cell:>8}' for cell in cells)}" for title, cells in spread(videos)]
    lines += ["", f"What each threshold, alone, would keep of {len(videos)} videos (value: kept):"]
    for field, values in CANDIDATES.items():
        if field == "min_agreement" and any(video.agreement is None for video in videos):
            lines.append(f"  {'filter.' + field:<26}cannot be set: the priors were not compared on every video")
            continue
        cells = "".join(f"{f'{value:g}: {kept_by(table, field, value)}':>13}" for value in values)
        lines.append(f"  {'filter.' + field:<26}{cells}")
    lines += ["", "The weakest:"] if worst else []
    for video in sorted(videos, key=lambda video: (video.rank, video.video_id), reverse=True)[:worst]:
        left = f" (left out: {video.reason})" if video.reason else ""
        lines.append(f"  {video.video_id:<28} {complaint(video)}{left}")
    return "\n".join(lines)
