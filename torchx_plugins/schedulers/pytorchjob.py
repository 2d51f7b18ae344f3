"""Found by torchx beside its own schedulers: `torchx run -s pytorchjob ...`."""

from torchx.plugins import register
from torchx.schedulers.api import Scheduler


@register.scheduler()  # type: ignore[untyped-decorator]
def pytorchjob(session_name: str, **kwargs: object) -> Scheduler:
    """Return the scheduler of PyTorchJobs; what it needs loads only where it is used."""
    from previts.launch.scheduler import PyTorchJobScheduler

    return PyTorchJobScheduler(session_name)
