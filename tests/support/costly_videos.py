"""Videos of large images, which are small files and take long to decode."""

import av
import numpy as np


def write_images(path, codec, size, pix, count, fps=25):
    """Write one frame of blocks again and again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        (stream.width, stream.height), stream.pix_fmt = size, pix
        blocks = np.random.default_rng(0).integers(0, 256, (size[1] // 32, size[0] // 32, 3), dtype=np.uint8)
        image = blocks.repeat(32, axis=0).repeat(32, axis=1)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(format=pix)
        frame.pts = 0
        packet = bytes([*stream.encode(frame), *stream.encode(None)][0])
        for number in range(count):
            copy = av.Packet(packet)
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, number, number, stream.codec_context.time_base
            copy.is_keyframe = True
            container.mux(copy)
    return str(path)
