"""Oracles: SciPy's paired t test on the raw values, and the rates at which planted and absent effects are found."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_world import Reader, SeededArm, World, make_seeded
from scipy import stats
from simulated_tables import items_table, seeded_table, verdicts

from previts.evals.outcome import ITEMS, ItemScores, item_scores
from previts.evals.result import Result
from previts.reporting.inputs import ReportRow, Seed
from previts.reporting.numbers import Table, make_tables
from previts.reporting.page import build_report
from previts.storage import files

NAMES = [f"class/{number}.jpg" for number in range(120)]
BASE = [60.0, 61.5, 59.2, 60.4, 62.0]
BETTER = [64.1, 65.2, 63.6, 64.0, 66.5]
NOISY = [61.0, 60.5, 60.9, 60.2, 62.1]
MAP = "voc07/map"


def seeded(numbers: list[float | None], metric: str = MAP) -> dict[int, dict[str, float | None] | None]:
    return {seed: None if value is None else {metric: value} for seed, value in enumerate(numbers)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An arm that is better, one within the noise, and one of which one seed was not trained."""
    return make_seeded(
        tmp_path_factory.mktemp("seeds"),
        [
            SeededArm("6a/base", seeded([*BASE]), {MAP: 70.0}),
            SeededArm("6a/better", seeded([*BETTER]), {MAP: 73.0}),
            SeededArm("6a/noisy", seeded([*NOISY]), {MAP: 69.0}),
            SeededArm("6a/partial", seeded([*BETTER[:3], None, BETTER[4]]), {}),
        ],
    )


def test_the_csv_has_the_intervals_of_the_paired_t_test(world: World):
    line = world.cells["6a/better", MAP]
    own, paired = stats.ttest_1samp(BETTER, 0), stats.ttest_rel(BETTER, BASE)
    expected = {
        "value": np.mean(BETTER), "seeds": 5, "sd": np.std(BETTER, ddof=1), "low": own.confidence_interval().low,
        "high": own.confidence_interval().high, "difference": np.mean(np.subtract(BETTER, BASE)), "difference_n": 5,
        "difference_low": paired.confidence_interval().low, "difference_high": paired.confidence_interval().high,
        "p": paired.pvalue, "comparisons": 3, "p_corrected": 3 * paired.pvalue,
        "joint_low": paired.confidence_interval(1 - 0.05 / 3).low,
        "joint_high": paired.confidence_interval(1 - 0.05 / 3).high,
    }  # fmt: skip
    assert {name: float(line[name]) for name in expected} == pytest.approx(expected)
    assert (line["source"], line["difference_source"]) == ("seeds", "seeds")
    base = world.cells["6a/base", MAP]
    assert (base["seeds"], base["difference"], base["p"], base["comparisons"]) == ("5", "", "", "")


def test_only_a_difference_beyond_the_noise_has_a_colour(world: World):
    found = re.findall(r'<span class="(up|down|same)">([^<]*) <small', world.html)
    assert found == [("up", "+4.1"), ("same", "+0.3"), ("up", "+4.2")]


def test_a_difference_that_is_certain_alone_may_be_noise_among_many(tmp_path: Path):
    shifted = [value + shift for value, shift in zip(BASE, (1.0, 0.2, 1.4, 0.4, 1.2), strict=True)]
    p = stats.ttest_rel(shifted, BASE).pvalue
    assert 0.05 / 3 < p < 0.05
    arms = [
        SeededArm("6a/base", seeded([*BASE]), {MAP: 70.0}),
        SeededArm("6a/shifted", seeded([*shifted]), {MAP: 71.0}),
    ]
    more = [SeededArm(f"6a/noisy{number}", seeded([value + number for value in NOISY]), {}) for number in range(2)]
    assert '<span class="up">+0.8' in make_seeded(tmp_path / "alone", arms).html
    among = make_seeded(tmp_path / "among", [*arms, *more])
    assert '<span class="same">+0.8' in among.html
    assert "1 of 1 comparison points the way that the paper's do, 0 of them beyond noise." in among.markdown
    assert float(among.cells["6a/shifted", MAP]["p_corrected"]) == pytest.approx(3 * p)


