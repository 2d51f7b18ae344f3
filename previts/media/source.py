"""The reader of source videos: finds the frames of a window by their timestamps, and decodes them in order of time.

The crawls of PreViTS section 4.1 name windows of untrusted files in any format. This module reads local files only, no
network and no object store. `timing.py` computes with the timestamps, and `cost.py` limits what decoding may cost.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from previts.errors import VideoError
from previts.media.cost import Cost, budget_seconds
from previts.media.source_stream import PacketDecoder, open_stream
from previts.media.timing import MAX_FRAMES, Clock, Window, check_complete, make_window, missing_at_end

SEEK_AFTER_SECONDS = 5.0  # for earlier windows, decoding from the start is cheap and safer than a seek
SECONDS_UNKNOWN = -(1 << 63)  # FFmpeg's AV_NOPTS_VALUE
PAID_FPS = 25.0  # frames per second of a source beyond this do not raise its budget
MAX_STRETCH = 0.1  # of the logarithm of width / height, by which frames may differ from the first
SEAM_PACKETS = 4  # before a place where files are joined; FFmpeg marks one of these as damaged

BROADCAST = {"mpegts", "mpeg"}  # formats that state no length and may start a new time base anywhere
GUESSED = {"avi"}  # it does not store when a frame is shown; FFmpeg guesses, and is wrong if B-frames are packed
TS_PACKET_BYTES = (188, 192, 204)
# How a second file starts that was joined to one of these formats. FFmpeg and players read the first one only.
_SECOND_START = {
    "asf": (bytes.fromhex("3026b2758e66cf11"),),
    "flv": (b"FLV\x01",),
    "matroska": (b"\x42\x82\x88matroska", b"\x42\x82\x84webm"),
    "mov": (b"ftyp",),
}
_TAIL_BYTES = 4 << 20  # searched for a second start
FRAMELESS = {"vp8", "vp9", "libdav1d", "av1", "libvpx", "libvpx-vp9"}  # codecs with packets that show nothing
ERROR_DETECTION = {"err_detect": "crccheck+bitstream+buffer+explode"}  # else some decoders hide damage


def _start_time(container: Any) -> float | None:
    """Return the seconds at which a file starts, if it is known."""
    return None if container.start_time in (None, SECONDS_UNKNOWN) else container.start_time / av.time_base


def _is_broadcast(container: Any) -> bool:
    return container.format.name in BROADCAST


def _moved(packet: Any, clock: Clock) -> bool:
    """Move the timestamps of a packet to those of a clock; return whether a new part of the file starts with it.

    Packets outside the edit list of an MP4 come again before each part that is shown twice. They start no new part.
    """
    if packet.is_discard:
        return False
    offset = clock.move(packet.pts, packet.dts, packet.duration, is_key=packet.is_keyframe)
    if offset:
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
    return clock.joined


def _clock(container: Any, stream: Any) -> Clock:
    return Clock(float(1 / stream.time_base), may_jump=_is_broadcast(container))


@dataclass
class _Scan:
    """The packets of the video stream up to the end of a window, and what the container states."""

    origin: float
    stop: float
    zero: float  # seconds at which the file starts
    is_broadcast: bool
    form: str  # FFmpeg's names of the format
    nominal: Fraction | None
    aspect: Fraction | None
    codec: str
    width: int
    height: int
    stated: float | None  # seconds, of the whole file
    times: list[float] = field(default_factory=list)  # of the frames in the window
    joins: list[int] = field(default_factory=list)
    packets: int = 0
    size: int = 0  # bytes
    earliest: float = math.inf
    last: float = -math.inf  # seconds of the last frame
    final: float = -math.inf  # seconds at which the last packet of any stream ends, as far as it is known
    end: int = 0  # first byte after the packets
    complete: bool = True  # whether the file ends before the window does

    def begin_at(self, zero: float) -> None:
        """Move the window to a file that starts at `zero`."""
        self.origin, self.stop, self.zero = self.origin + zero, self.stop + zero, zero


def probe(
    source: str | int, start_seconds: float | None, end_seconds: float | None, seconds_per_frame: float
) -> tuple[Window, Cost]:
    """Return the window, with its average rate, and the cost of decoding it, from the packets; nothing is decoded.

    Raises:
        VideoError: If the window has no frames, too few, or too many; if it is a slide show, is cut short or is too
            costly to decode; or if the file is several files in one, and not all can be read.
    """
    scan = None
    seek = (start_seconds or 0.0) > SEEK_AFTER_SECONDS
    if seek:
        container, _ = open_stream(source, ERROR_DETECTION)
        with container:
            # Where timestamps start again, a seek leads anywhere.
            known = not _is_broadcast(container)
        seek = known or not (scan := _scan(source, start_seconds, end_seconds, seek=False)).joins
    if seek:
        late = _scan(source, start_seconds, end_seconds, seek=True)
        seek = late.earliest <= late.origin and not late.joins  # else its index led to a place after the start
        scan = late if seek else scan
    scan = scan or _scan(source, start_seconds, end_seconds, seek=False)
    if not scan.times:
        if scan.earliest == math.inf:
            raise VideoError("the video stream has no frames")
        raise VideoError(
            f"no frames in the window from {start_seconds or 0:g} s"
            f"{'' if end_seconds is None else f' to {end_seconds:g} s'}; "
            f"the video ends near {scan.last - scan.zero:.1f} s"
        )
    missing = _missing(source, scan) if scan.complete else 0.0
    window = make_window(
        scan.times,
        scan.origin,
        scan.stop,
        nominal=scan.nominal,
        aspect=scan.aspect,
        seek=seek,
        joins=tuple(scan.joins),
        last=scan.packets - 1 if scan.complete and scan.is_broadcast else -1,
        missing_seconds=missing,
    )
    kept = window.seconds * min(float(window.rate), PAID_FPS) + 1
    budget = budget_seconds(kept, seconds_per_frame)
    Cost(scan.codec, budget).add(scan.packets, scan.width, scan.height, scan.size)
    return window, Cost(scan.codec, budget)


def _scan(source: str | int, start_seconds: float | None, end_seconds: float | None, *, seek: bool) -> _Scan:
    container, stream = open_stream(source, ERROR_DETECTION)
    with container:
        is_guessed = container.format.name in GUESSED
        zero = 0.0 if is_guessed else _start_time(container) or 0.0
        trimmed = start_seconds is not None or end_seconds is not None
        scan = _Scan(
            origin=zero + (start_seconds or 0.0) if trimmed else -math.inf,
            stop=math.inf if end_seconds is None else zero + end_seconds,
            zero=zero,
            is_broadcast=_is_broadcast(container),
            form=container.format.name,
            nominal=stream.average_rate,
            aspect=stream.sample_aspect_ratio,
            codec=stream.codec_context.name,
            width=stream.width or 0,
            height=stream.height or 0,
            stated=container.duration / av.time_base if container.duration else None,
        )
        if seek:
            container.seek(int(scan.origin * av.time_base))
        clock = _clock(container, stream)
        for packet in container.demux():
            if packet.size == 0:
                continue
            scan.end = max(scan.end, (packet.pos or 0) + packet.size)
            is_ours = packet.stream_index == stream.index
            if is_ours:
                if _moved(packet, clock):
                    scan.joins.append(scan.packets)
                scan.packets += 1
                scan.size += packet.size
            ticks = packet.dts if packet.pts is None or is_guessed else packet.pts
            if ticks is None:
                continue
            time = float(ticks * packet.time_base)
            if is_ours and scan.earliest == math.inf and _start_time(container) is None and not seek:
                scan.begin_at(time)
            scan.final = max(scan.final, time + float((packet.duration or 0) * packet.time_base))
            if not is_ours or packet.is_discard:
                continue
            scan.earliest, scan.last = min(scan.earliest, time), max(scan.last, time)
            if packet.dts is not None and float(packet.dts * packet.time_base) >= scan.stop:
                scan.complete = False
                break
            if scan.origin <= time < scan.stop:
                scan.times.append(time)
            if len(scan.times) > MAX_FRAMES * 12:
                raise VideoError(f"more than {MAX_FRAMES * 12} frames; give start_seconds and end_seconds")
        if scan.complete:
            _check_single(source, container.format.name, scan.end)
    return scan


def _check_single(source: str | int, formats: str, end: int) -> None:
    """Refuse a file that continues with another file of its format, which cannot be read."""
    starts = [start for name, found in _SECOND_START.items() if name in formats.split(",") for start in found]
    if not starts:
        return
    with open(source, "rb", closefd=isinstance(source, str)) as file:
        file.seek(end)
        tail = file.read(_TAIL_BYTES)
    if any(start in tail for start in starts):
        raise VideoError(
            "the file is several videos one after the other, and not all can be read; store each as its own file"
        )


def _missing(source: str | int, scan: _Scan) -> float:
    """Return how many seconds are missing at the end of a file, at least; 0 if it seems complete."""
    times = sorted(scan.times)
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    if scan.nominal and abs(step * float(scan.nominal) - 1) < 0.5:
        step = 1 / float(scan.nominal)
    if scan.form == "gif":  # it states no length, but how it ends
        with open(source, "rb", closefd=isinstance(source, str)) as file:
            file.seek(-1, os.SEEK_END)
            return 0.0 if file.read() == b";" else step
    if scan.is_broadcast:  # it states no length, but the end may show that it is cut
        size = os.path.getsize(source)
        is_ragged = scan.form == "mpegts" and all(size % length for length in TS_PACKET_BYTES)
        return max(missing_at_end(scan.times) if scan.nominal else 0, int(is_ragged)) * step
    if scan.stated is None:
        return 0.0
    # FFmpeg gives the length of a Matroska file from time 0, and of others from their start.
    zero = 0.0 if "matroska" in scan.form else scan.zero
    found = max(scan.final, times[-1] + step) - zero
    if "matroska" in scan.form:
        check_complete(scan.stated, found, scan.stop - zero)
    missing = min(scan.stated, scan.stop - zero) - found
    return missing if missing > 0.75 * step else 0.0


class Decoding:
    """The decoding of the window of one source.

    Attributes:
        skipped: Number of frames in the window that could not be used so far.
        shown: Number of frames in the window that were used so far.
        missing_seconds: How much is missing at the end of the file, at least.
    """

    def __init__(self, source: str | int, window: Window, cost: Cost) -> None:
        self._source, self._window, self._cost = source, window, cost
        self.skipped = self.shown = 0
        self.missing_seconds = window.missing_seconds

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, frame) in order of time, up to the end of the window.

        Raises:
            VideoError: If the video is damaged, has too large frames, or is too costly to decode.
        """
        window, last, step = self._window, -math.inf, 1 / float(self._window.rate)
        shape: tuple[int, int] | None = None
        decoder = PacketDecoder(lambda: f"after {window.elapsed(last)}")
        broken: int | None = None  # timestamp of the last packet, if the end of the file cuts it
        container, stream = open_stream(self._source, ERROR_DETECTION)
        with container:
            if window.seek:
                container.seek(int(window.origin * av.time_base))
            clock = _clock(container, stream)
            is_guessed = container.format.name in GUESSED
            entry: int | None = None  # ticks of the first packet
            delay: int | None = None  # ticks from a packet to its frame
            for number, packet in enumerate(container.demux(stream)):
                if packet.size:
                    _moved(packet, clock)
                    entry = packet.dts if entry is None else entry
                # The last packet of a joined file is marked, because the next one does not follow from it.
                is_seam = any(0 < join - number <= SEAM_PACKETS for join in window.joins)
                is_last = number == window.last
                try:
                    frames = decoder.frames(packet, may_be_marked=is_seam or is_last)
                except VideoError:
                    if not is_last:
                        raise
                    frames, broken = [], packet.pts
                    self.missing_seconds = max(self.missing_seconds, step)
                if frames is None:
                    self.skipped, frames = self.skipped + 1, []
                self._cost.add(len(frames), stream.codec_context.width, stream.codec_context.height, packet.size)
                for frame in frames:
                    ticks = frame.dts if frame.pts is None or is_guessed else frame.pts
                    if is_guessed and ticks is not None:
                        delay = ticks - (entry or 0) if delay is None else delay
                        ticks -= delay
                    time = max(last, window.first - step) + step if ticks is None else float(ticks * frame.time_base)
                    if time >= window.stop:
                        return
                    if (broken is not None and ticks == broken) or time <= last or not decoder.shows(frame):
                        self.skipped += time >= window.origin
                        continue
                    shape = shape or (frame.width, frame.height)
                    if abs(math.log(frame.width * shape[1] / (frame.height * shape[0]))) > MAX_STRETCH:
                        raise VideoError(
                            f"frames change from {shape[0]}x{shape[1]} to {frame.width}x{frame.height} after "
                            f"{window.elapsed(last)}; give a window in which they have one shape"
                        )
                    last = time
                    self.shown += time >= window.origin
                    yield time, frame
        # A decoder drops a frame in silence where the size changes. Some packets never have one.
        if window.frames < 1.5 * self.shown and self._cost.codec not in FRAMELESS:
            self.skipped = max(self.skipped, window.frames - self.shown)
