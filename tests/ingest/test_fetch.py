"""Oracle: a local server whose answers, delays and redirects are known."""

import datetime
import http.server
import os
import socket
import ssl
import threading
import time
from dataclasses import replace

import fsspec
import pytest

from previts.errors import FetchError, VideoError
from previts.ingest import fetch
from previts.ingest.fetch import Limits

QUICK = Limits(max_seconds=10.0, backoff_seconds=0.01)
BODY = bytes(range(256)) * 40


class Handler(http.server.BaseHTTPRequestHandler):
    """A server with the faults of servers on the Internet; it counts the requests of each path."""

    def do_GET(self):
        path = self.path.split("?")[0]
        asked = self.server.asked
        asked[path] = asked.get(path, 0) + 1
        match path.strip("/").split("/"):
            case ["ok" | "a b.mp4" | "a%20b.mp4"]:
                self.answer(200, BODY)
            case ["status", code]:
                self.answer(int(code), b"no")
            case ["flaky", times]:
                self.answer(503, b"busy") if asked[path] <= int(times) else self.answer(200, BODY)
            case ["dropped"]:
                self.start(200, length=len(BODY))
                self.wfile.write(BODY[:5000])
            case ["endless"]:
                self.start(200)
                while True:
                    self.wfile.write(bytes(1 << 16))
            case ["dripping"]:
                self.start(200, length=10_000)
                while True:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.02)
            case ["dripping-headers"]:
                while True:
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    time.sleep(0.02)
            case ["silent"]:
                time.sleep(3)
            case ["to", *rest]:
                self.redirect("/" + "/".join(rest))
            case ["loop"]:
                self.redirect("/loop2")
            case ["loop2"]:
                self.redirect("/loop")
            case ["chain", number]:
                self.redirect(f"/chain/{int(number) + 1}")
            case ["elsewhere"]:
                self.redirect(self.path.split("?", 1)[1])
            case ["nothing"]:
                self.answer(200, b"")
            case ["garbage"]:
                self.wfile.write(b"\x00\x01 garbage\r\n\r\n")

    def start(self, code, length=None, **headers):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, code, body):
        self.start(code, length=len(body))
        self.wfile.write(body)

    def redirect(self, location):
        self.start(302, length=0, Location=location)

    def log_message(self, *args):
        return


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        return  # tests close connections early on purpose


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as found:
        found.asked = {}
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        found.url = f"http://127.0.0.1:{found.server_port}"
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "target")


@pytest.fixture(autouse=True)
def default_rules(monkeypatch):
    monkeypatch.delenv("PREVITS_ALLOW_HTTP", raising=False)
    monkeypatch.delenv("PREVITS_TRUSTED_HOSTS", raising=False)


def refused(url, target, limits=QUICK):
    """Return the error of a fetch that must fail."""
    with pytest.raises(VideoError) as error:
        fetch.fetch(url, target, limits)
    return error.value


# --- http ---


def test_a_video_is_fetched_over_http(server, target):
    for url in (
        f"{server.url}/ok",
        f"{server.url.replace('127.0.0.1', 'localhost')}/ok",
        f"{server.url}/a b.mp4?x=1&y=%20",
    ):
        fetch.fetch(url, target, QUICK)
        with open(target, "rb") as file:
            assert file.read() == BODY


@pytest.mark.parametrize(("code", "retryable"), [(404, False), (403, False), (410, False), (500, True), (429, True)])
def test_an_http_status_becomes_the_reason(server, target, code, retryable):
    error = refused(f"{server.url}/status/{code}", target)
    assert isinstance(error, FetchError)
    assert f"HTTP {code}" in str(error)
    assert error.retryable is retryable
    assert server.asked[f"/status/{code}"] == (QUICK.attempts if retryable else 1)


def test_a_busy_server_is_asked_again(server, target):
    fetch.fetch(f"{server.url}/flaky/2", target, QUICK)
    assert server.asked["/flaky/2"] == 3
    assert os.path.getsize(target) == len(BODY)
    assert "503" in str(refused(f"{server.url}/flaky/3", target))


@pytest.mark.parametrize("path", ["dropped", "garbage"])
def test_a_broken_answer_is_retryable(server, target, path):
    error = refused(f"{server.url}/{path}", target)
    assert "connection broke" in str(error)
    assert error.retryable
    assert server.asked[f"/{path}"] == QUICK.attempts


def test_a_body_above_the_limit_is_refused(server, target):
    small = replace(QUICK, max_bytes=1000)
    assert str(refused(f"{server.url}/ok", target, small)) == f"{len(BODY)} bytes are more than the limit of 1000"
    assert "more than the limit" in str(refused(f"{server.url}/endless", target, replace(QUICK, max_bytes=1 << 20)))
    assert os.path.getsize(target) <= 1 << 20


