"""The tables of the paper: for each row its experiment, its benchmarks and the reported numbers. Declarations only."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from previts.config.experiment import Experiment


@dataclass(frozen=True)
class Row:
    """One line of a table of the paper: its experiment, its benchmarks, and the reported number of each metric.

    `baseline` names the row that it is compared with, where this is not the first of its kind (`paper.baseline_of`).
    """

    name: str
    title: str
    experiment: Experiment
    benchmarks: tuple[str, ...]
    reported: dict[str, float] = field(default_factory=dict)
    baseline: str = ""

    @property
    def table(self) -> str:
        """The name of the row's table."""
        return self.name.split("/")[0]


PREVITS = Experiment()  # section 4.1: ResNet-50, lambda 3, mu 0.3, varying gap
SAMPLING = replace(PREVITS, objective=replace(PREVITS.objective, attention_weight=0.0))
MOCO = replace(SAMPLING, sampling=replace(PREVITS.sampling, constraint="none"))

# Section 4.1: S3D-g on 16 continuous frames, with the speed loss, rate 0.5.
VIDEO_PREVITS = replace(
    PREVITS,
    sampling=replace(PREVITS.sampling, clip_frames=16),
    model=replace(PREVITS.model, encoder="s3dg"),
    objective=replace(PREVITS.objective, speed_weight=1.0),
    optim=replace(PREVITS.optim, lr=0.5),
)
VIDEO_SAMPLING = replace(VIDEO_PREVITS, objective=replace(VIDEO_PREVITS.objective, attention_weight=0.0))
RSPNET = replace(VIDEO_SAMPLING, sampling=replace(VIDEO_SAMPLING.sampling, constraint="none"))
# Section 4.6: the ablations of the video model are trained for 50 epochs.
VIDEO_ABLATION = replace(VIDEO_PREVITS, optim=replace(VIDEO_PREVITS.optim, epochs=50))
RSPNET_ABLATION = replace(RSPNET, optim=VIDEO_ABLATION.optim)

# Encoders that are not trained: they have random weights, or the weights at `model.weights`.
UNTRAINED = replace(MOCO, model=replace(MOCO.model, frozen=True))
VIDEO_UNTRAINED = replace(RSPNET, model=replace(RSPNET.model, frozen=True))

TRANSFER = ("voc07", "in1k", "voc_det", "coco")  # table 1
IMAGES = (*TRANSFER, "in9", "davis", "grounding")
CLIPS = ("ucf101", "jhmdb", "davis")


def _as_released(paper: Experiment) -> Experiment:
    """Return an experiment with all known differences of the released code, as its commands set them.

    Two differences are not reproduced: the masked pass of the released code samples the speeds again, and it updates
    the batch-norm statistics of the query twice.
    """
    video = paper.model.encoder == "s3dg"
    other: Literal["key", "other"] = "other" if video else "key"
    return replace(
        paper,
        sampling=replace(paper.sampling, min_overlap=0.2, overlap="coverage", visible="middle", other_segment="key"),
        augment=replace(paper.augment, blur_probability=0.0),
        objective=replace(
            paper.objective,
            cam="minmax",
            mask_pooling="bilinear",
            key_updates=2,
            queue_size=16384 if video else 65536,
            speed_margin=0.14,
            positives="key+other" if video else "key",
            enqueued=other,
        ),
        optim=replace(paper.optim, lr=0.2 if video else 0.3),
    )


_VARIANTS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")
_TABLE_1 = (
    "voc07/map", "in1k/top1", "voc_det/ap", "voc_det/ap50", "voc_det/ap75",
    "coco/box_ap", "coco/box_ap50", "coco/box_ap75", "coco/mask_ap", "coco/mask_ap50", "coco/mask_ap75",
)  # fmt: skip


def _variants(benchmark: str, *percent: float) -> dict[str, float]:
    return {f"{benchmark}/{variant}": value for variant, value in zip(_VARIANTS, percent, strict=True)}


def _transfer(*values: float) -> dict[str, float]:
    """Return the metrics of a line of table 1, which may have values for the last columns only."""
    return dict(zip(_TABLE_1[-len(values) :], values, strict=True))


