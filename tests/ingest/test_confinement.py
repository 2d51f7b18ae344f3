"""Hostile decoders against each layer alone. Oracles: the same attacks without a layer, and plain decoding."""

import ctypes
import http.server
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import hostile_decoder
import numpy as np
import pytest

from previts.config.perception import VideoConfig
from previts.errors import FetchError, InputError, VideoError
from previts.ingest import confinement, fetch
from previts.ingest.sandbox import Normaliser
from previts.media import normalisation

SUPPORT = Path(hostile_decoder.__file__)
NOBODY = 65534
OTHER_FILES = {
    "list the root", "read a file", "write a file", "overwrite a file", "truncate a file", "remove a file",
    "environment of another process", "environment of the parent",
}  # fmt: skip
OTHER_PROCESSES = {"memory of another process", "trace another process"}
REFUSED = {
    "namespaces": OTHER_FILES | OTHER_PROCESSES
    | {"change a mode", "tcp", "udp", "unix socket", "abstract socket", "new namespace"},
    "capabilities": OTHER_PROCESSES
    | {"environment of another process", "environment of the parent", "mount", "new namespace"},
    "landlock": OTHER_FILES | OTHER_PROCESSES | {
        "new file", "make a link", "make a pipe", "tcp", "abstract socket", "mount", "kill another process",
    },
    "seccomp": OTHER_PROCESSES | {
        "truncate a file", "change a mode", "make a link", "make a pipe", "tcp", "udp", "unix socket",
        "abstract socket", "netlink", "limits of another process", "signals from a socket", "fork", "run a program",
        "io_uring", "mount", "new namespace", "kill another process",
    },
}  # fmt: skip
REFUSED["everything"] = set().union(*REFUSED.values())


@pytest.fixture(scope="module", params=["as this user", "as nobody"])
def assault(request):
    """For each choice of layers, the state of the layers and the refused attacks; and whether root attacks."""
    command, environment = [sys.executable, str(SUPPORT)], {**os.environ, "SECRET": hostile_decoder.SECRET}
    if request.param == "as nobody":
        if os.getuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("only root can become another user, with setpriv")
        # This right lets it read Python and the checkout, wherever they are. Decoders lose it with the capabilities.
        right = "-all,+dac_read_search"
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = ["setpriv", *user, f"--inh-caps={right}", f"--ambient-caps={right}", *command]
        environment |= {"HOME": "/", "TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    packages = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": packages}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    refused = {choice: {attack for attack, error in item["results"].items() if error} for choice, item in found.items()}
    return {choice: item["layers"] for choice, item in found.items()}, refused, request.param, os.getuid()


def needed(layers, choice):
    """Skip the test if this machine does not offer a layer of the choice."""
    missing = {
        name: state for name, state in layers[choice].items() if state not in (confinement.HELD, "root is exempt")
    }
    if missing:
        pytest.skip(f"this machine does not offer {missing}")


@pytest.mark.parametrize("choice", REFUSED)
def test_each_layer_refuses_what_it_is_for_and_nothing_else(assault, choice):
    layers, refused, who, user = assault
    needed(layers, choice)
    if choice == "capabilities" and (who == "as nobody" or user):
        pytest.skip("an ordinary user has no capabilities to lose")
    expected = set(REFUSED[choice])
    if choice == "everything" and layers[choice]["process_limit"] == confinement.HELD:
        expected.add("many threads")
    # What already fails without any layer shows nothing about this one.
    assert refused[choice] - refused["nothing"] == expected - refused["nothing"]
    assert layers[choice]["hidden_parent"] == confinement.HELD


def test_without_layers_only_the_environments_are_out_of_reach(assault):
    layers, refused, who, user = assault
    ordinary = who == "as nobody" or user != 0
    expected = {"own environment", "inherited socket"}
    if ordinary:  # the parent hides itself, and another process of the same user does not
        expected |= {"environment of the parent"}
        assert "environment of another process" not in refused["nothing"]
    # An ordinary user may not mount, and containers may refuse namespaces, io_uring and tracing to everybody.
    unclear = {"mount", "new namespace", "io_uring", *OTHER_PROCESSES}
    assert refused["nothing"] - unclear == expected
    assert set(layers["nothing"]) == {"hidden_parent"}


SOURCES = {  # codec: container, pixel format, options
    "mpeg4": ("avi", "yuv420p", {}),
    "mpeg2video": ("mpegts", "yuv420p", {}),
    "libx264": ("mp4", "yuv420p", {}),
    "libx265": ("mkv", "yuv420p10le", {"x265-params": "log-level=none:pools=1"}),
    "libvpx": ("webm", "yuv420p", {}),
    "libvpx-vp9": ("webm", "yuv444p", {}),
    "libsvtav1": ("mp4", "yuv420p", {}),
    "ffv1": ("mkv", "yuv422p", {}),
    "prores": ("mov", "yuv422p10le", {}),
    "mjpeg": ("mov", "yuvj420p", {}),
    "huffyuv": ("avi", "yuv422p", {}),
    "flv": ("flv", "yuv420p", {}),
    "wmv2": ("asf", "yuv420p", {}),
    "gif": ("gif", "rgb8", {}),
    "png": ("mov", "rgb24", {}),
    "rawvideo": ("nut", "yuv420p", {}),
}


