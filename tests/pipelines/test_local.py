"""The whole pipeline on the embedded engine: evaluations, repeated runs, and runs that were killed or failed."""

import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from killing import content
from mlflow.tracking import MlflowClient
from small_verbs import ODD

from pipelines import local
from previts import demo, stages
from previts.config import paper
from previts.stages import addresses
from previts.storage import files, folders

SMALL = [
    "video.videos_per_shard=4",
    "fit.frames=12",
    "fit.size=64",
    "fit.width=0.125",
    "fit.round_epochs=4",
    "fit.fusion_epochs=8",
    "fit.batch_size=4",
    "saliency.every=6",
    "augment.size=64",
    "objective.queue_size=16",
    "objective.batch_norm_groups=1",
    "optim.batch_size=4",
    "optim.epochs=1",
    "evaluation.crop=64",
    "evaluation.resize=72",
    "evaluation.linear.epochs=2",
]
ROWS = [paper.ARMS[0], paper.ARMS[-1]]
BENCHMARKS = ["davis"]
PATIENCE = 1800  # seconds for a whole run, also on a machine that does other work


def command(world: Path, root: Path, *more: str) -> list[str]:
    place = ["--root", str(root), "--crawl", str(world / "crawls" / "crawl-1.csv"), "--data", str(world / "datasets")]
    return [
        *(sys.executable, "-m", "pipelines", "run-local", *place),
        *("--rows", *ROWS, "--benchmarks", *BENCHMARKS, "--set", *SMALL, *more),
    ]


def results(root: Path) -> dict[tuple[str, str], dict[str, object]]:
    found = [json.loads(files.read_bytes(str(path))) for path in (root / "results").glob("*/result.json")]
    return {(item["row"], item["benchmark"]): item for item in found}