# Table 1, table 4 (top) for MoCo, and table 5 report the same three arms on VGG-Sound.
TABLE_1 = (
    Row(
        "1/random",
        "Random Init",
        UNTRAINED,
        TRANSFER,
        _transfer(33.8, 60.2, 33.1, 36.7, 56.7, 40.0, 33.7, 53.8, 35.9),
    ),
    # The weights, for example those of torchvision, are set by --set 1/supervised:model.weights=URI.
    Row(
        "1/supervised",
        "ImageNet Fully Sup",
        UNTRAINED,
        TRANSFER,
        _transfer(53.5, 81.3, 59.1, 38.9, 59.6, 42.7, 35.4, 56.5, 38.1),
    ),
    Row(
        "1/k400/moco",
        "MoCo, Kinetics-400",
        MOCO,
        TRANSFER,
        _transfer(69.3, 47.3, 50.6, 78.0, 55.1, 40.5, 58.9, 41.9, 35.1, 55.6, 37.3),
    ),
    Row(
        "1/k400/sampling",
        "+ Tracking Con. Sampling, Kinetics-400",
        SAMPLING,
        TRANSFER,
        _transfer(70.4, 48.2, 51.2, 78.4, 56.1, 40.8, 59.5, 42.6, 35.8, 56.8, 38.3),
    ),
    Row(
        "1/k400/previts",
        "+ PreViTS, Kinetics-400",
        PREVITS,
        TRANSFER,
        _transfer(71.2, 48.6, 51.8, 78.3, 56.0, 41.0, 59.4, 42.8, 35.6, 57.2, 38.4),
    ),
    Row(
        "1/vgg/moco",
        "MoCo",
        MOCO,
        IMAGES,
        {
            **_transfer(68.3, 46.9, 48.3, 76.5, 52.6, 38.4, 58.7, 41.9, 35.0, 55.8, 37.2),
            **_variants("in9", 77.9, 53.3, 37.8, 33.8, 40.9, 24.6, 9.7, 13.5),
            "davis/j_mean": 0.315,
            "davis/j_recall": 0.638,
            "davis/j_decay": 0.025,
        },
    ),
    Row(
        "1/vgg/sampling",
        "+ Tracking Con. Sampling",
        SAMPLING,
        IMAGES,
        _transfer(70.3, 48.1, 49.0, 77.1, 52.7, 38.3, 58.7, 41.7, 35.0, 55.9, 37.6),
    ),
    Row(
        "1/vgg/previts",
        "+ PreViTS",
        PREVITS,
        IMAGES,
        {
            **_transfer(73.0, 50.6, 52.5, 78.7, 55.1, 39.4, 59.8, 43.0, 35.7, 56.8, 38.2),
            **_variants("in9", 81.0, 56.9, 42.0, 38.0, 53.0, 28.0, 8.8, 13.0),
            "davis/j_mean": 0.544,
            "davis/j_recall": 0.769,
            "davis/j_decay": -0.014,
        },
    ),
)

# Table 4 (bottom) and the appendix, for models on Kinetics-400. No-FG of mini-Kinetics is reported as a difference.
_VIDEO_BACKGROUNDS = {
    "rspnet": {
        **_variants("jhmdb", 70.7, 40.7, 30.3, 29.5, 20.9, 49.1, 35.2, 28.6),
        "minikinetics/original": 47.18,
        "minikinetics/no_fg": 47.18 - 2.71,
    },
    "previts": {
        **_variants("jhmdb", 74.0, 48.0, 35.9, 32.7, 27.8, 51.9, 33.7, 28.3),
        "minikinetics/original": 55.24,
        "minikinetics/no_fg": 55.24 - 6.9,
    },
}

TABLE_2 = (
    Row("2/random", "Random Init", VIDEO_UNTRAINED, CLIPS),
    # The weights, for example those of RSPNet, are set by --set 2/weights:model.weights=URI.
    Row("2/weights", "Weights of others", VIDEO_UNTRAINED, CLIPS),
    *(
        Row(
            f"2/{corpus}/{arm}",
            f"{title}, {name}",
            experiment,
            (*CLIPS, "minikinetics") if corpus == "k400" else CLIPS,
            {"ucf101/top1": top1, **(_VIDEO_BACKGROUNDS.get(arm, {}) if corpus == "k400" else {})},
        )
        for corpus, name, reported in (
            ("vgg", "VGG-Sound", (86.4, 87.5, 88.9)),
            ("k400", "Kinetics-400", (87.6, 89.1, 91.8)),
        )
        for (arm, title, experiment), top1 in zip(
            (
                ("rspnet", "RSPNet", RSPNET),
                ("sampling", "+ Tracking Con. Sampling", VIDEO_SAMPLING),
                ("previts", "+ PreViTS", VIDEO_PREVITS),
            ),
            reported,
            strict=True,
        )
    ),
)
TABLE_3 = (Row("3/previts", "RSPNet + PreViTS", VIDEO_PREVITS, ("ucf101",), {"ucf101/top1": 91.8}),)
# Lines of other methods in table 3, all pretrained on Kinetics-400.
CITED = {
    "3": {
        "CoCLR, S3D-g": {"ucf101/top1": 87.9},
        "RSPNet, S3D-g": {"ucf101/top1": 89.6},
        "ASCNet, S3D-g": {"ucf101/top1": 90.8},
        "GDT, R(2+1)D": {"ucf101/top1": 90.9},
    }
}
AS_RELEASED = (
    Row(
        "as-released/image",
        "PreViTS as in the authors' code",
        _as_released(PREVITS),
        IMAGES,
        baseline="1/vgg/previts",
    ),
    Row(
        "as-released/video",
        "PreViTS as in the authors' code",
        _as_released(VIDEO_PREVITS),
        CLIPS,
        baseline="2/vgg/previts",
    ),
)


def _ablation(name: str, title: str, experiment: Experiment, reported: dict[str, float]) -> Row:
    """Return a row that has only the benchmark of its reported metric."""
    return Row(name, title, experiment, tuple(metric.partition("/")[0] for metric in reported), reported)


