"""The API server of a Kubernetes cluster, seen from one namespace: plain questions, answered with plain JSON.

What is asked waits through a server that restarts; what a person can mend becomes an `InputError`.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from previts.errors import InputError
from previts.launch.pytorchjob import GROUP, LABEL, PLURAL, VERSION, Manifest

Result = TypeVar("Result")

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
JOB_LABEL = "training.kubeflow.org/job-name"  # the operator's, on the pods of a job
CONNECT_SECONDS, ANSWER_SECONDS = 5, 60
FOLLOW_SECONDS = 300  # of silence, in which the other side may have gone without a word
PATIENCE_SECONDS = 600.0  # an API server that is upgraded is away for minutes, and the job goes on without it
UNAUTHORISED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE = 401, 403, 404, 409, 410
STAMPED = re.compile(r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True)
class Cluster:
    """A connection and the namespace that everything is in."""

    api: client.ApiClient
    namespace: str

    def get(self, name: str) -> Manifest | None:
        """Return a job, or None where there is none."""
        try:
            return self._ask("GET", self._path(name))
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def jobs(self, name: str = "") -> tuple[list[Manifest], str]:
        """Return the jobs that previts made, or the one of a name, and the version of this list."""
        query = [("fieldSelector", f"metadata.name={name}")] if name else [("labelSelector", f"{LABEL}=previts")]
        found = self._ask("GET", self._path(), query)
        return found["items"], found["metadata"]["resourceVersion"]

    def watch(self, name: str, version: str, seconds: float) -> Iterator[tuple[str, Manifest]]:
        """Yield (type, job) at each change of a job after a version, for some seconds.

        Raises:
            ApiException: With status 410, if the version is too old to go on from.
        """
        query = [("watch", "true"), ("fieldSelector", f"metadata.name={name}"), ("resourceVersion", version)]
        query.append(("timeoutSeconds", str(max(1, round(seconds)))))
        response = self._raw("GET", self._path(), query, seconds + CONNECT_SECONDS + ANSWER_SECONDS)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiException(status=event["object"].get("code"), reason=event["object"].get("message"))
                yield event["type"], event["object"]
        finally:
            response.close()  # not handed back: what is left of this answer would begin the next

    def create(self, job: Manifest, dry_run: bool = False) -> Manifest:
        """Create a job; a dry run goes through every check of the server, unknown fields included."""
        query = [("fieldValidation", "Strict"), *([("dryRun", "All")] if dry_run else [])]
        return self._ask("POST", self._path(), query, job)

    def annotate(self, name: str, annotations: dict[str, str]) -> None:
        """Set annotations of a job; one that is gone is none of this call's business."""
        try:
            self._ask("PATCH", self._path(name), [], {"metadata": {"annotations": annotations}})
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    def delete(self, name: str, uid: str = "", version: str = "") -> bool:
        """Delete a job, its pods first; return False where it is gone or another than the one that is meant."""
        meant = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground", "preconditions": meant}
        try:
            self._ask("DELETE", self._path(name), [], body)
        except ApiException as error:
            if error.status in (NOT_FOUND, CONFLICT):
                return False
            raise
        return True

    def pods(self, name: str) -> list[Manifest]:
        """Return the pods of a job that are still there."""
        query = [("labelSelector", f"{JOB_LABEL}={name}")]
        pods: list[Manifest] = self._ask("GET", f"/api/v1/namespaces/{self.namespace}/pods", query)["items"]
        return pods

    def pod(self, name: str) -> Manifest:
        """Return one pod."""
        return self._ask("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def events(self, name: str) -> list[Manifest]:
        """Return what was said about a job and its pods, those included that are gone."""
        try:
            found = self._ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        except (ApiException, urllib3.exceptions.HTTPError, OSError):  # they only make a diagnosis better
            return []
        return [item for item in found if item["involvedObject"].get("name", "").startswith(name)]

    def log(self, pod: str, follow: bool = False, tail: int = 0, since_seconds: int = 0) -> Iterator[tuple[str, str]]:
        """Yield the lines of a pod's log, each with its time; what the kubelet says among them itself has none."""
        query = [("timestamps", "true"), ("container", "pytorch")]
        query += [("follow", "true")] if follow else []
        query += [("tailLines", str(tail))] if tail else []
        query += [("sinceSeconds", str(since_seconds))] if since_seconds else []
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        response = self._raw("GET", path, query, FOLLOW_SECONDS if follow else ANSWER_SECONDS)
        try:
            for line in _lines(response):
                match = STAMPED.match(line)
                yield (match[0].rstrip(), line[match.end() :]) if match else ("", line)
        finally:
            response.close()  # not handed back: what is left of this answer would begin the next

    def kinds(self) -> list[str]:
        """Return the plural names of what the server knows of kubeflow.org/v1."""
        try:
            found = self._ask("GET", f"/apis/{GROUP}/{VERSION}")
        except ApiException as error:
            if error.status == NOT_FOUND:
                return []
            raise
        return [item["name"] for item in found["resources"]]

    def may(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Return whether this account may do something in the namespace."""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
        }
        answer = self._ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", [], body)
        return bool(answer["status"].get("allowed"))

    def _path(self, name: str = "") -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}" + (f"/{name}" if name else "")

    def _ask(self, method: str, path: str, query: list[tuple[str, str]] | None = None, body: Any = None) -> Manifest:
        answer: Manifest = json.loads(self._raw(method, path, query or [], ANSWER_SECONDS, body).data)
        return answer

    def _raw(
        self, method: str, path: str, query: list[tuple[str, str]], seconds: float, body: Any = None
    ) -> urllib3.HTTPResponse:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        response: urllib3.HTTPResponse = self.api.call_api(
            path,
            method,
            query_params=query,
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(CONNECT_SECONDS, seconds),
        )
        return response


def moment_of(stamp: str) -> datetime:
    """Return the time, to the second, that stands before a line of a log."""
    match = STAMPED.match(f"{stamp} ")
    assert match, stamp
    return datetime.fromisoformat(match["second"] + match["zone"])


def _lines(response: urllib3.HTTPResponse) -> Iterator[str]:
    parts: list[bytes] = []  # of a line that has not ended: one without an end must not be copied with every block
    while block := response.read1(1 << 16):  # what there is, without waiting for more
        *lines, rest = block.split(b"\n")
        for line in lines:
            whole = b"".join([*parts, line])
            parts = []
            if whole:
                yield whole.decode(errors="replace")
        parts.append(rest)
    if whole := b"".join(parts):
        yield whole.decode(errors="replace")


def connect(namespace: str = "") -> Cluster:
    """Connect as the pod that this is, else as the kubeconfig says.

    Args:
        namespace: By default that of the pod or of the kubeconfig's context.

    Raises:
        InputError: If there is neither.
    """
    settings = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(settings)
            with open(NAMESPACE_FILE) as file:
                here = file.read().strip()
        else:
            file_name = os.environ.get("KUBECONFIG")  # the library looks only once, when it is loaded
            config.load_kube_config(file_name, client_configuration=settings)
            here = config.list_kube_config_contexts(file_name)[1]["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"launcher pytorchjob found no Kubernetes cluster: {error}; run it in a pod with a service account, or "
            "name a kubeconfig by KUBECONFIG; --launcher local trains on this machine"
        ) from None
    settings.retries = urllib3.Retry(total=0, redirect=2)
    return Cluster(client.ApiClient(settings), namespace or here)


def is_passing(error: Exception, allowed: bool = False) -> bool:
    """Return whether the same question may be answered later: the server is away, starts or is busy.

    Args:
        error: What the question met.
        allowed: Whether this account is known to have the right. A server that has just started refuses everyone until
            it has read its roles.
    """
    if isinstance(error, ApiException):
        starts = allowed and error.status in (UNAUTHORISED, FORBIDDEN)
        return starts or error.status in (None, 0, 429) or error.status >= 500
    return isinstance(error, urllib3.exceptions.HTTPError | ConnectionError | TimeoutError | json.JSONDecodeError)


def patiently(ask: Callable[[], Result], patience: float = PATIENCE_SECONDS, allowed: bool = False) -> Result:
    """Ask again and again while the server is away.

    Args:
        ask: The question.
        patience: For how many seconds.
        allowed: Whether this account is known to have the right, so that a refusal will pass too.

    Raises:
        ConnectionError: If it stays away.
    """
    started, pause = time.monotonic(), 0.5
    while True:
        try:
            return ask()
        except (ApiException, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as error:
            if not is_passing(error, allowed):
                raise
            if time.monotonic() - started + pause > patience:
                raise ConnectionError(f"the API server has not answered for {patience:.0f} s: {error}") from error
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


def reason_of(error: ApiException) -> str:
    """Return what the server said of a refusal."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
