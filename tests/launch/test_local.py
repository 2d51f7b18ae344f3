"""Programs that torchrun starts on this machine: how they end, and what the launcher reports."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from previts.errors import InputError, TemporaryError
from previts.launch.app import training_app
from previts.launch.local import run_locally

PROGRAM = """
import os, signal, sys
from previts.errors import InputError
from previts.processes import distributed
from previts.processes.exits import readable_errors

with readable_errors(), distributed.process_group():
    for step in range(1000):
        distributed.barrier()
        if step == 3 and distributed.rank() == 1:
            {end}
"""


# Runs until SIGTERM, and then needs a second to save its state.
PATIENT = """
import os, signal, sys, time

asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
open(sys.argv[1] + os.environ["RANK"], "w").close()
while not asked:
    time.sleep(0.05)
time.sleep(1)
open(sys.argv[1] + os.environ["RANK"] + ".saved", "w").close()
sys.exit(143)
"""
STARTER = """
import sys
from dataclasses import replace
from previts.launch.app import training_app
from previts.launch.local import run_locally

app = training_app("pretrain", 2, [])
arguments = app.roles[0].args
del arguments[arguments.index("previts") - 1 :]
run_locally(replace(app, roles=[replace(app.roles[0], args=[*arguments, *sys.argv[1:]])]))
"""


@pytest.mark.slow
def test_sigterm_is_passed_on_and_the_launcher_waits_for_the_processes(tmp_path):
    (tmp_path / "patient.py").write_text(PATIENT)
    mark = tmp_path / "rank"
    starter = [sys.executable, "-c", STARTER, str(tmp_path / "patient.py"), str(mark)]
    process = subprocess.Popen(starter, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not all(Path(f"{mark}{rank}").exists() for rank in range(2)) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, process.stderr.read()
    assert all(Path(f"{mark}{rank}.saved").exists() for rank in range(2))
    assert "Traceback" not in process.stderr.read()


def run(tmp_path: Path, end: str) -> None:
    """Run two processes with repeated barriers. At the fourth step the second one executes `end`."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(end=end))
    app = training_app("pretrain", 2, [])
    arguments = app.roles[0].args
    del arguments[arguments.index("previts") - 1 :]
    run_locally(replace(app, roles=[replace(app.roles[0], args=[*arguments, str(program)])]))


@pytest.mark.slow
def test_the_error_names_the_process_that_was_killed(tmp_path, capfd):
    with pytest.raises(InputError, match=r"previts-pretrain failed: process 1 was killed by SIGKILL; often .* memory"):
        run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    # The other process reports its error without a traceback.
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_error_is_that_of_the_first_process_that_failed(tmp_path, capfd):
    with pytest.raises(InputError, match=r"failed: process 1: the corpus is broken$") as failure:
        run(tmp_path, "raise InputError('the corpus is broken')")
    assert not isinstance(failure.value, TemporaryError)
    assert "previts: process 1: the corpus is broken" in capfd.readouterr().err


@pytest.mark.slow
def test_an_outage_that_a_process_met_may_pass(tmp_path):
    with pytest.raises(TemporaryError, match=r"failed: process 1: ConnectionError: the store is away$"):
        run(tmp_path, "raise ConnectionError('the store is away')")


@pytest.mark.slow
def test_success_raises_nothing(tmp_path):
    run(tmp_path, "pass")


@pytest.mark.slow
@pytest.mark.parametrize(("allowed", "each"), [("6", "3"), ("1", "1"), ("", "1")])
def test_the_processes_share_the_threads_that_this_one_may_start(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capfd, allowed: str, each: str
):
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    if not allowed:
        monkeypatch.delenv("OMP_NUM_THREADS")
    program = tmp_path / "program.py"
    program.write_text("import os; print('threads:', os.environ['OMP_NUM_THREADS'])")
    app = training_app("pretrain", 2, [])
    arguments = app.roles[0].args
    del arguments[arguments.index("previts") - 1 :]
    run_locally(replace(app, roles=[replace(app.roles[0], args=[*arguments, str(program)])]), 2)
    assert re.findall(r"threads: (\d+)", capfd.readouterr().err) == [each, each]
