"""Readers of crawls (lists of videos to fetch): each supported format becomes a list of `CrawlItem`.

PreViTS section 4.1 pretrains on VGG-Sound and Kinetics-400. Their CSV files are read as published. Other corpora come
as a manifest or as a folder of videos. This module fetches nothing.
"""

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import pyarrow as pa

from previts.errors import InputError
from previts.storage import contents, fingerprints, folders, tables
from previts.storage.files import ON_DISK, absolute, is_local, join, local_path, open_fs, protocol, read_bytes

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv", ".gif",
)  # fmt: skip
# What a crawl may be, for messages.
FORMS = (
    "expected a folder of videos, a CSV or Parquet file with the columns video_id and url, or the CSV of VGG-Sound or "
    "Kinetics"
)
NATIVE_SUFFIXES = ("mp4", "mkv", "webm")
MANIFEST_COLUMNS = ("video_id", "url", "start_seconds", "end_seconds", "label", "split")
VGG_SOUND_SECONDS = 10.0  # VGG-Sound gives starts only; its videos last 10 s (Chen et al. 2020)
FAULTS_SHOWN = 10  # at most this many broken lines are listed in an error
MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class CrawlItem:
    """One video to fetch and its window [start, end) in seconds; None is the start or the end of the video."""

    video_id: str
    url: str
    start_seconds: float | None
    end_seconds: float | None
    label: str
    split: str


@dataclass(frozen=True)
class _Line:
    """A line of a table: its number for messages and its fields by column; `fault` if the whole line is broken."""

    number: int
    fields: dict[str, str]
    fault: str = ""


class _FaultError(Exception):
    """One line is broken; the message says why."""


def read_crawl(uri: str) -> list[CrawlItem]:
    """Return the videos of a crawl, in its order.

    `uri` is one of:

    - A manifest: CSV with a header, or Parquet. `video_id` and `url` are required. `start_seconds`, `end_seconds`,
      `label` and `split` may be missing or empty. Other columns are ignored. A relative url is relative to the
      manifest's folder.
    - A native VGG-Sound CSV: no header; youtube id, start, label, split.
    - A native Kinetics CSV: a header with `youtube_id`, `time_start` and `time_end`.
    - A folder of videos at any depth. The id is the path without suffix, the label is the name of the file's folder.

    A video of a native CSV is a file in the folder of the CSV or up to two levels below. Its name is
    `{id}_{start:06d}_{end:06d}`, `{id}_{start:06d}` or `{id}`, its suffix mp4, mkv or webm. Without such a file, the
    video is its page on YouTube.

    Raises:
        InputError: If the crawl is missing or empty, lines are broken, or ids repeat. All lines are checked, and the
            first `FAULTS_SHOWN` faults are listed.
    """
    fs, path = open_fs(uri)
    if fs.isdir(path):
        items = _folder(uri)
    elif not fs.exists(path):
        raise InputError(f"there is no crawl at {uri}; {FORMS}")
    elif path.lower().endswith((".parquet", ".pq")):
        items = _items(uri, _parquet_lines(uri), lambda line: _manifest_item(line, uri))
    elif path.lower().endswith(".csv"):
        items = _csv(uri)
    else:
        raise InputError(f"{uri} is not a crawl; {FORMS}")
    if not items:
        raise InputError(f"the crawl {uri} is empty; expected at least one video")
    return items


def crawl_identity(items: Sequence[CrawlItem], uri: str) -> str:
    """Return the fingerprint of a crawl: of its rows and of its videos, but not of where the crawl is stored.

    A video counts in one of three ways:

    - A file on this machine: by its content, or by its size if the files are more than `folders.HASHED_FILES` or larger
      than `folders.HASHED_BYTES` in total.
    - An object below the crawl's folder in the same store: by the size and the checksum that the store lists.
    - Anything else: by its address.
    """
    fs, path = open_fs(uri)
    root = path.rstrip("/") if fs.isdir(path) else path.rsplit("/", 1)[0]
    local = {item.url: local_path(item.url) for item in items if protocol(item.url) in ON_DISK}
    sizes = {url: os.path.getsize(file) for url, file in local.items() if file and os.path.isfile(file)}
    small = len(sizes) <= folders.HASHED_FILES and sum(sizes.values()) <= folders.HASHED_BYTES
    # `fetch` refuses a URL with `::`.
    same = [] if is_local(fs) else [i.url for i in items if protocol(i.url) == protocol(uri) and "::" not in i.url]
    stored = {url: open_fs(url)[1] for url in same}
    listed: dict[str, object] = {}
    if any(name.startswith(root + "/") for name in stored.values()):
        for name, info in fs.find(root, detail=True).items():
            stamp = next((info[key] for key in ("md5Hash", "crc32c", "ETag", "etag") if info.get(key)), "")
            listed[str(name)] = [int(info["size"]), str(stamp)]
    rows = []
    for item in items:
        file = local.get(item.url)
        place = file or stored.get(item.url) or item.url
        address, stamp = place.removeprefix(root + "/"), listed.get(place)
        if item.url in sizes:
            stamp = sizes[item.url]
            if small and file and os.access(file, os.R_OK):
                with open(file, "rb") as content:
                    address, stamp = "", hashlib.file_digest(content, "sha256").hexdigest()
        rows.append([*astuple(replace(item, url=address)), stamp])
    return fingerprints.fingerprint(rows)