def test_the_screen_shows_the_output_of_steps_and_the_log_has_every_line(capsys):
    log = io.StringIO()
    screen = local._Screen(log)
    text = (
        "10:00:00.000 - INFO - Executing task 'download'\n"
        "[KFP Executor 2026-11-27] Looking for component\n"
        "\x1b[96mdownloaded 3 vid"
        "eos\x1b[0m\n"
        "previts: 3 of the 9 videos failed:\n"
        "  a: not found\n"
        "10:00:01.000 - ERROR - Task 'download' finished with status FAILURE\n"
    )
    for start in range(0, len(text), 7):  # the engine prints parts of lines
        screen.write(text[start : start + 7])
    assert log.getvalue() == text
    shown = capsys.readouterr().err.splitlines()
    assert shown[1:4] == ["downloaded 3 videos", "previts: 3 of the 9 videos failed:", "  a: not found"]
    assert not [line for line in shown if "KFP Executor" in line]
    assert screen.causes == ["3 of the 9 videos failed:", "  a: not found"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    demo.make_world(str(folder), replace(demo.TINY, seed=2))
    return folder


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished") / ODD
    run = subprocess.run(command(world, root), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    assert "Done in" in run.stderr
    return root


@pytest.mark.slow
def test_each_evaluation_uses_the_checkpoint_of_its_row(finished: Path):
    (index,) = (finished / "index").iterdir()
    found = results(finished)
    assert set(found) == {(row, benchmark) for row in ROWS for benchmark in BENCHMARKS}
    fingerprints = set()
    for (row, _), result in found.items():
        own = addresses.checkpoint_address(paper.resolve(row, "demo", SMALL), str(index), str(finished))
        manifest = folders.read_manifest(own)
        assert result["checkpoint"] == manifest.fingerprint
        assert manifest.info["row"] == row
        fingerprints.add(manifest.fingerprint)
    assert len(fingerprints) == len(ROWS)


@pytest.mark.slow
def test_the_report_contains_all_rows(finished: Path):
    page = (finished / "report.html").read_text()
    assert all(row in page for row in ROWS)


@pytest.mark.slow
def test_all_outputs_of_a_run_have_its_id(finished: Path):
    runs = {json.loads(path.read_text())["made_by"].get("run", "") for path in finished.glob("*/*/manifest.json")}
    assert len(runs) == 1
    assert re.fullmatch(r"local-[0-9a-f-]{36}", *runs)


@pytest.mark.slow
def test_a_second_run_repeats_no_work(world: Path, finished: Path):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    run = subprocess.run(command(world, finished), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    changed = {
        path.name for path in finished.rglob("*") if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    }
    assert changed <= {"report.html", "run.log"}
    assert "made:" not in run.stderr


@pytest.mark.slow
def test_a_run_that_was_killed_in_each_stage_ends_with_the_same_report(
    world: Path, finished: Path, tmp_path: Path, mlflow_tables: Path
):
    row, root, other = ROWS[-1], tmp_path / "root", tmp_path / "other"
    alone = ["--rows", row, "--parts", "1"]  # the other run has two parts
    for stage in ("videos", "saliency_model", "saliency", "checkpoints", "results"):
        process = subprocess.Popen(
            command(world, root, *alone),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while process.poll() is None and not any((root / stage).glob("*/*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run = subprocess.run(command(world, root, *alone), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr

    def numbers(root: Path) -> dict[str, object]:
        return {found["benchmark"]: (found["checkpoint"], found["metrics"]) for (of, _), found in results(root).items()
                if of == row}  # fmt: skip

    assert numbers(root) == numbers(finished)
    assert numbers(root)
    # The report of the same row alone, made from the outputs of the run that was not killed.
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    shutil.copy(mlflow_tables, other / "mlflow.db")
    (index,) = (other / "index").iterdir()
    every = [(path, json.loads(path.read_text())) for path in (other / "results").glob("*/result.json")]
    made = [str(path.parent) for path, result in every if result["row"] == row]
    wanted = Path(stages.report([row], str(index), made, str(other), "demo", SMALL))
    (report,) = (root / "report").iterdir()
    assert report.name == wanted.name
    assert (report / "report.csv").read_text() == (wanted / "report.csv").read_text()


@pytest.mark.long
def test_two_runs_at_once_share_the_work_and_end_with_equal_reports(world: Path, finished: Path, tmp_path: Path):
    root = tmp_path / "root"
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    runs = [
        subprocess.Popen(
            command(world, root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda run: run.communicate(timeout=PATIENCE)[1], runs))
    assert [run.returncode for run in runs] == [0, 0], said
    made = Counter(found for text in said for found in re.findall(r"(?<!\w)made: (\S+)", text))
    outputs = {str(path.parent) for path in root.glob("*/*/manifest.json")} - {
        str(path) for path in (root / "report").iterdir()
    }
    assert made == dict.fromkeys(outputs, 1)  # each piece of work once, by one of them
    ended = re.compile(r"((?:download|saliency|track),? shard \d+)(?=: 100%)")
    shards = Counter(found for text in said for found in set(ended.findall(text)))
    tars = len(list(root.glob("videos/*/*.tar")))
    assert {f"download shard {shard}" for shard in range(tars)} < set(shards)
    assert set(shards.values()) == {1}
    for folder in ("videos", "saliency_model", "saliency", "tubes", "index"):
        assert content(root / folder) == content(finished / folder)
    pages = [next((place / "report").glob("*/report.csv")).read_text() for place in (root, finished)]
    assert pages[0] == pages[1]
    assert len(list((root / "report").iterdir())) == 1
    assert {pair: result["metrics"] for pair, result in results(root).items()} == {
        pair: result["metrics"] for pair, result in results(finished).items()
    }
    assert list(root.rglob("*.lease")) == list(root.rglob("*.tmp")) == list((root / "runlog").glob("*")) == []
    assert list((tmp_path / "temporary").iterdir()) == []
    runs_of = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = [item for item in runs_of.search_experiments() if item.name == "previts"]
    arms = [run for run in runs_of.search_runs([experiment.experiment_id]) if "previts.fingerprint" in run.data.tags]
    assert sorted(run.info.status for run in arms) == ["FINISHED"] * len(ROWS)


@pytest.mark.slow
def test_a_failed_benchmark_does_not_stop_the_others_and_is_repeated(world: Path, finished: Path, tmp_path: Path):
    root, broken = tmp_path / "root", tmp_path / "world"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "results")
    shutil.copytree(world, broken)
    mask = next((broken / "datasets" / "davis" / "Annotations").rglob("*.png"))
    intact = mask.read_bytes()
    mask.write_bytes(intact[:20])
    row = ROWS[0]
    place = ["--data", str(broken / "datasets"), "--rows", row, "--benchmarks", "voc07", "davis"]
    run = subprocess.run(command(world, root, *place), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 2, run.stderr
    last = run.stderr[run.stderr.index("previts: the run stopped") :]
    assert "1 of 2 evaluations failed" in last
    assert mask.name in last
    found = results(root)
    states = {benchmark: result["status"] for (_, benchmark), result in found.items()}
    assert states == {"voc07": "ok", "davis": "failed"}
    reason = str(found[row, "davis"]["error"])
    assert reason in html.unescape((root / "report.html").read_text())
    mask.write_bytes(intact)
    run = subprocess.run(command(world, root, *place), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    made = [line for line in run.stderr.splitlines() if "made:" in line and "/results/" in line]
    assert len(made) == 1
    assert "/davis-" in made[0]
    assert reason not in html.unescape((root / "report.html").read_text())


def test_a_typing_error_is_reported_before_anything_is_written(world: Path, tmp_path: Path):
    wrong = command(world, tmp_path / "root", "--rows", "1/vgg/previt")
    run = subprocess.run(wrong, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert "did you mean '1/vgg/previts'" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("option", ["--crawl", "--data"])
def test_a_missing_crawl_or_data_set_is_reported_before_the_synthetic_world_is_made(tmp_path: Path, option: str):
    program = [sys.executable, "-m", "pipelines", "run-local", "--root", str(tmp_path / "root"), option, "/nowhere/x"]
    run = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert "/nowhere/x" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "root").exists()


def test_a_root_without_write_access_is_reported_before_any_step(world: Path):
    run = subprocess.run(
        command(world, Path("/dev/null/root")), capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 2
    assert "cannot write to /dev/null/root" in run.stderr
    assert "choose another root" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_the_reason_of_a_failed_step_is_the_end_of_the_output(world: Path, tmp_path: Path):
    (tmp_path / "crawl.csv").write_text("video_id,url\na,nothing.mp4\nb,nowhere.mp4\n")
    place = [
        "--root",
        str(tmp_path / "root"),
        "--crawl",
        str(tmp_path / "crawl.csv"),
        "--data",
        str(world / "datasets"),
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pipelines", "run-local", *place],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 2
    last = run.stderr[run.stderr.index("previts: the run stopped") :]
    assert "2 of the 2 videos" in last
    assert "Videos already stored are kept" in last
    assert "run.log" in last
    assert "Traceback" not in run.stderr
