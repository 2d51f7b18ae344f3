"""The node itself: which pods it admits, how they run, and that nothing of it is left at its end."""

import copy
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import boot
import pytest
import sandbox
from manifests import Document
from node import Node, NodeError
from probes import JOB, STEP, WORKFLOW, ask, pod

pytestmark = pytest.mark.cluster


@pytest.fixture
def one(node: Node, namespace: list[Document]):
    """A pod that restricted Pod Security allows."""
    node.apply(pod("one", "previts", {}, "default"))
    node.kubectl("wait", "--for=condition=Ready", "pod/one", "-n", "previts", "--timeout=60s")
    yield "one"
    node.kubectl("delete", "pod", "one", "-n", "previts", "--now")


def test_a_pod_starts_under_restricted_pod_security_and_has_no_rights(node: Node, one: str):
    form = "jsonpath={.status.containerStatuses[0].containerID}"
    container = node.kubectl("get", "pod", one, "-n", "previts", "-o", form).partition("://")[2]
    tasks = sandbox.run(*node.command("ctr", "--address", boot.SOCKET, "--namespace", "k8s.io", "tasks", "list"))
    (process,) = [line.split()[1] for line in tasks.splitlines() if line.startswith(container)]
    state = sandbox.run(*node.command("cat", f"/proc/{process}/status")).splitlines()
    rights = {line.split()[0]: line.split()[1] for line in state if len(line.split()) > 1}
    assert rights["Uid:"] == "65532"
    assert rights["CapEff:"] == rights["CapBnd:"] == "0000000000000000"
    assert rights["NoNewPrivs:"] == "1"
    assert rights["Seccomp:"] == "2"


@pytest.mark.parametrize(
    ("field", "value"),
    [("hostNetwork", True), ("hostPID", True), ("securityContext", {"runAsUser": 0}),
     ("volumes", [{"name": "root", "hostPath": {"path": "/"}}])],
)  # fmt: skip
def test_pods_with_more_rights_are_refused(node: Node, namespace: list[Document], field: str, value: object):
    document = pod("greedy", "previts", {}, "default")
    document["spec"][field] = value
    with pytest.raises(NodeError, match='violates PodSecurity "restricted'):
        node.apply(document)


@pytest.mark.parametrize(
    ("labels", "account", "message"),
    [({WORKFLOW: "run", STEP: "track"}, "default", "must run with the account previts-steps"),
     ({JOB: "job"}, "default", "must run with the account previts-training")],
)  # fmt: skip
def test_steps_and_jobs_with_another_account_are_refused(
    node: Node, namespace: list[Document], labels: dict[str, str], account: str, message: str
):
    document = json.dumps(pod("other", "previts", labels, account))
    deadline = time.monotonic() + 30  # a policy takes effect some seconds after its creation
    said = ""
    while not said and time.monotonic() < deadline:
        try:
            node.kubectl("create", "--dry-run=server", "-f", "-", given=document)
        except NodeError as refusal:
            said = str(refusal)
    assert message in said


def test_an_image_is_found_by_its_digest_and_not_by_another(node: Node, namespace: list[Document]):
    names = json.loads((node.images / "names.json").read_text())
    digest = names["previts.test/probe:1"]
    right = pod("right", "previts", {}, "default")
    right["spec"]["containers"][0]["image"] = f"previts.test/probe@{digest}"
    wrong = copy.deepcopy(right)
    wrong["metadata"]["name"] = "wrong"
    wrong["spec"]["containers"][0]["image"] = f"previts.test/probe@sha256:{'0' * 64}"
    node.apply(right, wrong)
    try:
        node.kubectl("wait", "--for=condition=Ready", "pod/right", "-n", "previts", "--timeout=60s")
        form = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
        deadline = time.monotonic() + 30
        while "ImagePull" not in node.kubectl("get", "pod", "wrong", "-n", "previts", "-o", form):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        node.kubectl("delete", "pod", "right", "wrong", "-n", "previts", "--now")


def test_nothing_leaves_the_node(node: Node, one: str):
    """The only way out of the namespace ends at a process that answers in place of the whole internet."""
    mine = sandbox.run("ip", "-brief", "link")
    links = {line.split()[0].split("@")[0] for line in sandbox.run(*node.command("ip", "-brief", "link")).splitlines()}
    assert {"lo", "uplink", "cable"} <= links
    assert not {line.split()[0] for line in mine.splitlines()} & (links - {"lo"})
    assert sandbox.run(*node.command("ip", "route", "show", "default")).split()[2] == sandbox.OUTSIDE
    assert ask(node, one, "dial", "1", "8.8.8.8:443")["8.8.8.8:443"].startswith("error")


@pytest.mark.parametrize("moment", [1.0, 8.0])
def test_a_node_ends_with_the_process_that_started_it_and_leaves_nothing(built: None, moment: float):
    state = Path("/var/tmp/previts-node-killed")
    code = f"""import node, pathlib; node.Node(pathlib.Path({str(state)!r})).up(600)"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "machine")}
    owner = subprocess.Popen([sys.executable, "-c", code], env=here)
    deadline = time.monotonic() + 60
    while not (state / "logs").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(moment)
    assert processes_of(state)
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 30
    while processes_of(state):
        assert time.monotonic() < deadline, processes_of(state)
        time.sleep(0.2)
    killed = Node(state)
    assert not killed.is_up()
    killed.down()
    assert not state.exists()
    assert not list(sandbox.CGROUPS.glob(f"*/{state.name}"))
    assert str(state) not in Path("/proc/mounts").read_text()


def processes_of(state: Path) -> list[str]:
    """Return the commands of all processes that have the folder of a node in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{state}/" in command or f"{state} " in command:
                found.append(command)
    return [command for command in found if "import node" not in command]