def _folder(uri: str) -> list[CrawlItem]:
    fs, path = open_fs(uri)
    root = path.rstrip("/") + "/"
    lines: list[_Line] = []
    taken: set[str] = set()
    for number, name in enumerate(sorted(fs.find(path)), start=1):
        relative = name.removeprefix(root)
        hidden = any(part.startswith(".") for part in relative.split("/"))
        if relative.lower().endswith(VIDEO_SUFFIXES) and not hidden:
            folder = relative.rsplit("/", 2)[-2] if "/" in relative else ""
            video_id = _file_id(relative, taken)
            taken.add(video_id)
            try:
                name.encode()
            except UnicodeEncodeError:
                lines.append(_Line(number, {}, f"the file name {relative!r} is not UTF-8; rename it"))
                continue
            lines.append(_Line(number, {"video_id": video_id, "url": _full_name(uri, name), "label": folder}))
    if not lines:
        raise InputError(f"there are no videos in {uri}; expected files with a suffix of {', '.join(VIDEO_SUFFIXES)}")
    return _items(uri, lines, _file_item)


def _file_item(line: _Line) -> CrawlItem:
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


def _parquet_lines(uri: str) -> list[_Line]:
    try:
        data = read_bytes(uri)
        table = tables.parse(data)
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri} is {contents.describe(data) or f'not a readable Parquet file: {error}'}") from error
    _check_columns(uri, table.column_names)
    kept = table.select([name for name in MANIFEST_COLUMNS if name in table.column_names])
    return [
        _Line(number, {name: "" if value is None or value != value else str(value) for name, value in row.items()})
        for number, row in enumerate(kept.to_pylist(), start=1)
    ]


def _check_columns(uri: str, found: list[str]) -> None:
    missing = [name for name in ("video_id", "url") if name not in found]
    if missing:
        raise InputError(
            f"{uri} has no column {' and '.join(missing)}, only {', '.join(found)}; "
            f"a manifest has the columns {', '.join(MANIFEST_COLUMNS)}, and the first two are required"
        )


def _csv(uri: str) -> list[CrawlItem]:
    """Read a CSV file; its first line decides which of the three formats it has."""
    data = read_bytes(uri)
    if data and (what := contents.describe(data)):
        raise InputError(f"{uri} is {what}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        table = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise InputError(
            f"{uri}, line {reader.line_num}: {error}; put quotes around fields with quotes or line breaks"
        ) from None
    if not table:
        raise InputError(f"the crawl {uri} is empty; expected at least one video")
    header = [field.strip() for field in table[0][1]]
    if "youtube_id" in header and "time_start" in header and "time_end" in header:
        files = _files_near(uri)
        return _items(uri, _csv_lines(header, table[1:]), lambda line: _kinetics_item(line, files))
    if len(header) in (3, 4) and _is_youtube_id(header[0]) and _is_number(header[1]):
        files = _files_near(uri)
        return _items(
            uri, _csv_lines(["youtube_id", "start", "label", "split"], table), lambda line: _vgg_item(line, files)
        )
    if "video_id" not in header and "url" not in header:
        raise InputError(
            f"{uri} starts with {','.join(header)[:200]!r}, which is not a known format of a crawl; expected a "
            f"manifest with the header {','.join(MANIFEST_COLUMNS)}, lines of VGG-Sound (youtube id,start,label,split) "
            "or the header of Kinetics (label,youtube_id,time_start,time_end,split)"
        )
    _check_columns(uri, header)
    return _items(uri, _csv_lines(header, table[1:]), lambda line: _manifest_item(line, uri))


def _csv_lines(columns: list[str], table: Iterable[tuple[int, list[str]]]) -> list[_Line]:
    lines = []
    for number, row in table:
        wrong = "" if len(row) == len(columns) else f"{len(row)} fields, expected {len(columns)} ({', '.join(columns)})"
        lines.append(_Line(number, dict(zip(columns, (field.strip() for field in row), strict=False)), wrong))
    return lines


