"""What the address of a video names, and whether a crawl may name it; decided without any traffic.

Not in the paper. A crawl often comes from strangers, and this machine reads files and buckets with the rights of its
user. So a crawl reaches only these without a permission of the user:

    - Hosts as `url_guard.py` says, and videos on YouTube.
    - Regular files below its own folder, or below the folders in `PREVITS_LOCAL_FILES` (separated by colons). Symbolic
      links are followed before the decision. The files of the kernel in /proc and /sys are never allowed.
    - Objects below its own folder, if it lies in an object store, or below the prefixes in `PREVITS_TRUSTED_STORES`
      (separated by commas, such as `gs://bucket,s3://other/videos`).

`open_file` opens a file without following a link, so a link that is made after the decision leads nowhere.
"""

import contextlib
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from previts.errors import FetchError, InputError, RefusedError, VideoError
from previts.ingest import url_guard
from previts.ingest.url_guard import MAX_URL_LENGTH, WebAddress
from previts.storage import files

# Schemes of object stores, each with the one that is used here.
OBJECT_STORES = {
    "gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3", "abfs": "abfs", "abfss": "abfs", "az": "abfs", "memory": "memory",
}  # fmt: skip
YOUTUBE_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
KERNEL_FOLDERS = ("/proc", "/sys")


@dataclass(frozen=True)
class Reach:
    """What a crawl may name besides hosts: local files below `folders` (real paths), objects below `stores` (URIs)."""

    folders: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    anything: bool = False


ANYTHING = Reach(folders=("/",), anything=True)
"""The reach of an address that the user gives directly."""


@dataclass(frozen=True)
class LocalFile:
    """A path on this machine: its real path, without links, and the allowed folder above it."""

    path: str
    folder: str


@dataclass(frozen=True)
class StoredObject:
    """An object in a store, by its URI."""

    uri: str


@dataclass(frozen=True)
class YouTubeVideo:
    """A video on YouTube, by its id."""

    video_id: str


def reach_of(folder: str) -> Reach:
    """Return what a crawl may name that lies in a folder, given as an absolute path or a URI.

    Raises:
        InputError: If `PREVITS_TRUSTED_STORES` cannot be read.
    """
    folders = [name for name in os.environ.get("PREVITS_LOCAL_FILES", "").split(":") if name]
    stores = [name.strip() for name in os.environ.get("PREVITS_TRUSTED_STORES", "").split(",") if name.strip()]
    for name in stores:
        if not _is_object(name):
            raise InputError(
                f"PREVITS_TRUSTED_STORES has the entry {name!r}; expected prefixes separated by commas, such as "
                "gs://bucket or s3://bucket/videos"
            )
    if _is_object(folder):
        stores.append(folder)
    elif "://" not in folder and os.path.realpath(folder) != "/":  # a crawl in / would reach every file
        folders.append(folder)
    return Reach(tuple(os.path.realpath(name) for name in folders), tuple(_object_uri(name) for name in stores))


def joined(folder: str, relative: str) -> str:
    """Return the address of a relative path in the folder of a crawl; in a store, `.` and `..` would be names."""
    address = files.join(folder, relative)
    scheme, separator, path = address.partition("://")
    if _is_object(folder) and {".", ".."}.intersection(path.split("/")):
        return scheme + separator + posixpath.normpath(path)
    return address


def source_of(url: str, reach: Reach) -> LocalFile | StoredObject | YouTubeVideo | WebAddress:
    """Return what the address of a video names. Nothing is opened, and no name is resolved.

    Args:
        url: A path, or a URL. Only a `file://` URL is percent-decoded, once. A relative path starts at the current
            folder.
        reach: What the crawl may name.

    Raises:
        VideoError: If the address is broken or of a kind that is not supported; `RefusedError` if the crawl may not
            name it.
    """
    if not url_guard.is_plain(url):
        raise VideoError(f"the address has unprintable characters, or more than {MAX_URL_LENGTH} characters; rename it")
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    scheme = found[1].lower() if found else ""
    if "::" in url and "://" in url and scheme not in ("http", "https"):  # in those, `::` may be in an IPv6 address
        raise VideoError("chained URLs (`::`) are not allowed in a crawl")
    if scheme in ("http", "https"):
        address = url_guard.parse(url)
        return _youtube_video(address) if address.host in YOUTUBE_HOSTS else address
    if scheme in OBJECT_STORES:
        return _stored_object(url, reach)
    if scheme == "file" or "://" not in url or url.startswith("/"):
        return _local_file(url, scheme, reach)
    raise VideoError(
        f"{scheme[:20] or 'an address without a scheme'}:// is not supported; use a path, https:// or one of "
        f"{', '.join(OBJECT_STORES)}"
    )


