"""Python, the command line and KFP call the same eight verbs with the same signature."""

import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Sequence

import pytest
from kfp.dsl.base_component import BaseComponent

import components.flow
from previts import cli, stages
from previts.stages import flow

VERBS = ["download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report"]
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
    assert "--take-over" in shown
    required = [item for item in inspect.signature(getattr(stages, verb)).parameters.values() if item.default is EMPTY]
    assert shown.count("(required)") == len(required)


def test_finding_a_finished_run_imports_no_heavy_package():
    program = (
        "import sys; from previts import cli; from previts.stages import flow;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2', 'kfp', 'sklearn') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
