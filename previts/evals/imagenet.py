"""ImageNet-1k classification: a linear classifier on the features of a frozen encoder.

PreViTS section 4.2, table 1 (IN-1k clf.).

Shape suffixes: N images, D features, C classes.
"""

from functools import partial

import numpy as np

from previts.config.evaluation import EvaluationConfig
from previts.evals import features, frozen, input_check, labelled_images, linear_classifier, metrics
from previts.evals.outcome import ITEMS, Outcome, Population, item_scores, pack
from previts.models.moco import MoCo
from previts.storage import files


def imagenet(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Train softmax regression on the features of ImageNet train and score val: `in1k/top1`, `in1k/top5` in percent.

    Args:
        model: In eval mode.
        data_uri: Folder with `{train,val}/<class>/<image>`.
        config: Uses resize, crop, batch_size, linear, limit, seed.
        folder: URI for the states to resume from.

    Raises:
        InputError: If a split is missing, or val has a class that train does not have.
    """
    before = frozen.weights_digest(model)
    train = labelled_images.limited(labelled_images.read_image_folder(files.join(data_uri, "train")), config.limit)
    val = labelled_images.limited(
        labelled_images.read_image_folder(files.join(data_uri, "val"), train.classes), config.limit
    )
    load = partial(labelled_images.load_centre, resize=config.resize, crop=config.crop)
    input_check.check_readable(val.uris, labelled_images.open_image, "ImageNet val")
    classifier = linear_classifier.train_classifier(model, train, load, config=config, folder=folder, what="ImageNet")
    val_ND = features.extract(model, val.uris, load, batch_size=config.batch_size, what="ImageNet val")
    scores_NC, labels_N = classifier.scores(val_ND), np.array(val.labels)
    hits = {f"in1k/top{k}": metrics.top_k_hits(scores_NC, labels_N, k) for k in (1, 5)}
    return Outcome(
        metrics={name: metrics.accuracy(hits_N) for name, hits_N in hits.items()},
        protocol={
            **linear_classifier.protocol(config, classifier, "one centre crop per image"),
            "classes": len(train.classes),
            "images": {"train": len(train.uris), "val": len(val.uris)},
            **labelled_images.left_aside({"train": train, "val": val}),
            **frozen.unchanged(model, before),
        },
        files={ITEMS: pack({name: item_scores(val.uris, 100.0 * hits_N) for name, hits_N in hits.items()})},
        populations={
            f"in1k/top{k}": Population(len(val.uris), "images", metrics.chance_accuracy(len(train.classes), k))
            for k in (1, 5)
        },
    )
