"""An HTTP server that gives prepared answers, for what a real API server does only while it restarts or is busy."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3
from kubernetes import client

from previts.launch.cluster import Cluster

Answer = tuple[int, bytes]


class ScriptedApi:
    """Gives the answers of `lists` or `streams` in order, and repeats the last one; counts all requests.

    Attributes:
        lists: Answers to requests that read a list or an object.
        streams: Answers to watches and to requests for logs.
        deletions: Status of the answers to DELETE.
        requests: Method, path and body of each request.
    """

    def __init__(self) -> None:
        self.lists: list[Answer] = []
        self.streams: list[Answer] = []
        self.deletions: list[int] = [200]
        self.requests: list[tuple[str, str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append(("GET", self.path, None))
                answers = api.streams if "/log" in self.path or "watch=true" in self.path else api.lists
                self.answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))

            def do_DELETE(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.requests.append(("DELETE", self.path, body))
                self.answer(api.deletions.pop(0) if len(api.deletions) > 1 else api.deletions[0], b"{}")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        settings = client.Configuration(host=f"http://127.0.0.1:{self._server.server_address[1]}")
        settings.retries = urllib3.Retry(total=0)
        self.cluster = Cluster(client.ApiClient(settings), "team")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def listed(*jobs: dict[str, Any]) -> Answer:
    """Return the answer to a request for the list of jobs."""
    return 200, json.dumps({"metadata": {"resourceVersion": "9"}, "items": jobs}).encode()


def stamped(second: int, text: str, zone: str = "Z") -> bytes:
    """Return a line of a log with its time."""
    return f"2026-11-27T10:00:{second:02}.{second:09}{zone} {text}\n".encode()