def test_a_seed_that_was_not_trained_is_counted_and_named(world: World):
    cell = Reader(world.html).row("6a/partial")[1]
    number = re.search(r"4 of 5 seeds \[(\d)\]", cell)
    assert number
    note = next(line for line in world.markdown.splitlines() if line.startswith(f"{number[1]}. "))
    assert note.startswith(f"{number[1]}. Seed 3: This arm has no finished checkpoint")
    assert "(4 of 5 seeds, note " in world.markdown
    line = world.cells["6a/partial", MAP]
    others = [0, 1, 2, 4]
    paired = stats.ttest_rel([BETTER[seed] for seed in others], [BASE[seed] for seed in others])
    assert (line["seeds"], line["difference_n"], line["status"]) == ("4", "4", "measured")
    assert float(line["p"]) == pytest.approx(paired.pvalue)
    assert Reader(world.html).text.count("19 of 20") == 1  # trained encoders


def test_the_page_shows_the_first_seed_and_says_so(world: World):
    anchors = set(re.findall(r'id="(checkpoints-[^"]*)"', world.html))
    assert anchors == {f"checkpoints-{row.fingerprint}" for row in world.rows}
    assert world.html.count('id="results-') == len(world.rows)
    for text in (Reader(world.html).text, world.markdown):
        assert "trained with 5 seeds, and its numbers are means over them." in " ".join(text.split())
    assert "provenance are those of its first seed" in world.markdown


def test_a_cause_that_all_seeds_share_is_said_once(tmp_path: Path):
    arms = [
        SeededArm("6a/base", seeded([*BASE]), {MAP: 70.0, "in1k/top1": 50.0}),
        SeededArm("6a/none", seeded([None] * 5), {MAP: 71.0}),
    ]
    world = make_seeded(tmp_path, arms)
    assert ("6a/base", "in1k/top1") not in world.cells
    assert "Not run: ImageNet-1k." in world.markdown
    line = world.cells["6a/none", MAP]
    assert (line["status"], line["seeds"], line["difference"]) == ("failed", "", "")
    assert line["cause"].count("This arm has no finished checkpoint") == 5  # each names its checkpoint
    assert line["cause"].startswith("Seed 0: ")


def test_the_page_counts_the_differences_that_point_the_way_of_the_paper(world: World):
    sentence = "1 of 2 comparisons point the way that the paper's do, 1 of them beyond noise."
    assert sentence in world.markdown
    assert sentence in Reader(world.html).text
    assert "The other way: 6a/noisy, VOC07 mAP (+0.3, paper \N{MINUS SIGN}1.0)." in Reader(world.html).text
    assert "paper 73.0 (+3.0)" in Reader(world.html).row("6a/better")[1]


def test_numbers_without_a_better_direction_are_no_comparisons(tmp_path: Path):
    arms = [
        SeededArm("x/base", seeded([*BASE], "in9/no_fg"), {"in9/no_fg": 20.0}),
        SeededArm("x/better", seeded([*BETTER], "in9/no_fg"), {"in9/no_fg": 22.0}),
    ]
    world = make_seeded(tmp_path, arms)
    line = world.cells["x/better", "in9/no_fg"]
    assert (line["comparisons"], line["p_corrected"]) == ("", "")
    assert float(line["p"]) < 0.001
    assert '<span class="same">+4.1</span>' in world.html
    assert "point the way" not in world.markdown


def test_an_arm_that_shares_the_trainings_of_the_baseline_does_not_differ(tmp_path: Path):
    world = make_seeded(
        tmp_path, [SeededArm("6a/base", seeded([*BASE]), {}), SeededArm("6a/better", seeded([*BETTER]), {})]
    )
    rows = [world.rows[0], *(replace(row, name=f"6a/{place}") for place, row in enumerate(world.rows))]
    build_report(world.results, str(world.target), rows)
    assert (world.cells["6a/0", MAP]["difference"], world.cells["6a/0", MAP]["p"]) == ("0.0", "")
    assert world.cells["6a/1", MAP]["comparisons"] == "1"
    assert "without an interval" not in world.markdown


