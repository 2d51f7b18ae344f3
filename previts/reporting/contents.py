"""The content of a report page, independent of its format, and the sentences that the formats share.

Tables 1 to 6 of PreViTS. Reads and writes no files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from previts.reporting.corpus import Corpus
from previts.reporting.evidence import Attention, ClassAttention, SourceFolder
from previts.reporting.generations import Change, Generation
from previts.reporting.inputs import Checkpoint
from previts.reporting.numbers import FEW_ITEMS, Note, Table

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}  # by the better direction of a metric
FEW_MARK = "†"
FEW_LEGEND = f"{FEW_MARK} Fewer than {FEW_ITEMS} test items: differences of a few points are noise."


@dataclass(frozen=True)
class Panel:
    """One chart: the same quantity of every arm against the step."""

    title: str
    meaning: str
    svg: Markup
    absent: list[str]


@dataclass(frozen=True)
class Page:
    """The content of the three files; `stale` says why the numbers of a row are stale, by the name of the row."""

    warning: str
    code_version: str
    counts: dict[str, int | float]
    tables: list[Table]
    notes: list[Note]
    checkpoints: list[Checkpoint]
    panels: list[Panel]
    attention: Attention
    keys: Attention
    class_attention: ClassAttention
    sheets: list[tuple[str, str, str]]
    corpora: list[Corpus]
    generations: Sequence[Generation]
    changes: list[Change]
    common: dict[str, str]
    differing: dict[str, list[str]]
    protocols: list[tuple[str, list[tuple[str, float]], list[tuple[str, str]]]]
    provenance: list[SourceFolder]
    stale: dict[str, str]


def table_title(name: str) -> str:
    """Return the title of a table of the paper."""
    figure = re.fullmatch(r"a(\d+)", name)
    return f"Figure A{figure[1]} (appendix)" if figure else f"Table {name}" if name else "Results"


def warning(profile: str) -> str:
    """Return the warning that numbers of a small run are not comparable with the paper's; empty at full size."""
    if profile == "paper":
        return ""
    if not profile:
        return "The size of this run was not recorded: do not compare its numbers with the paper's."
    return f"A {profile}-sized run: numbers are not comparable with the paper's."


def stale_sentence(title: str, withdrawn: Sequence[str]) -> str:
    """Return that an arm was trained on videos that were withdrawn since."""
    count = f"{len(withdrawn)} video{'s' if len(withdrawn) > 1 else ''}"
    named = ", ".join(withdrawn[:3]) + (", ..." if len(withdrawn) > 3 else "")
    return (
        f"Stale: {title} was trained on {count} withdrawn since ({named}). Make a new index, and pretrain and evaluate "
        "this row again."
    )


def truth_sentence(corpus: Corpus) -> str:
    """Return how well the tubes of a corpus match exact masks, which the corpus must have."""
    assert corpus.score is not None
    score, tracked = corpus.score, corpus.score.tracked_iou
    visible = f" and of {tracked:.3f} over the frames with a tube" if tracked is not None else ""
    return (
        f"On the {corpus.labelled:,} videos with exact masks the tubes have a mean IoU of {score.iou:.3f} over all "
        f"frames{visible}; {score.tracked:.0%} of the frames have a tube. "
        "A frame in which neither tube nor mask shows the object counts 1; every video counts the same."
    )
