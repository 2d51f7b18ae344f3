"""What the steps of the compiled pipelines request from a cluster."""

import re
from pathlib import Path

import yaml
from compiled_steps import PIPELINES, steps

from pipelines.cluster import IMAGE_NOTE, STEP_LABEL
from previts import origin
from previts.runs import sizes

ROOT = Path(__file__).parents[2]


def test_every_step_has_a_label_a_user_a_deadline_and_a_scratch_folder():
    for name, step in steps().items():
        assert step["podMetadata"]["labels"][STEP_LABEL], name
        assert step["securityContext"] == {"runAsGroup": "65532", "runAsNonRoot": True, "runAsUser": "65532"}, name
        assert int(step["activeDeadlineSeconds"]) > 0
        mounts = {mount["mountPath"]: mount for mount in step["emptyDirMounts"]}
        assert mounts["/tmp"]["sizeLimit"]
        assert ("/dev/shm" in mounts) == ("nodeSelector" in step), name
    labels = [step["podMetadata"]["labels"][STEP_LABEL] for step in steps().values()]
    assert labels.count("download") == 1


def test_every_step_knows_its_image_and_its_run_from_its_pod():
    for path in PIPELINES:
        pipeline, _ = yaml.safe_load_all(path.read_text())
        for name, executor in pipeline["deploymentSpec"]["executors"].items():
            step = steps()[name]
            fields = {item["name"]: item["fieldPath"] for item in step["fieldPathAsEnv"]}
            assert fields == {
                origin.IMAGE: f"metadata.annotations['{IMAGE_NOTE}']",
                origin.RUN: "metadata.labels['pipeline/runid']",  # KFP labels each pod of a run
            }
            assert step["podMetadata"]["annotations"][IMAGE_NOTE] == executor["container"]["image"], name
            assert "env" not in executor["container"] or origin.IMAGE not in str(executor["container"]["env"])


def test_the_images_know_the_revision_of_their_code():
    recipe = (ROOT / "images" / "Dockerfile").read_text()
    assert f"{origin.REVISION}=${{REVISION}}" in recipe.split("ARG REVISION")[1]
    assert "--build-arg REVISION=`git rev-parse HEAD`" in (ROOT / "Makefile").read_text()


def test_the_label_of_a_step_is_its_name_in_the_ui():
    for path in PIPELINES:
        pipeline, _ = yaml.safe_load_all(path.read_text())
        for item in [pipeline["root"], *pipeline["components"].values()]:
            for task in item.get("dag", {}).get("tasks", {}).values():
                if executor := pipeline["components"][task["componentRef"]["name"]].get("executorLabel"):
                    labels = steps()[executor]["podMetadata"]["labels"]
                    assert labels[STEP_LABEL] == task["taskInfo"]["name"]


def test_only_the_download_step_gets_the_rules_for_crawls():
    code = "".join((ROOT / "previts" / "ingest" / name).read_text() for name in ("sources.py", "url_guard.py"))
    read = set(re.findall(r'environ\.get\("(PREVITS_\w+)"', code))
    assert {"PREVITS_TRUSTED_HOSTS", "PREVITS_LOCAL_FILES"} <= read
    for name, step in steps().items():
        given = {key["envVar"] for item in step["configMapAsEnv"] for key in item["keyToEnv"]}
        assert (given & read) == (read if name == "exec-download" else set()), name


def test_no_step_is_cached_and_every_step_has_requests_and_limits():
    pipeline = yaml.safe_load((ROOT / "pipelines" / "previts_full.yaml").read_text().split("\n---\n")[0])
    tasks = [task for item in pipeline["components"].values() for task in item.get("dag", {}).get("tasks", {}).items()]
    tasks += pipeline["root"]["dag"]["tasks"].items()
    run = [
        (name, task) for name, task in tasks if "executorLabel" in pipeline["components"][task["componentRef"]["name"]]
    ]
    assert not [name for name, task in run if task["cachingOptions"].get("enableCache")]
    executors = pipeline["deploymentSpec"]["executors"].values()
    assert all(
        {"resourceCpuLimit", "resourceMemoryLimit", "resourceCpuRequest", "resourceMemoryRequest"}
        <= set(e["container"]["resources"])
        for e in executors
    )


def test_a_step_with_gpus_fits_the_smallest_node_with_a_gpu():
    script = (ROOT / "k8s" / "overlays" / "gke" / "cluster.sh").read_text()
    assert "pool l4 g2-standard-16 " in script
    pipeline = yaml.safe_load((ROOT / "pipelines" / "previts_full.yaml").read_text().split("\n---\n")[0])
    with_gpus = [name for name, item in pipeline["deploymentSpec"]["executors"].items() if "accelerator" in str(item)]
    assert {"exec-fit-saliency", "exec-saliency", "exec-pretrain", "exec-evaluate"} == set(with_gpus)
    paper = sizes.PROFILES["paper"]  # tests/pipelines/test_sizes.py has them by step
    assert float(paper.cpu) <= 15  # the node has 16 cores and 64 GiB; GKE keeps about 6 GiB
    assert all(float(size.removesuffix("Gi")) <= 57 for size in (paper.saliency_memory, paper.training_memory))
