"""Oracle: the number of cells of each line, read back."""

import re

from report_world import (
    World,
)


def test_markdown_tables_are_rectangular(world: World) -> None:
    widths: list[list[int]] = []
    previous = ""
    for line in world.markdown.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                widths.append([])
            widths[-1].append(len(re.findall(r"(?<!\\)\|", line)))
        previous = line
    assert len(widths) == 7  # table 1 in three parts, table 6b, the crawl, its tubes, what differs
    assert all(len(set(width)) == 1 for width in widths)
    assert "31.2 / paper 68.3" in world.markdown
    assert "**34.5** (+3.2) / paper 73.0" in world.markdown
