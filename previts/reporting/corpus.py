"""The corpus in a report: the outcome of the crawl, the quality of the tubes, and some tubes as images.

Figure 1 of PreViTS. Where exact masks are stored next to the crawl (`truth.py`), also the overlap of tubes and masks.
Shows stored files only. For an unreadable file it states the cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc
from markupsafe import Markup

from previts.corpus import quality, truth, tube_table, video_table
from previts.corpus.index_table import Index, IndexRecord, read_index, read_quality
from previts.corpus.quality import Quality
from previts.corpus.truth import Score, Truth
from previts.errors import InputError, VideoError
from previts.media.masks import iou
from previts.reporting import figures
from previts.reporting.inputs import short
from previts.storage import folders
from previts.storage.folders import Manifest

FRAMES = 8  # of a strip
# The best, median and worst tubes are shown: three each of the first corpus, one each of the next two.
STRIPS, CORPORA_WITH_STRIPS = 3, 3
FAILURE_REASONS = 6


@dataclass(frozen=True)
class TubeStrip:
    """Frames of one video with its tube; `timeline` has (start, length) of its spans in percent of the video.

    Where exact masks are known, `score` belongs to the whole tube and `ious` to the frames shown.
    """

    video_id: str
    why: str
    seconds: float
    visible_seconds: float
    agreement: float | None
    timeline: list[tuple[float, float]]
    image: str
    cause: str
    score: Score | None
    ious: list[float]


@dataclass(frozen=True)
class Chart:
    """A small chart with a title and an explanation."""

    title: str
    meaning: str
    svg: Markup


@dataclass(frozen=True)
class Corpus:
    """The outcome of a crawl, and its tubes.

    Attributes:
        steps: (what, number, share in percent of the step that it is compared with, remark).
        spread: (what, mean and quartiles as text) of all videos that reached the index.
        leakage: With what the corpus was compared, and which labelled sets could not be read.
        unguarded: Why the numbers of the benchmarks may be too high; "" if nothing is known to be wrong.
        score: Mean over the `labelled` videos with exact masks; None without such videos.
    """

    uri: str
    fingerprint: str = ""
    cause: str = ""
    steps: list[tuple[str, str, float, str]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    leakage: str = ""
    unguarded: str = ""
    spread: list[tuple[str, list[str]]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    score: Score | None = None
    labelled: int = 0
    strips: list[TubeStrip] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int | float]:
        """The comparison with exact masks, as numbers."""
        if self.score is None:
            return {}
        counts = {"tube_videos": self.labelled, "tube_iou": round(self.score.iou, 4)}
        counts["tube_tracked"] = round(self.score.tracked, 4)
        if self.score.tracked_iou is not None:
            counts["tube_tracked_iou"] = round(self.score.tracked_iou, 4)
        return counts


def read_corpus(uri: str, number: int) -> Corpus:
    """Return the summary of one corpus, with strips of its videos for the first few corpora."""
    try:
        index = read_index(uri)
        manifest = folders.read_manifest(uri)
        videos = folders.read_manifest(manifest.inputs["videos"])
        judged = read_quality(uri)
        exact = truth.find_truths([crawl.videos for crawl in index.crawls])
        scores, cause = score_index(index, exact)
    except InputError as error:
        return Corpus(uri, cause=f"The corpus cannot be read: {short(error)}")
    strips = STRIPS if number == 0 else 1 if number < CORPORA_WITH_STRIPS else 0
    ranked = sorted(((count, short(reason, 200)) for reason, count in videos.errors.items()), key=lambda item: -item[0])
    kept = [video for video in judged if not video.reason]
    return Corpus(
        uri=uri,
        fingerprint=manifest.fingerprint,
        cause=f"Exact masks: {short(cause)}" if cause else "",
        steps=_funnel(index, manifest, videos, judged),
        failures=ranked[:FAILURE_REASONS],
        leakage=_leakage(manifest),
        unguarded=_unguarded(manifest),
        spread=quality.spread(judged),
        charts=_charts(judged),
        score=truth.mean_score(list(scores.values())) if scores else None,
        labelled=len(scores),
        strips=[
            _tube_strip(
                index,
                row := index[place],
                why=why,
                exact=exact[row.crawl],
                score=scores.get(row.video_id),
            )
            for place, why in choose(kept, strips)
        ],
    )


def _funnel(
    index: Index, manifest: Manifest, videos: Manifest, judged: Sequence[Quality]
) -> list[tuple[str, str, float, str]]:
    frames, fps, tracked = (index.table.column(name).to_numpy() for name in ("num_frames", "fps", "tracked_frames"))
    spans = int(pc.sum(pc.list_value_length(index.table.column("spans"))).as_py() or 0)
    crawled = int(videos.counts.get("videos", len(judged)))
    failed = int(videos.counts.get("failed", crawled - len(judged)))
    with_tube = int((tracked > 0).sum())
    seconds, visible = float((frames / fps).sum()), float((tracked / fps).sum())
    costly, shortened = (int(videos.counts.get(name, 0)) for name in ("too_costly", "shortened"))
    remarks = f", {costly:,} of them too costly to decode" if costly else ""
    remarks += f"; {shortened:,} usable ones are shorter than their container states" if shortened else ""
    lost = "" if crawled == len(judged) + failed else f"; {crawled - len(judged) - failed} are unaccounted for"
    return [
        ("Videos in the crawl", f"{crawled:,}", 100.0, ""),
        ("Usable videos", f"{len(judged):,}", _share(len(judged), crawled), f"{failed:,} failed{remarks}{lost}"),
        ("Kept by the filter", f"{len(index):,}", _share(len(index), crawled), _left_out(judged, manifest)),
        ("Videos with a tube", f"{with_tube:,}", _share(with_tube, crawled), f"{len(index) - with_tube:,} without"),
        ("Length of the kept videos", _duration(seconds), 100.0, f"{seconds / max(1, len(index)):.1f} s each"),
        (
            "Time in which the object is visible", _duration(visible), _share(visible, seconds),
            f"in {spans:,} spans, {visible / max(1, spans):.1f} s each",
        ),
    ]  # fmt: skip


def _left_out(judged: Sequence[Quality], manifest: Manifest) -> str:
    """Return how many videos each threshold of the filter left out."""
    counts = quality.filtered([video.reason for video in judged])
    config = {"leakage": "drop", **(manifest.decided.get("filter") or {})}  # an index does not depend on this setting
    reasons = [
        f"{counts[f'filtered_{name}']:,} {name}" + (f" (filter.{field}={config.get(field, '?')})" if field else "")
        for name, field in quality.REASONS.items()
        if counts[f"filtered_{name}"]
    ]
    return f"{counts['filtered']:,} left out: {', '.join(reasons)}" if reasons else "none left out"


def _leakage(manifest: Manifest) -> str:
    """Return how many leaks were left out, and with what the corpus was compared; "" if with nothing."""
    counts, sets = manifest.counts, manifest.info.get("leak_sets") or {}
    compared = ", ".join(name for name, known in sorted(sets.items()) if not known["causes"].get(""))
    if not compared:
        return ""
    left_out, items, unreadable = (
        int(counts.get(name, 0)) for name in ("filtered_leak", "leak_items", "leak_unreadable")
    )
    rest = f" {unreadable:,} items could not be compared: they are unreadable, or too uniform." if unreadable else ""
    which = "video was left out because it shows" if left_out == 1 else "videos were left out because they show"
    return (
        f"{left_out:,} {which} a test item of a labelled set. The corpus was compared with {items:,} test items of "
        f"{compared}.{rest}"
    )


def _unguarded(manifest: Manifest) -> str:
    """Return what the leakage guard did not compare at all, as a warning; "" if it compared all sets that it found."""
    sets = manifest.info.get("leak_sets") or {}
    if not sets:
        return (
            "The corpus was compared with no labelled set, so it may show test items, and the numbers may be too high. "
            "Give --data to `previts index`, and leave filter.leakage at drop."
        )
    causes = {name: short(known["causes"][""], 200) for name, known in sorted(sets.items()) if known["causes"].get("")}
    if not causes:
        return ""
    listed = "; ".join(f"{name} ({cause})" for name, cause in causes.items())
    return f"The corpus may show test items of these sets, whose lists could not be read: {listed}"


def _share(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"


def _charts(judged: Sequence[Quality]) -> list[Chart]:
    found = [video for video in judged if video.tube_seconds]
    agreements = [video.agreement for video in judged if video.agreement is not None]
    charts = []
    if found:
        held = figures.share_curve(*quality.held_curve(found), "share of the video", "tubes still held")
        areas = figures.histogram([video.mean_area for video in found], "share of the frame", "videos", percent=True)
        charts = [
            Chart(
                "When the object is lost",
                "share of the tubes that are not yet lost for the rest of the video",
                Markup(held),
            ),
            Chart("Size of the object", "mean share of the frame, over the frames that show it", Markup(areas)),
        ]
    if agreements:
        alike = figures.histogram(agreements, "agreement", "videos", percent=False)
        meaning = "of the four saliency priors on the first frame; 1 means equal"
        charts.append(Chart("Agreement", meaning, Markup(alike)))
    return charts


def choose(videos: Sequence[Quality], count: int) -> list[tuple[int, str]]:
    """Return places of videos to show and the reasons: the best, median and worst tubes, and one video without a tube.

    Args:
        videos: In the order of the index.
        count: How many of each kind; 0 shows nothing.
    """
    ranked = [place for place, video in enumerate(videos) if video.tube_seconds]
    ranked.sort(key=lambda place: (videos[place].rank, place))
    total, middle = len(ranked), (len(ranked) - count) // 2
    chosen: dict[int, str] = {}
    if count:
        parts = (
            ("best", range(count)),
            ("worst", range(total - 1, total - 1 - count, -1)),
            ("median", range(middle, middle + count)),
        )
        # Reversed, so that a video of two kinds counts as best or worst.
        picked = {rank: what for what, ranks in reversed(parts) for rank in ranks if 0 <= rank < total}
        chosen = {ranked[rank]: f"{what}, rank {rank + 1} of {total}" for rank, what in sorted(picked.items())}
        empty = [place for place, video in enumerate(videos) if not video.tube_seconds]
        chosen |= {place: f"no object found, as in {len(empty)} of {len(videos)}" for place in empty[:1]}
    return list(chosen.items())


def _tube_strip(index: Index, record: IndexRecord, *, why: str, exact: Truth | None, score: Score | None) -> TubeStrip:
    # Each frame represents an eighth of the video, so that the timeline below the strip is aligned with it.
    frames = [int((number + 0.5) / FRAMES * record.num_frames) for number in range(FRAMES)]
    image, cause, ious = "", "", []
    try:
        crawl = index.crawl_of(record)
        pixels = video_table.read_frames(crawl.videos, record, frames)
        tube = tube_table.read_tube(crawl.tubes, record)
        masks, outlines = tube.masks(frames), None
        if exact is not None and score is not None:
            outlines = truth.at_frames(exact.masks(record.video_id), frames, tube)
            ious = [iou(mask, outline) for mask, outline in zip(masks, outlines, strict=True)]
        image = figures.data_uri(figures.tube_strip(pixels, masks, outlines))
    except (ValueError, OSError, VideoError) as error:
        cause = f"This strip cannot be drawn: {short(error)}"
    return TubeStrip(
        video_id=short(record.video_id, 80),
        why=why,
        seconds=record.num_frames / record.fps,
        visible_seconds=record.tracked_frames / record.fps,
        agreement=record.agreement,
        timeline=[
            (_share(start, record.num_frames), _share(stop - start, record.num_frames)) for start, stop in record.spans
        ],
        image=image,
        cause=cause,
        score=score,
        ious=ious,
    )


def score_index(index: Index, exact: Sequence[Truth | None]) -> tuple[dict[str, Score], str]:
    """Return the scores of all videos of an index that have exact masks, by id, and the files that cannot be read.

    Args:
        index: The index.
        exact: The masks of each crawl.
    """
    if not any(exact):
        return {}, ""
    scores: dict[str, Score] = {}
    causes: list[str] = []
    for row in index:
        masks = exact[row.crawl]
        if masks is not None and masks.knows(row.video_id):
            tubes = index.crawl_of(row).tubes
            try:
                tube = tube_table.read_tube(tubes, row)
                scores[row.video_id] = truth.score(tube, masks.masks(row.video_id))
            except InputError as error:
                causes.append(str(error))
    return scores, f"{len(causes)} not compared: {causes[0]}" if causes else ""
