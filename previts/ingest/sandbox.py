"""A child process in which the videos of strangers are decoded, so that a decoder can do no harm.

Below PreViTS section 4.1. The child has limits of memory, time and file size, sees no secrets, and is replaced when it
dies. Nothing here fetches, or knows shards or tables.
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
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from previts.config.experiment import VideoConfig
from previts.errors import InputError, VideoError
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.media import normalisation
from previts.media.gop_layout import VideoInfo


class Normaliser:
    """A child process that normalises videos one after another and is replaced when it dies.

    A context manager; one per thread. The child sees none of this process's environment but what Python needs.
    """

    def __init__(self, config: VideoConfig, limits: Limits = DEFAULT_LIMITS) -> None:
        self._config, self._limits = config, limits
        self._child: subprocess.Popen[bytes] | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._complaints.close()

    def normalise(self, source: str, target: str, start_seconds: float | None, end_seconds: float | None) -> VideoInfo:
        """Do `video.normalise` in the child.

        Raises:
            VideoError: As `video.normalise`; also if the child took too long or too much memory, or died twice.
            InputError: If the disk is full, which is not the video's fault.
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
            raise InputError(f"no space left for {target}; free some, or let TMPDIR name a larger disk")
        if "error" in reply:
            raise VideoError(reply["error"])
        return VideoInfo(**{**reply["video"], "header": bytes.fromhex(reply["video"]["header"])})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the child's answer, or None if it died."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = time.monotonic() + self._limits.decode_seconds
        answer = b""
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            while not answer.endswith(b"\n"):
                if not select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    self._stop()
                    raise VideoError(f"decoding took more than {self._limits.decode_seconds:g} s")
                block = os.read(child.stdout.fileno(), 1 << 16)
                if not block:
                    return None
                answer += block
        except BrokenPipeError:
            return None
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _start(self) -> "subprocess.Popen[bytes]":
        self._complaints.seek(0)
        self._complaints.truncate()
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR") if name in os.environ}
        packages = [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path if entry)]
        settings = json.dumps({"config": asdict(self._config), "limits": asdict(self._limits)})
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "previts.ingest.sandbox", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
            env={**kept, "PYTHONPATH": os.pathsep.join(packages), "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._child

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None

    def _cause_of_death(self) -> tuple[str, bool]:
        """Return why the child died, and whether it would only die again."""
        assert self._child is not None
        code = self._child.wait()
        self._stop()
        if code == -signal.SIGXCPU:
            return f"decoding took more than {self._limits.decode_cpu_seconds} CPU seconds", True
        if code == -signal.SIGKILL:
            return "the decoder was killed twice, perhaps for want of memory", False
        if code < 0:
            return f"the decoder crashed twice ({signal.Signals(-code).name})", False
        self._complaints.seek(0)
        last = self._complaints.read().decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return f"the decoder failed twice: {last[:300] or f'exit code {code}'}", False


def _serve(settings: dict[str, Any]) -> None:
    """Be the child of a `Normaliser`: a request a line on standard input, an answer a line on standard output."""
    config, limits = VideoConfig(**settings["config"]), Limits(**settings["limits"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.stored_bytes, limits.stored_bytes))
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + limits.decode_cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            info = normalisation.normalise(config=config, **json.loads(line))
            answer: dict[str, Any] = {"video": {**asdict(info), "header": info.header.hex()}}
        except VideoError as error:
            answer = {"error": str(error)}
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            answer = {"full": True}
        except MemoryError:
            answer = {"error": f"decoding needs more than {limits.memory_bytes >> 20} MiB of memory"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
