"""Python, the command line and KFP call the same eight verbs with the same signature."""

import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

import components.flow
from components import _step
from pipelines.previts_full import previts_full, previts_scheduled
from previts import cli, stages
from previts.config import paper
from previts.stages import flow

VERBS = ["download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report"]
COMMITTED = Path(__file__).parents[2] / "pipelines" / "previts_full.yaml"
SCHEDULED = COMMITTED.with_name("previts_scheduled.yaml")
EMPTY = inspect.Parameter.empty


def spelled(annotation: object) -> object:
    """Return the type that KFP uses for an annotation: a list for a Sequence."""
    return list[str] if annotation == Sequence[str] else annotation


def signature(function: typing.Callable[..., object]) -> dict[str, tuple[object, object]]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: (spelled(hints[name]), list(item.default) if item.default == () else item.default)
        for name, item in inspect.signature(function).parameters.items()
        if not hasattr(hints[name], "__metadata__")  # not an artifact for the KFP page
    }


def test_the_verbs_are_in_the_order_of_a_run():
    assert list(cli.VERBS) == VERBS
    assert [cli.VERBS[verb] for verb in VERBS] == [getattr(stages, verb) for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_a_component_has_the_signature_of_its_verb(verb: str):
    component = getattr(importlib.import_module(f"components.{verb}"), verb).python_func
    assert signature(component) == signature(getattr(stages, verb))
    assert typing.get_type_hints(component)["return"] is str


def test_a_step_between_the_verbs_has_the_name_of_its_function():
    steps = {name: item for name, item in vars(components.flow).items() if isinstance(item, BaseComponent)}
    assert {name for name in steps if not hasattr(flow, name)} == {"list_parts"}
    assert {name: item.name for name, item in steps.items()} == {name: name.replace("_", "-") for name in steps}


def test_the_description_of_a_step_is_one_sentence():
    modules = [importlib.import_module(f"components.{name}") for name in [*VERBS, "flow"]]
    steps = [item for module in modules for item in vars(module).values() if isinstance(item, BaseComponent)]
    assert len(steps) == 15
    for step in steps:
        assert re.fullmatch(r"[A-Z][^.]{20,115}\.", step.description), step.name


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_has_the_parameters_of_its_verb(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for name in inspect.signature(getattr(stages, verb)).parameters:
        assert f"--{name.replace('_', '-')}" in shown
    required = [item for item in inspect.signature(getattr(stages, verb)).parameters.values() if item.default is EMPTY]
    assert shown.count("(required)") == len(required)


def test_the_committed_pipeline_is_what_the_code_compiles_to(tmp_path: Path):
    for pipeline, committed in ((previts_full, COMMITTED), (previts_scheduled, SCHEDULED)):
        compiler.Compiler().compile(pipeline, str(tmp_path / committed.name))
        assert (tmp_path / committed.name).read_text() == committed.read_text(), "run `make compile`"


def test_the_compiled_steps_import_few_names_and_all_of_them_exist():
    imported = set()
    for path in (COMMITTED, SCHEDULED):
        pipeline = next(yaml.safe_load_all(path.read_text()))
        for executor in pipeline["deploymentSpec"]["executors"].values():
            source = "\n".join(executor["container"]["command"])
            imported |= set(re.findall(r"^ +from ((?:previts|components)\S*) import (.+)$", source, re.M))
    assert imported == {
        ("components._step", "run"),
        ("components._step", "run_stage"),
        ("components._step", "copy_file, run"),
        ("previts", "stages"),
        ("previts.stages", "flow"),
        ("previts.stages", "subprocess_evaluation"),
    }
    assert all(hasattr(_step, name) for name in ("run", "run_stage", "copy_file"))


def test_the_committed_pipeline_contains_no_path_of_a_machine():
    text = COMMITTED.read_text()
    assert not [
        word
        for word in ("/home/", "/work", "/tmp/", "/root/", "file://", ".venv")
        if word in text + SCHEDULED.read_text()
    ]
    (pipeline,) = [document for document in yaml.safe_load_all(text) if "root" in document]
    images = {item["container"]["image"] for item in pipeline["deploymentSpec"]["executors"].values()}
    assert images == {"previts/previts-data:0.1.0", "previts/previts-train:0.1.0"}
    assert not [item for item in pipeline["deploymentSpec"]["executors"].values() if "pip install" in str(item)]


def test_the_pipeline_has_every_parameter_of_a_run():
    inputs = yaml.safe_load(COMMITTED.read_text().split("---\n")[0])["root"]["inputDefinitions"]["parameters"]
    expected = {"crawl", "root", "data", "rows", "benchmarks", "profile", "set", "parts", "launcher", "processes"}
    expected |= {"job"}
    expected |= {"evaluation_processes", "perception_gpus", "training_gpus", "evaluation_gpus", "gpu_nodes"}
    assert set(inputs) == expected
    scheduled = yaml.safe_load(SCHEDULED.read_text().split("---\n")[0])["root"]["inputDefinitions"]["parameters"]
    assert set(scheduled) == expected - {"crawl"} | {"crawls"}
    defaults = {name: item["defaultValue"] for name, item in inputs.items() if "defaultValue" in item}
    assert {name: item["defaultValue"] for name, item in scheduled.items() if "defaultValue" in item} == defaults
    assert inputs["rows"]["defaultValue"] == list(paper.ARMS)
    assert inputs["benchmarks"]["defaultValue"] == []


def test_compiling_imports_no_heavy_package():
    program = (
        "import sys; from pipelines.previts_full import previts_full;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_finding_a_finished_run_imports_no_heavy_package():
    program = (
        "import sys; from previts import cli; from previts.stages import flow;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2', 'kfp', 'sklearn') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
