"""The verb `download`, which fetches the videos of a corpus and stores them in shards."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from previts.config import paper
from previts.config.perception import VideoConfig
from previts.errors import InputError
from previts.media.cost import TOO_COSTLY
from previts.processes import prefetch
from previts.stages.addresses import FORMATS
from previts.stages.outputs import announce, check_part, done, exclusive, fan_out, made, part_done
from previts.storage import files, folders
from previts.storage.listings import Folders

if TYPE_CHECKING:
    from previts.corpus.video_table import VideoRecord
    from previts.corpus.withdrawals import Ledger
    from previts.ingest.crawls import CrawlItem, Found


class _CrawlError(InputError):
    """One crawl cannot be used; others can."""


@dataclass(frozen=True)
class _Crawl:
    """A crawl of the corpus, and the output that it decides.

    Attributes:
        source: URI of the crawl.
        uri: URI of the output.
        decided: Decisions of the output.
        ledger: Withdrawals, with the sources of the videos of the crawl that they name.
        items: The videos; empty if they are read again when they are needed, which bounds the memory.
    """

    source: str
    uri: str
    decided: dict[str, Any]
    num_videos: int
    items: tuple["CrawlItem", ...]
    ledger: "Ledger"


@dataclass(frozen=True)
class _Share:
    """What one worker does: its part of the shards, and what it may fetch."""

    part: int
    parts: int
    config: VideoConfig
    max_failure_fraction: float
    known: Folders
    ledger: "Ledger"


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
    """Fetch the videos of a corpus and store them in shards, with one size and frame rate.

    A corpus is one crawl or a folder of crawls. Each crawl is fetched once: add a crawl to the folder and run the same
    command again, and only its videos are fetched. If a crawl was changed, only its changed lines are fetched.

    Args:
        crawl: List of videos: a CSV or Parquet file with the columns video_id, url, start_seconds, end_seconds, label
            and split; the CSV of VGG-Sound or Kinetics as published; or a folder of videos. Or a folder or bucket
            prefix of such files.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as video.max_fps=12.
        part: Number of this worker, from 0 to parts - 1.
        parts: Number of workers that share the work.
        max_failure_fraction: Share of the videos of a crawl that may fail, from 0 to 1. The verb fails if more fail.

    Returns:
        URI of the videos, for `fit_saliency`, `saliency`, `track` and `index`.
    """
    from previts.corpus import members, withdrawals
    from previts.ingest import crawl_lines, crawls

    check_part(part, parts)
    if not 0 <= max_failure_fraction <= 1:
        raise InputError(f"max_failure_fraction must be from 0 to 1, got {max_failure_fraction}")
    config = paper.resolve(None, profile, set).experiment.video
    share = _Share(part, parts, config, max_failure_fraction, Folders(), withdrawals.read(root))
    sources = crawls.list_crawls(crawl)
    at_once = zip(sources, prefetch.requested(sources, crawls.find), strict=True)
    plans = crawl_lines.each(at_once, lambda source, table: _plan(source, table, root, share, len(sources) == 1))
    found = list({plan.uri: plan for plan in plans}.values())  # equal crawls have one output
    every = {item.video: item for plan in found for item in plan.ledger.withdrawals}
    share = replace(share, ledger=withdrawals.Ledger(tuple(every.values())))  # a source counts in all crawls
    if len(found) == 1:
        outputs = {} if folders.is_committed(found[0].uri) else _outputs(root)
        return _download(found[0], share, 0, _earlier(found[0], outputs))
    decided = {"crawls": [folders.fingerprint_of(item.uri, "videos") for item in found], "format": FORMATS["videos"]}
    uri = folders.address(root, "videos", "corpus", decided)
    if done(uri, take=False):
        return uri
    listed = [members.Member(item.uri, _num_shards(item, config)) for item in found]
    members.write(uri, listed)
    errors = []
    finished = announce([item.uri for item in found])
    outputs = _outputs(root) if not all(finished) else {}
    for item, before, is_finished in zip(found, members.starts(listed), finished, strict=True):
        if not is_finished:
            try:
                _download(item, share, before, _earlier(item, outputs))
            except _CrawlError as error:
                errors.append(str(error))
    if errors:
        raise InputError("\n".join(errors))
    if not all(members.are_finished([item.uri for item in found])):
        return part_done(uri)
    if done(uri):
        return uri
    counts, manifests = members.combine([item.uri for item in found])
    reasons: Counter[str] = Counter()
    for manifest in manifests:
        reasons.update(manifest.info["errors"])
    folders.commit(
        uri,
        decided,
        inputs={f"crawl{number}": files.absolute(item.source) for number, item in enumerate(found)},
        counts=counts,
        info={"errors": dict(reasons.most_common(20))},
        files=[members.MEMBERS],
    )
    return made(uri)


def _plan(source: str, table: "Found", root: str, share: _Share, keep_items: bool) -> _Crawl:
    from previts.ingest import crawl_identity

    items = crawl_identity.read_identified(source, share.known, table)
    video = {name: value for name, value in asdict(share.config).items() if name != "max_lost_cpu_hours"}
    decided = {"crawl": crawl_identity.crawl_identity(items), "video": video, "format": FORMATS["videos"]}
    uri = folders.address(root, "videos", "crawl", decided)
    ledger = share.ledger.with_sources((item.video_id, item.url, item.identity) for item in items)
    return _Crawl(source, uri, decided, len(items), tuple(items) if keep_items else (), ledger)


def _num_shards(crawl: _Crawl, config: VideoConfig) -> int:
    return -(-crawl.num_videos // config.videos_per_shard)


def _download(crawl: _Crawl, share: _Share, before: int, earlier: Sequence[str]) -> str:
    """Do this worker's part of one crawl, and return its output.

    Args:
        crawl: The crawl.
        share: The part.
        before: Number of shards of the crawls before it.
        earlier: Outputs of earlier versions of the crawl.
    """
    uri = crawl.uri
    if done(uri, take=False):
        return uri
    from previts.corpus import video_table, withdrawals
    from previts.ingest import confinement, crawl_identity, crawls, shards
    from previts.ingest.sandbox import Lost
    from previts.storage import tables

    config = share.config
    items = crawl.items or crawl_identity.read_identified(crawl.source, share.known)
    try:
        crawls.check_faults(items, crawl.source, share.max_failure_fraction)
    except InputError as error:
        raise _CrawlError(str(error)) from None
    total = _num_shards(crawl, config)
    lost, decoders = Lost(), dict[str, None]()
    stored = {identity: row for version in earlier for identity, row in shards.stored_videos(version).items()}

    def work(shard: int) -> None:
        due = shards.shard_items(items, shard, config)
        rows = shards.build_shard(due, shard, uri, config, lost=lost, stored=stored, ledger=share.ledger)
        decoders.update(dict.fromkeys(row.sandbox for row in rows))
        _check_lost(lost.seconds / 3600, config.max_lost_cpu_hours, crawl.source, uri, shard)

    def may_succeed_now(shard: int) -> bool:
        """Until the output is committed, a failure that may be temporary (network down) is tried again."""
        return any(video.retryable for video in video_table.read_shard(uri, shard))

    finished = fan_out(
        uri,
        total,
        share.part,
        share.parts,
        is_done=lambda shard: video_table.is_done(uri, shard),
        work=work,
        again=may_succeed_now,
        before=before,
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
    wanted = [video for video in videos if not video.error.startswith(withdrawals.PREFIX)]
    withdrawn = len(videos) - len(wanted)  # these say nothing about the crawl
    lacking = failed - withdrawn
    if wanted and (lacking == len(wanted) or lacking > share.max_failure_fraction * len(wanted)):
        raise _CrawlError(_too_many(crawl.source, wanted, share.max_failure_fraction))
    aside = crawls.left_aside(crawl.source, share.known)
    folders.commit(
        uri,
        crawl.decided,
        inputs={
            "crawl": files.absolute(crawl.source),
            **{f"earlier{number}": version for number, version in enumerate(earlier)},
        },
        counts={
            "videos": len(videos),
            "ok": len(videos) - failed,
            "failed": failed,
            **({"withdrawn": withdrawn} if withdrawn else {}),
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


def _outputs(root: str) -> dict[str, dict[str, folders.Manifest]]:
    """Return the finished outputs of this verb below a root: by the URI of their crawl, the manifests by URI."""

    def manifest(uri: str) -> folders.Manifest | None:
        try:
            return folders.read_manifest(uri)
        except InputError:
            return None

    folder = files.join(files.absolute(root), "videos")
    made = [files.join(folder, name) for name in files.names(folder)]
    outputs: dict[str, dict[str, folders.Manifest]] = {}
    for uri, found in zip(made, prefetch.requested(made, manifest), strict=True):
        if found and (source := found.inputs.get("crawl")):
            outputs.setdefault(source, {})[uri] = found
    return outputs


def _earlier(crawl: _Crawl, outputs: Mapping[str, Mapping[str, folders.Manifest]]) -> list[str]:
    """Return the outputs of earlier versions of a crawl, which was changed in place, with the same settings."""

    def has_same_settings(found: folders.Manifest) -> bool:
        return all(found.decided.get(key) == crawl.decided[key] for key in ("video", "format"))

    made = outputs.get(files.absolute(crawl.source), {})
    return [uri for uri, found in made.items() if uri != crawl.uri and has_same_settings(found)]


def _too_many(crawl: str, videos: Sequence["VideoRecord"], max_fraction: float) -> str:
    """Return why a crawl failed, and what to do."""
    errors = Counter(video.error for video in videos if video.status != "ok")
    failed = sum(errors.values())
    reasons = "\n".join(f"  {count} x {error}" for error, count in errors.most_common(5))
    allowed = "" if failed == len(videos) else f", more than the allowed share of {max_fraction:g}"
    temporary = sum(video.retryable for video in videos if video.status != "ok")
    cures = [f"run again for the {temporary} that may be temporary, and check the network"] if temporary else []
    cures += ["fix the crawl"] if temporary < failed else []
    cures += [] if failed == len(videos) else ["run again with a larger --max-failure-fraction"]
    return (
        f"{failed} of the {len(videos)} videos of {crawl} failed{allowed}. Most frequent reasons:\n{reasons}\n"
        f"What to do: {', or '.join(cures)}. Videos already stored are kept"
    )


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
