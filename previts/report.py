"""The report of a set of results: measured numbers next to those of the paper, as one HTML page, Markdown and CSV.

Reads finished folders; trains and evaluates nothing. A missing number is an empty cell with its cause. The page is one
file that makes no network requests.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from previts import report_pictures, storage
from previts.errors import InputError
from previts.report_corpus import Corpus, read_corpus
from previts.report_evidence import (
    Attention,
    ClassAttention,
    SourceFolder,
    attention_sheet,
    read_attention,
    read_class_attention,
    read_keys,
    read_provenance,
    read_sheets,
)
from previts.report_inputs import (
    Checkpoint,
    ReportRow,
    flatten,
    read_checkpoints,
    read_results,
    short,
)
from previts.report_metrics import TITLES, Metric
from previts.report_numbers import FEW_ITEMS, MeasuredOn, Note, Table, TableCell, make_notes, make_tables
from previts.results import Result
from previts.storage import join

__all__ = ["ReportRow", "build_report"]

HTML, MARKDOWN, CSV, RESULT = "report.html", "report.md", "report.csv", "result.png"
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
FEW_MARK = "†"
FEW_LEGEND = f"{FEW_MARK} Fewer than {FEW_ITEMS} test items: differences of a few points are noise."
CURVES = (
    ("loss", "Loss", "the weighted sum of all terms, which training minimises; lower is better"),
    ("loss_contrastive", "Contrastive loss", "distinguishing the video's own key from the queue; lower is better"),
    ("loss_attention", "Attention loss", "cosine distance between attention and tube, from 0 to 1; lower is better"),
    ("attention_iou", "Attention IoU", "overlap of attention and tube during training; higher is better"),
    ("loss_speed", "Speed loss", "distinguishing clips of different speeds; lower is better"),
    ("speed_accuracy", "Speed accuracy", "share of clips whose speed is recognised; chance level 0.5"),
)


@dataclass(frozen=True)
class Panel:
    """One chart: the same quantity of every arm against the step."""

    title: str
    meaning: str
    svg: Markup
    absent: list[str]


@dataclass(frozen=True)
class Page:
    """The content of the three files."""

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
    common: dict[str, str]
    differing: dict[str, list[str]]
    protocols: list[tuple[str, list[tuple[str, float]], list[tuple[str, str]]]]
    provenance: list[SourceFolder]


def build_report(
    results: Sequence[str],
    target_uri: str,
    rows: Sequence[ReportRow],
    *,
    cited: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    profile: str = "",
    index: str = "",
) -> dict[str, int | float]:
    """Write the report of some results to a folder as HTML, Markdown and CSV, and return its counts.

    If there are attention maps, `result.png` next to them shows those of all arms in one image.

    Args:
        results: URIs of folders that `previts evaluate` wrote.
        target_uri: The folder for the three files.
        rows: The arms in the order of the paper; several may share a checkpoint.
        cited: By table and title, numbers of others that the paper quotes.
        profile: Size of the run; empty if unknown.
        index: The corpus to show first. The corpora of the checkpoints are always shown.

    Raises:
        InputError: If there are no rows, a URI is not the URI of a result, or two results belong to the same cell.
    """
    if not rows:
        raise InputError("a report needs at least one row; give the rows of the paper that were trained")
    found = read_results(results)
    checkpoints = read_checkpoints(rows)
    tables = make_tables(rows, found, checkpoints, cited or {})
    indexes = [storage.absolute(index)] if index else []
    indexes += [
        item.manifest.inputs["index"] for item in checkpoints if item.manifest and "index" in item.manifest.inputs
    ]
    corpora = [read_corpus(uri, number) for number, uri in enumerate(dict.fromkeys(indexes))]
    cells = [cell for table in tables for cell in table.cells]
    counts: dict[str, int | float] = {
        "rows": len(rows),
        "checkpoints": len(checkpoints),
        "results": len(found),
        **{status: sum(cell.status == status for cell in cells) for status in ("measured", "failed", "missing")},
        **next((corpus.counts for corpus in corpora if corpus.score), {}),
    }
    page = Page(
        warning=warning(short(profile, 40)),
        code_version=storage.code_version(),
        counts=counts,
        tables=tables,
        notes=make_notes(tables),
        checkpoints=checkpoints,
        panels=_panels(checkpoints),
        attention=read_attention(found, checkpoints),
        keys=read_keys(found, checkpoints),
        class_attention=read_class_attention(found, checkpoints),
        sheets=read_sheets(found, checkpoints),
        corpora=corpora,
        common=_common(checkpoints),
        differing=_differing(checkpoints),
        protocols=_protocols(found, checkpoints),
        provenance=read_provenance(
            [*(item.uri for item in checkpoints if item.manifest), *(item.uri for item in found)]
        ),
    )
    text = _html(page)
    storage.write_bytes(join(target_uri, HTML), text.encode())
    storage.write_bytes(join(target_uri, MARKDOWN), _markdown(page).encode())
    storage.write_bytes(join(target_uri, CSV), _csv(tables).encode())
    if sheet := attention_sheet(found, checkpoints):
        storage.write_bytes(join(target_uri, RESULT), sheet)
    return counts | {"page_bytes": len(text.encode())}


def _panels(checkpoints: list[Checkpoint]) -> list[Panel]:
    panels = []
    for name, title, meaning in CURVES:
        series = {number: item.curves[name] for number, item in enumerate(checkpoints) if name in item.curves}
        if series:
            svg = report_pictures.curves(
                {number: report_pictures.curve_points(*curve) for number, curve in series.items()}, name
            )
            absent = [item.title for number, item in enumerate(checkpoints) if item.curves and number not in series]
            panels.append(Panel(title, meaning, Markup(svg), absent))  # drawn from numbers alone
    return panels


def _common(checkpoints: list[Checkpoint]) -> dict[str, str]:
    """Return the configuration that all arms share."""
    known = [item.configuration for item in checkpoints if item.configuration]
    return (
        {key: text for key, text in known[0].items() if all(other.get(key) == text for other in known)} if known else {}
    )


def _differing(checkpoints: list[Checkpoint]) -> dict[str, list[str]]:
    """Return the fields in which the arms differ, each with the value of every checkpoint."""
    known = [item.configuration for item in checkpoints if item.configuration]
    keys = dict.fromkeys(key for configuration in known for key in configuration)
    return {
        key: [item.configuration.get(key, "") for item in checkpoints]
        for key in keys
        if len({configuration.get(key) for configuration in known}) > 1
    }


def _protocols(
    results: list[Result], checkpoints: list[Checkpoint]
) -> list[tuple[str, list[tuple[str, float]], list[tuple[str, str]]]]:
    """Return each benchmark with the seconds of each checkpoint and the fields of its protocol with their values."""
    titles = {item.fingerprint: item.title for item in checkpoints}
    found = []
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        mine = [result for result in results if result.benchmark == benchmark and result.checkpoint in titles]
        protocols = [flatten(result.protocol) for result in mine if result.status == "ok"]
        keys = dict.fromkeys(key for protocol in protocols for key in protocol)
        fields = [
            (short(key, 80), " | ".join(dict.fromkeys(item.get(key, "(none)") for item in protocols))) for key in keys
        ]
        found.append((benchmark, [(titles[result.checkpoint], result.seconds) for result in mine], fields))
    return found


def table_title(name: str) -> str:
    """Return the title of a table of the paper."""
    figure = re.fullmatch(r"a(\d+)", name)
    return f"Figure A{figure[1]} (appendix)" if figure else f"Table {name}" if name else "Results"


def _html(page: Page) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"short": short, "table_title": table_title}
    environment.globals |= {
        "style": report_pictures.style,
        "titles": TITLES,
        "arrows": ARROWS,
        "few_mark": FEW_MARK,
        "few_legend": FEW_LEGEND,
    }
    template = environment.from_string(resources.files("previts").joinpath("report.html").read_text("utf-8"))
    numbers = {(note.status, note.cause): note.number for note in page.notes}
    return template.render(page=page, numbers=numbers)


def warning(profile: str) -> str:
    """Return the warning that numbers of a small run are not comparable with the paper's; empty at full size."""
    if profile == "paper":
        return ""
    if not profile:
        return "The size of this run was not recorded: do not compare its numbers with the paper's."
    return f"A {profile}-sized run: numbers are not comparable with the paper's."


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