def _gaps(table: str, base: Experiment, metric: str, values: Sequence[float]) -> tuple[Row, ...]:
    """Return the rows of table 6a: the temporal gap between the query and the key."""
    gaps: dict[Literal["varying", "constant", "zero"], str] = {
        "varying": "Varying gap",
        "constant": "Constant gap",
        "zero": "Gap 0",
    }
    return tuple(
        _ablation(f"{table}/gap={gap}", title, replace(base, sampling=replace(base.sampling, gap=gap)), {metric: value})
        for (gap, title), value in zip(gaps.items(), values, strict=True)
    )


def _overlaps(table: str, base: Experiment, metric: str, values: Sequence[float]) -> tuple[Row, ...]:
    """Return the rows of table 6b: the share of the mask that a crop must cover."""
    return tuple(
        _ablation(
            f"{table}/mu={mu}",
            f"mu = {mu}",
            replace(base, sampling=replace(base.sampling, min_overlap=mu)),
            {metric: value},
        )
        for mu, value in zip((0.0, 0.2, 0.3, 0.4), values, strict=True)
    )


def _attention_weights(table: str, base: Experiment, metric: str, values: Sequence[float]) -> tuple[Row, ...]:
    """Return the rows of table 6c: the weight of the attention term."""
    return tuple(
        _ablation(
            f"{table}/lambda={weight}",
            f"lambda = {weight}",
            replace(base, objective=replace(base.objective, attention_weight=weight)),
            {metric: value},
        )
        for weight, value in zip((0.0, 2.0, 3.0, 4.0), values, strict=True)
    )


def _supervised(base: Experiment) -> Experiment:
    """Return an experiment with tubes of a detector, whose weights are set by --set ROW:fit.weights=URI."""
    return replace(base, saliency=replace(base.saliency, method="supervised"))


# Table 6 with the image model on VGG-Sound.
TABLE_6A = _gaps("6a", PREVITS, "voc07/map", (73.0, 72.4, 67.5))
TABLE_6B = _overlaps("6b", PREVITS, "voc07/map", (71.5, 72.1, 73.0, 72.8))
TABLE_6C = _attention_weights("6c", PREVITS, "voc07/map", (70.3, 72.4, 73.0, 72.6))
TABLE_6D = (
    _ablation("6d/none", "No tracking", MOCO, {"voc07/map": 68.3}),
    _ablation("6d/unsupervised", "Unsupervised tracking", PREVITS, {"voc07/map": 73.0}),
    _ablation("6d/supervised", "Supervised tracking", _supervised(PREVITS), {"voc07/map": 75.0}),
)
# Table 6 with the video model on Kinetics-400.
TABLE_6_VIDEO = (
    *_gaps("6a-video", VIDEO_ABLATION, "ucf101/top1", (84.5, 83.7, 84.3)),
    *_overlaps("6b-video", VIDEO_ABLATION, "ucf101/top1", (83.7, 85.1, 84.5, 84.2)),
    *_attention_weights("6c-video", VIDEO_ABLATION, "ucf101/top1", (80.8, 83.4, 84.5, 84.1)),
    _ablation("6d-video/none", "No tracking", RSPNET_ABLATION, {"ucf101/top1": 79.0}),
    _ablation("6d-video/unsupervised", "Unsupervised tracking", VIDEO_ABLATION, {"ucf101/top1": 84.5}),
    _ablation("6d-video/supervised", "Supervised tracking", _supervised(VIDEO_ABLATION), {"ucf101/top1": 86.1}),
)
# Appendix A, figure 1 is a plot without numbers.
FIGURE_A1 = tuple(
    Row(
        f"a1/{arm}/{percent}",
        f"{title}, {percent}% of the videos",
        replace(base, sampling=replace(base.sampling, data_fraction=percent / 100)),
        ("voc07",),
        baseline=f"a1/moco/{percent}" if arm == "previts" else "",
    )
    for arm, title, base in (("moco", "MoCo", MOCO), ("previts", "PreViTS", PREVITS))
    for percent in (25, 50, 75, 100)
)

ROWS = {
    row.name: row
    for row in (
        *TABLE_1,
        *TABLE_2,
        *TABLE_3,
        *TABLE_6A,
        *TABLE_6B,
        *TABLE_6C,
        *TABLE_6D,
        *TABLE_6_VIDEO,
        *FIGURE_A1,
        *AS_RELEASED,
    )
}
TABLES = tuple(dict.fromkeys(row.table for row in ROWS.values()))
# Names that stand for several tables.
GROUPS = {
    "6": tuple(name for name in TABLES if name in ("6a", "6b", "6c", "6d")),
    "6-video": tuple(name for name in TABLES if name.endswith("-video")),
    "all": TABLES,
}
NEED_WEIGHTS = ("1/supervised", "2/weights")
# The three arms that the paper compares throughout: tables 1, 4 and 5 on VGG-Sound.
ARMS = ("1/vgg/moco", "1/vgg/sampling", "1/vgg/previts")
