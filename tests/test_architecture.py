"""The limits of the code layout, see docs/architecture.md. import-linter checks the layers (`make lint`)."""

import re
import statistics
from collections import Counter
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("previts", "components", "pipelines", "torchx_plugins")
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def longest_chain(graph: grimp.ImportGraph) -> list[str]:
    """Return the longest chain of modules that import each other; fails if there is a cycle."""
    waiting: list[str] = []

    @cache
    def below(module: str) -> tuple[str, ...]:
        assert module not in waiting, f"these modules import each other: {waiting[waiting.index(module) :]}"
        waiting.append(module)
        chains = [below(imported) for imported in sorted(graph.find_modules_directly_imported_by(module))]
        waiting.pop()
        return (module, *max(chains, key=len, default=()))

    return list(max((below(module) for module in sorted(graph.modules)), key=len))


@pytest.mark.parametrize(("packages", "limit"), [(("previts",), 14), (("previts", "components", "pipelines"), 17)])
def test_import_chains_are_short_and_have_no_cycle(packages: tuple[str, ...], limit: int):
    chain = longest_chain(grimp.build_graph(*packages, cache_dir=None))
    assert len(chain) <= limit, " -> ".join(chain)


def test_a_cycle_is_found():
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b")):
        graph.add_import(importer=importer, imported=imported)
    with pytest.raises(AssertionError, match=r"import each other: \['b', 'c'\]"):
        longest_chain(graph)


def test_folders_hold_at_most_fifteen_files():
    counts = Counter(path.parent for path in FILES)
    assert {str(folder): count for folder, count in counts.items() if count > 15} == {}


def test_files_are_short():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {str(path): count for path, count in lines.items() if count > 400} == {}
    assert statistics.median(lines.values()) <= 150


def test_only_one_module_writes_csv_files():
    """The others would write texts of strangers that a spreadsheet runs as formulas (`storage/csv_text.py`)."""
    writers = [path for path in FILES if re.search(r"csv\.(Dict)?[wW]riter\b|\.to_csv\(\)", path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in writers] == ["previts/storage/csv_text.py"]
