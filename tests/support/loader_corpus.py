"""The corpus of the loader's benchmarks: videos of 10 s from a folder, stored as shards and as files of one GOP."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from long_videos import make_index
from PIL import Image
from source_videos import decode_file

from previts.config.experiment import Experiment
from previts.corpus import index_table

SHORT_SIDE, FPS, FRAMES = 256, 25, 250

IMAGE = Experiment()
TWO_CLIPS = replace(
    IMAGE,
    model=replace(IMAGE.model, encoder="s3dg"),
    sampling=replace(IMAGE.sampling, clip_frames=16, clip_stride=2),
)
THREE_CLIPS = replace(
    TWO_CLIPS,
    sampling=replace(TWO_CLIPS.sampling, clip_stride=1),
    objective=replace(TWO_CLIPS.objective, speed_weight=1.0),
)


@dataclass(frozen=True)
class Corpus:
    """The same videos in two stores: shards with an index, and files of one GOP with a folder of mask images each."""

    index: index_table.Index
    files: list[Path]
    masks: list[Path]


def ten_seconds(source: Path) -> list[np.ndarray]:
    """Return 10 s at 25 frames a second and 256 px; a shorter video runs forwards and backwards without jumps."""
    frames = decode_file(str(source))
    scale = SHORT_SIDE / min(frames.shape[1:3])
    height, width = (round(side * scale / 2) * 2 for side in frames.shape[1:3])
    there_and_back = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    chosen = [there_and_back[number % len(there_and_back)] for number in range(FRAMES)]
    return [cv2.resize(frames[number], (width, height), interpolation=cv2.INTER_CUBIC) for number in chosen]


def encode(images: list[np.ndarray], target: Path, crf: int, preset: str) -> None:
    """Write a video with x264's default structure: B-frames, and a key frame every 250 frames or at a scene change."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": preset})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_corpus(crawl: Path, count: int, folder: Path) -> Corpus:
    """Write a corpus of `count` videos of a folder of MP4 files, with masks of an object that moves."""
    for name in ("source", "long", "masks"):
        (folder / name).mkdir()
    sources = sorted(crawl.glob("*.mp4"))
    sources = [sources[number * len(sources) // count] for number in range(min(count, len(sources)))]
    for source in sources:
        encode(ten_seconds(source), folder / "source" / source.name, 8, "veryfast")
        # both stores are made from the same decoded frames
        encode(list(decode_file(str(folder / "source" / source.name))), folder / "long" / source.name, 23, "medium")
    made, drawn = make_index(folder, [folder / "source" / path.name for path in sources], FRAMES)
    for path, masks in zip(sources, drawn, strict=True):
        (folder / "masks" / path.stem).mkdir()
        for frame, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / path.stem / f"{frame:05d}.png")
    ids = [row.video_id for row in made]
    return Corpus(made, [folder / "long" / f"{name}.mp4" for name in ids], [folder / "masks" / name for name in ids])
