"""Object stores on 127.0.0.1 with the few requests that this project needs: Google's JSON API, and S3's REST API.

Both refuse a conditional write to an existing object, as the real stores do. `ignores_conditions` imitates an older
S3-compatible store, which ignores the header.
"""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import fsspec
import gcsfs
import pytest


class Store(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, ignores_conditions: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.objects: dict[str, bytes] = {}
        self.uploads, self.parts = itertools.count(), dict[str, dict[int, bytes]]()  # of objects sent in parts
        self.lock = threading.Lock()
        self.ignores_conditions = ignores_conditions

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, data: bytes, *, create: bool) -> bool:
        with self.lock:
            if create and name in self.objects and not self.ignores_conditions:
                return False
            self.objects[name] = data
            return True

    def listed(self, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
        """Return the names of the objects and of the folders directly below a prefix."""
        names = [name for name in sorted(self.objects) if name.startswith(prefix)]
        if not delimiter:
            return names, []
        deep = {prefix + name[len(prefix) :].split("/")[0] + "/" for name in names if "/" in name[len(prefix) :]}
        return [name for name in names if "/" not in name[len(prefix) :]], sorted(deep)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, format: str, *args: object) -> None:
        pass

    def place(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def reply_object(self, data: bytes, kind: str, **headers: str) -> None:
        """Send an object, or the range of its bytes that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.reply(200, data, kind, **headers)
        start, stop = int(wanted[1] or 0), min(int(wanted[2] or len(data)), len(data) - 1) + 1
        if start >= len(data):
            return self.reply(416, b"<Error><Code>InvalidRange</Code></Error>", "application/xml")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return self.reply(206, data[start:stop], kind, **headers)

    def reply(self, status: int, data: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class Google(_Handler):
    def _object(self, name: str) -> bytes:
        size = str(len(self.server.objects[name]))
        item = {"kind": "storage#object", "bucket": "bucket", "name": name, "size": size, "generation": "1"}
        return json.dumps(item).encode()

    def do_POST(self) -> None:
        _, query = self.place()
        data = self.body()
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
        assert boundary
        _, about, content, _ = data.split(b"--" + boundary[1].encode())
        name = json.loads(about.split(b"\n\n", 1)[1])["name"]
        if self.server.put(name, content.split(b"\n\n", 1)[1][:-1], create=query.get("ifGenerationMatch") == "0"):
            self.reply(200, self._object(name))
        else:
            self.reply(412, json.dumps({"error": {"code": 412, "message": "conditionNotMet"}}).encode())

    def do_GET(self) -> None:
        path, query = self.place()
        if path.endswith("/b/bucket/o"):
            names, folders = self.server.listed(query.get("prefix", ""), query.get("delimiter", ""))
            items = [json.loads(self._object(name)) for name in names]
            return self.reply(200, json.dumps({"items": items, "prefixes": folders}).encode())
        name = unquote(path.partition("/b/bucket/o/")[2])
        if name not in self.server.objects:
            return self.reply(404, json.dumps({"error": {"code": 404, "message": "Not Found"}}).encode())
        if query.get("alt") == "media":
            return self.reply_object(self.server.objects[name], "application/octet-stream")
        return self.reply(200, self._object(name))

    def do_DELETE(self) -> None:
        name = unquote(self.place()[0].partition("/b/bucket/o/")[2])
        known = self.server.objects.pop(name, None) is not None
        self.reply(204 if known else 404, b"" if known else b'{"error": {"code": 404, "message": "Not Found"}}')


class Amazon(_Handler):
    def _fail(self, status: int, code: str, more: str = "") -> None:
        text = f"<Error><Code>{code}</Code><Message>{code}</Message>{more}</Error>"
        self.reply(status, text.encode(), "application/xml")

    def _name(self) -> str:
        return unquote(self.place()[0]).removeprefix("/bucket").lstrip("/")

    def do_PUT(self) -> None:
        data = self.body()
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):  # a checksum follows the data
            size, _, rest = data.partition(b"\r\n")
            data = rest[: int(size.split(b";")[0], 16)]
        _, query = self.place()
        if "partNumber" in query:
            self.server.parts.setdefault(query["uploadId"], {})[int(query["partNumber"])] = data
            return self.reply(200, ETag='"1"')
        if self.server.put(self._name(), data, create=self.headers.get("If-None-Match") == "*"):
            return self.reply(200, ETag='"1"')
        return self._fail(412, "PreconditionFailed", "<Condition>If-None-Match</Condition>")

    def do_GET(self) -> None:
        _, query = self.place()
        if "list-type" in query:
            names, folders = self.server.listed(query.get("prefix", ""), query.get("delimiter", ""))
            files = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(self.server.objects[name])}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
                for name in names
            )
            below = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
            page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{files}{below}</ListBucketResult>"
            return self.reply(200, page.encode(), "application/xml")
        if self._name() not in self.server.objects:
            return self._fail(404, "NoSuchKey")
        date = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return self.reply_object(self.server.objects[self._name()], "binary/octet-stream", ETag='"1"', **date)

    def do_POST(self) -> None:
        """Delete several objects, or begin or end an object that is sent in parts."""
        body, (_, query) = self.body(), self.place()
        if "delete" in query:
            for name in re.findall(r"<Key>([^<]*)</Key>", body.decode()):
                self.server.objects.pop(unescape(name), None)
            return self.reply(200, b"<DeleteResult></DeleteResult>", "application/xml")
        if "uploads" in query:
            upload = str(next(self.server.uploads))
            answer = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self.reply(200, answer.encode(), "application/xml")
        parts = self.server.parts.pop(query["uploadId"])
        data = b"".join(parts[number] for number in sorted(parts))
        if not self.server.put(self._name(), data, create=self.headers.get("If-None-Match") == "*"):
            return self._fail(412, "PreconditionFailed", "<Condition>If-None-Match</Condition>")
        answer = "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>"
        return self.reply(200, answer.encode(), "application/xml")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._name(), None)
        self.reply(204)


@contextlib.contextmanager
def serving(handler: type[_Handler], *, ignores_conditions: bool = False) -> Iterator[Store]:
    store = Store(handler, ignores_conditions=ignores_conditions)
    thread = threading.Thread(target=store.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()


@contextlib.contextmanager
def object_store(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let fsspec use a fake store in the block: gs, s3, or s3 without conditions. Yield a prefix of its bucket."""
    with serving(Google if name == "gs" else Amazon, ignores_conditions="without" in name) as store:
        if name == "gs":
            # The usual class first asks Google, by gRPC, for the kind of the bucket.
            usual = fsspec.get_filesystem_class("gs")
            fsspec.register_implementation("gs", gcsfs.core.GCSFileSystem, clobber=True)
            monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": store.url, "token": "anon"})
            yield "gs://bucket/root"
            fsspec.register_implementation("gs", usual, clobber=True)
        else:
            keys = {"endpoint_url": store.url, "key": "key", "secret": "secret"}
            monkeypatch.setitem(fsspec.config.conf, "s3", keys)
            yield "s3://bucket/root"
