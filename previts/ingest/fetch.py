"""The fetcher: copies one video of a crawl to the local disk, from http, YouTube, an object store or a path.

It prepares the corpora of PreViTS section 4.1, whose videos come from untrusted sources. `sources.py` decides what a
crawl may name, and `url_guard.py` which hosts it may reach. Size and time are limited, and playlists are refused. This
module decodes nothing.
"""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import BinaryIO

from previts.errors import FetchError, InputError, RefusedError, VideoError
from previts.ingest import confinement, sources
from previts.ingest.http_transfer import BLOCK_BYTES, Transfer, check_disk, too_large, too_slow
from previts.ingest.sources import ANYTHING, LocalFile, Reach, StoredObject, YouTubeVideo
from previts.storage import files

# Variables that yt-dlp gets: proxies, and the certificates that it trusts.
_NETWORK_VARIABLES = (
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
# Starts of files that are not videos: playlists, which make FFmpeg open other files, and web pages.
REFUSED_STARTS = {
    b"#EXTM3U": "an HLS playlist",
    b"ffconcat": "a concat playlist",
    b"v=0\r": "an SDP session",
    b"v=0\n": "an SDP session",
    b"[playlist]": "a playlist",
    b"RTSPtext": "a playlist",
    b"[Reference]": "a playlist",
    b"[InternetShortcut]": "a link",
    b"<?xml": "an XML document (such as a DASH playlist)",
    b"<MPD": "a DASH playlist",
    b"<smil": "a playlist",
    b"<asx": "a playlist",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` replaces it by the video)",
}


@dataclass(frozen=True)
class Limits:
    """Limits for one video: the first five are for `fetch`, the others for decoding. Seconds are wall-clock time.

    A decoder that writes no frame for `idle_seconds` hangs. It is killed at `cpu_margin` times the CPU seconds of
    `cost.budget_seconds`: the prediction decides about almost every video, so that slow and fast machines refuse the
    same ones, and this limit is for a cost that was not predicted.
    """

    max_bytes: int = 2 << 30
    max_seconds: float = 600.0
    max_redirects: int = 5
    attempts: int = 3
    backoff_seconds: float = 1.0
    idle_seconds: float = 600.0
    cpu_margin: float = 3.0
    memory_bytes: int = 4 << 30
    stored_bytes: int = 512 << 20


DEFAULT_LIMITS = Limits()


def fetch(url: str, target_path: str, limits: Limits = DEFAULT_LIMITS, reach: Reach = ANYTHING) -> None:
    """Store the video at `url` as `target_path`.

    Args:
        url: Its address; `sources.source_of` lists the kinds.
        target_path: The file to write.
        limits: Limits for bytes, time and attempts.
        reach: What the crawl that names the video may name; by default the user names it.

    Raises:
        VideoError: If it is empty, too large, a playlist or a web page, or the address is not allowed.
        FetchError: If it cannot be fetched; `retryable` is true for time-outs, dropped connections, busy servers, and
            what the user can allow.
        InputError: If a variable with rules cannot be read.
        OSError: If the disk is full.
    """
    source = sources.source_of(url, reach)
    if isinstance(source, LocalFile):
        _copy(source, target_path, limits)
    elif isinstance(source, YouTubeVideo):
        # Only the id of the page is used, because yt-dlp follows other pages of YouTube to any host.
        _fetch_youtube(f"https://www.youtube.com/watch?v={source.video_id}", target_path, limits)
    elif isinstance(source, StoredObject):
        _fetch_object(source, target_path, limits)
    else:
        _fetch_http(url, target_path, limits)
    _check_content(target_path, limits)


def _check_content(path: str, limits: Limits) -> None:
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError("the file is empty (0 bytes)")
    if size > limits.max_bytes:
        raise VideoError(too_large(size, limits.max_bytes))
    with open(path, "rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, what in REFUSED_STARTS.items():
        if start[: len(magic)].lower() == magic.lower():
            raise VideoError(f"the file is {what}, not a video")


def _copy(source: LocalFile, target_path: str, limits: Limits) -> None:
    """Copy a local file, so that nobody can exchange it between this check and its decoding."""
    with sources.open_file(source) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise VideoError(too_large(size, limits.max_bytes))
        try:
            _write(file, target_path, limits)
        except OSError as error:
            check_disk(error, target_path)
            raise FetchError(f"the file cannot be read: {error.strerror}", retryable=True) from error


def _write(source: BinaryIO, target_path: str, limits: Limits) -> None:
    """Write what a file gives to `target_path`, within the limits of bytes and time."""
    deadline, received = time.monotonic() + limits.max_seconds, 0
    with open(target_path, "wb") as target:
        while block := source.read(BLOCK_BYTES):
            received += len(block)
            if received > limits.max_bytes:
                raise VideoError(too_large(received, limits.max_bytes))
            if time.monotonic() > deadline:
                raise FetchError(too_slow(limits.max_seconds), retryable=True)
            target.write(block)


def _fetch_object(source: StoredObject, target_path: str, limits: Limits) -> None:
    try:
        fs, path = files.open_fs(source.uri)
    except InputError as error:
        scheme = source.uri.split("://", 1)[0]
        raise FetchError(f"the library for {scheme}:// is not installed", retryable=True) from error
    try:
        info = fs.info(path)
        if info.get("type") == "directory":
            raise VideoError("the address is a folder of the store, not a video")
        if (info.get("size") or 0) > limits.max_bytes:
            raise VideoError(too_large(info["size"], limits.max_bytes))
        with fs.open(path, "rb") as file:
            _write(file, target_path, limits)
    except VideoError:
        raise
    except FileNotFoundError:
        raise FetchError("there is no such object in the store", retryable=False) from None
    except PermissionError as error:
        raise FetchError("the store denies access", retryable=False) from error
    except Exception as error:  # the library of each store has its own errors, which have no common class
        check_disk(error, target_path)
        name = type(error).__name__
        reason = "there are no valid credentials for it" if "Credential" in name or "Auth" in name else name
        raise FetchError(f"the store cannot be read: {reason}", retryable=True) from error


def _fetch_http(url: str, target_path: str, limits: Limits) -> None:
    transfer = Transfer(
        url,
        target_path,
        max_bytes=limits.max_bytes,
        max_seconds=limits.max_seconds,
        max_redirects=limits.max_redirects,
    )
    for attempt in range(1, limits.attempts + 1):
        try:
            transfer.attempt()
            return
        except FetchError as error:
            # Not seeded: workers that met a busy server together should retry at different times.
            pause = limits.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            final = not error.retryable or isinstance(error, RefusedError) or attempt == limits.attempts
            if final or time.monotonic() + pause > transfer.deadline:
                raise
            time.sleep(pause)


def _fetch_youtube(url: str, target_path: str, limits: Limits) -> None:
    """Fetch the video of a YouTube page with yt-dlp, in a small format that still has 256 px a side.

    yt-dlp reads pages of strangers, so it runs in a child without secrets, with files of its own (`youtube_child.py`).
    """
    if importlib.util.find_spec("yt_dlp") is None:
        raise FetchError(
            "videos on YouTube need yt-dlp; pip install 'previts[youtube]', or put the files next to the CSV",
            retryable=True,
        )
    folder = tempfile.mkdtemp(prefix="youtube-", dir=os.path.dirname(target_path))
    fetched = os.path.join(folder, "source")
    command = [
        sys.executable, "-P", "-m", "previts.ingest.youtube_child", folder,
        "--ignore-config", "--no-playlist", "--no-progress", "--no-cache-dir",
        "--retries", str(limits.attempts), "--socket-timeout", "30", "--max-filesize", str(limits.max_bytes),
        "--format", "bestvideo[height<=360]/best[height<=480]/worst", "--output", fetched, "--no-part", "--", url,
    ]  # fmt: skip
    environment = {
        **confinement.environment(confinement.SETTING, *_NETWORK_VARIABLES),
        "HOME": folder,
        "TMPDIR": folder,
    }
    try:
        with confinement.hidden():
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limits.max_seconds, check=False, env=environment
            )
        if done.returncode == 0 and os.path.exists(fetched):
            confinement.take(fetched, target_path)
    except subprocess.TimeoutExpired:
        raise FetchError(f"the download was not complete after {limits.max_seconds:g} s", retryable=True) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode or not os.path.exists(target_path):
        output = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in output if line.startswith("ERROR")]
        reason = (errors or output)[-1].removeprefix("ERROR: ")
        reason = "".join(letter for letter in reason if letter.isprintable())
        gone = any(word in reason.lower() for word in ("unavailable", "private", "removed", "terminated", "copyright"))
        raise FetchError(f"yt-dlp: {reason[:300]}", retryable=not gone)
