"""The verb `report`, which writes the page that compares rows."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from previts.config import paper
from previts.config.experiment import Plan
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
    rows: Sequence[str], index: str, results: Sequence[str], root: str, profile: str = "paper", set: Sequence[str] = ()
) -> str:
    """Write the page that compares rows: numbers next to the paper's, training curves, tubes and attention maps.

    Args:
        rows: Names of rows or tables to show, such as 1/vgg/previts or 6b.
        index: URI that `index` returned.
        results: URIs that `evaluate` returned.
        root: Folder or bucket prefix of all results.
        profile: Size of the run: paper or demo.
        set: Settings to change: the same values that `pretrain` was given.

    Returns:
        URI of a folder with report.html, report.md, report.csv and, if there are attention maps, result.png. The page
        is also copied to ROOT/report.html.
    """
    shown = paper.expand(rows)
    if not results:
        raise InputError("no results were given; run `previts evaluate` and pass the URIs that it prints to --results")
    trained, plans = [], []
    for row in shown:
        plan = paper.resolve(row.name, profile, set)
        check_lineage(row.name, plan, index)
        trained.append(checkpoint_address(plan, index, root))
        plans.append(plan)
    earlier = _earlier(index, root, profile)
    decided: dict[str, Any] = {
        "rows": [row.name for row in shown],
        "checkpoints": [[folders.fingerprint_of(uri, "checkpoints"), folders.is_committed(uri)] for uri in trained],
        "results": sorted({finished(result, "results") for result in results}),
        "leak_sets": _leak_sets(index),
        "profile": profile,
        **({"earlier": [folders.fingerprint_of(uri, "report") for uri in earlier]} if earlier else {}),
        "format": FORMATS["report"],
    }
    if stale := _stale(trained, root):
        decided["withdrawn"] = stale
    uri = folders.address(root, "report", "comparison", decided)
    page = files.join(files.absolute(root), "report.html")
    if folders.is_committed(uri) and not files.exists(files.join(uri, "report.html")):
        files.delete(files.join(uri, folders.MANIFEST))  # `previts withdraw --purge` left the numbers only
    if not done(uri):
        from previts.reporting.generations import read_numbers
        from previts.reporting.inputs import ReportRow
        from previts.reporting.page import CSV, HTML, build_report
        from previts.reporting.turnover import read_generations
        from previts.runlog import run_log

        compared = [
            ReportRow(
                name=row.name,
                title=row.title,
                checkpoint=uri,
                fingerprint=folders.fingerprint_of(uri, "checkpoints"),
                reported=row.reported,
                withdrawn=tuple(stale.get(folders.fingerprint_of(uri, "checkpoints"), ())),
            )
            for row, uri in zip(shown, trained, strict=True)
        ]
        grown = read_generations(earlier, index)
        counts = build_report(
            list(results), uri, compared, cited=paper.CITED, profile=profile, index=index, generations=grown
        )
        data = index_dataset(index)
        run_log.log_report(root, group=videos_of(index), report=uri, name=_name(data.name, plans), index=data)
        grown[-1] = replace(grown[-1], numbers=read_numbers(uri))
        _log_generations(root, grown, compared, videos_of(index))
        inputs = {"index": index, **{f"result{number}": result for number, result in enumerate(results)}}
        inputs |= {f"earlier{number}": report for number, report in enumerate(earlier)}
        folders.commit(uri, decided, inputs=inputs, counts=counts, files=[HTML, CSV])
    files.sweep(root, deep=False)
    content = folders.read_file(uri, "report.html")
    if not files.exists(page) or files.read_bytes(page) != content:  # a finished root may be read-only
        files.write_bytes(page, content)
    print(f"The report is at {page}", file=sys.stderr)
    return uri


def _name(corpus: str, plans: Sequence[Plan]) -> str:
    """Return the name of the parent run of a report."""
    rows, seeds = len(plans), len({plan.experiment.seed for plan in plans})
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
    for fingerprint in dict.fromkeys(row.fingerprint for row in rows if folders.is_committed(row.checkpoint)):
        names = [row.name for row in rows if row.fingerprint == fingerprint]
        of_arm = {**tags, "rows": " ".join(names)}
        run_log.log_generations(root, of_arm, generations.arm_points(grown, names), fingerprint=fingerprint)


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