def write_source(path, codec):
    """Write 12 frames of moving noise, with sound and subtitles where the container allows."""
    suffix, pixel_format, options = SOURCES[codec]
    base = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    base = base.repeat(8, 0)[:96].repeat(8, 1)[:, :128]
    with av.open(path, "w", format={"mkv": "matroska"}.get(suffix, suffix)) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixel_format
        sound = container.add_stream("aac", rate=48000) if suffix in ("mp4", "mkv", "mov", "mpegts", "flv") else None
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.roll(base, 3 * number, 1), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
                silence.sample_rate, silence.pts = 48000, 1024 * number
                container.mux(sound.encode(silence))
        container.mux(stream.encode(None))


def test_every_codec_is_decoded_in_the_sandbox_as_outside_it(tmp_path):
    codecs = [codec for codec in SOURCES if codec in av.codecs_available]
    assert len(codecs) >= 12
    with Normaliser(VideoConfig()) as normaliser:
        for codec in codecs:
            source, here, there = (str(tmp_path / f"{codec}.{name}") for name in ("source", "here", "there"))
            write_source(source, codec)
            expected = normalisation.normalise(source, here, VideoConfig(), 0.1, None)
            assert normaliser.normalise(source, there, 0.1, None) == expected, codec
            assert Path(there).read_bytes() == Path(here).read_bytes(), codec
    assert expected.num_frames > 2


def test_a_source_behind_a_link_is_read_and_no_other_file_is(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "tmp").mkdir()
    write_source(str(tmp_path / "far" / "video"), "mpeg4")
    (tmp_path / "tmp" / "link").symlink_to(tmp_path / "far" / "video")
    with Normaliser(VideoConfig()) as normaliser:
        assert normaliser.normalise(str(tmp_path / "tmp" / "link"), str(tmp_path / "out"), None, None).num_frames == 12
        with pytest.raises(VideoError, match="no such file"):
            normaliser.normalise(str(tmp_path / "tmp" / "gone"), str(tmp_path / "out"), None, None)


def attacked(tmp_path, behaviour, *steps):
    """Return the error of a decoder that behaves in a certain way, confined by some steps only."""
    (tmp_path / "source").write_text("x")
    program = hostile_decoder.program(behaviour, steps)
    with pytest.raises(VideoError) as raised, Normaliser(VideoConfig(), program=program) as normaliser:
        normaliser.normalise(str(tmp_path / "source"), str(tmp_path / "target"), None, None)
    assert os.listdir(tmp_path) == ["source"]
    return str(raised.value)


def test_files_and_replies_of_a_decoder_are_not_trusted(tmp_path):
    assert "wrote a link" in attacked(tmp_path, "link")
    assert "wrote a link" in attacked(tmp_path, "hard link")
    assert "invalid reply" in attacked(tmp_path, "babble")
    assert "invalid reply" in attacked(tmp_path, "lie")
    assert "invalid reply" in attacked(tmp_path, "wrong offsets")


@pytest.mark.parametrize("field", hostile_decoder.WRONG_FIELDS)
def test_each_field_of_a_reply_is_checked(tmp_path, field):
    assert "invalid reply" in attacked(tmp_path, field)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code is for x86-64")
def test_system_calls_of_another_architecture_end_the_decoder(tmp_path):
    if "SIGSEGV" in attacked(tmp_path, "32 bits"):
        pytest.skip("this kernel has no 32-bit calls")
    assert "system call that the sandbox forbids (SIGSYS)" in attacked(tmp_path, "32 bits", "no_new_privs", "seccomp")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (("no_new_privs", "seccomp"), "keep the child from files"),
        (("no_new_privs", "landlock"), "keep the child from the network"),
        (("no_new_privs", "landlock", "seccomp"), ""),
    ],
)
def test_strict_refuses_to_decode_without_a_layer_for_files_and_one_for_the_network(
    tmp_path, monkeypatch, steps, reason
):
    monkeypatch.setenv("PREVITS_SANDBOX", "strict")
    (tmp_path / "source").write_text("x")
    with Normaliser(VideoConfig(), program=hostile_decoder.program("babble", steps)) as normaliser:
        for _ in range(2):  # also the second video, whose child would be there already
            with pytest.raises(InputError if reason else VideoError, match=reason or "invalid reply"):
                normaliser.normalise(str(tmp_path / "source"), str(tmp_path / "target"), None, None)
    monkeypatch.setenv("PREVITS_SANDBOX", "yes")
    with pytest.raises(InputError, match="PREVITS_SANDBOX must be 'strict' or not set, got 'yes'"):
        confinement.check({})


NAMESPACES = {"network_namespace", "mount_namespace", "process_limit"}
LANDLOCK = {"landlock_files", "landlock_tcp", "landlock_signals"}