def test_arms_without_a_common_seed_are_not_compared(tmp_path: Path):
    arms = [SeededArm("6a/base", seeded([*BASE]), {MAP: 70.0}), SeededArm("6a/other", {7: {MAP: 80.0}}, {MAP: 71.0})]
    world = make_seeded(tmp_path, arms)
    line = world.cells["6a/other", MAP]
    assert (line["value"], line["difference"], line["comparisons"]) == ("80.0", "", "")
    assert "an earlier version wrote it. (6a/other (voc07/map))" in world.markdown.replace("\\", "")
    both = make_seeded(tmp_path / "both", [arms[0], SeededArm("6a/other", {7: {MAP: 80.0}, 8: {MAP: 81.0}}, {})])
    assert "no seed in common with the baseline" in both.markdown


def test_the_baseline_is_the_first_arm_that_is_trained(tmp_path: Path):
    arms = [
        SeededArm("1/random", seeded([value - 20 for value in NOISY]), {}),
        SeededArm("1/vgg/moco", seeded([*BASE]), {}),
        SeededArm("1/vgg/previts", seeded([*BETTER]), {}),
    ]
    world = make_seeded(tmp_path, arms)
    assert world.cells["1/vgg/moco", MAP]["difference"] == ""
    assert float(world.cells["1/vgg/previts", MAP]["difference"]) == pytest.approx(np.mean(BETTER) - np.mean(BASE))
    assert float(world.cells["1/random", MAP]["difference"]) == pytest.approx(np.mean(NOISY) - 20 - np.mean(BASE))


def answers(rate: float, seed: int, metric: str = "in1k/top1") -> dict[int, dict[str, ItemScores]]:
    return {0: {metric: item_scores(NAMES, 100.0 * (np.random.default_rng(seed).random(len(NAMES)) < rate))}}


def test_one_seed_has_an_interval_over_test_items_named_as_such(tmp_path: Path):
    items = [answers(0.3, 0), answers(0.7, 1), answers(0.32, 2)]
    arms = [
        SeededArm(f"6a/{n}", seeded([float(item[0]["in1k/top1"].values.mean())], "in1k/top1"), {}, items=item)
        for n, item in enumerate(items)
    ]
    world = make_seeded(tmp_path, arms)
    line = world.cells["6a/1", "in1k/top1"]
    first, second = (item[0]["in1k/top1"].values for item in items[:2])
    paired = stats.ttest_rel(second, first)
    assert (line["seeds"], line["source"], line["difference_source"], line["difference_n"]) == (
        "1",
        "items",
        "items",
        "120",
    )
    assert float(line["difference"]) == pytest.approx((second - first).mean())
    expected = paired.confidence_interval(1 - 0.05 / 2)
    found = [float(line["joint_low"]), float(line["joint_high"])]
    assert found == pytest.approx([expected.low, expected.high], abs=0.05 * (expected.high - expected.low))
    assert re.search(r'<span class="up">\+\d+\.\d <small class="half">± \d+\.\d ‡</small>', world.html)
    assert "‡ Over the test items of one training" in Reader(world.html).text
    assert "‡ Over the test items of one training" in world.markdown


def test_why_a_number_has_no_interval_is_said(tmp_path: Path):
    items = [answers(0.3, 0), answers(0.6, 1), answers(0.6, 2), None, answers(0.5, 3)]
    renamed = item_scores([f"other/{name}" for name in range(120)], answers(0.5, 3)[0]["in1k/top1"].values)
    items[4] = {0: {"in1k/top1": renamed}}
    values = [float(item[0]["in1k/top1"].values.mean()) if item else 50.0 for item in items]
    values[2] += 1  # not the number of its answers
    arms = [
        SeededArm(f"6a/{n}", {0: {"in1k/top1": value, "voc_det/ap": 40.0 + n}}, {}, items=item)
        for n, (value, item) in enumerate(zip(values, items, strict=True))
    ]
    world = make_seeded(tmp_path, arms)
    reasons = world.markdown.partition("without an interval:")[2]
    for words in (
        "give another number", "an earlier version wrote it", "measured on other test items",
        "average precision of detections is not computed from single test items",
    ):  # fmt: skip
        assert words in reasons
        assert words in Reader(world.html).text
    assert "6a/3 (in1k/top1)" in reasons
    assert world.cells["6a/1", "in1k/top1"]["comparisons"] == "1"
    baseline = next(uri for uri in world.results if f"in1k-{world.rows[0].fingerprint}" in uri)
    files.write_bytes(files.join(baseline, ITEMS), b"PK")
    build_report(world.results, str(world.target), world.rows)
    assert "items.npz was changed after" in world.markdown
    assert world.cells["6a/1", "in1k/top1"]["comparisons"] == ""
    assert world.cells["6a/0", "in1k/top1"]["value"] == str(values[0])


