"""The benchmarks: the datasets and settings that each reads, and the models that it accepts.

PreViTS sections 4.2 to 4.5 and 4.7. The settings are `evaluation.EvaluationConfig`; the code is in `previts.evals`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from previts.config.fields import unknown_name


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        folders: Names of its folders in the folder of the labelled datasets, the benchmark's own folder first.
        sections: Sections of `EvaluationConfig` that it reads, in addition to the fields that all benchmarks share.
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
# The labelled sets: names of their folders. `evaluation.actions.split` selects the test items of those with splits.
SETS = tuple(dict.fromkeys(benchmark.folders[0] for benchmark in BENCHMARKS.values()))
SETS_WITH_SPLITS = ("ucf101", "hmdb51", "jhmdb")
# File next to the variants of the Backgrounds Challenge: maps the 1000 classes of ImageNet to its nine classes.
CLASS_MAP = "in_to_in9.json"


def check(names: Iterable[str]) -> None:
    """Raise an InputError for a benchmark that does not exist."""
    for name in names:
        if name not in BENCHMARKS:
            raise unknown_name(name, BENCHMARKS, "benchmark")
