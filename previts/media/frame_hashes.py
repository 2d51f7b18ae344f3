"""Perceptual hashes of frames: bits that stay almost the same when a video is coded, scaled, marked or mirrored again.

Not in the paper. They find videos that are stored twice in a corpus, and videos that show something of a labelled set.

A hash has two parts. The first one finds frames that look alike: 64 bits for the frame, and 64 for its central half.
Each is a pHash of OpenCV: the signs of the 8 x 8 lowest frequencies. A mirrored image has the other signs in the odd
columns (`MIRROR`), so one hash serves for both. The second part tells frames apart that look alike. It says between
which neighbours of 8 x 17 cells the luma rises or falls clearly, as 128 bits each. It is local, so a logo changes few
of its bits. Bars at the borders are cut off before. A frame that is nearly uniform has the hash 0, which means no hash.

The hashes of a video are bytes: one byte with the number of doublings, then the hashes. Hash n is of the frame on
screen at n * HASH_SECONDS * 2 ** doublings. This module decodes nothing and compares no hashes.
"""

import itertools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from previts.media.geometry import Pixels

HASH_SECONDS = 0.25
MAX_HASHES = 256  # of a video; a longer one has fewer hashes a second
HASH_BYTES = 48
MAX_DOUBLINGS = 32
MIRROR = np.uint64(0xAAAA_AAAA_AAAA_AAAA)  # the bits that a mirrored image inverts: odd horizontal frequencies

Hashes = NDArray[np.uint64]  # (number, 2): of the frame, and of its central half
Steps = NDArray[np.uint64]  # (number, 4): where the luma rises, and where it falls

_SMALL = 64  # pixels of the short side, from which the hashes are computed
_HASHED = 32  # pixels of the sides that pHash uses
_CONTRAST = 40.0  # standard deviation of the image that pHash gets
_UNIFORM = 12  # levels of luma: values this near count as one
_MIN_DETAIL = 0.1  # share of the pixels that must differ from the median, for a hash
_MIN_CENTRE_DETAIL = 0.02
_ROWS, _COLUMNS = 8, 16  # of the steps
_SMALL_STEPS = 0.4  # share of the steps that is not clear
_MIN_STEP = 0.75  # levels of luma
_DARK, _BRIGHT = 56, 225  # luma of bars
_BAR_SHARE = 0.75  # of a line of a bar that must be uniform
_MAX_BAR = 0.4  # of a side, at each end

# pHash compares the frequencies with their mean, and the mean of all is the value in a corner. Without contrast there,
# it is zero, so the bits are signs. It also keeps logos in corners, and what is left of bars, from changing many bits.
_RAMP = np.minimum(1, (np.arange(_HASHED) + 0.5) / 5)
_WINDOW = np.minimum(_RAMP, _RAMP[::-1])
_WINDOW = _WINDOW[:, None] * _WINDOW
_NOT_MEAN = np.uint64(0xFFFF_FFFF_FFFF_FFFE)  # the lowest bit is of the mean luma, which pHash leaves out


class FrameHasher:
    """Computes the hashes of a video from its frames, of which it keeps a small image for each hash."""

    def __init__(self, fps: float) -> None:
        """Make a hasher for a video with a number of frames per second."""
        self._fps, self._doublings, self._frames, self._small = fps, 0, 0, list[Pixels]()

    def add(self, luma: Pixels) -> None:
        """Add the next frame (height, width), uint8, any range; all frames have one shape."""
        self._frames += 1
        small: Pixels | None = None
        while self._due() < self._frames / self._fps:
            if len(self._small) == MAX_HASHES:
                if self._doublings == MAX_DOUBLINGS:
                    return
                self._small, self._doublings = self._small[::2], self._doublings + 1
                continue
            small = _shrunk(luma) if small is None else small
            self._small.append(small)

    def _due(self) -> float:
        return len(self._small) * HASH_SECONDS * 2.0**self._doublings

    def watch(self, planes: Iterable[Pixels]) -> Iterator[Pixels]:
        """Yield packed yuv420p planes (height * 3 / 2, width), and add their luma."""
        for frame in planes:
            self.add(frame[: frame.shape[0] * 2 // 3])
            yield frame

    def to_bytes(self) -> bytes:
        """Return the hashes of the frames so far; b"" if no frame has one."""
        hashes = _hashes(self._small)
        return bytes([self._doublings]) + hashes.tobytes() if hashes.any() else b""


def image_hashes(image: Pixels) -> bytes:
    """Return the hash of one image (height, width, 3), uint8 RGB, like that of a video with one frame."""
    hasher = FrameHasher(1 / HASH_SECONDS)
    hasher.add(np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8))
    return hasher.to_bytes()


def video_hashes(frames: Iterable[Pixels], fps: float) -> bytes:
    """Return the hashes of a video from its frames (height, width, 3), uint8 RGB, and its frames per second."""
    hasher = FrameHasher(fps)
    for frame in frames:
        hasher.add(np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), np.uint8))
    return hasher.to_bytes()


def is_valid(hashes: bytes) -> bool:
    """Return whether bytes can be the hashes of a video."""
    if not hashes:
        return True
    count, rest = divmod(len(hashes) - 1, HASH_BYTES)
    return rest == 0 and 1 <= count <= MAX_HASHES and hashes[0] <= MAX_DOUBLINGS


