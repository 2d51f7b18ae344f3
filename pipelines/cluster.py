"""What a step requests from a cluster: resources, a deadline, retries, credentials and labels.

The embedded engine ignores these settings. Steps do not use KFP's cache, because it does not check whether the files in
the bucket still exist. Each verb finds its finished work itself, so another attempt repeats little.

KFP retries only steps that run for hours on nodes that the cloud may take away. Its retries cannot tell a lost pod from
wrong input, and the state of the run does not survive all of them (docs/cluster.md, Retries). What may pass inside a
step, such as an outage of the store, the step repeats itself (`components/_step.py`).
"""

from typing import Any

from kfp import kubernetes

from previts import origin

NOBODY = 65532  # user and group in the images
PAUSE_SECONDS = 10  # before the first retry; doubled before each further retry
STEP_LABEL = "previts/step"  # the network policies in k8s/ select pods by this label
# Facts about a pod that each output of its step records (`previts/origin.py`). KFP labels each pod with the id of its
# run. The image is in an annotation, so that the embedded engine, which uses no image, records none.
RUN_LABEL, IMAGE_NOTE = "pipeline/runid", "previts/image"
# Keys of a ConfigMap and a Secret of the namespace. Both may be missing.
ENVIRONMENT = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "PREVITS_SANDBOX")
# What a crawl may name besides public hosts, for the download step (see docs/your-videos.md, Crawls).
CRAWL_RULES = ("PREVITS_ALLOW_HTTP", "PREVITS_TRUSTED_HOSTS", "PREVITS_TRUSTED_STORES", "PREVITS_LOCAL_FILES")
BUCKET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES")
LAUNCHER_ACCOUNT = "/etc/previts-launcher"  # previts.launch.cluster looks for a token here


def place(
    task: Any,
    *,
    cpu: Any = "1",
    memory: Any = "2Gi",
    scratch: str = "2Gi",
    hours: int = 1,
    retries: int = 0,
    spot: bool = True,
) -> Any:
    """Set what a step requests from the cluster.

    Args:
        task: A task of a DAG.
        cpu: Cores, as request and as limit; a text, or a parameter of the DAG that is a text.
        memory: Memory, like `cpu`.
        scratch: Size limit of /tmp, the only folder to which a step can write.
        hours: Deadline of the step, with all its attempts, the pauses between them and the waits for a node.
        retries: Number of further attempts after the loss of a pod.
        spot: Whether a step with retries may run on spot nodes, which the cloud can preempt.

    Returns:
        The task.
    """
    task.set_caching_options(False)
    _register(task, [size for size in (cpu, memory) if not isinstance(size, str)])
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
    if retries:
        # Argo counts the maximum duration from the first start of the step. After it, Argo starts no further attempt
        # and ends one that is still running. So a step that reaches its deadline is not started again.
        task.set_retry(retries, f"{PAUSE_SECONDS}s", backoff_factor=2.0, backoff_max_duration=f"{hours * 3600}s")
    kubernetes.set_timeout(task, hours * 3600)
    kubernetes.set_security_context(task, run_as_user=NOBODY, run_as_group=NOBODY, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=scratch)
    # The label is the name of the component, which is also the name of the step in the UI.
    kubernetes.add_pod_label(task, STEP_LABEL, task.component_spec.name)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "previts")
    kubernetes.add_pod_annotation(task, IMAGE_NOTE, task.component_spec.implementation.container.image)
    kubernetes.use_field_path_as_env(task, origin.IMAGE, f"metadata.annotations['{IMAGE_NOTE}']")
    kubernetes.use_field_path_as_env(task, origin.RUN, f"metadata.labels['{RUN_LABEL}']")
    # The autoscaler must not evict a running step to free its node.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")
    if spot and retries:
        kubernetes.add_toleration(
            task, key="cloud.google.com/gke-spot", operator="Equal", value="true", effect="NoSchedule"
        )
    kubernetes.use_config_map_as_env(task, "previts-steps", {name: name for name in ENVIRONMENT}, optional=True)
    kubernetes.use_secret_as_env(task, "bucket", {name: name for name in BUCKET_KEYS}, optional=True)
    return task


def _register(task: Any, channels: list[Any]) -> None:
    """Make parameters of the DAG inputs of a task; without this, a loop around the task does not get them."""
    task.register_pipeline_channels(channels)


def with_gpus(task: Any, gpus: Any, nodes: Any) -> Any:
    """Request GPUs and shared memory for a step, and return its task.

    Args:
        task: A task of a DAG.
        gpus: The pipeline parameter with the number of GPUs. It is text, because KFP's driver reads no numbers here.
        nodes: The pipeline parameter with the labels of the nodes.
    """
    _register(task, [gpus])
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
    kubernetes.add_node_selector_json(task, nodes)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    # Loader processes pass batches through shared memory.
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="16Gi")
    return task


def with_crawl_rules(task: Any) -> Any:
    """Give a step the rules for the addresses of a crawl from the ConfigMap `previts-steps`, and return its task."""
    kubernetes.use_config_map_as_env(task, "previts-steps", {name: name for name in CRAWL_RULES}, optional=True)
    return task


def with_google_token(task: Any) -> Any:
    """Let a step authenticate to Google with a token that is valid for Google alone, and return its task.

    A step that cannot reach the metadata server needs this.
    """
    kubernetes.use_config_map_as_volume(task, "previts-google", "/etc/previts", optional=True)
    kubernetes.use_config_map_as_env(task, "previts-google", {name: name for name in GOOGLE}, optional=True)
    return task


def with_launcher_account(task: Any) -> Any:
    """Let a step start jobs with the rights of the account `previts-launcher`, and return its task.

    KFP has one account for all steps of a run, so the step gets the token of this account as a file.
    """
    kubernetes.use_secret_as_volume(task, "previts-launcher", LAUNCHER_ACCOUNT, optional=True)
    return task
