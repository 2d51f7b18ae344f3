"""The commands of docs/cluster.md for one machine, and a shell in the node that runs them as they stand.

The shell works in a copy of the files that the commands name, so the overlay of this checkout is not changed. Its
programs `make` and `kind` only check what they are asked for, because the node has no Docker.
"""

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import boot
import programs
from doc_pages import ROOT, blocks
from node import Node

import images

PAGE, HEADING = ROOT / "docs" / "cluster.md", "## One machine instead of Google"
READY = "rollout status deployment/mlflow"  # the command after which the servers of the overlay are ready
# Commands that the node cannot run, by their beginning, and the reason.
NOT_HERE = {
    "kind create cluster": "the node is the cluster",
    "kubectl -n kubeflow port-forward svc/ml-pipeline ": "Kubeflow Pipelines is not on the node",
}
# Commands that cannot end well here: their beginning, and the last thing that they can say on the node.
ENDS_WITH = {".venv/bin/python -m pipelines submit ": "the API of Kubeflow Pipelines does not answer"}
MAKE = """#!/bin/sh
for target in "$@"; do
    grep -q "^$target:" Makefile || { echo "the Makefile has no target $target"; exit 2; }
done
"""
KIND = """#!{python}
import json, sys
known, names = {known!r}, json.load(open({names!r}))
verbs, asked = sys.argv[1:3], ["docker.io/" + name for name in sys.argv[3:]]
if verbs != ["load", "docker-image"] or not asked or (wrong := [name for name in asked if name not in known]):
    sys.exit(f"kind does not know {{sys.argv[1:]}}; the images of the manifests are {{known}}")
print("loaded:", *[name for name in asked if name in names])
print("not built:", *[name for name in asked if name not in names])
"""


def commands() -> list[str]:
    """Return the commands of the section, in order. A command may have several lines."""
    lines = PAGE.read_text().splitlines()
    first = lines.index(HEADING) + 1
    last = next(number for number, line in enumerate(lines, 1) if number > first and line.startswith("## "))
    found = []
    for block in blocks():
        if block.page == PAGE and first < block.line < last and block.info.startswith("sh"):
            whole = ""
            for line in block.text.splitlines():
                whole += f"{line}\n"
                if (
                    not line.endswith("\\")
                    and subprocess.run(["bash", "-n", "-c", whole], capture_output=True).returncode == 0
                ):
                    found.append(whole.strip())
                    whole = ""
            assert not whole, f"{block.place}: not a whole command: {whole}"
    return found


def reason(command: str, table: dict[str, str]) -> str:
    """Return what a table has for a command, or ""."""
    return next((value for start, value in table.items() if command.startswith(start)), "")


class Shell:
    """A bash in the node that keeps variables and background processes between commands.

    Args:
        node: The node.
        place: The folder in which it starts.
        environment: Variables for it.
    """

    def __init__(self, node: Node, place: Path, environment: dict[str, str]) -> None:
        variables = [f"{name}={value}" for name, value in environment.items()]
        self.process = subprocess.Popen(
            node.command("env", f"--chdir={place}", *variables, "bash", "-o", "pipefail"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def run(self, command: str, seconds: float = 700) -> tuple[int, str]:
        """Run a command, and return its exit status and its output.

        Raises:
            queue.Empty: It said nothing for this time.
        """
        assert self.process.stdin is not None
        end = uuid.uuid4().hex
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\necho {end} $?\n")
        self.process.stdin.flush()
        said = ""
        while end not in (line := self.lines.get(timeout=seconds)):
            said += line
        before, _, status = line.partition(end)
        return int(status), said + before

    def close(self) -> None:
        """End the shell and its background processes."""
        os.killpg(self.process.pid, 9)
        self.process.wait()


@dataclass
class Runbook:
    """The commands, those that were run, and the shell.

    Attributes:
        shell: The shell that runs them.
        place: The folder in which it works.
        said: Exit status and output of each command so far.
        existing: Names of the secrets that the namespace had before.
    """

    shell: Shell
    place: Path
    existing: set[str]
    said: dict[str, tuple[int, str]] = field(default_factory=dict)

    def run(self, until: str = "") -> None:
        """Run the next commands, up to the first one that contains a text, or all.

        Raises:
            AssertionError: A command failed, or ended otherwise than `ENDS_WITH` says; with its output.
        """
        for command in commands():
            if any(until and until in known for known in self.said):
                return
            if command in self.said or reason(command, NOT_HERE):
                continue
            status, output = self.said[command] = self.shell.run(command)
            if expected := reason(command, ENDS_WITH):
                assert status != 0, f"{command}\n{output}"
                assert expected in output, f"{command}\n{output}"
                continue
            # A node that was up before has the secrets, and its servers were started with them.
            secret = re.search(r"create secret generic (\S+)", command)
            known = secret is not None and secret[1] in self.existing and "already exists" in output
            assert status == 0 or known, f"{command}\n{output[-6000:]}"


def start(node: Node, place: Path) -> Runbook:
    """Return the runbook with a shell in a new folder."""
    (place / "bin").mkdir()
    (place / ".venv" / "bin").mkdir(parents=True)
    shutil.copytree(ROOT / "k8s", place / "k8s")
    shutil.copy(ROOT / "Makefile", place)
    boot.local_operator(place / "k8s" / "operator")
    settings = place / "k8s" / "overlays" / "local" / "settings.yaml"
    # Another address than the one of the node, which only the command of the runbook can set right.
    settings.write_text(re.sub(r"control-plane: \S+", "control-plane: 192.0.2.1/32", settings.read_text()))
    kind = KIND.format(
        python=sys.executable, known=sorted(images.NAMES.values()), names=str(node.images / "names.json")
    )
    texts = {
        "bin/make": MAKE,
        "bin/kind": kind,
        ".venv/bin/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        ".venv/bin/previts": f'#!/bin/sh\nexec "{sys.executable}" -m previts "$@"\n',
    }
    for name, text in texts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    environment = {
        "PATH": f"{place}/bin:{programs.path('kubectl').parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(node.kubeconfig),
        "PYTHONPATH": str(ROOT),
        "PREVITS_WORKERS": str(os.cpu_count() or 1),
    }
    listed = json.loads(node.kubectl("get", "secrets", "-n", "previts", "-o", "json"))["items"]
    return Runbook(Shell(node, place, environment), place, {item["metadata"]["name"] for item in listed})
