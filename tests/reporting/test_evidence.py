"""Oracles: planted attention, figures that are damaged, folders with known inputs."""

import base64
import io
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from report_world import (
    EVIL,
    Reader,
    World,
    attention_figure,
    class_figure,
    fingerprint,
    make_checkpoint,
    make_corpus,
    make_result,
    moving_square,
)

from previts.media import drawing
from previts.reporting import evidence, inputs
from previts.reporting.page import build_report
from previts.storage import folders

DAVIS = {"davis/j_mean": 0.3125, "davis/j_recall": 0.5, "davis/j_decay": 0.0, "davis/upsampled_j_mean": 0.29}


def test_the_image_of_all_arms_is_bright_where_attention_is_on_the_object(world: World) -> None:
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


def test_unreadable_images_are_reported_with_their_cause(world: World, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, ["a", "b", "c"])
    checkpoint = make_checkpoint(tmp_path, "ddd", corpus, 3.0)
    result = make_result(tmp_path, "davis", checkpoint, DAVIS, figure=b"no zip")
    (tmp_path / "videos" / "c-0" / "shard-00000.tar").write_bytes(b"cut")
    rows = [inputs.ReportRow("arm", "arm", checkpoint, fingerprint(checkpoint), {})]
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
        inputs.ReportRow(f"row-{name}", f"arm {name}", uri, fingerprint(uri), {})
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
    rows = [inputs.ReportRow("1/arm", "An arm", checkpoint, fingerprint(checkpoint), {})]
    build_report(results, str(tmp_path / "out"), rows, profile="demo")
    html = (tmp_path / "out" / "report.html").read_text()
    keys, detections = html.index('id="keys"'), html.index('id="detections"')
    assert "7.jpg, key 1: dog" in html[keys:detections]
    assert "7.jpg" not in html[:keys]
    (code,) = re.findall(r'class="sheet" src="data:image/webp;base64,([^"]*)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(code))).size == (900, 180)


def test_provenance_reaches_the_crawl_without_secrets(tmp_path: Path) -> None:
    crawled, indexed = str(tmp_path / "videos" / "v-1"), str(tmp_path / "index" / "i-2")
    folders.commit(crawled, {}, inputs={"crawl": "https://user:secret@example.org/crawl.csv?token=secret"})
    folders.commit(indexed, {}, inputs={"videos": crawled, "elsewhere": str(tmp_path / "quest?x")})
    sources = evidence.read_provenance([indexed, crawled])
    assert [source.anchor for source in sources] == [f"videos-{fingerprint(crawled)}", f"index-{fingerprint(indexed)}"]
    assert sources[0].inputs == [("crawl", "https://example.org/crawl.csv", "")]
    elsewhere = ("elsewhere", str(tmp_path / "quest?x"), "")
    assert sources[1].inputs == [("videos", crawled, sources[0].anchor), elsewhere]


def test_arrays_of_another_shape_or_type_are_reported_with_their_cause(world: World, tmp_path: Path) -> None:
    with np.load(io.BytesIO(attention_figure(0.5))) as archive:
        sound = dict(archive)
    checkpoint = make_checkpoint(tmp_path, "one", make_corpus(tmp_path, ["a", "broken"]), 0.0)
    rows = inputs.read_checkpoints([inputs.ReportRow("1/one", "one", checkpoint, fingerprint(checkpoint))])
    odd = [
        (name, odd)
        for name in sound
        for odd in (np.array(1), np.array([1, "x"], object).astype(str)[:1], sound[name][:0])
    ]
    odd += [(name, array[..., :0]) for name, array in sound.items() if array.ndim > 1]
    odd += [("frames", sound["frames"][..., :1]), ("cams", sound["cams"][:, :1]), ("names", np.array([b"a", b"b"]))]
    for name, array in odd:
        file = io.BytesIO()
        np.savez_compressed(file, **{**sound, name: array})
        made = make_result(tmp_path, "davis", checkpoint, DAVIS, figure=file.getvalue())
        results = inputs.read_results([made])
        attention = evidence.read_attention(results, rows)
        assert "the attention maps cannot be read (ValueError: the array " in attention.cause
        assert attention.sequences == []
        assert evidence.attention_sheet(results, rows) == b""
