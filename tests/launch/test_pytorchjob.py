"""The PyTorchJob of an app, compared with the schema of the custom resource."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchx.specs import AppDef, Resource, Role

from previts import origin
from previts.errors import InputError
from previts.launch.app import training_app
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import build_manifest, job_name, spec_hash

CRD = Path(__file__).parents[1] / "data" / "pytorchjobs.kubeflow.org.yaml"
IMAGE = "registry/previts-train:1"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    document = yaml.load(CRD.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def faults(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Return where a value violates a structural schema, including unknown fields, which a server would drop."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{path}: {value!r}"]
    if not isinstance(value, TYPES[schema["type"]]):
        return [f"{path}: {value!r} is no {schema['type']}"]
    if isinstance(value, list):
        return [fault for item in value for fault in faults(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or (path == "job.metadata"):
        return []
    found = [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        found += faults(item, known, f"{path}.{name}") if known else [f"{path}.{name} is unknown"]
    return found


def app(processes: int = 8, nodes: int = 2, gpus: int = 8, target: str = "s3://bucket/checkpoints/a-0123") -> AppDef:
    arguments = ["--row", "1/vgg/previts"]
    return training_app("pretrain", processes, arguments, nodes=nodes, image=IMAGE, gpus=gpus, target=target)


EVERYTHING = JobOptions(
    namespace="team",
    service_account="trainer",
    resources={"requests": {"cpu": "48", "memory": "400Gi"}, "limits": {"memory": "600Gi"}},
    node_selector={"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"},
    affinity={"nodeAffinity": {}},
    env=[{"name": "NCCL_DEBUG", "value": "WARN"}],
    secrets=["bucket"],
    pull_secrets=["registry"],
    volumes=[{"name": "scratch", "emptyDir": {}}],
    volume_mounts=[{"name": "scratch", "mountPath": "/scratch"}],
    queue="research",
    priority_class="low",
)


@pytest.mark.parametrize("options", [JobOptions(), JobOptions(spot=True), EVERYTHING], ids=["plain", "spot", "all"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_is_valid_by_the_schema_of_the_resource(schema, options, nodes):
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1"}
    assert faults(build_manifest(app(nodes=nodes), options, owner), schema, "job") == []


def test_the_schema_check_finds_wrong_types_and_unknown_fields(schema):
    job = build_manifest(app(), JobOptions())
    job["spec"]["nprocPerNode"] = 8
    job["spec"]["runPolicy"]["ttlSeconds"] = 1
    assert sorted(faults(job, schema, "job")) == [
        "job.spec.nprocPerNode: 8 is no string",
        "job.spec.runPolicy.ttlSeconds is unknown",
    ]


def test_sixteen_gpus_are_a_master_and_a_worker_that_never_restart():
    job = build_manifest(app(), JobOptions())
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert {name: item["replicas"] for name, item in replicas.items()} == {"Master": 1, "Worker": 1}
    assert {item["restartPolicy"] for item in replicas.values()} == {"Never"}
    assert job["spec"]["nprocPerNode"] == "8"
    # Without backoffLimit: at that limit the operator deletes the pods, and with them the cause of the failure.
    policy = {"cleanPodPolicy": "Running", "ttlSecondsAfterFinished": 86400}
    assert job["spec"]["runPolicy"] == {**policy, "activeDeadlineSeconds": 604800}
    pod = replicas["Worker"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"
    assert container["command"] == ["python"]
    assert container["args"][:3] == ["-m", "torch.distributed.run", "--nproc-per-node=8"]
    assert "--standalone" not in container["args"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_one_node_is_only_a_master():
    job = build_manifest(app(nodes=1), JobOptions())
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert "--standalone" in job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["args"]


def test_a_spot_job_has_only_workers_and_a_fixed_size():
    job = build_manifest(app(), JobOptions(spot=True))
    elastic = job["spec"]["elasticPolicy"]
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    assert (
        elastic["minReplicas"]
        == elastic["maxReplicas"]
        == job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
        == 2
    )
    assert (elastic["rdzvBackend"], elastic["rdzvHost"]) == ("c10d", f"{job['metadata']['name']}-worker-0")
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "OnFailure"
    assert job["spec"]["runPolicy"]["backoffLimit"] == 3
    # One limit for the replicas that wait for the others, one for those that wait for the first replica.
    assert {item["key"] for item in elastic["rdzvConf"]} == {"join_timeout", "read_timeout"}


def test_only_spot_jobs_tolerate_spot_nodes():
    for spot in (False, True):
        job = build_manifest(app(), JobOptions(spot=spot))
        pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
        assert ("cloud.google.com/gke-spot" in [item["key"] for item in pod["tolerations"]]) == spot


def test_the_manifest_contains_the_options():
    job = build_manifest(app(), EVERYTHING)
    assert job["metadata"]["namespace"] == "team"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("trainer", "low")
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}
    container = pod["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "48", "memory": "400Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "600Gi", "nvidia.com/gpu": "8"},
    }
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/dev/shm", "/scratch"]


def test_the_name_of_a_job_is_a_short_label_and_depends_only_on_its_target():
    name = job_name(app())
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert name.startswith("previts-pretrain-")
    assert name == job_name(app(processes=4, nodes=4))  # the number of processes does not change the folder
    assert name != job_name(app(target="s3://bucket/checkpoints/b-0123"))
    other = AppDef("9 Very.Long_name of an app that someone else wrote", roles=[Role("r", IMAGE)])
    assert len(job_name(other)) <= 40
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job_name(other))


def test_the_hash_depends_on_the_specification_and_not_on_the_ids_of_runs(monkeypatch):
    def of(options: JobOptions | None = None, **changes: Any) -> str:
        return spec_hash(build_manifest(app(**changes), options or JobOptions())["spec"])

    plain = of()
    monkeypatch.setenv("MLFLOW_RUN_ID", "another")
    assert of() == plain
    assert len({plain, of(JobOptions(shm="1Gi")), of(JobOptions(spot=True)), of(nodes=4), of(gpus=0)}) == 5


def test_the_environment_is_passed_on_without_secrets_and_settings_of_this_machine(monkeypatch):
    passed_on = {"MLFLOW_TRACKING_URI", "PREVITS_WORKERS", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}
    kept = {"MLFLOW_TRACKING_PASSWORD", "PREVITS_ENGINE_PID", "HOME_X", "AWS_SECRET_ACCESS_KEY"}
    for name in passed_on | kept:
        monkeypatch.setenv(name, "x")
    job = build_manifest(app(), JobOptions())
    env = {
        item["name"]
        for item in job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["env"]
    }
    assert passed_on <= env
    assert not env & kept


def test_a_job_knows_its_own_image_and_the_run_of_its_launcher(monkeypatch):
    monkeypatch.setenv(origin.IMAGE, "of the launcher")
    monkeypatch.setenv(origin.REVISION, "of the launcher")  # the image of the job has its own
    monkeypatch.setenv(origin.RUN, "run-1")
    job = build_manifest(app(), JobOptions())
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    env = {item["name"]: item["value"] for item in container["env"]}
    assert (env[origin.IMAGE], env[origin.RUN]) == (container["image"], "run-1")
    assert origin.REVISION not in env


def test_a_shared_memory_volume_of_the_options_replaces_the_default():
    options = JobOptions(
        volumes=[{"name": "dshm", "emptyDir": {}}], volume_mounts=[{"name": "dshm", "mountPath": "/dev/shm"}]
    )
    pod = build_manifest(app(), options)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["dshm"]


def test_an_app_without_an_image_or_with_two_roles_is_refused():
    with pytest.raises(InputError, match="needs a container image"):
        build_manifest(training_app("pretrain", 1, []), JobOptions())
    two = AppDef("two", roles=[Role("a", IMAGE, resource=Resource(1, 0, 1)), Role("b", IMAGE)])
    with pytest.raises(InputError, match="runs one role"):
        build_manifest(two, JobOptions())
