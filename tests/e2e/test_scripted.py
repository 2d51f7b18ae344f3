"""The end-to-end test itself, on an API whose runs go as given and leave results that are written here."""

import inspect
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import metadata
import outputs
import pytest
import scenarios
from backend import PACKAGE, Backend, open_backend
from kfp_api import KfpApi, picture

from pipelines import follow
from previts import stages
from previts.runs import check
from previts.storage import csv_text, files, folders

ROWS = ["1/vgg/moco", "1/vgg/previts"]
COLUMNS = ("row", "metric", "value", "paper", "unit", "benchmark", "status", "cause", "items", "chance", "seeds")
COLUMNS += ("source",)
LATE = ("checkpoints", "results", "report")  # stages that a run has not reached when it is terminated


def write_results(root: str, stages: tuple[str, ...] = outputs.STAGES, value: float = 50.0, made: str = "") -> None:
    """Write what a run leaves: a folder for each stage that is not there, for each row for checkpoints."""
    rows = list(ROWS)
    for stage in stages:
        for row in rows if stage == "checkpoints" else [""]:
            uri = folders.address(root, stage, stage, {"row": row})
            if folders.is_committed(uri):
                continue
            counts = {name: 6 for name in outputs.COUNTS.get(stage, ())}
            if stage == "report":
                cells = ["voc07/map", value, 71.5, "percent", "voc07", "ok", "", 90, 5.0, 1, "items"]
                text = csv_text.to_csv(COLUMNS, [[row, *cells] for row in rows])
                files.write_bytes(files.join(uri, "report.csv"), text.encode())
                files.write_bytes(files.join(uri, "report.md"), b"| row |")
                files.write_bytes(files.join(root, "report.html"), " ".join(rows).encode())
            folders.commit(uri, {"row": row}, counts=counts, info={"row": row, "made": made} if row else {"made": made})


def pictures_of(backend: Backend, *before: dict[str, Any], state: str = "SUCCEEDED") -> list[dict[str, Any]]:
    states = backend.expected_states(backend.parameters["rows"])
    return [*before, picture(state, *((step, one) for step, found in states.items() for one in found))]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stages, "world", lambda root: files.join(root, "world"))  # it takes a minute
    served = KfpApi()
    yield served
    served.close()


