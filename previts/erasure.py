"""Delete the bytes of withdrawn videos below a root: clips, masks, salient regions, and pictures that show them.

Clips and masks are overwritten with zeros, so that tables, offsets and the checksums of all other videos stay valid. A
reader that meets them says that the video was withdrawn. Each step can be repeated: after a kill, the same command does
the rest.
"""

import contextlib
import dataclasses
import html
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from previts.corpus import region_table, tube_table, video_table
from previts.corpus.region_table import SaliencyRecord
from previts.errors import InputError
from previts.runlog import run_log
from previts.storage import files, folders, leases, tables
from previts.storage.folders import Manifest

Item = TypeVar("Item")

PICTURES = "pictures"  # of training pairs, in the folder of a checkpoint
PAGE = "report.html"
KEPT = ("report.csv", folders.MANIFEST)  # of a report
FRAMES = "frames.npz"  # that a saliency model is fitted on; deleted when it is finished


@dataclass(frozen=True)
class Stored:
    """A copy of a video: the output with its shard, and the columns of its row."""

    videos: str
    video_id: str
    url: str
    identity: str
    status: str
    shard: int
    offset: int
    size: int


class Outputs(Protocol):
    """What is below a root; `problems` gets what could not be erased."""

    finished: dict[str, Manifest]
    unfinished: list[str]
    problems: list[str]


def erase(root: str, stored: Sequence[Stored], resting: Mapping[str, Sequence[str]], found: Outputs) -> list[str]:
    """Delete the bytes of videos below a root, and return what was done.

    Args:
        root: The root.
        stored: The copies of the videos.
        resting: Ids of the videos behind each index, checkpoint, result and report, by URI.
        found: What is below the root.
    """
    done = {"clips": 0, "masks": 0, "key frames": 0, "reports": 0, "folders of pictures": 0}
    of_shard: dict[tuple[str, int], list[Stored]] = {}
    for copy in stored:
        of_shard.setdefault((copy.videos, copy.shard), []).append(copy)
    with leases.working("withdraw"):
        for uri, manifest in found.finished.items():
            shards = {shard: copies for (at, shard), copies in of_shard.items() if at == manifest.inputs.get("videos")}
            if manifest.stage == "tubes":
                done["masks"] += sum(_attempts(found, _masks, uri, shards))
            elif manifest.stage == "saliency":
                done["key frames"] += sum(_attempts(found, _regions, uri, shards))
            elif manifest.stage == "saliency_model":
                found.problems += _attempts(found, _frames, uri)
            elif manifest.stage == "report" and uri in resting:
                done["reports"] += sum(_attempts(found, _report, root, uri, resting[uri]))
            elif manifest.stage == "checkpoints" and uri in resting:
                done["folders of pictures"] += sum(_attempts(found, _pictures, root, uri, manifest))
        for (videos, shard), copies in of_shard.items():
            done["clips"] += sum(_attempts(found, _clips, videos, shard, copies))
    if stored:
        found.problems += _unfinished(found, {copy.video_id for copy in stored})
    return [f"erased: {', '.join(f'{count} {what}' for what, count in done.items())}"]


def _attempts(found: Outputs, work: Callable[..., Iterable[Item]], *arguments: object) -> list[Item]:
    """Return what some work yields; what cannot be done is a problem, and the rest is done all the same."""
    try:
        return list(work(*arguments))
    except (InputError, OSError) as error:
        found.problems.append(str(error))
        return []


def _clips(videos: str, shard: int, copies: Sequence[Stored]) -> Iterator[int]:
    """Erase clips of a shard; a worker may be trying its failed videos again."""
    lease = leases.take(videos, f"shard-{shard:05d}")
    rows = {row.video_id: row for row in video_table.read_shard(videos, shard)}
    here = [rows[copy.video_id] for copy in copies if copy.video_id in rows]
    ranges = [(row.offset, row.offset + row.size) for row in here if row.status == "ok"]
    tar = files.join(videos, video_table.tar_name(shard))
    if ranges and files.exists(tar):
        yield len(ranges) if erase_ranges(tar, ranges) else 0
    lease.release()


def _masks(tubes: str, shards: Mapping[int, Sequence[Stored]]) -> Iterator[int]:
    for shard, copies in shards.items():
        ids = {copy.video_id for copy in copies}
        ranges = [
            (row.offset, row.offset + row.size) for row in tube_table.read_shard(tubes, shard) if row.video_id in ids
        ]
        blobs = files.join(tubes, tube_table.blob_name(shard))
        if ranges and files.exists(blobs):
            yield len(ranges) if erase_ranges(blobs, ranges) else 0


