"""Runs on a cluster: a pipeline compiled, its parameters checked, and handed to the API of Kubeflow Pipelines."""

import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import tyro
from fsspec.utils import get_protocol

from components import _images
from previts import flow, paper
from previts.errors import InputError
from previts.fields import split_setting

TYPES = {"LIST": list, "STRUCT": dict, "NUMBER_INTEGER": int}
KINDS = {list: "a JSON list", dict: "a JSON object", int: "a whole number"}
KUBEFLOW = "kubeflow"  # the namespace of the API


def submit(
    parameters: tyro.conf.Positional[tuple[str, ...]],
    run: str = "previts",
    experiment: str = "previts",
    host: str = "",
    namespace: str = "previts",
    service_account: str = "previts-steps",
    production: bool = True,
) -> None:
    """Run the whole flow on a cluster.

    Args:
        parameters: Those of the pipeline, as name=value: crawl, root and data are needed; lists are JSON.
        run: Name of the run.
        experiment: Name of the experiment that holds it.
        host: Address of the API, else of the kfp command line's context or KF_PIPELINES_ENDPOINT.
        namespace: Namespace of the run.
        service_account: Account of the run's pods.
        production: Refuse images that are not named by a digest.
    """
    from pipelines.previts_full import previts_full

    values = _values(previts_full, parameters)
    _check_choices(values)
    package = _compiled(previts_full, production)
    try:
        result = _client(host, namespace).create_run_from_pipeline_package(
            package, values, run, experiment, namespace, enable_caching=False, service_account=service_account
        )
    finally:
        os.remove(package)
    print(result.run_id)


def schedule(
    parameters: tyro.conf.Positional[tuple[str, ...]],
    cron: str = "0 0 3 * * *",
    name: str = "previts",
    experiment: str = "previts",
    host: str = "",
    namespace: str = "previts",
    service_account: str = "previts-steps",
    production: bool = True,
) -> None:
    """Run the whole flow again and again, each time on the next manifest below a prefix that was not processed yet.

    Args:
        parameters: Those of the pipeline, as name=value: crawls (the prefix), root and data are needed; lists are JSON.
        cron: When: second, minute, hour, day, month, weekday.
        name: Name of the schedule.
        experiment: Name of the experiment that holds it.
        host: Address of the API, else of the kfp command line's context or KF_PIPELINES_ENDPOINT.
        namespace: Namespace of the runs.
        service_account: Account of the runs' pods.
        production: Refuse images that are not named by a digest.
    """
    from pipelines.previts_full import previts_scheduled

    values = _values(previts_scheduled, parameters)
    _check_choices(values)
    package = _compiled(previts_scheduled, production)
    try:
        client = _client(host, namespace)
        group = client.create_experiment(experiment, namespace=namespace).experiment_id
        for known in client.list_recurring_runs(page_size=100, experiment_id=group).recurring_runs or []:
            if known.display_name == name:
                raise InputError(
                    f"there is a schedule {name!r} already, and two would take the same manifests; end it by "
                    f"`kfp recurring-run delete {known.recurring_run_id}`"
                )
        made = client.create_recurring_run(
            experiment_id=group,
            job_name=name,
            cron_expression=cron,
            max_concurrency=1,  # the next run must see this one's report
            no_catchup=True,
            params=values,
            pipeline_package_path=package,
            enable_caching=False,
            service_account=service_account,
        )
    finally:
        os.remove(package)
    print(made.recurring_run_id)


def check_images() -> None:
    """Raise an InputError if an image is named by a tag: what a tag means tomorrow is not what was tested."""
    if loose := [image for image in _images.IMAGES if "@sha256:" not in image]:
        raise InputError(
            f"{', '.join(loose)} {'has' if len(loose) == 1 else 'have'} a tag and no digest; take those that "
            "`make push` wrote (set -a; . images/pushed.env), or say --no-production on a cluster for trials"
        )


def _compiled(pipeline: Any, production: bool) -> str:
    """Return the path of a pipeline's package, a temporary file."""
    from kfp import compiler

    if production:
        check_images()
    number, path = tempfile.mkstemp(suffix=".yaml")
    os.close(number)
    compiler.Compiler().compile(pipeline, path)
    return path


def _values(pipeline: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return a pipeline's parameters from texts such as parts=32 or 'rows=["6a"]', by the types that it declares.

    Raises:
        InputError: For a parameter that it does not have, a value that is none, or one that lacks.
    """
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    known = pipeline.pipeline_spec.root.input_definitions.parameters
    values: dict[str, Any] = {}
    for text in texts:
        name, value = split_setting(text, known, "parameter")
        kind = TYPES.get(ParameterType.ParameterTypeEnum.Name(known[name].parameter_type))
        values[name] = _parsed(name, value, kind) if kind else value
    if missing := [name for name, spec in known.items() if not spec.is_optional and name not in values]:
        raise InputError(f"a run needs {', '.join(f'{name}=...' for name in sorted(missing))}")
    return values


def _parsed(name: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if type(value) is not kind:
        raise InputError(f"{name} must be {KINDS[kind]}, got {text!r}")
    return value


def _check_choices(values: dict[str, Any]) -> None:
    """Refuse what the run's own first step would refuse, before anything is started for it."""
    flow.distinct_rows(
        values.get("rows", paper.ARMS),
        values.get("benchmarks", ()),
        values.get("profile", "paper"),
        values.get("set", ()),
        values.get("parts", 8),
        values.get("launcher", _images.LAUNCHER),
        values.get("processes", 1),
        values.get("job", ()),
    )
    for name in ("crawl", "crawls", "root", "data"):
        if get_protocol(values.get(name, "gs://")) == "file":
            raise InputError(
                f"{name} must be where every pod of a cluster can read it (gs:// or s3://), got {values[name]}"
            )


def _client(host: str, namespace: str) -> Any:
    import kfp

    token = None
    if path := os.environ.get(kfp.client.KF_PIPELINES_SA_TOKEN_ENV):  # else the library reads it in a pod only
        with open(path) as file:
            token = file.read().strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a future version of the library will look like
        # Where no host is named, the library takes the namespace of the runs for that of the API.
        named = host or os.environ.get(kfp.client.client.KF_PIPELINES_ENDPOINT_ENV)
        return kfp.Client(host or None, namespace=namespace if named else KUBEFLOW, existing_token=token)
