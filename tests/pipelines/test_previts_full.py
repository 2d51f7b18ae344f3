"""The committed YAML of the pipelines: it is up to date, and contains all parameters and no path of a machine."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from kfp import compiler
from kfp_backend import pods

from components import _step
from pipelines.previts_full import previts_full
from previts.config import paper
from previts.runs import trials

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
        ("components._step", "run_stages"),
        ("components._step", "copy_file, run"),
        ("previts", "stages"),
        ("previts.runs", "steps"),
    }
    assert all(hasattr(_step, name) for name in ("run", "run_stage", "run_stages", "copy_file"))


def test_the_committed_pipeline_contains_no_path_of_a_machine():
    text = COMMITTED.read_text()
    assert not [word for word in ("/home/", "/work", "/tmp/", "/root/", "file://", ".venv") if word in text]
    (pipeline,) = [document for document in yaml.safe_load_all(text) if "root" in document]
    images = {item["container"]["image"] for item in pipeline["deploymentSpec"]["executors"].values()}
    assert images == {"previts/previts-data:0.2.0", "previts/previts-train:0.2.0"}
    assert not [item for item in pipeline["deploymentSpec"]["executors"].values() if "pip install" in str(item)]


def test_the_pipeline_has_every_parameter_of_a_run():
    inputs = yaml.safe_load(COMMITTED.read_text().split("---\n")[0])["root"]["inputDefinitions"]["parameters"]
    expected = {
        "crawl",
        "root",
        "data",
        "rows",
        "seeds",
        "benchmarks",
        "profile",
        "set",
        "parts",
        "launcher",
        "processes",
    }
    expected |= {"job", "sizes"}
    expected |= {"evaluation_processes", "perception_gpus", "training_gpus", "evaluation_gpus", "gpu_nodes"}
    assert set(inputs) == expected
    assert inputs["rows"]["defaultValue"] == list(paper.ARMS)
    assert inputs["seeds"]["defaultValue"] == [0.0]
    assert inputs["benchmarks"]["defaultValue"] == []


def test_no_loop_is_over_crawls():
    pipeline = next(yaml.safe_load_all(COMMITTED.read_text()))
    loops = {}
    for name, component in pipeline["components"].items():
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "parameterIterator" in task:
                items = task["parameterIterator"]["items"]["inputParameter"]
                loops[name, items.removeprefix("pipelinechannel--")] = task
    assert set(loops) == {
        ("comp-download-crawls", "numbers"),
        ("comp-find-objects", "numbers"),
        ("comp-pretrain-and-evaluate", "trials"),
        ("comp-pretrain-and-evaluate", "evaluations"),
    }
    # All three lists come from `check-run`, before any crawl is downloaded; tests/runs/test_check.py has its values.
    tasks = pipeline["components"]["comp-crawls-to-report"]["dag"]["tasks"]
    given = {
        name: source["taskOutputParameter"]["producerTask"]
        for task in tasks.values()
        for name, source in task.get("inputs", {}).get("parameters", {}).items()
        if name in ("numbers", "trials", "evaluations")
    }
    assert given == dict.fromkeys(("numbers", "trials", "evaluations"), "check-run")


def test_a_run_of_the_demo_has_few_pods():
    # Each pod takes seconds of a small cluster before it works. It was 98 pods, 66 of them for tasks.
    found = trials.list_trials(paper.ARMS, [0], "demo", [])
    evaluations = len(trials.evaluation_shares(found, [], "demo"))
    loops = {"numbers": 2, "trials": len(trials.distinct(found)), "evaluations": evaluations}
    assert pods(next(yaml.safe_load_all(COMMITTED.read_text())), loops) == 58


def test_compiling_imports_no_heavy_package():
    program = (
        "import sys; from pipelines.previts_full import previts_full;"
        "print([name for name in ('torch', 'mlflow', 'av', 'cv2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
