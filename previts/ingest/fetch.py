"""The fetcher: copies one video of a crawl to the local disk, from http, YouTube, an object store or a path.

It prepares the corpora of PreViTS section 4.1, whose videos come from untrusted sources. Hosts are checked before a
connection is made (`url_guard.py` has the rules), size and time are limited, and playlists are refused. This module
decodes nothing.
"""

import errno
import http.client
import importlib.util
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from previts.errors import FetchError, VideoError
from previts.ingest.url_guard import checked_addresses
from previts.storage import files

OBJECT_STORES = ("gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "memory")
YOUTUBE_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
BLOCK_BYTES = 1 << 18
USER_AGENT = "previts (research crawler)"
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
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
}


@dataclass(frozen=True)
class Limits:
    """Limits for one video: the first five are for `fetch`, the others for decoding. Seconds are wall-clock time."""

    max_bytes: int = 2 << 30
    max_seconds: float = 600.0
    max_redirects: int = 5
    attempts: int = 3
    backoff_seconds: float = 1.0
    decode_seconds: float = 600.0
    decode_cpu_seconds: int = 300
    memory_bytes: int = 4 << 30
    stored_bytes: int = 512 << 20


DEFAULT_LIMITS = Limits()


def fetch(url: str, target_path: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Store the video at `url` as `target_path`; a local file is linked, not copied.

    Raises:
        VideoError: If it is empty, too large, a playlist or a web page, or the URL is not allowed.
        FetchError: If it cannot be fetched; `retryable` is true for time-outs, dropped connections and busy servers.
        InputError: If the library for an object store is not installed, or the disk is full.
    """
    scheme = urlsplit(url).scheme.lower() if "://" in url else "file"
    if "::" in url and scheme not in ("http", "https"):  # in those, `::` may be in an IPv6 address
        raise VideoError("chained URLs (`::`) are not allowed in a crawl")
    if scheme == "file":
        _link(url, target_path)
    elif scheme in ("http", "https"):
        if urlsplit(url).hostname in YOUTUBE_HOSTS:
            _fetch_youtube(url, target_path, limits)
        else:
            _fetch_http(url, target_path, limits)
    elif scheme in OBJECT_STORES:
        _fetch_object(url, target_path, limits)
    else:
        raise VideoError(f"{scheme}:// is not supported; use a path, https:// or one of {', '.join(OBJECT_STORES)}")
    _check_content(target_path, limits)


def _check_content(path: str, limits: Limits) -> None:
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError("the file is empty (0 bytes)")
    if size > limits.max_bytes:
        raise VideoError(_too_large(size, limits))
    with open(path, "rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, what in REFUSED_STARTS.items():
        if start[: len(magic)].lower() == magic.lower():
            raise VideoError(f"the file is {what}, not a video")


def _too_large(size: int, limits: Limits) -> str:
    return f"{size} bytes are more than the limit of {limits.max_bytes}"


def _link(url: str, target_path: str) -> None:
    path = files.local_path(url)
    assert path is not None
    if not os.path.exists(path):
        raise FetchError("there is no such file", retryable=False)
    if not os.path.isfile(path):
        raise VideoError("the path is not a regular file")
    if not os.access(path, os.R_OK):
        raise FetchError("the file cannot be read (permissions)", retryable=False)
    os.symlink(os.path.abspath(path), target_path)


def _fetch_object(url: str, target_path: str, limits: Limits) -> None:
    fs, path = files.open_fs(url)
    deadline = time.monotonic() + limits.max_seconds
    try:
        size = int(fs.info(path)["size"])
        if size > limits.max_bytes:
            raise VideoError(_too_large(size, limits))
        with fs.open(path, "rb") as source, open(target_path, "wb") as target:
            while block := source.read(BLOCK_BYTES):
                target.write(block)
                if time.monotonic() > deadline:
                    raise FetchError(f"the download was not complete after {limits.max_seconds:g} s", retryable=True)
    except FileNotFoundError:
        raise FetchError("there is no such object in the store", retryable=False) from None
    except PermissionError as error:
        raise FetchError(f"the store denies access: {error}", retryable=False) from error
    except _store_errors(url) as error:
        _raise_if_disk_full(error, target_path)
        raise FetchError(f"the store cannot be read: {error}", retryable=True) from error


def _store_errors(url: str) -> tuple[type[Exception], ...]:
    """Return the errors that a store's library raises; imported here because the decoding child never needs them."""
    if url.startswith("memory://"):
        return (OSError,)
    from aiohttp import ClientError

    if not url.startswith(("gs://", "gcs://")):
        return (OSError, ClientError)
    from gcsfs.retry import HttpError  # type: ignore[import-untyped]

    return (OSError, ClientError, HttpError)


def _fetch_http(url: str, target_path: str, limits: Limits) -> None:
    deadline = time.monotonic() + limits.max_seconds
    for attempt in range(1, limits.attempts + 1):
        try:
            _download(url, target_path, limits, deadline)
            return
        except FetchError as error:
            # Not seeded: workers that met a busy server together should retry at different times.
            pause = limits.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            if not error.retryable or attempt == limits.attempts or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)


