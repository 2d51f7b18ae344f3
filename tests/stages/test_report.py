"""The verb `report` on a small synthetic world."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from mlflow_runs import client_of, runs_of
from small_verbs import SMALL

from previts import stages
from previts.config import paper
from previts.errors import InputError
from previts.evals.result import read_result
from previts.storage import files, folders


def test_the_report_shows_which_rows_were_not_trained(made):
    page = files.read_bytes(files.join(made["report"], "report.html")).decode()
    assert page == (Path(made["root"]) / "report.html").read_text()
    for row in paper.expand(["1/vgg/previts", "6b"]):
        assert row.name in page
    cells = files.read_bytes(files.join(made["report"], "report.csv")).decode().splitlines()
    missing = [line for line in cells if line.startswith("6b/mu=0.2,")]
    assert missing
    assert all(",0.0," not in line for line in missing)


def test_numbers_of_one_seed_have_intervals_over_the_test_items_of_their_benchmarks(made, tmp_path):
    root = str(tmp_path / "root")
    shutil.copytree(made["root"], root)
    checkpoint, index = (made[name].replace(made["root"], root) for name in ("checkpoint", "index"))
    results = [
        stages.evaluate("1/vgg/previts", name, checkpoint, made["data"], root, "demo", SMALL)
        for name in ("voc07", "in9")
    ]
    uri = stages.report(["1/vgg/previts"], index, results, root, "demo", SMALL)
    lines = list(csv.DictReader(io.StringIO(files.read_bytes(files.join(uri, "report.csv")).decode())))
    found = {line["metric"]: line for line in lines if line["value"]}
    for name in ("voc07/map", "in9/original", "in9/only_fg"):
        line = found[name]
        assert (line["source"], line["seeds"]) == ("items", "1"), name
        assert line["value"] in {repr(result.metrics.get(name)) for result in map(read_result, results)}  # all digits
        assert float(line["low"]) < float(line["value"]) < float(line["high"]), name


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("6b/mu=0.22:{index}", r"there is no row '6b/mu=0.22' \(did you mean '6b/mu=0.2'\?\)"),
        ("6:{index}", "6 is a group of tables.* give its tables: 6a 6b 6c 6d"),
        ("6c:{index}", "the report shows no row of 6c; its rows are 1/vgg/previts, 6b/mu=0.0"),
        ("6b:{index}x", "--index has two indexes for 6b"),
    ],
)
def test_an_index_of_a_row_that_is_misspelt_or_not_shown_is_refused(made, extra, message):
    given = [made["index"], f"6b:{made['index']}", extra.format(index=made["index"])]
    with pytest.raises(InputError, match=message):
        stages.report(["1/vgg/previts", "6b"], given, [made["result"]], made["root"], "demo", SMALL)


def test_a_report_without_a_result_of_its_rows_is_refused(made):
    before = files.read_bytes(files.join(made["root"], "report.html"))
    place = (made["index"], [made["result"]], made["root"], "demo")
    with pytest.raises(
        InputError, match="none of the 1 results is of these rows with the profile demo and the seeds 5"
    ):
        stages.report(["1/vgg/previts"], *place, SMALL, seeds=[5])
    with pytest.raises(InputError, match=r"--set 6a:optim\.lr=1 changes nothing, because the run has no row of 6a"):
        stages.report(["1/vgg/previts"], *place, [*SMALL, "6a:optim.lr=1"])
    assert files.read_bytes(files.join(made["root"], "report.html")) == before


def test_mlflow_keeps_the_index_of_a_row_with_an_index_of_its_own(made, tmp_path):
    root = str(tmp_path / "root")
    shutil.copytree(made["root"], root)
    at = {name: uri.replace(made["root"], root) for name, uri in made.items()}
    settings = [*SMALL, "1/random:filter.duplicates=keep"]
    other = stages.index(at["videos"], at["tubes"], root, "demo", settings, row="1/random")
    assert other != at["index"]
    random = stages.pretrain("1/random", other, root, "demo", settings)
    rows, indexes = ["1/vgg/previts", "1/random"], [at["index"], f"1/random:{other}"]
    stages.report(rows, indexes, [at["result"]], root, "demo", settings)
    trials = {run.data.tags["previts.fingerprint"]: run.data.tags for run in runs_of(client_of(Path(root)))["trials"]}
    for checkpoint, index in ((at["checkpoint"], at["index"]), (random, other)):
        tags = trials[folders.fingerprint_of(checkpoint, "checkpoints")]
        assert tags["previts.index"] == folders.fingerprint_of(index, "index")


def test_the_address_of_an_index_may_contain_colons(made, tmp_path):
    folder = tmp_path / "a:b"
    folder.symlink_to(made["root"])
    index = str(folder / "index" / Path(made["index"]).name)
    rows, results, root = ["1/vgg/previts", "6b"], [made["result"]], made["root"]
    usual = stages.report(rows, made["index"], results, root, "demo", SMALL)
    assert stages.report(rows, index, results, root, "demo", SMALL) == usual


def test_a_second_call_does_not_write_the_copy_of_the_page_so_its_root_may_be_read_only(made):
    page = Path(made["root"]) / "report.html"
    call = lambda: stages.report(["1/vgg/previts", "6b"], made["index"], [made["result"]], made["root"], "demo", SMALL)  # noqa: E731
    call()
    before = page.stat()
    call()
    assert (page.stat().st_ino, page.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    page.write_text("that of another comparison")
    call()
    assert page.read_bytes() == files.read_bytes(files.join(made["report"], "report.html"))


def test_a_report_is_made_again_after_a_missing_row_was_trained(made, tmp_path):
    root = made["root"]
    before = stages.report(["1/vgg/previts", "6a/gap=zero"], made["index"], [made["result"]], root, "demo", SMALL)
    stages.pretrain("6a/gap=zero", made["index"], root, "demo", SMALL)
    after = stages.report(["1/vgg/previts", "6a/gap=zero"], made["index"], [made["result"]], root, "demo", SMALL)
    assert before != after
    with pytest.raises(InputError, match="no results were given"):
        stages.report(["1/vgg/previts"], made["index"], [], root, "demo", SMALL)


def test_a_report_is_made_again_after_its_corpus_was_compared_with_the_labelled_sets(made, tmp_path):
    root = str(tmp_path / "root")
    shutil.copytree(made["root"], root)
    at = {name: uri.replace(made["root"], root) for name, uri in made.items() if name != "data"}
    before = stages.report(["1/vgg/previts"], at["index"], [at["result"]], root, "demo", SMALL)
    assert "compared with no labelled set" in files.read_bytes(files.join(before, "report.html")).decode()
    assert stages.index(at["videos"], at["tubes"], root, data=made["data"]) == at["index"]  # nothing is shown
    assert folders.read_manifest(at["index"]).counts["leak_sets"] == 8
    after = stages.report(["1/vgg/previts"], at["index"], [at["result"]], root, "demo", SMALL)
    assert after != before
    page = files.read_bytes(files.join(after, "report.html")).decode()
    assert "compared with no labelled set" not in page
    assert "0 videos were left out because they show a test item" in page
