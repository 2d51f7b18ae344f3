"""Oracles: the results in the order of the items, whatever takes longest, and the error that the worker raised."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from previts.errors import InputError
from previts.processes import workers


def slow_first(item):
    """The earlier the item, the longer it takes."""
    time.sleep((5 - item) * 0.02)
    return item * item, os.getpid()


def refuse_three(item):
    if item == 3:
        raise InputError(f"item {item} cannot be read;\nmend it")
    return item


def threads(_):
    import cv2

    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]


def test_results_come_in_the_order_of_the_items_from_other_processes():
    with workers.pool(2) as run:
        found = list(run(slow_first, range(6)))
        assert [square for square, _ in found] == [0, 1, 4, 9, 16, 25]
        assert os.getpid() not in {process for _, process in found}
        assert list(run(slow_first, [])) == []
        assert list(run(threads, [0])) == [(1, "1")]
        # The same pool goes on after an error, which arrives as the worker raised it, after what came before it.
        results = run(refuse_three, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match=r"^item 3 cannot be read;\nmend it$"):
            next(results)
        assert list(run(refuse_three, [4, 5])) == [4, 5]


def fail_first(folder_and_number):
    folder, number = folder_and_number
    if number == 0:
        raise InputError("the first one fails")
    time.sleep(0.5)
    (Path(folder) / str(number)).touch()


def test_after_an_error_nothing_more_is_begun_and_nobody_waits(tmp_path):
    with pytest.raises(InputError, match="the first one fails"), workers.pool(2) as run:
        list(run(fail_first, [(tmp_path, number) for number in range(20)]))
    time.sleep(1.5)
    assert len(list(tmp_path.iterdir())) < 8  # what had begun, on a busy machine


def die(_):
    os._exit(1)


def test_a_worker_that_dies_says_what_may_help():
    with workers.pool(2) as run, pytest.raises(InputError, match=r"a worker process died; .*PREVITS_WORKERS=1"):
        list(run(die, [1]))


def report_and_wait(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


SCRIPT = """
import sys
from previts.processes import workers
from test_workers import report_and_wait
if __name__ == "__main__":
    with workers.pool(2) as run:
        list(run(report_and_wait, [sys.argv[1]] * 2))
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "at").mkdir()
    root = os.pathsep.join(str(folder) for folder in Path(__file__).parents[:3])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path / "at")], env=environment)
    deadline = time.monotonic() + 60
    while len(found := [int(path.name) for path in (tmp_path / "at").iterdir()]) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(is_running(process) for process in found):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_worker_is_this_process(monkeypatch):
    monkeypatch.setenv(workers.COUNT, "1")
    with workers.pool() as run:
        assert run is workers.in_order
        assert [process for _, process in run(slow_first, [4, 5])] == [os.getpid()] * 2
        with pytest.raises(InputError, match="item 3 cannot be read"):
            list(run(refuse_three, range(6)))


def test_the_count_is_what_was_asked_for_else_what_may_be_used(monkeypatch):
    monkeypatch.setenv(workers.COUNT, "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workers.available() == 7
    monkeypatch.delenv(workers.COUNT)
    assert workers.available() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # a list for nested regions says nothing of processes
    assert 1 <= workers.available() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " "])
def test_a_count_that_is_no_whole_number_above_zero_is_refused(monkeypatch, wrong):
    monkeypatch.setenv(workers.COUNT, wrong)
    with pytest.raises(InputError, match="PREVITS_WORKERS must be a whole number above 0"):
        workers.available()
    with pytest.raises(InputError, match="PREVITS_WORKERS"), workers.pool():
        pass


def test_a_step_that_nothing_runs_beside_has_the_whole_machine(monkeypatch):
    monkeypatch.delenv(workers.COUNT, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv(workers.WHOLE, "6")
    assert (workers.available(), workers.alone()) == (2, 6)
    monkeypatch.setenv(workers.COUNT, "3")  # what a person says of the machine goes before what the engine says
    assert (workers.available(), workers.alone()) == (3, 3)
    monkeypatch.delenv(workers.WHOLE)
    assert workers.alone() == 3
