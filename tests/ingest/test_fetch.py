"""Oracle: a local server whose answers, delays and redirects are known."""

import datetime
import http.server
import importlib.util
import os
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from previts.errors import FetchError, InputError, RefusedError, VideoError
from previts.ingest import fetch, sources
from previts.ingest.fetch import Limits
from previts.ingest.sources import ANYTHING

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
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1, localhost")


def refused(url, target, limits=QUICK, reach=ANYTHING):
    """Return the error of a fetch that must fail."""
    with pytest.raises(VideoError) as error:
        fetch.fetch(url, target, limits, reach)
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


def test_this_machine_is_reached_only_if_it_is_trusted_by_name(server, target, monkeypatch):
    monkeypatch.delenv("PREVITS_TRUSTED_HOSTS")
    assert "PREVITS_ALLOW_HTTP" in str(refused(f"{server.url}/ok", target))
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    error = refused(f"{server.url}/ok", target)
    assert "127.0.0.1 leads to 127.0.0.1, which is not a public address" in str(error)
    assert error.retryable  # by a later run with other rules
    assert server.asked == {}
    port = server.server_port
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", f"other.example, 127.0.0.1:{port}")
    fetch.fetch(f"{server.url}/to/to/ok", target, QUICK)
    assert os.path.getsize(target) == len(BODY)
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", f"127.0.0.1:{port + 1}")
    assert isinstance(refused(f"{server.url}/ok", target), RefusedError)
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", f"127.0.0.0/8:{port}")
    fetch.fetch(f"{server.url}/ok", target, QUICK)


def test_a_redirect_to_a_host_that_is_not_trusted_is_refused_once(server, target, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "127.0.0.1")
    location = f"http://localhost:{server.server_port}/ok"
    assert isinstance(refused(f"{server.url}/elsewhere?{location}", target), RefusedError)
    assert server.asked == {"/elsewhere": 1}


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
        "https://user@8.8.8.8/",
        "https://[bad/",
        "https://0x7f.1/",
        "https://8.8.8.8:0/",
    ],
)
def test_redirects_to_private_addresses_and_other_schemes_are_refused(server, target, monkeypatch, location):
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    error = refused(f"{server.url}/elsewhere?{location}", target)
    reasons = ("not a public address", "only http and https", "user name", "not a valid URL", "the host of the address")
    assert any(reason in str(error) for reason in reasons)
    assert not os.path.exists(target)
    assert server.asked == {"/elsewhere": 1}


def test_hosts_and_urls_that_are_not_allowed_are_refused_before_a_connection(target):
    started = time.monotonic()
    assert "not a public address" in str(refused("https://10.0.0.1/video.mp4", target))
    assert time.monotonic() - started < 1
    assert "set PREVITS_ALLOW_HTTP=1" in str(refused("http://example.org/x.mp4", target))
    assert "not supported" in str(refused("ftp://example.org/x.mp4", target))
    assert "chained" in str(refused("simplecache::https://example.org/x.mp4", target))
    assert "not a valid URL" in str(refused("https://example.org:99999/x", target))
    assert "not a valid URL" in str(refused("https:///x", target))


def test_a_certificate_must_be_trusted(server, target, tmp_path, monkeypatch):
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
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 4, True, *[False] * 3), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    error = refused(f"https://localhost:{server.server_port}/ok", target)
    assert str(error) == "localhost has no valid certificate"
    assert not error.retryable
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    fetch.fetch(f"https://localhost:{server.server_port}/ok", target, QUICK)
    assert Path(target).read_bytes() == BODY
    assert "no valid certificate" in str(refused(f"https://127.0.0.1:{server.server_port}/ok", target))


# --- local files and object stores ---


def test_local_files_are_copied(tmp_path, target):
    source = tmp_path / "a b%20c.mp4"
    source.write_bytes(BODY)
    for url in (str(source), source.as_uri(), f"FILE://localhost{source.as_uri().removeprefix('file://')}"):
        fetch.fetch(url, target, QUICK)
        assert not os.path.islink(target)
        assert Path(target).read_bytes() == BODY
        os.remove(target)
    assert "no such file" in str(refused(f"file://{source}", target))  # its %20 is decoded
    assert "another machine" in str(refused("file://other/x", target))
    assert "no such file" in str(refused(str(tmp_path / "missing"), target))
    assert "no such file" in str(refused(f"{source}/x", target))
    assert "not a regular file" in str(refused("/dev/zero", target))
    assert "not a regular file" in str(refused(str(tmp_path), target))
    assert "are not videos" in str(refused("/proc/self/pagemap", target))
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in str(refused(str(tmp_path / "pipe"), target))
    assert "more than the limit" in str(refused(str(source), target, replace(QUICK, max_bytes=10)))


