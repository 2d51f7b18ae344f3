"""Oracles: single runs with the seeds of the repetitions, and a fresh interpreter."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from colour_images import SMALL, image_model, write_imagenet
from item_checks import check_items

from previts.errors import InputError
from previts.evals.outcome import Population
from previts.evals.run import evaluate
from previts.models.moco import MoCo


@pytest.fixture(scope="module")
def model() -> MoCo:
    return image_model()


def test_unknown_benchmark_names_the_closest(model: MoCo, tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'voc07'"):
        evaluate("voc7", model, str(tmp_path), SMALL)


def test_repetitions_keep_the_test_items_after_a_resume(model: MoCo, tmp_path: Path):
    write_imagenet(tmp_path, per_class=2)
    config = replace(SMALL, runs=2)
    first, resumed = (evaluate("in1k", model, str(tmp_path), config, folder=str(tmp_path / "work")) for _ in range(2))
    assert first.populations == resumed.populations == {
        "in1k/top1": Population(6, "images", pytest.approx(100 / 3)), "in1k/top5": Population(6, "images", 100.0),
    }  # fmt: skip


def test_repetitions_are_runs_with_the_following_seeds(model: MoCo, tmp_path: Path):
    write_imagenet(tmp_path, per_class=2)
    config = replace(SMALL, linear=replace(SMALL.linear, recipe="virtex"))
    single = [evaluate("in1k", model, str(tmp_path), replace(config, seed=seed)) for seed in (3, 4)]
    repeated = evaluate("in1k", model, str(tmp_path), replace(config, seed=3, runs=2))
    for name, values in repeated.protocol["by_run"].items():
        assert values == [outcome.metrics[name] for outcome in single]
        assert repeated.metrics[name] == pytest.approx(sum(values) / 2)
        assert repeated.protocol["standard_deviation"][name] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert repeated.protocol["runs"] == 2
    check_items(repeated, set(repeated.metrics))


def test_the_modules_load_no_heavy_package():
    program = (
        "import sys; import previts.evals.metrics, previts.evals.result, previts.evals.run;"
        "print([name for name in ('torch', 'sklearn', 'cv2', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
