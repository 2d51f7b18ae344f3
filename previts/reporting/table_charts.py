"""The charts of the tables: the numbers of arms with their intervals, and next to the paper's where they are a curve.

Tables 6b and 6c and figure 1 of the appendix of PreViTS are curves; the arms of other tables are dots. Writes no files.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from previts.reporting import figures
from previts.reporting.comparisons import TableCell
from previts.reporting.contents import TableChart
from previts.reporting.figures import Points
from previts.reporting.inputs import short
from previts.reporting.metrics import Metric
from previts.reporting.numbers import Table

# The tables whose rows are values of one setting, and how their charts name it.
SETTINGS = {"6b": "mu", "6b-video": "mu", "6c": "lambda", "6c-video": "lambda"}
SHARES = "a1"  # rows ARM/PERCENT
# Okabe and Ito's green and vermilion, as a page shows better and worse.
DOTS = {"up": "#009e73", "down": "#d55e00", "same": "#7f7f7f"}


def table_charts(table: Table) -> list[TableChart]:
    """Return the charts of a table, one for each main number that at least two arms have."""
    found = []
    for place, metric in enumerate(table.metrics):
        cells = [cells[place] for _, cells in table.rows]
        if metric.is_main and sum(_is_known(cell) for cell in cells) > 1:
            if table.name in SETTINGS:
                chart = _setting(table.name, metric, cells)
            elif table.name == SHARES:
                chart = _shares(table.name, metric, cells)
            else:
                chart = _dots(table, metric, cells)
            found += [chart] if chart else []
    return found


def _is_known(cell: TableCell) -> bool:
    return cell.value is not None and math.isfinite(cell.value)


def _setting(table: str, metric: Metric, cells: Sequence[TableCell]) -> TableChart | None:
    """Return the curve of a number over a setting, above the paper's."""
    name = SETTINGS[table]
    placed = [(_number(cell.row.name.partition("=")[2]), cell) for cell in cells]
    if any(place is None for place, _ in placed):
        return None
    known = sorted(((place, cell) for place, cell in placed if place is not None), key=lambda item: item[0])
    reported = [(place, cell.paper) for place, cell in known if cell.paper is not None]
    paper = Points([place for place, _ in reported], [value for _, value in reported], []) if reported else None
    svg = figures.interval_curves({0: _points(known)}, f"{table} {metric.key}", name, paper, unit=_unit(metric))
    return TableChart(
        metric.label,
        f"Over {name}; below, the curve of the paper. Each panel has a scale of its own.",
        _described(metric, [(f"{name} {place:g}", cell) for place, cell in known]),
        Markup(svg),  # safe: drawn only from numbers and names of settings
        [],
    )


def _shares(table: str, metric: Metric, cells: Sequence[TableCell]) -> TableChart | None:
    """Return a curve of each arm over the share of the videos."""
    arms: dict[str, list[tuple[float, TableCell]]] = {}
    for cell in cells:
        arm, _, percent = cell.row.name.removeprefix(f"{table}/").rpartition("/")
        place = _number(percent)
        if place is None:
            return None
        arms.setdefault(arm, []).append((place, cell))
    curves = {number: _points(sorted(known, key=lambda item: item[0])) for number, known in enumerate(arms.values())}
    svg = figures.interval_curves(curves, f"{table} {metric.key}", "% of the videos", unit=_unit(metric))
    return TableChart(
        metric.label,
        "Over the share of the videos that the encoder was trained on.",
        _described(metric, [(cell.row.title, cell) for cell in cells]),
        Markup(svg),  # safe: drawn only from numbers
        [short(known[0][1].row.title.partition(",")[0], 60) for known in arms.values()],
    )


def _dots(table: Table, metric: Metric, cells: Sequence[TableCell]) -> TableChart:
    """Return the arms as dots with intervals."""
    points = _points(list(enumerate(cells)))
    titles = [short(cell.row.title, 60) for cell in cells]
    colours = [DOTS[cell.verdict] for cell in cells]
    for place in table.baselines:
        colours[place] = figures.INK
    values = {cells[place].value for place in table.baselines}
    reference = values.pop() if len(values) == 1 else None
    svg = figures.interval_dots(points, titles, colours, f"{table.name} {metric.key}", reference)
    return TableChart(
        metric.label,
        "",
        _described(metric, list(zip(titles, cells, strict=True))),
        Markup(svg),  # safe: matplotlib escapes the titles
        [],
    )


def _points(placed: Sequence[tuple[float, TableCell]]) -> Points:
    values = [cell.value if cell.value is not None else math.nan for _, cell in placed]
    halves = [cell.half_width if cell.half_width is not None else math.nan for _, cell in placed]
    return Points([place for place, _ in placed], values, halves)


def _unit(metric: Metric) -> str:
    return ", %" if metric.unit == "percent" else ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _described(metric: Metric, named: Sequence[tuple[str, TableCell]]) -> str:
    """Return the numbers of a chart as text."""
    parts = []
    for name, cell in named:
        if cell.value is not None:
            half = f" ± {metric.show(cell.half_width)}" if cell.half_width is not None else ""
            parts.append(f"{short(name, 60)} {metric.show(cell.value)}{half}")
    return f"{metric.label}: {'; '.join(parts)}"
