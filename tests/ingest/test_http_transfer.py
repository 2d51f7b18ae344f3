"""Oracle: a server that sends the bytes of a script, one answer a connection, and keeps the requests."""

import email.utils
import http.client
import io
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from previts.errors import FetchError, VideoError
from previts.ingest import fetch
from previts.ingest.fetch import Limits

QUICK = Limits(max_seconds=10.0, backoff_seconds=0.01)
BODY = os.urandom(9_000)
ETAG = 'ETag: "one"\r\n'


def answer(body, *lines, status="200 OK"):
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + body


def whole(body, *lines):
    return answer(body, f"Content-Length: {len(body)}\r\n", *lines)


def cut(sent, *lines):
    """Return an answer that ends after `sent` bytes of the body."""
    return answer(BODY[:sent], f"Content-Length: {len(BODY)}\r\n", *lines)


def rest(start, last=8_999, total=9_000, *lines, body=None):
    body = BODY[start : last + 1] if body is None else body
    place = f"Content-Range: bytes {start}-{last}/{total}\r\n"
    return answer(body, place, f"Content-Length: {len(body)}\r\n", *lines, status="206 Partial Content")


class Script:
    """A server that gives its next answer to each connection; a number in an answer is a pause in seconds."""

    def __init__(self):
        self.answers, self.requests, self.targets = [], [], []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/a.mp4"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # the start of TLS
                    head += connection.recv(4096)
                if not head.startswith(b"\x16"):
                    line, lines = head.split(b"\r\n", 1)
                    self.targets.append(line.split()[1].decode())
                    self.requests.append(http.client.parse_headers(io.BytesIO(lines)))
                parts = self.answers.pop(0) if self.answers else b""
                try:
                    for part in parts if isinstance(parts, list) else [parts]:
                        time.sleep(part) if isinstance(part, float) else connection.sendall(part)
                except OSError:
                    continue

    def ranges(self):
        """Return the `Range` and `If-Range` of each request."""
        return [(request["Range"], request["If-Range"]) for request in self.requests]

    def close(self):
        self._socket.close()


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1")
    script = Script()
    yield script
    script.close()


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "target")


def failed(script, target, limits=QUICK):
    """Return the error of a fetch that must fail."""
    with pytest.raises(VideoError) as error:
        fetch.fetch(script.url, target, limits)
    return error.value


HALVES = {
    "a status line": b"HTTP/1.1 200",
    "a line of the header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a header without its end": b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n",
    "a header before an empty body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    "a body": cut(500),
    "the size of a chunk": answer(b"5\r\nabcde\r\n3", "Transfer-Encoding: chunked\r\n"),
    "a chunk": answer(b"5\r\nabc", "Transfer-Encoding: chunked\r\n"),
    "chunks before the last": answer(b"5\r\nabcde\r\n", "Transfer-Encoding: chunked\r\n"),
    "the end of the last chunk": answer(b"5\r\nabcde\r\n0\r\n", "Transfer-Encoding: chunked\r\n"),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: /b",
}


@pytest.mark.parametrize("half", HALVES)
def test_what_was_cut_off_is_not_taken_as_complete(script, target, half):
    script.answers = [HALVES[half]] * QUICK.attempts
    error = failed(script, target)
    assert str(error) == "the connection broke: the server closed it too early"
    assert error.retryable
    assert len(script.requests) == QUICK.attempts


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n",  # the deadline cuts the header
        b"HTTP/1.1 200 OK\r\n\r\nsome bytes of a body without a length",
        answer(b"5\r\nabcde\r\n", "Transfer-Encoding: chunked\r\n"),
    ],
)
def test_the_deadline_makes_nothing_complete(script, target, start):
    script.answers = [[start, *([b"X", 0.02] * 100)]]
    began = time.monotonic()
    error = failed(script, target, replace(QUICK, max_seconds=0.3))
    assert time.monotonic() - began < 1.5
    assert "not complete after 0.3 s" in str(error)
    assert error.retryable


