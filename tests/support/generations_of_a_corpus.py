"""Indexes of a corpus that grows, with their tables of quality only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from previts.corpus import index_table, members, quality
from previts.corpus.quality import Quality
from previts.storage import files, folders, tables


def stored(video_id: str, reason: str = "", detail: str = "", *, seconds: float = 36.0, tube: float = 18.0) -> Quality:
    """Return a video of a length and a tube of a length; `commit_index` sets its crawl."""
    assert reason in ("", *quality.REASONS)
    return Quality(video_id, "", "", 0, 0, reason, detail, seconds, tube, 0.1, None, 0.0, None)  # type: ignore[arg-type]


def commit_index(root: str, crawls: Mapping[str, Sequence[Quality]]) -> str:
    """Commit an index of some crawls, by the identity of each, and return its URI."""
    names = list(crawls)
    decided = {"crawls": names, "videos": [[video.video_id + video.reason for video in crawls[name]] for name in names]}
    videos, uri = (folders.address(root, stage, "corpus", decided) for stage in ("videos", "index"))
    parts = [folders.address(root, "videos", name, {"crawl": name}) for name in names]
    members.write(videos, [members.Member(part, 1) for part in parts])
    folders.commit(videos, decided, counts={"crawls": len(names)}, files=[members.MEMBERS])
    judged = [replace(video, crawl=number) for number, name in enumerate(names) for video in crawls[name]]
    judged.sort(key=lambda video: (video.video_id, video.crawl))
    tables.write_records(files.join(uri, index_table.QUALITY), Quality, judged)
    kept = [video for video in judged if not video.reason]
    counts = {
        "videos": len(kept),
        "videos_with_tube": sum(video.tube_seconds > 0 for video in kept),
        "hours": sum(video.seconds for video in kept) / 3600,
        **quality.filtered(judged),
    }
    folders.commit(uri, decided, inputs={"videos": videos}, counts=counts, files=[index_table.QUALITY])
    return uri
