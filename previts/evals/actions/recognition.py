"""Action recognition in videos: UCF-101 and HMDB-51, by fine-tuning the encoder.

PreViTS section 4.3, tables 2 and 3; figure 5 shows the attention of the classifiers. `classifier.py` has the training
and the test, `video_sets.py` the layouts of the datasets.

Shape suffixes: N videos, C classes or channels, T frames, S pixels of a side, t h w cells of the maps.
"""

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from previts.config.evaluation import EvaluationConfig
from previts.evals import features, frozen, input_check, labelled_images, metrics
from previts.evals.actions import classifier, video_sets
from previts.evals.actions.classifier import Classifier
from previts.evals.outcome import ITEMS, ItemScores, Outcome, Population, item_scores, mean_of_splits, pack
from previts.models.moco import MoCo
from previts.processes import distributed
from previts.storage import files

FIGURE_CLIPS, FIGURE_FRAMES, THUMBNAIL_SIZE = 6, 4, 112
CLASSIFIER, FIGURE = "classifier.pt", "class_attention.npz"
Read = Callable[[str, str], tuple[video_sets.LabelledClips, video_sets.LabelledClips]]


def ucf101(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Fine-tune on UCF-101 and score its test videos: `ucf101/top1` and `ucf101/top5` in percent.

    Args:
        model: A video model; it does not change.
        data_uri: Folder for `video_sets.read_ucf101`.
        config: Uses actions, limit, seed.
        folder: URI for the states to resume from; "" stores none.

    Raises:
        InputError: If a file of the layout is missing or damaged.
    """
    return _recognise(
        "ucf101", "UCF-101", video_sets.read_ucf101, model=model, data_uri=data_uri, config=config, folder=folder
    )


def hmdb51(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Fine-tune on HMDB-51 and score its test videos: `hmdb51/top1` and `hmdb51/top5`; see `ucf101`."""
    return _recognise(
        "hmdb51", "HMDB-51", video_sets.read_hmdb51, model=model, data_uri=data_uri, config=config, folder=folder
    )


def _recognise(
    name: str, title: str, read: Read, *, model: MoCo, data_uri: str, config: EvaluationConfig, folder: str
) -> Outcome:
    before = frozen.weights_digest(model)
    chosen = config.actions.split
    splits = ("1", "2", "3") if chosen == "all" else (chosen,)
    by_split: dict[str, dict[str, float]] = {}
    items: list[dict[str, ItemScores]] = []
    counts: dict[str, dict[str, int]] = {}
    first: Outcome | None = None
    num_classes = 0
    parts = {split: [video_sets.limited(part, config.limit) for part in read(data_uri, split)] for split in splits}
    tested = dict.fromkeys(uri for _, test in parts.values() for uri in test.uris)
    input_check.check_readable(list(tested), video_sets.open_video, f"{title} test")
    for split, (train, test) in parts.items():
        what = f"{title} split {split}"
        place = files.join(folder, f"split-{split}") if folder else ""
        made = classifier.train_classifier(model, train, config, folder=place, what=what)
        logits_NC = classifier.test_classifier(made, test, config, what)
        hits = {f"{name}/top{k}": metrics.top_k_hits(logits_NC, np.array(test.labels), k) for k in (1, 5)}
        by_split[split] = {key: metrics.accuracy(hits_N) for key, hits_N in hits.items()}
        items.append({key: item_scores(test.uris, 100.0 * hits_N) for key, hits_N in hits.items()})
        counts[split] = {"train": len(train.uris), "test": len(test.uris)}
        num_classes = len(train.classes)
        if first is None and distributed.is_main():
            figure = attention_figure(made, test, logits_NC, config)
            first = Outcome({}, {}, {FIGURE: figure}, {CLASSIFIER: classifier.classifier_bytes(made)})
    return Outcome(
        metrics={key: float(np.mean([found[key] for found in by_split.values()])) for key in by_split[splits[0]]},
        protocol={
            **classifier.protocol(config),
            "split": chosen,
            "classes": num_classes,
            "videos": counts,
            **({"by_split": by_split} if len(splits) > 1 else {}),
            **frozen.unchanged(model, before),
        },
        figures=first.figures if first else {},
        files=first.files | {ITEMS: pack(mean_of_splits(items))} if first else {},
        populations={
            f"{name}/top{k}": Population(
                sum(count["test"] for count in counts.values()), "videos", metrics.chance_accuracy(num_classes, k)
            )
            for k in (1, 5)
        },
    )


def attention_figure(
    made: Classifier, test: video_sets.LabelledClips, logits_NC: classifier.Scores, config: EvaluationConfig
) -> bytes:
    """Return the class attention on some test videos as .npz; the videos do not depend on the model.

    `names`, `classes` and `predicted` N, `frames` NTSSC uint8. `cams` NThw are the maps of the video's own class for
    its middle clip, at the time of each shown frame.
    """
    settings, device = config.actions, features.device_of(made)
    chosen = labelled_images.evenly(len(test.uris), FIGURE_CLIPS)
    shown_T = labelled_images.evenly(settings.frames, FIGURE_FRAMES)
    rows: dict[str, list[Any]] = {name: [] for name in ("names", "classes", "predicted", "frames", "cams")}
    for number in chosen:
        frames_UCSS, places_KT = video_sets.evenly_spaced_clips(
            test.open(test.uris[number]), settings.frames, settings.size, 1
        )
        clip_TCSS = frames_UCSS[places_KT[0]]
        clip_BCTSS = classifier.normalised(torch.from_numpy(clip_TCSS)[None], device)
        label_B = torch.tensor([test.labels[number]], device=device)
        cam_thw = classifier.class_attention(made, clip_BCTSS, label_B)[0].cpu().numpy()
        rows["names"].append(test.uris[number].rsplit("/", 1)[-1])
        rows["classes"].append(test.classes[test.labels[number]])
        rows["predicted"].append(made.classes[int(logits_NC[number].argmax())])
        rows["frames"].append([_thumbnail(frame) for frame in clip_TCSS[shown_T].transpose(0, 2, 3, 1)])
        times = [place * len(cam_thw) // settings.frames for place in shown_T]
        rows["cams"].append(cam_thw[times].astype(np.float16))
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(values) for name, values in rows.items()}
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _thumbnail(frame_SSC: video_sets.Pixels) -> video_sets.Pixels:
    size = min(THUMBNAIL_SIZE, len(frame_SSC))
    return np.asarray(cv2.resize(frame_SSC, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
