"""The torchx scheduler `pytorchjob`, used by `torchx run -s pytorchjob ...`. torchx loads it from this package."""

from torchx.plugins import register
from torchx.schedulers.api import Scheduler


@register.scheduler()  # type: ignore[untyped-decorator]
def pytorchjob(session_name: str, **kwargs: object) -> Scheduler:
    """Return the scheduler of PyTorchJobs. It is imported here, so other schedulers do not load it."""
    from previts.launch.scheduler import PyTorchJobScheduler

    return PyTorchJobScheduler(session_name)
