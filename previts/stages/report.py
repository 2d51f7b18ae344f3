"""The verb `report`, which writes the page that compares rows."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from previts.config import paper
from previts.errors import InputError
from previts.processes import prefetch
from previts.stages.addresses import FORMATS, checkpoint_address, crawls_of, index_dataset, trained_on, videos_of
from previts.stages.checks import check_lineage
from previts.stages.outputs import done, exclusive, finished
from previts.storage import files, folders

if TYPE_CHECKING:
    from previts.reporting.generations import Generation
    from previts.reporting.inputs import ReportRow


@exclusive
def report(
    rows: Sequence[str],
    index: Sequence[str],
    results: Sequence[str],
    root: str,
    profile: str = "paper",
    set: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
) -> str:
    """Write the page that compares rows: numbers next to the paper's, training curves, tubes and attention maps.

    Args:
        rows: Rows, tables or groups of tables to show, such as 1/vgg/previts, 6b or 6.
        index: URI that `index` returned, and ROW:URI for each row or table that was trained on another index.
        results: URIs that `evaluate` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change: the same values that `pretrain` was given, without the seed.
        seeds: Seeds that each row was pretrained with.

    Returns:
        URI of a folder with report.html, report.md, report.csv and, if there are attention maps, result.png. The page
        is also copied to ROOT/report.html.
    """
    shown = paper.expand(rows)
    paper.check_seeds(seeds, set)
    if not results:
        raise InputError("no results were given; run `previts evaluate` and pass the URIs that it prints to --results")
    main, index_of = _indexes(index, shown)
    trained: dict[str, list[str]] = {}
    for row in shown:
        for seed in seeds:
            plan = paper.resolve(row.name, profile, paper.with_seed(set, seed))
            check_lineage(row.name, plan, index_of[row.name])
            trained.setdefault(row.name, []).append(checkpoint_address(plan, index_of[row.name], root))
    every = list(dict.fromkeys(uri for uris in trained.values() for uri in uris))
    earlier = _earlier(main, root, profile)
    decided: dict[str, Any] = {
        "rows": [row.name for row in shown],
        "seeds": list(seeds),
        "checkpoints": [
            [[folders.fingerprint_of(uri, "checkpoints"), folders.is_committed(uri)] for uri in trained[row.name]]
            for row in shown
        ],
        "results": sorted({finished(result, "results") for result in results}),
        "leak_sets": _leak_sets(main),
        "profile": profile,
        **({"earlier": [folders.fingerprint_of(uri, "report") for uri in earlier]} if earlier else {}),
        "format": FORMATS["report"],
    }
    if stale := _stale(every, root):
        decided["withdrawn"] = stale
    uri = folders.address(root, "report", "comparison", decided)
    page = files.join(files.absolute(root), "report.html")
    if folders.is_committed(uri) and not files.exists(files.join(uri, "report.html")):
        files.delete(files.join(uri, folders.MANIFEST))  # `previts withdraw --purge` left the numbers only
    if not done(uri):
        from previts.reporting.generations import read_numbers
        from previts.reporting.inputs import ReportRow, Seed
        from previts.reporting.page import CSV, HTML, build_report
        from previts.reporting.turnover import read_generations
        from previts.runlog import run_log

        compared = [
            ReportRow(
                name=row.name,
                title=row.title,
                checkpoint=trained[row.name][0],
                fingerprint=folders.fingerprint_of(trained[row.name][0], "checkpoints"),
                reported=row.reported,
                withdrawn=tuple(
                    dict.fromkeys(
                        video
                        for uri in trained[row.name]
                        for video in stale.get(folders.fingerprint_of(uri, "checkpoints"), ())
                    )
                ),
                seeds=tuple(
                    Seed(seed, uri, folders.fingerprint_of(uri, "checkpoints"))
                    for seed, uri in zip(seeds, trained[row.name], strict=True)
                ),
            )
            for row in shown
        ]
        grown = read_generations(earlier, main)
        counts = build_report(
            list(results), uri, compared, cited=paper.CITED, profile=profile, index=main, generations=grown
        )
        data = index_dataset(main)
        run_log.log_report(
            root, group=videos_of(main), report=uri, name=_name(data.name, len(shown), len(seeds)), index=data
        )
        grown[-1] = replace(grown[-1], numbers=read_numbers(uri))
        _log_generations(root, grown, compared, videos_of(main))
        inputs = {f"index{number or ''}": found for number, found in enumerate(dict.fromkeys(index_of.values()))}
        inputs |= {f"result{number}": result for number, result in enumerate(results)}
        inputs |= {f"earlier{number}": report for number, report in enumerate(earlier)}
        folders.commit(uri, decided, inputs=inputs, counts=counts, files=[HTML, CSV])
    files.sweep(root, deep=False)
    content = folders.read_file(uri, "report.html")
    if not files.exists(page) or files.read_bytes(page) != content:  # a finished root may be read-only
        files.write_bytes(page, content)
    print(f"The report is at {page}", file=sys.stderr)
    return uri


def _indexes(given: Sequence[str], rows: Sequence[paper.Row]) -> tuple[str, dict[str, str]]:
    """Return the first index, and the index of each row.

    Raises:
        InputError: If no index or two of them are given for a row, or a row or table is unknown or is not shown.
    """
    scoped: dict[str, str] = {}
    for text in [given] if isinstance(given, str) else given:
        name, uri = _scope(text)
        if name and not any(name in (row.name, row.table) for row in rows):
            shown = ", ".join(row.name for row in rows)
            raise InputError(f"--index {text}: the report shows no row of {name}; its rows are {shown}")
        if scoped.setdefault(name, uri) != uri:
            raise InputError(f"--index has two indexes for {name or 'all rows'}: {scoped[name]} and {uri}; give one")
    found = {}
    for row in rows:
        uri = next((scoped[name] for name in (row.name, row.table, "") if name in scoped), "")
        if not uri:
            raise InputError(f"--index has no index for row {row.name}; give a URI for all rows, or {row.name}:URI")
        found[row.name] = uri
    return scoped.get("", next(iter(found.values()))), found


def _scope(text: str) -> tuple[str, str]:
    """Return the row or table of an index, or "", and its URI; a path may contain colons."""
    scope, colon, rest = text.partition(":")
    if scope in paper.ROWS or scope in paper.TABLES:
        return scope, rest
    if colon and not rest.startswith("//") and not folders.is_committed(text):
        paper.find_row(scope)
    return "", text


def _name(corpus: str, rows: int, seeds: int) -> str:
    """Return the name of the parent run of a report."""
    size = f"{rows} row{'s' * (rows > 1)} × {seeds} seed{'s' * (seeds > 1)}"  # noqa: RUF001 (a multiplication sign)
    return f"previts · {corpus} · {date.today()} · {size}"


def _log_generations(root: str, grown: Sequence["Generation"], rows: Sequence["ReportRow"], group: str) -> None:
    """Add to the runs of a corpus and of its rows to which generation they belong, and all numbers over generations."""
    from previts.reporting import generations
    from previts.runlog import run_log

    last = grown[-1]
    tags = {"previts.generation": str(last.number), "previts.index": last.fingerprint}
    if len(grown) > 1:
        tags["previts.previous_index"] = grown[-2].fingerprint
    run_log.log_generations(root, tags, generations.corpus_points(grown), group=group)
    rows_of: dict[str, list[str]] = {}  # by the fingerprint of each checkpoint, which several rows may share
    for row in rows:
        for seed in row.all_seeds:
            if folders.is_committed(seed.checkpoint):
                rows_of.setdefault(seed.fingerprint, []).append(row.name)
    for fingerprint, names in rows_of.items():
        points = generations.trial_points(grown, names)
        run_log.log_generations(root, tags, points, fingerprint=fingerprint, rows=names)


def _earlier(index: str, root: str, profile: str) -> list[str]:
    """Return the reports of earlier generations of a corpus, oldest first; each has a part of the next one's crawls.

    Of several reports on the same crawls, it is the one with the most results; a purged one has its numbers only and
    counts if there is no other.
    """
    folder = files.join(files.absolute(root), "report")

    def read(name: str) -> tuple[int, bool, int, str, str, set[str]] | None:
        uri = files.join(folder, name)
        try:
            manifest = folders.read_manifest(uri)
            crawls = crawls_of(manifest.inputs["index"])
        except (InputError, KeyError):  # unfinished, or its corpus was deleted
            return None
        if manifest.decided.get("profile") != profile:
            return None
        is_whole = files.exists(files.join(uri, "report.html"))
        return len(crawls), is_whole, len(manifest.decided.get("results", [])), manifest.fingerprint, uri, crawls

    found = filter(None, prefetch.requested(files.names(folder), read))
    chain, later = [], crawls_of(index)
    for *_, uri, crawls in sorted(found, key=lambda item: item[:4], reverse=True):
        if crawls < later:
            chain.append(uri)
            later = crawls
    return chain[::-1]


def _stale(checkpoints: Sequence[str], root: str) -> dict[str, list[str]]:
    """Return the withdrawn videos that finished checkpoints were trained on, by the fingerprint of the checkpoint.

    Without the videos of an index this is not known, so its checkpoints are left out.
    """
    from previts.corpus import withdrawals

    finished_ones = [uri for uri in dict.fromkeys(checkpoints) if folders.is_committed(uri)]
    ledger = withdrawals.read_for(*finished_ones, root=root)
    if not ledger:
        return {}
    from previts.corpus.withdrawn_videos import withdrawn_in

    known: dict[str, list[str]] = {}
    stale = {}
    for uri in finished_ones:
        inside: set[str] = set()
        for index in trained_on(uri):
            if index not in known:
                try:
                    known[index] = withdrawn_in(index, ledger)
                except InputError:
                    known[index] = []
            inside.update(known[index])
        if inside:
            stale[folders.read_manifest(uri).fingerprint] = sorted(inside)
    return stale


def _leak_sets(index: str) -> dict[str, str]:
    """Return the labelled sets that an index was compared with, which its fingerprint does not tell."""
    info = folders.read_manifest(index).info if folders.is_committed(index) else {}
    return {name: known["held_out"] for name, known in info.get("leak_sets", {}).items()}
