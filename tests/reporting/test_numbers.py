"""Oracles: stored results, differences by hand, counts of test items."""

import csv
import json
import re
from pathlib import Path

import pytest
from report_world import (
    Reader,
    World,
    fingerprint,
    make_result,
)

from previts.evals.outcome import Population
from previts.reporting import inputs
from previts.reporting.page import build_report
from previts.storage import files, folders


def test_csv_has_each_number_of_each_result(world: World) -> None:
    moco, previts = (world.rows[number].fingerprint for number in (0, 1))
    row_of = {moco: ["1/moco"], previts: ["1/previts", "1/same", "6b/mu"]}
    measured = set()
    for uri in world.results:
        document = json.loads(files.read_bytes(files.join(uri, "result.json")))
        for row in row_of[document["checkpoint"]]:
            for key, value in document["metrics"].items():
                if value is None:
                    assert world.cells[row, key]["cause"] == "This number is not defined on the test items."
                    continue
                line = world.cells[row, key]
                assert float(line["value"]) == value
                assert (line["status"], line["cause"]) == ("measured", "")
                assert line["checkpoint"] == document["checkpoint"]
                measured.add((row, key))
    for cell, line in world.cells.items():
        if cell not in measured:
            assert line["value"] == ""
            assert line["cause"]
            assert line["status"] in ("failed", "missing")
    assert {(line["metric"], line["unit"]) for line in world.cells.values()} >= {
        ("voc07/map", "percent"),
        ("davis/j_mean", "fraction"),
    }
    assert world.counts["measured"] == len(measured)
    assert world.counts["measured"] + world.counts["failed"] + world.counts["missing"] == len(world.cells)


def test_a_missing_number_is_an_empty_cell_with_its_cause(world: World, page: Reader) -> None:
    assert "not run" in world.cells["1/previts", "in1k/top1"]["cause"]
    assert world.cells["1/previts", "in1k/top1"]["status"] == "missing"
    assert "was not found" in world.cells["1/moco", "in9/original"]["cause"]
    assert "no finished checkpoint" in world.cells["1/gone", "davis/j_mean"]["cause"]
    cells = page.row("MoCo")
    original = next(cell for cell in cells if "77.9" in cell)
    assert re.fullmatch(r"failed \[\d\] paper 77\.9", original)
    number = re.search(r"\[(\d)\]", original)
    assert number
    assert f"{number[1]}. Evaluation failed: " in world.markdown
    # A measured zero is shown as 0. A missing number is not shown as a number.
    assert [cell for cell in cells if re.match(r"0\.0*(?!\d)", cell)] == ["0.000"]
    assert not [cell for cell in page.row("never trained")[1:] if re.match(r"\W?\d", cell)]


def test_rows_of_one_checkpoint_show_the_same_numbers(world: World, page: Reader) -> None:
    one, same = page.row("+ PreViTS"), page.row("mu = 0.3")
    assert one[1:] == same[1:]
    assert len([cell for cell in one if cell.startswith("0.500")]) == 2
    values = [
        {key: line["value"] for (name, key), line in world.cells.items() if name == row}
        for row in ("1/previts", "1/same")
    ]
    assert values[0] == values[1]


def test_difference_to_the_first_arm_and_best_of_the_column(page: Reader, world: World) -> None:
    assert page.row("+ PreViTS")[1] == "34.5 +3.2 paper 73.0 (+4.7)"  # 34.5 - 31.25 = 3.25, rounded to the even digit
    assert page.row("MoCo")[1] == "31.2 paper 68.3"
    best = re.findall(r'<td class="[^"]*best">\s*<b>([^<]*)</b>', world.html)
    # mAP, J mean and J decay (lower is better) twice each, because two rows of table 1 share the encoder.
    # J recall is equal in all three rows, and table 6b has one row: nothing is best there.
    assert sorted(best) == sorted(["34.5", "34.5", "0.500", "0.500", "\N{MINUS SIGN}0.020", "\N{MINUS SIGN}0.020"])
    # One seed without outcomes of test items: no difference has a colour.
    verdicts = re.findall(r'<span class="(up|down|same)">([^<a-z]*)</span>', world.html)
    assert {("same", "+3.2"), ("same", "+0.188"), ("same", "\N{MINUS SIGN}0.020"), ("same", "±0.000")} == set(verdicts)


def test_numbers_that_the_paper_quotes_are_in_their_table(world: World, tmp_path: Path) -> None:
    rows = [inputs.ReportRow("3/mine", "Mine", str(tmp_path / "none"), "nothing", {"voc07/map": 91.8})]
    cited = {"3": {"Theirs": {"voc07/map": 87.9}}, "4": {"Elsewhere": {"voc07/map": 1.0}}}
    build_report(world.results, str(tmp_path), rows, cited=cited)
    markdown = (tmp_path / "report.md").read_text()
    assert "| Theirs | paper 87.9 |" in markdown
    assert "Elsewhere" not in markdown
    assert re.search(r"\| Mine \| failed \(\d\) / paper 91\.8 \|", markdown)
    page = Reader((tmp_path / "report.html").read_text())
    assert page.row("Theirs")[1:2] == ["87.9"]
    assert "87.9" not in (tmp_path / "report.csv").read_text()  # it has measured numbers only


