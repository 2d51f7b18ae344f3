"""Writers of the demo world: encode images, masks, videos and text, and write them to any file system.

Not part of the paper.
"""

import os
import tempfile
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.demo.scene import Mask
from previts.demo.scenery.textures import Image
from previts.media.normalisation import encode_video
from previts.storage import files


def write_jpeg(uri: str, image: Image, quality: int = 92) -> None:
    """Write an image HWC as JPEG."""
    files.write_bytes(uri, cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def write_png(uri: str, image: NDArray[np.uint8]) -> None:
    """Write an image HWC or HW as PNG."""
    pixels = image[..., ::-1] if image.ndim == 3 else image
    files.write_bytes(uri, cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())


def write_mask(uri: str, mask: Mask) -> None:
    """Write a mask HW as a grey PNG of 0 and 255."""
    write_png(uri, mask.astype(np.uint8) * 255)


def write_text(uri: str, lines: Iterable[str]) -> None:
    """Write lines of text."""
    files.write_bytes(uri, "".join(line + "\n" for line in lines).encode())


def write_mp4(uri: str, frames: Iterable[Image], fps: float, crf: int = 23) -> None:
    """Write frames HWC as an H.264 file; key frames are as sparse as in an ordinary upload."""
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        path = os.path.join(folder, "clip.mp4")
        encode_video(frames, fps, path, gop=60, crf=crf)
        files.upload(path, uri)


def write_avi(uri: str, frames: list[Image], fps: float) -> None:
    """Write frames HWC as MPEG-4 in AVI, the format of UCF-101."""
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory(prefix="previts-") as folder:
        path = os.path.join(folder, "clip.avi")
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"XVID"), fps, (width, height))
        assert writer.isOpened(), "OpenCV was built without MPEG-4 in AVI"
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        files.upload(path, uri)
