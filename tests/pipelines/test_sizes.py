"""What each step of the committed pipeline requests, computed from the YAML as KFP's driver does."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_backend import tasks

from previts.runs.sizes import sizes
from previts.runs.steps import Plan

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = next(yaml.safe_load_all((ROOT / "pipelines" / "previts_full.yaml").read_text()))
PATHS = dict(tasks(PIPELINE))
PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+)'\]\}\}")
UNITS = {"Mi": 2**20, "Gi": 2**30}
# All requests of the steps before their sizes followed the profile.
SMALL = ("1", "2Gi")
PAPER = {
    "check-run": SMALL,
    "download": ("8", "16Gi"),
    "collect-videos": SMALL,
    "fit-saliency": ("8", "48Gi"),
    "saliency": ("8", "24Gi"),
    "track": ("8", "16Gi"),
    "index": ("8", "16Gi"),
    "pretrain": ("8", "48Gi"),
    "evaluate": ("8", "48Gi"),
    "report": ("2", "8Gi"),
    "check-evaluations": SMALL,
    "close-run": SMALL,
}


def value(path: tuple[str, ...], name: str, plan: dict[str, str]) -> str:
    """Return the value of an input of a task, through the DAGs around it up to the output of `check-run`."""
    source = PATHS[path]["inputs"]["parameters"][name]
    if "componentInputParameter" in source:
        return value(path[:-1], source["componentInputParameter"], plan)
    output = source["taskOutputParameter"]
    assert output["producerTask"] == "check-run"
    return plan[output["outputParameterKey"]]


def requests(profile: str, changes: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return cores and memory of each step, by its name; each request is also the limit."""
    plan = vars(sizes(profile, changes))
    found = {}
    for path, task in PATHS.items():
        component = PIPELINE["components"][task["componentRef"]["name"]]
        if "executorLabel" not in component:
            continue
        resources = PIPELINE["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["resources"]
        amounts = []
        for kind in ("Cpu", "Memory"):
            (text,) = {resources[f"resource{kind}{bound}"] for bound in ("Request", "Limit")}
            match = PLACEHOLDER.fullmatch(text)
            amounts.append(value(path, match[1], plan) if match else text)
        found[path[-1]] = (amounts[0], amounts[1])
    return found


def cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def memory(text: str) -> float:
    return float(text[:-2]) * UNITS[text[-2:]]


def test_the_sizes_of_the_paper_are_as_before():
    assert requests("paper", {}) == PAPER


def test_two_steps_of_the_demo_at_once_fit_a_node_with_two_cores_and_8_gb():
    found = requests("demo", {})
    looped = {path[-1] for path in PATHS if any(name.startswith("for-loop") for name in path)}
    for name, (cpu, size) in found.items():
        at_once = 2 if name in looped else 1
        assert at_once * cores(cpu) <= 1.9, name
        assert at_once * memory(size) <= 7e9, name


def test_a_user_sets_the_size_of_the_steps_that_need_it():
    changed = {name: size for name, size in requests("demo", {"training_memory": "6Gi", "cpu": "2"}).items()}
    assert changed["pretrain"] == changed["evaluate"] == changed["fit-saliency"] == ("2", "6Gi")
    assert changed["download"] == ("2", "3Gi")
    assert changed["report"] == ("900m", "3Gi")


def test_the_first_step_gives_each_size_by_its_name():
    outputs = PIPELINE["components"]["comp-check-run"]["outputDefinitions"]["parameters"]
    assert set(outputs) == set(Plan._fields)
    assert all(outputs[name]["parameterType"] == "STRING" for name in vars(sizes("demo", {})))


@pytest.mark.parametrize("profile", ["paper", "demo"])
def test_every_step_has_a_size(profile):
    assert all(cores(cpu) > 0 and memory(size) > 0 for cpu, size in requests(profile, {}).values())
