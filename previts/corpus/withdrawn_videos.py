"""The withdrawn videos of a corpus and of an index: the entries of their tables that the ledger names."""

from previts.corpus import index_table, members, video_table
from previts.corpus.withdrawals import Ledger
from previts.storage import files, folders, tables


def withdrawn_ids(videos_uri: str, ledger: Ledger) -> list[tuple[int, str]]:
    """Return the withdrawn videos of a corpus as decisions of its index: number of the crawl and id of each, sorted.

    Raises:
        InputError: If a table is missing or damaged.
    """
    if not ledger:
        return []

    crawls = members.read(videos_uri)

    def read(crawl: int, shard: int) -> list[str]:
        rows = video_table.read_stored(crawls[crawl].uri, shard, ("url", "identity"))
        return [id_ for row in rows if ledger.reason(id_ := row["video_id"], row["url"], row["identity"]) is not None]

    return sorted({(crawl, video_id) for crawl, ids in members.each_shard(crawls, read) for video_id in ids})


def withdrawn_in(uri: str, ledger: Ledger) -> list[str]:
    """Return the ids of the videos of an index that were withdrawn after it was made, sorted.

    Raises:
        InputError: If the index is damaged, or its videos were deleted: then it is not known.
    """
    if not ledger:
        return []
    manifest = folders.read_manifest(uri)
    out = set(withdrawn_ids(manifest.inputs["videos"], ledger))
    table = tables.read_table(files.join(uri, index_table.TABLE), index_table.IndexRecord, ["crawl", "video_id"])
    inside = zip(table.column("crawl").to_pylist(), table.column("video_id").to_pylist(), strict=True)
    return sorted({video_id for crawl, video_id in inside if (crawl, video_id) in out}) if out else []
