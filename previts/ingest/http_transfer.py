"""One file over http: redirects, limits for bytes and time, and transfers that continue where they broke.

Servers are untrusted. `url_guard.py` decides before each connection, also after a redirect. A header, a chunk or a body
that was cut off is never taken as complete. No text of a server gets into a message.
"""

import contextlib
import email.utils
import errno
import http
import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import urljoin

from previts.errors import FetchError, VideoError
from previts.ingest import url_guard
from previts.ingest.url_guard import WebAddress

BLOCK_BYTES = 1 << 18
USER_AGENT = "previts (research crawler)"
REDIRECTS = (301, 302, 303, 307, 308)
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
DIAL_SECONDS = 30.0  # longest wait for one connection, and for the next bytes of a server
MAX_ADDRESSES = 8  # addresses of a host that are tried
CUT_OFF = "the connection broke: the server closed it too early"


class Transfer:
    """The transfer of one file in several attempts.

    A further attempt asks for the missing bytes only, if the server can prove that the file is still the same: by a
    strong ETag or a strong Last-Modified (RFC 9110, If-Range).
    """

    def __init__(self, url: str, target_path: str, *, max_bytes: int, max_seconds: float, max_redirects: int) -> None:
        self._url, self._target = url, target_path
        self._max_bytes, self._max_seconds, self._max_redirects = max_bytes, max_seconds, max_redirects
        self.deadline = time.monotonic() + max_seconds
        self._received = 0
        self._total: int | None = None
        self._validator = ""

    def attempt(self) -> None:
        """Make one attempt: follow redirects and write the missing bytes of the body to the file.

        Raises:
            VideoError: If the file is too large, or an address is not allowed.
            FetchError: If the transfer failed; `retryable` if a further attempt may succeed.
            OSError: If the disk is full.
        """
        url = self._url
        seen = set()
        for _ in range(self._max_redirects + 1):
            seen.add(url)
            address = url_guard.parse(url)
            with self._connection(address) as connection:
                connection.request("GET", address.target, headers=self._headers())
                response = connection.getresponse()
                if response.status not in REDIRECTS:
                    self._receive(response)
                    return
                location = response.getheader("Location") or ""
            url = _joined(url, location)
            if url in seen:
                raise FetchError("the redirects form a loop", retryable=False)
        raise FetchError(f"more than {self._max_redirects} redirects", retryable=False)

    @contextlib.contextmanager
    def _connection(self, address: WebAddress) -> Iterator[http.client.HTTPConnection]:
        """Connect to a checked address; errors inside the block become a `FetchError`."""
        expired = threading.Event()
        with contextlib.ExitStack() as opened:
            sock = _dial(address, url_guard.checked_addresses(address), self.deadline)
            opened.callback(sock.close)
            try:
                if address.encrypted:
                    context = ssl.create_default_context()
                    sock = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
                    opened.callback(sock.close)
                # One timer for handshake, headers and body: a server that sends single bytes never reaches the
                # socket's own time-out.
                timer = threading.Timer(max(0.0, self.deadline - time.monotonic()), _hang_up, [sock, expired])
                timer.daemon = True
                opened.callback(timer.cancel)
                timer.start()
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                made = http.client.HTTPSConnection if address.encrypted else http.client.HTTPConnection
                connection = made(address.host, address.port)
                connection.sock, connection.auto_open = sock, 0
                connection.response_class = _Response
                yield connection
                if expired.is_set() and self._total is None:  # a body without a length ends with the connection
                    raise http.client.IncompleteRead(b"")
            except (OSError, http.client.HTTPException) as error:
                check_disk(error, self._target)
                if expired.is_set() or time.monotonic() >= self.deadline:
                    raise FetchError(too_slow(self._max_seconds), retryable=True) from error
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise FetchError(f"{address.host} has no valid certificate", retryable=False) from error
                raise FetchError(_broken(error), retryable=True) from error

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if self._received and self._validator:
            headers |= {"Range": f"bytes={self._received}-", "If-Range": self._validator}
        return headers

    def _receive(self, response: http.client.HTTPResponse) -> None:
        """Write the body of an answer at its place in the file."""
        if response.status == 206 and self._received and self._validator:
            stop: int | None = self._continue(response)
        elif response.status == 200:
            stop = self._start(response)
        elif response.status == 416 and self._received:
            self._forget("the server does not send the rest of the file")
        else:
            raise FetchError(_status(response.status), retryable=response.status in RETRIED_STATUS)
        if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise FetchError("the server sends the video compressed, which was not asked for", retryable=False)
        with open(self._target, "ab" if self._received else "wb") as target:
            while block := response.read1(BLOCK_BYTES):
                if self._received + len(block) > self._max_bytes:
                    raise VideoError(too_large(self._received + len(block), self._max_bytes) + " (and more follow)")
                target.write(block)
                self._received += len(block)
        if stop is not None and self._received != stop:
            raise http.client.IncompleteRead(b"")
        if self._total is not None and self._received < self._total:
            raise FetchError("the server sent only a part of the file", retryable=True)

    def _start(self, response: http.client.HTTPResponse) -> int | None:
        """Note what a whole answer says about the file; return the length of its body, or None if it is unknown."""
        encoding = response.getheader("Transfer-Encoding")
        length = response.getheader("Content-Length")
        if (encoding and not response.chunked) or (length and not re.fullmatch("[0-9]{1,18}", length.strip())):
            raise FetchError("the server does not say clearly where its answer ends", retryable=True)
        total: int | None = response.length
        if total is not None and total > self._max_bytes:
            raise VideoError(too_large(total, self._max_bytes))
        self._received, self._total, self._validator = 0, total, _validator(response)
        return total

    def _continue(self, response: http.client.HTTPResponse) -> int:
        """Check that a partial answer continues the file; return where its body ends."""
        part = r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})"
        found = re.fullmatch(part, response.getheader("Content-Range") or "")
        start, last, total = (int(number) for number in found.groups()) if found else (-1, -1, -1)
        tag = response.getheader("ETag") if self._validator.startswith('"') else None
        same = self._total in (None, total) and tag in (None, self._validator)
        if not (same and start == self._received <= last < total and response.length in (None, last + 1 - start)):
            self._forget("the server sent another part of the file than it was asked for")
        if total > self._max_bytes:
            raise VideoError(too_large(total, self._max_bytes))
        self._total = total
        return last + 1

    def _forget(self, reason: str) -> NoReturn:
        """Fail, and start at zero in the next attempt."""
        self._received, self._total, self._validator = 0, None, ""
        raise FetchError(reason, retryable=True)


