"""Oracle: the intervals of scipy.stats, computed from the same numbers."""

import re
import shutil
from pathlib import Path

import pytest
from mlflow_runs import client_of, free_port, open_trial, runs_of
from scipy import stats

from previts import cli
from previts.compare import compare
from previts.errors import InputError
from previts.runlog import description, run_log

pytestmark = pytest.mark.usefixtures("mlflow_environment")

NUMBERS = {
    "1/vgg/moco": {0: 40.0, 1: 42.5, 2: 39.0},
    "1/vgg/previts": {0: 44.0, 1: 43.0, 2: 45.5},
    "6b/mu=0.2": {0: 41.0},
}


NUMBERS_OF_TABLE_1 = (NUMBERS["1/vgg/moco"], NUMBERS["1/vgg/previts"], {0: 50.0, 1: 52.4, 2: 49.1})


def add(root: Path, row: str, seeds: dict[int, float]) -> None:
    for seed, value in seeds.items():
        name = f"{row[:1]}{row.split('/')[-1]}{seed}"
        tags = {"row": row, "seed": str(seed), "profile": "demo", "previts.index": "i1"}
        open_trial(root, name, tags=tags, corpus="crawl-1 (9 videos)").finish()
        run_log.log_result(str(root), name, {"voc07/map": value, "voc07/other": 1.0})


@pytest.fixture
def root(tmp_path: Path, mlflow_tables: Path) -> Path:
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    for row, seeds in NUMBERS.items():
        add(tmp_path, row, seeds)
    return tmp_path


def lines_of(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}


def test_a_difference_beyond_noise_is_marked_and_the_interval_is_corrected_for_the_table(root: Path):
    add(root, "1/vgg/sampling", {0: 50.0, 1: 52.4, 2: 49.1})
    lines = lines_of(compare(str(root), []))
    moco, previts, sampling = ([*numbers.values()] for numbers in NUMBERS_OF_TABLE_1)
    for name, values, mark in (("previts", previts, ""), ("sampling", sampling, "*")):
        paired = stats.ttest_rel(values, moco).confidence_interval(1 - 0.05 / 2)
        wanted = f"(+{(paired.low + paired.high) / 2:.1f} ± {(paired.high - paired.low) / 2:.1f}){mark} paper"
        assert wanted in lines[f"1/vgg/{name}"]
    assert "2 of 2 comparisons point the way that the paper's do, 1 of them beyond noise." in compare(str(root), [])


def test_rows_have_the_mean_the_interval_and_the_paired_difference(root: Path):
    lines = lines_of(compare(str(root), []))
    assert list(lines) == ["row", "1/vgg/moco", "1/vgg/previts", "6b/mu=0.2"]  # as in the paper
    assert lines["row"].split() == ["row", "seeds", "mAP", "↑"]
    moco, previts = ([*NUMBERS[row].values()] for row in ("1/vgg/moco", "1/vgg/previts"))
    low, high = stats.t.interval(0.95, 2, loc=sum(moco) / 3, scale=stats.sem(moco))
    assert f"{sum(moco) / 3:.1f} ± {(high - low) / 2:.1f}" in lines["1/vgg/moco"]
    paired = stats.ttest_rel(previts, moco).confidence_interval(0.95)
    wanted = f"(+{(paired.low + paired.high) / 2:.1f} ± {(paired.high - paired.low) / 2:.1f})"
    assert wanted in lines["1/vgg/previts"]
    assert re.split(r"\s{2,}", lines["6b/mu=0.2"].strip()) == ["6b/mu=0.2", "1", "41.0 paper 72.1"]  # another table


def test_a_training_that_several_rows_share_is_a_line_of_each(root: Path):
    for rows in (["1/vgg/moco", "6d/none"], ["6c/lambda=0.0"]):  # of two reports
        run_log.log_generations(str(root), {}, [], fingerprint="1moco0", rows=rows)
    lines = lines_of(compare(str(root), []))
    for row in ("6d/none", "6c/lambda=0.0"):
        assert "40.0 paper" in lines[row]
    assert "40.5" in lines["1/vgg/moco"]


