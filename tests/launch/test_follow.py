"""Watches and logs through an API server that answers strangely, played by a server of HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3
from kubernetes import client

from previts.launch.cluster import Cluster, moment_of
from previts.launch.follow import LogFollower, changes

Answer = tuple[int, bytes]


class Server:
    """Gives the answers of a list one by one, and the last one again and again."""

    def __init__(self) -> None:
        self.lists: list[Answer] = []
        self.streams: list[Answer] = []
        self.asked: list[str] = []
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                played.asked.append(self.path)
                answers = played.streams if "/log" in self.path or "watch=true" in self.path else played.lists
                status, body = answers.pop(0) if len(answers) > 1 else answers[0]
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


@pytest.fixture
def server() -> Iterator[Server]:
    played = Server()
    yield played
    played.close()


def followed(server: Server, enough: Callable[[list[str]], bool]) -> list[str]:
    said: list[str] = []
    follower = LogFollower(server.cluster, "pod", said.append)
    deadline = time.monotonic() + 20
    while not enough(said) and time.monotonic() < deadline:
        time.sleep(0.05)
    follower.stop(drain=5)
    return said


def stamped(second: int, text: str, zone: str = "Z") -> bytes:
    return f"2026-11-27T10:00:{second:02}.{second:09}{zone} {text}\n".encode()


def test_what_the_kubelet_says_itself_ends_no_log(server):
    own = b"unable to retrieve container logs for containerd://0123\n"
    both = stamped(1, "step 1") + stamped(2, "step 2")
    server.streams = [(200, own), (200, own), (200, both), (200, both + stamped(3, "step 3"))]
    said = followed(server, lambda said: len(said) > 3)
    assert said == [own.decode().rstrip(), "step 1", "step 2", "step 3"]


def test_a_line_that_was_cut_off_in_its_time_is_told_whole(server):
    whole = stamped(1, "step 1") + stamped(2, "step 2")
    server.streams = [(200, whole[:-30]), (200, whole)]
    assert followed(server, lambda said: "step 2" in said)[-1] == "step 2"


def test_lines_are_told_whatever_their_bytes_and_however_long(server):
    block = b"x" * (8 << 20)
    server.streams = [(200, b"2026-11-27T10:00:01.0Z \xff\xfe\r50%\n2026-11-27T10:00:02.0Z " + block + b"\n")]
    started = time.monotonic()
    said = followed(server, lambda said: len(said) > 1)
    assert said == ["\ufffd\ufffd\r50%", block.decode()]
    assert time.monotonic() - started < 15


def test_the_clock_of_a_node_may_have_a_zone(server):
    server.streams = [(200, stamped(1, "a", "+09:00")), (200, stamped(1, "a", "+09:00") + stamped(2, "b", "+09:00"))]
    assert followed(server, lambda said: len(said) > 1) == ["a", "b"]
    assert moment_of("2026-11-27T10:00:01.000000001+09:00") == moment_of("2026-11-27T01:00:01Z")
    since = int(server.asked[1].split("sinceSeconds=")[1])
    assert abs(since - (time.time() - moment_of("2026-11-27T01:00:01Z").timestamp())) < 30


def job(version: str, uid: str = "1", state: str = "Running") -> dict[str, Any]:
    metadata = {"name": "job", "uid": uid, "resourceVersion": version}
    return {"metadata": metadata, "status": {"conditions": [{"type": state, "status": "True"}]}}


def listed(*jobs: dict[str, Any]) -> Answer:
    return 200, json.dumps({"metadata": {"resourceVersion": "9"}, "items": jobs}).encode()


def event(kind: str, what: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def states(server: Server) -> list[str]:
    found = []
    for seen in changes(server.cluster, "job", "1", pulse=1):
        state = seen["status"]["conditions"][0]["type"] if seen else "gone"
        if found[-1:] != [state]:
            found.append(state)
        if state in ("Succeeded", "gone"):
            return found
    return found


@pytest.mark.parametrize("status", [401, 403, 410, 429, 500, 503])
def test_a_watch_that_is_refused_for_a_while_goes_on(server, status):
    server.lists = [listed(job("1")), listed(job("1")), listed(job("2", state="Succeeded"))]
    server.streams = [(status, b'{"message": "not now"}')]
    assert states(server) == ["Running", "Succeeded"]


@pytest.mark.parametrize("code", [401, 410, 429, 500, 504])
def test_a_watch_that_is_ended_by_an_error_goes_on(server, code):
    server.lists = [listed(job("1")), listed(job("2", state="Succeeded"))]
    server.streams = [(200, event("ERROR", {"kind": "Status", "code": code, "message": "not now"}))]
    assert states(server) == ["Running", "Succeeded"]


def test_a_watch_that_breaks_in_the_middle_of_an_event_goes_on(server):
    server.lists = [listed(job("1")), listed(job("2", state="Succeeded"))]
    server.streams = [(200, event("MODIFIED", job("2"))[:50])]
    assert states(server) == ["Running", "Succeeded"]


def test_a_job_that_another_replaced_between_list_and_watch_is_gone(server):
    server.lists = [listed(job("1"))]
    server.streams = [(200, event("DELETED", job("2")) + event("ADDED", job("3", uid="2", state="Succeeded")))]
    assert states(server) == ["Running", "gone"]
    server.streams = [(200, event("ADDED", job("3", uid="2", state="Succeeded")))]
    assert states(server) == ["Running", "gone"]
    server.lists = [listed(job("3", uid="2", state="Succeeded"))]
    assert states(server) == ["gone"]


def test_a_server_that_is_too_busy_for_watches_is_not_asked_ever_faster(server):
    server.lists = [listed(job("1"))]
    server.streams = [(429, b"{}")]
    seen = changes(server.cluster, "job", "1", pulse=1)
    started = time.monotonic()
    while time.monotonic() - started < 3:
        next(seen)
    assert len(server.asked) < 15
