"""Bring one video of a crawl to this machine's disk.

Below PreViTS section 4.1: its videos are files from strangers. Addresses are checked before anything connects to them,
sizes and times are capped, and playlists are refused. Nothing here decodes, or knows shards or tables.

Rules for URLs: https to public addresses always; plain http with PREVITS_ALLOW_HTTP=1; both to this machine where the
crawl itself says `localhost` or a loopback address, but never by a redirect or by what a name resolves to; and anything
to the hosts named in PREVITS_TRUSTED_HOSTS (comma separated). Proxies are not used: they resolve names by themselves.
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

from previts.errors import FetchError, InputError, VideoError
from previts.ingest.url_guard import checked_addresses
from previts.storage import files

OBJECT_STORES = ("gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "memory")
YOUTUBE_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
BLOCK_BYTES = 1 << 18
USER_AGENT = "previts (research crawler)"
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
# What FFmpeg, or a careless server, could take for a video although it points elsewhere.
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
    """What one video may cost; seconds are wall clock unless named otherwise."""

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
    """Put the video at `url` to `target_path`; a local file is linked, not copied.

    Raises:
        VideoError: If it is empty, too large, a playlist or a web page, or the URL is not allowed.
        FetchError: If it could not be had; `retryable` is true for time-outs, dropped connections and busy servers.
        InputError: If the library for an object store is not installed.
    """
    scheme = urlsplit(url).scheme.lower() if "://" in url else "file"
    if "::" in url and scheme not in ("http", "https"):  # there it may be an IPv6 address
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
        raise VideoError(
            f"{scheme}:// is not a source of videos; use a path, https://, or one of {', '.join(OBJECT_STORES)}"
        )
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
            raise VideoError(f"{what}, not a video")


def _too_large(size: int, limits: Limits) -> str:
    return f"{size} bytes are more than the limit of {limits.max_bytes}"


def _link(url: str, target_path: str) -> None:
    path = files.local_path(url)
    assert path is not None
    if not os.path.exists(path):
        raise FetchError("there is no such file", retryable=False)
    if not os.path.isfile(path):
        raise VideoError("not a regular file")
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
                    raise FetchError(f"not here after {limits.max_seconds:g} s", retryable=True)
    except FileNotFoundError:
        raise FetchError("there is no such object in the store", retryable=False) from None
    except PermissionError as error:
        raise FetchError(f"the store refuses to give it: {error}", retryable=False) from error
    except _store_errors(url) as error:
        _blame_full_disk(error, target_path)
        raise FetchError(f"the store could not be read: {error}", retryable=True) from error


def _store_errors(url: str) -> tuple[type[Exception], ...]:
    """Return what a store's library raises besides OSError; imported here, for the child never needs them."""
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
            # Not seeded: workers that met a busy server together should come back apart.
            pause = limits.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            if not error.retryable or attempt == limits.attempts or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)


def _download(url: str, target_path: str, limits: Limits, deadline: float) -> None:
    """Follow redirects and stream the body; one attempt."""
    seen: set[str] = set()
    for hop in range(limits.max_redirects + 1):
        seen.add(url)
        connection = _connect(url, redirected=hop > 0, deadline=deadline)
        # The one clock for headers and body: a server that drips bytes never trips a socket's own time-out.
        clock = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [connection.sock])
        clock.daemon = True
        clock.start()
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
            # http.client meets a socket that the clock closed as an attribute of None.
            _blame_full_disk(error, target_path)
            if time.monotonic() >= deadline:
                raise FetchError(
                    f"not here after {limits.max_seconds:g} s: the server is too slow", retryable=True
                ) from error
            raise FetchError(f"the connection broke: {error or type(error).__name__}", retryable=True) from error
        finally:
            clock.cancel()
            connection.close()
        if location in seen:
            raise FetchError("redirects in a circle", retryable=False)
        url = location
    raise FetchError(f"more than {limits.max_redirects} redirects", retryable=False)


def _blame_full_disk(error: Exception, path: str) -> None:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        raise InputError(f"no space left for {path}; free some, or let TMPDIR name a larger disk") from error


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
                raise VideoError(_too_large(received, limits) + " (and more was to come)")
            target.write(block)
    if expected is not None and received < expected:
        raise http.client.IncompleteRead(b"", expected - received)


def _connect(url: str, redirected: bool, deadline: float) -> http.client.HTTPConnection:
    """Return a connection to an address that was checked, so that a name cannot mean another address later."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise VideoError(f"not a URL: {error}") from error
    if not host or parts.scheme not in ("http", "https"):
        raise VideoError(
            f"the address leads to {parts.scheme or 'no scheme'}://{host or ''}; only http and https are followed"
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
    raise AssertionError("a name without addresses is refused before")


def _fetch_youtube(url: str, target_path: str, limits: Limits) -> None:
    """Let yt-dlp fetch a page's video; it picks the smallest that still has 256 px."""
    if importlib.util.find_spec("yt_dlp") is None:
        raise FetchError(
            "videos on YouTube need yt-dlp (pip install 'previts[youtube]'), or put the files beside the CSV",
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
        raise FetchError(f"not here after {limits.max_seconds:g} s", retryable=True) from None
    if done.returncode or not os.path.exists(target_path):
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no reason given"]
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1]).removeprefix("ERROR: ")
        gone = any(word in reason.lower() for word in ("unavailable", "private", "removed", "terminated", "copyright"))
        raise FetchError(f"yt-dlp: {reason[:300]}", retryable=not gone)