class _Response(http.client.HTTPResponse):
    """A response that notices a header or a chunk that was cut off; http.client takes a cut header as complete."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        super().__init__(sock, debuglevel, method, url)
        self.fp = _Lines(self.fp.detach())


class _Lines(io.BufferedReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(b"")
        return line


def too_large(size: int, max_bytes: int) -> str:
    """Return the reason of a file that is too large."""
    return f"{size} bytes are more than the limit of {max_bytes}"


def too_slow(max_seconds: float) -> str:
    """Return the reason of a transfer that took too long."""
    return f"the download was not complete after {max_seconds:g} s: the source is too slow"


def check_disk(error: Exception, path: str) -> None:
    """Raise an OSError that names `path` if the reason of an error is its disk; the video is not the cause."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise OSError(error.errno, error.strerror, path) from error


def _dial(address: WebAddress, found: list[str], deadline: float) -> socket.socket:
    reason = "too late"
    for place in found[:MAX_ADDRESSES]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((place, address.port), timeout=min(DIAL_SECONDS, max(0.1, left)))
        except OSError as error:
            reason = _cause(error)
    raise FetchError(f"no connection to {address.host}: {reason}", retryable=True)


def _hang_up(sock: socket.socket, expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)


def _broken(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return CUT_OFF
    if isinstance(error, http.client.HTTPException):
        return "the connection broke: the answer of the server is not valid HTTP"
    return f"the connection broke: {_cause(error)}"


def _cause(error: Exception) -> str:
    """Return why the network failed, in words of the operating system."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "the server does not speak TLS as expected"
    return (isinstance(error, OSError) and error.strerror) or "unknown reason"


def _status(code: int) -> str:
    try:
        return f"HTTP {code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return f"HTTP {code}"


def _joined(url: str, location: str) -> str:
    """Return where a redirect leads. A header has the characters of Latin-1, but servers often write UTF-8."""
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        return urljoin(url, location)
    except ValueError:
        raise FetchError("the server redirects to an address that is not a valid URL", retryable=False) from None


def _validator(response: http.client.HTTPResponse) -> str:
    """Return the header that proves that a file did not change, or "" if there is none (RFC 9110, section 8.8)."""
    if (response.getheader("Accept-Ranges") or "").strip().lower() == "none":
        return ""
    tag = response.getheader("ETag") or ""
    if re.fullmatch('"[!#-~]*"', tag):
        return tag
    changed = response.getheader("Last-Modified") or ""
    try:
        age = email.utils.parsedate_to_datetime(response.getheader("Date") or "") - email.utils.parsedate_to_datetime(
            changed
        )
    except (ValueError, TypeError):
        return ""
    # A second file of the same second would have the same date.
    return changed if age.total_seconds() >= 1 and changed.isprintable() else ""
