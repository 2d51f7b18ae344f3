"""Oracle: the sections and families of benchmarks written down by hand."""

from dataclasses import fields, is_dataclass

import pytest

from previts.config import benchmarks
from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError


def test_an_unknown_benchmark_is_reported_with_the_closest_one():
    benchmarks.check(["davis", "voc07"])
    with pytest.raises(InputError, match=r"there is no benchmark 'davs' \(did you mean 'davis'"):
        benchmarks.check(["voc07", "davs"])


def test_every_section_of_the_evaluation_is_read_by_a_benchmark():
    sections = {item.name for item in fields(EvaluationConfig) if is_dataclass(getattr(EvaluationConfig(), item.name))}
    assert {name for benchmark in benchmarks.BENCHMARKS.values() for name in benchmark.sections} == sections


def test_video_models_are_evaluated_on_actions_and_davis():
    clips = {name for name, benchmark in benchmarks.BENCHMARKS.items() if benchmark.clips}
    images = {name for name, benchmark in benchmarks.BENCHMARKS.items() if benchmark.images}
    assert clips == {"ucf101", "hmdb51", "jhmdb", "minikinetics", "davis"}
    assert clips & images == {"davis"}
    assert clips | images == {*benchmarks.BENCHMARKS}
