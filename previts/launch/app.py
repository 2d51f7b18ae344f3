"""The training program as a torchx `AppDef`: what is run, wherever it is run."""

import os
import sys
from collections.abc import Sequence

from torchx.specs import AppDef, Resource, Role

PASSED_ON = ("PREVITS_", "MLFLOW_", "OMP_", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")
TARGET = "target"  # where the program writes: what tells one job from another


def training_app(
    verb: str,
    processes: int,
    arguments: Sequence[str],
    nodes: int = 1,
    image: str = "",
    gpus: int = 0,
    target: str = "",
) -> AppDef:
    """Return a program that trains, `previts pretrain` or `previts evaluate`, as torchrun's workers.

    Args:
        verb: Which of the two.
        processes: Worker processes of a node, one a GPU.
        arguments: Its command-line arguments.
        nodes: How many torchruns meet; what they need for it is in their environment (PET_*).
        image: Container image that holds the program; by default it is this Python's.
        gpus: GPUs of a node.
        target: URI of the folder that the program writes.
    """
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if nodes == 1:
        torchrun.append("--standalone")
    role = Role(
        name=verb,
        image=image or os.getcwd(),
        entrypoint="python" if image else sys.executable,
        args=[*torchrun, "-m", "previts", verb, *arguments],
        num_replicas=nodes,
        env={name: os.environ[name] for name in os.environ if name.startswith(PASSED_ON)},
        resource=Resource(cpu=processes, gpu=gpus, memMB=-1),
    )
    return AppDef(name=f"previts-{verb}", roles=[role], metadata={TARGET: target} if target else {})


def torchx_component(
    verb: str, *arguments: str, processes: int = 1, nodes: int = 1, image: str = "", gpus: int = 0
) -> AppDef:
    """Train by `torchx run -s local_cwd previts/launch/app.py:torchx_component`, or `-s pytorchjob`.

    Args:
        verb: pretrain or evaluate.
        arguments: Arguments of the verb.
        processes: Worker processes of a node, one a GPU.
        nodes: How many nodes train together; more than one need a scheduler that has them.
        image: Container image that holds the program, for a scheduler of containers.
        gpus: GPUs of a node.
    """
    return training_app(verb, processes, arguments, nodes, image, gpus)
