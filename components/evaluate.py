"""Measure one checkpoint on one benchmark."""

from kfp import dsl

from components._images import TRAIN_IMAGE


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
def evaluate(
    row: str,
    benchmark: str,
    checkpoint: str,
    data: str,
    root: str,
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    profile: str = "paper",
    set: list[str] = [],
    processes: int = 1,
) -> str:
    """See `previts.stages.evaluate`, which a process of its own runs, and `previts.flow.measure`."""
    from previts import addresses, cli, flow, storage

    with cli.readable_errors(), open(summary.path, "w") as page:
        uri = flow.measure(row, benchmark, checkpoint, data, root, profile, set, int(processes))
        page.write(addresses.describe(uri))
        metrics.metadata.update(storage.read_manifest(uri).counts)
    return uri