def _markdown(page: Page) -> str:
    lines = ["# PreViTS: measured and reported", ""]
    lines += [f"**{page.warning}**", ""] if page.warning else []
    numbers = {(note.status, note.cause): note.number for note in page.notes}
    for table in page.tables:
        heads = [_md_head(metric, items) for metric, items in table.columns]
        lines += [
            f"## {_md(table_title(table.name))}",
            "",
            _md_row(["arm", *heads]),
            _md_row(["---"] * (len(heads) + 1)),
        ]
        lines += [_md_row([_md(row.title), *(_md_cell(cell, numbers) for cell in cells)]) for row, cells in table.rows]
        for title, values in table.cited:
            quoted = zip(table.metrics, values, strict=True)
            cells = ["" if value is None else f"paper {metric.show(value)}" for metric, value in quoted]
            lines += [_md_row([_md(title), *cells])]
        lines += [
            "",
            "Measured (difference to the first arm), then the number of the paper. "
            "Bold: best of the column, where the arms differ.",
            "",
            *([FEW_LEGEND, ""] if table.few_items else []),
        ]
    if page.notes:
        lines += ["## Missing numbers", ""]
        lines += [f"{note.number}. {_md(note.cause)} ({_md('; '.join(note.where[:12]))})" for note in page.notes] + [""]
    for corpus in page.corpora:
        lines += [f"## Corpus {corpus.fingerprint}", "", *([_md(corpus.cause), ""] if corpus.cause else [])]
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