def _shrunk(luma: Pixels) -> Pixels:
    height, width = luma.shape
    scale = _SMALL / min(height, width)
    size = min(8 * _SMALL, round(width * scale)), min(8 * _SMALL, round(height * scale))
    return np.asarray(cv2.resize(np.ascontiguousarray(luma), size, interpolation=cv2.INTER_AREA), np.uint8)


def split(hashes: bytes | bytearray) -> tuple[Hashes, Steps]:
    """Return both parts of joined hashes (`HASH_BYTES` each), without the byte of the doublings, as views of them."""
    rows = np.frombuffer(hashes, "<u8").astype(np.uint64, copy=False).reshape(-1, HASH_BYTES // 8)
    return rows[:, :2], rows[:, 2:]


def mirrored_steps(steps: Steps) -> Steps:
    """Return the steps of the mirrored frames: what rises falls, and each row runs the other way."""
    bits = np.unpackbits(step_bytes(steps), axis=1, bitorder="little").reshape(-1, 2, _ROWS, _COLUMNS)
    turned = np.packbits(bits[:, ::-1, :, ::-1].reshape(len(steps), 2 * _ROWS * _COLUMNS), axis=1, bitorder="little")
    return turned.view("<u8").astype(np.uint64, copy=False)


def step_bytes(steps: Steps) -> NDArray[np.uint8]:
    """Return steps as bytes (number, 32), to unpack their bits; those of a row are neighbours."""
    return np.ascontiguousarray(steps).astype("<u8", copy=False).view(np.uint8)


def _hashes(small: list[Pixels]) -> NDArray[np.generic]:
    """Return the hashes as (number, 6) little-endian numbers of 64 bits."""
    if not small:
        return np.zeros((0, HASH_BYTES // 8), "<u8")
    rows, columns = _picture(small)
    computed: list[list[int]] = []
    for number, image in enumerate(small):
        if number and image is small[number - 1]:
            computed.append(computed[-1])
            continue
        image = image[rows, columns]
        height, width = image.shape
        centre = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
        whole = _hash(image, _MIN_DETAIL)
        computed.append([whole, _hash(centre, _MIN_CENTRE_DETAIL), *_steps(image)] if whole else [0] * 6)
    return np.array(computed, "<u8")


def _hash(image: Pixels, detail: float) -> int:
    scaled = cv2.resize(image, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA).astype(np.float32)
    usual = np.sort(scaled, axis=None)[scaled.size // 2]  # not `np.median`, which imports more when it is called
    if (np.abs(scaled - usual) > _UNIFORM).mean() < detail:
        return 0
    scaled = (scaled - scaled.mean()) * (_CONTRAST / scaled.std()) * _WINDOW + 128
    bits = cv2.img_hash.pHash(scaled.clip(0, 255).astype(np.uint8))
    return int(np.frombuffer(bits.tobytes(), "<u8")[0] & _NOT_MEAN)


def _steps(image: Pixels) -> list[int]:
    cells = cv2.resize(image.astype(np.float32), (_COLUMNS + 1, _ROWS), interpolation=cv2.INTER_AREA)
    steps = cells[:, 1:] - cells[:, :-1]
    sizes = np.sort(np.abs(steps), axis=None)
    clear = max(_MIN_STEP, sizes[int(_SMALL_STEPS * sizes.size)])
    bits = np.packbits([steps > clear, steps < -clear], axis=-1, bitorder="little")
    return [int(number) for number in np.frombuffer(bits.tobytes(), "<u8")]


def _picture(small: list[Pixels]) -> tuple[slice, slice]:
    """Return the rows and columns inside the bars, which are dark or bright and uniform in all images."""
    images = np.stack(small)
    return _inside(images), _inside(images.swapaxes(1, 2))


def _inside(images: Pixels) -> slice:
    """Return the lines (the second axis) that are not part of a bar."""
    length = images.shape[1]
    first = _bar_lines(images[:1])
    if not (first[0] and first[-1]):  # the others need not be looked at
        return slice(0, length)
    bar = _bar_lines(images)
    # Bars are alike at both ends; a dark ground or a dark sky is at one end.
    width = min(sum(1 for _ in itertools.takewhile(bool, line)) for line in (bar, bar[::-1]))
    if width == 0 or width > _MAX_BAR * length:
        return slice(0, length)
    return slice(width + 1, length - width - 1)  # the line next to a bar is a mixture of bar and picture


def _bar_lines(images: Pixels) -> NDArray[np.bool_]:
    """Return for each line whether it is dark or bright, uniform, and the same in all images."""
    ordered, pixels = np.sort(images, axis=2), images.shape[2]
    # A logo may cover a part of a bar, at its bright or at its dark end.
    share = round(_BAR_SHARE * pixels) - 1
    dark = (ordered[:, :, share] - ordered[:, :, 0] < _UNIFORM) & (ordered[:, :, share] < _DARK)
    bright = (ordered[:, :, -1] - ordered[:, :, -1 - share] < _UNIFORM) & (ordered[:, :, -1 - share] > _BRIGHT)
    level = ordered[:, :, pixels // 2].astype(np.int64)
    still = level.max(axis=0) - level.min(axis=0) < _UNIFORM
    return np.asarray((dark.all(axis=0) | bright.all(axis=0)) & still)
