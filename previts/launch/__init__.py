"""Launchers of the training program: one torchx `AppDef`, run by torchrun on this machine.

Other places take the same `AppDef`; nothing here knows what is trained.
"""

import os
import sys
from collections.abc import Sequence

from torchx.runner import get_runner
from torchx.specs import AppDef, AppState, Resource, Role

from previts.errors import InputError


def training_app(processes: int, arguments: Sequence[str]) -> AppDef:
    """Return the training program, `previts pretrain`, as `processes` workers of one torchrun node.

    Args:
        processes: Worker processes, one a GPU.
        arguments: Command-line arguments of `previts pretrain`.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    role = Role(
        name="pretrain",
        image=os.getcwd(),
        entrypoint=sys.executable,
        args=[*torchrun, "-m", "previts", "pretrain", *arguments],
        num_replicas=1,
        env={name: os.environ[name] for name in os.environ if name.startswith(("PREVITS_", "MLFLOW_", "OMP_"))},
        resource=Resource(cpu=processes, gpu=0, memMB=-1),
    )
    return AppDef(name="previts-pretrain", roles=[role])


def train_locally(processes: int, arguments: Sequence[str]) -> None:
    """Train with several processes of this machine and wait for the end.

    Raises:
        InputError: If a process failed; its own message has been printed before.
    """
    with get_runner() as runner:
        handle = runner.run(training_app(processes, arguments), scheduler="local_cwd", workspace="")
        for line in runner.log_lines(handle, "pretrain", 0, should_tail=True):
            print(line.rstrip(), file=sys.stderr)
        status = runner.wait(handle, wait_interval=1)
    if status is None or status.state != AppState.SUCCEEDED:
        raise InputError(
            f"training with {processes} processes failed ({status.state if status else 'lost'}); see above"
        )
