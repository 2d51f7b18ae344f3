"""Which benchmarks there are, and what one gives.

PreViTS sections 4.2, 4.4 and 4.5; their settings are `experiment.EvaluationConfig`. Declares only: nothing here reads a
file or loads torch.
"""

from dataclasses import dataclass, field
from typing import Any

# A benchmark and its folder below the labelled sets.
FOLDERS = {"voc07": "voc", "in1k": "imagenet", "in9": "in9", "davis": "davis"}
BENCHMARKS = tuple(FOLDERS)
IMAGES = ("voc07", "in1k", "in9")  # what only an image model can be measured by
# Beside the variants of the Backgrounds Challenge: which of the 1000 ImageNet classes is which of the nine.
CLASS_MAP = "in_to_in9.json"


@dataclass
class Outcome:
    """What one benchmark gave for one model.

    Attributes:
        metrics: Numbers by name, in the units of the paper's tables: percent, but fractions for DAVIS.
        protocol: How they were measured, and tables too long for `metrics`; JSON types only.
        figures: Files by name, `.png` or `.npz`.
    """

    metrics: dict[str, float]
    protocol: dict[str, Any]
    figures: dict[str, bytes] = field(default_factory=dict)
