"""The report of a set of results: measured numbers next to those of the paper, as one HTML page, Markdown and CSV.

Reads finished folders; trains and evaluates nothing. A missing number is an empty cell with its cause. The page is one
file that makes no network requests.
"""

from collections.abc import Mapping, Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

from previts.errors import InputError
from previts.evals.result import Result
from previts.reporting import figures
from previts.reporting.comparisons import TableCell
from previts.reporting.contents import (
    ARROWS,
    FEW_LEGEND,
    FEW_MARK,
    ITEMS_LEGEND,
    NOISE_LEGEND,
    Page,
    Panel,
    around,
    delta_around,
    not_run_sentence,
    orderings_sentences,
    seeds_lacking,
    seeds_sentence,
    stale_sentence,
    table_title,
    warning,
)
from previts.reporting.corpus import read_corpus
from previts.reporting.evidence import (
    attention_sheet,
    read_attention,
    read_class_attention,
    read_keys,
    read_provenance,
    read_sheets,
)
from previts.reporting.generations import CSV, Change, Generation, changes, charts, departures, sizes
from previts.reporting.inputs import Checkpoint, ReportRow, flatten, read_causes, read_checkpoints, read_results, short
from previts.reporting.markdown import markdown
from previts.reporting.metrics import TITLES
from previts.reporting.numbers import Table, make_notes, make_tables
from previts.reporting.table_charts import table_charts
from previts.storage import csv_text, files, folders
from previts.storage.files import join

__all__ = ["CSV", "ReportRow", "build_report"]

HTML, MARKDOWN, RESULT = "report.html", "report.md", "result.png"
CURVES = (
    ("loss", "Loss", "the weighted sum of all terms, which training minimises; lower is better"),
    ("loss_contrastive", "Contrastive loss", "distinguishing the video's own key from the queue; lower is better"),
    ("loss_attention", "Attention loss", "cosine distance between attention and tube, from 0 to 1; lower is better"),
    ("attention_iou", "Attention IoU", "overlap of attention and tube during training; higher is better"),
    ("loss_speed", "Speed loss", "distinguishing clips of different speeds; lower is better"),
    ("speed_accuracy", "Speed accuracy", "share of clips whose speed is recognised; chance level 0.5"),
)


