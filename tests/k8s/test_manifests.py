"""The manifests of each overlay keep the rules: rights of accounts, and security of pods."""

import re
from typing import Any

import pytest
import yaml
from compiled_steps import steps
from manifests import OVERLAYS, ROOT, Document, containers, of_kind, pods, rendered, rights_of_accounts

from components import _images
from pipelines.cluster import STEP_LABEL
from previts.launch import submit


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Document]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def gke() -> list[Document]:
    return rendered("gke")


def test_no_account_has_all_rights_or_rights_outside_the_namespace(overlay: list[Document]):
    assert not [item for item in overlay if item["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for role in of_kind(overlay, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert rule["resources"] != ["secrets"] or (rule["resourceNames"] and rule["verbs"] == ["get"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
    accounts = {item["metadata"]["name"] for item in of_kind(overlay, "ServiceAccount")}
    assert {subject["name"] for item in of_kind(overlay, "RoleBinding") for subject in item["subjects"]} <= accounts
    assert {pod["serviceAccountName"] for pod in pods(overlay)} <= accounts


def test_the_launcher_has_the_rights_that_it_needs_and_no_others(overlay: list[Document]):
    needed = {
        (resource + (f"/{subresource}" if subresource else "") + (f".{group}" if group else ""), "", verb)
        for verb, resource, group, subresource in submit.RIGHTS
    }
    assert rights_of_accounts(overlay)["previts-launcher"] == needed


def test_the_account_of_every_step_has_no_right_on_jobs_or_on_pods_of_others(overlay: list[Document]):
    # The step `download` meets strangers, and KFP has one account for all steps of a run.
    assert {resource for resource, _, _ in rights_of_accounts(overlay)["previts-steps"]} <= {
        "workflowtaskresults.argoproj.io",
        "workflowtasksets.argoproj.io",
        "workflowtasksets/status.argoproj.io",
        "configmaps",
        "secrets",
        "pods",
        "serviceaccounts/token",
    }
    verbs = {verb for resource, _, verb in rights_of_accounts(overlay)["previts-steps"] if resource == "pods"}
    assert verbs == {"get"}


def test_a_token_can_be_made_only_for_an_account_without_rights(overlay: list[Document]):
    accounts = rights_of_accounts(overlay)
    made = {(name, verb) for own in accounts.values() for what, name, verb in own if what == "serviceaccounts/token"}
    assert made <= {("previts-download", "create")}
    assert not any(accounts[name] for name, _ in made)


def test_only_the_reaper_has_a_token(overlay: list[Document]):
    assert [pod["serviceAccountName"] for pod in pods(overlay) if pod["automountServiceAccountToken"]] == [
        "previts-reaper"
    ]


def test_every_pod_runs_without_root_on_a_read_only_file_system(overlay: list[Document]):
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod.get("volumes", []) if "emptyDir" in volume)
    for container in containers(overlay):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])


def test_the_namespace_is_restricted(overlay: list[Document]):
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert of_kind(overlay, "ResourceQuota")
    # Kubernetes fills in the only secret: a password or key in a manifest would be known to all who read it.
    assert [(item["metadata"]["name"], item["type"], item.get("data")) for item in of_kind(overlay, "Secret")] == [
        ("previts-launcher", "kubernetes.io/service-account-token", None)
    ]


def test_the_manifests_use_the_image_names_of_the_components(overlay: list[Document]):
    ours = {container["image"] for container in containers(overlay) if "previts" in container["image"]}
    assert ours == {_images.LAUNCHER_IMAGE, _images.MLFLOW_IMAGE}
    assert not [item["image"] for item in containers(overlay) if ":" not in item["image"] or "latest" in item["image"]]


def selectors(document: Any) -> list[tuple[str, list[str]]]:
    """Return each label key that a document selects pods by, with the values that it names."""
    if isinstance(document, list):
        return [found for item in document for found in selectors(item)]
    if not isinstance(document, dict):
        return []
    found = [(key, [value]) for key, value in document.get("matchLabels", {}).items()]
    found += [(rule["key"], rule.get("values", [])) for rule in document.get("matchExpressions", [])]
    return found + selectors(list(document.values()))


def test_the_policies_select_steps_by_the_label_and_the_names_that_steps_have(overlay: list[Document]):
    names = {step["podMetadata"]["labels"][STEP_LABEL] for step in steps().values()}
    ours = [(key, values) for key, values in selectors(overlay) if key.startswith("previts/")]
    assert {key for key, _ in ours} == {STEP_LABEL}
    selected = {value for _, values in ours for value in values}
    assert selected
    assert selected <= names


def test_the_config_maps_that_a_step_reads_exist(gke: list[Document]):
    names = {item["configMapName"] for step in steps().values() for item in step.get("configMapAsEnv", [])}
    assert names == {"previts-steps", "previts-google"}
    assert names <= {item["metadata"]["name"] for item in of_kind(gke, "ConfigMap")}
    (google,) = [item for item in of_kind(gke, "ConfigMap") if item["metadata"]["name"] == "previts-google"]
    assert google["data"]["GOOGLE_APPLICATION_CREDENTIALS"] == "/etc/previts/credentials.json"
    assert "credentials.json" in google["data"]
    assert all(item["optional"] for step in steps().values() for item in step.get("configMapAsEnv", []))


def test_every_step_gets_the_settings_of_the_config_map(overlay: list[Document]):
    (settings,) = [
        item["data"] for item in of_kind(overlay, "ConfigMap") if item["metadata"]["name"] == "previts-steps"
    ]
    assert settings["PREVITS_SANDBOX"] in ("", "strict")
    for step in steps().values():
        used = [item["keyToEnv"] for item in step["configMapAsEnv"] if item["configMapName"] == "previts-steps"]
        pairs = {(pair["configMapKey"], pair["envVar"]) for part in used for pair in part}
        assert pairs >= {(key, key) for key in settings}


def test_a_server_on_a_busy_node_is_not_killed_while_it_starts_or_answers_slowly(overlay: list[Document]):
    probed = [item for item in containers(overlay) if "livenessProbe" in item]
    assert probed
    for container in probed:
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, container["name"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[kind]["timeoutSeconds"] >= 10, container["name"]


def test_the_operator_of_the_manifests_is_the_one_that_the_node_is_tested_with():
    kustomization = yaml.safe_load((ROOT / "k8s" / "operator" / "kustomization.yaml").read_text())
    (manifests,) = kustomization["resources"]
    built = (ROOT / "tests" / "cluster" / "machine" / "programs" / "operator" / "go.mod").read_text()
    version = re.search(r"^\s*github.com/kubeflow/training-operator (v\S+)", built, re.MULTILINE)
    assert version is not None
    assert manifests.partition("?ref=")[2] == version[1]


def test_the_init_container_of_a_job_passes_restricted_pod_security():
    text = (ROOT / "k8s" / "operator" / "init-container.yaml").read_text()
    (container,) = yaml.safe_load(re.sub(r"{{\.(\w+)}}", r"\1", text))
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(name in container["command"][-1] for name in ("MaxTries", "MasterAddr"))
