"""The rights of the accounts: the table of k8s/README.md, the manifests, and what a real API server makes of them."""

import base64
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth
import google.auth.transport.requests
import pytest
import yaml
from control_plane import ControlPlane
from kubernetes import client, config
from manifests import OVERLAYS, ROOT, Right, listed_rights, of_kind, rendered, rights, rights_of_accounts

from components import _google_token
from pipelines.cluster import STEP_LABEL
from previts.launch.cluster import JOB_LABEL

GROUPS = ["system:serviceaccounts", "system:serviceaccounts:previts", "system:authenticated"]
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/previts/providers/cluster"


def test_the_table_of_rights_is_that_of_the_manifests():
    for overlay in OVERLAYS:
        granted = rights_of_accounts(rendered(overlay))
        listed = listed_rights(
            "gke" if overlay == "kueue" else overlay
        )  # that for Kueue adds a queue to that for Google
        assert granted == {account: listed[account] for account in granted}
    given = [rights_of_accounts(rendered(overlay)) for overlay in OVERLAYS]
    accounts = {account for granted in given for account in granted}
    assert listed_rights() == {
        account: set().union(*(granted.get(account, set()) for granted in given)) for account in accounts
    }


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The API server with the accounts and roles of the overlay for Google, and one account without a role."""
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": "previts"}})
    documents = of_kind(rendered("gke"), "ServiceAccount", "Role", "RoleBinding")
    documents.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}})
    apply(plane, documents)
    yield plane
    plane.request("DELETE", "/api/v1/namespaces/previts")


def apply(plane: ControlPlane, documents: list[dict[str, Any]], *options: str) -> None:
    """Apply documents as administrator, with the checks of the server for unknown fields."""
    command = ["kubectl", "--kubeconfig", plane.kubeconfig("admin", "previts"), "apply", "--server-side"]
    command += ["--validate=strict", *options, "-f", "-"]
    done = subprocess.run(command, input=yaml.safe_dump_all(documents), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def connected(plane: ControlPlane, account: str) -> client.ApiClient:
    """Connect with a token of an account, as a pod does."""
    asked = {"spec": {"audiences": ["https://previts.test"]}}
    path = f"/api/v1/namespaces/previts/serviceaccounts/{account}/token"
    settings = client.Configuration(host=plane.url)
    settings.ssl_ca_cert = str(plane.folder / "certificates" / "apiserver.crt")
    settings.api_key["authorization"] = "Bearer " + plane.request("POST", path, asked)["status"]["token"]
    return client.ApiClient(settings)


def admin(plane: ControlPlane) -> client.ApiClient:
    return config.new_client_from_config(plane.kubeconfig("admin", "previts"))


def rules(plane: ControlPlane, account: str) -> set[Right]:
    """Return the rights in the namespace that the API server reports for an account."""
    body = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace="previts"))
    status = client.AuthorizationV1Api(connected(plane, account)).create_self_subject_rules_review(body).status
    assert not status.incomplete
    return rights([client.ApiClient().sanitize_for_serialization(rule) for rule in status.resource_rules])


def may(plane: ControlPlane, account: str, right: Right) -> bool:
    whole, name, verb = right
    resource, _, group = whole.partition(".")
    resource, _, subresource = resource.partition("/")
    attributes = {"namespace": "previts", "verb": verb, "group": group, "resource": resource, "name": name}
    user = f"system:serviceaccount:previts:{account}"
    spec = {"user": user, "groups": GROUPS, "resourceAttributes": {**attributes, "subresource": subresource}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(plane.request("POST", path, body)["status"]["allowed"])


@pytest.mark.slow
def test_the_api_server_gives_each_account_its_list_and_nothing_more(cluster: ControlPlane):
    common = rules(cluster, "nobody")
    assert not any(may(cluster, "nobody", right) for own in listed_rights().values() for right in own)
    every = {right for own in listed_rights().values() for right in own} | {
        ("pods", "", "create"),
        ("pods/exec", "", "create"),
        ("secrets", "", "list"),
        ("secrets", "mlflow-postgres", "get"),
        ("secrets", "previts-launcher", "get"),
        ("serviceaccounts/token", "previts-launcher", "create"),
        ("serviceaccounts/token", "previts-steps", "create"),
        ("roles.rbac.authorization.k8s.io", "", "create"),
        ("workflows.argoproj.io", "", "create"),
    }
    for account in rights_of_accounts(rendered("gke")):
        listed = listed_rights()[account]
        assert rules(cluster, account) - common == listed, account
        assert {right for right in every if may(cluster, account, right)} == listed, account


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_object_of_an_overlay(cluster: ControlPlane, overlay: str):
    served = [item for item in rendered(overlay) if "kueue" not in item["apiVersion"]]
    apply(cluster, served, "--dry-run=server")


@pytest.mark.slow
def test_a_step_or_job_with_another_account_than_its_own_is_refused(cluster: ControlPlane):
    apply(cluster, of_kind(rendered("gke"), "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
    pods = client.CoreV1Api(admin(cluster))

    def refusal(account: str, labels: dict[str, str]) -> str:
        spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "registry/data:1"}]}
        body = {"metadata": {"generateName": "step-", "labels": labels}, "spec": spec}
        try:
            pods.create_namespaced_pod("previts", body, dry_run="All")
        except client.ApiException as error:
            return str(error.body)
        return ""

    step = {STEP_LABEL: "download"}
    deadline = time.monotonic() + 30  # the API server takes new policies from a cache
    while not refusal("nobody", step) and time.monotonic() < deadline:
        time.sleep(0.2)
    for account in ("nobody", "previts-launcher"):
        assert "must run with the account previts-steps" in refusal(account, step)
    job = {JOB_LABEL: "job"}
    assert "must run with the account previts-training" in refusal("previts-launcher", job)
    for account, labels in (("previts-steps", step), ("previts-training", job), ("nobody", {})):
        assert refusal(account, labels) == ""


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.slow
def test_the_token_for_google_is_of_its_own_account_and_audience_and_no_use_in_the_cluster(cluster: ControlPlane):
    answer = _google_token.response(connected(cluster, "previts-steps"), "previts", AUDIENCE)
    token = str(answer["id_token"])
    assert claims(token)["aud"] == [f"https:{AUDIENCE}"]
    assert claims(token)["sub"] == "system:serviceaccount:previts:previts-download"
    assert claims(token)["exp"] == answer["expiration_time"]
    api = connected(cluster, "previts-steps")
    api.configuration.api_key["authorization"] = f"Bearer {token}"
    with pytest.raises(client.ApiException, match="Unauthorized"):
        client.CoreV1Api(api).list_namespaced_pod("previts")


@pytest.mark.slow
def test_without_the_right_the_reason_says_what_to_apply(cluster: ControlPlane):
    answer = _google_token.response(connected(cluster, "nobody"), "previts", AUDIENCE)
    assert answer["success"] is False
    assert answer["code"] == "403"
    assert "apply the manifests of k8s/overlays/gke" in str(answer["message"])


@pytest.mark.slow
def test_google_auth_sends_this_token_and_no_other(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    audience = (
        "//previts.test/providers/cluster"  # with the number of a project, the library would ask Google for its name
    )
    answer = _google_token.response(connected(cluster, "previts-steps"), "previts", audience)
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    asked: list[dict[str, list[str]]] = []

    class TokenService(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"access_token": "of-google", "token_type": "Bearer", "expires_in": 3600}')

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), TokenService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (made,) = [item for item in of_kind(rendered("gke"), "ConfigMap") if item["metadata"]["name"] == "previts-google"]
    given = json.loads(made["data"]["credentials.json"])
    shown = "import sys; print(open(sys.argv[1]).read())"
    given["audience"] = audience
    given["token_url"] = f"http://127.0.0.1:{server.server_port}/v1/token"
    given["credential_source"]["executable"]["command"] = f"{sys.executable} -c '{shown}' {tmp_path}/answer.json"
    (tmp_path / "credentials.json").write_text(json.dumps(given))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    monkeypatch.setenv(
        "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", made["data"]["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"]
    )
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
    credentials.refresh(google.auth.transport.requests.Request())
    server.shutdown()
    server.server_close()
    assert credentials.token == "of-google"
    assert [(item["subject_token"], item["audience"]) for item in asked] == [([answer["id_token"]], [audience])]


def test_the_command_of_the_credentials_is_this_program():
    given = json.loads((ROOT / "k8s" / "overlays" / "gke" / "credentials.json").read_text())
    command = given["credential_source"]["executable"]["command"].split()
    # -I: a file in the current folder, to which a step can write, must not be imported in place of a package.
    assert command == ["python", "-I", "-W", "ignore", "-m", _google_token.__name__]
