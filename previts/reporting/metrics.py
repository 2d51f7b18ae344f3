"""The metrics of the benchmarks: titles, units, which direction is better, and the questions that they answer.

The columns of tables 1, 4 and 5 of PreViTS. Declarations only.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number of a benchmark; `better` is the direction that the paper aims for."""

    key: str
    title: str
    unit: Literal["percent", "fraction", ""] = ""
    better: Literal["higher", "lower", ""] = ""
    digits: int = 3

    @property
    def benchmark(self) -> str:
        """The benchmark that the number belongs to."""
        return self.key.split("/")[0]

    @property
    def label(self) -> str:
        """The benchmark and the number as text."""
        return f"{TITLES.get(self.benchmark, (self.benchmark,))[0]} {self.title}"

    @property
    def is_main(self) -> bool:
        """Whether the report draws it: the paper aims for a direction, and it is no second form of another number."""
        return bool(self.better) and not self.key.endswith(("/top5", "ap50", "ap75"))

    def show(self, value: float, sign: str = "") -> str:
        """Return the number as text, rounded for display."""
        text = f"{value:{sign}.{self.digits}f}"
        if float(text) == 0:
            text = text.replace("+", "±").replace("-", "±") if sign else text.replace("-", "")
        return text.replace("-", "−")  # noqa: RUF001 (a minus sign, as wide as a plus)


METRICS: tuple[Metric, ...] = (
    Metric("voc07/map", "mAP", "percent", "higher", 1),
    Metric("in1k/top1", "Top-1", "percent", "higher", 1),
    Metric("in1k/top5", "Top-5", "percent", "higher", 1),
    Metric("voc_det/ap", "AP", "percent", "higher", 1),
    Metric("voc_det/ap50", "AP50", "percent", "higher", 1),
    Metric("voc_det/ap75", "AP75", "percent", "higher", 1),
    Metric("coco/box_ap", "box AP", "percent", "higher", 1),
    Metric("coco/box_ap50", "box AP50", "percent", "higher", 1),
    Metric("coco/box_ap75", "box AP75", "percent", "higher", 1),
    Metric("coco/mask_ap", "mask AP", "percent", "higher", 1),
    Metric("coco/mask_ap50", "mask AP50", "percent", "higher", 1),
    Metric("coco/mask_ap75", "mask AP75", "percent", "higher", 1),
    Metric("in9/original", "Original", "percent", "higher", 1),
    Metric("in9/mixed_same", "Mixed-Same", "percent", "higher", 1),
    Metric("in9/mixed_rand", "Mixed-Rand", "percent", "higher", 1),
    Metric("in9/mixed_next", "Mixed-Next", "percent", "higher", 1),
    Metric("in9/only_fg", "Only-FG", "percent", "higher", 1),
    Metric("in9/no_fg", "No-FG", "percent", "", 1),
    Metric("in9/only_bg_b", "Only-BG-B", "percent", "lower", 1),
    Metric("in9/only_bg_t", "Only-BG-T", "percent", "lower", 1),
    Metric("jhmdb/original", "Original", "percent", "higher", 1),
    Metric("jhmdb/mixed_same", "Mixed-Same", "percent", "higher", 1),
    Metric("jhmdb/mixed_rand", "Mixed-Rand", "percent", "higher", 1),
    Metric("jhmdb/mixed_next", "Mixed-Next", "percent", "higher", 1),
    Metric("jhmdb/only_fg", "Only-FG", "percent", "higher", 1),
    Metric("jhmdb/no_fg", "No-FG", "percent", "", 1),
    Metric("jhmdb/only_bg_b", "Only-BG-B", "percent", "lower", 1),
    Metric("jhmdb/only_bg_t", "Only-BG-T", "percent", "lower", 1),
    Metric("jhmdb/cam_energy", "Energy on person", "fraction", "higher"),
    Metric("jhmdb/cam_pointing", "Pointing at person", "fraction", "higher"),
    Metric("minikinetics/original", "Original", "percent", "higher", 1),
    Metric("minikinetics/no_fg", "No-FG", "percent", "", 1),
    Metric("davis/j_mean", "J mean", "fraction", "higher"),
    Metric("davis/j_recall", "J recall", "fraction", "higher"),
    Metric("davis/j_decay", "J decay", "fraction", "lower"),
    Metric("grounding/energy", "energy on object", "fraction", "higher"),
    Metric("grounding/pointing", "pointing game", "fraction", "higher"),
    Metric("grounding/told_apart", "distinguished", "fraction", "higher"),
    Metric("ucf101/top1", "Top-1", "percent", "higher", 1),
    Metric("ucf101/top5", "Top-5", "percent", "higher", 1),
    Metric("hmdb51/top1", "Top-1", "percent", "higher", 1),
    Metric("hmdb51/top5", "Top-5", "percent", "higher", 1),
)
# Classifiers that are trained on each variant have numbers, and so columns, of their own.
METRICS += tuple(
    replace(metric, key=metric.key.replace("/", "_by_variant/"))
    for metric in METRICS
    if metric.benchmark in ("jhmdb", "minikinetics")
)


