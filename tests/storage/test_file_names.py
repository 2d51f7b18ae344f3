"""Oracles: names counted by hand, and the formats that FFmpeg names itself."""

import av
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
