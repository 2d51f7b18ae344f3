"""A seeded catalogue of hostile videos: each with its file, and with what is right for it.

`right` is one of:
- a list of numbers: these frames are stored, in this order, each at least once;
- "true": whatever is stored shows true frames in ascending order, or there is a reason;
- "said": as "true"; and if frames are missing, there is a reason or the table says that the video is shortened;
- "damaged": bytes of frames are changed, and no format can notice every such change; nothing may crash or hang;
- any other text: the video is refused, and its reason matches this pattern.
"""

import itertools
import json
import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import making
from making import COUNT, FPS, base, box, boxes, picture, put, shift_ts, write, write_packets

ALL = list(range(COUNT))
LOW = (("preset", "ultrafast"),)


@dataclass(frozen=True)
class Hostile:
    """One video: `make` writes it to a path, `kind` groups it, and the window is in seconds."""

    name: str
    kind: str
    right: list[int] | str
    make: Callable[[Path], object]
    start: float | None = None
    end: float | None = None


# what is changed, and the share of the file at which that starts and stops
FLIPS = (("head", 0, 0.05), ("head", 0, 0.02), ("tail", 0.93, 1), ("body", 0.1, 0.9), ("body", 0.3, 0.7))
# name: (suffix, codec, settings); each can be read as a whole
FORMATS = {
    "mp4": ("mp4", "libx264", {}),
    "faststart": ("mp4", "libx264", {"container_options": (("movflags", "+faststart"),)}),
    "fragments": ("mp4", "libx264", {"container_options": (("movflags", "+frag_keyframe+empty_moov"),)}),
    "sound": ("mp4", "libx264", {"audio": True, "container_options": (("movflags", "+faststart"),)}),
    "mov": ("mov", "mjpeg", {"pix": "yuvj420p", "options": (("qscale", "3"),)}),
    "mkv": ("mkv", "libx264", {}),
    "hevc": ("mkv", "libx265", {"options": (("preset", "ultrafast"), ("x265-params", "log-level=none:pools=1"))}),
    "webm": ("webm", "libvpx", {"options": (("deadline", "realtime"), ("cpu-used", "8"))}),
    "vp9": ("webm", "libvpx-vp9", {"options": (("deadline", "realtime"), ("cpu-used", "8"))}),
    "avi": ("avi", "mpeg4", {}),
    "ts": ("ts", "libx264", {"options": (("preset", "veryfast"),)}),
    "ts2": ("ts", "mpeg2video", {}),
    "mpg": ("mpg", "mpeg2video", {}),
    "mpg1": ("mpg", "mpeg1video", {}),
    "flv": ("flv", "flv", {}),
    "asf": ("asf", "wmv2", {}),
    "nut": ("nut", "ffv1", {"options": (("slicecrc", "1"), ("level", "3"))}),
    "mxf": ("mxf", "mpeg2video", {}),
    "ivf": ("ivf", "libvpx", {"options": (("deadline", "realtime"), ("cpu-used", "8"))}),
    "gif": ("gif", "gif", {"pix": "rgb8"}),
    "m2v": ("m2v", "mpeg2video", {}),
}
# These state their length or show that they are cut; the others end like a whole file at many places.
TELLING = ("mp4", "faststart", "sound", "mov", "mkv", "hevc", "webm", "vp9", "avi", "flv", "gif")


def _of(name: str, **more: object) -> bytes:
    suffix, codec, settings = FORMATS[name]
    return base(suffix, codec, **{**settings, **more})  # type: ignore[arg-type]


def _suffix(name: str) -> str:
    return FORMATS[name][0]


