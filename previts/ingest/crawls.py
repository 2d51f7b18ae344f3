"""Readers of crawls (lists of videos to fetch): each supported format becomes a list of `CrawlItem`.

PreViTS section 4.1 pretrains on VGG-Sound and Kinetics-400. Their CSV files are read as published. Other corpora come
as a manifest or as a folder of videos. This module fetches nothing.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from previts.errors import InputError
from previts.ingest import crawl_lines, sources, url_guard
from previts.ingest.crawl_lines import (
    Line,
    check_columns,
    csv_lines,
    csv_rows,
    parquet_lines,
    read_table,
)
from previts.ingest.sources import ANYTHING, Reach
from previts.ingest.url_guard import MAX_URL_LENGTH
from previts.storage import documents, file_names, folders
from previts.storage.file_names import VIDEO_SUFFIXES, LeftAside, is_hidden
from previts.storage.files import absolute, is_local, join, names, open_fs, sweep
from previts.storage.listings import Folders

# What a crawl may be, for messages.
FORMS = (
    "expected a folder of videos, a CSV or Parquet file with the columns video_id and url, or the CSV of VGG-Sound or "
    "Kinetics"
)
MANIFEST_SUFFIXES = (".csv", ".parquet", ".pq")
LISTS = "crawls"  # the stage of lists of crawls
NATIVE_SUFFIXES = ("mp4", "mkv", "webm")
REQUIRED_COLUMNS = ("video_id", "url")
MANIFEST_COLUMNS = ("video_id", "url", "start_seconds", "end_seconds", "label", "split")
VGG_SOUND_SECONDS = 10.0  # VGG-Sound gives starts only; its videos last 10 s (Chen et al. 2020)
FAULTS_SHOWN = 10  # at most this many broken lines are listed in an error
MAX_ID_LENGTH = 200
MAX_TEXT_LENGTH = 1000  # of a label or the name of a split
MAX_SECONDS = 1e7  # of the start or the end of a window


@dataclass(frozen=True)
class CrawlItem:
    """One video to fetch and its window [start, end) in seconds; None is the start or the end of the video.

    `fault` is the reason why the line of the crawl is broken; then nothing is fetched. `reach` is what the crawl may
    name. `identity` is what `crawl_identity.read_identified` found.
    """

    video_id: str
    url: str
    start_seconds: float | None
    end_seconds: float | None
    label: str
    split: str
    fault: str = ""
    reach: Reach = field(default=ANYTHING, compare=False)
    identity: str = field(default="", compare=False)


class _FaultError(Exception):
    """One line is broken; the message says why."""


def list_crawls(uri: str) -> list[str]:
    """Return the crawls of a corpus: the crawl at `uri` itself, or the manifests in the folder `uri`, by their names.

    A folder that `write_list` made has the list of an earlier moment.

    Raises:
        InputError: If the folder contains both manifests and videos.
    """
    fs, path = open_fs(uri)
    if not fs.isdir(path):
        return [uri]
    if folders.is_committed(uri) and (listed := folders.read_manifest(uri)).stage == LISTS:
        return list(listed.decided["crawls"])
    shown = file_names.shown(names(uri))
    manifests = [name for name in shown if name.lower().endswith(MANIFEST_SUFFIXES)]
    videos = [name for name in shown if name.lower().endswith(VIDEO_SUFFIXES)]
    if manifests and videos:
        raise InputError(
            f"{uri} contains both crawls, such as {manifests[0]}, and videos, such as {videos[0]}; give the crawl "
            "itself, or keep crawls in a folder without videos next to them (folders of videos below are fine)"
        )
    return [join(uri, name) for name in manifests] or [uri]


def write_list(sources: Sequence[str], root: str, version: int) -> str:
    """Write a list of crawls, so that all parts of a run use the same ones, and return its URI for `list_crawls`."""
    decided = {"crawls": [absolute(source) for source in sources], "format": version}
    uri = folders.address(root, LISTS, "corpus", decided)
    sweep(uri)
    if not folders.is_committed(uri):
        folders.commit(uri, decided, counts={"crawls": len(sources)})
    return uri


@dataclass(frozen=True)
class Found:
    """What is at the URI of a crawl: a folder, or a file with its bytes."""

    is_folder: bool
    data: bytes = b""


def find(uri: str) -> Found:
    """Return what is at the URI of a crawl; this takes most of the time of a crawl in an object store.

    Raises:
        InputError: If there is nothing, or no table of an allowed size.
    """
    fs, path = open_fs(uri)
    if fs.isdir(path):
        return Found(is_folder=True)
    if not fs.exists(path):
        raise InputError(f"there is no crawl at {uri}; {FORMS}")
    if not path.lower().endswith(MANIFEST_SUFFIXES):
        raise InputError(f"{uri} is not a crawl; {FORMS}")
    return Found(is_folder=False, data=read_table(uri))


def read_crawl(uri: str, known: Folders | None = None, found: Found | None = None) -> list[CrawlItem]:
    """Return the videos of a crawl, in its order.

    `uri` is one of:

    - A manifest: CSV with a header, or Parquet. `video_id` and `url` are required. `start_seconds`, `end_seconds`,
      `label` and `split` may be missing or empty. Other columns are ignored. A relative url is relative to the
      manifest's folder.
    - A native VGG-Sound CSV: no header; youtube id, start, label, split.
    - A native Kinetics CSV: a header with `youtube_id`, `time_start` and `time_end`.
    - A folder of videos at any depth. The id is the path without suffix, the label is the name of the file's folder.
      Hidden and other files are left aside and reported.

    A video of a native CSV is a file in the folder of the CSV or up to two levels below. Its name is
    `{id}_{start:06d}_{end:06d}`, `{id}_{start:06d}` or `{id}`, its suffix mp4, mkv or webm. Without such a file, the
    video is its page on YouTube.

    A broken line becomes an item with a `fault`; so does a second line with the same id.

    Args:
        uri: The crawl.
        known: Folders that were listed before.
        found: What `find` returned.

    Raises:
        EmptyCrawlError: If the crawl has no video.
        InputError: If the crawl is missing, the whole table is broken, or every line is.
    """
    known, found = known or Folders(), found or find(uri)
    if not found.is_folder and not found.data:
        raise crawl_lines.EmptyCrawlError(uri)
    if found.is_folder:
        items = _folder(uri, known)
    elif uri.lower().endswith(MANIFEST_SUFFIXES[1:]):
        lines = parquet_lines(uri, found.data, REQUIRED_COLUMNS, set(MANIFEST_COLUMNS))
        items = _items(uri, lines, lambda line: _manifest_item(line, uri))
    else:
        items = _csv(uri, found.data, known)
    if not items:
        raise crawl_lines.EmptyCrawlError(uri)
    check_faults(items, uri, max_fraction=1.0)
    return items


def check_faults(items: Sequence[CrawlItem], uri: str, max_fraction: float) -> None:
    """Raise an `InputError` if all lines of a crawl are broken, or more than a share of them.

    The message counts the broken lines and lists the first `FAULTS_SHOWN`.
    """
    faults = [item.fault for item in items if item.fault]
    if faults and (len(faults) == len(items) or len(faults) > max_fraction * len(items)):
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        raise InputError(f"{len(faults)} broken lines in the crawl {uri}; correct or remove them:{shown}{more}")


def _folder(uri: str, known: Folders) -> list[CrawlItem]:
    root = open_fs(uri)[1].rstrip("/") + "/"
    lines: list[Line] = []
    taken: set[str] = set()
    aside = LeftAside()
    for number, name in enumerate(sorted(known.files(uri)), start=1):
        relative = name.removeprefix(root)
        if aside.is_used(relative, VIDEO_SUFFIXES):
            folder = relative.rsplit("/", 2)[-2] if "/" in relative else ""
            video_id = _file_id(relative, taken)
            taken.add(video_id)
            try:
                name.encode()
            except UnicodeEncodeError:
                lines.append(
                    Line(number, {"video_id": video_id}, f"the file name {relative!r} is not UTF-8; rename it")
                )
                continue
            lines.append(Line(number, {"video_id": video_id, "url": _full_name(uri, name), "label": folder}))
    aside.report(uri)
    if not lines:
        raise InputError(f"there are no videos in {uri}; expected files with a suffix of {', '.join(VIDEO_SUFFIXES)}")
    return _items(uri, lines, _file_item, is_folder=True)


def left_aside(uri: str, known: Folders | None = None) -> LeftAside:
    """Return the files of a crawl that are hidden or not videos; there are none if the crawl is a file."""
    fs, path = open_fs(uri)
    aside, root = LeftAside(), path.rstrip("/") + "/"
    for name in (known or Folders()).files(uri) if fs.isdir(path) else ():
        aside.is_used(name.removeprefix(root), VIDEO_SUFFIXES)
    return aside


def _file_item(line: Line) -> CrawlItem:
    return CrawlItem(line.fields["video_id"], line.fields["url"], None, None, line.fields["label"], "")


def _file_id(relative: str, taken: set[str]) -> str:
    """Return the id of a file in a folder: its path without suffix, with a digest if that is invalid or taken."""
    plain = relative.rsplit(".", 1)[0]
    clean = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in plain)
    if clean == plain and len(plain) <= MAX_ID_LENGTH and plain not in taken:
        return plain
    digest = hashlib.sha256(relative.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{clean[: MAX_ID_LENGTH - 9]}-{digest}"


def _full_name(uri: str, path: str) -> str:
    """Return the URL of a path in the file system of `uri`."""
    fs, _ = open_fs(uri)
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def _csv(uri: str, data: bytes, known: Folders) -> list[CrawlItem]:
    """Return the items of a CSV file; its first lines decide which of the three formats it has."""
    rows = csv_rows(uri, data)
    header = rows[0][1]
    if {"youtube_id", "time_start", "time_end"}.issubset(header):
        files = _files_near(uri, known)
        lines = csv_lines(uri, header, rows[1:], {"youtube_id", "time_start", "time_end", "label", "split"})
        return _items(uri, lines, lambda line: _kinetics_item(line, files))
    if not set(MANIFEST_COLUMNS).intersection(header) and any(_is_vgg(row) for _, row, _ in rows[:FAULTS_SHOWN]):
        files = _files_near(uri, known)
        columns = ["youtube_id", "start", "label", "split"]
        return _items(uri, csv_lines(uri, columns, rows, set(columns)), lambda line: _vgg_item(line, files))
    if "video_id" not in header and "url" not in header:
        raise InputError(
            f"{uri} starts with {','.join(header)[:200]!r}, which is not a known format of a crawl; expected a "
            f"manifest with the header {','.join(MANIFEST_COLUMNS)}, lines of VGG-Sound (youtube id,start,label,split) "
            "or the header of Kinetics (label,youtube_id,time_start,time_end,split)"
        )
    check_columns(uri, header, REQUIRED_COLUMNS)
    lines = csv_lines(uri, header, rows[1:], set(MANIFEST_COLUMNS))
    return _items(uri, lines, lambda line: _manifest_item(line, uri))


def _items(
    uri: str, lines: Iterable[Line], make: Callable[[Line], CrawlItem], *, is_folder: bool = False
) -> list[CrawlItem]:
    """Return one item for each line; a broken line becomes an item with a fault and an id of its own."""
    folder = absolute(uri)
    reach = sources.reach_of(folder if is_folder else folder.rsplit("/", 1)[0] or "/")
    items: list[CrawlItem] = []
    line_of: dict[str, int] = {}
    broken: list[tuple[int, int]] = []
    for line in lines:
        try:
            if line.fault:
                raise _FaultError(line.fault)
            item = replace(make(line), reach=reach)
            _check_texts(item)
            if item.video_id in line_of:
                raise _FaultError(
                    f"video_id {item.video_id!r} is also on line {line_of[item.video_id]}; ids must differ"
                )
            line_of[item.video_id] = line.number
        except _FaultError as fault:
            broken.append((len(items), line.number))
            item = CrawlItem("", "", None, None, "", "", f"line {line.number}: {fault}", reach)
        items.append(item)
    for place, number in broken:
        name = f"broken-line-{number}"
        while name in line_of:
            name += "x"
        line_of[name] = number
        items[place] = replace(items[place], video_id=name)
    return items


def _check_texts(item: CrawlItem) -> None:
    _check_id(item.video_id)
    for name, text in (("label", item.label), ("split", item.split)):
        if len(text) > MAX_TEXT_LENGTH:
            raise _FaultError(f"{name} {text[:50]!r} has {len(text)} characters, allowed are {MAX_TEXT_LENGTH}")


def _check_id(video_id: str) -> None:
    """Refuse ids that are not safe relative file names, because videos are stored in tars under their ids."""
    parts = video_id.split("/")
    if not video_id or len(video_id) > MAX_ID_LENGTH:
        raise _FaultError(
            f"video_id {video_id[:50]!r} has {len(video_id)} characters, allowed are 1 to {MAX_ID_LENGTH}"
        )
    if any(part in ("", ".", "..") for part in parts) or not video_id.isprintable() or "\\" in video_id:
        raise _FaultError(
            f"video_id {video_id!r} must be printable, without backslashes and without '.', '..' or empty parts"
        )


def _manifest_item(line: Line, uri: str) -> CrawlItem:
    fields = line.fields
    url = fields.get("url", "").strip()
    if not url:
        raise _FaultError("url is empty, expected a path or an address")
    if len(url) > MAX_URL_LENGTH:
        raise _FaultError(f"url {url[:50]!r} has {len(url)} characters, allowed are {MAX_URL_LENGTH}")
    if not url_guard.is_plain(url):
        raise _FaultError(f"url {url[:200]!r} contains unprintable characters; remove them")
    if "://" not in url and not url.startswith("/"):
        url = sources.joined(absolute(uri).rsplit("/", 1)[0], url)
    start, end = _seconds(fields, "start_seconds"), _seconds(fields, "end_seconds")
    if end is not None and end <= (start or 0.0):
        raise _FaultError(f"end_seconds {end:g} must be greater than start_seconds {start or 0.0:g}")
    return CrawlItem(fields.get("video_id", ""), url, start, end, fields.get("label", ""), fields.get("split", ""))


def _seconds(fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    if not text:
        return None
    try:
        value = documents.number(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_SECONDS:
        raise _FaultError(f"{name} {text[:50]!r} is not a number of seconds >= 0 and <= {MAX_SECONDS:.0f}")
    return value


def _required_seconds(fields: dict[str, str], name: str) -> float:
    value = _seconds(fields, name)
    if value is None:
        raise _FaultError(f"{name} is empty, expected seconds")
    return value


def _kinetics_item(line: Line, files: dict[str, str]) -> CrawlItem:
    fields = line.fields
    start, end = _required_seconds(fields, "time_start"), _required_seconds(fields, "time_end")
    if end <= start:
        raise _FaultError(f"time_end {end:g} must be greater than time_start {start:g}")
    name = f"{fields['youtube_id']}_{int(start):06d}_{int(end):06d}"
    return _native_item(name, fields, start, end, files)


def _vgg_item(line: Line, files: dict[str, str]) -> CrawlItem:
    start = _required_seconds(line.fields, "start")
    name = f"{line.fields['youtube_id']}_{int(start):06d}"
    return _native_item(name, line.fields, start, start + VGG_SOUND_SECONDS, files)


def _native_item(name: str, fields: dict[str, str], start: float, end: float, files: dict[str, str]) -> CrawlItem:
    """Return a video of a native CSV: a file of exactly this window, a file of the whole video, or its page."""
    youtube_id = fields["youtube_id"]
    if not _is_youtube_id(youtube_id):
        raise _FaultError(f"youtube id {youtube_id[:50]!r} must be 11 letters, digits, '-' or '_'")
    label, split = fields.get("label", ""), fields.get("split", "")
    for trimmed in (f"{youtube_id}_{int(start):06d}_{int(end):06d}", f"{youtube_id}_{int(start):06d}"):
        if trimmed in files:
            return CrawlItem(name, files[trimmed], None, None, label, split)
    page = f"https://www.youtube.com/watch?v={youtube_id}"
    return CrawlItem(name, files.get(youtube_id, page), start, end, label, split)


def _files_near(uri: str, known: Folders) -> dict[str, str]:
    """Return the URLs of the videos in the folder of a CSV and up to two levels below, by name without suffix."""
    folder = absolute(uri).rsplit("/", 1)[0]
    levels = open_fs(folder)[1].rstrip("/").count("/") + 3
    found = {}
    for name in sorted(known.files(folder), reverse=True):
        stem, _, suffix = name.rsplit("/", 1)[-1].rpartition(".")
        if name.count("/") <= levels and suffix.lower() in NATIVE_SUFFIXES and not is_hidden(stem):
            found[stem] = _full_name(uri, name)
    return found


def _is_youtube_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{11}", text) is not None


def _is_vgg(row: Sequence[str]) -> bool:
    """Return whether a line can be one of VGG-Sound: YouTube id, seconds, label and maybe the split."""
    return len(row) in (3, 4) and _is_youtube_id(row[0]) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", row[1]) is not None
