from dataclasses import replace
from pathlib import Path

import pytest

from previts import launch
from previts.errors import InputError

PROGRAM = """
import os, signal, sys
from previts import cli, distributed
from previts.errors import InputError

with cli.readable_errors(), distributed.process_group():
    for step in range(1000):
        distributed.barrier()
        if step == 3 and distributed.rank() == 1:
            {end}
"""


def run(tmp_path: Path, end: str) -> None:
    """Run two processes that meet again and again, the second of which ends in some way."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(end=end))
    app = launch.training_app(2, [])
    arguments = app.roles[0].args
    del arguments[arguments.index("previts") - 1 :]
    launch.run_locally(replace(app, roles=[replace(app.roles[0], args=[*arguments, str(program)])]))


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_and_is_named(tmp_path, capfd):
    with pytest.raises(InputError, match=r"previts-pretrain failed: process 1 was killed by SIGKILL; often .* memory"):
        run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    # the other one says what it saw, without a traceback
    said = capfd.readouterr().err
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_first_error_of_a_process_is_the_one_that_is_told(tmp_path, capfd):
    with pytest.raises(InputError, match=r"failed: process 1: the corpus is broken$"):
        run(tmp_path, "raise InputError('the corpus is broken')")
    assert "previts: process 1: the corpus is broken" in capfd.readouterr().err


@pytest.mark.slow
def test_success_is_silent(tmp_path):
    run(tmp_path, "pass")
