"""Which benchmarks there are, what each reads, and what one gives.

PreViTS sections 4.2 to 4.5 and 4.7; their settings are `evaluation.EvaluationConfig`. Declares only: nothing here reads
a file or loads torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from previts.errors import InputError
from previts.fields import did_you_mean


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: the folders of its labelled sets, the sections of the settings that it reads, what it measures.

    Attributes:
        folders: Below the labelled sets; the first is its own.
        sections: Of `EvaluationConfig`, besides what all benchmarks share.
        images: Whether it takes image models.
        clips: Whether it takes video models.
        shared: Whether it trains for long, which several processes can share.
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
# Beside the variants of the Backgrounds Challenge: which of the 1000 ImageNet classes is which of the nine.
CLASS_MAP = "in_to_in9.json"


@dataclass
class Outcome:
    """What one benchmark gave for one model.

    Attributes:
        metrics: Numbers by name, in the units of the paper's tables: percent, but fractions for DAVIS.
        protocol: How they were measured, and tables too long for `metrics`; JSON types only.
        figures: Pictures by name, `.png` or `.npz`.
        files: Further files by name.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any]
    figures: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def check(names: Iterable[str]) -> None:
    """Raise an InputError for a benchmark that does not exist."""
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(
                f"there is no benchmark {name!r}{did_you_mean(name, BENCHMARKS)} Known: {', '.join(BENCHMARKS)}"
            )
