"""The withdrawn videos of a corpus and of an index: the entries of their tables that the ledger names."""

from previts.corpus import index_table, left_out
from previts.corpus.withdrawals import Ledger
from previts.storage import files, folders, tables


def withdrawn_ids(videos_uri: str, ledger: Ledger) -> list[tuple[int, str]]:
    """Return the withdrawn videos of a corpus as decisions of its index: number of the crawl and id of each, sorted.

    With copies of videos that are no longer stored. Copies of the others follow from the videos of the corpus.

    Raises:
        InputError: If a table is missing or damaged.
    """
    if not ledger:
        return []
    named, gone = left_out.find_named(videos_uri, ledger)
    return sorted({*named, *(key for key, _ in left_out.find_copies_of(videos_uri, (), gone))})


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
