"""The bucket and MLflow of `overlays/local`, for programs of this machine that run in the network of the node."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import sandbox
from manifests import ROOT
from node import Node

BUCKET = "s3://previts"
COPY = """
import sys
import fsspec
store = fsspec.filesystem("s3")
getattr(store, sys.argv[1])(sys.argv[2], sys.argv[3], recursive=True)
"""
ASK = """
import sys
import urllib.request
headers = {"Content-Type": "application/json", "Host": "mlflow.previts:5000"}  # MLflow refuses other names
asked = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), headers)
print(urllib.request.urlopen(asked, timeout=60).read().decode())
"""


class Bucket:
    """The bucket, as this machine reaches it. The node may connect to every pod."""

    def __init__(self, node: Node) -> None:
        self.node = node
        keys = json.loads(node.kubectl("get", "secret", "bucket", "-n", "previts", "-o", "json"))["data"]
        self.environment = {name: base64.b64decode(value).decode() for name, value in keys.items()}
        self.environment |= {"AWS_ENDPOINT_URL": self.address("bucket"), "AWS_DEFAULT_REGION": "us-east-1"}

    def address(self, service: str) -> str:
        """Return the URL of a service of the namespace `previts`."""
        form = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"
        return f"http://{self.node.kubectl('get', 'service', service, '-n', 'previts', '-o', form)}"

    def run(self, *command: str, seconds: float = 600) -> str:
        """Run a command of this machine in the network of the node, with the bucket's address and keys.

        Raises:
            RuntimeError: It failed; with its output.
        """
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return sandbox.run(*self.node.command("env", f"--chdir={ROOT}", *given, *command), timeout=seconds)

    def put(self, folder: Path, uri: str) -> None:
        """Copy the content of a folder to a prefix of the bucket."""
        self.run(sys.executable, "-c", COPY, "put", f"{folder}/", f"{uri}/")

    def get(self, uri: str, folder: Path) -> None:
        """Copy the content of a prefix of the bucket to a new folder."""
        self.run(sys.executable, "-c", COPY, "get", f"{uri}/", f"{folder}/")

    def mlflow_runs(self) -> list[dict[str, Any]]:
        """Return the runs of all experiments of MLflow on the node."""
        api = f"{self.address('mlflow')}/api/2.0/mlflow"
        listed = self.run(sys.executable, "-c", ASK, f"{api}/experiments/search", json.dumps({"max_results": 100}))
        ids = [item["experiment_id"] for item in json.loads(listed).get("experiments", [])]
        asked = json.dumps({"experiment_ids": ids, "max_results": 1000})
        return list(json.loads(self.run(sys.executable, "-c", ASK, f"{api}/runs/search", asked)).get("runs", []))
