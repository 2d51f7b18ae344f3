"""Oracle: the report page, read back by an HTML parser."""

import base64
import io
import re
from pathlib import Path

from PIL import Image
from report_world import EVIL, Reader, World

from previts.reporting.page import build_report
from previts.storage import folders


def test_the_page_makes_no_requests(world: World, page: Reader) -> None:
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "srcset", "xlink:href", "data", "poster", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name, attributes[name][:80])
    assert not re.search(r"url\(|@import|https?://", world.html)
    assert len(world.html.encode()) == world.counts["page_bytes"] < 6e6


def test_links_have_targets_and_ids_are_unique_outside_charts(world: World, page: Reader) -> None:
    ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag != "path"]
    assert len(ids) == len(set(ids))
    every = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {attributes["href"][1:] for _, attributes in page.tags if attributes.get("href", "").startswith("#")}
    assert {"results", "corpus", "cause-1", f"checkpoints-{world.rows[0].fingerprint}"} <= targets <= every


def test_every_image_decodes_and_has_a_description(page: Reader) -> None:
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


def test_strings_from_data_are_escaped_and_bounded(world: World, page: Reader) -> None:
    assert "<script" not in world.html
    assert "<script" not in world.markdown.replace("\\<script", "")
    assert EVIL in page.text  # as text, in the title of a row and the id of a video
    assert "x" * 400 not in world.html
    assert "x" * 400 not in world.markdown
    for line in world.markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_a_run_of_another_size_than_the_paper_has_a_warning(world: World, tmp_path: Path) -> None:
    warning = "A demo-sized run: numbers are not comparable with the paper's."
    assert warning in Reader(world.html).text
    assert warning in world.markdown
    build_report(world.results, str(tmp_path), world.rows, profile="paper")
    text = Reader((tmp_path / "report.html").read_text()).text
    assert "comparable" not in text


def test_two_builds_have_the_same_bytes(world: World, tmp_path: Path) -> None:
    indexed = folders.read_manifest(world.rows[0].checkpoint).inputs["index"]
    build_report(world.results, str(tmp_path), world.rows, profile="demo", index=indexed)
    for name in ("report.html", "report.md", "report.csv"):
        assert (tmp_path / name).read_bytes() == (world.target / name).read_bytes()