def catalogue(seed: int = 0) -> list[Hostile]:
    """Return all hostile videos; the same seed gives the same ones."""
    found: list[Hostile] = []

    def add(
        name: str, right: list[int] | str, make: Callable[[Path], object] | Callable[[], bytes], **window: float
    ) -> None:
        kind = re.split("[-.]", name)[0]
        found.append(Hostile(name, kind, right, make, **window))  # type: ignore[arg-type]

    for part in (_plain, _cuts, _flips, _boxes, _names, _joins, _times, _bombs, _texts, _streams, _shapes):
        part(add, random.Random(f"{seed} {part.__name__}"))
    return found


def store(make: Callable[[], bytes]) -> Callable[[Path], object]:
    """Return a writer of the bytes that `make` returns."""
    return lambda path: path.write_bytes(make())


def _plain(add, rng):
    for name in FORMATS:
        add(f"plain-{name}.{_suffix(name)}", ALL, store(lambda name=name: _of(name)))
    for name in ("mp4", "mkv", "avi", "ts", "mpg", "flv", "webm"):
        add(f"window-{name}.{_suffix(name)}", ALL[25:50], store(lambda name=name: _of(name)), start=1.0, end=9.0)


def _cuts(add, rng):
    for name in FORMATS:
        right = "said" if name in TELLING else "true"
        for share in (0.02, 0.15, 0.35, 0.5, 0.65, 0.8, 0.93, 0.99):
            place = share + rng.uniform(-0.01, 0.01)
            add(
                f"cut-{name}-{share}.{_suffix(name)}",
                right,
                store(lambda name=name, place=place: _of(name)[: int(len(_of(name)) * place)]),
            )


def _flipped(data: bytes, rng: random.Random, start: float, stop: float, count: int) -> bytes:
    out = bytearray(data)
    for _ in range(count):
        out[rng.randrange(int(start * len(out)), max(int(stop * len(out)), 1 + int(start * len(out))))] ^= (
            1 << rng.randrange(8)
        )
    return bytes(out)


