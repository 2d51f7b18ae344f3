"""Oracles: the results in the order of the items, whichever takes longest, and the error that the worker raised."""

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
        raise InputError(f"item {item} cannot be read;\nfix it")
    return item


def threads(_):
    import cv2

    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]


def test_other_processes_return_results_in_the_order_of_the_items():
    with workers.pool(2) as run:
        found = list(run(slow_first, range(6)))
        assert [square for square, _ in found] == [0, 1, 4, 9, 16, 25]
        assert os.getpid() not in {process for _, process in found}
        assert list(run(slow_first, [])) == []
        assert list(run(threads, [0])) == [(1, "1")]
        # After an error, the pool still works. The error is raised unchanged, after the results before it.
        results = run(refuse_three, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InputError, match=r"^item 3 cannot be read;\nfix it$"):
            next(results)
        assert list(run(refuse_three, [4, 5])) == [4, 5]


def fail_first(folder_and_number):
    folder, number = folder_and_number
    if number == 0:
        raise InputError("the first one fails")
    time.sleep(0.5)
    (Path(folder) / str(number)).touch()


def test_an_error_cancels_the_items_that_have_not_started(tmp_path):
    with pytest.raises(InputError, match="the first one fails"), workers.pool(2) as run:
        list(run(fail_first, [(tmp_path, number) for number in range(20)]))
    time.sleep(1.5)
    assert len(list(tmp_path.iterdir())) < 8  # those that had started; more on a busy machine


def die(_):
    os._exit(1)


def test_the_error_for_a_dead_worker_names_a_remedy():
    with workers.pool(2) as run, pytest.raises(InputError, match=r"a worker process died. .*PREVITS_WORKERS=1"):
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


def test_workers_end_when_their_parent_is_killed(tmp_path):
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


def test_the_count_is_the_configured_one_or_the_available_cores(monkeypatch):
    monkeypatch.setenv(workers.COUNT, "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert workers.available() == 7
    monkeypatch.delenv(workers.COUNT)
    assert workers.available() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # a list for nested regions is not a count
    assert 1 <= workers.available() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " "])
def test_a_count_must_be_a_whole_number_above_zero(monkeypatch, wrong):
    monkeypatch.setenv(workers.COUNT, wrong)
    with pytest.raises(InputError, match="PREVITS_WORKERS must be a whole number above 0"):
        workers.available()
    with pytest.raises(InputError, match="PREVITS_WORKERS"), workers.pool():
        pass


def test_a_step_alone_on_the_machine_uses_all_cores(monkeypatch):
    monkeypatch.delenv(workers.COUNT, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv(workers.WHOLE, "6")
    assert (workers.available(), workers.alone()) == (2, 6)
    monkeypatch.setenv(workers.COUNT, "3")  # the setting of the user takes precedence over that of the engine
    assert (workers.available(), workers.alone()) == (3, 3)
    monkeypatch.delenv(workers.WHOLE)
    assert workers.alone() == 3
