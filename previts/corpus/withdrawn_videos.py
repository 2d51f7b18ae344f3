"""The withdrawn videos of a corpus and of an index: the entries of their tables that the ledger names."""

from collections.abc import Iterator

from previts.corpus import index_table, members, video_table
from previts.corpus.withdrawals import Ledger
from previts.storage import files, folders, tables


def withdrawn(videos_uri: str, ledger: Ledger) -> Iterator[tuple[int, video_table.VideoRecord]]:
    """Yield the stored videos of a corpus that are withdrawn, each with the number of its crawl.

    Raises:
        InputError: If a table is missing or damaged.
    """
    for number, member in enumerate(members.read(videos_uri)) if ledger else ():
        for shard in range(member.shards):
            for row in video_table.read_shard(member.uri, shard):
                if row.status == "ok" and video_table.is_withdrawn(row, ledger):
                    yield number, row


def withdrawn_ids(videos_uri: str, ledger: Ledger) -> list[tuple[int, str]]:
    """Return the withdrawn videos of a corpus as decisions of its index: number of the crawl and id of each, sorted."""
    return sorted({(crawl, row.video_id) for crawl, row in withdrawn(videos_uri, ledger)})


def withdrawn_in(uri: str, ledger: Ledger) -> list[str]:
    """Return the ids of the videos of an index that were withdrawn after it was made, sorted.

    Raises:
        InputError: If the index is damaged, or its videos were deleted: then it is not known.
    """
    if not ledger:
        return []
    manifest = folders.read_manifest(uri)
    out = set(withdrawn_ids(manifest.inputs["videos"], ledger))
    table = tables.read_table(files.join(uri, index_table.TABLE), index_table.IndexRecord)
    inside = zip(table.column("crawl").to_pylist(), table.column("video_id").to_pylist(), strict=True)
    return sorted({video_id for crawl, video_id in inside if (crawl, video_id) in out}) if out else []