def _flips(add, rng):
    for name in FORMATS:
        for number, (what, start, stop) in enumerate(FLIPS):
            own, count = rng.random(), rng.choice((1, 3, 20))
            add(
                f"{what}flip-{name}-{number}.{_suffix(name)}",
                "damaged",
                store(lambda a=(name, own, start, stop, count): _flipped(_of(a[0]), random.Random(a[1]), *a[2:])),
            )
        add(
            f"hole-{name}.{_suffix(name)}",
            "damaged",
            store(lambda name=name: put(_of(name), len(_of(name)) // 2, bytes(len(_of(name)) // 10))),
        )


def _boxes(add, rng):
    def change(name, kind, edit):
        add(f"box-{name}.mp4", kind, store(lambda: edit(_of("faststart"))))

    def cut_out(data, name):
        start, stop = box(data, name)
        return data[:start] + data[stop:]

    for name in (
        b"mvhd",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"stsd",
        b"stts",
        b"stsz",
        b"stsc",
        b"stco",
        b"moov",
        b"mdat",
    ):
        text = name.decode()
        change(
            f"without-{text}",
            "true" if name != b"moov" else "readable|reason|has no",
            lambda d, name=name: cut_out(d, name),
        )
        change(f"size0-{text}", "true", lambda d, name=name: put(d, box(d, name)[0], bytes(4)))
        change(f"size7-{text}", "true", lambda d, name=name: put(d, box(d, name)[0], b"\0\0\0\7"))
        change(f"huge-{text}", "true", lambda d, name=name: put(d, box(d, name)[0], b"\x7f\xff\xff\xff"))
    for name in (b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss"):
        if name in (found for found, _, _ in boxes(_of("faststart"))):
            change(
                f"count-{name.decode()}", "true", lambda d, name=name: put(d, box(d, name)[0] + 12, b"\x7f\xff\xff\xff")
            )
    change("delta0", "same timestamp|true|one frame|frames", lambda d: put(d, box(d, b"stts")[0] + 20, bytes(4)))
    change("delta-huge", "slide show|only one frame", lambda d: put(d, box(d, b"stts")[0] + 20, b"\x00\x7f\xff\xff"))
    change("timescale0", "true", lambda d: put(d, box(d, b"mdhd")[0] + 20, bytes(4)))
    change("timescale-huge", "only one frame", lambda d: put(d, box(d, b"mdhd")[0] + 20, b"\x7f\xff\xff\xff"))
    change("duration-huge", "true", lambda d: put(d, box(d, b"mdhd")[0] + 24, b"\xff\xff\xff\xff"))
    change("offset-past-end", "true", lambda d: put(d, box(d, b"stco")[0] + 16, b"\x7f\xff\xff\xff"))
    change("offset-self", "true", lambda d: put(d, box(d, b"stco")[0] + 16, struct.pack(">I", box(d, b"stco")[0])))
    change("swapped", "readable|true", lambda d: d[slice(*box(d, b"mdat"))] + d[slice(*box(d, b"ftyp"))])
    change(
        "nested",
        "readable|no video|nothing",
        lambda d: b"".join(struct.pack(">I4s", 8 * (4000 - n), b"moov") for n in range(4000)),
    )
    change("alias", "true", lambda d: put(d, box(d, b"dref")[0] + 16, b"\0\0\0\x0calis\0\0\0\0"))
    change("alias-self", "true", lambda d: put(d, box(d, b"dref")[0] + 16, b"\0\0\0\x0curl \0\0\0\0"))
    for name, (length, media, rate) in {
        "empty": (2000, 0xFFFFFFFF, 0x10000),
        "late": (1000, 12800, 0x10000),
        "past": (2000, 0x7FFFFFFF, 0x10000),
        "fast": (2000, 0, 0x7FFF0000),
        "still": (2000, 0, 0),
        "long": (0x7FFFFFFF, 0, 0x10000),
    }.items():
        entry = struct.pack(">III", length, media, rate)
        change(f"edit-{name}", "true", lambda d, entry=entry: put(d, box(d, b"elst")[0] + 16, entry))


def _names(add, rng):
    for name, suffix in (
        ("mp4", "avi"),
        ("avi", "mp4"),
        ("ts", "mkv"),
        ("mkv", "txt"),
        ("flv", "gif"),
        ("gif", "mp4"),
        ("mpg", "webm"),
        ("mkv", "jpg"),
    ):
        add(f"name-{name}.{suffix}", ALL, store(lambda name=name: _of(name)))


def _joins(add, rng):
    def parts(name, count=3):
        return [_of(name, first=COUNT * n) for n in range(count)]

    three = list(range(3 * COUNT))
    for name in ("ts", "ts2", "mpg", "mpg1", "avi", "m2v"):
        add(f"join-{name}.{_suffix(name)}", three, store(lambda name=name: b"".join(parts(name))))
        if name != "avi":
            add(
                f"join-window-{name}.{_suffix(name)}",
                "true",
                store(lambda name=name: b"".join(parts(name))),
                start=2.4,
                end=3.6,
            )
            add(
                f"join-late-{name}.{_suffix(name)}",
                "true",
                store(lambda name=name: b"".join(parts(name, 4))),
                start=6.2,
                end=7.8,
            )
    for name in ("mp4", "faststart", "mkv", "webm", "flv", "asf"):
        add(f"join-{name}.{_suffix(name)}", "several videos", store(lambda name=name: b"".join(parts(name))))
    for name in ("ivf", "gif", "nut", "mxf"):
        add(f"join-{name}.{_suffix(name)}", "true", store(lambda name=name: b"".join(parts(name))))
    wrap = (1 << 33) / 90_000
    for name in ("ts", "ts2"):
        add(f"wrap-{name}.ts", ALL, store(lambda name=name: shift_ts(_of(name), wrap - 1.08)))
        add(
            f"wrap-join-{name}.ts",
            three,
            store(lambda name=name: b"".join(shift_ts(part, wrap - 1.08) for part in parts(name))),
        )
        add(f"late-{name}.ts", ALL, store(lambda name=name: shift_ts(_of(name), 40_000)))
        for far in (0.5, 60, 3600, 40_000):
            right = three if far >= 60 else "true"
            add(
                f"jump-{name}-{far}.ts",
                right,
                store(
                    lambda name=name, far=far: b"".join(shift_ts(part, far * n) for n, part in enumerate(parts(name)))
                ),
            )
        add(
            f"back-{name}.ts",
            three,
            store(lambda name=name: b"".join(shift_ts(part, 9 - 3 * n) for n, part in enumerate(parts(name)))),
        )
        add(f"ragged-join-{name}.ts", "true", store(lambda name=name: parts(name)[0][: -188 * 9 - 77] + parts(name)[1]))
        add(f"headless-{name}.ts", "true", store(lambda name=name: _of(name)[188 * 24 :]))
        add(
            f"lost-packets-{name}.ts",
            "damaged",
            store(
                lambda name=name: b"".join(
                    _of(name)[n : n + 188] for n in range(0, len(_of(name)), 188) if n // 188 % 17
                )
            ),
        )


def _times(add, rng):
    for rate in (
        Fraction(1, 500),
        Fraction(1, 100),
        Fraction(28, 1000),
        Fraction(1, 10),
        Fraction(1, 5),
        Fraction(1, 2),
    ):
        for suffix in ("mkv", "mp4"):
            add(
                f"slides-{float(rate)}.{suffix}",
                "slide show",
                lambda path, rate=rate: write(
                    path, range(8), fps=1, times=[Fraction(n) / rate for n in range(8)], ticks=Fraction(1, 1000)
                ),
            )
    for suffix in ("avi", "nut"):
        add(
            f"slides-stated.{suffix}",
            "slide show",
            lambda path: write(path, range(4), fps=Fraction(1, 36), codec="mpeg4"),
        )
    add(
        "slides-then-motion.mkv",
        "slide show",
        lambda path: write(
            path,
            range(30),
            fps=25,
            times=[*range(0, 400, 40), *(400 + n / 25 for n in range(20))],
            ticks=Fraction(1, 1000),
        ),
    )
    for rate in (1, 2, 5, 10, 15, Fraction(24000, 1001)):
        add(
            f"slow-{float(rate):.3g}.mkv",
            list(range(12)),
            lambda path, rate=rate: write(path, range(12), fps=rate, ticks=Fraction(1, 1000)),
        )
    for number in range(8):
        steps = [rng.choice((0.02, 0.04, 0.05, 0.2)) for _ in range(39)]
        times = [0, *itertools.accumulate(steps)]
        add(
            f"vfr-{number}.mkv",
            "true",
            lambda path, times=times: write(path, range(40), fps=25, times=times, ticks=Fraction(1, 1000)),
        )
    for rate in (90_000, 1_000_000):
        add(
            f"rate-{rate}.mp4",
            "only one frame",
            lambda path, rate=rate: write(path, range(9), fps=rate, ticks=Fraction(1, rate)),
        )
    add("rate-10000.nut", "only one frame|true", lambda path: write(path, range(9), fps=10_000, codec="mpeg4"))
    for name, codec, suffix in (("mjpeg", "mjpeg", "mkv"), ("mjpeg", "mjpeg", "mov"), ("ffv1", "ffv1", "mkv")):
        size, pix = (making.WIDTH, making.HEIGHT), "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for what, times, right in (
            ("same", [5] * 9, "same timestamp|not a readable|only one frame"),
            ("far", [0, 1, 1 << 40], "slide show|not a readable|true"),
            ("gap", [*range(9), *range(90, 99)], "true"),
            ("negative", range(-9, 9), "true"),
            ("two", [0, 1], "true"),
            ("one", [0], "only one frame"),
        ):
            if what == "same" and suffix == "mov":
                continue  # FFmpeg does not write it
            add(
                f"stamps-{what}-{name}.{suffix}",
                right,
                lambda path, a=(codec, size, pix, times): write_packets(path, *a),
            )


def _bombs(add, rng):
    big, costly = (8192, 4096), "too costly to decode"
    add("bomb-png.mov", costly, lambda path: write_packets(path, "png", big, "rgb24", range(400)))
    add("bomb-png.nut", costly, lambda path: write_packets(path, "png", big, "rgb24", range(300)))
    add("bomb-png16.mov", costly, lambda path: write_packets(path, "png", (6000, 4000), "rgb48be", range(500)))
    add("bomb-jpeg2000.mov", costly, lambda path: write_packets(path, "jpeg2000", (4096, 2160), "rgb24", range(600)))
    add("bomb-ffv1.mkv", costly, lambda path: write_packets(path, "ffv1", big, "yuv420p", range(300)))
    add(
        "bomb-mjpeg.mov",
        costly,
        lambda path: write_packets(path, "mjpeg", big, "yuvj420p", range(0, 3500, 5), fps=500),
    )
    add(
        "bomb-h264.mp4",
        costly,
        lambda path: write_packets(path, "libx264", (4096, 2304), "yuv420p", range(4000), fps=400, options=dict(LOW)),
    )
    add(
        "bomb-many.mp4",
        "more than|only one|costly",
        lambda path: write_packets(path, "libx264", (64, 64), "yuv420p", range(100_000), fps=25, options=dict(LOW)),
    )
    add(
        "bomb-wide.mkv",
        "larger than|readable|decoder",
        lambda path: write_packets(path, "mjpeg", (16384, 16000), "yuvj420p", [0, 1]),
    )
    add(
        "bomb-wide.mov",
        "larger than|readable|decoder",
        lambda path: write_packets(path, "png", (16384, 8192), "gray", [0, 1]),
    )
    add(
        "bomb-gif.gif",
        "larger than|costly|readable|damaged",
        lambda path: path.write_bytes(put(_of("gif"), 6, struct.pack("<HH", 65535, 65535))),
    )
    add(
        "bomb-hidden.mov",
        costly,
        lambda path: path.write_bytes(_lie(write_packets(path, "png", big, "rgb24", range(400)).read_bytes(), big)),
    )
    add("bomb-short.mov", "true", lambda path: write_packets(path, "png", (4096, 2160), "gray", [0, 1, 2]))
    add("sparse.mp4", "bytes are more|larger|readable", lambda path: _sparse(path, 3 << 30))
    add("sparse-small.mkv", "readable", lambda path: _sparse(path, 300 << 20))
    add("sparse-ts.ts", "true", lambda path: (path.write_bytes(_of("ts")), _sparse(path, 100 << 20)))


def _lie(data: bytes, size: tuple[int, int]) -> bytes:
    """Return an MP4 file that states a small size for its large frames."""
    return data.replace(struct.pack(">HH", *size), struct.pack(">HH", 64, 64)).replace(
        struct.pack(">II", size[0] << 16, size[1] << 16), struct.pack(">II", 64 << 16, 64 << 16)
    )


def _sparse(path: Path, size: int) -> None:
    with open(path, "ab") as file:
        file.truncate(size)


def _texts(add, rng):
    refused = (
        "not a readable|not a video|no video stream|is empty|the file is|has no frames|one frame|no decoder|"
        "larger than|memory"
    )
    for name, text in {
        "m3u8": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "ffconcat": "ffconcat version 1.0\nfile /etc/passwd\n",
        "late.m3u8": "\n\n#EXTM3U\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "mpd": "<?xml?><MPD></MPD>",
        "html": "<!DOCTYPE html><video>",
        "pls": "[playlist]\nFile1=/etc/passwd\n",
        "asx": "<asx><ref href='file:///etc/passwd'/></asx>",
        "srt": "1\n00:00:00,000 --> 00:00:02,000\nhello\n",
        "ass": "[Script Info]\n[Events]\nDialogue: 0,0:00:00.00,0:00:02.00,,,0,0,0,,hi\n",
        "json": json.dumps({"a": [1] * 99}),
        "url": "[InternetShortcut]\nURL=file:///etc/passwd\n",
        "svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "ism": "<smil><video src='/etc/passwd'/></smil>",
        "avs": 'AviSource("/etc/passwd")\n',
        "vpy": "import os\n",
        "lavfi": "color=c=red:s=99x99",
        "txt": "hello\n" * 1000,
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "imf": '<?xml version="1.0"?><AssetMap/>',
    }.items():
        add(f"text-{name}.mp4", refused, store(lambda text=text: text.encode()))
    add("text-playlist-in-mkv.mkv", refused, store(lambda: b"\x1a\x45\xdf\xa3" + b"#EXTM3U\nfile:///etc/passwd\n" * 9))
    add("empty.mp4", "empty", store(lambda: b""))
    for size in (1, 2, 7, 100, 5000, 100_000):
        add(f"noise-{size}.mp4", refused, store(lambda size=size: random.Random(size).randbytes(size)))
    for magic in (
        b"\x7fELF",
        b"PK\3\4",
        b"%PDF-1.7\n",
        b"\x1f\x8b\x08",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\xff\xff\xff\xffAVI LIST",
        b"OggS\0\2",
        b"FLV\1\5\0\0\0\x09",
        b"GIF89a",
        b"\0\0\0\x18ftypmp42",
        b"\0\0\1\xba",
        b"G" + bytes(187),
        b"DKIF\0\0\x20\0VP80",
        b"\x06\x0e\x2b\x34",
    ):
        add(
            f"magic-{magic[:4].hex()}.mp4",
            refused,
            store(lambda magic=magic: magic + random.Random(magic).randbytes(3000)),
        )


def _streams(add, rng):
    add("sound-only.m4a", "no video stream .*audio", lambda path: _audio(path))
    add(
        "subtitle-only.mkv",
        "no video stream|not a readable",
        store(lambda: _of("mkv").replace(b"V_MPEG4/ISO/AVC", b"S_TEXT/UTF8\0\0\0\0")),
    )
    add(
        "codec-unknown.mp4",
        "no decoder|no video",
        store(lambda: _of("mp4").replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")),
    )
    add("codec-other.mp4", "true", store(lambda: _of("mp4").replace(b"avc1", b"hvc1")))
    add("codec-none.mkv", "true", store(lambda: _of("mkv").replace(b"V_MPEG4/ISO/AVC", b"V_QUICKTIME\0\0\0\0")))
    add("first-frames-gone.ts", "true", store(lambda: _of("ts")[188 * 40 :]))
    add("audio-first.mp4", ALL, lambda path: write(path, audio=True))
    for count in (1, 2, 3):
        add(
            f"frames-{count}.mp4",
            "only one frame" if count == 1 else list(range(count)),
            lambda path, count=count: write(path, range(count)),
        )


def _audio(path: Path) -> None:
    write(path.with_suffix(".mp4"), audio=True)
    with (
        making.av.open(str(path.with_suffix(".mp4"))) as source,
        making.av.open(str(path), "w", format="mp4") as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.with_suffix(".mp4").unlink()


def _shapes(add, rng):
    few = list(range(12))
    for size in ((1, 1), (2, 2), (14, 64), (15, 15), (640, 8), (8, 640)):
        add(
            f"size-{size[0]}x{size[1]}.mkv",
            "too small",
            lambda path, size=size: write_packets(path, "ffv1", size, "gray", range(5)),
        )
    for size in ((161, 97), (80, 61), (321, 100), (100, 321), (160, 32), (96, 320), (1280, 720)):
        add(f"size-{size[0]}x{size[1]}.mkv", few, lambda path, size=size: write(path, few, codec="ffv1", size=size))
    for aspect in ((1000, 1), (1, 1000), (2, 1), (1, 2), (16, 15)):
        add(
            f"aspect-{aspect[0]}-{aspect[1]}.mkv",
            few,
            lambda path, aspect=aspect: write(path, few, aspect=Fraction(*aspect)),
        )
    for pix, codec in (
        ("gray", "ffv1"),
        ("gray16le", "ffv1"),
        ("yuv420p10le", "libx264"),
        ("yuv422p10le", "libx264"),
        ("yuv444p", "libx264"),
        ("yuva420p", "ffv1"),
        ("bgra", "ffv1"),
        ("yuv420p12le", "ffv1"),
        ("gbrp14le", "ffv1"),
        ("rgb48le", "ffv1"),
        ("yuv410p", "ffv1"),
        ("yuv411p", "ffv1"),
        ("yuva444p16le", "ffv1"),
        ("yuv440p", "ffv1"),
        ("rgb24", "png"),
        ("rgba", "png"),
        ("monob", "png"),
        ("gray", "png"),
        ("yuvj444p", "mjpeg"),
        ("rgb24", "jpeg2000"),
    ):
        suffix = "mov" if codec in ("png", "jpeg2000") else "mkv"
        add(f"pixels-{codec}-{pix}.{suffix}", few, lambda path, a=(codec, pix): write(path, few, codec=a[0], pix=a[1]))
    for name, sizes, right in (
        ("same-shape", {n: (320, 192) for n in range(25, 50)}, ALL),
        ("other-shape", {n: (96, 160) for n in range(25, 50)}, "frames change from 160x96 to 96x160"),
        ("often", {n: (160 + 16 * (n % 3), 96 + 10 * (n % 3) // 2 * 2) for n in range(1, 50)}, ALL),
    ):
        add(f"change-{name}.nut", right, lambda path, sizes=sizes: _changing(path, sizes))
    add("change-window.nut", ALL[:25], lambda path: _changing(path, {n: (96, 160) for n in range(25, 50)}), end=1.0)
    add(
        "change-join.ts",
        "frames change|damaged|true",
        store(lambda: _of("ts2") + _of("ts2", first=COUNT, size=(96, 160))),
    )
    add(
        "change-join-larger.ts",
        list(range(2 * COUNT)),
        store(lambda: _of("ts2") + _of("ts2", first=COUNT, size=(320, 192))),
    )
    for flag in ("+ilme+ildct",):
        add(
            "interlaced.mpg", few, lambda path, flag=flag: write(path, few, codec="mpeg2video", options={"flags": flag})
        )
    add(
        "interlaced.mkv",
        few,
        lambda path: write(path, few, options={"preset": "ultrafast", "x264-params": "interlaced=1"}),
    )
    add(
        "intra-refresh.ts",
        "true",
        lambda path: write(path, ALL, options={"preset": "ultrafast", "x264-params": "intra-refresh=1"}),
    )


def _changing(path: Path, sizes: dict[int, tuple[int, int]]) -> None:
    """Write JPEG frames of several sizes into one stream."""
    with making.av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        (stream.width, stream.height), stream.pix_fmt = (making.WIDTH, making.HEIGHT), "yuvj420p"
        for number in range(COUNT):
            width, height = sizes.get(number, (making.WIDTH, making.HEIGHT))
            context = making.av.CodecContext.create("mjpeg", "w")
            context.width, context.height, context.pix_fmt, context.time_base = (
                width,
                height,
                "yuvj420p",
                Fraction(1, FPS),
            )
            frame = making.av.VideoFrame.from_ndarray(picture(number, width, height), "rgb24").reformat(
                format="yuvj420p"
            )
            frame.pts = 0
            packet = making.av.Packet(bytes([*context.encode(frame), *context.encode(None)][0]))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, FPS)
            packet.is_keyframe = True
            container.mux(packet)
