"""The verb `report`, which writes the page that compares rows."""

import sys
from collections.abc import Sequence

from previts.config import paper
from previts.errors import InputError
from previts.stages.addresses import FORMATS, checkpoint_address
from previts.stages.checks import check_lineage
from previts.stages.outputs import done, exclusive, finished
from previts.storage import files, folders


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
    trained = []
    for row in shown:
        plan = paper.resolve(row.name, profile, set)
        check_lineage(row.name, plan, index)
        trained.append(checkpoint_address(plan, index, root))
    decided = {
        "rows": [row.name for row in shown],
        "checkpoints": [[folders.fingerprint_of(uri, "checkpoints"), folders.is_committed(uri)] for uri in trained],
        "results": sorted({finished(result, "results") for result in results}),
        "leak_sets": _leak_sets(index),
        "profile": profile,
        "format": FORMATS["report"],
    }
    uri = folders.address(root, "report", "comparison", decided)
    page = files.join(files.absolute(root), "report.html")
    if not done(uri):
        from previts.reporting.inputs import ReportRow
        from previts.reporting.page import HTML, build_report
        from previts.runlog import run_log

        compared = [
            ReportRow(
                name=row.name,
                title=row.title,
                checkpoint=uri,
                fingerprint=folders.fingerprint_of(uri, "checkpoints"),
                reported=row.reported,
            )
            for row, uri in zip(shown, trained, strict=True)
        ]
        counts = build_report(list(results), uri, compared, cited=paper.CITED, profile=profile, index=index)
        run_log.log_report(root, group=folders.fingerprint_of(index, "index"), report=uri)
        inputs = {"index": index, **{f"result{number}": result for number, result in enumerate(results)}}
        folders.commit(uri, decided, inputs=inputs, counts=counts, files=[HTML])
    files.sweep(root, deep=False)
    content = folders.read_file(uri, "report.html")
    if not files.exists(page) or files.read_bytes(page) != content:  # a finished root may be read-only
        files.write_bytes(page, content)
    print(f"The report is at {page}", file=sys.stderr)
    return uri


def _leak_sets(index: str) -> dict[str, str]:
    """Return the labelled sets that an index was compared with, which its fingerprint does not tell."""
    info = folders.read_manifest(index).info if folders.is_committed(index) else {}
    return {name: known["held_out"] for name, known in info.get("leak_sets", {}).items()}
