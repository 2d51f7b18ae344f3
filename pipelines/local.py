"""The whole pipeline on this machine: KFP's embedded engine runs the same steps as a cluster."""

import collections
import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Sequence
from typing import Any

from previts import origin, stages
from previts.config import paper
from previts.errors import InputError
from previts.processes import workers
from previts.runs import check
from previts.storage import files, holders

# Lines of the engine that the screen omits: executor messages, the inputs of a step as JSON, rulers, blank lines.
CHATTER = re.compile(
    r"^\s*(\[KFP Executor|[\"{}\]\[]|-{20,}|-?[\d.]+,?$|$)|Streamed logs:|Cleaned up workspace|outputs?:$"
    r"|has no outputs|expression selector"
)
OUTPUT = re.compile(r"^\s+\w+: ('|Markdown|HTML|Metrics|\[)|^\s+(uri|metadata)=")
ENGINE_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - |^\s*\[KFP Executor")
COLOUR = re.compile(r"\x1b\[\d+m")
LOG = "run.log"


def run_local(
    *,
    root: str = "demo",
    crawl: str = "",
    data: str = "",
    rows: Sequence[str] = paper.ARMS,
    seeds: Sequence[int] = (0,),
    benchmarks: Sequence[str] = (),
    profile: str = "demo",
    set: Sequence[str] = (),
    parts: int = 2,
    launcher: str = "local",
    processes: int = 1,
    job: Sequence[str] = (),
    evaluation_processes: int = 1,
    take_over: bool = False,
) -> None:
    """Run the whole pipeline on this machine. Run the same command again to resume.

    Without --crawl or --data, it first makes a small synthetic world and uses its videos or datasets.

    Args:
        root: Folder or bucket prefix of all results.
        crawl: Folder of videos, CSV or Parquet list, the CSV of VGG-Sound or Kinetics, or a folder of such lists. By
            default: synthetic videos.
        data: Folder of the labelled datasets: voc/, imagenet/, in9/, davis/ and so on. By default: synthetic datasets.
        rows: Rows, tables or groups of tables (6, 6-video, all) of the paper to pretrain and compare (`previts show`
            lists them).
        seeds: Seeds of each row, such as 0 1 2: it is pretrained and evaluated once with each.
        benchmarks: Benchmarks of each row. By default each row runs those that the paper reports for it.
        profile: Size of the run: paper or demo.
        set: Settings to change, such as sampling.min_overlap=0.2, or ROW:sampling.min_overlap=0.2 for one row or table.
        parts: Number of parts into which the videos are divided. Two are processed at a time.
        launcher: Where pretraining runs: local (this machine) or pytorchjob (a Kubernetes cluster).
        processes: Training processes, one for each GPU. More than one are started with torchrun.
        job: Settings of a PyTorchJob, such as spot=true queue=research (`torchx runopts pytorchjob` lists all).
        evaluation_processes: Processes of a benchmark that trains (in1k, voc_det, coco, ...), one for each GPU.
        take_over: Stop other processes that work on the same results, instead of waiting for them.
    """
    started = time.monotonic()
    if take_over:
        os.environ.setdefault(holders.TAKE_OVER, uuid.uuid4().hex)
    root = files.absolute(root)
    choices: dict[str, Any] = {
        "rows": list(rows),
        "seeds": list(seeds),
        "benchmarks": list(benchmarks),
        "profile": profile,
        "set": list(set),
        "parts": parts,
        "launcher": launcher,
        "processes": processes,
        "job": list(job),
    }
    # Check the parameters first: a typing error must not cost an hour or leave a folder behind.
    check.check_choices(**choices, evaluation_processes=evaluation_processes)
    if not crawl or not data:
        for_crawl, for_data = (files.absolute(uri) if uri else None for uri in (crawl, data))
        check.check_sources(for_crawl, for_data, rows=rows, benchmarks=benchmarks, profile=profile)
        made = stages.world(root)
        crawl, data = crawl or files.join(made, "crawls"), data or files.join(made, "datasets")
    crawl, data = files.absolute(crawl), files.absolute(data)
    check.check_run(crawl=crawl, data=data, **choices)
    files.check_writable(root)
    # The engine runs two steps at once. Each can use half of the cores.
    os.environ.setdefault(workers.WHOLE, str(workers.available()))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, workers.available() // 2)))
    # Threads of torch that wait for each other sleep. By default they spin, and a step that shares its cores with other
    # programs becomes many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PREVITS_CHECKPOINT_SECONDS", "30")  # a laptop is closed more often than a node fails
    os.environ[workers.STARTED_BY] = str(os.getpid())
    os.environ[origin.RUN] = f"{origin.LOCAL}{uuid.uuid4()}"
    inputs = {"root": root, "crawl": crawl, "data": data}
    arguments = {**inputs, **choices, "evaluation_processes": evaluation_processes}
    log = os.path.join(files.local_path(root) or ".", LOG)
    os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
    with open(log, "a") as file:
        screen = _Screen(file)
        failure = _run(arguments, screen)
    if failure:
        cause = "\n".join(dict.fromkeys(screen.causes)) or "\n".join([*screen.last, failure])
        raise InputError(
            f"the run stopped:\n{cause}\nThe whole log is in {log}. Fix the cause and start the same command again: it "
            "resumes the run"
        )
    print(f"Done in {time.monotonic() - started:.0f} s. The report: {files.join(root, 'report.html')}", file=sys.stderr)


def _run(arguments: dict[str, object], screen: "_Screen") -> str:
    """Run the pipeline on the embedded engine, and return the reason for its failure or an empty text."""
    import kfp.local
    from kfp.local import logging_utils

    from pipelines.previts_full import previts_full

    # Each parallel step adds a level of indentation to the engine's print function and none removes one.
    logging_utils.indented_print = contextlib.nullcontext
    # No retries: the user sees a failure at once, fixes the cause and starts the command again.
    for component in previts_full.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # to remove the folder also then
    try:
        with (
            tempfile.TemporaryDirectory(prefix="previts-") as engine,
            contextlib.redirect_stdout(screen),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="You may be attemping")
            warnings.filterwarnings("ignore", message=".*no effect in the current local runner")  # for clusters
            kfp.local.init(
                runner=kfp.local.SubprocessRunner(use_venv=False),
                pipeline_root=files.join(engine, "outputs"),
                workspace_root=files.join(engine, "work"),
            )
            previts_full(**arguments)
    except RuntimeError as error:
        return COLOUR.sub("", str(error))
    return ""


class _Screen(io.TextIOBase):
    """Prints the output of the steps, and when each starts and ends; writes every line to the log file."""

    def __init__(self, log: io.TextIOBase) -> None:
        self.log = log
        self.rest = ""
        self.causes: list[str] = []  # messages of steps about their failures
        self.in_message = False  # whether the current line belongs to such a message
        self.last: collections.deque[str] = collections.deque(maxlen=8)  # shown if a step prints no message

    def write(self, text: str) -> int:
        self.log.write(text)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            plain = COLOUR.sub("", line)
            self.in_message = not ENGINE_LINE.match(plain) and (self.in_message or plain.startswith("previts: "))
            if self.in_message and plain.strip():
                self.causes.append(plain.removeprefix("previts: ").rstrip())
            if not CHATTER.search(plain) and not OUTPUT.search(plain):
                print(plain.rstrip(), file=sys.stderr, flush=True)
                self.last.append(plain.rstrip())
        return len(text)

    def flush(self) -> None:
        self.log.flush()
