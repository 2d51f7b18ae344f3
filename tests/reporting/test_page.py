"""The report, read back as a browser, a spreadsheet and a Markdown viewer read it."""

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from report_world import (
    EVIL,
    Reader,
    World,
    attention_figure,
    class_figure,
    make_checkpoint,
    make_corpus,
    make_result,
    moving_square,
)

from previts.config.experiment import FilterConfig
from previts.errors import InputError
from previts.evals.outcome import Population
from previts.media import drawing
from previts.reporting import evidence, inputs
from previts.reporting.corpus import FRAMES
from previts.reporting.page import build_report
from previts.storage import files, folders

DAVIS = {"davis/j_mean": 0.3125, "davis/j_recall": 0.5, "davis/j_decay": 0.0, "davis/upsampled_j_mean": 0.29}
BETTER = DAVIS | {"davis/j_mean": 0.5, "davis/j_decay": -0.02}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    corpus = make_corpus(root, [EVIL, *(f"video-{number}" for number in range(4)), "broken"], truth=True)
    moco, previts = make_checkpoint(root, "aaa", corpus, 0.0), make_checkpoint(root, "bbb", corpus, 3.0)
    results = [
        make_result(
            root, "voc07", moco, {"voc07/map": 31.25}, populations={"voc07/map": Population(4952, "images", 7.7)}
        ),
        make_result(root, "in1k", moco, {"in1k/top1": 12.0, "in1k/top5": None}),
        make_result(root, "davis", moco, DAVIS, figure=attention_figure(0.1)),
        make_result(root, "in9", moco, {}, error=f"{EVIL} was\nnot found | anywhere " + "x" * 5000),
        make_result(root, "voc07", previts, {"voc07/map": 34.5}),
        make_result(root, "davis", previts, BETTER, figure=attention_figure(0.9)),
    ]  # fmt: skip
    rows = [
        inputs.ReportRow("1/moco", "MoCo", moco, "aaa", {"voc07/map": 68.3, "in1k/top1": 46.9, "in9/original": 77.9}),
        inputs.ReportRow("1/previts", "+ PreViTS", previts, "bbb", {"voc07/map": 73.0}),
        inputs.ReportRow("1/same", "mu = 0.3", previts, "bbb", {"voc07/map": 73.0}),
        inputs.ReportRow(
            "1/gone", "never trained", str(root / "checkpoints" / "resnet-ccc"), "ccc", {"voc07/map": 1.0}
        ),
        inputs.ReportRow("6b/mu", EVIL, previts, "bbb", {"voc07/map": 73.0}),
    ]
    target = root / "report" / "r-0"
    return World(results, rows, target, build_report(results, str(target), rows, profile="demo", index=corpus))


@pytest.fixture(scope="module")
def page(world: World) -> Reader:
    return Reader(world.html)


def test_the_image_of_all_arms_is_bright_on_the_object_where_attention_is(world: World) -> None:
    sheet = np.asarray(Image.open(world.target / "result.png").convert("RGB")).astype(float)
    _, masks = zip(*moving_square(0, 7), strict=True)
    height, width = drawing.fit(*masks[0].shape)
    mask = drawing.resize_mask(
        masks[1 + 6 // 2], np.zeros((height, width, 3), np.uint8)
    )  # the middle one of six frames
    mask = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))) > 0  # without the outline
    assert sheet.shape[1] == 3 * width + 2 * drawing.GAP  # the object, MoCo, PreViTS
    top = 24 + drawing.GAP  # below the titles
    columns = [sheet[top : top + height, place * (width + drawing.GAP) :][:, :width] for place in range(3)]
    assert np.abs(columns[0][mask] - drawing.TUBE).mean() < np.abs(columns[0][~mask] - drawing.TUBE).mean() / 2
    gains = [column[mask].mean() / column[~mask].mean() for column in columns[1:]]
    assert gains[1] > 1.5 * gains[0]


def test_without_attention_maps_there_is_no_image(world: World) -> None:
    results = inputs.read_results(world.results)
    checkpoints = inputs.read_checkpoints(world.rows)
    assert evidence.attention_sheet([item for item in results if not item.figures], checkpoints) == b""


def test_no_request_can_leave_the_page(world: World, page: Reader) -> None:
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "xlink:href", "data", "poster", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name, attributes[name][:80])
    assert not re.search(r"url\(|@import|https?://", world.html)
    assert len(world.html.encode()) == world.counts["page_bytes"] < 6e6


def test_links_of_the_page_lead_somewhere_and_ids_are_unique_outside_charts(page: Reader) -> None:
    ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag != "path"]
    assert len(ids) == len(set(ids))
    every = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {attributes["href"][1:] for _, attributes in page.tags if attributes.get("href", "").startswith("#")}
    assert {"results", "corpus", "cause-1", "index-0", "checkpoints-aaa"} <= targets <= every


