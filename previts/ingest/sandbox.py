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
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from previts.config.experiment import VideoConfig
from previts.errors import VideoError
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.media import normalisation
from previts.media.gop_layout import VideoInfo
from previts.storage import scratch

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of the disk, not of the video


class Normaliser:
    """A child process that normalises videos one after another and is replaced when it dies.

    It is a context manager, for one thread. The child gets only the environment variables that Python needs.
    """

    def __init__(self, config: VideoConfig, limits: Limits = DEFAULT_LIMITS) -> None:
        self._config, self._limits = config, limits
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile(dir=scratch.parent())  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._stderr.close()

    def normalise(self, source: str, target: str, start_seconds: float | None, end_seconds: float | None) -> VideoInfo:
        """Run `normalisation.normalise` in the child.

        Raises:
            VideoError: As of `normalisation.normalise`; also if the child exceeds a limit or dies twice.
            OSError: If the disk does not accept the file. The cause is not the video, so this error ends the shard.
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
        if number := reply.get("errno"):
            raise OSError(number, os.strerror(number), target)
        if "error" in reply:
            raise VideoError(reply["error"])
        return VideoInfo(**{**reply["video"], "header": bytes.fromhex(reply["video"]["header"])})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the child's reply, or None if it died."""
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
        self._stderr.seek(0)
        self._stderr.truncate()
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR") if name in os.environ}
        packages = [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path if entry)]
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
        """Return why the child died, and whether a second attempt is useless."""
        assert self._child is not None
        code = self._child.wait()
        self._stop()
        if code == -signal.SIGXCPU:
            return f"decoding took more than {self._limits.decode_cpu_seconds} CPU seconds", True
        if code == -signal.SIGKILL:
            return "the decoder was killed twice, maybe because memory ran out", False
        if code < 0:
            return f"the decoder crashed twice ({signal.Signals(-code).name})", False
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return f"the decoder failed twice: {last[:300] or f'exit code {code}'}", False


def _serve(settings: dict[str, Any]) -> None:
    """Run the child of a `Normaliser`: each line of standard input is a request, each line of standard output a reply.

    Both are JSON objects.
    """
    config, limits = VideoConfig(**settings["config"]), Limits(**settings["limits"])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of a library must not be read as a reply
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.stored_bytes, limits.stored_bytes))
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + limits.decode_cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            info = normalisation.normalise(config=config, **json.loads(line))
            reply: dict[str, Any] = {"video": {**asdict(info), "header": info.header.hex()}}
        except VideoError as error:
            reply = {"error": str(error)}
        except OSError as error:
            if error.errno not in _DISK:
                raise
            reply = {"errno": error.errno}
        except MemoryError:
            reply = {"error": f"decoding needs more than {limits.memory_bytes >> 20} MiB of memory"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
