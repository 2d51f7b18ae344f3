"""The whole DAG on this machine, on KFP's embedded engine: the same steps and the same YAML's code as on a cluster."""

import collections
import contextlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence

from previts import flow, paper, stages, storage, workers
from previts.errors import InputError

# What the engine prints of itself: executor chatter, the inputs of a step as JSON, rules, blank lines.
CHATTER = re.compile(
    r"^\s*(\[KFP Executor|[\"{}\]\[]|-{20,}|$)|Streamed logs:|Cleaned up workspace|outputs?:$|has no outputs"
    r"|expression selector"
)
OUTPUT = re.compile(r"^\s+\w+: ('|Markdown|HTML|Metrics|\[)|^\s+(uri|metadata)=")
ENGINE_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - |^\s*\[KFP Executor")
COLOUR = re.compile(r"\x1b\[\d+m")
LOG = "run.log"


def run_local(
    root: str = "demo",
    crawl: str = "",
    data: str = "",
    rows: Sequence[str] = paper.ARMS,
    benchmarks: Sequence[str] = (),
    profile: str = "demo",
    set: Sequence[str] = (),
    parts: int = 2,
    launcher: str = "local",
    processes: int = 1,
    job: Sequence[str] = (),
    evaluation_processes: int = 1,
) -> None:
    """Run the whole pipeline on this machine; the same command again goes on where it stopped.

    Args:
        root: Folder or bucket prefix under which every result lies.
        crawl: CSV or Parquet manifest, native VGG-Sound or Kinetics CSV, or a folder of videos; by default a small
            synthetic world that is made first.
        data: Folder of the labelled sets: voc/, imagenet/, coco/, in9/, davis/, ucf101/ and so on; by default those of
            the synthetic world.
        rows: Rows or tables of the paper to pretrain and compare (`previts show` lists them).
        benchmarks: What to evaluate each row on; by default what the paper has for it.
        profile: Size of the run: paper or demo.
        set: One-off changes, such as sampling.min_overlap=0.2.
        parts: Workers that share the videos; the engine runs two at a time.
        launcher: Where the training program runs: local, on this machine, or pytorchjob, on a Kubernetes cluster.
        processes: Training processes, one a GPU.
        job: Settings of a PyTorchJob, such as spot=true, queue=research or namespace=team.
        evaluation_processes: Processes of each evaluation that trains, one a GPU.
    """
    started = time.monotonic()
    root = storage.absolute(root)
    # A typing error should not cost an hour, nor leave a folder behind.
    flow.distinct_rows(rows, benchmarks, profile, set, parts, launcher, processes, job)
    if not crawl or not data:
        made = stages.world(root)
        crawl, data = crawl or storage.join(made, "crawl.csv"), data or storage.join(made, "datasets")
    crawl, data = storage.absolute(crawl), storage.absolute(data)
    flow.plan(crawl, data, rows, benchmarks, profile, set, parts, launcher, processes, job)
    storage.check_writable(root)
    # The engine runs two steps at once; each may use its share of the cores.
    os.environ.setdefault(workers.WHOLE, str(workers.available()))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, workers.available() // 2)))
    os.environ.setdefault("PREVITS_CHECKPOINT_SECONDS", "30")  # a laptop is closed sooner than a node is lost
    os.environ[workers.STARTED_BY] = str(os.getpid())
    arguments = {
        "root": root,
        "crawl": crawl,
        "data": data,
        "rows": list(rows),
        "benchmarks": list(benchmarks),
        "profile": profile,
        "set": list(set),
        "parts": parts,
        "launcher": launcher,
        "processes": processes,
        "job": list(job),
        "evaluation_processes": evaluation_processes,
    }
    log = os.path.join(storage.local_path(root) or ".", LOG)
    os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
    with open(log, "a") as file:
        screen = _Screen(file)
        failure = _run(arguments, screen)
    if failure:
        cause = "\n".join(dict.fromkeys(screen.causes)) or "\n".join([*screen.last, failure])
        raise InputError(
            f"the run stopped:\n{cause}\nThe whole log is {log}. The same command goes on where it stopped."
        )
    print(
        f"Done in {time.monotonic() - started:.0f} s. The report: {storage.join(root, 'report.html')}", file=sys.stderr
    )


def _run(arguments: dict[str, object], screen: "_Screen") -> str:
    """Run the DAG on the embedded engine and return why it failed, or nothing."""
    import kfp.local
    from kfp.local import logging_utils

    from pipelines.previts_full import previts_full

    # The engine's indented print nests once more with every parallel step and never ends.
    logging_utils.indented_print = contextlib.nullcontext
    # A person is told at once what failed, and repeats the command when it is mended.
    for component in previts_full.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
    engine = tempfile.mkdtemp(prefix="previts-engine-")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the folder goes too
    try:
        with contextlib.redirect_stdout(screen), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You may be attemping")
            warnings.filterwarnings("ignore", message=".*no effect in the current local runner")  # for clusters
            kfp.local.init(
                runner=kfp.local.SubprocessRunner(use_venv=False), pipeline_root=engine, workspace_root=engine + "-work"
            )
            previts_full(**arguments)
    except RuntimeError as error:
        return COLOUR.sub("", str(error))
    finally:
        shutil.rmtree(engine, ignore_errors=True)
    return ""


class _Screen(io.TextIOBase):
    """Shows a person what the steps say and the engine's start and end of each; the log file gets every line."""

    def __init__(self, log: io.TextIOBase) -> None:
        self.log = log
        self.rest = ""
        self.causes: list[str] = []  # what steps said of their failures
        self.telling = False
        self.last: collections.deque[str] = collections.deque(maxlen=8)  # of a step that died without a word

    def write(self, text: str) -> int:
        self.log.write(text)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            plain = COLOUR.sub("", line)
            self.telling = not ENGINE_LINE.match(plain) and (self.telling or plain.startswith("previts: "))
            if self.telling and plain.strip():
                self.causes.append(plain.removeprefix("previts: ").rstrip())
            if not CHATTER.search(plain) and not OUTPUT.search(plain):
                print(plain.rstrip(), file=sys.stderr, flush=True)
                self.last.append(plain.rstrip())
        return len(text)

    def flush(self) -> None:
        self.log.flush()
