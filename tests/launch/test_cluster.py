"""Requests to an API server that restarts, is busy, or sends its answers in pieces."""

import itertools
import json
import random
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from kubernetes.client.exceptions import ApiException
from scripted_api import listed, stamped

from previts.errors import InputError
from previts.launch import cluster
from previts.launch.cluster import connect, is_temporary, log_time, reason_of, with_retries


@pytest.mark.parametrize(
    ("error", "allowed", "temporary"),
    [
        (ApiException(status=500), False, True),
        (ApiException(status=503), False, True),
        (ApiException(status=429), False, True),
        (ApiException(status=0), False, True),  # no answer
        (ApiException(status=404), True, False),
        (ApiException(status=409), True, False),
        (ApiException(status=403), False, False),
        (ApiException(status=403), True, True),  # a server that starts has not loaded its roles yet
        (ApiException(status=401), True, True),
        (urllib3.exceptions.ProtocolError("broken"), False, True),
        (ConnectionResetError(), False, True),
        (TimeoutError(), False, True),
        (json.JSONDecodeError("cut off", "{", 1), False, True),
        (FileNotFoundError("certificate"), False, False),
        (ValueError(), False, False),
    ],
)
def test_an_error_is_temporary_if_the_same_request_can_succeed_later(error, allowed, temporary):
    assert is_temporary(error, allowed) == temporary


def test_a_request_is_repeated_until_it_succeeds(monkeypatch):
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: None))
    errors = iter([ApiException(status=503), ConnectionResetError(), None])

    def request() -> str:
        if error := next(errors):
            raise error
        return "answer"

    assert with_retries(request) == "answer"


def test_pauses_double_up_to_15_seconds_within_the_limit(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append))

    def request() -> None:
        raise ApiException(status=503)

    with pytest.raises(ConnectionError, match="has not answered for 60 s"):
        with_retries(request, limit=60)
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15]  # another 15 s would exceed 60 s


def test_a_permanent_error_is_raised_at_once(api):
    api.lists = [(404, b"{}")]
    assert with_retries(lambda: api.cluster.get("job")) is None
    api.lists = [(403, json.dumps({"message": "no rights on jobs"}).encode())]
    with pytest.raises(ApiException) as refused:
        with_retries(api.cluster.jobs)
    assert reason_of(refused.value) == "no rights on jobs"
    assert len(api.requests) == 2


def test_a_refusal_without_json_is_described_by_its_status():
    assert reason_of(ApiException(status=502, reason="Bad Gateway")) == "502 Bad Gateway"


def test_log_lines_are_separated_from_their_times(api):
    text = stamped(1, "step 1") + b"\n" + b"a message of the kubelet\n" + stamped(2, "step 2")[:-1]
    api.streams = [(200, text)]
    lines = list(api.cluster.log("pod", tail=5, since_seconds=9))
    assert [line for _, line in lines] == ["step 1", "a message of the kubelet", "step 2"]
    assert [bool(stamp) for stamp, _ in lines] == [True, False, True]
    assert log_time(lines[0][0]).isoformat() == "2026-11-27T10:00:01+00:00"
    assert {"tailLines=5", "sinceSeconds=9", "container=pytorch"} <= set(api.requests[0][1].split("?")[1].split("&"))


class Blocks:
    """A response whose bytes arrive in given blocks."""

    def __init__(self, blocks: list[bytes]) -> None:
        self.blocks = iter([*blocks, b""])

    def read1(self, size: int) -> bytes:
        return next(self.blocks)


def test_lines_do_not_depend_on_the_blocks_in_which_they_arrive():
    chosen = random.Random(0)
    text = b"first\n\nsecond line\nlast without an end"
    for _ in range(100):
        cuts = sorted(chosen.sample(range(1, len(text)), chosen.randrange(6)))
        blocks = [text[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(text)])]
        response: Any = Blocks(blocks)
        assert list(cluster._lines(response)) == ["first", "second line", "last without an end"]


def test_a_deletion_requires_the_given_uid_and_version(api):
    assert api.cluster.delete("job", uid="1", version="7")
    assert api.cluster.delete("job")
    bodies = [body for _, _, body in api.requests]
    assert [body["preconditions"] for body in bodies] == [{"uid": "1", "resourceVersion": "7"}, {}]
    for status in (404, 409):  # deleted already, or changed since
        api.deletions = [status]
        assert not api.cluster.delete("job", uid="1")


def test_a_list_can_be_limited_to_one_job(api):
    api.lists = [listed({"metadata": {"name": "job"}})]
    jobs, version = api.cluster.jobs("job")
    assert ([job["metadata"]["name"] for job in jobs], version) == (["job"], "9")
    api.cluster.jobs()
    queries = [path.split("?")[1] for _, path, _ in api.requests]
    assert queries == ["fieldSelector=metadata.name%3Djob", "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dprevits"]


def test_a_machine_without_a_cluster_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"found no Kubernetes cluster"):
        connect()


@pytest.mark.parametrize(("own", "expected"), [(True, "launcher"), (False, "pod")])
def test_a_pod_with_the_token_of_the_launcher_uses_it_and_no_other(tmp_path, monkeypatch, own, expected):
    for name in ("launcher", "pod"):
        (tmp_path / name).mkdir()  # an optional secret that does not exist is an empty folder
        if name == "pod" or own:
            (tmp_path / name / "token").write_text(f"token of {name}")
            (tmp_path / name / "ca.crt").write_text("certificate")
            (tmp_path / name / "namespace").write_text(f"namespace of {name}\n")
    monkeypatch.setattr(cluster, "ACCOUNTS", (str(tmp_path / "launcher"), str(tmp_path / "pod")))
    monkeypatch.setattr(cluster.client, "ApiClient", lambda settings: settings)  # it would read the certificate
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    connected = connect()
    assert connected.namespace == f"namespace of {expected}"
    assert connected.api.get_api_key_with_prefix("authorization").lower() == f"bearer token of {expected}"
    assert connected.api.ssl_ca_cert == str(tmp_path / expected / "ca.crt")