def _download(url: str, target_path: str, limits: Limits, deadline: float) -> None:
    """Make one attempt: follow redirects and write the body to a file."""
    seen: set[str] = set()
    for hop in range(limits.max_redirects + 1):
        seen.add(url)
        connection = _connect(url, redirected=hop > 0, deadline=deadline)
        # One timer for headers and body: a server that sends single bytes never reaches the socket's own time-out.
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [connection.sock])
        timer.daemon = True
        timer.start()
        try:
            parts = urlsplit(url)
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
                f"?{_quoted(parts.query)}" if parts.query else ""
            )
            connection.request("GET", target, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            response = connection.getresponse()
            if response.status not in (301, 302, 303, 307, 308):
                _receive(response, target_path, limits)
                return
            location = urljoin(url, response.getheader("Location") or "")
        except (OSError, http.client.HTTPException, AttributeError) as error:
            # AttributeError: http.client fails so on a connection whose socket the timer closed.
            _raise_if_disk_full(error, target_path)
            if time.monotonic() >= deadline:
                raise FetchError(
                    f"the download was not complete after {limits.max_seconds:g} s: the server is too slow",
                    retryable=True,
                ) from error
            raise FetchError(f"the connection broke: {error or type(error).__name__}", retryable=True) from error
        finally:
            timer.cancel()
            connection.close()
        if location in seen:
            raise FetchError("the redirects form a loop", retryable=False)
        url = location
    raise FetchError(f"more than {limits.max_redirects} redirects", retryable=False)


def _raise_if_disk_full(error: Exception, path: str) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        raise OSError(error.errno, error.strerror, path) from error


def _quoted(query: str) -> str:
    return quote(query, safe="/?%:@!$&'()*+,;=~")


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already


def _receive(response: http.client.HTTPResponse, target_path: str, limits: Limits) -> None:
    if response.status in RETRIED_STATUS:
        raise FetchError(f"HTTP {response.status} {response.reason}", retryable=True)
    if response.status != 200:
        raise FetchError(f"HTTP {response.status} {response.reason}", retryable=False)
    expected = response.length
    if expected is not None and expected > limits.max_bytes:
        raise VideoError(_too_large(expected, limits))
    received = 0
    with open(target_path, "wb") as target:
        while block := response.read1(BLOCK_BYTES):
            received += len(block)
            if received > limits.max_bytes:
                raise VideoError(_too_large(received, limits) + " (and more data follows)")
            target.write(block)
    if expected is not None and received < expected:
        raise http.client.IncompleteRead(b"", expected - received)


def _connect(url: str, *, redirected: bool, deadline: float) -> http.client.HTTPConnection:
    """Return a connection to a checked address, so that a second look-up of the name cannot lead elsewhere."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise VideoError(f"the address is not a valid URL: {error}") from error
    if not host or parts.scheme not in ("http", "https"):
        raise VideoError(
            f"the address leads to {parts.scheme or 'no scheme'}://{host or ''}; only http and https are allowed"
        )
    port = port or (443 if parts.scheme == "https" else 80)
    addresses = checked_addresses(host, port, encrypted=parts.scheme == "https", redirected=redirected)
    timeout = max(0.1, min(30.0, deadline - time.monotonic()))
    connection: http.client.HTTPConnection
    context = ssl.create_default_context() if parts.scheme == "https" else None
    try:
        sock = _dial(addresses, port, timeout)
        if context is None:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = sock
        else:
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise FetchError(f"{host} has no valid certificate: {error.verify_message}", retryable=False) from error
    except OSError as error:
        raise FetchError(f"no connection to {host}: {error or type(error).__name__}", retryable=True) from error
    return connection


def _dial(addresses: list[str], port: int, timeout: float) -> socket.socket:
    for number, address in enumerate(addresses, start=1):
        try:
            return socket.create_connection((address, port), timeout=timeout)
        except OSError:
            if number == len(addresses):
                raise
    raise AssertionError("a host without addresses cannot be resolved")


def _fetch_youtube(url: str, target_path: str, limits: Limits) -> None:
    """Fetch the video of a YouTube page with yt-dlp, in a small format that still has 256 px a side."""
    if importlib.util.find_spec("yt_dlp") is None:
        raise FetchError(
            "videos on YouTube need yt-dlp; pip install 'previts[youtube]', or put the files next to the CSV",
            retryable=True,
        )
    command = [
        sys.executable, "-P", "-m", "yt_dlp", "--ignore-config", "--no-playlist", "--no-progress", "--no-cache-dir",
        "--retries", str(limits.attempts), "--socket-timeout", "30", "--max-filesize", str(limits.max_bytes),
        "--format", "bestvideo[height<=360]/best[height<=480]/worst", "--output", target_path, "--no-part", "--", url,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limits.max_seconds, check=False)
    except subprocess.TimeoutExpired:
        raise FetchError(f"the download was not complete after {limits.max_seconds:g} s", retryable=True) from None
    if done.returncode or not os.path.exists(target_path):
        output = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in output if line.startswith("ERROR")]
        reason = (errors or output)[-1].removeprefix("ERROR: ")
        gone = any(word in reason.lower() for word in ("unavailable", "private", "removed", "terminated", "copyright"))
        raise FetchError(f"yt-dlp: {reason[:300]}", retryable=not gone)
