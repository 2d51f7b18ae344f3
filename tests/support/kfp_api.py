"""The API of Kubeflow Pipelines 2.17 (v2beta1) as an HTTP server, with runs that go as the test says.

It also answers requests for pods and their logs, as Kubernetes does, so that a kubeconfig can name it.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NOW = "2026-01-01T00:00:00Z"
BASE = "/apis/v2beta1/"
TYPES = {"STRING": str, "NUMBER_INTEGER": int, "LIST": list, "STRUCT": dict}
Document = dict[str, Any]


def refused(body: Document, pipeline: Document) -> bool:
    """Return whether the API would refuse the parameters: each must have its declared type, none may be missing."""
    declared = pipeline["root"]["inputDefinitions"]["parameters"]
    given = body["runtime_config"]["parameters"]
    fits = all(type(given[name]) is TYPES[spec["parameterType"]] for name, spec in declared.items() if name in given)
    needed = {name for name, spec in declared.items() if not spec.get("isOptional")}
    return not (fits and needed <= set(given) <= set(declared))


def picture(state: str, *steps: tuple[str, str], **more: Any) -> Document:
    """Return a run as the API shows it at one time.

    Args:
        state: State of the run.
        steps: Name and state of each step. As in a real run, the tasks also contain the DAGs and the drivers; none has
            an error or the name of a pod.
        more: Further fields of the run.
    """
    nodes = [("previts-full-x7k2p", state), ("root-driver", "SUCCEEDED"), ("root", state)] if steps else []
    for name, step_state in steps:
        nodes += [("iteration-item(0:0)", step_state)] if name == "download" else []
        nodes += [(f"{name}-driver", "SUCCEEDED"), (name, step_state), ("executor", step_state)]
    tasks = [
        {
            "run_id": "r1",
            "task_id": f"t{number}",
            "display_name": name,
            "create_time": NOW,
            "state": node_state,
            "child_tasks": [{"pod_name": f"previts-full-x7k2p-{number + 1}"}],
        }
        for number, (name, node_state) in enumerate(nodes)
    ]
    return {"state": state, "run_details": {"task_details": tasks}, **more}


class KfpApi:
    """The server.

    Attributes:
        pictures: What each run shows at each request, in order; the last one is repeated. A run is the next list.
        drops: How many of the next requests for a run get no answer, because the connection breaks.
        hangs: How many of the next requests for a run get no answer within two seconds.
        tokens: The authorisation of each request for a run.
        runs: The runs that were created.
        schedules: The recurring runs that exist.
        removed: What was disabled, terminated or deleted.
        uploads: The pipelines that were uploaded, as they are in the requests.
        created, terminated: Called with each run that is created or terminated.
        pods: The pods of the namespace.
        logs: The log of each pod.
    """

    def __init__(self) -> None:
        self.pictures: list[list[Document]] = []
        self.drops = self.hangs = 0
        self.tokens: list[str | None] = []
        self.runs: list[Document] = []
        self.schedules: list[Document] = []
        self.removed: list[str] = []
        self.uploads: list[bytes] = []
        self.created: Callable[[Document], None] = lambda run: None
        self.terminated: Callable[[Document], None] = lambda run: None
        self.pods: list[Document] = []
        self.logs: dict[str, str] = {}
        self.uploaded: Document = {}  # the document of the uploaded pipeline, for the check of parameters
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "GET" and re.search(r"/runs/\w+$", self.path) and api.drops + api.hangs:
                    if api.drops:
                        api.drops -= 1
                    else:
                        api.hangs -= 1
                        time.sleep(2)
                    self.close_connection = True
                    return
                if "/runs/" in self.path:
                    api.tokens.append(self.headers.get("authorization"))
                answer = api.answer(self.command, self.path, body)
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer or {}).encode())

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> Document | bytes | None:
        """Return the answer to a request, or None for 404."""
        path = path.split("?")[0]
        if path.startswith("/api/v1/namespaces/"):
            return self.logs[path.split("/")[-2]].encode() if path.endswith("/log") else {"items": self.pods}
        document = {} if path.endswith("/upload") else json.loads(body or "{}")
        match method, *path.removeprefix(BASE).replace(":", "/").split("/"):
            case "GET", "healthz":
                return {"multi_user": True}
            case "GET", "experiments":
                return {"experiments": [{"experiment_id": "e1", "display_name": "previts", "namespace": "previts"}]}
            case "POST", "pipelines", "upload":
                self.uploads.append(body)
                return {"pipeline_id": "p1", "display_name": "uploaded"}
            case "GET", "pipelines", "p1", "versions":
                return {"pipeline_versions": [{"pipeline_id": "p1", "pipeline_version_id": "v1"}]}
            case "POST", "runs" | "recurringruns" as kind:
                pipeline = document["pipeline_spec"]["pipeline_spec"] if "pipeline_spec" in document else self.uploaded
                if refused(document, pipeline):
                    return None
                return self._run(document) if kind == "runs" else self._schedule(document)
            case "GET", "runs":
                return {"runs": self.runs}
            case "GET", "runs", name:
                return self._shown(name)
            case "GET", "recurringruns":
                return {"recurringRuns": self.schedules}
            case "GET", "recurringruns", name:
                return next(item for item in self.schedules if item["recurring_run_id"] == name)
            case "POST", "runs", name, "terminate":
                self.removed.append(f"terminate {name}")
                self.terminated(self._found(name))
                return {}
            case ("POST", "recurringruns", name, "disable" as verb):
                self.removed.append(f"{verb} {name}")
                return {}
            case "DELETE", kind, name:
                self.removed.append(f"delete {kind} {name}")
                return {}
        return None

    def _run(self, document: Document) -> Document:
        run = {**document, "run_id": f"r{len(self.runs) + 1}", "created_at": NOW, "shown": 0}
        self.runs.append(run)
        self.created(run)
        return run

    def _schedule(self, document: Document) -> Document:
        made = {**document, "recurring_run_id": f"s{len(self.schedules) + 1}", "created_at": NOW}
        self.schedules.append(made)
        if self.pictures:
            self._run({**document, "recurring_run_id": made["recurring_run_id"]})
        return made

    def _found(self, name: str) -> Document:
        return next(run for run in self.runs if run["run_id"] == name)

    def _shown(self, name: str) -> Document:
        run = self._found(name)
        pictures = self.pictures[self.runs.index(run)] if self.pictures else [{}]
        shown = pictures[min(run["shown"], len(pictures) - 1)]
        run["shown"] += 1
        return {**run, **shown}

    def kubeconfig(self, folder: Path) -> str:
        """Write a kubeconfig that names this server, and return its path."""
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.address}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        return str(path)