def test_every_image_decodes_and_has_words(page: Reader) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    # 5 videos with a clip; 2 sequences by 2 encoders
    assert len(images) == 5 + 4
    for attributes in images:
        kind, _, code = attributes["src"].partition(";base64,")
        assert kind == "data:image/webp"
        image = Image.open(io.BytesIO(base64.b64decode(code, validate=True)))
        image.load()
        assert image.width > 4 * image.height
        assert len(attributes["alt"]) > 20


def test_csv_has_each_number_of_each_result(world: World) -> None:
    row_of = {"aaa": ["1/moco"], "bbb": ["1/previts", "1/same", "6b/mu"]}
    measured = set()
    for uri in world.results:
        document = files.read_json(files.join(uri, "result.json"))
        for row in row_of[document["checkpoint"]]:
            for key, value in document["metrics"].items():
                if value is None:
                    assert world.cells[row, key]["cause"] == "The evaluation gave None, which is not a finite number."
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
    assert "did not finish" in world.cells["1/gone", "davis/j_mean"]["cause"]
    cells = page.row("MoCo")
    original = next(cell for cell in cells if "77.9" in cell)
    assert re.fullmatch(r"failed \[\d\] paper 77\.9", original)
    number = re.search(r"\[(\d)\]", original)
    assert number
    assert f"{number[1]}. Evaluation failed: " in world.markdown
    # A measured zero is shown as one, and a missing number never is.
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
    assert page.row("+ PreViTS")[1] == "34.5 +3.2 paper 73.0"  # 34.5 - 31.25 = 3.25, to the even digit
    assert page.row("MoCo")[1] == "31.2 paper 68.3"
    best = re.findall(r'<td class="[^"]*best">\s*<b>([^<]*)</b>', world.html)
    # mAP, J mean and J decay (lower is better) twice each, because two rows of table 1 share the encoder.
    # J recall is equal in all three rows, and table 6b has one row: nothing is best there.
    assert sorted(best) == sorted(["34.5", "34.5", "0.500", "0.500", "\N{MINUS SIGN}0.020", "\N{MINUS SIGN}0.020"])
    verdicts = re.findall(r'<span class="(up|down|same)">([^<]*)</span>', world.html)
    assert {("up", "+3.2"), ("up", "+0.188"), ("up", "\N{MINUS SIGN}0.020"), ("same", "±0.000")} <= set(verdicts)


def test_strings_from_data_are_escaped_and_bounded(world: World, page: Reader) -> None:
    assert "<script" not in world.html
    assert "<script" not in world.markdown.replace("\\<script", "")
    assert EVIL in page.text  # as text, in the title of a row and the id of a video
    assert "x" * 400 not in world.html
    assert "x" * 400 not in world.markdown
    for line in world.markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert inputs.short("a\x00b\u202ec\n d", 20) == "a\ufffdb\ufffdc d"
    assert len(inputs.short("y" * 999)) == 300


def test_markdown_tables_are_rectangular(world: World) -> None:
    widths: list[list[int]] = []
    previous = ""
    for line in world.markdown.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                widths.append([])
            widths[-1].append(len(re.findall(r"(?<!\\)\|", line)))
        previous = line
    assert len(widths) == 7  # table 1 in three parts, table 6b, the crawl, its tubes, what differs
    assert all(len(set(width)) == 1 for width in widths)
    assert "31.2 / paper 68.3" in world.markdown
    assert "**34.5** (+3.2) / paper 73.0" in world.markdown


def test_run_that_is_not_the_papers_size_has_a_warning(world: World, tmp_path: Path) -> None:
    warning = "A demo-sized run: numbers are not comparable with the paper's."
    assert warning in Reader(world.html).text
    assert warning in world.markdown
    build_report(world.results, str(tmp_path), world.rows, profile="paper")
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "comparable" not in text


def test_funnel_counts_are_those_of_the_corpus(page: Reader) -> None:
    assert page.row("Videos in the crawl")[1] == "6"
    assert page.row("Usable videos")[1:] == ["5", "", "83 % 1 failed"]
    # moving_square: number 3 shows nothing, the others leave after 16, 13, 10 and 4 of 16 frames
    assert page.row("Kept by the filter")[1:] == ["5", "", "83 % none left out"]
    assert page.row("Videos with a tube")[1:] == ["4", "", "67 % 1 without"]
    assert page.row("Length of the kept videos")[1] == "10.0 s"
    assert page.row("Time in which the object")[1:] == ["5.4 s", "", "54 % in 4 spans, 1.3 s each"]


