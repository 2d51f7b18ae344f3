"""Runs on a cluster: check the parameters, compile the pipeline and send it to the API of Kubeflow Pipelines."""

import contextlib
import functools
import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro
import yaml

from components import _images
from pipelines import follow
from previts.config import paper
from previts.config.fields import split_setting
from previts.errors import InputError
from previts.runs import check, sizes
from previts.storage import files

TYPES = {"LIST": list, "STRUCT": dict, "NUMBER_INTEGER": int}
KINDS = {list: "a JSON list of texts", dict: "a JSON object of texts", int: "a whole number"}
NUMBERS = ("seeds",)  # lists of whole numbers
FLAGS = ("production", "wait")  # options without a value
KUBEFLOW = "kubeflow"  # the namespace of the API
ANSWER_SECONDS = 60.0  # for one request; a forwarded port may accept it and lose it


def submit(
    parameters: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE ...")],
    *,
    run: str = "previts",
    experiment: str = "previts",
    host: str = "",
    namespace: str = "previts",
    service_account: str = "previts-steps",
    production: bool = True,
    wait: bool = False,
) -> None:
    """Run the whole pipeline on a cluster.

    Args:
        parameters: Parameters of the pipeline as name=value; crawl, root and data are required. Lists are JSON.
        run: Name of the run.
        experiment: Name of the experiment that contains the run.
        host: Address of the API. By default from KF_PIPELINES_ENDPOINT, or from the context of the kfp program.
        namespace: Namespace of the run.
        service_account: Service account of the run's pods.
        production: Refuse images without a digest.
        wait: Print each change of a step until the run ends, and fail with its cause if it does not succeed.
    """
    from pipelines.previts_full import previts_full

    values = _values(previts_full, parameters)
    _check_choices(values)
    with _compiled(previts_full, production) as package, answers():
        client = connect(host, namespace)
        result = client.create_run_from_pipeline_package(
            pipeline_file=package,
            arguments=values,
            run_name=run,
            experiment_name=experiment,
            namespace=namespace,
            enable_caching=False,
            service_account=service_account,
        )
        print(result.run_id, flush=True)
        if wait:
            with open(package) as file:
                steps = follow.step_names(next(yaml.safe_load_all(file)))
            follow.wait(client, result.run_id, steps, namespace)


def schedule(
    parameters: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE ...")],
    *,
    cron: str = "0 0 3 * * *",
    name: str = "previts",
    experiment: str = "previts",
    host: str = "",
    namespace: str = "previts",
    service_account: str = "previts-steps",
    production: bool = True,
) -> None:
    """Run the whole pipeline on a schedule. Each run only works on crawls that were added or changed since.

    Args:
        parameters: Parameters of the pipeline as name=value; crawl (a folder of crawls), root and data are required.
            Lists are JSON.
        cron: Times of the runs, in six fields: second, minute, hour, day, month, weekday.
        name: Name of the schedule.
        experiment: Name of the experiment that contains the schedule.
        host: Address of the API. By default from KF_PIPELINES_ENDPOINT, or from the context of the kfp program.
        namespace: Namespace of the runs.
        service_account: Service account of the runs' pods.
        production: Refuse images without a digest.
    """
    from pipelines.previts_full import previts_full

    values = _values(previts_full, parameters)
    _check_choices(values)
    with _compiled(previts_full, production) as package, answers():
        client = connect(host, namespace)
        group = client.create_experiment(experiment, namespace=namespace).experiment_id
        for known in client.list_recurring_runs(page_size=100, experiment_id=group).recurring_runs or []:
            if known.display_name == name:
                raise InputError(
                    f"a schedule {name!r} exists already, and two schedules would do the same work; delete it "
                    f"with `kfp recurring-run delete {known.recurring_run_id}`"
                )
        made = client.create_recurring_run(
            experiment_id=group,
            job_name=name,
            cron_expression=cron,
            max_concurrency=1,  # a second run would only wait for this one
            no_catchup=True,
            params=values,
            pipeline_package_path=package,
            enable_caching=False,
            service_account=service_account,
        )
    print(made.recurring_run_id)


