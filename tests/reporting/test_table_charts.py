"""Oracles: the positions of the marks in the SVG, and the numbers of the arms."""

import re

import numpy as np
import pytest
from report_world import EVIL, SeededArm, World, make_seeded

from previts.reporting import figures
from previts.reporting.figures import Points

MAP = "voc07/map"


def marks(svg: str, colour: str) -> list[tuple[float, float]]:
    """The places of the marks of a colour, as (across, down)."""
    found = re.findall(rf'<use [^>]*x="([-\d.]+)" y="([-\d.]+)" style="fill: {colour}', svg)
    return [(float(x), float(y)) for x, y in found]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The points of all lines."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)] for path in paths]


def test_a_curve_and_its_intervals_are_to_scale():
    points, paper = (
        Points([0.0, 0.2, 0.4], [10.0, 30.0, 20.0], [2.0, 4.0, 1.0]),
        Points([0.0, 0.2, 0.4], [1.0, 2.0, 5.0], []),
    )
    svg = figures.interval_curves({0: points}, "name", "mu", paper)
    curve, below = [line for line in lines(svg) if len(line) == 3]
    down = np.array([y for _, y in curve])
    scale = (down[0] - down[1]) / 20  # of one unit; down is positive
    assert down[0] - down[2] == pytest.approx(10 * scale, abs=0.01)
    bars = [
        line
        for line in lines(svg)
        if len(line) == 2 and line[0][0] == line[1][0] and line[0][0] in [x for x, _ in curve]
    ]
    heights = sorted(abs(bar[0][1] - bar[1][1]) for bar in bars if len({y for _, y in bar}) == 2)
    assert [height / scale for height in heights if height / scale < 9] == pytest.approx([2.0, 4.0, 8.0], abs=0.01)
    # The paper's curve has the same places and a scale of its own.
    assert [x for x, _ in below] == pytest.approx([x for x, _ in curve])
    assert (below[0][1] - below[2][1]) / (below[0][1] - below[1][1]) == pytest.approx(4, abs=0.01)
    assert min(y for _, y in below) > max(y for _, y in curve)


def test_dots_are_below_each_other_at_their_values():
    points = Points([0, 1, 2], [50.0, float("nan"), 60.0], [1.0, float("nan"), float("nan")])
    colours = [figures.INK, "#009e73", "#d55e00"]
    svg = figures.interval_dots(points, ["first", EVIL, "$x^2$ & co"], colours, "name", 50.0)
    assert "&lt;script&gt;" in svg
    assert "<script" not in svg
    assert "$x^2$ &amp; co" in svg
    assert figures.INK not in svg
    (left, right) = next(line for line in lines(svg) if len(line) == 2 and line[0][1] == line[1][1])  # the interval
    (last,) = marks(svg, "#d55e00")
    first = ((left[0] + right[0]) / 2, left[1])
    assert first in [(pytest.approx(x), y) for x, y in marks(svg, "currentColor")]
    assert (last[0] - first[0]) / (right[0] - left[0]) == pytest.approx(10 / 2, abs=1e-3)
    assert last[1] > first[1]
    assert marks(svg, "#009e73") == []  # not measured


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    random, arms = np.random.default_rng(0), []

    def numbers(mean: float) -> dict[int, dict[str, float | None] | None]:
        return {seed: {MAP: mean + random.standard_normal()} for seed in range(3)}

    arms += [SeededArm(f"6b/mu={mu}", numbers(40 + 9 * mu), {MAP: 70 + mu}, f"mu = {mu}") for mu in (0.0, 0.2, 0.4)]
    arms += [SeededArm("6b-video/mu=0.0", numbers(40), {}), SeededArm("6c/lambda=0.0", numbers(40), {})]
    arms += [SeededArm(f"6c/lambda={weight}", numbers(40 + weight), {}) for weight in (2.0, 3.0)]
    arms += [
        SeededArm(f"a1/{arm}/{n}", numbers(n / 4), {}, f"{arm.upper()}, {n}%")
        for arm in ("moco", "x")
        for n in (25, 100)
    ]
    arms += [SeededArm(f"6a/{name}", numbers(40), {}, name) for name in ("one", EVIL)]
    return make_seeded(tmp_path_factory.mktemp("charts"), arms)


def chart(world: World, table: str) -> str:
    """The HTML of the charts of a table."""
    start = world.html.index(f"<h3>{table}</h3>")
    end = world.html.find("<h3>", start + 4)
    return "".join(re.findall(r"<figure.*?</figure>", world.html[start:end], flags=re.DOTALL))


def test_a_setting_is_a_curve_above_that_of_the_paper(world: World):
    found = chart(world, "Table 6b")
    assert "Over mu; below, the curve of the paper." in found
    assert [len(line) for line in lines(found)].count(3) == 2
    assert re.search(r'aria-label="VOC07 mAP: mu 0 4\d\.\d ± \d+\.\d; mu 0\.2 4\d\.\d ± \d+\.\d; mu 0\.4 ', found)
    assert [len(line) for line in lines(chart(world, "Table 6c"))].count(3) == 1  # the paper has no numbers here
    assert chart(world, "Table 6b-video") == ""  # of one arm


def test_the_share_of_the_videos_is_a_curve_for_each_arm(world: World):
    found = chart(world, "Figure A1 (appendix)")
    assert re.findall(r"</svg>\s*([A-Z]+) ", found) == ["MOCO", "X"]
    curves = [line for line in lines(found) if len(line) == 2 and abs(line[0][0] - line[1][0]) > 100]
    rising = [line for line in curves if line[0][1] > line[1][1] + 50]
    assert len(rising) == 2


def test_the_arms_of_other_tables_are_dots(world: World):
    found = chart(world, "Table 6a")
    assert found.count("<figure") == 1
    assert ">one</text>" in re.sub(r"<text[^>]*>", "<text>", found)
    assert "<script" not in found
    assert re.search(r'aria-label="VOC07 mAP: one \d+\.\d ± \d+\.\d; &lt;script', found)


def test_charts_follow_the_colours_of_the_page_and_load_nothing(world: World):
    found = "".join(chart(world, table) for table in ("Table 6a", "Table 6b", "Figure A1 (appendix)"))
    assert "currentColor" in found
    assert not re.search(r"url\(|https?://|#000000", found)
