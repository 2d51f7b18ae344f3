"""The verb `evaluate` on a small synthetic world. Oracles: repeated evaluations, one seed at a time."""

import json

import numpy as np
import pytest
from small_verbs import SMALL

from previts import stages
from previts.config import paper
from previts.errors import InputError
from previts.stages import addresses
from previts.storage import files, folders


def test_a_result_names_its_checkpoint(made):
    result = json.loads(files.read_bytes(files.join(made["result"], "result.json")))
    assert result["checkpoint"] == folders.read_manifest(made["checkpoint"]).fingerprint
    assert folders.read_manifest(made["result"]).inputs["checkpoint"] == made["checkpoint"]
    assert 0 <= result["metrics"]["davis/j_mean"] <= 1
    sequences = len(result["protocol"]["sequences"])
    assert result["populations"]["davis/j_mean"] == {"items": sequences, "unit": "sequences", "chance": None}


def test_a_checkpoint_of_another_row_is_refused(made):
    with pytest.raises(InputError, match=r"of row 1/vgg/previts with profile demo, not of row 1/vgg/moco"):
        stages.evaluate("1/vgg/moco", "davis", made["checkpoint"], made["data"], made["root"], "demo", SMALL)


def test_repeated_runs_are_averaged_and_each_equals_a_run_of_its_seed(made):
    chosen = [*SMALL, "evaluation.runs=3", "evaluation.linear.recipe=virtex"]
    uri = stages.evaluate("1/vgg/previts", "in1k", made["checkpoint"], made["data"], made["root"], "demo", chosen)
    result = json.loads(files.read_bytes(files.join(uri, "result.json")))
    by_run = result["protocol"]["by_run"]["in1k/top1"]
    assert len(by_run) == 3
    assert result["metrics"]["in1k/top1"] == pytest.approx(np.mean(by_run))
    assert result["protocol"]["standard_deviation"]["in1k/top1"] == pytest.approx(np.std(by_run, ddof=1))
    assert "work" not in files.names(uri)
    alone = [*SMALL, "evaluation.seed=2", "evaluation.linear.recipe=virtex"]
    uri = stages.evaluate("1/vgg/previts", "in1k", made["checkpoint"], made["data"], made["root"], "demo", alone)
    assert json.loads(files.read_bytes(files.join(uri, "result.json")))["metrics"]["in1k/top1"] == by_run[2]


@pytest.mark.slow
def test_jhmdb_starts_from_the_classifier_of_ucf101(made):
    small = [*SMALL, "evaluation.actions.epochs=1", "evaluation.actions.frames=8", "evaluation.actions.test_clips=1"]
    row, at = "2/random", (made["data"], made["root"], "demo")
    checkpoint = stages.pretrain(row, made["index"], made["root"], "demo", small)
    stages.evaluate(row, "ucf101", checkpoint, *at, small)
    uri = stages.evaluate(row, "jhmdb", checkpoint, *at, small)
    result = json.loads(files.read_bytes(files.join(uri, "result.json")))
    assert result["protocol"]["start"] == "the classifier that ucf101 left"
    assert {name.partition("/")[0] for name in result["metrics"]} == {"jhmdb"}
    assert files.read_bytes(files.join(uri, "manifest.csv")).startswith(b"seed,split,part,variant,")
    assert files.names(files.join(uri, "work")) == []
    # ucf101 does not read the settings of the backgrounds, so its classifier keeps its address.
    plain, other = (
        paper.resolve(row, "demo", [*small, f"evaluation.backgrounds.train_on={value}"])
        for value in ("original", "variant")
    )
    for benchmark, same in (("ucf101", True), ("jhmdb", False), ("minikinetics", False)):
        places = [addresses.result_address(benchmark, checkpoint, made["data"], plan, "r") for plan in (plain, other)]
        assert (places[0] == places[1]) == same
    uri = stages.evaluate(row, "minikinetics", checkpoint, *at, [*small, "evaluation.backgrounds.train_on=variant"])
    assert set(json.loads(files.read_bytes(files.join(uri, "result.json")))["metrics"]) == {
        "minikinetics_by_variant/original", "minikinetics_by_variant/no_fg",
    }  # fmt: skip