def _regions(saliency: str, shards: Mapping[int, Sequence[Stored]]) -> Iterator[int]:
    """Erase the regions of key frames; their rows stay, so that the tubes of these videos can be made (empty)."""
    if not shards:
        return
    lease = leases.take(saliency, leases.OUTPUT)
    for shard, copies in shards.items():
        ids, count = {copy.video_id for copy in copies}, 0

        def erased(row: SaliencyRecord, ids: set[str] = ids) -> SaliencyRecord:
            nonlocal count
            if row.video_id not in ids or not row.regions:
                return row
            count += 1
            return dataclasses.replace(row, regions=[])

        tables.erase_rows(saliency, tables.table_name(shard), SaliencyRecord, erased)
        yield count
    lease.release()


def erase_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> bool:
    """Overwrite ranges of bytes [start, stop) of a file with zeros; its size and its other bytes stay.

    On the local disk the bytes are overwritten in place. An object store cannot do this: the whole file is replaced.

    Returns:
        Whether anything had to be erased.

    Raises:
        FileNotFoundError: If the file does not exist.
    """
    due = [
        (start, stop)
        for (start, stop), data in zip(
            ranges, files.read_ranges(uri, *map(list, zip(*ranges, strict=True))), strict=True
        )
        if data.strip(b"\0")
    ]
    if not due:
        return False
    fs, path = files.open_fs(uri)
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        local = path if files.is_local(fs) else os.path.join(folder, "file")
        if not files.is_local(fs):
            fs.get_file(path, local)
        with files.naming(path), open(local, "r+b") as file:
            for start, stop in due:
                file.seek(start)
                for size in [1 << 20] * ((stop - start) >> 20) + [(stop - start) & ((1 << 20) - 1)]:
                    file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
        if not files.is_local(fs):
            fs.put_file(local, path)
    return True


def _frames(model: str) -> Iterator[str]:
    """Yield a problem if the frames of a finished fit are still there, because it was killed after its end."""
    if FRAMES in files.names(model):
        yield f"{model} still has the frames of its fit; run `previts fit_saliency` again, which deletes them"


def _report(root: str, uri: str, ids: Sequence[str]) -> Iterator[int]:
    """Delete a page that shows a video: the artifact, the copy in the root, all files of the report, the page last.

    The numbers of the report stay, because later reports compare theirs with them.
    """
    page, copy = files.join(uri, PAGE), files.join(root, PAGE)
    shown = sorted((name for name in files.names(uri) if name not in KEPT), key=lambda name: name == PAGE)
    with contextlib.suppress(FileNotFoundError):  # another process may delete it at the same time
        content = files.read_bytes(page)
        if not any(html.escape(video_id, quote=False) in content.decode(errors="replace") for video_id in ids):
            return
        run_log.delete_report(root, uri)
        with contextlib.suppress(FileNotFoundError):
            if files.read_bytes(copy) == content:
                files.delete(copy)
    for name in shown:
        files.delete_folder(files.join(uri, name))
    yield int(bool(shown))


def _pictures(root: str, uri: str, manifest: Manifest) -> Iterator[int]:
    """Delete the pictures of the pairs that a training saw: they do not say which videos they show."""
    folder = files.join(uri, PICTURES)
    run_log.delete_pictures(root, manifest.fingerprint, PICTURES)
    if files.exists(folder):
        files.delete_folder(folder)
        yield 1


def _unfinished(found: Outputs, ids: set[str]) -> Iterator[str]:
    """Yield the unfinished outputs that may contain or show videos with these ids, which were not erased."""
    readers: dict[str, Callable[[str, int], Sequence[Any]]] = {
        "saliency": region_table.read_shard,
        "tubes": tube_table.read_shard,
    }
    for uri in (uri for uri in found.unfinished if not folders.is_committed(uri)):
        stage, names = uri.rsplit("/", 2)[-2], files.names(uri)
        shards = [int(name[6:11]) for name in names if re.fullmatch(r"shard-\d{5}\.parquet", name)]
        reader = readers.get(stage)
        shown = {"checkpoints": PICTURES, "report": PAGE, "saliency_model": FRAMES}.get(stage, "") in names
        if shown or (reader and any(row.video_id in ids for shard in shards for row in reader(uri, shard))):
            yield f"{uri} is not finished and may contain these videos; finish or delete it, and run this command again"
