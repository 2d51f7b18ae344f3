"""The held-out items of the labelled sets: the images and videos of the test or validation part of each benchmark.

PreViTS section 4. The training part of a set may be part of a corpus, so it is not listed. DAVIS is the exception: the
benchmark trains on nothing, so no part of DAVIS is for training, and both parts are held out. The readers of the
benchmarks list the items; they are imported on demand, because some load torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from previts.evals import labelled_images
from previts.media.geometry import Pixels
from previts.media.video_reader import Footage, steady
from previts.storage import files

Kind = Literal["image", "video"]
DAVIS_TRAIN = "train"
DAVIS_FPS = 24.0  # of the published videos, whose frames have no times


@dataclass(frozen=True)
class Item:
    """A held-out image or video, by its name in its set.

    `open` returns the image (height, width, 3), uint8 RGB, or the footage. Several threads may call it. It raises an
    InputError if the file is missing or damaged; so does reading the footage.
    """

    name: str
    kind: Kind
    open: Callable[[], Pixels | Footage]


def list_items(name: str, uri: str, splits: Sequence[str]) -> list[Item]:
    """Return the held-out items of a labelled set.

    Args:
        name: One of `benchmarks.SETS`.
        uri: Folder of the set in its authors' layout.
        splits: The splits that are evaluated, of a set with several. The test items of all of these are held out.

    Raises:
        InputError: If a list of the set is missing or damaged.
    """
    return list(_READERS[name](uri, splits))


def _voc(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals import voc07

    root = files.join(uri, "VOCdevkit", "VOC2007")
    names, _ = voc07.read_voc_labels(root, voc07.voc_classes(root), "test")
    return _images(files.join(root, "JPEGImages", f"{name}.jpg") for name in names)


def _imagenet(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    return _images(labelled_images.read_image_folder(files.join(uri, "val")).uris)


def _coco(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.detection import object_sets

    return _images(image.uri for image in object_sets.read_coco(uri, "val", 0).images)


def _in9(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.media.variants import VARIANTS

    for variant in VARIANTS:
        folder = files.join(uri, variant, "val")
        yield from _images(labelled_images.read_image_folder(folder).uris, f"{variant}/")


def _davis(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.davis import attention_tracking

    sequences = attention_tracking.read_sequences(uri)
    if files.exists(attention_tracking.list_uri(uri, DAVIS_TRAIN)):
        sequences += attention_tracking.read_sequences(uri, DAVIS_TRAIN)
    for sequence in sequences:
        footage = steady(len(sequence.frames), DAVIS_FPS, partial(_read_frames, sequence.frames))
        yield Item(sequence.name, "video", partial(_same, footage))


def _ucf101(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.actions import video_sets

    return _videos(clip for split in splits for clip in video_sets.read_ucf101(uri, split)[1].uris)


def _hmdb51(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.actions import video_sets

    return _videos(clip for split in splits for clip in video_sets.read_hmdb51(uri, split)[1].uris)


def _jhmdb(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.backgrounds import jhmdb

    found: dict[str, Item] = {}
    for split in splits:
        _, test = jhmdb.read_jhmdb(uri, split)
        opened = jhmdb.varied(test, "original", 0).open
        for clip in test.clips:
            found.setdefault(clip.uri, Item(clip.name, "video", partial(opened, clip.uri)))
    return iter(found.values())


def _minikinetics(uri: str, splits: Sequence[str]) -> Iterator[Item]:
    from previts.evals.backgrounds import minikinetics

    return _videos(minikinetics.read_minikinetics(uri)[1].videos.uris)


_READERS: dict[str, Callable[[str, Sequence[str]], Iterator[Item]]] = {
    "voc": _voc,
    "imagenet": _imagenet,
    "coco": _coco,
    "in9": _in9,
    "davis": _davis,
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "jhmdb": _jhmdb,
    "minikinetics": _minikinetics,
}


def _images(uris: Iterable[str], prefix: str = "") -> Iterator[Item]:
    return (Item(prefix + _stem(uri), "image", partial(_read_image, uri)) for uri in uris)


def _videos(uris: Iterable[str]) -> Iterator[Item]:
    from previts.evals.actions import video_sets

    return (Item(_stem(uri), "video", partial(video_sets.open_video, uri)) for uri in dict.fromkeys(uris))


def _stem(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _read_image(uri: str) -> Pixels:
    return np.asarray(labelled_images.as_rgb(labelled_images.open_image(uri)), np.uint8)


def _read_frames(uris: Sequence[str], numbers: Sequence[int]) -> Pixels:
    return np.stack([_read_image(uris[number]) for number in numbers])


def _same(footage: Footage) -> Footage:
    return footage
