"""The sandbox: a child process normalises untrusted videos, so that a decoder bug cannot harm this machine.

It prepares the corpora of PreViTS section 4.1. The child has limits for memory, time and file size, and no secrets in
its environment. It gets the source as an open file, and Linux confines it to a folder of its own (`confinement.py`). It
is replaced when it dies. This module fetches nothing and writes no shards.
"""

import contextlib
import errno
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self, TextIO

import cv2

from previts.config.perception import VideoConfig
from previts.errors import FetchError, InputError, VideoError
from previts.ingest import confinement
from previts.ingest.fetch import DEFAULT_LIMITS, Limits
from previts.media import normalisation
from previts.media.cost import TOO_COSTLY, budget_seconds
from previts.media.frame_hashes import is_valid
from previts.media.gop_layout import VideoInfo

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of the disk, not of the video

ALIVE = b".\n"
MAX_REPLY_BYTES = 64 << 20
MAX_SECONDS = 12 * 3600.0  # for one video, whatever signs of life the child gives
START_SECONDS = 120.0  # for the start of the child, which is no fault of a video
_BYTES = ("header", "hashes")  # fields of `VideoInfo` that a reply contains as hexadecimal text
STORED = "video.mp4"  # in the folder of the child


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

    It is a context manager, for one thread. The child gets only the environment variables that Python needs. While it
    may run, no other process can read the environment of this one.

    Attributes:
        layers: How the last child was confined: for each layer, `confinement.HELD` or why it is missing.
    """

    def __init__(
        self,
        config: VideoConfig,
        limits: Limits = DEFAULT_LIMITS,
        lost: Lost | None = None,
        program: Sequence[str] = ("-m", "previts.ingest.sandbox"),
    ) -> None:
        """Make a normaliser.

        Args:
            config: How videos are stored.
            limits: Limits for each video.
            lost: The CPU time of videos that could not be stored is added to it.
            program: Arguments of Python that start the child. It must call `serve`.
        """
        self._config, self._limits, self._program, self._lost = config, limits, program, lost or Lost()
        self._cpu_seconds = 0.0  # of the child, up to its last reply
        self.layers: dict[str, str] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._hidden = self._open.enter_context(confinement.hidden())
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="previts-decoder-"))
        self._stderr = self._open.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._open.close()

    def normalise(self, source: str, target: str, start_seconds: float | None, end_seconds: float | None) -> VideoInfo:
        """Run `normalisation.normalise` in the child.

        Raises:
            VideoError: As of `normalisation.normalise`; also if the child exceeds a limit or dies twice. It is a
                `FetchError` that may be tried again if the child had only a share of 4 GiB of memory, or if it hangs,
                because a slow disk may be the cause.
            InputError: If no child can start, or it is confined less than `PREVITS_SANDBOX` asks for.
            OSError: If the disk does not accept the file. As with an InputError, the cause is not the video, so the
                error ends the shard.
        """
        request = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        for attempt in (1, 2):
            reply = self._ask(request, source)
            if reply is not None:
                break
            reason, final = self._cause_of_death()
            if final or attempt == 2:
                raise VideoError(reason)
        assert reply is not None
        if (number := reply.get("errno")) in _DISK:
            raise OSError(number, os.strerror(number), target)
        if "video" not in reply:
            self._lost.add(reply["cpu_seconds"])
        if reply.get("memory"):
            share = self._limits.memory_bytes < DEFAULT_LIMITS.memory_bytes
            advice = "; that is the share of one worker, so use fewer (PREVITS_WORKERS) or more memory" if share else ""
            raise FetchError(
                f"decoding needs more than {self._limits.memory_bytes >> 20} MiB of memory{advice}", retryable=share
            )
        if "error" in reply:
            if os.environ.get("PREVITS_TRACEBACK") and reply.get("traceback"):
                print(reply["traceback"], file=sys.stderr)
            raise VideoError(str(reply["error"])[:4000])
        confinement.take(os.path.join(self._folder, STORED), target)
        try:
            return _checked(reply.get("video"), os.path.getsize(target))
        except VideoError:
            os.remove(target)
            raise

    def _ask(self, request: dict[str, Any], source: str) -> dict[str, Any] | None:
        """Return the child's reply, or None if it died."""
        if not os.path.isfile(source):
            raise VideoError("there is no such file")
        if self._child is None:
            self._start()
        assert self._requests is not None
        with open(os.path.join(self._folder, STORED), "wb"):
            pass  # the child may not create files
        with open(source, "rb") as file:
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode() + b"\n"], [file.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                return None
        return self._reply(self._limits.idle_seconds)

    def _reply(self, seconds: float) -> dict[str, Any] | None:
        """Return the next reply of the child, which is not trusted, or None if it died."""
        assert self._child is not None
        assert self._child.stdout is not None
        answer, deadline = b"", time.monotonic() + MAX_SECONDS
        while not answer.endswith(b"}\n"):
            if time.monotonic() > deadline:
                self._lost.add(self._stop())
                raise VideoError(f"{TOO_COSTLY}: it took more than {MAX_SECONDS / 3600:g} hours")
            # Each block is a reply or a sign of life, so a loaded machine only takes longer.
            if not select.select([self._child.stdout], [], [], seconds)[0]:
                self._lost.add(self._stop())
                raise FetchError(
                    f"the decoder made no frame in {seconds:g} s; the machine or its disk may be too slow",
                    retryable=True,
                )
            block = os.read(self._child.stdout.fileno(), 1 << 16)
            if not block:
                return None
            answer = (answer + block).rsplit(ALIVE, 1)[-1]
            if len(answer) > MAX_REPLY_BYTES:
                break
        try:
            reply = json.loads(answer)
            if not isinstance(reply, dict) or not 0 <= reply["cpu_seconds"] < math.inf:
                raise ValueError("not a reply")
        except (ValueError, TypeError, KeyError, RecursionError):
            self._lost.add(self._stop())
            raise VideoError("the decoder gave an invalid reply") from None
        self._cpu_seconds += reply["cpu_seconds"]
        return reply

    def _start(self) -> None:
        """Start the child and let it confine itself.

        Raises:
            InputError: If it does not start or is confined too little; no video is the cause.
        """
        self._cpu_seconds = 0.0
        self._stderr.seek(0)
        self._stderr.truncate()
        settings = json.dumps({"config": asdict(self._config), "limits": asdict(self._limits), "folder": self._folder})
        self._requests, requests = socket.socketpair()
        with requests:
            self._child = subprocess.Popen(
                [sys.executable, "-P", *self._program, settings],
                stdin=requests.fileno(),
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env={**confinement.environment(), "OPENBLAS_NUM_THREADS": "1"},
            )
        started = self._reply(START_SECONDS)
        if started is None:  # no video was decoded, so none is the cause
            self._stop()
            raise InputError(f"the process that decodes videos cannot start: {self._last_line()}")
        self.layers = {"hidden_parent": self._hidden, **started["layers"]}
        try:
            confinement.check(self.layers)
        except InputError:
            self._stop()
            raise

    def _last_line(self) -> str:
        """Return the last line of the standard error of the child."""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4096))
        return self._stderr.read().decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]

    def _stop(self) -> float:
        """End the child; return the CPU seconds since its last reply."""
        if self._child is None:
            return 0.0
        os.kill(self._child.pid, signal.SIGKILL)  # without effect if it died; `Popen.kill` would lose its usage
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (self._requests, self._child.stdout):
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
        if code == -signal.SIGSYS:
            return "the decoder made a system call that the sandbox forbids (SIGSYS)", True
        if code < 0:
            return f"the decoder crashed twice ({signal.Signals(-code).name})", False
        return f"the decoder ended twice with exit code {code}", False


