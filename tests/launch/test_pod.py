"""What a job inherits from the pod of its launcher."""

import json

from previts.launch.pod import Inherited, from_pod, inherit


def test_image_account_and_owner_come_from_the_pod():
    pod = {
        "metadata": {"name": "step", "uid": "2", "ownerReferences": [
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1", "controller": True}
        ]},
        "spec": {"serviceAccountName": "runner", "containers": [
            {"name": "wait", "image": "argo"}, {"name": "main", "image": "registry/train:1"}
        ]},
    }  # fmt: skip
    found = from_pod(pod)
    assert (found.image, found.account) == ("registry/train:1", "runner")
    assert found.owner == {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1"}
    del pod["metadata"]["ownerReferences"]
    assert from_pod(pod).owner == {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "2"}


def test_outside_of_a_pod_and_without_rights_nothing_is_inherited(api, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert inherit(api.cluster) == Inherited()
    assert api.requests == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    api.lists = [(403, b"{}")]
    assert inherit(api.cluster) == Inherited()


def test_the_name_of_the_pod_is_that_of_kfp_and_not_the_short_host_name(api, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KFP_POD_NAME", "a-long-name")
    monkeypatch.setenv("HOSTNAME", "a-lo")
    pod = {"metadata": {"name": "a-long-name", "uid": "7"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    api.lists = [(200, json.dumps(pod).encode())]
    assert inherit(api.cluster) == from_pod(pod)
    assert [path for _, path, _ in api.requests] == ["/api/v1/namespaces/team/pods/a-long-name"]
