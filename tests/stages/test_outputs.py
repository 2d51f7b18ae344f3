"""Oracles: every order in which parts can finish, and messages written down by hand."""

import itertools
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.stages import outputs
from previts.storage import folders


def fan_out(folder: Path, total: int, part: int, parts: int, done: list[int]) -> bool:
    return outputs.fan_out(str(folder), total, part, parts, is_done=done.__contains__, work=done.append)


@pytest.mark.parametrize(("total", "parts"), [(0, 1), (1, 1), (5, 1), (5, 2), (3, 4), (6, 3)])
def test_parts_divide_the_shards_and_only_the_last_part_sees_a_finished_output(tmp_path, total, parts):
    for order in itertools.permutations(range(parts)):
        done: list[int] = []
        finished = [fan_out(tmp_path, total, part, parts, done) for part in order]
        assert sorted(done) == list(range(total))  # each shard once
        own = [len(range(part, total, parts)) for part in order]
        assert finished == [sum(own[: place + 1]) == total for place in range(parts)]


def test_finished_shards_are_not_made_again(tmp_path):
    done = [0, 2]
    assert fan_out(tmp_path, 4, 0, 1, done)
    assert done == [0, 2, 1, 3]


@pytest.mark.parametrize(("part", "parts"), [(2, 2), (-1, 2), (0, 0), (0, -1)])
def test_an_invalid_part_is_refused(part, parts):
    with pytest.raises(InputError, match="parts must be 1 or more and part from 0 to parts - 1"):
        outputs.check_part(part, parts)


def test_an_input_must_be_finished_and_of_the_expected_stage(tmp_path):
    uri = folders.address(str(tmp_path), "videos", "crawl", {})
    with pytest.raises(InputError, match="has not finished"):
        outputs.finished(uri, "videos")
    folders.commit(uri, {})
    assert uri.endswith(outputs.finished(uri, "videos"))
    with pytest.raises(InputError, match="is an output of stage 'videos'; expected an output of stage 'tubes'"):
        outputs.finished(uri, "tubes")


def test_an_output_is_done_after_its_commit_and_its_counts_are_printed(tmp_path, capsys):
    uri = folders.address(str(tmp_path), "videos", "crawl", {})
    assert not outputs.done(uri)
    folders.commit(uri, {}, counts={"videos": 3, "ok": 2}, info={"errors": {"a web page, not a video": 1}})
    assert outputs.made(uri) == uri
    assert outputs.done(uri)
    assert capsys.readouterr().err.splitlines() == [
        f"made: {uri} (videos 3, ok 2)",
        "  1 x a web page, not a video",
        f"already there: {uri}",
    ]


def test_an_output_that_cannot_be_written_is_refused_before_any_work():
    with pytest.raises(InputError, match="/dev/null"):
        outputs.done("/dev/null/root/videos/crawl-000000000000")


def test_an_output_is_described_in_markdown(tmp_path: Path):
    uri = folders.address(str(tmp_path), "videos", "crawl", {})
    assert outputs.describe(uri) == f"`{uri}`\n\nThis part is finished. Other parts are not.\n"
    folders.commit(uri, {}, counts={"videos": 3})
    fingerprint = uri.rsplit("-", 1)[1]
    assert outputs.describe(uri) == f"### videos {fingerprint}\n\n`{uri}`\n\n| | |\n|---|---|\n| videos | 3 |\n"
