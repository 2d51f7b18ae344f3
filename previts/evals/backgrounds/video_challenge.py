"""The Video Backgrounds Challenge: accuracy of an action classifier when persons or backgrounds are exchanged.

PreViTS section 4.4, table 4 (JHMDB), and appendix A (mini-Kinetics). A classifier is fine-tuned on original clips and
scored on every variant of the test clips. `jhmdb.py` and `minikinetics.py` have the layouts and variants of the
datasets, `classifier.py` the training and the test of classifiers.

Shape suffixes: N clips, R those of this process, B one clip, C colour channels, T S frames and pixels of the clip that
a classifier sees, t h w cells of its last map.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from previts.config.evaluation import EvaluationConfig
from previts.evals import features, frozen, input_check, metrics
from previts.evals.actions import classifier, video_sets
from previts.evals.actions.classifier import Classifier
from previts.evals.backgrounds import jhmdb, minikinetics
from previts.evals.outcome import ITEMS, ItemScores, Outcome, Population, item_scores, mean_of_splits, pack
from previts.media.variants import VARIANTS
from previts.media.video_reader import Footage
from previts.models.moco import MoCo
from previts.processes import distributed
from previts.processes.progress import progress
from previts.storage import files

MANIFEST = "manifest.csv"
Part = Callable[[str], video_sets.LabelledClips]  # the training or the test clips in a variant
_TRAINED_ON = {
    "original": "the original training clips; one classifier scores all variants",
    "variant": "the training clips of each variant, a classifier for each; not comparable with the other kind",
}


def score_jhmdb(
    model: MoCo, data_uri: str, *, ucf101_uri: str, config: EvaluationConfig, folder: str, classifier_uri: str
) -> Outcome:
    """Score the eight variants of JHMDB's test clips: `jhmdb/original` and so on in percent.

    With `config.backgrounds.train_on` "variant" they are `jhmdb_by_variant/original` and so on. `cam_energy` and
    `cam_pointing` are fractions: how well the map of the right class, on original clips, matches the person. The
    outcome's `manifest.csv` has the pairing of persons and backgrounds.

    Args:
        model: A video model; it does not change.
        data_uri: Folder for `jhmdb.read_jhmdb`.
        ucf101_uri: Folder for `video_sets.read_ucf101`; read only without a classifier.
        config: Uses actions, backgrounds, limit, seed.
        folder: URI for the states to resume from; "" stores none.
        classifier_uri: The classifier that ucf101 stored for this model; "" trains one first.

    Raises:
        InputError: If a file of a layout is missing or damaged, or a clip has no partner in its class.
    """
    before, train_on = frozen.weights_digest(model), config.backgrounds.train_on
    splits = ("1", "2", "3") if config.actions.split == "all" else (config.actions.split,)
    parts = {split: jhmdb.read_jhmdb(data_uri, split) for split in splits}
    shown = {
        (split, name): part
        for split, pair in parts.items()
        for name, part in zip(("train", "test"), pair, strict=True)
        if name == "test" or train_on == "variant"
    }
    # Before any training, so that a missing partner or mask is reported now.
    manifest = jhmdb.manifest(((*place, part) for place, part in shown.items()), config.seed)
    odd = {" ".join(place): asdict(jhmdb.count_oddities(part)) for place, part in shown.items()}
    start = _start(model, ucf101_uri=ucf101_uri, config=config, folder=folder, classifier_uri=classifier_uri)
    by_split, counts, num_classes = {}, {}, 0
    items: list[dict[str, ItemScores]] = []
    for split, (train, test) in parts.items():
        what = f"JHMDB split {split}"
        train_of, test_of = (_limited(partial(jhmdb.varied, part, seed=config.seed), config) for part in (train, test))
        place = files.join(folder, f"split-{split}") if folder else ""
        once = _once_where_all_are_short(test, config)
        hits, made = _test(
            VARIANTS, start=start, train_of=train_of, test_of=test_of, config=once, folder=place, what=what
        )
        values = hits | _grounding(made, test, test_of("original"), config=config, what=what)
        values = {f"{_name('jhmdb', config)}/{key}": values_N for key, values_N in values.items()}
        by_split[split] = {key: float(values_N.mean()) for key, values_N in values.items()}
        uris = test_of("original").uris
        items.append({key: item_scores(uris, values_N) for key, values_N in values.items() if "chance" not in key})
        counts[split] = {"train": len(train_of("original").uris), "test": len(test_of("original").uris)}
        num_classes = len(train.classes)
    keys = by_split[splits[0]]
    means = {key: float(np.mean([found[key] for found in by_split.values()])) for key in keys}
    energy_chance, pointing_chance = (
        means.pop(f"{_name('jhmdb', config)}/{name}") for name in ("cam_chance", "cam_pointing_chance")
    )
    num_clips, accuracy_chance = sum(count["test"] for count in counts.values()), metrics.chance_accuracy(num_classes)
    chances = {"cam_energy": energy_chance, "cam_pointing": pointing_chance}
    return Outcome(
        metrics=means,
        protocol={
            **classifier.protocol(config),
            "start": "the classifier that ucf101 left" if classifier_uri else "a classifier trained on UCF-101 here",
            "trained_on": _TRAINED_ON[train_on],
            "split": config.actions.split,
            "classes": num_classes,
            "clips": counts,
            "variants": "made from frames and puppet masks at their original size; a short background starts again; "
            f"partners come from the same part of the split and follow seed {config.seed}, see {MANIFEST}",
            # empty: no foreground, unchanged background; spanned: no strip for tiles, so the background is black
            "masks": odd,
            "cam": "Grad-CAM of the logit of the video's own class for its middle clip, over all cells; pointing needs "
            "a cell that is half covered",
            "cam_energy_of_an_even_map": energy_chance,
            **({"by_split": by_split} if len(splits) > 1 else {}),
            **frozen.unchanged(model, before),
        },
        files={MANIFEST: manifest, ITEMS: pack(mean_of_splits(items))},
        populations={
            key: Population(num_clips, "clips", chances.get(key.partition("/")[2], accuracy_chance)) for key in means
        },
    )


def score_minikinetics(model: MoCo, data_uri: str, config: EvaluationConfig, folder: str) -> Outcome:
    """Score mini-Kinetics with and without its persons: `minikinetics/original` and `minikinetics/no_fg` in percent.

    With `config.backgrounds.train_on` "variant" they are `minikinetics_by_variant/...`.

    Args:
        model: A video model; it does not change. A copy is fine-tuned on the training videos directly.
        data_uri: Folder for `minikinetics.read_minikinetics`.
        config: Uses actions, backgrounds, limit, seed.
        folder: URI for the states to resume from; "" stores none.

    Raises:
        InputError: If a file of the layout is missing or damaged.
    """
    before = frozen.weights_digest(model)
    train, val = minikinetics.read_minikinetics(data_uri)
    train_of, val_of = (_limited(partial(minikinetics.varied, part.videos), config) for part in (train, val))
    read = {"val": val_of} if config.backgrounds.train_on == "original" else {"train": train_of, "val": val_of}
    # Before any training, so that a missing file of boxes is reported now.
    nobody = {split: minikinetics.count_without_boxes(part("original")) for split, part in read.items()}
    without = val_of("no_fg")
    input_check.check_readable(without.uris, without.open, "mini-Kinetics val")
    hits, _ = _test(
        minikinetics.VARIANTS,
        start=model,
        train_of=train_of,
        test_of=val_of,
        config=config,
        folder=folder,
        what="mini-Kinetics",
    )
    found = {f"{_name('minikinetics', config)}/{variant}": hits_N for variant, hits_N in hits.items()}
    population = Population(len(val_of("original").uris), "videos", metrics.chance_accuracy(len(train.videos.classes)))
    return Outcome(
        metrics={key: float(hits_N.mean()) for key, hits_N in found.items()},
        protocol={
            **classifier.protocol(config),
            "start": "the pretrained encoder",  # not stated: whether fine-tuned on UCF-101 first, as for JHMDB
            "trained_on": _TRAINED_ON[config.backgrounds.train_on],
            "classes": len(train.videos.classes),
            "videos": {"train": len(train_of("original").uris), "val": len(val_of("original").uris)},
            "listed_but_not_there": {"train": train.missing, "val": val.missing},
            "no_fg": "all boxes of persons black, at the original size of the video",
            "videos_without_a_box": nobody,
            **frozen.unchanged(model, before),
        },
        files={ITEMS: pack({key: item_scores(without.uris, hits_N) for key, hits_N in found.items()})},
        populations=dict.fromkeys(found, population),
    )


def _name(name: str, config: EvaluationConfig) -> str:
    """Return the prefix of the metric names, which differs between the two ways to train."""
    return name if config.backgrounds.train_on == "original" else f"{name}_by_variant"


def _limited(part: Part, config: EvaluationConfig) -> Part:
    return lambda variant: video_sets.limited(part(variant), config.limit)


def _once_where_all_are_short(part: jhmdb.PuppetClips, config: EvaluationConfig) -> EvaluationConfig:
    """Return the settings, with one test clip per video if no video is long enough for different clips."""
    longest = max(len(clip.frames) for clip in part.clips)
    return (
        replace(config, actions=replace(config.actions, test_clips=1)) if longest <= config.actions.frames else config
    )


def _start(model: MoCo, *, ucf101_uri: str, config: EvaluationConfig, folder: str, classifier_uri: str) -> Classifier:
    """Return the classifier of UCF-101 whose encoder is fine-tuned further."""
    if classifier_uri:
        return classifier.load_classifier(classifier_uri, model)
    split = "1" if config.actions.split == "all" else config.actions.split
    train = video_sets.limited(video_sets.read_ucf101(ucf101_uri, split)[0], config.limit)
    place = files.join(folder, "ucf101") if folder else ""
    return classifier.train_classifier(model, train, config, folder=place, what=f"UCF-101 split {split}")


def _test(
    variants: tuple[str, ...],
    *,
    start: MoCo | Classifier,
    train_of: Part,
    test_of: Part,
    config: EvaluationConfig,
    folder: str,
    what: str,
) -> tuple[dict[str, NDArray[np.float64]], Classifier]:
    """Return 100 or 0 for each clip in each variant, whose mean is the accuracy, and the classifier of originals."""
    found: dict[str, NDArray[np.float64]] = {}
    original = None
    for variant in variants:
        if original is None or config.backgrounds.train_on == "variant":
            place = files.join(folder, variant) if folder else ""
            label = what if config.backgrounds.train_on == "original" else f"{what} {variant}"
            made = classifier.train_classifier(start, train_of(variant), config, folder=place, what=label)
            original = original or made
        test = test_of(variant)
        logits_NC = classifier.test_classifier(made, test, config, f"{what} {variant}")
        found[variant] = np.asarray(100.0 * metrics.top_k_hits(logits_NC, np.array(test.labels), 1), np.float64)
    assert original is not None, "the first variant is the original"
    return found, original


@torch.no_grad()
def _grounding(
    made: Classifier, part: jhmdb.PuppetClips, test: video_sets.LabelledClips, *, config: EvaluationConfig, what: str
) -> dict[str, NDArray[np.float64]]:
    """Return for each clip the share of the class's map on the person, and whether its strongest cell is there.

    `cam_chance` is the first number of an even map, `cam_pointing_chance` the second of a random cell. Processes share
    the clips.
    """
    device, by_uri = features.device_of(made), {clip.uri: clip for clip in part.clips}
    world, count = distributed.world_size(), len(test.uris)
    mine = range(distributed.rank(), count, world)
    scores_RX = torch.zeros(-(-count // world), 4, dtype=torch.float64, device=device)
    for row, number in enumerate(progress(mine, f"{what} attention", unit="clip")):
        uri = test.uris[number]
        clip_TCSS = _middle(test.open(uri), config)
        clip_BCTSS = classifier.normalised(torch.from_numpy(clip_TCSS)[None], device)
        label_B = torch.tensor([test.labels[number]], device=device)
        cam_Bthw = classifier.class_attention(made, clip_BCTSS, label_B).float().cpu().numpy()
        _, t, h, w = cam_Bthw.shape
        share_Bthw = covered(_middle(jhmdb.mask_footage(by_uri[uri]), config), (t, h, w))[None]
        energy, hit = metrics.energy_in_mask(cam_Bthw, share_Bthw), metrics.pointing(cam_Bthw, share_Bthw)
        chances = [share_Bthw.mean(), (share_Bthw >= metrics.POINTING_SHARE).mean()]
        scores_RX[row] = torch.tensor([energy[0], hit[0], *chances], dtype=torch.float64)
    gathered_NX = distributed.gather(scores_RX).view(world, len(scores_RX), -1).transpose(0, 1).flatten(0, 1)[:count]
    names = ("cam_energy", "cam_pointing", "cam_chance", "cam_pointing_chance")
    return dict(zip(names, gathered_NX.cpu().numpy().T, strict=True))


def _middle(footage: Footage, config: EvaluationConfig) -> video_sets.Pixels:
    """Return the clip in the middle of a video, TCSS."""
    spaced = video_sets.evenly_spaced_clips(footage, config.actions.frames, config.actions.size, 1)
    return np.asarray(spaced.frames[spaced.places[0]])


def covered(masks_TCSS: video_sets.Pixels, grid: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return the share of each cell of a map that the object covers, thw in [0, 1].

    Args:
        masks_TCSS: The masks as a clip, 0 to 255, cropped and scaled like the frames.
        grid: Steps in time, height and width of the map.
    """
    share_11TSS = torch.from_numpy(masks_TCSS[:, 0])[None, None].float() / 255
    return np.asarray(F.adaptive_avg_pool3d(share_11TSS, grid)[0, 0].numpy())