# The title of a benchmark, the content of its columns, and the question that it answers.
TITLES = {
    "voc07": (
        "VOC07",
        "SVM, %",
        "Which objects does a photograph show? Linear SVMs on frozen features; mean average precision.",
    ),
    "in1k": (
        "ImageNet-1k",
        "linear classifier, %",
        "Which of 1,000 classes does an image show? A linear classifier on frozen features; accuracy.",
    ),
    "voc_det": (
        "VOC detection",
        "Faster R-CNN (C4), average precision in %",
        "Where are the objects of 20 classes? A detector that starts from the encoder's weights. AP is the mean over "
        "overlaps of 0.5 to 0.95; AP50 and AP75 need an overlap of 0.5 and 0.75.",
    ),
    "coco": (
        "COCO",
        "Mask R-CNN (FPN), average precision in %",
        "Which pixels belong to which object? A detector that starts from the encoder's weights, scored on boxes and "
        "masks. AP is the mean over overlaps of 0.5 to 0.95; AP50 and AP75 need an overlap of 0.5 and 0.75.",
    ),
    "in9": (
        "Backgrounds Challenge",
        "ImageNet-9 with foreground or background exchanged, accuracy in %",
        "Does the encoder use the object or its background? Mixed: the object on another background. FG, BG: "
        "only the object, only the background. Accuracy on the background alone should be low.",
    ),
    "grounding": (
        "Two keys",
        "attention on COCO, 0 to 1",
        "Does attention distinguish two objects of one image? Energy: the share of attention on the key's object. "
        "Pointing game: how often the strongest cell is on it. Distinguished: how often each key draws more attention "
        "to its own object than to the other.",
    ),
    "jhmdb": (
        "Video Backgrounds Challenge, JHMDB",
        "actions with person or background exchanged, accuracy in %; attention from 0 to 1",
        "Does an action classifier use the person or the background? Mixed: the person on another background. FG, BG: "
        "only the person, only the background. Accuracy on the background alone should be low. "
        "The last two: the share of the right class's attention on the person, and how often its peak is there.",
    ),
    "minikinetics": (
        "Video Backgrounds Challenge, mini-Kinetics",
        "actions with and without persons, accuracy in %",
        "How much accuracy does an action classifier lose when all persons are black? A larger loss means that it "
        "relies less on the background.",
    ),
    "davis": (
        "DAVIS 2016",
        "attention as a tracker, 0 to 1",
        "Does attention follow the object of the first frame? J is the overlap (IoU) of attended cells and object: its "
        "mean, the share of frames above 0.5 (recall), and the loss from the first to the last quarter (decay).",
    ),
    "ucf101": (
        "UCF-101",
        "fine-tuned, %",
        "Which of 101 actions does a video show? The whole encoder is fine-tuned on labelled videos; accuracy.",
    ),
    "hmdb51": (
        "HMDB-51",
        "fine-tuned, %",
        "Which of 51 actions does a video show? Fine-tuned and measured as on UCF-101.",
    ),
}
TITLES |= {
    f"{name}_by_variant": (f"{TITLES[name][0]}, a classifier for each variant", *TITLES[name][1:])
    for name in ("jhmdb", "minikinetics")
}
# The tables whose arms the paper measures in several places, and the place of each further benchmark.
SPLIT = ("1", "2")
PLACES = {
    "in9": "4, images",
    "jhmdb": "4, videos",
    "minikinetics": "of appendix A",
    "davis": "5",
    "grounding": "for figure 6",
    "hmdb51": "beyond the paper",
    "jhmdb_by_variant": "4, videos, trained on each variant",
    "minikinetics_by_variant": "of appendix A, trained on each variant",
}
KNOWN = {metric.key: metric for metric in METRICS}