def test_a_crawl_reaches_only_files_below_its_folders(tmp_path, target, monkeypatch):
    monkeypatch.delenv("PREVITS_LOCAL_FILES", raising=False)
    for folder in ("crawl/deep", "other", "crawl2"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").write_bytes(BODY)
    (tmp_path / "crawl" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "crawl" / "in.mp4").symlink_to("deep/a.mp4")
    (tmp_path / "crawl" / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "crawl")
    outside = ("crawl/out/a.mp4", "crawl/../other/a.mp4", "crawl2/a.mp4", "crawl/deep/../../other/a.mp4", "other/gone")
    for start in ("crawl", "link"):  # a folder given by a link is its target
        reach = sources.reach_of(str(tmp_path / start))
        for name in ("crawl/deep/a.mp4", "link/deep/../deep/a.mp4", "crawl/in.mp4", "crawl/out/../crawl/in.mp4"):
            fetch.fetch(str(tmp_path / name), target, QUICK, reach)
            assert Path(target).read_bytes() == BODY
        for name in (*outside, "../../../../../../etc/passwd"):
            error = refused(str(tmp_path / name), target, QUICK, reach)
            assert isinstance(error, RefusedError)
            assert "PREVITS_LOCAL_FILES" in str(error)
        assert "no such file" in str(refused(str(tmp_path / "crawl" / "gone"), target, QUICK, reach))
        assert not isinstance(refused(str(tmp_path / "crawl" / "loop.mp4"), target, QUICK, reach), RefusedError)
    monkeypatch.setenv("PREVITS_LOCAL_FILES", f"/nowhere::{tmp_path / 'other'}")
    fetch.fetch(str(tmp_path / "crawl/out/a.mp4"), target, QUICK, sources.reach_of(str(tmp_path / "crawl")))
    assert isinstance(refused(str(tmp_path / "crawl2/a.mp4"), target, QUICK, reach), RefusedError)


@pytest.mark.parametrize("crawl", ["s3://bucket/crawl", "https://example.org", "memory://crawl", "/"])
def test_a_crawl_that_is_not_in_a_local_folder_reaches_no_file(tmp_path, target, monkeypatch, crawl):
    monkeypatch.delenv("PREVITS_LOCAL_FILES", raising=False)
    (tmp_path / "a.mp4").write_bytes(BODY)
    assert isinstance(refused(str(tmp_path / "a.mp4"), target, QUICK, sources.reach_of(crawl)), RefusedError)


@pytest.mark.parametrize("swapped", ["file", "folder", "fifo"])
def test_a_link_made_after_the_decision_is_not_followed(tmp_path, swapped):
    (tmp_path / "crawl" / "deep").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for name in ("crawl/deep/a.mp4", "secret/a.mp4"):
        (tmp_path / name).write_bytes(BODY)
    reach = sources.reach_of(str(tmp_path / "crawl"))
    found = sources.source_of(str(tmp_path / "crawl/deep/a.mp4"), reach)
    with sources.open_file(found) as file:
        assert file.read() == BODY
    os.remove(tmp_path / "crawl/deep/a.mp4")
    if swapped == "file":
        (tmp_path / "crawl/deep/a.mp4").symlink_to(tmp_path / "secret/a.mp4")
    elif swapped == "folder":
        (tmp_path / "crawl/deep").rmdir()
        (tmp_path / "crawl/deep").symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(tmp_path / "crawl/deep/a.mp4")
    with pytest.raises(VideoError):
        sources.open_file(found)


def test_a_crawl_reaches_only_objects_below_its_folder_and_trusted_stores(monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_STORES", "gs://videos, s3://big/part")
    reach = sources.reach_of("s3://own/crawls")
    for url, uri in {
        "s3://own/crawls/a.mp4": "s3://own/crawls/a.mp4",
        "S3A://own/crawls/x/a.mp4": "s3://own/crawls/x/a.mp4",
        "gcs://videos/a.mp4": "gs://videos/a.mp4",
        "s3://big/part/a": "s3://big/part/a",
    }.items():
        assert sources.source_of(url, reach) == sources.StoredObject(uri)
    for url in (
        "s3://own/a",
        "s3://own/crawls2/a",
        "s3://big/partly",
        "gs://other/a",
        "gs://own/crawls/a",
        "az://videos/a",
    ):
        with pytest.raises(RefusedError, match="PREVITS_TRUSTED_STORES"):
            sources.source_of(url, reach)
    for url in ("s3://own/crawls/../a", "s3://own/crawls/./a", "s3://", "s3:///", "memory://"):
        with pytest.raises(VideoError) as error:
            sources.source_of(url, reach)
        assert not isinstance(error.value, RefusedError)
    monkeypatch.setenv("PREVITS_TRUSTED_STORES", "videos")
    with pytest.raises(InputError, match=r"PREVITS_TRUSTED_STORES has the entry 'videos'"):
        sources.reach_of("s3://own/crawls")


@pytest.mark.parametrize(
    "url",
    [
        "https://www.youtube.com/watch?v=---g-f_I2yQ&list=x", "https://youtu.be/---g-f_I2yQ?t=5",
        "http://m.youtube.com/shorts/---g-f_I2yQ", "https://YOUTUBE.com/embed/---g-f_I2yQ/",
    ],
)  # fmt: skip
def test_the_page_of_a_youtube_video_gives_its_id(url):
    assert sources.source_of(url, ANYTHING) == sources.YouTubeVideo("---g-f_I2yQ")


@pytest.mark.parametrize("path", ["redirect?q=http://127.0.0.1/", "watch?v=short", "watch", "", "playlist?list=x"])
def test_other_pages_of_youtube_are_refused(target, path):  # yt-dlp would follow them to any host
    assert "not the page of a video" in str(refused(f"https://www.youtube.com/{path}", target))


def test_a_store_without_credentials_or_library_is_a_failed_row(target, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    fsspec.filesystem("s3").clear_instance_cache()
    error = refused("s3://bucket/x.mp4", target)
    assert str(error) == "the store cannot be read: there are no valid credentials for it"
    assert error.retryable
    if importlib.util.find_spec("adlfs") is None:
        error = refused("az://container/x.mp4", target)
        assert str(error) == "the library for abfs:// is not installed"
        assert error.retryable


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
        assert "is a folder" in str(refused("memory://crawl", target))
    finally:
        fs.rm("/crawl", recursive=True)
