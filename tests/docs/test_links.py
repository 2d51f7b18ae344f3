"""The links of the documentation, and the sizes of the README and of the images."""

import re
from pathlib import Path

import pytest
from doc_pages import PAGES, README, ROOT, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")
IMAGE_BYTES = 150_000


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """Return the links of a page into this repository."""
    return [link for link in LINK.findall(prose(page)) if not re.match(r"https?://", link)]


def test_anchors_are_those_of_github(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# What it costs, `here`\n\n```sh\n# no heading\n```\n\n## GPU & CPU: 16_x\n")
    assert anchors(page) == {"what-it-costs-here", "gpu--cpu-16_x"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_resolves(page: Path):
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_can_be_reached_from_the_readme():
    waiting, reached = [README], {README}
    while waiting:
        page = waiting.pop()
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        new = {target for target in targets if target in PAGES} - reached
        reached |= new
        waiting += new
    assert reached | {ROOT / "docs" / "README.md"} == {*PAGES}


def test_every_image_is_used_and_small():
    shown = {
        (page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith((".svg", ".png"))
    }
    stored = {*(ROOT / "docs" / "images").iterdir()}
    assert shown == stored
    assert max(image.stat().st_size for image in stored) < IMAGE_BYTES


def test_the_readme_fits_on_a_few_screens():
    assert len(README.read_text().splitlines()) <= 160
