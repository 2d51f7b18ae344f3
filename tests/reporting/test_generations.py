"""Oracle: sizes and numbers that are written down by hand, and the rows of the page, the Markdown and the CSV."""

from dataclasses import replace
from pathlib import Path

from generations_of_a_corpus import commit_index, stored
from report_world import Reader, World

from previts.corpus import index_table
from previts.reporting import generations
from previts.reporting.generations import SHOWN, Generation
from previts.reporting.page import build_report
from previts.reporting.turnover import read_generations
from previts.storage import files, folders


def commit_report(root: str, index: str, lines: str) -> str:
    """Commit a report on an index with the lines of its CSV, and return its URI."""
    decided = {"index": index}
    uri = folders.address(root, "report", "comparison", decided)
    files.write_bytes(files.join(uri, generations.CSV), f"row,metric,value\n{lines}\n".encode())
    folders.commit(uri, decided, inputs={"index": index}, files=[generations.CSV])
    return uri


def grown(root: str, count: int) -> list[Generation]:
    """Return generations of 1, 2, ... crawls of one video; each has reports with the number of its crawls as mAP."""
    indexes = [
        commit_index(root, {f"c{n}": [stored(f"v{n}")] for n in range(crawls)}) for crawls in range(1, count + 1)
    ]
    reports = [
        commit_report(root, index, f"1/moco,voc07/map,{number}\n1/gone,voc07/map,{number + 0.5}")
        for number, index in enumerate(indexes[:-1], start=1)
    ]
    return read_generations(reports, indexes[-1])


def test_the_tables_have_the_newest_generations_and_the_curves_and_the_run_log_all(world: World, tmp_path: Path):
    count = SHOWN + 3
    found = grown(str(tmp_path), count)
    build_report(world.results, str(tmp_path / "out"), world.rows, generations=found)
    page = Reader((tmp_path / "out" / "report.html").read_text())
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    start = lines.index("## Generations of the corpus")
    sized = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 4 : start + 4 + SHOWN]]
    assert [line[:4] for line in sized] == [
        [str(number), str(number), f"{number} (+1)", f"{number} (+1)"] for number in range(4, count + 1)
    ]
    (head,) = [line for line in lines if line.startswith("| arm | number | 4 |")]
    (measured,) = [line for line in lines[start:] if line.startswith("| MoCo | VOC07")]
    cells = [cell.strip() for cell in measured.strip("|").split("|")]
    assert head.count("|") == measured.count("|") == SHOWN + 4
    assert cells[2:] == [*(f"{number}.0" for number in range(4, count)), "31.2", f"+{31.25 - count + 1:.1f}"]
    assert page.row("MoCo 1/moco")[-len(cells[2:]) :] == cells[2:]
    (gone,) = [line for line in lines[start:] if line.startswith("| never trained | VOC07")]
    assert [cell.strip() for cell in gone.strip("|").split("|")][-3:] == [f"{count - 0.5}", "", ""]
    labels = [attributes.get("aria-label") for _, attributes in page.tags]
    assert "mAP of each arm over the generations" in labels
    # The run log has all generations.
    last = replace(found[-1], numbers={("1/moco", "voc07/map"): 31.25, ("1/moco", "voc07/unknown"): 1.0})
    *points, (step, about) = generations.trial_points([*found[:-1], last], ["1/moco"])
    line = [(number, {"generations/voc07/map": float(number)}) for number in range(1, count)]
    assert points == [*line, (count, {"generations/voc07/map": 31.25})]
    assert (step, about["generation"], about["corpus/videos"]) == (count, count, count)
    assert (about["voc07/map.previous"], about["voc07/map.change"]) == (count - 1, 31.25 - count + 1)
    sizes = generations.corpus_points(found)
    assert [(number, values.get("corpus/videos"), values.get("came/videos")) for number, values in sizes[:-1]] == [
        (number, number, None if number < 4 else 1) for number in range(1, count + 1)
    ]


def test_generations_that_cannot_be_compared_are_named_with_the_cause(world: World, tmp_path: Path):
    root = str(tmp_path)
    first, second, third = (
        commit_index(root, {f"c{n}": [stored(f"v{n}")] for n in range(crawls)}) for crawls in (1, 2, 3)
    )
    reports = [commit_report(root, index, "1/moco,voc07/map,1") for index in (first, second)]
    Path(files.join(first, index_table.QUALITY)).unlink()
    found = read_generations(reports, third)
    build_report(world.results, str(tmp_path / "out"), world.rows, generations=found)
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        f"- Generation 2 was not compared with the one before: {first}/quality.parquet is missing".replace("_", "\\_")
        in text
    )
    assert "| 3 | 3 | 3 (+1) | 3 (+1) |" in text


def test_the_csv_has_the_numbers_of_the_generation_before(world: World, tmp_path: Path):
    build_report(world.results, str(tmp_path / "out"), world.rows, generations=grown(str(tmp_path), 3))
    cells = World([], [], tmp_path / "out", {}).cells
    found = {key: (line["value"], line["previous"], line["change"]) for key, line in cells.items()}
    assert found["1/moco", "voc07/map"] == ("31.25", "2.0", "29.25")
    assert found["1/gone", "voc07/map"] == ("", "2.5", "")
    assert found["1/previts", "voc07/map"] == ("34.5", "", "")
