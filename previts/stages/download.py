"""The verb `download`, which fetches the videos of a crawl and stores them in shards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from previts.config import paper
from previts.errors import InputError
from previts.stages.addresses import FORMATS
from previts.stages.outputs import check_part, done, made, part_done
from previts.storage import folders


def download(
    crawl: str,
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    part: int = 0,
    parts: int = 1,
    max_failure_fraction: float = 0.5,
) -> str:
    """Fetch the videos of a crawl and store them in shards, with one size and frame rate.

    Args:
        crawl: List of videos: a CSV or Parquet file with the columns video_id, url, start_seconds, end_seconds, label
            and split; the CSV of VGG-Sound or Kinetics as published; or a folder of videos.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as video.max_fps=12.
        part: Number of this worker, from 0 to parts - 1.
        parts: Number of workers that share the work.
        max_failure_fraction: Share of videos that may fail, from 0 to 1. The verb fails if more videos fail.

    Returns:
        URI of the videos, for `fit_saliency`, `saliency`, `track` and `index`.
    """
    from previts.ingest import crawls

    check_part(part, parts)
    if not 0 <= max_failure_fraction <= 1:
        raise InputError(f"max_failure_fraction must be from 0 to 1, got {max_failure_fraction}")
    config = paper.resolve(None, profile, set).experiment.video
    items = crawls.read_crawl(crawl)
    decided = {"crawl": crawls.crawl_identity(items, crawl), "video": asdict(config), "format": FORMATS["videos"]}
    uri = folders.address(root, "videos", "crawl", decided)
    if done(uri):
        return uri
    from previts.corpus import video_table
    from previts.ingest import shards
    from previts.storage import tables

    total = shards.num_shards(len(items), config)

    for shard in range(part, total, parts):
        # Until the output is committed, a shard is tried again if a failure in it may be temporary (network down).
        if not video_table.is_done(uri, shard) or any(video.retryable for video in video_table.read_shard(uri, shard)):
            shards.build_shard(shards.shard_items(items, shard, config), shard, uri, config)
    if not all(video_table.is_done(uri, shard) for shard in range(total)):
        return part_done(uri)
    videos = [video for shard in range(total) for video in video_table.read_shard(uri, shard)]
    errors = Counter(video.error for video in videos if video.status != "ok")
    failed = sum(errors.values())
    if failed == len(videos) or failed > max_failure_fraction * len(videos):
        reasons = "\n".join(f"  {count} x {error}" for error, count in errors.most_common(5))
        allowed = "" if failed == len(videos) else f", more than the allowed share of {max_failure_fraction:g}"
        remedy = "" if failed == len(videos) else ", or run again with a larger --max-failure-fraction"
        raise InputError(
            f"{failed} of the {len(videos)} videos of {crawl} failed{allowed}. Most frequent reasons:\n{reasons}\n"
            f"Fix the crawl{remedy}; videos already stored are kept"
        )
    folders.commit(
        uri,
        decided,
        inputs={"crawl": crawl},
        counts={
            "videos": len(videos),
            "ok": len(videos) - failed,
            "failed": failed,
            "shards": total,
            "hours": round(sum(video.num_frames / video.fps for video in videos if video.status == "ok") / 3600, 4),
            "bytes": sum(video.size for video in videos),
        },
        info={"errors": dict(errors.most_common(20))},
        files=tables.table_names(total),
    )
    return made(uri)
