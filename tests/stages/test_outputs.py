"""Oracles: every order in which parts can finish, and messages written down by hand."""

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from previts import cli
from previts.errors import InputError
from previts.stages import outputs
from previts.storage import files, folders, holders, leases


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.01)


def test_a_shard_is_not_tried_again_while_the_output_is_committed(tmp_path: Path, quick: None):
    """The first worker commits. The second wants to repeat shard 1, whose download failed, and must not."""
    uri, order = folders.address(str(tmp_path), "videos", "crawl", {}), []
    committing, end = threading.Event(), threading.Event()

    @outputs.exclusive
    def commits() -> None:
        assert not outputs.done(uri)
        committing.set()
        end.wait(30)
        order.append("commit")
        folders.commit(uri, {})

    @outputs.exclusive
    def repeats() -> bool:
        committing.wait(30)
        return outputs.fan_out(
            uri, 2, 0, 1, is_done=lambda shard: True, work=order.append, again=lambda shard: shard == 1
        )

    threads = [threading.Thread(target=verb) for verb in (commits, repeats)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert order == []
    end.set()
    for thread in threads:
        thread.join(30)
    assert order == ["commit"]
    assert leases.names(uri) == []


def test_an_output_is_not_committed_while_a_shard_is_tried_again(tmp_path: Path, quick: None):
    uri, order = folders.address(str(tmp_path), "videos", "crawl", {}), []
    working, end = threading.Event(), threading.Event()

    def work(shard: int) -> None:
        working.set()
        end.wait(30)
        order.append(f"shard {shard}")

    @outputs.exclusive
    def repeats() -> None:
        outputs.fan_out(uri, 1, 0, 1, is_done=lambda shard: True, work=work, again=lambda shard: not end.is_set())

    @outputs.exclusive
    def commits() -> None:
        working.wait(30)
        assert not outputs.done(uri)
        order.append("commit")

    threads = [threading.Thread(target=verb) for verb in (commits, repeats)]
    for thread in threads:
        thread.start()
    working.wait(30)
    time.sleep(0.3)
    assert order == []
    end.set()
    for thread in threads:
        thread.join(30)
    assert order == ["shard 0", "commit"]


def test_leases_of_killed_workers_do_not_stop_the_commit_and_are_deleted(tmp_path: Path, quick: None):
    swept: list[str] = []
    uri = folders.address(str(tmp_path), "videos", "crawl", {})
    dead = "from previts.storage import files, leases; import os, sys\nwith leases.working('x'):\n"
    dead += "  leases.take(sys.argv[1], 'shard-00001'); leases.take(sys.argv[1], 'output')\n"
    dead += "  os.replace = lambda *names: os._exit(9)\n  files.write_bytes(sys.argv[1] + '/log.jsonl', b'')"
    assert subprocess.run([sys.executable, "-c", dead, uri], check=False).returncode == 9
    assert [name for name in files.names(uri) if name.endswith(".tmp")]
    assert leases.names(uri) == ["output", "shard-00001"]

    @outputs.exclusive
    def verb() -> bool:
        finished = outputs.done(uri, sweep=lambda: swept.append(uri))
        if not finished:
            folders.commit(uri, {})
        return finished

    assert not verb()
    assert files.names(uri) == [folders.MANIFEST]
    assert verb()
    assert swept == []
    late = dead.partition("\n  os.replace")[0] + "\n  os._exit(9)"  # killed after its commit
    assert subprocess.run([sys.executable, "-c", late, uri], check=False).returncode == 9
    assert verb()
    assert set(swept) == {uri}
    assert files.names(uri) == [folders.MANIFEST]


def test_a_finished_output_in_a_store_costs_one_request(monkeypatch: pytest.MonkeyPatch):
    uri = folders.address("memory://requests", "videos", "crawl", {})
    folders.commit(uri, {})
    calls: list[str] = []
    fs, _ = files.open_fs(uri)
    for name in ("cat_file", "pipe_file", "exists", "ls", "rm_file", "info", "find"):
        method = getattr(fs, name)
        monkeypatch.setattr(
            fs, name, lambda *given, name=name, method=method, **more: (calls.append(name), method(*given, **more))[1]
        )
    with leases.working("download"):
        assert outputs.done(uri)
    assert calls == ["cat_file"]


def test_take_over_at_the_command_line_stops_the_other_process(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
):
    uri = folders.address(str(tmp_path), "index", "corpus", {})
    other = "from previts.storage import leases; import sys, time\nleases.BEAT_SECONDS = 0.1\n"
    other += "with leases.working('index'):\n  leases.take(sys.argv[1], 'output'); print(flush=True)\n"
    other += "  while True: time.sleep(0.01)"
    process = subprocess.Popen([sys.executable, "-c", other, uri], stdout=-1, stderr=-1, text=True)
    assert process.stdout
    assert process.stdout.readline() == "\n"
    monkeypatch.setenv(holders.TAKE_OVER, "")  # restored after the test

    @outputs.exclusive
    def index(root: str) -> str:
        assert not outputs.done(uri)
        assert "LostError" in process.communicate(timeout=30)[1]
        folders.commit(uri, {})
        return root

    monkeypatch.delenv(holders.TAKE_OVER)
    commands = {"index": cli.with_take_over(index)}
    assert cli.run_command("previts", commands, "", ["index", "--root", "x", "--take-over"]) == "x"
    assert files.names(uri) == [folders.MANIFEST]
