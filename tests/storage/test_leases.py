"""Leases: who works. Oracles: a counter of the work in a file, a process that really died, and a clock."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fake_stores
import fsspec
import pytest

from previts.errors import InputError
from previts.stages import outputs
from previts.storage import files, folders, holders, leases
from previts.storage.fences import LostError

HOLD = """
import sys, time
from previts.storage import leases
with leases.working("pretrain"):
    leases.take(sys.argv[1], "output")
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "memory", "gs", "s3", "s3 without conditions"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder on the local disk, in memory, and in object stores."""
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0.05)
    if request.param == "local":
        yield str(tmp_path / "root")
    elif request.param == "memory":
        yield f"memory://{tmp_path.name}/root"
        with contextlib.suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    else:
        with fake_stores.object_store(request.param, monkeypatch) as prefix:
            yield prefix


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_SECONDS", 0.1), ("EXPIRY_SECONDS", 0.6), ("WAIT_SECONDS", 0.02)):
        monkeypatch.setattr(leases, name, seconds)


@contextlib.contextmanager
def another_process(folder: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "holds\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def foreign(folder: str, name: str = "output", **changes: object) -> holders.Holder:
    """Write the lease of a holder on another machine."""
    with leases.working("pretrain"):
        lease = leases.take(folder, name)
        holder = lease.holder()
        assert holder
        holder = dataclasses.replace(holder, token="foreign", machine="elsewhere", host="node-7", **changes)
    files.write_bytes(lease.uri, holders.to_bytes(holder))
    return holder


def test_one_of_many_threads_works_at_a_time_and_all_do(folder: str, fast: None):
    at_work, most, count = 0, 0, 0

    def work() -> None:
        nonlocal at_work, most, count
        with leases.working("index"):
            leases.take(folder, "output")
            at_work += 1
            most = max(most, at_work)
            time.sleep(0.03)
            at_work, count = at_work - 1, count + 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, count) == (1, 6)
    assert leases.names(folder) == []


def test_a_lease_that_is_renewed_does_not_expire(folder: str, fast: None):
    with leases.working("index"):
        lease = leases.take(folder, "output")
        rival, end = leases.Lease(folder, "output"), time.monotonic() + 1.5
        while time.monotonic() < end:
            assert not rival.take()
            time.sleep(0.05)
        lease.check()
    assert leases.names(folder) == []


def test_a_lease_of_another_machine_expires_by_the_clock_of_the_waiting_process(folder: str, fast: None, capsys):
    foreign(folder, since="2199-01-01T00:00:00+00:00")
    with leases.working("index"):
        begun = time.monotonic()
        leases.take(folder, "output")
        assert 0.5 < time.monotonic() - begun < 5
    said = capsys.readouterr().err
    assert "waiting: pretrain of" in said
    assert "on node-7" in said
    assert "not renewed for" in said
    assert leases.names(folder) == []


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(tmp_path: Path):
    with another_process(str(tmp_path)) as process, leases.working("index"):
        rival = leases.Lease(str(tmp_path), "output")
        assert not rival.take()
        process.kill()
        process.wait()
        assert rival.take()


def test_an_id_that_another_process_uses_now_is_not_the_holder(tmp_path: Path):
    """The lease names process 1, which lives, but started at another time."""
    lease = leases.Lease(str(tmp_path), "output")
    holder = dataclasses.replace(holders.this_process("index"), pid=1, started="1")
    files.write_bytes(lease.uri, holders.to_bytes(holder))
    with leases.working("index"):
        assert lease.take()


def test_take_over_stops_the_holder_with_a_clear_error(folder: str, fast: None, monkeypatch: pytest.MonkeyPatch):
    @outputs.exclusive
    def pretrain() -> None:
        lease = leases.take(folder, "output")
        other = dataclasses.replace(holders.this_process("index"), machine="elsewhere")
        files.write_bytes(lease.uri, holders.to_bytes(other))
        folders.commit(files.join(folder, "x", "y-000000000000"), {})  # in the folder, so it is fenced

    with pytest.raises(LostError, match=r"no longer works on .*has taken it over.*Run the same command again"):
        pretrain()
    assert not folders.is_committed(files.join(folder, "x", "y-000000000000"))
    assert leases.names(folder) == ["output"]  # the lease of the other is not deleted
    monkeypatch.setenv(holders.TAKE_OVER, "mine")
    with leases.working("index"):
        rival = leases.Lease(folder, "output")
        assert rival.take()
        again = leases.Lease(folder, "output")
        assert not again.take()  # a command does not take over from itself


def test_a_holder_that_does_nothing_is_interrupted_at_its_next_renewal(tmp_path: Path, fast: None):
    @outputs.exclusive
    def pretrain() -> None:
        files.delete(leases.take(str(tmp_path), "output").uri)
        while time.monotonic() < begun + 20:
            time.sleep(0.01)

    begun = time.monotonic()
    with pytest.raises(LostError, match="no longer works"):
        pretrain()
    assert time.monotonic() - begun < 10


def test_an_error_that_follows_from_the_loss_is_not_shown(tmp_path: Path):
    @outputs.exclusive
    def pretrain() -> None:
        files.delete(leases.take(str(tmp_path), "output").uri)
        raise FileNotFoundError("step-00000030.pt.tmp")

    with pytest.raises(LostError) as caught:
        pretrain()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_process_that_was_stopped_for_long_has_lost_its_lease_and_writes_nothing(tmp_path: Path):
    """SIGSTOP is what a suspended machine looks like: no renewal, and then the process continues where it was."""
    program = """
