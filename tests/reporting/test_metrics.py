"""Oracles: numbers rounded by hand, and the tables of the paper."""

import pytest

from previts.config import paper
from previts.config.benchmarks import BENCHMARKS
from previts.reporting.metrics import KNOWN, METRICS, PLACES, TITLES, Metric


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (31.25, "", "31.2"),
        (3.25, "+", "+3.2"),
        (-0.06, "+", "\N{MINUS SIGN}0.1"),
        (-0.01, "", "0.0"),
        (0.01, "+", "±0.0"),
    ],
)
def test_numbers_are_rounded_and_zero_has_no_sign(value: float, sign: str, text: str) -> None:
    assert Metric("in1k/top1", "Top-1", digits=1).show(value, sign) == text


def test_every_number_of_the_paper_and_every_benchmark_has_a_column_title() -> None:
    reported = {key for arm in paper.ROWS.values() for key in arm.reported}
    assert reported <= KNOWN.keys()
    assert {metric.benchmark for metric in METRICS} == TITLES.keys() >= BENCHMARKS.keys()
    assert PLACES.keys() <= TITLES.keys()
    assert len(KNOWN) == len(METRICS)