def test_the_seeds_of_a_row_are_one_arm_whatever_rows_they_were_trained_for(root: Path):
    """Rows with equal settings share a training, whose MLflow run is named after the first of them."""
    for seed, first in enumerate(("6a/gap=varying", "6b/mu=0.3", "6c/lambda=3.0")):
        trial = description.describe_trial(first, "demo", [f"seed={seed}"])
        run_log.open_run(
            str(root), group="corpus", name=trial.name, fingerprint=f"s{seed}", params=trial.params, tags=trial.tags
        ).finish()
        run_log.log_generations(str(root), {}, [], fingerprint=f"s{seed}", rows=["6b/mu=0.3"])
        run_log.log_result(str(root), f"s{seed}", {"voc07/map": 70.0 + seed})
    (line,) = [line for line in compare(str(root), []).splitlines() if "6b/mu=0.3" in line]
    assert re.split(r"\s{2,}", line.strip())[:2] == ["6b/mu=0.3", "3"]
    assert "71.0" in line


def test_a_changed_setting_is_an_arm_of_its_own_that_is_compared_with_the_most_similar_baseline(root: Path):
    values = {("1/vgg/moco", "0.3"): 50.0, ("1/vgg/moco", "0.6"): 60.0, ("1/vgg/previts", "0.6"): 65.0}
    for number, ((row, rate), value) in enumerate(values.items()):
        trial = description.describe_trial(row, "demo", [f"optim.lr={rate}"])
        run_log.open_run(
            str(root), group="g", name=trial.name, fingerprint=f"c{number}", params=trial.params, tags=trial.tags
        ).finish()
        run_log.log_result(str(root), f"c{number}", {"voc07/map": value})
    lines = [line for line in compare(str(root), ["g"]).splitlines() if line.startswith("  1/")]
    assert [re.search(r"optim.lr=[\d.]+", line)[0] for line in lines[:2]] == ["optim.lr=0.3", "optim.lr=0.6"]
    assert "(+5.0)" in lines[2]


def test_runs_are_chosen_by_name_or_id_and_the_newest_is_the_default(root: Path, capsys: pytest.CaptureFixture[str]):
    client = client_of(root)
    (parent,) = runs_of(client)["groups"]
    for name in (parent.info.run_id, parent.info.run_name):
        assert compare(str(root), [name]) == compare(str(root), [])
    cli.main(["compare", "--root", str(root), "--runs", parent.info.run_name])
    assert capsys.readouterr().out == compare(str(root), []) + "\n"
    other = run_log.open_run(str(root), group="other", name="n", fingerprint="f9", params={}, tags={"row": "3/previts"})
    other.finish()
    with pytest.raises(InputError, match="the trials of 'other' have no numbers yet"):
        compare(str(root), ["other"])
    assert compare(str(root), []) == compare(str(root), [parent.info.run_id])
    run_log.log_result(str(root), "f9", {"voc07/map": 1.0})
    assert list(lines_of(compare(str(root), []))) == ["row", "3/previts"]
    assert list(lines_of(compare(str(root), [parent.info.run_id, "other"]))) == [
        "row", "1/vgg/moco", "1/vgg/previts", "3/previts", "6b/mu=0.2",
    ]  # fmt: skip


def test_what_cannot_be_compared_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"no run 'gone' that compares arms; the newest are 'crawl-1 \(9 videos\)"):
        compare(str(root), ["gone"])
    with pytest.raises(InputError, match=r"mlflow\.db does not exist; give another --root"):
        compare(str(tmp_path / "elsewhere"), [])
    with pytest.raises(InputError, match=r"give --root"):
        cli.compare()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match=r"MLflow at http://.* does not answer"):
        compare("", [])
