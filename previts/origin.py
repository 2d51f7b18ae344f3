"""Where an output was made: the revision of the code, the container image, and the run of the pipeline.

None of it is part of the identity of an output: the same settings and inputs give the same output anywhere.
"""

import functools
import os
import subprocess
from pathlib import Path

REVISION = "PREVITS_REVISION"  # commit of the code; images/Dockerfile sets it
IMAGE = "PREVITS_STEP_IMAGE"  # image of the container; pipelines/cluster.py sets it
RUN = "PREVITS_PIPELINE_RUN"  # id of the pipeline run; pipelines/cluster.py and pipelines/local.py set it
LOCAL = "local-"  # the id of a run on the embedded engine begins with this
JOB = "PREVITS_JOB"  # name of the PyTorchJob of a training process; launch/pytorchjob.py sets it
_CHECKOUT = Path(__file__).parents[1]


def made_by() -> dict[str, str]:
    """Return what is known of `revision`, `image` and `run`; what is unknown is left out."""
    known = {
        "revision": os.environ.get(REVISION) or _revision(),
        "image": os.environ.get(IMAGE, ""),
        "run": os.environ.get(RUN, ""),
    }
    return {name: value for name, value in known.items() if value not in ("", "unknown")}


@functools.cache
def _revision() -> str:
    """Return the commit of the checkout that this file is in, with "-dirty" if files were changed since; else ""."""
    if not (_CHECKOUT / ".git").exists():
        return ""
    # A hook of git sets variables that name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
