"""The scheduler as torchx uses it, on a real API server."""

import os
import subprocess
import sys

import pytest
from launching import finish, runs, until
from torchx.runner import get_runner
from torchx.specs import AppState

from previts.launch.pytorchjob import LEASE

pytestmark = pytest.mark.slow


def test_torchx_submits_lists_describes_reads_and_cancels_jobs(place):
    with place.operator(finish(place), runs) as operator, get_runner() as runner:
        cfg = {"image": "registry/train:1", "namespace": place.namespace}
        handle = runner.run(place.app(), scheduler="pytorchjob", cfg=cfg, workspace="")
        assert handle.endswith(f"/{place.namespace}:{place.name()}")
        assert LEASE not in operator.job(place.name())["metadata"]["annotations"]  # torchx does not wait
        until(lambda: runner.status(handle).state == AppState.SUCCEEDED)
        lines = list(runner.log_lines(handle, "pretrain", 0, regex="loss"))
        assert lines[:2] == ["step 1: loss 2.5\n", "step 2: loss 2.4\n"]
        status = runner.status(handle)
        assert [replica.state for replica in status.roles[0].replicas] == [AppState.SUCCEEDED, AppState.RUNNING]
        (listed,) = runner.list("pytorchjob", {"namespace": place.namespace})
        assert (listed.name, listed.state) == (place.name(), AppState.SUCCEEDED)
        runner.run(place.app(), scheduler="pytorchjob", cfg=cfg, workspace="")  # replaces the finished job
        until(lambda: runner.status(handle).state == AppState.RUNNING)
        runner.cancel(handle)
        until(lambda: runner.status(handle) is None)


def test_torchx_finds_the_scheduler():
    command = [sys.executable, "-m", "torchx.cli.main", "runopts", "pytorchjob"]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}, check=True
    )
    assert "lease_seconds" in run.stdout