def open_file(source: LocalFile) -> BinaryIO:
    """Open a local file for reading.

    Raises:
        VideoError: If it is not a regular file, or a folder above it became a link; `FetchError` if it is missing or
            cannot be read.
    """
    try:
        with contextlib.ExitStack() as opened:
            place = os.open(source.folder, os.O_PATH | os.O_DIRECTORY)
            opened.callback(os.close, place)
            *above, name = os.path.relpath(source.path, source.folder).split("/")
            for part in above:
                place = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
                opened.callback(os.close, place)
            # A device may act when it is opened, so its kind is looked up before and, against a swap, after.
            if not stat.S_ISREG(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
                raise VideoError("the path is not a regular file")
            file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise FetchError("there is no such file", retryable=False) from None
    except OSError as error:
        raise FetchError(f"the file cannot be read: {error.strerror}", retryable=False) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise VideoError("the path is not a regular file")
    return file


def _local_file(url: str, scheme: str, reach: Reach) -> LocalFile:
    path = url
    if scheme:
        host, _, rest = url.split("://", 1)[1].partition("/")
        if host.lower() not in ("", "localhost"):
            raise VideoError("the address names a file of another machine; write file:/// and a path")
        try:
            path = "/" + unquote(rest, errors="strict")
        except UnicodeDecodeError:
            raise VideoError("the percent-encoded characters of the address are not UTF-8") from None
        if not url_guard.is_plain(path):
            raise VideoError("the path has unprintable characters")
    real, named = os.path.realpath(path), os.path.abspath(re.sub("^/+", "/", path))
    # A link in /proc may lead to any file that a process has open.
    if any(_is_below(name, folder) for folder in KERNEL_FOLDERS for name in (real, named)):
        raise VideoError(f"files in {' and '.join(KERNEL_FOLDERS)} are not videos")
    for folder in reach.folders:
        if _is_below(real, folder):
            return LocalFile(real, folder)
    raise RefusedError(
        "the file is not below the folder of the crawl; if you trust the crawl, add the folder of the file to "
        "PREVITS_LOCAL_FILES"
    )


def _stored_object(url: str, reach: Reach) -> StoredObject:
    if not _is_object(url):
        raise VideoError("the address of an object needs a bucket and a name without the parts '.' and '..'")
    uri = _object_uri(url)
    if reach.anything or any(_is_below(uri, store) for store in reach.stores):
        return StoredObject(uri)
    raise RefusedError(
        "the object is not below the folder of the crawl; if you trust the crawl, add the bucket to "
        "PREVITS_TRUSTED_STORES"
    )


def _is_object(url: str) -> bool:
    scheme, separator, rest = url.partition("://")
    parts = rest.strip("/").split("/")
    known = separator and scheme.lower() in OBJECT_STORES
    return bool(known and parts[0] and not {".", ".."}.intersection(parts) and "::" not in url)


def _object_uri(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{OBJECT_STORES[scheme.lower()]}://{rest.strip('/')}"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _youtube_video(address: WebAddress) -> YouTubeVideo:
    """Return the id of a page, because yt-dlp would follow any other page to any host."""
    parts = urlsplit(address.target)
    first, *rest = parts.path.strip("/").split("/")
    found = [first] if address.host == "youtu.be" else parse_qs(parts.query).get("v", [])
    if first in ("shorts", "embed", "live", "v"):
        found = rest
    if not found or not re.fullmatch(r"[A-Za-z0-9_-]{11}", found[0]):
        raise VideoError("the address is on YouTube but is not the page of a video; use youtube.com/watch?v=ID")
    return YouTubeVideo(found[0])
