"""The commands of docs/cluster.md for one machine, run in the node; `runbook.py` has stand-ins for `make` and `kind`.

Kubeflow Pipelines is not on the node. So `submit` reads its parameters, checks them, compiles the pipeline, and ends
when no API answers. What a run does then is not tested here.
"""

import json
from collections.abc import Iterator

import boot
import pytest
import runbook
from manifests import containers
from node import Node
from runbook import Runbook

from components import _images

pytestmark = pytest.mark.cluster


@pytest.fixture
def editor(node: Node, servers: Runbook) -> Iterator[None]:
    """The account that a Profile of Kubeflow makes in its namespace; here it has no rights."""
    named = ("serviceaccount", "default-editor", "-n", "previts")
    made = not node.kubectl("get", *named, "--ignore-not-found")
    if made:
        node.kubectl("create", *named)
    yield
    if made:
        node.kubectl("delete", *named)


def test_every_command_is_run_or_has_a_reason(servers: Runbook, editor: None):
    servers.run()
    section = runbook.commands()
    skipped = {start for start in runbook.NOT_HERE if any(command.startswith(start) for command in section)}
    assert skipped == set(runbook.NOT_HERE), "a reason is for no command"
    assert [command for command in section if command not in servers.said] == [
        command for command in section if runbook.reason(command, runbook.NOT_HERE)
    ]
    assert len(set(section)) == len(section)


def test_the_images_of_the_manifests_and_of_the_pipeline_are_loaded(node: Node, servers: Runbook):
    (said,) = [output for command, (_, output) in servers.said.items() if "kind load docker-image" in command]
    loaded, lacking = (line.split()[2:] if "built" in line else line.split()[1:] for line in said.splitlines()[-2:])
    listed = json.loads(node.kubectl("get", "deployments,cronjobs", "-n", "previts", "-o", "json"))["items"]
    used = {f"docker.io/{name}" for name in _images.IMAGES} | {
        f"docker.io/{container['image']}" for item in listed for container in containers([item])
    }
    assert {*loaded, *lacking} == used
    if lacking:
        pytest.skip(f"images are not built: {', '.join(lacking)}")


def test_the_policies_have_the_address_of_the_api_server(node: Node, servers: Runbook):
    for name in ("reaper-to-control-plane", "runs-to-control-plane"):
        form = "jsonpath={.spec.egress[0].to[0].ipBlock.cidr}"
        assert node.kubectl("get", "networkpolicy", name, "-n", "previts", "-o", form) == f"{boot.ADDRESS}/32"


def test_no_object_is_refused_or_warned_about(servers: Runbook):
    (said,) = [output for command, (_, output) in servers.said.items() if command.endswith("k8s/overlays/local")]
    assert "mlflow" in said
    assert "Warning" not in said
    assert "violate" not in said