def build_report(
    results: Sequence[str],
    target_uri: str,
    rows: Sequence[ReportRow],
    *,
    cited: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    profile: str = "",
    index: str = "",
    generations: Sequence[Generation] = (),
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
        generations: Those of the corpus (`read_generations`).

    Raises:
        InputError: If there are no rows, a URI is not the URI of a result, or two results belong to the same cell.
    """
    if not rows:
        raise InputError("a report needs at least one row; give the rows of the paper that were trained")
    found = read_results(results)
    checkpoints = read_checkpoints(rows)
    causes = read_causes(rows)
    tables = make_tables(rows, found, causes, cited or {})
    later = causes.keys() - {item.fingerprint for item in checkpoints}  # of further seeds
    indexes = [files.absolute(index)] if index else []
    indexes += [
        item.manifest.inputs["index"] for item in checkpoints if item.manifest and "index" in item.manifest.inputs
    ]
    corpora = [read_corpus(uri, number) for number, uri in enumerate(dict.fromkeys(indexes))]
    cells = [cell for table in tables for cell in table.cells]
    counts: dict[str, int | float] = {
        "rows": len(rows),
        "checkpoints": len(causes),
        "results": len(found),
        **{status: sum(cell.status == status for cell in cells) for status in ("measured", "failed", "missing")},
        **next((corpus.counts for corpus in corpora if corpus.score), {}),
    }
    columns = [cell for table in tables for _, row in table.rows for cell in row]
    changed = changes(columns, generations)
    page = Page(
        warning=warning(short(profile, 40)),
        code_version=folders.code_version(),
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
        generations=generations if len(generations) > 1 else (),
        changes=changed,
        common=_common(checkpoints),
        differing=_differing(checkpoints),
        protocols=_protocols(found, checkpoints),
        seeds=seeds_sentence(rows),
        trained=sum(not cause for cause in causes.values()),
        charts={table.name: table_charts(table) for table in tables},
        stale={row.name: stale_sentence(short(row.title, 80), row.withdrawn) for row in rows if row.withdrawn},
        provenance=read_provenance(
            [
                *(item.uri for item in checkpoints if item.manifest),
                *(item.uri for item in found if item.checkpoint not in later),
            ]
        ),
    )
    text = _html(page)
    files.write_bytes(join(target_uri, HTML), text.encode())
    files.write_bytes(join(target_uri, MARKDOWN), markdown(page).encode())
    files.write_bytes(join(target_uri, CSV), _csv(tables, changed).encode())
    if sheet := attention_sheet(found, checkpoints):
        files.write_bytes(join(target_uri, RESULT), sheet)
    return counts | {"page_bytes": len(text.encode())}


def _panels(checkpoints: list[Checkpoint]) -> list[Panel]:
    panels = []
    for name, title, meaning in CURVES:
        series = {number: item.curves[name] for number, item in enumerate(checkpoints) if name in item.curves}
        if series:
            svg = figures.curves({number: figures.curve_points(*curve) for number, curve in series.items()}, name)
            absent = [item.title for number, item in enumerate(checkpoints) if item.curves and number not in series]
            panels.append(Panel(title, meaning, Markup(svg), absent))  # safe: drawn only from numbers
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


def _html(page: Page) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"short": short, "table_title": table_title}
    environment.globals |= {
        "style": figures.style,
        "generation_sizes": sizes(page.generations),
        "generation_departures": departures(page.generations),
        "generation_charts": charts(page.changes),
        "titles": TITLES,
        "arrows": ARROWS,
        "few_mark": FEW_MARK,
        "few_legend": FEW_LEGEND,
        "noise_legend": NOISE_LEGEND,
        "around": around,
        "delta_around": delta_around,
        "seeds_lacking": seeds_lacking,
        "items_legend": ITEMS_LEGEND,
        "orderings_of": orderings_sentences,
        "not_run_of": not_run_sentence,
    }
    template = environment.from_string(resources.files("previts.reporting").joinpath("page.html").read_text("utf-8"))
    numbers = {(note.status, note.cause): note.number for note in page.notes}
    return template.render(page=page, numbers=numbers)


def _csv(tables: list[Table], changed: Sequence[Change]) -> str:
    """Return every cell as a line; numbers have all digits of the result."""
    names = "row metric value paper unit checkpoint benchmark status cause items chance previous change"
    since = {(item.cell.row.name, item.metric.key): (item.values[-2], item.delta) for item in changed}
    rows: list[list[csv_text.Cell]] = []
    for cell in (cell for table in tables for cell in table.cells):
        metric, population = cell.metric, cell.population
        numbers = (cell.value, cell.paper)
        counts = (population.items, population.chance) if population else (None, None)
        rows.append(
            [
                cell.row.name,
                metric.key,
                *numbers,
                metric.unit,
                cell.row.fingerprint,
                metric.benchmark,
                cell.status,
                cell.cause,
                *counts,
                *since.get((cell.row.name, metric.key), (None, None)),
                *_certainty(cell),
            ]
        )
    return csv_text.to_csv([*names.split(), *CERTAINTY], rows)


# `low` to `high` is the 95 % interval of the value over its `source` (seeds or items). Those of the difference have a
# source of their own, and hold for one comparison; `joint_` and `p_corrected` hold for all `comparisons` of the table.
CERTAINTY = (
    *("seeds", "sd", "low", "high", "source"),
    *("difference", "difference_n", "difference_low", "difference_high", "p", "difference_source"),
    *("comparisons", "joint_low", "joint_high", "p_corrected"),
)


def _certainty(cell: TableCell) -> list[csv_text.Cell]:
    """Return the values of the columns `CERTAINTY`."""
    value, delta = cell.estimate, cell.difference
    if value is None:
        return [None] * len(CERTAINTY)
    deviation = value.deviation if value.source == "seeds" else None
    found: list[csv_text.Cell] = [len(cell.values), deviation, *(value.interval() or (None, None))]
    found.append(value.source if value.error is not None else None)
    if delta is None:
        return [*found, *[None] * (len(CERTAINTY) - len(found))]
    source = delta.source if delta.error is not None else None
    found += [delta.value, delta.n, *(delta.interval() or (None, None)), delta.p(), source]
    if not cell.comparisons or not cell.is_comparison:
        return [*found, *[None] * (len(CERTAINTY) - len(found))]
    return [*found, cell.comparisons, *(delta.interval(cell.comparisons) or (None, None)), delta.p(cell.comparisons)]