def _checked(video: Any, size: int) -> VideoInfo:
    """Return the layout of a stored file of `size` bytes, as the child described it.

    Raises:
        VideoError: If it cannot be the layout of that file.
    """
    try:
        info = VideoInfo(**{**video, **{name: bytes.fromhex(video[name]) for name in _BYTES}})
        frames, offsets = info.gop_frames, info.gop_offsets
        whole = [info.width, info.height, info.num_frames, info.skipped_frames, *frames, *offsets]
        right = (
            all(type(number) is int and number >= 0 for number in whole)
            and type(info.fps) is float
            and 0 < info.fps < math.inf
            and type(info.missing_seconds) in (int, float)
            and 0 <= info.missing_seconds < math.inf
            and len(offsets) == len(frames) + 1
            and [*frames, info.num_frames] == sorted({*frames, info.num_frames})
            and [*offsets, size + 1] == sorted({*offsets, size + 1})
            and is_valid(info.hashes)
        )
    except (TypeError, KeyError, ValueError):
        right = False
    if not right:
        raise VideoError("the decoder gave an invalid reply")
    return info


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _mapped_bytes() -> int:
    """Return the size of the address space, which is mostly libraries, so that these are not counted as memory."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # not Linux
        return 0


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


def serve(
    settings: dict[str, Any],
    decode: Callable[..., VideoInfo] = normalisation.normalise,
    steps: Collection[str] = confinement.STEPS,
) -> None:
    """Run the child of a `Normaliser`: confine it, then answer each request with a line of standard output.

    Requests and replies are JSON objects. Each request comes with the open source. While a video is made, `ALIVE` is
    written about once a second.

    Args:
        settings: What `Normaliser` passes to the child.
        decode: Called for each request, like `normalisation.normalise`.
        steps: How to confine this process (`confinement.confine`); tests leave some out.
    """
    config, limits = VideoConfig(**settings["config"]), Limits(**settings["limits"])
    requests, replies = socket.socket(fileno=0), os.fdopen(os.dup(1), "w")
    cv2.setNumThreads(1)  # the images are small, and the stack of each thread would count as memory
    os.dup2(2, 1)  # output of a library must not be read as a reply
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = _mapped_bytes() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.stored_bytes, limits.stored_bytes))
    layers = confinement.confine(settings["folder"], steps)
    before = _cpu_seconds()
    print(json.dumps({"layers": layers, "cpu_seconds": before}), file=replies, flush=True)
    for request, source in _received(requests):
        made = _meter(limits, config, replies)
        try:
            info = decode(source, STORED, config, made=made, **request)
            reply: dict[str, Any] = {"video": {**asdict(info), **{name: getattr(info, name).hex() for name in _BYTES}}}
        except VideoError as error:
            reply = {"error": str(error)}
        except MemoryError:
            reply = {"memory": True}
        except Exception as error:  # PyAV turns strange values of a file into errors of many kinds
            if isinstance(error, OSError) and error.errno in _DISK:
                reply = {"errno": error.errno}
            else:
                reply = {"error": "not a readable video: it states values that cannot be used"}
                reply["traceback"] = traceback.format_exc()
        reply["cpu_seconds"] = _cpu_seconds() - before
        before += reply["cpu_seconds"]
        print(json.dumps(reply), file=replies, flush=True)


def _received(requests: socket.socket) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the requests, each with the descriptor of its source, which is closed afterwards."""
    text, sources = b"", []
    while True:
        block, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 1)
        if not block:
            return
        text += block
        sources += descriptors
        if text.endswith(b"\n"):
            yield json.loads(text), sources[0]
            os.close(sources[0])
            text, sources = b"", []


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