def false_alarms(make: Callable[[np.random.Generator], Table], tables: int = 200) -> int:
    generator = np.random.default_rng(5)
    return sum(any(verdict != "same" for verdict in verdicts(make(generator))) for _ in range(tables))


# Of 200 tables with a false alarm at a rate of 5 %, more than this many have one with a probability of 0.1 %.
MOST = int(stats.binom.isf(0.001, 200, 0.05))


@pytest.mark.parametrize("seeds", [2, *(pytest.param(seeds, marks=pytest.mark.long) for seeds in (3, 5))])
def test_seeds_without_an_effect_colour_at_most_a_twentieth_of_the_tables(seeds: int):
    assert false_alarms(lambda generator: seeded_table(generator, [0.0] * 4, seeds=seeds, metrics=5)) <= MOST


def test_rounded_numbers_without_an_effect_colour_at_most_a_twentieth_of_the_tables():
    assert false_alarms(lambda generator: seeded_table(generator, [0.0] * 4, seeds=3, metrics=5, step=0.93)) <= MOST


@pytest.mark.parametrize(("items", "rate"), [(40, 0.6), pytest.param(100, 0.9, marks=pytest.mark.long)])
def test_items_without_an_effect_colour_at_most_a_twentieth_of_the_tables(items: int, rate: float):
    assert false_alarms(lambda generator: items_table(generator, [rate] * 3, items=items, metrics=3)) <= MOST


def power(effect: float, error: float, freedom: int, comparisons: int) -> float:
    """The probability that the paired t test finds an effect, corrected for a number of comparisons."""
    critical = stats.t.isf(0.05 / comparisons / 2, freedom)
    return float(stats.nct.sf(critical, freedom, effect / error))


@pytest.mark.parametrize(("seeds", "effect"), [(3, 8.0), (5, 3.0), pytest.param(5, 4.0, marks=pytest.mark.long)])
def test_an_effect_between_seeds_is_found_at_the_rate_of_its_power(seeds: int, effect: float):
    tables, generator = 400, np.random.default_rng(6)
    found = [verdicts(seeded_table(generator, [0.0, effect, 0.0], seeds=seeds, metrics=2)) for _ in range(tables)]
    expected = power(effect, np.sqrt(2 / seeds), seeds - 1, 4)  # each of two arms has a variance of 1
    assert 0.2 < expected < 0.9
    # Two independent metrics a table; a deviation of four standard deviations happens once in 16,000.
    tolerance = 4 * np.sqrt(expected * (1 - expected) / (2 * tables))
    assert np.mean([line[:2] for line in found] == np.array("up")) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("items", "rates"), [(60, (0.4, 0.7)), pytest.param(150, (0.5, 0.68), marks=pytest.mark.long)])
def test_an_effect_between_items_is_found_at_the_rate_of_its_power(items: int, rates: tuple[float, float]):
    tables, generator = 200, np.random.default_rng(7)
    found = [verdicts(items_table(generator, rates, items=items, metrics=2)) for _ in range(tables)]
    error = np.sqrt(sum(rate * (1 - rate) for rate in rates) / items)
    expected = power(rates[1] - rates[0], error, items - 1, 2)
    assert 0.2 < expected < 0.95
    tolerance = 4 * np.sqrt(expected * (1 - expected) / (2 * tables))
    assert np.mean(np.array(found) == "up") == pytest.approx(expected, abs=tolerance)


