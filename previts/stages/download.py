"""The verb `download`, which fetches the videos of a crawl and stores them in shards."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from previts.config import paper
from previts.errors import InputError
from previts.media.cost import TOO_COSTLY
from previts.stages.addresses import FORMATS
from previts.stages.outputs import check_part, done, exclusive, fan_out, made, part_done
from previts.storage import files, folders


@exclusive
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
    video = {name: value for name, value in asdict(config).items() if name != "max_lost_cpu_hours"}
    decided = {"crawl": crawls.crawl_identity(items, crawl), "video": video, "format": FORMATS["videos"]}
    uri = folders.address(root, "videos", "crawl", decided)
    if done(uri, take=False):
        return uri
    crawls.check_faults(items, crawl, max_failure_fraction)
    from previts.corpus import video_table
    from previts.ingest import confinement, shards
    from previts.ingest.sandbox import Lost
    from previts.storage import tables

    total = shards.num_shards(len(items), config)
    lost, decoders = Lost(), dict[str, None]()

    def work(shard: int) -> None:
        due = shards.shard_items(items, shard, config)
        rows = shards.build_shard(due, shard, uri, config, lost=lost)
        decoders.update(dict.fromkeys(row.sandbox for row in rows))
        _check_lost(lost.seconds / 3600, config.max_lost_cpu_hours, crawl, uri, shard)

    def may_succeed_now(shard: int) -> bool:
        """Until the output is committed, a failure that may be temporary (network down) is tried again."""
        return any(video.retryable for video in video_table.read_shard(uri, shard))

    finished = fan_out(
        uri,
        total,
        part,
        parts,
        is_done=lambda shard: video_table.is_done(uri, shard),
        work=work,
        again=may_succeed_now,
    )
    if layers := _layers(decoders):
        print(confinement.describe(layers), file=sys.stderr)
    if not finished:
        return part_done(uri)
    if done(uri):
        return uri
    videos = [video for shard in range(total) for video in video_table.read_shard(uri, shard)]
    errors = Counter(video.error for video in videos if video.status != "ok")
    failed = sum(errors.values())
    if failed == len(videos) or failed > max_failure_fraction * len(videos):
        reasons = "\n".join(f"  {count} x {error}" for error, count in errors.most_common(5))
        allowed = "" if failed == len(videos) else f", more than the allowed share of {max_failure_fraction:g}"
        temporary = sum(video.retryable for video in videos if video.status != "ok")
        cures = [f"run again for the {temporary} that may be temporary, and check the network"] if temporary else []
        cures += ["fix the crawl"] if temporary < failed else []
        cures += [] if failed == len(videos) else ["run again with a larger --max-failure-fraction"]
        raise InputError(
            f"{failed} of the {len(videos)} videos of {crawl} failed{allowed}. Most frequent reasons:\n{reasons}\n"
            f"What to do: {', or '.join(cures)}. Videos already stored are kept"
        )
    aside = crawls.left_aside(crawl)
    folders.commit(
        uri,
        decided,
        inputs={"crawl": files.absolute(crawl)},
        counts={
            "videos": len(videos),
            "ok": len(videos) - failed,
            "failed": failed,
            "shards": total,
            "too_costly": sum(video.error.startswith(TOO_COSTLY) for video in videos),
            "shortened": sum(video.missing_seconds > 0 for video in videos),
            "missing_seconds": round(sum(video.missing_seconds for video in videos), 3),
            "skipped_frames": sum(video.skipped_frames for video in videos),
            "hours": round(sum(video.num_frames / video.fps for video in videos if video.status == "ok") / 3600, 4),
            "bytes": sum(video.size for video in videos),
        },
        info={
            "errors": dict(errors.most_common(20)),
            "sandbox": _layers(video.sandbox for video in videos),
            **({"left_aside": str(aside)} if aside else {}),
        },
        files=tables.table_names(total),
    )
    return made(uri)


def _layers(decoders: Iterable[str]) -> dict[str, str]:
    """Return how decoders were confined, together; an empty text stands for no decoder."""
    from previts.ingest import confinement

    return confinement.combine(json.loads(decoder) for decoder in dict.fromkeys(decoders) if decoder)


def _check_lost(hours: float, limit: float, crawl: str, uri: str, shard: int) -> None:
    """Stop a worker whose videos cost too much and give nothing; its shards are kept."""
    if hours > limit:
        raise InputError(
            f"videos of {crawl} that could not be stored took {hours:.2f} CPU hours, more than "
            f"video.max_lost_cpu_hours={limit:g}. The reasons are in the tables of {uri}, up to shard {shard}. Remove "
            "these videos from the crawl, or run again: stored shards are kept, and the hours are counted from 0"
        )