def test_two_builds_are_equal_byte_for_byte(world: World, tmp_path: Path) -> None:
    indexed = folders.read_manifest(world.rows[0].checkpoint).inputs["index"]
    build_report(world.results, str(tmp_path), world.rows, profile="demo", index=indexed)
    for name in ("report.html", "report.md", "report.csv"):
        assert (tmp_path / name).read_bytes() == (world.target / name).read_bytes()


def test_unreadable_images_are_reported_with_their_cause(world: World, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, ["a", "b", "c"])
    checkpoint = make_checkpoint(tmp_path, "ddd", corpus, 3.0)
    result = make_result(tmp_path, "davis", checkpoint, DAVIS, figure=b"no zip")
    (tmp_path / "videos" / "c-0" / "shard-00000.tar").write_bytes(b"cut")
    rows = [inputs.ReportRow("arm", "arm", checkpoint, "ddd", {})]
    build_report([result], str(tmp_path / "out"), rows, profile="demo")
    text = Reader((tmp_path / "out" / "report.html").read_text()).text
    assert text.count("This strip cannot be drawn") == 2
    assert "the attention maps cannot be read" in text


def test_class_attention_is_shown_with_the_predicted_class(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, ["a", "b"])
    first, second, third = (make_checkpoint(tmp_path, name, corpus, 3.0) for name in ("fff", "ggg", "hhh"))
    results = [
        make_result(tmp_path, "ucf101", uri, {"ucf101/top1": 50.0}, figure=figure, name="class_attention.npz")
        for uri, figure in ((first, class_figure("Hop")), (second, class_figure("Swing")), (third, b"no zip"))
    ]
    rows = [
        inputs.ReportRow(f"row-{name}", f"arm {name}", uri, name, {})
        for name, uri in (("fff", first), ("ggg", second), ("hhh", third))
    ]
    build_report(results, str(tmp_path / "out"), rows, profile="demo")
    html = (tmp_path / "out" / "report.html").read_text()
    text = " ".join(Reader(html).text.split())
    assert EVIL not in html
    section = text[text.index("Class attention") :]
    section = section[: section.index("Corpus and tubes")]
    hop, spin = section.index("Hop a.avi"), section.index("Spin")
    assert "arm fff right arm ggg predicted Swing" in section[hop:spin]
    assert f"arm fff predicted {EVIL}" in section[spin:]
    assert "arm hhh: the attention maps cannot be read" in section
    build_report([], str(tmp_path / "none"), rows, profile="demo")
    assert "Class attention" not in (tmp_path / "none" / "report.html").read_text()