def test_the_deadline_holds_for_the_handshake_of_tls(script, target):
    script.answers = [[b"\x16\x03\x03\x40\x00", *([b"\x02", 0.02] * 200)]]
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"not complete after 0\.3 s") as error:
        fetch.fetch(script.url.replace("http:", "https:"), target, replace(QUICK, max_seconds=0.3))
    assert time.monotonic() - began < 2
    assert error.value.retryable


def test_a_server_without_tls_gives_a_reason(script, target):
    script.answers = [b"HTTP/1.1 400 Bad Request\r\n\r\n"] * QUICK.attempts
    with pytest.raises(FetchError, match="the connection broke: the server does not speak TLS as expected"):
        fetch.fetch(script.url.replace("http:", "https:"), target, QUICK)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Content-Length: many\r\n"], "does not say clearly where its answer ends"),
        (["Content-Length: -5\r\n"], "does not say clearly where its answer ends"),
        (["Content-Length: 1_0\r\n"], "does not say clearly where its answer ends"),
        (["Content-Length: 99999999999999999999\r\n"], "does not say clearly where its answer ends"),
        (["Transfer-Encoding: gzip, chunked\r\n"], "does not say clearly where its answer ends"),
        (["Content-Length: 9001\r\n"], "closed it too early"),
        (["Content-Encoding: gzip\r\n", "Content-Length: 9000\r\n"], "compressed"),
        (["Content-Length: 999999999999\r\n"], "more than the limit"),
    ],
)
def test_a_body_that_does_not_fit_its_header_is_refused(script, target, lines, reason):
    script.answers = [answer(BODY, *lines)] * QUICK.attempts
    assert reason in str(failed(script, target))


def test_text_of_a_server_is_no_part_of_a_reason(script, target):
    script.answers = [b"HTTP/1.1 404 \x1b[31mcome to evil.example\r\nContent-Length: 0\r\n\r\n"]
    assert str(failed(script, target)) == "HTTP 404 Not Found"
    script.answers = [
        b"HTTP/1.1 799 evil\r\nContent-Length: 0\r\n\r\n",
        b"evil\r\n\r\n",
        b"evil\r\n\r\n",
        b"evil\r\n\r\n",
    ]
    assert str(failed(script, target)) == "HTTP 799"
    assert str(failed(script, target)) == "the connection broke: the answer of the server is not valid HTTP"
    script.answers = [b"HTTP/1.1 302 Found\r\nLocation: https://[evil\r\n\r\n"]
    assert str(failed(script, target)) == "the server redirects to an address that is not a valid URL"


@pytest.mark.parametrize("address", ["/%C3%BC%20b", "/ü b", "/\u0443"])
def test_a_redirect_is_read_as_utf8_and_quoted_once(script, target, address):
    redirect = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + address.encode() + b"\r\n\r\n"
    script.answers = [redirect, whole(BODY)]
    fetch.fetch(script.url, target, QUICK)
    wanted = "/%D1%83" if address == "/\u0443" else "/%C3%BC%20b"
    assert script.targets == ["/a.mp4", wanted]


# --- continuing ---

NOW = 1_700_000_000
DATES = (
    f"Last-Modified: {email.utils.formatdate(NOW, usegmt=True)}\r\n",
    f"Date: {email.utils.formatdate(NOW + 60, usegmt=True)}\r\n",
)


@pytest.mark.parametrize("proof", [[ETAG], DATES, [ETAG, *DATES]])
def test_a_broken_transfer_continues_where_it_broke(script, target, proof):
    script.answers = [cut(4_000, *proof), cut(0)[:10], rest(4_000, len(BODY) - 1, len(BODY), *proof)]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == BODY
    validator = '"one"' if ETAG in proof else email.utils.formatdate(NOW, usegmt=True)
    assert script.ranges() == [(None, None), *[("bytes=4000-", validator)] * 2]


