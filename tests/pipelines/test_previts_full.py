"""The committed YAML of the pipelines: it is up to date, and contains all parameters and no path of a machine."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from kfp import compiler

from components import _step
from pipelines.previts_full import previts_full
from previts.config import paper

COMMITTED = Path(__file__).parents[2] / "pipelines" / "previts_full.yaml"


def test_the_committed_pipeline_is_what_the_code_compiles_to(tmp_path: Path):
    compiler.Compiler().compile(previts_full, str(tmp_path / COMMITTED.name))
    assert (tmp_path / COMMITTED.name).read_text() == COMMITTED.read_text(), "run `make compile`"


def test_the_compiled_steps_import_few_names_and_all_of_them_exist():
    imported = set()
    pipeline = next(yaml.safe_load_all(COMMITTED.read_text()))
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
    assert not [word for word in ("/home/", "/work", "/tmp/", "/root/", "file://", ".venv") if word in text]
    (pipeline,) = [document for document in yaml.safe_load_all(text) if "root" in document]
    images = {item["container"]["image"] for item in pipeline["deploymentSpec"]["executors"].values()}
    assert images == {"previts/previts-data:0.2.0", "previts/previts-train:0.2.0"}
    assert not [item for item in pipeline["deploymentSpec"]["executors"].values() if "pip install" in str(item)]


def test_the_pipeline_has_every_parameter_of_a_run():
    inputs = yaml.safe_load(COMMITTED.read_text().split("---\n")[0])["root"]["inputDefinitions"]["parameters"]
    expected = {"crawl", "root", "data", "rows", "benchmarks", "profile", "set", "parts", "launcher", "processes"}
    expected |= {"job"}
    expected |= {"evaluation_processes", "perception_gpus", "training_gpus", "evaluation_gpus", "gpu_nodes"}
    assert set(inputs) == expected
    assert inputs["rows"]["defaultValue"] == list(paper.ARMS)
    assert inputs["benchmarks"]["defaultValue"] == []


def test_no_loop_is_over_crawls():
    pipeline = next(yaml.safe_load_all(COMMITTED.read_text()))
    loops, inputs = {}, {}
    for name, component in pipeline["components"].items():
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "parameterIterator" in task:
                items = task["parameterIterator"]["items"]["inputParameter"]
                loops[name, items.removeprefix("pipelinechannel--")] = task
        inputs[name] = set(component.get("inputDefinitions", {}).get("parameters", {}))
    assert set(loops) == {
        ("comp-download-crawls", "list-parts-Output"),
        ("comp-find-objects", "list-parts-Output"),
        ("comp-pretrain-and-evaluate", "distinct_rows"),
        ("comp-pretrain-and-evaluate", "list-evaluations-Output"),
    }
    # What these steps return does not depend on the crawls. `check-run` returns the rows that it was given.
    assert inputs["comp-list-parts"] == inputs["comp-list-parts-2"] == {"parts"}
    assert not inputs["comp-list-evaluations"] & {"crawl", "videos"}


def test_compiling_imports_no_heavy_package():
    program = (
        "import sys; from pipelines.previts_full import previts_full;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
