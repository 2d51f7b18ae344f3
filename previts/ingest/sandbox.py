"""The sandbox: a child process normalises untrusted videos, so that a decoder bug cannot harm this machine.

It prepares the corpora of PreViTS section 4.1. The child has limits for memory, time and file size, and no secrets in
its environment. It is replaced when it dies. This module fetches nothing and writes no shards.
"""

import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TextIO

from previts.config.experiment import VideoConfig
from previts.errors import FetchError, InputError, VideoError
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.media import normalisation
from previts.media.cost import TOO_COSTLY, budget_seconds
from previts.media.gop_layout import VideoInfo

ALIVE = b".\n"


class Lost:
    """The CPU time that went into videos which could not be stored; threads may share it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add CPU seconds."""
        with self._lock:
            self.seconds += seconds


class Normaliser:
    """A child process that normalises videos one after another and is replaced when it dies.

    It is a context manager, for one thread. The child gets only the environment variables that Python needs.
    """

    def __init__(self, config: VideoConfig, limits: Limits = DEFAULT_LIMITS, lost: Lost | None = None) -> None:
        self._config, self._limits, self._lost = config, limits, lost or Lost()
        self._child: subprocess.Popen[bytes] | None = None
        self._cpu_seconds = 0.0  # of the child, up to its last reply
        self._started = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._stderr.close()

    def normalise(self, source: str, target: str, start_seconds: float | None, end_seconds: float | None) -> VideoInfo:
        """Run `normalisation.normalise` in the child.

        Raises:
            VideoError: As of `normalisation.normalise`; also if the child exceeds a limit or dies twice.
            FetchError: If the child hangs. The cause may be a slow disk, so it is retryable.
            InputError: If the disk is full or no child can start. The cause is not the video, so this ends the shard.
        """
        request = {"source": source, "target": target, "start_seconds": start_seconds, "end_seconds": end_seconds}
        for attempt in (1, 2):
            reply = self._ask(request)
            if reply is not None:
                break
            reason, final = self._cause_of_death()
            if final or attempt == 2:
                raise VideoError(reason)
        assert reply is not None
        if reply.get("full"):
            raise InputError(f"no space left for {target}; free some, or set TMPDIR to a larger disk")
        if "error" in reply:
            self._lost.add(reply["cpu_seconds"])
            if os.environ.get("PREVITS_TRACEBACK") and reply.get("traceback"):
                print(reply["traceback"], file=sys.stderr)
            raise VideoError(reply["error"])
        return VideoInfo(**{**reply["video"], "header": bytes.fromhex(reply["video"]["header"])})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the child's reply, or None if it died."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        answer = b""
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            while not answer.endswith(b"}\n"):
                # Each block is a reply or a sign of life, so a loaded machine only takes longer.
                if not select.select([child.stdout], [], [], self._limits.idle_seconds)[0]:
                    self._lost.add(self._stop())
                    raise FetchError(
                        f"the decoder made no frame in {self._limits.idle_seconds:g} s; "
                        "the machine or its disk may be too slow",
                        retryable=True,
                    )
                block = os.read(child.stdout.fileno(), 1 << 16)
                if not block:
                    break
                answer, self._started = answer + block, True
        except BrokenPipeError:
            pass
        if not answer.endswith(b"}\n"):
            if not self._started:  # no video was decoded, so none is the cause
                self._stop()
                self._stderr.seek(0)
                last = self._stderr.read().decode(errors="replace").strip().rsplit("\n", 1)[-1]
                raise InputError(f"the process that decodes videos cannot start: {last[:300]}")
            return None
        reply: dict[str, Any] = json.loads(answer.rsplit(ALIVE, 1)[-1])
        self._cpu_seconds += reply["cpu_seconds"]
        return reply

    def _start(self) -> "subprocess.Popen[bytes]":
        self._stderr.seek(0)
        self._stderr.truncate()
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR") if name in os.environ}
        packages = [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path if entry)]
        self._cpu_seconds, self._started = 0.0, False
        settings = json.dumps({"config": asdict(self._config), "limits": asdict(self._limits)})
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "previts.ingest.sandbox", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env={**kept, "PYTHONPATH": os.pathsep.join(packages), "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._child

    def _stop(self) -> float:
        """End the child; return the CPU seconds since its last reply."""
        if self._child is None:
            return 0.0
        os.kill(self._child.pid, signal.SIGKILL)  # without effect if it died; `Popen.kill` would lose its usage
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None
        return max(0.0, usage.ru_utime + usage.ru_stime - self._cpu_seconds)

    def _cause_of_death(self) -> tuple[str, bool]:
        """Return why the child died, and whether a second attempt is useless."""
        assert self._child is not None
        child = self._child
        self._lost.add(self._stop())
        code = child.returncode
        if code == -signal.SIGXCPU:
            free, both = (
                self._limits.cpu_margin * budget_seconds(frames, self._config.cpu_seconds_per_frame)
                for frames in (0, 1)
            )
            return (
                f"{TOO_COSTLY}: it needs more than {free:.1f} CPU seconds, and {both - free:.2g} for each stored "
                "frame; give a shorter window, or raise video.cpu_seconds_per_frame"
            ), True
        if code == -signal.SIGKILL:
            return "the decoder was killed twice, maybe because memory ran out", False
        if code < 0:
            return f"the decoder crashed twice ({signal.Signals(-code).name})", False
        return f"the decoder ended twice with exit code {code}", False


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _meter(limits: Limits, config: VideoConfig, replies: TextIO) -> Callable[[int], None]:
    """Return a function to call after each frame: it extends the limit of CPU time and shows that the child works."""
    start, shown = _cpu_seconds(), time.monotonic()

    def allow(frames: int) -> None:
        nonlocal shown
        seconds = limits.cpu_margin * budget_seconds(frames, config.cpu_seconds_per_frame)
        # The system counts whole seconds.
        resource.setrlimit(resource.RLIMIT_CPU, (int(start + seconds) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        if time.monotonic() - shown > 1:
            shown = time.monotonic()
            replies.write(ALIVE.decode())
            replies.flush()

    allow(0)
    return allow


def _serve(settings: dict[str, Any]) -> None:
    """Run the child of a `Normaliser`: each line of standard input is a request, each line of standard output a reply.

    Both are JSON objects. While a video is made, `ALIVE` is written about once a second.
    """
    config, limits = VideoConfig(**settings["config"]), Limits(**settings["limits"])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of a library must not be read as a reply
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.stored_bytes, limits.stored_bytes))
    before = 0.0
    replies.write(ALIVE.decode())
    replies.flush()
    for line in sys.stdin:
        made = _meter(limits, config, replies)
        try:
            info = normalisation.normalise(config=config, made=made, **json.loads(line))
            reply: dict[str, Any] = {"video": {**asdict(info), "header": info.header.hex()}}
        except VideoError as error:
            reply = {"error": str(error)}
        except MemoryError:
            reply = {"error": f"decoding needs more than {limits.memory_bytes >> 20} MiB of memory"}
        except Exception as error:  # PyAV turns strange values of a file into errors of many kinds
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                reply = {"full": True}
            else:
                reply = {"error": "not a readable video: it states values that cannot be used"}
                reply["traceback"] = traceback.format_exc()
        reply["cpu_seconds"] = _cpu_seconds() - before
        before += reply["cpu_seconds"]
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