def test_a_rest_may_come_in_parts(script, target):
    script.answers = [cut(4_000, ETAG), rest(4_000, 5_999), rest(6_000)]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == BODY
    assert [wanted for wanted, _ in script.ranges()] == [None, "bytes=4000-", "bytes=6000-"]


def test_chunks_that_broke_off_continue(script, target):
    chunked = answer(b"FA0\r\n" + BODY[:4_000] + b"\r\n", ETAG, "Transfer-Encoding: chunked\r\n")
    script.answers = [chunked, rest(4_000)]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == BODY


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ['ETag: W/"one"\r\n'],
        ["ETag: one\r\n"],
        ['ETag: "\x80"\r\n'],
        [ETAG, "Accept-Ranges: none\r\n"],
        DATES[:1],
        [DATES[0], DATES[0].replace("Last-Modified", "Date")],  # changed in the second of the answer
        ["Last-Modified: yesterday\r\n", DATES[1]],
        ["Last-Modified: Tue, 99 Foo 2023 99:99:99 GMT\r\n", DATES[1]],
    ],
)
def test_a_file_that_cannot_prove_its_identity_is_fetched_from_the_start(script, target, lines):
    script.answers = [cut(4_000, *lines), whole(BODY)]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == BODY
    assert script.ranges() == [(None, None)] * 2


def test_a_file_that_changed_is_fetched_from_the_start(script, target):
    changed = os.urandom(3_000)
    script.answers = [cut(4_000, ETAG), whole(changed, 'ETag: "two"\r\n')]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == changed
    assert script.ranges()[1] == ("bytes=4000-", '"one"')


WRONG = {
    "an earlier start": rest(3_999),
    "a later start": rest(4_001),
    "another size": rest(4_000, 8_999, 9_001),
    "no size": answer(BODY[4_000:], "Content-Range: bytes 4000-8999/*\r\n", status="206 Partial Content"),
    "no range": answer(BODY[4_000:], "Content-Length: 5000\r\n", status="206 Partial Content"),
    "several ranges": answer(b"--x\r\n", "Content-Type: multipart/byteranges\r\n", status="206 Partial Content"),
    "a body of another length": rest(4_000, body=BODY[4_000:-1]),
    "an end after the file": rest(4_000, 9_000, 9_000),
    "a reverse range": rest(4_000, 3_000),
    "another file": rest(4_000, 8_999, 9_000, 'ETag: "two"\r\n'),
    "nothing": answer(b"", "Content-Range: bytes */9000\r\n", status="416 Range Not Satisfiable"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_after_a_wrong_part_the_file_is_fetched_from_the_start(script, target, wrong):
    script.answers = [cut(4_000, ETAG), WRONG[wrong], whole(BODY)]
    fetch.fetch(script.url, target, QUICK)
    assert Path(target).read_bytes() == BODY
    assert script.ranges() == [(None, None), ("bytes=4000-", '"one"'), (None, None)]


def test_a_part_that_was_not_asked_for_is_refused(script, target):
    script.answers = [rest(0, 3_999)]
    error = failed(script, target)
    assert isinstance(error, FetchError)
    assert str(error) == "HTTP 206 Partial Content"


def test_a_rest_cannot_exceed_the_limit(script, target):
    chunked = answer(b"FA0\r\n" + BODY[:4_000] + b"\r\n", ETAG, "Transfer-Encoding: chunked\r\n")
    script.answers = [chunked, rest(4_000)]
    error = failed(script, target, replace(QUICK, max_bytes=8_000))
    assert str(error) == "9000 bytes are more than the limit of 8000"
    assert os.path.getsize(target) == 4_000


def test_a_full_disk_ends_the_crawl(script):
    script.answers = [whole(BODY)]
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        fetch.fetch(script.url, "/dev/full", QUICK)
