"""The training program as a torchx `AppDef`, the same for every launcher."""

import os
import sys
from collections.abc import Sequence

from torchx.specs import AppDef, Resource, Role

# Prefixes of the environment variables that the processes get from the launcher.
PASSED_ON = ("PREVITS_", "MLFLOW_", "OMP_", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")
TARGET = "target"  # key of the app's metadata: the folder that the program writes, which identifies a job


def training_app(
    verb: str,
    processes: int,
    arguments: Sequence[str],
    *,
    nodes: int = 1,
    image: str = "",
    gpus: int = 0,
    target: str = "",
) -> AppDef:
    """Return the app that runs a verb (`pretrain` or `evaluate`) as workers of torchrun.

    Args:
        verb: Name of the verb.
        processes: Worker processes of a node, one for each GPU.
        arguments: Command-line arguments of the verb.
        nodes: Number of nodes. Each runs one torchrun, which reads the address of the others from PET_* variables.
        image: Container image with the program. By default this Python interpreter runs it.
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
    """Train with `torchx run -s local_cwd previts/launch/app.py:torchx_component`, or with `-s pytorchjob`.

    Args:
        verb: pretrain or evaluate.
        arguments: Arguments of the verb.
        processes: Worker processes of a node, one for each GPU.
        nodes: Number of nodes that train together. More than one needs a scheduler with nodes.
        image: Container image with the program, for a scheduler of containers.
        gpus: GPUs of a node.
    """
    return training_app(verb, processes, arguments, nodes=nodes, image=image, gpus=gpus)