def arms(tmp_path: Path, metrics: list[dict[str, float]], populations: dict[str, Population] | None = None) -> World:
    """A report of some arms, each with its own checkpoint, on one benchmark."""
    rows, results = [], []
    for number, numbers in enumerate(metrics):
        uri = str(tmp_path / "checkpoints" / f"resnet-{number}")
        folders.commit(uri, {"number": number})
        rows.append(inputs.ReportRow(f"1/{number}", f"arm {number}", uri, fingerprint(uri)))
        benchmark = next(iter(numbers)).split("/")[0]
        results.append(make_result(tmp_path, benchmark, uri, dict(numbers), populations=populations))
    target = tmp_path / "out"
    return World(results, rows, target, build_report(results, str(target), rows, profile="demo"))


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.0, 0.0, 0.0], []),
        ([31.21, 31.24, 31.19], []),  # all displayed as 31.2
        ([31.0], []),
        ([30.0, 31.21, 31.24], ["31.2", "31.2"]),
        ([30.0, 31.0, 29.0], ["31.0"]),
    ],
)
def test_the_best_is_marked_only_where_displayed_values_differ(
    tmp_path: Path, values: list[float], best: list[str]
) -> None:
    world = arms(tmp_path, [{"in1k/top1": value} for value in values])
    assert re.findall(r'<td class="[^"]*best">\s*<b>([^<]*)</b>', world.html) == best
    assert re.findall(r"\*\*(\d[^*]*)\*\*", world.markdown) == best


def test_heads_have_the_chance_level_and_the_test_items(tmp_path: Path) -> None:
    populations = {"in1k/top1": Population(108, "images", 100 / 9), "in1k/top5": Population(5000, "images", 50.0)}
    world = arms(tmp_path, [{"in1k/top1": 12.0, "in1k/top5": 40.0}] * 2, populations)
    head = next(row for row in Reader(world.html).rows if any("Top-1" in cell for cell in row))
    words = [" ".join(cell.split()) for cell in head]
    assert words == ["Top-1 ↑ chance 11.1 108 images †", "Top-5 ↑ chance 50.0 5,000 images"]
    legend = "† Fewer than 200 test items: differences of a few points are noise."
    assert legend in Reader(world.html).text
    assert legend in world.markdown
    assert "ImageNet-1k Top-1 ↑ (chance 11.1 · 108 images †)" in world.markdown
    assert "ImageNet-1k Top-5 ↑ (chance 50.0 · 5,000 images)" in world.markdown
    line = world.cells["1/0", "in1k/top1"]
    assert (line["items"], float(line["chance"])) == ("108", 100 / 9)


def test_a_metric_without_chance_level_and_a_result_of_an_earlier_version(tmp_path: Path) -> None:
    sequences = {"davis/j_mean": Population(20, "sequences")}
    world = arms(tmp_path / "davis", [{"davis/j_mean": 0.3}], sequences)
    assert "DAVIS 2016 J mean ↑ (20 sequences †)" in world.markdown
    assert (world.cells["1/0", "davis/j_mean"]["items"], world.cells["1/0", "davis/j_mean"]["chance"]) == ("20", "")
    old = arms(tmp_path / "old", [{"davis/j_mean": 0.3}])
    assert "| DAVIS 2016 J mean ↑ |" in old.markdown
    assert "†" not in old.html + old.markdown
    assert (old.cells["1/0", "davis/j_mean"]["items"], old.cells["1/0", "davis/j_mean"]["chance"]) == ("", "")


def test_heads_have_a_range_where_arms_were_measured_on_different_items(tmp_path: Path) -> None:
    first = arms(tmp_path / "a", [{"in1k/top1": 1.0}], {"in1k/top1": Population(100, "images", 10.0)})
    second = tmp_path / "checkpoints" / "resnet-z"
    folders.commit(str(second), {"name": "z"})
    more = make_result(
        tmp_path, "in1k", str(second), {"in1k/top1": 2.0}, populations={"in1k/top1": Population(1000, "images", 10.0)}
    )
    rows = [*first.rows, inputs.ReportRow("1/z", "arm z", str(second), fingerprint(str(second)))]
    build_report([*first.results, more], str(tmp_path / "out"), rows)
    assert "(chance 10.0 · 100 to 1,000 images †)" in (tmp_path / "out" / "report.md").read_text()


def test_many_items_have_no_mark(world: World) -> None:
    assert "VOC07 mAP ↑ (chance 7.7 · 4,952 images)" in world.markdown
    assert "†" not in world.html + world.markdown


def test_the_csv_has_no_text_that_a_spreadsheet_runs_and_its_numbers_stay_numbers(tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoints" / "resnet-x")
    folders.commit(uri, {})
    result = make_result(tmp_path, "davis", uri, {"davis/j_mean": 0.5, "davis/j_decay": -0.25})
    rows = [inputs.ReportRow(name, "an arm", uri, fingerprint(uri), {"voc07/map": 1.0}) for name in ("=1+1", "@arm")]
    build_report([result], str(tmp_path / "out"), rows)
    with open(tmp_path / "out" / "report.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["row"] for line in lines} == {"'=1+1", "'@arm"}
    assert {line["value"] for line in lines if line["metric"] == "davis/j_decay"} == {"-0.25"}


def test_a_benchmark_that_no_arm_was_evaluated_on_has_no_column(world: World, tmp_path: Path) -> None:
    only = [
        uri for uri in world.results if "/voc07-" in uri or "voc07" in files.read_bytes(f"{uri}/result.json").decode()
    ]
    target = str(tmp_path / "report")
    build_report(only, target, world.rows)
    text = files.read_bytes(files.join(target, "report.md")).decode()
    table = text[text.index("## Table 1") :].split("## ")[1]
    assert "VOC07 mAP" in table
    assert "COCO" not in table.splitlines()[2]
    absent = re.search(r"Not run: (.*)\. The command previts show", table)
    assert absent
    reported = {key.split("/")[0] for row in world.rows for key in row.reported if row.name.startswith("1/")}
    assert len(absent[1].split(", ")) == len(reported - {"voc07"})
    assert absent[1] in files.read_bytes(files.join(target, "report.html")).decode()