@pytest.mark.parametrize("path", ["dripping", "dripping-headers", "silent"])
def test_one_time_limit_holds_for_headers_and_body(server, target, path):
    started = time.monotonic()
    error = refused(f"{server.url}/{path}", target, replace(QUICK, max_seconds=0.5))
    assert 0.4 < time.monotonic() - started < 2
    assert error.retryable
    assert "0.5 s" in str(error)


def test_a_refused_connection_is_retryable(target):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = refused(f"http://127.0.0.1:{taken.getsockname()[1]}/x", target)
    assert error.retryable
    assert "no connection to 127.0.0.1" in str(error)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (r"#EXTM3U\n#EXT-X-VERSION:3\n", "HLS playlist"),
        (r"\n\n  #EXTM3U\n", "HLS playlist"),
        (r"ffconcat version 1.0\nfile /etc/passwd", "concat playlist"),
        (r"v=0\r\no=- 0 0 IN IP4 127.0.0.1", "SDP"),
        (r"<?xml version='1.0'?><MPD>", "DASH"),
        (r"<!DOCTYPE html><p>Sign in", "web page"),
        (r"<HTML>", "web page"),
        (r"[playlist]", "playlist"),
    ],
)
def test_playlists_and_web_pages_are_refused(server, target, start, what):
    class Body(Handler):
        def do_GET(self):
            self.answer(200, start.encode().decode("unicode_escape").encode())

    server.RequestHandlerClass = Body
    error = refused(f"{server.url}/x", target)
    assert what in str(error)
    assert not isinstance(error, FetchError)


def test_an_empty_body_is_refused(server, target):
    assert "empty" in str(refused(f"{server.url}/nothing", target))


# --- redirects and addresses ---


def test_a_redirect_to_this_machine_needs_a_trusted_host(server, target, monkeypatch):
    # The crawl may name 127.0.0.1, but a server may not redirect to it.
    assert "PREVITS_ALLOW_HTTP" in str(refused(f"{server.url}/to/ok", target))
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    assert "not a public address" in str(refused(f"{server.url}/to/ok", target))
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "other.example, 127.0.0.1")
    fetch.fetch(f"{server.url}/to/to/ok", target, QUICK)
    assert os.path.getsize(target) == len(BODY)


def test_redirect_loops_and_long_chains_are_refused(server, target, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1")
    assert "loop" in str(refused(f"{server.url}/loop", target))
    assert server.asked["/loop"] == 1
    assert "more than 5 redirects" in str(refused(f"{server.url}/chain/0", target))
    assert [server.asked.get(f"/chain/{number}") for number in range(8)] == [1] * 6 + [None] * 2


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher:x",
    ],
)
def test_redirects_to_private_addresses_and_other_schemes_are_refused(server, target, monkeypatch, location):
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    error = refused(f"{server.url}/elsewhere?{location}", target)
    assert "not a public address" in str(error) or "only http and https" in str(error)
    assert not os.path.exists(target)


def test_hosts_and_urls_that_are_not_allowed_are_refused_before_a_connection(target):
    started = time.monotonic()
    assert "not a public address" in str(refused("https://10.0.0.1/video.mp4", target))
    assert time.monotonic() - started < 1
    assert "set PREVITS_ALLOW_HTTP=1" in str(refused("http://example.org/x.mp4", target))
    assert "not supported" in str(refused("ftp://example.org/x.mp4", target))
    assert "chained" in str(refused("simplecache::https://example.org/x.mp4", target))
    assert "not a valid URL" in str(refused("https://example.org:99999/x", target))
    assert "no scheme" in str(refused("https:///x", target)) or "only http" in str(refused("https:///x", target))


def test_a_self_signed_certificate_is_refused(server, target, tmp_path):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    error = refused(f"https://localhost:{server.server_port}/ok", target)
    assert "no valid certificate" in str(error)
    assert not error.retryable


# --- local files and object stores ---


def test_local_files_are_linked(tmp_path, target):
    source = tmp_path / "a b.mp4"
    source.write_bytes(BODY)
    for url in (str(source), source.as_uri().replace("%20", " ")):
        fetch.fetch(url, target, QUICK)
        assert os.path.samefile(source, target)
        os.remove(target)
    assert "no such file" in str(refused(str(tmp_path / "missing"), target))
    assert "not a regular file" in str(refused("/dev/zero", target))
    assert "not a regular file" in str(refused(str(tmp_path), target))
    assert "more than the limit" in str(refused(str(source), target, replace(QUICK, max_bytes=10)))


def test_objects_of_a_store_are_copied(target):
    fs = fsspec.filesystem("memory")
    fs.pipe("/crawl/a.mp4", BODY)
    try:
        fetch.fetch("memory://crawl/a.mp4", target, QUICK)
        with open(target, "rb") as file:
            assert file.read() == BODY
        error = refused("memory://crawl/b.mp4", target)
        assert "no such object" in str(error)
        assert not error.retryable
        assert "more than the limit" in str(refused("memory://crawl/a.mp4", target, replace(QUICK, max_bytes=10)))
    finally:
        fs.rm("/crawl", recursive=True)
