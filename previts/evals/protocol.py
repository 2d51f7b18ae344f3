"""The benchmarks, the datasets and settings that each reads, and the type of their results.

PreViTS sections 4.2 to 4.5 and 4.7; the settings are `evaluation.EvaluationConfig`. Declarations only: no module here
reads a file or loads torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from previts.errors import InputError
from previts.fields import did_you_mean


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: the folders of its datasets, the settings that it reads, and the models that it accepts.

    Attributes:
        folders: In the folder of the labelled datasets; the first is the benchmark's own.
        sections: Of `EvaluationConfig`, in addition to the fields that all benchmarks share.
        images: Whether it accepts image models.
        clips: Whether it accepts video models.
        shared: Whether it has a long training that several processes can share.
    """

    folders: tuple[str, ...]
    sections: tuple[str, ...] = ()
    images: bool = True
    clips: bool = False
    shared: bool = False


BENCHMARKS = {
    "voc07": Benchmark(("voc",), ("svm",)),
    "in1k": Benchmark(("imagenet",), ("linear",), shared=True),
    "voc_det": Benchmark(("voc",), ("detection",), shared=True),
    "coco": Benchmark(("coco",), ("detection",), shared=True),
    "in9": Benchmark(("in9",), ("linear",), shared=True),
    "davis": Benchmark(("davis",), ("davis",), clips=True),
    "grounding": Benchmark(("coco",), ()),
    "ucf101": Benchmark(("ucf101",), ("actions",), images=False, clips=True, shared=True),
    "hmdb51": Benchmark(("hmdb51",), ("actions",), images=False, clips=True, shared=True),
    "jhmdb": Benchmark(("jhmdb", "ucf101"), ("actions", "backgrounds"), images=False, clips=True, shared=True),
    "minikinetics": Benchmark(("minikinetics",), ("actions", "backgrounds"), images=False, clips=True, shared=True),
}
# Next to the variants of the Backgrounds Challenge: maps each of the 1000 ImageNet classes to one of the nine.
CLASS_MAP = "in_to_in9.json"


@dataclass(frozen=True)
class Population:
    """The test items that a number is measured on.

    Attributes:
        items: How many.
        unit: What they are, such as images.
        chance: What a random answer is expected to score, in the unit of the number; None where that is not defined.
    """

    items: int
    unit: str
    chance: float | None = None


@dataclass
class Outcome:
    """The result of one benchmark on one model.

    Attributes:
        metrics: Numbers by name, in the units of the paper's tables: percent, or fractions for attention.
        protocol: How they were measured, and tables too long for `metrics`; JSON types only.
        figures: Images and arrays by name, `.png` or `.npz`.
        files: Further files by name.
        populations: By name of a metric: the test items that it is measured on, and its chance level.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any]
    figures: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    populations: dict[str, Population] = field(default_factory=dict)


def check(names: Iterable[str]) -> None:
    """Raise an InputError for a benchmark that does not exist."""
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(
                f"there is no benchmark {name!r}{did_you_mean(name, BENCHMARKS)} Known: {', '.join(BENCHMARKS)}"
            )
