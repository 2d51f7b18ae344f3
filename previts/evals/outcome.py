"""The outcome of one benchmark on one model: its numbers, before they are stored.

`result.py` stores it together with the row and the checkpoint.
"""

from dataclasses import dataclass, field
from typing import Any


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
        metrics: Numbers by name, in the units of the paper's tables: percent, or fractions for attention. NaN for a
            number that is not defined on the test items.
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