def parameters_first(command: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with all parameters in front, because argparse reads only those in one place.

    Raises:
        InputError: If an option has the name of a parameter.
    """
    from pipelines.previts_full import previts_full

    known = previts_full.pipeline_spec.root.input_definitions.parameters
    options = inspect.signature(command).parameters
    parameters, others = list[str](), list[str]()
    for place, text in enumerate(arguments):
        name = text.removeprefix("--").partition("=")[0].replace("-", "_")
        if text.startswith("--") and name in known and name not in options:
            raise InputError(f"{text} is a parameter of the pipeline: write {name}=VALUE, without --; lists are JSON")
        before = arguments[place - 1] if place else ""
        is_flag = before.removeprefix("--").removeprefix("no-") in FLAGS
        takes_value = before.startswith("--") and "=" not in before and not is_flag
        (parameters if "=" in text and not text.startswith("-") and not takes_value else others).append(text)
    return [*parameters, *others]


def check_images() -> None:
    """Raise an InputError if an image has no digest: the image behind a tag can change after the test."""
    if loose := [image for image in _images.IMAGES if "@sha256:" not in image]:
        raise InputError(
            f"{', '.join(loose)} {'has' if len(loose) == 1 else 'have'} a tag and no digest; use the digests that "
            "`make push` wrote (PREVITS_IMAGES=images/pushed.env), or pass --no-production on a cluster for trials"
        )


@contextlib.contextmanager
def _compiled(pipeline: Any, production: bool) -> Iterator[str]:
    """Compile a pipeline and yield the path of its package, a temporary file."""
    from kfp import compiler

    if production:
        check_images()
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        path = os.path.join(folder, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, path)
        yield path


def _values(pipeline: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return the parameters as `parse` does; raise an InputError too if a required one is missing."""
    values, known = parse(pipeline, texts), pipeline.pipeline_spec.root.input_definitions.parameters
    if missing := [name for name, spec in known.items() if not spec.is_optional and name not in values]:
        raise InputError(f"required parameters are missing: add {', '.join(f'{name}=...' for name in sorted(missing))}")
    return values


def parse(pipeline: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Parse texts such as parts=32 or 'rows=["6a"]' by the parameter types that a pipeline declares.

    Raises:
        InputError: If the pipeline does not have a parameter, or a value has the wrong type.
    """
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    known = pipeline.pipeline_spec.root.input_definitions.parameters
    values: dict[str, Any] = {}
    for text in texts:
        name, value = split_setting(text, known, "parameter")
        if name in values:
            raise InputError(f"{name} is given twice; give it once")
        kind = TYPES.get(ParameterType.ParameterTypeEnum.Name(known[name].parameter_type))
        values[name] = _parsed(name, value, kind) if kind else value
    return values


def _parsed(name: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    wanted = int if name in NUMBERS else str
    if type(value) is not kind or not all(type(item) is wanted for item in items):
        allowed = "a JSON list of whole numbers" if name in NUMBERS else KINDS[kind]
        raise InputError(f"{name} must be {allowed}, got {text!r}")
    return value


def _check_choices(values: dict[str, Any]) -> None:
    """Raise the InputErrors of the first step of a run before the run is submitted."""
    launcher = values.get("launcher", _images.LAUNCHER)
    try:
        check.check_choices(
            rows=values.get("rows", paper.ARMS),
            seeds=values.get("seeds", [0]),
            benchmarks=values.get("benchmarks", ()),
            profile=values.get("profile", "paper"),
            set=values.get("set", ()),
            parts=values.get("parts", 8),
            launcher=launcher,
            processes=values.get("processes", 1),
            job=values.get("job", ()),
            evaluation_processes=values.get("evaluation_processes", 1),
        )
        sizes.sizes(values.get("profile", "paper"), values.get("sizes", {}))
    except InputError as error:
        form = " (here lists are JSON: 'seeds=[0, 1, 2]' instead of --seeds 0 1 2)" if "--" in str(error) else ""
        raise InputError(f"{error}{form}") from None
    for name in ("crawl", "root", "data"):
        if files.protocol(values.get(name, "gs://")) in files.ON_DISK:
            raise InputError(
                f"{name} must be a URI that every pod of the cluster can read (gs:// or s3://), got {values[name]}"
            )


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Raise an InputError if the API of Kubeflow Pipelines does not answer, or refuses a request."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        raise InputError(
            f"the API of Kubeflow Pipelines does not answer ({str(error)[:200]}); check --host and "
            "KF_PIPELINES_ENDPOINT, or forward the port: kubectl port-forward -n kubeflow svc/ml-pipeline 8888. If the "
            "answer to a submission was lost, the run has started: look at the runs first"
        ) from None
    except kfp_server_api.ApiException as error:
        raise InputError(
            f"the API of Kubeflow Pipelines refuses the request: {error.status} {error.reason}: {str(error.body)[:300]}"
        ) from None


def connect(host: str, namespace: str) -> Any:
    """Return a client of the API of Kubeflow Pipelines, for runs in a namespace; `host` is as of `submit`.

    Raises:
        InputError: If the file with the token of the API cannot be read.
    """
    import kfp
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    # Without this, the library reads the file in a pod only. It reads it for each request, so it may be renewed.
    path = os.environ.get(kfp.client.KF_PIPELINES_SA_TOKEN_ENV)
    if path and not os.access(path, os.R_OK):
        raise InputError(
            f"the file {path} with the token of the API cannot be read ({kfp.client.KF_PIPELINES_SA_TOKEN_ENV}); write "
            f"it: kubectl -n {namespace} create token default-editor --audience pipelines.kubeflow.org --duration 8h "
            f"> {path}"
        )
    credentials = ServiceAccountTokenVolumeCredentials(path) if path else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about future versions of the library
        # If no host is set, the library looks for the API in the namespace that it is given for the runs.
        named = host or os.environ.get(kfp.client.client.KF_PIPELINES_ENDPOINT_ENV)
        _limit_requests()
        return kfp.Client(host or None, namespace=namespace if named else KUBEFLOW, credentials=credentials)


def _limit_requests() -> None:
    """Give every request of the library a limit; by default it waits for ever for an answer."""
    from kfp_server_api import rest

    send = getattr(rest.RESTClientObject.request, "__wrapped__", rest.RESTClientObject.request)

    @functools.wraps(send)
    def limited(*given: Any, **named: Any) -> Any:
        return send(*given, **named | {"_request_timeout": (ANSWER_SECONDS, ANSWER_SECONDS)})

    rest.RESTClientObject.request = limited