@pytest.mark.parametrize(
    ("calls", "missing"),
    [
        (["unshare", "mount"], NAMESPACES),  # as in a pod with the seccomp profile RuntimeDefault
        (["unshare", "mount", "landlock_create_ruleset"], NAMESPACES | LANDLOCK),
        (["pivot_root", "seccomp", "prctl"], {"mount_namespace", "hidden_parent", "no_new_privs", "seccomp"}),
    ],
)
def test_without_some_layers_a_video_is_decoded_by_default_and_strict_says_what_is_missing(tmp_path, calls, missing):
    """A container that refuses system calls."""
    write_source(str(tmp_path / "source"), "mpeg4")
    program = f"""
import errno, json, os, sys
import hostile_decoder
from previts.config.perception import VideoConfig
from previts.errors import InputError
from previts.ingest.sandbox import Normaliser
hostile_decoder.forbid(errno.EPERM, *{calls!r})
with Normaliser(VideoConfig()) as normaliser:
    frames = normaliser.normalise("source", "target", None, None).num_frames
    layers = normaliser.layers
os.environ["PREVITS_SANDBOX"] = "strict"
try:
    with Normaliser(VideoConfig()) as normaliser:
        normaliser.normalise("source", "target", None, None)
    strict = ""
except InputError as error:
    strict = str(error)
print(json.dumps([frames, layers, strict]))
"""
    packages = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": packages},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frames, layers, strict = json.loads(done.stdout)
    assert frames == 12
    lost = {name for name, state in layers.items() if state != confinement.HELD}
    assert missing <= lost, layers
    if {"mount_namespace", "landlock_files"} <= lost:
        assert "from files (mount_namespace: " in strict
    else:
        assert ("from the network" in strict) == ({"network_namespace", "seccomp"} <= lost), strict


def test_a_process_is_hidden_until_the_last_block_ends():
    def dumpable():
        return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)

    before = dumpable()
    with confinement.hidden() as first:
        with confinement.hidden():
            assert dumpable() == 0
        assert dumpable() == 0
        assert first == confinement.HELD
    assert dumpable() == before == 1


# A yt-dlp that a page has taken over. It writes what succeeded where the video belongs.
TAKEN_OVER = """
import json, os, socket, sys
from pathlib import Path

def main(arguments):
    found = {}
    def attempt(name, function):
        try:
            found[name] = bool(function() or True)
        except OSError as error:
            found[name] = error.strerror
    outside = Path(Path(__file__).with_name("outside").read_text())
    attempt("secret", lambda: os.environ["SECRET"] if "SECRET" in os.environ else os.stat("/no secret"))
    attempt("read", lambda: (outside / "secret").read_text())
    attempt("parent", lambda: Path(f"/proc/{os.getppid()}/environ").read_text())
    attempt("write", lambda: (outside / "new").write_text("x"))
    attempt("kill", lambda: os.kill(os.getppid(), 0))
    attempt("tcp", lambda: socket.create_connection(("127.0.0.1", int(outside.suffix[1:]))).close())
    attempt("own", lambda: Path("cookies").write_text("x"))
    attempt("program", lambda: os.posix_spawn("/bin/true", ["true"], os.environ))
    import http.cookiejar, sqlite3, zoneinfo  # modules that the real one may need late
    Path(arguments[arguments.index("--output") + 1]).write_text(json.dumps(found))
"""


def test_a_hostile_yt_dlp_reaches_the_network_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "packages" / "yt_dlp").mkdir(parents=True)
    (tmp_path / "packages" / "yt_dlp" / "__init__.py").write_text(TAKEN_OVER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("SECRET", hostile_decoder.SECRET)
    (tmp_path / "shard").mkdir()
    with hostile_decoder.socket.create_server(("127.0.0.1", 0)) as server:
        outside = tmp_path / f"home.{server.getsockname()[1]}"
        outside.mkdir()
        (outside / "secret").write_text("x")
        (tmp_path / "packages" / "yt_dlp" / "outside").write_text(str(outside))
        target = tmp_path / "shard" / "0.source"
        fetch.fetch("https://www.youtube.com/watch?v=abcdefghijk", str(target))
    found = json.loads(target.read_text())
    assert {name for name, result in found.items() if result is True} == {"tcp", "own", "program"}
    assert os.listdir(tmp_path / "shard") == ["0.source"]
    assert os.listdir(outside) == ["secret"]


class Refuses(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.server.asked.append(self.path)
        self.send_error(403, "not today")

    def log_message(self, *_):
        pass


def test_the_real_yt_dlp_works_in_its_confinement(tmp_path, monkeypatch):
    pytest.importorskip("yt_dlp")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(FetchError, match=r"yt-dlp: .*not today"):
        fetch.fetch("https://www.youtube.com/watch?v=abcdefghijk", str(tmp_path / "0.source"), fetch.Limits(attempts=1))
    server.shutdown()
    server.server_close()
    assert "www.youtube.com:443" in server.asked
    assert os.listdir(tmp_path) == []
