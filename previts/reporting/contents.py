"""The content of a report page, independent of its format, and the sentences that the formats share.

Tables 1 to 6 of PreViTS. Reads and writes no files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from previts.reporting.comparisons import TableCell
from previts.reporting.corpus import Corpus
from previts.reporting.evidence import Attention, ClassAttention, SourceFolder
from previts.reporting.generations import Change, Generation
from previts.reporting.inputs import Checkpoint, ReportRow, short
from previts.reporting.metrics import TITLES
from previts.reporting.numbers import FEW_ITEMS, Note, Table

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}  # by the better direction of a metric
FEW_MARK = "†"
FEW_LEGEND = f"{FEW_MARK} Fewer than {FEW_ITEMS} test items: differences of a few points are noise."

ITEMS_MARK = "‡"
ITEMS_LEGEND = (
    f"{ITEMS_MARK} Over the test items of one training, by bootstrap: how much the number depends on the choice of the "
    "test items. The variation between trainings is not in it, so such a difference may be that of two seeds."
)
NOISE_LEGEND = (
    "The small number after ± is half the 95 % interval of the mean. After a difference it is half the interval that "
    "holds for all comparisons of the table together (Bonferroni)."
)


@dataclass(frozen=True)
class Panel:
    """One chart: the same quantity of every arm against the step."""

    title: str
    meaning: str
    svg: Markup
    absent: list[str]


@dataclass(frozen=True)
class TableChart:
    """One chart of a table.

    Attributes:
        title: The number that it shows.
        meaning: What is across; "" for arms.
        described: Its content as text.
        svg: The image.
        arms: The titles of its curves in the order of the styles; empty for a single curve.
    """

    title: str
    meaning: str
    described: str
    svg: Markup
    arms: list[str]


@dataclass(frozen=True)
class Page:
    """The content of the three files.

    `stale` says why the numbers of a row are stale, by the name of the row. `trained` counts the finished checkpoints.
    """

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
    seeds: str
    trained: int
    charts: dict[str, list[TableChart]]


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


def seeds_sentence(rows: Sequence[ReportRow]) -> str:
    """Return what the page shows of arms with several seeds; "" if no arm has several."""
    counts = sorted({len(row.all_seeds) for row in rows})
    if counts[-1] == 1:
        return ""
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Each arm was trained with {number} seeds, and its numbers are means over them. Curves, attention, detections "
        "and provenance are those of its first seed."
    )


def not_run_sentence(table: Table) -> str:
    """Return which benchmarks of the paper no arm was evaluated on; empty if there are none."""
    titles = [TITLES.get(benchmark, (benchmark,))[0] for benchmark in table.not_run]
    listed = ", ".join(titles)
    return f"Not run: {listed}. The command previts show prints the numbers of the paper." if titles else ""


def orderings_sentences(table: Table) -> list[str]:
    """Return how many differences point the way that the paper's do, and which do not; empty if there are none."""
    found = table.orderings
    if not found.total:
        return []
    point = "comparison points" if found.total == 1 else "comparisons point"
    noise = f"the noise of the test items {ITEMS_MARK}" if table.over_items else "noise"
    sentences = [
        f"{len(found.agreeing)} of {found.total} {point} the way that the paper's do, "
        f"{len(found.certain)} of them beyond {noise}."
    ]
    if found.opposed:
        sentences.append("The other way: " + "; ".join(_ordering(cell) for cell in found.opposed) + ".")
    if found.equal:
        sentences.append("No difference: " + "; ".join(_ordering(cell) for cell in found.equal) + ".")
    return sentences


def around(cell: TableCell) -> str:
    """Return half the interval of a number as text, such as "± 1.2"; "" if it has none."""
    if cell.estimate is None or cell.half_width is None:
        return ""
    return _plus_minus(cell, cell.half_width, cell.estimate.source)


def delta_around(cell: TableCell) -> str:
    """Return half the interval of the difference to the baseline as text; "" if it has none."""
    if cell.difference is None or cell.delta_half_width is None:
        return ""
    return _plus_minus(cell, cell.delta_half_width, cell.difference.source)


def _plus_minus(cell: TableCell, half: float, source: str) -> str:
    return f"± {cell.metric.show(half)}{' ' + ITEMS_MARK if source == 'items' else ''}"


def seeds_lacking(cell: TableCell) -> str:
    """Return how many of the seeds have a number as text; "" if all have it."""
    every = len(cell.row.all_seeds)
    return f"{len(cell.values)} of {every} seeds" if cell.values and len(cell.values) < every else ""


def _ordering(cell: TableCell) -> str:
    metric = cell.metric
    beyond = ", beyond noise" if cell.verdict != "same" else ""
    return (
        f"{short(cell.row.title, 60)}, {metric.label} ({metric.show(cell.delta or 0, '+')}, paper "
        f"{metric.show(cell.paper_delta or 0, '+')}{beyond})"
    )


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