def _items(uri: str, lines: Iterable[_Line], make: Callable[[_Line], CrawlItem]) -> list[CrawlItem]:
    """Return one item for each line.

    Raises:
        InputError: If lines are broken or ids repeat; the message lists the first faults and counts all of them.
    """
    items: list[CrawlItem] = []
    faults: list[str] = []
    line_of: dict[str, int] = {}
    for line in lines:
        try:
            if line.fault:
                raise _FaultError(line.fault)
            item = make(line)
            _check_id(item.video_id)
            if item.video_id in line_of:
                raise _FaultError(
                    f"video_id {item.video_id!r} is also on line {line_of[item.video_id]}; ids must differ"
                )
        except _FaultError as fault:
            faults.append(f"  line {line.number}: {fault}")
            continue
        line_of[item.video_id] = line.number
        items.append(item)
    if faults:
        shown = faults[:FAULTS_SHOWN]
        more = f"\n  and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
        raise InputError(
            f"{len(faults)} broken lines in the crawl {uri}; correct or remove them:\n" + "\n".join(shown) + more
        )
    return items


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


def _manifest_item(line: _Line, uri: str) -> CrawlItem:
    fields = line.fields
    url = fields.get("url", "").strip()
    if not url:
        raise _FaultError("url is empty, expected a path or an address")
    if not url.isprintable():
        raise _FaultError(f"url {url!r} contains unprintable characters; remove them")
    if not protocol(url) and not url.startswith("/"):
        url = join(absolute(uri).rsplit("/", 1)[0], url)
    start, end = _seconds(fields, "start_seconds"), _seconds(fields, "end_seconds")
    if end is not None and end <= (start or 0.0):
        raise _FaultError(f"end_seconds {end:g} must be greater than start_seconds {start or 0.0:g}")
    return CrawlItem(fields.get("video_id", ""), url, start, end, fields.get("label", ""), fields.get("split", ""))


def _seconds(fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise _FaultError(f"{name} {text!r} is not a number of seconds >= 0")
    return value


def _required_seconds(fields: dict[str, str], name: str) -> float:
    value = _seconds(fields, name)
    if value is None:
        raise _FaultError(f"{name} is empty, expected seconds")
    return value


def _kinetics_item(line: _Line, files: dict[str, str]) -> CrawlItem:
    fields = line.fields
    start, end = _required_seconds(fields, "time_start"), _required_seconds(fields, "time_end")
    if end <= start:
        raise _FaultError(f"time_end {end:g} must be greater than time_start {start:g}")
    name = f"{fields['youtube_id']}_{int(start):06d}_{int(end):06d}"
    return _native_item(name, fields, start, end, files)


def _vgg_item(line: _Line, files: dict[str, str]) -> CrawlItem:
    start = _required_seconds(line.fields, "start")
    name = f"{line.fields['youtube_id']}_{int(start):06d}"
    return _native_item(name, line.fields, start, start + VGG_SOUND_SECONDS, files)


def _native_item(name: str, fields: dict[str, str], start: float, end: float, files: dict[str, str]) -> CrawlItem:
    """Return a video of a native CSV: a file of exactly this window, a file of the whole video, or its page."""
    youtube_id = fields["youtube_id"]
    if not _is_youtube_id(youtube_id):
        raise _FaultError(f"youtube id {youtube_id!r} must be 11 letters, digits, '-' or '_'")
    label, split = fields.get("label", ""), fields.get("split", "")
    for trimmed in (f"{youtube_id}_{int(start):06d}_{int(end):06d}", f"{youtube_id}_{int(start):06d}"):
        if trimmed in files:
            return CrawlItem(name, files[trimmed], None, None, label, split)
    page = f"https://www.youtube.com/watch?v={youtube_id}"
    return CrawlItem(name, files.get(youtube_id, page), start, end, label, split)


def _files_near(uri: str) -> dict[str, str]:
    """Return the URLs of the videos in the folder of a CSV and up to two levels below, by name without suffix."""
    fs, path = open_fs(uri)
    found = {}
    for name in sorted(fs.find(path.rsplit("/", 1)[0], maxdepth=3), reverse=True):
        stem, _, suffix = name.rsplit("/", 1)[-1].rpartition(".")
        if suffix.lower() in NATIVE_SUFFIXES:
            found[stem] = _full_name(uri, name)
    return found


def _is_youtube_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{11}", text) is not None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text.strip()) is not None
