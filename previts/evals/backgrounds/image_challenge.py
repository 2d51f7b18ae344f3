"""The image Backgrounds Challenge: accuracy of a classifier when foreground or background is exchanged or removed.

PreViTS section 4.4, table 4 (Xiao et al. 2020, ImageNet-9). The encoder is frozen; only a linear classifier is trained.
The variants are read as published or as `previts variants` writes them; nothing here makes them.

Shape suffixes: N images, C classes.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from previts.config.benchmarks import CLASS_MAP
from previts.config.evaluation import EvaluationConfig
from previts.errors import InputError
from previts.evals import features, frozen, input_check, labelled_images, linear_classifier, metrics
from previts.evals.outcome import ITEMS, Outcome, Population, item_scores, pack
from previts.media.variants import VARIANTS
from previts.models.moco import MoCo
from previts.storage import documents, files

# Possible folders of ImageNet-9's training images; the archive unpacks to the second.
TRAIN_FOLDERS = ("train/original", "original/train")


def challenge(model: MoCo, data_uri: str, *, imagenet_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Score the eight variants: `in9/original` and so on in percent, and `in9/bg_gap` = mixed_same - mixed_rand.

    With `in_to_in9.json` next to the variants, the classifier is the paper's, trained on ImageNet-1k. Without that file
    it is trained on ImageNet-9's own training images. The two are not comparable; the protocol states which it is.

    Args:
        model: In eval mode.
        data_uri: Folder with `{variant}/val/<class>/<image>`.
        imagenet_uri: Folder with `train/<class>/<image>`; read only if `in_to_in9.json` exists.
        config: Uses resize, crop, batch_size, linear, limit, seed.
        folder: URI for the states to resume from.

    Raises:
        InputError: If a variant or the training images are missing, or the class map does not match them.
    """
    before = frozen.weights_digest(model)
    variants = {
        name: labelled_images.limited(
            labelled_images.read_image_folder(files.join(data_uri, name, "val")), config.limit
        )
        for name in VARIANTS
    }
    classes = variants["original"].classes
    tested = [uri for images in variants.values() for uri in images.uris]
    for name, images in variants.items():
        if images.classes != classes:
            raise InputError(
                f"{files.join(data_uri, name, 'val')} has the classes {', '.join(images.classes)}, "
                f"the original images {', '.join(classes)}; all variants need the same classes"
            )
    input_check.check_readable(tested, labelled_images.open_image, "in9")
    whole = partial(labelled_images.load_whole, size=config.crop)
    map_uri = files.join(data_uri, CLASS_MAP)
    if files.exists(map_uri):
        train = labelled_images.limited(
            labelled_images.read_image_folder(files.join(imagenet_uri, "train")), config.limit
        )
        to_in9_C = read_class_map(map_uri, len(train.classes), len(classes))
        centre = partial(labelled_images.load_centre, resize=config.resize, crop=config.crop)
        classifier = linear_classifier.train_classifier(
            model, train, centre, config=config, folder=folder, what="ImageNet"
        )
        view = "one centre crop per image"
        kind, what = "in1k head", f"argmax over all {len(to_in9_C)} classes of ImageNet, then {CLASS_MAP}; -1 is wrong"
    else:
        train_uri = _train_uri(data_uri)
        train = labelled_images.limited(labelled_images.read_image_folder(train_uri, classes), config.limit)
        to_in9_C = np.arange(len(classes))
        # The published images already have one size, so training and test use whole images.
        view = "the whole image"
        classifier = linear_classifier.train_classifier(
            model, train, whole, config=config, folder=folder, what="ImageNet-9"
        )
        kind, what = "in9 head", "Paper: trains on ImageNet-1k; here on ImageNet-9's own training images"
    accuracy, populations, items = {}, {}, {}
    for name, images in variants.items():
        labels_N = np.array(images.labels)
        scores_NC = classifier.scores(
            features.extract(model, images.uris, whole, batch_size=config.batch_size, what=f"in9 {name}")
        )
        hits_N = metrics.mapped_hits(scores_NC, labels_N, to_in9_C)
        accuracy[name] = metrics.accuracy(hits_N)
        items[f"in9/{name}"] = item_scores(images.uris, 100.0 * hits_N)
        # A guess among the classes of the classifier. Most of ImageNet's are not in ImageNet-9 and never right.
        chance = 100 * float((labels_N[:, None] == to_in9_C).mean())
        populations[f"in9/{name}"] = Population(len(labels_N), "images", chance)
    return Outcome(
        metrics={
            **{f"in9/{name}": value for name, value in accuracy.items()},
            "in9/bg_gap": accuracy["mixed_same"] - accuracy["mixed_rand"],
        },
        protocol={
            "head": kind,
            "prediction": what,
            **linear_classifier.protocol(config, classifier, view),
            "classes": list(classes),
            "images": {"train": len(train.uris), **{name: len(images.uris) for name, images in variants.items()}},
            **labelled_images.left_aside({"train": train, **variants}),
            "input": f"whole images; those not of {config.crop} x {config.crop} pixels are squashed to it",
            **frozen.unchanged(model, before),
        },
        files={ITEMS: pack(items)},
        populations=populations,
    )


def _train_uri(data_uri: str) -> str:
    for folder in TRAIN_FOLDERS:
        uri = files.join(data_uri, folder)
        if files.exists(uri):
            return uri
    raise InputError(
        f"there is no training data for the classifier: add {files.join(data_uri, CLASS_MAP)} (to train on ImageNet) "
        f"or {files.join(data_uri, TRAIN_FOLDERS[0], '<class>', '<image>')}"
    )


def read_class_map(uri: str, num_imagenet: int, num_classes: int) -> NDArray[np.int64]:
    """Return the ImageNet-9 class of each ImageNet class, -1 for none.

    Raises:
        InputError: If the map is not `{"0": class, ...}` with exactly the existing classes. The numbers would then
            mean other classes.
    """
    document = documents.parse_json(files.read_regular(uri), uri, "replace it by the original file")
    if not isinstance(document, dict) or sorted(document) != sorted(str(number) for number in range(num_imagenet)):
        found = f"{len(document)} entries" if isinstance(document, dict) else type(document).__name__
        raise InputError(
            f"{uri} must map each class number (0 to {num_imagenet - 1}, one for each folder of imagenet/train), "
            f"got {found}; provide all classes of ImageNet-1k, or remove the file to train on ImageNet-9's images"
        )
    mapped = [document[str(number)] for number in range(num_imagenet)]
    if not all(type(value) is int and -1 <= value < num_classes for value in mapped):
        raise InputError(f"{uri} must map to -1 or a number below {num_classes}, one for each folder of the variants")
    return np.array(mapped, dtype=np.int64)
