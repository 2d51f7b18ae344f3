"""Watches and logs continue after wrong, broken or missing answers of the API server."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_api import ScriptedApi, listed, stamped

from previts.launch import diagnosis
from previts.launch.cluster import log_time
from previts.launch.follow import LogFollower, changes
from previts.launch.launcher import _follow
from previts.launch.options import JobOptions


def followed(api: ScriptedApi, enough: Callable[[list[str]], bool]) -> list[str]:
    """Follow a log until `enough` of its lines, and return them."""
    lines: list[str] = []
    follower = LogFollower(api.cluster, "pod", lines.append)
    deadline = time.monotonic() + 20
    while not enough(lines) and time.monotonic() < deadline:
        time.sleep(0.05)
    follower.stop(drain=5)
    return lines


def test_messages_of_the_kubelet_do_not_end_the_log_and_are_printed_once(api):
    own = b"unable to retrieve container logs for containerd://0123\n"
    both = stamped(1, "step 1") + stamped(2, "step 2")
    api.streams = [(200, own), (200, own), (200, both), (200, both + stamped(3, "step 3"))]
    lines = followed(api, lambda lines: len(lines) > 3)
    assert lines == [own.decode().rstrip(), "step 1", "step 2", "step 3"]


def test_a_line_that_was_cut_off_within_its_time_is_printed_complete(api):
    whole = stamped(1, "step 1") + stamped(2, "step 2")
    api.streams = [(200, whole[:-30]), (200, whole)]
    assert followed(api, lambda lines: "step 2" in lines)[-1] == "step 2"


def test_lines_with_invalid_bytes_and_very_long_lines_are_printed(api):
    block = b"x" * (8 << 20)
    api.streams = [(200, b"2026-11-27T10:00:01.0Z \xff\xfe\r50%\n2026-11-27T10:00:02.0Z " + block + b"\n")]
    started = time.monotonic()
    lines = followed(api, lambda lines: len(lines) > 1)
    assert lines == ["\ufffd\ufffd\r50%", block.decode()]
    assert time.monotonic() - started < 15


def test_times_with_a_time_zone_are_understood(api):
    api.streams = [(200, stamped(1, "a", "+09:00")), (200, stamped(1, "a", "+09:00") + stamped(2, "b", "+09:00"))]
    assert followed(api, lambda lines: len(lines) > 1) == ["a", "b"]
    assert log_time("2026-11-27T10:00:01.000000001+09:00") == log_time("2026-11-27T01:00:01Z")
    since = int(api.requests[1][1].split("sinceSeconds=")[1])
    assert abs(since - (time.time() - log_time("2026-11-27T01:00:01Z").timestamp())) < 30


def job(version: str, uid: str = "1", state: str = "Running") -> dict[str, Any]:
    metadata = {"name": "job", "uid": uid, "resourceVersion": version}
    return {"metadata": metadata, "status": {"conditions": [{"type": state, "status": "True"}]}}


def event(kind: str, what: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def states(api: ScriptedApi) -> list[str]:
    """Return the states of the job `1` until its end, each once."""
    found = []
    for current in changes(api.cluster, "job", "1", pulse=1):
        state = current["status"]["conditions"][0]["type"] if current else "gone"
        if found[-1:] != [state]:
            found.append(state)
        if state in ("Succeeded", "gone"):
            return found
    return found


@pytest.mark.parametrize("status", [401, 403, 410, 429, 500, 503])
def test_changes_continue_after_a_refused_watch(api, status):
    api.lists = [listed(job("1")), listed(job("1")), listed(job("2", state="Succeeded"))]
    api.streams = [(status, b'{"message": "not now"}')]
    assert states(api) == ["Running", "Succeeded"]


@pytest.mark.parametrize("code", [401, 410, 429, 500, 504])
def test_changes_continue_after_an_error_within_a_watch(api, code):
    api.lists = [listed(job("1")), listed(job("2", state="Succeeded"))]
    api.streams = [(200, event("ERROR", {"kind": "Status", "code": code, "message": "not now"}))]
    assert states(api) == ["Running", "Succeeded"]


def test_changes_continue_after_a_watch_that_breaks_within_an_event(api):
    api.lists = [listed(job("1")), listed(job("2", state="Succeeded"))]
    api.streams = [(200, event("MODIFIED", job("2"))[:50])]
    assert states(api) == ["Running", "Succeeded"]


def test_a_job_that_was_replaced_by_a_new_one_counts_as_deleted(api):
    api.lists = [listed(job("1"))]
    api.streams = [(200, event("DELETED", job("2")) + event("ADDED", job("3", uid="2", state="Succeeded")))]
    assert states(api) == ["Running", "gone"]
    api.streams = [(200, event("ADDED", job("3", uid="2", state="Succeeded")))]
    assert states(api) == ["Running", "gone"]
    api.lists = [listed(job("3", uid="2", state="Succeeded"))]
    assert states(api) == ["gone"]


def test_a_server_that_is_too_busy_for_watches_gets_few_requests(api):
    api.lists = [listed(job("1"))]
    api.streams = [(429, b"{}")]
    stream = changes(api.cluster, "job", "1", pulse=1)
    started = time.monotonic()
    while time.monotonic() - started < 3:
        next(stream)
    assert len(api.requests) < 15


def test_a_job_that_no_operator_acts_on_is_reported_once_while_the_launcher_waits(api, monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "OPERATOR_SECONDS", 1.5)
    waiting = {"metadata": {**job("1")["metadata"], "namespace": "team"}, "spec": {}, "involvedObject": {}}
    created = {**waiting, "status": job("1", state="Created")["status"]}
    api.lists, api.streams = [listed(waiting)], [(200, b"")]
    started, printed, states = time.monotonic(), "", []
    for current in _follow(api.cluster, waiting, waiting, options=JobOptions(), pods={}):
        printed += capsys.readouterr().err
        states.append(current)
        assert time.monotonic() - started < 60
        if "no training operator has acted" in printed and api.lists == [listed(waiting)] and len(states) > 5:
            api.lists = [listed(created)]
            api.streams = [(200, event_of(created))]
        if "Created" in printed:
            break
        time.sleep(0.1)
    assert time.monotonic() - started > 1.5
    lines = printed.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "PyTorchJob job: submitted",
        "PyTorchJob job: submitted",
        "PyTorchJob job: Created",
    ]
    assert "kubectl -n team describe pytorchjob job" in lines[1]


def event_of(changed: dict[str, Any]) -> bytes:
    return json.dumps({"type": "MODIFIED", "object": changed}).encode() + b"\n"
