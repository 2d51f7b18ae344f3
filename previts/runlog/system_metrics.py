"""The load of the machine while a training runs: CPU, memory, disk, network and GPUs, under MLflow's own names.

A thread samples every few seconds. The samples of the main process are sent with the lines of the training log, so
the rules of the spool hold for them too. Other nodes of a training send theirs directly: what MLflow does not accept
at once is lost. Neither delays the training or its end.
"""

import logging
import os
import threading
import time
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from previts.runlog.run_log import RunLog
from previts.runlog.run_store import find_trial, outages

SECONDS = 10.0  # between two samples, as in MLflow
SEND_SECONDS = 30.0  # between two requests of a node that is not the first
SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"  # MLflow's switch; here the load is recorded unless it is false

logger = logging.getLogger(__name__)


class LoadSampler:
    """Samples the load in a thread, from its construction to `stop`.

    Args:
        node: Number of the node, or "" if there is only one.
        seconds: Longest time between two samples.
    """

    def __init__(self, node: str, seconds: float) -> None:
        self._prefix = f"system/node_{node}/" if node else "system/"
        self._seconds = seconds
        self._monitors = _monitors()
        self._lock, self._stopped = threading.Lock(), threading.Event()
        threading.Thread(target=self._sample, name="system-metrics", daemon=True).start()

    def take(self) -> dict[str, float]:
        """Return the means of the samples since the last call; nothing if there is none, or one is being taken."""
        if not self._lock.acquire(blocking=False):
            return {}
        try:
            taken: dict[str, float] = {}
            for monitor in self._monitors:
                taken |= {f"{self._prefix}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            return taken
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End the thread after its current sample; this does not wait for it."""
        self._stopped.set()

    def _sample(self) -> None:
        pause = min(1.0, self._seconds)  # so that a short training has samples too
        for monitor in self._monitors:
            monitor.collect_metrics()  # the load of the CPU is that since the last sample of this thread
            monitor.clear_metrics()
        while not self._stopped.wait(pause):
            pause = min(2 * pause, self._seconds)
            with self._lock:
                for monitor in self._monitors:
                    monitor.collect_metrics()


def _monitors() -> list[Any]:
    """Return MLflow's monitors of this machine; that of the GPUs needs `nvidia-ml-py`."""
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    except ImportError:  # psutil is missing
        return []
    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    found, of_gpus = [kind() for kind in kinds], typing.cast(Any, GPUMonitor)
    try:
        found.append(of_gpus())
    except (ImportError, RuntimeError):  # no driver, or no library that asks it
        logger.debug("the load of GPUs is not recorded", exc_info=True)
    return found


@contextmanager
def sampled(run: RunLog | None, root: str, fingerprint: str) -> Iterator[None]:
    """Record the load of this machine during the block, if this is the first process of its node.

    Args:
        run: The run of the main process; None in other processes.
        root: Folder or bucket prefix that contains all results.
        fingerprint: Of the trial that is trained.
    """
    environment = os.environ
    processes = environment.get("WORLD_SIZE", "1")
    several = environment.get("LOCAL_WORLD_SIZE", processes) != processes  # nodes
    node = environment.get("GROUP_RANK", "0") if several else ""
    is_first = run is not None or (several and environment.get("LOCAL_RANK") == "0")
    if not is_first or environment.get(SWITCH, "true").lower() in ("false", "0"):
        yield
        return
    sampler = LoadSampler(node, SECONDS)
    ended = threading.Event()
    if run is not None:
        run.sampler = sampler
    else:
        arguments = (sampler, root, fingerprint, ended)
        threading.Thread(target=_send_on, args=arguments, name="system-metrics-sender", daemon=True).start()
    try:
        yield
    finally:
        sampler.stop()
        ended.set()
        if run is not None:
            run.sampler = None


def _send_on(sampler: LoadSampler, root: str, fingerprint: str, ended: threading.Event) -> None:
    """Send the load of a node to the run that its main process has opened; losses are accepted."""
    while not ended.wait(SEND_SECONDS):
        try:
            send_load(root, fingerprint, sampler.take())
        except outages():
            logger.debug("MLflow does not answer; the load of this node is lost", exc_info=True)


def send_load(root: str, fingerprint: str, values: Mapping[str, float]) -> None:
    """Send the load of a node at this moment to the run of a trial; the step is the age of the run in seconds.

    Raises:
        OSError, MlflowException: If MLflow does not answer; see `run_store.outages`.
    """
    trial = find_trial(root, fingerprint)
    if trial is None or not values:
        return
    now, started = int(time.time() * 1000), trial.client.get_run(trial.run_id).info.start_time
    trial.send_entries([{"kind": "metrics", "values": values, "step": (now - started) // 1000, "time": now}])
