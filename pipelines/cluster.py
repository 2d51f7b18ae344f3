"""What the steps ask of a cluster: resources, time, retries, identity, labels. On a laptop all of it is ignored.

Every verb finds what it finished before, so a step that is repeated, after a failure or a node that was taken, loses
little, and KFP's cache, which knows nothing of what became of a bucket, has nothing to add.
"""

from typing import Any

from kfp import kubernetes

NOBODY = 65532  # of the images
PAUSE_SECONDS = 60  # before a step is begun again, and each time twice as long
STEP_LABEL = "previts/step"  # the network policies of k8s/ go by it
# ConfigMap and secret of the namespace, each key where the cluster has it.
ENVIRONMENT = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
BUCKET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"


def place(
    task: Any,
    *,
    cpu: str = "1",
    memory: str = "2Gi",
    scratch: str = "2Gi",
    hours: int = 1,
    retries: int = 2,
    spot: bool = True,
) -> Any:
    """Say what a step needs, and return it.

    Args:
        task: A task of a DAG.
        cpu: Cores, requested and at most: a step starts as many processes as it may use cores.
        memory: The same.
        scratch: Room below /tmp, the one folder that a step may write to.
        hours: After which the step is ended.
        retries: How often it is begun again.
        spot: Whether it may run on nodes that are sold cheaply and taken back.
    """
    task.set_caching_options(False)
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
    if retries:
        # The longest duration is no pause: Argo counts it from the step's first start, begins nothing after it and ends
        # what was begun again before it. So it has room for every attempt and the pauses between them.
        pauses = sum(PAUSE_SECONDS * 2**number for number in range(retries))
        whole = (retries + 1) * hours * 3600 + pauses
        task.set_retry(retries, f"{PAUSE_SECONDS}s", backoff_factor=2.0, backoff_max_duration=f"{whole}s")
    kubernetes.set_timeout(task, hours * 3600)
    kubernetes.set_security_context(task, run_as_user=NOBODY, run_as_group=NOBODY, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=scratch)
    kubernetes.add_pod_label(task, STEP_LABEL, task.component_spec.name)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "previts")
    # An autoscaler that tidies up must not move a step, though it could be moved.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")
    if spot:
        kubernetes.add_toleration(
            task, key="cloud.google.com/gke-spot", operator="Equal", value="true", effect="NoSchedule"
        )
    kubernetes.use_config_map_as_env(task, "previts-steps", {name: name for name in ENVIRONMENT}, optional=True)
    kubernetes.use_secret_as_env(task, "bucket", {name: name for name in BUCKET_KEYS}, optional=True)
    return task


def with_gpus(task: Any, gpus: Any, nodes: Any) -> Any:
    """Give a step GPUs on nodes of some labels, and room to hand batches over in, and return it.

    Args:
        task: A task of a DAG.
        gpus: A parameter of the pipeline, how many; text, because KFP's driver reads no numbers here.
        nodes: Another, the labels.
    """
    task.register_pipeline_channels([gpus])  # else a loop around the task is not given the parameter
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
    kubernetes.add_node_selector_json(task, nodes)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="16Gi")
    return task


def by_own_token(task: Any) -> Any:
    """Let a step prove to Google who it is without the metadata server, which it may not reach; and return it."""
    kubernetes.use_config_map_as_volume(task, "previts-google", "/etc/previts", optional=True)
    kubernetes.use_config_map_as_env(task, "previts-google", {GOOGLE: GOOGLE}, optional=True)
    return task
