"""Python and the command line call the same eight verbs with the same signature; KFP calls a step of each."""

import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence

import pytest
from kfp.dsl.base_component import BaseComponent

import components.flow
from previts import cli, stages
from previts.runs import steps

VERBS = ["download", "fit_saliency", "saliency", "track", "index", "pretrain", "evaluate", "report"]
EMPTY = inspect.Parameter.empty


def spelled(annotation: object) -> object:
    """Return the type that KFP uses for an annotation: a list for a Sequence, a dict for a Mapping."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    kinds = {Sequence: list, Mapping: dict}
    return kinds[origin][tuple(spelled(item) for item in arguments)] if origin in kinds else annotation


def signature(function: typing.Callable[..., object]) -> dict[str, object]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: spelled(hints[name])
        for name in [*inspect.signature(function).parameters, "return"]
        if not hasattr(hints[name], "__metadata__")  # not an artifact for the KFP page
    }


def test_the_verbs_are_in_the_order_of_a_run():
    assert list(cli.VERBS) == VERBS
    assert [cli.VERBS[verb] for verb in VERBS] == [getattr(stages, verb) for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_a_component_has_the_signature_of_its_step(verb: str):
    component = getattr(importlib.import_module(f"components.{verb}"), verb).python_func
    step = stages.download if verb == "download" else getattr(steps, verb)
    assert signature(component) == signature(step)


def test_a_step_between_the_verbs_has_the_name_of_its_function():
    between = {name: item for name, item in vars(components.flow).items() if isinstance(item, BaseComponent)}
    without = {name for name in between if not hasattr(steps, name)}
    assert without == {"collect_videos"}  # it calls `collect_parts`
    assert {name: item.name for name, item in between.items()} == {name: name.replace("_", "-") for name in between}


def test_the_description_of_a_step_is_one_sentence():
    modules = [importlib.import_module(f"components.{name}") for name in [*VERBS, "flow"]]
    every = [item for module in modules for item in vars(module).values() if isinstance(item, BaseComponent)]
    assert len(every) == 12
    for step in every:
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
        "import sys; from previts import cli; from previts.runs import steps;"
        "print([name for name in ('torch', 'mlflow', 'pyarrow', 'numpy', 'av', 'cv2', 'kfp') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
