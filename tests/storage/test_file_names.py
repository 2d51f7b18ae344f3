"""Oracles: names counted by hand, and the formats that FFmpeg names itself."""

import os
from pathlib import Path

import av
import fsspec
import pytest

from previts.storage import file_names

HIDDEN = [
    ".DS_Store", "._a.mp4", "a/._b.jpg", ".ipynb_checkpoints/x.jpg", "__MACOSX/a/b.mp4", "Thumbs.db", "a/THUMBS.DB",
    "desktop.ini", "Desktop.ini", "a/.git/config",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_tools_leave_in_a_folder_is_hidden(name: str):
    assert file_names.is_hidden(name)
    assert file_names.shown([name, "a.mp4"]) == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a/b.c/d_._.jpg", "_x.png", "MACOSX/a.png", "n02123/ILSVRC_1.JPEG", "a..b"])
def test_names_of_users_are_not_hidden(name: str):
    assert not file_names.is_hidden(name)


def test_each_suffix_is_of_one_format_that_ffmpeg_knows():
    assert len(set(file_names.VIDEO_SUFFIXES)) == len(file_names.VIDEO_SUFFIXES)
    known = {part for name in av.formats_available for part in name.split(",")}
    assert set(file_names.VIDEO_FORMATS) <= known
    playlists = {"hls", "concat", "dash", "sdp", "image2", "tedcaptions"}
    assert not playlists & set(file_names.VIDEO_FORMATS)


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
        found = file_names.below(uri, file_names.IMAGE_SUFFIXES, in_classes=True)
        assert found.names == ("a/x/1.jpg", "b/10.JPG", "b/2.PNG")
        said = f"{len(HIDDEN)} hidden, 2 .txt, 1 without an ending, 1 outside a folder of a class"
        assert str(found.left_aside) == said
        assert capsys.readouterr().err == f"left aside in {uri}: {said}\n"
        assert file_names.below(uri, (".png",)).names == ("b/2.PNG", "top.png")
    finally:
        if remote:
            fs.rm("/listing", recursive=True)


def test_a_folder_without_other_files_is_listed_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").write_bytes(b"")
    assert not file_names.below(str(tmp_path), (".png",)).left_aside
    assert capsys.readouterr().err == ""


def test_a_name_that_is_not_utf8_does_not_stop_a_listing(tmp_path: Path):
    for name in (b"bad\xff.png", b"good.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass
    found = file_names.below(str(tmp_path), (".png",))
    assert found.names == ("good.png",)
    assert str(found.left_aside) == "1 whose names are not UTF-8 (such as 'bad\\udcff.png')"