def test_a_row_with_the_trainings_of_the_baseline_has_no_order(tmp_path: Path):
    """As 1/k400/moco and 1/vgg/moco, which the paper pretrained on two corpora, and a run pretrains on one."""
    arms = [SeededArm("1/a", seeded([*BASE]), {MAP: 69.0}), SeededArm("1/b", seeded([*BETTER]), {MAP: 70.0})]
    world = make_seeded(tmp_path, arms)
    first, second = world.rows
    again = replace(first, name="1/c", title="1/c", reported={MAP: 68.0})
    uri = str(tmp_path / "again")
    build_report(world.results, uri, [first, again, second])
    text = files.read_bytes(files.join(uri, "report.md")).decode()
    assert "1 of 1 comparison points the way that the paper's do" in text
    assert "No difference" not in text


def test_each_corpus_has_its_baseline_whatever_the_order_and_a_comparison_counts_once():
    """A run on one corpus pretrains 1/vgg/previts and 1/k400/previts once, so their differences are one comparison."""
    values = {"moco": [60.0, 61.5, 59.0], "previts": [64.0, 66.5, 65.2]}
    names = ["1/vgg/previts", "1/random", "1/k400/moco", "1/vgg/moco", "1/k400/previts"]
    rows = [
        ReportRow(name, name, "", "", seeds=tuple(Seed(n, "", f"{name[-4:]}{n}") for n in range(3))) for name in names
    ]
    trained = {
        f"{name[-4:]}{n}": values[arm][n] for arm, name in (("moco", "moco"), ("previts", "vits")) for n in range(3)
    }
    trained |= {f"ndom{n}": 30.0 + n for n in range(3)}
    results = [Result("", "voc07", checkpoint, metrics={MAP: value}) for checkpoint, value in trained.items()]
    (table,) = make_tables(rows, results, dict.fromkeys(trained, ""), {})
    assert table.baselines == {2, 3}
    assert table.comparisons == 2  # PreViTS and the random weights
    cells = dict(zip(names, [cells[0] for _, cells in table.rows], strict=True))
    assert cells["1/vgg/moco"].difference is cells["1/k400/moco"].difference is None
    paired = stats.ttest_rel(values["previts"], values["moco"]).confidence_interval(1 - 0.05 / 2)
    for corpus in ("vgg", "k400"):
        cell = cells[f"1/{corpus}/previts"]
        assert cell.delta == pytest.approx((paired.low + paired.high) / 2)
        assert cell.delta_half_width == pytest.approx((paired.high - paired.low) / 2)


def test_a_table_has_no_columns_for_the_benchmarks_of_another_table_that_shares_its_trainings():
    """Else the correction of table 6d would depend on whether table 1 is shown."""
    shared = {"1/vgg/moco": "m", "1/vgg/previts": "p", "6d/none": "m", "6d/unsupervised": "p"}
    rows = [
        ReportRow(name, name, "", f"{key}0", {MAP: 68.3}, seeds=tuple(Seed(n, "", f"{key}{n}") for n in range(2)))
        for name, key in shared.items()
    ]
    results = [
        Result("", benchmark, f"{key}{n}", metrics={metric: value + n * extra})
        for key, value, extra in (("m", 60.0, 1.0), ("p", 64.0, 1.5))
        for n in range(2)
        for benchmark, metric in (("voc07", MAP), ("in9", "in9/original"))
    ]
    causes = {f"{key}{n}": "" for key in "mp" for n in range(2)}
    found = {table.name: table for table in make_tables(rows, results, causes, {})}
    assert {name: [metric.key for metric in table.metrics] for name, table in found.items()} == {
        "1": [MAP], "4, images": ["in9/original"], "6d": [MAP],
    }  # fmt: skip
    assert found["6d"].comparisons == 1
    (alone,) = make_tables(rows[2:], results, causes, {})
    assert [metric.key for metric in alone.metrics] == [MAP, "in9/original"]  # as with --benchmarks


def test_rows_with_other_encoders_are_not_compared():
    rows = [ReportRow(f"as-released/{kind}", kind, "", kind) for kind in ("image", "video")]
    results = [Result("", kind, kind, metrics={"davis/j_mean": 0.5}) for kind in ("image", "video")]
    (table,) = make_tables(rows, results, {"image": "", "video": ""}, {})
    assert (table.baselines, table.comparisons) == (set(), 0)
