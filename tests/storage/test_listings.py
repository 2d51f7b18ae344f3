"""Oracle: names counted by hand."""

import os
from pathlib import Path

import fsspec
import pytest

from previts.storage import file_names, listings

HIDDEN = ["._a.mp4", "a/._b.jpg", ".ipynb_checkpoints/x.jpg", "__MACOSX/a/b.mp4", "Thumbs.db", "a/.git/config"]


@pytest.mark.parametrize("remote", [False, True])
def test_a_listing_counts_what_it_leaves_aside(tmp_path: Path, remote: bool, capsys: pytest.CaptureFixture[str]):
    names = ["b/2.PNG", "a/x/1.jpg", "b/10.JPG", "top.png", "a/n.txt", "a/m.TXT", "a/README", *HIDDEN]
    if remote:
        fs, uri = fsspec.filesystem("memory"), "memory://listing/set"
        fs.pipe({f"/listing/set/{name}": b"" for name in names})
    else:
        uri = str(tmp_path)
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
    try:
        found = listings.below(uri, file_names.IMAGE_SUFFIXES, in_classes=True)
        assert found.names == ("a/x/1.jpg", "b/10.JPG", "b/2.PNG")
        said = f"{len(HIDDEN)} hidden, 2 .txt, 1 without an ending, 1 outside a folder of a class"
        assert str(found.left_aside) == said
        assert capsys.readouterr().err == f"left aside in {uri}: {said}\n"
        assert listings.below(uri, (".png",)).names == ("b/2.PNG", "top.png")
    finally:
        if remote:
            fs.rm("/listing", recursive=True)


def test_a_folder_without_other_files_is_listed_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").write_bytes(b"")
    assert not listings.below(str(tmp_path), (".png",)).left_aside
    assert capsys.readouterr().err == ""


def test_a_name_that_is_not_utf8_does_not_stop_a_listing(tmp_path: Path):
    for name in (b"bad\xff.png", b"good.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass
    found = listings.below(str(tmp_path), (".png",))
    assert found.names == ("good.png",)
    assert str(found.left_aside) == "1 whose names are not UTF-8 (such as 'bad\\udcff.png')"
