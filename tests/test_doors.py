"""Python, the command line and KFP open the same eight verbs by one signature."""

import importlib
import inspect
import subprocess
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from kfp import compiler

from pipelines.previts_full import previts_full, previts_scheduled
from previts import cli, paper, stages

VERBS = ["download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report"]
COMMITTED = Path(__file__).parents[1] / "pipelines" / "previts_full.yaml"
SCHEDULED = COMMITTED.with_name("previts_scheduled.yaml")
EMPTY = inspect.Parameter.empty


def spelled(annotation: object) -> object:
    """KFP says list where Python says Sequence."""
    return list[str] if annotation == Sequence[str] else annotation


def signature(function: typing.Callable[..., object]) -> dict[str, tuple[object, object]]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: (spelled(hints[name]), list(item.default) if item.default == () else item.default)
        for name, item in inspect.signature(function).parameters.items()
        if not hasattr(hints[name], "__metadata__")  # artifacts that the KFP page shows
    }


def test_the_verbs_come_in_the_order_of_time():
    assert list(cli.VERBS) == VERBS
    assert [cli.VERBS[verb] for verb in VERBS] == [getattr(stages, verb) for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_a_component_has_the_signature_of_its_verb(verb: str):
    component = getattr(importlib.import_module(f"components.{verb}"), verb).python_func
    assert signature(component) == signature(getattr(stages, verb))
    assert typing.get_type_hints(component)["return"] is str


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_asks_for_the_parameters_of_its_verb(verb: str, capsys: pytest.CaptureFixture[str]):
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


def test_the_committed_pipeline_names_no_place_of_a_machine():
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


def test_the_pipeline_offers_every_choice_of_a_run():
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


def test_compiling_loads_nothing_heavy():
    program = (
        "import sys; from pipelines.previts_full import previts_full;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_finished_run_is_found_without_loading_anything_heavy():
    program = (
        "import sys; from previts import stages, flow, cli;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2', 'kfp', 'sklearn') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