def _md(text: str) -> str:
    """Return text from data as literal text of a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", short(text)).replace("&", "&amp;")


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_head(metric: Metric, items: MeasuredOn) -> str:
    title = f"{_md(TITLES.get(metric.benchmark, (metric.benchmark,))[0])} {_md(metric.title)}{ARROWS[metric.better]}"
    facts = " · ".join(text for text in (items.chance, items.items) if text)
    return f"{title} ({_md(facts)}{f' {FEW_MARK}' if items.few else ''})" if facts else title


def _md_cell(cell: TableCell, numbers: dict[tuple[str, str], int]) -> str:
    paper = f" / paper {cell.metric.show(cell.paper)}" if cell.paper is not None else ""
    if cell.value is None:
        return f"{'failed' if cell.status == 'failed' else 'not run'} ({numbers[cell.status, cell.cause]}){paper}"
    value = cell.metric.show(cell.value)
    delta = f" ({cell.metric.show(cell.delta, '+')})" if cell.delta is not None else ""
    return (f"**{value}**" if cell.best else value) + delta + paper


def _csv(tables: list[Table]) -> str:
    """Return every cell as a line; numbers have all digits of the result."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["row", "metric", "value", "paper", "unit", "checkpoint", "benchmark", "status", "cause", "items", "chance"]
    )
    for cell in (cell for table in tables for cell in table.cells):
        metric, population = cell.metric, cell.population
        items, chance = (population.items, population.chance) if population else (None, None)
        value, paper, items_text, chance_text = (
            "" if number is None else repr(number) for number in (cell.value, cell.paper, items, chance)
        )
        writer.writerow(
            [
                cell.row.name,
                metric.key,
                value,
                paper,
                metric.unit,
                cell.row.fingerprint,
                metric.benchmark,
                cell.status,
                cell.cause,
                items_text,
                chance_text,
            ]
        )
    return buffer.getvalue()