def test_keys_and_detections_have_their_own_sections(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, ["a", "b"])
    checkpoint = make_checkpoint(tmp_path, "iii", corpus, 3.0)
    sheet = io.BytesIO()
    Image.new("RGB", (2000, 400), "navy").save(sheet, "PNG")
    results = [
        make_result(
            tmp_path, "grounding", checkpoint, {}, figure=attention_figure(0.8, ("7.jpg, key 1: dog",)), name="keys.npz"
        ),
        make_result(tmp_path, "coco", checkpoint, {}, figure=sheet.getvalue(), name="detections.png"),
        make_result(tmp_path, "voc_det", checkpoint, {}, figure=b"no image", name="detections.png"),
    ]
    rows = [inputs.ReportRow("1/arm", "An arm", checkpoint, "iii", {})]
    build_report(results, str(tmp_path / "out"), rows, profile="demo")
    html = (tmp_path / "out" / "report.html").read_text()
    keys, detections = html.index('id="keys"'), html.index('id="detections"')
    assert "7.jpg, key 1: dog" in html[keys:detections]
    assert "7.jpg" not in html[:keys]
    (code,) = re.findall(r'class="sheet" src="data:image/webp;base64,([^"]*)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(code))).size == (900, 180)


def test_wrong_input_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one row"):
        build_report([], str(tmp_path), [])
    with pytest.raises(InputError, match="give the URIs that `evaluate` returns"):
        build_report([world.rows[0].checkpoint], str(tmp_path), world.rows)
    again = make_result(tmp_path, "voc07", world.rows[0].checkpoint, {})
    with pytest.raises(InputError, match="two results of voc07"):
        build_report([*world.results, again], str(tmp_path), world.rows)
    assert not (tmp_path / "report.html").exists()


def test_provenance_reaches_the_crawl_and_shows_no_secrets(tmp_path: Path) -> None:
    crawled, indexed = str(tmp_path / "videos" / "v-1"), str(tmp_path / "index" / "i-2")
    folders.commit(crawled, {}, inputs={"crawl": "https://user:secret@example.org/crawl.csv?token=secret"})
    folders.commit(indexed, {}, inputs={"videos": crawled, "elsewhere": str(tmp_path / "nothing")})
    sources = evidence.read_provenance([indexed, crawled])
    assert [source.anchor for source in sources] == ["videos-1", "index-2"]
    assert sources[0].inputs == [("crawl", "https://example.org/crawl.csv", "")]
    assert sources[1].inputs == [("videos", crawled, "videos-1"), ("elsewhere", str(tmp_path / "nothing"), "")]


def test_tubes_made_of_exact_masks_have_an_iou_of_one_in_the_report(world: World, page: Reader) -> None:
    # Four of the five videos with a clip have exact masks; in one of them nothing is ever visible.
    assert (world.counts["tube_videos"], world.counts["tube_iou"], world.counts["tube_tracked_iou"]) == (4, 1, 1)
    assert world.counts["tube_tracked"] == pytest.approx((13 + 10 + 0 + 4) / 64, abs=1e-4)
    sentence = "On the 4 videos with exact masks the tubes have a mean IoU of 1.000 over all frames"
    assert sentence in world.markdown
    assert "Mean IoU, frames with a tube 1.000" in " ".join(page.text.split())
    assert page.text.count("IoU 1.00") >= 4 * FRAMES


def test_the_reasons_of_the_filter_are_shown_with_their_counts(tmp_path: Path) -> None:
    names = [*(f"video-{number}" for number in range(5)), "broken"]
    corpus = make_corpus(tmp_path, names, config=FilterConfig(min_tube_seconds=1.3, min_agreement=0.55))
    checkpoint = make_checkpoint(tmp_path, "eee", corpus, 3.0)
    rows = [inputs.ReportRow("arm", "arm", checkpoint, "eee", {})]
    counts = build_report([], str(tmp_path / "out"), rows, profile="demo")
    page = Reader((tmp_path / "out" / "report.html").read_text())
    # Visible for 2, 1.6, 1.25, 0 and 0.5 s; the priors agree by 0.5 on the first and more on the others.
    assert page.row("Kept by the filter")[1:] == [
        "1", "", "17 % 4 left out: 3 short (filter.min_tube_seconds=1.3), 1 disagreeing (filter.min_agreement=0.55)",
    ]  # fmt: skip
    assert page.row("Videos with a tube")[1:] == ["1", "", "17 % 0 without"]
    assert "tube_iou" not in counts
    assert "exact mask" not in page.text


def test_lines_that_the_paper_quotes_are_in_their_table(world: World, tmp_path: Path) -> None:
    rows = [inputs.ReportRow("3/mine", "Mine", str(tmp_path / "none"), "nothing", {"voc07/map": 91.8})]
    cited = {"3": {"Theirs": {"voc07/map": 87.9}}, "4": {"Elsewhere": {"voc07/map": 1.0}}}
    build_report(world.results, str(tmp_path), rows, cited=cited)
    markdown = (tmp_path / "report.md").read_text()
    assert "| Theirs | paper 87.9 |" in markdown
    assert "Elsewhere" not in markdown
    assert re.search(r"\| Mine \| failed \(\d\) / paper 91\.8 \|", markdown)
    page = Reader((tmp_path / "report.html").read_text())
    assert page.row("Theirs")[1:2] == ["87.9"]
    assert "87.9" not in (tmp_path / "report.csv").read_text()  # which has measured numbers only


def arms(tmp_path: Path, metrics: list[dict[str, float]], populations: dict[str, Population] | None = None) -> World:
    """A report of some arms, each with its own checkpoint, on one benchmark."""
    rows, results = [], []
    for number, numbers in enumerate(metrics):
        uri = str(tmp_path / "checkpoints" / f"resnet-{number}")
        folders.commit(uri, {})
        rows.append(inputs.ReportRow(f"1/{number}", f"arm {number}", uri, str(number)))
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
    folders.commit(str(second), {})
    more = make_result(
        tmp_path, "in1k", str(second), {"in1k/top1": 2.0}, populations={"in1k/top1": Population(1000, "images", 10.0)}
    )
    rows = [*first.rows, inputs.ReportRow("1/z", "arm z", str(second), "z")]
    build_report([*first.results, more], str(tmp_path / "out"), rows)
    assert "(chance 10.0 · 100 to 1,000 images †)" in (tmp_path / "out" / "report.md").read_text()


def test_the_world_has_one_result_with_many_items(world: World) -> None:
    assert "VOC07 mAP ↑ (chance 7.7 · 4,952 images)" in world.markdown
    assert "†" not in world.html + world.markdown
