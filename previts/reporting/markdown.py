"""The Markdown of a report page: its tables, the causes of missing numbers, the corpora, what differs between the arms.

Text from data appears literally. Images are only on the HTML page.
"""

import re
from collections.abc import Iterable

from previts.reporting.comparisons import TableCell
from previts.reporting.contents import (
    ARROWS,
    FEW_LEGEND,
    FEW_MARK,
    ITEMS_LEGEND,
    NOISE_LEGEND,
    Page,
    around,
    delta_around,
    not_run_sentence,
    orderings_sentences,
    seeds_lacking,
    table_title,
    truth_sentence,
)
from previts.reporting.generations import Change, departures, sizes
from previts.reporting.inputs import short
from previts.reporting.metrics import Metric
from previts.reporting.numbers import MeasuredOn


def markdown(page: Page) -> str:
    """Return the page as Markdown."""
    lines = ["# PreViTS: measured and reported", ""]
    lines += [f"**{page.warning}**", ""] if page.warning else []
    lines += [page.seeds, ""] if page.seeds else []
    lines += [line for note in page.stale.values() for line in (f"**{_md(note)}**", "")]
    numbers = {(note.status, note.cause): note.number for note in page.notes}
    for table in page.tables:
        heads = [_md_head(metric, items) for metric, items in table.columns]
        lines += [
            f"## {_md(table_title(table.name))}",
            "",
            _md_row(["arm", *heads]),
            _md_row(["---"] * (len(heads) + 1)),
        ]
        sentences = [not_run_sentence(table), *orderings_sentences(table)]
        for place, (row, measured) in enumerate(table.rows):
            name = _md(row.title) + (" (baseline)" if place in table.baselines else "")
            lines.append(_md_row([name, *(_md_cell(cell, numbers) for cell in measured)]))
        for title, values in table.cited:
            quoted = zip(table.metrics, values, strict=True)
            cells = ["" if value is None else f"paper {metric.show(value)}" for metric, value in quoted]
            lines += [_md_row([_md(title), *cells])]
        lines += [
            "",
            "Measured (difference to the baseline of the arm, as marked), then the number and the "
            "difference of the paper. Bold: best of the column, where the arms differ, also within the noise. "
            f"{NOISE_LEGEND}",
            "",
            *([FEW_LEGEND, ""] if table.few_items else []),
            *([ITEMS_LEGEND, ""] if table.over_items else []),
            *[line for text in sentences if text for line in (_md(text, 2000), "")],
        ]
        unsure = [f"- {_md(reason)} ({_md('; '.join(where[:12]))})" for reason, where in table.unsure.items()]
        lines += ["Numbers or differences without an interval:", "", *unsure, ""] if unsure else []
    if page.notes:
        lines += ["## Missing numbers", ""]
        lines += [f"{note.number}. {_md(note.cause)} ({_md('; '.join(note.where[:12]))})" for note in page.notes] + [""]
    lines += _md_generations(page)
    for corpus in page.corpora:
        lines += [f"## Corpus {corpus.fingerprint}", "", *([_md(corpus.cause), ""] if corpus.cause else [])]
        lines += [f"**{_md(corpus.unguarded)}**", ""] if corpus.unguarded else []
        lines += [_md(corpus.leakage), ""] if corpus.leakage else []
        lines += [_md_row(["step", "number", "remark"]), _md_row(["---"] * 3)] if corpus.steps else []
        lines += [_md_row([what, number, remark]) for what, number, _, remark in corpus.steps] + [""]
        lines += [f"- {count} x {_md(reason)}" for count, reason in corpus.failures] + [""]
        if corpus.spread:
            lines += [_md_row(["tubes", "mean", "25 %", "50 %", "75 %"]), _md_row(["---"] * 5)]
            lines += [_md_row([what, *cells]) for what, cells in corpus.spread] + [""]
        if corpus.score:
            lines += [_md(truth_sentence(corpus)), ""]
    if page.differing:
        lines += ["## What differs between the arms", "", _md_row(["arm", *map(_md, page.differing)])]
        lines += [_md_row(["---"] * (len(page.differing) + 1))]
        for place, item in enumerate(page.checkpoints):
            lines += [_md_row([_md(item.title), *(_md(values[place]) for values in page.differing.values())])]
    return "\n".join(lines).rstrip() + "\n"


def _md_generations(page: Page) -> list[str]:
    if not page.generations:
        return []
    head, sized = sizes(page.generations)
    lines = ["## Generations of the corpus", "", _md_row(["generation", *head]), _md_row(["---"] * (len(head) + 1))]
    for item, cells in sized:
        texts = [f"{number} ({moved})" if moved else number for number, moved in cells]
        lines.append(_md_row([str(item.number), *texts]))
    lines += ["", *(f"- {_md(sentence, 1000)}" for sentence in departures(page.generations)), ""]
    if page.changes:
        numbers = [str(item.number) for item, _ in sized]
        lines += [_md_row(["arm", "number", *numbers, "last change"]), _md_row(["---"] * (len(numbers) + 3))]
        lines += [_md_row(_md_change(change)) for change in page.changes] + [""]
    return lines


def _md(text: str, limit: int = 300) -> str:
    """Return text from data as literal text of a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", short(text, limit)).replace("&", "&amp;")


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_change(change: Change) -> list[str]:
    metric = change.metric
    title = f"{_md(metric.label)}{ARROWS[metric.better]}"
    values = ["" if value is None else metric.show(value) for value in change.shown]
    return [_md(change.cell.row.title), title, *values, "" if change.delta is None else metric.show(change.delta, "+")]


def _md_head(metric: Metric, items: MeasuredOn) -> str:
    title = f"{_md(metric.label)}{ARROWS[metric.better]}"
    facts = " · ".join(text for text in (items.chance, items.items) if text)
    return f"{title} ({_md(facts)}{f' {FEW_MARK}' if items.few else ''})" if facts else title


def _md_cell(cell: TableCell, numbers: dict[tuple[str, str], int]) -> str:
    paper = f" / paper {cell.metric.show(cell.paper)}" if cell.paper is not None else ""
    paper += f" ({cell.metric.show(cell.paper_delta, '+')})" if cell.paper_delta is not None else ""
    if cell.value is None:
        return f"{'failed' if cell.status == 'failed' else 'not run'} ({numbers[cell.status, cell.cause]}){paper}"
    value = cell.metric.show(cell.value)
    parts = [f"**{value}**" if cell.best else value, around(cell)]
    if lacking := seeds_lacking(cell):
        parts.append(f"({lacking}, note {numbers[cell.status, cell.cause]})")
    if cell.delta is not None:
        parts.append(f"({' '.join(filter(None, (cell.metric.show(cell.delta, '+'), delta_around(cell))))})")
    return " ".join(filter(None, parts)) + paper
