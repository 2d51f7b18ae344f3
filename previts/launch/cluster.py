"""Client of a Kubernetes API server for one namespace, with plain JSON as input and output.

`with_retries` repeats a request while the server restarts. Requests raise the errors of the library, which `submit` and
`launcher` turn into messages.
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
from kubernetes.config.incluster_config import InClusterConfigLoader

from previts.errors import InputError
from previts.launch.pytorchjob import GROUP, LABEL, PLURAL, VERSION, Manifest

Result = TypeVar("Result")

# Folders with the token of an account: that of the launcher, which k8s/ gives to the step that starts jobs, and that of
# the pod. The first one with a token is used.
ACCOUNTS = ("/etc/previts-launcher", "/var/run/secrets/kubernetes.io/serviceaccount")
JOB_LABEL = "training.kubeflow.org/job-name"  # the operator sets it on the pods of a job
CONNECT_SECONDS, ANSWER_SECONDS = 5, 60
FOLLOW_SECONDS = 300  # without a new line, after which the connection counts as lost
RETRY_SECONDS = 600.0  # an upgrade of the API server takes minutes, and jobs continue to run without it
UNAUTHORISED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE = 401, 403, 404, 409, 410
# The time that the kubelet writes before each line of a log.
STAMPED = re.compile(r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True)
class Cluster:
    """A connection to an API server, and the namespace that all requests are about."""

    api: client.ApiClient
    namespace: str

    def get(self, name: str) -> Manifest | None:
        """Return a job, or None if it does not exist."""
        try:
            return self._json("GET", self._path(name))
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def jobs(self, name: str = "") -> tuple[list[Manifest], str]:
        """Return the jobs that previts created, or only the job `name`, and the version of the list."""
        query = [("fieldSelector", f"metadata.name={name}")] if name else [("labelSelector", f"{LABEL}=previts")]
        found = self._json("GET", self._path(), query)
        return found["items"], found["metadata"]["resourceVersion"]

    def watch(self, name: str, version: str, seconds: float) -> Iterator[tuple[str, Manifest]]:
        """Yield (type of the change, job) at each change of a job after `version`, for some seconds.

        Raises:
            ApiException: With status 410, if the server no longer knows the version.
        """
        query = [("watch", "true"), ("fieldSelector", f"metadata.name={name}"), ("resourceVersion", version)]
        query.append(("timeoutSeconds", str(max(1, round(seconds)))))
        response = self._request("GET", self._path(), query, seconds=seconds + CONNECT_SECONDS + ANSWER_SECONDS)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiException(status=event["object"].get("code"), reason=event["object"].get("message"))
                yield event["type"], event["object"]
        finally:
            response.close()  # never reuse this connection: the next answer would begin with the unread rest

    def create(self, job: Manifest, dry_run: bool = False) -> Manifest:
        """Create a job. A dry run only runs the checks of the server. Both refuse unknown fields."""
        query = [("fieldValidation", "Strict"), *([("dryRun", "All")] if dry_run else [])]
        return self._json("POST", self._path(), query, job)

    def annotate(self, name: str, annotations: dict[str, str]) -> None:
        """Set annotations of a job. Do nothing if the job no longer exists."""
        try:
            self._json("PATCH", self._path(name), [], {"metadata": {"annotations": annotations}})
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    def delete(self, name: str, uid: str = "", version: str = "") -> bool:
        """Delete a job after its pods.

        Args:
            name: Name of the job.
            uid: If given, only the job with this uid is deleted.
            version: If given, only this version of the job is deleted.

        Returns:
            False if the job no longer exists, or has another uid or version.
        """
        expected = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Foreground",
            "preconditions": expected,
        }
        try:
            self._json("DELETE", self._path(name), [], body)
        except ApiException as error:
            if error.status in (NOT_FOUND, CONFLICT):
                return False
            raise
        return True

    def pods(self, name: str) -> list[Manifest]:
        """Return the pods of a job that still exist."""
        query = [("labelSelector", f"{JOB_LABEL}={name}")]
        pods: list[Manifest] = self._json("GET", f"/api/v1/namespaces/{self.namespace}/pods", query)["items"]
        return pods

    def pod(self, name: str) -> Manifest:
        """Return one pod."""
        return self._json("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def events(self, name: str) -> list[Manifest]:
        """Return the events of a job and its pods, including pods that no longer exist; empty if the request fails."""
        try:
            found = self._json("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        except (ApiException, urllib3.exceptions.HTTPError, OSError):  # a diagnosis without events is better than none
            return []
        return [item for item in found if item["involvedObject"].get("name", "").startswith(name)]

    def log(
        self, pod: str, *, follow: bool = False, tail: int = 0, since_seconds: int = 0
    ) -> Iterator[tuple[str, str]]:
        """Yield (time, text) of each line of a pod's log; the time of the kubelet's own messages is empty.

        Args:
            pod: Name of the pod.
            follow: Whether to wait for further lines until the container ends.
            tail: Number of last lines; 0 for all.
            since_seconds: Age of the oldest line; 0 for no limit.
        """
        query = [("timestamps", "true"), ("container", "pytorch")]
        query += [("follow", "true")] if follow else []
        query += [("tailLines", str(tail))] if tail else []
        query += [("sinceSeconds", str(since_seconds))] if since_seconds else []
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        response = self._request("GET", path, query, seconds=FOLLOW_SECONDS if follow else ANSWER_SECONDS)
        try:
            for line in _lines(response):
                match = STAMPED.match(line)
                yield (match[0].rstrip(), line[match.end() :]) if match else ("", line)
        finally:
            response.close()  # never reuse this connection: the next answer would begin with the unread rest

    def resources(self) -> list[str]:
        """Return the plural names of the resources of kubeflow.org/v1 that the server has."""
        try:
            found = self._json("GET", f"/apis/{GROUP}/{VERSION}")
        except ApiException as error:
            if error.status == NOT_FOUND:
                return []
            raise
        return [item["name"] for item in found["resources"]]

    def is_allowed(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Return whether this account has a right in the namespace."""
        attributes = {"namespace": self.namespace, "verb": verb, "resource": resource, "group": group}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
        }
        answer = self._json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", [], body)
        return bool(answer["status"].get("allowed"))

    def _path(self, name: str = "") -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}" + (f"/{name}" if name else "")

    def _json(self, method: str, path: str, query: list[tuple[str, str]] | None = None, body: Any = None) -> Manifest:
        answer: Manifest = json.loads(self._request(method, path, query or [], body).data)
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        body: Any = None,
        *,
        seconds: float = ANSWER_SECONDS,
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