import sys, time
from previts.storage import folders, leases
leases.BEAT_SECONDS = 0.1
with leases.working("pretrain"):
    leases.take(sys.argv[1], "output")
    print("holds", flush=True)
    sys.stdin.readline()
    folders.commit(sys.argv[1], {}, info={"by": "the first"})
"""
    uri = folders.address(str(tmp_path), "index", "corpus", {})
    process = subprocess.Popen([sys.executable, "-c", program, uri], stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdout
    assert process.stdout.readline() == "holds\n"
    process.send_signal(signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch, leases.working("index"):
        patch.setattr(leases, "EXPIRY_SECONDS", 0.5)
        patch.setattr(leases, "WAIT_SECONDS", 0.05)
        leases.take(uri, "output")
        process.send_signal(signal.SIGCONT)
        _, error = process.communicate("go\n", timeout=60)
        assert "LostError" in error
        assert not folders.is_committed(uri)
        folders.commit(uri, {}, info={"by": "the second"})
    assert folders.read_manifest(uri).info == {"by": "the second"}


def test_a_late_writer_never_replaces_the_file_of_the_next_holder(folder: str, request: pytest.FixtureRequest):
    """`late` writes once between the deletion and the creation, and once after it, as a paused process does."""
    if request.node.callspec.params["folder"] == "s3 without conditions":
        pytest.skip("such a store replaces the file; only `check` protects it")
    uri, late = files.join(folder, "shard-00000.tar"), [True]

    def create(target: str) -> None:
        if late:
            late.pop()
            files.write_bytes(target, b"late", create=True)
        files.write_bytes(target, b"mine", create=True)

    leases.replace(uri, create)
    with pytest.raises(FileExistsError):
        files.write_bytes(uri, b"late", create=True)
    assert files.read_bytes(uri) == b"mine"
    if "://" not in folder:
        assert os.listdir(folder) == ["shard-00000.tar"]


def test_a_damaged_lease_expires(folder: str, fast: None):
    lease = leases.Lease(folder, "output")
    files.write_bytes(lease.uri, b'{"tok')
    with leases.working("index"):
        leases.wait(lease.take, lambda: [lease])
    assert leases.names(folder) == []


def test_without_a_verb_no_lease_is_taken(tmp_path: Path):
    leases.take(str(tmp_path), "output")
    assert os.listdir(tmp_path) == []


def _do_shards(folder: str, log: str, begin: float) -> None:
    leases.WAIT_SECONDS = 0.02
    time.sleep(max(0, begin - time.time()))

    def work(shard: int) -> None:
        with open(log, "a") as file:
            file.write(json.dumps([os.getpid(), shard]) + "\n")
        time.sleep(0.03)
        files.write_bytes(files.join(folder, f"{shard}.done"), b"")

    @outputs.exclusive
    def verb() -> None:
        is_done = lambda shard: files.exists(files.join(folder, f"{shard}.done"))  # noqa: E731
        assert outputs.fan_out(folder, 12, 0, 1, is_done=is_done, work=work)
        if not outputs.done(folder):
            folders.commit(folder, {})
            with open(log, "a") as file:
                file.write(json.dumps([os.getpid(), "commit"]) + "\n")

    verb()


def test_processes_share_the_shards_of_an_output_and_each_is_made_once(tmp_path: Path):
    folder, log = folders.address(str(tmp_path), "videos", "crawl", {}), str(tmp_path / "log")
    context = multiprocessing.get_context("fork")
    begin = time.time() + 0.3
    processes = [context.Process(target=_do_shards, args=(folder, log, begin)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    made = [json.loads(line) for line in Path(log).read_text().splitlines()]
    assert sorted(str(shard) for _, shard in made) == sorted([*map(str, range(12)), "commit"])
    assert len({pid for pid, _ in made}) > 1
    assert leases.names(folder) == []


@pytest.mark.parametrize("kind", ["dangling", "link", "folder", "pipe"])
def test_what_is_no_lease_is_named_instead_of_waited_for(tmp_path, kind):
    path = tmp_path / "output.lease"
    match kind:
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "link":
            (tmp_path / "file").write_bytes(b"{}")
            path.symlink_to(tmp_path / "file")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    what = {"folder": "a folder", "pipe": "a pipe or a device"}.get(kind, "a link")
    message = rf"output\.lease is {what}, expected a file; when no other run uses this folder, delete it"
    with leases.working("index"), pytest.raises(InputError, match=message):
        leases.take(str(tmp_path), "output")


def test_an_empty_folder_is_removed_and_one_with_a_lease_is_not(tmp_path):
    for name in ("empty", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "shard-00000.lease").write_bytes(b"")
    for name in ("empty", "used", "missing"):
        leases.remove_if_empty(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
