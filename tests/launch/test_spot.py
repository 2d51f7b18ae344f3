"""The pods of a spot job as processes of this machine, of which one is replaced while they work."""

import os
import sys
from pathlib import Path

import psutil
import pytest
from control_plane import free_port
from launching import until
from operator_by_hand import environment

from previts.launch.app import training_app
from previts.launch.options import JobOptions
from previts.launch.pytorchjob import build_manifest

pytestmark = pytest.mark.slow
# Exchanges numbers with the others, and notes each start, until there is a file `stop`.
WORK = """
import os, sys, time
import torch
from torch import distributed as dist
os.chdir(sys.argv[1])
dist.init_process_group("gloo")
stop = torch.zeros(1)
open(f"{os.environ['RANK']}-{os.getpid()}", "w").close()
while not stop:
    stop[0] = os.path.exists("stop")
    dist.all_reduce(stop)
    time.sleep(0.1)
dist.destroy_process_group()
"""


def test_a_replaced_worker_of_a_spot_job_joins_the_others(tmp_path: Path):
    app = training_app("pretrain", 1, [], nodes=2, image="registry/train:1", target=str(tmp_path))
    job = build_manifest(app, JobOptions(spot=True))
    job["spec"]["elasticPolicy"]["rdzvPort"] = free_port()
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in container["env"] if item["name"] != "MASTER_ADDR"}

    def start(node: int) -> psutil.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", str(tmp_path / "work.py")]
        return psutil.Popen([*command, str(tmp_path)], env={**os.environ, **given, **environment(job, node)})

    (tmp_path / "work.py").write_text(WORK)
    agents = [start(0)]
    try:
        until(lambda: any(item.status == "LISTEN" for item in agents[0].net_connections()))  # it has the rendezvous
        agents.append(start(1))
        until(lambda: len(list(tmp_path.glob("[01]-*"))) == 2)
        for process in [*agents[1].children(recursive=True), agents[1]]:
            process.kill()
        agents[1].wait()
        agents[1] = start(1)
        until(lambda: len(list(tmp_path.glob("[01]-*"))) == 4, seconds=90)
        (tmp_path / "stop").touch()
        assert [agent.wait(60) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            for process in [*agent.children(recursive=True), agent] if agent.is_running() else []:
                process.kill()