def log_time(stamp: str) -> datetime:
    """Parse the time before a line of a log, without its fraction of a second."""
    match = STAMPED.match(f"{stamp} ")
    assert match, stamp
    return datetime.fromisoformat(match["second"] + match["zone"])


def _lines(response: urllib3.HTTPResponse) -> Iterator[str]:
    parts: list[bytes] = []  # of the current line; joined only once, because a line can have many blocks
    while block := response.read1(1 << 16):  # returns the bytes that have arrived, without waiting for more
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
    """Connect with the account of the launcher or of this pod, or outside of a cluster with the kubeconfig.

    Args:
        namespace: By default that of the pod or of the kubeconfig's context.

    Raises:
        InputError: If there is neither a service account nor a kubeconfig.
    """
    settings = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            folder = next((name for name in ACCOUNTS if os.path.exists(f"{name}/token")), ACCOUNTS[-1])
            loader = InClusterConfigLoader(token_filename=f"{folder}/token", cert_filename=f"{folder}/ca.crt")
            loader.load_and_set(settings)
            with open(f"{folder}/namespace") as file:
                here = file.read().strip()
        else:
            file_name = os.environ.get("KUBECONFIG")  # the library reads this only once, when it is imported
            config.load_kube_config(file_name, client_configuration=settings)
            here = config.list_kube_config_contexts(file_name)[1]["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"launcher pytorchjob found no Kubernetes cluster: {error}; run it in a pod with a service account, set "
            "KUBECONFIG to a kubeconfig, or train on this machine with --launcher local"
        ) from None
    settings.retries = urllib3.Retry(total=0, redirect=2)
    return Cluster(client.ApiClient(settings), namespace or here)


def is_temporary(error: Exception, allowed: bool = False) -> bool:
    """Return whether the same request may succeed later: the server is not reachable, starting or busy.

    Args:
        error: The error of the request.
        allowed: Whether this account is known to have the right. A server that has just started refuses all accounts
            until it has loaded its roles, so a refusal is temporary then.
    """
    if isinstance(error, ApiException):
        starts = allowed and error.status in (UNAUTHORISED, FORBIDDEN)
        return starts or error.status in (None, 0, 429) or error.status >= 500
    return isinstance(error, urllib3.exceptions.HTTPError | ConnectionError | TimeoutError | json.JSONDecodeError)


def with_retries(request: Callable[[], Result], limit: float = RETRY_SECONDS, allowed: bool = False) -> Result:
    """Send a request, and repeat it while its error is temporary.

    Args:
        request: Sends the request and returns the answer.
        limit: Seconds after which it is not repeated any more.
        allowed: Whether this account is known to have the right, so that a refusal is temporary too.

    Raises:
        ConnectionError: If the server has not answered within the limit.
    """
    started, pause = time.monotonic(), 0.5
    while True:
        try:
            return request()
        except (ApiException, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as error:
            if not is_temporary(error, allowed):
                raise
            if time.monotonic() - started + pause > limit:
                raise ConnectionError(
                    f"the API server has not answered for {limit:.0f} s: {error}; check that it runs and that its "
                    "address in the kubeconfig is right. The same command takes over a running job"
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


def reason_of(error: ApiException) -> str:
    """Return the reason that the server gave for a refusal."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