@pytest.fixture
def backend(api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The backend, on which each new run leaves all results."""
    opened = open_backend(
        {
            "KF_PIPELINES_ENDPOINT": api.address,
            "PREVITS_E2E_ROOT": str(tmp_path / "bucket"),
            "PREVITS_E2E_PARAMETERS": f"'rows={json.dumps(ROWS)}' 'sizes={{\"cpu\": \"500m\"}}'",
        },
        tmp_path,
    )
    api.uploaded = opened.pipeline
    api.created = lambda run: write_results(run["runtime_config"]["parameters"]["root"])
    return opened


@pytest.fixture
def expected(tmp_path: Path) -> str:
    write_results(str(tmp_path / "here"))
    return str(tmp_path / "here")


def test_the_committed_pipeline_is_uploaded_and_run_with_the_given_parameters(
    api: KfpApi, backend: Backend, expected: str
):
    assert PACKAGE.read_bytes() in api.uploads[0]
    api.pictures = [pictures_of(backend, picture("PENDING"), picture("RUNNING", ("check-run", "RUNNING")))]
    run_id, root = scenarios.run_once(backend, "first", expected, {})
    assert (run_id, root) == ("r1", backend.place("first"))
    (run,) = api.runs
    assert run["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert run["service_account"] == "previts-steps"
    given = run["runtime_config"]["parameters"]
    assert given["crawl"] == files.join(backend.root, "crawls", "world", "crawls")
    assert (given["profile"], given["rows"], given["sizes"]) == ("demo", ROWS, {"cpu": "500m"})


def test_the_first_step_would_accept_the_parameters(backend: Backend):
    names = set(inspect.signature(check.check_choices).parameters)
    given = {name: value for name, value in backend.parameters.items() if name in names}
    check.check_choices(**given, launcher="local", processes=1)
    check.check_choices(**given, launcher="pytorchjob", processes=1, job=backend.job)


def test_the_images_of_the_environment_replace_those_of_the_committed_pipeline(
    api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components._images.REGISTRY", "registry:5000/mine")
    opened = open_backend({"KF_PIPELINES_ENDPOINT": api.address, "PREVITS_E2E_ROOT": "s3://b"}, tmp_path)
    images = {item["container"]["image"] for item in opened.pipeline["deploymentSpec"]["executors"].values()}
    assert images == {f"registry:5000/mine/previts-{name}:0.2.0" for name in ("data", "train")}


def test_a_run_that_does_not_end_is_terminated(api: KfpApi, backend: Backend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.RUN_SECONDS", 0.1)
    api.pictures = [[picture("RUNNING", ("check-run", "RUNNING"))]]
    with pytest.raises(follow.RunFailedError, match=r"run r1 has not ended within \d+ s"):
        backend.finish(backend.start("first", backend.inputs(backend.place("first"))))
    assert api.removed == ["terminate r1"]


def test_a_step_that_is_missing_is_found(api: KfpApi, backend: Backend, expected: str):
    states = backend.expected_states(ROWS)
    api.pictures = [[picture("SUCCEEDED", *((step, "SUCCEEDED") for step in states))]]  # loops of one iteration
    with pytest.raises(AssertionError, match=r"states of download: \['SUCCEEDED'\], not \['SUCCEEDED', 'SUCCEEDED'\]"):
        scenarios.run_once(backend, "first", expected, {})


def test_other_numbers_and_other_counts_are_found(api: KfpApi, backend: Backend, tmp_path: Path):
    write_results(str(tmp_path / "there"), value=63.0)
    api.pictures = [pictures_of(backend)]
    with pytest.raises(AssertionError, match=r"1/vgg/moco voc07/map: 50\.0 and 63\.0 are 13 points apart"):
        scenarios.run_once(backend, "first", str(tmp_path / "there"), {})
    root = tmp_path / "more"
    write_results(str(root))
    folders.commit(folders.address(str(root), "tubes", "tubes", {"row": "2"}), {"row": "2"}, counts={"tubes": 1})
    with pytest.raises(AssertionError, match="counts of tubes: "):
        scenarios.check_results(str(root), str(tmp_path / "there"), ROWS)


def test_scores_may_differ_a_little_and_all_else_not(capsys: pytest.CaptureFixture[str]):
    name = "davis/j_mean"
    line = dict.fromkeys(COLUMNS, "") | {"row": "a", "metric": name, "value": "0.50", "unit": "fraction", "items": "90"}
    assert outputs.differences([line], [line]) == []
    assert outputs.differences([line], [line | {"value": "0.53"}]) == []
    assert f"0 of 1 numbers are equal; a {name}: 0.50 and 0.53 are 3 points apart" in capsys.readouterr().out
    assert outputs.differences([line], [line | {"items": "91"}]) == [f"a {name}: items is '90', not '91'"]
    assert outputs.differences([line], [line | {"value": ""}]) == [f"a {name}: value is '0.50', not ''"]
    assert outputs.differences([line], []) == [f"a {name} is in one report only"]


def test_pytorchjobs_train_one_row(api: KfpApi, backend: Backend, expected: str, capsys: pytest.CaptureFixture[str]):
    states = backend.expected_states(ROWS[1:])
    api.pictures = [[picture("SUCCEEDED", *((step, one) for step, found in states.items() for one in found))]]
    scenarios.run_job(backend, expected)
    given = api.runs[0]["runtime_config"]["parameters"]
    assert (given["rows"], given["launcher"]) == (ROWS[1:], "pytorchjob")
    assert "no kubeconfig was found: whether a PyTorchJob trained is not checked" in capsys.readouterr().err


def test_a_schedule_that_makes_nothing_passes_and_is_deleted(api: KfpApi, backend: Backend):
    root = backend.place("first")
    write_results(root)
    api.pictures = [pictures_of(backend)]
    scenarios.run_on_schedule(backend, root)
    (schedule,) = api.schedules
    assert schedule["trigger"]["cron_schedule"]["cron"] == scenarios.EVERY_MINUTE
    assert schedule["runtime_config"]["parameters"]["root"] == root
    assert api.removed == ["disable s1", "delete recurringruns s1"]


def test_a_scheduled_run_that_trains_again_is_found(api: KfpApi, backend: Backend):
    root = backend.place("first")
    write_results(root)
    api.pictures = [pictures_of(backend)]

    def train_again(run: dict[str, Any]) -> None:
        files.delete_folder(files.join(root, "checkpoints"))
        write_results(root, made="again")

    api.created = train_again
    with pytest.raises(AssertionError, match=r"a run with nothing new made results: \['checkpoints/"):
        scenarios.run_on_schedule(backend, root)
    assert api.removed[-1] == "delete recurringruns s1"


def test_a_schedule_that_starts_no_run_is_named(api: KfpApi, backend: Backend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scenarios, "FIRST_RUN_SECONDS", 0.1)
    with pytest.raises(AssertionError, match="the schedule s1 has started no run within 0 s"):
        scenarios.run_on_schedule(backend, backend.place("first"))
    assert api.removed == ["delete recurringruns s1"]


def stopped(api: KfpApi, backend: Backend, end: str) -> None:
    """Let a first run begin a training and end when it is terminated, and a second one make all."""
    early = tuple(stage for stage in outputs.STAGES if stage not in LATE)

    def begin(run: dict[str, Any]) -> None:
        root = run["runtime_config"]["parameters"]["root"]
        write_results(root, early if run["run_id"] == "r1" else outputs.STAGES, made=run["run_id"])
        if run["run_id"] == "r1":
            files.write_bytes(files.join(root, "checkpoints", "resnet18-1", "output.lease"), b"{}")

    training = picture("RUNNING", ("index", "SUCCEEDED"), ("pretrain", "RUNNING"))
    api.created = begin
    api.pictures = [[picture("RUNNING", ("index", "RUNNING")), training, picture(end)], pictures_of(backend)]


@pytest.mark.parametrize("end", ["FAILED", "CANCELED"])
def test_a_terminated_run_that_is_resumed_passes(api: KfpApi, backend: Backend, expected: str, end: str):
    stopped(api, backend, end)
    scenarios.stop_and_repeat(backend, expected)
    assert api.removed == ["terminate r1"]
    first, second = (run["runtime_config"]["parameters"] for run in api.runs)
    assert first == second


def test_a_terminated_run_that_succeeds_or_is_repeated_is_found(api: KfpApi, backend: Backend, expected: str):
    stopped(api, backend, "SUCCEEDED")
    with pytest.raises(AssertionError, match="the terminated run r1 ended as SUCCEEDED"):
        scenarios.stop_and_repeat(backend, expected)


def test_a_resumed_run_that_makes_results_again_is_found(api: KfpApi, backend: Backend, expected: str):
    stopped(api, backend, "FAILED")
    begin = api.created

    def fetch_again(run: dict[str, Any]) -> None:
        if run["run_id"] == "r2":
            files.delete_folder(files.join(backend.place("stopped"), "videos"))
        begin(run)

    api.created = fetch_again
    with pytest.raises(AssertionError, match=r"made again what the terminated run had finished: \['videos/"):
        scenarios.stop_and_repeat(backend, expected)


def served(methods: dict[str, Any]) -> tuple[Any, str]:
    """Start a gRPC server that gives each method one answer; return it and its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, context, answer=answer: answer,
            request_deserializer=metadata.TYPES[f"{name}Request"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, answer in methods.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(metadata.SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def test_the_artifacts_of_a_run_are_read_and_checked(tmp_path: Path):
    page, note = tmp_path / "page", tmp_path / "summary"
    page.write_text("<html></html>")
    note.write_text("### videos")
    kinds = {1: "system.Metrics", 2: "system.HTML", 3: "system.Markdown"}
    made = [(1, "metrics", "minio://b/metrics"), (2, "page", str(page)), (3, "summary", f"{note}?endpoint=x")]
    session = json.dumps({"Provider": "minio", "Params": {"endpoint": "seaweedfs.kubeflow:9000"}})
    types, values = metadata.TYPES, {"display_name": "", "store_session_info": session}
    items = []
    for kind, name, uri in made:
        properties = [{"key": key, "value": {"string_value": value or name}} for key, value in values.items()]
        properties += [{"key": "videos", "value": {"double_value": 6.0}}] if kind == 1 else []
        items.append(types["Artifact"](id=kind, type_id=kind, uri=uri, custom_properties=properties))
    server, address = served(
        {
            "GetContextByTypeAndName": types["GetContextByTypeAndNameResponse"](context={"id": 7}),
            "GetArtifactTypes": types["GetArtifactTypesResponse"](
                artifact_types=[{"id": number, "name": name} for number, name in kinds.items()]
            ),
            "GetArtifactsByContext": types["GetArtifactsByContextResponse"](artifacts=items),
        }
    )
    found = metadata.artifacts(address, "r1")
    server.stop(None)
    assert [(item.name, item.type) for item in found] == [(name, kinds[kind]) for kind, name, _ in made]
    assert found[0].properties == {"videos": 6.0}
    assert [item.fault("") for item in found] == ["", "", ""]
    page.write_text("<html>")
    note.unlink()
    assert "is no complete system.HTML" in found[1].fault("")
    assert "it was written through seaweedfs.kubeflow:9000: forward the port" in found[2].fault("")


def test_a_file_is_read_from_the_server_of_the_pipeline_root():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path.partition("?")[0], self.headers["Authorization"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok" if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://minio:s/e@c:r+t@127.0.0.1:{server.server_port}"
        assert metadata.read("minio://mlpipeline/v2/artifacts/a/page", address) == b"ok"
        server.shutdown()
    path, signature = asked[-1]
    assert path == "/mlpipeline/v2/artifacts/a/page"
    assert "Credential=minio/" in signature


def test_the_declared_artifacts_are_those_of_the_components(backend: Backend):
    declared = backend.artifacts()
    assert declared["evaluate"] == {"summary": "system.Markdown", "metrics": "system.Metrics"}
    assert declared["report"] == {"page": "system.HTML", "summary": "system.Markdown"}
    assert declared["check-run"] == {}
