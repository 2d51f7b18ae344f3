"""Write the page that compares the rows."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def report(
    rows: list[str],
    index: str,
    results: list[str],
    root: str,
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    profile: str = "paper",
    set: list[str] = [],
) -> str:
    """See `previts.stages.report`."""
    from previts import cli, stages, storage

    with cli.readable_errors(), open(page.path, "wb") as html, open(summary.path, "wb") as markdown:
        uri = stages.report(rows, index, results, root, profile, set)
        html.write(storage.read_bytes(storage.join(uri, "report.html")))
        markdown.write(storage.read_bytes(storage.join(uri, "report.md")))
    return uri
