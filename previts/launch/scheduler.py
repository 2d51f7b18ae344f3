"""A torchx scheduler for PyTorchJobs: `torchx run -s pytorchjob -cfg image=...,namespace=... COMPONENT ...`.

It submits a job and does not wait for it, so the job has no lease and continues after the end of `torchx run`.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import yaml
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, Stream
from torchx.specs import AppDef, AppDryRunInfo, ReplicaStatus, Role, RoleStatus, runopts
from torchx.specs import AppState as State

from previts.errors import InputError
from previts.launch import conditions, diagnosis, options, submit
from previts.launch.cluster import Cluster, connect, log_time, with_retries
from previts.launch.options import JobOptions
from previts.launch.pod import inherit
from previts.launch.pytorchjob import Manifest, build_manifest

PHASES = {
    "Pending": State.PENDING,
    "Running": State.RUNNING,
    "Succeeded": State.SUCCEEDED,
    "Failed": State.FAILED,
}


class PyTorchJobScheduler(Scheduler[Mapping[str, Any]]):  # type: ignore[misc]
    """Runs an `AppDef` of one role as a PyTorchJob. The id of an app is `namespace:name`."""

    def __init__(self, session_name: str) -> None:
        super().__init__("pytorchjob", session_name)

    def _run_opts(self) -> runopts:
        """Declare every job option. Structured options are JSON text, because torchx has no type for them."""
        opts = runopts()
        kinds = options.option_types()
        for item in dataclasses.fields(JobOptions):
            kind = kinds[item.name]
            structured = kind in (dict, list)
            default = json.dumps(getattr(JobOptions(), item.name)) if structured else item.default
            opts.add(item.name, type_=str if structured else kind, help=item.metadata["help"], default=default)
        return opts

    def _submit_dryrun(self, app: AppDef, cfg: Mapping[str, Any]) -> AppDryRunInfo[Manifest]:
        chosen = read_cfg(cfg)
        image = chosen.image
        if image:
            app = replace(app, roles=[replace(role, image=image) for role in app.roles])
        return AppDryRunInfo(build_manifest(app, chosen), lambda job: str(yaml.safe_dump(job, sort_keys=False)))

    def schedule(self, dryrun_info: AppDryRunInfo[Manifest]) -> str:
        """Submit the job of a dry run. If the same job runs already, it counts as submitted."""
        job = dryrun_info.request
        cluster = connect(job["metadata"].get("namespace", ""))
        if owner := inherit(cluster).owner:
            job["metadata"]["ownerReferences"] = [dict(owner)]
        job["metadata"]["namespace"] = cluster.namespace
        submit.preflight(cluster, job)
        submit.submit(cluster, job)
        return f"{cluster.namespace}:{job['metadata']['name']}"

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """Return the state of a job and its replicas, or None if it does not exist."""
        cluster, name = _place(app_id)
        job = with_retries(lambda: cluster.get(name))
        if job is None:
            return None
        pods = with_retries(lambda: cluster.pods(name))
        condition = conditions.condition(job)
        specs = job["spec"]["pytorchReplicaSpecs"]
        replicas = sum(spec.get("replicas", 1) for spec in specs.values())
        container = next(iter(specs.values()))["template"]["spec"]["containers"][0]
        role = Role(
            name=_role_of(name), image=container["image"], num_replicas=replicas, args=container.get("args", [])
        )
        names = diagnosis.replicas(job)
        statuses = [
            ReplicaStatus(
                id=names.index(pod["metadata"]["name"]),
                state=PHASES.get(pod.get("status", {}).get("phase", ""), State.UNKNOWN),
                role=role.name,
                hostname=pod.get("status", {}).get("podIP", ""),
            )
            for pod in pods
            if pod["metadata"]["name"] in names
        ]
        message = str(condition.get("message", ""))
        if conditions.name(job) == "Failed":
            finding = diagnosis.diagnose(job, pods, cluster.events(name))
            message = f"{finding.where} {finding.what}"
        return DescribeAppResponse(
            app_id=app_id,
            state=conditions.state(job),
            msg=message,
            roles=[role],
            roles_statuses=[RoleStatus(role.name, sorted(statuses, key=lambda status: status.id))],
        )

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:
        """Return the jobs that previts created, in the namespace of `cfg` or of the kubeconfig."""
        cluster = connect(str((cfg or {}).get("namespace") or ""))
        jobs, _ = with_retries(cluster.jobs)
        return [
            ListAppResponse(
                app_id=f"{cluster.namespace}:{job['metadata']['name']}",
                state=conditions.state(job),
                name=job["metadata"]["name"],
            )
            for job in jobs
        ]

    def log_iter(
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Stream | None = None,
    ) -> Iterable[str]:
        """Yield the lines of one replica's log, with line ends. `streams` has no effect: the log contains both."""
        cluster, name = _place(app_id)
        job = with_retries(lambda: cluster.get(name))
        if job is None:
            raise InputError(f"there is no PyTorchJob {app_id}; `torchx list -s pytorchjob` lists the existing ones")
        names = diagnosis.replicas(job)
        if not 0 <= k < len(names):
            raise InputError(f"PyTorchJob {app_id} has no replica {k}; choose one from 0 to {len(names) - 1}")
        for stamp, text in cluster.log(names[k], follow=should_tail):
            if stamp and since and log_time(stamp) < _aware(since):
                continue
            if stamp and until and log_time(stamp) > _aware(until):
                continue
            if regex is None or re.search(regex, text):
                yield text + "\n"

    def _cancel_existing(self, app_id: str) -> None:
        cluster, name = _place(app_id)
        with_retries(lambda: cluster.delete(name))


def read_cfg(cfg: Mapping[str, Any]) -> JobOptions:
    """Return the job options of a torchx configuration."""
    kinds = options.option_types()
    values = {name: value for name, value in cfg.items() if name in kinds and value is not None}
    return JobOptions(
        **{
            name: options.parse(name, value) if kinds[name] in (dict, list) and isinstance(value, str) else value
            for name, value in values.items()
        }
    )


def _place(app_id: str) -> tuple[Cluster, str]:
    """Return the cluster and the name of the job from an app's id."""
    namespace, _, name = app_id.rpartition(":")
    return connect(namespace), name


def _role_of(name: str) -> str:
    """Return the name of a role from the name of its job, because a PyTorchJob does not store it."""
    return name.rpartition("-")[0] or name


def _aware(moment: datetime) -> datetime:
    """Return a time with a time zone, by default that of this machine."""
    return moment if moment.tzinfo else moment.astimezone()
